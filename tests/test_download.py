"""Download against a server on loopback, with small archives of every kind; and what `check` says of a folder."""

import csv
import hashlib
import io
import itertools
import json
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, disc, picture, quick

from dataset import download
from dataset.__main__ import main
from dataset.classes import HAM10000 as CLASSES
from dataset.table import USED, read_table, usable

NAMES = [f"ISIC_{i:07}" for i in range(7)]
METADATA = "lesion_id,image_id,dx,dx_type,age,sex,localization\n" + "".join(
    f"HAM_{i},{name},{code.lower()},histo,50.0,male,back\n" for i, (name, code) in enumerate(zip(NAMES, CLASSES))
)


def encoded(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """An archive that is the same whenever it is made: a ZipInfo is of 1980, and a name alone of the current second."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


IMAGES = {f"{name}.jpg": encoded(picture(i), "JPEG") for i, name in enumerate(NAMES)}
MASKS = {f"lesions/{name}_segmentation.png": encoded(disc(), "PNG") for name in NAMES}
MASKS["__MACOSX/lesions/._ISIC_0000001_segmentation.png"] = b"no mask"


class Server(ThreadingHTTPServer):
    """Files by path; `cuts` says after how many bytes each answer breaks off, `ranges` whether it can go on."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.ranges, self.asked = {}, [], True, []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = 0
        if self.server.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self.send_error(416)
        rest = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        self.wfile.write(rest[:cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        server.address = f"http://127.0.0.1:{server.server_port}"
        server.files["/metadata"] = METADATA.encode()
        yield server
        server.shutdown()


def get(server, folder, images=None, masks=None, md5=None, kinds=("images", "masks")):
    """Serve archives and download; without their MD5 if that is ""."""
    archives = []
    for kind, content, pattern in (("images", images or zipped(IMAGES), download.IMAGE),
                                   ("masks", masks or zipped(MASKS), download.MASK)):  # fmt: skip
        server.files[f"/{kind}.zip"] = content
        digest = hashlib.md5(content).hexdigest() if md5 is None else md5
        archives.append(download.Archive(kind, f"{server.address}/{kind}.zip", digest, kind, pattern, 7))
    archives = tuple(archive for archive in archives if archive.folder in kinds)
    download.download(folder, download.Release("HAM10000", archives, f"{server.address}/metadata", ""))


def test_a_download_ends_with_the_folder_that_main_reads(server, tmp_path):
    get(server, tmp_path / "ham")
    table = read_table(tmp_path / "ham")
    assert (table["status"] == USED).all() and list(table["label"]) == list(CLASSES)
    assert list(table["lesion_id"]) == [f"HAM_{i}" for i in range(7)]
    header, first, *_ = csv.reader((tmp_path / "ham" / "GroundTruth.csv").open())
    assert header == ["image", *CLASSES] and first == [NAMES[0], "1.0", *["0.0"] * 6]
    assert sorted(path.name for path in (tmp_path / "ham").iterdir() if not path.name.startswith(".")) == [
        "GroundTruth.csv", "HAM10000_metadata.csv", "images", "masks"]  # fmt: skip
    assert len(list((tmp_path / "ham" / "masks").iterdir())) == 7
    assert not list((tmp_path / "ham").glob(".*.zip*"))


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    get(server, tmp_path)
    server.asked.clear()
    get(server, tmp_path)
    assert server.asked == []


def test_a_broken_download_goes_on_where_it_broke(server, tmp_path):
    content = zipped(IMAGES)
    server.cuts = [None, 1000, 500]  # the metadata whole, the images in three parts
    get(server, tmp_path, images=content)
    assert [r for path, r in server.asked if path == "/images.zip"] == [None, "bytes=1000-", "bytes=1500-"]
    assert len(list((tmp_path / "images").iterdir())) == 7


def test_a_second_run_goes_on_after_the_first_gave_up(server, tmp_path):
    server.cuts = [None, *[100] * download.TRIES]
    with pytest.raises(ConnectionError, match="resumes the download"):
        get(server, tmp_path)
    get(server, tmp_path)
    assert ("/images.zip", f"bytes={100 * download.TRIES}-") in server.asked
    assert len(read_table(tmp_path)) == 7


def test_a_server_that_cannot_go_on_begins_anew(server, tmp_path):
    server.ranges, server.cuts = False, [None, 1000]
    get(server, tmp_path)
    assert len(list((tmp_path / "images").iterdir())) == 7


def test_a_wrong_checksum_is_refused_and_removed(server, tmp_path):
    with pytest.raises(ValueError, match="MD5"):
        get(server, tmp_path, md5="0" * 32)
    assert not (tmp_path / "images").exists()
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "a/../../ISIC_0000001.jpg", "/etc/evil.jpg", "..\\evil.jpg", "C:/e.jpg"]
)
def test_a_path_that_leads_outside_is_refused(name, server, tmp_path):
    with pytest.raises(ValueError, match="leads outside"):
        get(server, tmp_path / "ham", images=zipped(IMAGES | {name: b"evil"}))
    assert [path.name for path in tmp_path.iterdir()] == ["ham"]
    assert not (tmp_path / "ham" / "images").exists()


def test_a_link_is_refused(server, tmp_path):
    link = zipfile.ZipInfo("ISIC_0000009.jpg")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO(zipped(IMAGES))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link"):
        get(server, tmp_path, images=buffer.getvalue())


def test_an_archive_with_too_few_images_is_refused(server, tmp_path):
    with pytest.raises(ValueError, match="6 files to unpack, expected 7"):
        get(server, tmp_path, images=zipped(dict(list(IMAGES.items())[:6])))


def test_what_is_no_zip_file_is_refused(server, tmp_path):
    with pytest.raises(ValueError, match="not a complete zip file"):
        get(server, tmp_path, images=b"<html>log in</html>")


@pytest.mark.parametrize("text", ["", "<html></html>", "a,b\n1,2\n", METADATA.replace("mel", "wart")])
def test_metadata_that_is_something_else_is_refused(text, server, tmp_path):
    server.files["/metadata"] = text.encode()
    with pytest.raises(ValueError, match="does not hold the metadata of HAM10000: "):
        get(server, tmp_path)
    assert not list(tmp_path.iterdir())


def test_metadata_of_other_images_is_refused(server, tmp_path):
    server.files["/metadata"] = METADATA.replace("ISIC_0000003", "ISIC_0000300").encode()
    with pytest.raises(ValueError, match=r"do not match.*ISIC_0000003"):
        get(server, tmp_path)
    assert not (tmp_path / "GroundTruth.csv").exists()


def test_no_server_is_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["download", str(tmp_path / "ham")])
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert "CC BY-NC 4.0" in printed.out and "cite" in printed.out
    assert "could not be downloaded" in printed.err


def test_a_full_disk_ends_in_one_message_and_a_later_run_goes_on(server, tmp_path):
    """The limit on a file's size makes writing fail as a full disk does."""
    large = zipped(IMAGES | {"padding.bin": np.random.default_rng(0).bytes(200_000)})
    code = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
from dataset import __main__, download
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
archive = download.Archive("images", "{server.address}/images.zip", "{hashlib.md5(large).hexdigest()}", "images",
                          download.IMAGE, 7)
__main__.HAM10000_RELEASE = download.Release("x", (archive,), "{server.address}/metadata", "")
__main__.main(["download", "ham"])
"""
    server.files["/images.zip"] = large
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "free some space" in done.stderr and "Traceback" not in done.stderr
    get(server, tmp_path / "ham", images=large)
    assert len(read_table(tmp_path / "ham")) == 7


def test_metadata_with_a_row_of_no_image_is_refused(server, tmp_path):
    server.files["/metadata"] = METADATA.replace("ISIC_0000001", "").encode()
    with pytest.raises(ValueError, match="a row names no image"):
        get(server, tmp_path)


def test_an_encrypted_archive_is_one_message(tmp_path):
    content = bytearray(zipped(IMAGES))
    for signature, flags in (
        (b"PK\x03\x04", 6),
        (b"PK\x01\x02", 8),
    ):  # the bit that says so, in both headers of a member
        start = content.find(signature)
        while start >= 0:
            content[start + flags] |= 1
            start = content.find(signature, start + 4)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"not a complete zip file.*encrypted"):
        download.unpack(tmp_path / "a.zip", tmp_path / "images", download.Archive("x", "", "", "", download.IMAGE, 7))


def test_a_body_without_end_is_cut_off_and_removed(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_METADATA", 100)
    with pytest.raises(ValueError, match="sends more than 100 bytes"):
        get(server, tmp_path)
    assert not list(tmp_path.glob("*metadata*"))


def test_a_body_that_drips_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WINDOW", 0)
    monkeypatch.setattr(download, "LEAST", 10**9)
    monkeypatch.setattr(download, "BLOCK", 10)
    with pytest.raises(ConnectionError, match="bytes in 0 seconds"):
        get(server, tmp_path)


def test_a_ground_truth_of_the_users_own_is_never_replaced(server, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "GroundTruth.csv").write_text("image,label\na,mine\n")
    with pytest.raises(FileExistsError, match=r"GroundTruth\.csv already exists and is not from HAM10000"):
        get(server, folder)
    assert (folder / "GroundTruth.csv").read_text() == "image,label\na,mine\n"
    assert [path for path, _ in server.asked] == ["/metadata"]  # refused before the large files
    (folder / "GroundTruth.csv").unlink()
    get(server, folder)
    get(server, folder)  # our own is no obstacle


def test_of_a_response_without_end_no_more_than_a_block_beyond_the_limit_is_read():
    endless = SimpleNamespace(read1=lambda size: bytes(size))
    blocks = list(itertools.islice(download._blocks(endless, 2 * download.BLOCK), 10))
    assert len(blocks) == 3


ROW_OF_UNGRADED = f"HAM_9,{download.UNGRADED},nv,histo,50.0,male,back\n"


def get_unverified(server, folder, **archives):
    get(server, folder, md5="", kinds=("images",), **archives)


@pytest.mark.parametrize("separator", [",", "\t"])
def test_the_image_that_does_not_count_is_left_out_wherever_it_is_listed(separator, server, tmp_path):
    """It is known to be listed among the diagnoses, among the images, or in neither."""
    server.files["/metadata"] = (METADATA + ROW_OF_UNGRADED).replace(",", separator).encode()
    get_unverified(server, tmp_path, images=zipped(IMAGES | {f"{download.UNGRADED}.jpg": b"not an image"}))
    table = read_table(tmp_path)
    assert list(table["image"]) == NAMES and list(table["lesion_id"]) == [f"HAM_{i}" for i in range(7)]
    assert len(usable(table)) == len(list((tmp_path / "images").iterdir())) == 7


def test_archives_without_known_checksums_resume_and_each_is_fetched_once(server, tmp_path):
    server.cuts = [None, 1000]
    get(server, tmp_path, md5="")
    get(server, tmp_path, md5="")
    fetched = [("/images.zip", None), ("/images.zip", "bytes=1000-"), ("/masks.zip", None)]
    assert server.asked == [("/metadata", None), *fetched]


def test_a_damaged_archive_without_a_known_checksum_is_removed_before_anything_is_unpacked(server, tmp_path):
    """The content of its last member has changed, which only the checksums within the zip file show."""
    content, last = bytearray(zipped(IMAGES)), IMAGES[f"{NAMES[-1]}.jpg"]
    content[content.find(last) + len(last) // 2] ^= 255
    with pytest.raises(ValueError, match=rf"not a complete zip file: {NAMES[-1]}\.jpg is damaged"):
        get_unverified(server, tmp_path, images=bytes(content))
    assert [path.name for path in tmp_path.iterdir()] == ["HAM10000_metadata.csv"]
    get_unverified(server, tmp_path)
    assert len(usable(read_table(tmp_path))) == 7


def test_metadata_with_too_few_rows_are_refused_before_the_images_are_fetched(server, tmp_path):
    server.files["/metadata"] = "".join(METADATA.splitlines(keepends=True)[:-1]).encode()
    with pytest.raises(ValueError, match="it has 6 rows, expected 7"):
        get(server, tmp_path)
    assert [path for path, _ in server.asked] == ["/metadata"]


def test_another_data_sets_folder_is_refused_and_left_as_it_is(server, tmp_path, capsys):
    (tmp_path / "HAM10000_metadata.csv").write_text(METADATA)
    with pytest.raises(SystemExit) as stop:
        main(["download", "--official-test", str(tmp_path)])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and "it has 7 rows, expected 1,511. Name another folder" in message
    assert (tmp_path / "HAM10000_metadata.csv").read_text() == METADATA


@pytest.fixture
def official(server, monkeypatch, tmp_path):
    """The folder to which the command line downloads the official test set: 42 images of 21 lesions."""
    names = [f"ISIC_{34524 + i:07}" for i in range(42)]
    rows = [f"HAMTEST_{i // 2},{name},{CLASSES[i // 6].lower()},histo" for i, name in enumerate(names)]
    server.files["/6924466?format=original"] = "\n".join(["lesion_id,image_id,dx,dx_type", *rows]).encode()
    server.files["/3855824"] = zipped({f"{name}.jpg": encoded(picture(i), "JPEG") for i, name in enumerate(names)})
    (archive,) = download.OFFICIAL_TEST.archives
    moved = [
        url.replace(download.SERVER, f"{server.address}/") for url in (archive.url, download.OFFICIAL_TEST.metadata_url)
    ]
    small = download.OFFICIAL_TEST._replace(
        archives=(archive._replace(url=moved[0], n_files=42),), metadata_url=moved[1]
    )
    monkeypatch.setattr("dataset.__main__.OFFICIAL_TEST", small)
    return tmp_path / "official"


def test_the_official_test_set_is_another_data_set_for_main_with_intervals_by_lesion(
    official, demo_folder, tmp_path, capsys
):
    main(["download", "--official-test", str(official)])
    printed = capsys.readouterr().out
    assert f"Next: python main.py --evaluate-only --external-dir {official}" in printed
    assert "CC BY-NC 4.0" in printed and "ISIC_0035068 has no weight" in printed
    main(["check", str(official), "--image-size", "32"])
    assert "Lesion ids: yes, 21 lesions" in capsys.readouterr().out
    assert "histo" in (official / "HAM10000_metadata.csv").read_text()
    assert quick(demo_folder, tmp_path, "--tasks", "classification", "--external-dir", str(official)) == 0
    metrics = json.loads((tmp_path / "outputs/external/classification/metrics.json").read_text())
    assert (metrics["n_images"], metrics["n_lesions"]) == (42, 21)
