"""The settings of several runs: which of them differ, and which runs differ in nothing but seed and split."""

import hashlib
import json
from collections.abc import Iterator, Sequence

from measure.scores import HEADS
from report.pairing import RunTask, with_head
from report.run import TASKS, Finished

# Neither shown nor part of a setting: places, the device, how a run was started and what it left behind.
PLACES = {"DATA_DIR", "OUTPUT_DIR", "CACHE_DIR", "CACHE_PER_MACHINE", "EXTERNAL_DIR", "DEVICE"}
OF_THE_START = PLACES | {"RESUME", "EVALUATE_ONLY", "KEEP_FREED_MEMORY", "KEEP_STATES", "AFTER_EPOCH"}
# Shown, but not part of a setting: they change no score that is compared, or a remark stands for them.
OF_EVALUATION = {"TASKS", "TTA", "SUBGROUPS", "COVERAGE", "ALL_PARTS"}
SPLIT = "split hash"
VARYING = {"SEED", "SPLIT_SEED", SPLIT}  # in which runs of one setting may differ
OF_A_TASK = ("EPOCHS", "BATCH_SIZE", "LR")  # settings whose names begin with a task's
ABSENT = "–"  # a setting that a run's version of the program did not have, or that of a task it did not train
N_NAMES = 4  # differing settings that a sentence names


def resolved_settings(run: Finished, task: str) -> dict[str, str]:
    """The settings of a task as text: those of config.json, replaced by what the record says came of them.

    The record knows the weights that training started from: PRETRAINED, which may have been "auto", and the path
    START_FROM are left out.
    """
    config = run.files.config
    others = set().union(*(_of_task(other) for other in (*TASKS, *run.tables) if other != task))
    found = {name: value for name, value in config.items() if name not in OF_THE_START | others}
    identity = run.files.record["tasks"][task].get("identity", {})
    for name, value in identity.items():
        known = [key for key in (f"{task}_{name}".upper(), name.upper()) if key in config]
        found[known[0] if known else name.replace("_", " ")] = value
    asked = {"PRETRAINED", "START_FROM"} if "initial_weights" in identity else set()
    return {name: _shown(value) for name, value in found.items() if name not in asked}


def _of_task(task: str) -> set[str]:
    return {f"{task.upper()}_{ending}" for ending in OF_A_TASK}


def _shown(value) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return (value or '""') if isinstance(value, str) else json.dumps(value)


def differing(runs: Sequence[Finished]) -> list[dict]:
    """The settings that are not the same in all runs: ``name``, and ``values``, one per run."""
    of_runs = [{task: resolved_settings(run, task) for task in run.tables} for run in runs]
    names = dict.fromkeys(name for tasks in of_runs for found in tasks.values() for name in found)
    rows = []
    for name in names:
        values = [_cell({task: found[name] for task, found in tasks.items() if name in found}) for tasks in of_runs]
        is_of_a_task = any(name in _of_task(task) for tasks in of_runs for task in tasks)
        relevant = [value for value in values if value != ABSENT] if is_of_a_task else values
        if len(set(relevant)) > 1:
            rows.append({"name": name, "values": values})
    return rows


def _cell(values: dict[str, str]) -> str:
    """One value, if the tasks agree."""
    if len(set(values.values())) <= 1:
        return next(iter(values.values()), ABSENT)
    return ", ".join(f"{task}: {value}" for task, value in values.items())


def repeated(runs: Sequence[Finished]) -> tuple[list[tuple[str, str, list[Finished]]], list[str]]:
    """The runs of each setting, and a sentence for each run with another seed or split that is in none of them.

    Returns
    -------
    groups : head, task and runs, at least two, which differ in seed or split only.
    notes : also of runs that repeat both of another run, of which the first alone is in the group.
    """
    found, notes = [], []
    for head in HEADS:
        groups: dict[str, dict[tuple, RunTask]] = {}
        for one in with_head(runs, head):
            members = groups.setdefault(_key(*one), {})
            first = members.setdefault(_varying(*one), one)
            if first is not one:
                notes.append(f"{one[0].name}, {one[1]}: not averaged, as {first[0].name} has its seed and split.")
        whole = [list(members.values()) for members in groups.values()]
        found += [(head, group[0][1], [run for run, _ in group]) for group in whole if len(group) > 1]
        notes += _apart([group[0] for group in whole if len(group) == 1], with_head(runs, head))
    return found, list(dict.fromkeys(notes))


def _varying(run: Finished, task: str) -> tuple:
    found = resolved_settings(run, task)
    return run.seed, found.get(SPLIT, found.get("SPLIT_SEED"))


def _setting(run: Finished, task: str) -> dict[str, str]:
    found = resolved_settings(run, task)
    kept = {name: value for name, value in found.items() if name not in VARYING | OF_EVALUATION}
    images = "\n".join(sorted(run.files.splits["image"])).encode("utf-8", "backslashreplace")
    return kept | {"epochs done, views": run.remarks[task], "images": hashlib.sha256(images).hexdigest()}


def _key(run: Finished, task: str) -> str:
    return json.dumps([task, _setting(run, task)], sort_keys=True)


def _apart(alone: Sequence[RunTask], all_of_head: Sequence[RunTask]) -> Iterator[str]:
    """For each run without a group, what differs from the most similar run of another seed or split."""
    said = set()
    for run, task in alone:
        own = _varying(run, task)
        others = [other for other, name in all_of_head if name == task and _varying(other, task) != own]
        if not others:
            continue
        differences = {other.name: _differing_names(_setting(run, task), _setting(other, task)) for other in others}
        nearest = min(differences, key=lambda name: len(differences[name]))
        if frozenset([run.name, nearest]) not in said:
            said.add(frozenset([run.name, nearest]))
            names = differences[nearest]
            more = f" and {len(names) - N_NAMES} more" if len(names) > N_NAMES else ""
            yield (
                f"{run.name}, {task}: not averaged with {nearest}, because these settings differ: "
                f"{', '.join(names[:N_NAMES])}{more}."
            )


def _differing_names(first: dict[str, str], second: dict[str, str]) -> list[str]:
    return [name for name in first | second if first.get(name) != second.get(name)]
