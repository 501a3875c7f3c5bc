"""Open image files safely: size and format are checked before the pixels are read."""

import filecmp
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from dataset.archives import archive_of, read_member

ORIENTATION = 0x0112  # the EXIF tag
TURNS = {  # inverse of each orientation; from 5 on they exchange width and height
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAX_BYTES = 1_000_000_000  # a larger file is not a photograph
FAX = ("group3", "group4", "tiff_ccitt", "ccitt")  # TIFF compressions
MAX_PIXELS = 100_000_000  # a larger image is taken for a decompression bomb
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")  # allowed decoders, for any file name
TOPS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # largest values of 8, 10, 12, 14 and 16 bits

Image.init()  # register the decoders now: Pillow does so at first use, where threads would race


def content_of(source: str | Path | bytes) -> bytes:
    """The bytes of a file, which may lie in an archive, or the given bytes. Raises OSError or ValueError."""
    if isinstance(source, bytes):
        return source
    archive, member = archive_of(source)
    if archive:
        return read_member(archive, member, MAX_BYTES)
    status = os.stat(source)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    return Path(source).read_bytes()


def stream_of(path: str | Path) -> str | Path | io.BytesIO:
    """What Pillow opens for a path: the file itself, of which it may read the header only, or a member's content."""
    return io.BytesIO(content_of(path)) if archive_of(path)[0] else path


def have_same_content(a: str, b: str) -> bool:
    """Raises OSError or ValueError if a file cannot be read."""
    if archive_of(a)[0] or archive_of(b)[0]:
        return content_of(a) == content_of(b)
    return filecmp.cmp(a, b, shallow=False)


def digest_of(content: bytes) -> str:
    """What tells the content of a file from any other."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


@contextmanager
def damage_reported() -> Iterator[None]:
    """Turn every error of a codec on a damaged file (OSError, SyntaxError, zlib.error, ...) into a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"damaged ({error})") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ValueError(f"not an image in a known format ({', '.join(FORMATS)})") from None
    except Exception as error:
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from None


def opened(content: bytes, side: int = 0) -> tuple[Image.Image, tuple[int, int]]:
    """The image, with its pixels not yet read, and its original size. A JPEG twice as large as `side` opens reduced."""
    if not content:
        raise ValueError("file is empty")
    with damage_reported():
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        own_size = image.size
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
    if image.info.get("compression") in FAX:
        raise ValueError("fax compression is not supported: a damaged file decodes differently each time")
    if side:
        with damage_reported():
            image.draft(None, (side, side))  # JPEG decoding at a fraction of the size, at least as large as requested
    return image, own_size


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation of the stored pixels, 1 to 8; 1 (upright) if it is missing or damaged."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged block can raise almost anything; the pixels may be intact
        return 1
    return orientation if isinstance(orientation, int) and orientation in TURNS else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(TURNS[orientation])


def eight_bit(values: np.ndarray) -> Image.Image:
    """Scale gray values to 8 bits from their apparent range: 0 to 1, or 8, 10, 12, 14 or 16 bits."""
    tops = ((1.0,) if values.dtype.kind == "f" else ()) + TOPS
    values = np.nan_to_num(values.astype(np.float32), nan=0, posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    if low < 0:
        values, high = values - low, high - low
    top = next((top for top in tops if high <= top), high)
    return Image.fromarray((values / np.float32(top / 255)).clip(0, 255).astype(np.uint8))


def reason_of(error: Exception) -> str:
    """The reason why a file cannot be used."""
    if isinstance(error, MemoryError):
        return "too large for this machine's memory"
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
