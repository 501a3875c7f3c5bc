"""Image and mask files -> upright pixels."""

import hashlib
import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

ORIENTATION = 0x0112  # the EXIF tag
MAX_PIXELS = 100_000_000  # a larger image is taken for a decompression bomb
ASPECT_TOLERANCE = 0.02  # relative; a mask whose aspect is further off belongs to another picture
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")  # decoders that a file may reach, whatever its name

Image.init()  # register the decoders now: Pillow does it at the first use, which threads would race for


def read_image(source: str | Path | bytes, size: int | tuple[int, int]) -> Image.Image:
    """Decode a file, or its content, to upright RGB (bilinear, antialiased, aspect not kept).

    Parameters
    ----------
    size : side of a square, or (width, height).

    Raises
    ------
    OSError : the file cannot be read.
    ValueError : not an image, truncated, or of more than `MAX_PIXELS`; says which.
    """
    return _decode(_content(source), size)[0]


def read_image_and_size(source: str | Path | bytes, size: int) -> tuple[Image.Image, tuple[int, int]]:
    """As `read_image`, and the upright picture's own (width, height)."""
    return _decode(_content(source), size)[:2]


def read_native_mask(image_path: str | Path, mask_path: str | Path) -> np.ndarray:
    """A lesion mask (H, W) bool at the mask file's own size, upright as its image. Raises as `read_image`."""
    with Image.open(image_path, formats=FORMATS) as image:  # reads no more than the header
        orientation = image.getexif().get(ORIENTATION, 1)
        image_size = image.size[::-1] if orientation >= 5 else image.size
    gray, lesion_from, _ = _decode_mask(_content(mask_path), image_size, orientation)
    return np.asarray(gray) >= lesion_from


def _content(source: str | Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _open(content: bytes, size: tuple[int, int] | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The picture (a JPEG twice as large as `size` at less) and its own size; every failure becomes a ValueError."""
    if not content:
        raise ValueError("file is empty")
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        own_size = picture.size
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if size:
            picture.draft(None, size)  # a JPEG's own way of halving, while both sides stay at least as long
        picture.load()
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ValueError(f"not an image of a known kind ({', '.join(FORMATS)})") from None
    except Exception as error:  # codecs raise OSError, SyntaxError, zlib.error, ... on damaged files
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from None
    return picture, own_size


def _eight_bit(picture: Image.Image) -> Image.Image:
    """16-bit grays, which Pillow would clip, scaled to 8 bits; other modes as they are."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture).astype(np.float32) / 257).clip(0, 255).astype(np.uint8))
    return picture


def _decode(content: bytes, size: int | tuple[int, int]) -> tuple[Image.Image, tuple[int, int], int]:
    """Upright RGB at `size`, the upright picture's own size, and the file's EXIF orientation."""
    size = (size, size) if isinstance(size, int) else size
    picture, own_size = _open(content, (max(size), max(size)))  # not yet upright: either side may be the longer
    orientation = picture.getexif().get(ORIENTATION, 1)
    own_size = own_size[::-1] if orientation >= 5 else own_size
    picture = ImageOps.exif_transpose(_eight_bit(picture))
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB").resize(size, Image.Resampling.BILINEAR), own_size, orientation


def _decode_mask(content: bytes, image_size: tuple[int, int], orientation: int) -> tuple[Image.Image, int, str]:
    """Gray picture, the value from which it is lesion, and a note on what was odd about it.

    Two values mean background and lesion, whatever they are; more are cut at 128 of 255, as the organisers do.
    """
    picture = _eight_bit(ImageOps.exif_transpose(_open(content)[0]))
    if orientation >= 5 and not _same_aspect(picture.size, image_size):
        picture = picture.transpose(_TURNS[orientation])  # drawn on the file's pixels, not on the upright picture
    if not _same_aspect(picture.size, image_size):
        raise ValueError(f"mask is {picture.width}x{picture.height}, image {image_size[0]}x{image_size[1]}")
    gray = picture if picture.mode == "L" else picture.convert("RGB").convert("L")
    values = np.flatnonzero(gray.histogram())
    lesion_from = values[-1] if len(values) <= 2 and values[-1] else 129
    is_empty = values[-1] < lesion_from
    return gray, lesion_from, "mask is empty" if is_empty else "mask has gray values" if len(values) > 2 else ""


_TURNS = {  # EXIF orientations that exchange width and height
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) <= ASPECT_TOLERANCE


def decode_row(image_path: str, mask_path: str, size: int) -> tuple[np.ndarray, dict]:
    """RGB and mask as (size, size, 4) uint8, and the verdicts on both files."""
    picture, lesion = Image.new("RGB", (size, size)), Image.new("L", (size, size))
    verdict = {"image_error": "", "mask_error": "", "note": "", "digest": ""}
    try:
        content = _content(image_path)
        verdict["digest"] = hashlib.blake2b(content, digest_size=8).hexdigest()
        picture, picture_size, orientation = _decode(content, size)
    except (ValueError, OSError) as error:
        verdict["image_error"] = f"image: {error}"
    if mask_path and not verdict["image_error"]:
        try:
            gray, lesion_from, verdict["note"] = _decode_mask(_content(mask_path), picture_size, orientation)
            small = np.asarray(gray.resize((size, size), Image.Resampling.NEAREST))
            lesion = Image.fromarray((small >= lesion_from) * np.uint8(255))
        except (ValueError, OSError) as error:
            verdict["mask_error"] = f"mask: {error}"
    picture.putalpha(lesion)
    pixels = np.asarray(picture)
    return pixels, verdict | {"crc": zlib.crc32(pixels)}
