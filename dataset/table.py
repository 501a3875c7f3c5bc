"""CSV and folders -> a checked table.

The table is a DataFrame with one row for each row of GroundTruth.csv, usable or not:

=================================  =======================================================================
image                              name without extension; repeated or empty only where left out
label                              position in `CLASSES`, -1 for none
status, reason                     `USED`, `LABEL_ONLY` (no mask) or `LEFT_OUT`, and why
image_path, mask_path              of the files, "" for none
lesion_id, lesion_known            an image of no known lesion is a lesion of its own, named as the image
age, sex, localization             in years, and as text; missing where not known
=================================  =======================================================================
"""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd

from dataset.csvfile import CONTROL, header_of, printable, read_rows

CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
CLASS_NAMES = {
    "MEL": "Melanoma",
    "NV": "Nevus",
    "BCC": "Basal Cell Carcinoma",
    "AKIEC": "Actinic Keratosis",
    "BKL": "Benign Keratosis",
    "DF": "Dermatofibroma",
    "VASC": "Vascular Lesion",
}
ALIASES = {"AK": "AKIEC"}  # other releases' names of classes
NAME_COLUMNS = ("image", "image_id", "isic_id", "image_name")  # the first of them that is there names the image
DETAILS = {  # column of the table, and its names in other files
    "lesion_id": ("lesion_id",),
    "age": ("age", "age_approx"),
    "sex": ("sex",),
    "localization": ("localization", "anatom_site_general", "anatom_site_general_challenge"),
}
SPLITS = ("train", "val", "test")
USED, LABEL_ONLY, LEFT_OUT = "used", "classification only", "left out"
SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_ENDINGS = ("_segmentation", "_mask")
LESION_FILES = ("HAM10000_metadata.csv", "ISIC2018_Task3_Training_LesionGroupings.csv")


def read_table(data_dir: str | Path) -> pd.DataFrame:
    """Read ``GroundTruth.csv`` and find each row's image, mask and lesion; no image is opened.

    Files are looked up by name among those that lie in the image and mask folders, so a name in the CSV can never
    lead outside `data_dir`.

    Raises
    ------
    FileNotFoundError, ValueError : no such folder or CSV; a CSV without rows or without a needed column.
    """
    data_dir = Path(data_dir)
    csv_path = find_csv(data_dir)
    rows = _with_known_names(read_rows(csv_path), csv_path)
    missing = [name for name in ("image", *CLASSES) if name not in rows]
    if missing:
        hint = " Its columns must be separated by commas." if len(rows.columns) == 1 else ""
        raise ValueError(
            f"{csv_path} lacks the columns {', '.join(missing)}; it has {', '.join(rows.columns[:12])}. "
            f"Expected: image,{','.join(CLASSES)} with one row an image and 1 in the column of its class.{hint}"
        )
    if rows.empty:
        raise ValueError(f"{csv_path} has no rows. Expected one row an image.")
    table = pd.DataFrame({"image": rows["image"].map(_image_name)})
    table["label"], table["status"], table["reason"] = -1, USED, ""
    _check_rows(table, rows)
    images, masks = find_files(data_dir)
    table["image_path"] = [images.get(name, "") for name in table["image"]]
    table["mask_path"] = [masks.get(name, "") for name in table["image"]]
    if (table["image_path"] == "").all():
        raise FileNotFoundError(
            f"None of the images that {csv_path} names lie in a folder images/ of {os.path.abspath(data_dir)}; "
            f"{len(images)} image files were found there, and {table['image'].iloc[0]!r} is the first name looked for."
        )
    leave_out(table, table["image_path"] == "", "image is missing")
    no_mask = (table["status"] == USED) & (table["mask_path"] == "")
    table.loc[no_mask, ["status", "reason"]] = LABEL_ONLY, "mask is missing"
    return table.join(_read_details(data_dir, rows, table["image"]))


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are not left out; each of their images is named once."""
    return table[table["status"] != LEFT_OUT]


def has_mask(table: pd.DataFrame) -> np.ndarray:
    """Which rows have a mask that can be used: (N,) bool; all of them in a table that has no column ``status``."""
    return (table["status"] == USED).to_numpy() if "status" in table else np.ones(len(table), bool)


def targets(table: pd.DataFrame) -> pd.DataFrame:
    """What each row can be learned from or compared with: columns ``label`` and ``mask`` of bool."""
    is_used = table["status"] != LEFT_OUT if "status" in table else True
    return pd.DataFrame({"label": is_used & (table["label"] >= 0), "mask": has_mask(table)}, index=table.index)


def find_csv(data_dir: Path) -> Path:
    """The ground truth of a data folder; raises FileNotFoundError with what to do."""
    advice = (
        "Put GroundTruth.csv, images/ and masks/ into one folder, for main.py --data-dir, or try main.py --demo. "
        "HAM10000 is had at https://doi.org/10.7910/DVN/DBW86T"
    )
    try:
        found = sorted(path for path in data_dir.iterdir() if path.name.lower().endswith("groundtruth.csv"))
    except OSError as error:
        place = os.path.abspath(data_dir)
        raise FileNotFoundError(f"No data folder at {place} that can be read ({error.strerror}). {advice}") from None
    found = [path for path in found if path.name.lower() == "groundtruth.csv"] or found
    found = [path for path in found if not path.name.startswith("._")]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise FileNotFoundError(
            f"Expected one GroundTruth.csv in {os.path.abspath(data_dir)}, found: {names}. {advice}"
        )
    return found[0]


def _with_known_names(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Columns under this project's names; one of a class's names, and one of the image's, may be there."""
    for other, name in ALIASES.items():
        if {other, name} <= set(rows):
            raise ValueError(f"{path} has the columns {other} and {name}, which mean the same class. Remove one.")
    lower = {column.lower(): column for column in reversed(rows.columns)}
    image = next((lower[name] for name in NAME_COLUMNS if name in lower), "image")
    return rows.drop(columns="image" if image != "image" else [], errors="ignore").rename(
        columns=ALIASES | {image: "image"}
    )


def _image_name(text: str) -> str:
    """A name as the CSV gives it, without extension, in the Unicode form that file names are compared in."""
    stem, suffix = os.path.splitext(text)
    return unicodedata.normalize("NFC", stem if suffix.lower() in SUFFIXES else text)


def _check_rows(table: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Fill in labels; leave out rows that name no file or no class, and repeated names."""
    labels = rows[list(CLASSES)].apply(pd.to_numeric, errors="coerce")
    one_hot = labels.isin([0, 1]).all(axis=1) & (labels.sum(axis=1) == 1)
    table["label"] = labels.fillna(0).to_numpy().argmax(axis=1)
    table.loc[~one_hot, "label"] = -1
    name = table["image"]
    leave_out(table, name == "", "empty name")
    # What would lead elsewhere, or what a console or a spreadsheet would obey.
    leave_out(table, name.str.contains(r"[/\\:]") | name.str.contains(CONTROL) | name.isin([".", ".."]), "unsafe name")
    leave_out(table, labels.isna().any(axis=1), "labels are not numbers")
    for other in _other_classes(rows):
        labelled = (labels == 0).all(axis=1) & (pd.to_numeric(rows[other]) == 1)
        leave_out(table, labelled, f"labelled {other}, which is not among the classes")
    leave_out(table, ~one_hot, "labels are not one-hot")
    valid = usable(table)
    conflict = valid.groupby("image")["label"].transform("nunique") > 1
    leave_out(table, conflict.reindex(table.index, fill_value=False), "conflicting labels")
    repeated = valid.duplicated("image")
    leave_out(table, repeated.reindex(table.index, fill_value=False), "duplicate row")


def _other_classes(rows: pd.DataFrame) -> list[str]:
    """Columns of zeros and ones beside those of the classes, such as ISIC 2019's SCC."""
    others = [name for name in rows if name not in ("image", *CLASSES)]
    return [name for name in others if pd.to_numeric(rows[name], errors="coerce").isin([0, 1]).all()]


def leave_out(table: pd.DataFrame, chosen: pd.Series, reason: str) -> None:
    """The first reason counts."""
    table.loc[chosen & (table["status"] != LEFT_OUT), ["status", "reason"]] = LEFT_OUT, reason


def find_files(data_dir: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Paths of images and of masks by image name, for the folder layouts that users have.

    Of several masks of an image in one folder, <image>_segmentation comes before <image>_mask, and that before <image>.
    What predict.py and main.py have written is passed over.
    """
    images: dict[str, str] = {}
    masks: dict[str, str] = {}
    for folder, folders, names in os.walk(data_dir, followlinks=True):
        depth = len(Path(folder).relative_to(data_dir).parts)
        if depth and _is_output(folder, names):
            folders.clear()
            continue
        # Two levels are enough for any layout, and end a loop of links.
        folders[:] = sorted(f for f in folders if depth < 2 and not f.startswith((".", "__MACOSX")))
        kind = os.path.relpath(folder, data_dir).lower()
        pictures = sorted(name for name in names if _is_picture(name))
        if "mask" in kind or "segmentation" in kind or "groundtruth" in kind:
            for _, stem, name in sorted((*_mask_of(_stem(name)), name) for name in pictures):
                masks.setdefault(stem, os.path.join(folder, name))
        elif "image" in kind or "input" in kind:
            for name in pictures:
                images.setdefault(_stem(name), os.path.join(folder, name))
    return images, masks


def _mask_of(stem: str) -> tuple[int, str]:
    """How little a file's name says that it is a mask, and the image that it is of."""
    for rank, ending in enumerate(MASK_ENDINGS):
        if stem.endswith(ending):
            return rank, stem.removesuffix(ending)
    return len(MASK_ENDINGS), stem


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith("._")


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])


def _is_output(folder: str, names: list[str]) -> bool:
    """Whether predict.py or main.py writes into this folder."""
    if "record.json" in names or {"config.json", "splits.csv"} <= set(names):
        return True
    return "predictions.csv" in names and header_of(Path(folder, "predictions.csv"))[:2] == ["file", "output"]


def _read_details(data_dir: Path, rows: pd.DataFrame, images: pd.Series) -> pd.DataFrame:
    """Lesion, age, sex and site of each row, each from the first CSV file that has it, and GroundTruth.csv last."""
    sources = [_with_known_names(read_rows(path), path) for path in _detail_files(data_dir)]
    found: dict[str, pd.Series] = {}
    for source in (*sources, rows):
        named = source.assign(image=source["image"].map(_image_name)).drop_duplicates("image").set_index("image")
        for name, spellings in DETAILS.items():
            column = next((column for column in named if column.lower() in spellings), None)
            if column and name not in found:
                values = images.map(named[column])
                found[name] = values.where(~values.isin(["", "unknown"]))
    details = pd.DataFrame(found, index=images.index).reindex(columns=list(DETAILS))
    details["age"] = pd.to_numeric(details["age"], errors="coerce")
    details["lesion_known"] = details["lesion_id"].notna()
    details["lesion_id"] = details["lesion_id"].astype(object).where(details["lesion_known"], images)
    return details


def _detail_files(data_dir: Path) -> list[Path]:
    """The CSV files beside GroundTruth.csv that name images, with their lesions or more: known names come first."""
    others = sorted(path for path in data_dir.glob("*.csv") if not path.name.startswith("."))
    first = [data_dir / name for name in LESION_FILES if (data_dir / name).is_file()]
    wanted = {spelling for spellings in DETAILS.values() for spelling in spellings}
    found = []
    for path in dict.fromkeys([*first, *others]):
        header = {name.lower() for name in header_of(path)}
        if header & set(NAME_COLUMNS) and header & wanted and not path.name.lower().endswith("groundtruth.csv"):
            found.append(path)
    return found


def describe_table(table: pd.DataFrame) -> str:
    """How many rows are used and how, and why not, as lines for the console."""
    lines = [
        f"{len(table)} rows: " + ", ".join(f"{n} {status}" for status, n in table["status"].value_counts().items())
    ]
    reasons = table.loc[table["reason"] != "", ["status", "reason"]]
    kinds = reasons["reason"].str.split("(", n=1).str[0].str.strip()
    for (status, kind), members in reasons.groupby([reasons["status"], kinds]):
        examples = printable(", ".join(table.loc[members.index[:3], "image"]))
        lines.append(f"  {len(members):5} {status}: {kind} (e.g. {examples})")
    return "\n".join(lines)
