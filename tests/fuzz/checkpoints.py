"""Checkpoints with bits flipped, parts cut, and content of other kinds."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import torch

import models

from . import refused_well


@cache
def sound() -> tuple[bytes, dict]:
    """A small checkpoint as a file's content, and its weights."""
    torch.manual_seed(0)
    model = models.Segmenter((1, 1, 1, 1))
    about = {"task": "segmentation", "arguments": model.arguments, "classes": list("abcdefg"), "image_size": 64}
    buffer = io.BytesIO()
    torch.save(about | {"weights": model.state_dict()}, buffer)
    return buffer.getvalue(), model.state_dict()


def one(seed: int, place: Path) -> None:
    rng = np.random.default_rng(seed)
    content, weights = sound()
    damaged = bytearray(content)
    kind = rng.choice(["bit", "cut", "hole", "joined"])
    # Half of the damage goes where the pickle and the directory are: the ends of the file.
    ends = rng.random() < 0.5
    where = int(rng.integers(-9000, 9000) if ends else rng.integers(len(damaged)))
    if kind == "bit":
        damaged[where] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del damaged[where:]
    elif kind == "hole":
        damaged[where : where + int(rng.integers(1, 100))] = b""
    else:
        damaged[where:where] = rng.bytes(int(rng.integers(1, 100)))
    path = place / "model.pth"
    path.write_bytes(damaged)
    try:
        found = models.build_model(models.load_checkpoint(path)).state_dict()
    except Exception as error:
        assert refused_well(error, path), f"{kind}: {type(error).__name__}: {error}"
    else:
        assert all(torch.equal(found[name], weights[name]) for name in weights), f"{kind} at {where}: weights changed"
