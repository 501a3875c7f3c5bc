"""Download HAM10000 or its official test set from Harvard Dataverse, verify it and unpack it for main.py."""

import hashlib
import re
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from dataset.classes import HAM10000
from dataset.layout import find_files
from dataset.table import LESION_FILES
from dataset.tablefile import read_rows

LICENCE = """HAM10000 is under CC BY-NC 4.0: use it for non-commercial purposes, and cite
  Tschandl, Rosendahl, Kittler: The HAM10000 dataset. Sci Data 5:180161 (2018). doi:10.7910/DVN/DBW86T
  and for the masks: Tschandl et al. Nat Med 26:1229-1234 (2020). doi:10.1038/s41591-020-0942-0"""
SERVER = "https://dataverse.harvard.edu/api/access/datafile/"
ELSEWHERE = "Name another folder, or move that file away."
TIMEOUT = 30  # seconds without data before a connection is dropped
TRIES = 5  # connections per file; each resumes where the last one broke
BLOCK = 1 << 20  # bytes read at a time
WINDOW, LEAST = 60, 60_000  # at least LEAST bytes must arrive in WINDOW seconds
MAX_ARCHIVE, MAX_METADATA = 3_000_000_000, 10_000_000  # bytes; larger downloads are refused
MAX_MEMBER = 50_000_000  # bytes unpacked; no file of this data set is larger


class Archive(NamedTuple):
    """A zip file to download, and where to unpack it."""

    name: str
    url: str
    md5: str  # "" if not known: then the checksums within the zip file are verified
    folder: str  # below the data folder
    pattern: str  # for names of files to unpack, without their folders
    n_files: int

    @property
    def key(self) -> str:
        """Name of its temporary files."""
        return self.md5 or self.url.rpartition("/")[2]


class Release(NamedTuple):
    """The files that make up one data folder."""

    name: str
    archives: tuple[Archive, ...]
    metadata_url: str  # of a table with METADATA_COLUMNS
    usage: str  # flags of main.py before the folder's name
    remark: str = ""

    @property
    def n_images(self) -> int:
        return sum(archive.n_files for archive in self.archives if archive.folder == "images")


UNGRADED = "ISIC_0035068"  # a challenge image that the official scorer gives the weight 0
IMAGE, MASK = rf"(?!{UNGRADED})ISIC_\d{{7}}\.jpg", r"ISIC_\d{7}_segmentation\.png"
TRAINING_ARCHIVES = (
    Archive("images, part 1", f"{SERVER}3172585", "4639bfa73ab251610530a97c898e6e46", "images", IMAGE, 5000),
    Archive("images, part 2", f"{SERVER}3172584", "da43d6cc50f6613013be07e8986b384b", "images", IMAGE, 5015),
    Archive("masks", f"{SERVER}3838943", "6e8d252e09cfdb0189199f15985a5b84", "masks", MASK, 10015),
)
HAM10000_RELEASE = Release("HAM10000", TRAINING_ARCHIVES, f"{SERVER}4338392?format=original", "--data-dir")
OFFICIAL_TEST = Release(
    "the ISIC 2018 Task 3 test set",
    (Archive("test images", f"{SERVER}3855824", "", "images", IMAGE, 1511),),
    f"{SERVER}6924466?format=original",
    "--evaluate-only --external-dir",
    f"{UNGRADED} has no weight in the challenge's scores and is left out.",
)
METADATA_COLUMNS = ["lesion_id", "image", "dx", "dx_type"]  # read_rows calls image_id image


def download(folder: Path, release: Release = HAM10000_RELEASE) -> None:
    """Fetch, verify and unpack the data set into the layout that main.py reads, skipping completed files.

    Raises
    ------
    ConnectionError : the server cannot be reached or keeps disconnecting; partial downloads are kept.
    ValueError : a file has unexpected content; names it. It is removed.
    FileExistsError : the folder holds another GroundTruth.csv, or the metadata of another data set.
    OSError : the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    diagnoses = get_metadata(folder, release)
    truth, content = folder / "GroundTruth.csv", _one_hot(diagnoses)
    if truth.exists() and truth.read_bytes() != content:
        raise FileExistsError(f"{truth} already exists and is not from {release.name}. {ELSEWHERE}")
    for archive in release.archives:
        done = folder / f".{archive.key}.unpacked"
        if not done.exists():
            get_archive(archive, folder)
            done.touch()
    check_names(folder, diagnoses)
    partial = truth.with_name(truth.name + ".partial")
    partial.write_bytes(content)
    partial.replace(truth)


def get_metadata(folder: Path, release: Release) -> pd.Series:
    """Class code by image, from the metadata, which is fetched if missing."""
    metadata = folder / LESION_FILES[0]
    if metadata.exists():
        try:
            return read_diagnoses(metadata, release)
        except ValueError as error:
            raise FileExistsError(f"{error} {ELSEWHERE}") from error
    partial = metadata.with_name(metadata.name + ".partial")
    partial.unlink(missing_ok=True)  # small, without a known checksum: never resumed
    fetch(release.metadata_url, partial, "metadata", MAX_METADATA)
    try:
        diagnoses = read_diagnoses(partial, release)
    except ValueError:
        partial.unlink()
        raise
    partial.rename(metadata)
    return diagnoses


def _one_hot(diagnoses: pd.Series) -> bytes:
    """Content of GroundTruth.csv."""
    one_hot = pd.get_dummies(pd.Categorical(diagnoses, HAM10000)).set_axis(diagnoses.index).astype(float)
    return one_hot.rename_axis("image").to_csv(lineterminator="\n").encode()


def read_diagnoses(path: Path, release: Release) -> pd.Series:
    """Class code by image, from the metadata of a release, without `UNGRADED`. Raises ValueError for another file."""
    try:
        rows = read_rows(path)
        problem = _problem_of(rows, release.n_images)
    except ValueError as error:
        problem = str(error).rstrip(".")
    if problem:
        raise ValueError(f"{path} does not hold the metadata of {release.name}: {problem}.")
    return rows.set_index("image")["dx"].str.upper().drop(UNGRADED, errors="ignore")


def _problem_of(rows: pd.DataFrame, n_images: int) -> str:
    """Why these rows are not the metadata of `n_images` images; "" if they are."""
    if missing := [name for name in METADATA_COLUMNS if name not in rows]:
        return f"it lacks the columns {', '.join(missing)}"
    codes = rows["dx"].replace("", "nothing").str.upper()
    n_rows = int((rows["image"] != UNGRADED).sum())
    if unknown := sorted(set(codes) - set(HAM10000)):
        return f"dx holds {', '.join(unknown[:5])}"
    if blank := [name for name in ("image", "lesion_id") if (rows[name] == "").any()]:
        return f"a row names no {blank[0].removesuffix('_id')}"
    if rows["image"].duplicated().any():
        return "an image is listed twice"
    return "" if n_rows == n_images else f"it has {n_rows:,} rows, expected {n_images:,}"


def get_archive(archive: Archive, folder: Path) -> None:
    """Fetch one archive, verify it, unpack it and delete it."""
    partial = folder / f".{archive.key}.zip.partial"
    fetch(archive.url, partial, archive.name, MAX_ARCHIVE)
    try:
        if archive.md5 and (digest := md5_of(partial)) != archive.md5:
            raise ValueError(
                f"{archive.name} from {archive.url} has the MD5 {digest}, expected {archive.md5}: it is damaged or was "
                "replaced, and was removed. Try again."
            )
        unpack(partial, folder / archive.folder, archive)
    except ValueError:
        partial.unlink()
        raise
    partial.unlink()


def fetch(url: str, path: Path, name: str, limit: int) -> None:
    """Download at most `limit` bytes to `path`, resuming after the bytes already there."""
    for attempt in range(1, TRIES + 1):
        try:
            return _fetch_rest(url, path, name, limit)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise ConnectionError(f"{name}: {url} answers {error.code} {error.reason}.") from error
            problem = error
        except (urllib.error.URLError, HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
            problem = error
        if attempt < TRIES:
            tqdm.write(f"{name}: {problem}; retrying ({attempt + 1} of {TRIES})")
            time.sleep(attempt - 1)
    raise ConnectionError(f"{name}: {url} could not be downloaded ({problem}). The same command resumes the download.")


def _fetch_rest(url: str, path: Path, name: str, limit: int) -> None:
    start = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if start and error.code == 416:  # nothing left to send: the checksum decides
            return
        raise
    with response:
        if start and response.status != 206:  # the server starts over
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = tqdm(desc=name, initial=start, total=total, unit="B", unit_scale=True, disable=None)
        with path.open("ab" if start else "wb") as file, bar:
            for block in _blocks(response, limit - start):
                file.write(block)
                bar.update(len(block))
    if path.stat().st_size > limit:
        path.unlink()
        raise ValueError(f"{name}: {url} sends more than {limit:,} bytes, so it is another file. It was removed.")
    if total and path.stat().st_size < total:
        raise ConnectionError(f"received {path.stat().st_size:,} of {total:,} bytes")


def _blocks(response, limit: int) -> Iterator[bytes]:
    """The content of a response, at most a block beyond `limit` bytes.

    Raises
    ------
    TimeoutError : too little arrives in a window of time.
    """
    since, n_bytes, n_all = time.monotonic(), 0, 0
    while n_all <= limit and (block := response.read1(BLOCK)):  # read1 does not wait for a full block
        yield block
        n_bytes, n_all = n_bytes + len(block), n_all + len(block)
        if time.monotonic() - since > WINDOW:
            if n_bytes < LEAST:
                raise TimeoutError(f"received only {n_bytes:,} bytes in {WINDOW} seconds")
            since, n_bytes = time.monotonic(), 0


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def unpack(path: Path, folder: Path, archive: Archive) -> None:
    """Unpack the archive's files into `folder`, dropping the folders inside the archive.

    Raises
    ------
    ValueError : not a zip file, or a damaged one; it has a path that leads outside, a link, an oversized file, or
        another number of files than `archive.n_files`.
    """
    try:
        with zipfile.ZipFile(path) as zipped:
            members = [member for member in zipped.infolist() if not member.is_dir()]
            for member in members:
                refuse_unsafe(member, archive)
            wanted = {m.filename.rsplit("/", 1)[-1]: m for m in members if "__MACOSX" not in m.filename}
            wanted = {name: m for name, m in wanted.items() if re.fullmatch(archive.pattern, name)}
            if len(wanted) != archive.n_files:
                raise ValueError(f"{archive.name}: {len(wanted)} files to unpack, expected {archive.n_files}.")
            if not archive.md5 and (damaged := zipped.testzip()):
                raise zipfile.BadZipFile(f"{damaged} is damaged")
            folder.mkdir(exist_ok=True)
            for name, member in tqdm(wanted.items(), f"unpacking {archive.name}", unit="file", disable=None):
                _unpack_file(zipped, member, folder / name)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:  # also if encrypted
        raise ValueError(f"{archive.name} is not a complete zip file: {error}.") from error


def _unpack_file(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Unpack one file, unless it is there in full."""
    if not (target.exists() and target.stat().st_size == member.file_size):
        with zipped.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)


def refuse_unsafe(member: zipfile.ZipInfo, archive: Archive) -> None:
    """Raises ValueError for an unsafe member of a zip file."""
    parts = re.split(r"[/\\]", member.filename)
    if ".." in parts or parts[0] == "" or ":" in parts[0]:
        problem = "leads outside the folder"
    elif stat.S_ISLNK(member.external_attr >> 16):
        problem = "is a link"
    elif member.file_size > MAX_MEMBER:
        problem = f"has {member.file_size:,} bytes"
    else:
        return
    raise ValueError(f"{archive.name} was not unpacked: {member.filename!r} in it {problem}.")


def check_names(folder: Path, diagnoses: pd.Series) -> None:
    """Raises ValueError if images and metadata do not match."""
    images, _ = find_files(folder)
    odd = sorted(set(images) ^ set(diagnoses.index))
    if odd:
        raise ValueError(
            f"{len(images)} images and {len(diagnoses)} rows of {LESION_FILES[0]} do not match, for example "
            f"{', '.join(odd[:3])}. Delete the wrong files in {folder}, and run this again."
        )
