"""predict.py's loop over many pictures: in little memory, stopped, and gone on with."""

from pathlib import Path

import pytest
import torch
from conftest import dies_after, picture, run

import machine
import predict
from inference import process as running
from inference.inputs import Listed


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


@pytest.mark.parametrize("n_said", [5, 4])
def test_the_console_shows_each_of_a_few_pictures_and_counts_many(
    n_said, checkpoints, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(running, "N_SAID", n_said)
    assert run(photos, "--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out") == 0
    shown = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(str(photos)) for line in shown) == (5 if n_said == 5 else 0)
    assert sum(line.startswith("image ") for line in shown) == (n_said == 5)
    assert sum(line.startswith("top-1 class ") for line in shown) == (n_said == 4)
    assert shown[-2:] == [
        f"5 predicted, 0 skipped: {tmp_path / 'out' / 'predictions.csv'}",
        f"To look at: {tmp_path / 'out' / 'overlays'}/",
    ]


def test_pictures_named_as_those_of_the_training_are_counted(checkpoints, photos, tmp_path, capsys):
    """Names that are mere numbers may be any data set's."""
    picture(3).save(photos / "7.png")
    facts = torch.load(checkpoints["classification"], weights_only=True)
    facts |= {"trained_on": {"images": ["one", "7"]}, "chosen_on": {"images": ["two"]}}
    torch.save(facts, tmp_path / "knows.pth")
    for checkpoint, n_seen in ((tmp_path / "knows.pth", True), (checkpoints["classification"], False)):
        assert run(photos, "--checkpoint", checkpoint, "--output-dir", tmp_path / checkpoint.stem) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert ("trained or selected on: 3 of 6." in said) == n_seen


def test_a_single_pictures_files_are_named(checkpoints, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(photos / "b" / "one.jpg", "--checkpoint", checkpoints["multitask"], "--output-dir", out) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("To look at: ")]
    paths = line.removeprefix("To look at: ").split(", ")
    assert paths == [str(out / "overlays" / "one.jpg"), str(out / "masks" / "one.png")]
    assert all(Path(path).is_file() for path in paths)


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
    assert "--resume continues" in capsys.readouterr().err
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


def test_a_finished_run_has_nothing_left_and_another_option_is_refused_by_name(checkpoints, photos, tmp_path, capsys):
    command = [photos, "--output-dir", tmp_path / "out", "--checkpoint"]
    assert run(*command, checkpoints["classification"]) == 0
    before = (tmp_path / "out" / "predictions.csv").read_bytes()
    assert run(*command, checkpoints["classification"], "--resume", "--json") == 0
    assert "5 predicted (5 of them earlier)" in capsys.readouterr().out
    assert run(*command, checkpoints["classification"], "--resume", "--explain") == 2
    assert "its table was made without --explain" in capsys.readouterr().err
    assert run(*command, checkpoints["multitask"], "--resume") == 2
    error = capsys.readouterr().err
    assert "with --checkpoint best_classification_model.pth" in error and "not best_multitask_model.pth" in error
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before


def test_a_file_in_the_place_of_a_folder_of_outputs_is_one_message(checkpoints, photos, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "masks").write_text("mine")
    assert run(photos, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out") == 2
    assert f"Cannot write {tmp_path / 'out' / 'masks'}: File exists" in capsys.readouterr().err


def test_two_runs_at_once_in_one_folder_are_refused(checkpoints, photos, tmp_path, capsys):
    with machine.locked(tmp_path / "out"):
        assert run(photos, "--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out") == 2
    assert "Another run is writing into" in capsys.readouterr().err
