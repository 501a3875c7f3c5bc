"""Images in zip and HDF5 files, read without unpacking: the path of a member is `<path of the archive>/<member>`."""

import os
import re
import threading
import zipfile
import zlib
from collections import Counter
from functools import lru_cache

import numpy as np

HDF5 = (".h5", ".hdf5")
ARCHIVES = (".zip", *HDF5)
TABLES_WITHIN = (".csv", ".tsv", ".tab", ".txt", ".dat", ".xlsx", ".xls", ".json", ".parquet")
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"RIFF", b"BM")  # of image files
_ENDING = re.compile(rf"\.(?:zip|h5|hdf5)(?=[/{re.escape(os.sep)}])", re.IGNORECASE)


class MissingLibrary(ValueError):
    """A library that an archive needs is not installed."""


def archive_of(path: str | os.PathLike) -> tuple[str, str]:
    """The archive and the member that a path leads to; two empty strings for a file of its own."""
    path = os.fspath(path)
    for match in _ENDING.finditer(path):
        if os.path.isfile(path[: match.end()]):
            return path[: match.end()], path[match.end() + 1 :].replace(os.sep, "/")
    return "", ""


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVES) and not name.startswith(".")


def list_archive(path: str, skipped: Counter) -> dict[str, list[str]]:
    """The files in an archive by their folder in it ("" for its top); in HDF5, the datasets that hold an encoded image.

    Parameters
    ----------
    skipped : counts what is in it and not read.

    Raises
    ------
    ValueError : an HDF5 file, and h5py is not installed.
    """
    name, folders = os.path.basename(path), {}
    try:
        members = _opened(path).names(skipped)
    except MissingLibrary:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        skipped[f"archives that cannot be read ({name}: {error}; download it again)"] += 1
        return {}
    for member in members:
        folder, _, file = member.rpartition("/")
        if ".." in folder.split("/") or member.startswith("/"):
            skipped[f"files in {name} whose names lead out of it (rename them)"] += 1
        elif file.lower().endswith(ARCHIVES):
            skipped[f"archives within {name} (unpack it)"] += 1
        elif file.lower().endswith(TABLES_WITHIN):
            skipped[f"tables within {name} (unpack it if they are needed)"] += 1
        else:
            folders.setdefault(folder, []).append(file)
    return folders


def read_member(archive: str, member: str, max_bytes: int) -> bytes:
    """The content of a member. Raises OSError or ValueError if it cannot be read; says why."""
    return _opened(archive).read(member, max_bytes)


def stamp_of(archive: str, member: str) -> str:
    """What changes with a member's content, as far as the archive's directory says."""
    return _opened(archive).stamp(member)


def _opened(path: str) -> "_Zip | _Hdf5":
    status = os.stat(path)
    return _open(path, status.st_size, status.st_mtime_ns, os.getpid())


@lru_cache(maxsize=64)
def _open(path: str, _size: int, _changed: int, _process: int) -> "_Zip | _Hdf5":
    """An open archive: another one once it has changed, and in a forked process, where files share their position."""
    return _Hdf5(path) if path.lower().endswith(HDF5) else _Zip(path)


class _Zip:
    """A zip file that several threads may read."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()  # zipfile counts its open members without one
        try:
            self._file = zipfile.ZipFile(open(path, "rb"))  # noqa: SIM115, open as long as this is
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"damaged archive: {error}") from None

    def names(self, _skipped: Counter) -> list[str]:
        names = dict.fromkeys(info.filename for info in self._file.infolist() if not info.is_dir())
        return [name for name in names if not any(part.startswith((".", "__MACOSX")) for part in _within(name))]

    def stamp(self, member: str) -> str:
        known = self._file.NameToInfo.get(member)
        return f"{known.CRC}:{known.file_size}" if known else ""

    def read(self, member: str, max_bytes: int) -> bytes:
        known = self._file.NameToInfo.get(member)
        if known is None:
            raise ValueError("no longer in the archive")
        if known.flag_bits & 1:
            raise ValueError("encrypted in the archive: unpack it with its password")
        if known.file_size > max_bytes:
            raise ValueError(f"more than {max_bytes:,} bytes")
        try:
            with self._lock:
                source = self._file.open(known)
            try:
                return source.read()
            finally:
                with self._lock:
                    source.close()
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"damaged in the archive ({error})") from None


def _within(name: str) -> list[str]:
    """The parts of a member's name that hide it if they begin with a dot."""
    return [part for part in name.split("/") if part not in (".", "..")]


class _Hdf5:
    """An HDF5 file whose datasets are encoded images, named by image."""

    def __init__(self, path: str) -> None:
        try:
            import h5py
        except ImportError:
            message = f"{path} is read with h5py, which is not installed: pip install -r requirements-hdf5.txt"
            raise MissingLibrary(f"{message}, or move the file out of the folder.") from None
        self._h5py, self._file = h5py, h5py.File(path, "r")

    def names(self, skipped: Counter) -> list[str]:
        """By h5py's low-level calls, which take less than half of the time on 400,000 datasets."""
        found, n_other = [], 0

        def visit(name: bytes) -> None:
            nonlocal n_other
            item = self._h5py.h5o.open(self._file.id, name)
            if isinstance(item, self._h5py.h5d.DatasetID):
                if self._holds_image(item):
                    found.append(os.fsdecode(name))
                else:
                    n_other += 1

        self._h5py.h5o.visit(self._file.id, visit)
        if n_other and found:
            skipped[f"datasets in {os.path.basename(self._file.filename)} that are no encoded image"] += n_other
        return found

    def _holds_image(self, item) -> bool:
        if item.rank == 0 and item.get_type().get_class() == self._h5py.h5t.OPAQUE:  # as in ISIC 2024
            return True
        data = self._h5py.Dataset(item)
        if data.shape == () and data.dtype.kind in "SO":
            value = data[()]
            return isinstance(value, bytes) and value.startswith(BEGINNINGS)
        return data.ndim == 1 and data.dtype == np.uint8 and data[:12].tobytes().startswith(BEGINNINGS)

    def stamp(self, _member: str) -> str:
        return ""

    def read(self, member: str, max_bytes: int) -> bytes:
        try:
            item = self._file[member]
            if item.size * item.dtype.itemsize > max_bytes:
                raise ValueError(f"more than {max_bytes:,} bytes")
            if item.dtype.kind == "S":  # of fixed length: NumPy would drop the zeros at its end
                value = np.empty(item.shape, f"V{item.dtype.itemsize}")
                item.id.read(self._h5py.h5s.ALL, self._h5py.h5s.ALL, value, item.id.get_type())
            else:
                value = item[()]
        except KeyError:
            raise ValueError("no longer in the archive") from None
        except RuntimeError as error:
            raise ValueError(f"damaged in the archive ({error})") from None
        return value if isinstance(value, bytes) else np.asarray(value).tobytes()
