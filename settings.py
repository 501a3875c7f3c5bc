"""A script's annotated constants, overridden by flags -> one checked configuration.

A setting is a constant such as ``EMA: float = 0.0  # its meaning``, annotated as bool, int, float, str or tuple
(of strings). The annotation is its type, and the comment is the help of its flag. This file knows no setting by
name, so it serves any script.
"""

import argparse
import difflib
import importlib.util
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

WORDS = {bool: "True or False", int: "a whole number", float: "a number", tuple: "a tuple of strings", str: "a string"}
MANY = 20  # choices; of more, only the nearest are named
Presets = dict[str, dict[str, dict]]  # setting -> its value -> values of other settings


class Setting(NamedTuple):
    """An annotated constant at the top of a script."""

    kind: type  # a key of `WORDS`
    default: object
    help: str  # the trailing comment; "" if none


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line and suggests flags for an unknown one.

    Once it has parsed, the console prints characters it cannot encode as escapes instead of failing. A Python without
    PyTorch is a mistake as well.
    """

    def __init__(self, *, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options) -> None:
        super().__init__(formatter_class=formatter_class, allow_abbrev=allow_abbrev, **options)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_args(self, args: Sequence[str] | None = None, namespace=None):
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = next((argument for argument in unknown if argument.startswith("-")), "").partition("=")[0]
            near = similar_flags(flag, list(self._option_string_actions)) if flag else []
            hint = f"Did you mean {' or '.join(near)}?" if near else f"{self.prog} --help lists all flags."
            self.error(f"unrecognized arguments: {' '.join(unknown)}. {hint}")
        if importlib.util.find_spec("torch") is None:
            needed = "Install requirements.txt there, or use the environment of README.md"
            self.error(f"{sys.executable} has no PyTorch. {needed}: .venv/bin/python {self.prog}")
        return options


def similar_flags(flag: str, flags: Sequence[str]) -> list[str]:
    """The flags that a mistyped one may have meant: those with words that begin so (--epoch), else similar ones."""
    part, words = flag.strip("-"), {name.strip("-"): name for name in flags}
    containing = [name for name in flags if len(part) > 2 and f"-{part}" in name]
    return containing or [words[word] for word in difflib.get_close_matches(part, words, 3)]


def declared(script: ModuleType) -> dict[str, Setting]:
    """A script's settings by name, in order.

    Raises
    ------
    ValueError : an unsupported annotation, or a value of another type; names the setting.
    """
    tokens = tokenize.generate_tokens(io.StringIO(inspect.getsource(script)).readline)
    comments = {
        token.line.partition(":")[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT
    }
    settings = {}
    for name, annotation in get_type_hints(script).items():
        if name.isupper():
            kind = get_origin(annotation) or annotation
            if kind not in WORDS:
                raise ValueError(f"{name} is annotated as {annotation}; a setting is bool, int, float, str or tuple")
            settings[name] = Setting(kind, converted(name, kind, getattr(script, name)), comments.get(name, ""))
    return settings


def converted(name: str, kind: type, value) -> object:
    """A setting's value as its type: a string may stand for a tuple, and an int for a float.

    Raises
    ------
    ValueError : the value has another type; names the setting.
    """
    if kind is tuple:
        strings = (value,) if isinstance(value, str) else value
        if isinstance(strings, tuple | list) and all(isinstance(string, str) for string in strings):
            return tuple(strings)
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
    """A script's settings, overridden by presets, by `demo` with --demo, and by flags; exits with 2 on a mistake.

    Parameters
    ----------
    argv : the command line; None for the program's own.
    choices : returns the allowed values by setting; called last, as it may have to import them.
    ranges : the interval that a number must lie in, by setting, such as "[0, 1)".
    find_problem : returns a conflict between settings that are each valid, in words; "" if there is none.
    """
    parser = Parser(prog=Path(script.__file__).name, description=script.__doc__)
    try:
        settings = declared(script)
        flags = _read_flags(parser, settings, argv)
        is_demo = flags.pop("demo")
        values = _preset(settings, presets, flags) | (demo if is_demo else {}) | flags
        _refuse_unknown(settings, [*values, *ranges])
        values = {name: converted(name, setting.kind, values[name]) for name, setting in settings.items()}
        for name, interval in ranges.items():
            if not lies_in(values[name], interval):
                raise ValueError(f"{name} must lie in {interval}, not {values[name]}")
        config = SimpleNamespace(**values, DEMO=is_demo)
        if problem := find_problem(config):
            raise ValueError(problem)
        allowed = choices()
        _refuse_unknown(settings, allowed)
        for name, value in values.items():
            _check_choice(name, value, allowed.get(name))
    except ValueError as error:
        parser.error(str(error))
    return config


def _read_flags(parser: Parser, settings: dict[str, Setting], argv: list[str] | None) -> dict:
    """The values of the given flags by setting, and whether --demo is given."""
    parser.add_argument("--demo", action="store_true", help="create a small synthetic data set and run on it (minutes)")
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
    """The defaults, overridden by the chosen presets. Raises ValueError for an unknown preset."""
    values = {name: setting.default for name, setting in settings.items()}
    for name, preset in presets.items():
        chosen = flags.get(name, values[name])
        _check_choice(name, chosen, tuple(preset))
        values |= preset[chosen]
    return values


def _refuse_unknown(settings: dict[str, Setting], names: Iterable[str]) -> None:
    for name in names:
        if name not in settings:
            raise ValueError(f"{name} is set but is not a setting: annotate it, for example {name}: float = 0.0")


def _check_choice(name: str, value, choices: Sequence[str] | None) -> None:
    """Raise ValueError if a value is repeated, or is not among the choices (if there are any)."""
    values = value if isinstance(value, tuple) else (value,)
    if choices and not (values and set(values) <= set(choices)):
        wrong = next((one for one in values if one not in choices), "")
        near = difflib.get_close_matches(wrong, choices, 5, cutoff=0)
        known = choices if len(choices) <= MANY else [f"{len(choices)} names, the nearest are {near[0]}", *near[1:]]
        hint = difflib.get_close_matches(wrong, choices, 1) if len(choices) <= MANY else []
        meant = f". Did you mean {hint[0]}?" if hint else ""
        raise ValueError(f"{name} must be among {', '.join(known)}, not {shown(value)}{meant}")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} repeats a value: {shown(value)}")


def lies_in(value: float, interval: str) -> bool:
    """Whether a number lies in an interval such as "[0, 1)"; NaN lies in none."""
    low, high = map(float, interval[1:-1].split(","))
    is_above = low <= value if interval[0] == "[" else low < value
    return is_above and (value <= high if interval[-1] == "]" else value < high)


def find_misplaced(config: SimpleNamespace, outputs: str, inputs: Sequence[str]) -> str:
    """Why a later run may not move the folder of a setting aside with all its contents, in words; "" if it may.

    Parameters
    ----------
    outputs, inputs : names of settings; the folders of `inputs` must not lie in that of `outputs`.
    """
    folder = getattr(config, outputs)
    place = Path(os.path.realpath(folder))
    for name in inputs:
        other = getattr(config, name)
        if other and Path(os.path.realpath(other)).is_relative_to(place):
            return f"{outputs} {folder} contains {name}: name a folder for the outputs only"
    if Path.cwd().is_relative_to(place):
        return f"{outputs} {folder} contains the working directory: name a folder for the outputs only"
    return ""


def plain(config: SimpleNamespace) -> dict:
    """The settings in types that JSON supports."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}


def describe(config: SimpleNamespace, script: ModuleType, presets: Presets) -> str:
    """The presets, and one line for each setting that differs from them."""
    usual = {name: setting.default for name, setting in declared(script).items()}
    for name, preset in presets.items():
        usual |= preset[getattr(config, name)]
    own = {name: value for name, value in vars(config).items() if name in usual and value != usual[name]}
    chosen = ", ".join(f"{name.capitalize()} {getattr(config, name)}" for name in presets)
    lines = [f"  {name:26} {shown(value)}" for name, value in own.items() if name not in presets]
    return "\n".join([f"{chosen}, " + ("except for:" if lines else f"as set in {Path(script.__file__).name}."), *lines])


def shown(value) -> str:
    """A setting's value as on the command line."""
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def stop(code: int, message: str) -> int:
    """Print why a script stops, and return its exit code."""
    print(f"\n{message}", file=sys.stderr)
    return code
