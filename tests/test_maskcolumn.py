"""Masks that a table names beside the images."""

import pytest
from conftest import disc, picture

from dataset.layout import find
from dataset.table import MASK_ONLY, USED, read_table


@pytest.mark.parametrize("folder", ["masks", "drawn", "images"])
@pytest.mark.parametrize("column", ["mask", "Mask Path", "segmentation"])
@pytest.mark.parametrize("labels", [[], ["mel", "nv", "mel"]])
def test_a_column_of_masks_pairs_them_with_the_images(tmp_path, folder, column, labels):
    for k in range(3):
        for place, name, made in (("images", f"i{k}.jpg", picture(k)), (folder, f"m{2 - k}.png", disc())):
            (tmp_path / place).mkdir(exist_ok=True)
            made.save(tmp_path / place / name)
    header = f"image,{column}" + ",label" * bool(labels)
    rows = [
        f"images/i{k}.jpg,{folder}/m{2 - k}.png" + "".join(f",{word}" for word in labels[k : k + 1]) for k in range(3)
    ]
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    table = read_table(tmp_path)
    assert len(table) == 3 and (table["status"] == (USED if labels else MASK_ONLY)).all()
    for image, mask in zip(table["image_path"], table["mask_path"]):
        assert image.endswith(f"images/i{2 - int(mask[-5])}.jpg") and f"/{folder}/m" in mask


def test_masks_that_are_named_and_not_there_are_counted(tmp_path):
    picture().save(tmp_path / "a.jpg")
    (tmp_path / "t.csv").write_text("image,mask,label\na.jpg,gone.png,mel\n")
    assert "Skipped: 1 masks named in t.csv are missing." in find(tmp_path).describe()


def test_a_column_that_says_whether_there_is_a_mask_names_none(tmp_path):
    for k in range(4):
        picture(k).save(tmp_path / f"{k:03d}.jpg")
    rows = [f"{k:03d}.jpg,{k % 2},{('mel', 'nv')[k // 2]}" for k in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["image,mask,label", *rows]))
    layout = find(tmp_path)
    assert layout.masks == [None] * 4 and len(layout.contents.image_files) == 4
