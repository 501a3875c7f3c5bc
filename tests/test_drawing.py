"""Outlines and captions on a picture, at its own size and in little memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from PIL import Image

import predict
from dataset.classes import HAM10000 as CLASSES
from inference import drawing, verdict
from inference.outputs import values


@pytest.mark.parametrize("size", [(50, 40), (64, 48), (333, 500)])
def test_a_mask_is_the_bilinear_resize_that_evaluation_uses(size, monkeypatch):
    monkeypatch.setattr(drawing, "STRIP", 2000)  # several strips
    logits = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    full = F.interpolate(logits[None, None], size=size[::-1], mode="bilinear", align_corners=False)[0, 0]
    differ = (predict.mask_at(logits.numpy(), size) > 0) != (full > 0).numpy()
    assert not (differ & (full.abs() > 1e-4).numpy()).any()  # but for rounding at the border


def test_a_large_picture_is_outlined_in_little_memory(checkpoints, tmp_path):
    """A 60-megapixel JPEG takes 180 MB decoded, and as float logits 240 MB; neither is made."""
    Image.effect_noise((60, 45), 50).convert("RGB").resize((9000, 6600)).save(tmp_path / "large.jpg", quality=50)
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import predict
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])  # kB
predictor = predict.Predictor(sys.argv[1], device="cpu")
predictor.predict([predictor.read({str(ROOT / "docs" / "prediction.jpg")!r})])
before = peak()
found = predictor.predict([predictor.read("large.jpg")])[0]
assert predict.mask_at(found.mask, found.size).shape == (6600, 9000)
assert predict.view_of("large.jpg", found.size).size == (1600, 1173)
print(peak() - before)
"""
    command = [sys.executable, "-c", code, str(checkpoints["multitask"])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) < 200_000, done.stderr


def test_a_caption_names_class_and_area():
    prediction = predict.Prediction((2, 2), np.eye(7)[0] * 0.76 + 0.04, np.array([[1.0, -1.0], [-1.0, -1.0]]), None)
    assert predict.caption(prediction, CLASSES) == ["Top-1 class: Melanoma, 80 %", "Lesion: 25 % of the image"]


def test_a_caption_and_the_table_name_the_same_share():
    """That of the mask file: at the network's size this mask fills 20 % of the image."""
    logits = np.full((5, 5), -1.0, np.float32)
    logits[1:3, 1:3], logits[4, 4] = 3, 0.1
    prediction = predict.Prediction((50, 50), None, logits, None)
    cell = values(prediction, predict.mask_at(logits, (50, 50)), ())[-1]
    assert predict.caption(prediction, ()) == [f"Lesion: {float(cell):.0%} of the image".replace("%", " %")]
    assert float(cell) > 0.22


def test_an_overlay_draws_the_outline_and_leaves_the_rest():
    image = Image.new("RGB", (80, 80), (200, 150, 130))
    logits = np.full((8, 8), -1.0, np.float32)
    logits[2:6, 2:6] = 1
    drawn = np.array(predict.overlay(image, predict.Prediction((80, 80), None, logits, None), CLASSES))[:80, :80]
    changed = (drawn != (200, 150, 130)).any(axis=2)
    assert changed[16:24, 40].any() and not changed[40, 40] and not changed[4, 4]


def test_an_overlay_says_that_it_is_no_diagnosis(monkeypatch):
    margins = []
    monkeypatch.setattr(drawing, "outlined", lambda image, mask, lines: margins.append(lines))
    for unlike in (None, 100.0):
        prediction = predict.Prediction((80, 80), np.eye(7)[0], np.ones((8, 8), np.float32), None, unlike=unlike)
        predict.overlay(Image.new("RGB", (80, 80)), prediction, CLASSES)
    assert [lines[-1] for lines in margins] == [verdict.NOT_A_DEVICE] * 2
