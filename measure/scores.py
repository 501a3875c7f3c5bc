"""The table of test scores: title, place in metrics.json, function for comparisons, and places where it is shown.

Report, console, subgroups and comparisons read this table.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

import evaluate

HEADS = {"label": "Diagnoses", "mask": "Masks"}
CALLS = ("true", "predicted", "balanced")  # class columns of predictions.csv
FOLD = "fold"  # column of the tables of pooled folds


class Score(NamedTuple):
    """A number of metrics.json.

    Attributes
    ----------
    path : where it stands in its head's part.
    of : computes it from per-image tables, (`report.run.read_head`'s table, weights (B, N)) -> (B,), so that two models
        can be compared by it; None for what is not compared.
    shown : some of "report" (its first table), "console", "subgroups" and "multitask" (its difference in the report).
    of_class : not defined without this class.
    """

    title: str
    head: str
    path: tuple[str, ...]
    of: Callable[[pd.DataFrame, np.ndarray], np.ndarray] | None = None
    shown: tuple[str, ...] = ()
    of_class: str = ""


def label_score(name: str, column: str = "predicted") -> Callable[[pd.DataFrame, np.ndarray], np.ndarray]:
    """A score of `evaluate.label_scores`, from the classes in a column."""

    def score(table: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
        scores = evaluate.label_scores(_codes(table, "true"), _codes(table, column), classes_in(table), weights)
        return scores.get(name, np.full(len(weights), np.nan))

    return score


def mean_auc(table: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    classes = classes_in(table)
    scores = evaluate.official_label_scores(_codes(table, "true"), table[classes].to_numpy(), classes, weights)
    return scores["macro.auc"]


def nll(table: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    return evaluate.calibration_scores(_codes(table, "true"), table[classes_in(table)].to_numpy(), weights)["nll"]


class MeanOf(NamedTuple):
    """Mean of a column of per_image_native.csv; of per_image.csv if both have it and the name lacks _native."""

    column: str

    def __call__(self, table: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
        return evaluate.weighted_mean(weights, table[self.column].to_numpy())


def failure_rate(table: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    return evaluate.weighted_mean(weights, (table["iou_native"] < evaluate.FAILURE).to_numpy(float))


def classes_in(table: pd.DataFrame) -> list[str]:
    """The classes of predictions.csv, one column each."""
    return [name for name in table if name not in ("image", *CALLS, FOLD)]


def _codes(table: pd.DataFrame, column: str) -> np.ndarray:
    return pd.Categorical(table[column], classes_in(table)).codes.astype(int)


BALANCED, MELANOMA = ("rules", "balanced"), ("per_class", "MEL", "recall")
EVERYWHERE = ("report", "console", "subgroups", "multitask")
SCORES = {  # by key in comparison.json
    "n_labels": Score("Images with a label", "label", ("n_images",), shown=("report",)),
    "accuracy": Score("Accuracy", "label", ("accuracy",), label_score("accuracy"), EVERYWHERE),
    "accuracy_balanced_rule": Score("Accuracy, balanced rule", "label", (*BALANCED, "accuracy"), shown=("report",)),
    "balanced_accuracy": Score(
        "Balanced accuracy", "label", ("balanced_accuracy",), label_score("balanced_accuracy"), EVERYWHERE
    ),
    "balanced_rule": Score(
        "Balanced accuracy, balanced rule",
        "label",
        (*BALANCED, "balanced_accuracy"),
        label_score("balanced_accuracy", "balanced"),
        ("report",),
    ),
    "macro_f1": Score("Macro F1", "label", ("macro_f1",), shown=("console",)),
    "melanoma_sensitivity": Score(
        "Melanoma sensitivity at the threshold",
        "label",
        ("operating_points", "melanoma", "sensitivity"),
        shown=("subgroups",),
    ),
    "melanoma_specificity": Score(
        "Melanoma specificity at the threshold",
        "label",
        ("operating_points", "melanoma", "specificity"),
        shown=("subgroups",),
    ),
    "malignant_auc": Score("AUC of malignant", "label", ("malignant", "auc"), shown=("report", "subgroups")),
    "malignant_partial_auc": Score(
        "Partial AUC of malignant (chance 0.02, best 0.2)",
        "label",
        ("malignant", "partial_auc"),
        shown=("report",),
    ),
    "mean_auc": Score("Mean AUC", "label", ("official", "macro", "auc"), mean_auc, ("report",)),
    "nll": Score("NLL, lower is better", "label", ("calibration", "after", "nll"), nll),
    "melanoma_recall": Score(
        "Melanoma sensitivity, top-1", "label", MELANOMA, label_score("per_class.MEL.recall"), ("report",), "MEL"
    ),
    "melanoma_balanced_rule": Score(
        "Melanoma sensitivity, balanced rule", "label", (*BALANCED, *MELANOMA), shown=("report",), of_class="MEL"
    ),
    "n_masks": Score("Images with a mask", "mask", ("n_images",), shown=("report",)),
    "mean_dice": Score("Mean Dice", "mask", ("mean_dice",), MeanOf("dice"), EVERYWHERE),
    "mean_iou": Score("Mean Jaccard", "mask", ("mean_iou",), shown=("console",)),
    "pooled_dice": Score("Pooled Dice", "mask", ("pooled_dice",), shown=("console",)),
    "network_failures": Score("Failure rate", "mask", ("failure_rate",), shown=("console",)),
    "native_dice": Score("Mean Dice, native size", "mask", ("native", "mean_dice"), MeanOf("dice_native")),
    "native_iou": Score("Mean Jaccard, native size", "mask", ("native", "mean_iou"), shown=("report",)),
    "threshold_iou": Score(
        "Thresholded Jaccard, native size",
        "mask",
        ("native", "mean_threshold_iou"),
        MeanOf("threshold_iou"),
        ("report",),
    ),
    "failure_rate": Score("Failure rate, lower is better", "mask", ("native", "failure_rate"), failure_rate),
}


for _head in [head for head in evaluate.SCORES if head not in HEADS]:  # one number per image each
    HEADS[_head] = _head.capitalize()
    SCORES |= {
        f"mean_{_head}_{_name}": Score(f"{_head}: mean {_name}", _head, (f"mean_{_name}",), MeanOf(_name), ("report",))
        for _name in evaluate.SCORES[_head]
    }


def shown_in(place: str, head: str | None = None) -> dict[str, Score]:
    """Scores shown in a place, of one head or of all."""
    return {key: score for key, score in SCORES.items() if place in score.shown and head in (None, score.head)}


def mean_and_std(values: Sequence[float | None]) -> dict[str, float | None]:
    """``mean`` and ``std`` (n - 1) of a score over folds or runs; None where it is not defined in all of them."""
    if None in values:
        return {"mean": None, "std": None}
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}


def compared(head: str) -> dict[str, Score]:
    """Scores of a head by which models are compared."""
    return {key: score for key, score in SCORES.items() if score.of and score.head == head}
