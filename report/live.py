"""The epochs of a model that is being trained -> its curves, when the run ends, and a page that reloads itself.

The page stands where the report will, until the run is finished and the report takes its place.
"""

import base64
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import pandas as pd
from tqdm import tqdm

import models
import visualize
from report.folder import RunFolder
from report.page import TEMPLATES

RELOAD = 10  # seconds until the page loads itself again
N_ROWS = 5  # last epochs that the table shows


class Live:
    """Called with the history after each epoch, writes training_curves.png and report.html.

    The first time it also prints how long the rest of the run takes, from the mean of the epochs that it has seen.

    Parameters
    ----------
    folder : of the run.
    task, epochs : the model that is trained now, and for how many epochs.
    to_come : tasks after it.
    epochs_after : the work of the networks after this training, to the end of the run, in epochs of this model.
    """

    def __init__(self, folder: RunFolder, task: str, epochs: int, to_come: Sequence[str], epochs_after: float) -> None:
        self.folder, self.task, self.epochs, self.to_come = folder, task, epochs, list(to_come)
        self.epochs_after = epochs_after
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


def count_epochs_after(
    task: str,
    to_train: dict[str, int],
    to_measure: Sequence[str],
    sizes: dict[str, dict[str, int]],
    encoder: str,
    *,
    n_views: int = 1,
    n_external: int = 0,
) -> float:
    """What the networks do after this task's training, to the end of the run, in epochs of this task.

    A training step is three forward passes. Decoding, intervals and figures are not counted.

    Parameters
    ----------
    to_train : epochs that later tasks have to go.
    to_measure : tasks, this one too.
    sizes : images of each part of the split, by task.
    n_views : of each image that is measured.
    n_external : images of another data set that are measured.
    """

    def work(name: str) -> tuple[float, float]:
        """Operations of an epoch, and of measuring."""
        one, n = models.operations(name, encoder), sizes[name]
        return one * (3 * n["train"] + n["val"]), one * (n["val"] + n["test"] + n_external) * n_views

    training = sum(epochs * work(name)[0] for name, epochs in to_train.items())
    measuring = sum(work(name)[1] for name in to_measure)
    return (training + measuring) / work(task)[0]
