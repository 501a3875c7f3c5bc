"""Training history -> curves, the remaining time, and a page that reloads itself.

The page is written as report.html until the run is finished and the report replaces it.
"""

import base64
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

import models
import visualize
from checkpoints.networks import N_VIEWS
from dataset.prepare import OtherSet
from report.folder import RunFolder
from report.page import TEMPLATES, name_of_run

RELOAD = 10  # seconds until the page loads itself again
N_ROWS = 5  # last epochs that the table shows


class Work(NamedTuple):
    """Remaining work of one task."""

    task: str
    epochs: int  # of training
    n_train: int  # images
    n_val: int
    n_evaluated: int  # images times views; 0 if evaluation is done


class Live:
    """Writes training_curves.png and report.html when called with the history after each epoch.

    The first call also prints the remaining time of the run, from the mean duration of an epoch.

    Parameters
    ----------
    folder : of the run.
    work : remaining work of the task in training and of the tasks after it.
    encoder : name of their encoder.
    """

    def __init__(self, folder: RunFolder, work: Sequence[Work], encoder: str) -> None:
        self.folder, self.task = folder, work[0].task
        self.epochs = work[0].epochs + folder.n_epochs(self.task)
        self.to_come = [one.task for one in work[1:] if one.epochs]
        self.epochs_after = epochs_after(work, encoder)
        self.started, self.n_seen, self.epoch_seconds = time.monotonic(), 0, 0.0

    def __call__(self, history: list[dict]) -> None:
        self.n_seen += 1
        self.epoch_seconds = (time.monotonic() - self.started) / self.n_seen
        n_left = self.epochs - len(history)
        if self.n_seen == 1 and (n_left or self.to_come):  # nothing to announce before evaluation alone
            then = f", then {' and '.join(self.to_come)}" if self.to_come else ""
            tqdm.write(f"To go: {n_left} of {self.epochs} epochs{then}, {self.left(n_left + self.epochs_after)}.")
        table = pd.DataFrame(history)
        curves = visualize.png(visualize.training_curves(table, self.task, self.epochs), self.folder.caption)
        self.folder.write(f"{self.task}/training_curves.png", curves)
        self.folder.write("report.html", self.page(table, curves))
        self.folder.note(seconds=self.folder.seconds())  # a killed run loses at most one epoch of it

    def left(self, epochs: float) -> str:
        """Duration of so many epochs, as a phrase."""
        return time_left(self.epoch_seconds * epochs, datetime.now())

    def page(self, history: pd.DataFrame, curves: bytes) -> str:
        """The page, as HTML."""
        n_left = self.epochs - len(history)
        scores = [name for names in visualize.scores_of(history).values() for name in names]
        columns = ["train_loss", "val_loss", *scores, "train_seconds"]
        best = int(history.loc[history["val_loss"].idxmin(), "epoch"])
        values = {
            "name": name_of_run(self.folder.path),
            "task": self.task,
            "n_epochs": self.epochs,
            "n_done": len(history),
            "left": self.left(n_left) if n_left else "",
            "to_come": self.to_come,
            "run_left": self.left(n_left + self.epochs_after),
            "note": self.folder.caption,
            "reload": RELOAD,
            "written": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            "curves": base64.b64encode(curves).decode(),
            "columns": [name.replace("_", " ") for name in columns],
            "rows": dict(_row(row, columns, best) for row in history.tail(N_ROWS).to_dict("records")),
        }
        return TEMPLATES.get_template("live.html").render(values)


def _row(row: dict, columns: Sequence[str], best: int) -> tuple[str, list[str]]:
    """An epoch's name and its cells; the last is of seconds."""
    *scores, seconds = (row[name] for name in columns)
    name = f"{row['epoch']}, the best" if row["epoch"] == best else str(row["epoch"])
    return name, [f"{score:.4f}" for score in scores] + [f"{seconds:.1f}"]


def time_left(seconds: float, now: datetime) -> str:
    """Duration and end of work that starts now: "about 1 h 50 min, until 14:35"."""
    minutes = round(seconds / 60)
    if not minutes:
        return "less than a minute"
    hours, rest = divmod(minutes, 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{rest} min"] * (rest > 0)
    end = now + timedelta(minutes=minutes)
    days = (end.date() - now.date()).days
    return f"about {' '.join(parts)}, until {end:%H:%M}" + (f" on {end:%Y-%m-%d}" if days else "")


def work_left(folder: RunFolder, job, external: OtherSet | None, evaluated_as: dict) -> Work:
    """Remaining work of a job, an object with ``name``, ``recipe`` and ``batches`` by part of the split."""
    n, facts = {part: batches.n_images for part, batches in job.batches.items()}, folder.facts(job.name)
    epochs = 0 if facts.get("trained") else job.recipe.epochs - folder.n_epochs(job.name)
    n_evaluated = (n["val"] + n["test"] + (external.n_images if external else 0)) * (
        N_VIEWS if evaluated_as["tta"] else 1
    )
    is_done = facts.get("measured") == evaluated_as
    return Work(job.name, epochs, n["train"], n["val"], 0 if is_done else n_evaluated)


def epochs_after(work: Sequence[Work], encoder: str) -> float:
    """Work after the training of the first task, in epochs of that task.

    A training step is three forward passes. Decoding, intervals and figures are not counted.
    """
    cost = {one.task: models.operations(one.task, encoder) for one in work}
    training = [cost[one.task] * (3 * one.n_train + one.n_val) for one in work]  # operations of an epoch
    evaluating = [cost[one.task] * one.n_evaluated for one in work]
    later = sum(one.epochs * epoch for one, epoch in zip(work[1:], training[1:]))
    return (later + sum(evaluating)) / training[0]
