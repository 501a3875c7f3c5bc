"""Decode every image and mask once, into one pixel file on disk that later runs share."""

import hashlib
import json
import os
import threading
import warnings
import weakref
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from dataset.images import THUMBNAIL, decode_row
from dataset.table import LABEL_ONLY, LEFT_OUT, MASK_ONLY, usable
from machine import map_ahead, write_file

CACHE_VERSION = 8  # raise when decoding changes
DECODED_AHEAD = 128  # maximum number of decoded images waiting to be written
CHECKED_WHOLE = 100_000_000  # bytes; smaller pixel files are checked against their CRCs whenever they are opened
N_CHECKED = 200  # images of a larger file that are checked instead
VERDICT = {"row": int, "image_error": str, "mask_error": str, "note": str, "crc": int, "thumbnail_crc": int}
VERDICT |= {"digest": str}


class PixelFile:
    """Images (n_rows, H, W, 4) uint8 in a file; `pixels[rows]` takes a position, a slice or an array of positions.

    Each image is followed by its thumbnail, whose size does not depend on H and W: `pixels.thumbnails[rows]`.

    The file is read, not mapped: it does not compete for memory, and truncation while in use raises an error instead of
    killing the process. Threads may read concurrently.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, n_rows: int, size: int) -> None:
        self.path, self.shape = path, (n_rows, size, size, 4)
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
        positions, step = np.arange(len(self))[rows], record_bytes(self.shape[1])
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


class CacheIndex(NamedTuple):
    """Content of index.json, which describes a pixel file."""

    file: str  # name; "" if there is none
    changed: int  # time of writing or of the last full check, ns since the epoch
    rows: dict[str, dict]  # verdict by signature of the image and mask files


NOTHING = CacheIndex("", 0, {})


def decode_table(
    table: pd.DataFrame, data_dir: str | Path, image_size: int, cache_dir: str | Path, how: str = ""
) -> tuple[pd.DataFrame, PixelFile]:
    """Decode every usable row once, in parallel, into a cache on disk that later runs share.

    A file is decoded again only if its size or times have changed, or its pixels in the cache are damaged. If several
    processes need the same cache, one writes it and the others wait. A new cache replaces the old one only once it is
    complete.

    Parameters
    ----------
    how : how masks are read, as in `decode_row`.

    Returns
    -------
    table : with new columns ``row`` (in the cache, -1 for none), ``crc`` (of the pixels) and ``digest`` (of the image
        file), and ``mask_how`` if `how` is given; status and reason hold the verdicts.
    pixels : (n_rows, image_size, image_size, 4): RGB, then the mask in {0, 255}; `thumbnails` have their own size.

    Raises
    ------
    OSError : the cache cannot be written; `filename` is its folder.
    """
    used = usable(table)
    mode = f"|{how}" if how else ""
    paths = zip(used["image_path"], used["mask_path"])
    keys = [f"{_signature(image)}|{_signature(mask)}{mode}" for image, mask in paths]
    place = hashlib.sha256(os.path.realpath(data_dir).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    folder = Path(cache_dir) / f"{Path(data_dir).resolve().name}-{image_size}px-v{CACHE_VERSION}-{place}"
    cache = _open_cache(folder, keys, image_size)
    if cache is None:
        with _locked(folder):
            cache = _open_cache(folder, keys, image_size)  # another process may have written it meanwhile
            if cache is None:
                _write_cache(folder, used, keys, image_size, how)
                index = _read_index(folder, image_size)
                cache = index, PixelFile(folder / index.file, len(index.rows), image_size)
            _sweep(folder)
    index, pixels = cache
    verdicts = pd.DataFrame([index.rows[key] for key in keys], index=used.index, columns=list(VERDICT))
    table = table.assign(row=-1, crc=0, digest="", **({"mask_how": how} if how else {}))
    return _judge(table, verdicts), pixels


def _judge(table: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Write the verdicts of decoding into status and reason."""
    table.loc[verdicts.index, ["row", "crc"]] = verdicts[["row", "crc"]].astype("int64")
    table.loc[verdicts.index, "digest"] = verdicts["digest"]
    for column in ("note", "mask_error", "image_error"):
        affected = verdicts.index[verdicts[column] != ""]
        table.loc[affected, "reason"] = verdicts.loc[affected, column]
        if column != "note":
            without = np.where(table.loc[affected, "status"] == MASK_ONLY, LEFT_OUT, LABEL_ONLY)
            table.loc[affected, "status"] = LEFT_OUT if column == "image_error" else without
    return table


def _signature(path: str) -> str:
    """Path, size and times of a file, which change when the file does; "" for no file."""
    if not path:
        return ""
    try:
        status = os.stat(path)
    except OSError as error:
        return f"{path}:{error.strerror}"
    return f"{os.path.realpath(path)}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


@contextmanager
def _locked(folder: Path):
    """Admit one process at a time; a write error names the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            tqdm.write(f"Another process is decoding into {folder}; waiting.")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error


def _open_cache(folder: Path, keys: Iterable[str], size: int) -> tuple[CacheIndex, PixelFile] | None:
    """The cache, or None if rows are missing or the check finds damage."""
    index = _read_index(folder, size)
    if not index.file or not index.rows.keys() >= set(keys):
        return None
    try:
        pixels = PixelFile(folder / index.file, len(index.rows), size)
        changed = pixels.path.stat().st_mtime_ns
        verdicts = list(index.rows.values())
        if pixels.nbytes > CHECKED_WHOLE and changed == index.changed:
            verdicts = np.random.default_rng().choice(verdicts, N_CHECKED, replace=False).tolist()
        if not all(_is_sound(pixels, verdict) for verdict in verdicts):
            return None
    except (OSError, ValueError):
        return None
    if changed != index.changed:  # e.g. the file was copied; it has now been checked completely
        with suppress(OSError):
            _write_index(folder, index._replace(changed=changed))
    return index, pixels


def _is_sound(pixels: PixelFile, verdict: dict) -> bool:
    row = verdict["row"]
    return (zlib.crc32(pixels[row]), zlib.crc32(pixels.thumbnails[row])) == (verdict["crc"], verdict["thumbnail_crc"])


def _read_index(folder: Path, size: int) -> CacheIndex:
    """The index of a cache; `NOTHING` if it is missing or damaged, or its pixel file is missing or too small."""
    try:
        index = CacheIndex(**json.loads((folder / "index.json").read_text(encoding="utf-8")))
        n_bytes = (folder / os.path.basename(index.file)).stat().st_size
        for row, verdict in enumerate(index.rows.values()):
            if {name: type(value) for name, value in verdict.items()} != VERDICT or verdict["row"] != row:
                return NOTHING
    except (OSError, ValueError, TypeError, AttributeError):
        return NOTHING
    return index if isinstance(index.changed, int) and n_bytes == len(index.rows) * record_bytes(size) else NOTHING


def _write_index(folder: Path, index: CacheIndex) -> None:
    write_file(folder / "index.json", json.dumps(index._asdict()).encode())


def _write_cache(folder: Path, used: pd.DataFrame, keys: list[str], size: int, how: str) -> None:
    """Write a new pixel file, copying the rows that are still valid, and then its index."""
    old = _read_index(folder, size)
    paths = dict(zip(keys, zip(used["image_path"], used["mask_path"])))
    path, rows = folder / f"pixels-{os.getpid()}-{os.urandom(4).hex()}.u8", {}
    try:
        with path.open("wb") as file:
            for key, pixels, thumbnail in _still_valid(folder, old, paths, size):
                file.write(pixels)
                file.write(thumbnail)
                rows[key] = old.rows[key] | {"row": len(rows)}
            missing = [key for key in paths if key not in rows]
            for key, (pixels, thumbnail, verdict) in zip(missing, _decode([paths[key] for key in missing], size, how)):
                file.write(pixels)
                file.write(thumbnail)
                rows[key] = {"row": len(rows)} | verdict
        _write_index(folder, CacheIndex(path.name, path.stat().st_mtime_ns, rows))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _still_valid(
    folder: Path, old: CacheIndex, keys: Iterable[str], size: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Key, pixels and thumbnail of each row of an earlier file that is still valid."""
    if not old.file:
        return
    pixels = PixelFile(folder / old.file, len(old.rows), size)
    for key in keys:
        if key in old.rows and _is_sound(pixels, old.rows[key]):
            row = old.rows[key]["row"]
            yield key, pixels[row], pixels.thumbnails[row]


def _decode(files: list[tuple[str, str]], size: int, how: str) -> Iterable[tuple[np.ndarray, np.ndarray, dict]]:
    """Yield pixels, thumbnails and verdicts of images and their masks, in order, decoded on all cores."""
    progress = tqdm(total=len(files), desc="Checking and decoding images", unit="image", disable=None)
    with progress, ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Pillow, about odd metadata
        for decoded in map_ahead(pool, lambda pair: decode_row(*pair, size, how), files, DECODED_AHEAD):
            yield decoded
            progress.update()


def _sweep(folder: Path) -> None:
    """Delete pixel files that the index does not name, left by a killed process or an older cache."""
    try:
        named = json.loads((folder / "index.json").read_text(encoding="utf-8"))["file"]
    except (OSError, ValueError):
        return
    for path in folder.glob("pixels-*"):
        if path.name != named:
            with suppress(OSError):  # Windows does not delete a file in use
                path.unlink()
