"""A split that comes with the data: in a column, in folders, in several tables, or in a separate file."""

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

NO_FILE = "none"  # --split-file none: make a new split
FEWEST = 1 / 2  # minimum share of the images that an implicit split must cover
_SPLIT_KEYS = {squashed(name) for name in SPLIT_COLUMNS}


class Own(NamedTuple):
    """A split that comes with the data."""

    parts: pd.Series | None = None  # part of each row, "" for none; None if there is no split
    where: str = ""  # description of the place
    path: Path | None = None  # path of its table
    remarks: tuple[str, ...] = ()  # on unused columns and rows


def own_split(layout: Layout, split_file: str = "") -> Own:
    """The data's own split, which must have images in train and in another part.

    Parameters
    ----------
    split_file : a table of image and split; "" for the split in the folder, `NO_FILE` for none.

    Raises
    ------
    ValueError : the file lacks these columns, names other parts, or none of the images; an image is in two parts; the
        splits in the folder differ, or cover too few images. Says what to do.
    """
    if split_file == NO_FILE:
        return Own()
    if split_file:
        return _of_file(Path(split_file), layout)
    source, splits = layout.source, []
    if source:
        splits = [*_in(source.rows, source.name, source.path), Own(source.parts, source.name)]
    splits = [_refuse_two_parts(split, layout) for split in splits]
    for other in layout.others:
        splits += [_by_name(split, other.rows["image"], layout) for split in _in(other.rows, other.name, other.path)]
    lists = [table for table in layout.others if list(table.rows) == ["image"] and table.part]
    if lists:
        rows = pd.concat([table.rows.assign(part=table.part) for table in lists], ignore_index=True)
        own = Own(rows["part"].astype(object), " and ".join(table.name for table in lists))
        splits.append(_by_name(own, rows["image"], layout))
    splits.append(Own(_of_folders(layout), "the folder names"))
    valid = [split for split in splits if _is_split(split)]
    remarks = tuple(
        f"Not a split: {split.where} does not name images of train and of another part."
        for split in splits
        if split.path and not _is_split(split)
    )
    if not valid:
        return Own(remarks=remarks)
    best = max(valid, key=lambda split: (split.parts != "").sum())
    _refuse_doubt(best, valid, layout)
    return best._replace(remarks=(*best.remarks, *remarks))


def _is_split(split: Own) -> bool:
    return split.parts is not None and {"train"} < set(split.parts) - {""}


def _in(rows: pd.DataFrame, name: str, path: Path) -> Iterator[Own]:
    """The splits in the columns of a table: parts, or flags such as is_test; `parts` is None for other words."""
    for column in rows.columns.drop("image", errors="ignore"):
        if squashed(column) in _SPLIT_KEYS or are_parts(rows[column]):
            yield Own(_parts(rows[column]), f"column {column} of {name}", path)
    if flags := part_flags(rows):
        ones = pd.DataFrame({part: as_numbers(rows[name]).mask(rows[name] == "", 0) for name, part in flags.items()})
        rest = "" if "train" in ones and len(ones.columns) > 1 else "test" if "train" in ones else "train"
        is_clear = ones.isin([0, 1]).all(axis=None) and {"train", "test"} & set(ones)
        parts = ones.fillna(0).idxmax(axis=1).where(ones.sum(axis=1) == 1, "").mask(ones.sum(axis=1) == 0, rest)
        yield Own(parts.astype(object) if is_clear else None, f"{' and '.join(flags)} of {name}", path)


def _parts(cells: pd.Series) -> pd.Series | None:
    """Cells as parts; None if they are other words. Raises ValueError if only some are."""
    parts = {cell: "" if not cell or is_no_diagnosis(cell) else part_of_name(cell) for cell in cells.unique()}
    if others := [cell for cell, part in parts.items() if not part and cell and not is_no_diagnosis(cell)]:
        if {"train", "test"} <= set(parts.values()):
            raise ValueError(
                f"Column {cells.name} holds {', '.join(map(repr, others[:4]))} beside train and test. "
                f"Expected {', '.join(SPLITS)}. Correct it, or pass --split-file none for a new split."
            )
        return None
    return cells.map(parts).astype(object)


def _of_folders(layout: Layout) -> pd.Series:
    return pd.Series([file.part if file else "" for file in layout.images], index=layout.rows.index, dtype=object)


def _by_name(split: Own, cells: pd.Series, layout: Layout) -> Own:
    """Transfer a split of another table to the layout's rows, by image name; remarks on unmatched rows."""
    if split.parts is None:
        return split
    names = set(layout.names)
    index = Index({file.path: file for file in layout.images if file}.values())
    assigned = cells[split.parts != ""].tolist()
    unclear = [cell for cell, files in zip(assigned, index.files_of(assigned)) if len(files) != 1]
    strange = [cell for cell in unclear if image_name(cell) not in names]
    remarks = [
        f"{len(strange):,} of {len(cells):,} rows of {split.where} match no image, or several (e.g. {name})."
        for name in strange[:1]
    ]
    parts = pd.Series("", index=layout.rows.index, dtype=object)
    for part in SPLITS:
        rows = rows_of(cells[split.parts == part].tolist(), layout.images, layout.names)
        named = pd.Series(rows, index=parts.index) >= 0
        if (twice := named & (parts != "")).any():
            raise ValueError(_two_parts(split.where, layout.names[int(twice.to_numpy().argmax())]))
        parts[named] = part
    return split._replace(parts=parts, remarks=tuple(remarks))


def _refuse_two_parts(split: Own, layout: Layout) -> Own:
    """Return the split. Raises ValueError if an image has rows of several parts."""
    if split.parts is not None:
        path = pd.Series([file.path if file else "" for file in layout.images], index=split.parts.index)
        n_parts = split.parts[(split.parts != "") & (path != "")].groupby(path).transform("nunique")
        if (n_parts > 1).any():
            raise ValueError(_two_parts(split.where, layout.names[layout.rows.index.get_loc(n_parts.idxmax())]))
    return split


def _two_parts(where: str, name: str) -> str:
    return f"{name!r} is assigned to several parts by {where}. Keep only one of its rows, or pass --split-file none."


def _refuse_doubt(best: Own, splits: list[Own], layout: Layout) -> None:
    """Raises ValueError if another split differs from the largest one, or if the largest covers few images."""
    differing = [own for own in splits if ((own.parts != best.parts) & (own.parts != "") & (best.parts != "")).any()]
    n, n_all = int((best.parts != "").sum()), sum(file is not None for file in layout.images)
    if differing:
        several = [best, *differing]
        problem = f"{len(several)} different splits, in {' and in '.join(own.where for own in several)}: remove one"
    elif n < FEWEST * n_all:
        several, problem = [best], f"a split of only {n:,} of its {n_all:,} images, in {best.where}: remove it"
    else:
        return
    paths = dict.fromkeys(str(own.path) for own in several if own.path)
    choices = "".join(f", or pass --split-file {shlex.quote(path)} to use that one" for path in paths)
    raise ValueError(f"{layout.folder} has {problem}{choices}, or --split-file none for a new split.")


def _of_file(path: Path, layout: Layout) -> Own:
    """The split in a separate file."""
    if not path.is_file():
        raise ValueError(f"--split-file {path} is not a file. Expected a CSV file with the columns image and split.")
    rows = read_rows(path, Index(file for file in layout.images if file))
    splits = list(_in(rows, str(path), path))
    if "image" not in rows or not splits:
        raise ValueError(f"--split-file {path} has the columns {', '.join(rows.columns[:12])}. Expected image,split.")
    valid = [split for split in splits if split.parts is not None]
    if not valid:
        columns = [name for name in rows if squashed(name) in _SPLIT_KEYS or part_flags([name])]
        words = sorted(set(rows[columns].to_numpy().ravel()))
        raise ValueError(f"--split-file {path} names the parts {', '.join(words[:6])}. Expected {', '.join(SPLITS)}.")
    if any(not split.parts.equals(valid[0].parts) for split in valid):
        columns = " and ".join(split.where for split in valid)
        raise ValueError(f"--split-file {path} has different splits, in {columns}. Remove one of these columns.")
    own = _by_name(valid[0]._replace(where=str(path)), rows["image"], layout)
    if not _is_split(own):
        counts = ", ".join(f"{part} {(own.parts == part).sum()}" for part in SPLITS)
        raise ValueError(
            f"--split-file {path} gives the image counts {counts}. Expected some in train and in another part."
        )
    return own
