import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, ROOT, disc, picture, program
from PIL import Image

import data
import machine
import main
import models
import train
from checkpoints.states import save
from dataset import splits, synthetic
from dataset import table as tables
from dataset.classes import HAM10000 as CLASSES
from dataset.csvfile import read_back
from report import live, results, resume
from report.folder import RunFolder
from report.results import evaluated_as

OUTPUTS = """config.json environment.json data_report.csv splits.csv class_distribution.png report.html leakage.csv
best_classification_model.pth best_segmentation_model.pth best_multitask_model.pth
classification/history.csv classification/metrics.json classification/predictions.csv record.json
classification/confusion_matrix.png classification/training_curves.png classification/reliability.png comparison.json
segmentation/history.csv segmentation/metrics.json segmentation/per_image.csv
segmentation/masks.png segmentation/training_curves.png
multitask/history.csv multitask/metrics.json multitask/predictions.csv multitask/per_image.csv
multitask/confusion_matrix.png multitask/masks.png multitask/training_curves.png
classification/confusion_matrix_balanced.png multitask/confusion_matrix_balanced.png"""


def quick(folder, place, *flags):
    """The exit code of main in this process, one epoch of classification unless flags say otherwise.

    Its figures are made and not drawn, which would take more than half of the time; `whole_run` draws them.
    """
    places = ["--data-dir", str(folder), "--output-dir", str(place / "outputs"), "--cache-dir", str(place / "cache")]
    with mock.patch("visualize.png", return_value=b"not drawn"):
        return main.main([*places, *QUICK, "--tasks", "classification", *flags])


def test_one_run_writes_everything_that_is_promised(whole_run):
    outputs, _ = whole_run
    assert {name for name in OUTPUTS.split() if not (outputs / name).is_file()} == set()
    assert not list(outputs.rglob("*.partial"))


def test_a_finished_run_keeps_its_weights_and_the_one_state_that_more_epochs_go_on_from(whole_run):
    """The demo's networks are the same ones, and weigh nearly all of it; a state is three times a network."""
    outputs, _ = whole_run
    assert len(list(outputs.rglob("last.pth"))) == 3 and not list(outputs.rglob("previous.pth"))
    sizes = {path: path.stat().st_size for path in outputs.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if path.name != "last.pth") < 200e6 and sum(sizes.values()) < 700e6


def test_the_files_that_others_read_have_their_fixed_form(whole_run):
    outputs, _ = whole_run
    metrics = json.loads((outputs / "multitask" / "metrics.json").read_text())
    label_keys = {"accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "per_class"}
    assert label_keys <= set(metrics["label"])
    assert set(metrics["label"]["per_class"]) == set(CLASSES)
    assert set(metrics["label"]["per_class"]["MEL"]) == {"precision", "recall", "f1", "support"}
    assert {"mean_iou", "mean_dice", "pooled_iou", "pooled_dice", "n_images"} <= set(metrics["mask"])
    predictions = pd.read_csv(outputs / "classification" / "predictions.csv")
    assert list(predictions.columns) == ["image", "true", "predicted", "balanced", *CLASSES]
    np.testing.assert_allclose(predictions[list(CLASSES)].sum(axis=1), 1, atol=1e-5)
    assert list(pd.read_csv(outputs / "segmentation" / "per_image.csv").columns) == ["image", "iou", "dice"]
    assert list(pd.read_csv(outputs / "splits.csv").columns) == ["image", "label", "lesion_id", "split"]
    assert list(pd.read_csv(outputs / "data_report.csv").columns) == ["image", "status", "reason"]


def test_the_three_models_have_the_same_test_images(whole_run):
    outputs, _ = whole_run
    splits = pd.read_csv(outputs / "splits.csv")
    test = sorted(splits.loc[splits["split"] == "test", "image"])
    for name in ("classification/predictions", "multitask/predictions", "segmentation/per_image"):
        assert sorted(pd.read_csv(outputs / f"{name}.csv")["image"]) == test


def test_metrics_follow_from_the_written_predictions(whole_run):
    outputs, _ = whole_run
    predictions = pd.read_csv(outputs / "classification" / "predictions.csv")
    label = json.loads((outputs / "classification" / "metrics.json").read_text())["label"]
    assert label["accuracy"] == pytest.approx((predictions["true"] == predictions["predicted"]).mean())
    per_image = pd.read_csv(outputs / "multitask" / "per_image.csv")
    mask = json.loads((outputs / "multitask" / "metrics.json").read_text())["mask"]
    assert mask["mean_dice"] == pytest.approx(per_image["dice"].mean())


@pytest.mark.parametrize("task", models.MODELS)
def test_a_checkpoint_says_what_it_is_and_loads_alone(whole_run, task):
    outputs, _ = whole_run
    path = outputs / f"best_{task}_model.pth"
    checkpoint = models.load_checkpoint(path)
    assert checkpoint["task"] == task and checkpoint["classes"] == list(CLASSES)
    assert checkpoint["image_size"] == 32 and checkpoint["mean"] == list(data.MEAN)
    assert checkpoint["config"]["SEED"] == 42 and checkpoint["versions"]["torch"] == torch.__version__
    assert re.fullmatch("[0-9a-f]{16}", checkpoint["split_hash"])
    history = pd.read_csv(outputs / task / "history.csv")
    assert checkpoint["scores"]["val_loss"] == pytest.approx(history["val_loss"].min())
    assert models.load_model(path)(torch.zeros(1, 3, 32, 32))


def test_without_a_terminal_there_is_one_line_an_epoch_and_no_bars(whole_run):
    _, done = whole_run
    assert len(re.findall(r"^epoch +1/1 .*img/s", done.stdout, re.MULTILINE)) == 3
    assert "\r" not in done.stdout + done.stderr and "it/s" not in done.stderr
    assert "Split by image" in done.stdout and "accuracy" in done.stdout


def test_two_runs_with_one_seed_agree_to_the_last_digit(whole_run, demo_folder, tmp_path):
    outputs, _ = whole_run
    done = program("--data-dir", demo_folder, *QUICK, "--output-dir", tmp_path / "again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("splits.csv", *(f"{task}/metrics.json" for task in models.MODELS)):
        assert (tmp_path / "again" / name).read_bytes() == (outputs / name).read_bytes()


def test_the_demo_makes_its_data_and_says_so_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = partial(synthetic.write_dataset, lesions=dict.fromkeys(CLASSES, 4))
    monkeypatch.setattr(synthetic, "write_dataset", few)
    assert main.main(["--demo", *QUICK, "--tasks", "segmentation"]) == 0
    assert main.main(["--demo", *QUICK, "--tasks", "segmentation", "--resume"]) == 0  # on the same data
    assert "Synthetic" in (tmp_path / "demo_data" / "README.txt").read_text()
    outputs = tmp_path / "outputs_demo"
    for name in ("config.json", "segmentation/metrics.json"):
        assert json.loads((outputs / name).read_text())["data"] == "synthetic demo data"
    assert models.load_checkpoint(outputs / "best_segmentation_model.pth")["note"] == "synthetic demo data"


# A folder belongs to one run


def contents(folder):
    """Every file and its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_second_run_moves_the_first_aside_whole_and_reports_only_itself(demo_folder, folder, tmp_path, capsys):
    """All tasks and another data set; then a single task, another seed and a third data set, into the same folder."""
    for place in ("a", "b"):
        shutil.copytree(folder_of(folder, 8).path, tmp_path / place, dirs_exist_ok=True)
    everything = ["--tasks", *models.MODELS, "--external-dir", str(tmp_path / "a")]
    assert quick(demo_folder, tmp_path, *everything) == 0
    before = contents(tmp_path / "outputs")
    assert quick(demo_folder, tmp_path, "--seed", "7", "--external-dir", str(tmp_path / "b")) == 0
    (earlier,) = tmp_path.glob("outputs-*")
    assert str(earlier) in capsys.readouterr().out
    assert contents(earlier) == before
    html = (tmp_path / "outputs" / "report.html").read_text()
    assert not (tmp_path / "outputs" / "comparison.json").exists()
    assert "segmentation" not in html and "Multi-task against" not in html and str(tmp_path / "b") in html
    assert quick(demo_folder, tmp_path) == 0
    assert len(list(tmp_path.glob("outputs-*"))) == 2


def folder_of(folder, n):
    """Some sound images that no other test data hold."""
    for i in range(n):
        folder.add(f"other_{i}", CLASSES[i % 7], image=picture(1000 + i, (64, 48)), mask=disc((64, 48)))
    return folder.write()


def test_a_refused_resume_changes_nothing(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path) == 0
    before = contents(tmp_path)
    assert quick(demo_folder, tmp_path, "--resume", "--seed", "99") == 2
    assert contents(tmp_path) == before


def test_measuring_again_keeps_what_the_model_was_trained_with(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, "--classification-lr", "0.003") == 0
    before = contents(tmp_path / "outputs")
    again = ["--evaluate-only", "--classification-epochs", "15"]
    assert quick(demo_folder, tmp_path, *again) == 0
    after = contents(tmp_path / "outputs")
    for name in ("config.json", "environment.json", "splits.csv", "classification/metrics.json"):
        assert after[name] == before[name], name
    evaluation = json.loads(after["evaluation.json"])
    assert evaluation["config"]["CLASSIFICATION_EPOCHS"] == 15
    html = after["report.html"].decode()
    assert "classification 1 epochs" in html and "Measured again with" in html


def test_copied_checkpoints_can_be_measured_and_keep_their_configuration(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, "--classification-lr", "0.003") == 0
    metrics = (tmp_path / "outputs" / "classification" / "metrics.json").read_bytes()
    (tmp_path / "copied").mkdir()
    shutil.copy(tmp_path / "outputs" / "best_classification_model.pth", tmp_path / "copied")
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--output-dir", str(tmp_path / "copied")) == 0
    assert (tmp_path / "copied" / "classification" / "metrics.json").read_bytes() == metrics
    assert json.loads((tmp_path / "copied" / "config.json").read_text())["CLASSIFICATION_LR"] == 0.003


def test_resuming_a_finished_run_does_nothing_and_says_so(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path) == 0
    before = contents(tmp_path / "outputs")
    assert quick(demo_folder, tmp_path, "--resume") == 0
    assert "finished: nothing is left to do" in capsys.readouterr().out
    assert contents(tmp_path / "outputs") == before


def test_resuming_with_more_epochs_trains_measures_and_reports_them_and_leaves_other_tasks(demo_folder, tmp_path):
    tasks = ["--tasks", "classification", "segmentation"]
    assert quick(demo_folder, tmp_path, *tasks) == 0
    outputs = tmp_path / "outputs"
    before = contents(outputs)
    assert quick(demo_folder, tmp_path, *tasks, "--resume", "--classification-epochs", "2") == 0
    after, record = contents(outputs), RunFolder(outputs).read_record()
    assert n_epochs(outputs / "classification") == 2 and record["finished"]
    first, second = (json.loads(some["environment.json"]) for some in (before, after))
    assert second["before"] == [first]
    assert record["tasks"]["classification"]["identity"]["epochs"] == 2
    assert after["report.html"] != before["report.html"]
    for name in ("best_segmentation_model.pth", "segmentation/metrics.json", "segmentation/history.csv"):
        assert after[name] == before[name]


def test_resuming_one_task_leaves_what_the_configuration_says_of_the_others(demo_folder, tmp_path):
    outputs, tasks = tmp_path / "outputs", ("segmentation", "classification")
    assert quick(demo_folder, tmp_path, "--tasks", *tasks, "--segmentation-batch-size", "12") == 0
    again = ["--resume", "--tasks", "classification", "--classification-epochs", "2", "--segmentation-epochs", "9"]
    assert quick(demo_folder, tmp_path, *again) == 0
    config = json.loads((outputs / "config.json").read_text())
    assert config["TASKS"] == [*tasks] and config["SEGMENTATION_EPOCHS"] == 1 and config["CLASSIFICATION_EPOCHS"] == 2
    assert config["SEGMENTATION_BATCH_SIZE"] == 12


def test_more_epochs_are_refused_where_the_state_is_gone(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path) == 0
    (tmp_path / "outputs" / "classification" / "last.pth").unlink()
    before = contents(tmp_path / "outputs")
    assert quick(demo_folder, tmp_path, "--resume", "--classification-epochs", "2") == 2
    assert "last.pth is gone" in capsys.readouterr().err and contents(tmp_path / "outputs") == before


def test_resuming_with_a_further_task_adds_it(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path) == 0
    before = contents(tmp_path / "outputs")
    assert quick(demo_folder, tmp_path, "--resume", "--tasks", *models.MODELS) == 0
    after = contents(tmp_path / "outputs")
    name = "best_classification_model.pth"
    assert after[name] == before[name] and "comparison.json" in after and "best_multitask_model.pth" in after


def test_a_second_run_on_the_same_folder_at_once_is_refused(demo_folder, tmp_path, capsys):
    with machine.locked(tmp_path / "outputs"):
        assert quick(demo_folder, tmp_path) == 2
    assert "Another run is writing into" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_a_folder_of_the_users_own_files_is_not_moved(demo_folder, tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "notes.txt").write_text("mine")
    assert quick(demo_folder, tmp_path) == 0
    assert (tmp_path / "outputs" / "notes.txt").read_text() == "mine" and not list(tmp_path.glob("outputs-*"))


@pytest.mark.parametrize("place", [".", "..", "data"])
def test_an_output_folder_that_holds_the_data_or_the_work_is_refused(place, demo_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "work" / "data").mkdir(parents=True)
    shutil.copytree(demo_folder, tmp_path / "work" / "data" / "set")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(SystemExit):
        main.main(["--data-dir", "data/set", "--output-dir", place])
    assert "for the outputs alone" in capsys.readouterr().err


# Measuring again, and elsewhere


def test_evaluate_only_measures_the_saved_models_again(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path) == 0
    metrics = tmp_path / "outputs" / "classification" / "metrics.json"
    first, trained = metrics.read_bytes(), (tmp_path / "outputs" / "best_classification_model.pth").stat().st_mtime_ns
    metrics.unlink()
    assert quick(demo_folder, tmp_path, "--evaluate-only") == 0
    assert metrics.read_bytes() == first
    assert (tmp_path / "outputs" / "best_classification_model.pth").stat().st_mtime_ns == trained


def test_a_checkpoint_keeps_what_its_thresholds_did_on_the_test_set(whole_run):
    outputs, _ = whole_run
    for task in ("classification", "multitask"):
        checkpoint = models.load_checkpoint(outputs / f"best_{task}_model.pth")
        found = json.loads((outputs / task / "metrics.json").read_text())
        assert checkpoint["tested"] == {
            name: {key: point[key] for key in ("threshold", "sensitivity", "specificity")}
            | {"n_images": found["n_images"]}
            for name, point in found["label"]["operating_points"].items()
        }
        labels = pd.read_csv(outputs / "splits.csv").query("split == 'train'")["label"].value_counts(normalize=True)
        assert checkpoint["calibration"]["prior"] == pytest.approx(labels.reindex(CLASSES).tolist())
    assert not models.load_checkpoint(outputs / "best_segmentation_model.pth").get("tested")


def test_evaluate_only_fits_a_tau_to_a_checkpoint_that_has_none(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path) == 0
    path = tmp_path / "outputs" / "best_classification_model.pth"
    whole = models.load_checkpoint(path)
    old = {name: value for name, value in whole.items() if name != "tested"}
    old["calibration"] = {name: whole["calibration"][name] for name in ("temperature", "thresholds", "scale")}
    torch.save(old, path)
    assert quick(demo_folder, tmp_path, "--evaluate-only") == 0
    again = models.load_checkpoint(path)
    assert again["calibration"] == whole["calibration"] and again["tested"] == whole["tested"]


def test_a_picture_that_was_saved_again_does_not_keep_a_model_from_being_measured(demo_folder, tmp_path, capsys):
    folder = shutil.copytree(demo_folder, tmp_path / "data")
    assert quick(folder, tmp_path) == 0
    before = read_back(tmp_path / "outputs" / "classification" / "predictions.csv")
    train_image = pd.read_csv(tmp_path / "outputs" / "splits.csv").query("split == 'train'")["image"].iloc[0]
    path = folder / "images" / f"{train_image}.jpg"
    Image.open(path).save(path, quality=30)
    assert quick(folder, tmp_path, "--evaluate-only") == 0
    assert f"0 of {len(before)} test images show lesions that it was trained on" in capsys.readouterr().out
    pd.testing.assert_frame_equal(read_back(tmp_path / "outputs" / "classification" / "predictions.csv"), before)


def test_evaluate_only_leaves_out_the_test_images_whose_lesions_were_learned_from_and_counts_them(
    demo_folder, tmp_path, capsys
):
    """Those of the model's validation set, by which its best epoch was chosen, too."""
    assert quick(demo_folder, tmp_path) == 0
    before = pd.read_csv(tmp_path / "outputs" / "splits.csv")
    new = set(before.loc[before["split"] == "test", "lesion_id"])
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--split-seed", "7") == 0
    today = tables.read_table(demo_folder)
    today["split"] = splits.split_table(today, 0.15, 0.15, seed=7)
    test = today[today["split"] == "test"]
    expected = set(test.loc[test["lesion_id"].isin(new), "image"])
    assert 0 < len(expected) < len(test)
    outputs = tmp_path / "outputs"
    assert set(read_back(outputs / "classification" / "predictions.csv")["image"]) == expected
    assert set(read_back(outputs / "splits.csv").query("split == 'test'")["image"]) == expected
    assert f"{len(test) - len(expected)} of {len(test)} test images show lesions" in capsys.readouterr().out
    reasons = read_back(outputs / "data_report.csv").set_index("image")["reason"]
    left_out = set(test["image"]) - expected
    assert set(reasons[list(left_out)]) == {"best_classification_model.pth was trained on this lesion"}


def test_a_model_that_learned_from_every_test_image_is_not_measured(whole_run, demo_folder, tmp_path, capsys):
    checkpoint = models.load_checkpoint(whole_run[0] / "best_classification_model.pth")
    every = {"trained_on": {"images": list(tables.read_table(demo_folder)["image"])}, "split_hash": "another"}
    save(tmp_path / "a.pth", checkpoint | every)
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", str(tmp_path / "a.pth")) == 2
    assert "no val image with a label is left" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_evaluate_only_wants_the_models_own_image_size(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path) == 0
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--image-size", "48") == 2
    assert "trained at --image-size 32, not 48" in capsys.readouterr().err


def test_another_data_set_is_measured_whole(demo_folder, folder, tmp_path, capsys):
    for i in range(4):
        folder.add(f"MEL_{i}", "MEL")
    folder.add("NV_0", "NV", mask=None)
    tasks = ["--tasks", "classification", "segmentation"]
    assert quick(demo_folder, tmp_path, *tasks, "--external-dir", str(folder.write().path)) == 0
    external = tmp_path / "outputs" / "external"
    label = json.loads((external / "classification" / "metrics.json").read_text())["label"]
    assert label["n_images"] == 5 and label["per_class"]["MEL"]["support"] == 4
    assert label["per_class"]["DF"]["recall"] is None
    assert json.loads((external / "segmentation" / "metrics.json").read_text())["mask"]["n_images"] == 4
    assert "Another data set" in (tmp_path / "outputs" / "report.html").read_text()
    shutil.rmtree(folder.path / "masks")
    assert quick(demo_folder, tmp_path, *tasks, "--evaluate-only", "--external-dir", str(folder.path)) == 0
    assert "has no masks to measure it with" in capsys.readouterr().out


def test_each_model_stands_under_the_data_set_that_it_was_measured_on(demo_folder, folder, tmp_path):
    for code in ("MEL", "NV"):
        folder.add(f"{code}_0", code)
    first = shutil.copytree(folder.write().path, tmp_path / "first")
    folder.add("NV_1", "NV")
    second = shutil.copytree(folder.write().path, tmp_path / "second")
    tasks = ["--tasks", "classification", "segmentation"]
    assert quick(demo_folder, tmp_path, *tasks, "--external-dir", str(first)) == 0
    assert quick(demo_folder, tmp_path, *tasks[:2], "--evaluate-only", "--external-dir", str(second)) == 0
    report = (tmp_path / "outputs" / "report.html").read_text()
    _, of_one, of_other = report[report.index('id="another-data-set"') :].split("<p>All usable images of")
    for section, place, task, n_images in (
        (of_one, second, "classification", 3),
        (of_other, first, "segmentation", 2),
    ):
        assert all(words in section for words in (f"<code>{place}<", f"<h3>{task}</h3>", f"<td>{n_images}</td>"))
    assert "<h3>segmentation</h3>" not in of_one and str(first) not in of_one


def test_two_models_of_a_data_set_that_has_changed_are_both_shown(demo_folder, folder, tmp_path):
    for code in ("MEL", "NV"):
        folder.add(f"{code}_0", code)
    other = folder.write().path
    options = ["--external-dir", str(other), "--tasks", "classification"]
    assert quick(demo_folder, tmp_path, *options, "segmentation") == 0
    folder.add("NV_1", "NV")
    folder.write()
    assert quick(demo_folder, tmp_path, *options, "--evaluate-only") == 0
    report = (tmp_path / "outputs" / "report.html").read_text()
    of_one, of_other = report[report.index('id="another-data-set"') :].split("<p>All usable images of")[1:]
    assert "None of the 3 images" in of_one and "<h3>classification</h3>" in of_one
    assert "None of the 2 images" in of_other and "<h3>segmentation</h3>" in of_other


def test_a_run_that_is_stopped_while_it_is_measured_anew_does_not_call_it_measured(demo_folder, tmp_path, monkeypatch):
    assert quick(demo_folder, tmp_path) == 0
    original, known = results.evaluate_model, RunFolder(tmp_path / "outputs").read_record()["tasks"]["classification"]

    def stopped(*arguments, **options):
        original(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "evaluate_model", stopped)
    assert quick(demo_folder, tmp_path, "--resume", "--tta") == 130
    assert RunFolder(tmp_path / "outputs").read_record()["tasks"]["classification"]["measured"] is None
    monkeypatch.setattr(results, "evaluate_model", original)
    assert quick(demo_folder, tmp_path, "--resume") == 0
    assert RunFolder(tmp_path / "outputs").read_record()["tasks"]["classification"] == known
    assert json.loads((tmp_path / "outputs" / "classification" / "metrics.json").read_text())["views"] == 1


def test_what_another_data_set_shares_with_the_training_images_is_left_out_and_said(demo_folder, tmp_path, capsys):
    shutil.copytree(demo_folder, tmp_path / "copy")
    assert quick(demo_folder, tmp_path, "--external-dir", str(tmp_path / "copy"), "--test-fraction", "0.01") == 0
    assert "left out" in capsys.readouterr().out
    learned = pd.read_csv(tmp_path / "outputs" / "splits.csv")
    tested = learned.loc[learned["split"] == "test", "image"]
    report = pd.read_csv(tmp_path / "outputs" / "external" / "data_report.csv", keep_default_na=False)
    assert set(report.loc[report["status"] == "used", "image"]) <= set(tested)
    assert "overlap with the training data and are left out" in (tmp_path / "outputs" / "report.html").read_text()


def test_a_wrong_external_folder_is_refused_before_training_and_writes_nothing(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--external-dir", str(tmp_path / "nowhere")) == 2
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "outputs").exists()


def test_evaluate_only_measures_the_models_that_are_there_and_names_the_others(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path) == 0
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tasks", *models.MODELS) == 0
    assert "for segmentation, multitask. Going on without" in capsys.readouterr().out
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tasks", "segmentation") == 2
    assert "No checkpoint in" in capsys.readouterr().err


def test_grouped_duplicates_stay_in_one_part(demo_folder, tmp_path):
    """Every image twice, under two lesion ids."""
    twice = tmp_path / "twice"
    shutil.copytree(demo_folder, twice)
    lines = (twice / "GroundTruth.csv").read_text().splitlines()
    (twice / "HAM10000_metadata.csv").unlink()
    for line in lines[1:]:
        name, rest = line.split(",", 1)
        shutil.copy(twice / "images" / f"{name}.jpg", twice / "images" / f"{name}_again.jpg")
        lines = [*lines, f"{name}_again,{rest}"]
    (twice / "GroundTruth.csv").write_text("\n".join(lines))
    crossing = []
    for flag in ("--no-group-duplicates", "--group-duplicates"):
        assert quick(twice, tmp_path, flag, "--image-size", "64") == 0
        pairs = pd.read_csv(tmp_path / "outputs" / "leakage.csv")
        crossing.append(pairs.loc[pairs["kind"] == "same file", "crosses"].sum())
    assert crossing[0] > 0 == crossing[1]


# Averages


def measured(place, name="average"):
    return json.loads((place / "outputs" / name / "metrics.json").read_text())


def test_several_checkpoints_are_measured_as_their_average_and_stay_as_they_are(whole_run, demo_folder, tmp_path):
    paths = [whole_run[0] / f"best_{task}_model.pth" for task in models.MODELS]
    before = [path.read_bytes() for path in paths]
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", *map(str, paths)) == 0
    found = measured(tmp_path)
    assert found["averaged"] == list(map(str, paths)) and {"label", "mask"} <= set(found)
    assert [path.read_bytes() for path in paths] == before
    assert "average" in (tmp_path / "outputs" / "report.html").read_text()
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", *map(str, paths)) == 0
    assert measured(tmp_path) == found


def test_one_named_checkpoint_is_measured_where_it_lies(whole_run, demo_folder, tmp_path):
    path = whole_run[0] / "best_classification_model.pth"
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", str(path)) == 0
    assert measured(tmp_path, "classification") == json.loads(
        (whole_run[0] / "classification" / "metrics.json").read_text()
    )


def test_averages_over_turns_are_fitted_and_kept_beside_the_networks_own(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path) == 0
    alone = models.load_checkpoint(tmp_path / "outputs" / "best_classification_model.pth")
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tta") == 0
    both = models.load_checkpoint(tmp_path / "outputs" / "best_classification_model.pth")
    assert both["calibration"] == alone["calibration"] and both["calibration_tta"] != alone["calibration"]
    assert {"calibration_tta", "tested_tta"} == set(both) - set(alone)
    assert measured(tmp_path, "classification")["views"] == 8


def test_a_run_over_turns_also_calibrates_the_network_alone(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, "--tta") == 0
    checkpoint = models.load_checkpoint(tmp_path / "outputs" / "best_classification_model.pth")
    assert checkpoint["calibration"]["temperature"] != checkpoint["calibration_tta"]["temperature"]


def test_an_interrupted_training_that_was_measured_still_goes_on(demo_folder, tmp_path, monkeypatch):
    epochs = ["--classification-epochs", "2"]
    with monkeypatch.context() as patch:
        validate, calls = train.validate, []

        def breaks(*arguments):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return validate(*arguments)

        patch.setattr(train, "validate", breaks)
        assert quick(demo_folder, tmp_path, *epochs) == 130
    assert quick(demo_folder, tmp_path, *epochs, "--evaluate-only") == 0
    outputs = tmp_path / "outputs"
    shown = (outputs / "report.html").read_text()
    assert "classification 1 of 2 epochs" in shown and "classification: stopped after 1 of 2 epochs" in shown
    assert quick(demo_folder, tmp_path, *epochs, "--resume") == 0
    assert "1 of 2 epochs" not in (outputs / "report.html").read_text()
    assert len(pd.read_csv(outputs / "classification" / "history.csv")) == 2
    assert not list(outputs.rglob("previous.pth")) and RunFolder(outputs).read_record()["finished"]


def test_a_model_over_turns_is_not_compared_with_one_without(whole_run, demo_folder, tmp_path):
    shutil.copytree(whole_run[0], tmp_path / "outputs")
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tta", "--tasks", "multitask") == 0
    assert RunFolder(tmp_path / "outputs").read_record()["comparison"] is False
    assert not (tmp_path / "outputs" / "comparison.json").exists()
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tta", "--tasks", "classification") == 0
    assert RunFolder(tmp_path / "outputs").read_record()["comparison"] is True
    assert set(json.loads((tmp_path / "outputs" / "comparison.json").read_text())) == {"classification"}


def test_measuring_anew_forgets_another_data_set_that_was_measured_otherwise(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path) == 0
    record = RunFolder(tmp_path / "outputs")
    record.go_on()
    record.note_task("classification", external=True)
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tta") == 0
    assert not RunFolder(tmp_path / "outputs").read_record()["tasks"]["classification"]["external"]


def test_a_folder_of_measurements_is_moved_aside_like_any_run(whole_run, demo_folder, tmp_path):
    both = [str(whole_run[0] / f"best_{task}_model.pth") for task in ("segmentation", "multitask")]
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", *both) == 0
    labels = [str(whole_run[0] / f"best_{task}_model.pth") for task in ("classification", "multitask")]
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", *labels) == 0
    assert len(list(tmp_path.glob("outputs-*"))) == 1
    assert quick(demo_folder, tmp_path) == 0
    assert len(list(tmp_path.glob("outputs-*"))) == 2 and not (tmp_path / "outputs" / "average").exists()


def test_the_report_of_a_named_checkpoint_tells_its_own_seed_and_epochs(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, "--seed", "43") == 0
    path = (tmp_path / "outputs").rename(tmp_path / "first") / "best_classification_model.pth"
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", str(path)) == 0
    report = (tmp_path / "outputs" / "report.html").read_text()
    assert "classification 1 epochs" in report and "seed 43" in report and "seed 42" not in report


def test_a_checkpoint_that_does_not_tell_what_it_learned_from_is_refused_in_words(
    whole_run, demo_folder, tmp_path, capsys
):
    checkpoint = models.load_checkpoint(whole_run[0] / "best_classification_model.pth")
    known = {name: value for name, value in checkpoint.items() if name not in ("split_hash", "trained_on")}
    save(tmp_path / "a.pth", known)
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", str(tmp_path / "a.pth")) == 2
    assert "a.pth does not tell which images it was trained on" in capsys.readouterr().err


def test_checkpoints_that_do_not_fit_are_refused_by_name(whole_run, demo_folder, tmp_path, capsys):
    path = whole_run[0] / "best_classification_model.pth"
    other = models.load_checkpoint(path)
    save(tmp_path / "other.pth", other | {"classes": [*other["classes"][:6], "SCC"]})
    command = ["--evaluate-only", "--checkpoints", str(path), str(tmp_path / "other.pth")]
    assert quick(demo_folder, tmp_path, *command) == 2
    assert "other.pth" in capsys.readouterr().err and not (tmp_path / "outputs" / "average").exists()
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", str(tmp_path / "no.pth")) == 2
    assert "No checkpoint at" in capsys.readouterr().err
    own = ["--output-dir", str(whole_run[0]), "--evaluate-only", "--checkpoints", str(path)]
    assert quick(demo_folder, tmp_path, *own) == 2
    assert "holds a run of its own" in capsys.readouterr().err


# Settings


def test_the_strong_recipe_runs_to_the_end_and_says_what_it_did(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, "--recipe", "strong", "--tasks", "multitask") == 0
    identity = json.loads((tmp_path / "outputs" / "record.json").read_text())["tasks"]["multitask"]["identity"]
    assert identity["schedule"] == "cosine" and identity["mask_loss"] == "bce+dice" and identity["epochs"] == 1


def test_what_follows_a_training_is_counted_in_its_epochs_by_images_and_each_models_operations(monkeypatch, tmp_path):
    """Three passes a training image and one a validation image are an epoch; measuring passes over val and test."""
    monkeypatch.setattr(models, "operations", lambda task, encoder: {"segmentation": 20, "classification": 10}[task])
    sizes = {"classification": (100, 20, 30), "segmentation": (40, 8, 12)}
    jobs = {
        task: SimpleNamespace(
            name=task,
            recipe=SimpleNamespace(epochs=5),
            batches={part: SimpleNamespace(n_images=n) for part, n in zip(("train", "val", "test"), parts)},
        )
        for task, parts in sizes.items()
    }
    epochs, evaluating = [10 * 320, 20 * 128], [10 * 50, 20 * 20]

    def count(*tasks, tta=False):
        folder = RunFolder(tmp_path)
        watching = live.Live(
            folder, [live.work_left(folder, jobs[task], None, evaluated_as("", tta)) for task in tasks], "resnet18"
        )
        return watching.to_come, watching.epochs_after

    assert count("segmentation") == ([], evaluating[1] / epochs[1])
    both = ("classification", "segmentation")
    assert count(*both) == (["segmentation"], (5 * epochs[1] + sum(evaluating)) / epochs[0])
    RunFolder(tmp_path).write("segmentation/history.csv", "epoch\n1\n2\n")
    assert count(*both)[1] == (3 * epochs[1] + sum(evaluating)) / epochs[0]
    assert count("segmentation", tta=True) == ([], 8 * evaluating[1] / epochs[1])
    known = {"classification": {}, "segmentation": {"trained": True, "measured": None}}
    monkeypatch.setattr(RunFolder, "facts", lambda self, task: known[task])
    assert count(*both) == ([], sum(evaluating) / epochs[0])
    known["segmentation"]["measured"] = evaluated_as("", tta=False)
    assert count(*both) == ([], evaluating[0] / epochs[0])


def test_another_seed_has_the_same_split_and_another_split_seed_has_not(demo_folder, tmp_path):
    def split(*flags):
        config = main.parse_arguments(["--data-dir", str(demo_folder), "--cache-dir", str(tmp_path), *QUICK, *flags])
        return main.prepare_data(config).table["split"].tolist()

    assert split() == split("--seed", "7") != split("--split-seed", "7")


# Bad input


def test_braces_in_the_name_of_a_folder_are_text(folder, tmp_path, capsys):
    folder.fill()
    shutil.rmtree(folder.path / "masks")
    named = folder.path.rename(tmp_path / "a{b}")
    assert quick(named, tmp_path, "--tasks", "segmentation") == 2
    assert "a{b} for segmentation" in capsys.readouterr().err


def test_a_missing_data_folder_is_one_message_and_exit_code_2(tmp_path):
    done = program("--data-dir", tmp_path / "nowhere", *QUICK, cwd=tmp_path)
    assert done.returncode == 2
    message = done.stderr.strip()
    assert "\n" not in message and "nowhere" in message and "--demo" in message


def test_a_folder_with_bad_files_still_trains_and_reports_each_row(folder, tmp_path, capsys):
    folder.fill()
    (folder.path / "images" / "NV_0.jpg").write_bytes(b"")
    (folder.path / "masks" / "NV_1_segmentation.png").unlink()
    folder.rows.append(["../x", 1, 0, 0, 0, 0, 0, 0])
    folder.add("NV_4")
    folder.add("NV_5")
    folder.write()
    assert quick(folder.path, tmp_path) == 0
    report = pd.read_csv(tmp_path / "outputs" / "data_report.csv", keep_default_na=False)
    assert len(report) == len(folder.rows)
    assert report["status"].value_counts().to_dict() == {"used": 28, "left out": 2, "classification only": 1}
    printed = capsys.readouterr().out
    assert "1 left out: image: file is empty (e.g. NV_0)" in printed and "unsafe name" in printed


def test_a_folder_with_every_kind_of_damage_at_once_ends_with_all_files_and_each_rows_reason(folder, tmp_path):
    """Every state that the README's table knows, and what fuzzing found; the real program, all three models."""
    folder.fill(5)
    images, masks = folder.path / "images", folder.path / "masks"
    expected = {}
    for name, reason in {
        "NA": "",
        "001": "",
        "$x_1$": "",
        "😀": "",
        "empty_mask": "mask is empty",
        "full": "mask is full",
    }.items():
        mask = {"empty_mask": Image.new("L", (40, 30)), "full": Image.new("L", (40, 30), 255)}.get(name, disc())
        folder.add(name, mask=mask)
        expected[name] = ("used", reason)
    for name in ("gone", "empty", "cut", "text", "dangling", "pipe", "sparse"):
        folder.add(name)
    for name in ("gone", "dangling", "pipe", "sparse"):
        (images / f"{name}.jpg").unlink()
    (images / "empty.jpg").write_bytes(b"")
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:700])
    (images / "text.jpg").write_text("no image" * 50)
    (images / "dangling.jpg").symlink_to(images / "nowhere.jpg")
    os.mkfifo(images / "pipe.jpg")
    with (images / "sparse.jpg").open("wb") as file:
        file.truncate(40_000_000_000)
    expected |= {"gone": ("left out", "image is missing"), "empty": ("left out", "image: file is empty")}
    expected |= {"pipe": ("left out", "image: not a regular file"), "dangling": ("left out", "image: No such file")}
    expected |= {"cut": ("left out", "image: damaged"), "text": ("left out", "image: not an image")}
    expected |= {"sparse": ("left out", "image: more than")}
    folder.add("no_mask", mask=None)
    folder.add("cut_mask")
    (masks / "cut_mask_segmentation.png").write_bytes((masks / "cut_mask_segmentation.png").read_bytes()[:60])
    folder.add("square_mask", mask=disc((40, 40)))
    expected |= {"no_mask": ("classification only", "mask is missing"), "cut_mask": ("classification only", "mask: ")}
    expected["square_mask"] = ("classification only", "mask: mask is 40x40")
    folder.add("torn", "MEL")
    for name, labels, reason in (
        ("two", "1100000", "labels are not one-hot"),
        ("words", ["yes", *"000000"], "labels are not numbers"),
        ("../up", "0100000", "unsafe name"),
        ("scc", "0000000", "labelled SCC, which is not among the classes"),
        ("torn", "0100000", "conflicting labels"),
    ):
        folder.rows.append([name, *labels])
        expected[name] = ("left out", reason)
    folder.rows += [["", *"0100000"], ["", *"0100000"], folder.rows[0]]
    lines = [",".join(["image", *CLASSES, "SCC"])]
    lines += [",".join([*map(str, row), str(int(row[0] == "scc"))]) + "," for row in folder.rows]
    (folder.path / "GroundTruth.csv").write_text("\n".join(lines), encoding="utf-8")
    flags = (*QUICK, "--classes", *CLASSES)
    done = program("--data-dir", folder.path, *flags, cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"}, timeout=300)
    assert done.returncode == 0, done.stderr
    outputs = tmp_path / "outputs"
    assert {name for name in OUTPUTS.split() if not (outputs / name).is_file()} == set()
    report = read_back(outputs / "data_report.csv")
    assert len(report) == len(folder.rows)
    for name, (status, reason) in expected.items():
        rows = report[report["image"] == name]
        assert len(rows) and (rows["status"] == status).all(), name
        assert rows["reason"].str.startswith(reason).all() and (rows["reason"] != "").all() == bool(reason), name
    assert list(report.loc[report["image"] == "", "reason"]) == ["empty name"] * 2
    assert list(report.loc[report["image"] == folder.rows[0][0], "reason"]) == ["", "duplicate row"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are Unicode")
def test_a_folder_whose_name_is_no_utf_8_is_used(demo_folder, tmp_path):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/data\xff")
    shutil.copytree(demo_folder, place)
    done = program("--data-dir", place, *QUICK, "--tasks", "classification", cwd=tmp_path, env={"LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    assert "\\udcff" in (tmp_path / "outputs" / "report.html").read_text(encoding="utf-8")


def test_a_folder_without_masks_still_classifies(folder, tmp_path, capsys):
    folder.fill()
    shutil.rmtree(folder.path / "masks")
    assert quick(folder.path, tmp_path, "--tasks", "classification", "segmentation", "multitask") == 0
    assert "for segmentation, multitask" in capsys.readouterr().out
    assert (tmp_path / "outputs" / "best_classification_model.pth").exists()
    assert quick(folder.path, tmp_path, "--tasks", "segmentation") == 2
    assert "<image>_segmentation.png" in capsys.readouterr().err


def test_where_some_images_lack_a_mask_each_head_learns_from_and_is_measured_on_its_own_images(
    demo_folder, tmp_path, capsys
):
    place = shutil.copytree(demo_folder, tmp_path / "data")
    for mask in sorted((place / "masks").iterdir())[::2]:
        mask.unlink()
    assert quick(place, tmp_path, "--tasks", *models.MODELS) == 0
    outputs, printed = tmp_path / "outputs", capsys.readouterr().out
    test = pd.read_csv(outputs / "splits.csv").query("split == 'test'")["image"]
    masked = [image for image in test if (place / "masks" / f"{image}_segmentation.png").exists()]
    assert 0 < len(masked) < len(test)
    for task in ("classification", "multitask"):
        assert set(pd.read_csv(outputs / task / "predictions.csv")["image"]) == set(test)
        trained_on = models.load_checkpoint(outputs / f"best_{task}_model.pth")["trained_on"]["images"]
        assert len(trained_on) == (pd.read_csv(outputs / "splits.csv")["split"] == "train").sum()
    for task in ("segmentation", "multitask"):
        assert set(pd.read_csv(outputs / task / "per_image.csv")["image"]) == set(masked)
    assert f"{len(test)} images with a label" in printed and f"{len(masked)} images with a mask" in printed
    found = json.loads((outputs / "comparison.json").read_text())
    expected = {"classification": len(test), "segmentation": len(masked)}
    assert {task: differences["n_images"] for task, differences in found.items()} == expected
    html = (outputs / "report.html").read_text(encoding="utf-8")
    assert f"On {len(test)} images" in html and f"On {len(masked)} images" in html


@pytest.mark.parametrize(
    ("without", "possible", "message"),
    [
        ({}, ["classification", "segmentation", "multitask"], ""),
        ({"status": tables.LABEL_ONLY}, ["classification"], "Too few masks in here for segmentation, multitask"),
        ({"label": -1}, ["segmentation"], "Too few diagnoses in here for classification, multitask"),
    ],
)
def test_a_task_needs_a_target_of_each_of_its_heads_in_each_part_of_the_split(without, possible, message, capsys):
    """Of two images in a part one may lack a target, but not both."""
    table = pd.DataFrame({"split": np.repeat(["", *tables.SPLITS], 2), "status": tables.USED, "label": 0})
    table.loc[:1, "status"] = tables.LEFT_OUT
    table.loc[2, "status"], table.loc[5, "label"] = tables.LABEL_ONLY, -1
    for name, value in without.items():
        table.loc[table["split"] == "val", name] = value
    assert resume.choose_tasks(tuple(models.MODELS), table, "here") == possible
    assert capsys.readouterr().out.partition(".")[0] == message


def test_a_class_of_too_few_lesions_is_one_message(folder, tmp_path, capsys):
    folder.fill()
    folder.rows = [row for row in folder.rows if row[0] not in ("DF_2", "DF_3")]
    folder.write()
    assert quick(folder.path, tmp_path) == 2
    assert "Class DF (Dermatofibroma) has 2 lesion(s)" in capsys.readouterr().err


def test_an_absent_class_does_not_stop_the_run(folder, tmp_path, capsys):
    folder.fill()
    folder.rows = [row for row in folder.rows if not row[0].startswith("VASC")]
    folder.write()
    assert quick(folder.path, tmp_path) == 0
    assert "VASC (Vascular Lesion) has no image" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "outputs" / "classification" / "metrics.json").read_text())
    assert metrics["label"]["per_class"]["VASC"]["recall"] is None


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--classification-batch-size", "1"], "too few for batch normalisation at 32 pixels"),
        (["--classification-lr", "1e30"], "no longer finite"),
        (["--device", "meta"], "--device meta cannot be used"),
    ],
)
def test_what_the_machine_or_the_network_cannot_do_is_one_message(flags, message, demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, *flags) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_an_output_folder_that_is_a_file_is_one_message(demo_folder, tmp_path, capsys):
    (tmp_path / "outputs").write_text("mine")
    assert quick(demo_folder, tmp_path) == 2
    assert "outputs cannot be written (it is no folder: " in capsys.readouterr().err
    assert (tmp_path / "outputs").read_text() == "mine"


LIMITED = """
import os, resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000_000, 60_000_000))
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_full_disk_is_one_message_and_keeps_what_was_complete(demo_folder, tmp_path):
    """Writing fails for real: no file may exceed 60 MB, and the state for resuming does."""
    command = [sys.executable, "-c", LIMITED, ROOT / "main.py", "--data-dir", demo_folder, *QUICK]
    done = subprocess.run([*command, "--tasks", "classification"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "Cannot write" in done.stderr and "Traceback" not in done.stderr
    assert models.load_model(tmp_path / "outputs" / "best_classification_model.pth")
    assert not list((tmp_path / "outputs").rglob("*.partial"))


def test_a_batch_too_large_for_the_gpu_gets_a_size_to_try(demo_folder, tmp_path, monkeypatch, capsys):
    def full(*_args, **_options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train, "fit", full)
    assert quick(demo_folder, tmp_path, "--classification-batch-size", "512") == 1
    assert "Try --classification-batch-size 256" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["results.evaluate_model", "data.to_device", "models.new_model"])
def test_a_full_gpu_outside_of_training_is_one_message_too(place, demo_folder, tmp_path, monkeypatch, capsys):
    def full(*_args, **_options):
        raise torch.cuda.OutOfMemoryError("Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(f"main.{place}", full)
    assert quick(demo_folder, tmp_path) == 1
    error = capsys.readouterr().err
    assert "Out of GPU memory: Tried to allocate 2.00 GiB." in error and "--device cpu" in error


def test_ctrl_c_is_one_line_and_exit_code_130(demo_folder, tmp_path):
    flags = ["--data-dir", demo_folder, *QUICK, "--tasks", "classification", "--classification-epochs", "500"]
    running = start(flags, tmp_path)
    wait_for(lambda: n_epochs(tmp_path / "outputs" / "classification") == 1, running)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130
    assert error.strip() == "Stopped. The same command with --resume goes on from the last whole epoch."


def start(flags, cwd):
    command = [sys.executable, ROOT / "main.py", *map(str, flags)]
    # A shell starts its background jobs with SIGINT ignored, which a child would inherit.
    heeds = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **heeds)


def wait_for(holds, running, seconds=120):
    deadline = time.time() + seconds
    while not holds():
        assert running.poll() is None, running.communicate()[1]
        assert time.time() < deadline
        time.sleep(0.02)


def n_epochs(folder):
    """How many whole epochs a training's history lists."""
    path = folder / "history.csv"
    return len(pd.read_csv(path)) if path.exists() else 0


def test_a_run_killed_three_times_and_resumed_ends_with_the_same_weights(demo_folder, tmp_path):
    """While it prepares, and within an epoch, twice; test_train.py stops between any two files."""
    flags = ["--data-dir", demo_folder, *QUICK, "--tasks", "multitask", "--multitask-epochs", "6"]
    whole = program(*flags, "--output-dir", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    outputs = tmp_path / "killed"
    for moment in (
        lambda: (outputs / "record.json").exists(),
        lambda: n_epochs(outputs / "multitask") >= 1,
        lambda: n_epochs(outputs / "multitask") >= 3,
    ):
        running = start([*flags, "--output-dir", "killed", "--resume"], tmp_path)
        wait_for(moment, running)
        running.kill()
        running.communicate()
        assert running.returncode == -signal.SIGKILL
    last = program(*flags, "--output-dir", "killed", "--resume", cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    best = [models.load_checkpoint(tmp_path / name / "best_multitask_model.pth") for name in ("whole", "killed")]
    assert best[0]["epoch"] == best[1]["epoch"]
    assert all(torch.equal(best[0]["weights"][name], best[1]["weights"][name]) for name in best[0]["weights"])
    metrics = [(tmp_path / name / "multitask" / "metrics.json").read_bytes() for name in ("whole", "killed")]
    assert metrics[0] == metrics[1]


def test_resuming_with_another_setting_is_refused_by_name(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path) == 0
    assert quick(demo_folder, tmp_path, "--resume", "--classification-lr", "0.5") == 2
    assert "lr was 0.0001, is 0.5" in capsys.readouterr().err


def test_a_run_with_another_encoder_says_so_and_is_not_resumed_with_the_default(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--encoder", "resnet50") == 0
    checkpoint = models.load_checkpoint(tmp_path / "outputs" / "best_classification_model.pth")
    assert checkpoint["arguments"] == {"n_classes": 7, "encoder": "resnet50"}
    assert models.build_model(checkpoint).encoder.channels[-1] == 2048
    assert quick(demo_folder, tmp_path, "--resume") == 2
    assert "encoder was resnet50, is resnet18" in capsys.readouterr().err


def test_a_fine_tuning_recipe_is_resumed_to_the_same_weights_and_named_in_checkpoint_and_report(demo_folder, tmp_path):
    flags = ["--encoder", "efficientnet_lite0", "--tasks", "multitask", "--augment", "flips", "crops", "mixup"]
    flags += [
        "--multitask-epochs",
        "2",
        "--dropout",
        "0.2",
        "--drop-path",
        "0.2",
        "--weight-decay",
        "0.05",
        "--encoder-lr-scale",
        "0.3",
    ]
    found = []
    for name in ("whole", "stopped"):
        with mock.patch.object(
            train.Checkpoints, "write_history", autospec=True, side_effect=stopping(name == "stopped")
        ):
            assert quick(demo_folder, tmp_path / name, *flags, "--multitask-epochs", "2") == (
                130 if name == "stopped" else 0
            )
    assert quick(demo_folder, tmp_path / "stopped", *flags, "--multitask-epochs", "2", "--resume") == 0
    for name in ("whole", "stopped"):
        outputs = tmp_path / name / "outputs"
        found.append(models.load_checkpoint(outputs / "best_multitask_model.pth"))
        assert "EfficientNet-Lite0 encoder; multitask" in (outputs / "report.html").read_text()
    assert found[0]["arguments"]["encoder"] == "efficientnet_lite0"
    assert all(torch.equal(value, found[1]["weights"][name]) for name, value in found[0]["weights"].items())


def stopping(at_all):
    """What stands in for `Checkpoints.write_history`, and stops the program after its first epoch."""

    def write_history(self, history):
        if at_all and len(history) == 1 and not self.resume:
            raise KeyboardInterrupt
        ORIGINAL(self, history)

    return write_history


ORIGINAL = train.Checkpoints.write_history


def test_stochastic_depth_is_refused_for_a_network_without_it_before_anything_is_written(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--drop-path", "0.1") == 2
    assert "resnet18 has no stochastic depth: set DROP_PATH to 0" in capsys.readouterr().err
    assert not (tmp_path / "outputs" / "config.json").exists()


def test_resuming_with_another_number_of_processes_is_refused_by_name(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path) == 0
    path = tmp_path / "outputs" / "record.json"
    path.write_text(path.read_text().replace('"processes": 1', '"processes": 2'))
    assert quick(demo_folder, tmp_path, "--resume") == 2
    assert "processes was 2, is 1" in capsys.readouterr().err


def test_a_damaged_record_is_one_message(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path) == 0
    for damaged in ("[]", '{"tasks": []}', "{"):
        (tmp_path / "outputs" / "record.json").write_text(damaged)
        assert quick(demo_folder, tmp_path, "--resume") == 2
        assert "record.json is damaged" in capsys.readouterr().err


def test_resuming_with_other_data_is_refused_by_name(demo_folder, folder, tmp_path, capsys):
    folder.fill()
    assert quick(demo_folder, tmp_path) == 0
    assert quick(folder.path, tmp_path, "--resume") == 2
    assert "split hash was" in capsys.readouterr().err


def test_a_network_that_refuses_is_announced_once_and_nothing_hangs(demo_folder, tmp_path):
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    env = {**os.environ, **proxies, "TORCH_HOME": str(tmp_path / "hub"), "no_proxy": ""}
    flags = ["--data-dir", demo_folder, *QUICK, "--pretrained", "auto", "--tasks", "classification"]
    done = program(*flags, cwd=tmp_path, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("FROM SCRATCH") == 1
