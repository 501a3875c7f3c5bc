"""Image and mask files -> upright pixels."""

import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

ORIENTATION = 0x0112  # the EXIF tag
TURNS = {  # what undoes each orientation; those from 5 on exchange width and height
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
THUMBNAIL = 96  # pixels; side of the picture that dataset/leakage.py compares
MAX_BYTES = 1_000_000_000  # a larger file is no photograph
FAX = ("group3", "group4", "tiff_ccitt", "ccitt")  # compressions of TIFF
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
    return read_image_and_size(source, size)[0]


def read_image_and_size(source: str | Path | bytes, size: int | tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """As `read_image`, and the upright picture's own (width, height)."""
    (picture,), own_size, _ = _decode(_content(source), size)
    return picture, own_size


def read_native_mask(image_path: str | Path, mask_path: str | Path) -> np.ndarray:
    """A lesion mask (H, W) bool at the mask file's own size, upright as its image. Raises as `read_image`."""
    with Image.open(image_path, formats=FORMATS) as image:  # reads no more than the header
        orientation = _orientation(image)
        image_size = image.size[::-1] if orientation >= 5 else image.size
    gray, lesion_from, _ = _decode_mask(_content(mask_path), image_size, orientation)
    return np.asarray(gray) >= lesion_from


def _content(source: str | Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    status = os.stat(source)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    return Path(source).read_bytes()


@contextmanager
def _damage_is_said() -> Iterator[None]:
    """Codecs fail in many ways on damaged files: OSError, SyntaxError, zlib.error, ...; all become a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"damaged ({error})") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ValueError(f"not an image of a known kind ({', '.join(FORMATS)})") from None
    except Exception as error:
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from None


def _open(content: bytes, size: tuple[int, int] | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The picture, its pixels not yet read, and its own size. A JPEG of at least twice `size` is opened reduced."""
    if not content:
        raise ValueError("file is empty")
    with _damage_is_said():
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        own_size = picture.size
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
    if picture.info.get("compression") in FAX:
        raise ValueError("a fax, of which a damaged one looks different each time")
    if size:
        with _damage_is_said():
            picture.draft(None, size)  # a JPEG's own way of halving, while both sides stay at least as long
    return picture, own_size


def _orientation(picture: Image.Image) -> int:
    """How EXIF says that the stored pixels are turned, 1 to 8; 1 (upright) where it is missing or damaged."""
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged block fails in many ways, and says nothing of the pixels
        return 1
    return orientation if isinstance(orientation, int) and orientation in TURNS else 1


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    return picture if orientation == 1 else picture.transpose(TURNS[orientation])


def _decode(content: bytes, *sizes: int | tuple[int, int]) -> tuple[list[Image.Image], tuple[int, int], int]:
    """Upright RGB at each size, the upright picture's own size, and the file's EXIF orientation.

    What is returned at a size does not depend on the others; sizes for which the file is opened equally reduced share
    one reading.
    """
    pictures, read = [], {}
    for size in sizes:
        size = (size, size) if isinstance(size, int) else size
        picture, own_size = _open(content, (max(size), max(size)))  # not yet upright: either side may be the longer
        halved = picture.size
        if halved not in read:
            read[halved] = _read(picture)
        whole, orientation = read[halved]
        with _damage_is_said():
            pictures.append(whole.resize(size, Image.Resampling.BILINEAR))
    return pictures, own_size[::-1] if orientation >= 5 else own_size, orientation


def _read(picture: Image.Image) -> tuple[Image.Image, int]:
    """Upright RGB, and how EXIF says that the stored pixels are turned."""
    with _damage_is_said():
        picture.load()
    orientation = _orientation(picture)
    with _damage_is_said():
        if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip
            picture = _eight_bit(np.asarray(picture))
        if "transparency" in picture.info:
            picture = picture.convert("RGBA")
        return _upright(picture.convert("RGB"), orientation), orientation


def _eight_bit(values: np.ndarray) -> Image.Image:
    """Gray values of 16 bits scaled to 8."""
    return Image.fromarray((values.astype(np.float32) / 257).clip(0, 255).astype(np.uint8))


def _decode_mask(content: bytes, image_size: tuple[int, int], orientation: int) -> tuple[Image.Image, int, str]:
    """Gray picture, the value from which it is lesion, and a note on what was odd about it.

    Two values mean background and lesion, whatever they are; more are cut at 128 of 255, as the organisers do.

    Parameters
    ----------
    image_size : the image's, upright.
    orientation : of the image file, which the mask may have been drawn on as it is stored.
    """
    picture, _ = _open(content)
    with _damage_is_said():
        picture.load()
    own_orientation = _orientation(picture)
    with _damage_is_said():
        gray = _upright(_gray(picture), own_orientation)
    notes = []
    if orientation != 1 and own_orientation == 1:
        if orientation >= 5 and not _same_aspect(gray.size, image_size):
            gray = _upright(gray, orientation)
        elif orientation < 5 or _same_aspect(gray.size, gray.size[::-1]):
            notes.append("image is turned by EXIF, and its mask may have been drawn before")
    if not _same_aspect(gray.size, image_size):
        raise ValueError(f"mask is {gray.width}x{gray.height}, image {image_size[0]}x{image_size[1]}")
    values = np.flatnonzero(gray.histogram())
    lesion_from = values[-1] if len(values) <= 2 and values[-1] else 129
    if values[-1] < lesion_from:
        notes.append("mask is empty")
    elif values[0] >= lesion_from:
        notes.append("mask is full")
    elif len(values) > 2:
        notes.append("mask has gray values")
    return gray, lesion_from, "; ".join(notes)


def _gray(picture: Image.Image) -> Image.Image:
    """A mask file's shape as 8-bit gray: its alpha channel, if nothing else varies."""
    if picture.mode.startswith("I"):
        return _gray_of_16_bits(np.asarray(picture))
    if "A" in picture.mode or "transparency" in picture.info:
        *colours, alpha = picture.convert("RGBA").split()
        low, high = alpha.getextrema()
        if low < high and all(colour.getextrema()[0] == colour.getextrema()[1] for colour in colours):
            return alpha
    return picture if picture.mode == "L" else picture.convert("RGB").convert("L")


def _gray_of_16_bits(values: np.ndarray) -> Image.Image:
    """Values that fit into 8 bits as they are; two values as black and white; others scaled."""
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= 255:
        return Image.fromarray(values.astype(np.uint8))
    if ((values == low) | (values == high)).all():
        return Image.fromarray((values == high) * np.uint8(255))
    return _eight_bit(values)


def _same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) <= ASPECT_TOLERANCE


def decode_row(image_path: str, mask_path: str, size: int) -> tuple[np.ndarray, np.ndarray, dict]:
    """RGB and mask as (size, size, 4) uint8, RGB as (THUMBNAIL, THUMBNAIL, 3), and the verdicts on both files."""
    picture, lesion = Image.new("RGB", (size, size)), Image.new("L", (size, size))
    thumbnail = Image.new("RGB", (THUMBNAIL, THUMBNAIL))
    verdict = {"image_error": "", "mask_error": "", "note": "", "digest": ""}
    try:
        content = _content(image_path)
        verdict["digest"] = hashlib.blake2b(content, digest_size=8).hexdigest()
        (picture, thumbnail), picture_size, orientation = _decode(content, size, THUMBNAIL)
    except (ValueError, OSError, MemoryError) as error:
        verdict["image_error"] = f"image: {reason_of(error)}"
    if mask_path and not verdict["image_error"]:
        try:
            gray, lesion_from, verdict["note"] = _decode_mask(_content(mask_path), picture_size, orientation)
            small = np.asarray(gray.resize((size, size), Image.Resampling.NEAREST))
            lesion = Image.fromarray((small >= lesion_from) * np.uint8(255))
        except (ValueError, OSError, MemoryError) as error:
            verdict["mask_error"] = f"mask: {reason_of(error)}"
    picture.putalpha(lesion)
    pixels, small = np.asarray(picture), np.asarray(thumbnail)
    return pixels, small, verdict | {"crc": zlib.crc32(pixels), "thumbnail_crc": zlib.crc32(small)}


def reason_of(error: Exception) -> str:
    """What is wrong with a file, in words."""
    if isinstance(error, MemoryError):
        return "too large for this machine's memory"
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
