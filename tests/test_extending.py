"""The diffs of docs/extending.md, applied to a copy of the repository, do what they promise."""

import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import QUICK, ROOT

TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
DIFFS = re.findall(r"^## (.+?)$.*?```diff\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)
FLAGS = [
    *("--label-smoothing", "0.1", "--label-loss", "cube-root", "--mask-loss", "dice", "--schedule", "linear"),
    *("--augment", "flips", "gray", "--encoder", "five"),
]
RUN_AND_COMPARE = """
import shutil, sys
from pathlib import Path
import main, visualize
visualize.png = lambda *_: b"not drawn"
place = Path(sys.argv[1])
if main.main(sys.argv[2:]) == 0:
    shutil.copytree(place / "run", place / "copy")
    record = (place / "copy" / "record.json").read_text()
    (place / "copy" / "record.json").write_text(record.replace('"seed": 42', '"seed": 43'))
    print("COMPARED")
    from report.__main__ import main
    main(["compare", str(place / "run"), str(place / "copy"), "--output-dir", str(place / "both")])
"""


def changes_in(diff):
    """(file, old text, new text) of each hunk; the old text is "" for a new file."""
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        head, *hunks = re.split(r"^@@\n", part, flags=re.MULTILINE)
        (file,) = re.findall(r"^\+\+\+ b/(.*)$", head, re.MULTILINE)
        for hunk in hunks:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] != "+")
            yield file, old, "".join(line[1:] for line in lines if line[0] != "-")


@pytest.fixture(scope="module")
def extended(tmp_path_factory, demo_folder):
    """A copy of the repository with every diff applied, each to text that stands once in its file."""
    copy = tmp_path_factory.mktemp("extended") / "repository"
    hidden = shutil.ignore_patterns(".*", "outputs*", "cache", "shared", "pretrained", "__pycache__", "*.png", "*.jpg")
    shutil.copytree(ROOT, copy, ignore=hidden)
    for title, diff in DIFFS:
        for file, old, new in changes_in(diff):
            path = copy / file
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            assert not old or before.count(old) == 1, f"{title}: {old!r} does not stand once in {file}"
            path.write_text(before.replace(old, new, 1) if old else new, encoding="utf-8")
    return copy


def test_every_section_shows_its_change_and_no_change_touches_more_files_than_it_says():
    of_files = {"A hyperparameter of training": 2, "An encoder": 2, "A score of the test set": 2}
    of_files |= {"A figure in the report": 2, "A number with words in the report": 2, "A third head": 5}
    assert len(DIFFS) == TEXT.count("\n## ") == 11
    for title, diff in DIFFS:
        assert len({file for file, _, _ in changes_in(diff)}) == of_files.get(title, 1), title


def test_all_of_them_train_an_epoch_and_stand_in_its_report(extended, demo_folder, tmp_path):
    places = ["--data-dir", str(demo_folder), "--output-dir", str(tmp_path / "run"), "--cache-dir", str(tmp_path)]
    flags = [*places, *QUICK, "--tasks", "multitask", "age", *FLAGS, "--age-epochs", "1"]
    command = [sys.executable, "-c", RUN_AND_COMPARE, str(tmp_path), *flags]
    done = subprocess.run(command, cwd=extended, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    identity = json.loads((tmp_path / "run" / "record.json").read_text())["tasks"]["multitask"]["identity"]
    promised = {"label_smoothing": 0.1, "label_loss": "cube-root", "mask_loss": "dice", "schedule": "linear"}
    assert promised.items() <= identity.items() and identity["encoder"] == "five"
    assert (tmp_path / "run" / "multitask" / "confidences.png").exists()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Confidences." in page and "Five convolutions encoder" in page and "Mean precision, native size" in page
    assert "Heat maps of Five convolutions have one cell per 32 pixels of the input." in page
    assert "Mean confidence: 0." in page and "age: mean error" in page
    ages = pd.read_csv(tmp_path / "run" / "age" / "per_image_age.csv")
    found = json.loads((tmp_path / "run" / "age" / "metrics.json").read_text())
    low, high = found["intervals"]["age"]["mean_error"]
    assert found["age"]["mean_error"] == pytest.approx(ages["error"].mean(), rel=1e-4) and low < high
    assert found["label"]["n_images"] == len(pd.read_csv(tmp_path / "run" / "age" / "predictions.csv"))
    metrics = json.loads((tmp_path / "run" / "multitask" / "metrics.json").read_text())
    low, high = metrics["intervals"]["mask"]["native"]["mean_precision"]
    assert 0 <= low <= metrics["mask"]["native"]["mean_precision"] <= high <= 1
    assert "precision" in done.stdout.split("COMPARED")[1]  # the console may break a title
    checkpoint = torch.load(tmp_path / "run" / "best_multitask_model.pth", weights_only=True)
    assert checkpoint["config"]["AUGMENT"] == ["flips", "gray"]


def test_the_columns_further_spelling_is_read(extended, demo_folder, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(demo_folder, folder)
    table = pd.read_csv(folder / "GroundTruth.csv")
    for other in set(folder.glob("*.csv")) - {folder / "GroundTruth.csv"}:
        other.unlink()
    pd.DataFrame({"image": table["image"], "geschlecht": "female"}).to_csv(folder / "metadata.csv", index=False)
    code = f"from dataset.table import read_table; print(set(read_table({str(folder)!r})['sex']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=extended, capture_output=True, text=True)
    assert "{'female'}" in done.stdout, done.stderr
