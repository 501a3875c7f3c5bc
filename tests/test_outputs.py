"""What predict.py writes of each picture: columns, cells and files."""

import csv
import doctest
import json

import numpy as np
import pytest
import torch
from conftest import picture, rows_of, run

import inference.outputs
import inference.predictor
import predict
from dataset.classes import HAM10000 as CLASSES
from inference.outputs import values
from inference.verdict import name_set


def changed(checkpoint, path, change):
    """A copy of a checkpoint after `change` of its content."""
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def test_a_class_called_like_a_column_has_a_column_of_its_own(checkpoints, photos, tmp_path):
    names = ["benign", "malignant", "predicted", "BCC", "NV", "DF", "VASC"]

    def change(content):
        content["classes"] = names
        content["calibration"] |= {"thresholds": {"malignant": 0.5}}

    path, out = changed(checkpoints["classification"], tmp_path / "a.pth", change), tmp_path / "out"
    assert run(photos, "--checkpoint", path, "--output-dir", out, "--json") == 0
    header = list(rows_of(out)[0])
    assert len(set(header)) == len(header) and header[-7:] == ["benign", "malignant_", "predicted_", *names[3:]]
    for row, one in zip(rows_of(out), json.loads((out / "predictions.json").read_text())):
        assert row["malignant"] in ("above", "below") and list(one.get("probabilities", names)) == names
        assert one["probabilities"]["malignant"] == float(row["malignant_"])


def test_the_classes_of_a_set_can_be_told_apart_whatever_they_are_called():
    names = ["basal cell", "cell", 'so-called "mole"', "a, b"]
    prediction = predict.Prediction((8, 8), np.array([0.4, 0.3, 0.2, 0.1]), None, None, members=(0, 1, 2, 3))
    cell = values(prediction, None, names)[2]
    assert next(csv.reader([cell], delimiter=" ")) == names and doctest.testmod(inference.outputs).failed == 0
    assert name_set((1, 3), names) == 'cell, "a, b"'


def test_both_rules_and_both_findings_stand_in_the_table(checkpoints, photos, tmp_path, capsys):
    """With a tau, thresholds and measured values by hand; every cell follows from the row's probabilities."""
    prior = [0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02]

    def change(content):
        content["calibration"] |= {"prior": prior, "tau": 1.0, "thresholds": {"melanoma": 0.1, "malignant": 0.9}}
        content["tested"] = {
            "melanoma": {"threshold": 0.1, "sensitivity": 0.93, "specificity": 0.66, "n_images": 1499},
            "malignant": {"threshold": 0.9, "sensitivity": 0.5, "specificity": 0.75, "n_images": 1499},
        }

    path, out = changed(checkpoints["classification"], tmp_path / "a.pth", change), tmp_path / "out"
    assert run(photos, "--checkpoint", path, "--output-dir", out) == 0
    rows = rows_of(out)
    found = ["set", "balanced", "p_melanoma", "melanoma", "p_malignant", "malignant"]
    assert list(rows[0]) == ["file", "output", "skipped", "digest", "predicted", "confidence", *found, *CLASSES]
    for row in rows:
        p = np.array([float(row[code]) for code in CLASSES])
        assert row["balanced"] == CLASSES[(np.log(p) - np.log(prior)).argmax()]
        assert float(row["p_melanoma"]) == p[0]
        assert float(row["p_malignant"]) == pytest.approx(p[0] + p[2] + p[3], abs=2e-4)
        assert row["melanoma"] == ("above" if p[0] >= 0.1 else "below")
        assert row["malignant"] == ("above" if float(row["p_malignant"]) >= 0.9 else "below")
    shown = capsys.readouterr().out
    assert "melanoma: threshold 0.1000, which found 93 % of the melanomas and excluded 66 % of the rest" in shown
    assert "malignant: threshold 0.9000, which found 50 % of the malignant lesions" in shown
    assert "unavailable" not in shown


def test_a_checkpoint_of_an_earlier_version_is_used_without_what_it_lacks(checkpoints, photos, tmp_path, capsys):
    def change(content):
        del content["tested"], content["calibration"]["tau"], content["calibration"]["prior"]
        del content["calibration"]["sets"]
        content["calibration"]["thresholds"] = {"melanoma": None, "malignant": 0.5}

    path, out = changed(checkpoints["multitask"], tmp_path / "a.pth", change), tmp_path / "out"
    assert run(photos, "--checkpoint", path, "--output-dir", out) == 0
    found = ["p_melanoma", "p_malignant", "malignant"]
    assert list(rows_of(out)[0]) == [
        "file",
        "output",
        "skipped",
        "digest",
        "predicted",
        "confidence",
        *found,
        *CLASSES,
        "lesion_share",
    ]
    shown = capsys.readouterr().out
    assert "Balanced rule unavailable: no tau has been fitted" in shown and "No prediction sets: none were" in shown
    assert "melanoma: no threshold is known." in shown and "malignant: threshold 0.5000, fitted on the val" in shown
    assert "sensitivity elsewhere is unknown" in shown and "which found" not in shown
    predictor = predict.Predictor(path, device="cpu")
    (found,) = predictor.predict([predict.DecodedImage(np.asarray(picture(3, (32, 32))), (32, 32))])
    assert found.balanced is None and [finding.verdict is None for finding in found.findings] == [True, False]


@pytest.mark.parametrize(("found", "cells"), [(94.964, ["94.9", "like"]), (95.0, ["95.0", "unlike"])])
def test_a_percentile_never_reads_as_the_limit_of_the_alarm_before_it_rings(found, cells, checkpoints, monkeypatch):
    """113 of 119 validation images are 94.96 %, which would round to 95.0."""
    predictor = predict.Predictor(checkpoints["segmentation"], device="cpu")
    monkeypatch.setattr(predictor.model, "explain", lambda image, **_: {"unlike": torch.tensor([found])})
    (prediction,) = predictor.predict([predict.DecodedImage(np.zeros((32, 32, 3), np.uint8), (32, 32))])
    assert values(prediction, None, ()) == cells and doctest.testmod(inference.predictor).failed == 0


def test_what_is_missing_over_views_and_for_other_classes_is_named_with_its_way_out(checkpoints, tmp_path):
    """Nothing is fitted for the views, and no class is known to be malignant."""

    def change(content):
        content["classes"] = list("abcdefg")

    path = changed(checkpoints["classification"], tmp_path / "a.pth", change)
    remarks = predict.Predictor(path, device="cpu", tta=True).remarks()
    missing = [line for line in remarks if "--evaluate-only fits" in line and "with --tta" in line]
    assert [line.partition(":")[0] for line in missing] == [
        "Balanced rule unavailable",
        "No prediction sets",
    ]


def test_a_model_of_outlines_decides_nothing(checkpoints, photos, tmp_path, capsys):
    run(photos, "--checkpoint", checkpoints["segmentation"], "--output-dir", tmp_path / "out")
    assert list(rows_of(tmp_path / "out")[0]) == ["file", "output", "skipped", "digest", "lesion_share"]
    assert "threshold" not in (shown := capsys.readouterr().out) and "balanced" not in shown


def test_a_picture_whose_outputs_cannot_be_written_is_skipped_and_named(checkpoints, photos, tmp_path, capsys):
    """Two files of one long stem get their suffixes into the names of their outputs, of which one is too long."""
    for suffix in (".jpg", ".png"):
        picture().save(photos / f"{'l' * 250}{suffix}")
    command = [photos, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out"]
    assert run(*command, "--device", "cpu") == 1
    assert capsys.readouterr().err.count("cannot write ") == 2
    assert sum(row["skipped"].endswith("name too long") for row in rows_of(tmp_path / "out")) == 2


def test_what_an_earlier_run_wrote_of_a_picture_that_is_skipped_now_goes(checkpoints, photos, tmp_path):
    """Or the outline of another photograph would lie beside the row."""
    command = [photos, "--checkpoint", checkpoints["multitask"], "--device", "cpu", "--output-dir", tmp_path / "out"]
    assert run(*command) == 0
    masks = set((tmp_path / "out" / "masks").rglob("*.png"))
    (photos / "a" / "one.jpg").write_text("a text")
    assert run(*command, "--overwrite") == 1
    gone = masks - set((tmp_path / "out" / "masks").rglob("*.png"))
    assert [path.stem for path in gone] == ["one"]
