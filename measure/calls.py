"""A model's logits, read with what was fitted on its validation images -> what it calls each test image.

Shapes: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

import evaluate
from checkpoints.thresholds import points_among, prediction_sets


@dataclass(frozen=True)
class Calls:
    """What one model, or the model of each fold, calls N images.

    Attributes
    ----------
    before, probabilities : (N, K), uncalibrated and calibrated.
    likeliest, balanced : (N,) int, the class by each rule.
    commonest : (N,) int, the commonest class among the images that the image's model was trained on.
    above : by operating point, (N,) 1 where its threshold is reached, else 0; NaN without a threshold.
    sets : (N, K) bool prediction sets; None if no limits were fitted.
    fitted : the `calibrate` dicts of all models.
    """

    before: np.ndarray
    probabilities: np.ndarray
    likeliest: np.ndarray
    balanced: np.ndarray
    commonest: np.ndarray
    above: dict[str, np.ndarray]
    sets: np.ndarray | None
    fitted: tuple[dict, ...]

    @property
    def by_rule(self) -> dict[str, np.ndarray]:
        """The class (N,) by the name of the rule."""
        return {"likeliest": self.likeliest, "balanced": self.balanced}

    def __getitem__(self, chosen: np.ndarray) -> "Calls":
        """Those of some images, by positions or as (N,) bool."""
        values = (getattr(self, field.name) for field in fields(self))
        return Calls(*(self._chosen(value, chosen) for value in values))

    @staticmethod
    def _chosen(value: object, chosen: np.ndarray) -> object:
        if isinstance(value, dict):
            return {name: one[chosen] for name, one in value.items()}
        return value[chosen] if isinstance(value, np.ndarray) else value


def read_logits(logits: np.ndarray, calibration: dict, classes: Sequence[str]) -> Calls:
    """The calls of one model.

    Parameters
    ----------
    logits : (N, K).
    calibration : from `measure.calibrate.calibrate`.
    """
    probabilities = evaluate.softmax(logits, calibration["temperature"])
    predicted = evaluate.by_rule(probabilities, calibration["prior"], calibration["tau"])
    above = {}
    for name, members in points_among(classes).items():
        threshold = calibration["thresholds"][name]
        reached = probabilities[:, members].sum(axis=1) >= (threshold or 0)
        above[name] = np.full(len(logits), np.nan) if threshold is None else reached.astype(float)
    return Calls(
        evaluate.softmax(logits),
        probabilities,
        predicted["likeliest"],
        predicted["balanced"],
        np.full(len(logits), int(np.argmax(calibration["prior"]))),
        above,
        prediction_sets(probabilities, calibration["sets"]["limits"]) if "sets" in calibration else None,
        (calibration,),
    )


def pooled(parts: Sequence[Calls]) -> Calls:
    """The calls of several models on the images of each, one after the other."""

    def joined(name: str):
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], dict):
            return {key: np.concatenate([one[key] for one in values]) for key in values[0]}
        return None if any(value is None for value in values) else np.concatenate(values)

    names = [field.name for field in fields(Calls)]
    return Calls(*map(joined, names[:-1]), tuple(one for part in parts for one in part.fitted))
