"""The epochs of a model that is being trained -> its curves, when the run ends, and a page that reloads itself.

The page stands where the report will, until the run is finished and the report takes its place.
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
from report.page import TEMPLATES

RELOAD = 10  # seconds until the page loads itself again
N_ROWS = 5  # last epochs that the table shows


class Work(NamedTuple):
    """What is left to be done of one task."""

    task: str
    epochs: int  # of training
    n_train: int  # images
    n_val: int
    n_evaluated: int  # each of its views counts; 0 if this is done


class Live:
    """Called with the history after each epoch, writes training_curves.png and report.html.

    The first time it also prints how long the rest of the run takes, from the mean of the epochs that it has seen.

    Parameters
    ----------
    folder : of the run.
    work : what is left of the task whose training is watched, and of the tasks after it.
    encoder : the name of their network's.
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
        if self.n_seen == 1 and (n_left or self.to_come):  # nothing to tell of measuring alone
            then = f", then {' and '.join(self.to_come)}" if self.to_come else ""
            tqdm.write(f"To go: {n_left} of {self.epochs} epochs{then}, {self.left(n_left + self.epochs_after)}.")
        table = pd.DataFrame(history)
        curves = visualize.png(visualize.training_curves(table, self.task), self.folder.caption)
        self.folder.write(f"{self.task}/training_curves.png", curves)
        self.folder.write("report.html", self.page(table, curves))
        self.folder.note(seconds=self.folder.seconds())  # so that a killed run loses an epoch of it at most

    def left(self, epochs: float) -> str:
        """How long so many epochs take, in words."""
        return time_left(self.epoch_seconds * epochs, datetime.now())

    def page(self, history: pd.DataFrame, curves: bytes) -> str:
        """The page, as HTML."""
        n_left = self.epochs - len(history)
        scores = [name for names in visualize.scores_of(history).values() for name in names]
        columns = ["train_loss", "val_loss", *scores, "train_seconds"]
        best = int(history.loc[history["val_loss"].idxmin(), "epoch"])
        values = {
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
    """How long something takes that starts now, and when it ends: "about 1 h 50 min, until 14:35"."""
    minutes = round(seconds / 60)
    if not minutes:
        return "less than a minute"
    hours, rest = divmod(minutes, 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{rest} min"] * (rest > 0)
    end = now + timedelta(minutes=minutes)
    days = (end.date() - now.date()).days
    return f"about {' '.join(parts)}, until {end:%H:%M}" + (f" on {end:%Y-%m-%d}" if days else "")


def work_left(folder: RunFolder, job, external: OtherSet | None, evaluated_as: dict) -> Work:
    """What is left of a job: an object with ``name``, ``recipe`` and ``batches`` by part of the split."""
    n, facts = {part: batches.n_images for part, batches in job.batches.items()}, folder.facts(job.name)
    epochs = 0 if facts.get("trained") else job.recipe.epochs - folder.n_epochs(job.name)
    n_evaluated = (n["val"] + n["test"] + (external.n_images if external else 0)) * (
        N_VIEWS if evaluated_as["tta"] else 1
    )
    is_done = facts.get("measured") == evaluated_as
    return Work(job.name, epochs, n["train"], n["val"], 0 if is_done else n_evaluated)


def epochs_after(work: Sequence[Work], encoder: str) -> float:
    """What is left after the training of the first task, in epochs of it.

    A training step is three forward passes. Decoding, intervals and figures are not counted.
    """
    cost = {one.task: models.operations(one.task, encoder) for one in work}
    training = [cost[one.task] * (3 * one.n_train + one.n_val) for one in work]  # operations of an epoch
    evaluating = [cost[one.task] * one.n_evaluated for one in work]
    later = sum(one.epochs * epoch for one, epoch in zip(work[1:], training[1:]))
    return (later + sum(evaluating)) / training[0]
