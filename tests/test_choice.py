"""--classes, which maps words to classes."""

import itertools
import shlex

import pytest
from conftest import folder_of

from dataset import choice, classes
from dataset.classes import classes_of
from dataset.layout import find
from dataset.table import read_table

WORDS = ["Melanoma, NOS", "BCC", "Nevus", "rosy rash", "a, b"]


def quoted_folder(place):
    return folder_of(place, [f'"{word}"' for word in WORDS])


def test_classes_are_mapped_and_ordered(tmp_path):
    table = read_table(quoted_folder(tmp_path), ["malignant=MEL,BCC", "benign=NV,Rosy Rash"])
    assert classes_of(table) == ("malignant", "benign")
    assert list(table["label"].astype(object)[:4]) == ["malignant", "malignant", "benign", "benign"]
    assert table["reason"].iloc[4] == "labelled a, b, which is not among the classes"


@pytest.mark.parametrize("text", ['x="a, b",NV', "x='a, b', nevus", '"x"="a, b","NV"'])
def test_names_with_blanks_and_commas_may_be_quoted(tmp_path, text):
    table = read_table(quoted_folder(tmp_path), [text, "MEL"])
    assert list(table["label"].astype(object)[[0, 2, 4]]) == ["MEL", "x", "x"]


def test_a_plain_name_may_hold_a_comma(tmp_path):
    assert list(read_table(quoted_folder(tmp_path), ["a, b", "NV"])["label"].astype(object)[[2, 4]]) == ["NV", "a, b"]


@pytest.mark.parametrize(
    "texts, message",
    [
        (["x=MEL", "y=mel,NV"], "A class is named twice: MEL is part of several"),
        (["x=MEL", "x=NV"], "A class is named twice: x"),
        (["x="], "expected a class, or NAME=CLASS"),
        (["=MEL"], "expected a class, or NAME=CLASS"),
        (["x=wart", "NV"], 'has no class x; its classes are .*"a, b"'),
    ],
)
def test_a_map_that_cannot_be_meant_is_refused_with_the_classes(tmp_path, texts, message):
    with pytest.raises(ValueError, match=message):
        read_table(quoted_folder(tmp_path), texts)


def test_a_member_that_the_data_do_not_have_is_named(tmp_path):
    layout = find(quoted_folder(tmp_path), map_ := choice.Choice.of(["x=MEL,wart", "NV"]))
    _, remarks = map_.apply(layout.labels, True, "here")
    assert remarks[0] == "--classes names wart, which here does not have."


def test_another_data_sets_words_become_the_models_classes(tmp_path):
    folder = folder_of(tmp_path, ["melanoma", "malignant", "Benign", "wart"])
    table = read_table(folder, ["malignant=MEL,BCC", "benign=NV"], complete=False)
    assert list(table["label"].astype(object)[:3]) == ["malignant", "malignant", "benign"]
    assert table["reason"].iloc[3] == "labelled wart, which is not among the classes"


def test_another_data_sets_own_spelling_of_a_models_class_is_that_class(tmp_path):
    table = read_table(folder_of(tmp_path, ["ILL", "Well"]), ["ill=MEL", "well=NV"], complete=False)
    assert list(table["label"]) == ["ill", "well"]


@pytest.mark.parametrize("texts, left_out", [(["BCC=SCC", "NV"], "BCC"), (["NV", "malignant=SCC"], "malignant")])
def test_a_class_whose_name_is_given_to_others_is_left_out_with_the_reason(tmp_path, texts, left_out):
    table = read_table(folder_of(tmp_path, ["SCC", left_out, "nevus"]), texts)
    assert table["label"].isna().tolist() == [False, True, False]
    assert table["reason"].iloc[1] == f"labelled {left_out}, which is not among the classes"


def test_a_class_that_is_part_of_its_own_map_stays(tmp_path):
    table = read_table(folder_of(tmp_path, ["MEL", "BCC", "nevus"]), ["MEL=BCC", "BCC=MEL", "NV"])
    assert list(table["label"]) == ["BCC", "MEL", "NV"]


@pytest.mark.parametrize(
    "text, members",
    [
        ("ill=Hailey's rash,melanoma", ("Hailey's rash", "MEL")),
        ('ill=\'Hailey\'\'s, rash\', "the ""other"""', ("Hailey's, rash", 'the "other"')),
        ("ill=Hailey's rash,Grover's", ("Hailey's rash", "Grover's")),
        ("ill='a' b,'tis", ("'a' b", "'tis")),
    ],
)
def test_only_quotation_marks_that_enclose_a_name_are_any(text, members):
    assert choice.Choice.of([text]).members == {"ill": members}


def test_a_flag_that_is_printed_names_the_same_classes():
    marks = ["", ",", ", ", "=", "'", '"', " ", '""', "','"]
    for before, between, behind in itertools.product(marks, repeat=3):
        names = [f"{before}x{between}y{behind}".strip(), "C=43", "NV", "a, b"]
        flag = choice.as_flag(names)
        assert choice.Choice.of(shlex.split(flag)[1:]).names == tuple(names), flag
        again = choice.as_flag([classes.quoted(name) for name in names])
        assert again == flag


def test_a_map_that_is_printed_stays_a_map():
    assert choice.as_flag(['MEL=MEL,"a, b"']) == """--classes 'MEL=MEL,"a, b"'"""
