"""Two models on the same images -> how much they differ, and how surely."""

from pathlib import Path

import numpy as np
import pandas as pd

from dataset.csvfile import TEXT, read_back
from dataset.groups import groups_of
from dataset.table import usable
from machine import is_first
from report import bootstrap
from report.folder import RunFolder
from report.scores import CALLS, MeanOf, Score, classes_in, compared


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
    means = [score.of.column for score in compared(head).values() if isinstance(score.of, MeanOf)]
    columns = list(dict.fromkeys(["iou", "dice", *(column.removesuffix("_native") for column in means)]))
    network = _read(folder / "per_image.csv", ["iou", "dice"])
    native = _read(folder / "per_image_native.csv", columns)[["image", *columns]]
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
    for key, score in compared(head).items():
        found[key] = _difference(score, tables, resamples)
    if head == "label":
        right = [(table["predicted"] == table["true"]).to_numpy() for table in tables]
        found["only_first_right"] = int((right[0] & ~right[1]).sum())
        found["only_second_right"] = int((right[1] & ~right[0]).sum())
    return found


def _difference(score: Score, tables: list[pd.DataFrame], resamples: bootstrap.Resamples) -> dict:
    found = bootstrap.paired_difference(lambda i, weights: score.of(tables[i], weights), resamples)
    return found if None not in (found["interval"] or []) else found | {"interval": None}
