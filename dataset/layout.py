"""What a data folder is: where its diagnoses stand, and which of its files are images and which masks.

Diagnoses are read from a CSV file with a column a class, or one column that names the class; else from one folder a
class; and images with masks need none. Where two readings are possible, none is guessed.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dataset.classes import HAM10000, code_of, in_order
from dataset.csvfile import header_of, read_rows
from dataset.labels import (
    IMAGE_COLUMNS,
    SUFFIXES,
    Labels,
    choose,
    image_name,
    read_labels,
    with_image_column,
)

MASK_ENDINGS = ("_segmentation", "_mask")
MOST_READ = 100_000_000  # bytes of a CSV file that is not called GroundTruth and is looked into
ADVICE = (
    "Put GroundTruth.csv, images/ and masks/ into one folder, for main.py --data-dir, or try main.py --demo. "
    "HAM10000 is had at https://doi.org/10.7910/DVN/DBW86T"
)
EXPECTED = (
    f"Expected: image,{','.join(HAM10000)} (or other classes) with one row an image and 1 in the column of its class, "
    "or image,label with the class's name in each row."
)


class Layout(NamedTuple):
    """What a data folder was found to be."""

    folder: Path
    csv: Path | None  # that names the images; None where their folders do
    rows: pd.DataFrame  # text, with a column image
    labels: Labels
    images: dict[str, str]  # paths by image name
    masks: dict[str, str]

    def describe(self) -> str:
        """In one line."""
        places = {os.path.relpath(os.path.dirname(path), self.folder) for path in self.images.values()}
        some = ", ".join(f"{place}/" for place in sorted(places)[:3]) + (", ..." if len(places) > 3 else "")
        source = f"{self.csv.relative_to(self.folder)}, " if self.csv else ""
        what = f"{len(self.rows):,} images by name" if self.csv else f"{len(self.rows):,} images"
        files = f"{len(self.images):,} image files in {some or 'no folder'}; {len(self.masks):,} masks"
        return f"{source}{what}; diagnoses: {self.labels.where}; {files}"


def find(data_dir: str | Path, wanted: Sequence[str] = ()) -> Layout:
    """Find out what a folder is; no image is opened.

    Files are looked up by name among those that lie in the folder, so a name in a CSV can never lead outside it.

    Parameters
    ----------
    wanted : classes that decide between two readings.

    Raises
    ------
    FileNotFoundError, ValueError : no such folder, nothing to learn from in it, a CSV that is no table, or two
        readings; says what was found, what was expected and what to do.
    """
    folder = Path(data_dir)
    names = _names_in(folder)
    if is_output(folder, names):
        raise ValueError(f"{folder} was written by main.py or predict.py. Name the folder with the data.")
    images, masks = find_files(folder)
    csv = find_csv(folder, images)
    if csv:
        rows = with_image_column(read_rows(csv))
        readings = read_labels(rows, csv)
        if lacking := "images" if "image" not in rows else "" if readings else "classes":
            hint = " Its columns must be separated by commas." if len(rows.columns) == 1 else ""
            raise ValueError(f"{csv} names no {lacking}; it has {', '.join(rows.columns[:12])}. {EXPECTED}{hint}")
        if rows.empty:
            raise ValueError(f"{csv} has no rows. Expected one row an image.")
        return Layout(folder, csv, rows, choose(readings, csv, wanted), images, masks)
    if in_folders := class_folders(folder):
        return from_folders(folder, in_folders, masks)
    if images and masks:
        rows = pd.DataFrame({"image": sorted(images)}, dtype=str)
        nothing = pd.Series("", index=rows.index)
        return Layout(folder, None, rows, Labels("none", (), nothing, nothing), images, masks)
    found = f"{len(images)} images, {len(masks)} masks" + "".join(f", {name}" for name in sorted(names)[:6])
    raise FileNotFoundError(f"Expected GroundTruth.csv in {os.path.abspath(folder)}, found: {found}. {ADVICE}")


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        place = os.path.abspath(folder)
        raise FileNotFoundError(f"No data folder at {place} that can be read ({error.strerror}). {ADVICE}") from None


def find_csv(folder: Path, images: dict[str, str]) -> Path | None:
    """The CSV file with the diagnoses; None if there is none.

    GroundTruth.csv comes before what is called so in part, that before what lies in folders, and that before any other
    that names images and classes. Of several the one counts whose images are there.

    Raises
    ------
    ValueError : that leaves several; names them.
    """
    files = csv_files(folder)
    called_so = [path for path in files if path.name.lower().endswith("groundtruth.csv")]
    ranks = [
        [path for path in called_so if path.parent == folder and path.name.lower() == "groundtruth.csv"],
        [path for path in called_so if path.parent == folder],
        called_so,
        [path for path in files if _names_classes(path)],
    ]
    found = next(filter(None, ranks), [])
    if len(found) > 1:
        found = [path for path in found if _names_some(path, images)] or found
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise ValueError(
            f"{os.path.abspath(folder)} has {len(found)} files with diagnoses: {names}. Rename the one to learn from "
            "to GroundTruth.csv, at the top of the folder."
        )
    return found[0] if found else None


def csv_files(folder: Path) -> list[Path]:
    """The CSV files of a data folder and below, those at the top first."""
    found = [Path(place, name) for place, names in walk(folder) for name in names if name.lower().endswith(".csv")]
    return sorted((path for path in found if path.name[0] != "."), key=lambda path: (len(path.parts), path.name))


def walk(folder: str | Path) -> Iterator[tuple[str, list[str]]]:
    """The folders of a data folder with their files, but for what main.py and predict.py have written."""
    for place, folders, names in os.walk(folder, followlinks=True):
        depth = len(Path(place).relative_to(folder).parts)
        if depth and is_output(place, names):
            folders.clear()
            continue
        # Two levels are enough for any layout, and end a loop of links.
        folders[:] = sorted(name for name in folders if depth < 2 and not name.startswith((".", "__MACOSX")))
        yield place, names


def _names_classes(path: Path) -> bool:
    if not {name.lower() for name in header_of(path)} & set(IMAGE_COLUMNS) or path.stat().st_size > MOST_READ:
        return False
    try:
        rows = with_image_column(read_rows(path))
        return not rows.empty and bool(read_labels(rows, path))
    except ValueError:
        return False


def _names_some(path: Path, images: dict[str, str]) -> bool:
    try:
        rows = with_image_column(read_rows(path))
    except ValueError:
        return True
    return "image" in rows and bool(rows["image"].map(image_name).isin(images).any())


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Pictures by class, of a folder with one folder a class; {} if it is none.

    Raises
    ------
    ValueError : it holds several such folders.
    """
    below: dict[Path, dict[str, list[Path]]] = {}
    for place, names in walk(folder):
        place = Path(place)
        pictures = [place / name for name in sorted(names) if is_picture(name)]
        if pictures and place != folder and not kind_of(str(place.relative_to(folder))):
            below.setdefault(place.parent, {})[place.name] = pictures
    found = {place: classes for place, classes in below.items() if len(classes) > 1}
    if len(found) > 1:
        places = list(map(str, found))
        raise ValueError(
            f"{' and '.join(places)} hold one folder a class each. Name one of them: --data-dir {places[0]}"
        )
    return next(iter(found.values()), {})


def from_folders(folder: Path, in_folders: dict[str, list[Path]], masks: dict[str, str]) -> Layout:
    """Each picture is named after its file, or after folder and file where two folders have the same names."""
    codes = {name: code_of(name) for name in in_folders}
    if len(set(codes.values())) < len(codes):
        same = sorted(name for name in codes if list(codes.values()).count(codes[name]) > 1)
        raise ValueError(f"The folders {' and '.join(same)} of {folder} mean the same class. Move them into one.")
    files = [(name, path) for name, paths in in_folders.items() for path in paths]
    stems = [_stem(path.name) for _, path in files]
    if len(set(stems)) < len(stems):
        stems = [f"{name}_{stem}" for (name, _), stem in zip(files, stems)]
    found = pd.DataFrame({"image": stems, "code": [codes[name] for name, _ in files]}, dtype=str)
    images = {stem: str(path) for stem, (_, path) in reversed(list(zip(stems, files)))}
    labels = Labels(
        f"{len(codes)} folders, one a class",
        in_order(codes.values()),
        found["code"],
        pd.Series("", index=found.index),
    )
    return Layout(folder, None, found[["image"]], labels, images, masks)


def find_files(data_dir: str | Path) -> tuple[dict[str, str], dict[str, str]]:
    """Paths of images and of masks by image name, for the folder layouts that users have.

    Images lie in folders whose names say so; where there is none, in any that holds no masks. Of several masks of an
    image in one folder, <image>_segmentation comes before <image>_mask, and that before <image>. What predict.py and
    main.py have written is passed over.
    """
    found: dict[str, dict[str, str]] = {"images": {}, "masks": {}, "": {}}
    for folder, names in walk(data_dir):
        kind = kind_of(os.path.relpath(folder, data_dir))
        pictures = sorted(name for name in names if is_picture(name))
        named = (
            sorted((*_mask_of(_stem(name)), name) for name in pictures)
            if kind == "masks"
            else [(0, _stem(name), name) for name in pictures]
        )
        for _, stem, name in named:
            found[kind].setdefault(stem, os.path.join(folder, name))
    return found["images"] or found[""], found["masks"]


def kind_of(place: str) -> str:
    """What a folder's name says of the pictures in it: "images", "masks" or ""."""
    place = place.lower()
    if "mask" in place or "segmentation" in place or "groundtruth" in place:
        return "masks"
    return "images" if "image" in place or "input" in place else ""


def _mask_of(stem: str) -> tuple[int, str]:
    """How little a file's name says that it is a mask, and the image that it is of."""
    for rank, ending in enumerate(MASK_ENDINGS):
        if stem.endswith(ending):
            return rank, stem.removesuffix(ending)
    return len(MASK_ENDINGS), stem


def is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith("._")


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])


def is_output(folder: str | Path, names: list[str]) -> bool:
    """Whether predict.py or main.py writes into this folder, of which these are the files."""
    if {"record.json", "predictions.run.json"} & set(names) or {"config.json", "splits.csv"} <= set(names):
        return True
    return "predictions.csv" in names and header_of(Path(folder, "predictions.csv"))[:2] == ["file", "output"]
