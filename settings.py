"""A script's annotated constants, and the flags that override them -> one checked configuration.

A setting is a constant such as ``EMA: float = 0.0  # its meaning``, annotated as bool, int, float, str or tuple
(of texts). Its annotation is its type, and its comment the help of its flag. This file knows no setting by
name, so it serves any script.
"""

import argparse
import difflib
import inspect
import io
import os
import shlex
import sys
import tokenize
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NamedTuple, get_origin, get_type_hints

WORDS = {bool: "True or False", int: "a whole number", float: "a number", tuple: "texts in brackets", str: "a text"}
Presets = dict[str, dict[str, dict]]  # by a setting's name and its value: what that value sets of others


class Setting(NamedTuple):
    """An annotated constant at the top of a script."""

    kind: type  # a key of `WORDS`
    default: object
    help: str  # the comment behind it; "" for none


class Parser(argparse.ArgumentParser):
    """For commands: a mistake gets one line, and a flag that does not exist the ones that are nearest to it.

    From then on the console shows what it has no characters for as escapes, in place of an error.
    """

    def __init__(self, *, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options) -> None:
        super().__init__(formatter_class=formatter_class, allow_abbrev=allow_abbrev, **options)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_args(self, args: Sequence[str] | None = None, namespace=None):
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = next((text for text in unknown if text.startswith("-")), "").partition("=")[0]
            near = nearest(flag, list(self._option_string_actions)) if flag else []
            hint = f"Did you mean {' or '.join(near)}?" if near else f"{self.prog} --help lists all flags."
            self.error(f"unrecognized arguments: {' '.join(unknown)}. {hint}")
        return found


def nearest(flag: str, flags: Sequence[str]) -> list[str]:
    """The flags that a mistaken one may have meant: those that contain it (--epochs), or else similar ones."""
    part, words = flag.strip("-"), {name.strip("-"): name for name in flags}
    containing = [name for name in flags if part and f"-{part}-" in f"{name}-"]
    return containing or [words[word] for word in difflib.get_close_matches(part, words, 3)]


def declared(script: ModuleType) -> dict[str, Setting]:
    """A script's settings by name, in their order.

    Raises
    ------
    ValueError : an annotation that no flag can have, or a value of another type; names the setting.
    """
    tokens = tokenize.generate_tokens(io.StringIO(inspect.getsource(script)).readline)
    comments = {
        token.line.partition(":")[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT
    }
    found = {}
    for name, annotation in get_type_hints(script).items():
        if name.isupper():
            kind = get_origin(annotation) or annotation
            if kind not in WORDS:
                raise ValueError(f"{name} is annotated as {annotation}; a setting is bool, int, float, str or tuple")
            found[name] = Setting(kind, understood(name, kind, getattr(script, name)), comments.get(name, ""))
    return found


def understood(name: str, kind: type, value) -> object:
    """A setting's value as its type: one text may stand for several, and a whole number for any.

    Raises
    ------
    ValueError : it is of another type; names the setting.
    """
    if kind is tuple:
        several = (value,) if isinstance(value, str) else value
        if isinstance(several, tuple | list) and all(isinstance(text, str) for text in several):
            return tuple(several)
    elif type(value) is kind:
        return value
    elif kind is float and type(value) is int:
        return float(value)
    raise ValueError(f"{name} must be {WORDS[kind]}, not {value!r}")


def flag_of(name: str) -> str:
    """IMAGE_SIZE to --image-size."""
    return f"--{name.lower().replace('_', '-')}"


def parse(
    argv: list[str] | None,
    script: ModuleType,
    *,
    choices: Callable[[], dict[str, Sequence[str]]],
    ranges: dict[str, str],
    presets: Presets,
    demo: dict,
    find_problem: Callable[[SimpleNamespace], str],
) -> SimpleNamespace:
    """A script's settings, overridden by presets, by `demo` after --demo, and by flags; exits with 2 on a mistake.

    Parameters
    ----------
    argv : the command line; None for the program's own.
    choices : gives the values that a setting may take, by its name; asked last, for it may have to import them.
    ranges : the interval that a number must lie in, by its name, such as "[0, 1)".
    find_problem : what is wrong with settings that are right each by itself, in words; "" if nothing is.
    """
    parser = Parser(prog=Path(script.__file__).name, description=script.__doc__)
    try:
        settings = declared(script)
        flags = _read_flags(parser, settings, argv)
        is_demo = flags.pop("demo")
        values = _preset(settings, presets, flags) | (demo if is_demo else {}) | flags
        _refuse_unknown(settings, [*values, *ranges])
        values = {name: understood(name, one.kind, values[name]) for name, one in settings.items()}
        for name, interval in ranges.items():
            if not lies_in(values[name], interval):
                raise ValueError(f"{name} must lie in {interval}, not {values[name]}")
        config = SimpleNamespace(**values, DEMO=is_demo)
        if problem := find_problem(config):
            raise ValueError(problem)
        of_settings = choices()
        _refuse_unknown(settings, of_settings)
        for name, value in values.items():
            _check_choice(name, value, of_settings.get(name))
    except ValueError as error:
        parser.error(str(error))
    return config


def _read_flags(parser: Parser, settings: dict[str, Setting], argv: list[str] | None) -> dict:
    """The values of the flags that are given, by the names of their settings; and whether there is --demo."""
    parser.add_argument("--demo", action="store_true", help="make a small synthetic data set and run on it, in minutes")
    for name, setting in settings.items():
        options = {"metavar": {int: "N", float: "X"}.get(setting.kind, "TEXT"), "type": setting.kind}
        if setting.kind is bool:
            options = {"action": argparse.BooleanOptionalAction}
        elif setting.kind is tuple:
            options |= {"nargs": "+", "type": str}
        meaning = f"{setting.help} [{shown(setting.default)}]".replace("%", "%%")
        parser.add_argument(flag_of(name), dest=name, default=argparse.SUPPRESS, help=meaning, **options)
    return vars(parser.parse_args(argv))


def _preset(settings: dict[str, Setting], presets: Presets, flags: dict) -> dict:
    """The settings' own values, but for those that presets set. Raises ValueError for a preset that does not exist."""
    values = {name: setting.default for name, setting in settings.items()}
    for name, preset in presets.items():
        chosen = flags.get(name, values[name])
        _check_choice(name, chosen, tuple(preset))
        values |= preset[chosen]
    return values


def _refuse_unknown(settings: dict[str, Setting], names: Iterable[str]) -> None:
    for name in names:
        if name not in settings:
            raise ValueError(f"{name} is set, but is no setting: annotate it, such as {name}: float = 0.0")


def _check_choice(name: str, value, choices: Sequence[str] | None) -> None:
    """Raises ValueError for a value that is not among the choices, if there are any, or that is named twice."""
    several = value if isinstance(value, tuple) else (value,)
    if choices and not (several and set(several) <= set(choices)):
        raise ValueError(f"{name} must be among {', '.join(choices)}, not {shown(value)}")
    if len(set(several)) < len(several):
        raise ValueError(f"{name} names one twice: {shown(value)}")


def lies_in(value: float, interval: str) -> bool:
    """Whether a number lies in an interval such as "[0, 1)"; NaN lies in none."""
    low, high = map(float, interval[1:-1].split(","))
    is_above = low <= value if interval[0] == "[" else low < value
    return is_above and (value <= high if interval[-1] == "]" else value < high)


def find_misplaced(config: SimpleNamespace, outputs: str, inputs: Sequence[str]) -> str:
    """Why the folder that a setting names may not be where it is, in words: a later run moves it aside, with all in it.

    Parameters
    ----------
    outputs, inputs : names of settings; the folders of `inputs` must not lie in that of `outputs`.
    """
    folder = getattr(config, outputs)
    place = Path(os.path.realpath(folder))
    for name in inputs:
        other = getattr(config, name)
        if other and Path(os.path.realpath(other)).is_relative_to(place):
            return f"{outputs} {folder} holds {name}: name a folder for the outputs alone"
    if Path.cwd().is_relative_to(place):
        return f"{outputs} {folder} holds the folder that you work in: name one for the outputs alone"
    return ""


def plain(config: SimpleNamespace) -> dict:
    """The settings as types that JSON knows."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}


def describe(config: SimpleNamespace, script: ModuleType, presets: Presets) -> str:
    """The presets, and each setting that differs from them, a line each."""
    usual = {name: setting.default for name, setting in declared(script).items()}
    for name, preset in presets.items():
        usual |= preset[getattr(config, name)]
    own = {name: value for name, value in vars(config).items() if name in usual and value != usual[name]}
    chosen = ", ".join(f"{name.capitalize()} {getattr(config, name)}" for name in presets)
    lines = [f"  {name:26} {shown(value)}" for name, value in own.items() if name not in presets]
    return "\n".join([f"{chosen}, " + ("but for:" if lines else f"as {Path(script.__file__).name} has it."), *lines])


def shown(value) -> str:
    """A setting's value as one would pass it."""
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def stop(code: int, message: str) -> int:
    """Print why a script stops; returns its exit code."""
    print(f"\n{message}", file=sys.stderr)
    return code
