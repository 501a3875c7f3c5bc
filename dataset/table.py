"""Turn CSV files and folders into a checked table.

The table is a DataFrame with one row per image that the data folder names, usable or not:

=================================  =======================================================================
image                              name without extension; repeated or empty only where left out
label                              categorical, with the classes in order; missing without a diagnosis
status, reason                     `USED`, `LABEL_ONLY` (no mask), `MASK_ONLY` (no diagnosis) or `LEFT_OUT`; reason
image_path, mask_path              "" if there is no file
lesion_id, lesion_known            an image without a lesion id is its own lesion, named like the image
patient_id, group                  missing if unknown; common to all images of a lesion or patient
age, sex, localization             years, string, string; missing if unknown
dx_type, dataset,                  method of confirmation, source, skin type: strings; missing if unknown. Never an
fitzpatrick_skin_type              input of a model: dx_type reveals the diagnosis
column NAME                        a column NAME that the user asked for: strings; missing if unknown
=================================  =======================================================================
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dataset.choice import Choice
from dataset.classes import describe_unknown, is_no_diagnosis, positions_of, quoted
from dataset.columns import DETAILS, column_for, detail_columns, names_details
from dataset.csvfile import CONTROL, printable
from dataset.groups import join_groups, name_within_patients
from dataset.layout import Layout, find, garbage_kept
from dataset.names import Index, rows_of
from dataset.roles import SPLITS
from dataset.sources import TRUTH, Source
from dataset.tablefile import header_of

__all__ = ["SPLITS"]
USED, LABEL_ONLY, MASK_ONLY, LEFT_OUT = "used", "classification only", "segmentation only", "left out"
LESION_FILES = ("HAM10000_metadata.csv", "ISIC2018_Task3_Training_LesionGroupings.csv")
MANY = 1 / 3  # minimum share of unused rows with one reason for a warning
NUMBERS: tuple[str, ...] = ()  # columns of numbers that a head may learn, such as "age"


def read_table(
    place: str | Path | Layout, classes: Sequence[str] | Choice = (), complete: bool = True, zeros: str = ""
) -> pd.DataFrame:
    """Find each row's image, mask, class and lesion in a data folder; opens images only if names are ambiguous.

    Parameters
    ----------
    place : the folder, or its layout from `find`.
    classes : classes to learn, as for --classes; rows of others are left out. () for all classes of the data.
    complete : whether the data must contain all of `classes`.
    zeros : the class of rows without a 1.

    Raises
    ------
    FileNotFoundError, ValueError : as `find`; all images, or a class, are missing.
    """
    choice = classes if isinstance(classes, Choice) else Choice.of(classes)
    layout = place if isinstance(place, Layout) else find(place, choice, zeros)
    return read_layout(layout, choice, complete)[0]


@garbage_kept()
def read_layout(
    layout: Layout, choice: Choice, complete: bool = True, columns: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """`read_table` with further columns, which must exist if `complete`; and remarks on classes and columns."""
    labels, remarks = layout.labels, []
    if choice.members:
        labels, remarks = choice.apply(labels, complete, layout.folder)
    if complete and (unknown := describe_unknown(labels.classes)):
        remarks.append(unknown)
    table = pd.DataFrame({"image": layout.names}, dtype=object).astype({"image": str})
    codes = list(labels.classes)
    table["label"] = pd.Categorical(labels.code.where(labels.code.isin(codes)), categories=codes)
    table["status"], table["reason"] = USED, ""
    _check_names(table)
    _check_labels(table, labels.code, labels.reason)
    table["image_path"] = pd.Series([file.path if file else "" for file in layout.images], dtype=object)
    table["mask_path"] = pd.Series([mask.file.path if mask else "" for mask in layout.masks], dtype=object)
    leave_out(table, table["image_path"] == "", "image is missing")
    no_mask = (table["status"] != LEFT_OUT) & (table["mask_path"] == "")
    leave_out(table, no_mask & table["label"].isna(), "mask is missing")
    table.loc[no_mask & table["label"].notna(), ["status", "reason"]] = LABEL_ONLY, "mask is missing"
    details, detail_remarks = _read_details(layout, table["image"], columns)
    if lacking := _describe_lacking(layout, columns, details):
        if complete:
            raise ValueError(lacking)
        remarks.append(lacking)
    table, remarks = table.join(details), remarks + detail_remarks
    return table.assign(group=join_groups(table)), remarks


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are not left out; their image names are unique."""
    return table[table["status"] != LEFT_OUT]


def has_mask(table: pd.DataFrame) -> np.ndarray:
    """Which rows have a usable mask: (N,) bool; all rows if the table has no column ``status``."""
    return table["status"].isin([USED, MASK_ONLY]).to_numpy() if "status" in table else np.ones(len(table), bool)


def has_label(table: pd.DataFrame) -> np.ndarray:
    """Which rows have a usable class: (N,) bool."""
    return _is_used(table) & (positions_of(table) >= 0)


def _is_used(table: pd.DataFrame) -> np.ndarray:
    """Which rows are not left out: (N,) bool; all of them in a table that has no column ``status``."""
    return (table["status"] != LEFT_OUT).to_numpy() if "status" in table else np.ones(len(table), bool)


def targets(table: pd.DataFrame) -> pd.DataFrame:
    """The targets that each row has: columns ``label``, ``mask`` and each of `NUMBERS`, of bool."""
    known = {"label": has_label(table), "mask": has_mask(table)}
    known |= {name: _is_used(table) & table[name].notna() if name in table else False for name in NUMBERS}
    return pd.DataFrame(known, index=table.index)


def learnable(table: pd.DataFrame, heads: Sequence[str]) -> pd.DataFrame:
    """The rows for training and evaluating a model: those with a target for any of its heads."""
    return table[targets(table)[list(heads)].any(axis=1)]


def _check_names(table: pd.DataFrame) -> None:
    """Leave out rows that name no file."""
    name = table["image"]
    leave_out(table, name == "", "empty name")
    # Names that lead outside the folder, or that control a console or a spreadsheet.
    unsafe = name.str.contains(rf"[/\\:]|{CONTROL.pattern}") | name.isin([".", ".."])
    leave_out(table, unsafe, "unsafe name")


def _check_labels(table: pd.DataFrame, code: pd.Series, reason: pd.Series) -> None:
    """Leave out rows without a class, and repeated names; if no row has a diagnosis, none is required."""
    if not len(table["label"].cat.categories):
        leave_out(table, table.duplicated("image"), "duplicate row")
        table.loc[table["status"] == USED, ["status", "reason"]] = MASK_ONLY, "no diagnosis"
        return
    for text in reason[reason != ""].unique():
        leave_out(table, reason == text, text)
    for other in code[(code != "") & table["label"].isna()].unique():
        leave_out(table, code == other, f"labelled {other}, which is not among the classes")
    valid = usable(table)
    leave_out(table, conflicting(table, "image"), "conflicting labels")
    repeated = valid.duplicated("image")
    leave_out(table, repeated.reindex(table.index, fill_value=False), "duplicate row")


def conflicting(table: pd.DataFrame, same: str) -> pd.Series:
    """Which rows share the value of column `same`, unless "", with a row of another label."""
    valid = table[has_label(table) & (table[same] != "")]
    conflict = pd.Series(positions_of(valid), valid.index).groupby(valid[same]).transform("nunique") > 1
    return conflict.reindex(table.index, fill_value=False)


def leave_out(table: pd.DataFrame, chosen: pd.Series, reason: str) -> None:
    """Mark the chosen rows as left out, with the reason; rows already left out keep their first reason."""
    table.loc[chosen & (table["status"] != LEFT_OUT), ["status", "reason"]] = LEFT_OUT, reason


def _read_details(layout: Layout, images: pd.Series, further: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The `DETAILS` and further columns of each row, and remarks.

    Each value comes from the first table that has it; the table with the diagnoses comes last.
    """
    remarks: list[str] = []
    merged: dict[str, pd.Series] = {}
    for source in _detail_sources(layout, further):
        rows = source.rows
        columns = detail_columns(rows, further)
        if rows is layout.rows:
            by_row = {name: rows[column] for name, column in columns.items()}
        else:
            place = np.array(rows_of(rows["image"].tolist(), layout.images, layout.names), int)
            remarks += _describe_ambiguous(source, Index({file.path: file for file in layout.images if file}.values()))
            matched = rows.reset_index(drop=True).reindex(place).set_index(images.index)
            by_row = {name: matched[column] for name, column in columns.items()}
        for name, values in by_row.items():
            values = values.map({text: _tidy(text) for text in values.unique()}).astype(values.dtype)
            merged[name] = merged[name].fillna(values) if name in merged else values
    details = pd.DataFrame(merged, index=images.index)
    details = details.reindex(columns=[*DETAILS, *(name for name in merged if name not in DETAILS)])
    details["age"] = pd.to_numeric(details["age"], errors="coerce")
    lesion, restarts = name_within_patients(*(details[name].astype(object) for name in ("lesion_id", "patient_id")))
    details["lesion_known"] = lesion.notna()
    details["lesion_id"] = lesion.astype(object).where(details["lesion_known"], images)
    remarks += ["Lesion numbers restart with each patient: a lesion is named patient/number."] * restarts
    return details, remarks


def _describe_ambiguous(source: Source, images: Index) -> list[str]:
    """Remark on names in a table that match several images."""
    cells = source.rows["image"].tolist()
    several = {cell: files[0].shown for cell, files in zip(cells, images.files_of(cells)) if len(files) > 1}
    return [
        f"{len(several):,} names in {source.name} (e.g. {cell}) match several images. Their rows are not used: "
        f"add the folder, as in {shown}."
        for cell, shown in list(several.items())[:1]
    ]


def _tidy(text: object) -> object:
    """A cell without the .0 that pandas writes after integers beside blanks; NaN for a blank, or a word for unknown."""
    if not isinstance(text, str) or not text or is_no_diagnosis(text):
        return np.nan
    return text[:-2] if text.endswith(".0") and text[:-2].isdecimal() else text


def _detail_sources(layout: Layout, further: Sequence[str]) -> list[Source]:
    """The tables with details of the images: those of `LESION_FILES` first, the table of diagnoses last."""
    useful = [table for table in layout.others if names_details(table.rows) or detail_columns(table.rows, further)]
    useful = [table for table in useful if not table.path.stem.lower().endswith(TRUTH)]
    order = [Path(name).stem for name in LESION_FILES]
    useful.sort(key=lambda table: order.index(table.path.stem) if table.path.stem in order else len(order))
    return [*useful, *filter(None, [layout.source])]


def _describe_lacking(layout: Layout, columns: Sequence[str], details: pd.DataFrame) -> str:
    """Which of the user's columns no table has, and which columns exist; "" if none is lacking."""
    filled = details.columns[details.notna().any()]
    lacking = [name for name in dict.fromkeys(columns) if column_for(name) not in filled]
    if not lacking:
        return ""
    tables = [*filter(None, [layout.source]), *layout.others]
    there = dict.fromkeys(name for table in tables for name in header_of(table.path))
    names = printable(", ".join(list(there)[:40])) or "none"
    return (
        f"No table in {layout.folder} has the column {' or '.join(map(quoted, lacking))} with a known value "
        f"(named by --subgroups or --test-where). Its columns are: {names}."
    )


def cautions(table: pd.DataFrame) -> list[str]:
    """Warnings: reasons that affect at least a third of the rows, and files with two diagnoses."""
    reasons = table["reason"].str.split("(", n=1).str[0].str.strip()
    reasons = reasons[(table["status"] != USED) & (reasons != "no diagnosis")]
    counts = reasons[reasons != ""].value_counts()
    expected = {"mask is missing"} if not (table["mask_path"] != "").any() else set()
    warnings = [
        f"{n:,} of {len(table):,} rows are not used, or only in part: {reason}."
        for reason, n in counts.items()
        if n >= MANY * len(table) and reason not in expected and not reason.startswith("beyond --limit")
    ]
    twice = table.loc[conflicting(table, "digest"), "image"] if "digest" in table else []
    if len(twice):
        warnings.append(
            f"{len(twice):,} images are identical to one of another class (e.g. {printable(', '.join(twice[:3]))}). "
            "They are used unchanged: check their diagnoses."
        )
    return warnings


def describe_table(table: pd.DataFrame) -> str:
    """Console lines: the number of rows by status and reason."""
    lines = [
        f"{len(table)} rows: " + ", ".join(f"{n} {status}" for status, n in table["status"].value_counts().items())
    ]
    reasons = table.loc[table["reason"] != "", ["status", "reason"]]
    kinds = reasons["reason"].str.split("(", n=1).str[0].str.strip()
    for (status, kind), members in reasons.groupby([reasons["status"], kinds]):
        examples = printable(", ".join(table.loc[members.index[:3], "image"]))
        lines.append(f"  {len(members):5} {status}: {kind} (e.g. {examples})")
    return "\n".join(lines)
