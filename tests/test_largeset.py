import numpy as np
import pandas as pd
import pytest

from dataset import largeset
from dataset.__main__ import main
from dataset.synthetic import shows_drawing
from dataset.table import read_table


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    place = tmp_path_factory.mktemp("large") / "set"
    main(["draw", str(place), "--images", "400", "--size", "32"])
    return place


def test_it_has_the_images_patients_and_rare_malignant_lesions_of_isic_2024(large):
    table = read_table(large)
    assert len(table) == len(list((large / "train-image" / "image").iterdir())) == 400
    assert table["image_path"].ne("").all() and table["patient_id"].nunique() == largeset.FEWEST_PATIENTS
    malignant = table[table["label"] == "malignant"]
    assert malignant["lesion_id"].nunique() == largeset.FEWEST_MALIGNANT and set(table["label"]) == {
        "benign",
        "malignant",
    }
    plan = largeset.plan_of(100_000, 1)
    assert 80 <= plan["malignant"].sum() <= 200 and plan["patient"].nunique() == 100_000 // 385
    assert plan.groupby("lesion")["patient"].nunique().max() == plan.groupby("lesion")["malignant"].nunique().max() == 1
    assert plan["lesion"].value_counts().value_counts().loc[2:].gt(5_000).all()  # siblings


def test_the_known_duplicates_show_the_same_picture_under_another_lesion_id():
    plan = largeset.plan_of(3000, 5)
    pairs, row = largeset._known_pairs(plan), plan.set_index("image")
    drawn = pd.concat(largeset._tasks(plan)).assign(name=lambda table: table["image"]).set_index("name")
    assert len(pairs) > 10 and set(pairs["kind"]) == {"same file", "same picture"}
    for a, b, kind in pairs.itertuples(index=False):
        assert row.loc[a, "lesion"] != row.loc[b, "lesion"] and row.loc[a, "malignant"] == row.loc[b, "malignant"]
        files = largeset._draw(drawn.loc[[a, b]].set_index(plan.index[plan["image"].isin([a, b])]), 32, 5)
        assert (files[a] == files[b]) == (kind == "same file")


def test_the_same_seed_draws_the_same_set_and_hdf5_holds_the_same_files(tmp_path):
    h5py = pytest.importorskip("h5py")
    for name, options in {"a": {}, "b": {"hdf5": True}, "c": {"seed": 8}}.items():
        largeset.write_large(tmp_path / name, 200, 32, **{"seed": 7} | options)
    files = {path.stem: path.read_bytes() for path in (tmp_path / "a" / "train-image" / "image").iterdir()}
    with h5py.File(tmp_path / "b" / "train-image.hdf5") as stored:
        assert {name: stored[name][()].tobytes() for name in stored} == files
    assert shows_drawing(tmp_path / "a" / "train-image" / "image" / "ISIC_0000001.jpg")
    tables = [(tmp_path / name / "train-metadata.csv").read_bytes() for name in "abc"]
    assert tables[0] == tables[1] != tables[2]
    assert {path.read_bytes() for path in (tmp_path / "c" / "train-image" / "image").iterdir()}.isdisjoint(
        files.values()
    )


@pytest.mark.parametrize("options", [["--images", "10"], ["--images", "400", "--size", "8"]])
def test_a_set_that_is_too_small_is_refused_before_anything_is_written(tmp_path, capsys, options):
    with pytest.raises(SystemExit) as stop:
        main(["draw", str(tmp_path / "set"), *options])
    assert stop.value.code == 2 and "200 images of 32 pixels" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["--hdf5"], ["--size", "64"]])
def test_flags_of_a_large_set_without_a_number_of_images_are_refused(tmp_path, capsys, options):
    with pytest.raises(SystemExit) as stop:
        main(["draw", str(tmp_path / "set"), *options])
    assert stop.value.code == 2 and "need --images" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_without_h5py_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(largeset, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="requirements-hdf5"):
        largeset.write_large(tmp_path / "set", 200, 32, hdf5=True)
    assert not list(tmp_path.iterdir())


def test_no_copy_repeats_a_copy_and_each_picture_of_a_lesion_is_another():
    plan = largeset.plan_of(50_000, 3)
    shows = plan["shows"].to_numpy()
    assert (shows[shows] == shows).all() and (shows <= np.arange(len(plan))).all()
    assert pd.Series(shows).nunique() == len(plan) - len(largeset._known_pairs(plan))
