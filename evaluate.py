"""Logits -> numbers: pure functions on tensors and arrays, usable on any model's output.

Shapes: N images, K classes, H x W pixels, B bootstrap resamples. The scores of a data set take weights (B, N), how
often each image counts, and return values (B,): with weights of one they are the point estimates, with
`resample_lesions` a bootstrap, so that both are one piece of code. NaN means "not defined here", such as the recall of
a class without images; means over classes leave it out.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.spatial import KDTree
from scipy.stats import binomtest
from sklearn import metrics
from torch import Tensor, nn

FAILURE = 0.65  # a Jaccard index below it counts as a failed outline, and as 0 in the official score
SENSITIVITY = 0.9  # that operating points are set to reach on the validation set
N_BINS = 15  # of confidence, for the calibration error
Scores = dict[str, np.ndarray]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The forward pass's number format: "bf16" mixed precision, or "fp32"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def infer(
    model: nn.Module, batches: Iterator[dict[str, Tensor]], precision: str = "fp32"
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Yield each batch with the model's float32 logits for it; the model is left in the mode it came in."""
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            with torch.inference_mode(), autocast(batch["image"].device, precision):
                output = model(batch["image"])
            yield batch, {name: logits.float() for name, logits in output.items()}
    finally:
        model.train(was_training)


def label_accuracy(logits: Tensor, label: Tensor) -> Tensor:
    """1 where the largest of the logits (N, K) is at `label` (N,), else 0: float (N,)."""
    return (logits.argmax(dim=1) == label).float()


def mask_counts(logits: Tensor, mask: Tensor) -> Tensor:
    """Pixels true positive, false positive, false negative and true negative in each image: float (N, 4).

    Parameters
    ----------
    logits : (N, 1, H, W); lesion where positive, that is where its probability exceeds one half.
    mask : (N, 1, H, W) in {0, 1}.
    """
    predicted, true = logits.flatten(1) > 0, mask.flatten(1) > 0
    both = (predicted & true).sum(dim=1)
    false_positive, false_negative = predicted.sum(dim=1) - both, true.sum(dim=1) - both
    rest = true.shape[1] - both - false_positive - false_negative
    return torch.stack([both, false_positive, false_negative, rest], dim=1).float()


def iou(counts):
    """Intersection over union (Jaccard) TP / (TP + FP + FN) of counts (..., 4); 1 if truth and prediction are empty."""
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    return _ratio(tp, tp + fp + fn)


def dice(counts):
    """Dice coefficient 2 TP / (2 TP + FP + FN) of counts (..., 4); 1 if truth and prediction are empty."""
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _ratio(part, whole):
    """part / whole, and 1 for 0 / 0, on tensors or arrays: the organisers' convention."""
    empty = whole == 0
    return (part + empty) / (whole + empty)


# For each head the per-image scores, (logits, target) -> (N,), that training watches on the validation set.
SCORES: dict[str, dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "label": {"accuracy": label_accuracy},
    "mask": {
        "dice": lambda logits, mask: dice(mask_counts(logits, mask)),
        "iou": lambda logits, mask: iou(mask_counts(logits, mask)),
    },
}


def resample_lesions(lesions: Sequence, n_resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Bootstrap weights (B, N): how often each image counts when lesions are drawn with replacement, whole.

    Photographs of one lesion are not independent, so drawing images would give intervals that are too narrow.

    Parameters
    ----------
    lesions : (N,) lesion of each image.
    """
    _, lesion = np.unique(np.asarray(lesions), return_inverse=True)
    n = lesion.max() + 1
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
    return draws[:, lesion].astype(float)


def with_intervals(score: Callable[[np.ndarray], Scores], resamples: np.ndarray) -> tuple[dict, dict]:
    """Point estimates, and 95 % percentile intervals (Efron 1979) of a score that takes weights.

    Returns two dicts, nested along the dots of the score's names: of numbers, and of [low, high]. A number that is not
    defined is None.
    """
    point = score(np.ones((1, resamples.shape[1])))
    drawn = score(resamples)
    intervals = {}
    for name, values in drawn.items():
        defined = values[~np.isnan(values)]
        low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
        intervals[name] = [_number(low), _number(high)] if not np.isnan(point[name][0]) else None
    return _nested({name: _number(values[0]) for name, values in point.items()}), _nested(intervals)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _nested(flat: dict) -> dict:
    """{"a.b": 1} to {"a": {"b": 1}}."""
    nested: dict = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def weighted_mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted mean (B,) or (B, M) of values (N,) or (N, M); NaN where nothing has weight."""
    total = weights.sum(axis=1)
    total = total if values.ndim == 1 else total[:, None]
    return _divide(weights @ values, total)


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN for a division by zero."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole != 0)


def _class_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN if there is nothing else."""
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))


def label_scores(true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], weights: np.ndarray) -> Scores:
    """Accuracy, balanced accuracy, macro means and per-class precision, recall and F1, from the likeliest class.

    The precision of a class that is never predicted is 0; a class without images has no scores.

    Parameters
    ----------
    true : (N,) int in [0, K).
    probabilities : (N, K).
    weights : (B, N).

    Examples
    --------
    >>> found = label_scores(np.array([0, 0, 1]), np.array([[.9, .1], [.2, .8], [.3, .7]]), "ab", np.ones((1, 3)))
    >>> found["balanced_accuracy"].item(), found["per_class.a.recall"].item(), found["per_class.b.precision"].item()
    (0.75, 0.5, 0.5)
    """
    confusion = weighted_confusion(true, probabilities.argmax(axis=1), len(classes), weights)
    hits, support, predicted = np.einsum("bkk->bk", confusion), confusion.sum(axis=2), confusion.sum(axis=1)
    absent = np.where(support > 0, 0, np.nan)
    recall = _divide(hits, support)
    precision = hits / np.maximum(predicted, 1e-12) + absent
    f1 = 2 * hits / np.maximum(support + predicted, 1e-12) + absent
    found = {
        "accuracy": weighted_mean(weights, (probabilities.argmax(axis=1) == true).astype(float)),
        "balanced_accuracy": _class_mean(recall),
        "macro_precision": _class_mean(precision),
        "macro_recall": _class_mean(recall),
        "macro_f1": _class_mean(f1),
    }
    for k, name in enumerate(classes):
        values = {"precision": precision[:, k], "recall": recall[:, k], "f1": f1[:, k]}
        found |= {f"per_class.{name}.{key}": value for key, value in values.items()}
    return found


def weighted_confusion(true: np.ndarray, predicted: np.ndarray, n_classes: int, weights: np.ndarray) -> np.ndarray:
    """Confusion matrices (B, K, K), true classes in rows; a prediction of -1 is in no column but in its row's total."""
    cells = np.zeros((len(true), n_classes, n_classes))
    decided = predicted >= 0
    cells[np.flatnonzero(decided), true[decided], predicted[decided]] = 1
    return (weights @ cells.reshape(len(true), -1)).reshape(-1, n_classes, n_classes)


def official_label_scores(
    true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], weights: np.ndarray
) -> Scores:
    """ISIC 2018 Task 3 as its organisers score it.

    Balanced accuracy: mean recall of the likeliest class, a tie for the maximum counting as wrong. Per class against
    the rest, called where the probability exceeds 0.5: accuracy, sensitivity, specificity, F1, PPV, NPV, each 1 for
    0 / 0; AUC and average precision. `macro` holds the means over classes. Parameters as `label_scores`.
    """
    largest = probabilities.max(axis=1, keepdims=True)
    tied = (probabilities == largest).sum(axis=1) > 1
    recalled = ((probabilities.argmax(axis=1) == true) & ~tied).astype(float)
    recalls, found = [], {}
    for k, name in enumerate(classes):
        positive = (true == k).astype(float)
        recalls.append(_divide(weights @ (recalled * positive), weights @ positive))
        values = binary_scores(positive, probabilities[:, k] > 0.5, weights)
        values |= ranking_scores(positive, probabilities[:, k], weights)
        found |= {f"per_class.{name}.{key}": value for key, value in values.items()}
    for key in ("accuracy", "sensitivity", "specificity", "f1", "ppv", "npv", "auc", "average_precision"):
        found[f"macro.{key}"] = _class_mean(np.stack([found[f"per_class.{name}.{key}"] for name in classes], axis=-1))
    return {"balanced_accuracy": _class_mean(np.stack(recalls, axis=-1))} | found


def binary_scores(positive: np.ndarray, called: np.ndarray, weights: np.ndarray) -> Scores:
    """Accuracy, sensitivity, specificity, F1, PPV and NPV of calls (N,) against truth (N,); 1 for 0 / 0."""
    positive, called = positive.astype(float), called.astype(float)
    tp, fp = weights @ (positive * called), weights @ ((1 - positive) * called)
    fn, tn = weights @ (positive * (1 - called)), weights @ ((1 - positive) * (1 - called))
    return {
        "accuracy": _divide(tp + tn, tp + fp + fn + tn),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "ppv": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
    }


def ranking_scores(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> Scores:
    """Area under the ROC curve, ties counting one half, and average precision; NaN unless both classes have weight."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))  # of each run of equal scores
    up = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    down = np.add.reduceat(weights[:, order] * (1 - positive[order]), starts, axis=1)
    true_positive, false_positive = up.cumsum(axis=1), down.cumsum(axis=1)
    n_up, n_down = true_positive[:, -1], false_positive[:, -1]
    above = true_positive - up / 2  # positives ranked above each run's negatives
    precision = true_positive / np.maximum(true_positive + false_positive, 1e-12)
    undefined = np.where((n_up > 0) & (n_down > 0), 0, np.nan)
    return {
        "auc": _divide((down * above).sum(axis=1), n_up * n_down) + undefined,
        "average_precision": _divide((up * precision).sum(axis=1), n_up) + undefined,
    }


def fit_temperature(true: np.ndarray, logits: np.ndarray) -> float:
    """The temperature that minimises the negative log-likelihood of logits / temperature (Guo et al. 2017).

    1 where every image is called right: the loss then falls without end as the temperature goes to 0.
    """
    logits, label = torch.as_tensor(logits, dtype=torch.float64), torch.tensor(true)
    if (logits.argmax(dim=1) == label).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(logits / np.exp(log_temperature), label).item()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities (N, K) from logits."""
    return torch.as_tensor(logits / temperature, dtype=torch.float64).softmax(dim=1).numpy()


def calibration_scores(true: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> Scores:
    """Brier score (sum over classes), negative log-likelihood, and expected calibration error of the likeliest class.

    The calibration error is the mean gap between confidence and accuracy over `N_BINS` equal bins of confidence.
    """
    n = np.arange(len(true))
    one_hot = np.eye(probabilities.shape[1])[true]
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == true
    bins = np.eye(N_BINS)[confidence_bin(confidence)]
    gaps = weights @ (bins * (right - confidence)[:, None])  # (B, bins)
    return {
        "brier": weighted_mean(weights, ((probabilities - one_hot) ** 2).sum(axis=1)),
        "nll": weighted_mean(weights, -np.log(np.maximum(probabilities[n, true], 1e-12))),
        "ece": np.abs(gaps).sum(axis=1) / weights.sum(axis=1),
        "aurc": aurc(right, confidence, weights),
    }


def confidence_bin(confidence: np.ndarray) -> np.ndarray:
    """Which of the `N_BINS` equal bins, closed above, each confidence (N,) falls into."""
    return np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)


def risk_coverage(right: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of images kept, and share of errors among them, as the least confident are given up one by one."""
    order = np.argsort(-confidence, kind="stable")
    kept = np.arange(1, len(right) + 1)
    return kept / len(right), np.cumsum(~right[order]) / kept


def aurc(right: np.ndarray, confidence: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the risk-coverage curve (B,): mean error over all coverages, lower is better."""
    order = np.argsort(-confidence, kind="stable")
    kept = weights[:, order].cumsum(axis=1)
    risk = _divide((weights[:, order] * ~right[order]).cumsum(axis=1), kept)
    return np.nansum(risk * weights[:, order], axis=1) / weights.sum(axis=1)


def operating_threshold(positive: np.ndarray, score: np.ndarray, sensitivity: float = SENSITIVITY) -> float:
    """The highest threshold at which calling score >= threshold reaches this sensitivity; NaN without positives."""
    scores = np.sort(score[positive.astype(bool)])[::-1]
    return float(scores[int(np.ceil(sensitivity * len(scores) - 1e-9)) - 1]) if len(scores) else float("nan")


def mask_scores(counts: np.ndarray, weights: np.ndarray) -> Scores:
    """ISIC 2018 Task 1's scores, as means over images, and pooled over all pixels.

    Per image: Jaccard, Jaccard set to 0 below `FAILURE`, Dice, sensitivity, specificity, accuracy; each 1 for 0 / 0, so
    empty masks count. `failure_rate` is the share of images with a Jaccard index below `FAILURE`.

    Parameters
    ----------
    counts : (N, 4), as `mask_counts`.
    weights : (B, N).
    """
    images = image_mask_scores(counts)
    found = {f"mean_{name}": weighted_mean(weights, values) for name, values in images.items()}
    found["failure_rate"] = weighted_mean(weights, (images["iou"] < FAILURE).astype(float))
    pooled, nothing = weights @ counts, np.where(weights.any(axis=1), 0, np.nan)
    for name, score in (("iou", iou), ("dice", dice)):
        variance = weighted_mean(weights, images[name] ** 2) - found[f"mean_{name}"] ** 2
        found[f"std_{name}"] = np.sqrt(np.maximum(variance, 0))
        found[f"pooled_{name}"] = score(pooled) + nothing
    return found


def image_mask_scores(counts: np.ndarray) -> Scores:
    """The official scores of each image, (N,), from its `mask_counts`."""
    tp, fp, fn, tn = np.asarray(counts, float).T
    jaccard = iou(np.asarray(counts, float))
    return {
        "iou": jaccard,
        "dice": dice(np.asarray(counts, float)),
        "threshold_iou": np.where(jaccard >= FAILURE, jaccard, 0.0),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
    }


def surface_distances(predicted: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """95 % Hausdorff and average symmetric surface distance between two masks (H, W), in pixels.

    A surface is the mask's pixels that have a neighbour (of four) outside it. The first is the larger of the two
    directed 95th percentiles, the second the mean over both surfaces' pixels. Both empty: 0. One empty: the image's
    diagonal.
    """
    surfaces = [np.argwhere(_surface(mask)) for mask in (predicted, true)]
    if not len(surfaces[0]) or not len(surfaces[1]):
        distance = 0.0 if len(surfaces[0]) == len(surfaces[1]) else float(np.hypot(*true.shape))
        return distance, distance
    trees = [KDTree(surface) for surface in surfaces]
    there, back = trees[1].query(surfaces[0])[0], trees[0].query(surfaces[1])[0]
    hausdorff = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hausdorff), float(np.concatenate([there, back]).mean())


def _surface(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask.astype(bool), 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return padded[1:-1, 1:-1] & ~inner


def paired_difference(
    score: Callable[[int, np.ndarray], np.ndarray], resamples: np.ndarray
) -> dict[str, float | list[float]]:
    """Second minus first model on the same images, with a 95 % interval from resamples that both share.

    Parameters
    ----------
    score : (model 0 or 1, weights (B, N)) -> (B,).
    """
    ones = np.ones((1, resamples.shape[1]))
    drawn = score(1, resamples) - score(0, resamples)
    point = float((score(1, ones) - score(0, ones))[0])
    return {"difference": point, "interval": np.nanpercentile(drawn, [2.5, 97.5]).tolist()}


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> dict[str, float]:
    """Exact McNemar test that two classifiers err equally often on the same images; p is 1 if they never disagree."""
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    n = only_first + only_second
    return {
        "only_first_right": only_first,
        "only_second_right": only_second,
        "p": float(binomtest(only_first, n).pvalue) if n else 1.0,
    }


def best_median_worst(scores: np.ndarray, n_each: int = 2) -> list[int]:
    """Positions of the `n_each` highest, middle and lowest scores, without repeats."""
    order = np.argsort(-scores, kind="stable")
    middle = max((len(order) - n_each) // 2, 0)
    return list(dict.fromkeys([*order[:n_each], *order[middle : middle + n_each], *order[-n_each:]]))


def confusion_matrix(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Test images (K, K) by true class (rows) and predicted class (columns)."""
    return metrics.confusion_matrix(true, probabilities.argmax(axis=1), labels=range(probabilities.shape[1]))
