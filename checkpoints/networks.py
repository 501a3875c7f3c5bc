"""Networks made of trained ones: `Views` averages the logits of one over flips and rotations, `Average` several.

Both are used like a `models.Model`: logits by head's name, and heat maps for labels.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import top_class

N_VIEWS = 8  # flips and rotations of a square


class Combined(nn.Module):
    """Base of both."""

    def explain(self, image: Tensor, label_of: Callable[[Tensor], Tensor] | None = top_class) -> dict[str, Tensor]:
        """As `Model.explain`, for the combined logits."""
        output, unlike = self(image), self.unlikeness(image)
        if label_of and "label" in output:
            output["heat"] = self.heat_map(image, label_of(output["label"]))
        return output if unlike is None else output | {"unlike": unlike}


class Views(Combined):
    """Mean of a network's logits over the eight flips and rotations of square images (N, 3, S, S)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.heads = model, model.heads

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        outputs = [self._aligned(turn, self.model(view)) for turn, view in views(image)]
        return {name: torch.stack([output[name] for output in outputs]).mean(dim=0) for name in outputs[0]}

    @staticmethod
    def _aligned(turn: tuple[int, bool], output: dict[str, Tensor]) -> dict[str, Tensor]:
        quarters, flip = turn
        maps = {name: values.flip(3) if flip else values for name, values in output.items() if values.ndim == 4}
        return output | {name: torch.rot90(values, -quarters, (2, 3)) for name, values in maps.items()}

    def heat_map(self, image: Tensor, label: Tensor) -> Tensor:
        """As `Model.heat_map`, of the unchanged image."""
        return self.model.heat_map(image, label)

    def features(self, image: Tensor) -> Tensor:
        """As `Model.features`, of the unchanged image."""
        return self.model.features(image)

    def unlikeness(self, image: Tensor) -> Tensor | None:
        """As `Model.unlikeness`, for the unchanged image."""
        return self.model.unlikeness(image)


def views(image: Tensor) -> Iterator[tuple[tuple[int, bool], Tensor]]:
    """The eight flips and rotations of images (N, C, S, S), each with (number of quarter turns, whether flipped)."""
    for quarters, flip in itertools.product(range(4), (False, True)):
        view = torch.rot90(image, quarters, (2, 3))
        yield (quarters, flip), view.flip(3) if flip else view


class Average(Combined):
    """Several trained networks as one: the mean probability over those that have the head.

    Parameters
    ----------
    members : networks of the same classes.
    temperatures : of each member, so that an overconfident member does not dominate.
    """

    def __init__(self, members: Sequence[nn.Module], temperatures: Sequence[float]) -> None:
        super().__init__()
        self.members, self.temperatures = nn.ModuleList(members), tuple(temperatures)
        self.heads = {name: None for member in members for name in member.heads}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The logits of the mean probabilities: softmax and sigmoid give those back."""
        outputs = [member(image) for member in self.members]
        logits = {}
        if "label" in self.heads:
            pairs = zip(outputs, self.temperatures)
            logs = [F.log_softmax(output["label"].float() / t, dim=1) for output, t in pairs if "label" in output]
            logits["label"] = torch.stack(logs).logsumexp(dim=0) - torch.tensor(float(len(logs))).log()
        if "mask" in self.heads:
            probabilities = [output["mask"].float().sigmoid() for output in outputs if "mask" in output]
            logits["mask"] = torch.stack(probabilities).mean(dim=0).logit(eps=1e-6)
        for name in self.heads.keys() - {"label", "mask"}:
            logits[name] = torch.stack([output[name].float() for output in outputs if name in output]).mean(dim=0)
        return logits

    def heat_map(self, image: Tensor, label: Tensor) -> Tensor:
        """The mean of the members' heat maps of one class, as `Model.heat_map`."""
        maps = [member.heat_map(image, label) for member in self.members if "label" in member.heads]
        return torch.stack(maps).mean(dim=0)

    def unlikeness(self, image: Tensor) -> Tensor | None:
        """The mean of the members' percentiles; None if a member has none."""
        values = [member.unlikeness(image) for member in self.members]
        return None if any(value is None for value in values) else torch.stack(values).mean(dim=0)
