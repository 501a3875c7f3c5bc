"""What main.py would make of a data folder, and what to do about each problem; nothing is changed there."""

import re
import shutil
import tempfile
from pathlib import Path

import pandas as pd

from dataset.cache import decode_table, record_bytes
from dataset.classes import classes_of
from dataset.layout import find
from dataset.splits import describe_split, split_by_image, split_table
from dataset.table import LESION_FILES, SPLITS, describe_table, has_mask, read_table, usable

# What a user can do about each reason for which a row is not used as it is; keys are how the reasons begin.
ADVICE = {
    "image is missing": "put the file into images/, under the name in the CSV",
    "mask is missing": "put it into masks/ as <image>_segmentation.png; without, the row serves labels only",
    "image:": "get the file again",
    "mask:": "get the mask again; without, the row serves labels only",
    "mask is empty": "nothing, if there is no lesion to see; it counts as outline of nothing",
    "mask is full": "nothing, if the lesion fills the picture; else get the mask again",
    "mask has gray values": "nothing; they are cut at one half",
    "image is turned": "look at the overlay: a mask drawn on the stored pixels lies wrong; store both upright",
    "conflicting labels": "decide for one class in the CSV",
    "duplicate row": "nothing; the first one is used",
    "no diagnosis": "nothing, if outlines are all that is to be learned",
    "labelled ": "nothing, if the class is not to be learned",
    "label is empty": "write the class into the row",
    "labels are not": "put a 1 into the column of the class and 0 into the others",
    "unsafe name": "rename the image: a name without / \\ : .. and line breaks",
    "empty name": "fill in the image's name",
}


def check(folder: Path, image_size: int) -> str:
    """What main.py would find in a data folder, in words; every image is decoded, and nothing is changed there.

    Raises
    ------
    FileNotFoundError, ValueError : nothing can be done with the folder; says what to do.
    """
    layout = find(folder)
    table = read_table(layout)
    with tempfile.TemporaryDirectory() as cache:
        table, _ = decode_table(table, folder, 32, cache)
    lines = [f"{folder}: {layout.describe()}.", describe_table(table)]
    reasons = table.loc[table["reason"] != "", "reason"]
    for start, advice in ADVICE.items():
        if n := reasons.str.contains(rf"(?:^|; ){re.escape(start)}").sum():
            lines.append(f"  {n:5} x {start.rstrip(':')}: {advice}")
    used = usable(table)
    lines.append("\n" + _counts(used).to_string())
    lines.append(_lesions(used, folder))
    lines += _split(table)
    if not has_mask(table).any():
        lines.append("Masks: none that can be used, so only the classifier can be trained.")
    on_disk, on_gpu = len(used) * record_bytes(image_size), len(used) * image_size**2 * 4
    free = shutil.disk_usage(folder).free
    lines.append(
        f"At {image_size}x{image_size} pixels the cache takes {on_disk / 1e9:.2f} GB of disk in --cache-dir "
        f"({free / 1e9:.1f} GB are free on the disk of this folder), and {on_gpu / 1e9:.2f} GB of a GPU's memory, "
        "where it fits."
    )
    return "\n".join(lines)


def _counts(used: pd.DataFrame) -> pd.DataFrame:
    """Images, lesions and masks per class."""
    code, classes = used["label"].astype(object).fillna("no diagnosis"), classes_of(used) or ("no diagnosis",)
    groups = used.assign(mask=has_mask(used)).groupby(code)
    counts = groups.agg(images=("image", "size"), lesions=("lesion_id", "nunique"), masks=("mask", "sum"))
    counts = counts.reindex(classes, fill_value=0)
    counts.loc["all"] = counts.sum()
    counts.index.name = None
    return counts


def _lesions(used: pd.DataFrame, folder: Path) -> str:
    known = used.loc[used["lesion_known"], "lesion_id"]
    if len(known):
        some = f" of {len(known)} of the {len(used)} images" if len(known) < len(used) else ""
        return (
            f"Lesion ids: yes{some}, {known.nunique()} lesions; a lesion's photographs stay in one part of the split."
        )
    return (
        f"Lesion ids: none. If lesions were photographed several times, put {' or '.join(LESION_FILES)}, or a CSV with "
        f"the columns image and lesion_id, into {folder}, or the scores will be too good."
    )


def _split(table: pd.DataFrame) -> list[str]:
    options = {"val_fraction": 0.15, "test_fraction": 0.15, "seed": 42}  # main.py's defaults
    try:
        split = split_table(table, **options)
    except ValueError as error:
        return [f"Split: not possible. {error}"]
    parts = ", ".join(f"{(split == name).sum()} {name}" for name in SPLITS)
    return [f"Split: {parts}", describe_split(table.assign(split=split), split_by_image(table, **options))]
