"""Prediction sets: the possible classes of an image, by class-conditional split conformal prediction.

Each class has its own limit, fitted on the validation images of that class. For every class, the sets then hold the
true class with the stated probability, if new images are drawn like the validation images (Vovk 2012, arXiv:1209.2673;
Sadinle et al. 2019, arXiv:1609.00451). Shapes: N images, K classes, B resamples.
"""

import math
from collections.abc import Sequence

import numpy as np

import evaluate
from measure.shares import Images

COVERAGE = 0.9  # share of the images of each class whose set holds that class


def fit_limits(true: np.ndarray, probabilities: np.ndarray, coverage: float = COVERAGE) -> list[float]:
    """The probability from which each class is in an image's set: (K,).

    With n validation images of a class, it is the ceil((n + 1) coverage)-th largest of their probabilities of it.
    A class with fewer images than coverage / (1 - coverage) is in every set: its limit is 0.

    Parameters
    ----------
    true : (N,) int in [0, K) of the validation images.
    probabilities : (N, K), calibrated.

    Examples
    --------
    >>> fit_limits(np.zeros(3, int), np.array([[.9, .1], [.6, .4], [.7, .3]]), 0.75)  # third of 3; none of class 1
    [0.6, 0.0]
    """
    limits = []
    for k in range(probabilities.shape[1]):
        own = np.sort(probabilities[true == k, k])[::-1]
        rank = math.ceil((len(own) + 1) * coverage - 1e-9)
        limits.append(float(own[rank - 1]) if rank <= len(own) else 0.0)
    return limits


def set_scores(true: np.ndarray, sets: np.ndarray, classes: Sequence[str], weights: np.ndarray) -> evaluate.Scores:
    """Coverage and mean size of sets (N, K) bool, overall and `per_class`; share of `single` sets, and of these, right.

    Coverage is the share of the images whose set holds the true class.
    """
    holds, size = sets[np.arange(len(true)), true].astype(bool), sets.sum(axis=1)
    single = size == 1
    scores = {
        "coverage": evaluate.weighted_mean(weights, holds.astype(float)),
        "size": evaluate.weighted_mean(weights, size.astype(float)),
        "single": evaluate.weighted_mean(weights, single.astype(float)),
        "single_right": evaluate.weighted_mean(weights[:, single], holds[single].astype(float)),
    }
    for k, code in enumerate(classes):
        own = true == k
        scores[f"per_class.{code}.coverage"] = evaluate.weighted_mean(weights[:, own], holds[own].astype(float))
        scores[f"per_class.{code}.size"] = evaluate.weighted_mean(weights[:, own], size[own].astype(float))
    return scores


def shares_of_sets(true: np.ndarray, sets: np.ndarray, classes: Sequence[str]) -> Images:
    """The images behind those of `set_scores` that are shares of images, as in `measure.shares`."""
    images = {"coverage": np.ones(len(true), bool), "single": np.ones(len(true), bool)}
    images["single_right"] = sets.sum(axis=1) == 1
    return images | {f"per_class.{code}.coverage": true == k for k, code in enumerate(classes)}
