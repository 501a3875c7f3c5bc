"""How a run takes over a folder that holds one: to go on with it, or to measure its models again."""

import averaging
from checkpoints import is_longer, refuse_other
from machine import from_first
from report.folder import RunFolder

OWN = ("epochs", "batch_size", "lr")  # what a task has a setting of its own for


def go_on(
    folder: RunFolder, tasks: list[str], identities: dict[str, dict], about: dict, environment: dict
) -> tuple[dict, dict]:
    """Take over the record, and note which tasks have more epochs to go; returns settings and environment of the whole.

    Parameters
    ----------
    tasks : that are trained now.
    identities : of all tasks, what they must share with the run that is gone on with; of those that are not trained now
        without their `OWN`.
    about, environment : settings, and what `machine.describe` says of this command.

    Raises
    ------
    ValueError : the run was another; or the state that one of the tasks would go on from is gone.
    """
    folder.go_on()
    config, before = (from_first(folder.read_json, name) for name in ("config.json", "environment.json"))
    others = [task for task in folder.record["tasks"] if task not in about["TASKS"]]
    for task, mine in identities.items():
        known = folder.facts(task).get("identity", mine)
        if task in others:  # how it was trained is nothing to this command
            mine = mine | {name: known[name] for name in OWN if name in known}
        refuse_other(known, mine, folder.best_path(task))
    _note_longer(folder, {task: identities[task] for task in tasks})
    if before:
        environment = environment | {"before": [*before.pop("before", []), before]}
    return _with_others(config, about, others), environment


def _note_longer(folder: RunFolder, identities: dict[str, dict]) -> None:
    """Note that tasks of more epochs than were trained are not finished."""
    facts = {task: folder.facts(task) for task in identities}
    longer = [task for task in facts if is_longer(facts[task].get("identity", {}), identities[task])]
    for task in longer:
        state = folder.path / task / "last.pth"
        if facts[task].get("trained") and not from_first(state.exists):
            raise ValueError(f"{task} cannot go on to more epochs: {state} is gone. Start anew without --resume.")
    for task in longer:
        folder.note_task(task, trained=False, measured=None)


def _with_others(before: dict, now: dict, others: list[str]) -> dict:
    """Settings where those of the tasks that are not trained now stay as they were."""
    prefixes = tuple(f"{task.upper()}_" for task in others)
    kept = {name: value for name, value in before.items() if name.startswith(prefixes)}
    return now | kept | {"TASKS": [*others, *now["TASKS"]]}


def measure_again(folder: RunFolder, checkpoints: dict[str, dict], about: dict, environment: dict) -> None:
    """Take over a folder whose checkpoints, by task, are measured again; their configuration stays."""
    folder.go_on()
    folder.caption = folder.caption or averaging.note_of(checkpoints)
    for task, checkpoint in checkpoints.items():
        trained = folder.facts(task).get("trained", True)  # an interrupted training may go on afterwards
        # The folder's, if it has one: the best epoch may be of fewer epochs, from which a longer training went on.
        own = folder.facts(task).get("identity") or checkpoint.get("identity", {})
        folder.note_task(task, trained=trained, measured=None, identity=own)
    folder.write_json("evaluation.json", {"config": about, "environment": environment})
    if not from_first((folder.path / "config.json").exists):
        folder.write_json("config.json", next(iter(checkpoints.values()))["config"])
