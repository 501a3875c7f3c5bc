"""Which mask is of which image, and what is asked."""

import pytest
from conftest import TWO, disc, paths_of

from dataset.table import read_table


@pytest.mark.parametrize(
    "name", ["a_mask", "a_Segmentation", "a_SEG", "a_gt", "a_lesion", "a-mask", "mask_a", "a_GroundTruth"]
)
def test_a_mask_beside_its_image_is_its_mask_in_any_case(put, name):
    table = read_table(
        put({"images/a.jpg": "photo", f"images/{name}.png": "mask", "images/b.jpg": "photo", "t.csv": TWO})
    )
    assert paths_of(table, "mask_path") == [f"images/{name}.png", ""] and list(table["image"]) == ["a", "b"]


def test_masks_go_with_the_image_of_their_part_where_numbers_begin_anew(put):
    files = {f"images/{part}/0.jpg": "photo" for part in ("train", "test")}
    files |= {f"masks/{part}/0.png": "mask" for part in ("train", "test")}
    table = read_table(put(files))
    assert paths_of(table) == ["images/test/0.jpg", "images/train/0.jpg"]
    assert paths_of(table, "mask_path") == ["masks/test/0.png", "masks/train/0.png"]


def test_one_mask_for_two_images_of_a_name_is_asked_about(put):
    files = {f"images/{part}/0.jpg": "photo" for part in ("train", "test")}
    with pytest.raises(ValueError, match=r"1 mask has several different files \(0: images/train/0.jpg and images/test"):
        read_table(put(files | {"masks/0.png": "mask"}))


def test_a_mask_of_another_part_is_not_taken(put):
    files = {
        "images/train/0.jpg": "photo",
        "images/train/1.jpg": "photo",
        "masks/test/0.png": "mask",
        "masks/train/1.png": "mask",
    }
    assert paths_of(read_table(put(files)), "mask_path") == ["", "masks/train/1.png"]


def test_masks_in_two_folders_that_differ_are_asked_about(put):
    files = {
        "images/a.jpg": "photo",
        "images/b.jpg": "photo",
        "masks/a.png": "mask",
        "masks_v2/a.png": disc(inside=3),
        "t.csv": TWO,
    }
    with pytest.raises(ValueError, match=r"1 mask has several different files \(a: masks/a.png and masks_v2/a.png\)"):
        read_table(put(files))
    (put({}) / "masks_v2").rename(put({}) / ".masks_v2")
    assert paths_of(read_table(put({})), "mask_path") == ["masks/a.png", ""]


def test_a_picture_that_the_table_names_is_no_mask_of_another_one(put):
    files = {"images/empty.jpg": "photo", "images/empty_mask.jpg": "photo"}
    table = read_table(put(files | {"t.csv": ["image,label", "empty,mel", "empty_mask,nv"]}))
    assert paths_of(table) == ["images/empty.jpg", "images/empty_mask.jpg"] and paths_of(table, "mask_path") == ["", ""]
