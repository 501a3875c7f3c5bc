"""Fit temperature, thresholds, rule and prediction sets on the validation set, to be applied unchanged elsewhere."""

from collections.abc import Sequence

import numpy as np
from torch import nn

import data
import evaluate
import machine
from checkpoints.thresholds import SCALE, points_among
from dataset.classes import positions_of
from measure.collect import gather_rows, run_over_share
from measure.sets import COVERAGE, fit_limits


def calibrate(
    model: nn.Module, batches: data.Batches, precision: str, learned: np.ndarray, coverage: float = COVERAGE
) -> dict:
    """What is fitted on the validation set and applied unchanged elsewhere; {} for a model without labels.

    Under torchrun every process calls this with the same images, runs over its share and gets the result.

    Parameters
    ----------
    batches : the validation set.
    learned : (M,) labels of the images that the model was trained on.
    coverage : of the prediction sets.

    Returns
    -------
    temperature : divides the logits.
    thresholds : of the summed calibrated probability of each operating point's classes; None if no image has them.
    scale : which probabilities the thresholds are of.
    prior : share of each class among the images that the model was trained on.
    tau : of the balanced rule, for these probabilities.
    sets : `target`, their coverage, and the `limits` of each class, of prediction sets (`measure.sets`).
    """
    if "label" not in evaluate.heads_of(model, batches.subset([0])[0]["image"], batches.classes):
        return {}
    known = positions_of(batches.table), logits_of(model, batches, precision)
    return machine.from_first(fit_calibration, *known, learned, batches.classes, coverage)


def calibrate_sets(
    model: nn.Module, batches: data.Batches, precision: str, temperature: float, coverage: float = COVERAGE
) -> dict:
    """The `sets` of `calibrate` alone, for a model whose temperature is known."""
    true, logits = positions_of(batches.table), logits_of(model, batches, precision)
    return machine.from_first(lambda: sets_of(true, evaluate.softmax(logits, temperature), coverage))


def logits_of(model: nn.Module, batches: data.Batches, precision: str) -> np.ndarray | None:
    """The logits of the labels (N, K) of all images, in the first process."""
    logits = [output["label"].cpu().numpy() for _, output in run_over_share(model, batches, precision)]
    return gather_rows(np.concatenate([np.empty((0, len(batches.classes))), *logits]))


def sets_of(true: np.ndarray, probabilities: np.ndarray, coverage: float) -> dict:
    """The limits of prediction sets; labels of -1 do not count."""
    return {"target": coverage, "limits": fit_limits(true[true >= 0], probabilities[true >= 0], coverage)}


def fit_calibration(
    true: np.ndarray, logits: np.ndarray, learned: np.ndarray, classes: Sequence[str], coverage: float = COVERAGE
) -> dict:
    """The temperature first, then everything else on the calibrated probabilities; as `calibrate`.

    Labels of -1 are of images that have none, and do not count.
    """
    true, logits, learned = true[true >= 0], logits[true >= 0], learned[learned >= 0]
    temperature = evaluate.fit_temperature(true, logits)
    probabilities, thresholds = evaluate.softmax(logits, temperature), {}
    for name, members in points_among(classes).items():
        positive, score = one_against_rest(true, probabilities, members)
        thresholds[name] = evaluate.operating_threshold(positive, score) if positive.any() else None
    prior = (np.bincount(learned, minlength=len(classes)) / len(learned)).tolist()
    tau = evaluate.fit_tau(true, probabilities, prior)
    fitted = {"temperature": temperature, "thresholds": thresholds, "scale": SCALE}
    return fitted | {"prior": prior, "tau": tau, "sets": sets_of(true, probabilities, coverage)}


def one_against_rest(true: np.ndarray, probabilities: np.ndarray, members: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image is of one of the classes at these positions, and their summed probability."""
    return np.isin(true, members), probabilities[:, members].sum(axis=1)
