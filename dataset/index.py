"""The index of a cache: which record holds which files, and the verdicts on them; and journals, while it is written."""

import hashlib
import json
import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dataset.archives import archive_of, stamp_of
from machine import write_file

TEXTS = ("image_error", "mask_error", "note")  # in an entry: the position in `CacheIndex.texts`
ENTRY = np.dtype(
    [
        ("key", "S32"),  # hash of the signatures of both files and of how masks are read
        ("image", "u8"),  # hash of the image's path: entries of older versions of a file share it
        ("row", "i8"),
        ("crc", "u4"),
        ("thumbnail_crc", "u4"),
        ("digest", "S16"),  # of the image file, in hexadecimal; "" if it could not be read
        *((name, "i4") for name in TEXTS),
    ]
)
NAME = "index.npz"


class CacheIndex(NamedTuple):
    """Content of index.npz, which describes a pixel file."""

    file: str = ""  # name; "" if there is none
    changed: int = 0  # time of writing or of the last full check, ns since the epoch
    entries: np.ndarray = np.empty(0, ENTRY)
    texts: tuple[str, ...] = ("",)

    def positions(self, keys: np.ndarray) -> np.ndarray:
        """Position of the entry of each key, -1 for none; of several, the last."""
        known = {key: position for position, key in enumerate(self.entries["key"].tolist())}
        return np.fromiter((known.get(key, -1) for key in keys.tolist()), int, len(keys))

    def verdicts(self, positions: np.ndarray) -> pd.DataFrame:
        """One row per position: ``row``, ``crc``, ``digest`` and the texts."""
        found = self.entries[positions]
        columns = {"row": found["row"], "crc": found["crc"].astype("int64"), "digest": found["digest"].astype(str)}
        texts = np.array(self.texts, object)
        return pd.DataFrame(columns | {name: texts[found[name]] for name in TEXTS})

    def joined(self, other: "CacheIndex") -> "CacheIndex":
        """With the entries of another index of the same file; of two for a record, the other's."""
        places = {text: place for place, text in enumerate(dict.fromkeys((*self.texts, *other.texts)))}
        own = self.entries[~np.isin(self.entries["row"], other.entries["row"])]
        entries = np.concatenate([own, other.entries])
        renumbered = np.array([places[text] for text in other.texts], "i4")
        for name in TEXTS:
            entries[name][len(own) :] = renumbered[other.entries[name]]
        return self._replace(entries=entries, texts=tuple(places))


def keys_of(used: pd.DataFrame, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Key of each row's files, and hash of its image's path: as `ENTRY` has them.

    Files are known by path, size and times, members of an archive by those of the archive; no content is read.
    """
    folders: dict[str, str] = {}
    keys, images = np.empty(len(used), "S32"), np.empty(len(used), "u8")
    mode = f"|{how}" if how else ""
    for number, (image, mask) in enumerate(zip(used["image_path"], used["mask_path"])):
        signature = f"{_signature(image, folders)}|{_signature(mask, folders)}{mode}"
        keys[number] = _hash(signature, 16).hex()
        images[number] = int.from_bytes(_hash(image, 8), "little")
    return keys, images


def _hash(text: str, n_bytes: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=n_bytes).digest()


def _signature(path: str, folders: dict[str, str]) -> str:
    """Path, size and times of a file or its archive, which change when it does; "" for none. Fills `folders`."""
    if not path:
        return ""
    try:
        archive, member = archive_of(path)
        if archive:
            if archive not in folders:
                folders[archive] = _signature(archive, folders)
            return f"{folders[archive]}/{member}:{stamp_of(archive, member)}"
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return f"{path}:{error}"
    return f"{folders[folder]}/{name}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def read_index(folder: Path) -> CacheIndex:
    """The index of a cache; an empty one if it is missing or damaged, or its pixel file is missing."""
    try:
        with np.load(folder / NAME, allow_pickle=False) as stored:
            entries, (about,) = stored["entries"], json.loads(stored["about"].tobytes())
        index = CacheIndex(about["file"], about["changed"], entries, tuple(about["texts"]))
        is_valid = entries.dtype == ENTRY and entries.ndim == 1 and isinstance(index.changed, int)
        is_valid &= all(isinstance(text, str) for text in index.texts)
        is_valid &= all(((entries[name] >= 0) & (entries[name] < len(index.texts))).all() for name in TEXTS)
        is_there = (folder / os.path.basename(index.file)).is_file()
    except MemoryError:
        raise
    except Exception:  # zipfile and NumPy raise many kinds on a damaged file
        return CacheIndex()
    return index if is_valid and is_there else CacheIndex()


def write_index(folder: Path, index: CacheIndex) -> None:
    about = json.dumps([{"file": index.file, "changed": index.changed, "texts": index.texts}])
    content = BytesIO()
    np.savez(content, entries=index.entries, about=np.frombuffer(about.encode(), np.uint8))
    write_file(folder / NAME, content.getvalue())


def journal_line(key: bytes, image: int, row: int, verdict: dict) -> bytes:
    """The entry of a record that is written, for a journal."""
    values = [key.decode(), int(image), row, verdict["crc"], verdict["thumbnail_crc"], verdict["digest"]]
    return json.dumps([*values, *(verdict[name] for name in TEXTS)]).encode() + b"\n"


def read_journals(file: str, paths: Iterable[Path]) -> CacheIndex:
    """The entries in journals of a pixel file; lines of another form, such as an unfinished one, are passed over."""
    rows: dict[int, tuple] = {}  # by record: what was written there last
    texts: dict[str, int] = {"": 0}
    for path in paths:
        for line in path.read_bytes().splitlines():
            try:
                *values, image_error, mask_error, note = json.loads(line)
                numbers = [texts.setdefault(text + "", len(texts)) for text in (image_error, mask_error, note)]
                entry = np.array([(values[0].encode(), *values[1:5], values[5].encode(), *numbers)], ENTRY)[0]
                rows[int(entry["row"])] = entry
            except (ValueError, TypeError, AttributeError, IndexError, OverflowError):
                continue
    entries = np.array(list(rows.values()), ENTRY)
    return CacheIndex(file, 0, entries[entries["row"] >= 0], tuple(texts))
