"""A function of the user's own, called after each epoch: for TensorBoard, MLflow, Weights & Biases or a log."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from report.live import Live

EXPECTED = "Expected MODULE:FUNCTION, such as tracking:log for the function log in tracking.py."
PLACE = "The module must lie in the folder where python is started, or on PYTHONPATH."


class Hook:
    """The function that AFTER_EPOCH names.

    It is called as ``function(row, task, folder)``: the epoch's row of history.csv (dict), the task's name, and the
    task's folder (Path). An error in it is reported, and the training continues.

    Parameters
    ----------
    name : "module:function"; "" for none.

    Raises
    ------
    ValueError : the name has another form, the module cannot be imported, or the function is missing or not callable.
    """

    def __init__(self, name: str) -> None:
        self.name, self.function = name, _find(name) if name else None

    def after(self, live: Live) -> Callable[[list[dict]], None]:
        """What to do with the history after each epoch of a task: `live`, then the function."""

        def both(history: list[dict]) -> None:
            live(history)
            self._call(dict(history[-1]), live.task, live.folder.path / live.task)

        return both if self.function else live

    def _call(self, row: dict, task: str, folder: Path) -> None:
        epoch = row["epoch"]
        try:
            self.function(row, task, folder)
        except Exception as error:  # of code that is not ours
            tqdm.write(f"AFTER_EPOCH {self.name} failed after epoch {epoch} of {task}: {_in_a_line(error)}")


def _find(name: str) -> Callable:
    module_name, _, function_name = name.partition(":")
    if not (module_name and function_name):
        raise ValueError(f"AFTER_EPOCH is {name}. {EXPECTED}")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that none of its files stands in for one of this project
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # of code that is not ours
        raise ValueError(f"AFTER_EPOCH {name} cannot be imported: {_in_a_line(error)}. {PLACE}") from error
    function, place = getattr(module, function_name, None), getattr(module, "__file__", module_name)
    if not callable(function):
        found = "is not a function" if hasattr(module, function_name) else "does not exist"
        raise ValueError(f"AFTER_EPOCH is {name}, and {function_name} {found} in {place}. {EXPECTED} {PLACE}")
    return function


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
