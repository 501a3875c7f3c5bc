"""The numbers of a test set and their intervals, against scikit-learn and by hand."""

import numpy as np
import pandas as pd
import pytest
from conftest import assess_rows, probabilities_in
from sklearn import metrics

import evaluate
from dataset.classes import HAM10000 as CLASSES
from dataset.table import USED
from measure import bootstrap
from measure import numbers as scoring
from measure.calls import read_logits
from measure.collect import Collected


def test_every_point_estimate_has_an_interval_that_holds_it(measured):
    found = measured[3]

    def check(values, intervals, path=""):
        for name, value in values.items():
            if isinstance(value, dict) and name not in ("heat_map",):
                check(value, intervals[name], f"{path}.{name}")
            elif (
                name
                not in (
                    "n_images",
                    "support",
                    "temperature",
                    "tau",
                    "threshold",
                    "scale",
                    "heat_map",
                    "class",
                    "target",
                    "always",
                    "ece_if_calibrated",
                )
                and value is not None
            ):
                low, high = intervals[name] or (-np.inf, np.inf)
                assert low < high and (intervals[name] or intervals[f"{name}_kind"].startswith("none: "))
                # The bootstrap of a maximum or a small class may sit beside its point estimate; most must not.
                outside.extend([] if low - 1e-9 <= value <= high + 1e-9 else [f"{path}.{name}"])
                seen.append(name)

    outside, seen = [], []
    for head in ("label", "mask"):
        check(found[head], found["intervals"][head], head)
    assert len(seen) > 150 and len(outside) < 0.05 * len(seen), outside


@pytest.mark.parametrize(("rule", "column"), [("likeliest", "predicted"), ("balanced", "balanced")])
def test_the_scores_of_each_rule_agree_with_scikit_learn_on_the_table(both_rules, rule, column):
    table, _, _, numbers, intervals = both_rules
    found, pair = numbers["rules"][rule], (table["true"], table[column])
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(*pair))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(*pair))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(*pair, average="macro"))
    by_class = metrics.precision_recall_fscore_support(*pair, labels=list(CLASSES), zero_division=0)
    for k, code in enumerate(CLASSES):
        expected = [values[k] for values in by_class[:3]]
        assert [found["per_class"][code][key] for key in ("precision", "recall", "f1")] == pytest.approx(expected)
    low, high = intervals["rules"][rule]["accuracy"]
    assert low < found["accuracy"] < high


def test_the_likeliest_classes_scores_stand_where_they_stood(both_rules):
    numbers = both_rules[3]
    likeliest = numbers["rules"]["likeliest"]
    assert all(numbers[key] == value for key, value in likeliest.items() if key != "per_class")
    for code in CLASSES:
        own = {key: value for key, value in numbers["per_class"][code].items() if key != "support"}
        assert own == likeliest["per_class"][code]


def test_the_baseline_always_calls_the_class_that_is_commonest_in_training(both_rules):
    """NV, that 67 of the 100 training images have: right where the truth is NV, and on one class of seven."""
    table, *_, numbers, intervals = both_rules
    found = numbers["majority"]
    assert found["class"] == "NV" and found["accuracy"] == (table["true"] == "NV").mean()
    assert found["balanced_accuracy"] == pytest.approx(1 / 7)
    low, high = intervals["majority"]["accuracy"]
    assert low < found["accuracy"] < high


def test_the_top_1_class_is_compared_with_the_baseline_by_paired_resamples(both_rules):
    """Its interval is that of differences on the same resamples, and not of two independent ones."""
    table, _, resamples, numbers, intervals = both_rules
    true, own = (pd.Categorical(table[key], CLASSES).codes.astype(int) for key in ("true", "predicted"))
    predicted = np.full(len(true), CLASSES.index("NV")), own
    expected = bootstrap.paired_difference(
        lambda i, weights: evaluate.label_scores(true, predicted[i], CLASSES, weights)["accuracy"], resamples
    )
    found = [numbers["likeliest_less_majority"]["accuracy"], *intervals["likeliest_less_majority"]["accuracy"]]
    np.testing.assert_allclose(found, [expected["difference"], *expected["interval"]])


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy"])
def test_what_the_balanced_rule_changes_is_paired_by_lesion(both_rules, name):
    table, _, resamples, numbers, intervals = both_rules
    true, *called = (pd.Categorical(table[key], CLASSES).codes.astype(int) for key in ("true", "predicted", "balanced"))
    expected = bootstrap.paired_difference(
        lambda i, weights: evaluate.label_scores(true, called[i], CLASSES, weights)[name], resamples
    )
    assert numbers["balanced_less_likeliest"][name] == pytest.approx(expected["difference"])
    assert intervals["balanced_less_likeliest"][name] == pytest.approx(expected["interval"])


def test_what_a_checkpoint_keeps_of_the_test_set_is_plain_and_from_the_metrics(measured):
    found = measured[3]
    tested = scoring.tested_points(found)
    assert tested.pop("heat_map") == found["label"]["heat_map"]
    assert list(tested) == ["melanoma", "malignant"] and scoring.tested_points({"mask": {}}) == {}
    for name, point in tested.items():
        source = found["label"]["operating_points"][name]
        expected = {key: source[key] for key in ("threshold", "sensitivity", "specificity")}
        assert point == expected | {"n_images": found["n_images"]}
        assert [type(value) for value in point.values()] == [float, float, float, int]


def test_nothing_is_perfect_about_a_class_without_images(measured):
    """Without a melanoma, what share of the melanomas is found is not known."""
    found = assess_rows(measured, measured[1].table[measured[1].table["label"] != "MEL"])
    point, interval = (part["operating_points"]["melanoma"] for part in (found["label"], found["intervals"]["label"]))
    assert point["sensitivity"] is None and interval["sensitivity"] is None
    assert point["specificity"] is not None and point["ppv"] in (0, None)
    official = found["label"]["official"]
    assert official["per_class"]["MEL"]["sensitivity"] == 1  # the organisers' convention
    of_present = [official["per_class"][code]["sensitivity"] for code in CLASSES[1:]]
    assert official["macro"]["sensitivity"] == pytest.approx((1 + sum(of_present)) / 7)
    assert official["macro_present"]["sensitivity"] == pytest.approx(np.mean(of_present))


def test_the_auc_of_malignant_is_scikit_learns(measured):
    true, p = probabilities_in(measured[-1])
    malignant = [CLASSES.index(code) for code in ("MEL", "BCC", "AKIEC")]
    expected = metrics.roc_auc_score(np.isin(true, malignant), p[:, malignant].sum(axis=1))
    assert measured[3]["label"]["malignant"]["auc"] == pytest.approx(expected, abs=1e-4)


def test_the_heat_maps_energy_is_of_the_images_with_a_mask(measured):
    model, batches, _, found, _ = measured
    inside, area = [], []
    for batch in batches.epoch():
        heat = model.heat_map(batch["image"])
        inside += ((heat * batch["mask"]).sum(dim=(1, 2, 3)) / heat.sum(dim=(1, 2, 3)).clamp(min=1e-6)).tolist()
        area += batch["mask"].mean(dim=(1, 2, 3)).tolist()
    expected = {"energy_in_mask": np.mean(inside), "mask_area": np.mean(area), "n_images": len(batches.table)}
    assert found["label"]["heat_map"] == pytest.approx(expected)


def interval_of(values, weights):
    """95 % of the weighted means of (N,) values."""
    return np.percentile((weights @ values) / weights.sum(axis=1), [2.5, 97.5])


def test_classes_are_resampled_by_their_own_lesions():
    """Lesions of one image and of five in turn, so that other images' weights give another interval."""
    lesion = np.concatenate([np.full(1 + 4 * (k % 2), k) for k in range(20)])
    n = len(lesion)
    rows = pd.DataFrame({"image": [f"i{k}" for k in range(n)], "lesion_id": lesion, "status": USED})
    rows["label"] = pd.Categorical(np.where(np.arange(n) < 20, "x", "y"))
    rows["mask_path"] = "a.png"
    counts = np.random.default_rng(0).integers(1, 100, (n, 4)).astype(float)
    collected = Collected(mask=counts, native=counts, surface=np.ones((n, 2)))
    resamples, of_class = bootstrap.resample_lesions(lesion, 200), np.arange(20, n)
    weights = np.concatenate(list(resamples.blocks()))[:, of_class]
    expected = interval_of(evaluate.dice(counts)[of_class], weights)
    _, intervals = scoring.mask_numbers(rows, collected, resamples)
    np.testing.assert_allclose(intervals["by_class"]["y"]["mean_dice"], expected)


def test_the_majority_is_that_of_the_training_images_and_not_of_the_test_set():
    rows = pd.DataFrame({"label": pd.Categorical(["a", "a", "a", "b"], ["a", "b"]), "lesion_id": list("wxyz")})
    calibration = {"temperature": 1.0, "tau": 0.0, "prior": [0.4, 0.6], "scale": "calibrated", "thresholds": {}}
    resamples = bootstrap.resample_lesions(rows["lesion_id"], 20)
    numbers, _ = scoring.label_numbers(rows, read_logits(np.array([[1.0, 0.0]] * 4), calibration, "ab"), resamples)
    assert numbers[scoring.MAJORITY]["class"] == "b" and numbers[scoring.MAJORITY]["accuracy"] == 0.25
