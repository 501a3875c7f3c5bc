"""A test set chosen by metadata: which images it holds, what becomes of their lesions, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import quick

from dataset.holdout import SIBLING, columns_in, hold_out
from dataset.prepare import Decoded, Reading, Splitting, split
from dataset.table import LEFT_OUT, USED


def made(n=120, **columns):
    """Images of two classes, three to a lesion; of each lesion the first comes from a and the others from b or c."""
    rows = pd.DataFrame({"image": [f"i{k:03}" for k in range(n)], "status": USED, "reason": ""})
    rows["lesion_id"] = [f"L{k // 3}" for k in range(n)]
    rows["label"] = pd.Categorical(np.where(np.arange(n) // 3 % 2, "MEL", "NV"))
    rows["dataset"], rows["age"], rows["lesion_known"], rows["patient_id"] = "b", 50.0, True, None
    return rows.assign(mask_path="", **columns)


def test_the_images_that_match_are_tested_and_others_of_their_lesions_are_left_out_of_all_parts():
    rows = made()
    rows.loc[[0, 1, 4], "dataset"] = "Rosendahl"  # of lesions L0 and L1
    parts, remarks = hold_out(rows, ["dataset=rosendahl"])
    assert parts[parts == "test"].index.tolist() == [0, 1, 4] and parts[parts == ""].index.tolist() == [2, 3, 5]
    assert (parts[6:] == "train").all()
    assert rows.index[rows["status"] == LEFT_OUT].tolist() == [2, 3, 5] and rows["reason"][2] == SIBLING
    assert remarks[0].startswith("Split: the test set is dataset=rosendahl (3 images)")
    assert remarks[1].startswith("3 other images of the test set's lesions")


def test_images_of_a_test_images_patient_are_not_learned_either():
    rows = made()
    rows["group"] = [f"P{k // 6}" for k in range(len(rows))]
    rows.loc[0, "dataset"] = "a"
    assert hold_out(rows, ["dataset=a"])[0].tolist() == ["test", *[""] * 5, *["train"] * 114]


def test_values_of_one_column_are_alternatives_and_several_columns_must_all_match():
    rows = made(dataset=["a", "b", "c"] * 40, lesion_id=range(120), age=[30.0] * 60 + [80.0] * 60)

    def tested(*conditions):
        parts, _ = hold_out(rows.copy(), conditions)
        return set(parts.index[parts == "test"])

    a, c, old = (
        set(rows.index[chosen]) for chosen in (rows["dataset"] == "a", rows["dataset"] == "c", rows["age"] == 80)
    )
    assert tested("dataset=a", "dataset=c") == a | c and tested("dataset = a", "age=80") == a & old
    assert tested("dataset=a", "age=80", "dataset=c") == (a | c) & old


def test_images_of_unknown_value_are_not_tested_and_counted():
    rows = made(lesion_id=range(120))
    rows["dataset"] = [None] * 7 + ["a"] * 3 + ["b"] * 110
    parts, remarks = hold_out(rows, ["dataset=a"])
    assert (parts[:7] == "train").all() and "7 images whose dataset is unknown are not in the test set." in remarks


def test_a_class_that_only_the_test_set_has_is_named():
    rows = made(lesion_id=range(120), label=pd.Categorical(["VASC"] * 4 + ["NV", "MEL"] * 58))
    rows.loc[:9, "dataset"] = "a"
    remarks = hold_out(rows, ["dataset=a"])[1]
    assert remarks[-1].startswith("4 test images are of VASC (Vascular Lesion), absent from all other images")


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (["dataset=rosendahl"], r"No usable image has dataset=rosendahl.*are: b \(110 images\), a \(10 images\)\."),
        (["dataset=a", "age=80"], "No usable image has age=80.*The values of age are: 50"),
        (["dataset=a", "sex=male"], "No usable image has dataset=a and sex=male. Name values that occur together"),
        (["age=50"], "All usable images, or their lesions, have age=50: none is left"),
        (["dx=mel"], "share no diagnosis with the others"),
        (["dataset"], "TEST_WHERE holds 'dataset'. Expected column=value"),
        (["=a"], "TEST_WHERE holds '=a'"),
    ],
)
def test_what_gives_no_test_set_is_refused_with_what_there_is(conditions, message):
    rows = made(dataset=["a"] * 10 + ["b"] * 110, sex=["female"] * 10 + ["male"] * 110, lesion_id=range(120))
    rows["column dx"] = rows["label"].astype(str).str.lower()
    with pytest.raises(ValueError, match=message):
        hold_out(rows, conditions)


def test_the_columns_of_the_conditions_are_those_before_the_first_equals_sign():
    assert columns_in(["dataset=a=b", "sex=male", "dataset=c"]) == ["dataset", "sex"]


def split_where(rows, *conditions, given=None):
    said = []
    decoded = Decoded(rows, None, given, "column part of t.csv", [])
    return split(decoded, Reading(), Splitting(test_where=conditions), said.append), "\n".join(said)


def test_the_rest_is_split_by_lesion_and_class_in_the_usual_proportion():
    """Of 40 lesions 10 are tested; val gets .15 / .85 of 30, to within one of each class."""
    rows = made(dataset=["a"] * 30 + ["b"] * 90)
    prepared, said = split_where(rows, "dataset=a")
    parts = prepared.table["split"]
    assert (parts[:30] == "test").all() and set(parts[30:]) == {"train", "val"}
    lesions = prepared.table.groupby("lesion_id").agg(
        part=("split", "first"), n=("split", "nunique"), of=("label", "first")
    )
    assert (lesions["n"] == 1).all()
    for _, members in lesions[lesions["part"] != "test"].groupby("of", observed=True):
        assert abs((members["part"] == "val").sum() - len(members) * 0.15 / 0.85) <= 1
    assert "Split: the test set is dataset=a (30 images)" in said
    assert any(remark.startswith("Split: the test set is") for remark in prepared.remarks)


def test_beside_a_split_of_the_datas_own_it_is_refused():
    with pytest.raises(ValueError, match=r"by column part of t.csv. Pass --split-file none as well"):
        split_where(made(), "dataset=a", given=pd.Series(["train"] * 100 + ["test"] * 20))


def test_a_run_tests_on_the_source_that_is_held_out_and_resumes_no_other(folder, tmp_path, capsys):
    folder.fill(6)
    names = [row[0] for row in folder.rows]
    lines = ["image,camera,site", *(f"{name},{'XY'[name.endswith(('0', '1'))]},s{i}" for i, name in enumerate(names))]
    (folder.path / "meta.csv").write_text("\n".join(lines) + "\n")
    assert quick(folder.path, tmp_path, "--test-where", "camera=x1") == 2
    assert "The values of camera are: X (28 images), Y (14 images)." in capsys.readouterr().err
    assert quick(folder.path, tmp_path, "--subgroups", "lens") == 2
    assert "has the column lens with a known value" in capsys.readouterr().err and not (tmp_path / "outputs").exists()
    where = ("--test-where", "camera=y")
    assert quick(folder.path, tmp_path, *where, "--subgroups", "site") == 0
    tested = pd.read_csv(tmp_path / "outputs" / "splits.csv").query("split == 'test'")["image"]
    assert set(tested) == {name for name in names if name.endswith(("0", "1"))}
    found = json.loads((tmp_path / "outputs" / "classification" / "metrics.json").read_text())
    assert {one["group"] for one in found["subgroups"]} == {"camera", "site"}
    assert "the test set is camera=y (14 images)" in (tmp_path / "outputs" / "report.html").read_text()
    capsys.readouterr()
    assert quick(folder.path, tmp_path, "--resume", "--test-where", "camera=x") == 2
    assert "Cannot resume from" in capsys.readouterr().err
    assert quick(folder.path, tmp_path, "--resume", *where) == 0  # evaluated again, without the further groups
    found = json.loads((tmp_path / "outputs" / "classification" / "metrics.json").read_text())
    assert {one["group"] for one in found["subgroups"]} == {"camera"}
