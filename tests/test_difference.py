from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import evaluate
from dataset.classes import HAM10000 as CLASSES
from measure import bootstrap
from measure.difference import compare, holm
from measure.scores import compared
from report.results import compare_tasks

LESIONS = pd.Series({name: f"L{name}" for name in "abcd"})


def labels(images, true, predicted, seed=0):
    """A table like predictions.csv, with drawn probabilities."""
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(len(CLASSES)), len(images))
    called = {"predicted": list(predicted), "balanced": list(reversed(predicted))}
    table = pd.DataFrame({"image": list(images), "true": list(true), **called})
    return table.join(pd.DataFrame(probabilities, columns=list(CLASSES)))


def outlines(images, iou):
    """per_image.csv and per_image_native.csv in one, as `read_head` gives them."""
    iou = np.asarray(iou, float)
    dice = 2 * iou / (1 + iou)
    threshold_iou = np.where(iou < evaluate.FAILURE, 0, iou)
    values = {"iou": iou, "dice": dice, "iou_native": iou, "dice_native": dice, "threshold_iou": threshold_iou}
    return pd.DataFrame({"image": list(images), **values})


SINGLE = labels("abcd", ["MEL", "MEL", "NV", "NV"], ["MEL", "NV", "NV", "NV"])


def test_comparing_two_models_counts_the_images_that_both_have():
    multi = SINGLE.assign(predicted=["MEL", "MEL", "NV", "NV"]).iloc[:3]
    found = compare("label", SINGLE, multi, LESIONS)
    assert (found["n_images"], found["n_lesions"]) == (3, 3)
    assert found["balanced_accuracy"]["difference"] == pytest.approx(1 - (0.5 + 1) / 2)
    assert found["accuracy"]["difference"] == pytest.approx(1 - 2 / 3)
    assert (found["only_first_right"], found["only_second_right"]) == (0, 1)


def test_the_images_may_stand_in_any_order():
    found = compare("label", SINGLE, SINGLE[::-1], LESIONS)
    assert found["nll"]["difference"] == pytest.approx(0)
    assert (found["only_first_right"], found["only_second_right"]) == (0, 0)


def test_the_differences_of_labels_are_scikit_learns():
    true = np.array(["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"] * 4)
    images, pair = [f"i{i}" for i in range(len(true))], []
    for seed in (1, 2):
        table = labels(images, true, true, seed)
        likeliest = np.array(CLASSES)[table[list(CLASSES)].to_numpy().argmax(axis=1)]
        pair.append(table.assign(predicted=likeliest, balanced=np.roll(likeliest, seed)))

    def expected(score):
        return score(pair[1]) - score(pair[0])

    def mean_auc(table):
        return np.mean([metrics.roc_auc_score(true == code, table[code]) for code in CLASSES])

    def nll(table):
        return metrics.log_loss([CLASSES.index(code) for code in true], table[list(CLASSES)], labels=range(7))

    found = compare("label", *pair, pd.Series(np.arange(28), images))
    assert {key for key in found if not key.startswith(("n_", "only_"))} == set(compared("label"))
    for key, score in {
        "accuracy": lambda table: metrics.accuracy_score(true, table["predicted"]),
        "balanced_accuracy": lambda table: metrics.balanced_accuracy_score(true, table["predicted"]),
        "balanced_rule": lambda table: metrics.balanced_accuracy_score(true, table["balanced"]),
        "mean_auc": mean_auc,
        "nll": nll,
        "melanoma_recall": lambda t: metrics.recall_score(true, t["predicted"], labels=["MEL"], average="macro"),
    }.items():
        assert found[key]["difference"] == pytest.approx(expected(score)), key


def test_the_differences_of_outlines_are_those_of_the_means():
    """Jaccard 0.5, 0.8 and 1 against 0.6, 0.7 and 1; 0.5 and 0.6 are failures."""
    found = compare("mask", outlines("abc", [0.5, 0.8, 1]), outlines("abc", [0.6, 0.7, 1]), LESIONS)
    dice = (2 * 0.6 / 1.6 + 2 * 0.7 / 1.7) - (2 * 0.5 / 1.5 + 2 * 0.8 / 1.8)
    assert found["mean_dice"]["difference"] == pytest.approx(dice / 3)
    assert found["native_dice"]["difference"] == pytest.approx(dice / 3)
    assert found["threshold_iou"]["difference"] == pytest.approx(-0.1 / 3)
    assert found["failure_rate"]["difference"] == 0
    worse = compare("mask", outlines("abc", [0.5, 0.8, 1]), outlines("abc", [0.6, 0.64, 0.64]), LESIONS)
    assert worse["failure_rate"]["difference"] == pytest.approx(2 / 3)


def test_outlines_are_compared_at_the_size_that_a_scores_name_says():
    small, native = outlines("abc", [0.5, 0.8, 1]), outlines("abc", [0.9, 0.9, 0.6])
    columns = [column for column in native if column.endswith("_native") or column == "threshold_iou"]
    found = compare("mask", small, small.assign(**native[columns]), LESIONS)
    assert found["mean_dice"]["difference"] == 0 != found["native_dice"]["difference"]
    assert found["native_dice"]["difference"] == pytest.approx(native["dice"].mean() - small["dice"].mean())
    worse = compare("mask", small, small.assign(iou_native=[0.6, 0.6, 0.6]), LESIONS)
    assert worse["failure_rate"]["difference"] == pytest.approx(2 / 3)


def test_a_model_over_all_views_is_not_compared_with_one_that_sees_one(tmp_path):
    folder = SimpleNamespace(path=tmp_path, facts=lambda task: {"measured": {"tta": task == "multitask"}})
    assert not compare_tasks(folder, None)


def test_the_interval_holds_95_of_100_resamples_of_lesions():
    """Against a bootstrap that repeats the rows of each lesion as often as it was drawn."""
    rng = np.random.default_rng(5)
    images, lesion = [f"i{i}" for i in range(30)], np.arange(30) // 3
    first, second = rng.uniform(size=(2, 30))
    found = compare("mask", outlines(images, first), outlines(images, second), pd.Series(lesion, images))
    dice = [2 * iou / (1 + iou) for iou in (first, second)]
    draws = bootstrap.resample_lesions(lesion).draws
    drawn = [np.repeat(dice[1] - dice[0], np.repeat(draw, 3)).mean() for draw in draws]
    np.testing.assert_allclose(found["mean_dice"]["interval"], np.percentile(drawn, [2.5, 97.5]))


def test_photographs_of_one_lesion_say_no_more_about_two_models_than_one_does():
    """Four photographs of each of 40 lesions: the interval is that of 40 images, twice as wide as of 160 lesions."""
    n = 160
    names, sibling = [f"i{i}" for i in range(n)], np.arange(n) // 4
    single = labels(names, ["NV"] * n, np.where(sibling % 4 == 0, "MEL", "NV"))
    multi = single.assign(predicted=np.where(sibling % 4 == 1, "MEL", "NV"))
    by_image, by_lesion = (
        np.diff(compare("label", single, multi, pd.Series(lesions, names))["accuracy"]["interval"])
        for lesions in (np.arange(n), sibling)
    )
    assert by_lesion / by_image == pytest.approx(2, abs=0.3)


def test_an_image_that_was_judged_in_several_folds_counts_once():
    """Image a is right in one of two folds, so it is half right: 0.5 + 1 + 1 + 1 of 4 against 1 + 0 + 1 + 1."""
    again = pd.concat([SINGLE.iloc[[0]].assign(predicted="NV"), SINGLE]).assign(fold=[1, 2, 1, 1, 2])
    again.loc[again["image"] == "b", "predicted"] = "MEL"
    found = compare("label", SINGLE, again, LESIONS)
    assert (found["n_images"], found["n_lesions"]) == (4, 4)
    assert found["accuracy"]["difference"] == pytest.approx((3.5 - 3) / 4)
    assert found["balanced_accuracy"]["difference"] == pytest.approx((1.5 / 2 - 1 / 2) / 2)
    assert "only_first_right" not in found  # not a number of images


def test_repeats_of_the_folds_give_the_interval_of_each_images_mean():
    """Dice is a mean over images: judged thrice in each of two repeats, or once with the mean of both."""
    rng, images = np.random.default_rng(1), [f"i{i}" for i in range(20)]
    first, second, other = rng.uniform(size=(3, 20))
    lesions = pd.Series(np.arange(20) // 2, images)
    twice = pd.concat([outlines(images, first).assign(fold=1), outlines(images, second).assign(fold=2)])
    mean = twice.groupby("image", sort=False).mean().reset_index()
    found, expected = (compare("mask", outlines(images, other), table, lesions) for table in (twice, mean))
    for name in ("difference", "interval", "p"):
        assert found["native_dice"][name] == pytest.approx(expected["native_dice"][name]), name
    assert found["n_images"] == 20
    with pytest.raises(ValueError, match="'i3' occurs twice"):
        compare("mask", outlines(images, other), pd.concat([twice, twice[3:4]]), lesions)


def test_the_p_value_counts_the_resamples_on_either_side_of_0():
    rng = np.random.default_rng(5)
    images = [f"i{i}" for i in range(30)]
    pair = [outlines(images, iou) for iou in rng.uniform(size=(2, 30))]
    found = compare("mask", *pair, pd.Series(np.arange(30), images))["native_dice"]
    drawn = bootstrap.resample_lesions(np.arange(30)).draws @ (pair[1]["dice"] - pair[0]["dice"]).to_numpy()
    n_below, n_above = (drawn <= 0).sum(), (drawn >= 0).sum()
    assert found["p"] == pytest.approx(2 * (min(n_below, n_above) + 1) / 2001)
    assert compare("mask", pair[0], pair[0], pd.Series(np.arange(30), images))["native_dice"]["p"] is None


def test_holms_correction_is_that_of_the_textbook():
    """By hand: of four p values the smallest times 4, the next times 3, ... each at least the one before; at most 1."""
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.7, None, 0.6]) == [1, None, 1]
    assert holm([]) == []


def test_a_name_that_stands_twice_or_has_no_lesion_is_refused_by_name():
    for arguments in (
        (SINGLE, SINGLE, pd.concat([LESIONS, LESIONS["b":"b"]])),
        (SINGLE.iloc[[0, 1, 1]], SINGLE, LESIONS),
        (SINGLE, SINGLE.iloc[[0, 1, 1]], LESIONS),
    ):
        with pytest.raises(ValueError, match="'b' occurs twice"):
            compare("label", *arguments)
    with pytest.raises(ValueError, match="No lesion is known of 'd'"):
        compare("label", SINGLE, SINGLE, LESIONS["a":"c"])
    with pytest.raises(ValueError, match="no image in common"):
        compare("label", SINGLE.iloc[:2], SINGLE.iloc[2:], LESIONS)
