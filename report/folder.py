"""The folder of one run: files are written whole, and a record keeps the steps that are done."""

import json
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import visualize
from dataset.classes import classes_of
from dataset.csvfile import csv_parts
from dataset.splits import class_table
from machine import from_first, is_first, write_file

RECORD = "record.json"
FOLD_OF = "fold_"  # begins the columns of splits.csv with the fold that tests an image, one per repeat
DAMAGED = "{} is damaged. Start anew without --resume, or name another folder."


class RunFolder:
    """The folder of a run. Every process may call its methods; only the first one writes.

    Attributes
    ----------
    record : steps that are done, kept in record.json. ``started`` (ISO time); ``classes``; ``tasks``, facts by task:
        ``identity``, ``trained``, ``measured`` (evaluation settings) and ``external``, the other data set (its folder
        and the images left out); ``comparison``, whether comparison.json is up to date; ``finished``; ``seconds``, the
        total without pauses between resumed runs and without the audit; ``audit``, the hash of the ``split`` that was
        to be audited for leakage, and the ``problem``, why it was not ("" if it was).
    caption : note in every figure.
    whole : the folder that a new run moves aside if it holds a run; other than this one for the first of several folds.
    """

    def __init__(self, path: str | Path, caption: str = "") -> None:
        self.path, self.caption, self.whole = Path(path), caption, self
        self.record: dict = {"tasks": {}}
        self._started, self._before = time.monotonic(), 0.0  # seconds of earlier runs that this one resumes

    def read_record(self) -> dict:
        """The record on disk; {"tasks": {}} if there is none.

        Raises
        ------
        ValueError : it is damaged.
        """
        record = {"tasks": {}} | self.read_json(RECORD)
        if not isinstance(record["tasks"], dict):
            raise ValueError(DAMAGED.format(self.path / RECORD))
        return record

    def read_json(self, name: str) -> dict:
        """A file of the run; {} if there is none. Raises ValueError if it is damaged."""
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ValueError(DAMAGED.format(path))
        return content

    def holds_a_training(self) -> bool:
        """Whether the folder holds a model or a training state of an earlier run."""
        return any(
            any(self.path.glob(kind)) for kind in ("best_*_model.pth", "*/last.pth", "*/previous.pth", "fold-*/*.pth")
        )

    def holds_a_run(self) -> bool:
        """Whether the folder holds models or scores of an earlier run."""
        return self.holds_a_training() or any(self.path.glob("*/metrics.json"))

    def start_anew(self, started: str) -> Path | None:
        """Start an empty folder for a new run; returns the new place of an earlier run, if there was one."""
        whole = self.whole
        earlier = from_first(_set_aside, whole.path.resolve()) if from_first(whole.holds_a_run) else None
        self.record = {"started": started, "tasks": {}}
        return earlier

    def take_record(self) -> None:
        """Read the record. Raises ValueError if it is damaged."""
        self.record = from_first(self.read_record)
        self._before = self.record.get("seconds") or 0.0

    def is_finished(self, tasks: Sequence[str], measured: dict, audits: bool = False) -> bool:
        """Whether all of these tasks were trained, evaluated with these settings, reported and, if asked, audited."""
        if audits and self.record.get("audit", {}).get("problem"):
            return False
        facts = [self.facts(task) for task in tasks]
        is_done = all(one.get("trained") and one.get("measured") == measured for one in facts)
        return is_done and self.record.get("finished", False)

    def note(self, **facts) -> None:
        """Add to the record, and write it."""
        self.record |= facts
        self.write_json(RECORD, self.record)

    def note_task(self, task: str, **facts) -> None:
        """Add facts of a task to the record and write it; the comparison and the report become outdated."""
        if self.record.get("comparison") and is_first():
            (self.path / "comparison.json").unlink(missing_ok=True)
        tasks = self.record["tasks"] | {task: self.facts(task) | facts}
        self.note(tasks=tasks, comparison=False, finished=False, seconds=self.seconds())

    def seconds(self) -> float:
        """Total seconds spent on this run, including resumed runs."""
        return round(self._before + time.monotonic() - self._started, 1)

    def facts(self, task: str) -> dict:
        """Facts of a task in the record."""
        return self.record["tasks"].get(task, {})

    def n_epochs(self, task: str) -> int:
        """Number of epochs trained so far, from the history."""
        path = self.path / task / "history.csv"
        return len(pd.read_csv(path)) if path.exists() else 0

    def below(self, name: str) -> "RunFolder":
        """A folder in this one."""
        return RunFolder(self.path / name, self.caption)

    def best_path(self, task: str) -> Path:
        """The checkpoint of a task's best epoch."""
        return self.path / f"best_{task}_model.pth"

    def write(self, name: str, content: str | bytes | Iterator[str]) -> None:
        """Write a file whole or not at all; of text that comes in parts only one is in memory."""
        if is_first():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not isinstance(content, bytes):
                parts = [content] if isinstance(content, str) else content
                content = (part.encode("utf-8", "backslashreplace") for part in parts)
            write_file(path, content)

    def write_table(self, name: str, table: pd.DataFrame, digits: str | None = None) -> None:
        """Write a table as `csv_parts`."""
        self.write(name, csv_parts(table, digits))

    def write_json(self, name: str, content: dict) -> None:
        self.write(name, json.dumps(content, indent=2) + "\n")

    def write_data(self, table: pd.DataFrame) -> None:
        """Write the status of each row, the classes, and the split."""
        self.write_data_report(table)
        self.note(classes=list(classes_of(table)))
        used = table[table["split"] != ""].sort_values("image")
        further = ["group"] if "group" in used and (used["group"] != used["lesion_id"]).any() else []
        further += [name for name in used if name.startswith(FOLD_OF)]
        self.write_table("splits.csv", used[["image", "label", "lesion_id", "split", *further]])
        counts = class_table(table)
        self.draw("class_distribution.png", visualize.class_distribution(counts, "Images per class and part"))

    def write_data_report(self, table: pd.DataFrame) -> None:
        self.write_table("data_report.csv", table[["image", "status", "reason"]])

    def draw_all(self, figures: dict[str, Figure | None]) -> None:
        """Write figures by file name without extension; delete the earlier file of a figure that is None."""
        for name, figure in figures.items():
            if figure is not None:
                self.draw(f"{name}.png", figure)
            elif is_first():
                (self.path / f"{name}.png").unlink(missing_ok=True)

    def draw(self, name: str, figure: Figure) -> None:
        self.write(name, visualize.png(figure, self.caption))


def _set_aside(folder: Path) -> Path:
    """Rename a folder after its last modification time and create an empty one in its place; returns the new path.

    Raises
    ------
    ValueError : the program runs inside the folder, so relative paths would point into the renamed one.
    """
    if Path.cwd().is_relative_to(folder):
        raise ValueError(f"{folder} holds an earlier run and is the current folder. Name another --output-dir.")
    changed = datetime.fromtimestamp(max(path.stat().st_mtime for path in (folder, *folder.glob("*"))))
    first = new = folder.with_name(f"{folder.name}-{changed:%Y-%m-%d-%H%M}")
    number = 2
    while new.exists():
        new, number = first.with_name(f"{first.name}-{number}"), number + 1
    new = folder.rename(new)
    folder.mkdir()  # or a link to it would lead nowhere
    return new
