"""A trained model, as it is used: one checkpoint or several, with or without the eight views of each image."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from checkpoints.networks import N_VIEWS, Average, Views
from checkpoints.states import save
from checkpoints.thresholds import Point, points_of
from evaluate import LOCALISING
from machine import from_first
from models import MODELS, build_model, load_checkpoint


class Trained:
    """One checkpoint, or several whose probabilities are averaged.

    Parameters
    ----------
    checkpoints : the content of each file by its path, as `models.load_checkpoint` returns it.
    tta : average the logits over the eight flips and rotations of each image.

    Attributes
    ----------
    name : the task; "average" for several.
    heads : names of the outputs.
    classes : names of the labels, in the order of the logits.
    image_size : side of the input in pixels.
    note : a warning about the training data, such as `synthetic.NOTE`; "" for none.
    calibration : fitted on the validation set for this network and its views (`measure.calibrate`); {} if nothing was.

    Raises
    ------
    ValueError : two checkpoints differ in their classes or image size; names both.
    """

    def __init__(self, checkpoints: dict[Path, dict], tta: bool = False) -> None:
        _refuse_different(checkpoints)
        self.checkpoints, self.tta, self._has_learned = checkpoints, tta, False
        first = next(iter(checkpoints.values()))
        self.is_average = len(checkpoints) > 1
        self.name: str = "average" if self.is_average else first["task"]
        self.heads = sorted({head for one in checkpoints.values() for head in MODELS[one["task"]].outputs})
        self.classes: list[str] = first["classes"]
        self.image_size: int = first["image_size"]
        self.note = ", ".join(sorted({one["note"] for one in checkpoints.values() if one.get("note")}))
        self.calibration = self._calibration_of_all() if self.is_average else self._calibration_of(first)

    @classmethod
    def load(cls, *paths: str | Path, tta: bool = False) -> "Trained":
        """Read checkpoints. Raises FileNotFoundError and ValueError as `models.load_checkpoint`."""
        return cls({Path(path): load_checkpoint(path) for path in paths}, tta)

    @property
    def checkpoint(self) -> dict:
        """The content of its one file."""
        (content,) = self.checkpoints.values()
        return content

    @property
    def path(self) -> Path:
        """Its one file."""
        (path,) = self.checkpoints
        return path

    @property
    def points(self) -> list[Point]:
        """Its operating points; [] without labels."""
        tested = {} if self.is_average else self.checkpoint.get(self._key("tested"), {})
        return points_of(self.classes, self.calibration, tested) if "label" in self.heads else []

    @property
    def localises(self) -> bool | None:
        """Whether its heat maps localised the lesions of its test set (`evaluate.LOCALISING`); None if unknown."""
        heat = {} if self.is_average else self.checkpoint.get("tested", {}).get("heat_map")
        return heat["energy_in_mask"] >= LOCALISING if heat else None

    @property
    def temperature(self) -> float:
        """Divides the logits of the labels."""
        return self.calibration.get("temperature", 1.0)

    @property
    def is_calibrated(self) -> bool:
        """Whether its probabilities are calibrated; True without labels."""
        return "label" not in self.heads or "temperature" in self.calibration

    @property
    def sets(self) -> dict:
        """The `target` (coverage) and the classes' `limits` of its prediction sets; {} if none were fitted."""
        return self.calibration.get("sets", {})

    def learned_from(self, images: Iterable[str]) -> bool:
        """Whether its one file was trained on exactly these images; False for several files."""
        known = [] if self.is_average else self.checkpoint.get("trained_on", {}).get("images", [])
        return bool(known) and set(known) == set(images)

    @property
    def has_rule(self) -> bool:
        """Whether the balanced rule was fitted."""
        return "tau" in self.calibration

    @property
    def knows_unlike(self) -> bool:
        """Whether it can detect images unlike the training images."""
        return all(content.get("unlike") for content in self.checkpoints.values())

    @property
    def alone(self) -> "Trained":
        """The same without views."""
        return Trained(self.checkpoints)

    def network(self, device: str | torch.device = "cpu") -> nn.Module:
        """In eval mode; used like a `models.Model`."""
        members = [build_model(checkpoint, device) for checkpoint in self.checkpoints.values()]
        members = [Views(member) for member in members] if self.tta else members
        if not self.is_average:
            return members[0].eval()
        known = map(self._calibration_of, self.checkpoints.values())
        return Average(members, [calibration.get("temperature", 1.0) for calibration in known]).eval()

    def provenance(self) -> dict:
        """What metrics.json says of the network: encoders and starts, views, and its epoch or what is averaged."""
        contents = self.checkpoints.values()
        starts = {content.get("initial_weights", "unknown") for content in contents}
        facts: dict = {"initial_weights": starts.pop() if len(starts) == 1 else "mixed"}
        facts["views"] = N_VIEWS if self.tta else 1
        facts["encoders"] = sorted({content["arguments"].get("encoder", "resnet18") for content in contents})
        facts["initial_files"] = sorted(
            {content["initial_file"] for content in contents if content.get("initial_file")}
        )
        if self.is_average:
            return facts | {"averaged": list(map(str, self.checkpoints))}
        return facts | {"epoch": self.checkpoint.get("epoch", "unknown")}

    def keep(self, **fitted: dict) -> None:
        """Write ``calibration`` or ``tested``, for its views, into its one file, with what `learn_unlike` was given.

        The file is not rewritten if it already holds all of this.
        """
        content, new = self.checkpoint, {self._key(name): value for name, value in fitted.items()}
        if self._has_learned or any(content.get(name) != value for name, value in new.items()):
            content |= new
            from_first(save, self.path, content)
            self._has_learned = False

    def learn_unlike(self, fitted: dict[str, torch.Tensor]) -> None:
        """Take the result of `measure.alarms.fit_unlike`; its networks then return ``"unlike"``."""
        self._has_learned = bool(fitted) or "unlike" not in self.checkpoint
        self.checkpoint["unlike"] = fitted

    def _key(self, name: str) -> str:
        """Where a checkpoint keeps what was fitted, with or without views."""
        return f"{name}_tta" if self.tta else name

    def _calibration_of(self, checkpoint: dict) -> dict:
        """With views that nothing was fitted for, the network's own temperature is all there is."""
        alone = checkpoint.get("calibration", {})
        known = {"temperature": alone["temperature"]} if self.tta and "temperature" in alone else {}
        return checkpoint.get(self._key("calibration")) or known

    def _calibration_of_all(self) -> dict:
        """The members' probabilities are calibrated before they are averaged; no tau and no threshold is known."""
        labelled = [one for one in self.checkpoints.values() if "label" in MODELS[one["task"]].outputs]
        return {"temperature": 1.0} if all("temperature" in self._calibration_of(one) for one in labelled) else {}


def _refuse_different(checkpoints: dict[Path, dict]) -> None:
    (first, reference), *others = checkpoints.items()
    for path, checkpoint in others:
        for name in ("classes", "image_size"):
            if checkpoint[name] != reference[name]:
                differ = f"{name.replace('_', ' ')} {checkpoint[name]} and {reference[name]}"
                raise ValueError(f"{path} and {first} cannot be averaged: they have {differ}.")
