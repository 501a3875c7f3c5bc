"""The encoder networks. An encoder is a class with the attributes and methods of `base.Encoder`."""

import difflib
from collections.abc import Iterable
from functools import cache, partial

import torch

from encoders.base import Encoder
from encoders.catalogue import RESNETS, TRUNKS
from encoders.efficientnet_lite import SCALES, EfficientNetLite


def _resnet(name: str) -> Encoder:
    from encoders.resnet import ResNet  # loads torchvision, which takes as long as torch itself

    return ResNet(name)


def _trunk(name: str) -> Encoder:
    from encoders.trunk import Trunk  # loads torchvision

    return Trunk(name)


ENCODERS = {name: partial(_resnet, name) for name in RESNETS}
ENCODERS |= {name: partial(EfficientNetLite, name) for name in SCALES}
ENCODERS |= {name: partial(_trunk, name) for name in TRUNKS}


def make_encoder(name: str) -> Encoder:
    """One of `ENCODERS`, with random weights. Raises ValueError for an unknown name."""
    if name not in ENCODERS:
        near = ", ".join(difflib.get_close_matches(name, ENCODERS, 5, cutoff=0))
        raise ValueError(f"Unknown encoder {name!r}. The nearest ones are {near}; python -m encoders lists all.")
    return ENCODERS[name]()


@cache
def blueprint(name: str) -> Encoder:
    """An encoder without memory or random numbers, to read its attributes. Raises as `make_encoder`."""
    with torch.device("meta"):
        return make_encoder(name)


def title_of(name: str) -> str:
    """An encoder's published name."""
    return blueprint(name).title


def coarse_heat(names: Iterable[str]) -> str:
    """Which of these encoders do not refine their heat maps, in words; "" if all do."""
    titles = [title_of(name) for name in names if type(blueprint(name)).refine is Encoder.refine]
    return f"Heat maps of {' and '.join(titles)} have one cell per 32 pixels of the input." if titles else ""
