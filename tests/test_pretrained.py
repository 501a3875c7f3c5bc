"""The model that comes with the repository, and how it is made."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT

import export
import models
import predict

MODELS = sorted((ROOT / "pretrained").glob("*.pth"))


@pytest.fixture(params=MODELS, ids=lambda path: path.stem)
def path(request):
    """One of the models that come with the repository."""
    return request.param


def test_a_model_that_is_passed_on_names_no_folder_of_the_machine_that_it_was_made_on(whole_run, tmp_path):
    export.halve(whole_run[0] / "best_multitask_model.pth", tmp_path / "half.pth")
    config = models.load_checkpoint(tmp_path / "half.pth")["config"]
    assert config["OUTPUT_DIR"] == "outputs" and "/" not in json.dumps(config)


def test_they_come_with_the_repository_and_are_small():
    assert predict.SHIPPED in MODELS and [path.stem for path in MODELS] == ["ham10000", "ham10000_resnet18"]
    assert predict.SHIPPED.stat().st_size <= 20_000_000 and max(path.stat().st_size for path in MODELS) <= 28_000_000


def test_weights_are_of_half_precision_and_folders_are_names_alone(path):
    content = torch.load(path, weights_only=True)
    kinds = {value.dtype for value in content["weights"].values()}
    assert kinds == {torch.float16, torch.int64}  # int64: how many batches a norm has seen
    assert "/" not in json.dumps(content["config"])


def test_it_predicts_seven_classes_and_a_mask_with_all_that_was_fitted_for_it(path):
    predictor = predict.Predictor(path, device="cpu", explain=True)
    assert len(predictor.classes) == 7 and predictor.trained.is_calibrated and predictor.trained.has_rule
    assert [point.name for point in predictor.points if point.sensitivity] == ["melanoma", "malignant"]
    size = predictor.trained.image_size
    pixels = np.full((size, size, 3), 128, np.uint8)
    (found,) = predictor.predict([predict.DecodedImage(pixels, (300, 200))])
    assert found.probabilities.sum() == pytest.approx(1) and found.mask.shape == found.heat.shape == pixels.shape[:2]


def test_its_card_says_what_it_may_be_used_for_how_it_was_split_and_what_it_started_from(path):
    card, content = path.with_suffix(".md").read_text(encoding="utf-8"), models.load_checkpoint(path)
    facts = [
        "CC BY-NC 4.0",
        "non-commercial",
        "not a medical device",
        content["split_hash"],
        "95 % interval",
        path.name,
    ]
    facts += re.findall("[0-9a-f]{64}", content.get("initial_file", ""))
    for fact in facts:
        assert fact in card
