"""Two models on the same images -> how much they differ, and how surely."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import evaluate
from dataset.csvfile import TEXT, read_back
from dataset.groups import groups_of
from dataset.table import usable
from machine import is_first
from report import bootstrap
from report.folder import RunFolder

CALLS = ("true", "predicted", "balanced")  # columns of predictions.csv that hold a class


class Score(NamedTuple):
    """A number that models are compared by."""

    title: str
    path: tuple[str, ...]  # where it stands in a head's part of metrics.json
    of: Callable[[pd.DataFrame, np.ndarray], np.ndarray]  # (`read_head`'s table, weights (B, N)) -> (B,)
    of_class: str = ""  # not defined without it


def called(name: str, column: str = "predicted") -> Callable[[pd.DataFrame, np.ndarray], np.ndarray]:
    """A score of `evaluate.label_scores`, from the classes that a column names."""

    def score(table: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
        found = evaluate.label_scores(_codes(table, "true"), _codes(table, column), classes_in(table), weights)
        return found.get(name, np.full(len(weights), np.nan))

    return score


def mean_auc(table: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    classes = classes_in(table)
    found = evaluate.official_label_scores(_codes(table, "true"), table[classes].to_numpy(), classes, weights)
    return found["macro.auc"]


def nll(table: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    return evaluate.calibration_scores(_codes(table, "true"), table[classes_in(table)].to_numpy(), weights)["nll"]


def mean_of(column: str) -> Callable[[pd.DataFrame, np.ndarray], np.ndarray]:
    return lambda table, weights: evaluate.weighted_mean(weights, table[column].to_numpy())


def failure_rate(table: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    return evaluate.weighted_mean(weights, (table["iou_native"] < evaluate.FAILURE).to_numpy(float))


def classes_in(table: pd.DataFrame) -> list[str]:
    """The classes of predictions.csv, each of which has a column."""
    return [name for name in table if name not in ("image", *CALLS)]


def _codes(table: pd.DataFrame, column: str) -> np.ndarray:
    return pd.Categorical(table[column], classes_in(table)).codes.astype(int)


# By head and key in comparison.json. A further score is a further row.
SCORES = {
    "label": {
        "accuracy": Score("Accuracy", ("accuracy",), called("accuracy")),
        "balanced_accuracy": Score("Balanced accuracy", ("balanced_accuracy",), called("balanced_accuracy")),
        "balanced_rule": Score(
            "Balanced accuracy, balanced rule",
            ("rules", "balanced", "balanced_accuracy"),
            called("balanced_accuracy", "balanced"),
        ),
        "mean_auc": Score("Mean AUC", ("official", "macro", "auc"), mean_auc),
        "nll": Score("NLL, less is better", ("calibration", "after", "nll"), nll),
        "melanoma_recall": Score(
            "Melanoma sensitivity", ("per_class", "MEL", "recall"), called("per_class.MEL.recall"), "MEL"
        ),
    },
    "mask": {
        "mean_dice": Score("Mean Dice", ("mean_dice",), mean_of("dice")),
        "native_dice": Score("Mean Dice, native size", ("native", "mean_dice"), mean_of("dice_native")),
        "threshold_iou": Score(
            "Thresholded Jaccard, native size", ("native", "mean_threshold_iou"), mean_of("threshold_iou")
        ),
        "failure_rate": Score("Failure rate, less is better", ("native", "failure_rate"), failure_rate),
    },
}


def read_head(folder: Path, head: str) -> pd.DataFrame:
    """What a task's folder says of each test image: of its diagnosis, or of its outline at both sizes.

    Raises
    ------
    ValueError : a name stands twice, a value is missing or no class, or the two tables of outlines have other images.
    """
    if head == "label":
        path = folder / "predictions.csv"
        classes = classes_in(read_back(path))
        table = _read(path, [*CALLS, *classes])
        for column in CALLS:
            if strange := sorted(set(table[column]) - set(classes)):
                raise ValueError(f"predictions.csv has the class {strange[0]!r}; expected {', '.join(classes)}.")
        return table
    network = _read(folder / "per_image.csv", ["iou", "dice"])
    native = _read(folder / "per_image_native.csv", ["iou", "dice", "threshold_iou"])
    if set(network["image"]) != set(native["image"]):
        raise ValueError("per_image.csv and per_image_native.csv have different images.")
    return network.merge(native, on="image", suffixes=("", "_native"))


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table of images that has these columns, each filled; those that are no text with finite numbers."""
    table = read_back(path)
    for column in ["image", *columns]:
        if column not in table:
            raise ValueError(f"{path.name} lacks the column {column}.")
        if column not in TEXT and not np.isfinite(pd.to_numeric(table[column], errors="coerce")).all():
            raise ValueError(f"{path.name} lacks a number in the column {column}.")
    _refuse_repeated(table["image"])
    return table


def _refuse_repeated(names: pd.Series | pd.Index) -> None:
    names = pd.Index(names)
    if names.has_duplicates:
        raise ValueError(f"{names[names.duplicated()][0]!r} stands twice; expected each image name once.")


def compare_tasks(folder: RunFolder, table: pd.DataFrame) -> bool:
    """Write how a run's multi-task model differs from its single-task ones, and return whether there are any.

    Models of which only one was measured over turns are not compared.
    """
    found = {}
    for task, head in (("classification", "label"), ("segmentation", "mask")):
        ways = [folder.facts(name).get("measured") for name in (task, "multitask")]
        over_turns = {bool(way) and way["tta"] for way in ways}  # a record of an earlier version has "" there
        if is_first() and None not in ways and len(over_turns) == 1:
            pair = [read_head(folder.path / name, head) for name in (task, "multitask")]
            found[task] = compare(head, *pair, groups_of(usable(table).set_index("image")))
    if found:
        folder.write_json("comparison.json", found)
    return bool(found)


def compare(head: str, first: pd.DataFrame, second: pd.DataFrame, lesions: pd.Series) -> dict:
    """Second less first model in each of the head's scores on the images both have, by a paired bootstrap of lesions.

    Parameters
    ----------
    first, second : of two models, as `read_head` gives them.
    lesions : lesion by image name.

    Raises
    ------
    ValueError : a name stands twice in one of the three, has no lesion, or the tables have none in common.
    """
    for names in (first["image"], second["image"], lesions.index):
        _refuse_repeated(names)
    images = first.loc[first["image"].isin(second["image"]), "image"]
    unknown = images[~images.isin(lesions.index)].tolist()
    if images.empty or unknown:
        raise ValueError(f"No lesion is known of {unknown[0]!r}." if unknown else "The tables have no image in common.")
    tables = [table.set_index("image").loc[images] for table in (first, second)]
    of_images = lesions[images]
    resamples = bootstrap.resample_lesions(of_images)
    found: dict = {"n_images": len(images), "n_lesions": int(of_images.nunique())}
    for key, score in SCORES[head].items():
        found[key] = _difference(score, tables, resamples)
    if head == "label":
        right = [(table["predicted"] == table["true"]).to_numpy() for table in tables]
        found["only_first_right"] = int((right[0] & ~right[1]).sum())
        found["only_second_right"] = int((right[1] & ~right[0]).sum())
    return found


def _difference(score: Score, tables: list[pd.DataFrame], resamples: bootstrap.Resamples) -> dict:
    found = bootstrap.paired_difference(lambda i, weights: score.of(tables[i], weights), resamples)
    return found if None not in (found["interval"] or []) else found | {"interval": None}
