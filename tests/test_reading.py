"""Whose role a folder or a file plays: by the nearest telling name, then by content; and what is asked or named."""

import pytest
from conftest import TWO, paths_of, picture

from dataset.classes import classes_of
from dataset.layout import find
from dataset.prepare import Reading, decode
from dataset.table import LABEL_ONLY, MASK_ONLY, USED, read_table


@pytest.mark.parametrize("name", ["a_superpixels.png", "a_mask.png"])
def test_what_is_called_as_no_photograph_is_none_where_folders_name_the_classes(put, name):
    files = {f"{code}/{letter}.jpg": "photo" for code, letter in (("nevus", "a"), ("melanoma", "b"))}
    assert sorted(read_table(put(files | {f"nevus/{name}": "mask"}))["image"]) == ["a", "b"]


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


def test_a_third_of_the_rows_out_for_one_reason_is_a_caution(put, tmp_path):
    rows = ["image,label", *(f"i{k},{'mel' if k % 2 else 'nv'}" for k in range(12))]
    folder = put({f"images/i{k}.jpg": "photo" for k in range(8)} | {"t.csv": rows})
    remarks = decode(folder, Reading(), image_size=32, cache_dir=tmp_path / "cache", say=str).remarks
    assert remarks == ["4 of 12 rows are not used, or only in part: image is missing."]
    (folder / "images" / "i8.jpg").write_bytes((folder / "images" / "i6.jpg").read_bytes())
    assert decode(folder, Reading(), image_size=32, cache_dir=tmp_path / "cache", say=str).remarks == []


def test_nothing_is_written_into_the_data_folder(put, tmp_path):
    folder = put({"images/a.jpg": "photo", "images/b.jpg": "photo", "t.csv": TWO})
    before = sorted((path, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")])
    decode(folder, Reading(), image_size=32, cache_dir=tmp_path / "cache", say=str)
    assert sorted((path, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")]) == before


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


def measured(*columns):
    """The lines of a table of 24 images, with columns of decimals."""
    return [",".join(["image,label", *columns])] + [
        f"{'ab'[k > 11]}{k},{('mel', 'nv')[k % 2]}" + f",{k}.5" * len(columns) for k in range(24)
    ]


@pytest.mark.parametrize(
    ("lines", "further", "unread"),
    [
        (["Bild,dx,Alter,sex,mask", "a,mel,61,m,", "b,nv,32,f,"], (), "Alter"),
        (["Bild,dx,Alter,sex,mask", "a,mel,61,m,", "b,nv,32,f,"], ("Alter",), ""),
        (["image,MEL,NV,BCC,smokes", "a,1,0,0,no", "b,0,1,0,yes"], (), "smokes"),  # 0 in each row, and still a class
        (
            ["image,dx,clinical_diagnosis,split,ward", "a,mel,nv,train,1", "b,nv,nv,test,2"],
            (),
            "clinical_diagnosis, ward",
        ),
        (["image,dx,dx_number,wo", "a,mel,1,train", "b,nv,0,test"], (), "dx_number"),
        (["image,dx,is_test,ward", "a,mel,0,1", "b,nv,1,2"], (), "ward"),
        (["image,malignant,hair", "a,1,long", "b,0,short"], (), "hair"),
        (["image,dx,a\x1bb,tone", "a,mel,x,1", "b,nv,y,2"], (), "a\\x1bb, tone"),
        (["image,dx," + "x" * 50, "a,mel,u", "b,nv,v"], (), "x" * 40),
        (measured(*"uvwxyz"), ("u",), "v, w, x, y, z"),
        (measured(*"tuvwxyz"), (), "t, u, v, w, x and 2 more"),
    ],
)
def test_columns_that_nothing_reads_are_named(put, lines, further, unread):
    names = [line.split(",")[0] for line in lines[1:]]
    folder = put({f"images/{name}.jpg": picture(k) for k, name in enumerate(names)} | {"t.csv": lines})
    layout = find(folder, columns=further)
    beginning = f"Columns of t.csv that are not read: {unread}. To use one"
    assert [remark.startswith(beginning) for remark in layout.unread] == [True] * bool(unread)
    assert set(layout.unread) <= {*layout.describe().split("\n")} - {*layout.remarks}  # no caution of the report


def test_columns_of_a_table_of_details_that_nothing_reads_are_named_too(put):
    files = {"images/a.jpg": "photo", "images/b.jpg": "photo", "GroundTruth.csv": TWO}
    files |= {"details.csv": ["image_id,age_approx,hair", "a,50,no", "b,60,yes"]}
    (said,) = find(put(files)).unread
    assert said.startswith("Columns of details.csv that are not read: hair. ")


def test_a_table_without_diagnoses_or_details_beside_the_truth_is_named_once(put):
    files = {"images/a.jpg": "photo", "images/b.jpg": "photo", "cameras.csv": ["image,lens", "a,50", "b,60"]}
    (said,) = find(put(files | {"GroundTruth.csv": TWO})).unread
    assert said.startswith("Columns of cameras.csv that are not read: lens. ")


def test_a_table_whose_columns_a_remark_names_is_not_named_again(put):
    files = {"images/a.jpg": "photo", "images/b.jpg": "photo", "cameras.csv": ["image,lens", "a,50", "b,60"]}
    layout = find(put(files | {"t.csv": TWO}))
    assert not layout.unread and any("cameras.csv" in remark and "lens" in remark for remark in layout.remarks)


def test_measurements_of_joined_tables_that_nothing_reads_are_named(put):
    parts = {"train.csv": measured("u", "v"), "test.csv": [line.replace("a", "c") for line in measured("u", "w")]}
    parts["test.csv"][0] = "image,label,u,w"
    names = {line.split(",")[0] for lines in parts.values() for line in lines[1:]}
    folder = put({f"images/{name}.jpg": picture(k) for k, name in enumerate(sorted(names))} | parts)
    (said,) = find(folder).unread
    assert said.startswith("Columns of train.csv and test.csv that are not read: u, v, w. ")
