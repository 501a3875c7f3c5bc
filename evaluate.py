"""Logits -> numbers: pure functions on tensors and arrays, usable on any model's output.

Shapes: N images, K classes, H x W pixels.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from sklearn import metrics
from torch import Tensor, nn


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The forward pass's number format: "bf16" mixed precision, or "fp32"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def predict(
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
    """Pixels true positive, false positive and false negative in each image: float (N, 3).

    Parameters
    ----------
    logits : (N, 1, H, W); lesion where positive, that is where its probability exceeds one half.
    mask : (N, 1, H, W) in {0, 1}.
    """
    predicted, true = logits.flatten(1) > 0, mask.flatten(1) > 0
    both = (predicted & true).sum(dim=1)
    return torch.stack([both, predicted.sum(dim=1) - both, true.sum(dim=1) - both], dim=1).float()


def iou(counts: Tensor) -> Tensor:
    """Intersection over union (Jaccard) TP / (TP + FP + FN) of counts (..., 3); 1 if truth and prediction are empty."""
    tp, fp, fn = counts.unbind(-1)
    return _ratio(tp, tp + fp + fn)


def dice(counts: Tensor) -> Tensor:
    """Dice coefficient 2 TP / (2 TP + FP + FN) of counts (..., 3); 1 if truth and prediction are empty."""
    tp, fp, fn = counts.unbind(-1)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=1), 1.0)


# For each head the per-image scores, (logits, target) -> (N,), that training watches on the validation set.
SCORES: dict[str, dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "label": {"accuracy": label_accuracy},
    "mask": {
        "dice": lambda logits, mask: dice(mask_counts(logits, mask)),
        "iou": lambda logits, mask: iou(mask_counts(logits, mask)),
    },
}

# For each head what is kept of a test image, (logits, target) -> (N, ...), to compute the metrics from.
SUMMARIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "label": lambda logits, label: logits.softmax(dim=1),
    "mask": mask_counts,
}


def summarise(model: nn.Module, batches: Iterator[dict[str, Tensor]], precision: str = "fp32") -> dict[str, np.ndarray]:
    """Run a model over all batches; for each head one row an image: probabilities (N, K) or `mask_counts` (N, 3)."""
    rows: dict[str, list[Tensor]] = {}
    for batch, output in predict(model, batches, precision):
        for head, logits in output.items():
            rows.setdefault(head, []).append(SUMMARIES[head](logits, batch[head]))
    return {head: torch.cat(values).double().cpu().numpy() for head, values in rows.items()}


def label_metrics(true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict:
    """Accuracy, balanced accuracy, macro means and per-class precision, recall, F1 and support.

    The predicted class is the one of the largest probability. Means over classes leave out a class without a test
    image, whose values are None; the precision of a class that is never predicted is 0.

    Parameters
    ----------
    true : (N,) int in [0, K).
    probabilities : (N, K).

    Examples
    --------
    >>> found = label_metrics(np.array([0, 0, 1]), np.array([[.9, .1], [.2, .8], [.3, .7]]), ["a", "b"])
    >>> found["balanced_accuracy"], found["per_class"]["a"]["recall"]
    (0.75, 0.5)
    """
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        true, predicted, labels=range(len(classes)), zero_division=0
    )
    present = support > 0
    per_class = {
        name: {
            "precision": float(precision[k]) if present[k] else None,
            "recall": float(recall[k]) if present[k] else None,
            "f1": float(f1[k]) if present[k] else None,
            "support": int(support[k]),
        }
        for k, name in enumerate(classes)
    }
    return {
        "accuracy": float((predicted == true).mean()),
        "balanced_accuracy": float(recall[present].mean()),
        "macro_precision": float(precision[present].mean()),
        "macro_recall": float(recall[present].mean()),
        "macro_f1": float(f1[present].mean()),
        "per_class": per_class,
        "n_images": len(true),
    }


def confusion_matrix(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Test images (K, K) by true class (rows) and predicted class (columns)."""
    return metrics.confusion_matrix(true, probabilities.argmax(axis=1), labels=range(probabilities.shape[1]))


def mask_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """IoU and Dice of each image, (N,), from its `mask_counts`."""
    counts = torch.as_tensor(counts)
    return {"iou": iou(counts).numpy(), "dice": dice(counts).numpy()}


def mask_metrics(counts: np.ndarray) -> dict:
    """IoU and Dice: mean and standard deviation over images, and pooled over all pixels.

    Parameters
    ----------
    counts : (N, 3), as `mask_counts`.
    """
    counts = torch.as_tensor(counts, dtype=torch.float64)
    found: dict = {"n_images": len(counts)}
    for name, score in (("iou", iou), ("dice", dice)):
        values = score(counts)
        found[f"mean_{name}"] = float(values.mean())
        found[f"std_{name}"] = float(values.std(correction=0))
        found[f"pooled_{name}"] = float(score(counts.sum(dim=0)))
    return found


def best_median_worst(scores: np.ndarray, n_each: int = 2) -> list[int]:
    """Positions of the `n_each` highest, middle and lowest scores, without repeats."""
    order = np.argsort(-scores, kind="stable")
    middle = max((len(order) - n_each) // 2, 0)
    return list(dict.fromkeys([*order[:n_each], *order[middle : middle + n_each], *order[-n_each:]]))


def report(task: str, found: dict) -> str:
    """The test set's numbers as a table for the console."""
    lines = [f"{task}, test set"]
    if "label" in found:
        label = found["label"]
        lines.append(f"  {'':6}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}")
        for name, row in label["per_class"].items():
            values = "".join(f"{_number(row[k]):>10}" for k in ("precision", "recall", "f1"))
            lines.append(f"  {name:6}{values}{row['support']:>10}")
        values = "".join(f"{label[f'macro_{k}']:>10.3f}" for k in ("precision", "recall", "f1"))
        lines.append(f"  {'macro':6}{values}{label['n_images']:>10}")
        lines.append(f"  accuracy {label['accuracy']:.3f}, balanced accuracy {label['balanced_accuracy']:.3f}")
    if "mask" in found:
        mask = found["mask"]
        for name, title in (("dice", "Dice"), ("iou", "IoU")):
            lines.append(
                f"  {title:5} mean {mask[f'mean_{name}']:.3f} (SD {mask[f'std_{name}']:.3f}), "
                f"pooled {mask[f'pooled_{name}']:.3f}, {mask['n_images']} images"
            )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
