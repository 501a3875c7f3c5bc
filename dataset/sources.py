"""Choose the table that names the images and their diagnoses among those in a data folder."""

import gzip
import itertools
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from dataset.classes import NAMES, code_of, is_diagnosis
from dataset.columns import (
    LABEL_COLUMNS,
    MEASUREMENTS,
    are_parts,
    find_column,
    is_reserved,
    names_details,
    unread_columns,
)
from dataset.csvfile import printable
from dataset.files import TABLES
from dataset.labels import Labels, read_labels
from dataset.names import Index, image_name, named
from dataset.roles import SPLITS, part_of
from dataset.tablefile import is_of_images, peek, read_rows

TRUTH = "groundtruth"
SEARCHED = (".xml", ".json", ".npy", *TABLES)  # members of a zip archive that may be tables
MOST_SEARCHED = 50_000_000  # bytes of an unsupported file searched for image names
N_NAMED, LONGEST = 5, 40  # unread columns named before "and N more", and letters of each
SURE = (".csv", ".tsv", ".tab")  # always treated as tables


class Source:
    """A table that names images.

    Attributes
    ----------
    rows : strings, with a column image if one names the images.
    parts : part of a split by row, if the table was joined from one table per part; else None.
    """

    def __init__(
        self, folder: Path, path: Path, rows: pd.DataFrame, zeros: str = "", parts: pd.Series | None = None
    ) -> None:
        self.path, self.rows, self.parts, self._zeros = path, rows, parts, zeros
        self.name = path.relative_to(folder).as_posix()
        self.part = part_of(path.relative_to(folder).with_suffix("").parts)  # of a split, by its name or folder

    @cached_property
    def readings(self) -> list[Labels]:
        """The diagnoses in it. Raises as `read_labels`."""
        return read_labels(self.rows, self.path, self._zeros) if "image" in self.rows and len(self.rows) else []

    @property
    def is_truth(self) -> bool:
        return self.path.stem.lower().replace("_", "").endswith(TRUTH)

    def has_diagnoses(self) -> bool:
        """Whether it has diagnoses that are readable, or that need a user's choice."""
        try:
            return bool(self.readings)
        except ValueError:
            return True

    def describe_unread(self, further: Sequence[str]) -> str:
        """A remark that lists its unread columns; "" for none. Columns that `further` names are read."""
        names = [name for name in unread_columns(self.rows, further) if name not in self._label_columns()]
        if not names:
            return ""
        shown = printable(", ".join(name[:LONGEST] for name in names[:N_NAMED]))
        more = f" and {len(names) - N_NAMED:,} more" if len(names) > N_NAMED else ""
        remedy = "To use one, give it a name such as age or sex (docs/subgroups.md), or pass --subgroups with its own"
        return f"Columns of {self.name} that are not read: {shown}{more}. {remedy}."

    def _label_columns(self) -> set[str]:
        """The columns that hold its diagnoses; none if these are unreadable."""
        try:
            return {name for reading in self.readings for name in reading.columns}
        except ValueError:
            return set()

    def existing(self, images: Index) -> set[str]:
        """The images in the folder that it names."""
        return {named(cell).stem for cell in self.rows["image"].tolist() if cell in images}


def choose_source(
    folder: Path, paths: Sequence[Path], images: Index, zeros: str, columns: Sequence[str] = ()
) -> tuple[Source | None, list[Source], list[str]]:
    """The table with the diagnoses, the other tables that name images, and remarks.

    GroundTruth.csv at the top comes first. Otherwise tables named after the parts of a split are joined, and among
    several others the table that names most of the existing images is chosen.

    Raises
    ------
    ValueError : a table that seems to hold diagnoses is unreadable, or several tables remain. Names them.
    """
    tables, broken, unrelated = _read_all(folder, paths, images, zeros, columns)
    at_top = [path for path in (*broken, *(table.path for table in tables)) if _is_top_truth(path, folder)]
    if at_top:
        if at_top[0] in broken:
            raise broken[at_top[0]][0]
        source = next(table for table in tables if table.path == at_top[0])
        others = [table for table in tables if table is not source]
        differing = [table for table in others if table.has_diagnoses() and not _agree(table, source)]
        unused = [_describe_unused(table, source, images) for table in differing]
        return source, others, _describe_unread(broken, unrelated) + unused
    if serious := [error for error, is_serious in broken.values() if is_serious]:
        raise serious[0]
    candidates = [table for table in tables if "image" in table.rows and table.has_diagnoses()]
    if not candidates:
        _refuse_lists(folder, tables)
    others = [table for table in tables if table not in candidates]
    remarks = _describe_unread(broken, unrelated)
    useful = [
        table
        for table in others
        if candidates and (names_details(table.rows) or any(are_parts(table.rows[name]) for name in table.rows))
    ]
    remarks += [_describe_without_diagnoses(table) for table in others if table not in useful]
    if not candidates:
        truths = [table for table in tables if table.is_truth]
        return (truths[0] if truths else None), [table for table in tables if table not in truths[:1]], remarks
    source = candidates[0] if len(candidates) == 1 else _best_of(folder, candidates, images)
    left = [table for table in candidates if table is not source]
    left = [table for table in left if source.parts is None or table.path not in source.joined]
    remarks += [_describe_unused(table, source, images) for table in left]
    return source, [*others, *left], remarks


def _is_top_truth(path: Path, folder: Path) -> bool:
    return path.parent == folder and path.name.lower() == "groundtruth.csv"


def _read_all(
    folder: Path, paths: Sequence[Path], images: Index, zeros: str, columns: Sequence[str]
) -> tuple[list[Source], dict[Path, tuple[ValueError, bool]], list[str]]:
    """Tables that name images; unreadable tables, and whether they seem to hold diagnoses; other tables."""
    tables, broken, unrelated = [], {}, []
    for path in paths:
        lines, is_sure = peek(path), path.name.lower().endswith(SURE)
        is_truth = path.stem.lower().endswith(TRUTH) and is_sure
        if not (is_truth or is_of_images(lines, images) or (is_sure and not lines)):
            unrelated += [path.relative_to(folder).as_posix()] * is_sure
            continue
        try:
            tables.append(Source(folder, path, read_rows(path, images, columns), zeros))
        except ValueError as error:
            header = lines[0] if lines else []
            is_serious = is_truth or not lines or _names_diagnoses(header)
            broken[path] = error, is_serious and (bool(path.stat().st_size) or is_truth)
    nameless = [table for table in tables if "image" not in table.rows and not table.is_truth]
    unrelated += [table.name for table in nameless]
    return [table for table in tables if table not in nameless], broken, unrelated


def _names_diagnoses(header: Sequence[str]) -> bool:
    """Whether a first line names columns of diagnoses, or a diagnosis if there is no header."""
    return bool(find_column(header, LABEL_COLUMNS)) or any(code_of(name) in NAMES for name in header)


def _describe_unread(broken: dict[Path, tuple[ValueError, bool]], unrelated: list[str]) -> list[str]:
    remarks = [f"Not used, because it is unreadable: {error}" for error, _ in broken.values()]
    if unrelated:
        more = f" and {len(unrelated) - 4} more" if len(unrelated) > 4 else ""
        remarks.append(f"Tables that name no images are not used: {', '.join(unrelated[:4])}{more}.")
    return remarks


def _describe_without_diagnoses(table: Source) -> str:
    if table.rows.empty:
        return f"{table.name} has no rows and is not used."
    if column := find_column(table.rows, LABEL_COLUMNS):
        return f"{table.name} is not used: its column {column} names no diagnosis in any row."
    columns = ", ".join(name for name in table.rows if name != "image" and not is_reserved(name))[:200]
    if not columns:
        return f"{table.name} names images but no diagnoses."
    return f"{table.name} names images but no diagnoses. If one of its columns {columns} does, rename it to label."


def _refuse_lists(folder: Path, tables: list[Source]) -> None:
    """Raises ValueError if tables of only image names are named after diagnoses."""
    lists = [table for table in tables if list(table.rows) == ["image"] and is_diagnosis(code_of(table.path.stem))]
    if len(lists) > 1:
        names = ", ".join(table.name for table in lists)
        raise ValueError(
            f"{os.path.abspath(folder)} has lists of images named after diagnoses: {names}. Expected one table: join "
            f"them into labels.csv with the columns image and label, e.g. label {lists[0].path.stem} for each name in "
            f"{lists[0].name}, and remove the lists."
        )


def _best_of(folder: Path, candidates: list[Source], images: Index) -> Source:
    """The tables of the parts of a split as one, or the table of most images. Raises as `_largest`."""
    counts = {table.path: len(table.existing(images)) for table in candidates}
    return _joined(folder, candidates, counts) or _largest(folder, candidates, counts)


class _Joined(Source):
    """One table joined from the tables of the parts of a split."""

    def __init__(self, folder: Path, by_part: dict[str, Source]) -> None:
        tables = [by_part[part] for part in SPLITS if part in by_part]
        rows = pd.concat([table.rows for table in tables], ignore_index=True).fillna("")
        left_out = (name for table in tables for name in table.rows.attrs.get(MEASUREMENTS, ()))
        rows.attrs[MEASUREMENTS] = list(dict.fromkeys(left_out))  # pd.concat drops attrs that differ
        parts = [part for part in SPLITS if part in by_part for _ in by_part[part].rows.index]
        super().__init__(
            folder, tables[0].path, rows, tables[0]._zeros, pd.Series(parts, index=rows.index, dtype=object)
        )
        self.joined = [table.path for table in tables]
        self.name = " and ".join(table.name for table in tables)


def _joined(folder: Path, candidates: list[Source], counts: dict[Path, int]) -> Source | None:
    """Join the tables named after parts of a split, if there is one per part, including train; None otherwise."""
    by_part: dict[str, list[Source]] = {}
    for table in candidates:
        if table.part and counts[table.path]:
            by_part.setdefault(table.part, []).append(table)
    if "train" not in by_part or len(by_part) < 2 or any(len(tables) > 1 for tables in by_part.values()):
        return None
    n_joined = sum(counts[tables[0].path] for tables in by_part.values())
    parts = [tables[0] for tables in by_part.values()]
    if n_joined < max((counts[table.path] for table in candidates if table not in parts), default=0):
        return None
    return _Joined(folder, {part: tables[0] for part, tables in by_part.items()})


def _largest(folder: Path, candidates: list[Source], counts: dict[Path, int]) -> Source:
    """The table that names most of the existing images. Raises ValueError if several different ones remain."""
    tables = [table for table in candidates if counts[table.path] == max(counts.values())]
    rules: tuple[Callable[[Source], bool], ...] = (
        lambda table: table.is_truth and table.path.parent == folder,
        lambda table: table.is_truth,
    )
    for rule in rules:
        tables = [table for table in tables if rule(table)] or tables
    if len(tables) > 1 and not all(_agree(table, tables[0]) for table in tables[1:]):
        names = ", ".join(table.name for table in tables)
        raise ValueError(
            f"{os.path.abspath(folder)} has {len(tables)} files with diagnoses: {names}. Rename the one to use to "
            "GroundTruth.csv, at the top of the folder, or name them train.csv and test.csv if they are parts."
        )
    return tables[0]


def _agree(a: Source, b: Source) -> bool:
    """Whether table `a` gives a subset of the images of `b` the same diagnoses as `b`."""
    codes = [_codes(table) for table in (a, b)]
    return None not in codes and codes[0].items() <= codes[1].items()


def _codes(table: Source) -> dict[str, str] | None:
    """The diagnosis of each image by name; None if there is not exactly one reading."""
    try:
        (reading,) = table.readings
    except ValueError:
        return None
    return dict(zip(map(image_name, table.rows["image"].tolist()), reading.code))


def _describe_unused(table: Source, source: Source, images: Index) -> str:
    """Describe the contents of an unused table of diagnoses."""
    further = len(table.existing(images) - source.existing(images))
    ours, theirs = _codes(source) or {}, _codes(table) or {}
    n_other = sum(ours.get(name, code) != code for name, code in theirs.items())
    other = f", and different diagnoses for {n_other:,}" if n_other else ""
    extra = f"{further:,} images here that {source.name} does not" if further else "no further image in the folder"
    return f"{table.name} is not used: it names {extra}{other}."


def mentions(path: Path, images: Index) -> bool:
    """Whether a file in an unsupported format, such as a workbook, holds names of images."""
    names = [stem for stem in itertools.islice(images.by_stem, 2000) if len(stem) > 1]
    sample = names[:: max(1, len(names) // 20)]
    try:
        if path.stat().st_size > MOST_SEARCHED:
            return False
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
            content = file.read(MOST_SEARCHED)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as workbook:
                parts = [part for part in workbook.infolist() if part.file_size < MOST_SEARCHED]
                content = b"".join(workbook.read(part) for part in parts if part.filename.lower().endswith(SEARCHED))
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False
    encodings: tuple[Callable[[str], bytes], ...] = (
        str.encode,
        lambda name: name.encode("utf-16-le"),
        lambda name: name.encode("utf-32-le"),  # as NumPy writes strings
    )
    return sum(any(encode(name) in content for encode in encodings) for name in sample) * 2 > len(sample) > 0
