"""Names of images, as tables and files give them: which file is meant."""

import pytest
from conftest import paths_of, picture

from dataset.table import LABEL_ONLY, read_table


def twice(put, cell="x"):
    files = {
        "train/x.jpg": picture(1),
        "test/x.jpg": picture(2),
        "train/b.jpg": "photo",
        "t.csv": ["image,label", f"{cell},mel", "b,nv"],
    }
    return put(files)


def test_a_name_in_two_places_is_asked_about_with_the_count(put):
    with pytest.raises(
        ValueError, match=r"1 name of 2 in t\.csv has several different files \(x: test/x.jpg and train/x.jpg\)"
    ):
        read_table(twice(put))


@pytest.mark.parametrize("cell", ["test/x.jpg", "./test/x", "C:\\photos\\test\\x.jpg", "TEST/x"])
def test_a_name_with_its_folder_says_which(put, cell):
    assert paths_of(read_table(twice(put, cell)))[0] == "test/x.jpg"


def test_a_name_with_its_suffix_says_which(put):
    files = {"images/x.jpg": picture(1), "images/x.png": picture(2), "images/b.jpg": "photo"}
    assert paths_of(read_table(put(files | {"t.csv": ["image,label", "x.png,mel", "b,nv"]})))[0] == "images/x.png"
    with pytest.raises(ValueError, match="several different files"):
        read_table(put({"t.csv": ["image,label", "x,mel", "b,nv"]}))


def train_of_numbers(put, *places):
    """A train.csv of 0 and 1, and pictures called so."""
    files = {f"images/{place}.jpg": picture(k) for k, place in enumerate(places)}
    return put(files | {"train.csv": ["image,label", "0.jpg,mel", "1.jpg,nv"]})


def test_numbers_that_begin_anew_in_each_part_are_asked_about_where_one_part_has_a_table(put):
    with pytest.raises(ValueError, match=r"2 names of 2 in train\.csv have several different files"):
        read_table(train_of_numbers(put, "train/0", "train/1", "test/0", "test/1"))


def test_a_picture_of_another_part_never_stands_for_one_that_is_missing(put):
    assert paths_of(read_table(train_of_numbers(put, "train/0", "test/1"))) == ["images/train/0.jpg", ""]


def test_both_files_of_a_name_may_be_named_and_are_told_apart(put):
    table = read_table(
        put({"p/x.jpg": picture(1), "q/x.jpg": picture(2), "t.csv": ["image,label", "p/x,mel", "q/x,nv"]})
    )
    assert list(table["image"]) == ["p_x", "q_x"] and list(table["label"]) == ["MEL", "NV"]


def test_copies_of_a_file_are_one(put):
    same = picture(3)
    table = read_table(
        put(
            {
                "part_1/x.png": same,
                "PART_1/x.png": same,
                "part_1/b.png": "photo",
                "t.csv": ["image,label", "x,mel", "b,nv"],
            }
        )
    )
    assert len(table) == 2 and (table["image_path"] != "").all()


@pytest.mark.parametrize(
    "cell", ["images/a1.jpg", "./a1.jpg", "D:\\x\\a1.JPG", "A1", "a01", "a1.png", "../input/images/a1.jpg"]
)
def test_a_name_is_found_with_folders_in_another_case_and_with_or_without_zeros(put, cell):
    folder = put({"images/a1.jpg": "photo", "images/b.jpg": "photo", "t.csv": ["image,label", f"{cell},mel", "b,nv"]})
    assert paths_of(read_table(folder))[0] == "images/a1.jpg"


def test_a_loose_name_counts_only_where_it_is_unique(put):
    folder = put(
        {
            "images/a1.jpg": "photo",
            "images/A1.jpg": picture(5),
            "images/b.jpg": "photo",
            "t.csv": ["image,label", "a01,mel", "b,nv"],
        }
    )
    assert paths_of(read_table(folder))[0] == ""
    folder = put({"images/7.jpg": "photo", "t.csv": ["image,label", "07,mel", "007,nv", "b,nv"]})
    assert paths_of(read_table(folder))[:2] == ["", ""]


def test_a_picture_of_another_part_or_diagnosis_is_not_the_one_that_a_table_names(put):
    """Though no other is called so."""
    folder = put({"test/a.jpg": "photo", "test/b.jpg": "photo", "t.csv": ["image,label", "train/a.jpg,mel", "b,nv"]})
    assert list(read_table(folder)["status"]) == ["left out", LABEL_ONLY]


def test_a_picture_in_the_folder_of_another_diagnosis_is_not_the_one_that_a_table_names(put):
    folder = put(
        {"nevus/c.jpg": "photo", "nevus/d.jpg": "photo", "t.csv": ["image,label", "melanoma/c,mel", "nevus/d,nv"]}
    )
    assert list(read_table(folder)["status"]) == ["left out", LABEL_ONLY]


def test_the_column_whose_cells_are_the_names_counts_and_not_numbers_that_resemble_them(put):
    rows = [f"{k + 1},{k:06d}.jpg,{'mel' if k % 2 else 'nv'}" for k in range(4)]
    folder = put({f"images/{k:06d}.jpg": "photo" for k in range(5)} | {"t.csv": ["image_id,file_name,label", *rows]})
    assert paths_of(read_table(folder)) == [f"images/{k:06d}.jpg" for k in range(4)]
