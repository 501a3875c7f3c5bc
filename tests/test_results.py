"""Which part of the split each number comes from, with feigned networks; and what a run keeps of its measurements."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import edit, metrics_in, picture, quick, text_of

import models
import predict
from checkpoints.states import save
from checkpoints.thresholds import SCALE
from checkpoints.trained import Trained
from dataset import table as tables
from dataset.classes import HAM10000 as CLASSES
from measure import alarms
from measure.assess import Assessment
from measure.collect import Collected
from report import own, results
from report.cautions import cautions_of
from report.folder import RunFolder
from report.run import Run

FITTED = {"temperature": 2.0, "scale": SCALE, "tau": 0.5}


class Part:
    """A part of the split with labels of its own."""

    def __init__(self, name, *labels):
        self.name, self.sizes, self.device, self.pixels = name, [len(labels)], "cpu", np.zeros((1, 8, 8, 4))
        self.classes = ("MEL", "NV")
        label = pd.Categorical.from_codes(labels, ["MEL", "NV"])
        images = [f"{name}{number}" for number in range(len(labels))]
        self.table = pd.DataFrame({"image": images, "label": label, "image_path": "folder/image", "split": name})
        self.table["status"] = tables.USED

    def whole(self):
        return self


@pytest.fixture
def parts():
    return {"train": Part("train", 0, 0, 0), "val": Part("val", 1, 1), "test": Part("test", 0, 1)}


@pytest.fixture
def calls(monkeypatch):
    """What was fitted and what was scored: (what, part's name, ...), and no network is built."""
    found = []

    def calibrate(model, batches, precision, learned, coverage=0.9):
        found.append(("calibrate", batches.name, list(learned), model))
        return FITTED | {"of": model}

    def calibrate_sets(model, batches, precision, temperature, coverage):
        found.append(("calibrate_sets", batches.name, temperature))
        return {"target": coverage}

    def assess(model, batches, calibration, name, precision):
        found.append(("assess", batches.name, calibration))
        return Assessment({"label": {}}, {}, {}, Collected())

    for module in (results, own):
        monkeypatch.setattr(module, "calibrate", calibrate)
        monkeypatch.setattr(module, "assess", assess)
        monkeypatch.setattr(module, "fit_unlike", lambda model, train, val, precision: {"of": (train.name, val.name)})
    for name in ("publish", "packed", "image_table", "write_images"):
        monkeypatch.setattr(results, name, lambda *_: None)
    monkeypatch.setattr(own, "image_table", lambda *_: None)
    monkeypatch.setattr(results, "calibrate_sets", calibrate_sets)
    monkeypatch.setattr(own, "Unlike", lambda of: torch.nn.Identity())
    monkeypatch.setattr(Trained, "network", lambda self, device: f"{len(self.checkpoints)} tta {self.tta}")
    return found


def trained(n=1, tta=False, **facts):
    one = {"task": "classification", "arguments": {}, "classes": ["MEL", "NV"], "image_size": 32} | facts
    return Trained({Path(f"{name}.pth"): dict(one) for name in "ab"[:n]}, tta)


def test_what_is_fitted_comes_from_the_validation_set_and_the_prior_from_the_training_set(parts, calls):
    model = trained()
    network = results.fitted_network(model, parts, "fp32")
    assert calls == [("calibrate", "val", [0, 0, 0], "1 tta False")] and model.calibration["of"] == network


def test_what_a_checkpoint_holds_is_taken_as_it_is(parts, calls):
    model = trained(calibration=FITTED)
    results.fitted_network(model, parts, "fp32")
    assert model.calibration == FITTED and not calls


def test_what_a_checkpoint_of_these_images_lacks_is_fitted_and_of_others_is_not(parts, calls):
    images = list(parts["train"].table["image"])
    ours, other = ({"images": names, "lesions": [], "patients": []} for names in (images, images[1:]))
    for known, expected in ((ours, {"of": ("train", "val")}), (other, None)):
        calls.clear()
        model = trained(calibration=FITTED, trained_on=known)
        results.fitted_network(model, parts, "fp32")
        assert model.checkpoint.get("unlike") == expected
        assert calls == ([("calibrate_sets", "val", 2.0)] if known is ours else [])
        assert model.calibration == FITTED | ({"sets": {"target": 0.9}} if known is ours else {})


def test_another_coverage_fits_the_sets_again(parts, calls):
    images = list(parts["train"].table["image"])
    sets = FITTED | {"sets": {"target": 0.9, "limits": [0.1, 0.1]}}
    for coverage in (0.9, 0.8):
        model = trained(calibration=sets, trained_on={"images": images}, unlike={})
        results.fitted_network(model, parts, "fp32", coverage)
        assert [call[0] for call in calls] == ["calibrate_sets"] * (coverage == 0.8)
        assert model.calibration["temperature"] == 2.0 and model.sets["target"] == coverage


@pytest.mark.parametrize(("target", "kept"), [(0.9, "its own are for 0.9"), (None, "none are known"), (0.8, "")])
def test_a_coverage_that_other_images_do_not_give_is_not_passed_over(parts, calls, capsys, target, kept):
    sets = {"sets": {"target": target, "limits": [0.1, 0.1]}} if target else {}
    model = trained(calibration=FITTED | sets, trained_on={"images": ["another"]})
    results.fitted_network(model, parts, "fp32", 0.8)
    assert model.calibration == FITTED | sets and not calls
    shown = capsys.readouterr().out
    assert ("not fitted for --coverage 0.8" in shown) == bool(kept) and kept in shown


def test_an_average_has_a_calibration_of_its_own(parts, calls):
    model = trained(2, calibration=FITTED)
    results.fitted_network(model, parts, "fp32")
    assert model.calibration["of"] == "2 tta False"


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("is_own", [False, True])
def test_scores_are_of_the_test_set_and_what_is_kept_is_of_the_network_as_it_is_used(
    parts, calls, monkeypatch, tta, is_own
):
    """Over flips and rotations, what was fitted for the network alone is kept beside."""
    saved, model = {}, trained(tta=tta)
    monkeypatch.setattr("checkpoints.trained.save", lambda path, content: saved.update(content))
    folder = SimpleNamespace(below=lambda name: folder, note_task=lambda *_, **__: None, write=lambda *_: None)
    folder.path = Path("outputs")
    folder.best_path = lambda task: Path("a.pth" if is_own else "b.pth")
    results.evaluate_model(folder, model, parts, None, "fp32", results.evaluated_as("", tta=False))
    assert [call[1] for call in calls if call[0] == "assess"] == ["test"]
    assert saved.get("calibration", {}).get("of") == ("1 tta False" if is_own else None)
    assert saved.get("calibration_tta", {}).get("of") == ("1 tta True" if is_own and tta else None)


def test_an_own_model_is_calibrated_on_the_validation_set_and_scored_on_the_test_set(
    parts, calls, monkeypatch, tmp_path
):
    model = SimpleNamespace(parameters=lambda: iter(()))
    monkeypatch.setattr(own, "parts_for", lambda *_: parts)
    monkeypatch.setattr(own.RunFolder, "write_data", lambda *_: None)
    monkeypatch.setattr(own.page, "write", lambda _: None)
    table = pd.concat([part.table for part in parts.values()], ignore_index=True).assign(crc=0, lesion_id="")
    own.report_model(model, table, None, tmp_path / "own", name="own")
    assert calls[0] == ("calibrate", "val", [0, 0, 0], model)
    assert calls[1] == ("assess", "test", FITTED | {"of": model})


def test_a_checkpoint_keeps_what_its_thresholds_did_on_the_test_set(whole_run):
    outputs, _ = whole_run
    for task in ("classification", "multitask"):
        checkpoint = models.load_checkpoint(outputs / f"best_{task}_model.pth")
        found = json.loads((outputs / task / "metrics.json").read_text())
        assert checkpoint["tested"] == {
            name: {key: point[key] for key in ("threshold", "sensitivity", "specificity")}
            | {"n_images": found["n_images"]}
            for name, point in found["label"]["operating_points"].items()
        } | {"heat_map": found["label"]["heat_map"]}
        labels = pd.read_csv(outputs / "splits.csv").query("split == 'train'")["label"].value_counts(normalize=True)
        assert checkpoint["calibration"]["prior"] == pytest.approx(labels.reindex(CLASSES).tolist())
    assert not models.load_checkpoint(outputs / "best_segmentation_model.pth").get("tested")


def test_evaluate_only_fits_a_tau_to_a_checkpoint_that_has_none(demo_folder, finished, tmp_path):
    path = finished / "best_classification_model.pth"
    whole = models.load_checkpoint(path)
    old = {name: value for name, value in whole.items() if name != "tested"}
    old["calibration"] = {name: whole["calibration"][name] for name in ("temperature", "thresholds", "scale")}
    save(path, old)
    assert quick(demo_folder, tmp_path, "--evaluate-only") == 0
    again = models.load_checkpoint(path)
    assert again["calibration"] == whole["calibration"] and again["tested"] == whole["tested"]


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
    assert "has no masks to evaluate it with" in capsys.readouterr().out


def test_averages_over_turns_are_fitted_and_kept_beside_the_networks_own(demo_folder, finished, tmp_path):
    alone = models.load_checkpoint(finished / "best_classification_model.pth")
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tta") == 0
    both = models.load_checkpoint(finished / "best_classification_model.pth")
    assert both["calibration"] == alone["calibration"] and both["calibration_tta"] != alone["calibration"]
    assert {"calibration_tta", "tested_tta"} == set(both) - set(alone)
    assert metrics_in(tmp_path, "classification")["views"] == 8


def test_a_run_over_turns_also_calibrates_the_network_alone(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, "--tta") == 0
    checkpoint = models.load_checkpoint(tmp_path / "outputs" / "best_classification_model.pth")
    assert checkpoint["calibration"]["temperature"] != checkpoint["calibration_tta"]["temperature"]


def test_a_model_over_turns_is_not_compared_with_one_without(copy, demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tta", "--tasks", "multitask") == 0
    assert RunFolder(tmp_path / "outputs").read_record()["comparison"] is False
    assert not (tmp_path / "outputs" / "comparison.json").exists()
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tta", "--tasks", "classification") == 0
    assert RunFolder(tmp_path / "outputs").read_record()["comparison"] is True
    assert set(json.loads((tmp_path / "outputs" / "comparison.json").read_text())) == {"classification"}


def test_measuring_anew_forgets_another_data_set_that_was_measured_otherwise(demo_folder, finished, tmp_path):
    record = RunFolder(finished)
    record.take_record()
    record.note_task("classification", external=True)
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--tta") == 0
    assert not RunFolder(finished).read_record()["tasks"]["classification"]["external"]


def shown_in(outputs):
    """The text of the report, and the checklist."""
    return text_of((outputs / "report.html").read_text(encoding="utf-8")), (outputs / "checklist.md").read_text()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), RuntimeError("no memory")])
def test_an_audit_that_fails_costs_the_audit_alone_and_resume_makes_it(error, demo_folder, finished, tmp_path, capsys):
    def fail(*_):
        raise error

    before = (finished / "leakage.csv").read_bytes()
    with mock.patch("dataset.leakage.audit", fail):
        assert quick(demo_folder, tmp_path, "--evaluate-only") == 0
    said = f"The split was not audited for leakage ({type(error).__name__}: {error}".rstrip()
    for text in (capsys.readouterr().out, *shown_in(finished)):
        assert said in text.replace("\\", "")
    assert "AUC" in shown_in(finished)[0] and not (finished / "leakage.csv").exists()
    assert quick(demo_folder, tmp_path, "--resume") == 0
    assert (finished / "leakage.csv").read_bytes() == before
    assert "not audited" not in "".join(shown_in(finished))


def test_an_interrupted_audit_leaves_the_models_report_and_resume_makes_it(demo_folder, finished, tmp_path, capsys):
    before = (finished / "leakage.csv").read_bytes()
    (finished / "report.html").unlink()
    with mock.patch("dataset.leakage.audit", side_effect=KeyboardInterrupt):
        assert quick(demo_folder, tmp_path, "--evaluate-only") == 130
    assert "The report is written." in capsys.readouterr().out
    for text in shown_in(finished):
        assert f"not audited for leakage ({results.INTERRUPTED})" in text
    assert "AUC" in shown_in(finished)[0] and not (finished / "leakage.csv").exists()
    assert quick(demo_folder, tmp_path, "--resume") == 0
    assert (finished / "leakage.csv").read_bytes() == before


def test_a_run_without_the_audit_says_so_and_resume_adds_it(demo_folder, tmp_path, capsys):
    outputs, said = tmp_path / "outputs", "The split was not audited for leakage (--no-audit)"
    assert quick(demo_folder, tmp_path, "--no-audit") == 0
    cautions = cautions_of(Run(outputs))
    assert sum(said in caution for caution in cautions) == 1
    for text in (capsys.readouterr().out, *shown_in(outputs)):
        assert said in text
    assert not (outputs / "leakage.csv").exists()
    assert quick(demo_folder, tmp_path, "--no-audit", "--resume") == 0
    assert "nothing is left to do" in capsys.readouterr().out
    assert quick(demo_folder, tmp_path, "--resume") == 0
    assert (outputs / "leakage.csv").exists() and "not audited" not in "".join(shown_in(outputs))


def test_without_the_audit_that_of_an_earlier_command_is_kept_if_the_split_is_the_same(demo_folder, finished, tmp_path):
    before = (finished / "leakage.csv").read_bytes()
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--no-audit") == 0
    assert (finished / "leakage.csv").read_bytes() == before and "Pairs of the" in shown_in(finished)[0]
    edit(finished / "record.json", lambda found: found.pop("audit"))  # as before the audit was recorded
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--no-audit") == 0
    assert (finished / "leakage.csv").read_bytes() == before and "Pairs of the" in shown_in(finished)[0]
    edit(finished / "record.json", lambda found: found["audit"].update(split="another"))
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--no-audit") == 0
    assert not (finished / "leakage.csv").exists() and "(--no-audit)" in shown_in(finished)[0]


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


def test_a_run_learns_what_is_unlike_its_images_and_predict_py_says_it(demo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(alarms, "MIN_IMAGES", 1)
    assert quick(demo_folder, tmp_path) == 0
    found = metrics_in(tmp_path, "classification")
    assert 0 <= found["unlike"]["flagged"] <= 1 and found["unlike"]["n_images"] == found["n_images"]
    assert "Flagged as unlike the training images" in capsys.readouterr().out
    checkpoint = tmp_path / "outputs" / "best_classification_model.pth"
    picture(7, (60, 45)).save(tmp_path / "noise.png")
    image = next((demo_folder / "images").iterdir())
    flags = ["--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "out"), "--json", "--device", "cpu"]
    assert predict.main([str(tmp_path / "noise.png"), str(image), *flags]) == 0
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert rows["unlike_verdict"].tolist()[0] == "unlike" and rows["unlike"][0] == 100
    said = capsys.readouterr().out
    name = re.escape(str(tmp_path / "noise.png"))
    assert re.search(f"{name} +Unlike the training images: do not rely on this", said)
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())[0]["unlike"] == 100
