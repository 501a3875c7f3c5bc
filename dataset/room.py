"""The disk that a cache takes, and whether it is there."""

import shutil
from pathlib import Path

from dataset.images import THUMBNAIL
from dataset.pixelfile import record_bytes

SAID, LARGE = 1e9, 20e9  # bytes from which the size of a cache is reported, and from which a smaller one is advised
ADVISED, SMALLEST = 128, 32  # image sizes in pixels


def describe_room(folder: Path, size: int, n_missing: int, n_images: int) -> str:
    """The disk that decoding will take, for the console; "" for little.

    Parameters
    ----------
    n_missing : number of images to decode, of `n_images` in the cache.

    Raises
    ------
    ValueError : more than is free; says what would fit.
    """
    free, needed, advised = (
        shutil.disk_usage(folder).free,
        n_missing * record_bytes(size),
        n_images * record_bytes(ADVISED),
    )
    advice = f"--image-size {ADVISED} takes {in_bytes(advised)}" if size > ADVISED else ""
    if needed > free:
        fitting = min(int(max(free / n_images - THUMBNAIL**2 * 3, 0) ** 0.5 / 2), size - 1)
        fits = f"--image-size {fitting} is the largest that fits" if fitting >= SMALLEST else "no --image-size fits"
        raise ValueError(
            f"{n_missing:,} images at {size}x{size} pixels take {in_bytes(needed)} in {folder}, where "
            f"{in_bytes(free)} are free. Make room, name another --cache-dir, or decode smaller: "
            f"{'; '.join(filter(None, [fits, advice]))}."
        )
    if needed < SAID:
        return ""
    said = f"Decoding {n_missing:,} images takes {in_bytes(needed)} in {folder} ({in_bytes(free)} free)."
    return f"{said} {advice}." if advice and needed > LARGE else said


def in_bytes(n_bytes: float) -> str:
    """A number of bytes in MB or GB."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
