"""Time and memory of evaluation by the number of images, on synthetic logits and mask counts.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --images 1500 15000 --output-dir results/

Each number of images runs in its own process: all scores, intervals, tables and subgroups of labels and masks, from
2,000 resamples of lesions, and the figures of scores. The model, the mask files and figures of images are left out.
Prints a table and writes it as JSON under benchmarks/results/.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import torch

import evaluate
import machine
import visualize
from benchmarks.speed import cpu_name
from dataset.classes import HAM10000 as CLASSES
from dataset.classes import positions_of
from dataset.csvfile import as_csv
from dataset.table import USED
from measure import bootstrap, numbers
from measure import tables as table_of
from measure.calibrate import fit_calibration
from measure.calls import read_logits
from measure.collect import Collected
from measure.subgroups import subgroup_numbers

SHARES = np.array([0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02])  # HAM10000's, in the order of CLASSES


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_500, 15_000, 100_000])
    parser.add_argument("--output-dir", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--probe", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(probe(options.probe)))
        return
    rows = []
    for n in options.images:
        done = subprocess.run([sys.executable, __file__, "--probe", str(n)], capture_output=True, text=True, check=True)
        rows.append({"images": n, **json.loads(done.stdout)})
    report(rows, options.output_dir)


def probe(n: int) -> dict[str, float]:
    """Seconds per part, and this process's peak memory before and after."""
    machine.keep_freed_memory()
    rows, collected = synthetic(n)
    true = positions_of(rows)
    calibration = fit_calibration(true, collected.label, true, CLASSES)
    collected = collected._replace(calls=read_logits(collected.label, calibration, CLASSES))
    before, seconds = peak_mb(), {}
    resamples = timed(seconds, "resamples", lambda: bootstrap.resample_lesions(rows["lesion_id"]))
    timed(seconds, "labels", lambda: numbers.label_numbers(rows, collected.calls, resamples))
    timed(seconds, "masks", lambda: numbers.mask_numbers(rows, collected, resamples))
    timed(seconds, "subgroups", lambda: subgroup_numbers(rows, collected, resamples))
    timed(seconds, "tables", lambda: tables(rows, collected))
    timed(seconds, "figures", lambda: figures(rows, collected))
    return {"seconds": sum(seconds.values()), "mb": peak_mb(), "mb_before": before, **seconds}


def timed(seconds: dict[str, float], name: str, function):
    started = time.perf_counter()
    result = function()
    seconds[name] = time.perf_counter() - started
    return result


def tables(rows: pd.DataFrame, collected: Collected) -> None:
    as_csv(table_of.prediction_table(rows, collected.calls))
    as_csv(table_of.mask_table(rows, collected.native, collected.surface))


def figures(rows: pd.DataFrame, collected: Collected) -> None:
    true, probabilities = positions_of(rows), collected.calls.probabilities
    kept = evaluate.risk_coverage(probabilities.argmax(axis=1) == true, probabilities.max(axis=1))
    dice = evaluate.dice(collected.mask)
    for figure in (
        visualize.ranking_curves(true, probabilities, CLASSES, ""),
        visualize.reliability(true, collected.calls.before, probabilities, evaluate.N_BINS, ""),
        visualize.risk_coverage(*kept, ""),
        visualize.dice_by_class({code: dice[true == k] for k, code in enumerate(CLASSES)}, ""),
    ):
        visualize.png(figure)


def synthetic(n: int) -> tuple[pd.DataFrame, Collected]:
    """A table of n images of 3/4 n lesions, and synthetic model outputs for them."""
    rng = np.random.default_rng(0)
    label = rng.choice(len(CLASSES), n, p=SHARES)
    logits = rng.normal(size=(n, len(CLASSES)))
    logits[np.arange(n), label] += 2
    columns = {"image": [f"image_{i:07}" for i in range(n)], "status": USED}
    columns["label"] = pd.Categorical.from_codes(label, CLASSES)
    columns["lesion_id"] = [f"lesion_{i:07}" for i in np.arange(n) * 3 // 4]
    columns |= {"age": rng.integers(20, 90, n).astype(float), "sex": rng.choice(["female", "male"], n)}
    columns["localization"] = rng.choice([f"site {i}" for i in range(15)], n)
    counts = rng.multinomial(224 * 224, [0.3, 0.02, 0.03, 0.65], size=n).astype(float)
    masks = {"mask": counts, "native": counts, "surface": rng.random((n, 2)) * 20}
    return pd.DataFrame(columns), Collected(label=logits, heat=rng.random((n, 2)), **masks)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(rows: list[dict], folder: Path) -> None:
    """Print the table as Markdown, and write it with its setup."""
    print("| images | seconds | for labels | for masks | peak memory | before |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['images']:,} | {row['seconds']:.1f} | {row['labels']:.1f} | {row['masks']:.1f} "
            f"| {row['mb']:,.0f} MB | {row['mb_before']:,.0f} MB |"
        )
    setup = {"date": date.today().isoformat(), "device": cpu_name(), "cores": os.cpu_count(), "resamples": 2000}
    setup |= {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    print("\n" + ", ".join(f"{name} {value}" for name, value in setup.items()))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"evaluation-{setup['date']}.json"
    path.write_text(json.dumps({"setup": setup, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
