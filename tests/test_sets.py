"""Prediction sets by class-conditional split conformal prediction."""

import doctest

import numpy as np
import pytest

from checkpoints.thresholds import prediction_sets
from measure import sets
from measure.sets import fit_limits, set_scores, shares_of_sets


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(sets).failed == 0


def drawn(n, seed):
    """Labels of three classes, and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    true = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    logits = rng.standard_normal((n, 3)) + 1.5 * np.eye(3)[true]
    return true, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_the_limits_are_mapies_fitted_on_each_class_alone():
    mapie = pytest.importorskip("mapie.classification", reason="pip install -r requirements-dev.txt")
    true, probabilities = drawn(400, 0)

    class Given:
        classes_ = np.arange(3)
        n_features_in_ = 3

        def fit(self, x, y):
            return self

        def predict(self, x):
            return np.asarray(x).argmax(axis=1)

        def predict_proba(self, x):
            return np.asarray(x)

        def __sklearn_is_fitted__(self):
            return True

    new = drawn(200, 1)[1]
    for k, limit in enumerate(fit_limits(true, probabilities, 0.9)):
        own = probabilities[true == k]
        conformal = mapie.SplitConformalClassifier(Given(), confidence_level=0.9, conformity_score="lac", prefit=True)
        conformal.conformalize(own, true[true == k])
        _, sets = conformal.predict_set(new)
        np.testing.assert_array_equal(sets[:, k, 0], new[:, k] >= limit)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_each_class_is_covered_in_new_images(coverage):
    """The mean over 200 splits, whose standard error is below 0.006 even in the class with 60 images of each part."""
    covered = []
    for seed in range(200):
        true, probabilities = drawn(1200, seed)
        sets = prediction_sets(probabilities[600:], fit_limits(true[:600], probabilities[:600], coverage))
        found = set_scores(true[600:], sets, "abc", np.ones((1, 600)))
        covered.append([found[f"per_class.{code}.coverage"].item() for code in "abc"])
    assert np.all(np.mean(covered, axis=0) > coverage - 0.015) and np.mean(covered, axis=0).max() < coverage + 0.05


def test_the_limit_is_an_order_statistic_by_hand():
    probabilities = np.array([[p, 1 - p] for p in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)])
    true = np.zeros(9, int)
    assert fit_limits(true, probabilities, 0.9) == [0.1, 0.0]  # the ceil(10 x 0.9) = 9th largest; no image of class 1
    assert fit_limits(true, probabilities, 0.5)[0] == 0.5
    assert fit_limits(true[:8], probabilities[:8], 0.9)[0] == 0  # n < 1 / 0.1 - 1: in every set


def test_no_set_is_empty_and_a_limit_counts_as_reached():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25]])
    assert prediction_sets(probabilities, [0.6, 0.6, 0.6]).tolist() == [[True, False, False]] * 2
    assert prediction_sets(probabilities, [0.6, 0.3, 0.0]).tolist() == [[True, True, True], [True, True, True]]


def test_coverage_size_and_single_sets_by_hand():
    sets = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
    true = np.array([0, 2, 1, 0])
    found = set_scores(true, sets, "abc", np.array([[1, 1, 1, 1], [0, 2, 1, 1]]))
    assert found["coverage"].tolist() == [0.5, 0.25] and found["size"].tolist() == [1.75, 2.0]
    assert found["single"].tolist() == [0.5, 0.25] and found["single_right"].tolist() == [0.5, 0.0]
    assert found["per_class.a.coverage"].tolist() == [0.5, 0.0] and found["per_class.c.size"].tolist() == [2.0, 2.0]
    shares = shares_of_sets(true, sets, "abc")
    assert shares["single_right"].tolist() == [True, False, False, True]
    assert shares["per_class.b.coverage"].tolist() == [False, False, True, False]
