import json

import numpy as np
import pandas as pd
import pytest
import torch

import data
import evaluate
import models
from dataset import cache, images
from dataset.table import LABEL_ONLY, read_metadata, read_table
from report import results


@pytest.fixture(scope="module")
def measured(demo_folder, tmp_path_factory):
    """An untrained multi-task model on all demo images, with what `assess` returned and wrote."""
    table, pixels = cache.decode_table(read_table(demo_folder), demo_folder, 64, tmp_path_factory.mktemp("cache"))
    torch.manual_seed(0)
    model = models.MultiTask().eval()
    batches = data.Batches(pixels, table, 16)
    calibration = results.calibrate(model, batches, "fp32")
    written: dict = {}
    metadata = read_metadata(demo_folder)
    options = {"task": "multitask", "precision": "fp32", "note": "synthetic demo data", "metadata": metadata}
    found = results.assess(model, batches, calibration, write=written.__setitem__, **options)
    return model, batches, calibration, found, written


def test_everything_is_written_and_drawn(measured):
    written = measured[-1]
    tables = {"metrics.json", "predictions.csv", "per_image.csv", "per_image_native.csv"}
    figures = "confusion_matrix roc_and_precision_recall reliability risk_coverage confident_errors heat_maps masks"
    figures += " dice_by_class"
    assert set(written) == tables | {f"{name}.png" for name in figures.split()}
    assert all(written[f"{name}.png"].startswith(b"\x89PNG") for name in figures.split())


def test_every_point_estimate_has_an_interval_that_holds_it(measured):
    found = measured[3]

    def check(values, intervals, path=""):
        for name, value in values.items():
            if isinstance(value, dict) and name not in ("heat_map",):
                check(value, intervals[name], f"{path}.{name}")
            elif name not in ("n_images", "support", "temperature", "threshold", "heat_map") and value is not None:
                low, high = intervals[name]
                # The bootstrap of a maximum or a small class may sit beside its point estimate; most must not.
                outside.extend([] if low - 1e-9 <= value <= high + 1e-9 else [f"{path}.{name}"])
                seen.append(name)

    outside, seen = [], []
    for head in ("label", "mask"):
        check(found[head], found["intervals"][head], head)
    assert len(seen) > 150 and len(outside) < 0.05 * len(seen), outside


def test_metrics_json_is_plain_json_without_nan(measured):
    text = measured[-1]["metrics.json"]
    assert "NaN" not in text and json.loads(text)["data"] == "synthetic demo data"


def test_native_overlap_is_measured_at_the_mask_files_size(measured):
    model, batches, *_ = measured
    collected = results.collect(model, batches, "fp32")
    assert (collected["native"].sum(axis=1) == 160 * 120).all()
    assert (collected["mask"].sum(axis=1) == 64 * 64).all()


def test_a_perfect_outline_has_distance_zero_and_overlap_one(tmp_path, demo_folder):
    paths = [demo_folder / "images" / "synthetic_00000.jpg", demo_folder / "masks" / "synthetic_00000_segmentation.png"]
    true = torch.from_numpy(images.read_native_mask(*paths)).float()
    counts, distances = results.native_overlap((true * 2 - 1)[None], *paths)
    assert evaluate.dice(counts) == 1 and distances == (0, 0)


def test_thresholds_reach_their_sensitivity_where_they_were_fitted(measured):
    _, batches, calibration, found, _ = measured
    assert found["label"]["operating_points"]["melanoma"]["threshold"] == calibration["thresholds"]["melanoma"]
    assert found["label"]["operating_points"]["melanoma"]["sensitivity"] >= 0.9
    assert found["label"]["operating_points"]["malignant"]["sensitivity"] >= 0.9
    assert len(batches.table) == found["n_images"]


def test_subgroups_add_up(measured):
    found = measured[3]
    for group in ("sex", "localization"):
        members = [row for row in found["subgroups"] if row["group"] == group]
        assert sum(row["n_images"] for row in members) == found["n_images"]
        weighted = sum(row["accuracy"] * row["n_images"] for row in members) / found["n_images"]
        assert weighted == pytest.approx(found["label"]["accuracy"])


def test_images_without_a_mask_count_for_labels_alone(measured):
    model, batches, calibration, *_ = measured
    rows = batches.table.copy()
    rows.loc[rows.index[::2], "status"] = LABEL_ONLY
    some = data.Batches(batches.pixels, rows, 16)
    found = results.assess(model, some, calibration, task="multitask", precision="fp32", write=lambda *_: None)
    assert found["label"]["n_images"] == len(rows) and found["mask"]["n_images"] == len(rows) // 2


@pytest.mark.parametrize(
    "age, band", [("35.0", "under 40"), (40, "40 to 59"), ("85", "60 and over"), ("", None), (None, None)]
)
def test_ages_fall_into_bands(age, band):
    assert results.age_band(age) == band


def test_comparing_two_models_counts_the_images_that_both_have():
    lesions = pd.Series({name: f"L{name}" for name in "abcd"})
    single = pd.DataFrame(
        {"image": list("abcd"), "true": ["MEL", "MEL", "NV", "NV"], "predicted": ["MEL", "NV", "NV", "NV"]}
    )
    multi = single.assign(predicted=["MEL", "MEL", "NV", "NV"]).iloc[:3]
    found = results.compare(single, multi, lesions)
    assert found["n_images"] == 3
    assert found["balanced_accuracy"]["difference"] == pytest.approx(1 - (0.5 + 1) / 2)
    assert found["mcnemar"]["only_second_right"] == 1
    dice = results.compare(
        pd.DataFrame({"image": list("ab"), "dice": [0.5, 0.7]}),
        pd.DataFrame({"image": list("ab"), "dice": [0.6, 0.9]}),
        lesions,
    )
    assert dice["mean_dice"]["difference"] == pytest.approx(0.15)


def test_the_heat_map_is_grad_cam(measured):
    """The closed form agrees with gradients taken by autograd, up to the scaling to one."""
    model = measured[0]
    image = torch.randn(2, 3, 64, 64)
    features = model.encoder(image)
    features[-1].retain_grad()
    logits = model.heads["label"](features, (64, 64))
    logits.max(dim=1).values.sum().backward()
    weights = features[-1].grad.mean(dim=(2, 3), keepdim=True)
    expected = (weights * features[-1]).sum(dim=1).relu().detach()
    found = model.heat_map(image)
    assert found.shape == (2, 1, 64, 64)
    for ours, theirs in zip(found[:, 0, 16::32, 16::32], expected):
        if theirs.max() > 0:
            small = torch.nn.functional.interpolate(theirs[None, None] / theirs.max(), 64, mode="bilinear")[0, 0]
            torch.testing.assert_close(ours, small[16::32, 16::32])
    with pytest.raises(ValueError, match="only outlines"):
        models.Segmenter().heat_map(image)


def test_numbers_do_not_depend_on_the_batch_size(measured):
    model, batches, *_ = measured
    one = results.collect(model, data.Batches(batches.pixels, batches.table, 1), "fp32")
    many = results.collect(model, data.Batches(batches.pixels, batches.table, 16), "fp32")
    for name in one:
        np.testing.assert_allclose(one[name], many[name], rtol=1e-3, atol=1e-2 if name == "label" else 3)
