"""What lies in a data folder: its pictures by role, its tables, and what is passed over, by reason."""

import gzip
import itertools
import os
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.images import read_image
from dataset.masks import is_drawn
from dataset.names import File, Index, bare, loose, named
from dataset.roles import (
    DOUBT,
    IMAGE,
    MASK,
    OTHER,
    OTHER_ENDINGS,
    PHOTOGRAPH_ENDINGS,
    WEAK_ENDINGS,
    is_picture,
    is_unreadable,
    mask_of,
    part_of,
    role_of,
)
from dataset.tablefile import header_of

TABLES = (".csv", ".tsv", ".tab", ".txt", ".dat")  # and files without suffix
OTHER_TABLES = (
    *(".xlsx", ".xlsm", ".xls", ".ods", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".parquet", ".feather", ".pkl"),
    *(".mat", ".npz", ".npy", ".h5", ".hdf5", ".arff", ".sqlite", ".gz", ".zip"),
)
SEARCHED = (".xml", ".json", ".npy", *TABLES)  # parts of a zip archive that may be tables
MOST_BARE = 50  # files without suffix in one folder that are looked into: more are no tables
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"RIFF")  # of files that are pictures
N_LOOKED_AT = 12  # pictures of a kind whose content is looked at where names leave a doubt
SIDE, ALIKE = 16, 4  # pixels to which two pictures are reduced, and the mean difference of those that are one
MOST_SEARCHED = 50_000_000  # bytes of a file of another kind that are searched for names of images


class Mask(NamedTuple):
    """A mask's file, and what its name says."""

    file: File
    of: tuple[str, ...]  # names that its image may have, likeliest first
    rank: int  # how little the name says that it is a mask


class Found(NamedTuple):
    """The files of a data folder."""

    images: list[File]  # in folders called so
    untold: list[File]  # in others
    masks: list[Mask]
    orphans: list[File]  # called as masks of images that are not there: images only where a table names them
    tables: list[Path]
    other_tables: list[Path]  # of kinds that are not read
    passed_over: Counter  # pictures by the reason why they are no data
    pairs: dict[str, Mask] = {}  # noqa: RUF012, masks that a table names, by their image's path

    @property
    def pictures(self) -> list[File]:
        return self.images or self.untold


def walk(folder: str | Path, passed_over: Counter) -> Iterator[tuple[str, list[str]]]:
    """The folders of a data folder with their files, but for what main.py and predict.py have written.

    A folder that several links lead to is visited once.

    Parameters
    ----------
    passed_over : gets the number of pictures in folders that are not visited, and of folders that cannot be.
    """
    seen: set[str] = set()

    def is_unreadable_folder(error: OSError) -> None:
        place = os.path.relpath(error.filename, folder)
        passed_over[f"folders that cannot be read ({place}: {error.strerror})"] += 1

    for place, folders, names in os.walk(folder, onerror=is_unreadable_folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        if place != str(folder) and (mark := written_mark(place, names)):
            shown = Path(place).relative_to(folder).as_posix()
            if n := sum(is_picture(name) for _, _, some in os.walk(place) for name in some):
                what = f"pictures in {shown}/, which main.py or predict.py wrote (if not, rename {shown}/{mark})"
                passed_over[what] += n
            folders.clear()
            continue
        seen.add(real)
        if n := sum(not _is_utf8(name) for name in folders):
            passed_over["folders whose names are not UTF-8 (rename them)"] += n
        folders[:] = sorted(
            (name for name in folders if not name.startswith((".", "__MACOSX")) and _is_utf8(name)),
            key=lambda name: (os.path.islink(os.path.join(place, name)), name),
        )
        yield place, names


def written_mark(folder: str | Path, names: Sequence[str]) -> str:
    """The file that says that predict.py or main.py writes into this folder, of which these are the files; or ""."""
    if mark := next((one for one in ("record.json", "predictions.run.json") if one in names), ""):
        return mark
    if {"config.json", "splits.csv"} <= set(names):
        return "splits.csv"
    is_ours = "predictions.csv" in names and header_of(Path(folder, "predictions.csv"))[:2] == ["file", "output"]
    return "predictions.csv" if is_ours else ""


def _is_utf8(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def look(data_dir: str | Path) -> Found:
    """Find a data folder's files and tell their roles; content is looked at only where names leave a doubt."""
    files: dict[str, list[File]] = {role: [] for role in ("", IMAGE, MASK, OTHER, DOUBT)}
    tables, other_tables, passed_over = [], [], Counter()
    n_root = len(Path(data_dir).parts)
    for place, names in walk(data_dir, passed_over):
        within = Path(place).parts[n_root:] if place != str(data_dir) else ()
        role, part = role_of(within), part_of(within)
        for name in sorted(names):
            if is_picture(name):
                if not _is_utf8(name):
                    passed_over["pictures whose names are not UTF-8 (rename them)"] += 1
                    continue
                stem, suffix = os.path.splitext(name)
                path = os.path.join(place, name)
                files[role].append(File(path, within, unicodedata.normalize("NFC", stem), suffix, part))
            elif is_unreadable(name):
                passed_over[
                    f"{os.path.splitext(name)[1].lower()} pictures, a kind that is not read (save them as JPEG)"
                ] += 1
        bare = [name for name in names if "." not in name]
        if n := sum(_holds_picture(os.path.join(place, name)) for name in bare):
            passed_over["pictures without a suffix (name them .jpg, or as what they are)"] += n
        tables += _tables_in(place, names)
        of_other_kinds = [name for name in names if name.lower().endswith(OTHER_TABLES) and not name.startswith(".")]
        other_tables += [Path(place, name) for name in of_other_kinds]
        passed_over.update(
            f"{os.path.splitext(name)[1].lower()} files, a kind that is not read (save a table as CSV)"
            for name in of_other_kinds
        )
    _settle_doubt(files)
    images, untold, masks, orphans, n_other = _beside(files)
    if n_other:
        passed_over["superpixels and other pictures beside the images"] += n_other
    if not images and not untold:  # folders called docs are all that there is
        untold, files[OTHER] = files[OTHER], []
    if files[OTHER]:
        places = sorted({file.place[0] for file in files[OTHER]})
        passed_over[f"pictures in {', '.join(places[:3])}/"] += len(files[OTHER])
    order = lambda path: (len(path.parts), path.name, path)  # noqa: E731
    return Found(
        images, untold, masks, orphans, sorted(tables, key=order), sorted(other_tables, key=order), passed_over
    )


def _holds_picture(path: str) -> bool:
    """Whether a file begins as a picture does."""
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


def _settle_doubt(files: dict[str, list[File]]) -> None:
    """Tell images from masks by content: in folders whose names say both, and where there are masks and no images."""
    by_folder = itertools.groupby(files[DOUBT], lambda file: file.place)
    for _, some in [(place, list(group)) for place, group in by_folder]:
        files[MASK if are_drawn(some) else IMAGE] += some
    files[DOUBT] = []
    if files[IMAGE] or files[""]:
        return
    bare = [file for file in files[MASK] if not mask_of(file.stem)[0]]
    if bare and not are_drawn(bare):
        photographs = set(bare)
        files[IMAGE] = bare
        files[MASK] = [file for file in files[MASK] if file not in photographs]


def are_drawn(files: Sequence[File]) -> bool:
    """Whether most of some of these files are masks by their content."""
    some = some_of(files)
    return sum(is_drawn(file.path) for file in some) * 2 > len(some)


def some_of(files: Sequence) -> Sequence:
    """The few that are looked at in place of all."""
    return files[:: max(1, len(files) // N_LOOKED_AT)][:N_LOOKED_AT]


def look_alike(a: File, b: File) -> bool:
    """Whether two files show the same picture, though of another size or kind."""
    try:
        pixels = [np.asarray(read_image(file.path, SIDE), int) for file in (a, b)]
    except (ValueError, OSError):
        return False
    return bool(np.abs(pixels[0] - pixels[1]).mean() < ALIKE)


def _beside(files: dict[str, list[File]]) -> tuple[list[File], list[File], list[Mask], list[File], int]:
    """Images, pictures in untold folders, masks by folder or by name, masks of no image, and the number of others."""
    spellings = (loose, bare)
    known = cache(lambda: {how(file.stem) for role in (IMAGE, "") for file in files[role] for how in spellings})
    masks, orphans, n_other = [as_mask(file) for file in files[MASK]], [], 0
    kept: dict[str, list[File]] = {IMAGE: [], "": []}
    for role, some in kept.items():
        weak: dict[tuple[str, str], list[File]] = {}
        for file in files[role]:
            images, word = mask_of(file.stem)
            is_there = bool(word) and any(how(image) in known() for image in images for how in spellings)
            if not word or (word in WEAK_ENDINGS and not is_there):
                some.append(file)
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
                some += doubtful
            else:
                n_other += len(doubtful)
        some[:], more = _told_by_content(some)
        masks += more
    return kept[IMAGE], kept[""], masks, orphans, n_other


def as_mask(file: File) -> Mask:
    images, word = mask_of(file.stem)
    rank = {"segmentation": 0, "mask": 1}.get(word, 2) if word else 3
    return Mask(file, tuple(dict.fromkeys((*images, file.stem))), rank)


def _told_by_content(files: list[File]) -> tuple[list[File], list[Mask]]:
    """Of pictures called the same in one folder (x.jpg, x.png, x.jpg.png), those of a kind that look like masks."""
    by_name: dict[tuple, list[File]] = {}
    for file in files:
        by_name.setdefault((file.place, named(file.stem).stem), []).append(file)
    twice = [file for same in by_name.values() if len(same) > 1 for file in same]
    drawn = set()
    for suffix in {file.suffix.lower() for file in twice}:
        of_kind = [file for file in twice if file.suffix.lower() == suffix]
        if are_drawn(of_kind):
            drawn |= set(of_kind)
    if len(drawn) == len(twice):  # drawn photographs, perhaps: nothing is told
        return files, []
    return [file for file in files if file not in drawn], [as_mask(file) for file in files if file in drawn]


def mentions(path: Path, images: Index) -> bool:
    """Whether a file of a kind that is not read, such as a workbook, holds names of images."""
    names = [stem for stem in itertools.islice(images.by_stem, 2000) if len(stem) > 1]
    some = names[:: max(1, len(names) // 20)]
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
    as_written: tuple[Callable[[str], bytes], ...] = (
        str.encode,
        lambda name: name.encode("utf-16-le"),
        lambda name: name.encode("utf-32-le"),  # as NumPy writes text
    )
    return sum(any(write(name) in content for write in as_written) for name in some) * 2 > len(some) > 0
