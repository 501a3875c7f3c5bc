"""Augmentations of training images: `AUGMENTS` by name, applied in the order in which they are named.

Those that change pixels come before those that change batches. Shapes: N images of S x S pixels with four bytes each
(red, green, blue, mask); K classes.
"""

import difflib
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_CROP = 0.5  # share of the image's area
LIGHT = 0.2  # largest change of brightness and of contrast, as a share
SATURATION = 0.2  # largest change, as a share
HUE = 0.05  # largest shift, as a share of the colour circle: 18 degrees
MIXUP_ALPHA = 0.4  # of the Beta distribution of the mixing weights
CUTMIX_ALPHA = 1.0  # of the Beta distribution of the area that is kept
CUTOUT_SIDE = 0.25  # of the square, as a share of the image's side
LUMA = (0.299, 0.587, 0.114)  # Y of YIQ, of red, green and blue
IQY = np.array([(0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112), LUMA])  # NTSC


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


def chosen(names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several as a tuple. Raises ValueError for an unknown or repeated name, and for none beside others."""
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if name not in AUGMENTS:
            near = difflib.get_close_matches(name, AUGMENTS, 1)
            hint = f"did you mean {near[0]!r}? Choose" if near else "choose"
            raise ValueError(f"There is no augmentation {name!r}: {hint} among {', '.join(AUGMENTS)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"An augmentation is named twice in {', '.join(names)}: name each once.")
    if "none" in names and len(names) > 1:
        raise ValueError(f"'none' stands beside other augmentations in {', '.join(names)}: leave out it or them.")
    return names


def change_pixels(pixels: Tensor, names: Sequence[str], drawn: dict[str, Tensor]) -> Tensor:
    """Apply those of the named augmentations that change pixels (N, S, S, 4), in order.

    Neighbours of one function in `MERGED` become a single change: pixels are resampled or rounded only once.
    """
    named = [name for name in names if AUGMENTS[name].pixels]
    for change, group in groupby(named, key=lambda name: AUGMENTS[name].pixels):
        values = [drawn[name] for name in group]
        for value in [reduce(MERGED[change], values)] if change in MERGED else values:
            pixels = change(pixels, value)
    return pixels


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


def merge_codes(first: Tensor, second: Tensor) -> Tensor:
    """The code of `rotate_and_flip` that does both: a flipped image turns the other way."""
    quarters = first + torch.where(first > 3, -second, second)
    return quarters % 4 + 4 * ((first > 3) ^ (second > 3))


def draw_angles(rng: np.random.Generator, n: int) -> np.ndarray:
    """Rotations by any angle, for `resample`: (n, 3, 3) float32."""
    return _rotation(rng.uniform(-np.pi, np.pi, n)).astype(np.float32)


def _rotation(angle: np.ndarray, scale: np.ndarray | float = 1.0) -> np.ndarray:
    """(n, 3, 3): the first two of three coordinates rotated by an angle (n,) in radians, and scaled."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.zeros((len(angle), 3, 3))
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1], matrix[:, 2, 2] = cosine, -sine, sine, cosine, 1
    return matrix


def draw_crops(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random crops, resized to full size ("random resized crop"), for `resample`: (n, 3, 3) float32.

    The area is at least `SMALLEST_CROP`, the aspect ratio between 3/4 and 4/3.
    """
    area, ratio = rng.uniform(SMALLEST_CROP, 1, n), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), n))
    sides = np.minimum(np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1), 1)
    centres = sides / 2 + rng.uniform(size=(n, 2)) * (1 - sides)
    return crop_places(sides, centres)


def crop_places(sides: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Crops, for `resample`, from height and width, and centre (row, column), as shares of the image: each (n, 2)."""
    places = np.zeros((len(sides), 3, 3), np.float32)
    places[:, 0, 0], places[:, 1, 1], places[:, 2, 2] = sides[:, 1], sides[:, 0], 1
    places[:, :2, 2] = 2 * centres[:, ::-1] - 1
    return places


def resample(pixels: Tensor, places: Tensor) -> Tensor:
    """Images (N, S, S, 4) sampled at other places: bilinear, masks by nearest neighbour, reflected at the borders.

    Parameters
    ----------
    places : (N, 3, 3), from a place (x, y, 1) of the new image to one of the old; both from -1 to 1.
    """
    size = pixels.shape[1]
    steps = (2 * torch.arange(size, device=pixels.device) + 1) / size - 1
    x, y, centre = places[:, :2, :, None, None].unbind(2)  # each (N, 2, 1, 1)
    grid = (steps * x + (steps[:, None] * y + centre)).permute(0, 2, 3, 1)  # (N, S, S, 2)
    channels = pixels.permute(0, 3, 1, 2) + 0.5  # (N, 4, S, S) float; conversion to uint8 cuts: with 0.5 it rounds
    new = torch.empty_like(pixels)
    for mode, part in (("bilinear", slice(3)), ("nearest", slice(3, 4))):
        there = F.grid_sample(channels[:, part], grid, mode=mode, padding_mode="reflection", align_corners=False)
        new[..., part] = there.permute(0, 2, 3, 1)
    return new


def draw_brightness(rng: np.random.Generator, n: int) -> np.ndarray:
    """Colours multiplied by a factor, for `recolour`: (n, 2, 3, 3) float32."""
    return _colours(rng.uniform(1 - LIGHT, 1 + LIGHT, (n, 1, 1)) * np.eye(3))


def draw_contrast(rng: np.random.Generator, n: int) -> np.ndarray:
    """Differences from the image's mean gray multiplied by a factor, for `recolour`: (n, 2, 3, 3) float32."""
    factor = rng.uniform(1 - LIGHT, 1 + LIGHT, (n, 1, 1))
    return _colours(factor * np.eye(3), (1 - factor) * np.array([LUMA] * 3))


def draw_colour(rng: np.random.Generator, n: int) -> np.ndarray:
    """Saturation and hue at constant luma, for `recolour`: (n, 2, 3, 3) float32.

    Chroma (I and Q of YIQ) is scaled and rotated: a linear form of the shift of hue in HSV.
    """
    saturation, hue = rng.uniform(1 - SATURATION, 1 + SATURATION, n), rng.uniform(-HUE, HUE, n)
    return _colours(shift_chroma(saturation, hue))


def shift_chroma(saturation: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """(n, 3, 3) of RGB: saturation times a factor, hue shifted by a share of the circle, red towards green."""
    return np.linalg.inv(IQY) @ _rotation(-2 * np.pi * hue, saturation) @ IQY


def _colours(own: np.ndarray, of_mean: np.ndarray | float = 0.0) -> np.ndarray:
    return np.stack([own, np.broadcast_to(of_mean, own.shape)], axis=1).astype(np.float32)


def recolour(pixels: Tensor, drawn: Tensor) -> Tensor:
    """Images (N, S, S, 4) whose colours become own @ colour + of_mean @ the image's mean colour; masks stay.

    Parameters
    ----------
    drawn : (N, 2, 3, 3), own and of_mean, of red, green and blue.
    """
    values = pixels.reshape(len(pixels), -1, 4).float()
    own, of_mean = drawn.unbind(1)
    mean = values.mean(1)[:, :3, None]
    weight = F.pad(own.mT, (0, 1, 0, 1))  # (N, 4, 4)
    weight[:, 3, 3] = 1
    shift = F.pad((of_mean @ mean).mT, (0, 1)) + 0.5  # (N, 1, 4); 0.5 as above
    return torch.baddbmm(shift, values, weight).clamp_(0, 255).to(torch.uint8).view(pixels.shape)


def merge_colours(first: Tensor, second: Tensor) -> Tensor:
    """Both changes of `recolour` as one, (N, 2, 3, 3): the second sees the mean that the first leaves."""
    (own, of_mean), (then, of_new_mean) = first.unbind(1), second.unbind(1)
    return torch.stack([then @ own, then @ of_mean + of_new_mean @ (own + of_mean)], 1)


MERGED = {rotate_and_flip: merge_codes, resample: torch.matmul, recolour: merge_colours}


def draw_mixing(rng: np.random.Generator, n: int) -> np.ndarray:
    """Weight of each image in its own mixture: (n,) float32 in [0.5, 1]."""
    weight = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA, n).astype(np.float32)
    return np.maximum(weight, 1 - weight)


def mix(batch: dict[str, Tensor], weight: Tensor, n_classes: int) -> dict[str, Tensor]:
    """Mix each image, its label and its mask with those from the other end of the batch (mixup).

    Zhang et al. 2018, arXiv:1710.09412. Images that lack a target, or whose counterpart does, stay as they are.
    """
    weight = torch.where(_may_mix(batch), weight, 1.0)
    label = batch["label"]
    mixed = batch | {"label": label if label.ndim == 2 else F.one_hot(label.clamp(min=0), n_classes).float()}  # (N, K)
    for name in (name for name in batch if not name.startswith("has_")):
        own = weight.view(-1, *[1] * (mixed[name].ndim - 1))
        mixed[name] = torch.lerp(mixed[name].flip(0), mixed[name], own)
    return mixed


def _may_mix(batch: dict[str, Tensor]) -> Tensor:
    """Images that have all targets, as does their counterpart at the other end of the batch: (N,) bool."""
    complete = torch.ones(len(batch["label"]), dtype=torch.bool, device=batch["label"].device)
    for name in (name for name in batch if name.startswith("has_")):
        complete = complete & batch[name]
    return complete & complete.flip(0)


def draw_cutmix(rng: np.random.Generator, n: int) -> np.ndarray:
    """Side and centre (row, column) of squares, as shares of the image: (n, 3) float32."""
    side = np.sqrt(1 - rng.beta(CUTMIX_ALPHA, CUTMIX_ALPHA, n))
    return np.column_stack([side, rng.uniform(size=(n, 2))]).astype(np.float32)


def cut_and_mix(batch: dict[str, Tensor], drawn: Tensor, n_classes: int) -> dict[str, Tensor]:
    """Replace a square of each image and mask by that from the other end of the batch, and mix labels by area (CutMix).

    Yun et al. 2019, arXiv:1905.04899. Images that lack a target, or whose counterpart does, stay as they are.
    """
    drawn = torch.where(_may_mix(batch)[:, None], drawn, 0.0)
    inside = {name: _squares(drawn, batch[name]) for name in ("image", "mask")}
    rest = {name: values for name, values in batch.items() if name not in inside}
    mixed = mix(rest, 1 - inside["mask"].float().mean((1, 2, 3)), n_classes)
    return mixed | {name: torch.where(cut, batch[name].flip(0), batch[name]) for name, cut in inside.items()}


def draw_cutout(rng: np.random.Generator, n: int) -> np.ndarray:
    """As `draw_cutmix`, all of one side."""
    return np.column_stack([np.full(n, CUTOUT_SIDE), rng.uniform(size=(n, 2))]).astype(np.float32)


def cut_out(batch: dict[str, Tensor], drawn: Tensor, n_classes: int) -> dict[str, Tensor]:
    """Set a square of each image to ImageNet's mean colour, 0 (cutout; DeVries & Taylor 2017, arXiv:1708.04552).

    The mask stays: a lesion goes on below what covers it, as below hairs and rulers.
    """
    return batch | {"image": torch.where(_squares(drawn, batch["image"]), 0.0, batch["image"])}


def _squares(drawn: Tensor, image: Tensor) -> Tensor:
    """The pixels inside squares (N, 3) as `draw_cutmix` draws them, cut at the borders: as `image`, bool."""
    n, n_channels, height, width = image.shape
    side, *centre = drawn[:, :, None].unbind(1)  # each (N, 1)
    row, column = (
        ((torch.arange(size, device=image.device) + 0.5) / size - place).abs() < side / 2
        for size, place in zip((height, width), centre)
    )
    # As long rows, channels last: several times as fast as one mask that is broadcast over the channels.
    inside = row[:, :, None] & column.repeat_interleave(n_channels, 1)[:, None]
    return inside.view(n, height, width, n_channels).permute(0, 3, 1, 2)


AUGMENTS = {
    "none": Augmentation(),
    "flips": Augmentation(lambda rng, n: 4 * rng.integers(2, size=n), pixels=rotate_and_flip),
    "rotations": Augmentation(lambda rng, n: rng.integers(4, size=n), pixels=rotate_and_flip),
    "angles": Augmentation(draw_angles, pixels=resample),
    "crops": Augmentation(draw_crops, pixels=resample),
    "brightness": Augmentation(draw_brightness, pixels=recolour),
    "contrast": Augmentation(draw_contrast, pixels=recolour),
    "colour": Augmentation(draw_colour, pixels=recolour),
    "mixup": Augmentation(draw_mixing, batch=mix),
    "cutmix": Augmentation(draw_cutmix, batch=cut_and_mix),
    "cutout": Augmentation(draw_cutout, batch=cut_out),
}
