"""Runs whose test sets differ, and pooled folds: which images are compared, and what is said of the others."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import edit
from test_comparison import TRUE, compared, first_is, refuse, rewrite, write, write_run

NAMES = ["i1", "i2", "i3", "i4"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with two finished runs, a and b, of one setting."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 1), ("b", 2)):
        write_run(tmp_path / name, seed, images=NAMES)
    return tmp_path


def test_only_the_images_that_both_tested_count_and_the_others_are_counted(place, capsys):
    for name in ("splits.csv", *(f"segmentation/per_image{end}.csv" for end in ("", "_native"))):
        rewrite(place / "b" / name, first_is("image", "other"))
    rewrite(place / "b/classification/predictions.csv", lambda table: table[1:])
    labels, masks = compared("a", "b")["differences"]
    printed = " ".join(capsys.readouterr().out.split())
    dice = [pd.read_csv(place / name / "segmentation/per_image.csv")["dice"][1:].mean() for name in "ab"]
    assert masks["mean_dice"]["difference"] == pytest.approx(dice[1] - dice[0])
    assert [(row["n_images"], row["n_lesions"]) for row in (labels, masks)] == [(3, 2)] * 2
    assert [(row["n_only_less"], row["n_only"]) for row in (labels, masks)] == [(1, 0), (1, 1)]
    html = " ".join(Path("comparison/comparison.html").read_text(encoding="utf-8").split())
    for shown in (printed, html):
        for head, n in (("diagnoses", 0), ("masks", 1)):
            counts = f"not compared: {n} that only b tested, 1 that only a tested."
            assert f"b, {head}: compared on the 3 images that a tested too; {counts}" in shown
        assert "The test sets differ" in shown


def test_a_training_image_of_one_run_counts_only_if_both_tested_it(place):
    """Image i1 is a test image of a; b was trained on it and has no result of it."""
    rewrite(place / "b/splits.csv", lambda table: table.assign(split=["train", *table["split"][1:]]))
    for path in place.glob("b/*/p*.csv"):
        rewrite(path, lambda table: table[1:])
    assert {row["n_images"] for row in compared("a", "b")["differences"]} == {3}


def test_equal_test_sets_need_no_word(place, capsys):
    assert compared("a", "b")["cautions"] == []
    assert "The test sets differ" not in capsys.readouterr().out


def test_runs_without_a_common_test_image_are_refused(place, capsys):
    write_run(place / "c", 3, images=["j1", "j2"])
    refuse(
        place, capsys, ["a", "c"], "c: none of its test images is one of a: a tested 4 (i1, i2, i3, i4); c tested 2 ("
    )


def test_patients_that_only_the_second_run_knows_are_resampled(place):
    rewrite(place / "b/splits.csv", lambda table: table.assign(group=["P", "P", "P", "P", "Q"]))
    found = compared("a", "b")
    assert {row["n_lesions"] for row in found["differences"]} == {1}
    assert found["units"] == "groups (same lesion or patient)"


def test_a_run_that_knows_neither_lesions_nor_patients_has_no_number_of_them(place):
    rewrite(place / "a/splits.csv", lambda table: table.assign(lesion_id=table["image"]))
    rewrite(
        place / "b/splits.csv", lambda table: table.assign(lesion_id=table["image"], group=["P", "P", "P", "R", "Q"])
    )
    found = compared("a", "b")
    assert (found["units"], found["n_lesions"]) == ("patients", 2)
    assert {row["run"]: row["n_lesions"] for row in found["models"]} == {"a": None, "b": 2}
    assert found["cautions"] == ["a: the intervals of its own scores are from resamples of images."]
    assert "<td>4</td>\n<td>–</td>" in Path("comparison/comparison.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("group", "size"), [(["P", "P", "P", "R", "Q"], "of 2 patients"), (None, "")])
def test_a_comparison_of_runs_whose_lesions_are_unknown_names_patients_or_images_alone(place, capsys, group, size):
    for name in "ab":
        path = place / name / "splits.csv"
        rewrite(path, lambda table: table.assign(lesion_id=table["image"], **({"group": group} if group else {})))
    found = compared("a", "b", "--paper")
    assert {row["n_lesions"] for row in found["differences"]} == {2 if group else 4}
    page = Path("comparison/comparison.html").read_text(encoding="utf-8")
    table = Path("comparison/paper/tables/differences_masks.tex").read_text(encoding="utf-8")
    assert f"same 4 test images{size and ' '}{size};" in page
    assert "lesions" not in (page + capsys.readouterr().out + table).replace("Skin lesion models", "")


def pool(folder: Path, n_repeats: int) -> None:
    """Make a run of `write_run` one of two pooled folds, each image judged once in each repeat."""
    n_rows = len(NAMES)
    for path in folder.glob("*/p*.csv"):
        repeats = [pd.read_csv(path).assign(fold=[1 + 2 * i, 2 + 2 * i] * (n_rows // 2)) for i in range(n_repeats)]
        if "dice" in repeats[0]:
            repeats = [table.assign(dice=table["dice"] * 0.9**i) for i, table in enumerate(repeats)]
        write(path, pd.concat(repeats))
    rewrite(folder / "splits.csv", lambda table: table[:n_rows])
    edit(folder / "record.json", lambda record: record.update(folds=2, repeats=n_repeats))
    scores = {"accuracy": {"values": [0.5, 0.7], "mean": 0.6, "std": 0.141421}, "mean_dice": {"std": 0.234}}
    for path in folder.glob("*/metrics.json"):
        edit(path, lambda found: found.update(folds={"n": 2 * n_repeats, "scores": scores}))


@pytest.mark.parametrize("n_repeats", [1, 2])
def test_pooled_folds_are_paired_with_a_run_on_the_images_of_its_test_set(place, n_repeats):
    pool(place / "b", n_repeats)
    row = compared("a", "b")["differences"][1]
    dice = [pd.read_csv(place / name / "segmentation/per_image.csv").groupby("image")["dice"].mean() for name in "ab"]
    assert (row["n_images"], row["n_lesions"]) == (4, 3)
    assert row["mean_dice"]["difference"] == pytest.approx((dice[1] - dice[0]).mean())
    assert row["remark"] == ("2 folds" if n_repeats == 1 else "2 folds, 2 times")


def test_the_deviation_over_the_folds_stands_beside_the_pooled_score(place, capsys):
    pool(place / "b", 2)
    found = compared("a", "b")["models"]
    assert [(row["n_images"], row["n_folds"]) for row in found] == [(4, None), (4, 4)] * 2
    assert found[1]["scores"]["accuracy"]["std"] == 0.141421 and "std" not in found[0]["scores"]["accuracy"]
    assert "SD of folds 0.141" in capsys.readouterr().out
    html = Path("comparison/comparison.html").read_text(encoding="utf-8")
    assert "<small>SD 0.141, 4 folds</small>" in html and "it is no standard error" in html


def test_an_image_twice_in_one_fold_is_refused(place, capsys):
    pool(place / "b", 2)
    rewrite(place / "b/classification/predictions.csv", lambda table: pd.concat([table, table[:1]]))
    refuse(place, capsys, ["a", "b"], "b: 'i1' occurs twice")


def test_the_order_of_the_rows_does_not_matter(place):
    before = compared("a", "b")["differences"]
    for path in place.glob("b/*/p*.csv"):
        rewrite(path, lambda table: table[::-1])
    after = compared("a", "b")["differences"]
    np.testing.assert_allclose(after[1]["mean_dice"]["interval"], before[1]["mean_dice"]["interval"])
    assert [row.get("only_first_right") for row in after] == [row.get("only_first_right") for row in before]
    assert len(TRUE) == len(NAMES) and json.loads(Path("comparison/comparison.json").read_text())["same_test_images"]
