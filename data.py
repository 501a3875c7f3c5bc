"""CSV and folders -> checked table -> splits -> decoded cache -> batches on the device.

A batch is a dict, here and everywhere else (N images, H x W pixels):

=======  ============  ==================================================================
key      shape         dtype, range
=======  ============  ==================================================================
image    (N, 3, H, W)  float, (pixel / 255 - MEAN) / STD by channel, channels_last memory
label    (N,)          int64 in [0, 7), in the order of `CLASSES`
mask     (N, 1, H, W)  float in {0, 1}
=======  ============  ==================================================================

The table is a DataFrame with one row for each row of GroundTruth.csv: image, label, lesion_id, status (one of
`USED`, `LABEL_ONLY`, `LEFT_OUT`), reason, image_path, mask_path.
"""

import hashlib
import io
import json
import mmap
import os
import time
import unicodedata
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

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
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, RGB
SPLITS = ("train", "val", "test")
USED, LABEL_ONLY, LEFT_OUT = "used", "classification only", "left out"

ORIENTATION = 0x0112  # the EXIF tag
SUFFIXES = (".jpg", ".jpeg", ".png")
LESION_FILES = ("HAM10000_metadata.csv", "ISIC2018_Task3_Training_LesionGroupings.csv")
MAX_PIXELS = 100_000_000  # a larger image is taken for a decompression bomb
ASPECT_TOLERANCE = 0.02  # relative; a mask whose aspect is further off belongs to another picture
CACHE_VERSION = 3  # raise when decoding changes
DECODED_AHEAD = 128  # images that may wait to be written
VERDICT = ["row", "image_error", "mask_error", "note", "crc", "digest"]
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")  # decoders that a file may reach, whatever its name

Image.init()  # register the decoders now: Pillow does it at the first use, which threads would race for


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
    rows = _read_csv(csv_path)
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
    _leave_out(table, table["image_path"] == "", "image is missing")
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


def _read_csv(path: Path) -> pd.DataFrame:
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
    _leave_out(table, name == "", "empty name")
    _leave_out(table, name.str.contains(r"[/\\:\0]") | name.isin([".", ".."]), "unsafe name")
    _leave_out(table, labels.isna().any(axis=1), "labels are not numbers")
    _leave_out(table, ~one_hot, "labels are not one-hot")
    valid = table[table["status"] == USED]
    conflict = valid.groupby("image")["label"].transform("nunique") > 1
    _leave_out(table, conflict.reindex(table.index, fill_value=False), "conflicting labels")
    repeated = valid.duplicated("image")
    _leave_out(table, repeated.reindex(table.index, fill_value=False), "duplicate row")


def _leave_out(table: pd.DataFrame, chosen: pd.Series, reason: str) -> None:
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
    source = _read_csv(known[0]) if known else rows
    if not {"image", "lesion_id"} <= set(source.columns):
        return images
    lesions = source[source["lesion_id"] != ""].assign(image=source["image"].map(_image_name))
    return images.map(lesions.drop_duplicates("image").set_index("image")["lesion_id"]).fillna(images)


def read_metadata(data_dir: str | Path) -> pd.DataFrame | None:
    """image, age, sex and localization of each image, as text or None; None altogether if there is no such file."""
    path = Path(data_dir) / LESION_FILES[0]
    if not path.is_file():
        return None
    rows = _read_csv(path)
    columns = ["image", "age", "sex", "localization"]
    if not set(columns) <= set(rows.columns):
        return None
    return rows[columns].assign(image=rows["image"].map(_image_name)).replace({"": None, "unknown": None})


def limit_table(table: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """Leave out all but `limit` usable rows, stratified by class, whole lesions first; 0 keeps all.

    Each class keeps at least ten images (or all it has), so that it can still be split in three.

    Raises
    ------
    ValueError : `limit` is too small for that.
    """
    usable = table[table["status"] != LEFT_OUT]
    if not 0 < limit < len(usable):
        return table
    counts = usable["label"].value_counts().sort_index()
    quota = (counts * limit / len(usable)).round().clip(lower=counts.clip(upper=10)).astype(int)
    quota[quota.idxmax()] -= quota.sum() - limit
    if (quota < counts.clip(upper=10)).any():
        raise ValueError(f"--limit {limit} is too few for {len(counts)} classes of ten images; use {20 * len(counts)}.")
    lesions = np.random.default_rng((seed, 1)).permutation(usable["lesion_id"].unique())
    shuffled = usable["lesion_id"].map(pd.Series(range(len(lesions)), index=lesions)).sort_values(kind="stable").index
    nth = usable.loc[shuffled].groupby("label").cumcount()
    kept = shuffled[nth < usable.loc[shuffled, "label"].map(quota)]
    table = table.copy()
    _leave_out(table, ~table.index.isin(kept), "beyond --limit")
    return table


def split_table(
    table: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int, group_by_lesion: bool = True
) -> pd.Series:
    """Deal the usable rows to train, val and test; "" for rows left out.

    Within each class, lesions are shuffled, sorted by their number of images and dealt one by one to the part that
    is furthest behind its share. So each part gets its share of the lesions of each class, to within one lesion, and
    its share of the harder lesions that were photographed several times.

    Raises
    ------
    ValueError : a class has fewer than three lesions (or images, if not grouped); names it and the choices.
    """
    usable = table[table["status"] != LEFT_OUT].sort_values("image")
    if usable.empty:
        raise ValueError("No image can be used; data_report.csv gives each one's reason.")
    lesion = usable["lesion_id"] if group_by_lesion else usable["image"]
    lesions = usable.groupby(lesion)["label"].agg(label=lambda labels: labels.mode()[0], n_images="size")
    lesions = lesions.sample(frac=1, random_state=seed).sort_values("n_images", ascending=False, kind="stable")
    shares = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    part = pd.Series("", index=lesions.index)
    for label, members in lesions.groupby("label"):
        if len(members) < len(SPLITS):
            raise ValueError(_too_few(CLASSES[label], len(members), usable, label, group_by_lesion))
        dealt = dict.fromkeys(SPLITS, 0)
        for i, name in enumerate(members.index, start=1):
            # An empty part goes first, so that the smallest classes reach all three.
            behind = max(SPLITS, key=lambda split: (dealt[split] == 0, shares[split] * i - dealt[split]))
            dealt[behind] += 1
            part[name] = behind
    return lesion.map(part).reindex(table.index, fill_value="")


def _too_few(code: str, n_lesions: int, usable: pd.DataFrame, label: int, grouped: bool) -> str:
    n_images = int((usable["label"] == label).sum())
    what = f"{n_lesions} lesion(s), {n_images} image(s)" if grouped else f"{n_images} image(s)"
    ungroup = ", pass --no-group-by-lesion (its images then leak between the parts)" if grouped and n_images > 2 else ""
    return (
        f"Class {code} ({CLASS_NAMES[code]}) has {what}: too few for train, validation and test, which need one each. "
        f"Add images, raise --limit if it is set{ungroup}, or remove the class's rows from GroundTruth.csv."
    )


def n_leaked(table: pd.DataFrame, split: pd.Series) -> int:
    """How many test images share a lesion with a training image."""
    train_lesions = set(table.loc[split == "train", "lesion_id"])
    return int(table.loc[split == "test", "lesion_id"].isin(train_lesions).sum())


def split_hash(table: pd.DataFrame) -> str:
    """Identifies what was learned from: names, labels, parts and decoded pixels, whatever folder they lie in."""
    rows = table.sort_values("image")[["image", "label", "split", "status", "crc"]]
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()[:16]


def describe(table: pd.DataFrame) -> str:
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


def describe_split(table: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int) -> str:
    """Absent classes, and what a split by image would leak or does, as lines for the console."""
    by_image = split_table(table, val_fraction, test_fraction, seed, group_by_lesion=False)
    leaked, n_test = n_leaked(table, by_image), (by_image == "test").sum()
    lines = [
        f"Class {code} ({CLASS_NAMES[code]}) has no image: nothing is learned or measured for it."
        for i, code in enumerate(CLASSES)
        if not (table.loc[table["split"] != "", "label"] == i).any()
    ]
    lines.append(
        f"Split by image, {leaked} of {n_test} test images ({leaked / n_test:.1%}) would have had a sibling of "
        f"the same lesion in train; in this split, {n_leaked(table, table['split'])} have."
    )
    return "\n".join(lines)


def class_table(table: pd.DataFrame) -> pd.DataFrame:
    """Images per class and part, with totals."""
    used = table[table["split"] != ""]
    counts = pd.crosstab(used["label"].map(dict(enumerate(CLASSES))), used["split"])
    counts = counts.reindex(index=CLASSES, columns=SPLITS, fill_value=0)
    counts["all"] = counts.sum(axis=1)
    counts.loc["all"] = counts.sum()
    counts.index.name = counts.columns.name = None
    return counts


def read_image(source: str | Path | bytes, size: int | tuple[int, int]) -> Image.Image:
    """Decode a file, or its content, to upright RGB (bilinear, antialiased, aspect not kept).

    Parameters
    ----------
    size : side of a square, or (width, height).

    Raises
    ------
    OSError : the file cannot be read.
    ValueError : not an image, truncated, or of more than `MAX_PIXELS`; says which.
    """
    return _decode(_content(source), size)[0]


def read_image_and_size(source: str | Path | bytes, size: int) -> tuple[Image.Image, tuple[int, int]]:
    """As `read_image`, and the upright picture's own (width, height)."""
    return _decode(_content(source), size)[:2]


def read_native_mask(image_path: str | Path, mask_path: str | Path) -> np.ndarray:
    """A lesion mask (H, W) bool at the mask file's own size, upright as its image. Raises as `read_image`."""
    with Image.open(image_path, formats=FORMATS) as image:  # reads no more than the header
        orientation = image.getexif().get(ORIENTATION, 1)
        image_size = image.size[::-1] if orientation >= 5 else image.size
    gray, lesion_from, _ = _decode_mask(_content(mask_path), image_size, orientation)
    return np.asarray(gray) >= lesion_from


def load_image(path: str | Path, size: int) -> torch.Tensor:
    """One picture as a batch of one: (1, 3, `size`, `size`), normalised. Raises as `read_image`."""
    return normalise(torch.from_numpy(np.array(read_image(path, size)))[None])


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float as the batch's ``image``."""
    scale, shift = _scale_and_shift(pixels.device)
    return torch.addcmul(shift, pixels.float(), scale).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _scale_and_shift(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(p / 255 - MEAN) / STD as p * scale + shift, by channel."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (1 / (255 * std)).to(device), (-mean / std).to(device)


def _content(source: str | Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _open(content: bytes, size: tuple[int, int] | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The picture (a JPEG twice as large as `size` at less) and its own size; every failure becomes a ValueError."""
    if not content:
        raise ValueError("file is empty")
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        own_size = picture.size
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if size:
            picture.draft(None, size)  # a JPEG's own way of halving, while both sides stay at least as long
        picture.load()
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ValueError(f"not an image of a known kind ({', '.join(FORMATS)})") from None
    except Exception as error:  # codecs raise OSError, SyntaxError, zlib.error, ... on damaged files
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from None
    return picture, own_size


def _eight_bit(picture: Image.Image) -> Image.Image:
    """16-bit grays, which Pillow would clip, scaled to 8 bits; other modes as they are."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture).astype(np.float32) / 257).clip(0, 255).astype(np.uint8))
    return picture


def _decode(content: bytes, size: int | tuple[int, int]) -> tuple[Image.Image, tuple[int, int], int]:
    """Upright RGB at `size`, the upright picture's own size, and the file's EXIF orientation."""
    size = (size, size) if isinstance(size, int) else size
    picture, own_size = _open(content, (max(size), max(size)))  # not yet upright: either side may be the longer
    orientation = picture.getexif().get(ORIENTATION, 1)
    own_size = own_size[::-1] if orientation >= 5 else own_size
    picture = ImageOps.exif_transpose(_eight_bit(picture))
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB").resize(size, Image.Resampling.BILINEAR), own_size, orientation


def _decode_mask(content: bytes, image_size: tuple[int, int], orientation: int) -> tuple[Image.Image, int, str]:
    """Gray picture, the value from which it is lesion, and a note on what was odd about it.

    Two values mean background and lesion, whatever they are; more are cut at 128 of 255, as the organisers do.
    """
    picture = _eight_bit(ImageOps.exif_transpose(_open(content)[0]))
    if orientation >= 5 and not _same_aspect(picture.size, image_size):
        picture = picture.transpose(_TURNS[orientation])  # drawn on the file's pixels, not on the upright picture
    if not _same_aspect(picture.size, image_size):
        raise ValueError(f"mask is {picture.width}x{picture.height}, image {image_size[0]}x{image_size[1]}")
    gray = picture if picture.mode == "L" else picture.convert("RGB").convert("L")
    values = np.flatnonzero(gray.histogram())
    lesion_from = values[-1] if len(values) <= 2 and values[-1] else 129
    is_empty = values[-1] < lesion_from
    return gray, lesion_from, "mask is empty" if is_empty else "mask has gray values" if len(values) > 2 else ""


_TURNS = {  # EXIF orientations that exchange width and height
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) <= ASPECT_TOLERANCE


def _decode_row(image_path: str, mask_path: str, size: int) -> tuple[np.ndarray, dict]:
    """RGB and mask as (size, size, 4) uint8, and the verdicts on both files."""
    picture, lesion = Image.new("RGB", (size, size)), Image.new("L", (size, size))
    verdict = {"image_error": "", "mask_error": "", "note": "", "digest": ""}
    try:
        content = _content(image_path)
        verdict["digest"] = hashlib.blake2b(content, digest_size=8).hexdigest()
        picture, picture_size, orientation = _decode(content, size)
    except (ValueError, OSError) as error:
        verdict["image_error"] = f"image: {error}"
    if mask_path and not verdict["image_error"]:
        try:
            gray, lesion_from, verdict["note"] = _decode_mask(_content(mask_path), picture_size, orientation)
            small = np.asarray(gray.resize((size, size), Image.Resampling.NEAREST))
            lesion = Image.fromarray((small >= lesion_from) * np.uint8(255))
        except (ValueError, OSError) as error:
            verdict["mask_error"] = f"mask: {error}"
    picture.putalpha(lesion)
    pixels = np.asarray(picture)
    return pixels, verdict | {"crc": zlib.crc32(pixels)}


def decode_table(
    table: pd.DataFrame, data_dir: str | Path, image_size: int, cache_dir: str | Path
) -> tuple[pd.DataFrame, np.ndarray]:
    """Decode every usable row once, in parallel, into a cache on disk that later runs share.

    A file is decoded again only if its size or times have changed. A new cache is written beside the old one and takes
    its place when whole, so a run that is killed, or two at once, do no harm.

    Returns
    -------
    table : with new columns ``row`` (in the cache, -1 for none), ``crc`` (of the pixels) and ``digest`` (of the image
        file), and the verdicts in status and reason.
    pixels : (n_rows, image_size, image_size, 4) uint8, memory-mapped: RGB, then the mask in {0, 255}.

    Raises
    ------
    OSError : the cache cannot be written.
    """
    usable = table[table["status"] != LEFT_OUT]
    keys = [f"{_signature(image)}|{_signature(mask)}" for image, mask in zip(usable["image_path"], usable["mask_path"])]
    place = hashlib.sha256(os.path.realpath(data_dir).encode()).hexdigest()[:8]
    folder = Path(cache_dir) / f"{Path(data_dir).resolve().name}-{image_size}px-v{CACHE_VERSION}-{place}"
    shape = (image_size, image_size, 4)
    index = _read_index(folder, shape)
    if not index["rows"].keys() >= set(keys):
        index = _write_cache(folder, index, usable, keys, shape)
    pixels = _map_pixels(folder, index, shape)
    verdicts = pd.DataFrame([index["rows"][key] for key in keys], index=usable.index, columns=VERDICT)
    return _judge(table.assign(row=-1, crc=0, digest=""), verdicts), pixels


def _judge(table: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Turn what decoding found into status and reason."""
    table.loc[verdicts.index, ["row", "crc"]] = verdicts[["row", "crc"]].astype("int64")
    table.loc[verdicts.index, "digest"] = verdicts["digest"]
    for column, status in (("note", USED), ("mask_error", LABEL_ONLY), ("image_error", LEFT_OUT)):
        found = verdicts.index[verdicts[column] != ""]
        table.loc[found, "status"] = status
        table.loc[found, "reason"] = verdicts.loc[found, column]
    return table


def _signature(path: str) -> str:
    """Changes when the file does; "" for no file."""
    if not path:
        return ""
    status = os.stat(path)
    return f"{os.path.realpath(path)}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _read_index(folder: Path, shape: tuple[int, ...]) -> dict:
    """A cache's pixel file and its verdicts by signature; empty if there is none or it is damaged."""
    try:
        index = json.loads((folder / "index.json").read_text())
        whole = (folder / index["file"]).stat().st_size == len(index["rows"]) * np.prod(shape)
    except (OSError, ValueError, KeyError):
        whole = False
    return index if whole else {"file": "", "rows": {}}


def _write_cache(folder: Path, old: dict, usable: pd.DataFrame, keys: list[str], shape: tuple[int, ...]) -> dict:
    """Write a whole new pixel file, taking over the rows that are still right, and then its index."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.partial"):  # of a killed run, unless another is writing it now
        if path.stat().st_mtime < time.time() - 3600:
            path.unlink(missing_ok=True)
    old_pixels = _map_pixels(folder, old, shape)
    paths = dict(zip(keys, zip(usable["image_path"], usable["mask_path"])))
    kept = [key for key in keys if key in old["rows"]]
    missing = [key for key in paths if key not in old["rows"]]
    new = {"file": f"pixels-{os.getpid()}-{os.urandom(4).hex()}.u8", "rows": {}}
    partial = folder / (new["file"] + ".partial")
    try:
        with partial.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata
            for key in kept:
                file.write(old_pixels[old["rows"][key]["row"]].tobytes())
                new["rows"][key] = old["rows"][key] | {"row": len(new["rows"])}
            progress = tqdm(total=len(missing), desc="Checking and decoding images", unit="image", disable=None)
            decoded = map_ahead(pool, lambda key: _decode_row(*paths[key], shape[0]), missing, DECODED_AHEAD)
            for key, (pixels, verdict) in zip(missing, decoded):
                file.write(pixels)
                new["rows"][key] = {"row": len(new["rows"])} | verdict
                progress.update()
            progress.close()
        partial.rename(folder / new["file"])
        (folder / "index.partial").write_text(json.dumps(new))
        os.replace(folder / "index.partial", folder / "index.json")
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if old["file"]:
        (folder / old["file"]).unlink(missing_ok=True)
    return new


def map_ahead(pool: ThreadPoolExecutor, function: Callable, items: Iterable, n_ahead: int) -> Iterator:
    """`map` in a pool, in order; at most `n_ahead` results are computed before they are asked for."""
    waiting: deque[Future] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > n_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _map_pixels(folder: Path, index: dict, shape: tuple[int, ...]) -> np.ndarray:
    """The pixel file as an array; numpy cannot map an empty file."""
    if not index["rows"]:
        return np.zeros((0, *shape), np.uint8)
    return np.memmap(folder / index["file"], np.uint8, "r").reshape(-1, *shape)


def to_device(pixels: np.ndarray, device: torch.device) -> np.ndarray | torch.Tensor:
    """The pixels in the GPU's own memory where they take at most half of what is free; else as they are."""
    if device.type == "cuda" and pixels.nbytes <= torch.cuda.mem_get_info(device)[0] / 2:
        return torch.from_numpy(np.array(pixels)).to(device)
    return pixels


def to_host(pixels: np.ndarray | torch.Tensor) -> np.ndarray:
    """The pixels as an array, from wherever they are."""
    return pixels.cpu().numpy() if isinstance(pixels, torch.Tensor) else pixels


class Batches:
    """Batches of one part of the table, on the device; the same ones for the same (seed, epoch), whatever was before.

    Parameters
    ----------
    pixels : (n_rows, H, W, 4) uint8, from `decode_table` (then read ahead by a thread) or `to_device`.
    table : the rows to draw from, with columns ``row`` and ``label``.
    batch_size : images a batch at most, over all processes; an epoch's batches are equal to within one image.
    seed : shuffle and augment by it; None keeps the table's order, as evaluation needs.
    augment : "none", or "turns": each image in one of its eight flips and quarter turns.
    rank, n_ranks : this process and their number; each batch is dealt out among them.

    Raises
    ------
    ValueError : a batch has fewer images than there are processes.
    """

    def __init__(
        self,
        pixels: np.ndarray | torch.Tensor,
        table: pd.DataFrame,
        batch_size: int,
        *,
        device: str | torch.device = "cpu",
        seed: int | None = None,
        augment: str = "none",
        rank: int = 0,
        n_ranks: int = 1,
    ) -> None:
        self.pixels, self.table, self.device = pixels, table, torch.device(device)
        rows = torch.tensor(table["row"].to_numpy(np.int64))
        self.rows = rows.to(pixels.device) if isinstance(pixels, torch.Tensor) else rows
        self.labels = torch.tensor(table["label"].to_numpy(np.int64)).to(device)
        self.seed, self.augment, self.rank, self.n_ranks = seed, augment, rank, n_ranks
        self.n_images = len(self.rows)
        self.sizes = [len(part) for part in np.array_split(rows, -(-self.n_images // batch_size))]
        if min(self.sizes) < n_ranks:
            raise ValueError(f"Batches of {min(self.sizes)} images cannot be dealt out among {n_ranks} processes.")

    def subset(self, positions: Sequence[int]) -> "Batches":
        """These images of the table, in this order, as one batch."""
        return Batches(self.pixels, self.table.iloc[positions], len(positions), device=self.device)

    def whole(self) -> "Batches":
        """The same images, all of them in this process and in the table's order."""
        return Batches(self.pixels, self.table, max(self.sizes), device=self.device)

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """All images (N, H, W, 3) uint8 and masks (N, H, W) bool, for drawing."""
        pixels = self._gather(self.rows).cpu().numpy()
        return pixels[..., :3], pixels[..., 3] > 0

    def __len__(self) -> int:
        return len(self.sizes)

    def epoch(self, epoch: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        """All images once; with several ranks, this one's share of each batch."""
        order, codes = torch.arange(self.n_images), torch.zeros(self.n_images, dtype=torch.int64)
        if self.seed is not None:
            rng = np.random.default_rng((self.seed, epoch))
            order = torch.from_numpy(rng.permutation(self.n_images))
            codes = torch.from_numpy(rng.integers(8, size=self.n_images))
        rows = [part[self.rank :: self.n_ranks] for part in self.rows[order.to(self.rows.device)].split(self.sizes)]
        # Order and codes go to the device once an epoch: a copy a step would make it wait.
        parts = torch.stack([order, codes]).to(self.device).split(self.sizes, dim=1)
        for pixels, part in zip(self._read_ahead(rows), parts):
            chosen, code = part[:, self.rank :: self.n_ranks]
            if self.augment == "turns":
                pixels = turn(pixels, code)
            yield {
                "image": normalise(pixels[..., :3]),
                "label": self.labels[chosen],
                "mask": pixels[..., 3].gt(0).float().unsqueeze(1),
            }

    def _read_ahead(self, parts: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Gather each part's pixels, two steps ahead in a thread where they come from the disk."""
        if isinstance(self.pixels, torch.Tensor):
            yield from map(self._gather, parts)
            return
        with ThreadPoolExecutor(1) as reader:
            for pixels in map_ahead(reader, self._gather, parts, 2):
                yield pixels.to(self.device, non_blocking=True)

    def _gather(self, rows: torch.Tensor) -> torch.Tensor:
        if isinstance(self.pixels, torch.Tensor):
            return self.pixels[rows]
        pixels = torch.from_numpy(np.asarray(self.pixels[rows.numpy()]))
        if isinstance(self.pixels, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
            # Or every page ever read would count as this process's memory.
            self.pixels._mmap.madvise(mmap.MADV_DONTNEED)
        return pixels.pin_memory() if self.device.type == "cuda" else pixels


def turn(pixels: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Turn square images (N, S, S, 4) uint8, each by its code (N,): code % 4 quarter turns, then a flip if code > 3."""
    n, size = pixels.shape[:2]
    packed = pixels.contiguous().view(torch.int32).view(n, size * size)  # a pixel's four bytes move as one word
    return packed.gather(1, _turned_places(size, pixels.device)[codes]).view(torch.uint8).view(pixels.shape)


@lru_cache(maxsize=8)
def _turned_places(size: int, device: torch.device) -> torch.Tensor:
    """(8, size * size): for each code, where each pixel of the turned image comes from."""
    places = torch.arange(size * size).view(size, size)
    turns = [torch.rot90(places, k) for k in range(4)]
    return torch.stack([*turns, *(turned.flip(1) for turned in turns)]).flatten(1).to(device)


if __name__ == "__main__":
    import dataset

    dataset.main()
