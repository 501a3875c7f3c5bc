"""What is fitted on the validation images: temperature, tau and thresholds."""

import numpy as np
import pytest
import torch
from conftest import LEARNED, assess_rows, labels_and_logits, probabilities_in
from sklearn import metrics

import data
import evaluate
import models
from dataset.classes import HAM10000 as CLASSES
from measure.calibrate import calibrate, calibrate_sets, fit_calibration
from measure.collect import collect


def test_thresholds_reach_their_sensitivity_where_they_were_fitted(measured):
    _, batches, calibration, found, _ = measured
    assert found["label"]["operating_points"]["melanoma"]["threshold"] == calibration["thresholds"]["melanoma"]
    assert found["label"]["operating_points"]["melanoma"]["sensitivity"] >= 0.9
    assert found["label"]["operating_points"]["malignant"]["sensitivity"] >= 0.9
    assert len(batches.table) == found["n_images"]


def test_probabilities_thresholds_and_scores_are_all_of_the_calibrated_scale(measured):
    """The threshold that is stored reaches its sensitivity in the table that is written."""
    model, batches, calibration, found, written = measured
    true, probabilities = probabilities_in(written)
    assert calibration["scale"] == found["label"]["calibration"]["scale"] == "calibrated"
    assert calibration["temperature"] != 1
    logits = collect(model, batches, "fp32").label
    expected = torch.tensor(logits / calibration["temperature"]).softmax(dim=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-9)
    melanoma, threshold = probabilities[:, 0], calibration["thresholds"]["melanoma"]
    reached = (melanoma[true == 0] >= threshold - 1e-12).mean()
    assert found["label"]["operating_points"]["melanoma"]["sensitivity"] == pytest.approx(reached)
    assert np.abs(melanoma - threshold).min() < 1e-12
    auc = metrics.roc_auc_score(true == 0, melanoma)
    assert found["label"]["official"]["per_class"]["MEL"]["auc"] == pytest.approx(auc)
    assert found["label"]["calibration"]["after"]["nll"] == pytest.approx(metrics.log_loss(true, probabilities))
    assert found["label"]["calibration"]["before"]["nll"] > found["label"]["calibration"]["after"]["nll"]


def test_the_prior_is_of_the_training_images_and_tau_is_fitted_after_the_temperature():
    true, logits = labels_and_logits()
    calibration = fit_calibration(true, logits, LEARNED, CLASSES)
    assert calibration["prior"] == pytest.approx([0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02])
    after = evaluate.softmax(logits, calibration["temperature"])
    assert calibration["tau"] == evaluate.fit_tau(true, after, calibration["prior"]) > 0
    assert type(calibration["tau"]) is float and {type(share) for share in calibration["prior"]} == {float}


def test_a_class_that_was_not_learned_has_a_prior_of_zero_and_the_rule_still_holds():
    true, logits = labels_and_logits()
    calibration = fit_calibration(true, logits, LEARNED[LEARNED < 6], CLASSES)
    assert calibration["prior"][6] == 0 and sum(calibration["prior"]) == pytest.approx(1)
    assert 0 <= calibration["tau"] <= 1.5


def test_a_model_of_masks_has_nothing_to_calibrate(measured):
    assert calibrate(models.Segmenter().to(measured[1].device), measured[1], "fp32", LEARNED) == {}


def test_a_threshold_that_could_not_be_fitted_scores_nothing(measured):
    model, batches, *_ = measured
    rows = batches.table[batches.table["label"] != "MEL"]
    some = data.Batches(batches.pixels, rows, 16, device=batches.device)
    calibration = calibrate(model, some, "fp32", LEARNED)
    assert calibration["thresholds"]["melanoma"] is None and calibration["thresholds"]["malignant"] is not None
    found = assess_rows(measured, batches.table, calibration)
    nothing = dict.fromkeys(("sensitivity", "specificity", "ppv", "threshold"))
    assert found["label"]["operating_points"]["melanoma"] == nothing
    assert found["label"]["operating_points"]["malignant"]["sensitivity"] is not None


def test_images_without_a_label_do_not_count_where_probabilities_are_calibrated():
    true, logits = labels_and_logits()
    of_all = fit_calibration(true, logits, LEARNED, CLASSES)
    more = np.concatenate([true, [-1, -1]]), np.concatenate([logits, np.full((2, 7), 9.0)])
    assert fit_calibration(*more, np.append(LEARNED, -1), CLASSES) == of_all


def test_sets_alone_are_those_of_the_whole_calibration_at_its_temperature(measured):
    model, batches, calibration, *_ = measured
    sets = calibrate_sets(model, batches, "fp32", calibration["temperature"], calibration["sets"]["target"])
    assert sets == calibration["sets"]
    assert calibrate_sets(model, batches, "fp32", 3.0) != sets
    true, logits = labels_and_logits()
    some = np.append(true, -1), np.append(logits, [[9.0] * 7], axis=0)
    assert fit_calibration(*some, LEARNED, CLASSES)["sets"] == fit_calibration(true, logits, LEARNED, CLASSES)["sets"]
