"""The initial weights of an encoder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from encoders import blueprint


@dataclass(frozen=True)
class Start:
    """Initial weights of an encoder."""

    weights: dict[str, Tensor] | None = None  # for `models.Model.start_from`; None for random ones
    words: str = ""
    file: str = ""  # its name and SHA-256

    @property
    def kind(self) -> str:
        """ "ImageNet" or "scratch"."""
        return "ImageNet" if self.weights else "scratch"

    @property
    def checkpoints(self) -> dict[Path, dict]:
        """Content of the checkpoints that the weights come from, by path: none."""
        return {}

    @property
    def seen_before(self) -> dict[str, dict[str, list[str]]]:
        """What the weights were trained on and chosen on, as a checkpoint keeps it: nothing of any data here."""
        return {}

    def cautions(self, table: object, frozen: str) -> list[str]:
        """What the report should say of a start from these weights; `frozen` is a key of `models.FREEZABLE`."""
        random = self.words and frozen != "nothing" and not self.weights
        return [f"The frozen layers (FREEZE {frozen}) start from random weights."] if random else []

    def give(self, model: nn.Module, classes: Iterable[str]) -> str:
        """Set the initial weights of a model of `models.py`; returns a message."""
        if self.weights:
            model.start_from(self.weights)
        return ""


def imagenet_start(pretrained: str, encoder: str = "resnet18") -> Start:
    """ImageNet weights, or random ones.

    Parameters
    ----------
    pretrained : "auto" (ImageNet weights if available), "yes" (fail if unavailable) or "no".

    Raises
    ------
    FileNotFoundError : as `imagenet_weights`, with "yes".
    ValueError : as `imagenet_weights`.
    """
    if pretrained == "no":
        return Start(None, "The encoder starts from scratch.")
    try:
        weights, file = imagenet_weights(encoder)
        return Start(weights, f"The encoder starts from ImageNet weights: {file}.", file)
    except FileNotFoundError as error:
        if pretrained == "yes":
            raise
        return Start(None, f"*** The encoder starts FROM SCRATCH, which costs accuracy. {error} ***")


def imagenet_weights(encoder: str = "resnet18", timeout: float = 10.0) -> tuple[dict[str, Tensor], str]:
    """ImageNet weights of an encoder, and their file's name with its SHA-256.

    Parameters
    ----------
    timeout : seconds without a response after which a download fails.

    Raises
    ------
    FileNotFoundError : they are not cached and cannot be downloaded; says where to get them.
    ValueError : the file is damaged or of another version.
    """
    return type(blueprint(encoder)).imagenet(encoder, timeout)
