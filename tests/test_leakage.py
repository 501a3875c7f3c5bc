import itertools
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import Folder, quick
from PIL import Image, ImageEnhance

from dataset import cache, fingerprints, leakage
from dataset.cache import decode_table
from dataset.images import THUMBNAIL
from dataset.table import read_table


@pytest.fixture(scope="module")
def scene(tmp_path_factory, demo_folder):
    """Sixteen different lesions, and altered copies of some under other names and lesion ids."""
    place = tmp_path_factory.mktemp("scene")
    folder = Folder(place / "data")
    sources = sorted((demo_folder / "images").iterdir())[::3][:16]
    pictures = [Image.open(path).convert("RGB") for path in sources]
    for i, picture in enumerate(pictures):
        folder.add(f"original_{i}", image=picture, mask=None, suffix=".png")
    width, height = pictures[0].size
    shifted = pictures[1].crop((4, 3, width, height))
    folder.add("copied", image=pictures[0], mask=None, suffix=".png")
    folder.add("shifted", image=shifted.resize((width - 4, height - 3)), mask=None, suffix=".png")
    folder.add("recompressed", image=pictures[2], mask=None, quality=40)
    folder.add("recoloured", image=ImageEnhance.Color(pictures[3]).enhance(1.15), mask=None, suffix=".png")
    table, pixels = cache.decode_table(read_table(folder.write().path), folder.path, 112, place / "cache")
    return table, pixels.thumbnails


def test_altered_copies_are_found_and_different_lesions_are_not(scene):
    table, thumbnails = scene
    pairs = leakage.find_pairs(table, thumbnails)
    found = {frozenset(pair): kind for *pair, kind in pairs[["image_a", "image_b", "kind"]].values}
    assert found == {
        frozenset({"original_0", "copied"}): "same file",
        frozenset({"original_1", "shifted"}): "same picture",
        frozenset({"original_2", "recompressed"}): "same picture",
        frozenset({"original_3", "recoloured"}): "same picture",
    }
    assert (pairs["similarity"] >= fingerprints.NEAR).all()


def small_table():
    return pd.DataFrame(
        {"image": list("abcdef"), "lesion_id": ["L1", "L1", "L2", "L3", "L4", "L4"], "digest": list("uvwxyz")}
    )


def test_images_of_one_lesion_are_pairs(scene):
    _, thumbnails = scene
    pairs = leakage.find_pairs(small_table().assign(row=range(6)), thumbnails)
    assert pairs[["image_a", "image_b", "kind"]].values.tolist() == [
        ["a", "b", "same lesion"],
        ["e", "f", "same lesion"],
    ]


def pairs_of(*pairs):
    return pd.DataFrame(pairs, columns=["image_a", "image_b", "kind"])


def test_pairs_across_the_split_are_marked():
    split = pd.Series({"a": "train", "b": "test", "c": "train"})
    found = leakage.crossing(pairs_of(("a", "b", "same file"), ("a", "c", "same lesion")), split)
    assert found["crosses"].tolist() == [True, False]
    assert found["split_b"].tolist() == ["test", "train"]


def test_merged_lesions_join_what_is_the_same_picture_and_nothing_else():
    table = small_table()
    pairs = pairs_of(("b", "c", "same picture"), ("c", "d", "same file"), ("e", "f", "same lesion"))
    merged = leakage.merge_lesions(table, pairs)
    assert merged.tolist() == ["L1", "L1", "L1", "L1", "L4", "L4"]
    assert leakage.merge_lesions(table, pairs_of()).tolist() == table["lesion_id"].tolist()


def test_the_description_counts_each_kind():
    pairs = pairs_of(("a", "b", "same file"), ("a", "c", "same lesion"), ("b", "c", "same lesion"))
    text = leakage.describe_pairs(pairs.assign(crosses=[True, False, False], crosses_by_image=[False, True, True]))
    assert "1 pairs of the same file: 1 cross the split; 0 would cross a split by image" in text
    assert "2 pairs of the same lesion: 0 cross the split; 2 would cross a split by image" in text


def test_a_pair_of_several_kinds_is_of_the_closest_and_keeps_its_similarity(monkeypatch):
    near = np.array([[0, 1], [1, 2]]), np.array([0.5, 0.75])
    monkeypatch.setattr(leakage, "near_duplicates", lambda *_: near)
    table = small_table().assign(row=range(6), digest=list("uuwxyz"), patient_id=["P"] * 3 + [None] * 3)
    pairs = leakage.find_pairs(table, None).fillna(0)
    assert pairs.values.tolist() == [
        ["a", "b", "same file", 0.5, "L1", "L1"],
        ["a", "c", "same patient", 0, "L1", "L2"],
        ["b", "c", "same picture", 0.75, "L1", "L2"],
        ["e", "f", "same lesion", 0, "L4", "L4"],
    ]


def test_a_single_image_has_no_pairs(scene):
    table, thumbnails = scene
    assert leakage.find_pairs(table.iloc[:1], thumbnails).empty


def altered(folder, place, change, **options):
    """A copy of a data folder's pictures under other names, each changed."""
    other = Folder(place / "other")
    for path in sorted((folder / "images").iterdir())[:12]:
        with Image.open(path) as picture:
            other.add(f"copy_of_{path.stem}", image=change(picture.convert("RGB")), mask=None, **options)
    return other.write().path


def overlap_of(folder, other, place):
    known, known_pixels = decode_table(read_table(folder), folder, 112, place / "cache")
    table, pixels = decode_table(read_table(other), other, 112, place / "cache")
    return leakage.overlap(table, pixels.thumbnails, known, known_pixels.thumbnails)


def test_a_copy_of_the_training_images_is_found_by_file_and_by_picture(demo_folder, tmp_path):
    assert set(overlap_of(demo_folder, demo_folder, tmp_path)) == {"same lesion"}
    other = altered(demo_folder, tmp_path, lambda picture: ImageEnhance.Color(picture).enhance(1.15), suffix=".png")
    reason = overlap_of(demo_folder, other, tmp_path)
    assert set(reason) == {"same picture"}
    assert "12 of 12 images of X overlap" in leakage.describe_overlap(reason, "X")
    for path, source in zip(sorted((other / "images").iterdir()), sorted((demo_folder / "images").iterdir())):
        path.unlink()
        path.with_suffix(".jpg").write_bytes(source.read_bytes())
    assert set(overlap_of(demo_folder, other, tmp_path)) == {"same file"}


def test_another_photograph_of_a_known_lesion_is_found_and_an_unknown_one_is_not(demo_folder, folder, tmp_path):
    for i in range(3):
        folder.add(f"elsewhere_{i}", image=Image.effect_noise((160, 120), 90).convert("RGB"), mask=None, suffix=".png")
    lesion = read_table(demo_folder)["lesion_id"][0]
    (folder.write().path / "metadata.csv").write_text(f"image,lesion_id\nelsewhere_0,{lesion}\nelsewhere_1,other\n")
    assert list(overlap_of(demo_folder, folder.path, tmp_path)) == ["same lesion", "", ""]


def test_a_large_group_is_listed_by_its_first_member(monkeypatch):
    monkeypatch.setattr(leakage, "MAX_GROUP", 3)
    found = leakage._pairs_within(pd.Series(["a", "b", None, "a", "b", "c", "a", "b", "a", None]))
    assert sorted(found.tolist()) == [[0, 3], [0, 6], [0, 8], [1, 4], [1, 7], [4, 7]]


def test_the_pairs_of_small_groups_are_those_of_itertools():
    groups = pd.Series(np.random.default_rng(0).integers(0, 12, 60))
    expected = {pair for pair in itertools.combinations(range(60), 2) if groups[pair[0]] == groups[pair[1]]}
    found = leakage._pairs_within(groups)
    assert set(map(tuple, found.tolist())) == expected and len(found) == len(expected)


def test_a_name_alone_says_nothing_of_what_is_known(demo_folder, folder, tmp_path):
    for path in sorted((demo_folder / "images").iterdir())[:5]:
        folder.add(path.stem, image=Image.effect_noise((160, 120), 90).convert("RGB"), mask=None, suffix=".png")
    assert list(overlap_of(demo_folder, folder.write().path, tmp_path)) == [""] * 5


@pytest.mark.parametrize("lesion, expected", [("1765", ""), ("17-65", ""), ("L1765", "same lesion")])
def test_a_mere_number_of_a_lesion_tells_nothing_across_data_sets(lesion, expected, tmp_path):
    folders = []
    for name in ("known", "other"):
        folders.append(Folder(tmp_path / name / "data"))
        noise = Image.effect_noise((160, 120), 90).convert("RGB")
        folders[-1].add(f"{name}_1", image=noise, mask=None, suffix=".png")
        (folders[-1].write().path / "m.csv").write_text(f"image,lesion_id\n{name}_1,{lesion}\n")
    assert list(overlap_of(folders[0].path, folders[1].path, tmp_path)) == [expected]


def test_rows_that_the_audit_does_not_compare_do_not_shift_the_parts_of_the_others(monkeypatch):
    """`by_image` knows every row of the table, and what is audited are the usable ones, the second to fourth."""
    monkeypatch.setattr(leakage, "near_duplicates", lambda *_: (np.empty((0, 2), int), np.empty(0)))
    rows = {"image": list("bcd"), "lesion_id": list("xxy"), "digest": list("123"), "row": range(3), "split": "train"}
    table = pd.DataFrame(rows, index=[1, 2, 3])
    by_image = pd.Series(["test", "train", "val", "val"], index=range(4))
    found = leakage.audit(table, None, by_image)
    assert found["crosses_by_image"].tolist() == [True] and found["crosses"].tolist() == [False]


@pytest.mark.parametrize("unknown", ["here", "there"])
def test_the_name_of_an_image_of_no_known_lesion_is_no_lesion(unknown):
    """Such an image's lesion_id is its name, which may be the id of a lesion of the other set."""
    thumbnails = np.random.default_rng(0).integers(0, 256, (2, THUMBNAIL, THUMBNAIL, 3), np.uint8)
    rows = []
    for place, row in (("there", 0), ("here", 1)):
        image = "L" if unknown == place else place
        row = {"image": image, "lesion_id": "L", "lesion_known": unknown != place, "digest": place, "row": row}
        rows.append(pd.DataFrame([row]))
    assert leakage.overlap(rows[0], thumbnails, rows[1], thumbnails).tolist() == [""]


def test_grouped_duplicates_stay_in_one_part(demo_folder, tmp_path):
    """Every image twice, under two lesion ids."""
    twice = tmp_path / "twice"
    shutil.copytree(demo_folder, twice)
    lines = (twice / "GroundTruth.csv").read_text().splitlines()
    (twice / "HAM10000_metadata.csv").unlink()
    for line in lines[1:]:
        name, rest = line.split(",", 1)
        shutil.copy(twice / "images" / f"{name}.jpg", twice / "images" / f"{name}_again.jpg")
        lines = [*lines, f"{name}_again,{rest}"]
    (twice / "GroundTruth.csv").write_text("\n".join(lines))
    crossing = []
    for flag in ("--no-group-duplicates", "--group-duplicates"):
        assert quick(twice, tmp_path, flag, "--image-size", "64") == 0
        pairs = pd.read_csv(tmp_path / "outputs" / "leakage.csv")
        crossing.append(pairs.loc[pairs["kind"] == "same file", "crosses"].sum())
    assert crossing[0] > 0 == crossing[1]
