"""Photographs with a mask's contour, a heat map and a caption in the margin, as images."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont

OUTLINE = "#E69F00"  # visualize's PREDICTED_COLOUR; importing it would load matplotlib, which only heat maps need
DETAIL = 0.6  # contrast of a photograph's fine structure in its heat map


def outlined(image: Image.Image, mask: np.ndarray | None, caption: Sequence[str]) -> Image.Image:
    """A photograph with a mask's contour, and the lines of a caption in the margin below.

    Parameters
    ----------
    mask : (H, W) bool, of the image's size.
    """
    canvas = _captioned(image, caption)
    _paste_contour(canvas, mask)
    return canvas


def _paste_contour(canvas: Image.Image, mask: np.ndarray | None) -> None:
    if mask is not None and mask.any():
        line, place = contour(mask)
        canvas.paste(line, place, line)


def contour(mask: np.ndarray) -> tuple[Image.Image, tuple[int, int]]:
    """The contour of a non-empty mask (H, W) bool, transparent elsewhere, and the position of its upper left corner.

    The mask's rim is coloured, and black just outside.
    """
    width = max(1, min(mask.shape) // 200)  # pixels
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = max(rows[0] - width, 0), max(columns[0] - width, 0)
    part = mask[top : rows[-1] + width + 1, left : columns[-1] + width + 1]
    pixels = np.zeros((*part.shape, 4), np.uint8)
    pixels[_grown(part, width) & ~part] = 0, 0, 0, 255
    pixels[_grown(~part, 1 + width) & part] = *ImageColor.getrgb(OUTLINE), 255
    return Image.fromarray(pixels), (int(left), int(top))


def heated(image: Image.Image, heat: np.ndarray, mask: np.ndarray | None, caption: Sequence[str]) -> Image.Image:
    """A heat map (S, S) in [0, 1] on a photograph, with a mask's contour, and its scale in the margin below.

    Parameters
    ----------
    mask : (H, W) bool, of the image's size.
    caption : lines beside and below the scale.
    """
    from visualize import heat_colours

    size = max(13, min(image.size) // 24)  # of the scale's bar and letters
    ramp = np.linspace(0, 1, 6 * size)[None].repeat(size, axis=0)
    canvas = _captioned(heat_layer(image, heat), caption, heat_colours(ramp))
    _paste_contour(canvas, mask)
    return canvas


def heat_layer(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """A heat map (S, S) in [0, 1], at a photograph's size and with its fine structure.

    The photograph's own brightness is left out, so that a hotter spot is brighter on a dark lesion too.
    """
    from visualize import heat_colours

    gray = image.convert("L")
    smooth = gray.filter(ImageFilter.GaussianBlur(max(2, min(gray.size) // 20)))
    detail = np.asarray(gray, np.float32) - np.asarray(smooth, np.float32)
    spread = np.asarray(Image.fromarray(heat).resize(image.size, Image.Resampling.BILINEAR))
    colours = np.asarray(heat_colours(0.1 + 0.9 * spread), np.float32)
    return Image.fromarray((colours + DETAIL * detail[..., None]).clip(0, 255).astype(np.uint8))


def _grown(mask: np.ndarray, n_pixels: int) -> np.ndarray:
    """A mask with a rim of `n_pixels` added."""
    grown = mask.copy()
    for shift in range(1, n_pixels + 1):
        grown[shift:] |= mask[:-shift]
        grown[:-shift] |= mask[shift:]
    tall = grown.copy()
    for shift in range(1, n_pixels + 1):
        grown[:, shift:] |= tall[:, :-shift]
        grown[:, :-shift] |= tall[:, shift:]
    return grown


def _captioned(image: Image.Image, lines: Sequence[str], scale: Image.Image | None = None) -> Image.Image:
    """The image above its caption; a scale precedes the first line. Lines break between words."""
    font = _font(max(13, min(image.size) // 24))
    pad, line_height = round(font.size / 3), round(1.25 * font.size)
    left = pad + (scale.width + pad if scale else 0)
    lines = [part for line in lines for part in _broken(line, font, image.width - left - pad)]
    width = max([image.width, *(round(font.getlength(line)) + left + pad for line in lines)])
    canvas = Image.new("RGB", (width, image.height + (len(lines) * line_height + pad if lines else 0)), "white")
    canvas.paste(image)
    if scale:
        canvas.paste(scale, (pad, image.height + pad))
    for i, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((left, image.height + i * line_height + pad // 2), line, "black", font)
    return canvas


def _broken(line: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """A line broken into parts at most `width` pixels wide, unless a single word is wider."""
    parts = [""]
    for word in re.split(" (?!%)", line):
        longer = f"{parts[-1]} {word}".strip()
        if parts[-1] and font.getlength(longer) > width:
            parts.append(word)
        else:
            parts[-1] = longer
    return parts


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
