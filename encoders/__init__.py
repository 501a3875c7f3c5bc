"""The encoder networks. An encoder is a class with the attributes and methods of `base.Encoder`."""

import difflib
from collections.abc import Iterable
from functools import cache, partial

import torch

from encoders import resnet, trunk
from encoders.base import Encoder
from encoders.efficientnet_lite import SCALES, EfficientNetLite

ENCODERS = {name: partial(resnet.ResNet, name) for name in resnet.NAMES}
ENCODERS |= {name: partial(EfficientNetLite, name) for name in SCALES}
ENCODERS |= {name: partial(trunk.Trunk, name) for name in trunk.NAMES}


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
