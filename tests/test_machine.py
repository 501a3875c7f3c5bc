import contextlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import RESNET, quick
from processes import Forked, limited

import machine
import models
import train


def test_a_failing_write_names_the_file_and_leaves_the_old_one_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    machine.write_file(path, b"old")
    monkeypatch.setattr(machine.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space") as failed:
        machine.write_file(path, b"new")
    assert failed.value.filename == str(path)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_file_that_comes_in_parts_is_whole_or_not_there(tmp_path):
    """Also if it is the program that stops between two parts, and not the disk."""
    path = tmp_path / "a.csv"
    machine.write_file(path, iter([b"one,", b"two"]))
    assert path.read_bytes() == b"one,two"

    def failing():
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.write_file(path, failing())
    assert path.read_bytes() == b"one,two" and list(tmp_path.iterdir()) == [path]


def test_work_ahead_keeps_the_order_and_its_bound():
    started = []

    class Pool:
        def submit(self, function, item):
            started.append(item)
            return type("Done", (), {"result": lambda _: function(item)})()

    results = machine.map_ahead(Pool(), lambda item: item * 2, range(10), 3)
    assert next(results) == 0 and started == [0, 1, 2, 3]
    assert list(results) == [2 * i for i in range(1, 10)]


def git(folder, *arguments):
    subprocess.run(["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=b", *arguments], check=True)


@pytest.mark.skipif(not shutil.which("git"), reason="no git is installed")
def test_the_commit_is_that_of_the_files_checkout_and_a_plus_says_that_it_was_changed(tmp_path):
    kept, stranger = tmp_path / "kept.py", tmp_path / "stranger.py"
    for file in (kept, stranger):
        file.write_text("1")
    assert machine.commit(kept) == ""
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "kept.py")
    git(tmp_path, "commit", "-qm", "first")
    assert re.fullmatch("[0-9a-f]{40}", machine.commit(kept))
    kept.write_text("2")
    assert re.fullmatch("[0-9a-f]{40}[+]", machine.commit(kept))
    assert machine.commit(stranger) == ""


def test_without_git_there_is_no_commit_and_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.commit(Path(machine.__file__)) == ""


def test_a_lock_is_held_while_the_body_runs_and_no_longer(tmp_path):
    for _ in range(2):
        with (
            machine.locked(tmp_path / "out"),
            pytest.raises(ValueError, match="Another run is writing into"),
            machine.locked(tmp_path / "out"),
        ):
            pass


def test_a_locks_file_is_removed_while_it_is_held_even_if_a_killed_run_left_it(tmp_path, monkeypatch):
    """After the release it may be the file of another run's lock."""
    left = []

    class Watched(machine.FileLock):
        def release(self, *options):
            left.append(list(tmp_path.iterdir()))
            super().release(*options)

    monkeypatch.setattr(machine, "FileLock", Watched)
    (tmp_path / ".out.lock").touch()
    with machine.locked(tmp_path / "out"):
        assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]
    assert left and not left[0] and not list(tmp_path.iterdir())


def test_a_lock_of_a_file_that_its_last_holder_removed_keeps_nobody_out_and_is_not_taken(tmp_path, monkeypatch):
    """The other run ends between the opening of the file and its locking."""
    removed = []

    class Late(machine.FileLock):
        def acquire(self, **options):
            super().acquire(**options)
            if not removed:
                removed.append(Path(self.lock_file).unlink())

    monkeypatch.setattr(machine, "FileLock", Late)
    with (
        machine.locked(tmp_path / "out"),
        pytest.raises(ValueError, match="Another run is writing into"),
        machine.locked(tmp_path / "out"),
    ):
        pass
    assert removed and not list(tmp_path.iterdir())


def take_turns(place, n):
    """Hold the lock `n` times; the exit code is 1 if another process held it meanwhile."""
    while n:
        with contextlib.suppress(ValueError), machine.locked(place / "out"):
            (place / "held").mkdir()
            (place / "held").rmdir()
            n -= 1


def test_no_two_processes_ever_hold_a_lock(tmp_path):
    both = [Forked(take_turns, tmp_path, 300) for _ in range(2)]
    for one in [process.ended() for process in both]:
        assert one.returncode == 0, one.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a file", "a file/below", "link", "loop", "n" * 300])
def test_a_folder_that_cannot_be_written_is_said_to_be_one_and_why(tmp_path, name):
    (tmp_path / "a file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "outputs")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.iterdir())
    with (
        pytest.raises(ValueError, match=r"cannot be written \(.+\)\. Name another folder"),
        machine.locked(tmp_path / name),
    ):
        pass
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_place_where_no_file_can_be_made_is_not_taken_for_another_run():
    with pytest.raises(ValueError, match="/proc/x cannot be written"), machine.locked(Path("/proc/x")):
        pass


def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch):
    class NoLock:
        def __init__(self, path):
            pass

        def acquire(self, timeout):
            raise NotImplementedError("no flock here")

    monkeypatch.setattr(machine, "FileLock", NoLock)
    with pytest.raises(ValueError, match=r"out cannot be written \(no flock here"), machine.locked(tmp_path / "out"):
        pass


def test_an_output_folder_that_is_a_file_is_one_message(demo_folder, tmp_path, capsys):
    (tmp_path / "outputs").write_text("mine")
    assert quick(demo_folder, tmp_path) == 2
    assert "outputs cannot be written (it is not a folder: " in capsys.readouterr().err
    assert (tmp_path / "outputs").read_text() == "mine"


def test_a_full_disk_is_one_message_and_keeps_what_was_complete(demo_folder, tmp_path):
    """Writing fails for real: no file may exceed 60 MB, and the state for resuming does."""
    done = Forked(limited, 60_000_000, quick, demo_folder, tmp_path, *RESNET).ended()
    assert done.returncode == 1, done.stderr
    assert "Cannot write" in done.stderr and "Traceback" not in done.stderr
    assert models.load_model(tmp_path / "outputs" / "best_classification_model.pth")
    assert not list((tmp_path / "outputs").rglob("*.partial"))


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_without_bf16_computes_in_fp16(has_bf16, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert machine.choose_precision("auto", torch.device("cuda")) == expected
    assert machine.choose_precision("fp32", torch.device("cuda")) == "fp32"
    assert machine.choose_precision("auto", torch.device("mps")) == "fp32"


@pytest.mark.parametrize("there", [("cuda", "mps"), ("mps",), ()])
def test_auto_is_the_fastest_device_that_is_there(there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert machine.choose_device("auto").type == (*there, "cpu")[0]


def test_a_run_in_fp16_says_so(demo_folder, tmp_path):
    assert quick(demo_folder, tmp_path, "--precision", "fp16", "--tasks", "multitask") == 0
    assert json.loads((tmp_path / "outputs" / "environment.json").read_text())["precision"] == "fp16"


def test_a_batch_too_large_for_the_gpu_gets_a_size_to_try(demo_folder, tmp_path, monkeypatch, capsys):
    def full(*_args, **_options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train, "fit", full)
    assert quick(demo_folder, tmp_path, "--classification-batch-size", "512") == 1
    assert "Try --classification-batch-size 256" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["results.evaluate_model", "data.to_device", "initial_model"])
def test_a_full_gpu_outside_of_training_is_one_message_too(place, demo_folder, tmp_path, monkeypatch, capsys):
    def full(*_args, **_options):
        raise torch.cuda.OutOfMemoryError("Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(f"main.{place}", full)
    assert quick(demo_folder, tmp_path) == 1
    error = capsys.readouterr().err
    assert "Out of GPU memory: Tried to allocate 2.00 GiB." in error and "--device cpu" in error


def test_a_file_in_the_place_of_a_folder_is_named_in_words():
    told = machine.in_words(FileExistsError(17, "File exists", "afile"), "elsewhere", "Name another.")
    assert told == (1, "Cannot write afile: File exists. Name another.")
    assert machine.in_words(FileExistsError("a is there."), "elsewhere", "Name another.") == (2, "a is there.")
