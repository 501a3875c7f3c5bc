"""How a run takes over a folder that holds one: to resume it, or to evaluate its models again."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from checkpoints.states import ADD_EPOCHS, advice_on_states, is_longer, refuse_other
from checkpoints.trained import Trained
from data import Batches
from dataset.splits import heads_in_all_parts
from machine import from_first, say
from models import MODELS
from report.folder import RunFolder
from report.results import evaluated_as
from train import Recipe


class Job(NamedTuple):
    """One model of a run, to be trained or only evaluated."""

    name: str
    batches: dict[str, Batches]  # by part of the split
    recipe: Recipe | None
    identity: dict  # values that must not change when resuming
    trained: Trained | None  # None to train it


STATES = ("KEEP_STATES", "SCHEDULE", "WARM_UP")  # settings that decide which states stay
OWN = ("epochs", "batch_size", "lr")  # settings that each task has for itself


def begin(folder: RunFolder, config: dict, environment: dict, jobs: Sequence[Job], identities: dict[str, dict]) -> bool:
    """Make the folder this run's: evaluate or resume what is there, or else start anew. False if nothing is left to do.

    Parameters
    ----------
    config, environment : settings by name, and `machine.environment_of` of this command.
    identities : of all tasks, as `Checkpoints`.

    Raises
    ------
    ValueError : as `resume`.
    """
    config, names = config | ({"data": folder.caption} if folder.caption else {}), [job.name for job in jobs]
    if config["EVALUATE_ONLY"] and not config["CHECKPOINTS"]:
        evaluate_again(folder, [job.trained for job in jobs], config, environment)
        return True
    if config["RESUME"] and from_first(folder.holds_a_training):
        config, environment = resume(folder, names, identities, config, environment)
    elif earlier := folder.start_anew(environment["started"]):
        say(f"\nThe run in {folder.whole.path} is moved to {earlier}.")
    how = evaluated_as(*(config[name] for name in ("EXTERNAL_DIR", "TTA", "COVERAGE", "SUBGROUPS", "ALL_PARTS")))
    if folder.is_finished(names, how, config["AUDIT"]):
        from_first(_refuse_missing, [folder.best_path(name) for name in names])
        return False
    if not config["EVALUATE_ONLY"] and (advice := advice_on_states(*map(config.get, STATES))):
        say(f"\n{advice}")
    folder.write_json("config.json", config)
    folder.write_json("environment.json", environment)
    for job in jobs:
        if job.trained:
            folder.note_task(job.name, trained=True, identity=job.identity)
    return True


def _refuse_missing(paths: Sequence[Path]) -> None:
    """Raises ValueError if one of these models is gone."""
    for path in paths:
        if not path.exists():
            advice = "Restore it, or train all again without --resume."
            raise ValueError(f"The run is finished, but {path} is missing. {advice}")


def resume(
    folder: RunFolder, tasks: list[str], identities: dict[str, dict], config: dict, environment: dict
) -> tuple[dict, dict]:
    """Take over the record, and note which tasks have more epochs to go; returns settings and environment of the whole.

    Parameters
    ----------
    tasks : tasks trained now.
    identities : of all tasks, as `Checkpoints`; `OWN` values of tasks that are not trained now are ignored.
    config, environment : settings, and `machine.environment_of` of this command.

    Raises
    ------
    ValueError : the folder holds another run; the state from which a task would resume is missing.
    """
    folder.take_record()
    earlier, before = (from_first(folder.read_json, name) for name in ("config.json", "environment.json"))
    others = [task for task in folder.record["tasks"] if task not in config["TASKS"]]
    for task, mine in identities.items():
        known = folder.facts(task).get("identity", mine)
        if task in others:  # its settings are irrelevant to this command
            mine = mine | {name: known[name] for name in OWN if name in known}
        refuse_other(known, mine, folder.best_path(task))
    _note_longer(folder, {task: identities[task] for task in tasks})
    if before:
        environment = environment | {"before": [*before.pop("before", []), before]}
    return _with_others(earlier, config, others), environment


def _note_longer(folder: RunFolder, identities: dict[str, dict]) -> None:
    """Note that tasks of more epochs than were trained are not finished."""
    facts = {task: folder.facts(task) for task in identities}
    longer = [task for task in facts if is_longer(facts[task].get("identity", {}), identities[task])]
    for task in longer:
        state = folder.path / task / "last.pth"
        if facts[task].get("trained") and not from_first(state.exists):
            raise ValueError(
                f"Cannot add epochs to {task}: {state} is missing. Without --keep-states it is deleted when a model is "
                f"finished. {ADD_EPOCHS} Nothing in {folder.path} was changed."
            )
    for task in longer:
        folder.note_task(task, trained=False, measured=None)


def _with_others(before: dict, now: dict, others: list[str]) -> dict:
    """Settings, with those of tasks that are not trained now unchanged."""
    prefixes = tuple(f"{task.upper()}_" for task in others)
    kept = {name: value for name, value in before.items() if name.startswith(prefixes)}
    return now | kept | {"TASKS": [*others, *now["TASKS"]]}


def evaluate_again(folder: RunFolder, models: list[Trained], config: dict, environment: dict) -> None:
    """Take over a folder whose models are evaluated again; its configuration stays."""
    folder.take_record()
    for trained in models:
        facts = folder.facts(trained.name)
        # The folder's, if it has one: the best epoch may be of fewer epochs, from which a longer training went on.
        identity = facts.get("identity") or trained.checkpoint.get("identity", {})
        folder.note_task(trained.name, trained=facts.get("trained", True), measured=None, identity=identity)
    folder.write_json("evaluation.json", {"config": config, "environment": environment})
    if not from_first((folder.path / "config.json").exists):
        folder.write_json("config.json", models[0].checkpoint["config"])


def choose_tasks(tasks: Sequence[str], table: pd.DataFrame, data_dir: str) -> list[str]:
    """The tasks whose targets are there in each part of the split; the others are named.

    Raises
    ------
    ValueError : there are none.
    """
    known = heads_in_all_parts(table)
    possible = [task for task in tasks if known[list(MODELS[task].outputs)].all()]
    missing = " and ".join({"label": "diagnoses", "mask": "masks"}.get(head, head) for head in known.index[~known])
    parts = "Each part needs some (diagnoses: of two classes or more)"
    advice = f"{parts}; masks lie in masks/ as <image>_segmentation.png."
    return _continue_with(possible, tasks, f"Too few {missing} in {data_dir} for", advice)


def load_trained(folder: RunFolder, tasks: list[str], names: Sequence[str], tta: bool) -> list[Trained]:
    """The models that are only evaluated: the best one of each task of the folder, or the files of these names as one.

    Raises
    ------
    FileNotFoundError, ValueError : as `Trained.load`; the folder has none of the tasks, or has some beside named files.
    """
    if names and from_first(folder.holds_a_training):
        raise ValueError(f"{folder.path} holds a run of its own. Name another --output-dir for this evaluation.")
    there = from_first(lambda: [task for task in tasks if folder.best_path(task).exists()])
    tasks = _continue_with(there, tasks, f"No checkpoint in {folder.path} for", "Train first, without --evaluate-only.")
    files = [names] if names else [[folder.best_path(task)] for task in tasks]
    trained = [from_first(Trained.load, *paths, tta=tta) for paths in files]
    folder.caption = folder.caption or ", ".join(sorted({model.note for model in trained if model.note}))
    return trained


def _continue_with(some: list[str], tasks: Sequence[str], problem: str, advice: str) -> list[str]:
    """Print which of the tasks are left out, and return the others; raises ValueError if none is left."""
    if missing := [task for task in tasks if task not in some]:
        message = f"{problem} {', '.join(missing)}."
        if not some:
            raise ValueError(f"{message} {advice}")
        say(f"{message} Continuing without.")
    return some
