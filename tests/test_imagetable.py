"""images.csv, by hand and against the files beside it."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import quick

from dataset.classes import HAM10000 as CLASSES
from dataset.columns import FURTHER
from dataset.table import USED
from measure.calls import read_logits
from measure.collect import Collected
from measure.imagetable import dictionary, image_table, probability_columns


@pytest.fixture(scope="module")
def written(demo_folder, made_once):
    """The folder of a multi-task model, with the images of all parts; not to be changed."""

    def make(place):
        assert quick(demo_folder, place, "--tasks", "multitask", "--all-parts") == 0

    return made_once("all-parts", make) / "outputs" / "multitask"


def test_every_image_of_every_part_has_one_row(written):
    table, splits = pd.read_csv(written / "images.csv"), pd.read_csv(written.parent / "splits.csv")
    known = splits.set_index("image")
    assert sorted(table["image"]) == sorted(known.index)
    assert (table["part"].to_numpy() == known.loc[table["image"], "split"].to_numpy()).all()
    assert (table["lesion"].to_numpy() == known.loc[table["image"], "lesion_id"].to_numpy()).all()


def test_the_test_images_are_those_of_the_other_tables(written):
    table = pd.read_csv(written / "images.csv").query("part == 'test'").reset_index(drop=True)
    predictions, masks = pd.read_csv(written / "predictions.csv"), pd.read_csv(written / "per_image_native.csv")
    for column in ("image", "true", "predicted", "balanced"):
        assert (table[column] == predictions[column]).all()
    assert (table["correct"] == (predictions["true"] == predictions["predicted"])).all()
    np.testing.assert_allclose(table[probability_columns(CLASSES)], predictions[list(CLASSES)], rtol=1e-5)
    np.testing.assert_allclose(table["confidence"], predictions[list(CLASSES)].max(axis=1), rtol=1e-5)
    for ours, theirs in {"dice": "dice", "jaccard": "iou", "hd95": "hd95"}.items():
        np.testing.assert_allclose(table[ours], masks.set_index("image").loc[table["image"], theirs], rtol=1e-5)
    assert table["set"].str.split().map(len).min() >= 1 and table["set"].str.split().explode().isin(CLASSES).all()


def test_numbers_have_six_significant_digits_at_most(written):
    cells = re.split("[,\n]", (written / "images.csv").read_text())
    digits = [
        re.sub(r"e[-+]\d+", "", cell).replace(".", "").lstrip("0") for cell in cells if re.match(r"\d*\.\d", cell)
    ]
    assert digits and max(map(len, digits)) == 6


def test_every_column_has_its_meaning(written):
    columns, text = list(pd.read_csv(written / "images.csv")), (written / "columns.md").read_text()
    assert re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE) == columns
    assert "As in the data. |" not in text.replace(", as in the data", "") and "| `p_DF` | Calibrated" in text
    assert "`diameter` | As in the data." in dictionary(["diameter"], [])


def test_columns_of_classes_suit_spss_and_stay_apart():
    names = probability_columns(["MEL", "basal cell", "basal-cell", "basal cell_2", "Läsion 1", "%"])
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[^\W\d]\w*", name) for name in names)


@pytest.mark.parametrize(
    "classes", [["stage_2", "stage"], ["grade 1", "grade 3", "grade"], ["a", "A"], ["a_2", "a", "a "]]
)
def test_each_class_has_a_column_of_its_own(classes):
    names = probability_columns(np.array(classes, object))
    assert len({name.lower() for name in names}) == len(classes)


def test_a_column_of_the_data_keeps_its_name_and_replaces_none_of_ours():
    label = pd.Categorical(["NV"], ["MEL", "NV"])
    rows = pd.DataFrame({"image": ["a"], "lesion_id": ["l"], "status": USED, "label": label})
    given = {"bmi": [21.0], "true": ["said"], "p MEL": [3.0], "%": [4]}
    rows = rows.assign(**{FURTHER + name: values for name, values in given.items()})
    fitted = {
        "temperature": 1.0,
        "tau": 0.0,
        "prior": [0.5, 0.5],
        "scale": "calibrated",
        "thresholds": {"melanoma": None},
    }
    calls = read_logits(np.log([[0.25, 0.75]]), fitted, ["MEL", "NV"])
    row = image_table(rows, Collected(calls=calls), "test").iloc[0]
    assert row[["bmi", "true", "true_2", "p_MEL", "p_MEL_2", "column"]].tolist() == [21, "NV", "said", 0.25, 3, 4]


def test_a_prediction_is_correct_by_the_likeliest_class():
    rows = pd.DataFrame({"image": ["a", "b"], "lesion_id": ["l", "m"], "status": USED})
    rows["label"] = pd.Categorical(["NV", "MEL"], ["MEL", "NV"])
    fitted = {
        "temperature": 1.0,
        "tau": 1.0,
        "prior": [0.1, 0.9],
        "scale": "calibrated",
        "thresholds": {"melanoma": None},
    }
    calls = read_logits(np.log([[0.25, 0.75], [0.25, 0.75]]), fitted, ["MEL", "NV"])
    table = image_table(rows, Collected(calls=calls), "test")
    assert table["predicted"].tolist() == ["NV", "NV"] and table["balanced"].tolist() == ["MEL", "MEL"]
    assert table["correct"].tolist() == [1, 0]
