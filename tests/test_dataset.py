"""Download against a server on loopback, with small archives of every kind; and what `check` says of a folder."""

import csv
import hashlib
import io
import shlex
import subprocess
import sys
import tempfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import ROOT, decoded, disc, picture

import main as program_main
from dataset import cache, download
from dataset.__main__ import main
from dataset.classes import HAM10000 as CLASSES
from dataset.table import USED, read_table

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


def get(server, folder, images=None, masks=None, md5=None):
    """Serve two archives and download."""
    archives = []
    for kind, content, pattern in (("images", images or zipped(IMAGES), download.IMAGE),
                                   ("masks", masks or zipped(MASKS), download.MASK)):  # fmt: skip
        server.files[f"/{kind}.zip"] = content
        digest = md5 or hashlib.md5(content).hexdigest()
        archives.append(download.Archive(kind, f"{server.address}/{kind}.zip", digest, kind, pattern, 7))
    download.download(folder, archives, f"{server.address}/metadata")


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
    with pytest.raises(ValueError, match="does not hold HAM10000's metadata"):
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
import functools, resource, sys
sys.path.insert(0, {str(ROOT)!r})
from dataset import __main__, download
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
archive = download.Archive("images", "{server.address}/images.zip", "{hashlib.md5(large).hexdigest()}", "images",
                          download.IMAGE, 7)
__main__.download = functools.partial(download.download, archives=[archive], metadata_url="{server.address}/metadata")
__main__.main(["download", "ham"])
"""
    server.files["/images.zip"] = large
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "Free some space" in done.stderr and "Traceback" not in done.stderr
    get(server, tmp_path / "ham", images=large)
    assert len(read_table(tmp_path / "ham")) == 7


def test_check_says_what_main_would_find_and_changes_nothing(folder, capsys):
    folder.fill(4)
    folder.add("no_mask", mask=None)
    folder.add("no_image", image=None)
    folder.write()
    (folder.path / "images" / "NV_0.jpg").write_text("no picture")
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    main(["check", str(folder.path)])
    printed = capsys.readouterr().out
    for text in ("30 rows: 27 used, 2 left out, 1 classification only", "image is missing: put the file into images/",
                 "image: download the file again", "without it, only the label is used", "Lesion ids: none", "Split: ",
                 "GB of disk"):  # fmt: skip
        assert text in printed, text
    assert before == {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}


def test_check_knows_lesions_and_a_split_that_fails(demo_folder, folder, capsys):
    main(["check", str(demo_folder)])
    assert "35 lesions" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["check", str(folder.fill(2).path)])
    printed = capsys.readouterr()
    assert stop.value.code == 2 and "A run would stop here. Class MEL" in printed.err and "GB of disk" in printed.out


def test_check_without_a_folder_is_one_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", str(tmp_path / "nowhere")])
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and "No data folder at" in error and "\n" not in error


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


# check


def checked(capsys, *arguments):
    """The exit code of `check`, and what it printed."""
    try:
        main(["check", *map(str, arguments)])
        code = 0
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_check_takes_the_flags_of_a_run_and_its_advice_can_be_followed_as_printed(folder, tmp_path, capsys):
    """DF has two lesions: the advice is pasted."""
    folder.fill(4)
    folder.rows = [row for row in folder.rows if row[0] not in ("DF_2", "DF_3")]
    code, _, error = checked(capsys, folder.write().path)
    assert code == 2 and "Class DF" in error
    advice = shlex.split(error.split("learn only the other classes: ")[1].strip())
    assert advice[0] == "--classes" and checked(capsys, folder.path, *advice)[0] == 0
    code, printed, _ = checked(capsys, folder.path, "--classes", "malignant=MEL,BCC,AKIEC", "benign=NV,BKL,DF,VASC")
    assert code == 0 and "malignant is MEL and BCC and AKIEC" in printed
    (tmp_path / "s.csv").write_text(
        "image,split\n" + "".join(f"{row[0]},{'train' if i % 3 else 'test'}\n" for i, row in enumerate(folder.rows))
    )
    code, printed, _ = checked(capsys, folder.path, "--classes", "NV", "MEL", "--split-file", tmp_path / "s.csv")
    assert "Split: the data's own, by" in printed and "s.csv; val cut from train" in printed


def test_check_follows_its_own_advice_on_masks_and_zeros(folder, capsys):
    for k in range(8):
        folder.add(f"{k}", "MEL" if k % 2 else "NV", mask=disc().point(lambda value: 255 - value))
    code, _, error = checked(capsys, folder.write().path)
    assert code == 2 and "pass --invert-masks" in error
    assert checked(capsys, folder.path, "--invert-masks")[0] == 0
    (folder.path / "GroundTruth.csv").write_text(
        "image,melanoma,seborrheic_keratosis\n" + "".join(f"{k},{k % 2},0\n" for k in range(8))
    )
    code, _, error = checked(capsys, folder.path, "--invert-masks")
    assert code == 2 and "--zeros NV" in error
    assert checked(capsys, folder.path, "--invert-masks", "--zeros", "NV")[0] == 0


def test_check_says_that_a_run_would_stop_where_there_is_nothing_to_learn(folder, capsys):
    for k in range(6):
        folder.add(f"{k}", "NV", mask=None)
    code, printed, error = checked(capsys, folder.write().path, "--classes", "NV")
    assert code == 2 and "A run would stop here. Each part of the split needs masks, or diagnoses of" in error
    assert "Split: ours" in printed


def test_check_closes_the_pixels_before_it_removes_them(folder, monkeypatch):
    """Windows does not delete an open file."""
    events = []
    close, cleanup = cache.PixelFile.close, tempfile.TemporaryDirectory.cleanup
    monkeypatch.setattr(cache.PixelFile, "close", lambda self: (events.append("closed"), close(self))[1])
    monkeypatch.setattr(
        tempfile.TemporaryDirectory, "cleanup", lambda self: (events.append("removed"), cleanup(self))[1]
    )
    main(["check", str(folder.fill(4).path)])
    assert events == ["closed", "removed"]


def test_a_closed_file_of_pixels_cannot_be_read(folder):
    table, _ = decoded(folder.fill(1))
    _, pixels = cache.decode_table(
        table[["image", "status", "reason", "image_path", "mask_path"]], folder.path, 16, folder.path.parent / "cache"
    )
    pixels.close()
    with pytest.raises((OSError, ValueError)):
        pixels[0]


def test_check_and_a_run_say_the_same_of_a_folder(folder, tmp_path, capsys):
    folder.fill(4)
    folder.add("more", image=None)
    picture(99).save(folder.write().path / "images" / "unnamed.png")
    _, printed, _ = checked(capsys, folder.path)
    run = ["--data-dir", str(folder.path), "--output-dir", str(tmp_path / "o"), "--cache-dir", str(tmp_path / "c")]
    config = program_main.parse_arguments([*run, "--image-size", "32"])
    program_main.prepare_data(config)
    said = capsys.readouterr().out.strip().splitlines()
    assert len(said) > 10 and [line for line in said if line not in printed.splitlines()] == []
