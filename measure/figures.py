"""Outputs of a model on a set of images -> figures."""

from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.metrics import confusion_matrix
from torch import nn

import data
import evaluate
import visualize
from dataset import images
from dataset.classes import classes_of, positions_of
from measure.collect import Collected

CAPTIONS = {  # by file name, in the order of the report
    "training_curves": "Loss and validation scores by epoch; the saved epoch is marked.",
    "confusion_matrix": "Test images by true and predicted class; colours show the share of the true class.",
    "confusion_matrix_balanced": "The same images by true class and the class predicted by the balanced rule.",
    "roc_and_precision_recall": "Each class against the rest.",
    "reliability": "Accuracy by confidence.",
    "risk_coverage": "Error rate among the most confident images, if the rest are referred to a human.",
    "net_benefit": "Net benefit of treating by the probability of malignancy, with its 95 % interval.",
    "confident_errors": "The most confident errors.",
    "heat_maps": "Evidence for the predicted class; contour of the true mask, if there is one, in white.",
    "masks": "Best, median and worst masks by Dice.",
    "dice_by_class": "Dice by diagnosis. Each dot is a test image; of many, a shape shows the number by its width, and "
    "dots the lowest.",
}


def label_figures(
    true: np.ndarray,
    before: np.ndarray,
    probabilities: np.ndarray,
    predicted: dict[str, np.ndarray],
    classes: Sequence[str],
    name: str,
) -> dict[str, visualize.Figure | None]:
    """Figures of the labels that show no image, so that they can be drawn again from predictions.csv.

    Parameters
    ----------
    true : (N,) int in [0, K).
    before, probabilities : (N, K), before and after temperature scaling.
    predicted : the class (N,) by rule, as `evaluate.by_rule`.
    """
    labels = range(len(classes))
    matrix = {rule: confusion_matrix(true, codes, labels=labels) for rule, codes in predicted.items()}
    kept = evaluate.risk_coverage(predicted["likeliest"] == true, probabilities.max(axis=1))
    return {
        "confusion_matrix": visualize.confusion(matrix["likeliest"], classes, name),
        "confusion_matrix_balanced": visualize.confusion(matrix["balanced"], classes, f"{name}, balanced"),
        "roc_and_precision_recall": visualize.ranking_curves(true, probabilities, classes, name),
        "reliability": visualize.reliability(true, before, probabilities, evaluate.N_BINS, name),
        "risk_coverage": visualize.risk_coverage(*kept, name),
    }


def mask_figures(dice: np.ndarray, true: np.ndarray, classes: Sequence[str], name: str) -> dict[str, visualize.Figure]:
    """Figures of the masks that show no image: of Dice (N,) and labels (N,), -1 for no diagnosis."""
    by_class = {code: dice[true == k] for k, code in enumerate(classes)}
    return {"dice_by_class": visualize.dice_by_class(by_class or {"all": dice}, name)}


class Figures:
    """Figures of one model on one set of images, by file name; all of the images have the target."""

    def __init__(
        self,
        model: nn.Module | None,
        batches: data.Batches,
        collected: Collected,
        name: str,
        precision: str,
    ) -> None:
        self.model, self.batches, self.collected, self.name, self.precision = model, batches, collected, name, precision
        self.classes = classes_of(batches.table)
        self.names, self.true = batches.table["image"].to_numpy(), positions_of(batches.table)

    def of_labels(self) -> dict[str, visualize.Figure | None]:
        """Confusion matrices of both rules, ROC and precision-recall, reliability, risk-coverage, errors, heat maps."""
        calls = self.collected.calls
        predicted, probabilities = calls.by_rule, calls.probabilities
        return label_figures(self.true, calls.before, probabilities, predicted, self.classes, self.name) | {
            "confident_errors": self._confident_errors(probabilities),
            "heat_maps": self._heat_maps(predicted["likeliest"]),
        }

    def of_masks(self) -> dict[str, visualize.Figure | None]:
        """Best, median and worst masks, and Dice by diagnosis."""
        dice = evaluate.dice(self.collected.mask)
        masks = self._masks(dice) if self.model else None
        return {"masks": masks} | mask_figures(dice, self.true, self.classes, self.name)

    def _masks(self, dice: np.ndarray) -> visualize.Figure:
        picks = evaluate.best_median_worst(dice)
        few = self.batches.subset(list(picks))
        ((_, output),) = evaluate.infer(self.model, few.epoch(), self.precision)
        predicted = output["mask"][:, 0].gt(0).cpu().numpy()
        titles = [f"{rank}: Dice {dice[i]:.3f}\n{self.names[i]}\n{self._class(i)}" for i, rank in picks.items()]
        heading = f"{self.name}: best, median and worst of {len(dice)} test images by Dice"
        return visualize.mask_rows(*few.images_and_masks(), predicted, titles, heading, self._shapes(picks))

    def _confident_errors(self, probabilities: np.ndarray) -> visualize.Figure | None:
        predicted = probabilities.argmax(axis=1)
        wrong = np.flatnonzero(predicted != self.true)
        picks = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:8]
        if not len(picks):
            return None
        titles = [f"{self._verdict(i, predicted[i])} ({probabilities[i].max():.2f})" for i in picks]
        pictures, _ = self.batches.subset(picks).images_and_masks()
        return visualize.gallery(pictures, titles, f"{self.name}: most confident errors", self._shapes(picks))

    def _heat_maps(self, predicted: np.ndarray) -> visualize.Figure | None:
        """Grad-CAM of the predicted class on the first image of each (common) class; None without heat maps."""
        if not hasattr(self.model, "explain"):
            return None
        shown = visualize.commonest(np.bincount(self.true, minlength=len(self.classes)), visualize.N_SHOWN)
        picks = [int(np.flatnonzero(self.true == k)[0]) for k in shown if (self.true == k).any()]
        few = self.batches.subset(picks)
        ((_, output),) = evaluate.infer(self.model, few.epoch(), self.precision, self.model.explain)
        titles = [self._verdict(i, predicted[i]) for i in picks]
        heading = f"{self.name}: evidence for the predicted class (Grad-CAM)"
        heat = output["heat"][:, 0].cpu().numpy()
        return visualize.heat_maps(*few.images_and_masks(), heat, titles, heading, self._shapes(picks))

    def _shapes(self, picks: Iterable[int]) -> list[float]:
        """Height per width of each photograph, as the network's input is square; 1 where its file is not known."""
        paths = self.batches.table.get("image_path")
        sizes = [(1, 1) if paths is None else images.own_size(paths.iloc[i]) for i in picks]
        return [height / width for width, height in sizes]

    def _class(self, i: int) -> str:
        return "no diagnosis" if self.true[i] < 0 else self.classes[self.true[i]]

    def _verdict(self, i: int, predicted: int) -> str:
        return f"{self.names[i]}\ntrue {self._class(i)}\npredicted {self.classes[predicted]}"
