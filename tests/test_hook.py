"""A user's function that is called after each epoch, and the examples of docs/tracking.md."""

import re
import sys

import pandas as pd
import pytest
from conftest import ROOT, quick

PAGE = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"## ([^\n]+)\n.*?```python\n(.*?)```", PAGE, re.DOTALL))
SEEN = """
from pathlib import Path
def log(row, task, folder):
    with Path("seen.txt").open("a") as file:
        print(row["epoch"], round(row["val_loss"], 6), task, folder, (folder / "history.csv").exists(), file=file)
    row.clear()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder where python is started, with a module `own_tracking` of the user's and other files of our names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("data.py", "losses.py"):
        (tmp_path / name).write_text("raise SystemExit('a file of the user stood in for one of the project')\n")

    def write(text):
        sys.modules.pop("own_tracking", None)
        (tmp_path / "own_tracking.py").write_text(text)
        return tmp_path

    yield write
    sys.modules.pop("own_tracking", None)


def test_it_is_called_with_each_epochs_row_and_by_a_resumed_run_with_the_new_ones(demo_folder, place):
    here = place(SEEN)
    hook = ["--after-epoch", "own_tracking:log", "--keep-states"]
    assert quick(demo_folder, here, *hook, "--classification-epochs", "2") == 0
    history = pd.read_csv(here / "outputs" / "classification" / "history.csv")
    folder = here / "outputs" / "classification"
    lines = [f"{row.epoch} {round(row.val_loss, 6)} classification {folder} True" for row in history.itertuples()]
    assert (here / "seen.txt").read_text().splitlines() == lines and len(lines) == 2
    assert sys.path[-1] == str(here)  # last, so that no file there stands in for one of the project
    assert quick(demo_folder, here, *hook, "--classification-epochs", "3", "--resume") == 0
    assert [line.split()[0] for line in (here / "seen.txt").read_text().splitlines()] == ["1", "2", "3"]


def test_its_errors_are_one_line_per_epoch_and_the_run_finishes(demo_folder, place, capsys):
    here = place("def log(row, task, folder):\n    raise RuntimeError('no\\nserver')\n")
    assert quick(demo_folder, here, "--after-epoch", "own_tracking:log", "--classification-epochs", "2") == 0
    reported = [line for line in capsys.readouterr().out.splitlines() if line.startswith("AFTER_EPOCH own")]
    assert reported == [
        f"AFTER_EPOCH own_tracking:log failed after epoch {epoch} of classification: RuntimeError: no server"
        for epoch in (1, 2)
    ]
    assert (here / "outputs" / "classification" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_tracking", "Expected MODULE:FUNCTION"),
        (":log", "Expected MODULE:FUNCTION"),
        ("own_tracking:lgo", "lgo does not exist in"),
        ("own_tracking:NAME", "NAME is not a function in"),
        ("nowhere_at_all:log", "cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("own_tracking:log", "cannot be imported: ZeroDivisionError: division by zero"),
        ("data:log", "log does not exist in"),
    ],
)
def test_one_that_cannot_be_called_is_refused_before_anything_is_written(name, message, demo_folder, place, capsys):
    here = place("1 / 0" if "zero" in message else "NAME = 1")
    assert quick(demo_folder, here, "--after-epoch", name) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and ("PYTHONPATH" in error or "Expected" in error)
    assert not (here / "outputs").exists() and not (here / "cache").exists()


def test_the_tensorboard_example_writes_every_number_of_the_history(demo_folder, place):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    here = place(EXAMPLES["TensorBoard"])
    assert quick(demo_folder, here, "--after-epoch", "own_tracking:log", "--classification-epochs", "2") == 0
    written = loader.EventAccumulator(str(here / "outputs" / "classification" / "tensorboard"))
    written.Reload()
    history = pd.read_csv(here / "outputs" / "classification" / "history.csv")
    assert set(written.Tags()["scalars"]) == set(history.columns)
    for name in history.columns:
        assert [event.value for event in written.Scalars(name)] == pytest.approx(history[name].tolist(), rel=1e-6)


@pytest.mark.parametrize("name", ["MLflow", "Weights & Biases"])
def test_the_other_examples_compile_and_take_three_arguments(name):
    code = compile(EXAMPLES[name], name, "exec")
    (log,) = [one for one in code.co_consts if hasattr(one, "co_code") and one.co_name == "log"]
    assert log.co_varnames[: log.co_argcount] == ("row", "task", "folder")
    assert len(EXAMPLES[name].splitlines()) <= 18
