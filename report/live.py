"""The epochs of a model that is being trained -> its curves, and a page that shows them and reloads itself.

It stands where the report will, until the run is finished and the report takes its place.
"""

import base64
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import pandas as pd

import visualize
from report.folder import RunFolder
from report.page import TEMPLATES

RELOAD = 10  # seconds until the page loads itself again
N_ROWS = 5  # last epochs that the table shows


class Live:
    """Called with the history after each epoch, writes training_curves.png and report.html.

    Parameters
    ----------
    folder : of the run.
    task, epochs : the model that is trained now, and for how many epochs.
    to_come : tasks after it.
    """

    def __init__(self, folder: RunFolder, task: str, epochs: int, to_come: Sequence[str]) -> None:
        self.folder, self.task, self.epochs, self.to_come = folder, task, epochs, to_come
        self.started, self.n_seen = time.monotonic(), 0

    def __call__(self, history: list[dict]) -> None:
        self.n_seen += 1
        table = pd.DataFrame(history)
        curves = visualize.png(visualize.training_curves(table, self.task), self.folder.caption)
        self.folder.write(f"{self.task}/training_curves.png", curves)
        self.folder.write("report.html", self.page(table, curves))

    def page(self, history: pd.DataFrame, curves: bytes) -> str:
        """The page, as HTML."""
        n_left = self.epochs - len(history)
        left = (time.monotonic() - self.started) / self.n_seen * n_left
        scores = [name for name in history if name.startswith("val_") and not name.endswith("loss")]
        columns = ["train_loss", "val_loss", *scores, "train_seconds"]
        values = {
            "task": self.task,
            "n_epochs": self.epochs,
            "n_done": len(history),
            "left": str(timedelta(seconds=round(left))) if n_left else "",
            "to_come": list(self.to_come),
            "note": self.folder.caption,
            "reload": RELOAD,
            "written": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            "curves": base64.b64encode(curves).decode(),
            "columns": [name.replace("_", " ") for name in columns],
            "rows": {row["epoch"]: [row[name] for name in columns] for row in history.tail(N_ROWS).to_dict("records")},
            "best": int(history.loc[history["val_loss"].idxmin(), "epoch"]),
        }
        return TEMPLATES.get_template("live.html").render(values)
