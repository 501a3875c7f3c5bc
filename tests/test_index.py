"""The index of a cache: found again as it was written, or not at all."""

import os

import numpy as np
import pandas as pd
import pytest

from dataset.index import ENTRY, CacheIndex, keys_of, read_index, read_journals, write_index


def index_of(*rows, texts=("",), file="p.u8"):
    """An index with an entry per (key, row, position of its note)."""
    entries = np.zeros(len(rows), ENTRY)
    for entry, (key, row, note) in zip(entries, rows):
        entry["key"], entry["row"], entry["note"], entry["crc"] = key, row, note, 2**32 - 1
    return CacheIndex(file, 5, entries, texts)


def notes_of(index, *keys):
    return index.verdicts(index.positions(np.array(keys, "S32")))["note"].tolist()


def test_an_index_is_read_as_it_was_written(tmp_path):
    (tmp_path / "p.u8").touch()
    written = index_of((b"a", 0, 0), (b"b", 1, 1), texts=("", "mask é\udcff"))
    write_index(tmp_path, written)
    read = read_index(tmp_path)
    assert read[:2] == ("p.u8", 5) and read.texts == written.texts
    np.testing.assert_array_equal(read.entries, written.entries)
    verdicts = read.verdicts(read.positions(np.array([b"b", b"a"])))
    assert verdicts.to_dict("list") == {
        "row": [1, 0],
        "crc": [2**32 - 1] * 2,
        "digest": ["", ""],
        "image_error": ["", ""],
        "mask_error": ["", ""],
        "note": ["mask é\udcff", ""],
    }


@pytest.mark.parametrize("damage", ["one bit", "cut", "no pixels", "text of no position"])
def test_a_damaged_index_is_none(tmp_path, damage):
    (tmp_path / "p.u8").touch()
    write_index(tmp_path, index_of((b"a" * 32, 0, int(damage == "text of no position"))))
    content = bytearray((tmp_path / "index.npz").read_bytes())
    if damage == "no pixels":
        (tmp_path / "p.u8").unlink()
    elif damage == "one bit":
        content[content.index(b"a" * 32) + 5] ^= 1
    elif damage == "cut":
        content = content[:-30]
    (tmp_path / "index.npz").write_bytes(content)
    assert read_index(tmp_path).file == ""


def test_joined_indices_keep_their_texts_and_the_newer_entry_of_a_record():
    old = index_of((b"a", 0, 1), (b"b", 1, 0), texts=("", "old"))
    new = index_of((b"c", 1, 2), (b"d", 2, 1), texts=("", "new", "old"))
    joined = old.joined(new)
    assert notes_of(joined, b"a", b"c", b"d") == ["old", "old", "new"]
    assert joined.positions(np.array([b"b"])).tolist() == [-1] and len(joined.entries) == 3


def test_a_key_changes_with_the_file_and_with_how_its_mask_is_read_and_the_image_stays_the_same(tmp_path):
    for name in ("a", "b", "m"):
        (tmp_path / name).write_bytes(name.encode())
    pairs = [("a", ""), ("b", ""), ("a", "m"), ("a", "gone"), ("a", "")]
    used = pd.DataFrame([[str(tmp_path / i), m and str(tmp_path / m)] for i, m in pairs])
    used.columns = ["image_path", "mask_path"]
    keys, images = keys_of(used, "")
    assert len(set(keys)) == 4 and keys[0] == keys[4] and len(set(images)) == 2
    inverted, _ = keys_of(used, "inverted")
    assert not set(inverted) & set(keys)
    os.utime(tmp_path / "a", ns=(1, 1))
    changed, same = keys_of(used, "")
    assert (changed != keys).tolist() == [True, False, True, True, True]
    np.testing.assert_array_equal(same, images)


def test_a_link_to_the_folder_gives_the_same_keys(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    keys = [
        keys_of(pd.DataFrame({"image_path": [str(tmp_path / name / "a")], "mask_path": [""]}), "")[0][0]
        for name in ("images", "link")
    ]
    assert keys[0] == keys[1]


def test_no_journal_is_no_entry():
    assert len(read_journals("p.u8", []).entries) == 0


def test_no_damaged_bit_of_an_index_ends_in_an_error(tmp_path):
    (tmp_path / "p.u8").touch()
    write_index(tmp_path, index_of((b"a", 0, 0)))
    whole = (tmp_path / "index.npz").read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "index.npz").write_bytes(damaged)
        assert read_index(tmp_path).file in ("p.u8", "")
