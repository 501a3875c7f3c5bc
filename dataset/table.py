"""CSV and folders -> a checked table.

The table is a DataFrame with one row for each image that the data folder names, usable or not:

=================================  =======================================================================
image                              name without extension; repeated or empty only where left out
label                              categorical, of the classes in their order; missing where there is none
status, reason                     `USED`, `LABEL_ONLY` (no mask), `MASK_ONLY` (no diagnosis) or `LEFT_OUT`, and why
image_path, mask_path              of the files, "" for none
lesion_id, lesion_known            an image of no known lesion is a lesion of its own, named as the image
age, sex, localization             in years, and as text; missing where not known
=================================  =======================================================================
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dataset.classes import positions_of
from dataset.csvfile import CONTROL, header_of, printable, read_rows
from dataset.labels import DETAILS, IMAGE_COLUMNS, image_name, with_image_column
from dataset.layout import Layout, csv_files, find

SPLITS = ("train", "val", "test")
USED, LABEL_ONLY, MASK_ONLY, LEFT_OUT = "used", "classification only", "segmentation only", "left out"
LESION_FILES = ("HAM10000_metadata.csv", "ISIC2018_Task3_Training_LesionGroupings.csv")


def read_table(place: str | Path | Layout, classes: Sequence[str] = (), complete: bool = True) -> pd.DataFrame:
    """Find each row's image, mask, class and lesion in a data folder; no image is opened.

    Parameters
    ----------
    place : the folder, or what `find` found it to be.
    classes : to learn, in this order; rows of others are left out. () for those of the data.
    complete : whether the data must have all of `classes`.

    Raises
    ------
    FileNotFoundError, ValueError : as `find`; none of the images is there; a class is not.
    """
    layout = place if isinstance(place, Layout) else find(place, classes)
    rows, labels, images = layout.rows, layout.labels, layout.images
    if unknown := [code for code in classes if complete and code not in labels.classes]:
        known = ", ".join(labels.classes) or "none"
        raise ValueError(f"{layout.folder} has no class {', '.join(unknown)}; its classes are {known}.")
    if len(set(classes)) < len(classes):
        raise ValueError(f"A class is named twice: {', '.join(classes)}.")
    table = pd.DataFrame({"image": rows["image"].map(image_name)})
    known = list(classes or labels.classes)
    table["label"] = pd.Categorical(labels.code.where(labels.code.isin(known)), categories=known)
    table["status"], table["reason"] = USED, ""
    _check_names(table)
    _check_labels(table, labels.code, labels.reason)
    table["image_path"] = [images.get(name, "") for name in table["image"]]
    table["mask_path"] = [layout.masks.get(name, "") for name in table["image"]]
    if (table["image_path"] == "").all():
        raise FileNotFoundError(
            f"None of the images that {layout.csv} names lie in a folder images/ of {os.path.abspath(layout.folder)}; "
            f"{len(images)} image files were found there, and {table['image'].iloc[0]!r} is the first name looked for."
        )
    leave_out(table, table["image_path"] == "", "image is missing")
    no_mask = (table["status"] != LEFT_OUT) & (table["mask_path"] == "")
    leave_out(table, no_mask & table["label"].isna(), "mask is missing")
    table.loc[no_mask & table["label"].notna(), ["status", "reason"]] = LABEL_ONLY, "mask is missing"
    return table.join(_read_details(layout, table["image"]))


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are not left out; each of their images is named once."""
    return table[table["status"] != LEFT_OUT]


def has_mask(table: pd.DataFrame) -> np.ndarray:
    """Which rows have a mask that can be used: (N,) bool; all of them in a table that has no column ``status``."""
    return table["status"].isin([USED, MASK_ONLY]).to_numpy() if "status" in table else np.ones(len(table), bool)


def has_label(table: pd.DataFrame) -> np.ndarray:
    """Which rows have a class that can be used: (N,) bool."""
    is_used = (table["status"] != LEFT_OUT).to_numpy() if "status" in table else True
    return is_used & (positions_of(table) >= 0)


def targets(table: pd.DataFrame) -> pd.DataFrame:
    """What each row can be learned from or compared with: columns ``label`` and ``mask`` of bool."""
    return pd.DataFrame({"label": has_label(table), "mask": has_mask(table)}, index=table.index)


def learnable(table: pd.DataFrame, heads: Sequence[str]) -> pd.DataFrame:
    """The rows that a model can learn from, and is measured on: with a target for any of its heads."""
    return table[targets(table)[list(heads)].any(axis=1)]


def _check_names(table: pd.DataFrame) -> None:
    """Leave out rows that name no file."""
    name = table["image"]
    leave_out(table, name == "", "empty name")
    # What would lead elsewhere, or what a console or a spreadsheet would obey.
    leave_out(table, name.str.contains(r"[/\\:]") | name.str.contains(CONTROL) | name.isin([".", ".."]), "unsafe name")


def _check_labels(table: pd.DataFrame, code: pd.Series, reason: pd.Series) -> None:
    """Leave out rows that name no class, and repeated names; where no row has a diagnosis, none needs one."""
    if not len(table["label"].cat.categories):
        leave_out(table, table.duplicated("image"), "duplicate row")
        table.loc[table["status"] == USED, ["status", "reason"]] = MASK_ONLY, "no diagnosis"
        return
    for text in reason[reason != ""].unique():
        leave_out(table, reason == text, text)
    for other in code[(code != "") & table["label"].isna()].unique():
        leave_out(table, code == other, f"labelled {other}, which is not among the classes")
    valid = usable(table)
    conflict = valid["label"].cat.codes.groupby(valid["image"]).transform("nunique") > 1
    leave_out(table, conflict.reindex(table.index, fill_value=False), "conflicting labels")
    repeated = valid.duplicated("image")
    leave_out(table, repeated.reindex(table.index, fill_value=False), "duplicate row")


def leave_out(table: pd.DataFrame, chosen: pd.Series, reason: str) -> None:
    """Mark these rows as left out, and why; a row that is left out already keeps its first reason."""
    table.loc[chosen & (table["status"] != LEFT_OUT), ["status", "reason"]] = LEFT_OUT, reason


def _read_details(layout: Layout, images: pd.Series) -> pd.DataFrame:
    """Lesion, age, sex and site of each row, each from the first CSV file that knows it, the ground truth last."""
    sources = [with_image_column(read_rows(path)) for path in _detail_files(layout)]
    found: dict[str, pd.Series] = {}
    for source in (*sources, layout.rows):
        named = source.assign(image=source["image"].map(image_name)).drop_duplicates("image").set_index("image")
        for name, spellings in DETAILS.items():
            column = next((column for column in named if column.lower() in spellings), None)
            if column:
                values = images.map(named[column])
                values = values.where(~values.isin(["", "unknown"]))
                found[name] = found[name].fillna(values) if name in found else values
    details = pd.DataFrame(found, index=images.index).reindex(columns=list(DETAILS))
    details["age"] = pd.to_numeric(details["age"], errors="coerce")
    details["lesion_known"] = details["lesion_id"].notna()
    details["lesion_id"] = details["lesion_id"].astype(object).where(details["lesion_known"], images)
    return details


def _detail_files(layout: Layout) -> list[Path]:
    """The other CSV files that name images, with their lesions or more: known names come first."""
    others = [path for path in csv_files(layout.folder) if path != layout.csv]
    first = [path for name in LESION_FILES for path in others if path.name == name]
    wanted = {spelling for spellings in DETAILS.values() for spelling in spellings}
    found = []
    for path in dict.fromkeys([*first, *others]):
        header = {name.lower() for name in header_of(path)}
        if header & set(IMAGE_COLUMNS) and header & wanted and not path.name.lower().endswith("groundtruth.csv"):
            found.append(path)
    return found


def describe_table(table: pd.DataFrame) -> str:
    """How many rows are used and how, and why not, as lines for the console."""
    lines = [
        f"{len(table)} rows: " + ", ".join(f"{n} {status}" for status, n in table["status"].value_counts().items())
    ]
    reasons = table.loc[table["reason"] != "", ["status", "reason"]]
    kinds = reasons["reason"].str.split("(", n=1).str[0].str.strip()
    for (status, kind), members in reasons.groupby([reasons["status"], kinds]):
        examples = printable(", ".join(table.loc[members.index[:3], "image"]))
        lines.append(f"  {len(members):5} {status}: {kind} (e.g. {examples})")
    return "\n".join(lines)
