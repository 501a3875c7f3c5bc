"""The images that a command line names, in order, with a unique name for the outputs of each."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.files import written_mark
from dataset.masks import is_drawn
from dataset.opening import content_of, digest_of
from dataset.roles import (
    MASK,
    OTHER,
    PHOTOGRAPH_ENDINGS,
    READABLE,
    WEAK_ENDINGS,
    is_image,
    is_unreadable,
    mask_of,
    role_of,
)

KINDS = ("masks", "overlays", "heatmaps")  # output folders


class Listed(NamedTuple):
    """An image, or a name on the command line that cannot be predicted."""

    file: str
    output: str = ""  # unique name of its outputs
    problem: str = ""  # why it cannot be predicted


def list_images(paths: Sequence[str], output_dir: Path, passed_over: Counter | None = None) -> list[Listed]:
    """The images that `paths` (files, folders, globs) name, each file once, and paths without images, with the reason.

    Folders are searched, except for masks (recognised as in training) and outputs of main.py and predict.py. Images
    found only through links come last. A file that is named itself is always listed.

    Parameters
    ----------
    passed_over : gets the number of unlisted images in folders, by kind.
    """
    listed: dict[str, Listed] = {}
    skipped: dict[str, str] = {}
    for by_links in (False, True):  # a file that both reach keeps the name without links
        for path in paths:
            hits = [path] if os.path.lexists(path) else sorted(glob.glob(path, recursive=True))
            if not any(_images_of(hits, output_dir, True, {})):
                problem = f"no images in it ({' '.join(READABLE)})" if hits else "no such file or folder"
                listed.setdefault(path, Listed(path, problem=problem))
            for item in _images_of(hits, output_dir, by_links, skipped):
                listed.setdefault(os.path.realpath(item.file), item)
    if passed_over is not None:
        passed_over.update(Counter(kind for file, kind in skipped.items() if file not in listed))
    names = iter(output_names([item.file for item in listed.values() if not item.problem]))
    return [item if item.problem else item._replace(output=next(names)) for item in listed.values()]


def _images_of(hits: Sequence[str], output_dir: Path, by_links: bool, skipped: dict[str, str]) -> Iterator[Listed]:
    """The named files, and the photographs in and below the named folders; other images go to `skipped`, by kind."""
    for hit in hits:
        if os.path.isdir(hit):
            yield from _images_below(hit, output_dir, by_links, skipped)
        else:
            yield Listed(str(Path(hit)))


def _images_below(top: str, output_dir: Path, by_links: bool, skipped: dict[str, str]) -> Iterator[Listed]:
    visited = {os.path.realpath(output_dir / kind) for kind in KINDS}
    for place, folders, names in os.walk(top, followlinks=by_links):
        if (real := os.path.realpath(place)) in visited:  # otherwise a link to a parent would be followed forever
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        if place != top and written_mark(place, names):
            skipped.update(_below(place, "written by main.py or predict.py"))
            folders.clear()
            continue
        yield from _images_in(place, Path(place).relative_to(top).parts, names, skipped)


def _images_in(place: str, within: Sequence[str], names: Sequence[str], skipped: dict[str, str]) -> Iterator[Listed]:
    for name in sorted(names):
        file = os.path.join(place, name)
        if is_unreadable(name):
            suffix = os.path.splitext(name)[1].lower()
            yield Listed(str(Path(file)), problem=f"{suffix} is not read: save it as JPEG, PNG or TIFF")
        elif is_image(name) and (kind := _no_photograph(file, within, names)):
            skipped[os.path.realpath(file)] = kind
        elif is_image(name):
            yield Listed(str(Path(file)))


def _below(folder: str, kind: str) -> dict[str, str]:
    """All images in and below a folder, each with this kind."""
    places = os.walk(folder)
    return {
        os.path.realpath(os.path.join(place, name)): kind
        for place, _, names in places
        for name in names
        if is_image(name)
    }


def _no_photograph(file: str, within: Sequence[str], names: Sequence[str]) -> str:
    """The kind of an image, by its name and those of its folder's files; "" for a photograph."""
    role = role_of(within)
    if role == MASK:
        return "masks"
    stem, suffix = os.path.splitext(os.path.basename(file))
    images, word = mask_of(stem)
    is_beside = any(os.path.splitext(name)[0] in images for name in names)
    if word and (word not in WEAK_ENDINGS or (is_beside and (word not in PHOTOGRAPH_ENDINGS or is_drawn(file)))):
        return "masks"
    others = [name for name in names if name != stem + suffix and os.path.splitext(name)[0] == stem and is_image(name)]
    if others and is_drawn(file) and not is_drawn(os.path.join(os.path.dirname(file), others[0])):
        return "masks"
    return f"images in folders named {'/'.join(within)}" if role == OTHER else ""


def output_names(files: Sequence[str | Path]) -> list[str]:
    """A unique name for each file's outputs: its path below the folder common to all, without suffix."""
    if not files:
        return []
    places = [os.path.abspath(file) for file in files]
    root = os.path.commonpath([os.path.dirname(place) for place in places])
    whole = [os.path.relpath(place, root) for place in places]
    stems = [os.path.splitext(name)[0] for name in whole]
    n_alike = Counter(stem.casefold() for stem in stems)  # some file systems ignore case
    taken: set[str] = set()
    return [_free(stem if n_alike[stem.casefold()] == 1 else name, taken) for stem, name in zip(stems, whole)]


def _free(first: str, taken: set[str]) -> str:
    """The name, with a number appended if it is taken; adds it to `taken`."""
    name, number = first, 2
    while name.casefold() in taken:
        name, number = f"{first}-{number}", number + 1
    taken.add(name.casefold())
    return name


def keep_names(listed: Sequence[Listed], earlier: dict[str, str]) -> list[Listed]:
    """The images with the output names of an earlier run, by file; the other names stay unique."""
    taken = {name.casefold() for name in earlier.values()}

    def name_of(item: Listed) -> str:
        return earlier[item.file] if item.file in earlier else _free(item.output, taken)

    return [item if item.problem else item._replace(output=name_of(item)) for item in listed]


def as_predicted(listed: Sequence[Listed], rows: Iterable[Sequence[str]]) -> list[Listed]:
    """The images, those of the same name and content as an earlier one as that earlier one.

    Parameters
    ----------
    rows : of the table of predictions: file, output, reason why it was skipped, digest.

    Raises
    ------
    ValueError : a file has another content than when it was predicted.
    """
    names = {os.path.basename(item.file) for item in listed}
    earlier: dict[str, dict[str, Listed]] = {}  # by name and digest
    digests: dict[str, str] = {}  # by file
    for file, output, skipped, digest, *_ in rows:
        if not skipped and os.path.basename(file) in names:
            earlier.setdefault(os.path.basename(file), {})[digest] = Listed(file, output)
            digests[file] = digest
    found: dict[str, Listed] = {}
    for item in listed:
        known = earlier.get(os.path.basename(item.file))
        digest = _digest(item.file) if known else ""
        if digest and digests.get(item.file, digest) != digest:
            advice = "Pass --overwrite to predict it again, or rename it, or name another --output-dir."
            raise ValueError(f"{item.file} has changed since it was predicted. {advice}")
        if digest and item.file not in digests:
            item = known.get(digest, item)
        found.setdefault(item.file, item)
    return list(found.values())


def _digest(file: str) -> str:
    """`digest_of` a file; "" if it cannot be read, which the row of the table will say."""
    try:
        return digest_of(content_of(file))
    except (OSError, ValueError):
        return ""


def refuse_data_folder(folder: Path) -> None:
    """Raise ValueError for a folder where the next training would take predicted masks for true ones."""
    place = Path(os.path.realpath(folder))
    for near in (place, place.parent) if place.name.lower() in ("images", "masks") else (place,):
        if near.is_dir() and any(path.name.lower().endswith("groundtruth.csv") for path in near.iterdir()):
            raise ValueError(f"{folder} holds training data. Name another --output-dir.")


def refuse_inputs(written: Iterable[Path], listed: Sequence[Listed]) -> None:
    """Raise ValueError if an input image would be overwritten."""
    inputs = {os.path.realpath(item.file) for item in listed}
    for path in written:
        if os.path.realpath(path) in inputs:
            raise ValueError(f"{path} is an input image and would be overwritten. Name another --output-dir.")


def refuse_existing(written: Iterable[Path]) -> None:
    """Raise ValueError if a file would be overwritten."""
    existing = (path for path in written if os.path.exists(path))
    if first := next(existing, None):
        n_more = sum(1 for _ in existing)
        problem = f"and {n_more} more files already exist" if n_more else "already exists"
        advice = "Name another --output-dir, pass --resume to continue a stopped run, or pass --overwrite."
        raise ValueError(f"{first} {problem}. {advice}")
