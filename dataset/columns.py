"""Column names in tables that users bring."""

import re
from collections.abc import Iterable

import pandas as pd

from dataset.names import Index, named
from dataset.roles import PART_WORDS

# Column names by content, in any case, with or without _ and spaces; the first name that exists counts.
IMAGE_COLUMNS = (
    *("image", "image_id", "isic_id", "image_name", "img_id", "filename", "file_name", "derm", "img", "img_name"),
    *(
        "image_file",
        "image_filename",
        "image_path",
        "img_path",
        "file_path",
        "path",
        "file",
        "images",
        "files",
        "picture",
    ),
    *("photo", "photograph", "picture_id", "photo_id", "clinic"),
)
LABEL_COLUMNS = ("label", "labels", "class", "dx", "diagnosis", "diagnostic", "target", "benign_malignant", "iddx_full")
LABEL_COLUMNS += ("label_name", "class_name", "diagnosis_name")
LABEL_COLUMNS += tuple(f"{name}_{level}" for name in ("diagnosis", "iddx") for level in range(1, 6))
GUESS = "clinical_diagnosis"  # made before the biopsy; used only if there is no other diagnosis
LABEL_COLUMNS += (GUESS,)
DETAILS = {  # our column, and its names in files
    "lesion_id": ("lesion_id", "lesion_number", "lesion_no", "lesion_nr"),
    "patient_id": (
        *("patient_id", "patient", "subject_id", "subject", "pat_id", "pid"),
        *("patient_number", "patient_no", "patient_nr"),
    ),
    "age": ("age", "age_approx"),
    "sex": ("sex", "gender"),
    "localization": ("localization", "anatom_site_general", "anatom_site_general_challenge"),
    "dx_type": ("dx_type", "diagnosis_confirm_type"),  # how the diagnosis was confirmed
    "dataset": ("dataset", "attribution"),  # where the image comes from
    "fitzpatrick_skin_type": ("fitzpatrick_skin_type", "fitzpatrick", "fitspatrick", "skin_type"),  # I to VI
}
GROUPED = ("dx_type", "dataset", "fitzpatrick_skin_type", "age", "sex", "localization")  # scores are given by group
FURTHER = "column "  # prefix in our table of a column that only the user names
MASK_COLUMNS = tuple(
    f"{name}{end}" for name in ("mask", "segmentation", "seg") for end in ("", "_path", "_file", "_image")
)
MASK_COLUMNS += ("masks", "mask_filename", "mask_name", "mask_id")
NUMBERS = {"id", "name", "no", "nr", "num", "number", "index", "case", "caseid", "key", "nameid"}  # may name images
FLAGS = ("validated", "duplicate")  # not classes, nor are is_test and train
SPLIT_COLUMNS = ("split", "set", "subset", "part", "partition", "fold", "kfold", "phase", "usage", "data_split")


def squashed(name: str) -> str:
    """Key shared by the spellings of a column name: "Image Name", "image_name", "imageName"."""
    return re.sub(r"[\W_]+", "", name.lower())


_IMAGE = {squashed(name): position for position, name in enumerate(IMAGE_COLUMNS)}
_RESERVED = _IMAGE.keys() | {
    squashed(name) for names in (LABEL_COLUMNS, SPLIT_COLUMNS, FLAGS, MASK_COLUMNS, *DETAILS.values()) for name in names
}
# Of the reserved names, those that count as read wherever they stand.
_READ = {squashed(name) for names in (LABEL_COLUMNS, SPLIT_COLUMNS, MASK_COLUMNS) for name in names} - {squashed(GUESS)}
MEASUREMENTS = "measurements"  # key in DataFrame.attrs: names of columns of measurements that were not read


def is_reserved(name: str) -> bool:
    """Whether a column holds images, labels, details or parts, by its name."""
    return squashed(name) in _RESERVED or bool(part_flags([name]))


def names_images(names: Iterable[str]) -> bool:
    """Whether one of these column names is a name for images."""
    return any(squashed(name) in _IMAGE for name in names)


def names_details(names: Iterable[str]) -> bool:
    """Whether one of these column names is a name for a detail or for the part of a split."""
    wanted = {squashed(name) for names in (*DETAILS.values(), SPLIT_COLUMNS, ["lesion"]) for name in names}
    return any(squashed(name) in wanted for name in names)


def are_parts(cells: pd.Series) -> bool:
    """Whether a column of any name holds only part names: train, and val or test or both."""
    words = {cell.lower() for cell in cells.unique() if cell}
    return words <= PART_WORDS.keys() and {"train"} < {PART_WORDS[word] for word in words}


def part_flags(names: Iterable[str]) -> dict[str, str]:
    """The part that each flag column stands for: is_test, train."""
    parts = {name: PART_WORDS.get(squashed(name).removeprefix("is"), "") for name in names}
    return {name: part for name, part in parts.items() if part}


def find_column(columns: Iterable[str], spellings: Iterable[str]) -> str | None:
    """The first column that has one of these names, in the order of the names."""
    by_key = {squashed(name): name for name in reversed(list(columns))}
    return next((by_key[key] for key in map(squashed, spellings) if key in by_key), None)


def column_for(name: str) -> str:
    """The name in our table of a column that the user names.

    Examples
    --------
    >>> column_for("attribution"), column_for("camera")
    ('dataset', 'column camera')
    """
    return next((ours for ours in GROUPED if find_column([name], DETAILS[ours])), FURTHER + name)


def detail_columns(rows: pd.DataFrame, further: Iterable[str] = ()) -> dict[str, str]:
    """The column of each detail that a table has, and of the `further` names.

    A column lesion holds ids if most of its cells have digits.
    """
    by_detail = {column_for(name): find_column(rows, [name]) for name in further}
    by_detail |= {name: find_column(rows, spellings) for name, spellings in DETAILS.items()}
    lesion = find_column(rows, ["lesion"])
    if (
        not by_detail["lesion_id"]
        and lesion
        and rows[lesion].nunique() > 2
        and rows[lesion].str.contains(r"\d").mean() > 0.5
    ):
        by_detail["lesion_id"] = lesion
    return {name: column for name, column in by_detail.items() if column}


def unread_columns(rows: pd.DataFrame, further: Iterable[str] = ()) -> list[str]:
    """The columns that are not read. Columns that `further` names are read."""
    read = {"image", *detail_columns(rows, further).values(), *part_flags(rows)}
    unread = [name for name in rows if name not in read and squashed(name) not in _READ and not are_parts(rows[name])]
    return [*unread, *rows.attrs.get(MEASUREMENTS, ())]


def with_image_column(rows: pd.DataFrame, images: Index | None = None) -> pd.DataFrame:
    """Rename the column that names the images to image.

    Among several, take the column whose cells match most of `images` exactly, else the first of `IMAGE_COLUMNS` that
    names one. If none does, take any column of which at least half of the cells name distinct images.
    """
    candidates = sorted((name for name in rows if squashed(name) in _IMAGE), key=lambda name: _IMAGE[squashed(name)])
    column = next(iter(candidates), "image")
    if images is not None:
        head = rows.head(2000)
        naming = [name for name in candidates if _n_named(head[name], images)]
        naming.sort(key=lambda name: -len({named(cell).stem for cell in head[name]} & images.by_stem.keys()))
        naming = naming or [name for name in rows if 2 * _n_named(head[name], images, name) >= max(1, len(head))]
        column = next(iter(naming), column)
    return rows.drop(columns="image" if column != "image" else [], errors="ignore").rename(columns={column: "image"})


def may_name(cell: str, column: str) -> bool:
    """Whether a cell may name an image: a plain number does so only in a column named for images or numbers."""
    return bool(cell) and (not cell.isdigit() or squashed(column) in _IMAGE or squashed(column) in NUMBERS)


def _n_named(cells: pd.Series, images: Index, column: str = "image") -> int:
    """Number of images that these cells name."""
    return len({named(cell).stem for cell in cells if may_name(cell, column) and cell in images})
