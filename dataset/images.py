"""Decode image and mask files to upright pixels."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.masks import decode_mask, reduced
from dataset.opening import (
    FORMATS,
    content_of,
    damage_reported,
    digest_of,
    eight_bit,
    opened,
    orientation_of,
    reason_of,
    stream_of,
    upright,
)

THUMBNAIL = 96  # pixels; side of the thumbnails that dataset/leakage.py compares
NEARLY_BLACK = 15  # of 255; maximum of 12-bit values stored in 16 bits if only the upper 8 are read


def read_image(source: str | Path | bytes, size: int | tuple[int, int]) -> Image.Image:
    """Decode a file, or its content, to upright RGB (bilinear, antialiased, aspect ratio not kept).

    Parameters
    ----------
    size : side of a square, or (width, height).

    Raises
    ------
    OSError : the file cannot be read.
    ValueError : not an image, truncated, or more than `MAX_PIXELS`; says which.
    """
    return read_image_and_size(source, size)[0]


def read_image_and_size(source: str | Path | bytes, size: int | tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """As `read_image`, and the (width, height) of the upright original."""
    (image,), own_size, _ = _decode(content_of(source), size)
    return image, own_size


def read_native_mask(image_path: str | Path, mask_path: str | Path, how: str = "") -> np.ndarray:
    """A lesion mask (H, W) bool at the size of the mask file, upright like its image.

    `how` is as in `decode_row`. Raises as `read_image`.
    """
    image_size, orientation = _header(image_path)
    return np.asarray(decode_mask(content_of(mask_path), image_size, orientation, how)[0]) > 0


def own_size(path: str | Path) -> tuple[int, int]:
    """The (width, height) of the upright original, from its header. Raises OSError or ValueError if unreadable."""
    return _header(path)[0]


def _header(path: str | Path) -> tuple[tuple[int, int], int]:
    """The size of the upright original, and the EXIF orientation of the file."""
    with Image.open(stream_of(path), formats=FORMATS) as image:
        orientation = orientation_of(image)
        return image.size[::-1] if orientation >= 5 else image.size, orientation


def _decode(content: bytes, *sizes: int | tuple[int, int]) -> tuple[list[Image.Image], tuple[int, int], int]:
    """Upright RGB at each size, the size of the upright original, and the EXIF orientation of the file.

    The result at one size does not depend on the others. Sizes at which the decoder reduces the file equally share one
    decoding.
    """
    sizes = [(size, size) if isinstance(size, int) else size for size in sizes]
    sides = [max(size) for size in sizes]  # the orientation is not applied yet: either side may be the longer
    smallest = min(sides)
    image, own_size = opened(content, smallest)
    is_whole = image.size == own_size  # then it need not be opened for larger sizes, which takes time
    decoded, resized = {image.size: _read(image)}, []
    for size, side in zip(sizes, sides):
        larger = image if is_whole or side == smallest else opened(content, side)[0]
        if larger.size not in decoded:
            decoded[larger.size] = _read(larger)
        whole, orientation = decoded[larger.size]
        with damage_reported():
            resized.append(whole.resize(size, Image.Resampling.BILINEAR))
    return resized, own_size[::-1] if orientation >= 5 else own_size, orientation


def _read(image: Image.Image) -> tuple[Image.Image, int]:
    """Upright RGB, and the EXIF orientation of the stored pixels."""
    is_deep = any(";16" in str(tile[3]) for tile in image.tile)
    with damage_reported():
        image.load()
    orientation = orientation_of(image)
    with damage_reported():
        if image.mode[0] in "IF":  # 16 bits and floats, which Pillow would clip
            image = eight_bit(np.asarray(image))
        if "transparency" in image.info:
            image = image.convert("RGBA")
        rgb = image.convert("RGB")
    _refuse_blank(rgb, is_deep)
    return upright(rgb, orientation), orientation


def _refuse_blank(rgb: Image.Image, is_deep: bool) -> None:
    """Raises ValueError for an image of a single value, or one that is nearly black because its range is unknown."""
    middle, corner = rgb.getpixel((rgb.width // 2, rgb.height // 2)), rgb.getpixel((0, 0))
    if middle != corner and max(*middle, *corner) > NEARLY_BLACK:  # the usual case
        return
    extrema = rgb.getextrema()
    if all(low == high for low, high in extrema):
        raise ValueError(f"single value everywhere ({', '.join(str(low) for low, _ in extrema)})")
    if max(high for _, high in extrema) <= NEARLY_BLACK and is_deep:
        raise ValueError("nearly black, as if 12 bits were stored in 16: save it with 8 bits per channel")


def decode_row(image_path: str, mask_path: str, size: int, how: str = "") -> tuple[np.ndarray, np.ndarray, dict]:
    """RGB and mask as (size, size, 4) uint8, RGB as (THUMBNAIL, THUMBNAIL, 3), and the verdicts on both files.

    Parameters
    ----------
    how : how the mask is read: "inverted" (lesion is black), "stretched" (any aspect ratio), both or "".
    """
    image, lesion = Image.new("RGB", (size, size)), Image.new("L", (size, size))
    thumbnail = Image.new("RGB", (THUMBNAIL, THUMBNAIL))
    verdict = {"image_error": "", "mask_error": "", "note": "", "digest": ""}
    try:
        content = content_of(image_path)
        verdict["digest"] = digest_of(content)
        (image, thumbnail), image_size, orientation = _decode(content, size, THUMBNAIL)
    except (ValueError, OSError, MemoryError) as error:
        verdict["image_error"] = f"image: {reason_of(error)}"
    if mask_path and not verdict["image_error"]:
        try:
            mask_content = content_of(mask_path)
            if mask_content == content:
                raise ValueError("mask is the image itself")
            whole, verdict["note"] = decode_mask(mask_content, image_size, orientation, how)
            lesion = reduced(whole, size)
        except (ValueError, OSError, MemoryError) as error:
            verdict["mask_error"] = f"mask: {reason_of(error)}"
    image.putalpha(lesion)
    pixels, small = np.asarray(image), np.asarray(thumbnail)
    return pixels, small, verdict | {"crc": zlib.crc32(pixels), "thumbnail_crc": zlib.crc32(small)}
