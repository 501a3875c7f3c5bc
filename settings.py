"""The constants of a script, and the flags that override them -> one checked configuration."""

import argparse
import ast
import inspect
import io
import math
import os
import tokenize
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NamedTuple


class Setting(NamedTuple):
    """A constant at the top of a script."""

    default: object
    help: str  # the comment behind it; "" for none


def declared(script: ModuleType) -> dict[str, Setting]:
    """A script's settings by name: its UPPER_CASE numbers, texts, switches and tuples of texts, in their order."""
    source = inspect.getsource(script)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for line in ast.parse(source).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
            value = getattr(script, name)
            if name.isupper() and isinstance(value, bool | int | float | str | tuple):
                found[name] = Setting(value, comments.get(line.lineno, ""))
    return found


def flag_of(name: str) -> str:
    """IMAGE_SIZE to --image-size."""
    return f"--{name.lower().replace('_', '-')}"


def parse(
    argv: list[str] | None, script: ModuleType, choices: dict[str, tuple], recipes: dict[str, dict], demo: dict
) -> SimpleNamespace:
    """A script's constants, overridden by its recipe, by `demo` after --demo, and by flags; exits with 2 on a mistake.

    Parameters
    ----------
    argv : the command line; None for the program's own.
    choices : the values that a setting may take, by its name.
    recipes : what each value of the setting RECIPE sets.
    """
    settings = declared(script)
    parser = argparse.ArgumentParser(
        description=script.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--demo", action="store_true", help="make a small synthetic data set and run on it, in minutes")
    for name, setting in settings.items():
        options = _options(setting.default, choices.get(name)) | {"dest": name, "default": argparse.SUPPRESS}
        shown = " ".join(setting.default) if isinstance(setting.default, tuple) else setting.default
        parser.add_argument(flag_of(name), help=f"{setting.help} [{shown}]".replace("%", "%%"), **options)
    flags = vars(parser.parse_args(argv))
    is_demo = flags.pop("demo")
    if is_demo and "DATA_DIR" in flags:
        parser.error("--demo makes its own data: leave out --data-dir, or --demo")
    defaults = {name: setting.default for name, setting in settings.items()}
    recipe = recipes.get(flags.get("RECIPE", defaults["RECIPE"]), {})
    config = SimpleNamespace(**defaults | recipe | (demo if is_demo else {}) | flags, DEMO=is_demo)
    if problem := find_problem(config, choices):
        parser.error(problem)
    return config


def _options(default, choices: tuple | None) -> dict:
    """How argparse reads a setting."""
    if isinstance(default, bool):
        return {"action": argparse.BooleanOptionalAction}
    if isinstance(default, tuple):
        return {"nargs": "+", "choices": choices}
    if choices:
        return {"choices": choices}
    return {"type": type(default), "metavar": {int: "N", float: "X", str: "TEXT"}[type(default)]}


def find_problem(config: SimpleNamespace, choices: dict[str, tuple]) -> str:
    """What is wrong with the settings' values, in words; "" if nothing is."""
    for name, value in vars(config).items():
        chosen = value if isinstance(value, tuple | list) else (value,)
        if name in choices and not (chosen and set(chosen) <= set(choices[name])):
            return f"{name} must be among {', '.join(choices[name])}, not {value}"
        if name.endswith(("_EPOCHS", "_BATCH_SIZE", "_LR", "_FRACTION")) and not value > 0:
            return f"{name} must be above 0, not {value}"
        if name.endswith("_LR") and not math.isfinite(value):
            return f"{name} must be finite, not {value}"
    if not (0 <= config.WARM_UP < 1 and 0 <= config.EMA < 1 and 0 <= config.WEIGHT_DECAY < float("inf")):
        return "WARM_UP and EMA must be at least 0 and below 1, and WEIGHT_DECAY at least 0"
    if config.VAL_FRACTION + config.TEST_FRACTION >= 1:
        return "VAL_FRACTION and TEST_FRACTION must leave images to train on: their sum must be below 1"
    if not 32 <= config.IMAGE_SIZE <= 4096:
        return f"IMAGE_SIZE must be at least 32 and at most 4096 pixels, not {config.IMAGE_SIZE}"
    if config.LIMIT < 0 or not (0 <= config.SEED < 2**32 and 0 <= config.SPLIT_SEED < 2**32):
        return "LIMIT, SEED and SPLIT_SEED must not be negative, and the seeds must be below 2 to the 32nd"
    if config.RESUME and config.EVALUATE_ONLY:
        return "RESUME trains and EVALUATE_ONLY does not: choose one"
    if config.CHECKPOINTS and not config.EVALUATE_ONLY:
        return "CHECKPOINTS are measured, not trained: pass --evaluate-only too"
    return _misplaced(config)


def _misplaced(config: SimpleNamespace) -> str:
    """Why OUTPUT_DIR may not be where it is, in words: a later run moves it aside, with all that is in it."""
    outputs = Path(os.path.realpath(config.OUTPUT_DIR))
    for name in ("DATA_DIR", "EXTERNAL_DIR"):
        if getattr(config, name) and Path(os.path.realpath(getattr(config, name))).is_relative_to(outputs):
            return f"OUTPUT_DIR {config.OUTPUT_DIR} holds {name}: name a folder for the outputs alone"
    if Path.cwd().is_relative_to(outputs):
        return f"OUTPUT_DIR {config.OUTPUT_DIR} holds the folder that you work in: name one for the outputs alone"
    return ""


def plain(config: SimpleNamespace) -> dict:
    """The settings as types that JSON knows."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}
