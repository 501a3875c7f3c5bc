"""The epochs of a model that is being trained -> its curves, when the run ends, and a page that reloads itself.

The page stands where the report will, until the run is finished and the report takes its place.
"""

import base64
import time
from collections.abc import Sequence
from datetime import datetime

import pandas as pd
from tqdm import tqdm

import visualize
from machine import time_left
from report.folder import RunFolder
from report.page import TEMPLATES

RELOAD = 10  # seconds until the page loads itself again
N_ROWS = 5  # last epochs that the table shows


class Live:
    """Called with the history after each epoch, writes training_curves.png and report.html.

    The first time it also prints how long the run will take: this model's epochs so far, and `more` that follow.

    Parameters
    ----------
    folder : of the run.
    task, epochs : the model that is trained now, and for how many epochs.
    to_come : tasks after it.
    more : the work after this model's training, to the end of the run, in epochs of this model.
    """

    def __init__(
        self, folder: RunFolder, task: str, epochs: int, to_come: Sequence[str] = (), more: float = 0.0
    ) -> None:
        self.folder, self.task, self.epochs, self.to_come, self.more = folder, task, epochs, list(to_come), more
        self.started, self.n_seen, self.seconds = time.monotonic(), 0, 0.0

    def __call__(self, history: list[dict]) -> None:
        self.n_seen += 1
        self.seconds = (time.monotonic() - self.started) / self.n_seen  # of an epoch
        n_left = self.epochs - len(history)
        if self.n_seen == 1 and (n_left or self.to_come):  # nothing to tell of measuring alone
            then = f", then {' and '.join(self.to_come)}" if self.to_come else ""
            tqdm.write(f"To go: {n_left} of {self.epochs} epochs{then}, {self.left(n_left + self.more)}.")
        table = pd.DataFrame(history)
        curves = visualize.png(visualize.training_curves(table, self.task), self.folder.caption)
        self.folder.write(f"{self.task}/training_curves.png", curves)
        self.folder.write("report.html", self.page(table, curves))

    def left(self, epochs: float) -> str:
        """How long so many epochs take, in words."""
        return time_left(self.seconds * epochs, datetime.now())

    def page(self, history: pd.DataFrame, curves: bytes) -> str:
        """The page, as HTML."""
        n_left = self.epochs - len(history)
        scores = [name for name in history if name.startswith("val_") and not name.endswith("loss")]
        columns = ["train_loss", "val_loss", *scores, "train_seconds"]
        values = {
            "task": self.task,
            "n_epochs": self.epochs,
            "n_done": len(history),
            "left": self.left(n_left) if n_left else "",
            "to_come": self.to_come,
            "run_left": self.left(n_left + self.more),
            "note": self.folder.caption,
            "reload": RELOAD,
            "written": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            "curves": base64.b64encode(curves).decode(),
            "columns": [name.replace("_", " ") for name in columns],
            "rows": {row["epoch"]: [row[name] for name in columns] for row in history.tail(N_ROWS).to_dict("records")},
            "best": int(history.loc[history["val_loss"].idxmin(), "epoch"]),
        }
        return TEMPLATES.get_template("live.html").render(values)
