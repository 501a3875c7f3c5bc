"""Lesions and patients, joined: whoever shares either is one group in the split, the audit and the intervals."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import picture

from dataset import leakage, splits
from dataset.choice import Choice
from dataset.groups import groups_of, join_groups, name_within_patients
from dataset.layout import find
from dataset.prepare import Reading, Splitting, decode, split
from dataset.table import USED, read_layout, read_table
from measure import assess as assessing
from report.folder import RunFolder


def test_whoever_shares_a_lesion_or_a_patient_is_one_group_also_through_others():
    table = pd.DataFrame(
        {"lesion_id": ["A", "A", "B", "C", "D", "E"], "patient_id": ["1", "2", "2", "3", np.nan, np.nan]}, dtype=object
    )
    assert list(join_groups(table)) == ["A", "A", "A", "C", "D", "E"]


def test_without_patients_groups_are_the_lesions():
    table = pd.DataFrame({"lesion_id": ["b", "a", "b"], "patient_id": [np.nan] * 3}, dtype=object)
    assert list(join_groups(table)) == ["b", "a", "b"]
    assert list(groups_of(table)) == ["b", "a", "b"] and list(groups_of(table.assign(group="g"))) == ["g"] * 3


def test_a_lesion_and_a_patient_of_the_same_name_are_not_the_same():
    table = pd.DataFrame({"lesion_id": ["1", "2"], "patient_id": ["2", "3"]}, dtype=object)
    assert join_groups(table).nunique() == 2


def patients_folder(place, header="image,label,lesion_id,patient_id", n_patients=12):
    (place / "images").mkdir(parents=True)
    lines = [header]
    for k in range(36):
        picture(k).save(place / "images" / f"i{k}.png")
        patient = k % n_patients
        lines.append(f"i{k},{'mel' if patient % 2 else 'nv'},{k},P{patient}")
    (place / "t.csv").write_text("\n".join(lines) + "\n")
    return place


def test_no_patient_is_in_two_parts(tmp_path):
    place = patients_folder(tmp_path / "data")
    reading, said = Reading(), []
    prepared = split(decode(place, reading, image_size=32, cache_dir=tmp_path / "c", say=str), reading, say=said.append)
    assert prepared.table.groupby("patient_id")["split"].nunique().max() == 1
    assert prepared.table["lesion_id"].nunique() == 36
    assert "would share a lesion or patient with train; in this split, 0 do" in said[0]


@pytest.mark.parametrize("name", ["patient_id", "Patient ID", "patient", "PID", "Patient Number", "patient_no"])
def test_patients_alone_are_enough(tmp_path, name):
    place = patients_folder(tmp_path / "data", f"image,label,number,{name}")
    table = read_table(place)
    assert table["group"].nunique() == 12 and not table["lesion_known"].any()
    assert "A split by image is impossible" in splits.describe_split(table.assign(split="train"), None)


def test_unknown_patients_are_not_one_patient(tmp_path):
    place = patients_folder(tmp_path / "data")
    text = (place / "t.csv").read_text()
    (place / "t.csv").write_text(text.replace(",P0\n", ",unknown\n").replace(",P1\n", ",\n"))
    table = read_table(place)
    assert table["patient_id"].isna().sum() == 6 and table["group"].nunique() == 10 + 6


def test_without_either_the_run_says_that_it_cannot_know():
    table = pd.DataFrame({"image": list("ab"), "lesion_id": list("ab"), "label": 0, "status": USED})
    table = table.assign(lesion_known=False, patient_id=np.nan, split="train")
    assert "may be in several parts, which cannot be checked" in splits.describe_split(table, None)


def test_images_of_a_patient_are_pairs_and_those_of_none_are_not():
    thumbnails = np.random.default_rng(0).integers(0, 255, (4, 96, 96, 3)).astype(np.uint8)
    table = pd.DataFrame({"image": list("abcd"), "lesion_id": list("aacd"), "digest": list("wxyz"), "row": range(4)})
    table["patient_id"] = pd.Series(["P", "P", "P", np.nan], dtype=object)
    pairs = leakage.find_pairs(table, thumbnails)
    assert pairs[["image_a", "image_b", "kind"]].values.tolist() == [
        ["a", "b", "same lesion"],
        ["a", "c", "same patient"],
        ["b", "c", "same patient"],
    ]
    text = leakage.describe_pairs(pairs.assign(crosses=True, crosses_by_image=False))
    assert "2 pairs of the same patient: 2 cross the split" in text
    assert "patient" not in leakage.describe_pairs(pairs[:1].assign(crosses=True, crosses_by_image=False))


def test_duplicates_join_the_groups_of_their_patients(tmp_path):
    place = patients_folder(tmp_path / "data")
    (place / "images" / "i2.png").write_bytes((place / "images" / "i0.png").read_bytes())  # of P2 and of P0
    reading = Reading()
    decoded = decode(place, reading, image_size=32, cache_dir=tmp_path / "c", say=str)
    table = split(decoded, reading, Splitting(join_duplicates=True), str).table.set_index("image")
    assert table["group"]["i0"] == table["group"]["i2"] == table["group"]["i14"] and table["group"].nunique() == 11
    assert table.loc[table["patient_id"].isin(["P0", "P2"]), "split"].nunique() == 1


class Recorded(Exception):
    """What the bootstrap was given."""


def test_intervals_are_those_of_groups(monkeypatch):
    def record(groups):
        raise Recorded(list(groups))

    table = pd.DataFrame(
        {"image": list("ab"), "lesion_id": list("ab"), "group": ["g", "g"], "label": 0, "status": USED}
    )
    collected = SimpleNamespace(label=None, mask=None, of=lambda some: None)
    collected._replace = lambda **_: collected
    monkeypatch.setattr(assessing, "collect", lambda *_: collected)
    monkeypatch.setattr(assessing.bootstrap, "resample_lesions", record)
    with pytest.raises(Recorded, match="'g', 'g'"):
        assessing.assess(None, SimpleNamespace(table=table), {}, "x")


@pytest.mark.parametrize("patients", [False, True])
def test_the_groups_stand_in_splits_csv_where_patients_are_known(tmp_path, patients):
    table = pd.DataFrame({"image": list("ab"), "label": pd.Categorical(["NV", "NV"]), "lesion_id": list("ab")})
    table = table.assign(split="train", status=USED, reason="", group=["a", "a"] if patients else ["a", "b"])
    folder = RunFolder(tmp_path)
    folder.write_data(table)
    columns = list(pd.read_csv(tmp_path / "splits.csv"))
    assert columns == ["image", "label", "lesion_id", "split"] + ["group"] * patients


def test_a_number_that_pandas_wrote_with_a_point_is_the_same_patient(folder):
    for name in ("a", "b"):
        folder.add(name)
    path = folder.write().path
    (path / "a_meta.csv").write_text("image,patient_id\na,5.0\n")
    (path / "b_meta.csv").write_text("image,patient_id\nb,5\n")
    table = read_table(path)
    assert list(table["patient_id"]) == ["5", "5"] and table["group"].nunique() == 1


@pytest.mark.parametrize("number", ["{}", "{}.0", "L{}", "lesion_{}"])
def test_lesion_numbers_that_begin_anew_with_each_patient_are_of_the_patient(tmp_path, number):
    place = patients_folder(tmp_path / "data")
    lines = [f"i{k},{'mel' if k % 2 else 'nv'},{number.format(k // 12 + 1)},P{k % 12}" for k in range(36)]
    (place / "t.csv").write_text("\n".join(["image,label,lesion_id,patient_id", *lines]))
    layout = find(place)
    table, remarks = read_layout(layout, Choice({}))
    assert table["group"].nunique() == 12 and table["lesion_id"].nunique() == 36
    assert table["lesion_id"][0] == f"P0/{number.format(1).removesuffix('.0')}"
    assert "Lesion numbers restart with each patient: a lesion is named patient/number." in remarks


HALF = ["7", "7", "8", "7", "9", "10"]  # only half of the images have a number that several patients share


@pytest.mark.parametrize("lesions", [["7", "7", "8", "9", "10", "11"], HALF, ["HAM_0000118"] * 4 + ["HAM_0000119"] * 2])
def test_a_lesion_that_few_patients_share_or_that_is_no_small_number_joins_them(lesions):
    patient = pd.Series(["A", "B", "A", "B", "C", "D"])
    assert name_within_patients(pd.Series(lesions), patient)[0].tolist() == lesions
    table = pd.DataFrame({"lesion_id": lesions, "patient_id": patient})
    assert join_groups(table)[:4].nunique() == 1


@pytest.mark.parametrize("name", ["lesion", "Lesion Number", "lesionId"])
def test_lesions_are_known_by_other_names_too(tmp_path, name):
    table = read_table(patients_folder(tmp_path / "data", f"image,label,{name},number"))
    assert table["lesion_known"].all() and table["lesion_id"].nunique() == 36


def test_a_column_lesion_of_words_is_of_diagnoses(tmp_path):
    place = patients_folder(tmp_path / "data", "image,lesion,number,remark")
    table = read_table(place)
    assert not table["lesion_known"].any() and set(table["label"]) == {"MEL", "NV"}


def test_patients_by_names_of_several_images_are_named_with_what_to_write(tmp_path):
    for site in "ab":
        for k in range(3):
            (tmp_path / site).mkdir(exist_ok=True)
            picture(k + 10 * (site == "b")).save(tmp_path / site / f"{k}.png")
    cells = [f"{site}/{k}.png" for site in "ab" for k in range(3)]
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(f"{cell},{cell[0]}\n" for cell in cells))
    (tmp_path / "patients.csv").write_text("image,patient_id\n" + "".join(f"{k}.png,P\n" for k in range(3)))
    _, said = read_layout(find(tmp_path), Choice({}))
    assert "3 names in patients.csv (e.g. 0.png) match several images" in said[-1] and "as in a/0.png." in said[-1]
    (tmp_path / "patients.csv").write_text("image,patient_id\n" + "".join(f"{cell},P\n" for cell in cells))
    assert read_table(tmp_path)["group"].nunique() == 1
