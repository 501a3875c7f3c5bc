"""Checkpoints -> their numbers on the test set and on another data set; what is fitted for them comes from neither."""

from pathlib import Path
from typing import NamedTuple

import averaging
import data
from report import results
from report.folder import RunFolder
from train import save


class OtherSet(NamedTuple):
    """Images of another data set that a model can be measured on, which may be none."""

    name: str
    batches: data.Batches


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
    model = averaging.build(checkpoints, parts["test"].device, tta)
    (path, checkpoint), *others = checkpoints.items()
    calibration = {} if others else averaging.fitted(checkpoint, tta)["calibration"]
    if not calibration or not results.is_current(calibration):
        learned = parts["train"].table["label"].to_numpy()
        calibration = results.calibrate(model, parts["val"].whole(), precision, learned)
    about = averaging.about(checkpoints, tta)

    def assess(batches: data.Batches, place: RunFolder, images: str) -> dict | None:
        found = results.assess(model, batches, calibration, place, task=task, precision=precision, about=about)
        if found:
            print(results.console_table(f"{task}, {images}", found), flush=True)
        return found

    if found := assess(parts["test"], folder.below(task), "test set"):
        kept = averaging.kept(tta, calibration, results.tested_points(found))
        if keep and any(checkpoint.get(name) != value for name, value in kept.items()):
            save(path, checkpoint | kept)
    if other and other.batches.n_images:
        assess(other.batches, folder.below("external").below(task), other.name)
