"""Two processes on this machine's CPU, started as users start them."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import QUICK, ROOT, picture
from test_train import Toy, run

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
    assert '"processes": 2' in (tmp_path / "outputs" / "environment.json").read_text()
    assert (tmp_path / "outputs" / "multitask" / "metrics.json").exists()


def test_pictures_are_shared_out_and_other_processes_go_on_after_a_kill(whole_run, tmp_path):
    """Two processes, killed in the middle, and then one: the table is that of one process alone."""
    for i in range(40):
        picture(i).save(tmp_path / f"{i:02}.png")
    model = whole_run[0] / "best_classification_model.pth"
    flags = [ROOT / "predict.py", tmp_path, "--checkpoint", model, "--batch-size", "2", "--device", "cpu"]
    alone = subprocess.run([sys.executable, *flags, "--output-dir", tmp_path / "alone"], capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    command = list(map(str, [*TORCHRUN, *flags, "--output-dir", tmp_path / "two"]))
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    parts = [tmp_path / "two" / f"predictions.csv.part{rank}" for rank in (0, 1)]
    while running.poll() is None and not all(part.exists() and part.stat().st_size for part in parts):
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    for count in (2, 1):  # the second has nothing left
        launch = TORCHRUN if count == 2 else [sys.executable]
        last = subprocess.run(
            [*launch, *flags, "--output-dir", tmp_path / "two", "--resume"], capture_output=True, text=True
        )
        assert last.returncode == 0 and last.stdout.count("40 predicted") == 1, last.stderr
    assert "of them earlier" in last.stdout
    tables = [(tmp_path / name / "predictions.csv").read_text().splitlines() for name in ("alone", "two")]
    assert [row.split(",")[:3] for row in tables[0]] == [row.split(",")[:3] for row in tables[1]]
