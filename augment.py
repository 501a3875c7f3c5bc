"""What changes training images: `AUGMENTS` by name, combined in the order in which they are named.

Shapes: N images of S x S pixels with four bytes each, red, green, blue and mask; K classes.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_CROP = 0.5  # share of the image's area
MIXUP_ALPHA = 0.4  # of the Beta distribution that the weights of two mixed images come from


class Augmentation(NamedTuple):
    """One way to change images.

    Attributes
    ----------
    draw : (generator, n) to what is drawn for each of an epoch's n images: (n, ...).
    pixels : (pixels (N, S, S, 4) uint8, drawn (N, ...)) to changed pixels; None for what changes whole batches.
    batch : (batch, drawn (N, ...)) to a changed batch, whose labels may become probabilities (N, K).
    """

    draw: Callable[[np.random.Generator, int], np.ndarray] | None = None
    pixels: Callable[[Tensor, Tensor], Tensor] | None = None
    batch: Callable[[dict[str, Tensor], Tensor, int], dict[str, Tensor]] | None = None


def rotate_and_flip(pixels: Tensor, codes: Tensor) -> Tensor:
    """Rotate square images (N, S, S, 4) uint8 by 90 degrees code % 4 times each, then flip those of code (N,) > 3."""
    n, size = pixels.shape[:2]
    packed = pixels.contiguous().view(torch.int32).view(n, size * size)  # a pixel's four bytes move as one word
    return packed.gather(1, _sources(size, pixels.device)[codes]).view(torch.uint8).view(pixels.shape)


@lru_cache(maxsize=8)
def _sources(size: int, device: torch.device) -> Tensor:
    """(8, size * size): for each code, the place that each pixel of the new image comes from."""
    places = torch.arange(size * size).view(size, size)
    rotated = [torch.rot90(places, k) for k in range(4)]
    return torch.stack([*rotated, *(one.flip(1) for one in rotated)]).flatten(1).to(device)


def draw_crops(rng: np.random.Generator, n: int) -> np.ndarray:
    """Height, width and centre (row, column) of random parts, as shares: (n, 4) float32.

    The area is at least `SMALLEST_CROP`, the sides' ratio between 3/4 and 4/3 (as "random resized crop").
    """
    area, ratio = rng.uniform(SMALLEST_CROP, 1, n), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), n))
    sides = np.minimum(np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1), 1)
    centres = sides / 2 + rng.uniform(size=(n, 2)) * (1 - sides)
    return np.hstack([sides, centres]).astype(np.float32)


def crop(pixels: Tensor, drawn: Tensor) -> Tensor:
    """The part of each image (N, S, S, 4) that `draw_crops` drew, at full size; masks by the nearest pixel."""
    height, width, row, column = drawn.unbind(1)
    nothing = torch.zeros_like(height)
    x, y = torch.stack([width, nothing, 2 * column - 1], 1), torch.stack([nothing, height, 2 * row - 1], 1)
    channels = pixels.permute(0, 3, 1, 2).float()  # (N, 4, S, S)
    grid = F.affine_grid(torch.stack([x, y], 1), list(channels.shape), align_corners=False)
    image = F.grid_sample(channels[:, :3], grid, padding_mode="border", align_corners=False)
    mask = F.grid_sample(channels[:, 3:], grid, mode="nearest", padding_mode="border", align_corners=False)
    return torch.cat([image, mask], 1).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def draw_mixing(rng: np.random.Generator, n: int) -> np.ndarray:
    """Each image's own weight: (n,) float32 in [0.5, 1]."""
    weight = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA, n).astype(np.float32)
    return np.maximum(weight, 1 - weight)


def mix(batch: dict[str, Tensor], weight: Tensor, n_classes: int) -> dict[str, Tensor]:
    """Each image with its counterpart from the batch's other end, and their labels and masks: mixup.

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
