"""Decode every image and mask once, into one pixel file on disk that later runs share."""

import hashlib
import itertools
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import machine
from dataset.images import decode_row
from dataset.index import journal_line
from dataset.keeper import Keeper, Plan, folder_named, make
from dataset.pixelfile import PixelFile, RecordWriter
from dataset.sharing import refuse_differing, refuse_wrong_place
from dataset.table import LABEL_ONLY, LEFT_OUT, MASK_ONLY, usable

CACHE_VERSION = 9  # raise when decoding or the layout changes
TASKS_AHEAD = 4  # per core: decoded, and waiting to be written
DECODED_AT_ONCE = 16  # images per task if they are small: handing one over would cost more than decoding it
QUICK = 0.004  # seconds that a thread takes to decode a small image, so that a task takes at most 64 ms
ROUND = 5  # seconds after which processes that decode together ask for one another's errors


def decode_table(
    table: pd.DataFrame,
    data_dir: str | Path,
    image_size: int,
    cache_dir: str | Path,
    how: str = "",
    per_machine: bool = False,
) -> tuple[pd.DataFrame, PixelFile]:
    """Decode every usable row once, in parallel, into a cache on disk that later runs share.

    A file is decoded again only if its size or times have changed, or its pixels in the cache are damaged. The rest of
    the cache is kept, unless most of it shows older versions of these files. After an interruption the next call
    decodes what is missing. Processes under torchrun share the work; if several runs need the same cache, one writes
    it and the others wait.

    Parameters
    ----------
    how : how masks are read, as in `decode_row`.
    per_machine : under torchrun on several machines, each has a `cache_dir` of its own; otherwise they share one.

    Returns
    -------
    table : with new columns ``row`` (in the cache, -1 for none), ``crc`` (of the pixels) and ``digest`` (of the image
        file), and ``mask_how`` if `how` is given; status and reason hold the verdicts.
    pixels : (n_rows, image_size, image_size, 4): RGB, then the mask in {0, 255}; `thumbnails` have their own size.

    Raises
    ------
    OSError : the cache cannot be written; `filename` is its folder.
    ValueError : the disk is too small, or the machines' cache or data folders are not as `per_machine` says.
    """
    used = usable(table)
    folder = Path(cache_dir) / machine.from_first(_name_of, data_dir, image_size, per_machine=per_machine)
    machine.in_all(make, folder)
    refuse_wrong_place(folder, per_machine)
    keeper = Keeper(folder, used, image_size, how)
    try:
        plan = machine.from_first(keeper.begin, per_machine=per_machine)
        _decode_together(folder, plan, used, image_size, how, machine.share(per_machine))
        file, n_rows, verdicts = machine.from_first(keeper.finish, per_machine=per_machine)
    finally:
        keeper.close()
    table = table.assign(row=-1, crc=0, digest="", **({"mask_how": how} if how else {}))
    table = _judge(table, verdicts.set_axis(used.index))
    if per_machine:
        refuse_differing(table)
    return table, PixelFile(folder / file, n_rows, image_size)


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


def _name_of(data_dir: str | Path, size: int) -> str:
    """Name of the cache's folder."""
    place = hashlib.sha256(os.path.realpath(data_dir).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{Path(data_dir).resolve().name}-{size}px-v{CACHE_VERSION}-{place}"


def _decode_together(folder: Path, plan: Plan, used: pd.DataFrame, size: int, how: str, share: slice) -> None:
    """Decode this process's share of the work into the pixel file; all processes end together, by an error as well."""
    rows = np.array_split(plan.rows, share.step)[share.start]  # adjacent: over a network no two processes share a page
    entries = list(zip(plan.keys[share].tolist(), plan.images[share].tolist(), rows.tolist()))
    files = used.iloc[plan.positions[share]][["image_path", "mask_path"]].itertuples(index=False, name=None)
    journal_path = folder / f"{plan.file}.{plan.session}-{machine.rank()}.journal"
    options = {"desc": "Checking and decoding images", "unit": "image", "disable": machine.hides_progress()}
    bar = tqdm(total=len(entries), **options)
    with bar, folder_named(folder), ExitStack() as opened:
        left = iter(entries)
        if entries:
            writer = opened.enter_context(RecordWriter(folder / plan.file, size))
            journal = opened.enter_context(journal_path.open("ab"))
            decoded = opened.enter_context(closing(_decode(files, size, how)))

        def write_some() -> bool:
            """Whether the share is done."""
            until = time.monotonic() + ROUND
            for entry in left:
                pixels, thumbnail, verdict = next(decoded)
                writer.write(entry[-1], pixels, thumbnail)
                journal.write(journal_line(*entry, verdict))
                journal.flush()
                bar.update()
                if time.monotonic() > until:
                    return False
            return True

        while not all(machine.in_all(write_some)):
            pass


def _decode(files: Iterable[tuple[str, str]], size: int, how: str) -> Iterator[tuple[np.ndarray, np.ndarray, dict]]:
    """Yield pixels, thumbnails and verdicts of images and their masks, in order, decoded on this process's cores."""
    n_cores = machine.n_cores()
    pool = ThreadPoolExecutor(n_cores)
    left, at_once = iter(files), 1

    def decode(batch: list[tuple[str, str]]) -> list[tuple[np.ndarray, np.ndarray, dict]]:
        nonlocal at_once
        start = time.perf_counter()
        decoded = [decode_row(*pair, size, how) for pair in batch]
        at_once = DECODED_AT_ONCE if time.perf_counter() - start < QUICK * len(batch) else 1
        return decoded

    batches = iter(lambda: list(itertools.islice(left, at_once)), [])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from Pillow, about odd metadata
            for decoded in machine.map_ahead(pool, decode, batches, TASKS_AHEAD * n_cores):
                yield from decoded
    finally:
        pool.shutdown(cancel_futures=True)
