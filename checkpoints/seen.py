"""The present images that a trained model has learned from: they cannot be its test images."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

import machine
from checkpoints.trained import Trained
from dataset.classes import classes_of
from dataset.splits import split_hash
from dataset.table import LEFT_OUT, SPLITS, leave_out, targets
from models import MODELS


def fit_to_data(trained: Iterable[Trained], image_size: int, table: pd.DataFrame) -> None:
    """Check models against today's data, and leave out the images that one of them learned from.

    Raises
    ------
    ValueError : one has other classes or another image size, or as `leave_out_learned`.
    """
    files = [(path, checkpoint) for model in trained for path, checkpoint in model.checkpoints.items()]
    for path, checkpoint in files:
        if checkpoint["classes"] != list(classes_of(table)):
            ours, theirs = ", ".join(classes_of(table)) or "none", ", ".join(checkpoint["classes"]) or "none"
            raise ValueError(
                f"{path} was trained on the classes {theirs}, and the data's are {ours}. Set CLASSES to match."
            )
        if checkpoint["image_size"] != image_size:
            raise ValueError(f"{path} was trained at --image-size {checkpoint['image_size']}, not {image_size}.")
    today = split_hash(table)
    for path, checkpoint in files:
        if checkpoint.get("split_hash") != today:
            leave_out_learned(path, checkpoint, table)


def leave_out_learned(path: Path, checkpoint: dict, table: pd.DataFrame) -> None:
    """Leave out test images that a model learned from or was chosen by, and the validation images of its training.

    Images of a lesion or patient that it learned from count as well. Prints how many there are.

    Raises
    ------
    ValueError : the checkpoint does not tell what it learned from; no image is left for one of the model's heads.
    """
    if "trained_on" not in checkpoint:
        raise ValueError(f"{path} does not record its training images, so no test set is known to be new to it.")
    trained, chosen = (_among(checkpoint.get(name, {}), table) for name in ("trained_on", "chosen_on"))
    part, is_used = table["split"], table["status"] != LEFT_OUT
    learned = is_used & (part.isin(["val", "test"]) & trained | (part == "test") & chosen)
    counts = {
        name: (int((learned & (part == name)).sum()), int((is_used & (part == name)).sum())) for name in SPLITS[1:]
    }
    leave_out(table, learned, f"{path.name} was trained on this lesion")
    table.loc[learned, "split"] = ""
    shares = " and ".join(f"{n:,} of {n_all:,} {name} images" for name, (n, n_all) in counts.items())
    message = f"{path} was trained on another split or other data: {shares} show lesions that it was trained on"
    for name in SPLITS[1:]:
        known = targets(table[table["split"] == name]).any()
        if missing := [head for head in MODELS[checkpoint["task"]].outputs if not known[head]]:
            raise ValueError(
                f"{message}, and no {name} image with a {missing[0]} is left. Use the settings it was trained with."
            )
    machine.say(f"\n{message}{' and are left out' if learned.any() else ''}.")


def _among(seen: dict, table: pd.DataFrame) -> pd.Series:
    """Which rows are of the images, lesions or patients that a checkpoint names."""
    kinds = {"images": "image", "lesions": "lesion_id", "patients": "patient_id"}
    members = [table[column].isin(seen.get(kind, [])) for kind, column in kinds.items() if column in table]
    return pd.concat(members, axis=1).any(axis=1)
