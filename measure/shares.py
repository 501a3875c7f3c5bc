"""Which scores are means over images of values between 0 and 1, such as shares of them, and over which images.

`bootstrap.with_intervals` can give these an interval where all resamples agree. Each function returns (N,) bool by the
score's name. Shapes: N images.
"""

from collections.abc import Sequence

import numpy as np

from evaluate import CUTOFF, image_mask_scores

Images = dict[str, np.ndarray]


def of_predictions(true: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> Images:
    """Those among `evaluate.label_scores`."""
    images = {"accuracy": np.ones(len(true), bool)}
    for k, name in enumerate(classes):
        images |= {f"per_class.{name}.recall": true == k, f"per_class.{name}.precision": predicted == k}
    return images


def of_binary(positive: np.ndarray, predicted: np.ndarray) -> Images:
    """Those among `evaluate.binary_scores`."""
    everything = np.ones(len(positive), bool)
    return {
        "accuracy": everything,
        "sensitivity": positive,
        "specificity": ~positive,
        "ppv": predicted,
        "npv": ~predicted,
    }


def of_official(true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Images:
    """Those among `evaluate.official_label_scores`."""
    images = {}
    for k, name in enumerate(classes):
        of_class = of_binary(true == k, probabilities[:, k] > CUTOFF)
        images |= {f"per_class.{name}.{key}": some for key, some in of_class.items()}
    return images


def of_masks(n: int) -> Images:
    """Those among `evaluate.mask_scores`."""
    names = [f"mean_{name}" for name in image_mask_scores(np.ones((1, 4)))]
    return dict.fromkeys([*names, "failure_rate"], np.ones(n, bool))
