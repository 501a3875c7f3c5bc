import threading
import time
import tracemalloc
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

import evaluate
from dataset.classes import HAM10000
from dataset.table import USED
from measure import bootstrap, shares
from measure.calibrate import fit_calibration
from measure.calls import read_logits
from measure.collect import Collected
from measure.numbers import calibration_interval, label_numbers, mask_numbers
from measure.subgroups import subgroup_numbers


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
            if np.asarray(one).dtype == float:  # not what kind of interval it is
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


LESIONS = np.array(list("aabcdefghijklmn"))  # fifteen photographs of fourteen lesions


def found_none(weights):
    return {"share": evaluate.weighted_mean(weights, np.zeros(15)), "other": np.ones(len(weights))}


def test_where_no_resample_differs_a_share_has_the_exact_interval_of_its_lesions_and_says_so():
    """0 of 14: zero hits have a probability of 2.5 % at an upper end p with (1 - p) ** 14 = 0.025."""
    resamples = bootstrap.resample_lesions(LESIONS, 50)
    _, found = bootstrap.with_intervals(found_none, resamples, {"share": np.ones(15, bool)})
    assert found["share"] == pytest.approx([0, 1 - 0.025 ** (1 / 14)])
    assert found["share_kind"] == "Clopper-Pearson, 14 trials"
    some = np.arange(15) < 4  # of a, b and c
    _, found = bootstrap.with_intervals(found_none, resamples, {"share": some})
    assert found["share"] == pytest.approx([0, 1 - 0.025 ** (1 / 3)])


def test_where_no_resample_differs_what_is_no_share_has_no_interval_and_says_why():
    resamples = bootstrap.resample_lesions(LESIONS, 50)
    _, found = bootstrap.with_intervals(found_none, resamples, {"share": np.zeros(15, bool)})
    for name in ("share", "other"):
        assert found[name] is None and found[f"{name}_kind"] == "none: all resamples give the same"


@pytest.mark.parametrize(("hits", "n"), [(0, 14), (7, 7), (3, 10), (1, 1)])
def test_the_exact_interval_is_scipys(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="exact")
    assert bootstrap.exact_interval(hits / n, n) == pytest.approx([expected.low, expected.high])


def test_an_interval_that_has_a_width_is_the_bootstraps_also_of_a_share():
    values = np.arange(15) % 2
    resamples = bootstrap.resample_lesions(LESIONS, 50)

    def score(weights):
        return {"share": evaluate.weighted_mean(weights, values)}

    expected = bootstrap.with_intervals(score, resamples)
    assert bootstrap.with_intervals(score, resamples, {"share": np.ones(15, bool)}) == expected


def test_the_images_that_shares_names_are_those_that_each_share_is_the_mean_over():
    """Each is the mean, over these images, of whether a call is right, or of a value of each image."""
    rng = np.random.default_rng(0)
    true, weights = rng.integers(3, size=40), rng.integers(3, size=(5, 40)).astype(float)
    probabilities = rng.dirichlet(np.ones(3) / 9, 40)
    called, counts = probabilities.argmax(axis=1), rng.integers(1, 99, (40, 4)).astype(float)
    found = evaluate.label_scores(true, called, "abc", weights)
    for name, images in shares.of_predictions(true, called, "abc").items():
        np.testing.assert_allclose(evaluate.weighted_mean(weights * images, (true == called) * 1.0), found[name])
    found = evaluate.official_label_scores(true, probabilities, "abc", weights)
    for name, images in shares.of_official(true, probabilities, "abc").items():
        k = "abc".index(name.split(".")[1])
        right = (true == k) == (probabilities[:, k] > evaluate.CUTOFF)
        np.testing.assert_allclose(evaluate.weighted_mean(weights * images, right * 1.0), found[name])
    assert shares.of_masks(40).keys() <= evaluate.mask_scores(counts, weights).keys()


def test_what_is_not_defined_is_none():
    resamples = bootstrap.resample_lesions(np.arange(3), 10)
    point, interval = bootstrap.with_intervals(lambda w: {"x": np.full(len(w), np.nan)}, resamples)
    assert point == {"x": None} and interval == {"x": None}


def test_a_paired_difference_of_a_model_with_itself_is_nothing():
    values = [np.arange(10.0), np.arange(10.0)]
    resamples = bootstrap.resample_lesions(np.arange(10))
    found = bootstrap.paired_difference(lambda i, w: evaluate.weighted_mean(w, values[i]), resamples)
    assert found == {"difference": 0, "interval": None}


def test_a_two_sided_p_value_is_never_0_and_at_most_1():
    assert bootstrap.two_sided_p(np.arange(1.0, 2001)) == 2 / 2001
    assert bootstrap.two_sided_p(np.array([-1.0, 1, 2, 3, np.nan])) == 2 * 2 / 5
    assert bootstrap.two_sided_p(np.zeros(10)) == 1


def test_a_paired_difference_that_is_not_defined_is_none():
    resamples = bootstrap.resample_lesions(np.arange(3), 10)
    found = bootstrap.paired_difference(lambda i, w: np.full(len(w), np.nan), resamples)
    assert found == {"difference": None, "interval": None}


def test_resamples_in_which_a_number_is_not_defined_do_not_count():
    """As of a class that a resample lacks: nine of ten resamples say nothing, and the others 1 and 2 in turn."""
    resamples = bootstrap.resample_lesions(np.arange(4), 1000)
    values = iter([1.0, *[value if i % 10 == 0 else np.nan for i, value in enumerate([1.0, 2.0] * 500)]])

    def score(weights):
        return {"a": np.array([next(values) + (i % 20 == 10) for i in range(len(weights))])}

    assert bootstrap.with_intervals(score, resamples)[1]["a"] == [1, 2]


# The calibration error, which chance only makes larger


def confidences(rng, n):
    return np.clip(rng.beta(4, 1, n), 0.51, 0.9999)


def error_and_interval(rng, truth, n, n_resamples=200):
    """Of two classes, the first of which is predicted; it is right with `truth` of the confidence."""
    confidence = confidences(rng, n)
    true = (rng.random(n) >= truth(confidence)).astype(int)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    resamples = bootstrap.resample_lesions(np.arange(n), n_resamples, seed=int(rng.integers(2**31)))
    error = evaluate.calibration_scores(true, probabilities, np.ones((1, n)))["ece"].item()
    return error, calibration_interval(true, probabilities, resamples)


CALIBRATIONS = {  # share that is right, by confidence
    "perfect": lambda confidence: confidence,
    "overconfident": lambda confidence: 1 / (1 + (1 / confidence - 1) ** (1 / 1.5)),
    "a little too confident": lambda confidence: confidence - 0.03,
}


def test_the_interval_of_a_size_that_stands_far_above_its_noise_is_about_symmetric():
    """Two parts of 1 with normal noise of 0.05 each: 2, give or take 1.96 times the root of 2 times 0.05."""
    rng = np.random.default_rng(0)
    low, high = bootstrap.interval_of_size(np.ones(2), 1 + 0.05 * rng.standard_normal((20_000, 2)))
    width = 1.96 * 0.05 * np.sqrt(2)
    assert (low, high) == (pytest.approx(2 - width, abs=0.02), pytest.approx(2 + width, abs=0.02))


def test_the_interval_of_no_size_begins_at_nothing():
    noise = np.random.default_rng(0).standard_normal((1000, 2))
    low, high = bootstrap.interval_of_size(np.zeros(2), noise)
    assert low == 0 and high == pytest.approx(np.percentile(np.abs(noise).sum(axis=1), 97.5))


@pytest.mark.parametrize(("kind", "n"), [*((kind, 150) for kind in CALIBRATIONS), ("perfect", 600)])
def test_the_calibration_errors_interval_covers_the_truth_and_holds_its_own_point(kind, n):
    """150 simulated sets; the truth is that of two million images. 0.95 less three standard errors of 150 is 0.90."""
    rng, truth = np.random.default_rng(0), CALIBRATIONS[kind]
    confidence = confidences(rng, 2_000_000)
    gaps = np.bincount(evaluate.confidence_bin(confidence), truth(confidence) - confidence, evaluate.N_BINS)
    expected = np.abs(gaps).sum() / len(confidence)
    found = [error_and_interval(rng, truth, n) for _ in range(150)]
    assert np.mean([low <= expected <= high for _, (low, high) in found]) >= 0.90
    assert all(low <= error <= high for error, (low, high) in found)
    assert np.mean([high - low for _, (low, high) in found]) < 2 / np.sqrt(n)


def test_a_paired_difference_is_the_second_less_the_first_of_the_same_draws():
    values = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.5, 1.0]])
    resamples = bootstrap.resample_lesions(list("abcd"), 300)
    found = bootstrap.paired_difference(lambda i, weights: evaluate.weighted_mean(weights, values[i]), resamples)
    drawn = all_weights(resamples) @ (values[1] - values[0]) / 4
    assert found["difference"] == pytest.approx(0.375)
    assert found["interval"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())


def test_threads_share_the_blocks_and_give_their_results_in_order(monkeypatch):
    monkeypatch.setattr(bootstrap, "BLOCK", 7 * 70)
    resamples, threads = bootstrap.resample_lesions(np.arange(70) // 2, 50), set()

    def result(weights):
        threads.add(threading.get_ident())
        time.sleep(0.02 * (weights[0, 0] == 0))  # those that come late are not put last
        return weights

    np.testing.assert_array_equal(np.concatenate(list(resamples.map(result))), all_weights(resamples))
    assert len(threads) == bootstrap.N_THREADS


def test_what_does_not_depend_on_the_weights_is_done_once_not_for_each_block(monkeypatch):
    """Of 400,000 images a block has ten resamples: sorting the images for each block takes more than its sums."""
    n = 300
    rng = np.random.default_rng(0)
    columns = {"status": USED, "label": pd.Categorical.from_codes(rng.integers(0, 7, n), HAM10000)}
    rows = pd.DataFrame({"image": map(str, range(n)), "lesion_id": "x", "age": 40.0, "sex": "male"} | columns)
    true, logits = rows["label"].cat.codes.to_numpy().astype(int), rng.normal(size=(n, 7))
    calls = read_logits(logits, fit_calibration(true, logits, true, HAM10000), HAM10000)
    collected = Collected(label=logits, calls=calls, mask=np.ones((n, 4)), native=np.ones((n, 4)))
    collected = collected._replace(surface=np.ones((n, 2)))
    resamples, counts = bootstrap.resample_lesions(np.arange(n), 40), []
    for n_rows in (40, 4):
        with monkeypatch.context() as patch:
            patch.setattr(bootstrap, "BLOCK", n_rows * n)
            spies = [Mock(side_effect=getattr(np, name)) for name in ("argsort", "unique", "log")]
            for spy in spies:
                patch.setattr(np, spy.side_effect.__name__, spy)
            label_numbers(rows, calls, resamples)
            mask_numbers(rows, collected, resamples)
            subgroup_numbers(rows, collected, resamples)
        counts.append([spy.call_count for spy in spies])
    assert counts[0] == counts[1] and min(counts[0]) > 0
