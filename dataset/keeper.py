"""A cache folder: its index, its journals and its lock, in the process that writes them."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from dataset.index import CacheIndex, keys_of, read_index, read_journals, write_index
from dataset.pixelfile import PixelFile, are_sound, record_bytes
from dataset.room import describe_room

CHECKED_WHOLE = 100_000_000  # bytes; smaller pixel files are checked against their CRCs whenever they are opened
N_CHECKED = 200  # images of a larger file that are checked instead


class Plan(NamedTuple):
    """What is left to decode."""

    file: str  # name of the pixel file
    session: str  # part of the names of the journals
    positions: np.ndarray  # of the images among the usable rows
    keys: np.ndarray  # for the journal, with the hashes of their paths
    images: np.ndarray
    rows: np.ndarray  # the record of each


@contextmanager
def folder_named(folder: Path) -> Iterator[None]:
    """A write error names the folder."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error


def make(folder: Path) -> None:
    with folder_named(folder):
        folder.mkdir(parents=True, exist_ok=True)


class Keeper:
    """Reads and writes the index, in the process that does so for a cache folder; the others hold an idle one."""

    def __init__(self, folder: Path, used: pd.DataFrame, size: int, how: str) -> None:
        self.folder, self.used, self.size, self.how = folder, used, size, how
        self.session = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._held = ExitStack()  # the folder's lock, while it is written

    def close(self) -> None:
        self._held.close()

    def begin(self) -> Plan:
        """What is left to decode; if anything is, the folder is locked until `close`."""
        self.keys, self.images = keys_of(self.used, self.how)
        self.index = self._open()
        if self.index is None:
            self._lock()
            self.index = self._open()  # another run may have written it meanwhile
        self.is_complete = self.index is not None
        return self._work(np.empty(0, int), np.empty(0, int)) if self.is_complete else self._plan()

    def finish(self) -> tuple[str, int, pd.DataFrame]:
        """Check what was written and write the index. The name of the pixel file, its length, and the verdicts."""
        if not self.is_complete:
            journals = sorted(self.folder.glob(f"{self.index.file}.{self.session}-*.journal"))
            written = self._sound(read_journals(self.index.file, journals))
            self.index = self.index.joined(written)
            if n := int((self.index.positions(self.keys) < 0).sum()):
                raise ValueError(f"{n:,} images in {self.folder} were not written as decoded. Run the command again.")
            with folder_named(self.folder):
                changed = (self.folder / self.index.file).stat().st_mtime_ns
                write_index(self.folder, self.index._replace(changed=changed))
            self._sweep()
        return (
            self.index.file,
            int(self.index.entries["row"].max(initial=-1)) + 1,
            self.index.verdicts(self.index.positions(self.keys)),
        )

    def _lock(self) -> None:
        """Admit one run at a time."""
        with folder_named(self.folder):
            lock = FileLock(self.folder / ".lock")
            try:
                lock.acquire(timeout=1)
            except Timeout:
                tqdm.write(f"Another run is decoding into {self.folder}; waiting.")
                lock.acquire()
        self._held.callback(lock.release)

    def _open(self) -> CacheIndex | None:
        """The index, or None if images are missing or the check finds damage."""
        index = read_index(self.folder)
        if not index.file or (index.positions(self.keys) < 0).any():
            return None
        checked = index.entries
        try:
            changed = (self.folder / index.file).stat().st_mtime_ns
            if len(checked) * record_bytes(self.size) > CHECKED_WHOLE and changed == index.changed:
                checked = np.random.default_rng().choice(checked, min(N_CHECKED, len(checked)), replace=False)
            if len(self._sound(index._replace(entries=checked)).entries) < len(checked):
                return None
        except OSError:  # another run has replaced the file meanwhile
            return None
        if changed != index.changed:  # e.g. the file was copied; it has now been checked completely
            with suppress(OSError, Timeout), FileLock(self.folder / ".lock").acquire(timeout=0):
                if read_index(self.folder).changed == index.changed:
                    write_index(self.folder, index._replace(changed=changed))
        return index

    def _sound(self, index: CacheIndex) -> CacheIndex:
        """The entries whose pixels are as they were written."""
        path = self.folder / index.file
        pixels = PixelFile(path, path.stat().st_size // record_bytes(self.size), self.size)
        sound = index._replace(entries=index.entries[are_sound(pixels, index.entries)])
        pixels.close()
        return sound

    def _plan(self) -> Plan:
        """What to decode, after all that lies in the folder has been checked; the index is left to join with it."""
        self.index = self._found()
        is_old = np.isin(self.index.entries["image"], self.images) & ~np.isin(self.index.entries["key"], self.keys)
        if not self.index.file or 2 * is_old.sum() > len(is_old):
            self.index = CacheIndex(f"pixels-{self.session}.u8")
        missing = np.flatnonzero(self.index.positions(self.keys) < 0)
        missing = missing[np.sort(np.unique(self.keys[missing], return_index=True)[1])]  # each pair of files once
        taken = self.index.entries["row"]
        free = np.setdiff1d(np.arange(len(taken) + len(missing)), taken)[: len(missing)]
        if message := describe_room(self.folder, self.size, len(missing), len(self.used)):
            tqdm.write(message)
        with folder_named(self.folder):
            (self.folder / self.index.file).touch()
        return self._work(missing, free)

    def _found(self) -> CacheIndex:
        """What is sound in a pixel file: that of the index or of an interrupted run, whichever has more of the keys."""
        index, journals = read_index(self.folder), {}
        for path in sorted(self.folder.glob("*.journal"), key=lambda path: path.stat().st_mtime_ns):
            journals.setdefault("".join(path.name.partition(".u8")[:2]), []).append(path)
        files = [file for file in {index.file: [], **journals} if file and (self.folder / file).is_file()]
        pairs = [
            (index if file == index.file else CacheIndex(file), read_journals(file, journals.get(file, ())))
            for file in files
        ]
        if not pairs:
            return CacheIndex()
        done, begun = max(pairs, key=lambda pair: (pair[0].joined(pair[1]).positions(self.keys) >= 0).sum())
        return self._sound(done).joined(self._sound(begun))

    def _work(self, positions: np.ndarray, rows: np.ndarray) -> Plan:
        return Plan(self.index.file, self.session, positions, self.keys[positions], self.images[positions], rows)

    def _sweep(self) -> None:
        """Delete the journals, and pixel files of killed processes and older caches."""
        for path in self.folder.glob("pixels-*"):
            if path.name != self.index.file:
                with suppress(OSError):  # Windows does not delete a file in use
                    path.unlink()
