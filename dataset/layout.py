"""What a data folder is: where its diagnoses stand, and which of its files are images and which masks.

Diagnoses are read from a table with one column per class, or one column that names the class; else from one folder per
class; and images with masks need none. Where two readings are possible, none is guessed.
"""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dataset.choice import Choice, as_flag
from dataset.classes import HAM10000, code_of, is_diagnosis
from dataset.files import Found, Mask, is_output, look, mentions
from dataset.folders import class_folders, refuse_pairs
from dataset.labels import Labels, choose, no_labels, refuse_zeros
from dataset.maskcolumn import paired
from dataset.names import File, Index, image_name, loose, nearest, one_of, refuse_two_places, unfound_name, unique_names
from dataset.roles import MASK, is_neutral, part_of_name, role_of, role_of_name
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
    names = _names_in(folder)
    if is_output(folder, names):
        raise ValueError(f"{folder} was written by main.py or predict.py. Name the folder with the data.")
    found = look(folder)
    everything = Index([*found.images, *found.untold, *found.orphans])
    source, others, remarks = choose_source(folder, found.tables, everything, zeros)
    found = paired(found, [*filter(None, [source]), *others])
    if source:
        _refuse_rival(source, found, wanted)
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
    return images, {mask.of: mask.file.path for mask in ordered}


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        place = os.path.abspath(folder)
        raise FileNotFoundError(f"No data folder at {place} that can be read ({error.strerror}). {ADVICE}") from None


def _refuse_rival(source: Source, found: Found, wanted: Choice) -> None:
    """Raises ValueError if the table has no diagnosis that is known, and the pictures lie in folders called so."""
    of_table = [code for reading in source.readings for code in reading.classes]
    of_folders = {code_of(file.place[-1]) for file in found.pictures if file.place}
    known = sorted(code for code in of_folders if is_diagnosis(code))
    if wanted.members or source.is_truth or len(known) < 2 or any(map(is_diagnosis, of_table)):
        return
    raise ValueError(
        f"{source.name} and the folders both name classes: {', '.join(of_table[:4])}, and {', '.join(known[:4])}. Move "
        f"the table away, or choose its classes: {as_flag(of_table[:8])}"
    )


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
    why = ""
    if telling and all(is_neutral(place.rsplit("/", 1)[-1]) for place in telling):
        why = f" Folders called {', '.join(telling[:4])} name no diagnoses."
    said = " ".join(["", *remarks, *(f"{n:,} {what}." for what, n in found.passed_over.items())])
    return f"Expected GroundTruth.csv in {os.path.abspath(folder)}, found: {what}.{why}{said} {EXPECTED} {ADVICE}"


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
    files = _files_of(folder, source, found)
    used = list({file.path: file for file in files if file}.values())
    called = dict(zip((file.path for file in used), unique_names(used)))
    names = [called[file.path] if file else unfound_name(cell) for file, cell in zip(files, rows["image"])]
    if not used:
        raise FileNotFoundError(
            f"None of the images that {source.path} names lie in a folder images/ of {os.path.abspath(folder)}, or "
            f"anywhere below it; {len(found.pictures)} image files were found there, and {names[0]!r} is the first "
            "name looked for."
        )
    return _layout(folder, source, rows, labels, names, files, found, others, remarks)


def _files_of(folder: Path, source: Source, found: Found) -> list[File | None]:
    """The image file of each row."""
    cells = list(source.rows["image"])
    candidates = Index([*found.images, *found.untold]).files_of(cells)
    if not all(candidates):  # what is called as a mask, and named by the table as an image, is one
        beside = [mask.file for mask in found.masks if role_of(mask.file.place) != MASK]
        named_so = {file.stem: [file] for file in [*found.orphans, *beside]}
        candidates = [some or named_so.get(image_name(cell), []) for some, cell in zip(candidates, cells)]
    parts = source.parts if source.parts is not None else [source.part] * len(cells)
    files, doubtful = [], {}
    for cell, some, part in zip(cells, candidates, parts):
        if len(some) == 1 and part and some[0].part not in ("", part):  # where numbers begin anew it is another's
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
    return files


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
    if lost := len({mask.file.path for mask in found.masks}) - len({mask.file.path for mask in masks if mask}):
        remarks = [*remarks, f"{lost:,} files called masks are not used: no image of theirs is, or it has another one."]
    if lost := len([file for file in found.orphans if file.path not in used]):
        remarks = [*remarks, f"{lost:,} pictures are called as masks of images that are not there, and are not used."]
    if found.passed_over:
        counts = "; ".join(f"{n:,} {what}" for what, n in found.passed_over.items())
        remarks = [*remarks, f"Passed over: {counts}."]
    path = source.path if source else None
    return Layout(folder, path, source, rows, labels, names, list(files), masks, found, others, remarks)


def masks_of(files: Sequence[File | None], masks: Sequence[Mask]) -> list[Mask | None]:
    """The mask of each image: called as it, of its part, and in the folder that is nearest; None for none.

    Raises
    ------
    ValueError : an image has several masks that differ, in different folders.
    """
    by_image: dict[str, list[Mask]] = {}
    for mask in masks:
        by_image.setdefault(mask.of, []).append(mask)
    index = cache(lambda: _by_spelling(by_image))
    alike: dict[str, list[File]] = {}
    for file in {file.path: file for file in files if file}.values():
        alike.setdefault(file.stem, []).append(file)
    chosen: list[Mask | None] = []
    doubtful: dict[str, list[File]] = {}
    for file in files:
        some = by_image.get(file.stem) if file else []
        if some is None:
            spelled = [of for of in index().get(loose(file.stem), ()) if of not in alike]
            some = by_image[spelled[0]] if len(spelled) == 1 else []
        if len(some) == 1 and len(alike[file.stem]) == 1 and not (file.part and some[0].file.part):
            chosen.append(some[0])  # as nearly all are
            continue
        mask, several = _one_mask(file, some, alike[file.stem]) if some else (None, [])
        if several:
            doubtful[file.stem] = several
        chosen.append(mask)
    remedy = "Keep one: a folder whose name begins with a dot is passed over, and masks/train/ goes with images/train/."
    refuse_two_places(doubtful, "mask", remedy)
    return chosen


def _by_spelling(names: Iterable[str]) -> dict[str, list[str]]:
    """Names that share a loose spelling."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(loose(name), []).append(name)
    return found


def _one_mask(image: File, masks: list[Mask], alike: list[File]) -> tuple[Mask | None, list[File]]:
    """An image's mask of some that are called so, or the files between which it is not known."""
    near = _masks_near(image, masks, alike)
    if len(near) > 1 and not one_of([mask.file for mask in near]):
        return None, [mask.file for mask in near]
    if near and (
        rivals := [one for one in alike if one != image and _nearness(one, near[0]) == _nearness(image, near[0])]
    ):
        return None, [image, *rivals]
    return (near[0] if near else None), []


def _masks_near(image: File, masks: list[Mask], alike: list[File]) -> list[Mask]:
    """Of masks that are called as an image, those that belong to it rather than to another one called the same."""
    masks = [mask for mask in masks if not (image.part and mask.file.part) or image.part == mask.file.part]
    masks = [mask for mask in masks if _nearness(image, mask) == max(_nearness(other, mask) for other in alike)]
    if len(masks) > 1:
        closest = max(_nearness(image, mask) for mask in masks)
        masks = [mask for mask in masks if _nearness(image, mask) == closest]
    if len({mask.file.place for mask in masks}) == 1:
        least = min(mask.rank for mask in masks)
        masks = [mask for mask in masks if mask.rank == least]
    return masks


def _nearness(image: File, mask: Mask) -> tuple[bool, int]:
    """Whether the folders of an image and a mask are called alike but for their roles, and how many they share."""
    ours, theirs = (
        [name for name in file.place if not role_of_name(name) and not part_of_name(name)]
        for file in (image, mask.file)
    )
    part = image.part == mask.file.part
    shared = 0
    for a, b in zip(image.place, mask.file.place):
        if a != b:
            break
        shared += 1
    return part and ours == theirs, shared
