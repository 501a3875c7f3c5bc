import tracemalloc

import numpy as np
import pandas as pd
import pytest

import evaluate
from report import bootstrap


def all_weights(resamples):
    return np.concatenate(list(resamples.blocks()))


def test_lesions_are_drawn_whole_and_as_many_as_there_are():
    lesions = ["a", "b", "b", "c", "c", "c"]
    weights = all_weights(bootstrap.resample_lesions(lesions, 500))
    assert weights.shape == (500, 6)
    assert (weights[:, 1] == weights[:, 2]).all() and (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights[:, 0].mean() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(weights, all_weights(bootstrap.resample_lesions(lesions, 500)))


def test_blocks_are_the_rows_of_the_whole_matrix_drawn_at_once(monkeypatch):
    lesion = np.random.default_rng(1).integers(0, 30, 70)
    n = len(np.unique(lesion))
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=50)
    monkeypatch.setattr(bootstrap, "BLOCK", 7 * 70)
    resamples = bootstrap.resample_lesions(lesion, 50)
    assert [len(block) for block in resamples.blocks()] == [7] * 7 + [1]
    whole = draws[:, np.unique(lesion, return_inverse=True)[1]]
    np.testing.assert_array_equal(all_weights(resamples), whole)
    some = lesion > 10
    np.testing.assert_array_equal(all_weights(resamples.of(some)), whole[:, some])


def test_intervals_do_not_depend_on_the_size_of_the_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    true, probabilities = rng.integers(7, size=200), rng.dirichlet(np.ones(7), 200).round(2)
    resamples = bootstrap.resample_lesions(np.arange(200) // 2, 100)
    counts = np.random.default_rng(0).integers(0, 99, (200, 4)).astype(float)

    def scores(weights):
        found = evaluate.official_label_scores(true, probabilities, "abcdefg", weights)
        found |= evaluate.calibration_scores(true, probabilities, weights)
        return found | evaluate.mask_scores(counts, weights)

    whole = pd.json_normalize(bootstrap.with_intervals(scores, resamples)).map(np.array)
    monkeypatch.setattr(bootstrap, "BLOCK", 9 * 200)
    parts = pd.json_normalize(bootstrap.with_intervals(scores, resamples)).map(np.array)
    for name in whole:
        for one, other in zip(whole[name], parts[name]):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_the_bootstrap_of_many_images_takes_little_more_than_a_byte_a_draw():
    """All weights at once would be 8 bytes for each image and resample, and several times that for temporaries."""
    tracemalloc.start()
    n, n_resamples = 40_000, 500
    values = np.random.default_rng(0).random(n)
    resamples = bootstrap.resample_lesions(np.arange(n), n_resamples)
    bootstrap.with_intervals(lambda weights: evaluate.ranking_scores(values > 0.9, values, weights), resamples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n_resamples + 6 * 8 * bootstrap.BLOCK + 10e6


def test_the_interval_of_a_mean_is_the_textbooks():
    values = np.random.default_rng(0).normal(size=400)
    resamples = bootstrap.resample_lesions(np.arange(400), 4000)
    point, interval = bootstrap.with_intervals(lambda w: {"a.mean": evaluate.weighted_mean(w, values)}, resamples)
    assert point["a"]["mean"] == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval["a"]["mean"] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.01)


def test_siblings_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).normal(size=100), 4)

    def score(weights):
        return {"m": evaluate.weighted_mean(weights, values)}

    _, by_image = bootstrap.with_intervals(score, bootstrap.resample_lesions(np.arange(400)))
    _, by_lesion = bootstrap.with_intervals(score, bootstrap.resample_lesions(np.repeat(np.arange(100), 4)))
    assert np.diff(by_lesion["m"]) / np.diff(by_image["m"]) == pytest.approx(2, abs=0.3)


def test_what_is_not_defined_is_none():
    resamples = bootstrap.resample_lesions(np.arange(3), 10)
    point, interval = bootstrap.with_intervals(lambda w: {"x": np.full(len(w), np.nan)}, resamples)
    assert point == {"x": None} and interval == {"x": None}


def test_a_paired_difference_of_a_model_with_itself_is_nothing():
    values = [np.arange(10.0), np.arange(10.0)]
    resamples = bootstrap.resample_lesions(np.arange(10))
    found = bootstrap.paired_difference(lambda i, w: evaluate.weighted_mean(w, values[i]), resamples)
    assert found == {"difference": 0, "interval": [0, 0]}


def test_a_paired_difference_that_is_not_defined_is_none():
    resamples = bootstrap.resample_lesions(np.arange(3), 10)
    found = bootstrap.paired_difference(lambda i, w: np.full(len(w), np.nan), resamples)
    assert found == {"difference": None, "interval": None}
