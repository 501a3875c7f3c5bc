"""The constants of a script, and the flags that override them -> one checked configuration."""

import argparse
import ast
import inspect
import io
import math
import os
import shlex
import tokenize
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

NO_SETTINGS = ("RECIPES", "CHOICES", "DEMO")  # constants that are made of settings
# What a setting is, by the end of its name, for its value may be edited to anything; the others are texts.
KINDS = {
    bool: (
        *("GROUP_BY_LESION", "GROUP_DUPLICATES", "INVERT_MASKS", "STRETCH_MASKS"),
        *("RESUME", "EVALUATE_ONLY", "TTA", "KEEP_FREED_MEMORY"),
    ),
    int: ("SEED", "SPLIT_SEED", "IMAGE_SIZE", "LIMIT", "_EPOCHS", "_BATCH_SIZE"),
    float: ("_FRACTION", "_LR", "WARM_UP", "EMA", "_LR_SCALE", "WEIGHT_DECAY", "DROPOUT", "DROP_PATH"),
    tuple: ("TASKS", "CLASSES", "CHECKPOINTS", "AUGMENT"),
}
WORDS = {bool: "True or False", int: "a whole number", float: "a number", tuple: "texts in brackets", str: "a text"}


class Setting(NamedTuple):
    """A constant at the top of a script."""

    default: object
    help: str  # the comment behind it; "" for none


def declared(script: ModuleType) -> dict[str, Setting]:
    """A script's settings by name: its UPPER_CASE constants, in their order.

    Raises
    ------
    ValueError : as `understood`.
    """
    source = inspect.getsource(script)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for line in ast.parse(source).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
            if name.isupper() and name not in NO_SETTINGS:
                found[name] = Setting(understood(name, getattr(script, name)), comments.get(line.lineno, ""))
    return found


def kind_of(name: str) -> type:
    """What a setting is: bool, int, float, str, or tuple for several texts."""
    return next((kind for kind, names in KINDS.items() if name.endswith(names)), str)


def understood(name: str, value) -> object:
    """A setting's value as what it is: one text may stand for several, and a whole number for any.

    Raises
    ------
    ValueError : it is something else; names the setting.
    """
    kind = kind_of(name)
    if kind is tuple:
        found = (value,) if isinstance(value, str) else value
        if isinstance(found, tuple | list) and all(isinstance(text, str) for text in found):
            return tuple(found)
    elif type(value) is kind:
        return value
    elif kind is float and type(value) is int:
        return float(value)
    raise ValueError(f"{name} must be {WORDS[kind]}, not {value!r}")


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
    parser = argparse.ArgumentParser(
        description=script.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    try:
        settings = declared(script)
    except ValueError as error:
        parser.error(str(error))
    parser.add_argument("--demo", action="store_true", help="make a small synthetic data set and run on it, in minutes")
    for name, setting in settings.items():
        options = _options(kind_of(name), choices.get(name)) | {"dest": name, "default": argparse.SUPPRESS}
        meaning = f"{setting.help} [{shown(setting.default)}]".replace("%", "%%")
        parser.add_argument(flag_of(name), help=meaning, **options)
    flags = vars(parser.parse_args(argv))
    is_demo = flags.pop("demo")
    if is_demo and "DATA_DIR" in flags:
        parser.error("--demo makes its own data: leave out --data-dir, or --demo")
    defaults = {name: setting.default for name, setting in settings.items()}
    recipe = recipes.get(flags.get("RECIPE", defaults["RECIPE"]), {})
    values = defaults | recipe | (demo if is_demo else {}) | flags
    try:
        config = SimpleNamespace(**{name: understood(name, value) for name, value in values.items()}, DEMO=is_demo)
    except ValueError as error:
        parser.error(str(error))
    if problem := find_problem(config, choices):
        parser.error(problem)
    return config


def _options(kind: type, choices: tuple | None) -> dict:
    """How argparse reads a setting."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if kind is tuple:
        return {"nargs": "+", "choices": choices}
    if choices:
        return {"choices": choices}
    return {"type": kind, "metavar": {int: "N", float: "X", str: "TEXT"}[kind]}


def find_problem(config: SimpleNamespace, choices: dict[str, tuple]) -> str:
    """What is wrong with the settings' values, in words; "" if nothing is."""
    for name, value in vars(config).items():
        chosen = value if isinstance(value, tuple) else (value,)
        if name in choices and not (chosen and set(chosen) <= set(choices[name])):
            return f"{name} must be among {', '.join(choices[name])}, not {shown(value)}"
        if len(set(chosen)) < len(chosen):
            return f"{name} names one twice: {shown(value)}"
        if name.endswith(("_EPOCHS", "_BATCH_SIZE", "_LR", "_FRACTION")) and not value > 0:
            return f"{name} must be above 0, not {value}"
        if name.endswith("_LR") and not math.isfinite(value):
            return f"{name} must be finite, not {value}"
    for name in ("WARM_UP", "EMA", "DROPOUT", "DROP_PATH"):
        if not 0 <= getattr(config, name) < 1:
            return f"{name} must be at least 0 and below 1, not {getattr(config, name)}"
    if not (0 <= config.WEIGHT_DECAY < math.inf and 0 < config.ENCODER_LR_SCALE < math.inf):
        return "WEIGHT_DECAY must be at least 0, ENCODER_LR_SCALE above 0, and both finite"
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


def describe(config: SimpleNamespace, script: ModuleType, recipes: dict[str, dict]) -> str:
    """The recipe, and each setting that differs from it, a line each."""
    usual = {name: setting.default for name, setting in declared(script).items()} | recipes[config.RECIPE]
    own = {name: value for name, value in vars(config).items() if name in usual and value != usual[name]}
    own.pop("RECIPE", None)
    lines = [f"  {name:26} {shown(value)}" for name, value in own.items()]
    return "\n".join([f"Recipe {config.RECIPE}, " + ("but for:" if own else "as main.py has it."), *lines])


def shown(value) -> str:
    """A setting's value as one would pass it."""
    return shlex.join(value) if isinstance(value, tuple) else str(value)
