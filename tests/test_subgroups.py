"""Scores by group of images, the gaps between groups, and the biopsied images."""

import numpy as np
import pandas as pd
import pytest
from conftest import assess_rows, probabilities_in
from sklearn.metrics import recall_score, roc_auc_score

import data
import train
from dataset.classes import HAM10000 as CLASSES
from dataset.columns import FURTHER, GROUPED
from dataset.table import USED
from measure import bootstrap, subgroups, tables
from measure.calls import read_logits
from measure.collect import Collected

CALIBRATION = {"temperature": 2.0, "thresholds": {"melanoma": 0.2, "malignant": None}, "prior": [1 / 7] * 7, "tau": 0}


def made(n=240, **columns):
    """n images of lesions of one and of three in turn, with logits that lean towards the labels, and masks."""
    rng = np.random.default_rng(0)
    true = rng.choice(3, n)  # MEL, NV, BCC
    rows = pd.DataFrame({"image": [f"i{i}" for i in range(n)], "status": USED, "lesion_id": np.arange(n) // 4 * 2})
    rows["lesion_id"] += np.arange(n) % 4 == 3
    rows["label"] = pd.Categorical.from_codes(true, CLASSES)
    rows["mask_path"] = "a.png"
    logits = rng.normal(size=(n, 7)) + 2 * np.eye(7)[true]
    counts = rng.integers(1, 100, (n, 4)).astype(float)
    return rows.assign(**columns), Collected(label=logits, mask=counts)


def measured_groups(rows, collected, calibration=CALIBRATION):
    resamples = bootstrap.resample_lesions(rows["lesion_id"], 300)
    if collected.label is not None:
        collected = collected._replace(calls=read_logits(collected.label, calibration, CLASSES))
    groups, gaps = subgroups.subgroup_numbers(rows, collected, resamples)
    return {(one["group"], one["value"]): one for one in groups}, {one["group"]: one for one in gaps}, resamples


def test_lesions_that_nothing_is_known_of_are_not_counted():
    rows, collected = made(sex=np.resize(["female", "male", "male"], 240))
    unknown = rows.assign(lesion_id=rows["image"])
    for table, is_known in (
        (rows, True),
        (unknown, False),
        (unknown.assign(lesion_id=["L", *rows["image"][1:]]), True),
    ):
        found = measured_groups(table, collected)[0]
        assert {"n_lesions" in one for one in found.values()} == {is_known}


def softmax(logits):
    e = np.exp(logits / CALIBRATION["temperature"])
    return e / e.sum(axis=1, keepdims=True)


def test_each_groups_scores_are_those_of_its_images():
    """Against scikit-learn, and shares counted by hand."""
    rows, collected = made(sex=np.resize(["female", "male", "male"], 240))
    found = measured_groups(rows, collected)[0]
    for sex in ("female", "male"):
        chosen = (rows["sex"] == sex).to_numpy()
        true, p = rows["label"].cat.codes.to_numpy()[chosen], softmax(collected.label)[chosen]
        one, called, malignant = found["sex", sex], p[:, 0] >= 0.2, np.isin(true, [0, 2, 3])  # MEL, BCC, AKIEC
        assert (one["n_images"], one["n_lesions"]) == (chosen.sum(), rows["lesion_id"][chosen].nunique())
        assert (one["n_melanomas"], one["n_malignant"]) == ((true == 0).sum(), malignant.sum())
        assert one["accuracy"] == pytest.approx((p.argmax(axis=1) == true).mean())
        assert one["balanced_accuracy"] == pytest.approx(
            recall_score(true, p.argmax(axis=1), labels=np.unique(true), average="macro")
        )
        assert one["melanoma_sensitivity"] == pytest.approx(called[true == 0].mean())
        assert one["melanoma_specificity"] == pytest.approx((~called)[true != 0].mean())
        assert one["malignant_auc"] == pytest.approx(roc_auc_score(malignant, p[:, [0, 2, 3]].sum(axis=1)))
        tp, fp, fn, _ = collected.mask[chosen].T
        assert one["mean_dice"] == pytest.approx((2 * tp / (2 * tp + fp + fn)).mean())


def test_intervals_are_of_the_groups_own_lesions_and_a_gaps_of_both_groups_in_the_same_resamples():
    rows, collected = made(sex=np.where(np.arange(240) < 90, "female", "male"))
    found, gaps, resamples = measured_groups(rows, collected)
    right = collected.label.argmax(axis=1) == rows["label"].cat.codes
    weights = np.concatenate(list(resamples.blocks()))
    drawn = {sex: weighted(right, weights * (rows["sex"] == sex).to_numpy()) for sex in ("female", "male")}
    for sex, values in drawn.items():
        expected = np.percentile(values, [2.5, 97.5])
        assert found["sex", sex]["intervals"]["accuracy"] == pytest.approx(expected)
    gap = gaps["sex"]["scores"]["accuracy"]
    better, worse = sorted(drawn, key=lambda sex: -found["sex", sex]["accuracy"])
    assert (gap["higher"], gap["lower"]) == (better, worse)
    assert gap["difference"] == pytest.approx(found["sex", better]["accuracy"] - found["sex", worse]["accuracy"])
    assert gap["difference"] > 0
    assert gap["interval"] == pytest.approx(np.percentile(drawn[better] - drawn[worse], [2.5, 97.5]))


def weighted(values, weights):
    return (weights @ values) / weights.sum(axis=1)


def test_a_group_of_one_lesion_has_no_interval_and_makes_no_gap():
    """Its three images are all right, so that it would be the best group."""
    rows, collected = made()
    rows["dataset"] = np.where(rows["lesion_id"] == 0, "tiny", np.where(np.arange(240) % 8 < 4, "a", "b"))
    collected.label[:3] = 50 * np.eye(7)[rows["label"].cat.codes[:3]]
    found, gaps, _ = measured_groups(rows, collected)
    tiny = found["dataset", "tiny"]
    assert (tiny["n_images"], tiny["n_lesions"], tiny["accuracy"]) == (3, 1, 1)
    names = [name for name in tiny["intervals"] if not name.endswith(bootstrap.KIND)]
    assert len(names) == 6 and [tiny["intervals"][name] for name in names] == [None] * 6
    assert found["dataset", "a"]["intervals"]["accuracy"]
    assert {gap[end] for gap in gaps["dataset"]["scores"].values() for end in ("higher", "lower")} == {"a", "b"}


def test_a_gap_in_a_score_needs_ten_lesions_of_each_kind_in_both_groups():
    """Melanomas for sensitivity, every class for balanced accuracy."""
    rows, collected = made(sex=np.resize(["female"] * 4 + ["male"] * 4, 240))
    assert len(measured_groups(rows, collected)[1]["sex"]["scores"]) == 6
    melanoma = np.flatnonzero((rows["sex"] == "female") & (rows["label"] == "MEL"))
    rows.loc[melanoma[4:], "label"] = "NV"
    gaps = measured_groups(rows, collected)[1]["sex"]["scores"]
    assert gaps.keys() == {"accuracy", "melanoma_specificity", "malignant_auc", "mean_dice"}


def test_as_many_lesions_as_a_gap_needs_are_enough(monkeypatch):
    rows, collected = made(sex=np.resize(["female"] * 4 + ["male"] * 4, 240))
    melanomas = rows[rows["label"] == "MEL"].groupby("sex")["lesion_id"].nunique()
    for fewest, is_given in ((melanomas.min(), True), (melanomas.min() + 1, False)):
        monkeypatch.setattr(subgroups, "FEWEST", fewest)
        assert ("melanoma_sensitivity" in measured_groups(rows, collected)[1]["sex"]["scores"]) == is_given


def test_missing_values_are_a_group_of_their_own_and_all_groups_add_up(measured):
    found, rows = measured[3], measured[1].table
    right = probabilities_in(measured[-1])[1].argmax(axis=1) == rows["label"].cat.codes
    for group in ("age", "sex", "localization"):
        members = [row for row in found["subgroups"] if row["group"] == group]
        assert sum(row["n_images"] for row in members) == len(rows)
        weighted_sum = sum(row["accuracy"] * row["n_images"] for row in members)
        assert weighted_sum / len(rows) == pytest.approx(right.mean())
        unknown = [row["n_images"] for row in members if row["value"] == "unknown"]
        assert unknown == [n for n in [rows[group].isna().sum()] if n]


def test_a_table_that_knows_no_column_of_groups_has_none(measured):
    found = assess_rows(measured, measured[1].table.drop(columns=[*GROUPED]))
    assert found["subgroups"] == found["gaps"] == [] and "biopsied" not in found


def values_of(column, values):
    return list(subgroups.ordered_groups(column, pd.Series(values)).cat.categories)


def test_groups_stand_in_their_natural_order():
    assert values_of("fitzpatrick_skin_type", ["V", "III", "I", "IV", "VI", "II"]) == [
        "I",
        "II",
        "III",
        "IV",
        "V",
        "VI",
    ]
    assert values_of("fitzpatrick_skin_type", ["Type V", "type iii", None, "Type IV"]) == [
        "type iii",
        "Type IV",
        "Type V",
    ]
    assert values_of("sex", ["a", "c", "b", "c", "b", "c"]) == ["c", "b", "a"]
    assert values_of(f"{FURTHER}level", ["10", "9", None, "100", "9.5"]) == ["9", "9.5", "10", "100"]
    assert values_of("age", [70.0, 10.0]) == ["under 40", "40 to 59", "60 and over"]


def test_a_column_of_many_numbers_is_cut_at_its_quartiles():
    bands = subgroups.ordered_groups(f"{FURTHER}mm", pd.Series([*map(str, range(1, 18)), None]))
    expected = ["up to 5", "over 5, up to 9", "over 9, up to 13", "over 13"]
    assert list(bands.cat.categories) == expected and bands.isna().tolist() == [False] * 17 + [True]
    assert bands.value_counts(sort=False).tolist() == [5, 4, 4, 4]
    one_value_but_a_few = pd.Series(["0"] * 100 + [str(i) for i in range(1, 12)])
    assert values_of(f"{FURTHER}mm", one_value_but_a_few) == ["all"]


def test_large_numbers_that_lie_close_together_have_bands_with_different_names():
    """As days of one month, 20240101 and on, whose first six digits are the same."""
    expected = ["up to 20240105", "over 20240105, up to 20240109", "over 20240109, up to 20240113", "over 20240113"]
    assert values_of(f"{FURTHER}day", [str(20240100 + day) for day in range(1, 18)]) == expected


def test_ages_fall_into_bands():
    bands = subgroups.ordered_groups("age", pd.Series([0, 35, 40.0, 59.5, 60, 85, np.nan])).astype(object)
    expected = ["under 40", "under 40", "40 to 59", "40 to 59", "60 and over", "60 and over", None]
    assert bands.where(bands.notna(), None).tolist() == expected


def test_of_many_values_the_largest_groups_are_shown_and_the_others_counted():
    """Of 60 cameras the first 20 have more images than the others."""
    camera = [f"c{i % 20 if i < 120 else i // 3}" for i in range(240)]
    rows, collected = made(**{f"{FURTHER}camera": camera})
    found, gaps, _ = measured_groups(rows, collected)
    assert [value for _, value in found] == sorted(f"c{i}" for i in range(20))
    assert (gaps["camera"]["n_values_not_shown"], gaps["camera"]["n_images_not_shown"]) == (40, 120)


def test_biopsied_are_those_proved_by_histopathology():
    values = ["histo", "Histopathology", "confocal", "follow_up", None, "consensus"]
    assert subgroups.is_biopsied(pd.DataFrame({"dx_type": values})).tolist() == [True, True, *[False] * 4]
    assert not subgroups.is_biopsied(pd.DataFrame({"dx_type": [np.nan, np.nan]})).any()


def test_the_biopsied_images_have_numbers_of_their_own_on_the_console_too(measured):
    rows = measured[1].table.assign(dx_type="follow_up")
    rows.loc[rows.index[::3], "dx_type"] = "histo"
    found, alone = assess_rows(measured, rows), assess_rows(measured, rows[::3].assign(dx_type="consensus"))
    for head, score in (("label", "accuracy"), ("mask", "mean_dice")):
        assert found["biopsied"][head][score] == pytest.approx(alone[head][score])
        assert found["biopsied"][head][score] != pytest.approx(found[head][score], abs=1e-6)
    assert found["biopsied"]["label"]["malignant"] == pytest.approx(alone["label"]["malignant"])
    assert found["biopsied"]["n_images"] == found["biopsied"]["label"]["n_images"] == len(rows[::3])
    *_, shown = tables.console_table("a", found).partition("Biopsied only: ")
    assert shown.startswith(f"{len(rows[::3])} images of {rows['lesion_id'][::3].nunique()} lesions")
    assert (
        f"top-1 {alone['label']['accuracy']:.3f}" in shown
        and f"Mean Dice          {alone['mask']['mean_dice']:.3f}" in shown
    )
    assert "Biopsied" not in tables.console_table("a", alone)
    unknown = assess_rows(measured, rows.assign(lesion_id=rows["image"], lesion_known=False))
    assert unknown["biopsied"]["n_lesions"] is None
    shown = tables.console_table("a", unknown).partition("Biopsied only: ")[2]
    assert shown.startswith(f"{len(rows[::3])} images, diagnosed by histopathology")


def test_what_is_known_of_an_image_beside_its_pixels_never_reaches_a_model(measured):
    """dx_type gives the diagnosis away: the batches, targets and losses are the same whatever it says."""
    _, batches, *_ = measured
    rows = batches.table.assign(**{name: "x" for name in GROUPED if name != "age"}, age=99.0)
    assert (rows["dx_type"] != batches.table["dx_type"]).all()
    ours, theirs = (data.Batches(batches.pixels, table, 16, augment=("flips",)) for table in (batches.table, rows))
    for one, other in zip(ours.epoch(3), theirs.epoch(3), strict=True):
        assert one.keys() == other.keys() <= {"image", "label", "mask", *train.LOSSES}
        assert "dx_type" not in one and all((one[name] == other[name]).all() for name in one)
