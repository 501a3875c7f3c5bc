"""Time and peak memory of the whole program by phase, for growing synthetic data sets.

    python benchmarks/scale.py FOLDER
    python benchmarks/scale.py FOLDER --images 4000 40000

FOLDER receives the sets of ``python -m dataset draw`` that it lacks (400,000 images take about 2 GB), the caches and
the runs. Each set trains a classifier for one epoch at 32 pixels, is evaluated, audited and reported, and is then
opened again by --evaluate-only. Each run is a process of its own, with a clean cache. Prints a table of seconds, peak
memory, CPU seconds of all threads and their growth (by those for the number of images before), and writes it as JSON
under benchmarks/results/. Peak memory needs Linux.
"""

import argparse
import functools
import importlib
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SIZES = (4_000, 40_000, 400_000)
FLAGS = "--tasks classification --classification-epochs 1 --image-size 32 --pretrained no --device cpu"
PHASES = {  # by name: the functions whose time it takes, less that of phases called by them
    "read the table": ("dataset.prepare.find", "dataset.prepare.read_layout", "dataset.prepare.own_split"),
    "decode": ("dataset.prepare.decode_table",),
    "split": ("dataset.prepare.split", "dataset.splits.split_hash"),
    "train": ("train.fit",),
    "run the model": ("measure.collect.collect", "report.results.fitted_network"),
    "numbers, figures": ("report.results.assess",),
    "write": ("report.results.publish", "report.results.write_images", "report.folder.RunFolder.write_data"),
    "audit": ("dataset.leakage.audit",),
    "report": ("report.page.write",),
}
REST = "everything else"
KINDS = ("seconds", "cpu")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=SIZES)
    parser.add_argument("--flags", default="", help="further flags of main.py, in one string")
    parser.add_argument("--output-dir", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--probe", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(probe(options.probe)))
        return
    runs: dict[str, dict[int, dict]] = {"train": {}, "--evaluate-only": {}}
    for n in options.images:
        data, cache, outputs = (options.folder / f"{name}-{n}" for name in ("set", "cache", "run"))
        if not data.exists():
            subprocess.run([sys.executable, "-m", "dataset", "draw", str(data), "--images", str(n)], check=True)
        for place in (cache, outputs):
            shutil.rmtree(place, ignore_errors=True)
        places = ["--data-dir", str(data), "--cache-dir", str(cache), "--output-dir", str(outputs)]
        for name, more in (("train", []), ("--evaluate-only", ["--evaluate-only"])):
            command = [*places, *FLAGS.split(), *options.flags.split(), *more]
            runs[name][n] = run_alone(options.folder, command)
            print(table_of(runs[name], name), flush=True)
    report(runs, options.output_dir)


def run_alone(folder: Path, command: list[str]) -> dict:
    """`probe` in a process of its own."""
    arguments = [sys.executable, __file__, str(folder), "--probe", *(f"={word}" for word in command)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def probe(command: list[str]) -> dict:
    """Run main.py in this process; seconds and peak memory in MB by phase."""
    start = now()
    program, clock = importlib.import_module("main"), Clock()
    for phase, functions in PHASES.items():
        for name in functions:
            clock.watch(phase, name)
    code = program.main([word.removeprefix("=") for word in command])
    if code:
        sys.exit(code)
    clock.seconds[REST] = now() - start - sum(clock.seconds.values())
    kinds = {kind: {phase: times[i] for phase, times in clock.seconds.items()} for i, kind in enumerate(KINDS)}
    return kinds | {"mb": clock.peaks | {REST: peak_mb()}}


class Clock:
    """Seconds spent in phases (`KINDS`), each less the phases called by it, and peak memory of the process in each."""

    def __init__(self) -> None:
        self.seconds: dict[str, np.ndarray] = {phase: np.zeros(2) for phase in PHASES}
        self.peaks: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self.inner = [np.zeros(2)]

    def watch(self, phase: str, name: str) -> None:
        """Time the function of this name wherever it is called."""
        place, function = name.rsplit(".", 1)
        try:
            owner = importlib.import_module(place)
        except ModuleNotFoundError:  # a method
            module, cls = place.rsplit(".", 1)
            owner = getattr(importlib.import_module(module), cls)
        original = getattr(owner, function)
        timed = self.timed(phase, original)
        setattr(owner, function, timed)
        ours = str(Path(__file__).parents[1])
        for module in [
            module for module in sys.modules.values() if (getattr(module, "__file__", "") or "").startswith(ours)
        ]:
            if getattr(module, function, None) is original:  # imported by name
                setattr(module, function, timed)

    def timed(self, phase: str, function: Callable) -> Callable:
        """The function, with its time counted."""

        @functools.wraps(function)
        def wrapped(*arguments, **options):
            reset_peak()
            start = now()
            self.inner.append(np.zeros(2))
            try:
                return function(*arguments, **options)
            finally:
                spent = now() - start
                self.seconds[phase] += spent - self.inner.pop()
                self.inner[-1] += spent
                self.peaks[phase] = max(self.peaks[phase], peak_mb())

        return wrapped


def now() -> np.ndarray:
    """Seconds by the clock and of this process's CPU, in the order of `KINDS`."""
    return np.array([time.perf_counter(), time.process_time()])


def reset_peak() -> None:
    """Let the kernel count this process's peak memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """This process's peak memory since `reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000


def table_of(by_size: dict[int, dict], name: str) -> str:
    """Seconds, seconds of the CPU, their growth, and peak memory by phase, as a Markdown table."""
    sizes = list(by_size)
    columns = (f"{n:,}: s | CPU s | {'growth | ' if i else ''}MB" for i, n in enumerate(sizes))
    lines = [f"| {name} | {' | '.join(columns)} |"]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for phase in [*PHASES, REST]:
        cells = []
        for i, n in enumerate(sizes):
            seconds, cpu = (by_size[n][kind][phase] for kind in KINDS)
            cells += [f"{seconds:.1f}", f"{cpu:.1f}"]
            if i:
                before = by_size[sizes[i - 1]]["cpu"][phase]
                cells.append(f"{cpu / before:.1f}" if before > 0.5 else "–")
            cells.append(f"{by_size[n]['mb'][phase]:,.0f}")
        lines.append(f"| {phase} | " + " | ".join(cells) + " |")
    return "\n".join(["", *lines])


def report(runs: dict, folder: Path) -> None:
    """Write the numbers, with the machine."""
    from benchmarks.speed import cpu_name

    about = {"cpu": cpu_name(), "platform": platform.platform(), "flags": FLAGS, "date": str(date.today())}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"scale-{date.today()}.json"
    path.write_text(json.dumps(about | {"runs": runs}, indent=1))
    print(f"\nWritten to {path}")


if __name__ == "__main__":
    main()
