"""Trees of folders: which of their names are classes, which pictures are masks, and what is asked or named."""

import os
import re
import shlex

import pytest
from conftest import disc, paths_of, picture
from PIL import Image

from dataset.classes import classes_of
from dataset.layout import find
from dataset.prepare import Reading, decode, split
from dataset.table import LEFT_OUT, USED, read_table


def some(place, content="photo", n=3):
    """Files called as the place with 0, 1, 2 for its {}."""
    return {place.format(k): content for k in range(n)}


def prepared(folder, tmp_path, **reading):
    reading = Reading(**reading)
    return split(decode(folder, reading, image_size=32, cache_dir=tmp_path / "cache", say=str), reading, say=str)


def flag_in(message):
    """The words of --classes that a message advises."""
    return shlex.split(re.search(r"--classes ([^\n;]*?)(?:$|[.;,] )", message)[1])


# Words beside a diagnosis


@pytest.mark.parametrize(
    "name",
    ["{}_images", "images_{}", "{} photos", "train_{}", "{}-Dermoscopic-Images", "test/{}_jpg", "{}_images_part_1"],
)
def test_words_for_pictures_and_parts_are_no_part_of_a_diagnosis(put, name):
    table = read_table(put(some(name.format("melanoma") + "/m{}.jpg") | some(name.format("nevus") + "/n{}.jpg")))
    assert list(table["label"]) == ["MEL"] * 3 + ["NV"] * 3


def test_images_and_masks_of_a_class_lie_in_folders_called_as_it_and_their_role(put):
    files = {f"{code}_images/{k}.jpg": "photo" for code in ("benign", "malignant") for k in range(3)}
    files |= {f"{code}_masks/{k}.png": "mask" for code in ("benign", "malignant") for k in range(3)}
    table = read_table(put(files))
    assert (table["status"] == USED).all() and len(set(table["mask_path"])) == 6
    assert all(
        image.split("_")[0] == mask.split("_")[0] for image, mask in zip(paths_of(table), paths_of(table, "mask_path"))
    )


def test_of_unknown_words_beside_words_for_pictures_it_is_said_what_to_name(put):
    folder = put(some("acne_images/a{}.jpg") | some("rosy rash photos/r{}.jpg"))
    with pytest.raises(FileNotFoundError, match=r"is a diagnosis.*are classes, pass ") as refused:
        read_table(folder)
    assert sorted(set(read_table(folder, flag_in(str(refused.value)))["label"])) == ["acne_images", "rosy rash photos"]


def test_a_part_and_a_role_in_one_word_are_told_apart(put):
    parts = {f"{part}/a{k}.png": "photo" for k, part in enumerate(("train", "val", "test"))}
    masks = {f"{part}annot/a{k}.png": "mask" for k, part in enumerate(("train", "val", "test"))}
    table = read_table(put(parts | masks))
    assert sorted(paths_of(table)) == sorted(parts) and sorted(paths_of(table, "mask_path")) == sorted(masks)


def test_folders_called_x_and_y_are_images_and_masks_and_no_classes(put):
    """PH2 on Kaggle: where the names do not pair, the run says so."""
    files = {f"trainx/X_img_{k}.png": "photo" for k in range(4)} | {f"trainy/Y_img_{k}.png": "mask" for k in range(4)}
    with pytest.raises((ValueError, FileNotFoundError), match="Y_img_0") as refused:
        read_table(put(files))
    assert "X_img_" in str(refused.value)


# One file with two diagnoses


@pytest.mark.parametrize("table", [None, ["image,label", "b0,mel", "b1,mel", "b2,nv", "m0,mel", "m1,nv", "m2,mel"]])
def test_the_same_file_with_two_diagnoses_is_counted(put, tmp_path, table):
    """Under whatever name: in two folders, or in two rows of a table."""
    same = picture(99)
    files = some("benign/b{}.png") | some("malignant/m{}.png") | {"benign/b2.png": same, "malignant/m0.png": same}
    folder = put(files | ({"GroundTruth.csv": table} if table else {}))
    found = decode(folder, Reading(), image_size=32, cache_dir=tmp_path / "cache", say=str)
    assert not (found.table["status"] == LEFT_OUT).any()
    (said,) = [remark for remark in found.remarks if "identical" in remark]
    assert said.startswith("2 images are identical") and "(e.g. b2, m0)" in said


# Names of masks


def test_photographs_whose_own_names_end_in_lesion_are_none_of_another_ones_masks(put):
    names = [f"{name}{end}" for name in "xy" for end in ("", "_lesion", "_lesion_1", "_lesion_2")]
    table = read_table(put({f"nevus/{name}.jpg": "photo" for name in names} | some("melanoma/b{}.jpg")))
    assert sorted(table["image"]) == ["b0", "b1", "b2", *names] and set(table["mask_path"]) == {""}


def test_photographs_with_something_drawn_on_them_are_counted_and_are_neither(put):
    layout = find(put(some("nevus/x{}.jpg") | some("nevus/x{}_contour.jpg") | some("melanoma/b{}.jpg")))
    assert len(layout.rows) == 6 and "Skipped: 3 superpixels and other files" in layout.describe()


@pytest.mark.parametrize(
    "image, mask",
    [
        ("images/a_{}.jpg", "masks/a_mask_{}.png"),
        ("images/a_{}.jpg", "masks/a_mask{}.png"),
        ("d/a_{}.jpg", "d/a_mask_{}.png"),
        ("images/img_{}.jpg", "masks/mask_{}.png"),
        ("images/img{}.jpg", "masks/mask{}.png"),
        ("d/image_{}.jpg", "d/segmentation_{}.png"),
        ("d/image{}.jpg", "d/mask{}.png"),
        ("d/{}_image.jpg", "d/{}_mask.png"),
        ("images/photo_{}.jpg", "masks/{}.png"),
        ("images/x{}.jpg", "masks/x{}.jpg.png"),
        ("images/x{}.jpg", "masks/x{}.jpg_mask.png"),
        ("d/x{}.jpg", "d/x{}.jpg.png"),
    ],
)
def test_a_mask_is_found_by_what_its_name_shares_with_its_image(put, image, mask):
    table = read_table(put(some(image, n=4) | some(mask, "mask", n=4)))
    assert paths_of(table) == [image.format(k) for k in range(4)]
    assert paths_of(table, "mask_path") == [mask.format(k) for k in range(4)]


@pytest.mark.parametrize("word", ["m", "lesion"])
def test_a_mask_that_is_called_wholly_as_its_image_is_found_whatever_their_name_ends_in(put, word):
    table = read_table(put(some(f"images/i{{}}_{word}.jpg") | some(f"masks/i{{}}_{word}.png", "mask")))
    assert len(table) == 3 and all(mask.endswith(f"_{word}.png") for mask in table["mask_path"])


def test_a_number_behind_a_masks_name_is_its_images_where_there_is_one(put):
    files = {f"{name}.jpg": "photo" for name in ("a", "a_1", "b")}
    files |= {f"{name}.png": "mask" for name in ("a_mask", "a_mask_1", "b_mask_1")}
    assert paths_of(read_table(put(files)), "mask_path") == ["a_mask.png", "a_mask_1.png", "b_mask_1.png"]


def test_masks_that_are_called_as_no_image_are_refused_or_named_with_an_example(put):
    files = some("images/scan_{}.jpg") | some("masks/outline_{}.png", "mask")
    with pytest.raises(ValueError, match=r"None of the 3 masks .* e\.g\. masks/outline_0\.png and images/scan_0\.jpg"):
        read_table(put(files))
    layout = find(put({"t.csv": ["image,label", "scan_0,mel", "scan_1,nv", "scan_2,nv"]}))
    assert "3 masks (e.g. masks/outline_0.png) are not used" in layout.describe()


# Trees of folders


TREE = some("train/melanoma/m{}.png") | some("train/nevus/n{}.png")


@pytest.mark.parametrize("place", ["train_binary/{}", "binary/{}", "train/{}_bw", "train/{}/binary"])
def test_a_folder_called_binary_holds_masks_if_it_is_drawn(put, place):
    masks = some(place.format("melanoma") + "/m{}.png", "mask") | some(place.format("nevus") + "/n{}.png", "mask")
    table = read_table(put(TREE | masks))
    assert (table["status"] == USED).all() and list(table["label"]) == ["MEL"] * 3 + ["NV"] * 3
    assert paths_of(table, "mask_path") == list(masks)


def test_a_folder_called_binary_may_hold_photographs_of_two_classes(put):
    table = read_table(put(some("binary/benign/b{}.jpg") | some("binary/malignant/m{}.jpg")))
    assert list(table["label"]) == ["benign"] * 3 + ["malignant"] * 3


@pytest.mark.parametrize("other", ["train_x", "copies/train", "part_2/train"])
@pytest.mark.parametrize("what", ["resized", "drawn"])
def test_two_trees_of_the_same_pictures_are_asked_about(put, other, what):
    folder = put({name: picture(k, (4, 3)).resize((40, 30)) for k, name in enumerate(TREE)})
    for name in TREE:
        path = folder / name.replace("train", other, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        (Image.open(folder / name).resize((30, 22), Image.Resampling.BOX) if what == "resized" else disc()).save(path)
    with pytest.raises(ValueError, match=r"Two folder trees in|hold one folder per class each"):
        read_table(folder)


@pytest.mark.parametrize("places", [("2018", "2019"), ("patient_01", "patient_02"), ("train_1", "train_2")])
@pytest.mark.parametrize("name", ["{place}_{k}", "{k}"])
def test_classes_in_folders_of_patients_years_and_parts_are_one_data_set(put, places, name):
    files = [
        f"{place}/{code}/{name.format(place=place, k=k)}.jpg"
        for place in places
        for code in ("mel", "nv")
        for k in range(2)
    ]
    table = read_table(put(dict.fromkeys(files, "photo")))
    assert sorted(paths_of(table)) == sorted(files) and list(table["label"]).count("MEL") == 4


def test_pictures_of_two_sets_are_asked_about_with_a_path_that_can_be_pasted(put):
    folder = put(
        {
            f"{place}/{code}/{k}.jpg": "photo"
            for place in ("our set", "theirs")
            for code in ("mel", "nv")
            for k in range(2)
        }
    )
    with pytest.raises(ValueError, match="hold one folder per class each") as refused:
        read_table(folder)
    assert len(read_table(shlex.split(str(refused.value).split("--data-dir ")[1])[0])) == 4


def test_pictures_at_two_depths_of_classes_are_asked_about_and_each_answer_works(put):
    folder = put(some("malignant/melanoma/m{}.jpg") | some("malignant/x{}.jpg") | some("benign/b{}.jpg"))
    with pytest.raises(
        ValueError, match="The folder malignant and its subfolder melanoma both hold images, of different classes"
    ) as refused:
        read_table(folder)
    outer, every = (line.split("--classes ")[1].split() for line in str(refused.value).splitlines())
    assert list(read_table(folder, outer)["label"]) == ["benign"] * 3 + ["malignant"] * 6
    assert sorted(set(read_table(folder, every)["label"])) == ["MEL", "benign", "malignant"]


def test_folders_of_classes_in_those_of_others_are_named_with_what_reads_the_outer_ones(put):
    folder = put({f"{place}/0.jpg": "photo" for place in ("malignant/mel", "malignant/bcc", "benign/nevus")})
    assert classes_of(read_table(folder)) == ("MEL", "NV", "BCC")
    (remark,) = find(folder).remarks
    assert classes_of(read_table(folder, remark.split("--classes ")[1].split())) == ("benign", "malignant")


# Tables beside folders of classes


FOLDERS = some("train/melanoma/m{}.jpg") | some("train/nevus/n{}.jpg") | some("test/t{}.jpg")


@pytest.mark.parametrize(
    "rows, why",
    [
        (["t0,0", "t1,1", "t2,0"], "it names no image in them"),
        (["t0,0.5", "m0,0.5", "n1,0.5"], "it gives every image the same label"),
    ],
)
def test_a_submissions_sample_beside_folders_of_classes_is_not_used_and_named(put, rows, why):
    folder = put(FOLDERS | {"sample_submission.csv": ["image_name,target", *rows]})
    assert classes_of(read_table(folder)) == ("MEL", "NV")
    assert f"sample_submission.csv is not used because the folders name the classes: {why}." in find(folder).remarks


def test_each_answer_to_what_names_the_classes_works(put):
    folder = put(FOLDERS | {"t.csv": ["image,hair", *(f"{name}{k},{k % 2}" for name in "mn" for k in range(3))]})
    with pytest.raises(ValueError, match=r"t\.csv and the folders both name classes") as refused:
        read_table(folder)
    of_folders, of_table = (shlex.split(line.split("--classes ")[1]) for line in str(refused.value).splitlines())
    assert classes_of(read_table(folder, of_folders)) == ("MEL", "NV")
    assert classes_of(read_table(folder, of_table)) == ("not hair", "hair")


def test_of_a_table_none_of_whose_images_is_there_a_name_as_it_gives_it_and_a_file_are_shown(put):
    folder = put({"images/x.jpg": "photo", "t.csv": ["image,label", "fold1/000.jpg,mel", "fold1/001.jpg,nv"]})
    with pytest.raises(
        FileNotFoundError, match=r"\(e\.g\. images/x\.jpg\); the first name looked for is 'fold1/000\.jpg'"
    ):
        read_table(folder)


def test_images_of_another_part_than_a_table_is_called_as_are_named_with_what_reads_them(put):
    folder = put(
        some("train/a{}.jpg")
        | some("test/b{}.jpg")
        | {"train_labels.csv": ["image,label", "a0,mel", "a1,nv", "b0,mel", "b1,nv"]}
    )
    assert (
        "2 images in train_labels.csv exist only in folders of another part (e.g. test/b0.jpg)"
        in find(folder).describe()
    )
    (folder / "train_labels.csv").rename(folder / "labels.csv")
    assert paths_of(read_table(folder))[2:] == ["test/b0.jpg", "test/b1.jpg"]


# What is not read


def test_pictures_in_a_folder_taken_for_a_runs_are_counted_with_what_reads_them(put):
    folder = put(
        some("nevus/n{}.jpg") | some("melanoma/m{}.jpg") | some("bcc/deep/b{}.jpg") | {"bcc/record.json": ["{}"]}
    )
    said = find(folder).describe()
    assert "3 images in bcc/, which main.py or predict.py wrote (if not, rename bcc/record.json)" in said
    (folder / "bcc" / "record.json").rename(folder / "bcc" / "notes.json")
    assert classes_of(read_table(folder)) == ("MEL", "NV", "BCC")


def test_a_folder_that_cannot_be_read_is_named(put, monkeypatch):
    folder, scandir = put(some("nevus/n{}.jpg") | some("melanoma/m{}.jpg") | some("bcc/b{}.jpg")), os.scandir

    def refuses(place):
        if str(place).endswith("bcc"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuses)
    assert "1 folders that cannot be read (bcc: Permission denied)" in find(folder).describe()


def test_a_folder_whose_name_is_no_utf_8_is_counted(put):
    folder = put(some("nevus/n{}.jpg") | some("melanoma/m{}.jpg") | some("bcc/b{}.jpg"))
    os.rename(folder / "bcc", os.fsencode(folder) + b"/bcc\xe9")
    assert "1 folders whose names are not UTF-8 (rename them)" in find(folder).describe()


def test_pictures_without_a_suffix_are_counted(put):
    folder = put(some("nevus/n{}.jpg") | some("melanoma/m{}.jpg"))
    for k in range(2):
        (folder / "nevus" / f"n{k}.jpg").rename(folder / "nevus" / f"n{k}")
    assert "2 images without a suffix (add .jpg or the actual one)" in find(folder).describe()


# Masks that say nothing


@pytest.mark.parametrize("value, what", [(0, "empty"), (255, "full")])
def test_where_most_masks_are_of_one_value_the_run_asks(put, tmp_path, value, what):
    flat = Image.new("L", (40, 30), value)
    files = some("images/i{}.jpg", n=8) | some("masks/i{}.png", flat, n=5)
    files |= {f"masks/i{k}.png": "mask" for k in range(5, 8)}
    with pytest.raises(ValueError, match=rf"5 of 8 masks are {what}\. Expected .* in most"):
        prepared(put(files), tmp_path)
    assert len(prepared(put({"masks/i4.png": disc()}), tmp_path).table) == 8
