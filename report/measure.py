"""Checkpoints -> their numbers on the test set and on another data set; what is fitted for them comes from neither."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch import nn

import averaging
import data
import machine
import models
from checkpoints import save
from dataset.classes import classes_of, positions_of
from dataset.prepare import OtherSet
from dataset.splits import split_hash
from dataset.table import LEFT_OUT, SPLITS, learnable, leave_out, targets
from report import results
from report.folder import RunFolder


def load_named(names: Sequence[str], folder: RunFolder, image_size: int, table: pd.DataFrame) -> dict[Path, dict]:
    """The checkpoints of these files, which are to be measured as one model into `folder`; else as `load`.

    Raises
    ------
    FileNotFoundError, ValueError : as `load` and `averaging.refuse_different`; the folder holds a run.
    """
    if names and machine.from_first(folder.holds_a_training):
        raise ValueError(f"{folder.path} holds a run of its own. Name another --output-dir for these measurements.")
    found = load([Path(name) for name in names], image_size, table)
    averaging.refuse_different(found)
    return found


def load(paths: Sequence[Path], image_size: int, table: pd.DataFrame) -> dict[Path, dict]:
    """Checkpoints to be measured on today's data, of which the images that one of them learned from are left out.

    Raises
    ------
    FileNotFoundError, ValueError : as `models.load_checkpoint`; one is of other classes or another image size, or as
        `leave_out_learned`.
    """
    found, today = {path: machine.from_first(models.load_checkpoint, path) for path in paths}, split_hash(table)
    for path, checkpoint in found.items():
        if checkpoint["classes"] != list(classes_of(table)):
            ours, theirs = ", ".join(classes_of(table)) or "none", ", ".join(checkpoint["classes"]) or "none"
            raise ValueError(
                f"{path} was trained on the classes {theirs}, and the data's are {ours}. Set CLASSES alike."
            )
        if checkpoint["image_size"] != image_size:
            raise ValueError(f"{path} was trained at --image-size {checkpoint['image_size']}, not {image_size}.")
    for path, checkpoint in found.items():
        if checkpoint.get("split_hash") != today:
            leave_out_learned(path, checkpoint, table)
    return found


def leave_out_learned(path: Path, checkpoint: dict, table: pd.DataFrame) -> None:
    """Leave the test images out that a model learned from, or was chosen by, and the validation images of its training.

    What shows the same lesion or patient was learned from too. Says how many there are.

    Raises
    ------
    ValueError : the checkpoint does not tell what it learned from; no image is left for one of the model's heads.
    """
    if "trained_on" not in checkpoint:
        raise ValueError(
            f"{path} does not tell which images it was trained on, so no test set is known to be new to it."
        )
    trained, chosen = (_among(checkpoint.get(name, {}), table) for name in ("trained_on", "chosen_on"))
    part, is_used = table["split"], table["status"] != LEFT_OUT
    learned = is_used & (part.isin(["val", "test"]) & trained | (part == "test") & chosen)
    counts = {
        name: (int((learned & (part == name)).sum()), int((is_used & (part == name)).sum())) for name in SPLITS[1:]
    }
    leave_out(table, learned, f"{path.name} was trained on this lesion")
    table.loc[learned, "split"] = ""
    text = " and ".join(f"{n:,} of {n_all:,} {name} images" for name, (n, n_all) in counts.items())
    text = f"{path} was trained on another split or other data: {text} show lesions that it was trained on"
    for name in SPLITS[1:]:
        known = targets(table[table["split"] == name]).any()
        if missing := [head for head in averaging.heads_of({path: checkpoint}) if not known[head]]:
            raise ValueError(
                f"{text}, and no {name} image with a {missing[0]} is left. Use the settings it was trained with."
            )
    machine.say(f"\n{text}{' and are left out' if learned.any() else ''}.")


def _among(seen: dict, table: pd.DataFrame) -> pd.Series:
    """Which rows are of the images, lesions or patients that a checkpoint names."""
    kinds = {"images": "image", "lesions": "lesion_id", "patients": "patient_id"}
    found = [table[column].isin(seen.get(kind, [])) for kind, column in kinds.items() if column in table]
    return pd.concat(found, axis=1).any(axis=1)


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
        else:
            machine.say(
                f"{task}: {other.name} has no {' and no '.join(f'{head}s' for head in heads)} to measure it with."
            )
        folder.note_task(task, external={"folder": other.name, "left_out": other.left_out} if len(rows) else None)
