"""Two models on the same images -> how much they differ, and how surely."""

import numpy as np
import pandas as pd

import evaluate
from dataset.csvfile import read_back
from dataset.table import CLASSES, usable
from machine import is_first
from report.folder import RunFolder


def compare_tasks(folder: RunFolder, table: pd.DataFrame) -> bool:
    """Write how a run's multi-task model differs from its single-task ones, and return whether there are any."""
    found = {}
    for task, file in (("classification", "predictions.csv"), ("segmentation", "per_image.csv")):
        if is_first() and all("measured" in folder.facts(name) for name in (task, "multitask")):
            pair = [read_back(folder.path / name / file) for name in (task, "multitask")]
            found[task] = compare(*pair, usable(table).set_index("image")["lesion_id"])
    if found:
        folder.write_json("comparison.json", found)
    return bool(found)


def compare(single: pd.DataFrame, multi: pd.DataFrame, lesions: pd.Series) -> dict:
    """Multi-task less single-task on the images both have, by a paired bootstrap of lesions.

    Parameters
    ----------
    single, multi : two prediction tables, or two per-image mask tables, as `assess` writes them.
    lesions : lesion by image name.

    Raises
    ------
    ValueError : a name stands twice in one of the three, has no lesion, or the tables have none in common.
    """
    for names in map(pd.Index, (single["image"], multi["image"], lesions.index)):
        if names.has_duplicates:
            raise ValueError(f"{names[names.duplicated()][0]!r} stands twice; expected each image name once.")
    both = single.merge(multi, on="image", suffixes=("_0", "_1"))
    unknown = both.loc[~both["image"].isin(lesions.index), "image"].tolist()
    if both.empty or unknown:
        raise ValueError(f"No lesion is known of {unknown[0]!r}." if unknown else "The tables have no image in common.")
    resamples = evaluate.resample_lesions(lesions[both["image"]])
    if "dice_0" in both:
        dice = [both[f"dice_{i}"].to_numpy() for i in (0, 1)]
        difference = evaluate.paired_difference(lambda i, w: evaluate.weighted_mean(w, dice[i]), resamples)
        return {"n_images": len(both), "mean_dice": difference}
    true = pd.Categorical(both["true_0"], CLASSES).codes.astype(int)
    called = [pd.Categorical(both[f"predicted_{i}"], CLASSES).codes.astype(int) for i in (0, 1)]
    right = [codes == true for codes in called]

    def scores(i: int, weights: np.ndarray) -> evaluate.Scores:
        return evaluate.label_scores(true, called[i], CLASSES, weights)

    return {
        "n_images": len(both),
        "balanced_accuracy": evaluate.paired_difference(lambda i, w: scores(i, w)["balanced_accuracy"], resamples),
        "accuracy": evaluate.paired_difference(lambda i, w: scores(i, w)["accuracy"], resamples),
        "only_first_right": int((right[0] & ~right[1]).sum()),
        "only_second_right": int((right[1] & ~right[0]).sum()),
    }
