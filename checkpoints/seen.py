"""The present images that a trained model has learned from: they cannot be its test images."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import machine
from checkpoints.trained import Trained
from dataset.classes import classes_of
from dataset.leakage import is_specific
from dataset.names import image_name
from dataset.prepare import OtherSet
from dataset.splits import split_hash
from dataset.table import LEFT_OUT, SPLITS, leave_out, targets, usable
from models import MODELS

KINDS = {"images": "image", "lesions": "lesion_id", "patients": "patient_id"}  # in checkpoints, in the table


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
            leave_out_learned(path, checkpoint, table, MODELS[checkpoint["task"]].outputs)


def seen_by(checkpoint: dict) -> dict[str, dict[str, list[str]]]:
    """What a model and the weights that it started from were trained on and chosen on: images, lesions, patients."""
    parts = checkpoint, checkpoint.get("seen_before", {})
    return {
        use: {kind: sorted({name for part in parts for name in part.get(use, {}).get(kind, [])}) for kind in KINDS}
        for use in ("trained_on", "chosen_on")
    }


def named_as_seen(trained: Trained, names: Sequence[str]) -> np.ndarray:
    """Whether each file (N,) has the name of an image the model was trained or selected on; never for a mere number."""
    uses = [use for checkpoint in trained.checkpoints.values() for use in seen_by(checkpoint).values()]
    seen = {str(name) for use in uses for name in use["images"]}
    asked = pd.Series(list(map(image_name, names)), dtype=str)
    return (asked.isin(seen) & is_specific(asked)).to_numpy(bool)


def leave_out_learned(path: Path, checkpoint: dict, table: pd.DataFrame, heads: Iterable[str] = ()) -> None:
    """Leave out test images that a model learned from or was chosen by, and the validation images of its training.

    Images of a lesion or patient that it learned from count as well, and those of the weights that it started from.
    Prints how many there are.

    Raises
    ------
    ValueError : the checkpoint does not tell what it learned from; no image is left for one of the `heads`.
    """
    if "trained_on" not in checkpoint:
        raise ValueError(f"{path} does not record its training images, so no test set is known to be new to it.")
    trained, chosen = (_among(names, table) for names in seen_by(checkpoint).values())
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
        if missing := [head for head in heads if not known[head]]:
            raise ValueError(
                f"{message}, and no {name} image with a {missing[0]} is left. Use the settings it was trained with."
            )
    machine.say(f"\n{message}{' and are left out' if learned.any() else ''}.")


def _among(seen: dict, table: pd.DataFrame) -> pd.Series:
    """Which rows are of the images, lesions or patients that a checkpoint names."""
    members = [table[column].isin(seen.get(kind, [])) for kind, column in KINDS.items() if column in table]
    return pd.concat(members, axis=1).any(axis=1)


def leave_out_of_other(checkpoints: Mapping[Path, dict], other: OtherSet, table: pd.DataFrame) -> OtherSet:
    """Leave out images of another data set that a model has seen in data other than today's.

    They are known by the names of images, lesions and patients, unless these are mere numbers. Names that today's data
    use as well are passed over: `prepare_other` has compared these images. Prints how many there are.

    Raises
    ------
    ValueError : no image is left.
    """
    today = usable(table)
    for path, checkpoint in checkpoints.items():
        is_seen = pd.Series(False, index=other.table.index)
        for use in seen_by(checkpoint).values():
            for kind, column in KINDS.items():
                names = other.table[column] if column in other.table else pd.Series(index=other.table.index, dtype=str)
                is_seen |= names.isin(set(use[kind]) - set(today.get(column, ()))) & is_specific(names)
        is_seen &= other.table["status"] != LEFT_OUT
        if is_seen.any():
            words = f"{is_seen.sum():,} images of {other.name} show lesions that {path} was trained on or chosen by"
            leave_out(other.table, is_seen, f"{path.name} was trained on this lesion")
            other = other._replace(left_out=f"{other.left_out} {words}; they are left out.")
            machine.say(f"\n{words}; they are left out.")
    if usable(other.table).empty:
        raise ValueError(f"--external-dir {other.name} has no image to evaluate. {other.left_out}")
    return other
