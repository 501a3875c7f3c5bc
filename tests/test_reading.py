"""Whose role a folder or a file plays: by the nearest telling name, then by content; and what is asked or named."""

import os

import pytest
from conftest import disc, paths_of, picture

from dataset.classes import classes_of
from dataset.layout import find
from dataset.prepare import Reading, decode, decode_other
from dataset.roles import part_of, role_of
from dataset.table import LABEL_ONLY, MASK_ONLY, USED, read_table

TWO = ["image,label", "a,mel", "b,nv"]


# Images and masks


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
    "name", ["a_mask", "a_Segmentation", "a_SEG", "a_gt", "a_lesion", "a-mask", "mask_a", "a_GroundTruth"]
)
def test_a_mask_beside_its_image_is_its_mask_in_any_case(put, name):
    table = read_table(
        put({"images/a.jpg": "photo", f"images/{name}.png": "mask", "images/b.jpg": "photo", "t.csv": TWO})
    )
    assert paths_of(table, "mask_path") == [f"images/{name}.png", ""] and list(table["image"]) == ["a", "b"]


@pytest.mark.parametrize("name", ["a_superpixels.png", "a_mask.png"])
def test_what_is_called_as_no_photograph_is_none_where_folders_name_the_classes(put, name):
    files = {f"{code}/{letter}.jpg": "photo" for code, letter in (("nevus", "a"), ("melanoma", "b"))}
    assert sorted(read_table(put(files | {f"nevus/{name}": "mask"}))["image"]) == ["a", "b"]


def test_superpixels_are_counted_and_are_no_masks(put):
    folder = put({"images/a.jpg": "photo", "images/a_superpixels.png": "photo", "images/b.jpg": "photo", "t.csv": TWO})
    assert "1 superpixels" in find(folder).describe() and paths_of(read_table(folder), "mask_path") == ["", ""]


def test_a_photograph_whose_own_name_ends_like_a_masks_is_one_if_the_table_names_it(put):
    folder = put(
        {"images/no_mask.jpg": "photo", "images/b.jpg": "photo", "t.csv": ["image,label", "no_mask,mel", "b,nv"]}
    )
    assert paths_of(read_table(folder)) == ["images/no_mask.jpg", "images/b.jpg"]


def test_a_photograph_called_lesion_is_one_where_no_image_has_the_rest_of_its_name(put):
    files = {"nevus/left_lesion.jpg": "photo", "melanoma/right_lesion.jpg": "photo"}
    assert sorted(read_table(put(files))["image"]) == ["left_lesion", "right_lesion"]


@pytest.mark.parametrize("mask", ["a.png", "a.bmp"])
def test_of_two_files_of_one_name_in_a_folder_the_drawn_one_is_the_mask(put, mask):
    other = mask.replace("a.", "b.")
    folder = put(
        {
            "images/a.jpg": "photo",
            f"images/{mask}": "mask",
            "images/b.jpg": "photo",
            f"images/{other}": "mask",
            "t.csv": TWO,
        }
    )
    table = read_table(folder)
    assert paths_of(table) == ["images/a.jpg", "images/b.jpg"] and paths_of(table, "mask_path") == [
        f"images/{mask}",
        f"images/{other}",
    ]


def test_in_folders_that_only_hold_the_same_names_the_content_tells_the_masks(put):
    files = {f"one/i{k}.png": "mask" for k in range(4)} | {f"two/i{k}.png": picture(k) for k in range(4)}
    table = read_table(put(files))
    assert paths_of(table) == [f"two/i{k}.png" for k in range(4)] and (table["status"] == MASK_ONLY).all()
    assert paths_of(table, "mask_path") == [f"one/i{k}.png" for k in range(4)]


def test_a_folder_called_segmentation_may_hold_images_with_their_masks(put):
    files = {f"segmentation/i{k}.jpg": picture(k) for k in range(3)} | {
        f"segmentation/i{k}_mask.png": "mask" for k in range(3)
    }
    table = read_table(put(files))
    assert (table["status"] == MASK_ONLY).all() and paths_of(table) == [f"segmentation/i{k}.jpg" for k in range(3)]


def test_a_mask_that_is_its_image_or_another_photograph_is_refused(put, tmp_path):
    same = picture(9)
    files = {
        "images/a.png": same,
        "masks/a.png": same,
        "images/b.png": "photo",
        "masks/b.png": picture(7),
        "t.csv": TWO,
    }
    table = decode(put(files), Reading(), image_size=32, cache_dir=tmp_path / "cache", say=str).table
    assert list(table["reason"]) == ["mask: mask is the image itself", "mask: mask is a photograph"]
    assert (table["status"] == LABEL_ONLY).all()


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


# Folders that are no classes


@pytest.mark.parametrize(
    "names",
    [
        "train val test",
        "part_1 part_2",
        "batch0 batch1",
        "2017 2018",
        "patient_01 patient_02",
        "P001 P002",
        "0 1",
        "fold1 fold2",
    ],
)
def test_parts_numbers_and_patients_are_no_classes_and_it_is_said_what_to_name(put, names):
    folder = put({f"{name}/{name}{k}.jpg": "photo" for name in names.split() for k in range(3)})
    with pytest.raises((ValueError, FileNotFoundError), match=r"no diagnoses|not treated as classes"):
        read_table(folder)


def test_numbered_folders_are_classes_where_they_are_named(put):
    folder = put({f"{name}/{name}{k}.jpg": "photo" for name in ("batch0", "batch1") for k in range(3)})
    with pytest.raises(ValueError, match="--classes batch0 batch1"):
        read_table(folder)
    assert classes_of(read_table(folder, ("batch0", "batch1"))) == ("batch0", "batch1")


def test_folders_called_class_0_and_class_1_are_classes(put):
    assert classes_of(read_table(put({f"class_{k}/{k}.jpg": "photo" for k in range(2)}))) == ("class_0", "class_1")


def test_folders_of_unknown_words_that_hold_the_same_names_are_asked_about(put):
    folder = put({f"{name}/{k}.jpg": "photo" for name in ("acne", "eczema") for k in range(3)})
    with pytest.raises(
        ValueError, match=r"hold the same file names, like images and their masks.*--classes acne eczema"
    ):
        read_table(folder)
    assert len(read_table(folder, ("acne", "eczema"))) == 6


@pytest.mark.parametrize("stray", ["docs/a.png", "figures/a.png", "elsewhere/photos of us/a.jpg", "scan_7/a.jpg"])
def test_a_stray_folder_beside_classes_is_no_class_and_is_named(put, stray):
    files = {f"data/{code}/{code}{k}.jpg": "photo" for code in ("benign", "malignant") for k in range(3)}
    layout = find(put(files | {stray: "photo"}))
    assert layout.labels.classes == ("benign", "malignant") and len(layout.rows) == 6
    assert stray.split("/")[0] in "\n".join(layout.remarks)


def test_unknown_words_beside_known_ones_are_classes_and_it_is_said_that_they_are_unknown(put):
    folder = put({f"{name}/{name}.jpg": "photo" for name in ("melanoma", "rosy rash")})
    assert classes_of(read_table(folder)) == ("MEL", "rosy rash")


@pytest.mark.parametrize("place", ["images/{}", "{}/images", "data/photos/{}/2019", "{}/patient_1"])
def test_classes_are_the_nearest_folders_that_can_be_diagnoses(put, place):
    folder = put({f"{place.format(code)}/{code}.jpg": "photo" for code in ("benign", "malignant")})
    table = read_table(folder)
    assert dict(zip(table["image"], table["label"])) == {"benign": "benign", "malignant": "malignant"}


def test_folders_of_one_class_under_two_spellings_are_one(put):
    folder = put({"Melanoma/a.jpg": "photo", "mel/b.jpg": "photo", "nevus/c.jpg": "photo"})
    assert dict(zip(*read_table(folder)[["image", "label"]].T.values)) == {"a": "MEL", "b": "MEL", "c": "NV"}
    assert "Melanoma and mel are MEL" in find(folder).describe()


def test_a_folder_of_unknown_diagnosis_is_no_class(put):
    table = read_table(put({f"{name}/{name}.jpg": "photo" for name in ("benign", "malignant", "unknown")}))
    assert classes_of(table) == ("benign", "malignant") and "not a diagnosis" in table["reason"].iloc[-1]


# One name in two places


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


# Dataverse


def test_dataverse_as_unpacked_is_read_from_the_metadata_without_suffix(put):
    head, photos = "lesion_id,image_id,dx,dx_type,age,sex,localization", {}
    for k in range(6):
        photos[f"HAM10000_images_part_{1 + k % 2}/h{k}.jpg"] = "photo"
    photos |= {f"ISIC2018_Task3_Test_Images/t{k}.jpg": "photo" for k in range(3)}
    photos |= {f"HAM10000_segmentations_lesion_tschandl/h{k}_segmentation.png": "mask" for k in range(6)}
    photos["HAM10000_metadata"] = [
        head,
        *(f"L{k // 2},h{k},{'mel' if k < 2 else 'nv'},histo,50,male,back" for k in range(6)),
    ]
    photos["ISIC2018_Task3_Test_GroundTruth.csv"] = [
        head + ",dataset",
        *(f"T{k},t{k},bkl,histo,50,male,back,x" for k in range(3)),
    ]
    layout = find(put(photos))
    assert layout.csv.name == "HAM10000_metadata" and len(layout.rows) == 6
    assert "ISIC2018_Task3_Test_GroundTruth.csv is not used: it names 3 images here that" in layout.describe()
    assert "3 images that no row of HAM10000_metadata names are not used" in layout.describe()
    table = read_table(layout)
    assert (table["status"] == USED).all() and list(table["lesion_id"]) == ["L0", "L0", "L1", "L1", "L2", "L2"]


# Names


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


def test_a_third_of_the_rows_out_for_one_reason_is_a_caution(put, tmp_path):
    rows = ["image,label", *(f"i{k},{'mel' if k % 2 else 'nv'}" for k in range(12))]
    folder = put({f"images/i{k}.jpg": "photo" for k in range(8)} | {"t.csv": rows})
    remarks = decode(folder, Reading(), image_size=32, cache_dir=tmp_path / "cache", say=str).remarks
    assert remarks == ["4 of 12 rows are not used, or only in part: image is missing."]
    (folder / "images" / "i8.jpg").write_bytes((folder / "images" / "i6.jpg").read_bytes())
    assert decode(folder, Reading(), image_size=32, cache_dir=tmp_path / "cache", say=str).remarks == []


# What once crashed


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


@pytest.mark.parametrize("what", ["none is there", "no class of the model", "all are damaged"])
def test_another_data_set_without_an_image_that_can_be_used_is_one_message(put, tmp_path, what):
    label = "wart" if what == "no class of the model" else "mel"
    folder = put(
        {"images/a.jpg": "photo" if label == "wart" else b"no picture", "t.csv": ["image,label", f"a,{label}"]}
    )
    if what == "none is there":
        (folder / "images" / "a.jpg").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=r"no image to evaluate|None of the images"):
        decode_other(folder, Reading(), ("MEL", "NV"), image_size=32, cache_dir=tmp_path / "cache", say=str)


def test_nothing_is_written_into_the_data_folder(put, tmp_path):
    folder = put({"images/a.jpg": "photo", "images/b.jpg": "photo", "t.csv": TWO})
    before = sorted((path, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")])
    decode(folder, Reading(), image_size=32, cache_dir=tmp_path / "cache", say=str)
    assert sorted((path, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")]) == before


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


def test_a_picture_that_the_table_names_is_no_mask_of_another_one(put):
    files = {"images/empty.jpg": "photo", "images/empty_mask.jpg": "photo"}
    table = read_table(put(files | {"t.csv": ["image,label", "empty,mel", "empty_mask,nv"]}))
    assert paths_of(table) == ["images/empty.jpg", "images/empty_mask.jpg"] and paths_of(table, "mask_path") == ["", ""]


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


def test_a_table_of_something_else_beside_folders_of_diagnoses_is_asked_about(put):
    files = {f"{name}/{name}{k}.jpg": "photo" for name in ("melanoma", "nevus") for k in range(3)}
    rows = [f"{name}{k},{k % 2}" for name in ("melanoma", "nevus") for k in range(3)]
    folder = put(files | {"quality.csv": ["image,has_hair", *rows]})
    with pytest.raises(
        ValueError,
        match=r"(?s)quality.csv and the folders both name classes: .*MEL, NV.*--classes 'not has_hair' has_hair",
    ):
        read_table(folder)
    assert classes_of(read_table(folder, ["has_hair", "not has_hair"])) == ("has_hair", "not has_hair")


@pytest.mark.parametrize("flag", ["is_train", "validated", "duplicate"])
def test_a_flag_beside_a_diagnosis_is_no_class(put, flag):
    rows = [f"i{k},{int(k < 2)},{int(k % 2)}" for k in range(6)]
    folder = put({f"images/i{k}.jpg": "photo" for k in range(6)} | {"t.csv": [f"image,cancer,{flag}", *rows]})
    assert classes_of(read_table(folder)) == ("not cancer", "cancer")


def test_pictures_of_kinds_that_are_not_read_are_named_where_nothing_else_is_there(put):
    with pytest.raises(FileNotFoundError, match=r"2 \.heic images, an unsupported format"):
        read_table(put({"images/a.heic": b"x", "images/b.heic": b"x"}))


@pytest.mark.parametrize("name", ["x_m", "xmask", "x (mask)", "x_binary_mask", "x_msk", "X_Segmentation_Mask"])
def test_a_mask_beside_its_image_is_no_photograph_however_it_is_called(put, name):
    files = {f"{c}/{c}{k}.jpg": "photo" for c in ("melanoma", "nevus") for k in range(2)}
    masks = {
        f"{c}/{name.replace('x', f'{c}{k}').replace('X', f'{c}{k}')}.png": "mask"
        for c in ("melanoma", "nevus")
        for k in range(2)
    }
    table = read_table(put(files | masks))
    assert len(table) == 4 and list(table["status"]) == [USED] * 4


def test_thumbnails_and_overlays_beside_their_images_are_counted_and_not_used(put):
    names = ("x.jpg", "x_overlay.png", "x_thumb.jpg", "y.jpg", "z_thumb.jpg")
    layout = find(put({f"images/{name}": "photo" for name in names} | {"t.csv": ["image,label", "x,mel", "y,nv"]}))
    assert "Skipped: 2 superpixels and other files beside the images" in layout.describe()
    assert {file.stem for file in layout.contents.images} == {"x", "y", "z_thumb"}
