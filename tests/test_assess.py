"""A model on a set of images: numbers, tables and figures of each head, by one process or two."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LEARNED, assess_rows, untrained
from PIL import Image
from processes import in_two_processes

import data
import evaluate
import machine
import visualize
from dataset import table as tables_of_data
from dataset.table import LABEL_ONLY
from measure import numbers as scoring
from measure import tables
from measure.assess import assess, collect_calls
from measure.calibrate import calibrate
from measure.figures import Figures
from report.folder import RunFolder
from report.results import publish


def test_everything_is_written_and_drawn(measured):
    written = measured[-1]
    tables = {"metrics.json", "predictions.csv", "per_image.csv", "per_image_native.csv"}
    figures = (
        "confusion_matrix confusion_matrix_balanced roc_and_precision_recall reliability risk_coverage confident_errors"
    )
    figures += " heat_maps masks dice_by_class net_benefit"
    assert {path.name for path in written.iterdir()} == tables | {f"{name}.png" for name in figures.split()}
    assert all((written / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in figures.split())


def test_metrics_json_is_plain_json_without_nan(measured):
    text = (measured[-1] / "metrics.json").read_text()
    assert "NaN" not in text and json.loads(text)["data"] == "synthetic demo data"


def test_images_without_a_mask_count_for_labels_alone(measured):
    rows = measured[1].table.copy()
    rows.loc[rows.index[::2], "status"] = LABEL_ONLY
    found = assess_rows(measured, rows)
    assert found["label"]["n_images"] == len(rows) and found["mask"]["n_images"] == len(rows) // 2


def test_each_head_is_measured_on_the_images_that_have_its_target(measured):
    """Numbers, tables, subgroups and the console; every second image has no label, and ten have no mask."""
    rows = measured[1].table.copy()
    rows.loc[rows.index[::2], "label"] = None
    rows.loc[rows.index[:10], "status"] = LABEL_ONLY
    found, written = assess_rows(measured, rows), measured[-1].with_name("some")
    labelled, masked = rows[rows["label"].notna()], rows[rows["status"] != LABEL_ONLY]
    assert list(pd.read_csv(written / "predictions.csv")["image"]) == list(labelled["image"])
    assert list(pd.read_csv(written / "per_image.csv")["image"]) == list(masked["image"])
    assert (found["label"]["n_images"], found["mask"]["n_images"]) == (len(labelled), len(masked))
    assert found["label"]["accuracy"] == measured_accuracy(measured, labelled["image"])
    tested = scoring.tested_points(found)
    assert {tested[name]["n_images"] for name in ("melanoma", "malignant")} == {len(labelled)}
    women, men = (group for group in found["subgroups"] if group["group"] == "sex")  # in turn, from the first row on
    assert women["n_labels"] == 0 and women["accuracy"] is None
    assert "n_labels" not in men and men["accuracy"] == found["label"]["accuracy"]
    assert [group["n_masks"] for group in (women, men)] == [(masked["sex"] == sex).sum() for sex in ("female", "male")]
    shown = tables.console_table("a", found)
    assert f"{len(labelled)} images with a label" in shown and f"{len(masked)} images with a mask" in shown


def measured_accuracy(measured, images):
    """By the table that was written of all images."""
    table = pd.read_csv(measured[-1] / "predictions.csv").set_index("image").loc[images]
    return pytest.approx((table["predicted"] == table["true"]).mean())


TABLES = ("predictions.csv", "per_image.csv", "per_image_native.csv")


def measure(place, folder):
    """In each of two processes: of all images, and of one, which leaves nothing for the second process."""
    machine.join_processes(torch.device("cpu"))
    assert machine.n_ranks() == 2
    visualize.png, rank = lambda *_: b"not drawn", machine.rank()  # as one process has drawn them
    model, batches = untrained(folder, place / "cache")
    calibration = calibrate(model, batches, "fp32", LEARNED)
    found = assess(model, batches, calibration, "multitask")
    publish(RunFolder(place / f"of{rank}", "synthetic demo data"), found, "multitask")
    one = data.Batches(batches.pixels, batches.table.iloc[:1], 16)
    calibration_of_one = calibrate(model, one, "fp32", LEARNED)
    alone = assess(model, one, calibration_of_one, "multitask")
    publish(RunFolder(place / f"one{rank}"), alone, "multitask")
    assert (found is None) == (alone is None) == (not (place / f"of{rank}").exists()) == (rank > 0)
    found, alone = found and found.numbers, alone and alone.numbers
    (place / f"rank{rank}.json").write_text(json.dumps({"calibration": calibration, "found": found, "alone": alone}))


def numbers_in(nested):
    """All values of nested dicts and lists, in order; None as NaN."""
    if isinstance(nested, dict | list):
        return [n for value in (nested.values() if isinstance(nested, dict) else nested) for n in numbers_in(value)]
    return [np.nan if nested is None else nested]


def test_two_processes_measure_what_one_does_and_the_first_writes_it(measured, demo_folder, tmp_path):
    if measured[1].device.type != "cpu":
        pytest.skip("the two processes measure on the CPU")
    assert [done.returncode for done in in_two_processes(measure, tmp_path, demo_folder)] == [0, 0]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    _, _, calibration, found, written = measured
    assert second["found"] is None and first["alone"]["n_images"] == 1
    for both in ((first["calibration"], calibration), (second["calibration"], calibration), (first["found"], found)):
        for one, other in zip(*map(numbers_in, both), strict=True):
            assert one == (other if isinstance(other, str) else pytest.approx(other, rel=1e-4, abs=1e-5, nan_ok=True))
    for name in TABLES:
        mine, theirs = (pd.read_csv(folder / name) for folder in (tmp_path / "of0", written))
        pd.testing.assert_frame_equal(mine, theirs, rtol=1e-4, atol=1e-5)


def test_scores_at_the_masks_own_size_are_means_of_their_own_table(whole_run):
    folder = whole_run[0] / "segmentation"
    found = json.loads((folder / "metrics.json").read_text())["mask"]
    small, own = (pd.read_csv(folder / f"{name}.csv") for name in ("per_image", "per_image_native"))
    assert abs(small["dice"] - own["dice"]).max() > 1e-3  # so that one cannot stand for the other
    for table, scores in ((small, found), (own, found["native"])):
        assert scores["mean_dice"] == pytest.approx(table["dice"].mean(), abs=1e-4)
        assert scores["mean_iou"] == pytest.approx(table["iou"].mean(), abs=1e-4)
    for name in ("hd95", "assd"):
        assert found["native"][f"mean_{name}"] == pytest.approx(own[name].mean(), abs=1e-3)


class Ages(torch.nn.Module):
    """Says 50 years of every image."""

    def forward(self, image):
        return {"age": torch.full((len(image),), 50.0)}


@pytest.mark.parametrize("known", [True, False])
def test_a_head_of_one_number_is_assessed_on_the_images_that_have_it_and_left_out_without_any(
    measured, monkeypatch, known
):
    monkeypatch.setitem(evaluate.SCORES, "age", {"error": lambda age, years: (age - years).abs()})
    for module in (data, tables_of_data):
        monkeypatch.setattr(module, "NUMBERS", ("age",))
    rows = measured[1].table.copy()
    rows["age"] = np.resize([40.0, 80.0, np.nan], len(rows)) if known else np.nan
    assessment = assess(Ages(), data.Batches(measured[1].pixels, rows, 16), {}, "age")
    if known:
        ages = assessment.tables["per_image_age"]
        assert list(ages["image"]) == list(rows["image"][rows["age"].notna()])
        assert assessment.numbers["age"]["mean_error"] == pytest.approx((50 - rows["age"].dropna()).abs().mean())
        assert f"age: {ages['error'].mean():.3f} (95 % interval" in tables.console_table("a", assessment.numbers)
    else:
        assert "age" not in assessment.numbers and not assessment.tables
        assert tables.console_table("a", assessment.numbers) == "a"


def test_galleries_have_the_shape_of_the_files_and_say_which_masks_are_best(measured, tmp_path, monkeypatch):
    """Photographs of 600 x 450 are drawn in that shape, though the network's input is square."""
    rows, drawn = measured[1].table.copy(), {}
    Image.new("RGB", (60, 45)).save(tmp_path / "wide.png")
    rows["image_path"] = [str(tmp_path / "wide.png")] * len(rows)
    for name in ("mask_rows", "gallery", "heat_maps"):
        monkeypatch.setattr(visualize, name, lambda *given, name=name: drawn.update({name: given}))
    batches = data.Batches(measured[1].pixels, rows, 16, device=measured[1].device)
    collected = collect_calls(*measured[:3], "fp32")
    figures = Figures(measured[0], batches, collected, "a", "fp32")
    figures.of_masks()
    figures.of_labels()
    assert drawn.keys() == {"mask_rows", "gallery", "heat_maps"}
    for *_, shapes in drawn.values():
        assert shapes and set(shapes) == {0.75}
    titles = drawn["mask_rows"][3]
    ranks = [title.partition(":")[0] for title in titles]
    assert ranks == ["best", "best", "median", "median", "worst", "worst"]
    scores = [float(title.split("Dice ")[1].split("\n")[0]) for title in titles]
    assert scores == sorted(scores, reverse=True)
