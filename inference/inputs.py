"""The pictures that a command line names, in order, with a name for each one's outputs."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.files import written_mark
from dataset.masks import is_drawn
from dataset.roles import (
    MASK,
    OTHER,
    PHOTOGRAPH_ENDINGS,
    READABLE,
    WEAK_ENDINGS,
    is_picture,
    is_unreadable,
    mask_of,
    role_of,
)

KINDS = ("masks", "overlays", "heatmaps")  # folders that are written


class Listed(NamedTuple):
    """A picture, or a name on the command line that stands for none."""

    file: str
    output: str = ""  # name of its outputs, no two alike
    problem: str = ""  # why it stands for none


def list_pictures(paths: Sequence[str], output_dir: Path, passed_over: Counter | None = None) -> list[Listed]:
    """What `paths` (files, folders, globs) name, each file once, and in its place what names nothing, with the reason.

    Folders are searched, but for masks, as training tells them, and for what main.py and predict.py have written; what
    is reached only by a link below one of them comes last. A file that is named itself is always listed.

    Parameters
    ----------
    passed_over : gets the number of pictures in folders that are not listed, by what they are.
    """
    found: dict[str, Listed] = {}
    skipped: dict[str, str] = {}
    for by_links in (False, True):  # a file that both reach keeps the name without
        for text in paths:
            hits = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
            if not any(_images_of(hits, output_dir, True, {})):
                problem = f"no images there ({' '.join(READABLE)})" if hits else "no such file or folder"
                found.setdefault(text, Listed(text, problem=problem))
            for one in _images_of(hits, output_dir, by_links, skipped):
                found.setdefault(os.path.realpath(one.file), one)
    if passed_over is not None:
        passed_over.update(Counter(what for file, what in skipped.items() if file not in found))
    names = iter(output_names([one.file for one in found.values() if not one.problem]))
    return [one if one.problem else one._replace(output=next(names)) for one in found.values()]


def _images_of(hits: Sequence[str], output_dir: Path, by_links: bool, skipped: dict[str, str]) -> Iterator[Listed]:
    """The files, and the images in and below the folders; the pictures that are none go to `skipped`, with what."""
    for hit in hits:
        if not os.path.isdir(hit):
            yield Listed(str(Path(hit)))
            continue
        passed = {os.path.realpath(output_dir / kind) for kind in KINDS}
        for place, folders, names in os.walk(hit, followlinks=by_links):
            if (real := os.path.realpath(place)) in passed:  # or a link to a folder above would be followed for ever
                folders.clear()
                continue
            passed.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            if place != hit and written_mark(place, names):
                skipped.update(_below(place, "written by main.py or predict.py"))
                folders.clear()
                continue
            within = Path(place).relative_to(hit).parts
            for name in sorted(names):
                file = os.path.join(place, name)
                if is_unreadable(name):
                    kind = os.path.splitext(name)[1].lower()
                    yield Listed(str(Path(file)), problem=f"{kind} is not read: save it as JPEG, PNG or TIFF")
                elif is_picture(name) and (what := _no_photograph(file, within, names)):
                    skipped[os.path.realpath(file)] = what
                elif is_picture(name):
                    yield Listed(str(Path(file)))


def _below(folder: str, what: str) -> dict[str, str]:
    """All pictures in and below a folder."""
    places = os.walk(folder)
    return {
        os.path.realpath(os.path.join(place, name)): what
        for place, _, names in places
        for name in names
        if is_picture(name)
    }


def _no_photograph(file: str, within: Sequence[str], names: Sequence[str]) -> str:
    """What a picture is instead of a photograph, by its name and those of its folder's files; "" if it is one."""
    role = role_of(within)
    if role == MASK:
        return "masks"
    stem, suffix = os.path.splitext(os.path.basename(file))
    images, word = mask_of(stem)
    is_beside = any(os.path.splitext(name)[0] in images for name in names)
    if word and (word not in WEAK_ENDINGS or (is_beside and (word not in PHOTOGRAPH_ENDINGS or is_drawn(file)))):
        return "masks"
    others = [
        name for name in names if name != stem + suffix and os.path.splitext(name)[0] == stem and is_picture(name)
    ]
    if others and is_drawn(file) and not is_drawn(os.path.join(os.path.dirname(file), others[0])):
        return "masks"
    return f"pictures in folders called as {'/'.join(within)}" if role == OTHER else ""


def output_names(files: Sequence[str | Path]) -> list[str]:
    """A name for each file's outputs, no two alike: its path below the folder common to all, without suffix."""
    if not files:
        return []
    places = [os.path.abspath(file) for file in files]
    root = os.path.commonpath([os.path.dirname(place) for place in places])
    whole = [os.path.relpath(place, root) for place in places]
    stems = [os.path.splitext(name)[0] for name in whole]
    n_alike = Counter(stem.casefold() for stem in stems)  # some file systems do not tell case apart
    taken: set[str] = set()
    return [_free(stem if n_alike[stem.casefold()] == 1 else name, taken) for stem, name in zip(stems, whole)]


def _free(first: str, taken: set[str]) -> str:
    """The name, with a number behind it if it is taken, which it is afterwards."""
    name, number = first, 2
    while name.casefold() in taken:
        name, number = f"{first}-{number}", number + 1
    taken.add(name.casefold())
    return name


def keep_names(listed: Sequence[Listed], known: dict[str, str]) -> list[Listed]:
    """The pictures with the names that an earlier run gave to the outputs of some files; none is given twice."""
    taken = {name.casefold() for name in known.values()}

    def name_of(one: Listed) -> str:
        return known[one.file] if one.file in known else _free(one.output, taken)

    return [one if one.problem else one._replace(output=name_of(one)) for one in listed]


def refuse_data_folder(folder: Path) -> None:
    """Raises ValueError for a folder in which predicted masks would be taken for true ones at the next training."""
    place = Path(os.path.realpath(folder))
    for near in (place, place.parent) if place.name.lower() in ("images", "masks") else (place,):
        if near.is_dir() and any(path.name.lower().endswith("groundtruth.csv") for path in near.iterdir()):
            raise ValueError(f"{folder} is data that main.py learns from. Name another --output-dir.")


def refuse_pictures(written: Iterable[Path], listed: Sequence[Listed]) -> None:
    """Raises ValueError if one of the pictures would be overwritten."""
    pictures = {os.path.realpath(one.file) for one in listed}
    for path in written:
        if os.path.realpath(path) in pictures:
            raise ValueError(f"{path} is one of the pictures and would be overwritten. Name another --output-dir.")


def refuse_existing(written: Iterable[Path]) -> None:
    """Raises ValueError if a file would be overwritten."""
    there = (path for path in written if os.path.exists(path))
    if first := next(there, None):
        n_more = sum(1 for _ in there)
        more = f" and {n_more} more files are" if n_more else " is"
        advice = "Name another --output-dir, pass --resume to go on with an earlier run, or --overwrite."
        raise ValueError(f"{first}{more} there already. {advice}")
