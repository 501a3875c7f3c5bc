"""Outputs of a model on a set of images -> all scores with intervals, as in metrics.json.

Shapes: N images, M of them with a mask, K classes, B resamples.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

import evaluate
from checkpoints.thresholds import points_among
from dataset.classes import classes_of, positions_of
from measure import benefit, bootstrap, shares
from measure.calibrate import one_against_rest
from measure.calls import Calls
from measure.collect import Collected
from measure.scores import shown_in
from measure.sets import set_scores, shares_of_sets

CHANGE = "balanced_less_likeliest"  # of the scores, in metrics.json
BY_RULE = tuple(score.path[0] for score in shown_in("console", "label").values())  # the first two with their change
OVER_MAJORITY = "likeliest_less_majority"  # in metrics.json: the top-1 class less MAJORITY, paired
MAJORITY = "majority"  # in metrics.json: the scores of always predicting the commonest class of the training images


Binary = tuple[np.ndarray, np.ndarray]  # whether each image is positive, and its score: (N,) each


class Family(NamedTuple):
    """Scores at one place in metrics.json.

    Attributes
    ----------
    place : prefix of their names; "" for the top level.
    scores : from weights (B, N).
    images : those behind each score that is a share of images, as in `measure.shares`.
    """

    place: str
    scores: Callable[[np.ndarray], evaluate.Scores]
    images: shares.Images


def label_numbers(rows: pd.DataFrame, calls: Calls, resamples: bootstrap.Resamples) -> tuple[dict, dict]:
    """All scores of the labels with intervals, for metrics.json; from calibrated probabilities.

    `rules` holds the scores of the top-1 class and of the balanced rule, `balanced_less_likeliest` their paired
    difference; the scores of the top-1 class are also at the top level. `majority` holds the scores of always
    predicting the commonest class of the training images, `likeliest_less_majority` the paired difference from it.
    """
    true, classes = positions_of(rows), classes_of(rows)
    families = label_families(true, calls, classes)

    def scores(weights: np.ndarray) -> evaluate.Scores:
        return merged(under(family.place, family.scores(weights)) for family in families)

    means = merged(under(family.place, family.images) for family in families)
    numbers, intervals = bootstrap.with_intervals(scores, resamples, means)
    for when, of_images in (("before", calls.before), ("after", calls.probabilities)):
        numbers["calibration"][when]["ece_if_calibrated"] = evaluate.ece_if_calibrated(of_images)
        if intervals["calibration"][when]["ece"]:
            interval = calibration_interval(true, of_images, resamples)
            intervals["calibration"][when] |= {"ece": interval, f"ece{bootstrap.KIND}": bootstrap.OF_SIZE}
    for k, code in enumerate(classes):
        numbers["per_class"][code]["support"] = int((true == k).sum())
    numbers[MAJORITY]["class"] = classes[int(np.bincount(calls.commonest).argmax())]
    _add_fitted(numbers, calls.fitted, classes)
    return numbers | {"n_images": len(true)}, intervals


def _add_fitted(numbers: dict, fitted: Sequence[dict], classes: Sequence[str]) -> None:
    """Add what was fitted; of several models the mean, and the classes that are in every set of any of them."""
    numbers["calibration"] |= {name: _mean([one[name] for one in fitted]) for name in ("temperature", "tau")}
    numbers["calibration"]["scale"] = fitted[0]["scale"]
    numbers.setdefault("operating_points", {})
    for name, point in numbers["operating_points"].items():
        point["threshold"] = _mean([one["thresholds"][name] for one in fitted])
    if "sets" in numbers:
        limits = np.array([one["sets"]["limits"] for one in fitted])
        always = [code for code, is_always in zip(classes, (limits == 0).any(axis=0)) if is_always]
        numbers["sets"] |= {"target": fitted[0]["sets"]["target"], "always": always}


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))


def label_families(true: np.ndarray, calls: Calls, classes: Sequence[str]) -> list[Family]:
    """The scores of the labels; `true` is (N,) int in [0, K)."""
    truth = true, calls.probabilities, classes
    points, malignant = of_points(*truth)
    families = [
        rule_family(true, calls, classes),
        Family("official", evaluate.official_label_scores.of(*truth), shares.of_official(*truth)),
        Family("calibration.before", evaluate.calibration_scores.of(true, calls.before), {}),
        Family("calibration.after", evaluate.calibration_scores.of(true, calls.probabilities), {}),
        Family("surest", benefit.surest_scores.of(*truth), benefit.shares_of_surest(*truth)),
    ]
    for name, (positive, _) in points.items():
        above = calls.above[name]
        images = shares.of_binary(positive, above == 1)
        families.append(Family(f"operating_points.{name}", of_point(positive, above), images))
    if malignant:
        families.append(Family("malignant", evaluate.malignant_scores.of(*malignant), {}))
        families.append(Family("net_benefit", benefit.benefit_scores.of(*malignant), {}))
    if calls.sets is not None:
        in_sets = evaluate.in_groups(partial(set_scores, classes=classes), true, calls.sets)
        families.append(Family("sets", in_sets, shares_of_sets(true, calls.sets, classes)))
    return families


def rule_family(true: np.ndarray, calls: Calls, classes: Sequence[str]) -> Family:
    """The scores of the top-1 class, of both rules, of the commonest class, and their paired differences."""

    def of_rules(true: np.ndarray, commonest: np.ndarray, by_rule: np.ndarray, weights: np.ndarray) -> evaluate.Scores:
        majority = evaluate.label_scores(true, commonest, classes, weights)
        rules = {rule: evaluate.label_scores(true, codes, classes, weights) for rule, codes in zip(names, by_rule.T)}
        values = dict(rules["likeliest"])
        for rule, of_rule in rules.items():
            values |= under(f"rules.{rule}", of_rule)
        for name in BY_RULE[:2]:
            values[f"{CHANGE}.{name}"] = rules["balanced"][name] - rules["likeliest"][name]
            values[f"{OVER_MAJORITY}.{name}"] = rules["likeliest"][name] - majority[name]
        return values | under(MAJORITY, {name: majority[name] for name in BY_RULE})

    names, by_rule = list(calls.by_rule), np.stack(list(calls.by_rule.values()), axis=1)
    images = shares.of_predictions(true, calls.likeliest, classes)
    for rule, codes in calls.by_rule.items():
        images |= under(f"rules.{rule}", shares.of_predictions(true, codes, classes))
    scores = evaluate.in_groups(of_rules, true, calls.commonest, by_rule)
    return Family("", scores, images | {f"{MAJORITY}.accuracy": np.ones(len(true), bool)})


def calibration_interval(true: np.ndarray, probabilities: np.ndarray, resamples: bootstrap.Resamples) -> list[float]:
    """95 % interval of the calibration error."""
    gaps_of = evaluate.calibration_gaps.of(true, probabilities)
    (gaps,) = gaps_of(np.ones((1, len(true))))
    return bootstrap.interval_of_size(gaps, np.concatenate(list(resamples.map(gaps_of))))


def of_points(
    true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> tuple[dict[str, Binary], Binary | None]:
    """Truth and score of each operating point, and of malignant (or of melanoma if alone) against the rest."""
    points = {name: one_against_rest(true, probabilities, members) for name, members in points_among(classes).items()}
    return points, points.get("malignant", points.get("melanoma"))


def of_point(positive: np.ndarray, above: np.ndarray) -> Callable[[np.ndarray], evaluate.Scores]:
    """Sensitivity, specificity and PPV of `Calls.above`; undefined if an image's model has no threshold."""
    scores, undefined = evaluate.in_groups(evaluate.binary_scores, positive, above == 1), np.isnan(above).any()

    def scores_of(weights: np.ndarray) -> evaluate.Scores:
        values = scores(weights)
        return {name: values[name] + (np.nan if undefined else 0) for name in ("sensitivity", "specificity", "ppv")}

    return scores_of


def heat_numbers(heat: np.ndarray) -> dict | None:
    """Means of `heat_inside` (M, 2) over the images with a mask; None without any."""
    if not len(heat):
        return None
    inside, area = heat.mean(axis=0).tolist()
    return {"energy_in_mask": inside, "mask_area": area, "n_images": len(heat)}


def mask_numbers(rows: pd.DataFrame, collected: Collected, resamples: bootstrap.Resamples) -> tuple[dict, dict]:
    """All mask scores with intervals: at the network's size, `native` at the mask file's, and by diagnosis."""
    members = {code: np.flatnonzero(positions_of(rows) == k) for k, code in enumerate(classes_of(rows))}

    def native(images: np.ndarray | slice) -> Callable[[np.ndarray], evaluate.Scores]:
        overlaps, surface = evaluate.mask_scores.of(collected.native[images]), collected.surface[images]

        def scores_of(weights: np.ndarray) -> evaluate.Scores:
            distances = evaluate.weighted_mean(weights, surface)
            return overlaps(weights) | {"mean_hd95": distances[:, 0], "mean_assd": distances[:, 1]}

        return scores_of

    network, everything = evaluate.mask_scores.of(collected.mask), native(slice(None))
    by_class = {code: native(images) for code, images in members.items()}

    def scores(weights: np.ndarray) -> evaluate.Scores:
        values = network(weights) | under("native", everything(weights))
        for code, images in members.items():
            values |= under(f"by_class.{code}", by_class[code](weights[:, images]))
        return values

    means = shares.of_masks(len(rows)) | under("native", shares.of_masks(len(rows)))
    for code in members:
        means |= under(f"by_class.{code}", dict.fromkeys(shares.of_masks(0), (rows["label"] == code).to_numpy()))
    numbers, intervals = bootstrap.with_intervals(scores, resamples, means)
    numbers.setdefault("by_class", {})
    for code, images in members.items():
        numbers["by_class"][code]["n_images"] = len(images)
    return numbers | {"n_images": len(rows)}, intervals


def mean_numbers(of_images: evaluate.Scores, resamples: bootstrap.Resamples) -> tuple[dict, dict]:
    """The means of scores that each image has (N,), with intervals: ``mean_<name>``."""

    def scores(weights: np.ndarray) -> evaluate.Scores:
        return {f"mean_{name}": evaluate.weighted_mean(weights, values) for name, values in of_images.items()}

    numbers, intervals = bootstrap.with_intervals(scores, resamples)
    return numbers | {"n_images": len(resamples.lesion)}, intervals


def tested_points(numbers: dict) -> dict:
    """Performance of the operating points in `numbers`, and its `heat_map`, for the checkpoint."""
    label, keys = numbers.get("label", {}), ("threshold", "sensitivity", "specificity")
    points = label.get("operating_points", {}).items()
    tested = {name: {key: point[key] for key in keys} | {"n_images": label["n_images"]} for name, point in points}
    return tested | ({"heat_map": label["heat_map"]} if label.get("heat_map") else {})


def merged(parts: Iterable[dict]) -> dict:
    return {name: values for part in parts for name, values in part.items()}


def under(prefix: str, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The scores with a prefix to their names; "" for none."""
    return {f"{prefix}.{name}" if prefix else name: values for name, values in scores.items()}
