"""Several finished runs -> those of their models that can be compared, paired by image."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd

from dataset.csvfile import printable
from dataset.groups import groups_of
from measure.difference import compare
from measure.scores import HEADS
from report.run import Finished, read_run, refusing_damage, some

RunTask = tuple[Finished, str]


def read_runs(folders: Sequence[Path]) -> list[Finished]:
    """Read the runs, the first of which is what the others are compared with.

    Raises
    ------
    ValueError : all reasons not to compare them, one per line: fewer than two, one that is not finished or is
        named twice, no test image in common with the first, other labels or lesions of those in common.
    """
    runs, problems = [], []
    for folder in folders:
        try:
            with refusing_damage(folder):
                runs.append(read_run(folder))
        except ValueError as error:
            problems.append(str(error))
    if len(folders) < 2:
        problems.append("One run alone cannot be compared: name two or more.")
    for first, second in combinations(runs, 2):
        if second.is_copy_of(first):
            problems.append(f"{second.name} is the same run as {first.name}: name each once.")
    for run in runs[1:]:
        problems += contradictions(runs[0], run)
    if problems:
        raise ValueError("\n".join(map(printable, dict.fromkeys(problems))))
    return runs


def contradictions(first: Finished, second: Finished) -> list[str]:
    """Why two runs cannot be paired; [] if they can."""
    images = first.test.index.intersection(second.test.index)
    if images.empty:
        sides = "; ".join(f"{run.name} tested {len(run.test):,} ({some(run.test.index)})" for run in (first, second))
        advice = "Compare runs of one data set whose test sets overlap."
        return [f"{second.name}: none of its test images is one of {first.name}: {sides}. {advice}"]
    problems = []
    for column, words in (("label", "have another true label"), ("lesion_id", "belong to another lesion")):
        other = images[(second.test.loc[images, column] != first.test.loc[images, column]).to_numpy()]
        if len(other):
            problems.append(f"{second.name}: {len(other):,} test images {words} than in {first.name} ({some(other)}).")
    for head, *pair in pairs([first, second]):
        tested = [set(run.tables[task][head]["image"]) for run, task in pair]
        if not tested[0] & tested[1]:
            where = f"{HEADS[head].lower()} of {' and '.join(dict.fromkeys(task for _, task in pair))}"
            problems.append(f"{second.name}: no image in common with {first.name} ({where}). Leave one out.")
    return problems


def with_head(runs: Sequence[Finished], head: str) -> list[RunTask]:
    """Each run and task of it that has this head."""
    return [(run, task) for run in runs for task in run.tables if head in run.tables[task]]


def pairs(runs: Sequence[Finished]) -> Iterator[tuple[str, RunTask, RunTask]]:
    """By head, the first run's task of the same name, or else of the same kind, and each later run's."""
    for head in HEADS:
        of_first = [task for _, task in with_head(runs[:1], head)]
        for run, task in with_head(runs[1:], head) if of_first else ():
            yield head, (runs[0], task if task in of_first else of_first[0]), (run, task)


def difference(head: str, first: RunTask, second: RunTask) -> dict:
    """Second less first on the images that both tested; the names of both, and how many images only one tested."""
    tables = [run.tables[task][head] for run, task in (first, second)]
    names = {"head": head}
    for prefix, (run, task) in (("", second), ("less_", first)):
        names |= {f"{prefix}run": run.name, f"{prefix}task": task, f"{prefix}remark": run.remarks[task]}
    tests = [run.test for run, _ in (first, second)]
    lesions = groups_of(next((test for test in tests if "group" in test), tests[0]).loc[_shared(*tests)])
    of_both = compare(head, *tables, lesions)
    n_left = [table["image"].nunique() - of_both["n_images"] for table in tables]
    return names | {"n_only_less": n_left[0], "n_only": n_left[1]} | of_both


def _shared(first: pd.DataFrame, second: pd.DataFrame) -> pd.Index:
    return first.index.intersection(second.index)


def not_compared(differences: Sequence[dict]) -> list[str]:
    """A sentence for each pair whose models were not evaluated on the same images."""
    words: dict[tuple, list[str]] = {}
    for row in differences:
        if row["n_only"] or row["n_only_less"]:
            counts = row["run"], row["less_run"], row["n_images"], row["n_only"], row["n_only_less"]
            words.setdefault(counts, []).append(HEADS[row["head"]].lower())
    return [
        f"{run}, {' and '.join(dict.fromkeys(heads))}: compared on the {both:,} images that {first} tested too; not "
        f"compared: {mine:,} that only {run} tested, {theirs:,} that only {first} tested."
        for (run, first, both, mine, theirs), heads in words.items()
    ]
