"""Images in zip and HDF5 files, read as those of a folder of the same name."""

import io
import multiprocessing
import sys
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import TWO, decoded, disc, paths_of, picture, state_of

from dataset import archives, cache, opening
from dataset.archives import archive_of, list_archive
from dataset.images import own_size, read_native_mask
from dataset.layout import find
from dataset.masks import is_drawn
from dataset.opening import content_of
from dataset.table import read_table

h5py = pytest.importorskip("h5py", reason="pip install -r requirements-hdf5.txt")


def encoded(image, kind="PNG"):
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def zipped(path, members, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def hdf5(path, datasets):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return path


def pack(folder, how):
    """The images and masks of a written folder, in archives in their place."""
    for name in ("images", "masks"):
        files = sorted((folder.path / name).iterdir())
        contents = {file.name: file.read_bytes() for file in files}
        if how == "zip":
            zipped(folder.path / f"{name}.zip", {f"inner/{file}": content for file, content in contents.items()})
        elif how == "opaque":
            hdf5(folder.path / f"{name}.hdf5", {f.rsplit(".", 1)[0]: np.void(c) for f, c in contents.items()})
        elif how == "bytes":
            hdf5(folder.path / f"{name}.h5", {f"group/{f}": np.bytes_(c) for f, c in contents.items()})
        else:
            hdf5(folder.path / f"{name}.h5", {f: np.frombuffer(c, np.uint8) for f, c in contents.items()})
        for file in files:
            file.unlink()
        (folder.path / name).rmdir()


@pytest.mark.parametrize("how", ["zip", "opaque", "bytes", "array"])
def test_images_and_masks_in_archives_are_those_of_the_folder(folder, how):
    for name in ("a", "b", "ISIC.3"):
        folder.add(name, suffix=".png")
    table, expected = decoded(folder.write())
    pack(folder, how)
    again, pixels = decoded(folder)
    names = ["image", "status", "reason", "crc", "digest", "label"]
    assert again[names].equals(table[names]) and set(again["status"]) == {"used"}
    np.testing.assert_array_equal(pixels[again["row"]], expected[table["row"]])
    image, mask = again.loc[0, ["image_path", "mask_path"]]
    assert not is_drawn(image) and is_drawn(mask)
    assert own_size(image) == (40, 30) and read_native_mask(image, mask).shape == (30, 40)


@pytest.mark.parametrize("how", ["zip", "opaque"])
def test_only_a_changed_archive_is_decoded_again_and_of_it_all(folder, monkeypatch, how):
    for name in "abc":
        folder.add(name, suffix=".png", mask=None)
    folder.write()
    (folder.path / "masks").mkdir(exist_ok=True)
    pack(folder, how)
    calls, decode_row = [], cache.decode_row
    monkeypatch.setattr(cache, "decode_row", lambda *a: calls.append(a[0]) or decode_row(*a))
    decoded(folder)
    decoded(folder)
    assert len(calls) == 3
    new = {f"inner/{name}.png": encoded(picture(90 + i)) for i, name in enumerate("abc")}
    if how == "zip":
        zipped(folder.path / "images.zip", new)
    else:
        new_file = hdf5(folder.path.parent / "new", {name: np.void(c) for name, c in zip("abc", new.values())})
        new_file.replace(folder.path / "images.hdf5")
    table, pixels = decoded(folder)
    assert len(calls) == 6
    np.testing.assert_array_equal(
        pixels[table["row"][0]][..., :3], np.asarray(opening.opened(new["inner/a.png"])[0].resize((16, 16), 2))
    )


def test_masks_of_a_zipped_folder_are_masks_by_its_name(put):
    folder = put({"ISIC2018_Task1_Training_Input/a.jpg": "photo", "ISIC2018_Task1_Training_Input/b.jpg": "photo"})
    members = {f"ISIC2018_Task1_Training_GroundTruth/{name}.png": encoded(disc()) for name in "ab"}
    zipped(folder / "ISIC2018_Task1_Training_GroundTruth.zip", members)
    assert [path.rsplit("/", 1)[1] for path in read_table(folder)["mask_path"]] == ["a.png", "b.png"]


def test_archives_of_parts_give_the_parts(put):
    folder = put({"t.csv": TWO})
    hdf5(folder / "train-image.hdf5", {"a": np.void(encoded(picture(1)))})
    hdf5(folder / "test-image.hdf5", {"b": np.void(encoded(picture(2)))})
    assert [file.part for file in find(folder).images] == ["train", "test"]


def test_what_an_archive_holds_beside_images_is_counted_and_named(put):
    folder = put({"t.csv": TWO})
    photo = encoded(picture(1))
    members = {"a.png": photo, "__MACOSX/._a.png": b"x", "._b.png": b"x", "t.csv": b"x", "in.zip": b"x", "x.heic": b"x"}
    zipped(folder / "photos.zip", members | {"../up.png": photo, "/etc/top.png": photo})
    hdf5(folder / "more.h5", {"b": np.void(photo), "scores": np.ones(3), "flags": np.ones(9, np.uint8), "name": "text"})
    said = find(folder).describe()
    for words in (
        "1 tables within photos.zip (unpack it",
        "1 archives within photos.zip (unpack it)",
        "1 .heic images",
        "2 files in photos.zip whose names lead out of it",
        "3 datasets in more.h5 that are no encoded image",
    ):
        assert words in said
    assert paths_of(read_table(folder)) == ["photos.zip/a.png", "more.h5/b"]


@pytest.mark.parametrize("damage", ["encrypted", "too large", "damaged", "no image"])
def test_a_member_that_cannot_be_read_is_a_row_with_its_reason(put, monkeypatch, damage):
    folder = put({"t.csv": TWO})
    path = zipped(folder / "images.zip", {"a.png": b"x" if damage == "no image" else encoded(picture(1)), "b.png": b""})
    content = bytearray(path.read_bytes())
    if damage == "encrypted":
        content[6] |= 1  # the flags of the first member, here and in the directory at the end
        content[content.index(b"PK\x01\x02") + 8] |= 1
    elif damage == "damaged":
        content[60] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(opening, "MAX_BYTES", 100 if damage == "too large" else 10**9)
    table, _ = cache.decode_table(read_table(folder), folder, 16, folder.parent / "cache")
    reasons = {"encrypted": "encrypted", "too large": "more than 100 bytes", "damaged": "damaged", "no image": "not an"}
    status, reason = state_of(table, "a")
    assert status == "left out" and f"image: {reasons[damage]}" in reason
    assert "file is empty" in state_of(table, "b")[1]


@pytest.mark.parametrize("name", ["images.zip", "images.h5"])
def test_an_archive_that_cannot_be_opened_is_named(put, name):
    folder = put({"t.csv": TWO, "x/a.jpg": "photo", "x/b.jpg": "photo", name: b"PK nonsense"})
    assert f"1 archives that cannot be read ({name}: " in find(folder).describe()


def test_an_image_in_a_folder_and_in_an_archive_is_asked_about_unless_both_are_the_same(put):
    folder = put({"t.csv": TWO, "photos/a.png": "photo", "photos/b.png": "photo"})
    zipped(folder / "more.zip", {"a.png": (folder / "photos" / "a.png").read_bytes()})
    assert len(read_table(folder)) == 2
    zipped(folder / "more.zip", {"a.png": encoded(picture(99))})
    with pytest.raises(ValueError, match="several"):
        read_table(folder)


def test_without_h5py_one_message_says_how_to_install_it(put, monkeypatch):
    folder = put({"t.csv": TWO, "images/a.jpg": "photo", "images/b.jpg": "photo"})
    hdf5(folder / "more.hdf5", {"c": np.void(b"x")})
    monkeypatch.setitem(sys.modules, "h5py", None)
    archives._open.cache_clear()
    with pytest.raises(ValueError, match=r"pip install -r requirements-hdf5\.txt"):
        read_table(folder)


def test_without_an_hdf5_file_h5py_is_not_imported(put, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert len(read_table(put({"t.csv": TWO, "images/a.jpg": "photo", "images/b.jpg": "photo"}))) == 2


def test_a_folder_whose_name_ends_as_an_archive_is_a_folder(put):
    folder = put({"t.csv": TWO, "images.zip/a.jpg": "photo", "images.zip/b.jpg": "photo"})
    assert paths_of(read_table(folder)) == ["images.zip/a.jpg", "images.zip/b.jpg"]
    assert archive_of(folder / "images.zip" / "a.jpg") == ("", "")


def read_all(paths):
    return [content_of(path) for path in paths]


@pytest.mark.parametrize("make", ["zip", "hdf5"])
def test_threads_and_forked_processes_read_the_right_members_at_the_same_time(tmp_path, make):
    """Processes that are forked share the position of a file that was open before."""
    contents = {f"{i}": np.random.default_rng(i).bytes(20_000) for i in range(40)}
    if make == "zip":
        path = zipped(tmp_path / "a.zip", contents, compression=zipfile.ZIP_DEFLATED)
    else:
        path = hdf5(tmp_path / "a.h5", {name: np.void(content) for name, content in contents.items()})
    paths, expected = [f"{path}/{name}" for name in contents], list(contents.values())
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(content_of, paths * 5)) == expected * 5
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert all(found == expected for found in pool.map(read_all, [paths] * 12, chunksize=1))


def test_a_member_of_a_name_that_leads_out_of_the_archive_reads_nothing_there(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    path = zipped(tmp_path / "a.zip", {"b.png": b"x"})
    with pytest.raises(ValueError, match="no longer in the archive"):
        content_of(f"{path}/../secret.png")
    assert list_archive(str(zipped(tmp_path / "c.zip", {"../secret.png": b"y"})), Counter()) == {}


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "PNG", "JPEG"])
@pytest.mark.parametrize("stored", [np.void, np.bytes_, lambda content: np.frombuffer(content, np.uint8)])
def test_every_format_is_read_from_hdf5_to_its_last_byte(tmp_path, kind, stored):
    content = encoded(picture(1), kind) + bytes(5)
    place = hdf5(tmp_path / "a.hdf5", {"x": stored(content)})
    assert list_archive(str(place), skipped := Counter()) == {"": ["x"]} and not skipped
    assert content_of(f"{place}/x") == content
