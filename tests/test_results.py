"""Which part of the split each number comes from, and what a checkpoint has learned from; networks are feigned."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from checkpoints import seen, states
from checkpoints.thresholds import SCALE
from checkpoints.trained import Trained
from dataset import splits
from dataset import table as tables
from measure.assess import Assessment
from report import own, results

FITTED = {"temperature": 2.0, "scale": SCALE, "tau": 0.5}


class Part:
    """A part of the split with labels of its own."""

    def __init__(self, name, *labels):
        self.name, self.sizes, self.device, self.pixels = name, [len(labels)], "cpu", np.zeros((1, 8, 8, 4))
        self.classes = ("MEL", "NV")
        label = pd.Categorical.from_codes(labels, ["MEL", "NV"])
        self.table = pd.DataFrame({"label": label, "image_path": "folder/image", "split": name, "status": tables.USED})

    def whole(self):
        return self


@pytest.fixture
def parts():
    return {"train": Part("train", 0, 0, 0), "val": Part("val", 1, 1), "test": Part("test", 0, 1)}


@pytest.fixture
def calls(monkeypatch):
    """What was fitted and what was scored: (what, part's name, ...), and no network is built."""
    found = []

    def calibrate(model, batches, precision, learned):
        found.append(("calibrate", batches.name, list(learned), model))
        return FITTED | {"of": model}

    def assess(model, batches, calibration, name, precision):
        found.append(("assess", batches.name, calibration))
        return Assessment({"label": {}}, {}, {})

    for module in (results, own):
        monkeypatch.setattr(module, "calibrate", calibrate)
        monkeypatch.setattr(module, "assess", assess)
    monkeypatch.setattr(results, "publish", lambda *_: None)
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
    folder = SimpleNamespace(below=lambda name: folder, note_task=lambda *_, **__: None)
    folder.best_path = lambda task: Path("a.pth" if is_own else "b.pth")
    results.evaluate_model(folder, model, parts, None, "fp32")
    assert [call[1] for call in calls if call[0] == "assess"] == ["test"]
    assert saved.get("calibration", {}).get("of") == ("1 tta False" if is_own else None)
    assert saved.get("calibration_tta", {}).get("of") == ("1 tta True" if is_own and tta else None)


def test_an_own_model_is_calibrated_on_the_validation_set_and_scored_on_the_test_set(
    parts, calls, monkeypatch, tmp_path
):
    model = SimpleNamespace(parameters=lambda: iter(()))
    monkeypatch.setattr(own, "parts_for", lambda *_: parts)
    monkeypatch.setattr(own.RunFolder, "write_data", lambda *_: None)
    monkeypatch.setattr(own.page, "build", lambda _: "")
    table = pd.concat([part.table for part in parts.values()], ignore_index=True).assign(image="", crc=0, lesion_id="")
    own.report_model(model, table, None, tmp_path / "own", name="own")
    assert calls[0] == ("calibrate", "val", [0, 0, 0], model)
    assert calls[1] == ("assess", "test", FITTED | {"of": model})


def six_rows():
    """Two rows a part, which differ in everything."""
    return pd.DataFrame(
        {
            "image": list("abcdef"),
            "lesion_id": list("uvwxyz"),
            "patient_id": list("mnopqr"),
            "split": ["train", "train", "val", "val", "test", "test"],
            "status": tables.USED,
            "reason": "",
            "crc": 0,
            "label": pd.Categorical(["MEL"] * 6),
        }
    )


@pytest.mark.parametrize("kind", ["images", "lesions", "patients"])
def test_an_image_was_learned_from_if_its_lesion_or_its_patient_was(kind):
    """The training's validation images are kept in today's, for nothing was learned from them; not in the test set."""
    table = six_rows()
    names = table[{"images": "image", "lesions": "lesion_id", "patients": "patient_id"}[kind]].tolist()
    checkpoint = {"task": "classification", "trained_on": {kind: [names[0], names[2]]}}
    checkpoint["chosen_on"] = {kind: [names[3], names[5]]}
    seen.leave_out_learned(Path("a.pth"), checkpoint, table)
    assert table["split"].tolist() == ["train", "train", "", "val", "test", ""]
    assert (table["status"] == tables.LEFT_OUT).tolist() == [False, False, True, False, False, True]


@pytest.mark.parametrize("same", [True, False])
def test_where_the_data_are_those_of_the_training_nothing_is_compared_by_name(same):
    table = six_rows()
    checkpoint = {"task": "classification", "classes": ["MEL"], "image_size": 32, "trained_on": {"images": ["e"]}}
    checkpoint["split_hash"] = splits.split_hash(table) if same else "another"
    seen.fit_to_data([Trained({Path("a.pth"): checkpoint})], 32, table)
    assert (table.loc[4, "status"] == tables.LEFT_OUT) != same


def test_a_checkpoint_names_the_patients_it_learned_from():
    rows = pd.DataFrame({"image": ["a", "b", "c"], "lesion_id": ["l", "l", "m"], "patient_id": ["p", None, "o"]})
    assert states.shown_by(rows) == {"images": ["a", "b", "c"], "lesions": ["l", "m"], "patients": ["o", "p"]}
