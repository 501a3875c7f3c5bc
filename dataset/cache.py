"""Every image and mask decoded once, into one file of pixels on disk that later runs share."""

import hashlib
import json
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from dataset.images import decode_row
from dataset.table import LABEL_ONLY, LEFT_OUT, USED
from machine import map_ahead

CACHE_VERSION = 3  # raise when decoding changes
DECODED_AHEAD = 128  # images that may wait to be written
VERDICT = ["row", "image_error", "mask_error", "note", "crc", "digest"]


def decode_table(
    table: pd.DataFrame, data_dir: str | Path, image_size: int, cache_dir: str | Path
) -> tuple[pd.DataFrame, np.ndarray]:
    """Decode every usable row once, in parallel, into a cache on disk that later runs share.

    A file is decoded again only if its size or times have changed. A new cache is written beside the old one and takes
    its place when whole, so a run that is killed, or two at once, do no harm.

    Returns
    -------
    table : with new columns ``row`` (in the cache, -1 for none), ``crc`` (of the pixels) and ``digest`` (of the image
        file), and the verdicts in status and reason.
    pixels : (n_rows, image_size, image_size, 4) uint8, memory-mapped: RGB, then the mask in {0, 255}.

    Raises
    ------
    OSError : the cache cannot be written.
    """
    usable = table[table["status"] != LEFT_OUT]
    keys = [f"{_signature(image)}|{_signature(mask)}" for image, mask in zip(usable["image_path"], usable["mask_path"])]
    place = hashlib.sha256(os.path.realpath(data_dir).encode()).hexdigest()[:8]
    folder = Path(cache_dir) / f"{Path(data_dir).resolve().name}-{image_size}px-v{CACHE_VERSION}-{place}"
    shape = (image_size, image_size, 4)
    index = _read_index(folder, shape)
    if not index["rows"].keys() >= set(keys):
        index = _write_cache(folder, index, usable, keys, shape)
    pixels = _map_pixels(folder, index, shape)
    verdicts = pd.DataFrame([index["rows"][key] for key in keys], index=usable.index, columns=VERDICT)
    return _judge(table.assign(row=-1, crc=0, digest=""), verdicts), pixels


def _judge(table: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Turn what decoding found into status and reason."""
    table.loc[verdicts.index, ["row", "crc"]] = verdicts[["row", "crc"]].astype("int64")
    table.loc[verdicts.index, "digest"] = verdicts["digest"]
    for column, status in (("note", USED), ("mask_error", LABEL_ONLY), ("image_error", LEFT_OUT)):
        found = verdicts.index[verdicts[column] != ""]
        table.loc[found, "status"] = status
        table.loc[found, "reason"] = verdicts.loc[found, column]
    return table


def _signature(path: str) -> str:
    """Changes when the file does; "" for no file."""
    if not path:
        return ""
    status = os.stat(path)
    return f"{os.path.realpath(path)}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _read_index(folder: Path, shape: tuple[int, ...]) -> dict:
    """A cache's pixel file and its verdicts by signature; empty if there is none or it is damaged."""
    try:
        index = json.loads((folder / "index.json").read_text())
        whole = (folder / index["file"]).stat().st_size == len(index["rows"]) * np.prod(shape)
    except (OSError, ValueError, KeyError):
        whole = False
    return index if whole else {"file": "", "rows": {}}


def _write_cache(folder: Path, old: dict, usable: pd.DataFrame, keys: list[str], shape: tuple[int, ...]) -> dict:
    """Write a whole new pixel file, taking over the rows that are still right, and then its index."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.partial"):  # of a killed run, unless another is writing it now
        if path.stat().st_mtime < time.time() - 3600:
            path.unlink(missing_ok=True)
    old_pixels = _map_pixels(folder, old, shape)
    paths = dict(zip(keys, zip(usable["image_path"], usable["mask_path"])))
    kept = [key for key in keys if key in old["rows"]]
    missing = [key for key in paths if key not in old["rows"]]
    new = {"file": f"pixels-{os.getpid()}-{os.urandom(4).hex()}.u8", "rows": {}}
    partial = folder / (new["file"] + ".partial")
    try:
        with partial.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata
            for key in kept:
                file.write(old_pixels[old["rows"][key]["row"]].tobytes())
                new["rows"][key] = old["rows"][key] | {"row": len(new["rows"])}
            progress = tqdm(total=len(missing), desc="Checking and decoding images", unit="image", disable=None)
            decoded = map_ahead(pool, lambda key: decode_row(*paths[key], shape[0]), missing, DECODED_AHEAD)
            for key, (pixels, verdict) in zip(missing, decoded):
                file.write(pixels)
                new["rows"][key] = {"row": len(new["rows"])} | verdict
                progress.update()
            progress.close()
        partial.rename(folder / new["file"])
        (folder / "index.partial").write_text(json.dumps(new))
        os.replace(folder / "index.partial", folder / "index.json")
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if old["file"]:
        (folder / old["file"]).unlink(missing_ok=True)
    return new


def _map_pixels(folder: Path, index: dict, shape: tuple[int, ...]) -> np.ndarray:
    """The pixel file as an array; numpy cannot map an empty file."""
    if not index["rows"]:
        return np.zeros((0, *shape), np.uint8)
    return np.memmap(folder / index["file"], np.uint8, "r").reshape(-1, *shape)
