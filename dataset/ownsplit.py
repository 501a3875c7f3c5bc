"""A split that the data bring with them: in a column, in folders, in several tables, or in a file of its own."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dataset.classes import is_no_diagnosis
from dataset.columns import SPLIT_COLUMNS, are_parts, part_flags, squashed
from dataset.labels import as_numbers
from dataset.layout import Layout
from dataset.names import Index, image_name, rows_of
from dataset.roles import SPLITS, part_of_name
from dataset.tablefile import read_rows

NO_FILE = "none"  # --split-file none: split anew, whatever the data bring
FEWEST = 1 / 2  # share of the images below which a split that was not asked for is asked about
_CALLED_SO = {squashed(name) for name in SPLIT_COLUMNS}


class Own(NamedTuple):
    """A split that the data bring."""

    parts: pd.Series | None = None  # of each row, "" for none; None where there is no split
    where: str = ""  # it stands, in words
    path: Path | None = None  # of its table
    remarks: tuple[str, ...] = ()  # what was seen and is not used


def own_split(layout: Layout, split_file: str = "") -> Own:
    """The data's own split, which needs images of train and of another part.

    Parameters
    ----------
    split_file : a table of image and split; "" for what the folder holds, `NO_FILE` for none.

    Raises
    ------
    ValueError : the file has no such columns, names other parts, or none of the images; an image is in two parts; the
        folder holds splits that differ, or one of few of its images. Says what to do.
    """
    if split_file == NO_FILE:
        return Own()
    if split_file:
        return _of_file(Path(split_file), layout)
    source, found = layout.source, []
    if source:
        found = [*_in(source.rows, source.name, source.path), Own(source.parts, source.name)]
    found = [_refuse_two_parts(one, layout) for one in found]
    for other in layout.others:
        found += [_by_name(one, other.rows["image"], layout) for one in _in(other.rows, other.name, other.path)]
    lists = [one for one in layout.others if list(one.rows) == ["image"] and one.part]
    if lists:
        rows = pd.concat([one.rows.assign(part=one.part) for one in lists], ignore_index=True)
        own = Own(rows["part"].astype(object), " and ".join(one.name for one in lists))
        found.append(_by_name(own, rows["image"], layout))
    found.append(Own(_of_folders(layout), "the folders' names"))
    used, unused = [one for one in found if _is_split(one)], [one for one in found if not _is_split(one)]
    remarks = tuple(
        f"No split: {one.where} names no images of train and of another part." for one in unused if one.path
    )
    if not used:
        return Own(remarks=remarks)
    best = max(used, key=lambda one: (one.parts != "").sum())
    _refuse_doubt(best, used, layout)
    return best._replace(remarks=(*best.remarks, *remarks))


def _is_split(one: Own) -> bool:
    return one.parts is not None and {"train"} < set(one.parts) - {""}


def _in(rows: pd.DataFrame, name: str, path: Path) -> Iterator[Own]:
    """The splits in a table, by its rows, in columns of parts or flags such as is_test; no parts for other words."""
    for column in rows.columns.drop("image", errors="ignore"):
        if squashed(column) in _CALLED_SO or are_parts(rows[column]):
            yield Own(_parts(rows[column]), f"column {column} of {name}", path)
    if flags := part_flags(rows):
        ones = pd.DataFrame({part: as_numbers(rows[name]).mask(rows[name] == "", 0) for name, part in flags.items()})
        rest = "" if "train" in ones and len(ones.columns) > 1 else "test" if "train" in ones else "train"
        is_told = ones.isin([0, 1]).all(axis=None) and {"train", "test"} & set(ones)
        parts = ones.fillna(0).idxmax(axis=1).where(ones.sum(axis=1) == 1, "").mask(ones.sum(axis=1) == 0, rest)
        yield Own(parts.astype(object) if is_told else None, f"{' and '.join(flags)} of {name}", path)


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


def _of_folders(layout: Layout) -> pd.Series:
    return pd.Series([file.part if file else "" for file in layout.images], index=layout.rows.index, dtype=object)


def _by_name(one: Own, cells: pd.Series, layout: Layout) -> Own:
    """A split of another table's rows as one of the layout's, by the names of the images; counts rows of no image."""
    if one.parts is None:
        return one
    names = set(layout.names)
    index = Index({file.path: file for file in layout.images if file}.values())
    told = cells[one.parts != ""]
    unclear = [cell for cell, some in zip(told, index.files_of(list(told))) if len(some) != 1]
    strange = [cell for cell in unclear if image_name(cell) not in names]
    remarks = [
        f"{len(strange):,} of {len(cells):,} rows of {one.where} name no image that is there, or several (e.g. {name})."
        for name in strange[:1]
    ]
    found = pd.Series("", index=layout.rows.index, dtype=object)
    for part in SPLITS:
        rows = rows_of(list(cells[one.parts == part]), layout.images, layout.names)
        named = pd.Series(rows, index=found.index) >= 0
        if (twice := named & (found != "")).any():
            raise ValueError(_two_parts(one.where, layout.names[int(twice.to_numpy().argmax())]))
        found[named] = part
    return one._replace(parts=found, remarks=tuple(remarks))


def _refuse_two_parts(one: Own, layout: Layout) -> Own:
    """The same. Raises ValueError if an image has rows of several parts."""
    if one.parts is not None:
        path = pd.Series([file.path if file else "" for file in layout.images], index=one.parts.index)
        n_parts = one.parts[(one.parts != "") & (path != "")].groupby(path).transform("nunique")
        if (n_parts > 1).any():
            raise ValueError(_two_parts(one.where, layout.names[layout.rows.index.get_loc(n_parts.idxmax())]))
    return one


def _two_parts(where: str, name: str) -> str:
    return f"{name!r} is in several parts by {where}. Remove all but one of its rows, or pass --split-file none."


def _refuse_doubt(best: Own, splits: list[Own], layout: Layout) -> None:
    """Raises ValueError if another split differs from the one of most images, or if that one has few."""
    differing = [one for one in splits if ((one.parts != best.parts) & (one.parts != "") & (best.parts != "")).any()]
    n, n_all = int((best.parts != "").sum()), sum(file is not None for file in layout.images)
    if differing:
        several = [best, *differing]
        problem = f"{len(several)} splits that differ, by {' and by '.join(one.where for one in several)}: remove one"
    elif n < FEWEST * n_all:
        several, problem = [best], f"a split of {n:,} of its {n_all:,} images, by {best.where}: remove it"
    else:
        return
    paths = dict.fromkeys(str(one.path) for one in several if one.path)
    choices = "".join(f", or pass --split-file {shlex.quote(path)} to use that one" for path in paths)
    raise ValueError(f"{layout.folder} has {problem}{choices}, or --split-file none to split anew.")


def _of_file(path: Path, layout: Layout) -> Own:
    """The split in a file of its own."""
    rows = read_rows(path, Index(file for file in layout.images if file))
    found = list(_in(rows, str(path), path))
    if "image" not in rows or not found:
        raise ValueError(f"--split-file {path} has the columns {', '.join(rows.columns[:12])}. Expected image,split.")
    told = [one for one in found if one.parts is not None]
    if not told:
        columns = [name for name in rows if squashed(name) in _CALLED_SO or part_flags([name])]
        words = sorted(set(rows[columns].to_numpy().ravel()))
        raise ValueError(f"--split-file {path} names the parts {', '.join(words[:6])}. Expected {', '.join(SPLITS)}.")
    if any(not one.parts.equals(told[0].parts) for one in told):
        columns = " and ".join(one.where for one in told)
        raise ValueError(f"--split-file {path} names parts that differ, in {columns}. Remove one of these columns.")
    own = _by_name(told[0]._replace(where=str(path)), rows["image"], layout)
    if not _is_split(own):
        counts = ", ".join(f"{(own.parts == part).sum()} of {part}" for part in SPLITS)
        raise ValueError(
            f"--split-file {path} names {counts} among the images. Expected some of train and of another part."
        )
    return own
