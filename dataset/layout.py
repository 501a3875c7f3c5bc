"""Determine the layout of a data folder: the source of its diagnoses, its images and its masks.

Diagnoses are read from a table with one column per class, or one column that names the class; otherwise from one folder
per class. Images with masks need none. If two readings are possible, neither is guessed.
"""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dataset.choice import Choice, as_flag
from dataset.classes import HAM10000, code_of, is_diagnosis, key_of
from dataset.columns import names_details
from dataset.files import Contents, Mask, scan, written_mark
from dataset.folders import class_folders, diagnosis_in, refuse_pairs
from dataset.labels import Labels, choose, no_labels, refuse_zeros
from dataset.maskcolumn import paired
from dataset.names import File, Index, image_name, nearest, one_of, refuse_two_places, unfound_name, unique_names
from dataset.pairs import by_image, masks_of
from dataset.roles import MASK, is_neutral, role_of
from dataset.sources import Source, choose_source, mentions

ADVICE = (
    "Put GroundTruth.csv, images/ and masks/ into one folder and pass it (main.py --data-dir FOLDER), or try --demo. "
    "HAM10000 is available at https://doi.org/10.7910/DVN/DBW86T"
)
EXPECTED = (
    f"Expected: image,{','.join(HAM10000)} (or other classes) with one row per image and 1 in the column of its class, "
    "or image,label with the class's name in each row."
)


class Layout(NamedTuple):
    """Interpretation of a data folder."""

    folder: Path
    csv: Path | None  # table that names the images; None if their folders do
    source: Source | None  # the table, or the tables of the parts
    rows: pd.DataFrame  # strings, with a column image
    labels: Labels
    names: list[str]  # of the image of each row, unique for each file
    images: list[File | None]  # by row
    masks: list[Mask | None]  # by row
    contents: Contents
    others: list[Source]  # readable tables that name images, beside `source`
    remarks: list[str]  # unused files and tables, and assumptions
    unread: Sequence[str] = ()  # remarks on columns that nothing reads, which limit no result

    def describe(self) -> str:
        """Summarize in one line, followed by one line per remark."""
        files = [file for file in self.images if file]
        places = sorted({"/".join(file.place) or "." for file in files})
        shown = ", ".join(f"{place}/" for place in places[:3]) + (", ..." if len(places) > 3 else "")
        source = f"{self.source.name}, " if self.source else ""
        n_rows = f"{len(self.rows):,} images by name" if self.source else f"{len(self.rows):,} images"
        n_masks = len({mask.file.path for mask in self.masks if mask})
        n_images = len({file.path for file in files})
        counts = f"{n_images:,} image files in {shown or 'no folder'}; {n_masks:,} masks"
        summary = f"{source}{n_rows}; diagnoses: {self.labels.where}; {counts}."
        return "\n".join([summary, *self.unread, *self.remarks])


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Do not look for garbage: among millions of new strings and tuples that takes a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@garbage_kept()
def find(
    data_dir: str | Path, classes: Sequence[str] | Choice = (), zeros: str = "", columns: Sequence[str] = ()
) -> Layout:
    """Determine the layout of a folder; images are opened only if names are ambiguous.

    Names in a table are looked up among the files in the folder, so they can never lead outside it.

    Parameters
    ----------
    classes : as for --classes; they decide between two readings.
    zeros : the class of rows without a 1.
    columns : further columns of the tables to keep.

    Raises
    ------
    FileNotFoundError, ValueError : the folder is missing or holds nothing to learn from, a table is unreadable, or a
        name or the layout is ambiguous; says what was found, what was expected and what to do.
    """
    folder, wanted = Path(data_dir), Choice.of(classes) if not isinstance(classes, Choice) else classes
    names = names_in(folder)
    if mark := written_mark(folder, names):
        raise ValueError(
            f"{folder} was written by main.py or predict.py, because it holds {mark}. Pass the folder with the data, "
            f"or rename {mark} if this is one."
        )
    contents = scan(folder)
    everything = Index([*contents.images, *contents.unassigned, *contents.orphans])
    source, others, remarks = choose_source(folder, contents.tables, everything, zeros, columns)
    contents = paired(contents, [*filter(None, [source]), *others])
    if source and (why := _why_folders_count(source, contents, wanted)):
        remarks.append(f"{source.name} is not used because the folders name the classes: {why}.")
        source, others = None, [*others, source]
    if source:
        layout = _from_source(folder, source, contents, others, remarks, wanted, zeros)
        told = [table for table in others if any(remark.startswith(table.name) for remark in remarks)]
        read = [table for table in (source, *others) if table not in told or names_details(table.rows)]
        return layout._replace(unread=list(filter(None, (table.describe_unread(columns) for table in read))))
    _refuse_unread(folder, contents, everything)
    rows, labels, files, folder_remarks = class_folders(folder, contents, wanted)
    remarks += folder_remarks
    if labels is None:
        contents = refuse_pairs(folder, contents)
        if not (contents.image_files and contents.masks):
            raise FileNotFoundError(_nothing(folder, names, contents, remarks))
        files = contents.image_files
        rows, labels = (
            pd.DataFrame({"image": unique_names(files)}, dtype=str),
            no_labels(pd.DataFrame(index=range(len(files)))),
        )
    refuse_zeros(zeros, labels.where)
    layout = _layout(folder, None, rows, labels, rows["image"].tolist(), files, contents, others)
    return layout._replace(remarks=remarks + layout.remarks)


def find_files(data_dir: str | Path) -> tuple[dict[str, str], dict[str, str]]:
    """Paths of images and masks by image name: the first of several images, the most clearly named of several masks."""
    contents = scan(data_dir)
    images = {file.stem: file.path for file in reversed(contents.image_files)}
    ordered = sorted(contents.masks, key=lambda mask: (mask.file.place, mask.rank), reverse=True)
    return images, {stem: candidates[-1].file.path for stem, candidates in by_image(ordered, images).items()}


def names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        place = os.path.abspath(folder)
        raise FileNotFoundError(f"No data folder at {place} ({error.strerror}). {ADVICE}") from None


def _why_folders_count(source: Source, contents: Contents, wanted: Choice) -> str:
    """Why folders named after diagnoses replace a table without known diagnoses; "" if they do not.

    Raises
    ------
    ValueError : both are possible, and neither is chosen.
    """
    of_table = [code for reading in source.readings for code in reading.classes]
    in_folders = {file: code for file in contents.image_files if (code := _diagnosis_above(file.place))}
    known = sorted(set(in_folders.values()))
    if source.is_truth or len(known) < 2 or any(map(is_diagnosis, of_table)):
        return ""
    if chosen := set(map(key_of, wanted.wanted())):
        is_of_folders = chosen & set(map(key_of, known)) and not chosen & set(map(key_of, of_table))
        return "--classes selects them" if is_of_folders else ""
    if len(of_table) < 2:
        return "it gives every image the same label"
    if not source.existing(Index(in_folders)):
        return "it names no image in them"
    raise ValueError(
        f"{source.name} and the folders both name classes: {', '.join(of_table[:4])}, and {', '.join(known[:4])}. "
        f"Choose the folders' classes: {as_flag(known)}\nOr those of the table: {as_flag(of_table[:8])}"
    )


@lru_cache(maxsize=4096)
def _diagnosis_above(place: tuple[str, ...]) -> str:
    """The known diagnosis in the name of the nearest folder that has one."""
    return next((code for name in reversed(place) if is_diagnosis(code := code_of(diagnosis_in(name)))), "")


def _refuse_unread(folder: Path, contents: Contents, images: Index) -> None:
    """Raises ValueError if a file in an unsupported format, such as a workbook, may hold the diagnoses."""
    for path in contents.other_tables:
        if mentions(path, images):
            name = Path(path.stem).with_suffix(".csv")
            raise ValueError(
                f"{path} names images of {os.path.abspath(folder)}, in an unsupported format. Save its table as {name} "
                "(CSV UTF-8), or move it out of the folder if it holds no diagnoses."
            )


def _nothing(folder: Path, names: list[str], contents: Contents, remarks: list[str]) -> str:
    counts = f"{len(contents.image_files)} images, {len(contents.masks)} masks" + "".join(
        f", {name}" for name in sorted(names)[:6]
    )
    places = sorted({"/".join(file.place) for file in contents.image_files if file.place})
    why = flag = ""
    if places and all(is_neutral(place.rsplit("/", 1)[-1]) for place in places):
        why = f" None of the folder names is a diagnosis ({', '.join(places[:4])})."
        if len(last := list(dict.fromkeys(place.rsplit("/", 1)[-1] for place in places))) > 1:
            flag = f" If the folders are classes, pass {as_flag(last[:8])}"
    notes = " ".join(["", *remarks, *(f"{n:,} {reason}." for reason, n in contents.skipped.items())])
    place = os.path.abspath(folder)
    return f"Expected GroundTruth.csv in {place}, found: {counts}.{notes}{why} {EXPECTED} {ADVICE}{flag}"


def _from_source(
    folder: Path,
    source: Source,
    contents: Contents,
    others: list[Source],
    remarks: list[str],
    wanted: Choice,
    zeros: str,
) -> Layout:
    """The layout of a folder with a table of images."""
    rows = source.rows
    if rows.empty:
        raise ValueError(f"{source.path} has no rows. Expected one row per image.")
    if lacking := "images" if "image" not in rows else "" if source.readings else "classes":
        raise ValueError(f"{source.path} names no {lacking}; it has {', '.join(rows.columns[:12])}. {EXPECTED}")
    labels = choose(source.readings, source.path, wanted.wanted(), zeros)
    files, file_remarks = _files_of(folder, source, contents)
    used = list({file.path: file for file in files if file}.values())
    name_by_path = dict(zip((file.path for file in used), unique_names(used)))
    names = [
        name_by_path[file.path] if file else unfound_name(cell) for file, cell in zip(files, rows["image"].tolist())
    ]
    if not used:
        example = f" (e.g. {contents.image_files[0].shown})" if contents.image_files else ""
        raise FileNotFoundError(
            f"None of the images in {source.path} was found in {os.path.abspath(folder)} or below it, e.g. in images/. "
            f"It holds {len(contents.image_files)} image files{example}; the first name looked for is "
            f"{rows['image'].iloc[0]!r}."
        )
    layout = _layout(folder, source, rows, labels, names, files, contents, others)
    return layout._replace(remarks=remarks + file_remarks + layout.remarks)


def _files_of(folder: Path, source: Source, contents: Contents) -> tuple[list[File | None], list[str]]:
    """The image file of each row, and a remark on images that lie only in another part than the table's."""
    cells = source.rows["image"].tolist()
    candidates = Index([*contents.images, *contents.unassigned]).files_of(cells)
    if not all(candidates):  # a file named as a mask is an image if the table says so
        beside = [mask.file for mask in contents.masks if role_of(mask.file.place) != MASK]
        mask_named = {file.stem: [file] for file in [*contents.orphans, *beside]}
        candidates = [files or mask_named.get(image_name(cell), []) for files, cell in zip(candidates, cells)]
    parts = source.parts if source.parts is not None else [source.part] * len(cells)
    files, doubtful, elsewhere = [], {}, []
    for cell, matches, part in zip(cells, candidates, parts):
        if len(matches) == 1 and part and matches[0].part not in ("", part):  # another image if numbering restarts
            elsewhere.append(matches[0].shown)
            matches = []
        if len(matches) > 1:
            if source.parts is not None:
                matches = [file for file in matches if file.part == part] or matches
            matches = nearest(matches, source.path.relative_to(folder).parts[:-1])
            if one_of(matches) is None:
                doubtful[cell] = matches
        files.append(matches[0] if matches else None)
    remedy = "Add the folder to the names in the table, as in train/000.jpg, or keep only one."
    refuse_two_places(doubtful, "name", remedy, f" of {len(set(cells)):,} in {source.path.name}")
    if not elsewhere:
        return files, []
    rename = f" To use them, rename {source.name} to labels.csv, which names no part." * (source.parts is None)
    return files, [
        f"{len(elsewhere):,} images in {source.name} exist only in folders of another part (e.g. {elsewhere[0]}) and "
        f"are not used.{rename}"
    ]


def _layout(
    folder: Path,
    source: Source | None,
    rows: pd.DataFrame,
    labels: Labels,
    names: list[str],
    files: Sequence[File | None],
    contents: Contents,
    others: list[Source],
) -> Layout:
    """Assign the masks, and remark on unused files."""
    remarks = []
    used = {file.path for file in files if file}
    paths = {mask.file.path for mask in contents.pairs.values()} | used
    masks = masks_of(files, [mask for mask in contents.masks if mask.file.path not in paths])
    masks = [contents.pairs.get(file.path, mask) if file else None for file, mask in zip(files, masks)]
    unused = [file for file in [*contents.images, *contents.unassigned] if file.path not in used]
    if unused:
        places = sorted({"/".join(file.place) or "." for file in unused})
        why = f"no row of {source.name} names" if source else "lie outside the folders above"
        where = ", ".join(f"{place}/" for place in places[:3])
        remarks.append(f"{len(unused):,} images that {why} are not used, in {where}.")
    taken = {mask.file.path for mask in masks if mask}
    seen = taken | used
    if left := {mask.file.path: mask.file.shown for mask in contents.masks if mask.file.path not in seen}:
        example = next(iter(left.values()))
        if not taken and not labels.classes:
            image = next(filter(None, files)).shown
            raise ValueError(
                f"None of the {len(left):,} masks in {folder} matches an image by name, e.g. {example} and {image}. "
                "Expected the image's name, with or without a final _mask: rename one or the other."
            )
        reason = "their image is missing, unused or has another mask"
        remarks.append(f"{len(left):,} masks (e.g. {example}) are not used: {reason}.")
    if lost := len([file for file in contents.orphans if file.path not in used]):
        remarks.append(f"{lost:,} files are not used: they are named as masks of missing images.")
    if contents.skipped:
        counts = "; ".join(f"{n:,} {reason}" for reason, n in contents.skipped.items())
        remarks.append(f"Skipped: {counts}.")
    path = source.path if source else None
    return Layout(folder, path, source, rows, labels, names, list(files), masks, contents, others, remarks)
