"""predict.py on pictures of every kind, with checkpoints of a real run in miniature."""

import csv
import json

import numpy as np
import pytest
from conftest import picture, rows_of, run
from PIL import Image
from processes import Forked, limited

import models
from dataset import opening
from dataset.classes import HAM10000 as CLASSES
from inference import verdict


@pytest.mark.parametrize("task", models.MODELS)
def test_each_checkpoint_writes_what_it_knows(task, checkpoints, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(photos, "--checkpoint", checkpoints[task], "--output-dir", out) == 0
    rows = rows_of(out)
    assert len(rows) == 5
    assert ("predicted" in rows[0], "lesion_share" in rows[0]) == (task != "segmentation", task != "classification")
    assert len(list((out / "overlays").rglob("*.jpg"))) == 5
    assert verdict.NOT_A_DEVICE in capsys.readouterr().out.splitlines()
    for row in rows:
        if task != "segmentation":
            probabilities = [float(row[code]) for code in CLASSES]
            assert sum(probabilities) == pytest.approx(1, abs=1e-3)
            assert float(row[row["predicted"]]) == max(probabilities)
            assert float(row["confidence"]) == max(probabilities)
    masks = list((out / "masks").rglob("*.png"))
    assert len(masks) == (0 if task == "classification" else 5)


def test_masks_have_the_pictures_size_and_two_values(checkpoints, photos, tmp_path):
    run(photos, "--checkpoint", checkpoints["segmentation"], "--output-dir", tmp_path / "out")
    for row, name in zip(rows_of(tmp_path / "out"), ["four.v2", "a/one", "a/three", "a/two", "b/one"]):
        mask = Image.open(tmp_path / "out" / "masks" / f"{name}.png")
        assert mask.size == Image.open(row["file"]).size
        assert set(np.unique(mask)) <= {0, 255}
        assert float(row["lesion_share"]) == pytest.approx((np.array(mask) > 0).mean(), abs=1e-4)


def test_a_turned_photograph_gets_an_upright_mask(checkpoints, tmp_path):
    exif = Image.Exif()
    exif[opening.ORIENTATION] = 6
    picture(0, (60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    run(tmp_path / "turned.jpg", "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "masks" / "turned.png").size == (40, 60)


def test_probabilities_are_those_of_the_test_set(checkpoints, demo_folder, whole_run, tmp_path):
    """The same picture gets the same logits here and in main.py; the checkpoint's temperature calibrates them."""
    outputs, _ = whole_run
    measured = list(csv.DictReader((outputs / "multitask" / "predictions.csv").open()))[:4]
    files = [demo_folder / "images" / f"{row['image']}.jpg" for row in measured]
    run(*files, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out")
    for ours, theirs in zip(rows_of(tmp_path / "out"), measured):
        expected = [float(theirs[code]) for code in CLASSES]
        found = [float(ours[code]) for code in CLASSES]
        assert found == pytest.approx(expected, abs=5e-3)


def test_heat_maps_only_where_they_explain_something(checkpoints, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(photos, "--checkpoint", checkpoints["classification"], "--output-dir", out, "--explain") == 0
    assert len(list((out / "heatmaps").rglob("*.jpg"))) == 5
    assert run(photos, "--checkpoint", checkpoints["segmentation"], "--output-dir", out / "x", "--explain") == 2
    assert "predicts masks only" in capsys.readouterr().err


def test_bad_files_are_reported_and_skipped(checkpoints, photos, tmp_path, capsys):
    (photos / "text.jpg").write_text("no picture")
    (photos / "empty.png").touch()
    whole = (photos / "a" / "one.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    assert run("nowhere*.jpg", photos, "--checkpoint", checkpoints["multitask"], "--output-dir", out) == 1
    errors = capsys.readouterr().err
    for reason in ("text.jpg: not an image", "empty.png: file is empty", "cut.jpg: damaged", "nowhere*.jpg: no such"):
        assert reason in errors
    rows = rows_of(out)
    assert [row["skipped"][:8] for row in rows] == ["no such ", "damaged ", "file is ", "", "not an i", *[""] * 4]
    assert rows[0]["file"] == "nowhere*.jpg" and rows[0]["predicted"] == "" != rows[3]["predicted"]


def test_nothing_to_do_is_an_error(checkpoints, photos, tmp_path, capsys):
    multitask, out = checkpoints["multitask"], tmp_path / "out"
    assert run("nowhere", "--checkpoint", multitask, "--output-dir", out) == 2
    assert run(photos, "--checkpoint", tmp_path / "no.pth", "--output-dir", out) == 2
    assert "No checkpoint at" in capsys.readouterr().err
    (tmp_path / "only.jpg").write_text("no picture")
    assert not out.exists()
    assert run(tmp_path / "only.jpg", "--checkpoint", multitask, "--output-dir", out) == 2
    assert [row["skipped"] != "" for row in rows_of(out)] == [True] and not list(out.glob("*/*"))


def test_a_full_disk_ends_in_one_message(checkpoints, photos, tmp_path):
    flags = [photos, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out"]
    done = Forked(limited, 600, run, *flags).ended()
    assert done.returncode == 2
    assert "Cannot write" in done.stderr and "Traceback" not in done.stderr


def test_what_main_stored_is_what_is_said(checkpoints, photos, tmp_path, capsys, whole_run):
    """The checkpoint's measured sensitivity is the one in the metrics of the same run."""
    found = json.loads((whole_run[0] / "classification" / "metrics.json").read_text())
    point = found["label"]["operating_points"]["malignant"]
    run(photos, "--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out")
    shown = capsys.readouterr().out
    expected = f"malignant: threshold {point['threshold']:.4f}, which found {100 * point['sensitivity']:.0f} %"
    assert f"{expected} of the malignant lesions and excluded {100 * point['specificity']:.0f} %" in shown
    assert f"in the test set ({found['n_images']} images)" in shown


def test_several_checkpoints_are_averaged_and_say_what_they_cannot(checkpoints, photos, tmp_path, capsys):
    names = [("--checkpoint", checkpoints[task]) for task in ("classification", "multitask")]
    alone = []
    for name, path in names:
        out = tmp_path / path.stem
        assert run(photos, name, path, "--output-dir", out) == 0
        alone.append(rows_of(out))
    capsys.readouterr()
    assert run(photos, *names[0], *names[1], "--output-dir", tmp_path / "out", "--explain") == 0
    for ours, a, b in zip(rows_of(tmp_path / "out"), *alone):
        expected = [(float(a[code]) + float(b[code])) / 2 for code in CLASSES]
        assert [float(ours[code]) for code in CLASSES] == pytest.approx(expected, abs=2e-4)
        assert "balanced" not in ours and ours["lesion_share"] == b["lesion_share"]
    assert "Balanced rule unavailable" in capsys.readouterr().out
