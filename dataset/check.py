"""What main.py would make of a data folder, and what to do about each problem; nothing is changed there."""

import re
import shutil
import tempfile
from pathlib import Path

import pandas as pd

from dataset.cache import record_bytes
from dataset.classes import classes_of
from dataset.prepare import Reading, decode, split
from dataset.splits import heads_in_all_parts
from dataset.table import LESION_FILES, has_mask, usable

# What a user can do about each reason for which a row is not used as it is; keys are how the reasons begin.
ADVICE = {
    "image is missing": "put the file into images/, under the name in the CSV",
    "mask is missing": "put it into masks/ as <image>_segmentation.png; without, the row serves labels only",
    "image:": "get the file again",
    "mask: mask is": "get the mask of this very image; masks that were stretched to a square: --stretch-masks",
    "mask:": "get the mask again; without, the row serves labels only",
    "mask is empty": "nothing, if there is no lesion to see; it counts as a mask of nothing",
    "mask is full": "nothing, if the lesion fills the image; else get the mask again",
    "mask is lesion along all four borders": "look at it: if the lesion is black in it, exchange black and white",
    "mask has gray values": "nothing; they are cut at half of their range",
    "mask has several values": "nothing, if all of them but the lowest, and 255 beside small ones, are lesion",
    "image is turned": "look at the overlay: a mask drawn on the stored pixels lies wrong; store both upright",
    "conflicting labels": "decide for one class in the table, or keep the file in one folder only",
    "duplicate row": "nothing; the first one is used",
    "no diagnosis": "nothing, if masks are all that is to be learned",
    "labelled ": "nothing, if the class is not to be learned",
    "label is empty": "write the class into the row",
    "labels are not": "put a 1 into the column of the class and 0 into the others",
    "in no part": "write train, val or test into its row of the split, or pass --split-file none",
    "unsafe name": "rename the image: a name without / \\ : .. and line breaks",
    "empty name": "fill in the image's name",
}


def check(folder: Path, image_size: int = 224, reading: Reading | None = None) -> tuple[str, str]:
    """What main.py would find in a data folder, in words, and why a run would stop: "" if it would train.

    Every image is decoded, and nothing is changed there.

    Raises
    ------
    FileNotFoundError, ValueError : a run would refuse the folder before it decodes; says what to do.
    """
    reading, lines, problem = reading or Reading(), [], ""
    with tempfile.TemporaryDirectory() as cache:
        decoded = decode(folder, reading, image_size=32, cache_dir=cache, say=lines.append)
        lines += describe(decoded.table, folder, image_size)
        try:
            table = split(decoded, reading, say=lines.append).table
            if not heads_in_all_parts(table).any():
                problem = "Each part of the split needs masks, or diagnoses of two classes or more."
        except ValueError as error:
            problem = str(error)
        decoded.pixels.close()  # Windows deletes no file that is open
    return "\n".join(lines), problem and f"A run would stop here. {problem}"


def describe(table: pd.DataFrame, folder: Path, image_size: int) -> list[str]:
    """Advice on each reason, counts, and what the images take at this size."""
    reasons, lines = table.loc[table["reason"] != "", "reason"], []
    left = reasons
    for start, advice in ADVICE.items():
        begins = left.str.contains(rf"(?:^|; ){re.escape(start)}")
        if n := begins.sum():
            lines.append(f"  {n:5} x {start.rstrip(':')}: {advice}")
        if start.startswith("mask: "):  # more is known of these than that the mask is bad
            left = left[~begins]
    used = usable(table)
    lines += [f"\n{_counts(used).to_string()}", _lesions(used, folder)]
    if not has_mask(table).any():
        lines.append("Masks: none that can be used, so only the classifier can be trained.")
    on_disk, on_gpu = len(used) * record_bytes(image_size), len(used) * image_size**2 * 4
    free = shutil.disk_usage(folder).free
    lines.append(
        f"At {image_size}x{image_size} pixels the cache takes {on_disk / 1e9:.2f} GB of disk in --cache-dir "
        f"({free / 1e9:.1f} GB are free on the disk of this folder), and {on_gpu / 1e9:.2f} GB of a GPU's memory, "
        "where it fits."
    )
    return lines


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
    patients = used["patient_id"].dropna()
    of_patients = (
        f" Patient ids: {patients.nunique()}; a patient's images stay in one part too." if len(patients) else ""
    )
    if len(known):
        some = f" of {len(known)} of the {len(used)} images" if len(known) < len(used) else ""
        return (
            f"Lesion ids: yes{some}, {known.nunique()} lesions; a lesion's photographs stay in one part of the split."
            f"{of_patients}"
        )
    if len(patients):
        return f"Lesion ids: none.{of_patients}"
    return (
        f"Lesion ids: none. If lesions were photographed several times, put {' or '.join(LESION_FILES)}, or a CSV with "
        f"the columns image and lesion_id or patient_id, into {folder}, or the scores will be too good."
    )
