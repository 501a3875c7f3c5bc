"""A trained model for inference: decoded images in, probabilities, masks and heat maps out."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import data
import evaluate
import machine
from checkpoints import thresholds
from checkpoints.thresholds import NO_TAU, Finding
from checkpoints.trained import Trained
from dataset import images

SHIPPED = Path(__file__).parents[1] / "pretrained" / "ham10000.pth"  # the bundled model


class Picture(NamedTuple):
    """A decoded image."""

    pixels: np.ndarray  # (S, S, 3) uint8, S the model's image size
    size: tuple[int, int]  # original width and height, upright


class Prediction(NamedTuple):
    """A model's prediction for one image; None where it has no head for it."""

    size: tuple[int, int]  # original width and height, upright
    probabilities: np.ndarray | None  # (K,), calibrated
    mask: np.ndarray | None  # (S, S) logits
    heat: np.ndarray | None  # (S, S) in [0, 1], for the predicted class
    balanced: int | None = None  # class predicted by the balanced rule; None also without tau
    findings: tuple[Finding, ...] = ()  # melanoma and malignant: probability, above or below the threshold


class Predictor:
    """A trained model, ready to predict.

    Parameters
    ----------
    checkpoints : files written by main.py; the probabilities of several are averaged.
    tta : average the logits over the eight flips and rotations.
    explain : compute heat maps of the predicted class, if the model has labels.

    Raises
    ------
    FileNotFoundError, ValueError : no such file; not a checkpoint; different classes or sizes; no such device.
    """

    def __init__(
        self, *checkpoints: str | Path, device: str = "auto", tta: bool = False, explain: bool = False
    ) -> None:
        self.device = machine.choose_device(device)
        self.precision = machine.choose_precision("auto", self.device)
        self.trained = Trained.load(*checkpoints, tta=tta)
        self.model = self.trained.network(self.device)
        self.explain = explain and "label" in self.trained.heads
        self.classes, self.points = self.trained.classes, self.trained.points

    def remarks(self) -> list[str]:
        """Remarks on the decisions: each threshold with its results on the test set, and a missing balanced rule."""
        unavailable = [NO_TAU] if self.points and not self.trained.has_rule else []
        return [f"{point.name}: {point.describe()}." for point in self.points] + unavailable

    def read(self, source: str | Path | bytes) -> Picture:
        """Decode a file or its content, as in training. Raises as `images.read_image`."""
        image, size = images.read_image_and_size(source, self.trained.image_size)
        return Picture(np.asarray(image), size)

    def predict(self, pictures: Sequence[Picture]) -> list[Prediction]:
        """The predictions for the images, in one batch."""
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        image = data.normalise(pixels.to(self.device))
        forward = self.model.explain if self.explain else None
        ((_, output),) = evaluate.infer(self.model, [{"image": image}], self.precision, forward)
        output = {name: logits.cpu() for name, logits in output.items()}
        none = [None] * len(pictures)
        probabilities, masks, balanced, findings = none, none, none, [()] * len(pictures)
        if "label" in output:
            probabilities = evaluate.softmax(output["label"].double().numpy(), self.trained.temperature)
            findings = [thresholds.findings(of_picture, self.points) for of_picture in probabilities]
        if self.trained.has_rule:
            rule = self.trained.calibration["prior"], self.trained.calibration["tau"]
            balanced = evaluate.predict_balanced(probabilities, *rule).tolist()
        if "mask" in output:
            masks = output["mask"][:, 0].numpy()
        heat = output["heat"][:, 0].numpy() if self.explain else none
        fields = zip(pictures, probabilities, masks, heat, balanced, findings)
        return [Prediction(picture.size, *of_picture) for picture, *of_picture in fields]


def choose_checkpoints(named: list[Path] | None) -> list[Path]:
    """The named checkpoints, or else the bundled one, with a message.

    Raises
    ------
    FileNotFoundError : none is named, and the bundled one is missing.
    """
    if named:
        return named
    if not SHIPPED.is_file():
        raise FileNotFoundError(f"Name a --checkpoint: the bundled model is missing from {SHIPPED.parent}.")
    machine.say(f"Using the bundled model {SHIPPED.name}, for non-commercial use only.")
    return [SHIPPED]
