"""Apply each mutant alone and name the survivors: python -m tests.mutants [TEXT ...] [--jobs 2]

TEXT chooses the mutants whose file or reason contains it. Needs an operating system that can fork.
"""

import argparse
import importlib
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from .wrong import TESTS, WRONG

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 900  # seconds, after which a mutant counts as noticed: it hangs
LIBRARIES = (
    "torch",
    "torchvision",
    "pandas",
    "sklearn.metrics",
    "scipy.stats",
    "matplotlib.figure",
    "seaborn",
    "pytest",
)


class Mutant(NamedTuple):
    """One small wrong version."""

    file: str
    old: str  # stands once in the file
    new: str
    why: str  # what is wrong with it


class First:
    """A plugin of pytest that keeps the first test that failed, or the file that could not be read."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report) -> None:
        self.failed = self.failed or (report.nodeid if report.failed else "")

    def pytest_collectreport(self, report) -> None:
        self.failed = self.failed or (f"{report.nodeid} (cannot be imported)" if report.failed else "")


def chosen(texts: list[str]) -> list[Mutant]:
    """The mutants that are asked for. Raises ValueError if one does not fit today's code, or is none."""
    mutants = [Mutant(file, *parts) for file, rows in WRONG.items() for parts in rows]
    problems = []
    for mutant in mutants:
        n = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)
        if n != 1 or mutant.old == mutant.new:
            problems.append(f"{mutant.file}: {mutant.why}: stands {n} times: {mutant.old!r}")
    if problems:
        raise ValueError("\n".join(problems) + "\nEdit tests/mutants/wrong.py: each old text must stand exactly once.")
    return [one for one in mutants if not texts or any(text in f"{one.file}: {one.why}" for text in texts)]


def copy_of_the_tree(place: Path) -> Path:
    """Every file that git tracks or would."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    return place


def first_failure(tree: Path, tests: tuple[str, ...]) -> str:
    """The first test that fails in a tree, in this process, which must not have imported anything of the project."""
    os.chdir(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(PATIENCE)
    import pytest
    import torch

    torch.set_num_threads(1)
    first, names = First(), [f"tests/test_{name}.py" for name in tests]
    for marker in ("quick", "not quick"):
        command = ["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={tree}", "-m", marker, *names]
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            code = pytest.main(command, plugins=[first])
        if first.failed:
            break
        if code not in (0, 5):  # neither all passed nor none is there
            raise RuntimeError(f"pytest ended with {code} on {', '.join(names)}")
    return first.failed


def _give_up(*_) -> None:
    raise TimeoutError(f"more than {PATIENCE} seconds")


def killed_by(mutant: Mutant | None, tests: tuple[str, ...]) -> str:
    """Which of some tests notices a mutant; "" for none. None is the code as it is."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        tree = copy_of_the_tree(Path(place))
        if mutant:
            path = tree / mutant.file
            path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        try:
            return first_failure(tree, tests)
        finally:
            os.chdir(ROOT)


def alone(mutant: Mutant | None, tests: tuple[str, ...]) -> tuple[str, float]:
    """As `killed_by`, in a process of its own, which unlike a pool's may start others; and the seconds it took."""
    started, fork = time.monotonic(), multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: sender.send(killed_by(mutant, tests)))
    process.start()
    sender.close()
    try:
        return receiver.recv(), time.monotonic() - started
    finally:
        process.join()


def main() -> int:
    """Try the mutants; returns 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="part of a file's name or of a reason [all]")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time [2]")
    options = parser.parse_args()
    try:
        mutants = chosen(options.texts)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    os.nice(5)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in LIBRARIES:  # once, for all processes that are forked from this one
        importlib.import_module(name)
    for tests in dict.fromkeys(TESTS[mutant.file] for mutant in mutants):
        if failed := alone(None, tests)[0]:
            parser.exit(2, f"{failed} fails without any mutant: mend it first.\n")
    survivors = []
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = {pool.submit(alone, mutant, TESTS[mutant.file]): mutant for mutant in mutants}
        for verdict in as_completed(verdicts):
            mutant, (failed, seconds) = verdicts[verdict], verdict.result()
            survivors += [] if failed else [mutant]
            found = f"killed by {failed}" if failed else "SURVIVED"
            print(f"{mutant.file}: {mutant.why}: {found} ({seconds:.0f} s)", flush=True)
    print(f"{len(mutants)} made, {len(mutants) - len(survivors)} killed, {len(survivors)} survived")
    for mutant in survivors:
        print(f"  {mutant.file}: {mutant.why}: {mutant.old!r} -> {mutant.new!r}")
    return min(len(survivors), 1)


if __name__ == "__main__":
    sys.exit(main())
