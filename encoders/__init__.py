"""The encoder networks. An encoder is a class with the attributes and methods of `base.Encoder`."""

from functools import cache, partial

import torch

from encoders.base import Encoder
from encoders.efficientnet_lite import SCALES, EfficientNetLite
from encoders.resnet import ResNet

ENCODERS = {name: partial(ResNet, name) for name in ("resnet18", "resnet34", "resnet50")}
ENCODERS |= {name: partial(EfficientNetLite, name) for name in SCALES}


def make_encoder(name: str) -> Encoder:
    """One of `ENCODERS`, with random weights. Raises ValueError for an unknown name."""
    if name not in ENCODERS:
        raise ValueError(f"Unknown encoder {name!r}: choose one of {', '.join(ENCODERS)}.")
    return ENCODERS[name]()


@cache
def blueprint(name: str) -> Encoder:
    """An encoder without memory or random numbers, to read its attributes. Raises as `make_encoder`."""
    with torch.device("meta"):
        return make_encoder(name)


def title_of(name: str) -> str:
    """An encoder's published name."""
    return blueprint(name).title
