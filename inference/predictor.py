"""A trained model for inference: decoded images in, probabilities, masks and heat maps out."""

import math
from collections.abc import Sequence
from functools import partial
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
from dataset.classes import quoted

NO_UNLIKE = (
    "Images unlike the training images cannot be detected: the detector was not fitted for this model. main.py "
    "--evaluate-only fits it on the training data, with 50 validation images or more."
)
NO_SETS = (
    "No prediction sets: none were fitted for this model. main.py --evaluate-only fits them for one checkpoint, and "
    "with --tta for its average over flips and rotations."
)
SHIPPED = Path(__file__).parents[1] / "pretrained" / "ham10000.pth"  # the bundled model


class DecodedImage(NamedTuple):
    """A decoded image."""

    pixels: np.ndarray  # (S, S, 3) uint8, S the model's image size
    size: tuple[int, int]  # original width and height, upright


class Prediction(NamedTuple):
    """A model's prediction for one image; None where it has no head for it."""

    size: tuple[int, int]  # original width and height, upright
    probabilities: np.ndarray | None  # (K,), calibrated
    mask: np.ndarray | None  # (S, S) logits
    heat: np.ndarray | None  # (S, S) in [0, 1]: evidence for the class `heat_of`
    balanced: int | None = None  # class predicted by the balanced rule; None also without tau
    findings: tuple[Finding, ...] = ()  # melanoma and malignant: probability, above or below the threshold
    members: tuple[int, ...] = ()  # classes of the prediction set, by descending probability; () if none was fitted
    unlike: float | None = None  # percentage of validation images closer to the training images, rounded down as shown
    heat_of: int | None = None  # a class above its threshold, else the top-1 class
    features: np.ndarray | None = None  # (C,) float32, as `Model.features`; None if not asked for


def always_in_sets(trained: Trained) -> list[int]:
    """Positions of the classes in every prediction set, because too few validation images could fit a limit."""
    return [k for k, limit in enumerate(trained.sets.get("limits", ())) if limit == 0]


class Predictor:
    """A trained model, ready to predict.

    Parameters
    ----------
    checkpoints : files written by main.py; the probabilities of several are averaged.
    tta : average the logits over the eight flips and rotations.
    explain : compute heat maps for a class above its threshold, else for the top-1 class, if the model has labels.
    features : compute the encoder's pooled features, in float32: the same on every machine, up to rounding.

    Raises
    ------
    FileNotFoundError, ValueError : no such file; not a checkpoint; different classes or sizes; no such device; features
        of several checkpoints.
    """

    def __init__(
        self,
        *checkpoints: str | Path,
        device: str = "auto",
        tta: bool = False,
        explain: bool = False,
        features: bool = False,
    ) -> None:
        if features and len(checkpoints) > 1:
            names = " and ".join(map(str, checkpoints))
            raise ValueError(f"Features of several networks cannot be averaged, but {names} are named. Name one.")
        self.device = machine.choose_device(device)
        self.precision = machine.choose_precision("auto", self.device)
        self.trained = Trained.load(*checkpoints, tta=tta)
        self.model = self.trained.network(self.device)
        self.features = features
        self.explain = explain and "label" in self.trained.heads
        self.classes, self.points = self.trained.classes, self.trained.points

    def remarks(self) -> list[str]:
        """Remarks on the decisions: each threshold with its results on the test set, and a missing balanced rule."""
        has_labels = "label" in self.trained.heads
        unavailable = [NO_TAU] if has_labels and not self.trained.has_rule else []
        unavailable += [] if self.trained.knows_unlike else [NO_UNLIKE]
        unavailable += [NO_SETS] if has_labels and not self.trained.sets else []
        if always := always_in_sets(self.trained):
            named = ", ".join(quoted(self.classes[k]) for k in always)
            unavailable.append(f"Too few validation images to fit a limit, so in every set: {named}.")
        return [f"{point.name}: {point.describe()}." for point in self.points] + unavailable

    def read(self, source: str | Path | bytes) -> DecodedImage:
        """Decode a file or its content, as in training. Raises as `images.read_image`."""
        image, size = images.read_image_and_size(source, self.trained.image_size)
        return DecodedImage(np.asarray(image), size)

    def predict(self, decoded: Sequence[DecodedImage]) -> list[Prediction]:
        """The predictions for the images, in one batch."""
        pixels = torch.from_numpy(np.stack([one.pixels for one in decoded]))
        image = data.normalise(pixels.to(self.device))
        forward = partial(self.model.explain, label_of=self._alarming if self.explain else None)
        ((_, output),) = evaluate.infer(self.model, [{"image": image}], self.precision, forward)
        output = {name: logits.cpu() for name, logits in output.items()}
        none = [None] * len(decoded)
        fields: dict[str, Sequence] = dict.fromkeys(("probabilities", "mask", "heat"), none)
        if "label" in output:
            fields |= self._of_labels(self._probabilities(output["label"]))
        if "mask" in output:
            fields["mask"] = output["mask"][:, 0].numpy()
        if "heat" in output:
            fields |= {"heat": output["heat"][:, 0].numpy(), "heat_of": self._alarming(output["label"]).tolist()}
        if self.features:
            fields["features"] = self.model.features(image).cpu().numpy()
        if "unlike" in output:
            fields["unlike"] = [rounded_down(percent) for percent in output["unlike"].tolist()]
        return [Prediction(one.size, **dict(zip(fields, values))) for one, *values in zip(decoded, *fields.values())]

    def _probabilities(self, logits: torch.Tensor) -> np.ndarray:
        return evaluate.softmax(logits.cpu().double().numpy(), self.trained.temperature)

    def _of_labels(self, probabilities: np.ndarray) -> dict[str, Sequence]:
        """The fields of `Prediction` that follow from calibrated probabilities (N, K)."""
        fields: dict[str, Sequence] = {"probabilities": probabilities}
        fields["findings"] = [thresholds.findings(of_image, self.points) for of_image in probabilities]
        if self.trained.has_rule:
            rule = self.trained.calibration["prior"], self.trained.calibration["tau"]
            fields["balanced"] = evaluate.predict_balanced(probabilities, *rule).tolist()
        if self.trained.sets:
            sets = thresholds.prediction_sets(probabilities, self.trained.sets["limits"])
            orders = (-probabilities).argsort(axis=1, kind="stable")
            fields["members"] = [tuple(order[members[order]].tolist()) for members, order in zip(sets, orders)]
        return fields

    def _alarming(self, logits: torch.Tensor) -> torch.Tensor:
        """The class (N,) that a heat map explains: of the first point above its threshold, else the top-1 class."""
        probabilities = self._probabilities(logits)
        chosen = probabilities.argmax(axis=1)
        for i, of_image in enumerate(probabilities):
            for finding in thresholds.findings(of_image, self.points):
                if finding.verdict == "above":
                    members = finding.point.members
                    chosen[i] = members[of_image[list(members)].argmax()]
                    break
        return torch.from_numpy(chosen).to(logits.device)


def rounded_down(percent: float) -> float:
    """A percentile as it is shown, to a tenth, so that what is shown as the alarm's limit has reached it.

    Examples
    --------
    >>> rounded_down(94.96), rounded_down(95.0)
    (94.9, 95.0)
    """
    return math.floor(10 * percent + 1e-3) / 10  # float32 may lie below a whole tenth


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
