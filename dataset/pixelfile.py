"""The pixel file of a cache: one record per image, with its pixels, its mask and its thumbnail."""

import os
import threading
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dataset.images import THUMBNAIL

CHECKED_AT_A_TIME = 256  # records per task of a thread


class PixelFile:
    """Images (n_rows, H, W, 4) uint8 in a file; `pixels[rows]` takes a position, a slice or an array of positions.

    Each image is followed by its thumbnail, whose size does not depend on H and W: `pixels.thumbnails[rows]`.

    The file is read, not mapped: it does not compete for memory, and truncation while in use raises an error instead of
    killing the process. Threads may read concurrently.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, n_rows: int, size: int) -> None:
        self.path, self.shape = path, (n_rows, size, size, 4)
        self._rows = np.arange(n_rows)
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()
        self._closing = weakref.finalize(self, self._file.close)

    def __reduce__(self) -> tuple:
        """Pickle the path: an open file cannot be sent to DataLoader workers."""
        return PixelFile, (self.path, *self.shape[:2])

    def close(self) -> None:
        """Close the file; Windows cannot delete it while it is open."""
        self._closing()

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        return self.read(rows, self.shape[1:], 0)

    @property
    def thumbnails(self) -> "Thumbnails":
        return Thumbnails(self)

    def read(self, rows: int | slice | np.ndarray, shape: tuple[int, ...], start: int) -> np.ndarray:
        """Array of `shape`, uint8, for each row, read from `start` bytes into its record."""
        positions, step = self._rows[rows], record_bytes(self.shape[1])
        values = np.empty((np.size(positions), *shape), np.uint8)
        for target, row in zip(values, np.ravel(positions)):
            self._read(target, int(row) * step + start)
        return values if np.ndim(positions) else values[0]

    def _read(self, target: np.ndarray, start: int) -> None:
        if hasattr(os, "preadv"):
            n_read = os.preadv(self._file.fileno(), [target], start)
        else:
            with self._lock:
                self._file.seek(start)
                n_read = self._file.readinto(target)
        if n_read != target.nbytes:
            raise ValueError(f"{self.path} was truncated while in use. Run the command again to decode the rest.")


class Thumbnails:
    """Thumbnails (n_rows, THUMBNAIL, THUMBNAIL, 3) uint8 of a pixel file, indexed in the same way."""

    def __init__(self, pixels: PixelFile) -> None:
        self._pixels, self.shape = pixels, (len(pixels), THUMBNAIL, THUMBNAIL, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        return self._pixels.read(rows, self.shape[1:], record_bytes(self._pixels.shape[1]) - THUMBNAIL**2 * 3)


def record_bytes(size: int) -> int:
    """Bytes per image in the cache: pixels, mask and thumbnail."""
    return size**2 * 4 + THUMBNAIL**2 * 3


class RecordWriter:
    """Writes records into a pixel file, each at its row, in any order. Other processes may write other rows."""

    def __init__(self, path: Path, size: int) -> None:
        self._file, self._step = path.open("r+b", buffering=0), record_bytes(size)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *_error) -> None:
        self._file.close()

    def write(self, row: int, pixels: np.ndarray, thumbnail: np.ndarray) -> None:
        """Raises OSError if the disk is full."""
        record = memoryview(pixels.tobytes() + thumbnail.tobytes())
        self._file.seek(row * self._step)
        while record:
            record = record[self._file.write(record) :]


def are_sound(pixels: PixelFile, entries: np.ndarray) -> np.ndarray:
    """Whether the record at the ``row`` of each entry has the sums ``crc`` and ``thumbnail_crc``: (N,) bool."""

    def is_sound(row: int, crc: int, thumbnail_crc: int) -> bool:
        try:
            return (zlib.crc32(pixels[row]), zlib.crc32(pixels.thumbnails[row])) == (crc, thumbnail_crc)
        except (OSError, ValueError, IndexError):  # the file ends before it
            return False

    blocks = np.array_split(entries[["row", "crc", "thumbnail_crc"]], len(entries) // CHECKED_AT_A_TIME + 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda block: [is_sound(*entry) for entry in block.tolist()], blocks)
        return np.array([sound for block in found for sound in block], bool)
