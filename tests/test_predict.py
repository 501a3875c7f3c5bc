"""predict.py on pictures of every kind, with checkpoints of a real run in miniature."""

import csv
import io
import itertools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, picture
from PIL import Image

import export
import machine
import models
import predict
from dataset import opening
from dataset.classes import HAM10000 as CLASSES
from inference import drawing, table
from inference import predictor as loading
from inference import run as running
from inference.inputs import Listed


@pytest.fixture(scope="session")
def checkpoints(whole_run):
    return {task: whole_run[0] / f"best_{task}_model.pth" for task in models.MODELS}


@pytest.fixture
def photos(tmp_path):
    """Five pictures of three sizes in two folders."""
    for i, name in enumerate(["a/one.jpg", "a/two.png", "a/three.JPG", "b/one.jpg", "four.v2.jpeg"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, (60 + 20 * (i % 3), 45)).save(path)
    return tmp_path / "photos"


def run(*arguments):
    """Exit code of predict.py."""
    try:
        return predict.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def rows_of(folder):
    return list(csv.DictReader((folder / "predictions.csv").open(encoding="utf-8")))


@pytest.mark.parametrize("task", models.MODELS)
def test_each_checkpoint_writes_what_it_knows(task, checkpoints, photos, tmp_path):
    out = tmp_path / "out"
    assert run(photos, "--checkpoint", checkpoints[task], "--output-dir", out) == 0
    rows = rows_of(out)
    assert len(rows) == 5
    assert ("predicted" in rows[0], "lesion_share" in rows[0]) == (task != "segmentation", task != "classification")
    assert len(list((out / "overlays").rglob("*.jpg"))) == 5
    for row in rows:
        if task != "segmentation":
            probabilities = [float(row[code]) for code in CLASSES]
            assert sum(probabilities) == pytest.approx(1, abs=1e-3)
            assert float(row[row["predicted"]]) == max(probabilities)
            assert float(row["confidence"]) == max(probabilities)
    masks = list((out / "masks").rglob("*.png"))
    assert len(masks) == (0 if task == "classification" else 5)


def test_masks_have_the_pictures_size_and_two_values(checkpoints, photos, tmp_path):
    run(photos, "--checkpoint", checkpoints["segmentation"], "--output-dir", tmp_path / "out")
    for row, name in zip(rows_of(tmp_path / "out"), ["four.v2", "a/one", "a/three", "a/two", "b/one"]):
        mask = Image.open(tmp_path / "out" / "masks" / f"{name}.png")
        assert mask.size == Image.open(row["file"]).size
        assert set(np.unique(mask)) <= {0, 255}
        assert float(row["lesion_share"]) == pytest.approx((np.array(mask) > 0).mean(), abs=1e-4)


def test_a_turned_photograph_gets_an_upright_mask(checkpoints, tmp_path):
    exif = Image.Exif()
    exif[opening.ORIENTATION] = 6
    picture(0, (60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    run(tmp_path / "turned.jpg", "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "masks" / "turned.png").size == (40, 60)


@pytest.mark.parametrize("size", [(50, 40), (64, 48), (333, 500)])
def test_a_mask_is_the_bilinear_resize_that_evaluation_uses(size, monkeypatch):
    monkeypatch.setattr(drawing, "STRIP", 2000)  # several strips
    logits = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    full = F.interpolate(logits[None, None], size=size[::-1], mode="bilinear", align_corners=False)[0, 0]
    differ = (predict.mask_at(logits.numpy(), size) > 0) != (full > 0).numpy()
    assert not (differ & (full.abs() > 1e-4).numpy()).any()  # but for rounding at the border


def test_probabilities_are_those_of_the_test_set(checkpoints, demo_folder, whole_run, tmp_path):
    """The same picture gets the same logits here and in main.py; the checkpoint's temperature calibrates them."""
    outputs, _ = whole_run
    measured = list(csv.DictReader((outputs / "multitask" / "predictions.csv").open()))[:4]
    files = [demo_folder / "images" / f"{row['image']}.jpg" for row in measured]
    run(*files, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out")
    for ours, theirs in zip(rows_of(tmp_path / "out"), measured):
        expected = [float(theirs[code]) for code in CLASSES]
        found = [float(ours[code]) for code in CLASSES]
        assert found == pytest.approx(expected, abs=5e-3)


def test_averaging_over_turns_does_not_depend_on_the_pictures_turn(checkpoints):
    predictor = predict.Predictor(checkpoints["multitask"], device="cpu", tta=True)
    predictor.precision = "fp32"
    pixels = np.asarray(picture(3, (32, 32)))
    upright, turned = predictor.predict([predict.Picture(p, (32, 32)) for p in (pixels, np.rot90(pixels).copy())])
    assert upright.probabilities == pytest.approx(turned.probabilities, abs=1e-5)
    assert np.rot90(upright.mask) == pytest.approx(turned.mask, abs=1e-4)


def test_heat_maps_only_where_they_explain_something(checkpoints, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(photos, "--checkpoint", checkpoints["classification"], "--output-dir", out, "--explain") == 0
    assert len(list((out / "heatmaps").rglob("*.jpg"))) == 5
    assert run(photos, "--checkpoint", checkpoints["segmentation"], "--output-dir", out / "x", "--explain") == 2
    assert "only outlines" in capsys.readouterr().err


def test_bad_files_are_reported_and_skipped(checkpoints, photos, tmp_path, capsys):
    (photos / "text.jpg").write_text("no picture")
    (photos / "empty.png").touch()
    whole = (photos / "a" / "one.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    assert run("nowhere*.jpg", photos, "--checkpoint", checkpoints["multitask"], "--output-dir", out) == 1
    errors = capsys.readouterr().err
    for reason in ("text.jpg: not an image", "empty.png: file is empty", "cut.jpg: damaged", "nowhere*.jpg: no such"):
        assert reason in errors
    rows = rows_of(out)
    assert [row["skipped"][:8] for row in rows] == ["no such ", "damaged ", "file is ", "", "not an i", *[""] * 4]
    assert rows[0]["file"] == "nowhere*.jpg" and rows[0]["predicted"] == "" != rows[3]["predicted"]


def test_nothing_to_do_is_an_error(checkpoints, photos, tmp_path, capsys):
    multitask, out = checkpoints["multitask"], tmp_path / "out"
    assert run("nowhere", "--checkpoint", multitask, "--output-dir", out) == 2
    assert run(photos, "--checkpoint", tmp_path / "no.pth", "--output-dir", out) == 2
    assert "No checkpoint at" in capsys.readouterr().err
    (tmp_path / "only.jpg").write_text("no picture")
    assert not out.exists()
    assert run(tmp_path / "only.jpg", "--checkpoint", multitask, "--output-dir", out) == 2
    assert [row["skipped"] != "" for row in rows_of(out)] == [True] and not list(out.glob("*/*"))


def test_an_existing_output_is_kept_unless_told_otherwise(checkpoints, photos, tmp_path, capsys):
    command = [photos, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out"]
    assert run(*command) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert run(*command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert run(*command, "--overwrite") == 0


def test_outputs_are_not_taken_for_inputs(checkpoints, photos):
    command = [photos, "--checkpoint", checkpoints["multitask"], "--output-dir", photos / "predictions"]
    assert run(*command) == 0
    assert run(*command, "--overwrite") == 0
    assert len(rows_of(photos / "predictions")) == 5


def test_results_may_lie_beside_the_pictures(checkpoints, photos):
    command = ["--checkpoint", checkpoints["multitask"], "--output-dir", photos / "a"]
    assert run(photos / "a", *command) == 0
    assert run(photos / "a" / "one.jpg", *command, "--overwrite") == 0
    assert [row["output"] for row in rows_of(photos / "a")] == ["one"]


def test_a_picture_is_never_overwritten(checkpoints, photos, capsys):
    (photos / "masks").mkdir()
    picture(9).save(photos / "masks" / "x.png")
    before = (photos / "masks" / "x.png").read_bytes()
    command = ["--checkpoint", checkpoints["multitask"], "--output-dir", photos, "--overwrite"]
    assert run(photos / "masks" / "x.png", *command) == 2
    assert "is one of the pictures" in capsys.readouterr().err
    assert (photos / "masks" / "x.png").read_bytes() == before


def test_a_file_named_twice_is_predicted_once(checkpoints, photos, tmp_path):
    out = tmp_path / "out"
    assert run(photos, photos / "a" / "one.jpg", f"{photos}/a/*", "--checkpoint", checkpoints["multitask"],
               "--output-dir", out) == 0  # fmt: skip
    assert len(rows_of(out)) == 5


def test_memory_does_not_grow_with_the_number_of_pictures(monkeypatch):
    """However many files there are, only so many batches are begun before the first one's rows are taken."""
    begun = 0

    def process(outputs, listed):
        nonlocal begun
        begun += 1
        return [[one.file] for one in listed]

    monkeypatch.setattr(running, "process", process)
    listed = [Listed(str(i)) for i in range(103)]
    for taken, row in enumerate(running.process_all(None, listed, batch_size=1), 1):
        assert row[0] == str(taken - 1) and begun - taken <= 3 * torch.get_num_threads()
    assert begun == taken == 103


def test_a_large_picture_is_outlined_in_little_memory(checkpoints, tmp_path):
    """A 60-megapixel JPEG takes 180 MB decoded, and as float logits 240 MB; neither is made."""
    Image.effect_noise((60, 45), 50).convert("RGB").resize((9000, 6600)).save(tmp_path / "large.jpg", quality=50)
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import predict
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])  # kB
predictor = predict.Predictor(sys.argv[1], device="cpu")
predictor.predict([predictor.read({str(ROOT / "docs" / "prediction.jpg")!r})])
before = peak()
found = predictor.predict([predictor.read("large.jpg")])[0]
assert predict.mask_at(found.mask, found.size).shape == (6600, 9000)
assert predict.view_of("large.jpg", found.size).size == (1600, 1173)
print(peak() - before)
"""
    command = [sys.executable, "-c", code, str(checkpoints["multitask"])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) < 200_000, done.stderr


def test_a_full_disk_ends_in_one_message(checkpoints, photos, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)); "
    code = f"{limit}import sys; sys.path.insert(0, {str(ROOT)!r}); import predict; sys.exit(predict.main())"
    command = [sys.executable, "-c", code, photos, "--checkpoint", checkpoints["multitask"], "--output-dir", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Cannot write" in done.stderr and "Traceback" not in done.stderr


def test_a_caption_names_class_and_area():
    prediction = predict.Prediction((8, 8), np.eye(7)[0] * 0.76 + 0.04, np.array([[1.0, -1.0], [-1.0, -1.0]]), None)
    assert predict.caption(prediction, CLASSES) == "Melanoma 80 %, lesion: 25 % of the picture"


def test_an_overlay_draws_the_outline_and_leaves_the_rest():
    image = Image.new("RGB", (80, 80), (200, 150, 130))
    logits = np.full((8, 8), -1.0, np.float32)
    logits[2:6, 2:6] = 1
    drawn = np.array(predict.overlay(image, predict.Prediction((80, 80), None, logits, None), CLASSES))[:80, :80]
    changed = (drawn != (200, 150, 130)).any(axis=2)
    assert changed[16:24, 40].any() and not changed[40, 40] and not changed[4, 4]


def test_content_in_memory_is_read_as_a_file(checkpoints):
    predictor = predict.Predictor(checkpoints["classification"], device="cpu")
    buffer = io.BytesIO()
    picture(1).save(buffer, "PNG")
    assert predictor.read(buffer.getvalue()).size == (40, 30)


def saved(model, task, path):
    """What a checkpoint must hold, and no more."""
    facts = {"task": task, "arguments": model.arguments, "classes": list(CLASSES), "image_size": 32}
    torch.save(facts | {"weights": model.state_dict()}, path)


def test_a_model_on_another_encoder_diagnoses_outlines_and_explains(tmp_path):
    saved(models.MultiTask(encoder="resnet50"), "multitask", tmp_path / "a.pth")
    predictor = predict.Predictor(tmp_path / "a.pth", device="cpu", explain=True)
    picture().save(tmp_path / "a.png")
    (found,) = predictor.predict([predictor.read(tmp_path / "a.png")])
    assert found.probabilities.shape == (7,) and found.mask.shape == found.heat.shape == (32, 32)


def test_a_checkpoint_that_was_never_calibrated_is_called_so(tmp_path, capsys):
    saved(models.Classifier(), "classification", tmp_path / "a.pth")
    picture().save(tmp_path / "a.png")
    command = [str(tmp_path / "a.png"), "--checkpoint", str(tmp_path / "a.pth"), "--output-dir", str(tmp_path / "out")]
    assert predict.main([*command, "--device", "cpu"]) == 0
    assert "a.pth is not calibrated" in capsys.readouterr().out


def changed(checkpoint, path, change):
    """A copy of a checkpoint after `change` of its content."""
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def test_a_class_called_like_a_column_has_a_column_of_its_own(checkpoints, photos, tmp_path):
    names = ["benign", "malignant", "predicted", "BCC", "NV", "DF", "VASC"]

    def change(content):
        content["classes"] = names
        content["calibration"] |= {"thresholds": {"malignant": 0.5}}

    path, out = changed(checkpoints["classification"], tmp_path / "a.pth", change), tmp_path / "out"
    assert run(photos, "--checkpoint", path, "--output-dir", out, "--json") == 0
    header = list(rows_of(out)[0])
    assert len(set(header)) == len(header) and header[-7:] == ["benign", "malignant_", "predicted_", *names[3:]]
    for row, one in zip(rows_of(out), json.loads((out / "predictions.json").read_text())):
        assert row["malignant"] in ("above", "below") and list(one.get("probabilities", names)) == names
        assert one["probabilities"]["malignant"] == float(row["malignant_"])


def test_both_rules_and_both_findings_stand_in_the_table(checkpoints, photos, tmp_path, capsys):
    """With a tau, thresholds and measured values by hand; every cell follows from the row's probabilities."""
    prior = [0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02]

    def change(content):
        content["calibration"] |= {"prior": prior, "tau": 1.0, "thresholds": {"melanoma": 0.1, "malignant": 0.9}}
        content["tested"] = {
            "melanoma": {"threshold": 0.1, "sensitivity": 0.93, "specificity": 0.66, "n_images": 1499},
            "malignant": {"threshold": 0.9, "sensitivity": 0.5, "specificity": 0.75, "n_images": 1499},
        }

    path, out = changed(checkpoints["classification"], tmp_path / "a.pth", change), tmp_path / "out"
    assert run(photos, "--checkpoint", path, "--output-dir", out) == 0
    rows = rows_of(out)
    found = ["balanced", "p_melanoma", "melanoma", "p_malignant", "malignant"]
    assert list(rows[0]) == ["file", "output", "skipped", "predicted", "confidence", *found, *CLASSES]
    for row in rows:
        p = np.array([float(row[code]) for code in CLASSES])
        assert row["balanced"] == CLASSES[(np.log(p) - np.log(prior)).argmax()]
        assert float(row["p_melanoma"]) == p[0]
        assert float(row["p_malignant"]) == pytest.approx(p[0] + p[2] + p[3], abs=2e-4)
        assert row["melanoma"] == ("above" if p[0] >= 0.1 else "below")
        assert row["malignant"] == ("above" if float(row["p_malignant"]) >= 0.9 else "below")
    shown = capsys.readouterr().out
    assert "melanoma: threshold 0.1000, which found 93 % of the melanomas and passed over 66 % of the rest" in shown
    assert "malignant: threshold 0.9000, which found 50 % of the malignant lesions" in shown
    assert "left out" not in shown


def test_what_main_stored_is_what_is_said(checkpoints, photos, tmp_path, capsys, whole_run):
    """The checkpoint's measured sensitivity is the one in the metrics of the same run."""
    found = json.loads((whole_run[0] / "classification" / "metrics.json").read_text())
    point = found["label"]["operating_points"]["malignant"]
    run(photos, "--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out")
    shown = capsys.readouterr().out
    expected = f"malignant: threshold {point['threshold']:.4f}, which found {100 * point['sensitivity']:.0f} %"
    assert f"{expected} of the malignant lesions and passed over {100 * point['specificity']:.0f} %" in shown
    assert f"in the test set ({found['n_images']} images)" in shown


def test_a_checkpoint_of_an_earlier_version_is_used_without_what_it_lacks(checkpoints, photos, tmp_path, capsys):
    def change(content):
        del content["tested"], content["calibration"]["tau"], content["calibration"]["prior"]
        content["calibration"]["thresholds"] = {"melanoma": None, "malignant": 0.5}

    path, out = changed(checkpoints["multitask"], tmp_path / "a.pth", change), tmp_path / "out"
    assert run(photos, "--checkpoint", path, "--output-dir", out) == 0
    found = ["p_melanoma", "p_malignant", "malignant"]
    assert list(rows_of(out)[0]) == [
        "file",
        "output",
        "skipped",
        "predicted",
        "confidence",
        *found,
        *CLASSES,
        "lesion_share",
    ]
    shown = capsys.readouterr().out
    assert "The balanced rule is left out: no tau was fitted" in shown
    assert "melanoma: no threshold is known." in shown and "malignant: threshold 0.5000, fitted on the val" in shown
    assert "%" not in shown
    predictor = predict.Predictor(path, device="cpu")
    (found,) = predictor.predict([predict.Picture(np.asarray(picture(3, (32, 32))), (32, 32))])
    assert found.balanced is None and [finding.verdict is None for finding in found.findings] == [True, False]


def test_a_model_of_outlines_decides_nothing(checkpoints, photos, tmp_path, capsys):
    run(photos, "--checkpoint", checkpoints["segmentation"], "--output-dir", tmp_path / "out")
    assert list(rows_of(tmp_path / "out")[0]) == ["file", "output", "skipped", "lesion_share"]
    assert "threshold" not in (shown := capsys.readouterr().out) and "balanced" not in shown


def test_several_checkpoints_are_averaged_and_say_what_they_cannot(checkpoints, photos, tmp_path, capsys):
    names = [("--checkpoint", checkpoints[task]) for task in ("classification", "multitask")]
    alone = []
    for name, path in names:
        out = tmp_path / path.stem
        assert run(photos, name, path, "--output-dir", out) == 0
        alone.append(rows_of(out))
    capsys.readouterr()
    assert run(photos, *names[0], *names[1], "--output-dir", tmp_path / "out", "--explain") == 0
    for ours, a, b in zip(rows_of(tmp_path / "out"), *alone):
        expected = [(float(a[code]) + float(b[code])) / 2 for code in CLASSES]
        assert [float(ours[code]) for code in CLASSES] == pytest.approx(expected, abs=2e-4)
        assert "balanced" not in ours and ours["lesion_share"] == b["lesion_share"]
    assert "The balanced rule is left out" in capsys.readouterr().out


def test_without_a_checkpoint_the_shipped_one_is_used_and_said(checkpoints, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "SHIPPED", tmp_path / "ham10000.pth")
    assert run(photos, "--output-dir", tmp_path / "out") == 2
    assert "Name a --checkpoint" in capsys.readouterr().err and not (tmp_path / "out").exists()
    export.halve(checkpoints["multitask"], loading.SHIPPED)
    assert run(photos, "--output-dir", tmp_path / "out") == 0
    assert "the model that comes with the repository: ham10000.pth" in capsys.readouterr().out
    loading.SHIPPED.write_bytes(loading.SHIPPED.read_bytes()[:-1000])
    assert run(photos, "--output-dir", tmp_path / "other") == 2
    error = capsys.readouterr().err
    assert "is damaged" in error and "Traceback" not in error


def test_half_precision_halves_the_file_and_hardly_changes_what_it_says(checkpoints, tmp_path):
    export.halve(checkpoints["multitask"], tmp_path / "half.pth")
    assert (tmp_path / "half.pth").stat().st_size < 0.52 * checkpoints["multitask"].stat().st_size
    image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, half = (models.load_model(path)(image) for path in (checkpoints["multitask"], tmp_path / "half.pth"))
    assert all(torch.allclose(whole[name], half[name], atol=0.02) for name in whole)


# Many pictures: a table in JSON too, parts of several processes, and runs that go on


def test_the_table_as_json_says_the_same_with_numbers_as_numbers(checkpoints, photos, tmp_path):
    (photos / "text.jpg").write_text("no picture")
    out = tmp_path / "out"
    run(photos, "--checkpoint", checkpoints["multitask"], "--output-dir", out, "--json")
    found = json.loads((out / "predictions.json").read_text())
    for row, one in zip(rows_of(out), found, strict=True):
        texts = {name: value for name, value in row.items() if value and name not in CLASSES}
        assert {name: value for name, value in one.items() if name != "probabilities"} == {
            name: value if isinstance(one[name], str) else float(value) for name, value in texts.items()
        }
        assert one.get("probabilities", {}) == {code: float(row[code]) for code in CLASSES if row[code]}
    assert isinstance(found[0]["confidence"], float) and [one["skipped"] for one in found if "skipped" in one]


def dies_after(n, monkeypatch):
    """Have predict.py stop, as by a kill, after so many rows."""
    rows = running.process_all

    def cut(*arguments):
        yield from itertools.islice(rows(*arguments), n)
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "process_all", cut)


def test_a_stopped_run_goes_on_and_predicts_nothing_twice(checkpoints, photos, tmp_path, monkeypatch, capsys):
    """Its last row is cut off, its first picture was skipped and is whole by now, and one picture is new."""
    command = [photos, "--checkpoint", checkpoints["multitask"], "--device", "cpu", "--output-dir"]
    whole = (photos / "a" / "one.jpg").read_bytes()
    picture(9).save(photos / "zzz.jpg")
    assert run(*command, tmp_path / "whole") == 0
    (photos / "a" / "one.jpg").write_bytes(whole[:-200])
    (photos / "zzz.jpg").rename(tmp_path / "zzz.jpg")
    with monkeypatch.context() as patch:
        dies_after(4, patch)
        assert run(*command, tmp_path / "parts") == 130
    assert "--resume goes on" in capsys.readouterr().err
    (photos / "a" / "one.jpg").write_bytes(whole)
    (tmp_path / "zzz.jpg").rename(photos / "zzz.jpg")
    part = tmp_path / "parts" / "predictions.csv.part0"
    part.write_bytes(part.read_bytes()[:-3])
    read, seen = predict.Predictor.read, []
    monkeypatch.setattr(predict.Predictor, "read", lambda self, file: (seen.append(file), read(self, file))[1])
    assert run(*command, tmp_path / "parts", "--resume") == 0
    assert len(seen) == 4 and "6 predicted (2 of them earlier), 0 skipped" in capsys.readouterr().out
    found = [(tmp_path / name / "predictions.csv").read_text() for name in ("whole", "parts")]
    assert found[0] == found[1] and not list((tmp_path / "parts").glob("*.part*"))


@pytest.mark.parametrize("name", ["predictions.csv", "predictions.json"])
def test_a_join_that_was_cut_short_loses_no_row(name, checkpoints, photos, tmp_path, monkeypatch, capsys):
    """Killed when the new table is written but not yet in its place, twice; `--resume` predicts nothing again."""
    out, replace = tmp_path / "out", os.replace
    command = [photos, "--checkpoint", checkpoints["classification"], "--output-dir", out, "--json"]

    def stop(source, target):
        if str(target).endswith(name):
            raise KeyboardInterrupt
        replace(source, target)

    assert run(*command) == 0
    expected = (out / "predictions.csv").read_bytes()
    with monkeypatch.context() as patch:
        dies_after(5, patch)  # all rows stand in the part
        assert run(*command, "--overwrite") == 130
        patch.setattr(table.os, "replace", stop)
        assert [run(*command, "--resume") for _ in range(2)] == [130, 130]
    capsys.readouterr()
    assert run(*command, "--resume") == 0
    assert "5 predicted (5 of them earlier)" in capsys.readouterr().out
    assert (out / "predictions.csv").read_bytes() == expected and not list(out.glob("*.part*"))


def test_a_finished_run_has_nothing_left_and_another_option_is_refused_by_name(checkpoints, photos, tmp_path, capsys):
    command = [photos, "--output-dir", tmp_path / "out", "--checkpoint"]
    assert run(*command, checkpoints["classification"]) == 0
    before = (tmp_path / "out" / "predictions.csv").read_bytes()
    assert run(*command, checkpoints["classification"], "--resume", "--json") == 0
    assert "5 predicted (5 of them earlier)" in capsys.readouterr().out
    assert run(*command, checkpoints["classification"], "--resume", "--explain") == 2
    assert "--explain was False, is True" in capsys.readouterr().err
    assert run(*command, checkpoints["multitask"], "--resume") == 2
    error = capsys.readouterr().err
    assert "--checkpoint was best_classification_model.pth" in error and "is best_multitask_model.pth" in error
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before


def test_a_row_is_never_lost_to_a_run_that_names_other_pictures(checkpoints, photos, tmp_path, capsys):
    command = ["--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out"]
    assert run(photos / "b", *command) == 0
    before = (tmp_path / "out" / "predictions.csv").read_bytes()
    assert run(photos / "a", *command, "--resume") == 2
    assert "b/one.jpg (output one) would be lost" in capsys.readouterr().err
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before


def test_pictures_that_are_new_leave_the_names_of_earlier_outputs_as_they_are(checkpoints, photos, tmp_path):
    """Named alone, b/one.jpg is one; beside a/one.jpg it would be b/one."""
    command = ["--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out"]
    assert run(photos / "b", *command) == 0 and [row["output"] for row in rows_of(tmp_path / "out")] == ["one"]
    assert run(photos, *command, "--resume") == 0
    found = {row["file"]: row["output"] for row in rows_of(tmp_path / "out")}
    assert found[str(photos / "b" / "one.jpg")] == "one" and len(set(found.values())) == len(found) == 5
    assert all((tmp_path / "out" / "overlays" / f"{name}.jpg").exists() for name in found.values())


def test_a_copy_of_the_checkpoint_goes_on(checkpoints, photos, tmp_path, capsys):
    copy = shutil.copy(checkpoints["classification"], tmp_path / "copy.pth")
    command = [photos, "--output-dir", tmp_path / "out", "--checkpoint"]
    assert run(*command, checkpoints["classification"]) == 0
    assert run(*command, copy, "--resume") == 0 and "(5 of them earlier)" in capsys.readouterr().out
    twice = [checkpoints["classification"], "--checkpoint", copy]  # it counts twice in an average
    assert run(*command, *twice, "--resume") == 2 and "--checkpoint was" in capsys.readouterr().err


def test_a_table_of_other_columns_is_not_gone_on_with(checkpoints, photos, tmp_path, capsys):
    """As an earlier version may have written, of whose rows none would be understood."""
    command = [photos, "--output-dir", tmp_path / "out", "--checkpoint", checkpoints["classification"]]
    assert run(*command) == 0
    path = tmp_path / "out" / "predictions.csv"
    path.write_text(path.read_text().replace(",skipped,", ",skipped,more,", 1))
    assert run(*command, "--resume") == 2 and "has other columns" in capsys.readouterr().err


def test_a_picture_whose_outputs_cannot_be_written_is_skipped_and_named(checkpoints, photos, tmp_path, capsys):
    """Two files of one long stem get their suffixes into the names of their outputs, of which one is too long."""
    for suffix in (".jpg", ".png"):
        picture().save(photos / f"{'l' * 250}{suffix}")
    command = [photos, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out"]
    assert run(*command, "--device", "cpu") == 1
    assert capsys.readouterr().err.count("cannot write ") == 2
    assert sum(row["skipped"].endswith("name too long") for row in rows_of(tmp_path / "out")) == 2


def test_a_file_in_the_place_of_a_folder_of_outputs_is_one_message(checkpoints, photos, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "masks").write_text("mine")
    assert run(photos, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out") == 2
    assert f"Cannot write {tmp_path / 'out' / 'masks'}: File exists" in capsys.readouterr().err


def test_two_runs_at_once_in_one_folder_are_refused(checkpoints, photos, tmp_path, capsys):
    with machine.locked(tmp_path / "out"):
        assert run(photos, "--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out") == 2
    assert "Another run is writing into" in capsys.readouterr().err


def test_resuming_where_nothing_was_begun_replaces_no_file_of_the_users(checkpoints, photos, tmp_path, capsys):
    (tmp_path / "out" / "masks").mkdir(parents=True)
    (tmp_path / "out" / "masks" / "four.v2.png").write_text("mine")
    command = [photos, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out", "--resume"]
    assert run(*command) == 2 and "four.v2.png is there already" in capsys.readouterr().err


def test_what_an_earlier_run_wrote_of_a_picture_that_is_skipped_now_goes(checkpoints, photos, tmp_path):
    """Or the outline of another photograph would lie beside the row."""
    command = [photos, "--checkpoint", checkpoints["multitask"], "--device", "cpu", "--output-dir", tmp_path / "out"]
    assert run(*command) == 0
    masks = set((tmp_path / "out" / "masks").rglob("*.png"))
    (photos / "a" / "one.jpg").write_text("a text")
    assert run(*command, "--overwrite") == 1
    gone = masks - set((tmp_path / "out" / "masks").rglob("*.png"))
    assert [path.stem for path in gone] == ["one"]
