"""What main.py would make of a data folder, and what to do about each problem; nothing is changed there."""

import shutil
import tempfile
from pathlib import Path

import pandas as pd

from dataset.cache import decode_table
from dataset.splits import describe_split, split_table
from dataset.table import CLASSES, LEFT_OUT, LESION_FILES, SPLITS, USED, describe_table, find_csv, read_table

# What a user can do about each reason for which a row is not used as it is; keys are how the reasons begin.
ADVICE = {
    "image is missing": "put the file into images/, under the name in the CSV",
    "mask is missing": "put it into masks/ as <image>_segmentation.png; without, the row serves classification only",
    "image:": "get the file again",
    "mask:": "get the mask again; without, the row serves classification only",
    "mask is empty": "nothing, if there is no lesion to see; it counts as outline of nothing",
    "mask has gray values": "nothing; they are cut at one half",
    "conflicting labels": "decide for one class in the CSV",
    "duplicate row": "nothing; the first one is used",
    "labels are not": "put a 1 into the column of the class and 0 into the others",
    "unsafe name": "rename the image: a name without / \\ : and ..",
    "empty name": "fill in the image's name",
}


def check(folder: Path, image_size: int) -> str:
    """What main.py would find in a data folder, in words; every image is decoded, and nothing is changed there.

    Raises
    ------
    FileNotFoundError, ValueError : nothing can be done with the folder; says what to do.
    """
    table = read_table(folder)
    with tempfile.TemporaryDirectory() as cache:
        table, _ = decode_table(table, folder, 32, cache)
    lines = [f"{find_csv(folder)}", describe_table(table)]
    reasons = table.loc[table["reason"] != "", "reason"]
    for start, advice in ADVICE.items():
        if n := reasons.str.startswith(start).sum():
            lines.append(f"  {n:5} x {start.rstrip(':')}: {advice}")
    usable = table[table["status"] != LEFT_OUT]
    lines.append("\n" + _counts(usable).to_string())
    lines.append(_lesions(usable, folder))
    lines += _split(table)
    if (table["status"] != USED).all():
        lines.append("Masks: none that can be used, so only the classifier can be trained.")
    n_bytes = len(usable) * image_size**2 * 4
    free = shutil.disk_usage(folder).free
    lines.append(
        f"At {image_size}x{image_size} pixels the cache takes {n_bytes / 1e9:.2f} GB of disk in --cache-dir "
        f"({free / 1e9:.1f} GB are free on the disk of this folder), and as much of a GPU's memory, where it fits."
    )
    return "\n".join(lines)


def _counts(usable: pd.DataFrame) -> pd.DataFrame:
    """Images, lesions and masks per class."""
    code = usable["label"].map(dict(enumerate(CLASSES)))
    groups = usable.assign(mask=usable["status"] == USED).groupby(code)
    counts = groups.agg(images=("image", "size"), lesions=("lesion_id", "nunique"), masks=("mask", "sum"))
    counts = counts.reindex(CLASSES, fill_value=0)
    counts.loc["all"] = counts.sum()
    counts.index.name = None
    return counts


def _lesions(usable: pd.DataFrame, folder: Path) -> str:
    n_lesions = usable["lesion_id"].nunique()
    if n_lesions < len(usable):
        return f"Lesion ids: yes, {n_lesions} lesions; a lesion's photographs stay in one part of the split."
    if (usable["lesion_id"] != usable["image"]).any():
        return "Lesion ids: yes, one image of each lesion."
    return (
        f"Lesion ids: none. If lesions were photographed several times, put {' or '.join(LESION_FILES)} into "
        f"{folder}, or the scores will be too good."
    )


def _split(table: pd.DataFrame) -> list[str]:
    options = {"val_fraction": 0.15, "test_fraction": 0.15, "seed": 42}  # main.py's defaults
    try:
        split = split_table(table, **options)
    except ValueError as error:
        return [f"Split: not possible. {error}"]
    parts = ", ".join(f"{(split == name).sum()} {name}" for name in SPLITS)
    return [f"Split: {parts}", describe_split(table.assign(split=split), **options)]
