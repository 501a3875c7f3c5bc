"""Report how main.py would read a data folder, and advise on each problem; the folder is not changed."""

import re
import shutil
import tempfile
from pathlib import Path

import pandas as pd

from dataset.classes import classes_of, is_malignant
from dataset.columns import FURTHER, GROUPED
from dataset.pixelfile import record_bytes
from dataset.prepare import AS_FOUND, USUAL, Reading, Splitting, decode, split
from dataset.room import in_bytes
from dataset.splits import heads_in_all_parts
from dataset.table import LESION_FILES, has_mask, usable

NO_MASK = "mask is missing"
# Advice on each reason why a row is not used as it is, by the start of the reason.
ADVICE = {
    "image is missing": "put the file into images/, under the name in the CSV",
    NO_MASK: "put it into masks/ as <image>_segmentation.png; without it, only the label is used",
    "image:": "download the file again",
    "mask: mask is": "use the mask of this image; if masks were stretched to a square, pass --stretch-masks",
    "mask:": "download the mask again; without it, only the label is used",
    "mask is empty": "nothing, if no lesion is visible; it counts as an empty mask",
    "mask is full": "nothing, if the lesion fills the image; otherwise download the mask again",
    "mask is lesion along all four borders": "inspect it; if its lesion is black, invert it",
    "mask has gray values": "nothing; they are thresholded at half of their range",
    "mask has several values": "nothing, if all values are lesion except the lowest, and 255 beside small ones",
    "image is rotated": "check the overlay; if the mask is misaligned, store both upright",
    "conflicting labels": "keep one class in the table, or keep the file in one folder only",
    "duplicate row": "nothing; the first row is used",
    "no diagnosis": "nothing, if only masks are to be learned",
    "labelled ": "nothing, if this class is not to be learned",
    "label is empty": "enter the class in the row",
    "labels are not": "put 1 into the column of the class and 0 into the others",
    "in no part": "write train, val or test into its row of the split, or pass --split-file none",
    "unsafe name": "rename the image: a name without / \\ : .. and line breaks",
    "empty name": "fill in the image's name",
}


def check(
    folder: Path, image_size: int = 224, reading: Reading = AS_FOUND, splitting: Splitting = USUAL
) -> tuple[str, str]:
    """Report on a data folder, and the reason why a run would stop: "" if it would train.

    Every image is decoded; the folder is not changed.

    Raises
    ------
    FileNotFoundError, ValueError : a run would stop before decoding; says what to do.
    """
    lines, problem = [], ""
    with tempfile.TemporaryDirectory() as cache:
        decoded = decode(folder, reading, image_size=32, cache_dir=cache, say=lines.append)
        lines += advice_on(decoded.table, folder, image_size)
        try:
            table = split(decoded, reading, splitting, say=lines.append).table
            if not heads_in_all_parts(table).any():
                problem = "Each part of the split needs masks, or diagnoses of at least two classes."
        except ValueError as error:
            problem = str(error)
        decoded.pixels.close()  # Windows cannot delete an open file
    return "\n".join(lines), problem and f"A run would stop here. {problem}"


def advice_on(table: pd.DataFrame, folder: Path, image_size: int) -> list[str]:
    """Advice on each reason, counts, and the memory that the images need at this size."""
    left, lines = table.loc[table["reason"] != "", "reason"], []
    used, any_masks = usable(table), (table["mask_path"] != "").any()
    for start, advice in ADVICE.items():
        begins = left.str.contains(rf"(?:^|; ){re.escape(start)}")
        if (n := begins.sum()) and (any_masks or start != NO_MASK):  # without any, a line below says so
            lines.append(f"  {n:5} x {start.rstrip(':')}: {advice}")
        if start.startswith("mask: "):  # already counted more precisely than as "mask:"
            left = left[~begins]
    lines += [f"\n{_counts(used).to_string()}", _lesions(used, folder), *_details(used)]
    if not has_mask(used).any():
        lines.append("No usable masks: only the classifier can be trained. Masks are masks/<image>_segmentation.png.")
    on_disk, on_gpu = len(used) * record_bytes(image_size), len(used) * image_size**2 * 4
    free = shutil.disk_usage(folder).free
    lines.append(
        f"At {image_size}x{image_size} pixels the cache takes {in_bytes(on_disk)} of disk in --cache-dir "
        f"({in_bytes(free)} free on the disk of this folder), and {in_bytes(on_gpu)} of GPU memory if it fits."
    )
    return lines


def _counts(used: pd.DataFrame) -> pd.DataFrame:
    """Images per class; known lesions and masks if there are any."""
    code, classes = used["label"].astype(object).fillna("no diagnosis"), classes_of(used) or ("no diagnosis",)
    known = used["lesion_id"].where(used["lesion_known"])
    groups = used.assign(mask=has_mask(used), lesion=known).groupby(code)
    further = {"lesions": ("lesion", "nunique")} if known.notna().any() else {}
    further |= {"masks": ("mask", "sum")} if has_mask(used).any() else {}
    counts = groups.agg(images=("image", "size"), **further)
    counts = counts.reindex(classes, fill_value=0)
    counts.loc["all"] = counts.sum()
    counts.index.name = None
    return counts


def _details(used: pd.DataFrame) -> list[str]:
    """Which details are known of how many images, and which classes count as malignant."""
    details = [name for name in used if name in GROUPED or name.startswith(FURTHER)]
    known = [f"{name.removeprefix(FURTHER)} ({n} images)" for name in details if (n := used[name].notna().sum())]
    malignant = [code for code in classes_of(used) if is_malignant(code)]
    lines = [f"Subgroups: {', '.join(known)}."] if known else []
    return [*lines, f"Malignant classes: {', '.join(malignant) or 'none'}."] if classes_of(used) else lines


def _lesions(used: pd.DataFrame, folder: Path) -> str:
    known = used.loc[used["lesion_known"], "lesion_id"]
    patients = used["patient_id"].dropna()
    of_patients = (
        f" Patient ids: {patients.nunique()}; images of one patient stay in one part." if len(patients) else ""
    )
    if len(known):
        part = f" of {len(known)} of the {len(used)} images" if len(known) < len(used) else ""
        return (
            f"Lesion ids: yes{part}, {known.nunique()} lesions; images of one lesion stay in one part of the split."
            f"{of_patients}"
        )
    if len(patients):
        return f"Lesion ids: none.{of_patients}"
    return (
        f"Lesion ids: none. If some lesions have several images, put {' or '.join(LESION_FILES)}, or a CSV with "
        f"the columns image and lesion_id or patient_id, into {folder}; otherwise scores will be inflated."
    )
