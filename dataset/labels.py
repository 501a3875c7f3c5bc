"""The rows of a CSV file -> the diagnoses that they name."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dataset.classes import NAMES, NO_DIAGNOSIS, code_of, in_order

SUFFIXES = (".jpg", ".jpeg", ".png")
# Columns by what they hold; the first of the names that is there counts.
IMAGE_COLUMNS = ("image", "image_id", "isic_id", "image_name", "img_id", "filename", "file_name")
LABEL_COLUMNS = ("label", "class", "dx", "diagnosis", "diagnostic", "target", "benign_malignant")
LABEL_COLUMNS += tuple(f"diagnosis_{level}" for level in range(1, 6))
DETAILS = {  # column of the table, and its names in files
    "lesion_id": ("lesion_id",),
    "age": ("age", "age_approx"),
    "sex": ("sex",),
    "localization": ("localization", "anatom_site_general", "anatom_site_general_challenge"),
}
MOST_CLASSES = 100  # a column of more values names something else


class Labels(NamedTuple):
    """One reading of a folder's diagnoses."""

    where: str  # they stand, in words
    classes: tuple[str, ...]
    code: pd.Series  # of each row's class, "" for none
    reason: pd.Series  # why it has none, else ""


def with_image_column(rows: pd.DataFrame) -> pd.DataFrame:
    """The same with the column that names the images called image."""
    lower = {column.lower(): column for column in reversed(rows.columns)}
    column = next((lower[name] for name in IMAGE_COLUMNS if name in lower), "image")
    return rows.drop(columns="image" if column != "image" else [], errors="ignore").rename(columns={column: "image"})


def image_name(text: str) -> str:
    """A name as the CSV gives it, without extension, in the Unicode form that file names are compared in."""
    stem, suffix = os.path.splitext(text)
    return unicodedata.normalize("NFC", stem if suffix.lower() in SUFFIXES else text)


def read_labels(rows: pd.DataFrame, path: Path) -> list[Labels]:
    """All readings of the diagnoses in a CSV file's rows that differ."""
    lower = {column.lower(): column for column in rows.columns}
    readings = [from_column(rows[lower[name]], lower[name]) for name in LABEL_COLUMNS if name in lower]
    found: list[Labels] = []
    for reading in (from_columns(rows, path), *readings):
        if reading and not any(reading.code.equals(other.code) for other in found):
            found.append(reading)
    return found


def choose(readings: list[Labels], path: Path, wanted: Sequence[str]) -> Labels:
    """The reading that knows the wanted classes, all or else some. Raises ValueError if several do."""
    for knows in (set(wanted).issubset, lambda classes: not set(wanted).isdisjoint(classes)):
        readings = [reading for reading in readings if knows(reading.classes)] or readings
        if len(readings) == 1:
            return readings[0]
    ways = " or ".join(f"{reading.where} ({', '.join(reading.classes[:4])})" for reading in readings)
    example = " ".join(readings[-1].classes[:2])
    raise ValueError(
        f"{path} can be read in {len(readings)} ways: {ways}. Choose with CLASSES, such as --classes {example}, or "
        "remove the other columns."
    )


def from_columns(rows: pd.DataFrame, path: Path) -> Labels | None:
    """The diagnoses of columns with a 1 where the class holds: those of known classes, and others of zeros and ones."""
    reserved = {*IMAGE_COLUMNS, *LABEL_COLUMNS, *(name for names in DETAILS.values() for name in names)}
    columns = [name for name in rows if name.lower() not in reserved]
    known = [name for name in columns if code_of(name) in NAMES]
    numbers = rows[columns].apply(pd.to_numeric, errors="coerce")
    is_known = (numbers[known] == 1).any(axis=1)
    others = [name for name in columns if name not in known and numbers[name].isin([0, 1]).all()]
    others = [name for name in others if not (is_known & (numbers[name] == 1)).any()]  # a class excludes the others
    columns = [name for name in columns if name in {*known, *others}]
    codes = list(map(code_of, columns))
    if same := [name for name in columns if codes.count(code_of(name)) > 1]:
        raise ValueError(f"{path} has the columns {' and '.join(sorted(same))}, which mean the same class. Remove one.")
    numbers = numbers[columns].set_axis(codes, axis=1)
    one_hot = numbers.isin([0, 1]).all(axis=1) & (numbers.sum(axis=1) == 1)
    if len(columns) < 2 or not (known or one_hot.mean() > 0.5):
        return None
    code = numbers.fillna(0).idxmax(axis=1).where(one_hot, "")
    reason = pd.Series("", index=rows.index).mask(~one_hot, "labels are not one-hot")
    reason = reason.mask(numbers.isna().any(axis=1), "labels are not numbers")
    classes = [name for name in codes if name != NO_DIAGNOSIS]
    return without_unknown(Labels(f"{len(classes)} columns of classes", in_order(classes, classes), code, reason))


def from_column(values: pd.Series, name: str) -> Labels | None:
    """The diagnoses of one column that names them, by code or by name."""
    code = values.map(code_of)
    classes = set(code) - {"", NO_DIAGNOSIS}
    if not 1 <= len(classes) <= MOST_CLASSES:
        return None
    reason = pd.Series("", index=values.index).mask(code == "", "label is empty")
    return without_unknown(Labels(f"column {name}", in_order(classes), code, reason))


def without_unknown(labels: Labels) -> Labels:
    """The same without the class of what has no diagnosis."""
    unknown = labels.code == NO_DIAGNOSIS
    return labels._replace(
        classes=tuple(code for code in labels.classes if code != NO_DIAGNOSIS),
        code=labels.code.mask(unknown, ""),
        reason=labels.reason.mask(unknown, f"labelled {NO_DIAGNOSIS}, which is no class"),
    )
