import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest
from conftest import decoded, picture
from PIL import Image
from processes import Forked, limited

from dataset import cache, keeper
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
    (place / "index.npz").write_text("{")
    np.testing.assert_array_equal(decoded(folder)[1], first)
    (pixels,) = place.glob("*.u8")
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
    assert calls == ({"cut": ["b", "c"], "gone": ["a", "b", "c"]}.get(damage, ["b"]))
    np.testing.assert_array_equal(np.sort(thumbnails(folder), axis=0), np.sort(small, axis=0))
    assert len(list(place.glob("pixels-*"))) == 1


def test_of_a_large_cache_a_sample_is_checked_and_all_of_it_once_it_was_touched(folder, monkeypatch):
    place, _ = three(folder)
    monkeypatch.setattr(keeper, "CHECKED_WHOLE", 0)
    monkeypatch.setattr(keeper, "N_CHECKED", 1)
    looked = []
    are_sound = keeper.are_sound
    monkeypatch.setattr(keeper, "are_sound", lambda *a: looked.append(len(a[1])) or are_sound(*a))
    decoded(folder)
    os.utime(pixel_file(place))
    decoded(folder)
    decoded(folder)
    assert looked == [1, 3, 1]


@pytest.mark.parametrize("content", ["[]", "null", "", "PK", "\xff"])
def test_an_index_of_another_kind_is_made_again(folder, content):
    place, first = three(folder)
    (place / "index.npz").write_bytes(content.encode("latin-1"))
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

    monkeypatch.setattr(keeper, "write_index", full)
    with pytest.raises(OSError, match="No space") as failed:
        decoded(folder.write())
    assert str(folder.path.parent / "cache") in failed.value.filename


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


def decoded_names(folder, monkeypatch):
    """The images that are decoded now, and the pixels of all by name."""
    calls, decode_row = [], cache.decode_row
    with monkeypatch.context() as patched:
        patched.setattr(cache, "decode_row", lambda *a: calls.append(a[0][-5]) or decode_row(*a))
        table, pixels = decoded(folder)
    return "".join(calls), dict(zip(table["image"], pixels[table["row"]]))


def decode_until(number, signum, folder):
    """Decode image by image; the process gets a signal while it decodes that one."""
    calls, decode_row = [], cache.decode_row

    def decode_or_die(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            os.kill(os.getpid(), signum)
        return decode_row(*arguments)

    cache.decode_row, cache.TASKS_AHEAD, cache.DECODED_AT_ONCE = decode_or_die, 0, 1
    decoded(folder)


def five(folder, monkeypatch):
    """Five images, whose decoding was killed at the fourth; the folder of their cache."""
    for name in "abcde":
        folder.add(name, suffix=".png")
    assert Forked(decode_until, 4, signal.SIGKILL, folder.write()).ended().returncode == -signal.SIGKILL
    (place,) = (folder.path.parent / "cache").iterdir()
    return place


def decoded_anew(folder, monkeypatch):
    """The pixels by name, of a cache that is begun elsewhere."""
    with monkeypatch.context() as patched:
        patched.setattr(cache, "CACHE_VERSION", "anew")
        return decoded_names(folder, monkeypatch)[1]


@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9", "full disk"])
def test_an_interrupted_decoding_goes_on_where_it_stopped(folder, monkeypatch, how):
    for name in "abcde":
        folder.add(name, suffix=".png")
    folder.write()
    if how == "full disk":
        ended = Forked(limited, 100_000, decoded, folder).ended()  # three records of 28,672 bytes, and half of one
        assert "OSError" in ended.stderr and ended.returncode == 1
    else:
        signum = signal.SIGINT if how == "Ctrl-C" else signal.SIGKILL
        assert Forked(decode_until, 4, signum, folder).ended().returncode in (1, -signal.SIGKILL)
    assert not list((folder.path.parent / "cache").rglob("index.npz"))
    names, pixels = decoded_names(folder, monkeypatch)
    assert names == "de"
    for name, expected in decoded_anew(folder, monkeypatch).items():
        np.testing.assert_array_equal(pixels[name], expected)
    (place,) = (folder.path.parent / "cache").glob("*v9*")
    assert sorted(path.name[:6] for path in place.iterdir() if path.name != ".lock") == ["index.", "pixels"]


NONSENSE = ["[]", "null", '{"a": 1}', "[1, 2, 3, 4, 5, 6, 7, 8, 9]", '["k", 1, -3, 1, 1, "", "", "", ""]', "\xff"]
NONSENSE += ['["k", 1, 99999999999999, 1, 1, "", "", "", ""]', '["k", "1", 0, "x", 1, "", "", "", ""]']
NONSENSE += ['["k", 1, 1, 1, 1, "", [], 1, ""]']


@pytest.mark.parametrize(
    ("left", "expected"),
    [("half a line", "cde"), ("pixels", "bde"), ("no pixels", "abcde"), ("nonsense", "de"), ("another list", "de")],
)
def test_only_what_a_journal_and_the_pixels_agree_on_is_taken_over(folder, monkeypatch, left, expected):
    place = five(folder, monkeypatch)
    (path,), (journal,) = place.glob("*.u8"), place.glob("*.journal")
    if left == "half a line":
        journal.write_bytes(journal.read_bytes()[:-9])
    elif left == "pixels":
        content = bytearray(path.read_bytes())
        content[len(content) // 3 + 9] ^= 1
        path.write_bytes(content)
    elif left == "no pixels":
        path.unlink()
    elif left == "nonsense":
        journal.with_name(f"{path.name}.0-0.journal").write_bytes("\n".join(NONSENSE).encode("latin-1") + b"\n")
    else:
        journal.with_name("pixels-1-a.u8.1-a-0.journal").write_bytes(journal.read_bytes())
    names, pixels = decoded_names(folder, monkeypatch)
    assert names == expected
    for name, correct in decoded_anew(folder, monkeypatch).items():
        np.testing.assert_array_equal(pixels[name], correct)


def test_a_finished_cache_is_used_while_images_are_added_to_it_and_after_that_was_interrupted(folder, monkeypatch):
    three(folder)
    before = decoded_names(folder, monkeypatch)[1]
    few = folder.rows[:]
    for name in "defg":
        folder.add(name, suffix=".png")
    assert Forked(decode_until, 3, signal.SIGKILL, folder.write()).ended().returncode == -signal.SIGKILL
    many, folder.rows = folder.rows, few
    names, pixels = decoded_names(folder.write(), monkeypatch)
    assert names == "" and all((pixels[name] == before[name]).all() for name in "abc")
    folder.rows = many
    assert decoded_names(folder.write(), monkeypatch)[0] == "fg"


def test_a_record_in_use_is_not_written_over_when_its_image_changes(folder, monkeypatch):
    """Another run may be training on it."""
    place, first = three(folder)
    _, in_use = cache.decode_table(read_table(folder.path), folder.path, 16, folder.path.parent / "cache")
    picture(99).save(folder.path / "images" / "b.png")
    names, pixels = decoded_names(folder, monkeypatch)
    np.testing.assert_array_equal(in_use[:], first)
    assert names == "b" and (pixels["b"] != first[1]).any()
    file = pixel_file(place)
    for name in "ac":
        picture(98).save(folder.path / "images" / f"{name}.png")
    decoded(folder)
    assert pixel_file(place) != file and decoded(folder)[1].shape[0] == 3  # most of it was old: begun anew
