"""Contents of a data folder: image files by role, tables, and the number of skipped files by reason."""

import itertools
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.archives import BEGINNINGS, HDF5, is_archive, list_archive
from dataset.images import read_image
from dataset.masks import is_drawn
from dataset.names import File, bare, loose, named
from dataset.roles import (
    DOUBT,
    IMAGE,
    MASK,
    OTHER,
    OTHER_ENDINGS,
    PHOTOGRAPH_ENDINGS,
    WEAK_ENDINGS,
    is_image,
    is_unreadable,
    mask_of,
    part_of,
    role_of,
)
from dataset.tablefile import header_of

TABLES = (".csv", ".tsv", ".tab", ".txt", ".dat")  # and files without a suffix
OTHER_TABLES = (
    *(".xlsx", ".xlsm", ".xls", ".ods", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".parquet", ".feather", ".pkl"),
    *(".mat", ".npz", ".npy", ".h5", ".hdf5", ".arff", ".sqlite", ".gz", ".zip"),
)
MOST_BARE = 50  # files without a suffix in one folder; if there are more, they are not tables
N_SAMPLED = 12  # files of a kind whose pixels are checked if names are ambiguous
SIDE, ALIKE = 16, 4  # size in pixels for comparing two images, and their maximum mean difference


class Mask(NamedTuple):
    """A mask file, and what its name implies."""

    file: File
    of: tuple[str, ...]  # possible names of its image, most likely first
    rank: int  # 0 for the clearest mask name, higher for less clear ones


class Contents(NamedTuple):
    """The files of a data folder."""

    images: list[File]  # in folders named for images
    unassigned: list[File]  # image files in other folders
    masks: list[Mask]
    orphans: list[File]  # named as masks of missing images: images only if a table names them
    tables: list[Path]
    other_tables: list[Path]  # in unsupported formats
    skipped: Counter  # number of files by reason
    pairs: dict[str, Mask] = {}  # noqa: RUF012, masks that a table names, by the path of the image

    @property
    def image_files(self) -> list[File]:
        return self.images or self.unassigned


def walk(folder: str | Path, skipped: Counter) -> Iterator[tuple[str, list[str]]]:
    """Yield a data folder and its subfolders with their files, except those that main.py and predict.py wrote.

    A folder reached through several links is visited once.

    Parameters
    ----------
    skipped : counts the images in skipped folders, and the unreadable folders.
    """
    seen: set[str] = set()

    def is_unreadable_folder(error: OSError) -> None:
        place = os.path.relpath(error.filename, folder)
        skipped[f"folders that cannot be read ({place}: {error.strerror})"] += 1

    for place, folders, names in os.walk(folder, onerror=is_unreadable_folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        if place != str(folder) and (mark := written_mark(place, names)):
            shown = Path(place).relative_to(folder).as_posix()
            if n := sum(is_image(name) for _, _, inner in os.walk(place) for name in inner):
                reason = f"images in {shown}/, which main.py or predict.py wrote (if not, rename {shown}/{mark})"
                skipped[reason] += n
            folders.clear()
            continue
        seen.add(real)
        if n := sum(not _is_utf8(name) for name in folders):
            skipped["folders whose names are not UTF-8 (rename them)"] += n
        folders[:] = sorted(
            (name for name in folders if not name.startswith((".", "__MACOSX")) and _is_utf8(name)),
            key=lambda name: (os.path.islink(os.path.join(place, name)), name),
        )
        yield place, names


def written_mark(folder: str | Path, names: Sequence[str]) -> str:
    """The file that marks a folder with these files as output of main.py or predict.py; "" for none."""
    if mark := next((name for name in ("record.json", "predictions.run.json") if name in names), ""):
        return mark
    if {"config.json", "splits.csv"} <= set(names):
        return "splits.csv"
    is_ours = "predictions.csv" in names and header_of(Path(folder, "predictions.csv"))[:2] == ["file", "output"]
    return "predictions.csv" if is_ours else ""


def _is_utf8(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def scan(data_dir: str | Path) -> Contents:
    """List the files of a data folder by role; pixels are checked only if names are ambiguous."""
    files: dict[str, list[File]] = {role: [] for role in ("", IMAGE, MASK, OTHER, DOUBT)}
    tables, other_tables, skipped = [], [], Counter()
    n_root = len(Path(data_dir).parts)
    for place, names in walk(data_dir, skipped):
        within = Path(place).parts[n_root:] if place != str(data_dir) else ()
        _add_images(files, place, within, names, skipped)
        used = [name for name in names if is_archive(name) and _add_archive(files, place, within, name, skipped)]
        tables += _tables_in(place, names)
        other_tables += _others_in(place, [name for name in names if name not in used], skipped)
    _resolve_doubt(files)
    images, unassigned, masks, orphans, n_other = _sort_by_name(files)
    if n_other:
        skipped["superpixels and other files beside the images"] += n_other
    if not images and not unassigned:  # the only folders are named docs or the like
        unassigned, files[OTHER] = files[OTHER], []
    if files[OTHER]:
        places = sorted({file.place[0] for file in files[OTHER]})
        skipped[f"images in {', '.join(places[:3])}/"] += len(files[OTHER])
    order = lambda path: (len(path.parts), path.name, path)  # noqa: E731
    return Contents(
        images, unassigned, masks, orphans, sorted(tables, key=order), sorted(other_tables, key=order), skipped
    )


def _add_archive(files: dict, place: str, within: tuple[str, ...], name: str, skipped: Counter) -> bool:
    """Whether an archive holds images; they are added as those of a folder with its name."""
    path, passed_over = os.path.join(place, name), Counter()
    n = sum(map(len, files.values()))
    for folder, names in list_archive(path, passed_over).items():
        inner = (*within, os.path.splitext(name)[0], *(part for part in folder.split("/") if part not in ("", ".")))
        where = f"{path}/{folder}" if folder else path
        _add_images(files, where, inner, names, passed_over, are_images=name.lower().endswith(HDF5))
    holds_images = sum(map(len, files.values())) > n
    skipped.update({why: k for why, k in passed_over.items() if holds_images or why.startswith("archives that cannot")})
    return holds_images


def _add_images(
    files: dict[str, list[File]],
    place: str,
    within: tuple[str, ...],
    names: list[str],
    skipped: Counter,
    are_images: bool = False,
) -> None:
    """Add the images of a folder by its role, and count those that cannot be used."""
    role, part, start = role_of(within), part_of(within), os.path.join(place, "")
    for name in sorted(names):
        is_named_so = is_image(name)
        stem, suffix = os.path.splitext(name) if is_named_so else (name, "")
        if (are_images or is_named_so) and _is_utf8(name):
            path = f"{start}{name}"
            stem = stem if stem.isascii() else unicodedata.normalize("NFC", stem)
            files[role].append(File(path, within, stem, sys.intern(suffix), part))
        elif is_named_so:
            skipped["images whose names are not UTF-8 (rename them)"] += 1
        elif is_unreadable(name):
            skipped[f"{os.path.splitext(name)[1].lower()} images, an unsupported format (save them as JPEG)"] += 1


def _others_in(place: str, names: list[str], skipped: Counter) -> list[Path]:
    """Count images without a suffix, and files in formats that are not read; the latter are returned."""
    if n := sum(_is_image(os.path.join(place, name)) for name in names if "." not in name):
        skipped["images without a suffix (add .jpg or the actual one)"] += n
    unsupported = [name for name in names if name.lower().endswith(OTHER_TABLES) and not name.startswith(".")]
    skipped.update(
        f"{os.path.splitext(name)[1].lower()} files, an unsupported format (save a table as CSV)"
        for name in unsupported
    )
    return [Path(place, name) for name in unsupported]


def _is_image(path: str) -> bool:
    """Whether a file starts with the signature of an image format."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(12).startswith(BEGINNINGS)
    except OSError:
        return False


def _tables_in(place: str, names: list[str]) -> list[Path]:
    shown = [name for name in names if not name.startswith(".") and _is_utf8(name)]
    bare = [name for name in shown if "." not in name]
    bare = bare if len(bare) <= MOST_BARE else []
    return [Path(place, name) for name in [*(name for name in shown if name.lower().endswith(TABLES)), *bare]]


def _resolve_doubt(files: dict[str, list[File]]) -> None:
    """Tell images from masks by content: in folders with ambiguous names, and if there are only masks."""
    by_folder = itertools.groupby(files[DOUBT], lambda file: file.place)
    for _, group in [(place, list(group)) for place, group in by_folder]:
        files[MASK if are_drawn(group) else IMAGE] += group
    files[DOUBT] = []
    if files[IMAGE] or files[""]:
        return
    bare = [file for file in files[MASK] if not mask_of(file.stem)[0]]
    if bare and not are_drawn(bare):
        photographs = set(bare)
        files[IMAGE] = bare
        files[MASK] = [file for file in files[MASK] if file not in photographs]


def are_drawn(files: Sequence[File]) -> bool:
    """Whether most files of a sample are masks by their content."""
    sample = sample_of(files)
    return sum(is_drawn(file.path) for file in sample) * 2 > len(sample)


def sample_of(files: Sequence) -> Sequence:
    """An evenly spaced sample of files."""
    return files[:: max(1, len(files) // N_SAMPLED)][:N_SAMPLED]


def look_alike(a: File, b: File) -> bool:
    """Whether two files show the same image, in any size or format."""
    try:
        pixels = [np.asarray(read_image(file.path, SIDE), int) for file in (a, b)]
    except (ValueError, OSError):
        return False
    return bool(np.abs(pixels[0] - pixels[1]).mean() < ALIKE)


def _sort_by_name(files: dict[str, list[File]]) -> tuple[list[File], list[File], list[Mask], list[File], int]:
    """Images, unassigned image files, masks by folder or by name, masks of no image, and the number of others."""
    spellings = (loose, bare)
    stems = cache(lambda: {spell(file.stem) for role in (IMAGE, "") for file in files[role] for spell in spellings})
    masks, orphans, n_other = [as_mask(file) for file in files[MASK]], [], 0
    kept: dict[str, list[File]] = {IMAGE: [], "": []}
    for role, images_of_role in kept.items():
        weak: dict[tuple[str, str], list[File]] = {}
        for file in files[role]:
            images, word = mask_of(file.stem)
            is_there = bool(word) and any(spell(image) in stems() for image in images for spell in spellings)
            if not word or (word in WEAK_ENDINGS and not is_there):
                images_of_role.append(file)
            elif word.startswith("superpixel") or word in OTHER_ENDINGS:
                n_other += 1
            elif word in WEAK_ENDINGS:
                weak.setdefault((word, file.suffix.lower()), []).append(file)
            elif is_there:
                masks.append(as_mask(file))
            else:
                orphans.append(file)
        for (word, _), doubtful in weak.items():
            if are_drawn(doubtful):
                masks += map(as_mask, doubtful)
            elif word in PHOTOGRAPH_ENDINGS:
                images_of_role += doubtful
            else:
                n_other += len(doubtful)
        images_of_role[:], more = _split_by_content(images_of_role)
        masks += more
    return kept[IMAGE], kept[""], masks, orphans, n_other


def as_mask(file: File) -> Mask:
    images, word = mask_of(file.stem)
    rank = {"segmentation": 0, "mask": 1}.get(word, 2) if word else 3
    return Mask(file, tuple(dict.fromkeys((*images, file.stem))), rank)


def _split_by_content(files: list[File]) -> tuple[list[File], list[Mask]]:
    """Split off masks among files of one name and folder (x.jpg, x.png, x.jpg.png), by suffix and content."""
    if len({file.suffix for file in files}) == 1 and not any("." in file.stem for file in files):
        return files, []  # the usual case: no two names can differ in their suffix alone
    by_name: dict[tuple, list[File]] = {}
    for file in files:
        by_name.setdefault((file.place, named(file.stem).stem), []).append(file)
    repeated = [file for same in by_name.values() if len(same) > 1 for file in same]
    drawn = set()
    for suffix in {file.suffix.lower() for file in repeated}:
        of_kind = [file for file in repeated if file.suffix.lower() == suffix]
        if are_drawn(of_kind):
            drawn |= set(of_kind)
    if len(drawn) == len(repeated):  # perhaps drawn images: undecided
        return files, []
    return [file for file in files if file not in drawn], [as_mask(file) for file in files if file in drawn]
