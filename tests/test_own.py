"""A researcher's own module is trained, measured, reported and compared."""

import json
import re
import subprocess
import sys

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, Tiny
from torch import nn

import data
import evaluate
import models
import train
from checkpoints import Checkpoints
from dataset.cache import decode_table
from dataset.classes import HAM10000 as CLASSES
from dataset.splits import split_table
from dataset.table import LABEL_ONLY, LEFT_OUT, read_table
from encoders.unlike import Unlike
from measure import alarms
from report.comparison import compare_runs
from report.own import parts_for, report_model

RECIPE = train.Recipe(epochs=2, batch_size=16, lr=0.01)


class Pooled(nn.Module):
    """One linear layer behind 4 x 4 means, and a threshold for each pixel; says nothing else of itself."""

    def __init__(self, *outputs, n_classes=7):
        super().__init__()
        torch.manual_seed(0)
        self.outputs = outputs
        self.linear, self.pixel = nn.Linear(48, n_classes), nn.Conv2d(3, 1, 1)

    def forward(self, image):
        output = {"label": self.linear(F.adaptive_avg_pool2d(image, 4).flatten(1)), "mask": self.pixel(image)}
        return {name: output[name] for name in self.outputs}


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Figures are drawn for the example of the docs alone, which saves half of the time."""
    if "docs" not in request.node.name:
        monkeypatch.setattr("visualize.png", lambda *_: b"not drawn")


@pytest.fixture(scope="module")
def split(demo_folder, tmp_path_factory):
    """The table as main.py splits it, and pixels of 32 x 32."""
    cache = tmp_path_factory.mktemp("cache")

    def read(classes=()):
        table, pixels = decode_table(read_table(demo_folder, classes), demo_folder, 32, cache)
        table["split"] = split_table(table, val_fraction=0.15, test_fraction=0.15, seed=42)
        return table, pixels

    return read


def fit(model, table, pixels, place):
    batches = [data.Batches(pixels, table[table["split"] == part], 16) for part in ("train", "val")]
    kept = Checkpoints(place / "best.pth", place / "training")
    history = train.fit(model, *batches, recipe=RECIPE, seed=3, precision="fp32", checkpoints=kept)
    model.load_state_dict(kept.best_weights())
    return history, batches[1]


@pytest.mark.parametrize("outputs", [("label",), ("mask",), ("label", "mask")])
def test_a_plain_module_is_measured_and_what_it_lacks_is_left_out(split, tmp_path, outputs):
    table, pixels = split()
    found = report_model(Pooled(*outputs), table, pixels, tmp_path / "own", name="pooled", note="a note")
    assert {"label", "mask"} & found.keys() == set(outputs)
    assert found.get("label", {}).get("heat_map") is None
    assert found["n_images"] == (table["split"] == "test").sum()
    pictures = {path.stem for path in (tmp_path / "own" / "pooled").glob("*.png")}
    assert ("confusion_matrix" in pictures, "masks" in pictures) == ("label" in outputs, "mask" in outputs)
    assert "heat_maps" not in pictures
    columns = pd.read_csv(tmp_path / "own" / "pooled" / "images.csv").columns
    assert ("predicted" in columns, "dice" in columns) == ("label" in outputs, "mask" in outputs)
    page = (tmp_path / "own" / "report.html").read_text(encoding="utf-8")
    assert "<h3>pooled</h3>" in page and "Pooled, 347 parameters" in page and '"note">a note</p>' in page
    assert "drawn by" not in page and "real lesions" not in page  # which is said of the demo's pictures alone
    assert "heat map" not in page.lower() and "ResNet" not in page


def test_images_that_are_left_out_are_not_measured(split):
    table, pixels = split()
    before = parts_for(Pooled("label"), table, pixels, torch.device("cpu"))["test"].n_images
    table.loc[table.index[table["split"] == "test"][0], "status"] = LEFT_OUT
    assert parts_for(Pooled("label"), table, pixels, torch.device("cpu"))["test"].n_images == before - 1


def test_fit_trains_it_and_the_best_epoch_is_reported(split, tmp_path):
    table, pixels = split()
    model = Pooled("label", "mask")
    history, val = fit(model, table, pixels, tmp_path)
    assert [row["epoch"] for row in history] == [1, 2] and history[1]["train_loss"] < history[0]["train_loss"]
    of_best = train.validate(model, val, RECIPE.losses(), "fp32")["val_loss"]
    assert of_best == pytest.approx(min(row["val_loss"] for row in history))
    settings = {"seed": 3, **RECIPE._asdict()}
    report_model(model, table, pixels, tmp_path / "own", name="pooled", history=history, settings=settings)
    page = (tmp_path / "own" / "report.html").read_text(encoding="utf-8")
    assert "pooled 2 epochs" in page and "32 pixels, seed 3" in page
    assert (tmp_path / "own" / "pooled" / "training_curves.png").exists()
    kept = (tmp_path / "own" / "pooled" / "history.csv").read_text().splitlines()
    assert len(kept) == 3 and kept[0].startswith("epoch,train_loss")


def test_it_is_compared_with_a_run_of_main_and_with_another_one(split, tmp_path, whole_run):
    table, pixels = split()
    report_model(Pooled("label", "mask"), table, pixels, tmp_path / "both", name="pooled")
    report_model(Pooled("mask"), table, pixels, tmp_path / "outlines", name="pixels")
    compare_runs([whole_run[0], tmp_path / "both", tmp_path / "outlines"], tmp_path / "compared")
    found = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    pairs = [(pair["head"], pair["less_task"], pair["task"]) for pair in found["differences"]]
    assert pairs == [
        ("label", "classification", "pooled"),
        ("mask", "segmentation", "pooled"),
        ("mask", "segmentation", "pixels"),
    ]
    assert {pair["n_images"] for pair in found["differences"]} == {(table["split"] == "test").sum()}


def test_runs_of_several_seeds_are_repetitions(split, tmp_path):
    table, pixels = split()
    for seed in (1, 2):
        report_model(Pooled("mask"), table, pixels, tmp_path / str(seed), name="pixels", settings={"seed": seed})
    compare_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "compared")
    (group,) = json.loads((tmp_path / "compared" / "comparison.json").read_text())["seeds"]
    assert group["seeds"] == [1, 2] and group["task"] == "pixels"


def test_a_classifier_of_five_classes_works_throughout(split, tmp_path):
    table, pixels = split(CLASSES[:5])
    model = models.Classifier(5)
    history, _ = fit(model, table, pixels, tmp_path)
    found = report_model(model, table, pixels, tmp_path / "five", name="five", history=history)
    assert tuple(found["label"]["per_class"]) == CLASSES[:5]
    assert found["label"]["heat_map"]["n_images"] == found["n_images"]
    assert "these 5 diagnoses" in (tmp_path / "five" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("outputs", [("label",), ("label", "mask")])
def test_a_wrong_number_of_classes_is_refused_before_anything_is_done(split, tmp_path, outputs):
    table, pixels = split()
    model = Pooled(*outputs, n_classes=5)
    with pytest.raises(ValueError, match=r"'label': \(1, 5\).*expected.*'label': \(1, 7\).*MEL, NV"):
        fit(model, table, pixels, tmp_path)
    with pytest.raises(ValueError, match=r"'label': \(1, 5\).*expected.*'label': \(1, 7\).*MEL, NV"):
        report_model(model, table, pixels, tmp_path / "own", name="pooled")
    assert not (tmp_path / "own").exists() and not (tmp_path / "best.pth").exists()


@pytest.mark.parametrize(
    "output, found",
    [
        (torch.zeros(2, 3), "a Tensor"),
        ({}, "a dict"),
        ({"logits": torch.zeros(2, 3)}, r"'logits': \(2, 3\)"),
        ({"mask": torch.zeros(2, 1, 4, 4)}, r"'mask': \(2, 1, 4, 4\)"),
        ({"mask": torch.zeros(2, 8, 8)}, r"'mask': \(2, 8, 8\)"),
    ],
)
def test_other_outputs_are_named_beside_what_is_expected(output, found):
    class Odd(nn.Module):
        def forward(self, image):
            return output

    with pytest.raises(ValueError, match=f"The model returns .*{found}.*expected a dict .*{re.escape('(2, 1, 8, 8)')}"):
        evaluate.heads_of(Odd(), torch.zeros(2, 3, 8, 8), ("a", "b", "c"))


def test_the_heads_are_what_the_model_gives_and_its_mode_stays():
    model = Pooled("mask").train()
    assert evaluate.heads_of(model, torch.zeros(1, 3, 8, 8), ()) == ["mask"] and model.training


def test_a_head_that_nothing_can_teach_is_refused(split, tmp_path):
    table, pixels = split()
    table["status"] = LABEL_ONLY
    with pytest.raises(ValueError, match="predicts a mask, and no training image has one"):
        fit(Pooled("label", "mask"), table, pixels, tmp_path)
    with pytest.raises(ValueError, match="predicts a mask, and no image of train has one"):
        report_model(Pooled("label", "mask"), table, pixels, tmp_path / "own", name="pooled")


def test_a_report_replaces_an_earlier_one_of_the_same_name_and_no_other_run(split, tmp_path):
    table, pixels = split()
    (tmp_path / "pooled").mkdir()
    (tmp_path / "pooled" / "heat_maps.png").write_bytes(b"of an earlier model")
    for _ in range(2):
        report_model(Pooled("mask"), table, pixels, tmp_path, name="pooled")
    assert not (tmp_path / "pooled" / "heat_maps.png").exists()
    with pytest.raises(ValueError, match="holds a run of pooled"):
        report_model(Pooled("mask"), table, pixels, tmp_path, name="other")
    for name in ("", "../up", "external"):
        with pytest.raises(ValueError, match="cannot be the name of a model"):
            report_model(Pooled("mask"), table, pixels, tmp_path, name=name)


def test_a_table_without_a_split_is_refused(split, tmp_path):
    table, pixels = split()
    with pytest.raises(ValueError, match="no column split"):
        report_model(Pooled("mask"), table.drop(columns="split"), pixels, tmp_path, name="pooled")


def test_the_example_of_the_docs_runs(demo_folder, tmp_path, monkeypatch):
    code, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own-models.md").read_text(), re.DOTALL)
    (tmp_path / "data").symlink_to(demo_folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "own-models.md", "exec"), {"__name__": "example"})
    assert (tmp_path / "outputs_small" / "report.html").exists()


class Encoded(nn.Module):
    """A module of one's own with an encoder that gives feature maps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.linear = Tiny(), nn.Linear(16, 7)

    def forward(self, image):
        return {"label": self.linear(self.encoder(image)[-1].mean(dim=(2, 3)))}


def test_an_own_encoder_tells_what_is_unlike_its_images_and_an_earlier_fit_is_not_kept(split, tmp_path, monkeypatch):
    table, pixels = split()
    model = Encoded()
    monkeypatch.setattr(alarms, "MIN_IMAGES", 1)
    found = report_model(model, table, pixels, tmp_path / "one", name="own")
    assert found["unlike"]["n_images"] == found["n_images"] and isinstance(model.unlike, Unlike)
    assert "flagged as unlike" in (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    monkeypatch.setattr(alarms, "MIN_IMAGES", 1000)
    assert "unlike" not in report_model(model, table, pixels, tmp_path / "two", name="own") and model.unlike is None


def test_the_two_lines_of_the_docs_work_in_a_folder_with_files_of_the_same_names(tmp_path):
    """As a script there, whose own folder Python puts first; its own data.py stays within reach."""
    page = (ROOT / "docs" / "own-models.md").read_text(encoding="utf-8").partition("## From any other folder")[2]
    start, mine = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for name in ("data", "models", "train", "settings", "machine"):
        (tmp_path / f"{name}.py").write_text("load_table = 'my own'\n")
    lines = [start.replace("/path/to/this/repository", str(ROOT)), mine, "import data, train, torch"]
    lines += ["print(mine['load_table'], data.__file__, train.__file__, *model(torch.zeros(1, 3, 64, 64)))"]
    (tmp_path / "script.py").write_text("\n".join(lines))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["my", "own", str(ROOT / "data.py"), str(ROOT / "train.py"), "label", "mask"], (
        done.stderr
    )
