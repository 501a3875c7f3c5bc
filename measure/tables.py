"""Outputs of a model -> one row per image; main numbers -> a table for the console."""

import numpy as np
import pandas as pd

import evaluate
from dataset.classes import classes_of, positions_of
from measure.calls import Calls
from measure.numbers import BY_RULE, CHANGE
from measure.scores import SCORES, shown_in

TITLES = {"likeliest": "top-1", "balanced": "balanced"}  # of the rules
N_LINES = 25  # maximum number of classes on the console


def prediction_table(rows: pd.DataFrame, calls: Calls) -> pd.DataFrame:
    """image, true, predicted, balanced, and the calibrated probability of each class: softmax(logits / temperature).

    `predicted` is the top-1 class, `balanced` the class of the balanced rule. The thresholds of `calibrate` and the
    table of predict.py refer to the same probabilities.
    """
    classes = np.array(classes_of(rows))
    table = pd.DataFrame(calls.probabilities, columns=classes)
    table.insert(0, "image", rows["image"].to_numpy())
    table.insert(1, "true", classes[positions_of(rows)])
    table.insert(2, "predicted", classes[calls.likeliest])
    table.insert(3, "balanced", classes[calls.balanced])
    return table


def mask_table(rows: pd.DataFrame, counts: np.ndarray, surface: np.ndarray | None = None) -> pd.DataFrame:
    """image and each of its mask scores."""
    table = pd.DataFrame({"image": rows["image"].to_numpy(), **evaluate.image_mask_scores(counts)})
    return table if surface is None else table.assign(hd95=surface[:, 0], assd=surface[:, 1])


def console_table(title: str, numbers: dict) -> str:
    """The main numbers with intervals, for the console."""
    lines = [title]
    if label := numbers.get("label"):
        lines.append(f"  {label['n_images']:,} images with a label")
        lines += [*class_lines(label), *rule_lines(numbers), *change_lines(label, numbers["intervals"]["label"])]
    if "mask" in numbers:
        lines += [f"  {numbers['mask']['n_images']:,} images with a mask", *mask_lines(numbers)]
    if biopsied := numbers.get("biopsied"):
        n_images, n_lesions = biopsied["n_images"], biopsied["n_lesions"]
        of_lesions = "" if n_lesions is None else f" of {n_lesions:,} lesions"
        lines.append(f"  Biopsied only: {n_images:,} images{of_lesions}, diagnosed by histopathology")
        lines += [*rule_lines(biopsied), *mask_lines(biopsied)]
    if "unlike" in numbers:
        shown = with_interval(numbers["unlike"], numbers["intervals"]["unlike"], "flagged")
        lines.append(f"  Flagged as unlike the training images: {shown}")
    for head in [head for head in numbers["intervals"] if head not in ("label", "mask", "unlike")]:
        shown = [with_interval(numbers[head], numbers["intervals"][head], name) for name in numbers["intervals"][head]]
        lines += [f"  {head}: {', '.join(shown)}"]
    return "\n".join(lines)


def class_lines(label: dict) -> list[str]:
    """Both rules side by side: scores by class."""
    rules, keys = label["rules"], ("precision", "recall", "f1")
    lines = ["  " + " " * 6 + "".join(f"{TITLES[rule]:>30}" for rule in rules)]
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
        lines.append(f"  and {len(rows) - N_LINES:,} classes with fewer images; see metrics.json")
    return lines


def rule_lines(numbers: dict) -> list[str]:
    """The main scores of the labels with 95 % intervals, by rule where it matters; none without labels."""
    if "label" not in numbers:
        return []
    label, intervals, lines = numbers["label"], numbers["intervals"]["label"], []
    for name in BY_RULE:
        shown = ", ".join(
            f"{TITLES[rule]} {with_interval(one, intervals['rules'][rule], name)}"
            for rule, one in label["rules"].items()
        )
        lines.append(f"  {SCORES[name].title:18} {shown}")
    if (malignant := label.get("malignant", {})).get("auc") is not None:
        auc = with_interval(malignant, intervals["malignant"], "auc")
        lines.append(f"  {SCORES['malignant_auc'].title:18} {auc}")
    return lines


def mask_lines(numbers: dict) -> list[str]:
    """The main scores of the masks with 95 % intervals; none without masks."""
    if "mask" not in numbers:
        return []
    shown = shown_in("console", "mask").values()
    mask, intervals = numbers["mask"], numbers["intervals"]["mask"]
    return [f"  {score.title:18} {with_interval(mask, intervals, score.path[0])}" for score in shown]


def change_lines(label: dict, intervals: dict) -> list[str]:
    """What the balanced rule changes, with 95 % intervals."""
    one, other = (with_interval(label[CHANGE], intervals[CHANGE], name, "+") for name in BY_RULE[:2])
    tau = label["calibration"]["tau"]
    return [f"  The balanced rule (tau {tau:.2f}) changes accuracy by {one}", f"  and balanced accuracy by {other}."]


def with_interval(numbers: dict, intervals: dict, name: str, sign: str = "-") -> str:
    """A number and its 95 % interval; `sign` "+" also marks positive numbers."""
    if intervals[name] is None:
        return f"{numbers[name]:{sign}.3f} (no interval)"
    low, high = intervals[name]
    return f"{numbers[name]:{sign}.3f} (95 % interval {low:{sign}.3f} to {high:{sign}.3f})"
