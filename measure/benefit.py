"""Usefulness of a classifier: net benefit of treating by it, and accuracy on its most confident predictions.

Shapes: N images, K classes, B resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np

import evaluate
from measure.shares import Images

THRESHOLDS = tuple(range(2, 51, 2))  # threshold probabilities of malignancy, in per cent
SUREST = 0.8  # share of the images, those with the highest top-1 probability


def net_benefit(true_positive: np.ndarray, false_positive: np.ndarray, n: np.ndarray, threshold: float) -> np.ndarray:
    """Net benefit (B,) of treating some of n images: true positives minus weighted false positives, per image.

    The weight of a false positive is threshold / (1 - threshold): a threshold of 10 % accepts nine unnecessary
    treatments for one necessary treatment (Vickers & Elkin 2006, doi:10.1177/0272989X06295361).

    Parameters
    ----------
    true_positive, false_positive, n : (B,), counts or weights; undefined for n = 0.
    threshold : in (0, 1).

    Examples
    --------
    >>> net_benefit(np.ones(1), np.ones(1), np.array([4]), 0.2)  # (1 - 1 / 4) / 4
    array([0.1875])
    """
    gain = true_positive - false_positive * threshold / (1 - threshold)
    return np.divide(gain, n, out=np.full(len(gain), np.nan), where=n > 0)


@evaluate.prepared
def benefit_scores(positive: np.ndarray, score: np.ndarray) -> Callable[[np.ndarray], evaluate.Scores]:
    """Net benefit of treating where the score (N,) reaches each of the `THRESHOLDS`, and of treating all images.

    ``<per cent>.gain`` is the gain of the model over the better of treating all and treating none.
    """
    reached = np.searchsorted(np.array(THRESHOLDS) / 100, score, side="right")  # how many of the thresholds
    return evaluate.in_groups(_benefits, positive, reached)


def _benefits(positive: np.ndarray, reached: np.ndarray, weights: np.ndarray) -> evaluate.Scores:
    scores, n = {}, weights.sum(axis=1)
    for i, percent in enumerate(THRESHOLDS):
        treated = np.stack([positive & (reached > i), ~positive & (reached > i), positive, ~positive], axis=1)
        counts = (weights @ treated.astype(float)).T
        model, of_all = (net_benefit(*some, n, percent / 100) for some in (counts[:2], counts[2:]))
        values = {"model": model, "all": of_all, "gain": model - np.maximum(of_all, 0)}
        scores |= {f"{percent}.{name}": value for name, value in values.items()}
    return scores


def surest(probabilities: np.ndarray) -> np.ndarray:
    """Whether each image is among the `SUREST` by its top-1 probability: (N,) bool. Of ties, the first images are."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    chosen = np.zeros(len(probabilities), bool)
    chosen[order[: max(1, round(SUREST * len(order)))]] = True
    return chosen


@evaluate.prepared
def surest_scores(
    true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Callable[[np.ndarray], evaluate.Scores]:
    """Accuracy on the surest images; per class, the share `kept` among them, and the share of those that is `right`."""

    def of_kept(true: np.ndarray, right: np.ndarray, kept: np.ndarray, weights: np.ndarray) -> evaluate.Scores:
        scores = {"accuracy": evaluate.weighted_mean(weights[:, kept], right[kept].astype(float))}
        for k, code in enumerate(classes):
            own, both = true == k, (true == k) & kept
            scores[f"per_class.{code}.kept"] = evaluate.weighted_mean(weights[:, own], kept[own].astype(float))
            scores[f"per_class.{code}.right"] = evaluate.weighted_mean(weights[:, both], right[both].astype(float))
        return scores

    return evaluate.in_groups(of_kept, true, probabilities.argmax(axis=1) == true, surest(probabilities))


def shares_of_surest(true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Images:
    """The images behind those of `surest_scores` that are shares of images, as in `measure.shares`."""
    kept = surest(probabilities)
    images = {"accuracy": kept}
    for k, code in enumerate(classes):
        images |= {f"per_class.{code}.kept": true == k, f"per_class.{code}.right": (true == k) & kept}
    return images
