"""Two processes on this machine's CPU; the programs are started as users start them."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT, picture, quick, saved
from conftest import run as predict_with
from processes import in_two_processes
from test_train import Toy, run

import machine
import models
from inference import process as running


class Share(Toy):
    """What one of two processes sees of each batch."""

    def epoch(self, epoch=0):
        for batch in super().epoch(epoch):
            yield {key: value[dist.get_rank() :: 2] for key, value in batch.items()}


def fit_toys(*runs):
    """In each of two processes, train in turn: (folder, epochs, whether to resume, images with a mask) of each run."""
    machine.join_processes(torch.device("cpu"))
    assert machine.n_ranks() == 2
    # The first may decode or draw for hours while the others wait; the default would give up after half an hour.
    assert dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout == machine.PATIENCE
    for place, epochs, resume, n_masks in runs:
        batches, val = Share(n=11, n_masks=n_masks), Share(seed=1, n_masks=n_masks)
        model, _ = run(place, epochs=epochs, batches=batches, resume=resume, shares=val)
        torch.save(model.state_dict(), place / f"rank{dist.get_rank()}.pth")


def both_succeed(function, *arguments):
    """What two processes printed."""
    first, second = in_two_processes(function, *arguments)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    return first.stdout + second.stdout


def states_of(place):
    return [torch.load(place / f"rank{rank}.pth") for rank in (0, 1)]


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Folders of what two processes have trained: images without and with masks, whole and stopped."""
    place = tmp_path_factory.mktemp("toys")
    for name in ("None", "3", "whole", "parts"):
        (place / name).mkdir()
    runs = [(place / "None", 3, False, None), (place / "3", 3, False, 3)]
    runs += [(place / "whole", 4, False, None), (place / "parts", 2, False, None)]
    both_succeed(fit_toys, *runs)
    return place


@pytest.mark.parametrize("n_masks", [None, 3])
def test_two_processes_learn_the_same_weights_as_one_with_the_same_batches(toys, tmp_path, n_masks):
    """Eleven images in batches of four: the shares of the two are unequal, and still count by image and by mask."""
    first, second = states_of(toys / str(n_masks))
    assert all(torch.equal(first[name], second[name]) for name in first)
    batches, val = Toy(n=11, n_masks=n_masks), Toy(seed=1, n_masks=n_masks)
    alone, history = run(tmp_path, epochs=3, batches=batches, shares=val)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first[name], value)
    lines = (toys / str(n_masks) / "task" / "history.csv").read_text().splitlines()
    columns = dict(zip(lines[0].split(","), lines[-1].split(",")))
    assert float(columns["val_loss"]) == pytest.approx(history[-1]["val_loss"])
    assert float(columns["train_loss"]) == pytest.approx(history[-1]["train_loss"])


def test_two_processes_resume_where_they_stopped(toys):
    whole, _ = states_of(toys / "whole")
    both_succeed(fit_toys, (toys / "parts", 4, True, None))
    assert all(torch.equal(whole[name], state[name]) for state in states_of(toys / "parts") for name in whole)


def test_the_program_runs_in_two_processes_and_one_writes(demo_folder, tmp_path):
    """tests/test_readme.py runs predict.py under torchrun itself."""
    printed = both_succeed(quick, demo_folder, tmp_path, "--tasks", "classification", "multitask")
    assert printed.count("=== multitask ===") == 1 and printed.count("test set") == 2
    environment = json.loads((tmp_path / "outputs" / "environment.json").read_text())
    assert environment["processes"] == 2
    assert environment["command"].startswith("torchrun --nproc-per-node=2 ")
    assert (tmp_path / "outputs" / "multitask" / "metrics.json").exists()


LEAVES = """
import atexit, pathlib, torch, machine
threads = pathlib.Path("/proc/self/task")
atexit.register(lambda: print("at the end:", *(thread.read_text().strip() for thread in threads.glob("*/comm"))))
machine.join_processes(torch.device("cpu"))
machine.from_first(int)
import torch.distributed.nn  # as PyTorch itself does when a model is built
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are listed by Linux")
def test_no_thread_of_the_group_is_left_to_abort_the_interpreter_at_its_end(tmp_path):
    (tmp_path / "leaves.py").write_text(LEAVES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "leaves.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout.count("at the end:") == 2 and "gloo" not in done.stdout


def die_soon(*arguments):
    """predict.py, killed at its fourth row."""
    rows = running.process_all

    def cut(*arguments):
        for number, row in enumerate(rows(*arguments)):
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield row

    running.process_all = cut
    predict_with(*arguments)


def test_pictures_are_shared_out_and_another_number_of_processes_goes_on_after_a_kill(tmp_path, capsys):
    saved(models.Classifier(), "classification", tmp_path / "model.pth")
    (tmp_path / "photos").mkdir()
    for i in range(12):
        picture(i).save(tmp_path / "photos" / f"{i:02}.png")
    flags = [tmp_path / "photos", "--checkpoint", tmp_path / "model.pth", "--batch-size", "2", "--device", "cpu"]

    printed = both_succeed(predict_with, *flags, "--output-dir", tmp_path / "whole")
    assert printed.count("12 predicted, 0 skipped") == 1
    assert re.findall(r"(\d\d)\.png +p = ", printed) == [f"{i:02}" for i in range(12)]
    killed = in_two_processes(die_soon, *flags, "--output-dir", tmp_path / "killed")
    assert all(done.returncode for done in killed)
    assert predict_with(*flags, "--output-dir", tmp_path / "killed", "--resume") == 0  # in this process alone
    assert re.search(r"12 predicted \([3-6] of them earlier\)", capsys.readouterr().out)
    tables = [(tmp_path / name / "predictions.csv").read_text().splitlines() for name in ("whole", "killed")]
    assert [row.split(",")[:2] for row in tables[0]] == [row.split(",")[:2] for row in tables[1]]
    assert [row.split(",")[1] for row in tables[0]] == ["output", *(f"{i:02}" for i in range(12))]
