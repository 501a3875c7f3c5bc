import doctest

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage, stats
from scipy.special import log_softmax
from scipy.special import softmax as special_softmax
from sklearn import metrics

import evaluate

ONE = np.ones((1, 200))


def random_labels(seed, n=200, k=7, decimals=2):
    """Labels and probabilities with ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, k, n), rng.dirichlet(np.ones(k), n).round(decimals)


def test_the_docstrings_examples_hold():
    assert doctest.testmod(evaluate).failed == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_label_scores_agree_with_scikit_learn(weighted):
    true, probabilities = random_labels(0)
    predicted = probabilities.argmax(axis=1)
    weights = np.random.default_rng(1).integers(0, 4, 200).astype(float) if weighted else ONE[0]
    found = evaluate.label_scores(true, predicted, "abcdefg", weights[None])
    same = {"sample_weight": weights}
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted, **same))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(true, predicted, **same))
    for name in ("precision", "recall", "f1"):
        score = getattr(metrics, f"{name}_score")
        assert found[f"macro_{name}"] == pytest.approx(score(true, predicted, average="macro", **same))
        for k, letter in enumerate("abcdefg"):
            by_class = score(true, predicted, labels=[k], average=None, **same)[0]
            assert found[f"per_class.{letter}.{name}"] == pytest.approx(by_class)


def test_an_absent_class_has_no_value_and_leaves_the_means_alone():
    found = evaluate.label_scores(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]), "abc", np.ones((1, 4)))
    assert np.isnan(found["per_class.c.recall"]) and np.isnan(found["per_class.c.precision"])
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 0.5) / 2)
    assert found["macro_precision"] == pytest.approx((1 + 0.5) / 2)


def test_a_class_never_predicted_has_precision_zero():
    found = evaluate.label_scores(np.array([0, 1]), np.array([0, 0]), "ab", np.ones((1, 2)))
    assert [found[f"per_class.b.{name}"].item() for name in ("precision", "recall", "f1")] == [0, 0, 0]


def organisers_score(true, probabilities, codes):
    classification = pytest.importorskip("isic_challenge_scoring.classification")
    index = [f"i{i}" for i in range(len(true))]
    truth = pd.DataFrame(np.eye(len(codes))[true], index, list(codes))
    weights = pd.DataFrame({"score_weight": 1.0, "validation_weight": 1.0}, index)
    metric = classification.ClassificationMetric.BALANCED_ACCURACY
    return classification.ClassificationScore(truth, pd.DataFrame(probabilities, index, list(codes)), weights, metric)


@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("concentration", [0.2, 1.0])
def test_official_label_scores_agree_with_the_organisers_own_scorer(decimals, concentration):
    """Probabilities of one decimal tie often; the concentrated ones often exceed one half."""
    rng = np.random.default_rng(3)
    true = np.concatenate([np.arange(7), rng.integers(0, 7, 193)])
    probabilities = rng.dirichlet(np.full(7, concentration), 200).round(decimals)
    theirs = organisers_score(true, probabilities, "abcdefg")
    ours = evaluate.official_label_scores(true, probabilities, "abcdefg", ONE)
    assert ours["balanced_accuracy"] == pytest.approx(theirs.overall)
    names = {"dice": "f1", "ap": "average_precision"}
    for column in ("accuracy", "sensitivity", "specificity", "dice", "ppv", "npv", "auc", "ap"):
        name = names.get(column, column)
        assert ours[f"macro.{name}"] == pytest.approx(theirs.macro_average[column]), name
        for letter, value in zip("abcdefg", theirs.per_category[column]):
            assert ours[f"per_class.{letter}.{name}"] == pytest.approx(value), name


def test_a_tie_for_the_maximum_counts_as_wrong():
    probabilities = np.array([[0.5, 0.5, 0.0], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])
    found = evaluate.official_label_scores(np.array([0, 1, 2]), probabilities, "abc", np.ones((1, 3)))
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)


def test_official_scores_of_an_absent_class_are_left_out_of_the_mean_recall():
    found = evaluate.official_label_scores(np.array([0, 1]), np.eye(3)[[0, 1]], "abc", np.ones((1, 2)))
    assert found["balanced_accuracy"] == 1 and np.isnan(found["per_class.c.auc"])


def test_an_absent_class_is_perfect_in_the_organisers_mean_and_not_in_the_mean_of_those_present():
    """Both images are called wrong, with certainty; no image is of class c, and none is called it."""
    found = evaluate.official_label_scores(np.array([0, 1]), np.eye(3)[[1, 0]], "abc", np.ones((1, 2)))
    assert found["macro.sensitivity"] == pytest.approx(1 / 3) and found["macro_present.sensitivity"] == 0
    assert found["macro.specificity"] == pytest.approx(1 / 3) and found["macro_present.specificity"] == 0
    keys = {name.split(".")[1] for name in found if name.startswith("macro.")}
    assert keys == {name.split(".")[1] for name in found if name.startswith("macro_present.")} and len(keys) == 8


def test_a_resample_without_a_class_leaves_it_out_of_the_mean_of_those_present():
    weights = np.array([[1.0, 1.0], [1.0, 0.0]])
    found = evaluate.official_label_scores(np.array([0, 1]), np.eye(2)[[0, 0]], "ab", weights)
    assert found["macro_present.sensitivity"].tolist() == [0.5, 1]


def test_calls_by_hand_and_nothing_by_nothing_is_not_defined():
    positive, called = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    weights = np.array([[1.0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 0, 1]])
    found = evaluate.binary_scores(positive, called, weights)
    assert found["sensitivity"].tolist() == pytest.approx([2 / 3, np.nan, 2 / 3, 0], nan_ok=True)
    assert found["specificity"].tolist() == pytest.approx([1 / 2, 1 / 2, np.nan, 1], nan_ok=True)
    assert found["ppv"].tolist() == pytest.approx([2 / 3, 0, 1, np.nan], nan_ok=True)
    assert found["accuracy"].tolist() == pytest.approx([3 / 5, 1 / 2, 2 / 3, 1 / 2])


def test_a_resample_without_a_classs_images_or_calls_has_no_score_of_them():
    """The organisers' 1 and scikit-learn's 0 for 0 / 0 are of a set that lacks them, not of a draw that does."""
    true, weights = np.array([0, 1]), np.array([[1.0, 1], [0, 1]])
    official = evaluate.official_label_scores(true, np.eye(3)[[0, 0]], "abc", weights)
    for name in ("a.sensitivity", "b.specificity"):
        assert official[f"per_class.{name}"].tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert official["per_class.b.ppv"].tolist() == official["per_class.c.sensitivity"].tolist() == [1, 1]
    wrongly = evaluate.official_label_scores(
        np.array([0, 1, 1]), np.eye(2)[[1, 0, 0]], "ab", np.array([[1.0, 1, 1], [0, 1, 1]])
    )
    assert wrongly["macro_present.ppv"].tolist() == pytest.approx([0, np.nan], nan_ok=True)
    assert wrongly["macro.ppv"].tolist() == [0, 0.5]
    found = evaluate.label_scores(np.array([0, 1, 1]), np.array([0, 1, 0]), "abc", np.array([[1.0, 1, 1], [1, 0, 1]]))
    assert found["per_class.b.precision"].tolist() == pytest.approx([1, np.nan], nan_ok=True)
    never = evaluate.label_scores(true, np.array([0, 0]), "abc", np.array([[1.0, 1], [0, 1]]))
    assert never["per_class.b.precision"].tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_ranking_scores_agree_with_scikit_learn_on_ties_and_weights(seed):
    rng = np.random.default_rng(seed)
    positive, score = rng.random(60) < 0.3, rng.random(60).round(1)
    weights = rng.integers(0, 3, 60).astype(float)
    found = evaluate.ranking_scores(positive, score, weights[None])
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(positive, score, sample_weight=weights))
    expected = metrics.average_precision_score(positive, score, sample_weight=weights)
    assert found["average_precision"] == pytest.approx(expected)


def isic_2024(positive, score):
    """The organisers' metric: truth and score are flipped, and scikit-learn's scaling by McClish is undone."""
    scaled = metrics.roc_auc_score(~positive, 1 - score, max_fpr=1 - 0.8)
    return 0.5 * 0.2**2 + (0.2 - 0.5 * 0.2**2) / (1.0 - 0.5) * (scaled - 0.5)


@pytest.mark.parametrize("seed", range(60))
def test_the_partial_auc_is_that_of_isic_2024_with_ties_and_weights_as_repeated_images(seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(20, 80)
    positive, weights = rng.random(n) < rng.choice([0.1, 0.5, 0.9]), rng.integers(0, 4, n)
    positive[:2], weights[:2] = [True, False], 1
    score = ((rng.random(n) + 0.3 * positive) / 2).round(seed % 3 + 1)
    found = evaluate.malignant_scores(positive, score, np.stack([np.ones(n), weights]))
    expected = [isic_2024(positive, score), isic_2024(np.repeat(positive, weights), np.repeat(score, weights))]
    assert found["partial_auc"] == pytest.approx(expected, abs=1e-9)
    others = evaluate.ranking_scores(positive, score, np.stack([np.ones(n), weights]))
    assert all(np.array_equal(found[name], values) for name, values in others.items())


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        ([3, 4], [1, 2], 0.2),  # perfect
        ([1, 2], [3, 4], 0),
        ([1, 1], [1, 1], 0.02),  # chance
        ([5, 4, 3, 2, 1], [4.5, 3.5, 2.5, 1.5], 0),  # the last of five positives is below all negatives
        ([5, 4, 3, 2, 1], [0.5, 2.5], 0.1),  # and here above one of two
        ([9, 1], [1, 0], 0.2 * (1 - (0.5 + 0.3) / 2)),  # at 0.8 of sensitivity the tie has 0.6 of its false alarms
        ([1, 2], [], np.nan),
        ([], [1, 2], np.nan),
    ],
)
def test_the_partial_auc_by_hand(positives, negatives, expected):
    positive = np.arange(len(positives) + len(negatives)) < len(positives)
    found = evaluate.malignant_scores(positive, np.array([*positives, *negatives], float), np.ones((1, len(positive))))
    assert found["partial_auc"] == pytest.approx([expected], abs=1e-12, nan_ok=True)


def test_ranking_scores_need_both_classes():
    found = evaluate.ranking_scores(np.ones(3), np.array([0.1, 0.2, 0.3]), np.ones((1, 3)))
    assert np.isnan(found["auc"]) and np.isnan(found["average_precision"])


def test_calibration_scores_agree_with_scikit_learn_and_with_a_hand_worked_case():
    true, probabilities = random_labels(5, decimals=9)
    found = evaluate.calibration_scores(true, probabilities, ONE)
    assert found["nll"] == pytest.approx(metrics.log_loss(true, probabilities))
    per_class = [metrics.brier_score_loss(true == k, probabilities[:, k]) for k in range(7)]
    assert found["brier"] == pytest.approx(sum(per_class))
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    found = evaluate.calibration_scores(np.array([0, 1, 0, 0]), probabilities, np.ones((1, 4)))
    assert found["ece"] == pytest.approx(0.5 * abs(0.5 - 0.9) + 0.5 * abs(1 - 0.6))
    # Kept in order of confidence: right, wrong, right, right.
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_the_temperature_undoes_a_known_scaling():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    true = np.array([rng.choice(3, p=np.exp(row)) for row in log_softmax(logits, axis=1)])
    assert evaluate.fit_temperature(true, 2.5 * logits) == pytest.approx(2.5, rel=0.05)


def test_temperature_is_one_where_nothing_was_called_wrong():
    """Or it would go to 0, and every confidence to 1."""
    logits = np.eye(3)[[0, 1, 2, 0]]
    assert evaluate.fit_temperature(np.array([0, 1, 2, 0]), logits) == 1


def test_an_operating_threshold_just_reaches_the_sensitivity():
    score = np.arange(20) / 20
    positive = np.arange(20) % 2 == 0  # scores 0, .1, ..., .9
    threshold = evaluate.operating_threshold(positive, score, 0.9)
    assert threshold == pytest.approx(0.1) and (score[positive] >= threshold).mean() == 0.9
    assert np.isnan(evaluate.operating_threshold(np.zeros(3), np.ones(3)))


def test_the_balanced_rule_is_the_argmax_of_log_p_less_tau_log_prior():
    rng = np.random.default_rng(0)
    logits, prior = rng.normal(0, 2, (500, 7)), rng.dirichlet(np.ones(7))
    for tau in (0.35, 1, 1.5):
        expected = (log_softmax(logits, axis=1) - tau * np.log(prior)).argmax(axis=1)
        found = evaluate.predict_balanced(evaluate.softmax(logits), prior, tau)
        assert (found == expected).all() and (found != logits.argmax(axis=1)).any()


def test_the_balanced_rule_by_hand():
    """0.6 / 0.8 ** 0.5 = 0.671 and 0.4 / 0.2 ** 0.5 = 0.894; 0.7 / 0.8 ** 0.5 = 0.783 and 0.3 / 0.2 ** 0.5 = 0.671."""
    probabilities, prior = np.array([[0.6, 0.4], [0.7, 0.3]]), [0.8, 0.2]
    assert evaluate.predict_balanced(probabilities, prior, 0.5).tolist() == [1, 0]
    assert evaluate.predict_balanced(probabilities, prior, 1).tolist() == [1, 1]
    called = evaluate.by_rule(probabilities, prior, 0.5)
    assert {rule: classes.tolist() for rule, classes in called.items()} == {"likeliest": [0, 0], "balanced": [1, 0]}


def test_at_tau_zero_the_balanced_rule_is_the_likeliest_class_ties_and_all():
    _, probabilities = random_labels(0, decimals=1)
    prior = [0.5, 0.2, 0.2, 0.1, 0, 0, 0]
    np.testing.assert_array_equal(evaluate.predict_balanced(probabilities, prior, 0), probabilities.argmax(axis=1))


@pytest.mark.parametrize("tau", [0.5, 1, 1.5])
def test_a_class_without_training_images_is_called_only_where_it_is_the_likeliest(tau):
    probabilities = np.random.default_rng(1).dirichlet(np.full(7, 0.1), 200)
    with np.errstate(all="raise"):
        called = evaluate.predict_balanced(probabilities, [0.6, 0.2, 0.1, 0.05, 0.05, 0, 0], tau)
    unseen = called >= 5
    assert unseen.any() and (called[unseen] == probabilities.argmax(axis=1)[unseen]).all()


def test_a_class_of_probability_zero_is_not_called_however_rare():
    assert evaluate.predict_balanced(np.array([[1.0, 0.0]]), [0.999999, 0.000001], 1.5).tolist() == [0]


def test_tau_is_the_smallest_of_the_best_by_the_mean_of_both_accuracies():
    """Class b is called where p_a / p_b < (prior_a / prior_b) ** tau = 9 ** tau.

    The one image of b has p_a / p_b = 3, so that tau > 0.5 finds it: balanced accuracy rises from 1/2 to 1, and
    accuracy from 9/10 to 1, until tau > log 7 / log 9 = 0.886, where images of a are called b.
    """
    true = np.array([0] * 9 + [1])
    probabilities = np.array([[7 / 8, 1 / 8]] * 9 + [[3 / 4, 1 / 4]])
    assert evaluate.fit_tau(true, probabilities, [0.9, 0.1]) == 0.55


def test_tau_does_not_buy_balanced_accuracy_for_more_accuracy():
    """From 0.55 on the one image of b is found, and 9 of the 20 of a are lost.

    The mean of accuracy and balanced accuracy is (20/21 + 1/2) / 2 = 0.726 before, (12/21 + 31/40) / 2 = 0.673 then.
    """
    true = np.array([0] * 20 + [1])
    probabilities = np.array([[7 / 8, 1 / 8]] * 11 + [[3 / 4, 1 / 4]] * 10)
    assert evaluate.fit_tau(true, probabilities, [0.9, 0.1]) == 0


def test_tau_is_zero_where_nothing_is_gained():
    assert evaluate.fit_tau(np.array([0, 1]), np.eye(2), [0.9, 0.1]) == 0


def test_the_grid_of_tau_goes_from_zero_to_three_halves_in_twentieths():
    assert evaluate.TAUS.tolist() == pytest.approx([0.05 * i for i in range(31)])


def test_risk_and_coverage_by_hand():
    coverage, risk = evaluate.risk_coverage(np.array([True, False, True]), np.array([0.5, 0.7, 0.9]))
    assert coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3])


# Masks


def masks(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), 1, 2, -1)


def test_overlap_of_masks_worked_by_hand(device):
    true = masks([1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]).to(device)
    logits = masks([9, -9, 9, -9], [-9, -9, -9, -9], [9, -9, -9, -9], [9, 9, 9, 9]).to(device)
    counts = evaluate.mask_counts(logits, true)
    assert counts.tolist() == [[1, 1, 1, 1], [0, 0, 0, 4], [0, 1, 0, 3], [4, 0, 0, 0]]
    assert evaluate.iou(counts).tolist() == pytest.approx([1 / 3, 1, 0, 1])
    assert evaluate.dice(counts).tolist() == pytest.approx([1 / 2, 1, 0, 1])


def random_masks(seed=1, n=20):
    """Truths and predictions of every overlap, an empty pair, and one of each empty."""
    rng = np.random.default_rng(seed)
    true, predicted = rng.random((n, 8, 8)) < 0.5, rng.random((n, 8, 8)) < 0.5
    predicted[: n // 2] = true[: n // 2] ^ (rng.random((n // 2, 8, 8)) < 0.1)
    true[0] = predicted[0] = true[1] = predicted[2] = False
    counts = evaluate.mask_counts(torch.tensor(predicted[:, None] * 2.0 - 1), torch.tensor(true[:, None])).numpy()
    return true, predicted, counts


def test_mask_scores_agree_with_scikit_learn():
    true, predicted, counts = random_masks()
    found = evaluate.mask_scores(counts, np.ones((1, 20)))
    for name, score in (("iou", metrics.jaccard_score), ("dice", metrics.f1_score)):
        values = [score(t.ravel(), p.ravel(), zero_division=1.0) for t, p in zip(true, predicted)]
        assert found[f"mean_{name}"] == pytest.approx(np.mean(values))
        assert found[f"std_{name}"] == pytest.approx(np.std(values))
        assert found[f"pooled_{name}"] == pytest.approx(score(true.ravel(), predicted.ravel()))


def test_mask_scores_agree_with_the_organisers_own_scorer():
    segmentation = pytest.importorskip("isic_challenge_scoring.segmentation")
    load_image = pytest.importorskip("isic_challenge_scoring.load_image")
    true, predicted, counts = random_masks()
    pairs = []
    for i, (t, p) in enumerate(zip(true, predicted)):
        pair = object.__new__(load_image.ImagePair)
        pair.image_id, pair.truth_image, pair.prediction_image = str(i), t * 255, p * 255
        pairs.append(pair)
    theirs = segmentation.SegmentationScore(pairs).macro_average
    ours = evaluate.mask_scores(counts, np.ones((1, 20)))
    names = {"iou": "jaccard", "threshold_iou": "threshold_jaccard"}
    for name in ("iou", "threshold_iou", "dice", "sensitivity", "specificity", "accuracy"):
        assert ours[f"mean_{name}"] == pytest.approx(theirs[names.get(name, name)]), name


def test_surface_distances_agree_with_distance_transforms():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = (ndimage.binary_dilation(rng.random((40, 50)) < 0.004, iterations=5) for _ in range(2))
        edges = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
        there = ndimage.distance_transform_edt(~edges[1])[edges[0]]
        back = ndimage.distance_transform_edt(~edges[0])[edges[1]]
        hd95, assd = evaluate.surface_distances(a, b)
        assert hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
        assert assd == pytest.approx((there.sum() + back.sum()) / (len(there) + len(back)))


def test_surface_distances_of_empty_masks_follow_the_convention():
    empty, full = np.zeros((30, 40), bool), np.ones((30, 40), bool)
    assert evaluate.surface_distances(empty, empty) == (0, 0)
    assert evaluate.surface_distances(full, empty) == evaluate.surface_distances(empty, full) == (50, 50)
    assert evaluate.surface_distances(full, full) == (0, 0)


# Forward passes


class Brightness(torch.nn.Module):
    """Calls an image bright by its mean; the mask is where it is above 0."""

    def forward(self, image):
        mean = image.mean(dim=(1, 2, 3))
        return {"label": torch.stack([-mean, mean], dim=1), "mask": image[:, :1]}


def batches_of(size, device, n=10):
    image = torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(device)
    return [{"image": image[i : i + size]} for i in range(0, n, size)]


def test_predictions_do_not_depend_on_the_batch_size(device):
    one, four = (
        [
            torch.cat([output[head] for _, output in evaluate.infer(Brightness(), batches_of(size, device))])
            for head in ("label", "mask")
        ]
        for size in (1, 4)
    )
    for a, b in zip(one, four):
        torch.testing.assert_close(a, b)


def test_prediction_leaves_the_model_in_the_mode_it_came_in(device):
    for training in (True, False):
        model = Brightness().train(training)
        for _ in evaluate.infer(model, batches_of(4, device)):
            assert not model.training
        assert model.training is training


def test_best_median_and_worst_are_picked_by_score():
    scores = np.array([0.1, 0.9, 0.5, 0.8, 0.2, 0.4, 0.7, 0.3])
    ranks = {1: "best", 3: "best", 2: "median", 5: "median", 4: "worst", 0: "worst"}
    assert list(evaluate.best_median_worst(scores).items()) == list(ranks.items())
    assert evaluate.best_median_worst(np.array([0.5])) == {0: "best"}
    assert evaluate.best_median_worst(np.array([0.5, 0.1, 0.2])) == {0: "best", 2: "best", 1: "worst"}


@pytest.mark.parametrize("n_classes", [2, 25, 1000])
def test_scores_of_any_number_of_classes_are_scikit_learns(n_classes):
    """A confusion matrix's cells for each image would take K ** 2 numbers an image."""
    rng = np.random.default_rng(0)
    true, called = rng.integers(n_classes, size=(2, 300))
    called[::2] = true[::2]
    found = evaluate.label_scores(true, called, [f"c{i}" for i in range(n_classes)], np.ones((1, 300)))
    present = np.unique(true)
    recall = metrics.recall_score(true, called, labels=present, average=None)
    assert found["balanced_accuracy"].item() == pytest.approx(recall.mean())
    f1 = metrics.f1_score(true, called, labels=present, average=None)
    assert [found[f"per_class.c{k}.f1"].item() for k in present] == pytest.approx(f1)


def test_a_perfectly_calibrated_models_mean_error_is_that_of_labels_drawn_from_it():
    """One image in a bin: it is right with 0.8, off by 0.2, or else by 0.8; of n images the mean is by the binomial."""
    assert evaluate.ece_if_calibrated(np.array([[0.8, 0.2]]), 20_000) == pytest.approx(0.8 * 0.2 + 0.2 * 0.8, abs=0.005)
    n, p = 100, 0.75
    hits = np.arange(n + 1)
    expected = (stats.binom.pmf(hits, n, p) * abs(hits / n - p)).sum()
    assert evaluate.ece_if_calibrated(np.full((n, 2), [p, 1 - p]), 5000) == pytest.approx(expected, rel=0.03)


def test_the_accuracy_of_an_image_is_one_where_the_largest_logit_is_at_its_label():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, -1.0, 0.0]])
    assert evaluate.label_accuracy(logits, torch.tensor([1, 2])).tolist() == [1, 0]


def test_a_pixel_is_lesion_where_its_logit_is_above_nothing():
    counts = evaluate.mask_counts(torch.tensor([-0.1, 0.0, 0.1, 0.4]).view(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    assert counts.tolist() == [[2, 0, 2, 0]]


def test_the_temperature_of_an_underconfident_model_is_below_one():
    """Labels are drawn from three times the logits, so that a third is the temperature that undoes it."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    true = np.array([rng.choice(3, p=p) for p in special_softmax(3 * logits, axis=1)])
    assert evaluate.fit_temperature(true, logits) == pytest.approx(1 / 3, rel=0.05)


def test_probabilities_are_of_the_logits_over_the_temperature():
    logits = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(evaluate.softmax(logits, 2.0), special_softmax(logits / 2, axis=1))
    np.testing.assert_allclose(evaluate.softmax(logits), special_softmax(logits, axis=1))


def test_a_confidence_at_the_border_of_two_bins_is_in_the_lower_one():
    """Of 15 bins the third ends at 0.2, and the last at 1."""
    assert evaluate.confidence_bin(np.array([0.0, 0.01, 0.2, 0.201, 1.0])).tolist() == [0, 0, 2, 3, 14]


def test_the_least_confident_are_given_up_first():
    coverage, risk = evaluate.risk_coverage(np.array([True, False, True]), np.array([0.9, 0.5, 0.7]))
    assert coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1]) and risk.tolist() == pytest.approx([0, 0, 1 / 3])


def test_the_area_under_risk_and_coverage_counts_each_image_by_its_weight():
    """The right one first, with risk 0; then the wrong one, three times, with risk 3/4: 3 * 3/4 of four images."""
    found = evaluate.aurc(np.array([False, True]), np.array([0.5, 0.9]), np.array([[3.0, 1.0]]))
    assert found.tolist() == pytest.approx([9 / 16])


def test_a_mask_at_the_limit_of_failure_has_not_failed():
    """13 of 20 pixels are the limit of 0.65."""
    counts = np.array([[13.0, 7, 0, 5]])
    assert evaluate.image_mask_scores(counts)["threshold_iou"].tolist() == [0.65]
    assert evaluate.mask_scores(counts, np.ones((1, 1)))["failure_rate"].tolist() == [0]


def test_equal_images_counted_as_one_give_the_same_bits():
    """Of weights that are whole; with a class that no image has, and columns of flags among the data."""
    rng = np.random.default_rng(0)
    true, sets = rng.integers(0, 3, 500), rng.random((500, 3)) < 0.5
    weights = rng.multinomial(500, np.full(500, 1 / 500), size=20).astype(float)

    def score(true, sets, weights):
        found = evaluate.label_scores(true, sets.argmax(axis=1), "abcd", weights)
        return found | evaluate.binary_scores(true == 1, sets[:, 2], weights)

    found, expected = evaluate.in_groups(score, true, sets)(weights), score(true, sets, weights)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    seen = []
    evaluate.in_groups(lambda true, sets, weights: seen.append((len(true), weights.shape)), true, sets)(weights)
    assert seen == [(3 * 2**3, (20, 3 * 2**3))]


def test_negative_numbers_are_told_apart():
    true, predicted, weights = np.array([0, 1, 0, 1]), np.array([2, -1, 2, -1]), np.ones((1, 4))
    score = lambda true, predicted, weights: weights @ (10 * true + predicted)  # noqa: E731
    assert evaluate.in_groups(score, true, predicted)(weights) == score(true, predicted, weights) == [22]


def test_the_sums_by_group_are_numpys():
    groups, weights = np.array([2, 0, 1, 0, 2, 2]), np.random.default_rng(0).random((4, 6))
    expected = [np.bincount(groups, row) for row in weights]
    np.testing.assert_allclose(evaluate.group_sums(groups)(weights), expected, rtol=1e-15)


def test_the_first_step_of_a_score_serves_any_weights():
    true, probabilities = random_labels(3)
    score = evaluate.official_label_scores.of(true, probabilities, "abcdefg")
    for weights in (ONE, np.random.default_rng(0).integers(0, 3, (5, 200)).astype(float)):
        expected = evaluate.official_label_scores(true, probabilities, "abcdefg", weights)
        found = score(weights)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)
