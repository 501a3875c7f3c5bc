"""The reader of a run's folder."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dataset.csvfile import TEXT, read_back
from dataset.groups import lesions_known
from dataset.roles import SPLITS
from measure.difference import refuse_repeated
from measure.scores import CALLS, FOLD, HEADS, MeanOf, classes_in, compared

TASKS = ("classification", "segmentation", "multitask", "average")  # in the order of the report
AGAIN = "Evaluate again: main.py --evaluate-only."
N_NAMES = 5  # differing images that are listed


class Run:
    """The files of a run. Its record, not the existence of files, tells which steps were done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = self._json("record.json") or {"tasks": {}}
        self.config, self.environment = self._json("config.json") or {}, self._json("environment.json") or {}
        self.environments = [*self.environment.pop("before", []), self.environment]  # of the commands, in turn
        self.evaluation = self._json("evaluation.json") or {}
        tasks = self.record["tasks"]
        of_main = [task for task in TASKS if task in tasks]
        done = [task for task in dict.fromkeys([*of_main, *tasks]) if tasks[task].get("measured") is not None]
        self.metrics = {task: self._json(f"{task}/metrics.json") for task in done}
        self.comparison = self._json("comparison.json") if self.record.get("comparison") else None
        self.external = {task: self._json(f"external/{task}/metrics.json") for task in done if self.other_set(task)}
        self.splits, self.report = self.table("splits.csv"), self.table("data_report.csv")
        self.unaudited: str = self.record.get("audit", {}).get("problem", "")  # why there is no audit for leakage
        self.leakage = None if self.unaudited else self.table("leakage.csv")
        if self.leakage is not None:  # an empty column has no type
            self.leakage = self.leakage.astype({"crosses": bool, "crosses_by_image": bool})
        self.note = self.config.get("data", "")
        self.classes = tuple(self.record.get("classes", ()))

    def _json(self, name: str) -> dict | None:
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except ValueError:
            raise ValueError(f"{name} is damaged. Restore it, or run main.py again.") from None

    def table(self, name: str) -> pd.DataFrame | None:
        path = self.folder / name
        return read_back(path) if path.exists() else None

    def by_class(self, nothing: str = "") -> pd.DataFrame:
        """Number of images by class and part; one row named `nothing` if there are no classes."""
        labels, classes = self.splits["label"].replace("", nothing), self.classes or (nothing,)
        counts = pd.crosstab(labels, self.splits["split"])
        return counts.reindex(index=pd.Index(classes), columns=pd.Index(self.parts), fill_value=0)

    def other_set(self, task: str) -> dict | None:
        """The other data set on which a task was evaluated: ``folder`` and ``left_out``; None if there was none."""
        return self.record["tasks"][task].get("external") or None

    def epochs(self, task: str) -> str:
        """Number of epochs of a task; "12 of 30" if it was stopped."""
        stopped, planned = self.stopped_after(task), self._planned(task)
        return str(planned) if stopped is None else f"{stopped} of {planned}"

    def stopped_after(self, task: str) -> int | None:
        """Number of epochs after which training was stopped; None if it was completed."""
        history, planned = self.table(f"{task}/history.csv"), self._planned(task)
        is_stopped = history is not None and isinstance(planned, int) and len(history) < planned
        return len(history) if is_stopped else None

    def _planned(self, task: str) -> int | str:
        return self.record["tasks"][task].get("identity", {}).get("epochs", "?")

    def views(self, task: str) -> int:
        """Number of views averaged per image (1 without --tta)."""
        return self.metrics[task].get("views", 1)

    @property
    def unit(self) -> str:
        """What is split and resampled as a whole, in the words of `splits.unit_of`."""
        return " or ".join(["lesion"] * lesions_known(self.splits) + ["patient"] * ("group" in self.splits)) or "image"

    @property
    def units(self) -> str:
        """Several of them."""
        return "groups (same lesion or patient)" if " or " in self.unit else f"{self.unit}s"

    @property
    def parts(self) -> list[str]:
        """The parts of the split; "test" alone if all folds of a cross-validation are pooled."""
        return ["test"] if set(self.splits["split"]) == {"test"} else list(SPLITS)

    @property
    def seed(self) -> int | None:
        """Seed shared by all models; None if they differ."""
        seeds = {self.record["tasks"][task].get("identity", {}).get("seed") for task in self.metrics}
        return seeds.pop() if len(seeds) == 1 else None


class Finished(NamedTuple):
    """A finished run.

    Attributes
    ----------
    name : its folder, as it was named.
    test : the test images' label and lesion_id, and group where patients are known, by image.
    tables : `read_head`'s, by task and head.
    remarks : what a reader must know of a task beside its name, by task; "" for nothing.
    """

    name: str
    files: Run
    test: pd.DataFrame
    tables: dict[str, dict[str, pd.DataFrame]]
    remarks: dict[str, str]

    @property
    def seed(self) -> int | None:
        return self.files.seed

    def is_copy_of(self, other: "Finished") -> bool:
        """Whether both folders are one or hold the same run (same start time, settings and seed)."""
        if self.files.folder.resolve() == other.files.folder.resolve():
            return True
        mine, theirs = (
            [run.files.record.get("started"), {task: run.files.record["tasks"][task] for task in tasks}]
            for run, tasks in ((self, self.tables), (other, other.tables))
        )
        return bool(mine[0]) and mine == theirs


@contextmanager
def refusing_damage(folder: Path) -> Iterator[None]:
    """Raises ValueError that names the folder for whatever a missing or damaged file of it may raise."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno is None:  # our own
            raise
        is_own = type(error) is ValueError
        if is_own and str(error).startswith(f"{folder}: "):
            raise
        raise ValueError(
            f"{folder}: {error}" if is_own else f"{folder}: a file is missing or damaged ({error})."
        ) from None


def read_run(folder: Path) -> Finished:
    """Read one run.

    Raises
    ------
    ValueError : the folder holds none that is finished, or its files lack something or contradict each other.
    """
    run = Run(folder)
    if not (run.record.get("finished") and run.metrics):
        raise ValueError("holds no finished run. Let main.py or main.py --resume finish first.")
    if run.splits is None:
        raise ValueError("has no splits.csv, so its test images are not known.")
    test = run.splits[run.splits["split"] == "test"].set_index("image")
    test = test[[name for name in ("label", "lesion_id", "group") if name in test]]
    if test.index.has_duplicates:
        raise ValueError(f"splits.csv has {test.index[test.index.duplicated()][0]!r} twice.")
    tables = {}
    for task, metrics in run.metrics.items():
        heads = [head for head in HEADS if head in (metrics or {})]
        if not heads:
            raise ValueError(f"has no scores in {task}/metrics.json. {AGAIN}")
        for path in (path for head in heads for path in _expected(head, metrics[head])):
            if _lacks(metrics, path):
                raise ValueError(f"{task}/metrics.json lacks {'.'.join(path)}. {AGAIN}")
        tables[task] = {head: read_head(folder / task, head) for head in heads}
        if "label" in heads and (lost := set(metrics["label"]["per_class"]) - set(tables[task]["label"])):
            raise ValueError(f"predictions.csv lacks the column {', '.join(sorted(lost))}.")
        for table in tables[task].values():
            _refuse_strangers(task, table, test)
    return Finished(str(folder), run, test, tables, {task: _remark(run, task) for task in tables})


def read_head(folder: Path, head: str) -> pd.DataFrame:
    """Per-image results of a task on the test set: diagnoses, or mask scores at both sizes.

    One row per image; of pooled folds with repeats one per image and fold.

    Raises
    ------
    ValueError : a name is repeated, a value is missing or not a class, or the two tables of masks differ in images.
    """
    if head == "label":
        path = folder / "predictions.csv"
        classes = classes_in(read_back(path))
        table = _read(path, [*CALLS, *classes])
        for column in CALLS:
            if strange := sorted(set(table[column]) - set(classes)):
                raise ValueError(f"predictions.csv has the class {strange[0]!r}; expected {', '.join(classes)}.")
        return table
    means = [score.of.column for score in compared(head).values() if isinstance(score.of, MeanOf)]
    if head != "mask":
        return _read(folder / f"per_image_{head}.csv", means)
    columns = list(dict.fromkeys(["iou", "dice", *(column.removesuffix("_native") for column in means)]))
    network = _read(folder / "per_image.csv", ["iou", "dice"])
    native = _read(folder / "per_image_native.csv", columns)
    on = ["image", *([FOLD] if FOLD in network and FOLD in native else [])]
    if set(network[on].itertuples(index=False)) != set(native[on].itertuples(index=False)):
        raise ValueError("per_image.csv and per_image_native.csv have different images.")
    return network.merge(native[[*on, *columns]], on=on, suffixes=("", "_native"))


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table of images that has these columns, each filled; those that are no text with finite numbers."""
    table = read_back(path)
    for column in ["image", *columns]:
        if column not in table:
            raise ValueError(f"{path.name} lacks the column {column}.")
        if column not in TEXT and not np.isfinite(pd.to_numeric(table[column], errors="coerce")).all():
            raise ValueError(f"{path.name} lacks a number in the column {column}.")
    refuse_repeated(table["image"], table.get(FOLD))
    return table


def _remark(run: Run, task: str) -> str:
    """Remark that folds are pooled, that training was stopped early, or that several views were averaged."""
    folds, repeats = run.record.get("folds"), run.record.get("repeats", 1)
    remarks = [f"{folds} folds" + (f", {repeats} times" if repeats > 1 else "")] if folds else []
    remarks += [] if run.stopped_after(task) is None else [f"stopped after {run.epochs(task)} epochs"]
    return ", ".join([*remarks, f"over {run.views(task)} views"] if run.views(task) > 1 else remarks)


def _expected(head: str, numbers: dict) -> list[tuple[str, ...]]:
    """Where each score of a head stands in metrics.json, but for those of a class that the data do not have."""
    scores = compared(head).values()
    return [
        (head, *score.path) for score in scores if not score.of_class or score.of_class in numbers.get("per_class", ())
    ]


def _lacks(part: dict, path: tuple[str, ...]) -> bool:
    for name in path:
        if name not in (part or {}):
            return True
        part = part[name]
    return False


def _refuse_strangers(task: str, table: pd.DataFrame, test: pd.DataFrame) -> None:
    """Refuse a table of images that are no test images, or have another label than in splits.csv."""
    if strange := set(table["image"]) - set(test.index):
        raise ValueError(f"{task} was evaluated on images outside the test set of splits.csv: {some(strange)}.")
    if "true" in table:
        other = table["true"].to_numpy() != test["label"].loc[table["image"]].to_numpy()
        if other.any():
            raise ValueError(f"{task}/predictions.csv and splits.csv disagree on {some(table.loc[other, 'image'])}.")


def some(names: Iterable[str]) -> str:
    """The first few names."""
    names = sorted(names)
    return ", ".join(names[:N_NAMES]) + (", …" if len(names) > N_NAMES else "")
