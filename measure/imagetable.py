"""Outputs of a model -> images.csv, one row per image, for R, SPSS and pandas; and what its columns mean."""

import re

import numpy as np
import pandas as pd

import evaluate
from dataset.classes import classes_of, name_of, positions_of
from dataset.columns import FURTHER
from dataset.csvfile import spaced
from dataset.table import targets
from measure.calls import Calls
from measure.collect import Collected

DIGITS = "%.6g"  # of every number
OF_DATA = {  # column of the data's table: its name here, and its meaning
    "lesion_id": ("lesion", "Lesion. Images of one lesion are not independent: use it as a cluster or random effect."),
    "patient_id": ("patient", "Patient, as in the data."),
    "age": ("age", "Age in years."),
    "sex": ("sex", "Sex, as in the data."),
    "localization": ("site", "Site on the body, as in the data."),
    "dx_type": ("proof", "How the diagnosis was confirmed, as in the data; histo is histopathology."),
    "dataset": ("source", "Source of the image, as in the data."),
    "fitzpatrick_skin_type": ("skin_type", "Fitzpatrick skin type, as in the data."),
}
MEANING = {
    "image": "Name of the image file without its ending.",
    "part": "train, val or test; external for another data set. Models are fitted to train, and chosen and calibrated "
    "on val: only test and external measure performance.",
    "true": "Diagnosis in the data.",
    "predicted": "Class with the highest calibrated probability.",
    "balanced": "Class predicted by the balanced rule.",
    "correct": "1 if predicted is the true diagnosis, else 0.",
    "confidence": "Calibrated probability of the predicted class.",
    "set": "Prediction set: the possible classes, separated by spaces, in quotes if their names have some.",
    "unlike": "Percentile of the distance from the training images among the validation images; 95 or more is flagged.",
    "dice": "Dice coefficient at the size of the mask file.",
    "jaccard": "Jaccard index at the size of the mask file.",
    "hd95": "95th percentile of the Hausdorff distance, in pixels of the mask file.",
    "fold": "Fold of the cross-validation whose model judged the image.",
}
MEANING |= dict(OF_DATA.values())


def image_table(rows: pd.DataFrame, collected: Collected, part: str) -> pd.DataFrame:
    """One row per image; what is unknown of an image is missing.

    Parameters
    ----------
    rows, collected : of the same N images in the same order; `calls` as well if there is a label.
    part : train, val, test or external.
    """
    known = targets(rows)
    columns: dict[str, object] = {"image": rows["image"].to_numpy(), "part": part}
    for name, (ours, _) in OF_DATA.items():
        if name in rows and rows[name].notna().any():
            columns[ours] = rows[name].to_numpy()
    further = {name: _plain(name.removeprefix(FURTHER)) or "column" for name in rows if name.startswith(FURTHER)}
    ours = [*MEANING, *probability_columns(classes_of(rows))]  # a column of the data does not replace one of these
    names = _apart([*ours, *further.values()])[len(ours) :]
    columns |= {name: rows[column].to_numpy() for name, column in zip(names, further)}
    if collected.calls is not None:
        columns |= _of_labels(rows, collected.calls, known["label"].to_numpy())
    if collected.unlike is not None:
        columns["unlike"] = collected.unlike[:, 0]
    if collected.native is not None:
        is_known = known["mask"].to_numpy()
        scores = {"dice": evaluate.dice(collected.native), "jaccard": evaluate.iou(collected.native)}
        scores["hd95"] = collected.surface[:, 0]
        columns |= {name: np.where(is_known, values, np.nan) for name, values in scores.items()}
    return pd.DataFrame(columns)


def _of_labels(rows: pd.DataFrame, calls: Calls, labelled: np.ndarray) -> dict[str, np.ndarray]:
    true, classes = positions_of(rows), np.array(classes_of(rows), dtype=object)
    columns = {
        "true": np.where(labelled, classes[true], None),
        "predicted": classes[calls.likeliest],
        "balanced": classes[calls.balanced],
        "correct": np.where(labelled, (calls.likeliest == true).astype(float), np.nan),
        "confidence": calls.probabilities.max(axis=1),
    }
    columns |= dict(zip(probability_columns(classes), calls.probabilities.T))
    if calls.sets is not None:
        columns["set"] = np.array([spaced(classes[one]) for one in calls.sets], dtype=object)
    return columns


def probability_columns(classes: np.ndarray) -> list[str]:
    """A column for each class: letters, digits and underscores alone, as SPSS and R want them, and no two alike.

    Examples
    --------
    >>> probability_columns(["MEL", "basal cell", "basal-cell"])
    ['p_MEL', 'p_basal_cell', 'p_basal_cell_2']
    >>> probability_columns(["stage_2", "stage", "Stage"])
    ['p_stage_2', 'p_stage', 'p_Stage_3']
    """
    return _apart([_plain(f"p_{code}") for code in classes])


def _apart(names: list[str]) -> list[str]:
    """Names with numbers from 2 on, so that no two are alike, not even but for their case."""
    free = {name.lower() for name in names}  # not taken by a number
    found: list[str] = []
    for name in names:
        taken = {other.lower() for other in found}
        numbered = (f"{name}_{n}" for n in range(2, len(names) + 2 + len(free)))
        unused = (other for other in numbered if other.lower() not in taken | free)
        found.append(next(unused) if name.lower() in taken else name)
    return found


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


def dictionary(columns: list[str], classes: list[str]) -> str:
    """columns.md: the meaning of each column of the images.csv of all models."""
    meaning = MEANING | {
        name: f"Calibrated probability of {code}" + (f", {name_of(code)}." if name_of(code) != code else ".")
        for name, code in zip(probability_columns(classes), classes)
    }
    lines = [f"| `{name}` | {meaning.get(name, 'As in the data.')} |" for name in columns]
    head = ["# Columns of images.csv", "", "Empty cells are unknown. Numbers have six significant digits.", ""]
    return "\n".join([*head, "| column | meaning |", "|---|---|", *lines]) + "\n"
