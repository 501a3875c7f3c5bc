"""A split that the data bring with them: in a column, in folders, in several tables, or in a file of its own."""

from pathlib import Path

import pandas as pd

from dataset.classes import is_no_diagnosis
from dataset.columns import SPLIT_COLUMNS, find_column
from dataset.layout import Layout
from dataset.names import rows_of
from dataset.roles import SPLITS, part_of_name
from dataset.tablefile import read_rows

NO_FILE = "none"  # --split-file none: split anew, whatever the data bring


def own_split(layout: Layout, split_file: str = "") -> tuple[pd.Series | None, str]:
    """The part of each row, "" for none, and where it stands, in words; None where the data bring no split.

    A split needs images of train and of another part.

    Parameters
    ----------
    split_file : a table of image and split; "" for what the folder holds, `NO_FILE` for none.

    Raises
    ------
    ValueError : the file has no such columns, names other parts, an image twice, or none of the images.
    """
    if split_file == NO_FILE:
        return None, ""
    if split_file:
        return _of_file(Path(split_file), layout), split_file
    found = [
        (_of_column(layout.rows), f"column {_column(layout.rows)} of {layout.source.name}")
        if layout.source
        else (None, ""),
        (layout.source.parts, layout.source.name) if layout.source else (None, ""),
        *((_of_other(one.rows, layout), f"column {_column(one.rows)} of {one.name}") for one in layout.others),
        (_of_folders(layout), "the folders' names"),
    ]
    return next(((parts, where) for parts, where in found if _is_split(parts)), (None, ""))


def _is_split(parts: pd.Series | None) -> bool:
    return parts is not None and {"train"} < set(parts) - {""}


def _column(rows: pd.DataFrame) -> str:
    return find_column(rows, SPLIT_COLUMNS) or ""


def _of_column(rows: pd.DataFrame) -> pd.Series | None:
    """The parts that a table's column names; None if it has none, or one of other words."""
    for name in SPLIT_COLUMNS:
        column = find_column(rows, [name])
        if column and (parts := _parts(rows[column])) is not None:
            return parts
    return None


def _parts(cells: pd.Series) -> pd.Series | None:
    """Cells as parts; None if they are other words. Raises ValueError if some are."""
    parts = {cell: "" if not cell or is_no_diagnosis(cell) else part_of_name(cell) for cell in cells.unique()}
    if others := [cell for cell, part in parts.items() if not part and cell and not is_no_diagnosis(cell)]:
        if {"train", "test"} <= set(parts.values()):
            raise ValueError(
                f"Column {cells.name} puts images into {', '.join(map(repr, others[:4]))} beside train and test. "
                f"Expected {', '.join(SPLITS)}. Correct it, or split anew with --split-file none."
            )
        return None
    return cells.map(parts).astype(object)


def _of_other(rows: pd.DataFrame, layout: Layout) -> pd.Series | None:
    parts = _of_column(rows)
    return None if parts is None else _by_name(rows["image"], parts, layout)


def _by_name(cells: pd.Series, parts: pd.Series, layout: Layout) -> pd.Series:
    """The parts of the layout's rows, by the names of their images."""
    place = rows_of(list(cells), layout.images, layout.names)
    found = [parts.iloc[row] if row >= 0 else "" for row in place]
    return pd.Series(found, index=layout.rows.index, dtype=object)


def _of_folders(layout: Layout) -> pd.Series:
    return pd.Series([file.part if file else "" for file in layout.images], index=layout.rows.index, dtype=object)


def _of_file(path: Path, layout: Layout) -> pd.Series:
    rows = read_rows(path)
    if "image" not in rows or not _column(rows):
        raise ValueError(f"--split-file {path} has the columns {', '.join(rows.columns[:12])}. Expected image,split.")
    parts = _of_column(rows)
    if parts is None:
        words = sorted(set(rows[_column(rows)]))
        raise ValueError(f"--split-file {path} names the parts {', '.join(words[:6])}. Expected {', '.join(SPLITS)}.")
    unlike = pd.DataFrame({"name": rows["image"], "part": parts}).drop_duplicates()
    if unlike["name"].duplicated().any():
        name = unlike.loc[unlike["name"].duplicated(), "name"].iloc[0]
        raise ValueError(f"--split-file {path} puts {name!r} into several parts. Remove all but one of its rows.")
    found = _by_name(rows["image"], parts, layout)
    if not _is_split(found):
        counts = ", ".join(f"{(found == part).sum()} of {part}" for part in SPLITS)
        raise ValueError(
            f"--split-file {path} names {counts} among the images. Expected some of train and of another part."
        )
    return found
