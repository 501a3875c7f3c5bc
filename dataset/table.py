"""CSV and folders -> a checked table.

The table is a DataFrame with one row for each row of GroundTruth.csv: image, label, lesion_id, status (one of
`USED`, `LABEL_ONLY`, `LEFT_OUT`), reason, image_path, mask_path.
"""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd

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
ALIASES = {"AK": "AKIEC", "image_id": "image", "isic_id": "image"}  # other releases' column names
SPLITS = ("train", "val", "test")
USED, LABEL_ONLY, LEFT_OUT = "used", "classification only", "left out"
SUFFIXES = (".jpg", ".jpeg", ".png")
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
    rows = read_rows(csv_path)
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
            f"None of the images that {csv_path} names lie in a folder images/ of {data_dir.resolve()}; "
            f"{len(images)} image files were found there, and {table['image'].iloc[0]!r} is the first name looked for."
        )
    leave_out(table, table["image_path"] == "", "image is missing")
    no_mask = (table["status"] == USED) & (table["mask_path"] == "")
    table.loc[no_mask, ["status", "reason"]] = LABEL_ONLY, "mask is missing"
    table["lesion_id"] = _lesion_ids(data_dir, rows, table["image"])
    return table


def find_csv(data_dir: Path) -> Path:
    """The ground truth of a data folder; raises FileNotFoundError with what to do."""
    advice = (
        "Put GroundTruth.csv, images/ and masks/ into one folder, for main.py --data-dir, or try main.py --demo. "
        "HAM10000 is had at https://doi.org/10.7910/DVN/DBW86T"
    )
    if not data_dir.is_dir():
        raise FileNotFoundError(f"No data folder at {data_dir.resolve()}. {advice}")
    found = sorted(path for path in data_dir.iterdir() if path.name.lower().endswith("groundtruth.csv"))
    found = [path for path in found if path.name.lower() == "groundtruth.csv"] or found
    found = [path for path in found if not path.name.startswith("._")]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise FileNotFoundError(f"Expected one GroundTruth.csv in {data_dir.resolve()}, found: {names}. {advice}")
    return found[0]


def read_rows(path: Path) -> pd.DataFrame:
    """All cells as stripped text, columns under this project's names."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty. Expected a header and one row an image.") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a comma-separated UTF-8 table: {error}") from None
    rows = rows.apply(lambda column: column.str.strip())
    return rows.rename(columns=lambda name: ALIASES.get(name.strip(), name.strip()))


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
    leave_out(table, name.str.contains(r"[/\\:\0]") | name.isin([".", ".."]), "unsafe name")
    leave_out(table, labels.isna().any(axis=1), "labels are not numbers")
    leave_out(table, ~one_hot, "labels are not one-hot")
    valid = table[table["status"] == USED]
    conflict = valid.groupby("image")["label"].transform("nunique") > 1
    leave_out(table, conflict.reindex(table.index, fill_value=False), "conflicting labels")
    repeated = valid.duplicated("image")
    leave_out(table, repeated.reindex(table.index, fill_value=False), "duplicate row")


def leave_out(table: pd.DataFrame, chosen: pd.Series, reason: str) -> None:
    """The first reason counts."""
    table.loc[chosen & (table["status"] != LEFT_OUT), ["status", "reason"]] = LEFT_OUT, reason


def find_files(data_dir: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Paths of images and of masks by image name, for the folder layouts that users have."""
    images: dict[str, str] = {}
    masks: dict[str, str] = {}
    for folder, folders, names in os.walk(data_dir, followlinks=True):
        depth = len(Path(folder).relative_to(data_dir).parts)
        # Two levels are enough for any layout, and end a loop of links.
        folders[:] = sorted(f for f in folders if depth < 2 and not f.startswith((".", "__MACOSX")))
        kind = os.path.relpath(folder, data_dir).lower()
        if "mask" in kind or "segmentation" in kind or "groundtruth" in kind:
            found = masks
        elif "image" in kind or "input" in kind:
            found = images
        else:
            continue
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES and not name.startswith("._"):
                stem = unicodedata.normalize("NFC", stem)
                if found is masks:
                    stem = stem.removesuffix("_segmentation").removesuffix("_mask")
                found.setdefault(stem, os.path.join(folder, name))
    return images, masks


def _lesion_ids(data_dir: Path, rows: pd.DataFrame, images: pd.Series) -> pd.Series:
    """Lesion of each row; an image of no known lesion is a lesion of its own."""
    known = [data_dir / name for name in LESION_FILES if (data_dir / name).is_file()]
    source = read_rows(known[0]) if known else rows
    if not {"image", "lesion_id"} <= set(source.columns):
        return images
    lesions = source[source["lesion_id"] != ""].assign(image=source["image"].map(_image_name))
    return images.map(lesions.drop_duplicates("image").set_index("image")["lesion_id"]).fillna(images)


def read_metadata(data_dir: str | Path) -> pd.DataFrame | None:
    """image, age, sex and localization of each image, as text or None; None altogether if there is no such file."""
    path = Path(data_dir) / LESION_FILES[0]
    if not path.is_file():
        return None
    rows = read_rows(path)
    columns = ["image", "age", "sex", "localization"]
    if not set(columns) <= set(rows.columns):
        return None
    return rows[columns].assign(image=rows["image"].map(_image_name)).replace({"": None, "unknown": None})


def describe_table(table: pd.DataFrame) -> str:
    """How many rows are used and how, and why not, as lines for the console."""
    lines = [
        f"{len(table)} rows: " + ", ".join(f"{n} {status}" for status, n in table["status"].value_counts().items())
    ]
    reasons = table.loc[table["reason"] != "", ["status", "reason"]]
    kinds = reasons["reason"].str.split("(", n=1).str[0].str.strip()
    for (status, kind), members in reasons.groupby([reasons["status"], kinds]):
        examples = ", ".join(table.loc[members.index[:3], "image"])
        lines.append(f"  {len(members):5} {status}: {kind} (e.g. {examples})")
    return "\n".join(lines)


def has_mask(table: pd.DataFrame) -> np.ndarray:
    """Which rows have a mask: (N,) bool."""
    return (table["status"] == USED).to_numpy()
