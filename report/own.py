"""Any trained model -> a run's folder with numbers, figures and report.html."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

import data
import evaluate
import machine
import visualize
from dataset.classes import positions_of
from dataset.pixelfile import PixelFile
from dataset.splits import split_hash
from dataset.table import SPLITS, learnable, targets, usable
from encoders.unlike import Unlike
from measure.alarms import fit_unlike
from measure.assess import assess
from measure.calibrate import calibrate
from measure.imagetable import image_table
from report import page, results
from report.folder import RunFolder

BATCH_SIZE = 16  # images; results do not depend on it
PRECISION = "fp32"  # of the forward pass


def report_model(
    model: nn.Module,
    table: pd.DataFrame,
    pixels: PixelFile | np.ndarray | torch.Tensor,
    path: str | Path,
    *,
    name: str,
    history: list[dict] | None = None,
    settings: dict | None = None,
    note: str = "",
) -> dict | None:
    """Calibrate a model on the validation set, evaluate it on the test set, write the report, and return its numbers.

    ``python -m report compare`` compares the folder with that of any run on the same split, such as main.py's.

    Parameters
    ----------
    model : any model that `train.fit` accepts, on the device for evaluation.
    table, pixels : from `decode_table`, and the parts from `split_table` in the table's column ``split``.
    path : folder to write. An earlier report of the same name there is replaced; another run there is refused.
    name : of the model and of its subfolder.
    history : what `train.fit` returned, for the training curves.
    settings : plain values that say how the model was trained, such as its seed and `Recipe`; runs that differ in
        their ``seed`` alone are repetitions of each other.
    note : shown in every figure and in the report, such as `synthetic.NOTE`.

    Raises
    ------
    ValueError : as `evaluate.heads_of`; the table has no parts, or one of them no image with a target of the model;
        the folder holds another run; the name is none of a folder.
    """
    if not re.fullmatch(r"[\w-]+", name) or name == "external":
        raise ValueError(f"{name!r} cannot be the name of a model: use letters, digits, _ and -, but not 'external'.")
    device = next((values.device for values in model.parameters()), torch.device("cpu"))
    parts = parts_for(model, table, pixels, device)
    folder, environment = RunFolder(path, note), machine.environment_of(device, PRECISION)
    with machine.locked(folder.path):
        take_over(folder, name, environment["started"])
        folder.write_json("config.json", settings_of(model, table, parts["test"], settings or {}, note))
        folder.write_json("environment.json", environment)
        folder.write_data(table)
        identity = {"epochs": len(history)} if history else {}
        identity |= (settings or {}) | {"precision": PRECISION, "split_hash": split_hash(table)}
        folder.note_task(name, identity=identity, trained=True, measured=None)
        if history:
            write_history(folder, name, pd.DataFrame(history))

        calibration = calibrate(model, parts["val"], PRECISION, positions_of(parts["train"].table))
        fitted = fit_unlike(model, parts["train"], parts["val"], PRECISION)
        if fitted or isinstance(getattr(model, "unlike", None), Unlike):  # that of an earlier report does not count
            model.unlike = Unlike(**fitted).to(device) if fitted else None
        assessment = assess(model, parts["test"], calibration, name, PRECISION)
        results.publish(folder.below(name), assessment, f"{name}, test set")
        folder.note_task(name, measured=results.evaluated_as("", tta=False))
        if assessment:
            of_images = image_table(parts["test"].table, assessment.collected, "test")
            results.write_images(folder.below(name), [of_images], parts["test"].classes)
            page.write(folder)
        folder.note(finished=True, seconds=None)  # the training time is unknown here
    return assessment and assessment.numbers


def write_history(folder: RunFolder, name: str, history: pd.DataFrame) -> None:
    """Write the scores by epoch, and draw their curves."""
    folder.write_table(f"{name}/history.csv", history)
    folder.draw(f"{name}/training_curves.png", visualize.training_curves(history, name))


def take_over(folder: RunFolder, name: str, started: str) -> None:
    """Claim the folder for this model. Raises ValueError if it holds another run."""
    folder.take_record()
    if others := folder.record["tasks"].keys() - {name}:
        raise ValueError(f"{folder.path} holds a run of {', '.join(sorted(others))}. Name another folder for {name}.")
    folder.record = {"started": started, "tasks": {}}
    for old in (folder.path / name).glob("*.png"):  # the page would show outdated figures
        old.unlink(missing_ok=True)


def parts_for(model: nn.Module, table: pd.DataFrame, pixels, device: torch.device) -> dict[str, data.Batches]:
    """Batches of each part of the split, of images with a target of the model."""
    if "split" not in table:
        raise ValueError('The table has no column split. Set table["split"] = split_table(table, ...) before training.')
    one = data.Batches(pixels, usable(table)[:1], 1, device=device)
    heads = evaluate.heads_of(model, one[0]["image"], one.classes)
    rows = learnable(table, heads)
    for part in SPLITS:
        known = targets(rows[rows["split"] == part]).any()
        if missing := [head for head in heads if not known[head]]:
            raise ValueError(f"The model predicts a {missing[0]}, and no image of {part} has one.")
    return data.split_batches(pixels, rows, BATCH_SIZE, device)


def settings_of(model: nn.Module, table: pd.DataFrame, test: data.Batches, settings: dict, note: str) -> dict:
    """The configuration, as that of main.py."""
    n_parameters = sum(values.numel() for values in model.parameters())
    return {
        "MODEL": f"{type(model).__name__}, {n_parameters:,} parameters",
        "DATA_DIR": os.path.commonpath(map(os.path.dirname, usable(table)["image_path"])),
        "IMAGE_SIZE": test.pixels.shape[1],
        **{setting.upper(): value for setting, value in settings.items()},
        **({"data": note} if note else {}),
    }
