"""Files of a training: the best model and the states to resume from; and which runs may resume."""

import io
import itertools
import math
import os
import zipfile
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from data import MEAN, STD
from dataset.classes import classes_of
from machine import versions, write_file

ASIDE = ".damaged"  # ends the name of a state that is put aside
ADD_EPOCHS = (
    "To add epochs with --resume, train with --keep-states. To train a model further without its state, pass its "
    "best_..._model.pth to --start-from, and another --output-dir."
)


class Checkpoints:
    """Files of one training: the best model, and the states from which `fit` resumes after an interruption.

    Parameters
    ----------
    best_path : checkpoint of the best epoch, for `best_weights`; with main.py's description for `models.load_model`.
    folder : receives ``history.csv``, ``last.pth`` and ``previous.pth`` after each epoch.
    description : plain values stored in the best checkpoint beside the weights.
    identity : values that must not change when resuming: settings, number of processes, hash of the data.
    conditions : values that must not change for bit-identical weights: hardware, threads, versions.
    resume : resume from the last state, if there is one.
    """

    def __init__(
        self,
        best_path: str | Path,
        folder: str | Path,
        *,
        description: dict | None = None,
        identity: dict | None = None,
        conditions: dict | None = None,
        resume: bool = False,
    ) -> None:
        self.best_path, self.folder, self.description = Path(best_path), Path(folder), description or {}
        self.identity, self.conditions, self.resume = identity or {}, conditions or {}, resume
        for place in (self.folder, self.best_path.parent):
            place.mkdir(parents=True, exist_ok=True)
        self.states = (self.folder / "last.pth", self.folder / "previous.pth")

    def read(self) -> dict | None:
        """The last intact state; None if there is none or `resume` is off.

        A file with wrong checksums is put aside, and the state before it is read.

        Raises
        ------
        ValueError : a state cannot be read for another reason; epochs were trained but no state is intact; or the state
            has another identity (the message names the differences).
        """
        if not self.resume:
            return None
        for path in filter(Path.exists, self.states):
            state = _read_whole(path)
            if state is None:
                aside = _put_aside(path)  # or the next epoch would keep it in the place of the sound one
                tqdm.write(f"{path} is damaged and is now {aside.name}; falling back to the state before it.")
                continue
            refuse_other(state["identity"], self.identity, path)
            tqdm.write(f"Resuming after epoch {len(state['history'])}.")
            if changes := changes_between(state["conditions"], self.conditions):
                effect = "the weights may differ slightly from an uninterrupted run"
                tqdm.write(f"Resumed under different conditions ({changes}): {effect}.")
            return state
        self._refuse_lost_epochs()
        return None

    def _refuse_lost_epochs(self) -> None:
        """Raises ValueError if epochs were trained here: a new training would replace their model."""
        history = self.folder / "history.csv"
        n_epochs = max(0, len(history.read_bytes().splitlines()) - 1) if history.exists() else 0
        if n_epochs or any(self.folder.glob(f"*{ASIDE}*")):
            trained = f"{n_epochs} epochs were" if n_epochs else "A model was"
            raise ValueError(
                f"{trained} trained in {self.folder}, and there is no whole {' or '.join(p.name for p in self.states)} "
                "to resume from. Put one back, name another --output-dir, or start anew without --resume, which keeps "
                "this run beside the new one."
            )

    def best_weights(self) -> dict[str, Tensor]:
        """Weights of the epoch with the lowest validation loss, for ``model.load_state_dict``."""
        return torch.load(self.best_path, map_location="cpu", weights_only=True)["weights"]

    def write(self, state: dict, weights: dict[str, Tensor] | None) -> None:
        """Keep the state of this epoch and the one before, and the weights if this is the best epoch so far."""
        if weights is not None:
            row = state["history"][-1]
            scores = {name: value for name, value in row.items() if name.startswith("val_")}
            on_cpu = {name: value.cpu() for name, value in weights.items()}
            save(self.best_path, {**self.description, "weights": on_cpu, "epoch": row["epoch"], "scores": scores})
        last, previous = self.states
        if last.exists():
            os.replace(last, previous)
        save(last, state | {"identity": self.identity, "conditions": self.conditions})
        self.write_history(state["history"])

    def write_history(self, history: list[dict]) -> None:
        table = pd.DataFrame(history).to_csv(index=False, lineterminator="\n")
        write_file(self.folder / "history.csv", table.encode())

    def drop_states(self, keep: bool, schedule: str, warm_up: float) -> None:
        """Delete the states of a finished training; `keep` the last one if epochs can be added from it."""
        for path in self.states[keep and not depends_on_epochs(schedule, warm_up) :]:
            path.unlink(missing_ok=True)


def _read_whole(path: Path) -> dict | None:
    """A state; None if the file is damaged. Raises ValueError for any other problem with file or disk."""
    try:
        content = io.BytesIO(path.read_bytes())
        if not _is_whole(content):
            return None
        content.seek(0)
        state = torch.load(content, map_location="cpu", weights_only=True)
        if missing := {"model", "optimizer", "history", "best", "identity", "conditions"} - set(state):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
    except Exception as error:  # of the disk, of memory, or of a file that another version wrote
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ValueError(
            f"Cannot resume from {path}: {reason}. The file is not damaged and stays as it is. Try again, with more "
            "memory or the version of torch that wrote it; move the file away to resume from the state before it, or "
            "start anew without --resume."
        ) from error
    return state


def _is_whole(content: io.BytesIO) -> bool:
    """Whether the checksums of a ZIP archive, as `torch.save` writes it, are right; torch.load compares none."""
    try:
        with zipfile.ZipFile(content) as archive:
            return archive.testzip() is None
    except (OSError, MemoryError):
        raise
    except Exception:  # zipfile raises many kinds on a damaged file
        return False


def _put_aside(path: Path) -> Path:
    """Rename a file to an unused path and return it."""
    names = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    new = next(place for name in names if not (place := path.with_name(f"{path.name}{ASIDE}{name}")).exists())
    return path.rename(new)


def save(path: Path, content: dict) -> None:
    """Write a checkpoint of plain types and tensors."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file(path, buffer.getbuffer())


def refuse_other(before: dict, now: dict, place: Path) -> None:
    """Raises ValueError with the differences if a run cannot resume from the run of `place`.

    More epochs are allowed, unless the learning rates of earlier epochs depend on their number.
    """
    reason = ""
    if is_longer(before, now):
        reason = depends_on_epochs(now.get("schedule", "constant"), now.get("warm_up", 0))
        before = before | ({} if reason else {"epochs": now["epochs"]})
    if changes := changes_between(before, now):
        changes += f" ({reason})" if reason else ""
        advice = "Restore the settings, name another --output-dir, or start anew without --resume."
        raise ValueError(f"Cannot resume from {place}: {changes}. {advice}")


def is_longer(before: dict, now: dict) -> bool:
    """Whether a run has more epochs than the run that it resumes."""
    return now.get("epochs", 0) > before.get("epochs", math.inf)


def changes_between(before: dict, now: dict) -> str:
    """The values that differ, as a message; "" if none do."""
    changes = []
    for key in now | before:
        if now.get(key) != before.get(key):
            was, now_is = before.get(key, "no setting yet"), now.get(key, "no longer a setting")
            changes.append(f"{key.replace('_', ' ')} was {was}, is {now_is}")
    return "; ".join(changes)


def depends_on_epochs(schedule: str, warm_up: float) -> str:
    """Why the number of epochs changes the learning rates of earlier epochs, as a message; "" if it does not.

    Resuming would then not give the weights of a run planned for that many epochs.
    """
    if schedule == "constant" and not warm_up:
        return ""
    shape = "rises over a share" if schedule == "constant" else f"falls along a {schedule}"
    return f"the learning rate {shape} of all epochs, so their number must be chosen at the start"


def advice_on_states(keep: bool, schedule: str, warm_up: float) -> str:
    """How epochs can be added to a run, as a message before it trains; "" if there is nothing to say."""
    if reason := depends_on_epochs(schedule, warm_up):
        return f"KEEP_STATES has no effect, because no epochs can be added: {reason}." if keep else ""
    return "" if keep else f"Training states are deleted when a model is finished. {ADD_EPOCHS}"


def facts_of(
    model: nn.Module,
    train_table: pd.DataFrame,
    val_table: pd.DataFrame,
    seen_before: dict[str, dict[str, list[str]]],
    image_size: int,
    identity: dict,
) -> dict:
    """Plain values that describe a model of `models.py` and its training, for its checkpoint.

    Parameters
    ----------
    train_table, val_table : training images, and images that choose the epoch.
    seen_before : what the initial weights were trained on and chosen on, each as `shown_by` gives it.
    identity : as `Checkpoints`, with ``initial_weights`` and ``split_hash``.
    """
    return {
        "arguments": model.arguments,
        "classes": list(classes_of(train_table)),
        "image_size": image_size,
        "mean": list(MEAN),
        "std": list(STD),
        "initial_weights": identity["initial_weights"],
        "split_hash": identity["split_hash"],
        "trained_on": shown_by(train_table),
        "chosen_on": shown_by(val_table),
        "seen_before": seen_before,
        "identity": identity,
        "versions": versions(),
    }


def shown_by(rows: pd.DataFrame) -> dict[str, list[str]]:
    """The images, lesions and patients of some rows."""
    lesions, patients = set(rows["lesion_id"]), set(rows["patient_id"].dropna())
    return {"images": list(rows["image"]), "lesions": sorted(lesions), "patients": sorted(patients)}
