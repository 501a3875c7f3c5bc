"""Logits -> numbers: pure functions on tensors and arrays, usable on any model's output.

Shapes: N images, K classes, H x W pixels, B resamples. The scores of a data set take weights (B, N), how often each
image counts, and return values (B,): weights of one give point estimates, those of measure/bootstrap.py
their spread. NaN means "not defined", such as the recall of a class without images; means over classes leave it out.
A `prepared` score can do what does not depend on the weights once, for many calls: ``score.of(*data)(weights)``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, wraps
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAILURE = 0.65  # a mask with a lower Jaccard index counts as a failure, and as 0 in the official score
LOCALISING = 0.55  # heat maps with a smaller share of their energy inside the true mask do not localise
SENSITIVITY = 0.9  # target of the operating points on the validation set
USEFUL = 0.8  # sensitivity above which the partial AUC counts
TAUS = np.arange(31) / 20  # 0, 0.05, ..., 1.5: candidates for the strength of the balanced rule
CUTOFF = 0.5  # probability above which the official scores predict a class against the rest
N_BINS = 15  # confidence bins of the calibration error
Scores = dict[str, np.ndarray]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context for the number format of the forward pass: "bf16" or "fp16" mixed precision, or "fp32"."""
    half = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, half, enabled=precision != "fp32")


def infer(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    precision: str = "fp32",
    forward: Callable[[Tensor], dict[str, Tensor]] | None = None,
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Yield each batch with its float32 logits. The model's training mode is restored afterwards.

    Parameters
    ----------
    forward : a method of the model to call in place of the model itself.
    """
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            with torch.inference_mode(), autocast(batch["image"].device, precision):
                output = (forward or model)(batch["image"])
            yield batch, {name: logits.float() for name, logits in output.items()}
    finally:
        model.train(was_training)


def heads_of(model: nn.Module, image: Tensor, classes: Sequence[str]) -> list[str]:
    """Names of a model's outputs for images (N, 3, H, W): "label", "mask" or both.

    Raises
    ------
    ValueError : other outputs, or other shapes than (N, K) for these classes and (N, 1, H, W).
    """

    def checked(image: Tensor) -> dict[str, Tensor]:
        output, expected = model(image), dict.fromkeys(SCORES, (len(image),))  # one number per image, except
        expected |= {"label": (len(image), len(classes)), "mask": (len(image), 1, *image.shape[2:])}
        if not classes:
            del expected["label"]
        shapes = {name: tuple(logits.shape) for name, logits in output.items()} if isinstance(output, dict) else {}
        if not shapes or not shapes.items() <= expected.items():
            raise ValueError(
                f"The model returns {shapes or f'a {type(output).__name__}'} for images {tuple(image.shape)}; expected "
                f"a dict with some of {expected}. The data's classes are {', '.join(classes) or 'none'}."
            )
        return output

    ((_, output),) = infer(model, [{"image": image}], forward=checked)
    return list(output)


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


# Per-image scores of each head, (logits, target) -> (N,), computed on the validation set after each epoch.
SCORES: dict[str, dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "label": {"accuracy": label_accuracy},
    "mask": {
        "dice": lambda logits, mask: dice(mask_counts(logits, mask)),
        "iou": lambda logits, mask: iou(mask_counts(logits, mask)),
    },
}


def prepared(first_step: Callable) -> Callable:
    """A score of data and weights, from its first step, which maps the data alone to a function of the weights."""

    @wraps(first_step)
    def score(*data_and_weights):
        *data, weights = data_and_weights
        return first_step(*data)(weights)

    score.of = first_step
    return score


def group_sums(groups: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function of weights (B, N): their sums (B, G) by group, of groups (N,) int in [0, G), none of them empty."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return lambda weights: np.add.reduceat(np.take(weights, order, axis=1), starts, axis=1)


def in_groups(score: Callable, *data: np.ndarray) -> Callable[[np.ndarray], Scores]:
    """A function of weights (B, N): a sum or mean over images, of which only those that differ are counted apart.

    The numbers are those of ``score(*data, weights)``, in the same bits if the weights are whole.

    Parameters
    ----------
    score : takes the data and weights.
    data : (N,) or (N, M), whole numbers or bool, with few distinct rows.
    """
    codes = np.zeros(len(data[0]), int)
    for column in np.column_stack(data).T:  # numbers the rows anew with each column, so no number grows beyond N
        _, column = np.unique(column, return_inverse=True)
        codes = np.unique(codes * (column.max(initial=0) + 1) + column, return_inverse=True)[1]
    _, first = np.unique(codes, return_index=True)
    sums, distinct = group_sums(codes), [values[first] for values in data]
    return lambda weights: score(*distinct, weights=sums(weights))


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


def label_scores(true: np.ndarray, predicted: np.ndarray, classes: Sequence[str], weights: np.ndarray) -> Scores:
    """Accuracy, balanced accuracy, macro means and per-class precision, recall and F1 of predicted classes.

    The precision of a class that is never predicted is 0, but undefined where only a resample lacks predictions of it.
    A class without images has no scores.

    Parameters
    ----------
    true, predicted : (N,) int in [0, K).
    weights : (B, N).

    Examples
    --------
    >>> scores = label_scores(np.array([0, 0, 1]), np.array([0, 1, 1]), "ab", np.ones((1, 3)))
    >>> scores["balanced_accuracy"].item(), scores["per_class.a.recall"].item(), scores["per_class.b.precision"].item()
    (0.75, 0.5, 0.5)
    """
    one_hot, is_hit = np.eye(len(classes)), (predicted == true)[:, None]
    cells = (one_hot[true] * is_hit, one_hot[true], one_hot[predicted])
    hits, support, n_predicted = (weights @ each for each in cells)
    absent = np.where(support > 0, 0, np.nan)
    is_predicted = np.isin(np.arange(len(classes)), predicted)
    recall = _divide(hits, support)
    precision = np.where(is_predicted, _divide(hits, n_predicted), 0) + absent
    f1 = 2 * hits / np.maximum(support + n_predicted, 1e-12) + absent
    scores = {
        "accuracy": weighted_mean(weights, (predicted == true).astype(float)),
        "balanced_accuracy": _class_mean(recall),
        "macro_precision": _class_mean(precision),
        "macro_recall": _class_mean(recall),
        "macro_f1": _class_mean(f1),
    }
    for k, name in enumerate(classes):
        values = {"precision": precision[:, k], "recall": recall[:, k], "f1": f1[:, k]}
        scores |= {f"per_class.{name}.{key}": value for key, value in values.items()}
    return scores


@prepared
def official_label_scores(
    true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Callable[[np.ndarray], Scores]:
    """Scores of ISIC 2018 Task 3, as the organisers compute them.

    Balanced accuracy is the mean recall of the top-1 class; a tie for the maximum counts as wrong. Each class against
    the rest, predicted if its probability exceeds 0.5, has accuracy, sensitivity, specificity, F1, PPV and NPV (1 for
    0 / 0, but undefined where only a resample makes it so), AUC and average precision. `macro` holds the organisers'
    means over all classes; a class without images has a sensitivity of 1, also in a resample. `macro_present` holds the
    means over the classes with images, without undefined values.

    Parameters
    ----------
    true : (N,) int in [0, K).
    probabilities : (N, K).
    weights : (B, N).
    """
    largest = probabilities.max(axis=1, keepdims=True)
    tied = (probabilities == largest).sum(axis=1) > 1
    recalled = (probabilities.argmax(axis=1) == true) & ~tied
    recalls = in_groups(partial(_recalls, n_classes=len(classes)), true, recalled)
    parts = [_official_of_class(true == k, probabilities[:, k]) for k in range(len(classes))]

    def scores_of(weights: np.ndarray) -> Scores:
        recall, support = recalls(weights)
        scores, by_class = {"balanced_accuracy": _class_mean(recall)}, [part(weights) for part in parts]
        for name, (ours, _) in zip(classes, by_class):
            scores |= {f"per_class.{name}.{key}": value for key, value in ours.items()}
        for key in by_class[0][0]:
            ours, of_organisers = (np.stack([one[i][key] for one in by_class], axis=-1) for i in (0, 1))
            scores[f"macro.{key}"] = _class_mean(of_organisers)
            scores[f"macro_present.{key}"] = _class_mean(np.where(support > 0, ours, np.nan))
        return scores

    return scores_of


def _recalls(true: np.ndarray, recalled: np.ndarray, n_classes: int, weights: np.ndarray) -> tuple:
    """Recall and weight (B, K) of each class."""
    of_class = np.eye(n_classes)[true]
    support = weights @ of_class
    return _divide(weights @ (of_class * recalled[:, None]), support), support


def _official_of_class(positive: np.ndarray, probability: np.ndarray) -> Callable[[np.ndarray], tuple[Scores, Scores]]:
    """A function of weights: the scores of a class against the rest, ours and the organisers'."""
    called = probability > CUTOFF
    whole = binary_scores(positive, called, np.ones((1, len(positive))))
    binary, ranking = in_groups(binary_scores, positive, called), ranking_scores.of(positive, probability)

    def scores_of(weights: np.ndarray) -> tuple[Scores, Scores]:
        values, ranked = binary(weights), ranking(weights)
        filled = {key: np.where(np.isnan(value), 1, value) for key, value in values.items()}
        ours = {key: filled[key] if np.isnan(whole[key]) else value for key, value in values.items()}
        return ours | ranked, filled | ranked

    return scores_of


def binary_scores(positive: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> Scores:
    """Accuracy, sensitivity, specificity, F1, PPV and NPV of predictions (N,) against truth (N,); NaN for 0 / 0."""
    positive, predicted = positive.astype(bool), predicted.astype(bool)
    cells = (positive & predicted, ~positive & predicted, positive & ~predicted, ~positive & ~predicted)
    tp, fp, fn, tn = (weights @ np.stack(cells, axis=1).astype(float)).T
    return {
        "accuracy": _divide(tp + tn, tp + fp + fn + tn),
        "sensitivity": _divide(tp, tp + fn),
        "specificity": _divide(tn, tn + fp),
        "f1": _divide(2 * tp, 2 * tp + fp + fn),
        "ppv": _divide(tp, tp + fp),
        "npv": _divide(tn, tn + fn),
    }


class Runs(NamedTuple):
    """Images by falling score, as weights (B, R) at the R runs of equal score that hold a positive image."""

    up: np.ndarray  # of the run's positives
    true_positive: np.ndarray  # of the positives down to the run's end
    before: np.ndarray  # of the negatives above the run
    false_positive: np.ndarray  # of the negatives down to the run's end
    n_up: np.ndarray  # (B,) of all positives
    n_down: np.ndarray  # (B,) of all negatives


def ranked_runs(positive: np.ndarray, score: np.ndarray) -> Callable[[np.ndarray], Runs]:
    """A function of weights: the ROC curve at the runs of positives, where it rises; `positive`, `score` are (N,)."""
    order = np.argsort(-score, kind="stable")
    is_up = positive[order].astype(bool)
    new_run = np.diff(score[order], prepend=np.inf) != 0  # a run: images of equal score
    starts, run = np.flatnonzero(new_run), np.cumsum(new_run) - 1
    with_up, first_up = np.unique(run[is_up], return_index=True)  # the sums below need only runs that hold a positive
    starts, ends = starts[with_up], np.append(starts[1:], len(order))[with_up]
    ups, cuts = order[is_up], np.unique(np.concatenate([[0], starts, ends, [len(order)]]))
    at_start, at_end = np.searchsorted(cuts, starts), np.searchsorted(cuts, ends)

    def runs_of(weights: np.ndarray) -> Runs:
        ranked = np.zeros((len(weights), len(cuts)))  # weight of the images ranked before each cut
        np.cumsum(np.add.reduceat(np.take(weights, order, axis=1), cuts[:-1], axis=1), axis=1, out=ranked[:, 1:])
        up = np.add.reduceat(np.take(weights, ups, axis=1), first_up, axis=1)
        true_positive, n_up = up.cumsum(axis=1), up.sum(axis=1)
        before = ranked[:, at_start] - (true_positive - up)
        return Runs(up, true_positive, before, ranked[:, at_end] - true_positive, n_up, ranked[:, -1] - n_up)

    return runs_of


@prepared
def ranking_scores(positive: np.ndarray, score: np.ndarray) -> Callable[[np.ndarray], Scores]:
    """Area under the ROC curve (ties count one half) and average precision; NaN unless both classes have weight."""
    runs_of = ranked_runs(positive, score)
    return lambda weights: _areas(runs_of(weights))


@prepared
def malignant_scores(positive: np.ndarray, score: np.ndarray) -> Callable[[np.ndarray], Scores]:
    """`ranking_scores`, and the score of ISIC 2024: the area between the ROC curve and a sensitivity of `USEFUL`.

    It is the integral of the specificity over sensitivities from 0.8 to 1: 0.2 at best, 0.02 by chance. A run of equal
    scores is a straight piece of the curve.
    """
    runs_of = ranked_runs(positive, score)

    def scores_of(weights: np.ndarray) -> Scores:
        runs = runs_of(weights)
        rise, end = (_divide(part, runs.n_up[:, None]) for part in (runs.up, runs.true_positive))
        start, false_alarms = (_divide(part, runs.n_down[:, None]) for part in (runs.before, runs.false_positive))
        counted = np.clip(end - USEFUL, 0, rise)  # the part of each rise that lies above
        halfway = false_alarms - (false_alarms - start) * counted / np.maximum(rise, 1e-12) / 2
        areas = _areas(runs)
        return areas | {"partial_auc": (counted * (1 - halfway)).sum(axis=1) + 0 * areas["auc"]}  # undefined with it

    return scores_of


def _areas(runs: Runs) -> Scores:
    """`ranking_scores` of ranked images."""
    up, true_positive, before, false_positive, n_up, n_down = runs
    called, as_high = true_positive + false_positive, false_positive + before  # twice, for a tie is half as high
    undefined = np.where((n_up > 0) & (n_down > 0), 0, np.nan)
    precise = up * true_positive / np.maximum(called, 1e-12)
    return {
        "auc": _divide((up * (n_down[:, None] - as_high / 2)).sum(axis=1), n_up * n_down) + undefined,
        "average_precision": _divide(precise.sum(axis=1), n_up) + undefined,
    }


def fit_temperature(true: np.ndarray, logits: np.ndarray) -> float:
    """The temperature that minimises the negative log-likelihood of logits / temperature (Guo et al. 2017).

    1 if every image is classified correctly: the loss would fall without limit as the temperature approaches 0.
    """
    from scipy.optimize import minimize_scalar  # a prediction needs no SciPy

    logits, label = torch.as_tensor(logits, dtype=torch.float64), torch.tensor(true)
    if (logits.argmax(dim=1) == label).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(logits / np.exp(log_temperature), label).item()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities (N, K) from logits."""
    return torch.as_tensor(logits / temperature, dtype=torch.float64).softmax(dim=1).numpy()


def predict_balanced(probabilities: np.ndarray, prior: Sequence[float], tau: float) -> np.ndarray:
    """The class (N,) with the largest log p - tau log prior, the first among equals (Menon et al. 2020).

    At tau 0 it is the top-1 class, at 1 the class whose probability exceeds its share of the training images most. A
    class without training images keeps its probability, as if its prior were 1, so it is predicted only where it is
    also the top-1 class.

    Parameters
    ----------
    probabilities : (N, K), calibrated.
    prior : (K,) share of each class among the training images.

    Examples
    --------
    >>> p, prior = np.array([[.6, .3, .1]]), [.9, .1, 0]  # p / prior is .67, 3 and, as it is, .1
    >>> predict_balanced(p, prior, 0).item(), predict_balanced(p, prior, 1).item()
    (0, 1)
    """
    known = np.asarray(prior, float)
    return (probabilities / np.where(known > 0, known, 1) ** tau).argmax(axis=1)


def by_rule(probabilities: np.ndarray, prior: Sequence[float], tau: float) -> dict[str, np.ndarray]:
    """The class (N,) predicted by each of the two rules."""
    return {"likeliest": probabilities.argmax(axis=1), "balanced": predict_balanced(probabilities, prior, tau)}


def fit_tau(true: np.ndarray, probabilities: np.ndarray, prior: Sequence[float]) -> float:
    """The smallest tau among the `TAUS` with the highest mean of accuracy and balanced accuracy of `predict_balanced`.

    Balanced accuracy alone would choose a tau near 1 for every model, where a weak model loses more accuracy than it
    gains in balanced accuracy. With the mean, tau rises only while a point of one costs less than a point of the other.
    All classes share one tau: a threshold per class would be fitted to the few validation images of the rare ones.
    Parameters as `predict_balanced`, with `true` (N,).
    """
    classes, weights = list(map(str, range(len(prior)))), np.ones((1, len(true)))
    scores = []
    for tau in TAUS:
        at_tau = label_scores(true, predict_balanced(probabilities, prior, tau), classes, weights)
        scores.append((at_tau["accuracy"] + at_tau["balanced_accuracy"]).item() / 2)
    return float(TAUS[np.argmax(np.array(scores) > max(scores) - 1e-9)])  # equal but for rounding is equal


@prepared
def calibration_scores(true: np.ndarray, probabilities: np.ndarray) -> Callable[[np.ndarray], Scores]:
    """Brier score (sum over classes) and negative log-likelihood; expected calibration error and area under the
    risk-coverage curve of the top-1 class.

    The calibration error is the mean gap between confidence and accuracy over `N_BINS` equal bins of confidence.
    """
    n = np.arange(len(true))
    one_hot = np.eye(probabilities.shape[1])[true]
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == true
    squares = ((probabilities - one_hot) ** 2).sum(axis=1)
    losses = -np.log(np.maximum(probabilities[n, true], 1e-12))
    gaps, area = calibration_gaps.of(true, probabilities), aurc.of(right, confidence)
    return lambda weights: {
        "brier": weighted_mean(weights, squares),
        "nll": weighted_mean(weights, losses),
        "ece": np.abs(gaps(weights)).sum(axis=1),
        "aurc": area(weights),
    }


@prepared
def calibration_gaps(true: np.ndarray, probabilities: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Accuracy minus confidence in each of the `N_BINS` confidence bins, times the bin's share of the images."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == true
    bins = np.eye(N_BINS)[confidence_bin(confidence)]
    gaps = bins * (right - confidence)[:, None]
    return lambda weights: weighted_mean(weights, gaps)  # (B, bins)


def ece_if_calibrated(probabilities: np.ndarray, n_draws: int = 1000, seed: int = 0) -> float:
    """Mean calibration error of a perfectly calibrated model on as many images, which chance keeps above 0.

    Each image is correct with the probability (N, K) of its top-1 class, as if labels were drawn from the model.
    """
    confidence, rng = probabilities.max(axis=1), np.random.default_rng(seed)
    places, total = confidence_bin(confidence), 0.0
    for _ in range(n_draws):
        gaps = np.bincount(places, (rng.random(len(confidence)) < confidence) - confidence, N_BINS)
        total += np.abs(gaps).sum() / len(confidence)
    return float(total / n_draws)


def confidence_bin(confidence: np.ndarray) -> np.ndarray:
    """Index of the equal bin, closed above, of each confidence (N,)."""
    return np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)


def risk_coverage(right: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of images kept, and error rate among them, as the least confident are dropped one by one."""
    order = np.argsort(-confidence, kind="stable")
    kept = np.arange(1, len(right) + 1)
    return kept / len(right), np.cumsum(~right[order]) / kept


@prepared
def aurc(right: np.ndarray, confidence: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Area under the risk-coverage curve (B,): mean error over all coverages, lower is better."""
    order = np.argsort(-confidence, kind="stable")
    wrong = ~right[order]

    def area(weights: np.ndarray) -> np.ndarray:
        ranked = np.take(weights, order, axis=1)
        risk = (ranked * wrong).cumsum(axis=1)
        risk /= np.maximum(ranked.cumsum(axis=1), 1e-12)  # 0 as long as nothing is kept
        return _divide(np.einsum("bn,bn->b", risk, ranked), ranked.sum(axis=1))

    return area


def operating_threshold(positive: np.ndarray, score: np.ndarray, sensitivity: float = SENSITIVITY) -> float:
    """The highest threshold at which score >= threshold reaches this sensitivity; NaN without positives."""
    scores = np.sort(score[positive.astype(bool)])[::-1]
    return float(scores[int(np.ceil(sensitivity * len(scores) - 1e-9)) - 1]) if len(scores) else float("nan")


@prepared
def mask_scores(counts: np.ndarray) -> Callable[[np.ndarray], Scores]:
    """Scores of ISIC 2018 Task 1, as means over images and pooled over all pixels.

    Per image: Jaccard, Jaccard set to 0 below `FAILURE`, Dice, sensitivity, specificity, accuracy; each 1 for 0 / 0, so
    empty masks count. `failure_rate` is the share of images with a Jaccard index below `FAILURE`.

    Parameters
    ----------
    counts : (N, 4), as `mask_counts`.
    weights : (B, N).
    """
    images = image_mask_scores(counts)
    images |= {"failure": images["iou"] < FAILURE, "iou2": images["iou"] ** 2, "dice2": images["dice"] ** 2}
    columns = np.stack(list(images.values()), axis=1)

    def scores_of(weights: np.ndarray) -> Scores:
        means = dict(zip(images, weighted_mean(weights, columns).T))
        others = {"failure_rate": means.pop("failure")}
        pooled, nothing = weights @ counts, np.where(weights.any(axis=1), 0, np.nan)
        for name, score in (("iou", iou), ("dice", dice)):
            others[f"std_{name}"] = np.sqrt(np.maximum(means.pop(f"{name}2") - means[name] ** 2, 0))
            others[f"pooled_{name}"] = score(pooled) + nothing
        return {f"mean_{name}": values for name, values in means.items()} | others

    return scores_of


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

    A surface consists of the mask's pixels with a neighbour (of four) outside it. The Hausdorff distance is the larger
    of the two directed 95th percentiles, the average distance the mean over the pixels of both surfaces. Both are 0 if
    both masks are empty, and the image's diagonal if only one is.
    """
    from scipy.spatial import KDTree  # a prediction needs no SciPy

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


def best_median_worst(scores: np.ndarray, n_each: int = 2) -> dict[int, str]:
    """Positions of the `n_each` highest, middle and lowest scores: "best", "median" or "worst", each position once."""
    order = np.argsort(-scores, kind="stable")
    middle = max((len(order) - n_each) // 2, 0)
    parts = {"worst": order[-n_each:], "median": order[middle : middle + n_each], "best": order[:n_each]}
    ranks = {int(i): rank for rank, part in parts.items() for i in part}  # the best of few is not the worst
    return {int(i): ranks[i] for part in reversed(parts.values()) for i in part}
