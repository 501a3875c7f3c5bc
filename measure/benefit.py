"""How useful a classifier is: net benefit of acting on its alarms, and how right it is where it is surest.

Shapes: N images, K classes, B resamples.
"""

from collections.abc import Sequence

import numpy as np

import evaluate
from measure.shares import Images

THRESHOLDS = tuple(range(2, 51, 2))  # probability of malignancy from which one would act, in per cent
SUREST = 0.8  # share of the images whose top-1 probability is highest


def net_benefit(positive: np.ndarray, acted: np.ndarray, threshold: float, weights: np.ndarray) -> np.ndarray:
    """Net benefit (B,) of acting on some images: true positives minus weighted false positives, per image.

    A false positive counts threshold / (1 - threshold): who acts from a probability of 10 % on accepts nine needless
    actions for one that was needed (Vickers & Elkin 2006, doi:10.1177/0272989X06295361).

    Parameters
    ----------
    positive, acted : (N,) bool.
    threshold : in (0, 1).
    weights : (B, N).

    Examples
    --------
    >>> net_benefit(np.array([1, 0, 0, 0]) > 0, np.array([1, 1, 0, 0]) > 0, 0.2, np.ones((1, 4)))  # (1 - 1 / 4) / 4
    array([0.1875])
    """
    gains = positive * 1.0 - ~positive * threshold / (1 - threshold)
    return evaluate.weighted_mean(weights, acted * gains)


def benefit_scores(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> evaluate.Scores:
    """Net benefit of acting where the score (N,) reaches each of the `THRESHOLDS`, and of acting on all images.

    ``<per cent>.gain`` is what the model adds to the better one of acting on all and acting on none.
    """
    scores, everyone = {}, np.ones(len(positive), bool)
    for percent in THRESHOLDS:
        model = net_benefit(positive, score >= percent / 100, percent / 100, weights)
        of_all = net_benefit(positive, everyone, percent / 100, weights)
        values = {"model": model, "all": of_all, "gain": model - np.maximum(of_all, 0)}
        scores |= {f"{percent}.{name}": value for name, value in values.items()}
    return scores


def surest(probabilities: np.ndarray) -> np.ndarray:
    """Whether each image is among the `SUREST` by its top-1 probability: (N,) bool. Ties go to the first images."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    chosen = np.zeros(len(probabilities), bool)
    chosen[order[: max(1, round(SUREST * len(order)))]] = True
    return chosen


def surest_scores(
    true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], weights: np.ndarray
) -> evaluate.Scores:
    """Accuracy on the surest images; by class, the share `kept` among them, and the share of these that is `right`."""
    right, kept = probabilities.argmax(axis=1) == true, surest(probabilities)
    scores = {"accuracy": evaluate.weighted_mean(weights[:, kept], right[kept].astype(float))}
    for k, code in enumerate(classes):
        own, both = true == k, (true == k) & kept
        scores[f"per_class.{code}.kept"] = evaluate.weighted_mean(weights[:, own], kept[own].astype(float))
        scores[f"per_class.{code}.right"] = evaluate.weighted_mean(weights[:, both], right[both].astype(float))
    return scores


def shares_of_surest(true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Images:
    """Those among `surest_scores` that are shares of images, as `measure.shares`."""
    kept = surest(probabilities)
    images = {"accuracy": kept}
    for k, code in enumerate(classes):
        images |= {f"per_class.{code}.kept": true == k, f"per_class.{code}.right": (true == k) & kept}
    return images
