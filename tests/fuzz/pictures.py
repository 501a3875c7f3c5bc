"""Images and masks: bytes changed, cut, joined, with odd metadata, of every kind and mode."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.images import decode_row, read_image

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr")
KINDS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")


def one(seed: int, place: Path) -> None:
    rng = np.random.default_rng(seed)
    files = [place / "image.jpg", place / "mask.png"]
    for path in files:
        path.write_bytes(damaged(rng, encoded(rng)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, again = (decode_row(*map(str, files), 16) for _ in range(2))
    assert first[2] == again[2] and (first[0] == again[0]).all(), "the verdict or the pixels differ the second time"
    assert first[0].shape == (16, 16, 4) and set(np.unique(first[0][..., 3])) <= {0, 255}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_image(files[0], (20, 10)).size == (20, 10)
    except ValueError as error:
        assert str(error)


def encoded(rng: np.random.Generator) -> bytes:
    size = tuple(int(n) for n in rng.integers(1, 40, 2))
    picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).resize((30, 20))
    buffer, mode = io.BytesIO(), str(rng.choice(MODES))
    options = {"exif": rng.bytes(int(rng.integers(60)))} if rng.random() < 0.3 else {}
    if rng.random() < 0.3:
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(0, 12))
        options = {"exif": exif.tobytes()}
    try:
        (picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)).save(
            buffer, str(rng.choice(KINDS)), **options
        )
    except Exception:  # a mode or metadata that this kind of file does not have
        picture.save(buffer, "PNG")
    return buffer.getvalue()


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    content, kind = bytearray(content), rng.choice(["none", "bytes", "cut", "tail", "hole", "twice"])
    where = int(rng.integers(len(content)))
    if kind == "bytes":
        for _ in range(rng.integers(1, 8)):
            content[rng.integers(len(content))] = rng.integers(256)
    elif kind == "cut":
        del content[where:]
    elif kind == "tail":
        content += rng.bytes(50)
    elif kind == "hole":
        del content[where : where + int(rng.integers(1, 30))]
    elif kind == "twice":
        content += bytes(content)
    return bytes(content)
