"""The folders that users have, in small: what each is read as, and what is asked where two readings are possible."""

import io
import json
from unittest import mock

import pytest
from conftest import QUICK

import main
import predict
from dataset.check import check
from dataset.classes import classes_of
from dataset.csvfile import read_back
from dataset.layout import find
from dataset.table import LABEL_ONLY, LEFT_OUT, MASK_ONLY, USED, read_table
from models import load_model

HAM_HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"


def test_kaggles_ham10000_has_its_labels_from_dx(fill):
    folder = fill("HAM10000_images_part_1/a.jpg", "HAM10000_images_part_2/b.jpg")
    fill.text("HAM10000_metadata.csv", [HAM_HEADER, "L1,a,bkl,histo,80,male,scalp", "L1,b,mel,histo,70,female,back"])
    fill.text("hmnist_8_8_RGB.csv", ["pixel0000,label", "1,2"])
    table = read_table(folder)
    assert list(table["label"]) == ["BKL", "MEL"] and list(table["lesion_id"]) == ["L1", "L1"]
    assert classes_of(table) == ("MEL", "BKL")
    assert list(table["age"]) == [80, 70] and (table["status"] == LABEL_ONLY).all()


def test_isic_2018_as_unpacked(fill):
    folder = fill("ISIC2018_Task3_Training_Input/a.jpg", "ISIC2018_Task3_Training_Input/b.jpg")
    place = "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"
    fill.text(place, ["image,MEL,NV,BCC,AKIEC,BKL,DF,VASC", "a,0.0,1.0,0.0,0.0,0.0,0.0,0.0", "b,1,0,0,0,0,0,0"])
    fill.text(
        "ISIC2018_Task3_Training_LesionGroupings.csv", ["image,lesion_id,diagnosis_confirm_type", "a,L,x", "b,L,x"]
    )
    table = read_table(folder)
    assert list(table["label"]) == ["NV", "MEL"] and list(table["lesion_id"]) == ["L", "L"]
    assert len(classes_of(table)) == 7


def test_isic_2019_has_the_classes_of_its_file_and_no_unknown(fill):
    folder = fill(*(f"ISIC_2019_Training_Input/{name}.jpg" for name in "abcd"))
    rows = ["a,0,1,0,0,0,0,0,0,0", "b,0,0,0,0,0,0,0,1,0", "c,0,0,0,0,0,0,0,0,1", "d,0,0,0,1,0,0,0,0,0"]
    fill.text("ISIC_2019_Training_GroundTruth.csv", ["image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK", *rows])
    header = "image,age_approx,anatom_site_general,lesion_id,sex"
    fill.text("ISIC_2019_Training_Metadata.csv", [header, "a,55,,L1,male", "b,55,,L1,male", "c,,,,", "d,,,,"])
    table = read_table(folder)
    assert classes_of(table) == ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC", "SCC")
    assert list(table["label"].dropna()) == ["NV", "SCC", "AKIEC"]
    assert list(table["reason"])[2] == "labelled UNK, which is not a diagnosis" and table["status"][2] == LEFT_OUT
    assert list(table["lesion_id"]) == ["L1", "L1", "c", "d"]


@pytest.mark.parametrize(
    "values, classes, labels",
    [
        ("melanoma nevus melanoma", ("MEL", "NV"), ["MEL", "NV", "MEL"]),
        ("malignant benign benign", ("benign", "malignant"), ["malignant", "benign", "benign"]),
        ("1.0 0.0 1.0", ("0", "1"), ["1", "0", "1"]),
    ],
)
def test_a_csv_may_name_the_class_in_one_column(fill, values, classes, labels):
    folder = fill("photos/a.jpg", "photos/b.jpg", "photos/c.jpg")
    fill.text("mine.csv", ["image,label", *map(",".join, zip(("a.jpg", "b.jpg", "c.jpg"), values.split()))])
    table = read_table(folder)
    assert classes_of(table) == classes and list(table["label"]) == labels


def test_an_empty_label_is_left_out_with_the_reason(fill):
    folder = fill("images/a.jpg", "images/b.jpg", "images/c.jpg")
    fill.text("GroundTruth.csv", ["image,label", "a,x", "b,", "c,y"])
    assert list(read_table(folder)["reason"])[1] == "label is empty"


@pytest.mark.parametrize("names", ["benign malignant", "v w x y z", "a b c d e f g h i"])
def test_any_columns_of_zeros_and_ones_are_classes_in_the_files_order(fill, names):
    names = names.split()[::-1]
    folder = fill(*(f"images/i{k}.jpg" for k in range(len(names))))
    rows = [",".join([f"i{k}", *(str(int(k == j)) for j in range(len(names)))]) for k in range(len(names))]
    fill.text("GroundTruth.csv", ["image," + ",".join(names), *rows])
    table = read_table(folder)
    assert classes_of(table) == tuple(names) and list(table["label"]) == names


def test_a_column_of_zeros_and_ones_beside_the_classes_is_none_where_it_holds_together_with_one(fill):
    folder = fill("images/a.jpg", "images/b.jpg")
    fill.text("GroundTruth.csv", ["image,MEL,NV,is_left", "a,1,0,1", "b,0,1,0"])
    assert classes_of(read_table(folder)) == ("MEL", "NV")


def test_one_folder_a_class(fill):
    folder = fill("nevus/1.jpg", "nevus/2.jpg", "melanoma/3.jpg", "masks/1_segmentation.png")
    table = read_table(folder)
    assert dict(zip(table["image"], table["label"])) == {"1": "NV", "2": "NV", "3": "MEL"}
    assert list(table["status"]) == [LABEL_ONLY, USED, LABEL_ONLY]


def test_files_of_the_same_name_in_two_folders_of_classes_are_two_images(fill):
    table = read_table(fill("benign/1.jpg", "malignant/1.jpg"))
    assert sorted(table["image"]) == ["benign_1", "malignant_1"] and len(set(table["image_path"])) == 2


def test_folders_of_classes_may_lie_in_one_folder(fill):
    assert list(read_table(fill("lesions/benign/1.jpg", "lesions/malignant/2.jpg"))["label"]) == ["benign", "malignant"]


def test_a_csv_that_names_no_images_is_refused_with_its_columns(fill):
    folder = fill("images/a.jpg")
    fill.text("GroundTruth.csv", ["hospital,MEL,NV", "x,1,0"])
    with pytest.raises(ValueError, match=r"names no images; it has hospital, MEL, NV\. Expected: image,MEL"):
        read_table(folder)


def test_images_with_masks_need_no_diagnoses(fill):
    images = [f"ISIC2018_Task1-2_Training_Input/{name}.jpg" for name in "abc"]
    masks = [f"ISIC2018_Task1_Training_GroundTruth/{name}_segmentation.png" for name in "ab"]
    table = read_table(fill(*images, *masks))
    assert classes_of(table) == () and table["label"].isna().all()
    assert list(table["status"]) == [MASK_ONLY, MASK_ONLY, LEFT_OUT]
    assert list(table["reason"]) == ["no diagnosis", "no diagnosis", "mask is missing"]


# Two readings


def test_two_columns_that_disagree_are_not_guessed_between(fill):
    folder = fill("images/a.jpg", "images/b.jpg")
    fill.text("GroundTruth.csv", ["image,dx,benign_malignant", "a,mel,malignant", "b,nv,benign"])
    with pytest.raises(ValueError, match=r"2 ways: column dx \(MEL, NV\) or column benign_malignant.*--classes"):
        read_table(folder)
    assert list(read_table(folder, ("benign", "malignant"))["label"]) == ["malignant", "benign"]
    assert list(read_table(folder, ("NV", "MEL"))["label"].cat.codes) == [1, 0]


def test_two_columns_that_say_the_same_are_one_reading(fill):
    folder = fill("images/a.jpg", "images/b.jpg")
    fill.text("GroundTruth.csv", ["image,MEL,NV,dx", "a,1,0,mel", "b,0,1,nv"])
    assert list(read_table(folder)["label"]) == ["MEL", "NV"]


def test_of_two_files_with_diagnoses_the_one_counts_whose_images_are_there(fill):
    folder = fill("images/a.jpg", "images/b.jpg")
    fill.text("Mine_GroundTruth.csv", ["image,MEL,NV", "a,1,0", "b,0,1"])
    fill.text("Other_GroundTruth.csv", ["image,MEL,NV", "x,1,0", "y,0,1"])
    assert find(folder).csv.name == "Mine_GroundTruth.csv"
    fill("images/x.jpg", "images/y.jpg")
    with pytest.raises(ValueError, match=r"Mine_GroundTruth\.csv, Other_GroundTruth\.csv\. Rename"):
        find(folder)
    fill.text("GroundTruth.csv", ["image,MEL,NV", "a,1,0"])
    assert find(folder).csv.name == "GroundTruth.csv"


def test_folders_that_each_hold_folders_of_classes_are_not_guessed_between(fill):
    folder = fill(*(f"{place}/{name}/1.jpg" for place in ("ours", "theirs") for name in ("benign", "malignant")))
    with pytest.raises(ValueError, match=r"hold one folder per class each\. Pass one of them: --data-dir .*ours"):
        read_table(folder)
    assert len(read_table(folder / "ours")) == 2


# A choice of classes


def test_chosen_classes_come_in_their_order_and_others_are_left_out_with_the_reason(fill):
    folder = fill(*(f"images/{name}.jpg" for name in "abc"))
    fill.text("GroundTruth.csv", ["image,label", "a,MEL", "b,NV", "c,SCC"])
    table = read_table(folder, ("SCC", "MEL"))
    assert classes_of(table) == ("SCC", "MEL")
    assert list(table["reason"])[1] == "labelled NV, which is not among the classes"


def test_a_chosen_class_that_the_data_lack_is_refused_by_name(fill):
    folder = fill("images/a.jpg", "images/b.jpg")
    fill.text("GroundTruth.csv", ["image,label", "a,MEL", "b,NV"])
    with pytest.raises(ValueError, match=r"has no class BCC; its classes are MEL, NV"):
        read_table(folder, ("MEL", "BCC"))
    assert classes_of(read_table(folder, ("MEL", "BCC"), complete=False)) == ("MEL", "BCC")


def test_check_says_in_one_line_what_the_folder_is(fill):
    folder = fill(*(f"{name}/{k}{name}.jpg" for name in ("melanoma", "nevus") for k in range(3)))
    assert (
        "6 images; diagnoses: 2 folders, one per class; 6 image files in melanoma/, nevus/; 0 masks."
        in check(folder, 64)[0]
    )


def test_what_main_or_predict_has_written_is_no_data(fill):
    folder = fill("masks/a.png", "overlays/a.jpg")
    fill.text("predictions.csv", ["file,output,predicted", "a,a,NV"])
    with pytest.raises(ValueError, match=r"was written by main\.py or predict\.py"):
        read_table(folder)


# The program on them


def run(folder, *flags):
    """Train every task for one epoch; returns the exit code and the run's folder."""
    places = ["--data-dir", folder, "--output-dir", folder.parent / "outputs", "--cache-dir", folder.parent / "cache"]
    with mock.patch("visualize.png", return_value=b"not drawn"):
        return main.main([*map(str, places), *QUICK, *flags]), folder.parent / "outputs"


def numbers_of(outputs, task):
    return json.loads((outputs / task / "metrics.json").read_text())


@pytest.fixture
def inner(tmp_path):
    """A data folder below the one that a run writes into."""
    return tmp_path / "data"


def test_two_classes_in_folders_with_masks_for_some_are_learned_measured_and_used(fill, inner, tmp_path):
    for code in ("benign", "malignant"):
        fill(*(f"data/{code}/{code}_{k}.jpg" for k in range(6)))
    fill(*(f"data/masks/{code}_{k}.png" for code in ("benign", "malignant") for k in range(4)))
    done, outputs = run(inner, "--no-group-by-lesion")
    assert done == 0
    found = numbers_of(outputs, "multitask")
    assert list(found["label"]["per_class"]) == ["benign", "malignant"]
    assert list(found["label"]["operating_points"]) == ["malignant"]
    splits = read_back(outputs / "splits.csv")
    masked = splits["image"].str[-1].astype(int) < 4
    assert found["label"]["n_images"] == (splits["split"] == "test").sum()
    assert found["mask"]["n_images"] == (masked & (splits["split"] == "test")).sum()
    assert "Melanoma" not in (outputs / "report.html").read_text() and (outputs / "comparison.json").exists()
    best = outputs / "best_multitask_model.pth"
    assert load_model(best).classes == ("benign", "malignant")
    with mock.patch("sys.stdout", io.StringIO()) as printed:
        predicted = tmp_path / "predictions"
        assert predict.main([str(inner), "--checkpoint", str(best), "--output-dir", str(predicted)]) == 0
    assert "malignant: threshold" in printed.getvalue() and "12 predicted" in printed.getvalue()
    assert "Ignored: 8 masks." in printed.getvalue()
    assert {"p_malignant", "benign", "malignant"} <= set(read_back(predicted / "predictions.csv"))


def test_images_with_masks_alone_train_the_segmenter_and_the_rest_is_named(fill, inner, capsys):
    names = [f"a{k}" for k in range(8)]
    fill(*(f"data/images/{name}.jpg" for name in names), *(f"data/masks/{name}.png" for name in names))
    done, outputs = run(inner)
    assert done == 0
    assert "Too few diagnoses" in (out := capsys.readouterr().out) and "for classification, multitask" in out
    assert numbers_of(outputs, "segmentation")["mask"]["by_class"] == {}
    assert "Diagnoses: none" in (outputs / "report.html").read_text()


def test_chosen_classes_are_learned_and_a_model_of_others_is_not_measured_on_them(fill, inner, capsys):
    names = [f"{code}{k}" for code in ("MEL", "NV", "SCC") for k in range(4)]
    fill(*(f"data/images/{name}.jpg" for name in names))
    fill.text("data/GroundTruth.csv", ["image,label", *(f"{name},{name[:-1]}" for name in names)])
    done, outputs = run(inner, "--tasks", "classification", "--classes", "melanoma", "SCC")
    assert done == 0 and list(numbers_of(outputs, "classification")["label"]["per_class"]) == ["MEL", "SCC"]
    assert run(inner, "--tasks", "classification", "--evaluate-only")[0] == 2
    assert "trained on the classes MEL, SCC, and the data's are MEL, NV, SCC" in capsys.readouterr().err
