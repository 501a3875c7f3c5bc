"""Checkpoints -> their numbers on the test set and on another data set; what is fitted for them comes from neither."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from torch import nn

import averaging
import data
import machine
import models
from checkpoints import save
from dataset.cache import PixelFile
from dataset.classes import classes_of, positions_of
from dataset.splits import split_hash
from dataset.table import learnable
from report import results
from report.folder import RunFolder


class OtherSet(NamedTuple):
    """Another data set, to be measured whole."""

    name: str
    table: pd.DataFrame
    pixels: PixelFile
    left_out: str  # how many images show what was learned from, in words


def load_named(names: Sequence[str], folder: RunFolder, image_size: int, table: pd.DataFrame) -> dict[Path, dict]:
    """The checkpoints of these files, which are to be measured as one model into `folder`.

    Raises
    ------
    FileNotFoundError, ValueError : as `models.load_checkpoint`, `refuse_seen` and `averaging.refuse_different`; the
        folder holds a run.
    """
    if names and machine.from_first(folder.holds_a_training):
        raise ValueError(f"{folder.path} holds a run of its own. Name another --output-dir for these measurements.")
    found = {Path(name): machine.from_first(models.load_checkpoint, Path(name)) for name in names}
    for path, checkpoint in found.items():
        refuse_seen(path, checkpoint, image_size, table)
    averaging.refuse_different(found)
    return found


def refuse_seen(path: Path, checkpoint: dict, image_size: int, table: pd.DataFrame) -> None:
    """Raises ValueError for a checkpoint of other classes or image size, or one that may know today's test images."""
    if checkpoint["classes"] != list(classes_of(table)):
        ours, theirs = ", ".join(classes_of(table)) or "none", ", ".join(checkpoint["classes"]) or "none"
        raise ValueError(f"{path} was trained on the classes {theirs}, and the data's are {ours}. Set CLASSES alike.")
    if checkpoint["image_size"] != image_size:
        raise ValueError(f"{path} was trained at --image-size {checkpoint['image_size']}, not {image_size}.")
    if checkpoint.get("split_hash") == split_hash(table):
        return
    seen, test = checkpoint.get("trained_on", {"images": [], "lesions": []}), table[table["split"] == "test"]
    leaking = test.loc[test["image"].isin(seen["images"]) | test["lesion_id"].isin(seen["lesions"]), "image"]
    examples = f", such as {', '.join(leaking[:5])}" if len(leaking) else ""
    raise ValueError(
        f"{path} was trained on another split or other data: {len(leaking)} of today's {len(test)} test images show "
        f"lesions that it was trained on{examples}. Use the settings it was trained with, or train again."
    )


def calibrated(checkpoints: dict[Path, dict], parts: dict, precision: str, tta: bool) -> tuple[nn.Module, dict]:
    """The network of one checkpoint, or the average of several, and what was fitted for it, or is now."""
    model = averaging.build(checkpoints, parts["test"].device, tta)
    first, *others = checkpoints.values()
    known = {} if others else averaging.fitted(first, tta)["calibration"]
    if known and results.is_current(known):
        return model, known
    learned = positions_of(parts["train"].table)
    return model, results.calibrate(model, parts["val"].whole(), precision, learned)


def measure(
    folder: RunFolder,
    task: str,
    checkpoints: dict[Path, dict],
    parts: dict[str, data.Batches],
    other: OtherSet | None,
    *,
    precision: str,
    tta: bool,
    keep: bool,
) -> None:
    """Measure the model of one checkpoint, or the average of several, and write what `results.assess` does.

    Under torchrun every process calls this.

    Parameters
    ----------
    task : names the folders and the pictures.
    checkpoints : what `models.load_checkpoint` returned, by path.
    parts : the split's train, val and test.
    tta : measure the average over the eight flips and quarter turns.
    keep : write into the (one) checkpoint what was fitted, and what the thresholds reached on the test set.

    Raises
    ------
    ValueError : as `averaging.build`.
    """
    if keep and tta:  # predict.py needs what is fitted for the network alone as well
        (checkpoint,) = checkpoints.values()
        checkpoint["calibration"] = calibrated(checkpoints, parts, precision, tta=False)[1]
    model, calibration = calibrated(checkpoints, parts, precision, tta)
    options = {"task": task, "precision": precision, "about": averaging.provenance(checkpoints, tta)}

    def assess_on(batches: data.Batches, place: RunFolder, images: str) -> dict | None:
        found = results.assess(model, batches, calibration, place, **options)
        if found:
            print(results.console_table(f"{task}, {images}", found), flush=True)
        return found

    if (found := assess_on(parts["test"], folder.below(task), "test set")) and keep:
        ((path, checkpoint),) = checkpoints.items()
        kept = averaging.to_keep(tta, calibration, results.tested_points(found))
        if tta or any(checkpoint.get(name) != value for name, value in kept.items()):
            save(path, checkpoint | kept)
    if other:
        heads = averaging.heads_of(checkpoints)
        rows = learnable(other.table, heads)
        if len(rows):
            test = parts["test"]
            batches = data.Batches(other.pixels, rows, max(test.sizes), device=test.device)
            assess_on(batches, folder.below("external").below(task), other.name)
        elif machine.is_first():
            print(f"{task}: {other.name} has no {' and no '.join(f'{head}s' for head in heads)} to measure it with.")
        folder.note_task(task, external={"folder": other.name, "left_out": other.left_out} if len(rows) else None)
