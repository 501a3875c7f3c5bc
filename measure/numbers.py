"""Outputs of a model on a set of images -> all scores with intervals, as in metrics.json.

Shapes: N images, M of them with a mask, K classes, B resamples.
"""

import numpy as np
import pandas as pd

import evaluate
from checkpoints.thresholds import points_among
from dataset.classes import classes_of, positions_of
from dataset.table import targets
from measure import bootstrap, shares
from measure.calibrate import one_against_rest
from measure.collect import Collected
from measure.scores import shown_in

AGE_BANDS = {"under 40": 0, "40 to 59": 40, "60 and over": 60}  # lower limits in years
CHANGE = "balanced_less_likeliest"  # of the scores, in metrics.json
BY_RULE = tuple(score.path[0] for score in shown_in("console", "label").values())  # the first two with their change
OVER_MAJORITY = "likeliest_less_majority"  # in metrics.json: the top-1 class less MAJORITY, paired
MAJORITY = "majority"  # in metrics.json: the scores of always predicting the commonest class of the training images


def label_numbers(
    rows: pd.DataFrame, logits: np.ndarray, resamples: bootstrap.Resamples, calibration: dict
) -> tuple[dict, dict]:
    """All scores of the labels with intervals, for metrics.json; from calibrated probabilities.

    `rules` holds the scores of the top-1 class and of the balanced rule, `balanced_less_likeliest` their paired
    difference; the scores of the top-1 class are also at the top level. `majority` holds the scores of always
    predicting the commonest class of the training images, `likeliest_less_majority` the paired difference from it.
    """
    true, classes, thresholds = positions_of(rows), classes_of(rows), calibration["thresholds"]
    before, probabilities = evaluate.softmax(logits), evaluate.softmax(logits, calibration["temperature"])
    predicted = evaluate.by_rule(probabilities, calibration["prior"], calibration["tau"])
    commonest = int(np.argmax(calibration["prior"]))
    points = {name: one_against_rest(true, probabilities, members) for name, members in points_among(classes).items()}

    def scores(weights: np.ndarray) -> evaluate.Scores:
        majority = evaluate.label_scores(true, np.full(len(true), commonest), classes, weights)
        rules = {rule: evaluate.label_scores(true, codes, classes, weights) for rule, codes in predicted.items()}
        values = dict(rules["likeliest"])
        for rule, of_rule in rules.items():
            values |= under(f"rules.{rule}", of_rule)
        for name in BY_RULE[:2]:
            values[f"{CHANGE}.{name}"] = rules["balanced"][name] - rules["likeliest"][name]
            values[f"{OVER_MAJORITY}.{name}"] = rules["likeliest"][name] - majority[name]
        values |= under(MAJORITY, {name: majority[name] for name in BY_RULE})
        values |= under("official", evaluate.official_label_scores(true, probabilities, classes, weights))
        values |= under("calibration.before", evaluate.calibration_scores(true, before, weights))
        values |= under("calibration.after", evaluate.calibration_scores(true, probabilities, weights))
        for name, (positive, score) in points.items():
            values |= under(f"operating_points.{name}", point_scores(positive, score, thresholds[name], weights))
        return values

    means = shares.of_predictions(true, predicted["likeliest"], classes) | {
        f"{MAJORITY}.accuracy": np.ones(len(true), bool)
    }
    for rule, codes in predicted.items():
        means |= under(f"rules.{rule}", shares.of_predictions(true, codes, classes))
    means |= under("official", shares.of_official(true, probabilities, classes))
    for name, (positive, score) in points.items():
        means |= under(f"operating_points.{name}", shares.of_binary(positive, score >= (thresholds[name] or 0)))
    numbers, intervals = bootstrap.with_intervals(scores, resamples, means)
    for when, of_images in (("before", before), ("after", probabilities)):
        numbers["calibration"][when]["ece_if_calibrated"] = evaluate.ece_if_calibrated(of_images)
        if intervals["calibration"][when]["ece"]:
            interval = calibration_interval(true, of_images, resamples)
            intervals["calibration"][when] |= {"ece": interval, f"ece{bootstrap.KIND}": bootstrap.OF_SIZE}
    numbers.setdefault("operating_points", {})
    numbers[MAJORITY]["class"] = classes[commonest]
    for k, code in enumerate(classes):
        numbers["per_class"][code]["support"] = int((true == k).sum())
    numbers["calibration"] |= {name: calibration[name] for name in ("temperature", "scale", "tau")}
    for name, threshold in thresholds.items():
        numbers["operating_points"][name]["threshold"] = threshold
    return numbers | {"n_images": len(true)}, intervals


def calibration_interval(true: np.ndarray, probabilities: np.ndarray, resamples: bootstrap.Resamples) -> list[float]:
    """95 % interval of the calibration error."""
    (gaps,) = evaluate.calibration_gaps(true, probabilities, np.ones((1, len(true))))
    drawn = [evaluate.calibration_gaps(true, probabilities, weights) for weights in resamples.blocks()]
    return bootstrap.interval_of_size(gaps, np.concatenate(drawn))


def point_scores(
    positive: np.ndarray, score: np.ndarray, threshold: float | None, weights: np.ndarray
) -> evaluate.Scores:
    """Sensitivity, specificity and PPV of score >= threshold; undefined without a threshold."""
    values = evaluate.binary_scores(positive, score >= (threshold or 0), weights)
    undefined = np.nan if threshold is None else 0
    return {name: values[name] + undefined for name in ("sensitivity", "specificity", "ppv")}


def heat_numbers(heat: np.ndarray) -> dict | None:
    """Means of `heat_inside` (M, 2) over the images with a mask; None without any."""
    if not len(heat):
        return None
    inside, area = heat.mean(axis=0).tolist()
    return {"energy_in_mask": inside, "mask_area": area, "n_images": len(heat)}


def mask_numbers(rows: pd.DataFrame, collected: Collected, resamples: bootstrap.Resamples) -> tuple[dict, dict]:
    """All mask scores with intervals: at the network's size, `native` at the mask file's, and by diagnosis."""
    members = {code: np.flatnonzero(positions_of(rows) == k) for k, code in enumerate(classes_of(rows))}

    def native(images: np.ndarray | slice, weights: np.ndarray) -> evaluate.Scores:
        found = evaluate.mask_scores(collected.native[images], weights)
        distances = evaluate.weighted_mean(weights, collected.surface[images])
        return found | {"mean_hd95": distances[:, 0], "mean_assd": distances[:, 1]}

    def scores(weights: np.ndarray) -> evaluate.Scores:
        found = evaluate.mask_scores(collected.mask, weights) | under("native", native(slice(None), weights))
        for code, images in members.items():
            found |= under(f"by_class.{code}", native(images, weights[:, images]))
        return found

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


def subgroup_numbers(rows: pd.DataFrame, collected: Collected, resamples: bootstrap.Resamples) -> list[dict]:
    """Number of images and lesions, and main scores, for each age band, sex and site in the table.

    If some of its images lack a target, `n_labels` or `n_masks` gives the number behind the scores.
    """
    groups = {name: rows[name] for name in ("age", "sex", "localization") if name in rows}
    if "age" in groups:
        groups["age"] = age_bands(groups["age"])
    found, heads = [], [head for head in ("label", "mask") if getattr(collected, head) is not None]
    for name, values in groups.items():
        for value in sorted(values.dropna().unique()):
            chosen = np.flatnonzero(values.isin([value]))
            members = rows.iloc[chosen]
            numbers, intervals = main_numbers(members, collected.of(chosen), resamples.of(chosen))
            group = {"group": name, "value": value, "n_images": len(members)}
            group["n_lesions"] = int(members["lesion_id"].nunique())
            n_known = targets(members)[heads].sum()
            group |= {f"n_{head}s": int(n) for head, n in n_known.items() if n < len(members)}
            found.append(group | numbers | {"intervals": intervals})
    return found


def main_numbers(rows: pd.DataFrame, collected: Collected, resamples: bootstrap.Resamples) -> tuple[dict, dict]:
    """The main scores, as shown for subgroups, of the heads that the model has."""
    numbers, intervals, known = {}, {}, targets(rows)
    shown = {head: [score.path[0] for score in shown_in("subgroups", head).values()] for head in known}
    labelled, masked = known["label"].to_numpy(), known["mask"].to_numpy()
    if collected.label is not None:
        true, predicted = positions_of(rows)[labelled], collected.label[labelled].argmax(axis=1)
        classes = classes_of(rows)

        def scores(weights: np.ndarray) -> evaluate.Scores:
            found = evaluate.label_scores(true, predicted, classes, weights)
            return {name: found[name] for name in shown["label"]}

        means = shares.of_predictions(true, predicted, classes)
        numbers, intervals = bootstrap.with_intervals(scores, resamples.of(labelled), means)
    if collected.mask is not None:
        of_image = evaluate.image_mask_scores(collected.mask[masked])
        values = {name: of_image[name.removeprefix("mean_")] for name in shown["mask"]}
        found = bootstrap.with_intervals(
            lambda weights: {name: evaluate.weighted_mean(weights, images) for name, images in values.items()},
            resamples.of(masked),
            shares.of_masks(int(masked.sum())),
        )
        numbers, intervals = numbers | found[0], intervals | found[1]
    return numbers, intervals


def age_bands(ages: pd.Series) -> pd.Series:
    """The band of each age in years; NaN if unknown."""
    return pd.cut(ages, [*AGE_BANDS.values(), np.inf], right=False, labels=list(AGE_BANDS)).astype(object)


def tested_points(numbers: dict) -> dict:
    """Performance of the operating points in `numbers`, for the checkpoint."""
    label, keys = numbers.get("label", {}), ("threshold", "sensitivity", "specificity")
    points = label.get("operating_points", {}).items()
    return {name: {key: point[key] for key in keys} | {"n_images": label["n_images"]} for name, point in points}


def under(prefix: str, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}.{name}": values for name, values in scores.items()}
