"""A trained model and a set of images -> numbers, tables and pictures in a folder."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import nn

import data
import evaluate
import machine
from dataset.classes import classes_of, positions_of
from dataset.groups import groups_of
from dataset.table import targets
from decision import SCALE, points_among
from report import bootstrap, counted
from report.collect import Collected, collect, gather_rows, run_over_share
from report.folder import RunFolder
from report.pictures import Pictures
from report.scores import SCORES, shown_in

AGE_BANDS = {"under 40": 0, "40 to 59": 40, "60 and over": 60}  # years, from which each begins
N_LINES = 25  # classes that the console shows
CHANGE = "balanced_less_likeliest"  # of the scores, in metrics.json
BY_RULE = tuple(score.path[0] for score in shown_in("console", "label").values())  # the first two with their change
MAJORITY = "majority"  # in metrics.json: the scores of always calling the class that most training images have


def assess(
    model: nn.Module,
    batches: data.Batches,
    calibration: dict,
    folder: RunFolder,
    *,
    task: str,
    precision: str,
    about: dict | None = None,
) -> dict | None:
    """Measure a model on all images of `batches`; write its numbers, tables and pictures, and return the numbers.

    Under torchrun every process calls this with the same images and measures its share of them; the first one writes
    and returns the numbers, the others return None.

    Parameters
    ----------
    model : maps images (N, 3, H, W) to a dict of logits, ``"label"`` or ``"mask"`` or both; heat maps are measured if
        it can `explain`, as `models.Model` does.
    batches : each head is measured on those of their images that have its target. The columns age, sex and
        localization of their table, where it has them, make the subgroups.
    calibration : from `calibrate`.
    folder : gets the files; its caption stands in every picture and in metrics.json.
    about : further plain values for metrics.json.

    Raises
    ------
    ValueError : the calibration is one of an earlier version; as `evaluate.heads_of`.
    """
    if not is_current(calibration):
        raise ValueError(f"This calibration has no tau, or thresholds of another scale than {SCALE}: calibrate again.")
    collected = collect(model, batches, precision)
    if collected is None:
        return None
    rows, known = batches.table, targets(batches.table)
    labelled, masked = known["label"].to_numpy(), known["mask"].to_numpy()
    collected = collected._replace(**{head: None for head in known if not known[head].any()})
    outlined, outlines = rows[masked], collected.of(masked)
    resamples = bootstrap.resample_lesions(groups_of(rows))
    found: dict = ({"data": folder.caption} if folder.caption else {}) | (about or {})
    found |= {"n_images": len(rows), "n_lesions": int(rows["lesion_id"].nunique()), "intervals": {}}

    def pictures_of(images: np.ndarray) -> Pictures:
        some = batches.subset(np.flatnonzero(images))
        return Pictures(model, some, collected.of(images), calibration, task, precision)

    if collected.label is not None:
        diagnosed, logits = rows[labelled], collected.label[labelled]
        numbers = label_numbers(diagnosed, logits, resamples.of(labelled), calibration)
        found["label"], found["intervals"]["label"] = numbers
        found["label"]["heat_map"] = None if outlines.heat is None else heat_numbers(outlines.heat)
        folder.write_table("predictions.csv", prediction_table(diagnosed, logits, calibration))
        folder.draw_all(pictures_of(labelled).of_labels())
    if collected.mask is not None:
        found["mask"], found["intervals"]["mask"] = mask_numbers(outlined, outlines, resamples.of(masked))
        folder.write_table("per_image.csv", mask_table(outlined, outlines.mask)[["image", "iou", "dice"]])
        folder.write_table("per_image_native.csv", mask_table(outlined, outlines.native, outlines.surface))
        folder.draw_all(pictures_of(masked).of_masks())
    found["subgroups"] = subgroup_numbers(rows, collected, resamples)
    folder.write_json("metrics.json", found)
    return found


def calibrate(model: nn.Module, batches: data.Batches, precision: str, learned: np.ndarray) -> dict:
    """What is fitted on the validation set and applied unchanged elsewhere; {} for a model without labels.

    Under torchrun every process calls this with the same images, runs over its share and gets the result.

    Parameters
    ----------
    batches : the validation set.
    learned : (M,) labels of the images that the model was trained on.

    Returns
    -------
    temperature : divides the logits.
    thresholds : of the summed calibrated probability of each operating point's classes; None if no image has them.
    scale : which probabilities the thresholds are of, for `is_current`.
    prior : share of each class among the images that the model was trained on.
    tau : of the balanced rule, for these probabilities.
    """
    classes = batches.classes
    if "label" not in evaluate.heads_of(model, batches.subset([0])[0]["image"], classes):
        return {}
    logits = [output["label"].cpu().numpy() for _, output in run_over_share(model, batches, precision)]
    whole = gather_rows(np.concatenate([np.empty((0, len(classes))), *logits]))
    return machine.from_first(fit_calibration, positions_of(batches.table), whole, learned, classes)


def fit_calibration(true: np.ndarray, logits: np.ndarray, learned: np.ndarray, classes: Sequence[str]) -> dict:
    """The temperature first, then thresholds and tau on the probabilities that it gives; as `calibrate`.

    Labels of -1 are of images that have none, and do not count.
    """
    true, logits, learned = true[true >= 0], logits[true >= 0], learned[learned >= 0]
    temperature = evaluate.fit_temperature(true, logits)
    probabilities, thresholds = evaluate.softmax(logits, temperature), {}
    for name, members in points_among(classes).items():
        positive, score = one_against_rest(true, probabilities, members)
        thresholds[name] = evaluate.operating_threshold(positive, score) if positive.any() else None
    prior = (np.bincount(learned, minlength=len(classes)) / len(learned)).tolist()
    tau = evaluate.fit_tau(true, probabilities, prior)
    return {"temperature": temperature, "thresholds": thresholds, "scale": SCALE, "prior": prior, "tau": tau}


def is_current(calibration: dict) -> bool:
    """Whether a calibration has all that `calibrate` gives today, with thresholds of today's scale.

    Earlier versions fitted no tau, and still earlier ones their thresholds before the temperature.
    """
    return not calibration or (calibration.get("scale") == SCALE and "tau" in calibration)


def one_against_rest(true: np.ndarray, probabilities: np.ndarray, members: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image is of one of the classes at these positions, and their summed probability."""
    return np.isin(true, members), probabilities[:, members].sum(axis=1)


def label_numbers(
    rows: pd.DataFrame, logits: np.ndarray, resamples: bootstrap.Resamples, calibration: dict
) -> tuple[dict, dict]:
    """All scores of the labels with intervals, for metrics.json; from calibrated probabilities.

    `rules` holds the scores of the classes that each rule calls, `balanced_less_likeliest` what the second changes, on
    the same resamples; those of the likeliest class also stand outside. `majority` are those of always calling the
    commonest class of the training images.
    """
    true, classes, thresholds = positions_of(rows), classes_of(rows), calibration["thresholds"]
    before, probabilities = evaluate.softmax(logits), evaluate.softmax(logits, calibration["temperature"])
    called = evaluate.by_rule(probabilities, calibration["prior"], calibration["tau"])
    commonest = int(np.argmax(calibration["prior"]))
    points = {name: one_against_rest(true, probabilities, members) for name, members in points_among(classes).items()}

    def scores(weights: np.ndarray) -> evaluate.Scores:
        majority = evaluate.label_scores(true, np.full(len(true), commonest), classes, weights)
        rules = {rule: evaluate.label_scores(true, chosen, classes, weights) for rule, chosen in called.items()}
        found = dict(rules["likeliest"])
        for rule, of_rule in rules.items():
            found |= under(f"rules.{rule}", of_rule)
        for name in BY_RULE[:2]:
            found[f"{CHANGE}.{name}"] = rules["balanced"][name] - rules["likeliest"][name]
        found |= under(MAJORITY, {name: majority[name] for name in BY_RULE})
        found |= under("official", evaluate.official_label_scores(true, probabilities, classes, weights))
        found |= under("calibration.before", evaluate.calibration_scores(true, before, weights))
        found |= under("calibration.after", evaluate.calibration_scores(true, probabilities, weights))
        for name, (positive, score) in points.items():
            found |= under(f"operating_points.{name}", point_scores(positive, score, thresholds[name], weights))
        return found

    means = counted.of_calls(true, called["likeliest"], classes) | {f"{MAJORITY}.accuracy": np.ones(len(true), bool)}
    for rule, chosen in called.items():
        means |= under(f"rules.{rule}", counted.of_calls(true, chosen, classes))
    means |= under("official", counted.of_official(true, probabilities, classes))
    for name, (positive, score) in points.items():
        means |= under(f"operating_points.{name}", counted.of_binary(positive, score >= (thresholds[name] or 0)))
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
    """Sensitivity, specificity and PPV where score >= threshold is called; none is defined without a threshold."""
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
    """All scores of the masks with intervals: at the network's size, `native` at the mask's, and by diagnosis."""
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

    means = counted.of_masks(len(rows)) | under("native", counted.of_masks(len(rows)))
    for code in members:
        means |= under(f"by_class.{code}", dict.fromkeys(counted.of_masks(0), (rows["label"] == code).to_numpy()))
    numbers, intervals = bootstrap.with_intervals(scores, resamples, means)
    numbers.setdefault("by_class", {})
    for code, images in members.items():
        numbers["by_class"][code]["n_images"] = len(images)
    return numbers | {"n_images": len(rows)}, intervals


def subgroup_numbers(rows: pd.DataFrame, collected: Collected, resamples: bootstrap.Resamples) -> list[dict]:
    """For each age band, sex and site that the table knows: images, lesions, and the heads' main scores.

    Where fewer of its images have a target, `n_labels` or `n_masks` says how many the scores are of.
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
    """The scores that are shown of subgroups, as far as there are heads for them."""
    numbers, intervals, known = {}, {}, targets(rows)
    shown = {head: [score.path[0] for score in shown_in("subgroups", head).values()] for head in known}
    labelled, masked = known["label"].to_numpy(), known["mask"].to_numpy()
    if collected.label is not None:
        true, likeliest = positions_of(rows)[labelled], collected.label[labelled].argmax(axis=1)
        classes = classes_of(rows)

        def scores(weights: np.ndarray) -> evaluate.Scores:
            found = evaluate.label_scores(true, likeliest, classes, weights)
            return {name: found[name] for name in shown["label"]}

        means = counted.of_calls(true, likeliest, classes)
        numbers, intervals = bootstrap.with_intervals(scores, resamples.of(labelled), means)
    if collected.mask is not None:
        of_image = evaluate.image_mask_scores(collected.mask[masked])
        values = {name: of_image[name.removeprefix("mean_")] for name in shown["mask"]}
        found = bootstrap.with_intervals(
            lambda weights: {name: evaluate.weighted_mean(weights, images) for name, images in values.items()},
            resamples.of(masked),
            counted.of_masks(int(masked.sum())),
        )
        numbers, intervals = numbers | found[0], intervals | found[1]
    return numbers, intervals


def age_bands(ages: pd.Series) -> pd.Series:
    """The band of each age in years, as text; NaN if unknown."""
    return pd.cut(ages, [*AGE_BANDS.values(), np.inf], right=False, labels=list(AGE_BANDS)).astype(object)


def prediction_table(rows: pd.DataFrame, logits: np.ndarray, calibration: dict) -> pd.DataFrame:
    """image, true, predicted, balanced, and the calibrated probability of each class: softmax(logits / temperature).

    `predicted` is the likeliest class, `balanced` the one of the balanced rule. The probabilities are of the scale that
    `calibrate`'s thresholds and predict.py's table are of.
    """
    classes, probabilities = np.array(classes_of(rows)), evaluate.softmax(logits, calibration["temperature"])
    called = evaluate.by_rule(probabilities, calibration["prior"], calibration["tau"])
    table = pd.DataFrame(probabilities, columns=classes)
    table.insert(0, "image", rows["image"].to_numpy())
    table.insert(1, "true", classes[positions_of(rows)])
    table.insert(2, "predicted", classes[called["likeliest"]])
    table.insert(3, "balanced", classes[called["balanced"]])
    return table


def mask_table(rows: pd.DataFrame, counts: np.ndarray, surface: np.ndarray | None = None) -> pd.DataFrame:
    """image and each of its mask scores."""
    table = pd.DataFrame({"image": rows["image"].to_numpy(), **evaluate.image_mask_scores(counts)})
    return table if surface is None else table.assign(hd95=surface[:, 0], assd=surface[:, 1])


def console_table(title: str, found: dict) -> str:
    """The main numbers with their intervals, as a table for the console."""
    lines = [title]
    if label := found.get("label"):
        lines.append(f"  {label['n_images']:,} images with a label")
        lines += rule_lines(label, found["intervals"]["label"])
    if "mask" in found:
        lines.append(f"  {found['mask']['n_images']:,} images with a mask")
        lines += [
            f"  {score.title:18} {with_interval(found['mask'], found['intervals']['mask'], score.path[0])}"
            for score in shown_in("console", "mask").values()
        ]
    return "\n".join(lines)


def rule_lines(label: dict, intervals: dict) -> list[str]:
    """Both rules side by side: by class, their main scores with 95 % intervals, and what the second one costs."""
    rules, keys = label["rules"], ("precision", "recall", "f1")
    lines = ["  " + " " * 6 + "".join(f"{rule:>30}" for rule in rules)]
    lines.append(f"  {'':6}" + f"{'precision':>10}{'recall':>10}{'F1':>10}" * len(rules) + f"{'images':>10}")
    rows = label["per_class"]
    commonest = sorted(rows, key=lambda code: -rows[code]["support"])[:N_LINES]
    for code, row in rows.items():
        if code not in commonest:
            continue
        values = [rules[rule]["per_class"][code][key] for rule in rules for key in keys]
        shown = "".join(f"{'-' if value is None else f'{value:.3f}':>10}" for value in values)
        lines.append(f"  {code:6}{shown}{row['support']:>10}")
    if len(rows) > N_LINES:
        lines.append(f"  and {len(rows) - N_LINES:,} classes of fewer images, which stand in metrics.json")
    for name in BY_RULE:
        shown = ", ".join(f"{rule} {with_interval(rules[rule], intervals['rules'][rule], name)}" for rule in rules)
        lines.append(f"  {SCORES[name].title:18} {shown}")
    one, other = (with_interval(label[CHANGE], intervals[CHANGE], name, "+") for name in BY_RULE[:2])
    lines.append(f"  The balanced rule (tau {label['calibration']['tau']:.2f}) changes accuracy by {one}")
    return [*lines, f"  and balanced accuracy by {other}."]


def with_interval(numbers: dict, intervals: dict, name: str, sign: str = "-") -> str:
    """A number and its 95 % interval; `sign` "+" also writes the sign of what is not negative."""
    if intervals[name] is None:
        return f"{numbers[name]:{sign}.3f} (no interval)"
    low, high = intervals[name]
    return f"{numbers[name]:{sign}.3f} (95 % interval {low:{sign}.3f} to {high:{sign}.3f})"


def tested_points(found: dict) -> dict:
    """For the checkpoint: what each operating point's threshold reached on the images that `found` is of."""
    label, keys = found.get("label", {}), ("threshold", "sensitivity", "specificity")
    points = label.get("operating_points", {}).items()
    return {name: {key: point[key] for key in keys} | {"n_images": label["n_images"]} for name, point in points}


def under(prefix: str, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}.{name}": values for name, values in scores.items()}
