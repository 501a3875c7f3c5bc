"""Random bad input, a family a file, from fixed seeds.

Each family has ``one(seed, place)``: it makes one input from the seed in the empty folder `place`, gives it to the
program, and raises AssertionError where a promise is broken. `refused_well` is how a refusal must look.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

FAMILIES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py")))


def family(name: str) -> Callable[[int, Path], None]:
    """The function ``one`` of a family."""
    return import_module(f".{name}", __package__).one


def refused_well(error: Exception, *names: object) -> bool:
    """Whether an exception is of a kind that a user's mistake may cause, with a message that names the input."""
    kinds = isinstance(error, ValueError | FileNotFoundError | OSError)
    return kinds and any(str(name) in str(error) for name in names)
