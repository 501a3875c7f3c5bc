"""Drawings of a prediction on its image: mask contour, heat map, caption."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from checkpoints.thresholds import percent
from dataset import images
from dataset.classes import name_of
from inference.canvas import heated, outlined
from inference.predictor import Prediction
from inference.verdict import NOT_A_DEVICE, UNLIKE, is_unlike, verdict

STRIP = 1 << 22  # pixels of a mask computed at a time
VIEW = 1600  # pixels: the longest side of predict.py's overlays and heat maps


def mask_at(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mask (H, W) uint8 in {0, 255} at `size` (width, height): where logits (S, S), resized bilinearly, are > 0."""
    width, height = size
    source, mask = Image.fromarray(logits), np.zeros((height, width), np.uint8)
    step, scale = max(1, STRIP // width), logits.shape[0] / height
    for top in range(0, height, step):
        bottom = min(top + step, height)
        box = (0, top * scale, logits.shape[1], bottom * scale)
        strip = source.resize((width, bottom - top), Image.Resampling.BILINEAR, box=box)
        mask[top:bottom] = (np.asarray(strip) > 0) * np.uint8(255)
    return mask


def lesion_share(mask: np.ndarray) -> float:
    """Share of the image that the mask fills; `mask` is from `mask_at`, at the image's own size."""
    return np.count_nonzero(mask) / mask.size


def overlay(
    image: Image.Image, prediction: Prediction, classes: Sequence[str], whole: np.ndarray | None = None
) -> Image.Image:
    """The image with the mask's contour. The margin has `caption` and a warning."""
    mask = None if prediction.mask is None else mask_at(prediction.mask, image.size) > 0
    return outlined(image, mask, [*caption(prediction, classes, whole), NOT_A_DEVICE])


def heat_map(image: Image.Image, prediction: Prediction, classes: Sequence[str]) -> Image.Image:
    """The heat map with the image's fine structure and the mask's contour. The margin has a scale and a warning."""
    mask = None if prediction.mask is None else mask_at(prediction.mask, image.size) > 0
    subject = UNLIKE if is_unlike(prediction) else f"Evidence for {name_of(classes[prediction.heat_of])}"
    return heated(image, prediction.heat, mask, [f"{subject} (Grad-CAM, 0 to 1)", NOT_A_DEVICE])


def caption(prediction: Prediction, classes: Sequence[str], whole: np.ndarray | None = None) -> list[str]:
    """The verdict and the lesion's share of the image, one string per line.

    `whole` is the mask at the image's own size, if it is at hand.
    """
    lines = verdict(prediction, classes)
    if prediction.mask is not None and not is_unlike(prediction):
        whole = mask_at(prediction.mask, prediction.size) if whole is None else whole
        lines.append(f"Lesion: {percent(lesion_share(whole))} of the image")
    return lines


def view_of(source: str | Path | bytes, size: tuple[int, int], largest: int = VIEW) -> Image.Image:
    """The image to draw on: at its own `size`, or with a longest side of `largest` pixels if that is larger."""
    scale = min(1, largest / max(size))
    return images.read_image(source, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
