"""A trained model, ready for pictures: decoded pictures in, probabilities, masks and heat maps out."""

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

SHIPPED = Path(__file__).parents[1] / "pretrained" / "ham10000.pth"  # comes with the repository


class Picture(NamedTuple):
    """A decoded picture."""

    pixels: np.ndarray  # (S, S, 3) uint8, S the network's image size
    size: tuple[int, int]  # its own, upright: width, height


class Prediction(NamedTuple):
    """What a model says of one picture; None for what it has no head for."""

    size: tuple[int, int]  # the picture's own, upright: width, height
    probabilities: np.ndarray | None  # (K,), calibrated
    mask: np.ndarray | None  # (S, S) logits
    heat: np.ndarray | None  # (S, S) in [0, 1], for the likeliest class
    balanced: int | None = None  # class that the balanced rule calls; None also if the checkpoint has no tau
    findings: tuple[Finding, ...] = ()  # melanoma and malignant: probability, above or below the threshold


class Predictor:
    """A checkpoint, ready for pictures.

    Parameters
    ----------
    checkpoints : any of those that main.py writes; of several the probabilities are averaged.
    tta : average the logits of the eight flips and quarter turns.
    explain : compute heat maps of the likeliest class, if the model has labels.

    Raises
    ------
    FileNotFoundError, ValueError : no such file; not a checkpoint; of other classes or sizes; no such device.
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
        """What a reader must know of the decisions: each threshold and what it did in the test set, and what lacks."""
        left_out = [NO_TAU] if self.points and not self.trained.has_rule else []
        return [f"{point.name}: {point.describe()}." for point in self.points] + left_out

    def read(self, source: str | Path | bytes) -> Picture:
        """Decode a file, or its content, as for training. Raises as `images.read_image`."""
        image, size = images.read_image_and_size(source, self.trained.image_size)
        return Picture(np.asarray(image), size)

    def predict(self, pictures: Sequence[Picture]) -> list[Prediction]:
        """What the model says of each picture, in one batch."""
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        image = data.normalise(pixels.to(self.device))
        forward = self.model.explain if self.explain else None
        ((_, output),) = evaluate.infer(self.model, [{"image": image}], self.precision, forward)
        output = {name: logits.cpu() for name, logits in output.items()}
        nothing = [None] * len(pictures)
        probabilities, masks, balanced, findings = nothing, nothing, nothing, [()] * len(pictures)
        if "label" in output:
            probabilities = evaluate.softmax(output["label"].double().numpy(), self.trained.temperature)
            findings = [thresholds.findings(of_picture, self.points) for of_picture in probabilities]
        if self.trained.has_rule:
            rule = self.trained.calibration["prior"], self.trained.calibration["tau"]
            balanced = evaluate.predict_balanced(probabilities, *rule).tolist()
        if "mask" in output:
            masks = output["mask"][:, 0].numpy()
        heat = output["heat"][:, 0].numpy() if self.explain else nothing
        found = zip(pictures, probabilities, masks, heat, balanced, findings)
        return [Prediction(picture.size, *of_picture) for picture, *of_picture in found]


def choose_checkpoints(named: list[Path] | None) -> list[Path]:
    """The checkpoints that were named, or else the one that comes with the repository, which is said.

    Raises
    ------
    FileNotFoundError : none was named, and that one is missing.
    """
    if named:
        return named
    if not SHIPPED.is_file():
        raise FileNotFoundError(f"Name a --checkpoint: the one of this repository is missing from {SHIPPED.parent}.")
    machine.say(f"Using the model that comes with the repository: {SHIPPED.name}, for non-commercial use only.")
    return [SHIPPED]
