"""Several trained networks as one, by the mean of their probabilities; views of a picture, by the mean of their logits.

`Turned` and `Average` are used like a `models.Model`: logits by head's name, and heat maps for labels.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import MODELS, build_model

N_VIEWS = 8  # flips and quarter turns of a square


class Turned(nn.Module):
    """The mean of a network's logits over the eight flips and quarter turns of square images (N, 3, S, S)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.heads = model, model.heads

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        outputs = [self._turned_back(turn, self.model(view)) for turn, view in views(image)]
        return {name: torch.stack([output[name] for output in outputs]).mean(dim=0) for name in outputs[0]}

    @staticmethod
    def _turned_back(turn: tuple[int, bool], output: dict[str, Tensor]) -> dict[str, Tensor]:
        quarters, flip = turn
        maps = {name: values.flip(3) if flip else values for name, values in output.items() if values.ndim == 4}
        return output | {name: torch.rot90(values, -quarters, (2, 3)) for name, values in maps.items()}

    def heat_map(self, image: Tensor, label: Tensor) -> Tensor:
        """As `Model.heat_map`, of the picture as it is."""
        return self.model.heat_map(image, label)

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        """As `Model.explain`: averaged logits, and the heat map of the class that they make likeliest."""
        output = self(image)
        return output | {"heat": self.heat_map(image, output["label"].argmax(dim=1))}


def views(image: Tensor) -> Iterator[tuple[tuple[int, bool], Tensor]]:
    """The eight flips and quarter turns of images (N, C, S, S), each with its (quarter turns, flipped before)."""
    for quarters, flip in itertools.product(range(4), (False, True)):
        view = torch.rot90(image, quarters, (2, 3))
        yield (quarters, flip), view.flip(3) if flip else view


class Average(nn.Module):
    """Several trained networks as one: the mean probability over those that have the head.

    Parameters
    ----------
    members : networks of the same classes.
    temperatures : of each, so that no overconfident one decides for all.
    """

    def __init__(self, members: Sequence[nn.Module], temperatures: Sequence[float]) -> None:
        super().__init__()
        self.members, self.temperatures = nn.ModuleList(members), tuple(temperatures)
        self.heads = {name: None for member in members for name in member.heads}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The logits of the mean probabilities: softmax and sigmoid give those back."""
        outputs = [member(image) for member in self.members]
        found = {}
        if "label" in self.heads:
            pairs = zip(outputs, self.temperatures)
            logs = [F.log_softmax(output["label"].float() / t, dim=1) for output, t in pairs if "label" in output]
            found["label"] = torch.stack(logs).logsumexp(dim=0) - torch.tensor(float(len(logs))).log()
        if "mask" in self.heads:
            probabilities = [output["mask"].float().sigmoid() for output in outputs if "mask" in output]
            found["mask"] = torch.stack(probabilities).mean(dim=0).logit(eps=1e-6)
        return found

    def heat_map(self, image: Tensor, label: Tensor) -> Tensor:
        """The mean of the members' heat maps of one class, as `Model.heat_map`."""
        maps = [member.heat_map(image, label) for member in self.members if "label" in member.heads]
        return torch.stack(maps).mean(dim=0)

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        """As `Model.explain`."""
        output = self(image)
        return output | {"heat": self.heat_map(image, output["label"].argmax(dim=1))}


def build(checkpoints: dict[Path, dict], device: str | torch.device = "cpu", tta: bool = False) -> nn.Module:
    """The network of one checkpoint, or the average of several, over turns if that is wanted; in eval mode.

    Parameters
    ----------
    checkpoints : what `models.load_checkpoint` returned, by path.

    Raises
    ------
    ValueError : two are of different classes or image sizes; names both.
    """
    refuse_different(checkpoints)
    members = [build_model(checkpoint, device) for checkpoint in checkpoints.values()]
    members = [Turned(member) for member in members] if tta else members
    if len(members) == 1:
        return members[0].eval()
    known = [fitted(checkpoint, tta)["calibration"] for checkpoint in checkpoints.values()]
    return Average(members, [found.get("temperature", 1.0) for found in known]).eval()


def refuse_different(checkpoints: dict[Path, dict]) -> None:
    """Raises ValueError if two are of different classes or image sizes; names both."""
    first = next(iter(checkpoints), None)
    for path, checkpoint in checkpoints.items():
        reference = checkpoints[first]
        for name in ("classes", "image_size"):
            if checkpoint[name] != reference[name]:
                what = f"{name.replace('_', ' ')} {checkpoint[name]} and {reference[name]}"
                raise ValueError(f"{path} and {first} cannot be averaged: they have {what}.")


def heads_of(checkpoints: dict[Path, dict]) -> list[str]:
    """The names of the heads that any of them has."""
    return sorted({head for checkpoint in checkpoints.values() for head in MODELS[checkpoint["task"]].outputs})


def _keys(tta: bool) -> dict[str, str]:
    """Where a checkpoint keeps what was fitted for its network, alone or over turns."""
    return {name: f"{name}_tta" if tta else name for name in ("calibration", "tested")}


def fitted(checkpoint: dict, tta: bool) -> dict:
    """The checkpoint with the ``calibration`` and ``tested`` of the network as it is used, alone or over turns.

    Over turns, where main.py has not fitted anything for them, the network's own temperature is all there is.
    """
    found = {name: checkpoint.get(key, {}) for name, key in _keys(tta).items()}
    alone = checkpoint.get("calibration", {})
    if tta and not found["calibration"] and "temperature" in alone:
        found["calibration"] = {"temperature": alone["temperature"]}
    return checkpoint | found


def to_keep(tta: bool, calibration: dict, tested: dict) -> dict:
    """What a checkpoint keeps of this, where `fitted` finds it."""
    return dict(zip(_keys(tta).values(), (calibration, tested)))


def combined(checkpoints: dict[Path, dict], tta: bool = False) -> dict:
    """What is known of `build`'s network, as one checkpoint without weights; `fitted` is done for it.

    Of several, whose probabilities are calibrated before they are averaged, no tau and no threshold is known.
    """
    found = [fitted(checkpoint, tta) for checkpoint in checkpoints.values()]
    if len(found) == 1:
        return found[0]
    with_labels = [one for one in found if "label" in MODELS[one["task"]].outputs]
    is_calibrated = all("temperature" in one.get("calibration", {}) for one in with_labels)
    return {name: found[0][name] for name in ("classes", "image_size")} | {
        "task": f"average of {len(found)} models",
        "calibration": {"temperature": 1.0} if is_calibrated else {},
        "note": note_of(checkpoints),
    }


def note_of(checkpoints: dict[Path, dict]) -> str:
    """What must be known of the data that they were trained on; "" for nothing."""
    return ", ".join(sorted({checkpoint["note"] for checkpoint in checkpoints.values() if checkpoint.get("note")}))


def provenance(checkpoints: dict[Path, dict], tta: bool) -> dict:
    """What metrics.json says of the network: its encoders and starts, its epoch, its views, and what is averaged."""
    starts = {checkpoint.get("initial_weights", "unknown") for checkpoint in checkpoints.values()}
    found: dict = {"initial_weights": starts.pop() if len(starts) == 1 else "mixed", "views": N_VIEWS if tta else 1}
    found["encoders"] = sorted({one["arguments"].get("encoder", "resnet18") for one in checkpoints.values()})
    found["initial_files"] = sorted({one["initial_file"] for one in checkpoints.values() if one.get("initial_file")})
    if len(checkpoints) == 1:
        return found | {"epoch": next(iter(checkpoints.values())).get("epoch", "unknown")}
    return found | {"averaged": list(map(str, checkpoints))}
