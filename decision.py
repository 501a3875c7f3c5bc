"""The thresholds that a checkpoint stores, and what they say of a picture."""

from typing import NamedTuple

import numpy as np

OPERATING_POINTS = {"melanoma": ("MEL",), "malignant": ("MEL", "BCC", "AKIEC")}  # classes to find, against the rest
NAMES = {"melanoma": ("a melanoma", "melanomas"), "malignant": ("a malignant lesion", "malignant lesions")}
SCALE = "calibrated"  # of every probability and threshold: softmax(logits / temperature)
NO_TAU = (
    "The balanced rule is left out: no tau was fitted for what is used here; main.py --evaluate-only fits it for "
    "one checkpoint, and with --tta for its average over turns."
)


class Point(NamedTuple):
    """One of the `OPERATING_POINTS`, as a checkpoint knows it; None for what it does not know."""

    name: str
    members: tuple[int, ...]  # positions of the classes whose probabilities are summed
    threshold: float | None  # fitted on the validation set, of the summed probability
    sensitivity: float | None  # that this very threshold had on the test set
    specificity: float | None
    n_images: int | None  # of the test set

    def describe(self) -> str:
        """Its threshold and what that did in the test set, in words; claims nothing that was not measured."""
        if self.threshold is None:
            return "no threshold is known"
        if self.sensitivity is None or self.specificity is None:
            return f"threshold {self.threshold:.4f}, fitted on the validation set; what it finds elsewhere is not known"
        return (
            f"threshold {self.threshold:.4f}, which found {100 * self.sensitivity:.0f} % of the {NAMES[self.name][1]} "
            f"and passed over {100 * self.specificity:.0f} % of the rest in the test set ({self.n_images:,} images)"
        )


class Finding(NamedTuple):
    """What one picture's probabilities say of a `Point`."""

    point: Point
    probability: float

    @property
    def verdict(self) -> str | None:
        """ "above" (or at) the threshold, or "below" it; None if there is none."""
        if self.point.threshold is None:
            return None
        return "above" if self.probability >= self.point.threshold else "below"


def points_of(checkpoint: dict) -> list[Point]:
    """The operating points of a checkpoint with labels; without thresholds where they are missing or of another scale.

    What was measured on a test set counts for the threshold that it was measured with, and for no other.
    """
    calibration, found = checkpoint.get("calibration", {}), []
    thresholds = calibration.get("thresholds", {}) if calibration.get("scale") == SCALE else {}
    for name, codes in OPERATING_POINTS.items():
        threshold, tested = thresholds.get(name), checkpoint.get("tested", {}).get(name, {})
        if threshold is None or tested.get("threshold") != threshold:
            tested = {}
        members = tuple(checkpoint["classes"].index(code) for code in codes)
        found.append(Point(name, members, threshold, *map(tested.get, ("sensitivity", "specificity", "n_images"))))
    return found


def findings(probabilities: np.ndarray, points: list[Point]) -> tuple[Finding, ...]:
    """What the calibrated probabilities (K,) of a picture say of each point."""
    return tuple(Finding(point, float(probabilities[list(point.members)].sum())) for point in points)
