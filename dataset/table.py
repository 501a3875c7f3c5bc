"""CSV and folders -> a checked table.

The table is a DataFrame with one row for each image that the data folder names, usable or not:

=================================  =======================================================================
image                              name without extension; repeated or empty only where left out
label                              categorical, of the classes in their order; missing where there is none
status, reason                     `USED`, `LABEL_ONLY` (no mask), `MASK_ONLY` (no diagnosis) or `LEFT_OUT`, and why
image_path, mask_path              of the files, "" for none
lesion_id, lesion_known            an image of no known lesion is a lesion of its own, named as the image
patient_id, group                  missing where not known; what joins the images of a lesion or a patient
age, sex, localization             in years, and as text; missing where not known
=================================  =======================================================================
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dataset.choice import Choice
from dataset.classes import describe_unknown, is_no_diagnosis, positions_of
from dataset.columns import DETAILS, detail_columns, names_details
from dataset.csvfile import CONTROL, printable
from dataset.groups import join_groups, name_within_patients
from dataset.layout import Layout, find
from dataset.names import Index, rows_of
from dataset.roles import SPLITS
from dataset.sources import TRUTH, Source

__all__ = ["SPLITS"]
USED, LABEL_ONLY, MASK_ONLY, LEFT_OUT = "used", "classification only", "segmentation only", "left out"
LESION_FILES = ("HAM10000_metadata.csv", "ISIC2018_Task3_Training_LesionGroupings.csv")
MANY = 1 / 3  # share of rows that are out for one reason from which on it is a caution
NUMBERS: tuple[str, ...] = ()  # columns of numbers that a head may learn, such as "age"


def read_table(
    place: str | Path | Layout, classes: Sequence[str] | Choice = (), complete: bool = True, zeros: str = ""
) -> pd.DataFrame:
    """Find each row's image, mask, class and lesion in a data folder; no image is opened unless names leave a doubt.

    Parameters
    ----------
    place : the folder, or what `find` found it to be.
    classes : to learn, as --classes names them; rows of others are left out. () for those of the data.
    complete : whether the data must have all of `classes`.
    zeros : the class of rows without a 1.

    Raises
    ------
    FileNotFoundError, ValueError : as `find`; none of the images is there; a class is not.
    """
    choice = classes if isinstance(classes, Choice) else Choice.of(classes)
    layout = place if isinstance(place, Layout) else find(place, choice, zeros)
    return read_layout(layout, choice, complete)[0]


def read_layout(layout: Layout, choice: Choice, complete: bool = True) -> tuple[pd.DataFrame, list[str]]:
    """As `read_table`, with remarks on the classes."""
    labels, remarks = layout.labels, []
    if choice.members:
        labels, remarks = choice.apply(labels, complete, layout.folder)
    if complete and (unknown := describe_unknown(labels.classes)):
        remarks.append(unknown)
    table = pd.DataFrame({"image": layout.names}, dtype=object).astype({"image": str})
    known = list(labels.classes)
    table["label"] = pd.Categorical(labels.code.where(labels.code.isin(known)), categories=known)
    table["status"], table["reason"] = USED, ""
    _check_names(table)
    _check_labels(table, labels.code, labels.reason)
    table["image_path"] = pd.Series([file.path if file else "" for file in layout.images], dtype=object)
    table["mask_path"] = pd.Series([mask.file.path if mask else "" for mask in layout.masks], dtype=object)
    leave_out(table, table["image_path"] == "", "image is missing")
    no_mask = (table["status"] != LEFT_OUT) & (table["mask_path"] == "")
    leave_out(table, no_mask & table["label"].isna(), "mask is missing")
    table.loc[no_mask & table["label"].notna(), ["status", "reason"]] = LABEL_ONLY, "mask is missing"
    details, anew = _read_details(layout, table["image"])
    table, remarks = table.join(details), remarks + anew
    return table.assign(group=join_groups(table)), remarks


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are not left out; each of their images is named once."""
    return table[table["status"] != LEFT_OUT]


def has_mask(table: pd.DataFrame) -> np.ndarray:
    """Which rows have a mask that can be used: (N,) bool; all of them in a table that has no column ``status``."""
    return table["status"].isin([USED, MASK_ONLY]).to_numpy() if "status" in table else np.ones(len(table), bool)


def has_label(table: pd.DataFrame) -> np.ndarray:
    """Which rows have a class that can be used: (N,) bool."""
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
    leave_out(table, conflicting(table, "image"), "conflicting labels")
    repeated = valid.duplicated("image")
    leave_out(table, repeated.reindex(table.index, fill_value=False), "duplicate row")


def conflicting(table: pd.DataFrame, same: str) -> pd.Series:
    """Which rows are the same by this column, where it is not "", as one that has another label."""
    valid = table[has_label(table) & (table[same] != "")]
    conflict = pd.Series(positions_of(valid), valid.index).groupby(valid[same]).transform("nunique") > 1
    return conflict.reindex(table.index, fill_value=False)


def leave_out(table: pd.DataFrame, chosen: pd.Series, reason: str) -> None:
    """Mark these rows as left out, and why; a row that is left out already keeps its first reason."""
    table.loc[chosen & (table["status"] != LEFT_OUT), ["status", "reason"]] = LEFT_OUT, reason


def _read_details(layout: Layout, images: pd.Series) -> tuple[pd.DataFrame, list[str]]:
    """Lesion, patient, age, sex and site of each row, each from the first table that knows it, the truth last.

    With remarks.
    """
    files, remarks = Index({file.path: file for file in layout.images if file}.values()), []
    found: dict[str, pd.Series] = {}
    for source in [*_detail_sources(layout), *filter(None, [layout.source])]:
        rows = source.rows
        columns = detail_columns(rows)
        if rows is layout.rows:
            by_row = {name: rows[column] for name, column in columns.items()}
        else:
            place = np.array(rows_of(list(rows["image"]), layout.images, layout.names), int)
            remarks += _say_ambiguous(source, files)
            of_rows = rows.reset_index(drop=True).reindex(place).set_index(images.index)
            by_row = {name: of_rows[column] for name, column in columns.items()}
        for name, values in by_row.items():
            values = values.str.replace(r"^(\d+)\.0$", r"\1", regex=True)  # as pandas writes numbers beside blanks
            values = values.where(~values.isin(["", *(text for text in values.unique() if _says_nothing(text))]))
            found[name] = found[name].fillna(values) if name in found else values
    details = pd.DataFrame(found, index=images.index).reindex(columns=list(DETAILS))
    details["age"] = pd.to_numeric(details["age"], errors="coerce")
    lesion, is_anew = name_within_patients(*(details[name].astype(object) for name in ("lesion_id", "patient_id")))
    details["lesion_known"] = lesion.notna()
    details["lesion_id"] = lesion.astype(object).where(details["lesion_known"], images)
    remarks += ["Lesion numbers begin anew with each patient: a lesion is patient/number."] * is_anew
    return details, remarks


def _say_ambiguous(source: Source, images: Index) -> list[str]:
    """That names in a table stand for several images, if any do."""
    cells = list(source.rows["image"])
    several = {cell: some[0].shown for cell, some in zip(cells, images.files_of(cells)) if len(some) > 1}
    return [
        f"{len(several):,} names in {source.name}, such as {cell}, stand for several images. Their rows are not used: "
        f"write the folder into them, as in {shown}."
        for cell, shown in list(several.items())[:1]
    ]


def _says_nothing(text: object) -> bool:
    return isinstance(text, str) and is_no_diagnosis(text)


def _detail_sources(layout: Layout) -> list[Source]:
    """The other tables that name images, with their lesions or more: known names come first."""
    useful = [one for one in layout.others if names_details(one.rows) and not one.path.stem.lower().endswith(TRUTH)]
    order = [Path(name).stem for name in LESION_FILES]
    return sorted(useful, key=lambda one: order.index(one.path.stem) if one.path.stem in order else len(order))


def cautions(table: pd.DataFrame) -> list[str]:
    """The reasons for which a third of the rows or more are not used, or not whole; and files with two diagnoses."""
    reasons = table["reason"].str.split("(", n=1).str[0].str.strip()
    reasons = reasons[(table["status"] != USED) & (reasons != "no diagnosis")]
    counts = reasons[reasons != ""].value_counts()
    is_usual = {"mask is missing"} if not (table["mask_path"] != "").any() else set()
    found = [
        f"{n:,} of {len(table):,} rows are not used, or not whole: {reason}."
        for reason, n in counts.items()
        if n >= MANY * len(table) and reason not in is_usual and not reason.startswith("beyond --limit")
    ]
    twice = table.loc[conflicting(table, "digest"), "image"] if "digest" in table else []
    if len(twice):
        found.append(
            f"{len(twice):,} images are the same file, byte by byte, as one of another class (e.g. "
            f"{printable(', '.join(twice[:3]))}). They are used as they are: check their diagnoses."
        )
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
