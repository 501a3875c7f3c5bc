"""A run that takes over a folder: to go on, to measure again, or to be refused before anything changes."""

import json
import os
import shutil
import signal
import time
from functools import partial
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import RESNET, contents, quick
from processes import Forked

import main
import models
import train
from checkpoints.states import changes_between
from dataset import table as tables
from report import results, resume
from report.folder import RunFolder


def test_a_refused_resume_changes_nothing(demo_folder, finished, tmp_path):
    before = contents(tmp_path)
    assert quick(demo_folder, tmp_path, "--resume", "--seed", "99") == 2
    assert contents(tmp_path) == before


def test_measuring_again_keeps_what_the_model_was_trained_with(demo_folder, finished, tmp_path):
    before = contents(finished)
    again = ["--evaluate-only", "--classification-epochs", "15", "--classification-lr", "0.003"]
    assert quick(demo_folder, tmp_path, *again) == 0
    after = contents(finished)
    for name in ("config.json", "environment.json", "splits.csv", "classification/metrics.json"):
        assert after[name] == before[name], name
    evaluation = json.loads(after["evaluation.json"])
    assert evaluation["config"]["CLASSIFICATION_EPOCHS"] == 15
    html = after["report.html"].decode()
    assert "classification 1 epoch;" in html and "Evaluated again with" in html


def test_copied_checkpoints_can_be_measured_and_keep_their_configuration(demo_folder, finished, tmp_path):
    metrics = (finished / "classification" / "metrics.json").read_bytes()
    (tmp_path / "copied").mkdir()
    shutil.copy(finished / "best_classification_model.pth", tmp_path / "copied")
    flags = ["--output-dir", str(tmp_path / "copied"), "--classification-lr", "0.003"]
    assert quick(demo_folder, tmp_path, "--evaluate-only", *flags) == 0
    assert (tmp_path / "copied" / "classification" / "metrics.json").read_bytes() == metrics
    assert json.loads((tmp_path / "copied" / "config.json").read_text())["CLASSIFICATION_LR"] == 0.0001


def test_resuming_a_finished_run_does_nothing_and_says_so(demo_folder, finished, tmp_path, capsys):
    before = contents(finished)
    assert quick(demo_folder, tmp_path, "--resume") == 0
    assert "finished: nothing is left to do" in capsys.readouterr().out
    assert contents(finished) == before


def test_a_finished_run_whose_model_is_gone_is_not_called_finished(demo_folder, finished, tmp_path, capsys):
    best = finished / "best_classification_model.pth"
    best.rename(tmp_path / "kept.pth")
    (finished / "classification" / "last.pth").touch()  # without any state the run would start anew
    assert quick(demo_folder, tmp_path, "--resume") == 2
    assert f"{best} is missing. Restore it, or train all again without --resume." in capsys.readouterr().err


def test_resuming_with_more_epochs_trains_measures_and_reports_them_and_leaves_other_tasks(demo_folder, tmp_path):
    tasks, outputs = ["--tasks", "classification", "segmentation"], tmp_path / "outputs"
    assert quick(demo_folder, tmp_path, *tasks, "--keep-states") == 0
    before = contents(outputs)
    assert quick(demo_folder, tmp_path, *tasks, "--resume", "--classification-epochs", "2") == 0
    assert not (outputs / "classification" / "last.pth").exists()  # this command does not ask for it
    after, record = contents(outputs), RunFolder(outputs).read_record()
    assert n_epochs(outputs / "classification") == 2 and record["finished"]
    first, second = (json.loads(some["environment.json"]) for some in (before, after))
    assert second["before"] == [first]
    assert record["tasks"]["classification"]["identity"]["epochs"] == 2
    assert after["report.html"] != before["report.html"]
    for name in ("best_segmentation_model.pth", "segmentation/metrics.json", "segmentation/history.csv"):
        assert after[name] == before[name]


def test_resuming_one_task_leaves_what_the_configuration_says_of_the_others(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, "--keep-states", "--tasks", *models.MODELS) == 0
    again = ["--resume", "--tasks", "classification", "--classification-epochs", "2"]
    again += ["--segmentation-epochs", "9", "--segmentation-batch-size", "12"]
    assert quick(demo_folder, tmp_path, *again) == 0
    config = json.loads((tmp_path / "outputs" / "config.json").read_text())
    assert config["TASKS"] == ["segmentation", "multitask", "classification"] and config["CLASSIFICATION_EPOCHS"] == 2
    assert config["SEGMENTATION_EPOCHS"] == 1 and config["SEGMENTATION_BATCH_SIZE"] == 16


def test_more_epochs_of_a_finished_model_are_refused_without_its_state_and_nothing_is_lost(
    demo_folder, finished, tmp_path, capsys
):
    before = contents(finished)
    assert quick(demo_folder, tmp_path, "--resume", "--classification-epochs", "2") == 2
    message = capsys.readouterr().err.strip()
    assert "last.pth is missing" in message and "--keep-states" in message and "--start-from" in message
    assert "\n" not in message and contents(finished) == before


def test_a_run_that_stops_after_its_first_model_is_resumed_without_that_models_state(demo_folder, tmp_path):
    """To the same weights and scores as a run that was not stopped."""
    tasks = ["--tasks", "classification", "multitask"]
    assert quick(demo_folder, tmp_path / "whole", *tasks) == 0
    evaluate = mock.patch.object(results, "evaluate_model", side_effect=KeyboardInterrupt)
    with evaluate:
        assert quick(demo_folder, tmp_path / "stopped", *tasks) == 130
    assert not list((tmp_path / "stopped").rglob("last.pth"))
    assert quick(demo_folder, tmp_path / "stopped", *tasks, "--resume") == 0
    whole, stopped = (contents(tmp_path / name / "outputs") for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    for task in tasks[1:]:
        assert whole[f"{task}/metrics.json"] == stopped[f"{task}/metrics.json"]


def test_resuming_with_a_further_task_adds_it(demo_folder, finished, tmp_path):
    before = contents(finished)
    assert quick(demo_folder, tmp_path, "--resume", "--tasks", "classification", "multitask") == 0
    after = contents(finished)
    name = "best_classification_model.pth"
    assert after[name] == before[name] and "comparison.json" in after and "best_multitask_model.pth" in after


def test_evaluate_only_measures_the_saved_models_again(demo_folder, finished, tmp_path):
    metrics = finished / "classification" / "metrics.json"
    first, trained = metrics.read_bytes(), (finished / "best_classification_model.pth").stat().st_mtime_ns
    metrics.unlink()
    assert quick(demo_folder, tmp_path, "--evaluate-only") == 0
    assert metrics.read_bytes() == first
    assert (finished / "best_classification_model.pth").stat().st_mtime_ns == trained


def test_a_run_that_is_stopped_while_it_is_measured_anew_does_not_call_it_measured(
    demo_folder, finished, tmp_path, monkeypatch
):
    original, known = results.publish, RunFolder(finished).read_record()["tasks"]["classification"]

    def stopped(*arguments, **options):
        original(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "publish", stopped)
    assert quick(demo_folder, tmp_path, "--resume", "--tta") == 130
    assert RunFolder(finished).read_record()["tasks"]["classification"]["measured"] is None
    monkeypatch.setattr(results, "publish", original)
    assert quick(demo_folder, tmp_path, "--resume") == 0
    assert RunFolder(finished).read_record()["tasks"]["classification"] == known
    assert json.loads((finished / "classification" / "metrics.json").read_text())["views"] == 1


def test_evaluate_only_measures_the_models_that_are_there_and_names_the_others(demo_folder, finished, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tasks", *models.MODELS) == 0
    assert "for segmentation, multitask. Continuing without." in capsys.readouterr().out
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tasks", "segmentation") == 2
    assert "No checkpoint in" in capsys.readouterr().err


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


def test_braces_in_the_name_of_a_folder_are_text(folder, tmp_path, capsys):
    folder.fill()
    shutil.rmtree(folder.path / "masks")
    named = folder.path.rename(tmp_path / "a{b}")
    assert quick(named, tmp_path, "--tasks", "segmentation") == 2
    assert "a{b} for segmentation" in capsys.readouterr().err


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


def test_ctrl_c_is_one_line_and_exit_code_130(demo_folder, tmp_path):
    running = Forked(quick, demo_folder, tmp_path, "--classification-epochs", "5000")
    wait_for(lambda: n_epochs(tmp_path / "outputs" / "classification") >= 1, running)
    os.kill(running.process.pid, signal.SIGINT)
    done = running.ended(timeout=60)
    assert done.returncode == 130
    assert done.stderr.strip() == "Stopped. The same command with --resume continues from the last epoch."


def wait_for(holds, running, seconds=120):
    deadline = time.time() + seconds
    while not holds():
        assert running.process.is_alive(), running.ended().stderr
        assert time.time() < deadline
        time.sleep(0.02)


def n_epochs(folder):
    """How many whole epochs a training's history lists."""
    path = folder / "history.csv"
    return len(pd.read_csv(path)) if path.exists() else 0


def test_a_run_killed_three_times_and_resumed_ends_with_the_same_weights(demo_folder, tmp_path):
    """While it prepares, and within an epoch, twice; test_train.py stops between any two files."""
    flags = ["--tasks", "multitask", "--multitask-epochs", "6", *RESNET]
    train = partial(Forked, quick, demo_folder, tmp_path, *flags, "--output-dir")  # all with as many threads
    assert train(tmp_path / "whole").ended().returncode == 0
    outputs = tmp_path / "killed"
    for moment in (
        lambda: (outputs / "record.json").exists(),
        lambda: n_epochs(outputs / "multitask") >= 1,
        lambda: n_epochs(outputs / "multitask") >= 3,
    ):
        running = train(outputs, "--resume")
        wait_for(moment, running)
        running.process.kill()
        assert running.ended().returncode == -signal.SIGKILL
    assert train(outputs, "--resume").ended().returncode == 0
    best = [models.load_checkpoint(tmp_path / name / "best_multitask_model.pth") for name in ("whole", "killed")]
    assert best[0]["epoch"] == best[1]["epoch"]
    assert all(torch.equal(best[0]["weights"][name], best[1]["weights"][name]) for name in best[0]["weights"])
    metrics = [(tmp_path / name / "multitask" / "metrics.json").read_bytes() for name in ("whole", "killed")]
    assert metrics[0] == metrics[1]


def test_resuming_with_another_setting_is_refused_by_name(demo_folder, finished, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--resume", "--classification-lr", "0.5") == 2
    assert "lr was 0.0001, is 0.5" in capsys.readouterr().err


def test_a_run_with_another_encoder_says_so_and_is_not_resumed_with_the_default(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--encoder", "resnet50") == 0
    checkpoint = models.load_checkpoint(tmp_path / "outputs" / "best_classification_model.pth")
    assert checkpoint["arguments"] == {"n_classes": 7, "encoder": "resnet50"}
    assert models.build_model(checkpoint).encoder.channels[-1] == 2048
    assert quick(demo_folder, tmp_path, "--resume") == 2
    assert "encoder was resnet50, is tiny" in capsys.readouterr().err


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


def test_few_negatives_are_said_drawn_anew_after_a_resume_and_part_of_what_a_run_is(demo_folder, tmp_path, capsys):
    flags, found = ["--negatives", "2", "--classification-epochs", "2", "--augment", "rotations", "mixup"], []
    flags += ["--classes", "common=NV,BCC,AKIEC,BKL,DF,VASC", "MEL"]
    for name, code in (("whole", 0), ("stopped", 130)):
        patch = {"autospec": True, "side_effect": stopping(name == "stopped")}
        with mock.patch.object(train.Checkpoints, "write_history", **patch):
            assert quick(demo_folder, tmp_path / name, *flags) == code
    assert "Each epoch draws" in capsys.readouterr().out
    assert quick(demo_folder, tmp_path / "stopped", *flags[2:], "--resume") == 2
    assert "negatives was 2, is 0" in capsys.readouterr().err
    assert quick(demo_folder, tmp_path / "stopped", *flags, "--resume") == 0
    for name in ("whole", "stopped"):
        found.append(models.load_checkpoint(tmp_path / name / "outputs" / "best_classification_model.pth"))
    assert found[0]["epoch"] == found[1]["epoch"]
    assert all(torch.equal(value, found[1]["weights"][name]) for name, value in found[0]["weights"].items())


def stopping(at_all):
    """What stands in for `Checkpoints.write_history`, and stops the program after its first epoch."""

    def write_history(self, history):
        if at_all and len(history) == 1 and not self.resume:
            raise KeyboardInterrupt
        ORIGINAL(self, history)

    return write_history


ORIGINAL = train.Checkpoints.write_history


def test_resuming_with_another_number_of_processes_is_refused_by_name(demo_folder, finished, tmp_path, capsys):
    path = finished / "record.json"
    path.write_text(path.read_text().replace('"processes": 1', '"processes": 2'))
    assert quick(demo_folder, tmp_path, "--resume") == 2
    assert "processes was 2, is 1" in capsys.readouterr().err


def test_gpus_may_go_on_in_another_number_because_they_share_batch_statistics():
    environments = [{"device": "NVIDIA H200", "precision": "bf16", "processes": n} for n in (1, 4)]
    config = main.parse_arguments([])
    one, four = (main.identity(config, "classification", environment, {}) for environment in environments)
    assert one == four
    on_cpus = [main.identity(config, "classification", found | {"device": "cpu"}, {}) for found in environments]
    assert changes_between(*on_cpus) == "processes was 1, is 4"


def test_a_damaged_record_is_one_message(demo_folder, finished, tmp_path, capsys):
    for damaged in ("[]", '{"tasks": []}', "{"):
        (finished / "record.json").write_text(damaged)
        assert quick(demo_folder, tmp_path, "--resume") == 2
        assert "record.json is damaged" in capsys.readouterr().err


def test_resuming_with_other_data_is_refused_by_name(finished, folder, tmp_path, capsys):
    folder.fill()
    assert quick(folder.path, tmp_path, "--resume") == 2
    assert "split hash was" in capsys.readouterr().err
