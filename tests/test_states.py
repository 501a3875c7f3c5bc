"""The states that a training resumes from: whole, damaged, lost, or of another training."""

import errno
import os
import pickle
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_train import Stop, Stops, Toy, run, same_weights

from checkpoints import states
from checkpoints.states import Checkpoints, advice_on_states, refuse_other


@pytest.mark.parametrize("at", range(11))
def test_a_training_cut_off_at_any_change_on_the_disk_goes_on_to_the_same_weights(tmp_path, monkeypatch, at):
    """The first of three epochs puts three files into place, and each other one four."""
    whole, history = run(tmp_path / "whole", epochs=3)
    rename, count = os.replace, iter(range(100))

    def cut_off(*places):
        if next(count) == at:
            raise Stop
        rename(*places)

    monkeypatch.setattr(os, "replace", cut_off)
    with pytest.raises(Stop):
        run(tmp_path / "parts", epochs=3)
    monkeypatch.undo()
    parts, resumed = run(tmp_path / "parts", epochs=3, resume=True)
    assert same_weights(whole, parts)
    assert [row["val_loss"] for row in resumed] == [row["val_loss"] for row in history]
    assert len(pd.read_csv(tmp_path / "parts" / "task" / "history.csv")) == 3


def test_a_finished_run_is_not_trained_again(tmp_path):
    model, history = run(tmp_path, epochs=3)
    again, same = run(tmp_path, epochs=3, resume=True, batches=Stops(in_epoch=4))
    assert same_weights(model, again) and same == history


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_last_state_falls_back_to_the_one_before_and_says_so(tmp_path, capsys, damage):
    whole, _ = run(tmp_path, epochs=4)
    last = tmp_path / "task" / "last.pth"
    content = bytearray(last.read_bytes())
    if damage == "flipped":
        content[content.index(whole.label.weight.detach().numpy().tobytes())] ^= 1
    last.write_bytes(content[: {"cut": -100, "flipped": None, "empty": 0}[damage]])
    resumed, history = run(tmp_path, epochs=4, resume=True)
    printed = capsys.readouterr().out
    assert "last.pth is damaged" in printed and "Resuming after epoch 3" in printed
    assert same_weights(whole, resumed) and len(history) == 4


def test_a_damaged_state_never_takes_the_place_of_a_sound_one(tmp_path):
    """Stopped again in the first epoch after the fall back: the sound state is still there."""
    whole, _ = run(tmp_path, epochs=4)
    (tmp_path / "task" / "last.pth").write_bytes(b"x")
    with pytest.raises(Stop):
        run(tmp_path, epochs=4, resume=True, batches=Stops(in_epoch=4))
    resumed, _ = run(tmp_path, epochs=4, resume=True)
    (tmp_path / "task" / "last.pth").write_bytes(b"x")
    again, history = run(tmp_path, epochs=4, resume=True)
    assert same_weights(whole, resumed) and same_weights(whole, again) and len(history) == 4


def test_a_history_lost_after_the_state_was_written_is_written_again(tmp_path):
    run(tmp_path, epochs=3)
    path = tmp_path / "task" / "history.csv"
    whole = path.read_bytes()
    path.unlink()
    run(tmp_path, epochs=3, resume=True)
    assert path.read_bytes() == whole


def test_resuming_under_other_conditions_goes_on_and_says_what_no_longer_holds(tmp_path, capsys):
    run(tmp_path, epochs=1, conditions={"threads": 2, "torch": "2.6"})
    run(tmp_path, epochs=2, conditions={"threads": 4, "torch": "2.6"}, resume=True)
    assert "Resumed under different conditions (threads was 2, is 4): the weights may differ" in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["states", "states and history", "files"])
def test_without_a_whole_state_trained_epochs_are_not_trained_over(tmp_path, lost):
    """And not at the second try, when the damaged states have been put aside."""
    run(tmp_path, epochs=2)
    best, states = tmp_path / "best.pth", [tmp_path / "task" / name for name in ("last.pth", "previous.pth")]
    before = best.read_bytes()
    for path in states:
        path.unlink() if lost == "files" else path.write_bytes(path.read_bytes()[:-100])
    if lost == "states and history":
        (tmp_path / "task" / "history.csv").unlink()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"no whole last\.pth or previous\.pth to resume from.*--resume"):
            run(tmp_path, epochs=2, resume=True)
    assert best.read_bytes() == before
    assert len(list((tmp_path / "task").glob("*.damaged"))) == (0 if lost == "files" else 2)


def test_a_damaged_state_is_put_aside_and_none_that_lies_there_is_replaced(tmp_path):
    run(tmp_path, epochs=3)
    last = tmp_path / "task" / "last.pth"
    for content in (b"x", b"y"):
        last.write_bytes(content)
        run(tmp_path, epochs=3, resume=True)
    assert [last.with_name(f"last.pth.damaged{end}").read_bytes() for end in ("", "-2")] == [b"x", b"y"]


@pytest.mark.parametrize(
    ("place", "error"),
    [
        (Path, OSError(errno.EIO, "Input/output error")),
        (zipfile.ZipFile, MemoryError()),
        (torch, MemoryError()),
        (torch, pickle.UnpicklingError("Unsupported global\nof another version")),
    ],
)
def test_a_state_that_is_whole_and_cannot_be_read_stays_and_is_no_damage(tmp_path, monkeypatch, place, error):
    """Nor is the state before it gone on from."""
    whole, _ = run(tmp_path, epochs=3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}

    def fails(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(place, {Path: "read_bytes", torch: "load"}.get(place, "testzip"), fails)
        with pytest.raises(
            ValueError, match=rf"Cannot resume from .*last\.pth: {type(error).__name__}.*stays as it is"
        ):
            run(tmp_path, epochs=3, resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    again, _ = run(tmp_path, epochs=3, resume=True)
    assert same_weights(whole, again)


def test_a_file_of_another_kind_in_the_states_place_is_refused_and_kept(tmp_path):
    run(tmp_path, epochs=2)
    last, best = tmp_path / "task" / "last.pth", tmp_path / "best.pth"
    last.write_bytes(best.read_bytes())
    with pytest.raises(ValueError, match=r"last\.pth: ValueError: it has no best, conditions, history"):
        run(tmp_path, epochs=2, resume=True)
    assert last.read_bytes() == best.read_bytes()


def test_a_setting_that_came_or_went_since_is_named(tmp_path):
    run(tmp_path, epochs=1, identity={"data": "abc", "weight_decay": 0.1})
    with pytest.raises(ValueError, match=r"encoder was no setting yet, is resnet34; weight decay was 0\.1, is no l"):
        run(tmp_path, epochs=2, resume=True, identity={"data": "abc", "encoder": "resnet34"})


def test_resuming_with_other_settings_or_data_names_what_differs(tmp_path):
    run(tmp_path, epochs=1, identity={"LR": 0.1, "data": "abc"})
    with pytest.raises(ValueError, match=r"LR was 0.1, is 0.2; data was abc, is xyz"):
        run(tmp_path, epochs=1, resume=True, identity={"LR": 0.2, "data": "xyz"})


def test_resuming_with_more_epochs_ends_with_the_weights_of_a_run_of_that_many(tmp_path):
    whole, history = run(tmp_path / "whole", epochs=5, identity={"epochs": 5})
    run(tmp_path / "parts", epochs=3, identity={"epochs": 3})
    parts, resumed = run(tmp_path / "parts", epochs=5, resume=True, identity={"epochs": 5})
    assert same_weights(whole, parts)
    assert [row["val_loss"] for row in resumed] == [row["val_loss"] for row in history]
    assert torch.load(tmp_path / "parts" / "best.pth", weights_only=True)["scores"]["val_loss"] == min(
        row["val_loss"] for row in history
    )


@pytest.mark.parametrize(
    "recipe, epochs, message",
    [
        ({"schedule": "cosine"}, 5, "epochs was 3, is 5 .the learning rate falls along a cosine of all epochs"),
        ({"warm_up": 0.1}, 5, "epochs was 3, is 5 .the learning rate rises over a share of all epochs"),
        ({}, 2, "epochs was 3, is 2. Restore"),
    ],
)
def test_where_rates_depend_on_the_epochs_or_there_are_fewer_resuming_is_refused(recipe, epochs, message, tmp_path):
    before = {"schedule": "constant", "warm_up": 0.0} | recipe | {"epochs": 3}
    with pytest.raises(ValueError, match=message):
        refuse_other(before, before | {"epochs": epochs}, tmp_path)


def test_a_resumed_training_knows_its_best_epoch(tmp_path):
    other = Toy(seed=1)
    other.label, other.mask = 1 - other.label, 1 - other.mask
    run(tmp_path, epochs=2, shares=other)
    run(tmp_path, epochs=4, resume=True, shares=other)
    assert torch.load(tmp_path / "best.pth", weights_only=True)["epoch"] == 1


def test_a_checkpoint_names_the_patients_it_learned_from():
    rows = pd.DataFrame({"image": ["a", "b", "c"], "lesion_id": ["l", "l", "m"], "patient_id": ["p", None, "o"]})
    assert states.shown_by(rows) == {"images": ["a", "b", "c"], "lesions": ["l", "m"], "patients": ["o", "p"]}


@pytest.mark.parametrize(
    ("keep", "schedule", "left", "advice"),
    [
        (False, "constant", [], "Training states are deleted when a model is finished. To add epochs with --resume"),
        (True, "constant", ["last.pth"], ""),
        (True, "cosine", [], "KEEP_STATES has no effect, because no epochs can be added: the learning rate falls"),
        (False, "cosine", [], ""),
    ],
)
def test_a_finished_training_keeps_its_last_state_where_asked_and_where_epochs_can_be_added(
    keep, schedule, left, advice, tmp_path
):
    kept = Checkpoints(tmp_path / "best.pth", tmp_path / "task")
    for path in kept.states:
        path.touch()
    kept.drop_states(keep, schedule, 0.0)
    assert [path.name for path in (tmp_path / "task").iterdir()] == left
    said = advice_on_states(keep, schedule, 0.0)
    assert said.startswith(advice) and bool(said) == bool(advice)
