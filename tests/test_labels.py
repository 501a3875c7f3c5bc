"""Columns of a table that are diagnoses, and those that only look so."""

import shlex

import pytest
from conftest import folder_of, picture

from dataset import choice
from dataset.classes import classes_of, code_of
from dataset.layout import find
from dataset.table import read_layout, read_table


def test_true_and_false_and_blanks_are_ones_and_zeros(tmp_path):
    for rows in (["True,False", "False,True"], ["1,", ",1"], ["yes,no", "no,yes"], ["TRUE,", ",TRUE"]):
        assert list(read_table(folder_of(tmp_path, rows, "image,MEL,NV"))["label"]) == ["MEL", "NV"], rows


@pytest.mark.parametrize(
    "name, classes",
    [("melanoma", ("MEL", "not MEL")), ("malignant", ("benign", "malignant")), ("is_ill", ("is_ill", "not is_ill"))],
)
@pytest.mark.parametrize("one, zero", ["10", ("1.0", "0.0"), ("True", "False"), ("1", "")])
def test_one_column_of_zeros_and_ones_names_a_class_and_the_rest(tmp_path, name, classes, one, zero):
    table = read_table(folder_of(tmp_path, [one, zero, one], f"image,{name}"))
    assert set(classes_of(table)) == set(classes)
    assert list(table["label"] == code_of(name)) == [True, False, True]


def test_a_column_of_zeros_and_ones_beside_details_is_no_diagnosis(tmp_path):
    folder = folder_of(tmp_path, ["L1,1", "L2,0"], "image,lesion_id,is_left")
    with pytest.raises(
        FileNotFoundError,
        match=r"t.csv names images but no diagnoses\. If one of its columns is_left does, rename it to label",
    ):
        read_table(folder)


ISIC_2017 = ["1.0,0.0", "0.0,1.0", "0.0,0.0", "0.0,0.0"]


def test_rows_of_zeros_are_asked_about_and_named_by_zeros(tmp_path):
    folder = folder_of(tmp_path, ISIC_2017, "image_id,melanoma,seborrheic_keratosis")
    with pytest.raises(
        ValueError, match=r"2 of 4 rows of .*t\.csv have a 0 for each of melanoma, seborrheic.*--zeros NV"
    ):
        read_table(folder)
    assert list(read_table(folder, zeros="NV")["label"].astype(object)) == ["MEL", "SEK", "NV", "NV"]
    assert read_table(folder, zeros="unknown")["label"].isna().tolist() == [False, False, True, True]


def test_one_row_of_zeros_among_many_is_left_out_with_the_reason(tmp_path):
    rows = [*["1,0", "0,1"] * 10, "0,0"]
    assert read_table(folder_of(tmp_path, rows, "image,MEL,NV"))["reason"].iloc[-1] == "labels are not one-hot"


def test_a_column_of_known_words_is_one_of_diagnoses_whatever_it_is_called(tmp_path):
    table = read_table(folder_of(tmp_path, ["back,melanoma", "face,nevus", "arm,nevus"], "image,place,Befund"))
    assert list(table["label"]) == ["MEL", "NV", "NV"]


def test_numbers_beside_words_that_say_the_same_are_no_second_reading(tmp_path):
    table = read_table(folder_of(tmp_path, ["benign,0", "malignant,1", "benign,0"], "image,benign_malignant,target"))
    assert classes_of(table) == ("benign", "malignant")


def test_true_and_false_columns_about_the_patient_are_no_classes_beside_a_diagnosis(tmp_path):
    """As PAD-UFES-20's, one of which is called skin_cancer_history."""
    rows = ["True,False,NEV", "False,True,MEL", "False,True,BCC"]
    table = read_table(folder_of(tmp_path, rows, "img_id,smoke,skin_cancer_history,diagnostic"))
    assert list(table["label"]) == ["NV", "MEL", "BCC"]


def refusal(folder, **reading):
    with pytest.raises(ValueError) as refused:
        read_layout(find(folder, **reading), choice.Choice.of(reading.get("classes", ())))
    return str(refused.value)


def flagged(text):
    """The words behind --classes in a message, as a shell gives them."""
    line = text.partition("--classes ")[2].split("\n")[0].partition(", or ")[0]
    return shlex.split(line)


@pytest.mark.parametrize("column", ["label_name", "class_name", "category"])
def test_words_come_before_the_numbers_of_the_same_classes(tmp_path, column):
    rows = [f"{k % 2},{('nevus', 'melanoma')[k % 2]}" for k in range(6)]
    assert classes_of(read_table(folder_of(tmp_path, rows, f"image,label,{column}"))) == ("MEL", "NV")


def test_a_clinical_diagnosis_counts_where_there_is_no_other(tmp_path):
    rows = [f"{('nevus', 'melanoma')[k % 2]},{('melanoma', 'nevus')[k // 3]}" for k in range(6)]
    for name, other in (("a", "diagnosis"), ("b", "Histological Diagnosis")):
        cells = [("," + row.split(",")[1]) if other != "diagnosis" else row for row in rows]
        table = read_table(folder_of(tmp_path / name, cells, f"image,{other},Clinical Diagnosis"))
        words = [row.split(",")[name == "b"] for row in rows]
        assert list(table["label"]) == [{"nevus": "NV", "melanoma": "MEL"}[word] for word in words]


@pytest.mark.parametrize("column", ["label", "malignant"])
def test_numbers_that_join_what_words_tell_apart_are_asked_about(tmp_path, column):
    rows = [f"{k % 2},{('nevus', 'melanoma', 'dermatofibroma')[k % 3]}" for k in range(6)]
    folder = folder_of(tmp_path, rows, f"image,{column},words")
    said = refusal(folder)
    assert "can be read in 2 ways" in said
    assert set(classes_of(read_table(folder, flagged(said)))) == {"MEL", "NV", "DF"}


def test_zeros_name_the_class_of_the_rest_of_a_single_column(tmp_path):
    folder = folder_of(tmp_path, [0, 1, 0], "image,melanoma")
    assert list(read_table(folder, zeros="NV")["label"]) == ["NV", "MEL", "NV"]
    assert read_table(folder, zeros="unknown")["label"].isna().tolist() == [True, False, True]


def test_zeros_that_can_name_nothing_are_refused(tmp_path):
    assert "diagnoses are read from column diagnosis. Omit --zeros." in refusal(
        folder_of(tmp_path / "a", ["nevus", "melanoma"]), zeros="NV"
    )
    for code in ("nevus", "melanoma"):
        (tmp_path / "b" / code).mkdir(parents=True)
        picture(len(code)).save(tmp_path / "b" / code / f"{code}.jpg")
    assert "read from 2 folders, one per class." in refusal(tmp_path / "b", zeros="NV")


def test_a_column_of_zeros_alone_is_no_class_and_is_named(tmp_path):
    folder = folder_of(tmp_path, ["1,0,0,0", "0,1,0,0"], "image,mel,nv,bcc,gel")
    layout = find(folder)
    assert layout.labels.classes == ("MEL", "NV", "BCC") and "without gel (0 in each row)" in layout.describe()


def test_two_columns_of_zeros_and_ones_of_no_known_name_are_asked_about(tmp_path):
    folder = folder_of(tmp_path, [f"{k % 2},{1 - k % 2}" for k in range(4)], "image,hair,ruler")
    said = refusal(folder)
    assert "which may not be diagnoses" in said
    assert classes_of(read_table(folder, flagged(said))) == ("hair", "ruler")


def test_columns_of_the_same_classes_that_differ_are_not_to_be_chosen_by_classes(tmp_path):
    rows = [
        f"{one},{other}" for one, other in (("benign", "Benign"), ("malignant", "Malignant"), ("benign", "Malignant"))
    ]
    folder = folder_of(tmp_path, rows, "image,benign_malignant,diagnosis_1")
    for wanted in ((), ("benign", "malignant")):
        said = refusal(folder, classes=wanted)
        assert "They differ in 1 rows. Correct these" in said and "--classes" not in said


def test_wanted_classes_that_no_column_has_are_named_with_those_that_one_has(tmp_path):
    rows = ["melanoma,malignant,1", "nevus,benign,0", "unknown,benign,0"]
    folder = folder_of(tmp_path, rows, "image,diagnosis,benign_malignant,target")
    said = refusal(folder, classes=("0", "1"))
    assert "has no class 0, 1. It can be read in 2 ways" in said
    assert classes_of(read_table(folder, flagged(said))) == ("benign", "malignant")
