"""Two processes on this machine's CPU, started as users start them."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import QUICK, ROOT, picture, saved
from test_train import Toy, run

import models

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

FIT_TOY = """
import pathlib, sys
import torch
import torch.distributed as dist
import machine
from test_train import Line, Toy, run

class Share(Toy):
    def epoch(self, epoch=0):
        for batch in super().epoch(epoch):
            yield {key: value[dist.get_rank()::2] for key, value in batch.items()}

_, rank, n_ranks = machine.join_processes(torch.device("cpu"))
assert n_ranks == 2
# The first may decode or draw for hours while the others wait; the default would give up after half an hour.
assert dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout == machine.PATIENCE
place, epochs, resume = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume"
n_masks = int(sys.argv[4]) if len(sys.argv) > 4 else None
batches, val = Share(n=11, n_masks=n_masks), Share(seed=1, n_masks=n_masks)
model, _ = run(place, epochs=epochs, batches=batches, resume=resume, shares=val)
torch.save(model.state_dict(), place / f"rank{rank}.pth")
"""


def fit_toy(place, epochs, resume="anew", n_masks=None):
    (place / "fit_toy.py").write_text(FIT_TOY)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [
        *TORCHRUN,
        place / "fit_toy.py",
        place,
        str(epochs),
        resume,
        *([] if n_masks is None else [str(n_masks)]),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return [torch.load(place / f"rank{rank}.pth") for rank in (0, 1)]


@pytest.mark.parametrize("n_masks", [None, 3])
def test_two_processes_learn_the_same_weights_as_one_with_the_same_batches(tmp_path, n_masks):
    """Eleven images in batches of four: the shares of the two are unequal, and still count by image and by mask."""
    first, second = fit_toy(tmp_path, epochs=3, n_masks=n_masks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    (tmp_path / "one").mkdir()
    batches, val = Toy(n=11, n_masks=n_masks), Toy(seed=1, n_masks=n_masks)
    alone, history = run(tmp_path / "one", epochs=3, batches=batches, shares=val)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first[name], value)
    lines = (tmp_path / "task" / "history.csv").read_text().splitlines()
    columns = dict(zip(lines[0].split(","), lines[-1].split(",")))
    assert float(columns["val_loss"]) == pytest.approx(history[-1]["val_loss"])
    assert float(columns["train_loss"]) == pytest.approx(history[-1]["train_loss"])


def test_two_processes_resume_where_they_stopped(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, _ = fit_toy(tmp_path / "whole", epochs=4)
    fit_toy(tmp_path / "parts", epochs=2)
    resumed = fit_toy(tmp_path / "parts", epochs=4, resume="resume")
    assert all(torch.equal(whole[name], state[name]) for state in resumed for name in whole)


def test_the_program_runs_under_torchrun_and_one_process_writes(demo_folder, tmp_path):
    flags = ["--data-dir", demo_folder, *QUICK, "--tasks", "multitask"]
    command = [*map(str, [*TORCHRUN, ROOT / "main.py", *flags])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("=== multitask ===") == 1 and done.stdout.count("test set") == 1
    environment = json.loads((tmp_path / "outputs" / "environment.json").read_text())
    assert environment["processes"] == 2
    assert environment["command"].startswith("torchrun --nproc-per-node=2 ") and "main.py" in environment["command"]
    assert (tmp_path / "outputs" / "multitask" / "metrics.json").exists()


DIE_SOON = """
import os, signal, sys
import predict
from inference import run

rows = run.process_all

def cut(*arguments):
    for number, row in enumerate(rows(*arguments)):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield row

run.process_all = cut
sys.exit(predict.main())
"""


def test_pictures_are_shared_out_and_another_number_of_processes_goes_on_after_a_kill(tmp_path):
    saved(models.Classifier(), "classification", tmp_path / "model.pth")
    (tmp_path / "photos").mkdir()
    for i in range(12):
        picture(i).save(tmp_path / "photos" / f"{i:02}.png")
    (tmp_path / "die.py").write_text(DIE_SOON)
    flags = [tmp_path / "photos", "--checkpoint", tmp_path / "model.pth", "--batch-size", "2", "--device", "cpu"]

    def predicted(*command):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=180)

    whole = predicted(*TORCHRUN, ROOT / "predict.py", *flags, "--output-dir", tmp_path / "whole")
    assert whole.returncode == 0 and whole.stdout.count("12 predicted, 0 skipped") == 1, whole.stderr
    assert predicted(*TORCHRUN, tmp_path / "die.py", *flags, "--output-dir", tmp_path / "killed").returncode
    last = predicted(sys.executable, ROOT / "predict.py", *flags, "--output-dir", tmp_path / "killed", "--resume")
    assert last.returncode == 0 and re.search(r"12 predicted \([3-6] of them earlier\)", last.stdout), last.stderr
    tables = [(tmp_path / name / "predictions.csv").read_text().splitlines() for name in ("whole", "killed")]
    assert [row.split(",")[:2] for row in tables[0]] == [row.split(",")[:2] for row in tables[1]]
    assert [row.split(",")[1] for row in tables[0]] == ["output", *(f"{i:02}" for i in range(12))]
