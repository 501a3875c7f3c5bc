"""What a data folder is: where its diagnoses stand, and which of its files are images and which masks.

Diagnoses are read from a table with one column per class, or one column that names the class; else from one folder per
class; and images with masks need none. Where two readings are possible, none is guessed.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dataset.choice import Choice, as_flag
from dataset.classes import HAM10000, code_of, is_diagnosis, key_of
from dataset.files import Found, Mask, look, mentions, written_mark
from dataset.folders import class_folders, diagnosis_in, refuse_pairs
from dataset.labels import Labels, choose, no_labels, refuse_zeros
from dataset.maskcolumn import paired
from dataset.names import File, Index, image_name, nearest, one_of, refuse_two_places, unfound_name, unique_names
from dataset.pairs import by_image, masks_of
from dataset.roles import MASK, is_neutral, role_of
from dataset.sources import Source, choose_source

ADVICE = (
    "Put GroundTruth.csv, images/ and masks/ into one folder, for main.py --data-dir, or try main.py --demo. "
    "HAM10000 is available at https://doi.org/10.7910/DVN/DBW86T"
)
EXPECTED = (
    f"Expected: image,{','.join(HAM10000)} (or other classes) with one row per image and 1 in the column of its class, "
    "or image,label with the class's name in each row."
)


class Layout(NamedTuple):
    """What a data folder was found to be."""

    folder: Path
    csv: Path | None  # that names the images; None where their folders do
    source: Source | None  # the table, or the tables of the parts
    rows: pd.DataFrame  # text, with a column image
    labels: Labels
    names: list[str]  # of the rows' images, no two files alike
    images: list[File | None]  # of the rows
    masks: list[Mask | None]  # of the rows
    found: Found
    others: list[Source]  # readable tables that name images, beside `source`
    remarks: list[str]  # what was seen and not used, and what was assumed

    def describe(self) -> str:
        """In one line, and a line for each remark."""
        files = [file for file in self.images if file]
        places = sorted({"/".join(file.place) or "." for file in files})
        some = ", ".join(f"{place}/" for place in places[:3]) + (", ..." if len(places) > 3 else "")
        source = f"{self.source.name}, " if self.source else ""
        what = f"{len(self.rows):,} images by name" if self.source else f"{len(self.rows):,} images"
        n_masks = len({mask.file.path for mask in self.masks if mask})
        n_images = len({file.path for file in files})
        counts = f"{n_images:,} image files in {some or 'no folder'}; {n_masks:,} masks"
        return "\n".join([f"{source}{what}; diagnoses: {self.labels.where}; {counts}.", *self.remarks])


def find(data_dir: str | Path, classes: Sequence[str] | Choice = (), zeros: str = "") -> Layout:
    """Find out what a folder is; no image is opened unless names leave a doubt.

    Files are looked up by name among those that lie in the folder, so a name in a table can never lead outside it.

    Parameters
    ----------
    classes : as --classes; they decide between two readings.
    zeros : the class of rows without a 1.

    Raises
    ------
    FileNotFoundError, ValueError : no such folder, nothing to learn from in it, a table that cannot be read, a name in
        two places, or two readings; says what was found, what was expected and what to do.
    """
    folder, wanted = Path(data_dir), Choice.of(classes) if not isinstance(classes, Choice) else classes
    names = names_in(folder)
    if mark := written_mark(folder, names):
        raise ValueError(
            f"{folder} was written by main.py or predict.py, as {mark} in it says. Name the folder with the data, or "
            f"rename {mark} if it is one."
        )
    found = look(folder)
    everything = Index([*found.images, *found.untold, *found.orphans])
    source, others, remarks = choose_source(folder, found.tables, everything, zeros)
    found = paired(found, [*filter(None, [source]), *others])
    if source and (why := _why_folders_count(source, found, wanted)):
        remarks.append(f"{source.name} is not used, for the folders name the classes: {why}.")
        source, others = None, [*others, source]
    if source:
        return _from_source(folder, source, found, others, remarks, wanted, zeros)
    _refuse_unread(folder, found, everything)
    rows, labels, files, said = class_folders(folder, found, wanted)
    remarks += said
    if labels is None:
        found = refuse_pairs(folder, found)
        if not (found.pictures and found.masks):
            raise FileNotFoundError(_nothing(folder, names, found, remarks))
        files = found.pictures
        rows, labels = (
            pd.DataFrame({"image": unique_names(files)}, dtype=str),
            no_labels(pd.DataFrame(index=range(len(files)))),
        )
    refuse_zeros(zeros, labels.where)
    return _layout(folder, None, rows, labels, list(rows["image"]), files, found, others, remarks)


def find_files(data_dir: str | Path) -> tuple[dict[str, str], dict[str, str]]:
    """Paths of images and of masks by image name; of several of one name the first, of masks the one called most so."""
    found = look(data_dir)
    images = {file.stem: file.path for file in reversed(found.pictures)}
    ordered = sorted(found.masks, key=lambda mask: (mask.file.place, mask.rank), reverse=True)
    return images, {stem: some[-1].file.path for stem, some in by_image(ordered, images).items()}


def names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        place = os.path.abspath(folder)
        raise FileNotFoundError(f"No data folder at {place} that can be read ({error.strerror}). {ADVICE}") from None


def _why_folders_count(source: Source, found: Found, wanted: Choice) -> str:
    """Why a table without a diagnosis that is known gives way to folders called as such; "" where it does not.

    Raises
    ------
    ValueError : both may be meant, and neither is chosen.
    """
    of_table = [code for reading in source.readings for code in reading.classes]
    in_folders = {file: code for file in found.pictures if (code := _diagnosis_above(file))}
    known = sorted(set(in_folders.values()))
    if source.is_truth or len(known) < 2 or any(map(is_diagnosis, of_table)):
        return ""
    if chosen := set(map(key_of, wanted.wanted())):
        is_of_folders = chosen & set(map(key_of, known)) and not chosen & set(map(key_of, of_table))
        return "--classes names theirs" if is_of_folders else ""
    if len(of_table) < 2:
        return "it says the same of every image"
    if not source.there(Index(in_folders)):
        return "it names no image in them"
    raise ValueError(
        f"{source.name} and the folders both name classes: {', '.join(of_table[:4])}, and {', '.join(known[:4])}. "
        f"Choose the folders' classes: {as_flag(known)}\nOr those of the table: {as_flag(of_table[:8])}"
    )


def _diagnosis_above(file: File) -> str:
    """The known diagnosis that the nearest telling one of a picture's folders names."""
    return next((code for name in reversed(file.place) if is_diagnosis(code := code_of(diagnosis_in(name)))), "")


def _refuse_unread(folder: Path, found: Found, images: Index) -> None:
    """Raises ValueError if a file of another kind, such as a workbook, seems to hold the diagnoses."""
    for path in found.other_tables:
        if mentions(path, images):
            name = Path(path.stem).with_suffix(".csv")
            raise ValueError(
                f"{path} names images of {os.path.abspath(folder)} and is not read. Save its table as {name} (CSV "
                "UTF-8), or move it out of the folder if it holds no diagnoses."
            )


def _nothing(folder: Path, names: list[str], found: Found, remarks: list[str]) -> str:
    what = f"{len(found.pictures)} images, {len(found.masks)} masks" + "".join(
        f", {name}" for name in sorted(names)[:6]
    )
    telling = sorted({"/".join(file.place) for file in found.pictures if file.place})
    why = flag = ""
    if telling and all(is_neutral(place.rsplit("/", 1)[-1]) for place in telling):
        why = f" Folders called {', '.join(telling[:4])} name no diagnoses."
        if len(last := list(dict.fromkeys(place.rsplit("/", 1)[-1] for place in telling))) > 1:
            flag = f" If the folders are classes, say so: {as_flag(last[:8])}"
    said = " ".join(["", *remarks, *(f"{n:,} {what}." for what, n in found.passed_over.items())])
    return f"Expected GroundTruth.csv in {os.path.abspath(folder)}, found: {what}.{why}{said} {EXPECTED} {ADVICE}{flag}"


def _from_source(
    folder: Path, source: Source, found: Found, others: list[Source], remarks: list[str], wanted: Choice, zeros: str
) -> Layout:
    """The layout of a folder whose images a table names."""
    rows = source.rows
    if rows.empty:
        raise ValueError(f"{source.path} has no rows. Expected one row per image.")
    if lacking := "images" if "image" not in rows else "" if source.readings else "classes":
        raise ValueError(f"{source.path} names no {lacking}; it has {', '.join(rows.columns[:12])}. {EXPECTED}")
    labels = choose(source.readings, source.path, wanted.wanted(), zeros)
    files, said = _files_of(folder, source, found)
    used = list({file.path: file for file in files if file}.values())
    called = dict(zip((file.path for file in used), unique_names(used)))
    names = [called[file.path] if file else unfound_name(cell) for file, cell in zip(files, rows["image"])]
    if not used:
        some = f", such as {found.pictures[0].shown}" if found.pictures else ""
        raise FileNotFoundError(
            f"None of the images that {source.path} names lie in a folder images/ of {os.path.abspath(folder)}, or "
            f"anywhere below it; {len(found.pictures)} image files were found there{some}, and "
            f"{rows['image'].iloc[0]!r} is the first name looked for."
        )
    return _layout(folder, source, rows, labels, names, files, found, others, remarks + said)


def _files_of(folder: Path, source: Source, found: Found) -> tuple[list[File | None], list[str]]:
    """The image file of each row, and a remark on those of another part than the table is of."""
    cells = list(source.rows["image"])
    candidates = Index([*found.images, *found.untold]).files_of(cells)
    if not all(candidates):  # what is called as a mask, and named by the table as an image, is one
        beside = [mask.file for mask in found.masks if role_of(mask.file.place) != MASK]
        named_so = {file.stem: [file] for file in [*found.orphans, *beside]}
        candidates = [some or named_so.get(image_name(cell), []) for some, cell in zip(candidates, cells)]
    parts = source.parts if source.parts is not None else [source.part] * len(cells)
    files, doubtful, elsewhere = [], {}, []
    for cell, some, part in zip(cells, candidates, parts):
        if len(some) == 1 and part and some[0].part not in ("", part):  # where numbers begin anew it is another's
            elsewhere.append(some[0].shown)
            some = []
        if len(some) > 1:
            if source.parts is not None:
                some = [file for file in some if file.part == part] or some
            some = nearest(some, source.path.relative_to(folder).parts[:-1])
            if one_of(some) is None:
                doubtful[cell] = some
        files.append(some[0] if some else None)
    remedy = "Write the folder into the table's names, such as train/000.jpg, or remove all but one."
    refuse_two_places(doubtful, "name", remedy, f" of {len(set(cells)):,} in {source.path.name}")
    if not elsewhere:
        return files, []
    rename = f" If they are meant, rename {source.name} to labels.csv, which is of no part." * (source.parts is None)
    return files, [
        f"{len(elsewhere):,} images that {source.name} names are there in folders of another part only, such as "
        f"{elsewhere[0]}, and are not used.{rename}"
    ]


def _layout(
    folder: Path,
    source: Source | None,
    rows: pd.DataFrame,
    labels: Labels,
    names: list[str],
    files: Sequence[File | None],
    found: Found,
    others: list[Source],
    remarks: list[str],
) -> Layout:
    """The layout with each image's mask, and remarks on what is not used."""
    used = {file.path for file in files if file}
    paths = {mask.file.path for mask in found.pairs.values()} | used
    masks = masks_of(files, [mask for mask in found.masks if mask.file.path not in paths])
    masks = [found.pairs.get(file.path, mask) if file else None for file, mask in zip(files, masks)]
    unused = [file for file in [*found.images, *found.untold] if file.path not in used]
    if unused:
        places = sorted({"/".join(file.place) or "." for file in unused})
        by = f"no row of {source.name} names" if source else "lie outside the folders above"
        remarks = [
            *remarks,
            f"{len(unused):,} pictures that {by} are not used, in {', '.join(f'{p}/' for p in places[:3])}.",
        ]
    taken = {mask.file.path for mask in masks if mask}
    if left := {mask.file.path: mask.file.shown for mask in found.masks if mask.file.path not in taken | used}:
        example = next(iter(left.values()))
        if not taken and not labels.classes:
            image = next(filter(None, files)).shown
            raise ValueError(
                f"None of the {len(left):,} masks of {folder} is called as an image, such as {example} beside {image}. "
                "Expected the image's name, with or without _mask behind it: rename one or the other."
            )
        remarks = [
            *remarks,
            f"{len(left):,} files called masks, such as {example}, are not used: no image of theirs is, or it has "
            "another one.",
        ]
    if lost := len([file for file in found.orphans if file.path not in used]):
        remarks = [*remarks, f"{lost:,} pictures are called as masks of images that are not there, and are not used."]
    if found.passed_over:
        counts = "; ".join(f"{n:,} {what}" for what, n in found.passed_over.items())
        remarks = [*remarks, f"Passed over: {counts}."]
    path = source.path if source else None
    return Layout(folder, path, source, rows, labels, names, list(files), masks, found, others, remarks)
