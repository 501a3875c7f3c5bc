"""Thresholds that a checkpoint stores, and their verdicts on an image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dataset.classes import is_malignant, is_melanoma

OPERATING_POINTS = {"melanoma": is_melanoma, "malignant": is_malignant}  # classes to detect against the rest
PLURALS = {"melanoma": "melanomas", "malignant": "malignant lesions"}  # of the operating points
SCALE = "calibrated"  # of every probability and threshold: softmax(logits / temperature)
NO_TAU = (
    "Balanced rule unavailable: no tau has been fitted for this model. main.py --evaluate-only fits it for one "
    "checkpoint, and with --tta for its average over flips and rotations."
)


def percent(share: float) -> str:
    """A share in whole per cent; 0 % and 100 % only if exact."""
    if 0 < share <= 0.005:
        return "under 1 %"
    return "over 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def certainty(probability: float) -> str:
    """A probability in whole per cent, never 0 or 100."""
    return percent(min(max(float(probability), 1e-9), 1 - 1e-9))


class Point(NamedTuple):
    """One of the `OPERATING_POINTS` of a checkpoint; None for unknown values."""

    name: str
    members: tuple[int, ...]  # positions of the classes whose probabilities are summed
    threshold: float | None  # fitted on the validation set, of the summed probability
    sensitivity: float | None  # that this very threshold had on the test set
    specificity: float | None
    n_images: int | None  # of the test set

    def describe(self) -> str:
        """Threshold and its measured performance on the test set, as a sentence."""
        if self.threshold is None:
            return "no threshold is known"
        if self.sensitivity is None or self.specificity is None:
            return f"threshold {self.threshold:.4f}, fitted on the validation set; its sensitivity elsewhere is unknown"
        return (
            f"threshold {self.threshold:.4f}, which found {percent(self.sensitivity)} of the {PLURALS[self.name]} "
            f"and excluded {percent(self.specificity)} of the rest in the test set ({self.n_images:,} images)"
        )


class Finding(NamedTuple):
    """The verdict of a `Point` on one image."""

    point: Point
    probability: float

    @property
    def verdict(self) -> str | None:
        """ "above" (or at) the threshold, or "below" it; None if there is none."""
        if self.point.threshold is None:
            return None
        return "above" if self.probability >= self.point.threshold else "below"


def prediction_sets(probabilities: np.ndarray, limits: Sequence[float]) -> np.ndarray:
    """Whether each class is in each image's prediction set: (N, K) bool.

    A class is in the set if its calibrated probability (N, K) reaches its limit (K,). The top-1 class is always in it.
    """
    sets = probabilities >= np.asarray(limits)
    sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
    return sets


def points_among(classes: Sequence[str]) -> dict[str, list[int]]:
    """Positions of the classes of each of the `OPERATING_POINTS`, where there are such classes and others beside them.

    Without other malignant classes than melanoma the two points are one.

    Examples
    --------
    >>> points_among(["NV", "MEL", "SCC"]), points_among(["NV", "MEL"]), points_among(["DF", "VASC"])
    ({'melanoma': [1], 'malignant': [1, 2]}, {'melanoma': [1]}, {})
    """
    points: dict[str, list[int]] = {}
    for name, is_member in OPERATING_POINTS.items():
        members = [position for position, code in enumerate(classes) if is_member(code)]
        if 0 < len(members) < len(classes) and members not in points.values():
            points[name] = members
    return points


def points_of(classes: Sequence[str], calibration: dict, tested: dict) -> list[Point]:
    """The operating points of a model; without thresholds where none were fitted.

    Parameters
    ----------
    calibration, tested : as `checkpoints.trained.Trained` keeps them. Test results apply only to the
        threshold at which they were obtained.
    """
    points, thresholds = [], calibration.get("thresholds", {})
    for name, members in points_among(classes).items():
        threshold, reached = thresholds.get(name), tested.get(name, {})
        if threshold is None or reached.get("threshold") != threshold:
            reached = {}
        known = map(reached.get, ("sensitivity", "specificity", "n_images"))
        points.append(Point(name, tuple(members), threshold, *known))
    return points


def findings(probabilities: np.ndarray, points: list[Point]) -> tuple[Finding, ...]:
    """Verdicts of each point on the calibrated probabilities (K,) of an image."""
    return tuple(Finding(point, float(probabilities[list(point.members)].sum())) for point in points)
