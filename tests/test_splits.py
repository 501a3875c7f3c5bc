import numpy as np
import pandas as pd
import pytest

from dataset import splits
from dataset.table import LEFT_OUT, USED


def lesion_table(seed=0, n_lesions=1500):
    """A table like HAM10000's: seven classes of very different size, one to six images a lesion."""
    rng = np.random.default_rng(seed)
    label = rng.choice(7, n_lesions, p=[0.08, 0.7, 0.05, 0.04, 0.09, 0.02, 0.02])
    n_images = rng.choice([1, 2, 3, 4, 5, 6], n_lesions, p=[0.74, 0.18, 0.05, 0.01, 0.01, 0.01])
    lesion = np.repeat(np.arange(n_lesions), n_images)
    return pd.DataFrame(
        {
            "image": [f"i{i:05}" for i in range(len(lesion))],
            "lesion_id": [f"L{i}" for i in lesion],
            "label": label[lesion],
            "status": USED,
            "lesion_known": True,
        }
    )


def test_no_lesion_is_in_two_parts_and_each_class_has_its_share_to_within_a_lesion():
    table = lesion_table()
    table["split"] = splits.split_table(table, 0.15, 0.15, seed=42)
    lesions = table.groupby("lesion_id").agg(split=("split", "first"), n=("split", "nunique"), label=("label", "first"))
    assert (lesions["n"] == 1).all()
    for _, members in lesions.groupby("label"):
        for part, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert abs((members["split"] == part).sum() - share * len(members)) <= 1


def test_lesions_of_several_images_are_as_common_in_every_part():
    table = lesion_table()
    split = splits.split_table(table, 0.15, 0.15, seed=42)
    lesions = table.assign(split=split).groupby("lesion_id").agg(split=("split", "first"), n=("image", "size"))
    shares = (lesions["n"] > 1).groupby(lesions["split"]).mean()
    assert shares.max() - shares.min() < 0.02


def test_a_lesion_counts_as_its_rarest_label_and_the_first_of_equals():
    lesion = pd.Series(["b", "b", "b", "a", "a", "c", "c", "d"])
    label = pd.Series([2, 1, 1, 5, 3, 3, 5, 1])  # two images of 3 and of 5, one of 2, three of 1
    found = splits._rarest_labels(lesion, label, 1)
    assert found["label"].to_dict() == {"a": 3, "b": 2, "c": 3, "d": 1} and found["n_images"].tolist() == [2, 3, 2, 1]


def test_a_label_of_fewer_lesions_than_parts_or_none_counts_only_where_a_lesion_has_no_other():
    lesion = pd.Series(["a", "a", "b", "c", "c", "c", "d", "e"])
    label = pd.Series([4, 1, 1, -1, 1, 1, -1, 4])  # 4 is the rarest, but of two lesions
    expected = {"a": 1, "b": 1, "c": 1, "d": -1, "e": 4}
    assert splits._rarest_labels(lesion, label, 3)["label"].to_dict() == expected
    assert splits._rarest_labels(lesion, label, 2)["label"].to_dict() == expected | {"a": 4}


def of_patients(seed):
    """30 patients of 100 images; the 12 malignant ones are of ten patients."""
    rng, patient = np.random.default_rng(seed), np.repeat(np.arange(30), 100)
    malignant = 100 * np.append(rng.permutation(30)[:10], [0, 1]) + np.arange(12)
    label = pd.Categorical(
        np.where(np.isin(np.arange(3000), malignant), "malignant", "benign"), ["benign", "malignant"]
    )
    names = [f"i{i:04}" for i in range(3000)]
    return pd.DataFrame({"image": names, "lesion_id": names, "group": patient, "label": label, "status": USED})


@pytest.mark.parametrize("seed", range(8))
def test_each_part_gets_its_share_of_the_patients_with_a_malignant_image(seed):
    table = of_patients(seed)
    split = splits.split_table(table, 0.15, 0.15, seed=seed)
    whole = table.assign(split=split).groupby("group").agg(split=("split", "first"), n=("split", "nunique"))
    whole["malignant"] = (table["label"] == "malignant").groupby(table["group"]).any()
    assert (whole["n"] == 1).all()
    for kind in (True, False):
        members = whole[whole["malignant"] == kind]
        for part, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert abs((members["split"] == part).sum() - share * len(members)) <= 1


def test_a_class_that_a_part_lacks_is_named():
    table = of_patients(0)
    table["split"] = splits.split_table(table, 0.15, 0.15, seed=0)
    assert "has no image" not in splits.describe_split(table.assign(lesion_known=True), None)
    table.loc[table["label"] == "malignant", "split"] = "train"
    assert (
        "malignant has no image in val and test.\n"
        in splits.describe_split(table.assign(lesion_known=True), None) + "\n"
    )


def test_each_image_is_tested_in_one_fold_and_no_lesion_is_torn():
    table = lesion_table()
    folds = [splits.fold_split(table, 4, fold, 0.15, seed=42) for fold in range(1, 5)]
    tested = sum((fold == "test").astype(int) for fold in folds)
    assert (tested == 1).all()
    for fold in folds:
        assert (table.assign(part=fold).groupby("lesion_id")["part"].nunique() == 1).all()
        lesions = table.assign(part=fold).groupby("lesion_id").agg(part=("part", "first"), label=("label", "first"))
        for _, members in lesions.groupby("label"):
            assert abs((members["part"] == "test").sum() - len(members) / 4) <= 1
            assert abs((members["part"] == "val").sum() - 0.15 * len(members)) <= 1.2  # of what the fold leaves


def test_folds_beyond_the_first_are_those_of_the_next_seed():
    table = lesion_table()
    again = splits.fold_split(table, 3, 5, 0.15, seed=42)
    pd.testing.assert_series_equal(again, splits.fold_split(table, 3, 2, 0.15, seed=43))
    assert (again != splits.fold_split(table, 3, 2, 0.15, seed=42)).any()
    assert splits.name_of_fold(3, 5) == "fold 2 of 3, repeat 2"


def test_a_class_with_fewer_lesions_than_folds_is_named():
    table = lesion_table().assign(label=pd.Categorical(["NV"] * len(lesion_table())))
    table["label"] = table["label"].cat.add_categories("DF")
    table.loc[table["lesion_id"].isin(["L0", "L1", "L2"]), "label"] = "DF"
    with pytest.raises(ValueError, match=r"DF.* has 3 lesion\(s\), .* too few for 5 folds"):
        splits.fold_split(table, 5, 1, 0.15, seed=42)
    splits.fold_split(table, 3, 1, 0.15, seed=42)


def test_the_split_depends_on_the_seed_alone_not_on_the_rows_order():
    table = lesion_table()
    first = splits.split_table(table, 0.15, 0.15, seed=1)
    shuffled = table.sample(frac=1, random_state=3)
    pd.testing.assert_series_equal(
        splits.split_table(shuffled, 0.15, 0.15, seed=1).sort_index(), first, check_names=False
    )
    assert (splits.split_table(table, 0.15, 0.15, seed=2) != first).any()


def test_a_split_by_image_leaks_and_is_counted():
    table = lesion_table()
    table["split"] = splits.split_table(table, 0.15, 0.15, seed=42, group_by_lesion=False)
    train = set(table.loc[table["split"] == "train", "lesion_id"])
    expected = sum(lesion in train for lesion in table.loc[table["split"] == "test", "lesion_id"])
    assert splits.n_leaked(table, table["split"]) == expected > 0
    assert f"If single images were split, {expected} of" in splits.describe_split(table, table["split"])


def test_a_class_of_too_few_lesions_is_named_with_the_choices():
    table = lesion_table()
    extra = pd.DataFrame({"image": ["x", "y", "z"], "lesion_id": ["X", "X", "Y"], "label": 5, "status": USED})
    table = pd.concat([table[table["label"] != 5], extra], ignore_index=True)
    with pytest.raises(
        ValueError, match=r"DF \(Dermatofibroma\) has 2 lesion\(s\), 3 image\(s\).*--no-group-by-lesion"
    ):
        splits.split_table(table, 0.15, 0.15, seed=0)


def test_three_lesions_reach_all_three_parts():
    table = pd.DataFrame({"image": list("abc"), "lesion_id": list("abc"), "label": 0, "status": USED})
    assert sorted(splits.split_table(table, 0.15, 0.15, seed=0)) == ["test", "train", "val"]


def test_an_absent_class_is_named_and_does_not_stop():
    table = lesion_table()
    table = table[table["label"] != 6]
    table["split"] = splits.split_table(table, 0.15, 0.15, seed=0)
    assert "VASC (Vascular Lesion) has no image" in splits.describe_split(table, None)


def test_a_limit_keeps_that_many_images_of_every_class():
    table = lesion_table().assign(reason="")
    limited = splits.limit_table(table, 200, seed=0)
    used = limited[limited["status"] == USED]
    assert len(used) == 200 and (used["label"].value_counts() >= 10).all()
    assert (limited.loc[limited["status"] == LEFT_OUT, "reason"] == "beyond --limit").all()
    with pytest.raises(ValueError, match="too few"):
        splits.limit_table(table, 20, seed=0)


def test_a_class_too_small_for_a_split_by_image_does_not_stop_a_split_by_lesion():
    """One DF image inside a nevus lesion: a class of one image, and of no lesion."""
    table = lesion_table()
    table = table[table["label"] != 5].reset_index(drop=True)
    nevus = table.loc[(table["label"] == 1) & table["lesion_id"].duplicated(keep=False)].index[0]
    table.loc[nevus, "label"] = 5
    table["split"] = splits.split_table(table, 0.15, 0.15, seed=0)
    by_image = splits.split_by_image(table, 0.15, 0.15, seed=0)
    assert by_image is None
    assert "A split by image is impossible" in splits.describe_split(table, by_image)


def test_lesions_that_are_not_known_are_not_called_separate():
    table = lesion_table().assign(lesion_known=False)
    table["lesion_id"] = table["image"]
    table["split"] = splits.split_table(table, 0.15, 0.15, seed=0)
    text = splits.describe_split(table, splits.split_by_image(table, 0.15, 0.15, seed=0))
    assert f"Lesion ids are known for 0 of {len(table)} images" in text and "would share a" not in text


def test_each_part_gets_its_own_share_of_the_lesions():
    split = splits.split_table(lesion_table(), 0.1, 0.3, seed=42)
    lesions = lesion_table().assign(split=split).groupby("lesion_id")["split"].first().value_counts(normalize=True)
    assert lesions.to_dict() == pytest.approx({"train": 0.6, "val": 0.1, "test": 0.3}, abs=0.01)


def test_the_lesion_of_the_most_images_is_dealt_first_and_to_the_largest_part():
    rows = {"image": list("abcdefg"), "lesion_id": list("xyzzzzz"), "label": 0, "status": USED}
    table = pd.DataFrame(rows)
    assert set(splits.split_table(table, 0.15, 0.15, seed=0)[2:]) == {"train"}


def test_the_hash_of_a_split_knows_names_labels_parts_and_pixels_and_no_order_or_folder():
    table = pd.DataFrame(
        {"image": ["a", "b"], "label": [0, 1], "split": ["train", "test"], "status": USED, "crc": [1, 2]}
    )
    known = splits.split_hash(table.assign(image_path="here"))
    assert splits.split_hash(table[::-1].assign(image_path="there")) == known
    changes = {
        "image": ["a", "c"],
        "label": [0, 0],
        "split": ["train", "val"],
        "status": [USED, LEFT_OUT],
        "crc": [1, 3],
    }
    assert all(splits.split_hash(table.assign(**{name: values})) != known for name, values in changes.items())


def test_the_smallest_limit_is_ten_images_of_each_class():
    table = lesion_table().assign(reason="")
    assert (splits.limit_table(table, 70, seed=0)["status"] == USED).sum() == 70
    with pytest.raises(ValueError, match="--limit 69 is too few: 7 classes need ten images each"):
        splits.limit_table(table, 69, seed=0)


def test_too_few_images_without_a_diagnosis_are_not_said_to_be_of_a_class():
    labels = pd.Categorical(["A"] * 4 + ["B"] * 4 + [None], categories=["A", "B"])
    names = [f"image{k}" for k in range(len(labels))]
    table = pd.DataFrame({"image": names, "lesion_id": names, "status": "used", "label": labels})
    with pytest.raises(ValueError, match="Without a diagnosis, the data has 1 lesion") as error:
        splits.fold_split(table, 2, 1, 0.2, 42)
    assert "Class" not in str(error.value) and "--classes" not in str(error.value)


@pytest.mark.parametrize(
    ("lesion_known", "patient", "unit"),
    [
        ([False, False], [np.nan, np.nan], "image"),
        ([False, True], [np.nan, np.nan], "lesion"),
        ([False, False], ["p", np.nan], "patient"),
        ([True, True], ["p", "q"], "lesion or patient"),
    ],
)
def test_a_split_is_called_by_what_is_known(lesion_known, patient, unit):
    table = pd.DataFrame({"lesion_known": lesion_known, "patient_id": patient})
    assert splits.unit_of(table) == unit
    assert f"of a cross-validation by {unit}, stratified" in splits.describe_fold(5, 2, 0.15, 42, unit)
