"""Of the tables in a data folder, the one that names the images and their diagnoses."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from dataset.classes import NAMES, code_of, is_diagnosis
from dataset.columns import LABEL_COLUMNS, are_parts, find_column, is_known, names_details
from dataset.labels import Labels, read_labels
from dataset.names import Index, image_name, named
from dataset.roles import SPLITS, part_of
from dataset.tablefile import is_of_images, peek, read_rows

TRUTH = "groundtruth"
SURE = (".csv", ".tsv", ".tab")  # files so called are tables, whatever they hold


class Source:
    """A table that names images.

    Attributes
    ----------
    rows : text, with a column image if one names them.
    parts : of a split, by row, where the table was joined from one for each; else None.
    """

    def __init__(
        self, folder: Path, path: Path, rows: pd.DataFrame, zeros: str = "", parts: pd.Series | None = None
    ) -> None:
        self.path, self.rows, self.parts, self._zeros = path, rows, parts, zeros
        self.name = path.relative_to(folder).as_posix()
        self.part = part_of(path.relative_to(folder).with_suffix("").parts)  # of a split, if its name or folder says so

    @cached_property
    def readings(self) -> list[Labels]:
        """The diagnoses in it. Raises as `read_labels`."""
        return read_labels(self.rows, self.path, self._zeros) if "image" in self.rows and len(self.rows) else []

    @property
    def is_truth(self) -> bool:
        return self.path.stem.lower().replace("_", "").endswith(TRUTH)

    def has_diagnoses(self) -> bool:
        """Whether it has some that can be read, or that only its owner can explain."""
        try:
            return bool(self.readings)
        except ValueError:
            return True

    def there(self, images: Index) -> set[str]:
        """The images of the folder that it names."""
        return {named(cell).stem for cell in self.rows["image"] if cell in images}


def choose_source(
    folder: Path, paths: Sequence[Path], images: Index, zeros: str
) -> tuple[Source | None, list[Source], list[str]]:
    """The table with the diagnoses, the others that name images, and what is to be said of them.

    GroundTruth.csv at the top comes first. Else tables that are called as the parts of a split are one, and of several
    others the one counts whose images are most of those that are there.

    Raises
    ------
    ValueError : a table that seems to hold diagnoses cannot be read; that leaves several. Names them.
    """
    tables, broken, strangers = _read_all(folder, paths, images, zeros)
    at_top = [path for path in (*broken, *(one.path for one in tables)) if _is_top_truth(path, folder)]
    if at_top:
        if at_top[0] in broken:
            raise broken[at_top[0]][0]
        source = next(one for one in tables if one.path == at_top[0])
        others = [one for one in tables if one is not source]
        said = [_say_left(one, source, images) for one in others if one.has_diagnoses() and not _agree(one, source)]
        return source, others, _say_broken(broken, strangers, folder) + said
    if serious := [error for error, is_serious in broken.values() if is_serious]:
        raise serious[0]
    able = [one for one in tables if "image" in one.rows and one.has_diagnoses()]
    if not able:
        _refuse_lists(folder, tables)
    others = [one for one in tables if one not in able]
    remarks = _say_broken(broken, strangers, folder)
    useful = [
        one
        for one in others
        if able and (names_details(one.rows) or any(are_parts(one.rows[name]) for name in one.rows))
    ]
    remarks += [_say_without(one) for one in others if one not in useful]
    if not able:
        truths = [one for one in tables if one.is_truth]
        return (truths[0] if truths else None), [one for one in tables if one not in truths[:1]], remarks
    counts = {one.path: len(one.there(images)) for one in able}
    source = _joined(folder, able, counts) or _most(folder, able, counts)
    left = [one for one in able if one is not source and (source.parts is None or one.path not in source.joined)]
    remarks += [_say_left(one, source, images) for one in left]
    return source, [*others, *left], remarks


def _is_top_truth(path: Path, folder: Path) -> bool:
    return path.parent == folder and path.name.lower() == "groundtruth.csv"


def _read_all(
    folder: Path, paths: Sequence[Path], images: Index, zeros: str
) -> tuple[list[Source], dict[Path, tuple[ValueError, bool]], list[str]]:
    """The tables that name images; those that cannot be read, and whether they seem to hold diagnoses; and the rest."""
    tables, broken, strangers = [], {}, []
    for path in paths:
        lines, is_sure = peek(path), path.name.lower().endswith(SURE)
        is_truth = path.stem.lower().endswith(TRUTH) and is_sure
        if not (is_truth or is_of_images(lines, images) or (is_sure and not lines)):
            strangers += [path.relative_to(folder).as_posix()] * is_sure
            continue
        try:
            tables.append(Source(folder, path, read_rows(path, images), zeros))
        except ValueError as error:
            header = lines[0] if lines else []
            is_serious = is_truth or not lines or _names_diagnoses(header)
            broken[path] = error, is_serious and (bool(path.stat().st_size) or is_truth)
    without = [one for one in tables if "image" not in one.rows and not one.is_truth]
    strangers += [one.name for one in without]
    return [one for one in tables if one not in without], broken, strangers


def _names_diagnoses(header: Sequence[str]) -> bool:
    """Whether a first line names columns of diagnoses, or a diagnosis itself where there is no header."""
    return bool(find_column(header, LABEL_COLUMNS)) or any(code_of(name) in NAMES for name in header)


def _say_broken(broken: dict[Path, tuple[ValueError, bool]], strangers: list[str], folder: Path) -> list[str]:
    remarks = [f"Not used, because it cannot be read: {error}" for error, _ in broken.values()]
    if strangers:
        more = f" and {len(strangers) - 4} more" if len(strangers) > 4 else ""
        remarks.append(f"Tables that name no images are not used: {', '.join(strangers[:4])}{more}.")
    return remarks


def _say_without(one: Source) -> str:
    if one.rows.empty:
        return f"{one.name} has no rows and is not used."
    if column := find_column(one.rows, LABEL_COLUMNS):
        return f"{one.name} is not used: its column {column} names no diagnosis in any row."
    columns = ", ".join(name for name in one.rows if name != "image" and not is_known(name))[:200]
    if not columns:
        return f"{one.name} names images and no diagnoses."
    return f"{one.name} names images and no diagnoses; if one of its columns {columns} does, call it label."


def _refuse_lists(folder: Path, tables: list[Source]) -> None:
    """Raises ValueError if tables of nothing but names are called as diagnoses."""
    lists = [one for one in tables if list(one.rows) == ["image"] and is_diagnosis(code_of(one.path.stem))]
    if len(lists) > 1:
        names = ", ".join(one.name for one in lists)
        raise ValueError(
            f"{os.path.abspath(folder)} has lists of images that are called as diagnoses: {names}. Expected one table: "
            f"write {lists[0].path.stem} behind each name of {lists[0].name}, and so on, join them into labels.csv "
            "with the columns image and label, and remove the lists."
        )


class _Joined(Source):
    """Tables of the parts of a split, as one."""

    def __init__(self, folder: Path, by_part: dict[str, Source]) -> None:
        tables = [by_part[part] for part in SPLITS if part in by_part]
        rows = pd.concat([one.rows for one in tables], ignore_index=True).fillna("")
        parts = [part for part in SPLITS if part in by_part for _ in by_part[part].rows.index]
        super().__init__(
            folder, tables[0].path, rows, tables[0]._zeros, pd.Series(parts, index=rows.index, dtype=object)
        )
        self.joined = [one.path for one in tables]
        self.name = " and ".join(one.name for one in tables)


def _joined(folder: Path, able: list[Source], counts: dict[Path, int]) -> Source | None:
    """The tables that are called as parts of a split, one for each and train among them, as one; None otherwise."""
    by_part: dict[str, list[Source]] = {}
    for one in able:
        if one.part and counts[one.path]:
            by_part.setdefault(one.part, []).append(one)
    if "train" not in by_part or len(by_part) < 2 or any(len(some) > 1 for some in by_part.values()):
        return None
    n_joined = sum(counts[some[0].path] for some in by_part.values())
    parts = [some[0] for some in by_part.values()]
    if n_joined < max((counts[one.path] for one in able if one not in parts), default=0):
        return None
    return _Joined(folder, {part: some[0] for part, some in by_part.items()})


def _most(folder: Path, able: list[Source], counts: dict[Path, int]) -> Source:
    """The table of most images that are there. Raises ValueError where several remain that differ."""
    found = [one for one in able if counts[one.path] == max(counts.values())]
    rules: tuple[Callable[[Source], bool], ...] = (
        lambda one: one.is_truth and one.path.parent == folder,
        lambda one: one.is_truth,
    )
    for rule in rules:
        found = [one for one in found if rule(one)] or found
    if len(found) > 1 and not all(_agree(one, found[0]) for one in found[1:]):
        names = ", ".join(one.name for one in found)
        raise ValueError(
            f"{os.path.abspath(folder)} has {len(found)} files with diagnoses: {names}. Rename the one to learn from "
            "to GroundTruth.csv, at the top of the folder, or call them train.csv and test.csv if they are parts."
        )
    return found[0]


def _agree(a: Source, b: Source) -> bool:
    """Whether one table gives the same images, or some of them, the same diagnoses as another."""
    codes = [_codes(one) for one in (a, b)]
    return None not in codes and codes[0].items() <= codes[1].items()


def _codes(one: Source) -> dict[str, str] | None:
    """The diagnosis of each image by name; None where there are several readings, or none."""
    try:
        (reading,) = one.readings
    except ValueError:
        return None
    return dict(zip(one.rows["image"].map(image_name), reading.code))


def _say_left(one: Source, source: Source, images: Index) -> str:
    """What a table of diagnoses says that is not used."""
    further = len(one.there(images) - source.there(images))
    ours, theirs = _codes(source) or {}, _codes(one) or {}
    n_other = sum(ours.get(name, code) != code for name, code in theirs.items())
    other = f", and other diagnoses for {n_other:,} that it names" if n_other else ""
    what = (
        f"{further:,} images that are there and {source.name} does not name"
        if further
        else "no further image that is there"
    )
    return f"{one.name} is not used: it names {what}{other}."
