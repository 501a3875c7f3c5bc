"""Augmentations of training images: `AUGMENTS` by name, applied in the order in which they are named.

Shapes: N images of S x S pixels with four bytes each (red, green, blue, mask); K classes.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_CROP = 0.5  # share of the image's area
MIXUP_ALPHA = 0.4  # of the Beta distribution of the mixing weights


class Augmentation(NamedTuple):
    """One kind of augmentation.

    Attributes
    ----------
    draw : (generator, n) to random parameters for each of an epoch's n images: (n, ...).
    pixels : (pixels (N, S, S, 4) uint8, drawn (N, ...)) to changed pixels; None if it changes whole batches.
    batch : (batch, drawn (N, ...), K) to a changed batch, whose labels may become probabilities (N, K).
    """

    draw: Callable[[np.random.Generator, int], np.ndarray] | None = None
    pixels: Callable[[Tensor, Tensor], Tensor] | None = None
    batch: Callable[[dict[str, Tensor], Tensor, int], dict[str, Tensor]] | None = None


def rotate_and_flip(pixels: Tensor, codes: Tensor) -> Tensor:
    """Rotate square images (N, S, S, 4) uint8 by code % 4 quarter turns, then flip those with code (N,) > 3."""
    n, size = pixels.shape[:2]
    packed = pixels.contiguous().view(torch.int32).view(n, size * size)  # a pixel's four bytes move as one word
    return packed.gather(1, _sources(size, pixels.device)[codes]).view(torch.uint8).view(pixels.shape)


@lru_cache(maxsize=8)
def _sources(size: int, device: torch.device) -> Tensor:
    """(8, size * size): the source position of each pixel of the new image, by code."""
    places = torch.arange(size * size).view(size, size)
    rotated = [torch.rot90(places, k) for k in range(4)]
    return torch.stack([*rotated, *(grid.flip(1) for grid in rotated)]).flatten(1).to(device)


def draw_crops(rng: np.random.Generator, n: int) -> np.ndarray:
    """Height, width and centre (row, column) of random crops, as shares of the image: (n, 4) float32.

    The area is at least `SMALLEST_CROP`, the aspect ratio between 3/4 and 4/3 ("random resized crop").
    """
    area, ratio = rng.uniform(SMALLEST_CROP, 1, n), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), n))
    sides = np.minimum(np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1), 1)
    centres = sides / 2 + rng.uniform(size=(n, 2)) * (1 - sides)
    return np.hstack([sides, centres]).astype(np.float32)


def crop(pixels: Tensor, drawn: Tensor) -> Tensor:
    """The crop of each image (N, S, S, 4) by `draw_crops`, resized to full size; masks by nearest neighbour."""
    height, width, row, column = drawn.unbind(1)
    zero = torch.zeros_like(height)
    x, y = torch.stack([width, zero, 2 * column - 1], 1), torch.stack([zero, height, 2 * row - 1], 1)
    channels = pixels.permute(0, 3, 1, 2).float()  # (N, 4, S, S)
    grid = F.affine_grid(torch.stack([x, y], 1), list(channels.shape), align_corners=False)
    image = F.grid_sample(channels[:, :3], grid, padding_mode="border", align_corners=False)
    mask = F.grid_sample(channels[:, 3:], grid, mode="nearest", padding_mode="border", align_corners=False)
    return torch.cat([image, mask], 1).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def draw_mixing(rng: np.random.Generator, n: int) -> np.ndarray:
    """Weight of each image in its own mixture: (n,) float32 in [0.5, 1]."""
    weight = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA, n).astype(np.float32)
    return np.maximum(weight, 1 - weight)


def mix(batch: dict[str, Tensor], weight: Tensor, n_classes: int) -> dict[str, Tensor]:
    """Mix each image, its label and its mask with those from the other end of the batch (mixup).

    Zhang et al. 2018, arXiv:1710.09412. Images that lack a target, or whose counterpart does, stay as they are.
    """
    for name in (name for name in batch if name.startswith("has_")):
        weight = torch.where(batch[name] & batch[name].flip(0), weight, 1.0)
    label = batch["label"]
    mixed = batch | {"label": label if label.ndim == 2 else F.one_hot(label.clamp(min=0), n_classes).float()}  # (N, K)
    for name in (name for name in batch if not name.startswith("has_")):
        own = weight.view(-1, *[1] * (mixed[name].ndim - 1))
        mixed[name] = torch.lerp(mixed[name].flip(0), mixed[name], own)
    return mixed


AUGMENTS = {
    "none": Augmentation(),
    "flips": Augmentation(lambda rng, n: 4 * rng.integers(2, size=n), pixels=rotate_and_flip),
    "rotations": Augmentation(lambda rng, n: rng.integers(4, size=n), pixels=rotate_and_flip),
    "crops": Augmentation(draw_crops, pixels=crop),
    "mixup": Augmentation(draw_mixing, batch=mix),
}
