"""Net benefit, and how right a model is where it is surest."""

import doctest

import numpy as np
import pytest
from sklearn import metrics

from measure import benefit
from measure.benefit import THRESHOLDS, benefit_scores, net_benefit, shares_of_surest, surest, surest_scores


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(benefit).failed == 0


def test_the_net_benefit_is_that_of_the_confusion_matrix():
    rng = np.random.default_rng(0)
    positive, score, weights = rng.random(300) < 0.3, rng.random(300), rng.integers(0, 3, (2, 300))
    found = benefit_scores(positive, score, weights)
    for percent in (2, 20, 50):
        t = percent / 100
        for row, of_row in enumerate(weights):
            matrix = metrics.confusion_matrix(positive, score >= t, sample_weight=of_row)
            expected = (matrix[1, 1] - matrix[0, 1] * t / (1 - t)) / of_row.sum()
            assert found[f"{percent}.model"][row] == pytest.approx(expected)
            prevalence = np.average(positive, weights=of_row)
            assert found[f"{percent}.all"][row] == pytest.approx(prevalence - (1 - prevalence) * t / (1 - t))
            best = max(found[f"{percent}.all"][row], 0)
            assert found[f"{percent}.gain"][row] == pytest.approx(expected - best)
    assert THRESHOLDS[0] == 2 and THRESHOLDS[-1] == 50


def test_a_perfect_model_has_the_prevalence_and_no_action_has_nothing():
    positive, weights = np.array([True, False, False, False]), np.array([[1, 1, 1, 1], [0, 0, 0, 0]])
    of_all = benefit_scores(positive, positive * 0.9, weights)["30.model"]
    assert of_all[0] == 0.25 and np.isnan(of_all[1])
    assert net_benefit(np.zeros(1), np.zeros(1), np.array([4]), 0.3) == 0


def test_the_surest_images_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.55, 0.45]])
    true = np.array([0, 1, 1, 0, 0])
    assert surest(probabilities).tolist() == [True, True, True, True, False]
    found = surest_scores(true, probabilities, "ab", np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 5]]))
    assert found["accuracy"].tolist() == [0.5, 0.5]
    assert found["per_class.a.kept"].tolist() == [pytest.approx(2 / 3), 0] and found["per_class.a.right"][0] == 0.5
    assert np.isnan(found["per_class.a.right"][1]) and found["per_class.b.right"].tolist() == [0.5, 0.5]
    shares = shares_of_surest(true, probabilities, "ab")
    assert shares["per_class.a.right"].tolist() == [True, False, False, True, False]
    assert shares["per_class.a.kept"].tolist() == [True, False, False, True, True]


def test_equal_confidence_keeps_the_share_all_the_same():
    assert surest(np.full((10, 2), 0.5)).sum() == 8 and surest(np.full((1, 2), 0.5)).sum() == 1
