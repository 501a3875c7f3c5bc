"""A checkpoint as a predictor: shipped, averaged over turns, on another encoder, never calibrated."""

import io

import numpy as np
import pytest
import torch
from conftest import picture, run, saved

import data
import export
import models
import predict
from checkpoints.thresholds import points_of
from inference import predictor as loading


def test_averaging_over_turns_does_not_depend_on_the_pictures_turn(checkpoints):
    predictor = predict.Predictor(checkpoints["multitask"], device="cpu", tta=True)
    predictor.precision = "fp32"
    pixels = np.asarray(picture(3, (32, 32)))
    upright, turned = predictor.predict([predict.DecodedImage(p, (32, 32)) for p in (pixels, np.rot90(pixels).copy())])
    assert upright.probabilities == pytest.approx(turned.probabilities, abs=1e-5)
    assert np.rot90(upright.mask) == pytest.approx(turned.mask, abs=1e-4)


def test_content_in_memory_is_read_as_a_file(checkpoints):
    predictor = predict.Predictor(checkpoints["classification"], device="cpu")
    buffer = io.BytesIO()
    picture(1).save(buffer, "PNG")
    assert predictor.read(buffer.getvalue()).size == (40, 30)


def test_a_model_on_another_encoder_diagnoses_outlines_and_explains(tmp_path):
    saved(models.MultiTask(encoder="resnet50"), "multitask", tmp_path / "a.pth")
    predictor = predict.Predictor(tmp_path / "a.pth", device="cpu", explain=True)
    picture().save(tmp_path / "a.png")
    (found,) = predictor.predict([predictor.read(tmp_path / "a.png")])
    assert found.probabilities.shape == (7,) and found.mask.shape == found.heat.shape == (32, 32)


def test_a_checkpoint_that_was_never_calibrated_is_called_so(tmp_path, capsys):
    saved(models.Classifier(), "classification", tmp_path / "a.pth")
    picture().save(tmp_path / "a.png")
    command = [str(tmp_path / "a.png"), "--checkpoint", str(tmp_path / "a.pth"), "--output-dir", str(tmp_path / "out")]
    assert predict.main([*command, "--device", "cpu"]) == 0
    assert "a.pth is not calibrated" in capsys.readouterr().out


def test_without_a_checkpoint_the_shipped_one_is_used_and_said(checkpoints, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "SHIPPED", tmp_path / "ham10000.pth")
    assert run(photos, "--output-dir", tmp_path / "out") == 2
    assert "Name a --checkpoint" in capsys.readouterr().err and not (tmp_path / "out").exists()
    export.halve(checkpoints["multitask"], loading.SHIPPED)
    assert run(photos, "--output-dir", tmp_path / "out") == 0
    assert "Using the bundled model ham10000.pth" in capsys.readouterr().out
    loading.SHIPPED.write_bytes(loading.SHIPPED.read_bytes()[:-1000])
    assert run(photos, "--output-dir", tmp_path / "other") == 2
    error = capsys.readouterr().err
    assert "is damaged" in error and "Traceback" not in error


def predictor_of(checkpoints, thresholds):
    """A predictor in float32 whose operating points have these thresholds."""
    predictor = predict.Predictor(checkpoints["multitask"], device="cpu", explain=True)
    predictor.precision = "fp32"
    predictor.points = points_of(predictor.classes, {"thresholds": thresholds}, {})
    return predictor


@pytest.mark.parametrize(
    ("thresholds", "candidates"),
    [
        ({"melanoma": 0.0, "malignant": 0.0}, [0]),  # the first alarm is melanoma's
        ({"melanoma": 1.1, "malignant": 0.0}, [0, 2, 3]),
        ({"melanoma": 1.1, "malignant": 1.1}, range(7)),
    ],
)
def test_a_heat_map_explains_the_most_probable_class_of_the_alarm_that_rings(checkpoints, thresholds, candidates):
    predictor = predictor_of(checkpoints, thresholds)
    pixels = [np.asarray(picture(seed, (32, 32))) for seed in range(6)]
    found = predictor.predict([predict.DecodedImage(one, (32, 32)) for one in pixels])
    expected = [max(candidates, key=lambda k: one.probabilities[k]) for one in found]
    assert [one.heat_of for one in found] == expected
    image = data.normalise(torch.from_numpy(np.stack(pixels)))
    with torch.inference_mode():
        heat = predictor.model.heat_map(image, torch.tensor(expected))[:, 0]
    np.testing.assert_allclose(np.stack([one.heat for one in found]), heat, atol=1e-4)


def test_a_set_holds_the_classes_that_reach_their_limits_the_most_probable_first(checkpoints):
    predictor = predict.Predictor(checkpoints["classification"], device="cpu")
    predictor.trained.calibration = predictor.trained.calibration | {"sets": {"target": 0.9, "limits": [0.1] * 7}}
    for one in predictor.predict([predict.DecodedImage(np.asarray(picture(s, (32, 32))), (32, 32)) for s in range(4)]):
        expected = sorted(np.flatnonzero(one.probabilities >= 0.1), key=lambda k: -one.probabilities[k])
        assert list(one.members) == expected and len(expected) > 1
    predictor.trained.calibration = {}
    (one,) = predictor.predict([predict.DecodedImage(np.asarray(picture(0, (32, 32))), (32, 32))])
    assert one.members == () and any("No prediction sets" in line for line in predictor.remarks())


def test_classes_that_are_in_every_set_are_named(checkpoints):
    predictor = predict.Predictor(checkpoints["classification"], device="cpu")
    limits = [0.1, 0.2, 0.3, 0.1, 0.1, 0.0, 0.0]
    predictor.trained.calibration = predictor.trained.calibration | {"sets": {"target": 0.9, "limits": limits}}
    assert "Too few validation images to fit a limit, so in every set: DF, VASC." in predictor.remarks()
