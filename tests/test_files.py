"""What lies in a data folder: pictures of every kind, and what is passed over and counted."""

import os

import pytest
from conftest import TWO, paths_of, picture

from dataset.layout import find
from dataset.table import LABEL_ONLY, read_table


def test_superpixels_are_counted_and_are_no_masks(put):
    folder = put({"images/a.jpg": "photo", "images/a_superpixels.png": "photo", "images/b.jpg": "photo", "t.csv": TWO})
    assert "1 superpixels" in find(folder).describe() and paths_of(read_table(folder), "mask_path") == ["", ""]


@pytest.mark.parametrize("suffix", ["bmp", "tif", "tiff", "webp", "jfif", "jpe", "JPG"])
def test_pictures_of_every_format_and_at_any_depth_are_found(put, suffix):
    place = "a/deep/down/below/images"
    kind = {"tif": "TIFF", "jfif": "JPEG", "jpe": "JPEG"}.get(suffix)
    folder = put({f"{place}/b.jpg": "photo", "t.csv": TWO})
    picture().save(folder / place / f"a.{suffix}", kind)
    assert paths_of(read_table(folder)) == [f"{place}/a.{suffix}", f"{place}/b.jpg"]


def test_pictures_of_other_formats_and_those_that_no_row_names_are_counted(put):
    folder = put(
        {"images/a.jpg": "photo", "images/b.jpg": "photo", "images/c.jpg": "photo", "images/d.heic": b"x", "t.csv": TWO}
    )
    said = find(folder).describe()
    assert "1 images that no row of t.csv names are not used, in images/" in said and "1 .heic images" in said


def test_a_loop_of_links_ends_and_gives_each_picture_once(put):
    folder = put({"images/a.jpg": "photo", "images/b.jpg": "photo", "t.csv": TWO})
    (folder / "images" / "again").symlink_to(folder)
    assert len(find(folder).images) == 2 and "several files" not in find(folder).describe()


def test_a_file_whose_name_is_no_utf_8_is_passed_over_and_counted(put):
    folder = put({"images/a.jpg": "photo", "images/b.jpg": "photo", "t.csv": TWO})
    odd = os.fsencode(folder / "images") + b"/caf\xe9.jpg"
    with open(odd, "wb") as file:
        file.write((folder / "images" / "a.jpg").read_bytes())
    layout = find(folder)
    assert "1 images whose names are not UTF-8 (rename them)" in layout.describe()
    assert [file.stem for file in layout.images] == ["a", "b"]


def test_a_data_folder_whose_own_name_is_no_utf_8_is_read(put, tmp_path):
    folder = put({"images/a.jpg": "photo", "images/b.jpg": "photo", "t.csv": TWO})
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(folder, odd)
    table = read_table(odd)
    assert (table["status"] == LABEL_ONLY).all() and table["image_path"].dtype == object


def test_pictures_of_kinds_that_are_not_read_are_named_where_nothing_else_is_there(put):
    with pytest.raises(FileNotFoundError, match=r"2 \.heic images, an unsupported format"):
        read_table(put({"images/a.heic": b"x", "images/b.heic": b"x"}))


def test_thumbnails_and_overlays_beside_their_images_are_counted_and_not_used(put):
    names = ("x.jpg", "x_overlay.png", "x_thumb.jpg", "y.jpg", "z_thumb.jpg")
    layout = find(put({f"images/{name}": "photo" for name in names} | {"t.csv": ["image,label", "x,mel", "y,nv"]}))
    assert "Skipped: 2 superpixels and other files beside the images" in layout.describe()
    assert {file.stem for file in layout.contents.images} == {"x", "y", "z_thumb"}
