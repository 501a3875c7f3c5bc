"""A checkpoint as a predictor: shipped, averaged over turns, on another encoder, never calibrated."""

import io

import numpy as np
import pytest
from conftest import picture, run, saved

import export
import models
import predict
from inference import predictor as loading


def test_averaging_over_turns_does_not_depend_on_the_pictures_turn(checkpoints):
    predictor = predict.Predictor(checkpoints["multitask"], device="cpu", tta=True)
    predictor.precision = "fp32"
    pixels = np.asarray(picture(3, (32, 32)))
    upright, turned = predictor.predict([predict.Picture(p, (32, 32)) for p in (pixels, np.rot90(pixels).copy())])
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
