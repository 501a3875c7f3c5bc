import multiprocessing
import os
import pickle

import numpy as np
import pytest
from conftest import decoded, picture
from PIL import Image

from dataset import cache
from dataset.table import read_table


def test_the_second_run_decodes_nothing_and_a_changed_file_alone_again(folder, monkeypatch):
    calls = []
    decode_row = cache.decode_row
    monkeypatch.setattr(cache, "decode_row", lambda *a: calls.append(a[0]) or decode_row(*a))
    for name in "abc":
        folder.add(name, suffix=".png")
    _, first = decoded(folder.write())
    first = first.copy()
    decoded(folder)
    assert len(calls) == 3
    picture(99).save(folder.path / "images" / "b.png")
    table, second = decoded(folder)
    assert [call.rsplit("/", 1)[1] for call in calls[3:]] == ["b.png"]
    row = table.set_index("image")["row"]
    np.testing.assert_array_equal(second[row["a"]], first[0])
    assert (second[row["b"]] != first[1]).any()


def test_a_damaged_cache_is_built_again(folder):
    folder.add("a")
    _, first = decoded(folder.write())
    first = first.copy()
    (place,) = (folder.path.parent / "cache").iterdir()
    (place / "index.json").write_text("{")
    np.testing.assert_array_equal(decoded(folder)[1], first)
    (pixels,) = [path for path in place.glob("*.u8") if path.name in (place / "index.json").read_text()]
    pixels.write_bytes(b"short")
    np.testing.assert_array_equal(decoded(folder)[1], first)


def test_nothing_is_written_into_the_data_folder(folder):
    folder.fill(1)
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    decoded(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


def three(folder):
    """Three images, decoded once; the folder of their cache, and their pixels."""
    for name in "abc":
        folder.add(name, suffix=".png")
    _, pixels = decoded(folder.write())
    (place,) = (folder.path.parent / "cache").iterdir()
    return place, pixels


def thumbnails(folder, size=16):
    """All of them, as an array."""
    _, pixels = cache.decode_table(read_table(folder.path), folder.path, size, folder.path.parent / "cache")
    return pixels.thumbnails[:]


def pixel_file(place):
    (path,) = place.glob("pixels-*")
    return path


@pytest.mark.parametrize("damage", ["zeros", "one bit", "one of a thumbnail", "cut", "gone"])
def test_damaged_pixels_are_never_used_and_only_they_are_decoded_again(folder, monkeypatch, damage):
    (place, first), small = three(folder), thumbnails(folder)
    path = pixel_file(place)
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        one = len(content) // 3
        content[one : 2 * one] = {"zeros": bytes(one), "cut": b""}.get(damage, content[one : 2 * one])
        if damage.startswith("one"):
            content[one + 7 if damage == "one bit" else 2 * one - 7] ^= 1
        path.write_bytes(content)
    calls = []
    decode_row = cache.decode_row
    monkeypatch.setattr(cache, "decode_row", lambda *a: calls.append(a[0][-5]) or decode_row(*a))
    np.testing.assert_array_equal(np.sort(decoded(folder)[1], axis=0), np.sort(first, axis=0))
    assert calls == (["a", "b", "c"] if damage in ("cut", "gone") else ["b"])
    np.testing.assert_array_equal(np.sort(thumbnails(folder), axis=0), np.sort(small, axis=0))
    assert len(list(place.glob("pixels-*"))) == 1


def test_of_a_large_cache_a_sample_is_checked_and_all_of_it_once_it_was_touched(folder, monkeypatch):
    place, _ = three(folder)
    monkeypatch.setattr(cache, "CHECKED_WHOLE", 0)
    monkeypatch.setattr(cache, "N_CHECKED", 1)
    looked = []
    is_sound = cache._is_sound
    monkeypatch.setattr(cache, "_is_sound", lambda *a: looked.append(1) or is_sound(*a))
    decoded(folder)
    assert len(looked) == 1
    os.utime(pixel_file(place))
    decoded(folder)
    assert len(looked) == 4
    decoded(folder)
    assert len(looked) == 5


@pytest.mark.parametrize(
    "index", ["[]", "null", '{"file": 3}', '{"file": "x", "changed": 0, "rows": {"a": 1}}', '{"rows": []}', "\xff"]
)
def test_an_index_of_another_kind_is_made_again(folder, index):
    place, first = three(folder)
    (place / "index.json").write_bytes(index.encode("latin-1"))
    np.testing.assert_array_equal(decoded(folder)[1], first)


def test_what_a_killed_process_left_is_swept(folder):
    place, _ = three(folder)
    (place / "pixels-1-aaaa.u8").write_bytes(b"of a killed process")
    folder.add("d", suffix=".png")
    decoded(folder.write())
    assert len(list(place.glob("pixels-*"))) == 1


def test_a_file_cut_short_while_it_is_read_is_one_message(folder):
    folder.add("a")
    _, pixels = cache.decode_table(read_table(folder.write().path), folder.path, 16, folder.path.parent / "cache")
    os.truncate(pixels.path, 100)
    with pytest.raises(ValueError, match="was truncated while in use"):
        pixels[0]


def test_pixels_are_read_as_an_array_is_indexed(folder):
    _, expected = three(folder)
    _, pixels = cache.decode_table(read_table(folder.path), folder.path, 16, folder.path.parent / "cache")
    assert pixels.shape == expected.shape and len(pixels) == 3 and pixels.nbytes == expected.nbytes
    for rows in (1, -1, slice(1, None), np.array([2, 0, 0]), np.array([], int), [True, False, True]):
        np.testing.assert_array_equal(pixels[rows], expected[rows])
    with pytest.raises(IndexError):
        pixels[3]


def test_a_disk_that_is_full_names_the_cache(folder, monkeypatch):
    folder.add("a")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_write_index", full)
    with pytest.raises(OSError, match="No space") as failed:
        decoded(folder.write())
    assert str(folder.path.parent / "cache") in failed.value.filename
    assert not list((folder.path.parent / "cache").rglob("pixels-*"))


def sum_of_pixels(folder):
    """Of a folder that is decoded, or was."""
    return int(cache.decode_table(read_table(folder), folder, 16, folder.parent / "cache")[1][:].sum())


def test_of_several_processes_at_once_one_decodes_and_no_file_is_left_over(folder):
    folder.fill()
    with multiprocessing.get_context("fork").Pool(4) as pool:  # which begin at once, as nothing is imported first
        found = [pool.apply_async(sum_of_pixels, [folder.path]) for _ in range(4)]
        assert len({one.get(timeout=60) for one in found}) == 1
    assert len(list((folder.path.parent / "cache").rglob("pixels-*"))) == 1


@pytest.mark.parametrize("stored", [(40, 30), (600, 450), (800, 2000)])
def test_thumbnails_do_not_depend_on_the_size_that_images_are_decoded_to(folder, stored):
    """A JPEG is halved while it is read, for small sizes several times; 800x2000 stands turned by EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6 if stored == (800, 2000) else 1
    for name, suffix in (("a", ".jpg"), ("b", ".png")):
        folder.add(name, image=picture(1, (20, 15)).resize(stored), mask=None, suffix=suffix, exif=exif)
    folder.write()
    expected = thumbnails(folder, 96)
    assert expected.shape == (2, 96, 96, 3)
    np.testing.assert_array_equal(expected, decoded(folder, 96)[1][..., :3])
    for size in (16, 224):
        np.testing.assert_array_equal(thumbnails(folder, size), expected)


def test_thumbnails_are_read_as_an_array_is_indexed_also_by_another_process(folder):
    three(folder)
    expected = thumbnails(folder)
    _, pixels = cache.decode_table(read_table(folder.path), folder.path, 16, folder.path.parent / "cache")
    copy = pickle.loads(pickle.dumps(pixels))
    assert copy.thumbnails.shape == expected.shape and len(copy.thumbnails) == 3
    for rows in (1, -1, slice(1, None), np.array([2, 0, 0]), [True, False, True]):
        np.testing.assert_array_equal(copy.thumbnails[rows], expected[rows])


def test_a_closed_file_of_pixels_cannot_be_read(folder):
    table, _ = decoded(folder.fill(1))
    _, pixels = cache.decode_table(
        table[["image", "status", "reason", "image_path", "mask_path"]], folder.path, 16, folder.path.parent / "cache"
    )
    pixels.close()
    with pytest.raises((OSError, ValueError)):
        pixels[0]
