"""What the names of folders and files say of the pictures in them."""

import pytest
from conftest import TWO, paths_of, picture

from dataset.roles import part_of, role_of
from dataset.table import read_table


def test_the_nearest_telling_folder_counts_not_one_above(put):
    photo = picture()
    folder = put(
        {
            "classification/images/a.png": photo,
            "classification/images/b.png": "photo",
            "segmentation/images/a.png": photo,
            "segmentation/masks/a_segmentation.png": "mask",
            "classification/GroundTruth.csv": TWO,
        }
    )
    table = read_table(folder)
    assert paths_of(table) == ["classification/images/a.png", "classification/images/b.png"]
    assert paths_of(table, "mask_path") == ["segmentation/masks/a_segmentation.png", ""]


@pytest.mark.parametrize(
    "place, role, part",
    [
        (("segmentation", "images"), "image", ""),
        (("images", "masks"), "mask", ""),
        (("train", "test_images"), "image", "test"),
        (("test", "train", "nevus"), "", "train"),
        (("docs", "benign"), "other", ""),
        (("segmentation_images",), "doubt", ""),
        (("binary_images",), "doubt", ""),
        (("binary_masks",), "mask", ""),
        (("train_and_test",), "", ""),
    ],
)
def test_the_nearest_telling_name_gives_role_and_part(place, role, part):
    assert (role_of(place), part_of(place)) == (role, part)
