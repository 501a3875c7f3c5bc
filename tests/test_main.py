"""The program from its settings to a finished folder, and its answers to mistakes."""

import json
import os
import re
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, RESNET, disc, quick
from PIL import Image
from processes import Forked, program

import data
import main
import models
from dataset import synthetic
from dataset.classes import HAM10000 as CLASSES
from dataset.csvfile import read_back

OUTPUTS = """config.json environment.json data_report.csv splits.csv class_distribution.png report.html leakage.csv
best_classification_model.pth best_segmentation_model.pth best_multitask_model.pth
classification/history.csv classification/metrics.json classification/predictions.csv record.json
classification/confusion_matrix.png classification/training_curves.png classification/reliability.png comparison.json
segmentation/history.csv segmentation/metrics.json segmentation/per_image.csv
segmentation/masks.png segmentation/training_curves.png
multitask/history.csv multitask/metrics.json multitask/predictions.csv multitask/per_image.csv
multitask/confusion_matrix.png multitask/masks.png multitask/training_curves.png
classification/confusion_matrix_balanced.png multitask/confusion_matrix_balanced.png"""


def test_one_run_writes_everything_that_is_promised(whole_run):
    outputs, _ = whole_run
    assert {name for name in OUTPUTS.split() if not (outputs / name).is_file()} == set()
    assert not list(outputs.rglob("*.partial"))


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
    assert "If single images were split" in done.stdout and "accuracy" in done.stdout


def test_two_runs_with_one_seed_agree_to_the_last_digit(whole_run, demo_folder, tmp_path):
    outputs, _ = whole_run
    """One in a process of its own, and one in this."""
    assert quick(demo_folder, tmp_path, *RESNET, "--tasks", *models.MODELS) == 0
    for name in ("splits.csv", *(f"{task}/metrics.json" for task in models.MODELS)):
        assert (tmp_path / "outputs" / name).read_bytes() == (outputs / name).read_bytes()


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


def test_a_run_on_drawn_lesions_says_so_without_the_demo_as_well(whole_run):
    outputs, printed = whole_run
    assert json.loads((outputs / "config.json").read_text())["data"] == synthetic.NOTE
    assert f"*** {synthetic.NOTE}: these numbers say nothing about real lesions ***" in printed.stdout


@pytest.mark.parametrize("place", [".", "..", "data"])
def test_an_output_folder_that_holds_the_data_or_the_work_is_refused(place, demo_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "work" / "data").mkdir(parents=True)
    shutil.copytree(demo_folder, tmp_path / "work" / "data" / "set")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(SystemExit):
        main.main(["--data-dir", "data/set", "--output-dir", place])
    assert "for the outputs only" in capsys.readouterr().err


def test_the_strong_recipe_runs_to_the_end_and_says_what_it_did(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, "--recipe", "strong", "--tasks", "multitask") == 0
    identity = json.loads((tmp_path / "outputs" / "record.json").read_text())["tasks"]["multitask"]["identity"]
    assert identity["schedule"] == "cosine" and identity["mask_loss"] == "bce+dice" and identity["epochs"] == 1


def test_another_seed_has_the_same_split_and_another_split_seed_has_not(demo_folder, tmp_path):
    def split(*flags):
        config = main.parse_arguments(["--data-dir", str(demo_folder), "--cache-dir", str(tmp_path), *QUICK, *flags])
        return main.prepare_data(config).table["split"].tolist()

    assert split() == split("--seed", "7") != split("--split-seed", "7")


def test_a_missing_data_folder_is_one_message_and_exit_code_2(tmp_path):
    done = program("--data-dir", tmp_path / "nowhere", *QUICK, cwd=tmp_path)
    assert done.returncode == 2
    message = done.stderr.strip()
    assert "\n" not in message and "nowhere" in message and "--demo" in message


def test_a_folder_with_every_kind_of_damage_at_once_ends_with_all_files_and_each_rows_reason(folder, tmp_path):
    """Every state that the README's table knows, and what fuzzing found; all three models, on a plain console."""
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
    flags = ("--classes", *CLASSES, "--tasks", *models.MODELS)
    done = Forked(quick, folder.path, tmp_path, *flags, encoding="ascii").ended()
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


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--classification-batch-size", "1"], "too few for batch normalisation at 32 pixels"),
        (["--classification-lr", "1e30"], "no longer finite"),
        (["--device", "meta"], "--device meta cannot be used"),
        (["--device", "gpu"], "--device gpu is no device. Try auto, cpu, cuda or mps."),
    ],
)
def test_what_the_machine_or_the_network_cannot_do_is_one_message(flags, message, demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, *flags) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_stochastic_depth_is_refused_for_a_network_without_it_before_anything_is_written(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--drop-path", "0.1") == 2
    assert "tiny has no stochastic depth: set DROP_PATH to 0" in capsys.readouterr().err
    assert not (tmp_path / "outputs" / "config.json").exists()
