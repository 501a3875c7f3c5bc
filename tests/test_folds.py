"""Folds of a cross-validation: each image is judged once a repeat, by the model of its fold, with that fold's fit."""

import json
import re
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import copied, edit, quick
from sklearn.metrics import accuracy_score, balanced_accuracy_score

import visualize
from checkpoints.thresholds import points_among
from dataset.classes import HAM10000 as CLASSES
from evaluate import softmax
from measure.collect import unpacked
from measure.scores import classes_in
from report import page, paperfigures, papertables
from report.__main__ import main
from report.checklist import items_of
from report.folds import as_tested
from report.run import Run

FOLDS = "--folds", 2, "--repeats", 2, "--val-fraction", 0.2


@pytest.fixture(scope="module")
def pooled(demo_folder, made_once):
    """The place of two repeats of two folds; not to be changed."""

    def make(place):
        assert quick(demo_folder, place, *FOLDS) == 0

    return made_once("folds", make) / "outputs"


def tables(folder, numbers):
    return [pd.read_csv(folder / f"fold-{number}" / "classification" / "predictions.csv") for number in numbers]


def numbers_in(folder):
    return json.loads((folder / "classification" / "metrics.json").read_text())


def test_every_image_is_tested_once_a_repeat(pooled):
    used = pd.read_csv(pooled / "splits.csv")
    for repeat in (1, 2):
        images = pd.concat(tables(pooled, [2 * repeat - 1, 2 * repeat]))["image"]
        assert sorted(images) == sorted(used["image"])
        of_fold = used.set_index("image")[f"fold_{repeat}"]
        assert (of_fold[tables(pooled, [2 * repeat])[0]["image"]] == 2 * repeat).all()
    assert (used["fold_1"] != used["fold_2"] - 2).any()  # dealt anew


def test_the_pooled_table_is_that_of_the_folds(pooled):
    together = pd.read_csv(pooled / "classification" / "predictions.csv")
    apart = pd.concat([one.assign(fold=k) for k, one in enumerate(tables(pooled, range(1, 5)), start=1)])
    pd.testing.assert_frame_equal(together, apart.reset_index(drop=True))
    assert classes_in(together) == list(CLASSES)


def test_the_pooled_scores_are_scikit_learns_over_all_images(pooled):
    together, label = pd.read_csv(pooled / "classification" / "predictions.csv"), numbers_in(pooled)["label"]
    for rule, column in (("likeliest", "predicted"), ("balanced", "balanced")):
        scores = label["rules"][rule]
        assert scores["accuracy"] == pytest.approx(accuracy_score(together["true"], together[column]))
        expected = balanced_accuracy_score(together["true"], together[column])
        assert scores["balanced_accuracy"] == pytest.approx(expected)
    assert label["n_images"] == len(together)


def test_each_fold_keeps_its_own_thresholds(pooled):
    folds = [numbers_in(pooled / f"fold-{number}")["label"] for number in range(1, 5)]
    point, members = "malignant", [CLASSES[k] for k in points_among(CLASSES)["malignant"]]
    thresholds = [one["operating_points"][point]["threshold"] for one in folds]
    assert len(set(thresholds)) > 1
    hits = n = 0
    for table, threshold in zip(tables(pooled, range(1, 5)), thresholds):
        positive = table["true"].isin(members)
        hits += (table.loc[positive, members].sum(axis=1) >= threshold).sum()
        n += positive.sum()
    reached = numbers_in(pooled)["label"]["operating_points"][point]
    assert reached["sensitivity"] == pytest.approx(hits / n)
    assert reached["threshold"] == pytest.approx(np.mean(thresholds))


def test_the_spread_is_that_of_the_folds_own_scores(pooled):
    values = [numbers_in(pooled / f"fold-{number}")["label"]["accuracy"] for number in range(1, 5)]
    accuracy = numbers_in(pooled)["folds"]["scores"]["accuracy"]
    assert accuracy["values"] == values
    assert accuracy["mean"] == pytest.approx(np.mean(values)) and accuracy["std"] == pytest.approx(
        np.std(values, ddof=1)
    )


def test_the_intervals_draw_a_lesion_with_all_its_repeats(pooled):
    """Twice as many images make the intervals no narrower by the root of two: there are as many lesions."""
    low, high = numbers_in(pooled)["intervals"]["label"]["accuracy"]
    n, accuracy = len(pd.read_csv(pooled / "splits.csv")), numbers_in(pooled)["label"]["accuracy"]
    of_doubled = 2 * 1.96 * np.sqrt(accuracy * (1 - accuracy) / (2 * n))
    assert high - low > 1.1 * of_doubled


def test_the_report_says_what_its_numbers_are_of(pooled):
    text = page.build(pooled)
    assert "cross-validation with 2 folds, 2 times" in text and "no single model has these scores" in text
    assert "Over the 4 folds" in text and "4 trainings of each model" in text
    assert "0 train" not in text and "without a validation image" not in text


def test_an_unfinished_fold_is_named_and_resume_completes_it(pooled, demo_folder, tmp_path, capsys):
    outputs = copied(pooled, tmp_path / "outputs")
    record = json.loads((outputs / "fold-3" / "record.json").read_text())
    (outputs / "fold-3" / "record.json").write_text(json.dumps(record | {"finished": False}))
    before = (outputs / "classification" / "metrics.json").read_bytes()
    assert quick(demo_folder, tmp_path, *FOLDS, "--resume") == 0
    printed = capsys.readouterr().out
    assert printed.count("nothing is left to do") == 3
    assert (outputs / "classification" / "metrics.json").read_bytes() == before


def test_folds_are_pooled_without_the_audit_and_the_report_says_so(pooled, demo_folder, tmp_path):
    outputs = copied(pooled, tmp_path / "outputs")
    assert quick(demo_folder, tmp_path, *FOLDS, "--resume", "--no-audit") == 0
    assert (outputs / "leakage.csv").exists() and "not audited" not in page.build(
        outputs
    )  # that of the earlier command
    (outputs / "record.json").write_text(json.dumps({"tasks": {}}))
    assert quick(demo_folder, tmp_path, *FOLDS, "--resume", "--no-audit") == 0
    assert "not audited for leakage (--no-audit)" in page.build(outputs)
    assert not (outputs / "leakage.csv").exists() and (outputs / "fold-1" / "leakage.csv").exists()


def test_resume_keeps_a_finished_fold_if_the_first_is_not_there(pooled, demo_folder, tmp_path, capsys):
    outputs = copied(pooled, tmp_path / "outputs")
    shutil.rmtree(outputs / "fold-1")
    assert quick(demo_folder, tmp_path, *FOLDS, "--resume") == 0
    printed = capsys.readouterr().out
    assert printed.count("nothing is left to do") == 3 and "is moved to" not in printed
    assert not list(tmp_path.glob("outputs-*"))


def test_out_of_fold_predictions_are_soft_labels_that_the_report_warns_of(pooled, demo_folder, tmp_path, capsys):
    one_repeat = pd.read_csv(pooled / "classification" / "predictions.csv").query("fold < 3")
    for name, table in (("folds", one_repeat), ("others", one_repeat.drop(columns="fold"))):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        assert quick(demo_folder, tmp_path, "--soft-labels", tmp_path / f"{name}.csv") == 0
        page_says = "may be inflated" in (tmp_path / "outputs" / "report.html").read_text(encoding="utf-8")
        assert page_says == (name == "folds") == ("may be inflated" in capsys.readouterr().out)


def test_a_missing_fold_is_named_where_nothing_is_trained(pooled, demo_folder, tmp_path, capsys):
    outputs = copied(pooled, tmp_path / "outputs")
    (outputs / "fold-3" / "best_classification_model.pth").unlink()
    assert quick(demo_folder, tmp_path, *FOLDS, "--evaluate-only") == 2
    assert re.search(r"No checkpoint in \S+fold-3 for classification", capsys.readouterr().err)


def test_a_task_added_without_views_leaves_the_numbers_over_views(pooled, demo_folder, tmp_path):
    copied(pooled, tmp_path / "outputs")
    assert quick(demo_folder, tmp_path, *FOLDS, "--evaluate-only", "--tta") == 0
    before = numbers_in(tmp_path / "outputs")
    added = "--resume", "--tasks", "segmentation", "--segmentation-epochs", 1
    assert quick(demo_folder, tmp_path, *FOLDS, *added) == 0
    assert numbers_in(tmp_path / "outputs") == before and before["views"] == 8


def test_only_images_that_a_fold_tested_are_counted(pooled, demo_folder, tmp_path):
    """Weights to start from have seen some: folds that would test them leave them out, others train on them."""
    content = torch.load(pooled / "fold-1" / "best_classification_model.pth", weights_only=False)
    seen = sorted(content["trained_on"]["images"])[:6]
    content |= {use: {"images": seen, "lesions": [], "patients": []} for use in ("trained_on", "chosen_on")}
    torch.save(content, tmp_path / "start.pth")
    flags = "--start-from", tmp_path / "start.pth", "--tasks", "segmentation", "--segmentation-epochs", 1
    assert quick(demo_folder, tmp_path, "--folds", 2, "--val-fraction", 0.2, *flags) == 0
    outputs = tmp_path / "outputs"
    used, report = pd.read_csv(outputs / "splits.csv"), pd.read_csv(outputs / "data_report.csv")
    tested = [pd.read_csv(outputs / f"fold-{k}" / "segmentation" / "per_image.csv")["image"] for k in (1, 2)]
    assert sorted(used["image"]) == sorted(pd.concat(tested)) and not set(seen) & set(used["image"])
    assert set(report.loc[report["status"] == "left out", "image"]) == set(seen)
    assert f"of the {len(used)} images" in json.loads((outputs / "record.json").read_text())["reading"][0]


def test_a_row_is_that_of_the_fold_that_tests_it():
    """Folds that are evaluated again may leave the images of another fold's test set out of their validation set."""
    columns = {"image": ["a", "b", "c"], "status": "used"}
    first = pd.DataFrame(columns | {"split": ["test", "test", "train"]})
    second = pd.DataFrame(columns | {"split": ["train", "", ""], "status": ["used", "left out", "left out"]})
    whole = as_tested([first, second])
    assert list(whole["image"]) == ["a", "b", "c"] and list(whole["status"]) == ["used", "used", "left out"]


def test_pooled_folds_have_the_settings_and_machines_that_trained_them(pooled, demo_folder, tmp_path):
    outputs = copied(pooled, tmp_path / "outputs")
    (outputs / "environment.json").unlink()
    edit(outputs / "fold-2" / "environment.json", lambda one: one.update(device="Another GPU"))
    trained = json.loads((pooled / "config.json").read_text())
    again = "--evaluate-only", "--classification-epochs", 7, "--coverage", 0.8
    assert quick(demo_folder, tmp_path, *FOLDS, *again) == 0
    run = Run(outputs)
    assert {name for name in trained if run.config[name] != trained[name]} <= {"OUTPUT_DIR"}
    assert run.evaluation["config"]["COVERAGE"] == 0.8 and run.config["FOLD"] == 0
    assert "Another GPU" in [one["device"] for one in run.environments]


def test_a_task_added_later_is_listed_with_the_earlier_ones(pooled, demo_folder, tmp_path):
    copied(pooled, tmp_path / "outputs")
    added = "--resume", "--tasks", "segmentation", "--segmentation-epochs", 1
    assert quick(demo_folder, tmp_path, *FOLDS, *added) == 0
    assert Run(tmp_path / "outputs").config["TASKS"] == ["classification", "segmentation"]


def test_one_fold_alone_is_trained_where_the_others_would_be(pooled, demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, *FOLDS, "--fold", 2) == 0
    outputs = tmp_path / "outputs"
    assert [path.name for path in outputs.iterdir() if not path.name.startswith(".")] == ["fold-2"]
    pd.testing.assert_frame_equal(*(tables(place, [2])[0] for place in (outputs, pooled)))


def test_pooled_folds_are_compared_with_one_of_them_on_the_images_that_it_tested(pooled, tmp_path):
    """Each image counts once, though two folds judged it; the same fold and another one differ on it."""
    main(["compare", str(pooled / "fold-1"), str(pooled), "--output-dir", str(tmp_path / "compared")])
    found = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    n_tested = (pd.read_csv(pooled / "fold-1" / "splits.csv")["split"] == "test").sum()
    assert [row["n_images"] for row in found["differences"]] == [n_tested]
    assert not found["same_test_images"] and found["models"][1]["scores"]["nll"]["std"] > 0


def test_folds_of_other_data_are_not_pooled(pooled, demo_folder, tmp_path, capsys):
    outputs = copied(pooled, tmp_path / "outputs")
    table = (outputs / "fold-2" / "splits.csv").read_text()
    (outputs / "fold-2" / "splits.csv").write_text(table.replace(",train", ",test"))
    assert quick(demo_folder, tmp_path, *FOLDS, "--resume") == 2
    assert "Two folds test the image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--folds", 1), "FOLDS must be at least 2, or 0 without FOLD and REPEATS"),
        (("--repeats", 2), "FOLDS must be at least 2, or 0 without FOLD and REPEATS"),
        (("--fold", 2), "FOLDS must be at least 2, or 0 without FOLD and REPEATS"),
        (("--folds", 3, "--fold", 4), "FOLD must be at most FOLDS times REPEATS, 3, not 4"),
        (("--folds", 3, "--test-where", "sex=male"), "leave out TEST_WHERE"),
        (("--folds", 2, "--val-fraction", 0.5), "their sum must be below 1"),
        (("--folds", 60), "too few for 60 folds"),
    ],
)
def test_folds_that_cannot_be_are_refused(demo_folder, tmp_path, capsys, flags, words):
    try:
        assert quick(demo_folder, tmp_path, *flags) == 2
    except SystemExit as stop:
        assert stop.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("outputs/[!.]*"))


def test_a_new_run_moves_all_folds_of_an_earlier_one_aside_once_it_is_checked(pooled, demo_folder, tmp_path, capsys):
    copied(pooled, tmp_path / "outputs")
    assert quick(demo_folder, tmp_path, "--folds", 60) == 2
    assert (tmp_path / "outputs" / "fold-4").is_dir()
    assert quick(demo_folder, tmp_path, "--folds", 2) == 0
    (aside,) = tmp_path.glob("outputs-*")
    assert (aside / "fold-4").is_dir() and not (tmp_path / "outputs" / "fold-4").exists()
    assert capsys.readouterr().out.count("is moved to") == 1


def test_the_paper_draws_each_folds_unscaled_probabilities_and_lists_the_spread(pooled, tmp_path, monkeypatch):
    run, seen = Run(pooled), {}
    fake = partial(seen.__setitem__, "reliability")
    monkeypatch.setattr(visualize, "reliability", lambda true, before, *rest: fake(before))
    dict(paperfigures.figures_of(run))
    folds = [unpacked(pooled / f"fold-{number}" / "classification" / "outputs.npz")[0] for number in range(1, 5)]
    np.testing.assert_allclose(seen["reliability"], softmax(np.concatenate([one.label for one in folds])), atol=1e-6)
    (spread,) = [table for table in papertables.tables_of(run) if table.name == "classification_over_folds"]
    accuracy = numbers_in(pooled)["folds"]["scores"]["accuracy"]
    assert ["Accuracy", accuracy["mean"], accuracy["std"]] == spread.rows[0][:3]
    assert spread.rows[0][3:] == [min(accuracy["values"]), max(accuracy["values"])]


def test_the_page_of_all_folds_leads_to_the_page_of_each(pooled):
    html = (pooled / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^"#]*)">fold (\d)</a>', html)
    assert links == [(f"fold-{number}/report.html", str(number)) for number in range(1, 5)]
    assert all((pooled / link).is_file() for link, _ in links) and 'href="#folds"' in html


def test_a_class_named_fold_keeps_its_probabilities_where_folds_are_pooled(demo_folder, tmp_path):
    classes = "--classes", "fold=MEL,BCC,AKIEC", "rest=NV,BKL,DF,VASC"
    assert quick(demo_folder, tmp_path, "--folds", 2, "--val-fraction", 0.2, *classes) == 0
    together = pd.read_csv(tmp_path / "outputs" / "classification" / "predictions.csv")
    assert classes_in(together) == ["fold_", "rest"] and set(together["fold"]) == {1, 2}
    np.testing.assert_allclose(together["fold_"] + together["rest"], 1, rtol=1e-5)


def test_the_checklist_knows_the_trainings_of_all_folds(pooled):
    answers = {item.question: item.answer for item in items_of(Run(pooled), [])}
    assert answers["Repeated runs"].startswith("Each fold was trained once, with the seed")
    assert answers["Choice of the weights"] == (
        "classification: in each fold, the epoch with the lowest validation loss."
    )
    weights = [f"fold-{number}/best_classification_model.pth" for number in range(1, 5)]
    assert ", ".join(weights) in answers["Code and weights"] and "no weights" not in answers["Code and weights"]


def test_the_checklist_counts_each_image_once(pooled):
    answers = {item.question: item.answer for item in items_of(Run(pooled), [])}
    by_sex = re.search(r"Test images by sex: ([^.]*)", answers["Age, sex and body site"])[1]
    assert sum(map(int, re.findall(r"\((\d+)\)", by_sex))) == len(pd.read_csv(pooled / "splits.csv"))


def test_the_checklist_knows_the_other_data_of_each_fold(pooled, tmp_path):
    outputs = copied(pooled, tmp_path / "outputs")
    edit(outputs / "config.json", lambda one: one.update(EXTERNAL_DIR="elsewhere"))
    answers = {item.question: item.answer for item in items_of(Run(outputs), [])}
    assert answers["Data from elsewhere"].startswith("Each fold's model was evaluated on elsewhere")
