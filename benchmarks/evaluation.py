"""Time and memory of evaluation by the number of images, on synthetic logits and mask counts.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --images 40000 400000 --sets rare --output-dir results/

Each number of images of each set runs in its own process: all scores and intervals of labels and masks from 2,000
resamples of lesions, again for the biopsied half, and by subgroup; the figures of scores; the files of outputs, written
and read back. The model, the mask files and figures of images are left out. The sets are `ham10000`, with its classes
and 4/3 images per lesion, and `rare`: two classes, 1 image in 1,000 malignant, and patients with 385 images each.
Prints a table and writes it as JSON under benchmarks/results/. CPU time is that of all threads together; on a machine
that is busy otherwise, it says more than the seconds.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import product
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
from dataset.classes import classes_of, positions_of
from dataset.table import USED
from measure import bootstrap
from measure.assess import head_numbers
from measure.calibrate import fit_calibration
from measure.calls import read_logits
from measure.collect import Collected, packed, unpacked
from measure.imagetable import image_table
from measure.subgroups import is_biopsied, subgroup_numbers
from measure.tables import mask_table, prediction_table
from report.folder import RunFolder
from report.results import write_images
from report.run import read_head

SHARES = (0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02)  # HAM10000's, in the order of CLASSES
SETS = {"ham10000": (CLASSES, SHARES, 4 / 3), "rare": (("MEL", "NV"), (0.001, 0.999), 385)}  # and images per lesion


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_500, 40_000, 400_000])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--output-dir", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--probe", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(probe(options.probe, options.sets[0])))
        return
    rows = []
    for name, n in product(options.sets, options.images):
        command = [sys.executable, __file__, "--probe", str(n), "--sets", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append({"set": name, "images": n, **json.loads(done.stdout)})
    report(rows, options.output_dir)


def probe(n: int, name: str) -> dict[str, float]:
    """Seconds per part, and this process's peak memory before and after."""
    machine.keep_freed_memory()
    rows, collected = synthetic(n, name)
    true, classes = positions_of(rows), classes_of(rows)
    calibration = fit_calibration(true, collected.label, true, classes)
    collected = collected._replace(calls=read_logits(collected.label, calibration, classes))
    before, seconds = peak_mb(), {}
    resamples = timed(seconds, "resamples", lambda: bootstrap.resample_lesions(rows["lesion_id"]))
    proved = is_biopsied(rows)
    timed(seconds, "scores", lambda: head_numbers(rows, collected, resamples))
    timed(seconds, "biopsied", lambda: head_numbers(rows[proved], collected.of(proved), resamples.of(proved)))
    timed(seconds, "subgroups", lambda: subgroup_numbers(rows, collected, resamples))
    timed(seconds, "figures", lambda: figures(rows, collected))
    with tempfile.TemporaryDirectory() as place:
        timed(seconds, "writing", lambda: write(RunFolder(place), rows, collected))
        timed(seconds, "reading", lambda: read(Path(place)))
    total = {"seconds": sum(seconds.values()), "cpu_seconds": sum(os.times()[:2]), "mb": peak_mb(), "mb_before": before}
    return total | seconds


def timed(seconds: dict[str, float], name: str, function):
    started = time.perf_counter()
    result = function()
    seconds[name] = time.perf_counter() - started
    return result


def write(folder: RunFolder, rows: pd.DataFrame, collected: Collected) -> None:
    folder.write_table("predictions.csv", prediction_table(rows, collected.calls))
    folder.write_table("per_image.csv", mask_table(rows, collected.mask)[["image", "iou", "dice"]])
    folder.write_table("per_image_native.csv", mask_table(rows, collected.native, collected.surface))
    write_images(folder, [image_table(rows, collected, "test")], classes_of(rows))
    folder.write("outputs.npz", packed(collected, rows["image"]))


def read(folder: Path) -> None:
    for head in ("label", "mask"):
        read_head(folder, head)
    unpacked(folder / "outputs.npz")


def figures(rows: pd.DataFrame, collected: Collected) -> None:
    true, probabilities, classes = positions_of(rows), collected.calls.probabilities, classes_of(rows)
    kept = evaluate.risk_coverage(probabilities.argmax(axis=1) == true, probabilities.max(axis=1))
    dice = evaluate.dice(collected.mask)
    for figure in (
        visualize.ranking_curves(true, probabilities, classes, ""),
        visualize.reliability(true, collected.calls.before, probabilities, evaluate.N_BINS, ""),
        visualize.risk_coverage(*kept, ""),
        visualize.dice_by_class({code: dice[true == k] for k, code in enumerate(classes)}, ""),
    ):
        visualize.png(figure)


def synthetic(n: int, name: str = "ham10000") -> tuple[pd.DataFrame, Collected]:
    """A table of n images as in one of the `SETS`, and synthetic model outputs for them."""
    classes, shares, per_lesion = SETS[name]
    rng = np.random.default_rng(0)
    label = rng.choice(len(classes), n, p=shares)
    logits = rng.normal(size=(n, len(classes)))
    logits[np.arange(n), label] += 2
    columns = {"image": [f"image_{i:07}" for i in range(n)], "status": USED}
    columns["label"] = pd.Categorical.from_codes(label, classes)
    columns["lesion_id"] = [f"lesion_{i:07}" for i in (np.arange(n) / per_lesion).astype(int)]
    columns |= {"age": rng.integers(20, 90, n).astype(float), "sex": rng.choice(["female", "male"], n)}
    columns["dx_type"] = rng.choice(["histo", "follow_up"], n)
    columns["localization"] = rng.choice([f"site {i}" for i in range(15)], n)
    counts = rng.multinomial(224 * 224, [0.3, 0.02, 0.03, 0.65], size=n).astype(float)
    masks = {"mask": counts, "native": counts, "surface": rng.random((n, 2)) * 20}
    return pd.DataFrame(columns), Collected(label=logits, heat=rng.random((n, 2)), **masks)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(rows: list[dict], folder: Path) -> None:
    """Print the table as Markdown, and write it with its setup."""
    print("| set | images | seconds | CPU seconds | for scores | for subgroups | peak memory | before |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['set']} | {row['images']:,} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} "
            f"| {row['scores']:.1f} | {row['subgroups']:.1f} | {row['mb']:,.0f} MB | {row['mb_before']:,.0f} MB |"
        )
    setup = {"date": date.today().isoformat(), "device": cpu_name(), "cores": os.cpu_count(), "resamples": 2000}
    setup |= {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    print("\n" + ", ".join(f"{name} {value}" for name, value in setup.items()))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"evaluation-{setup['date']}.json"
    path.write_text(json.dumps({"setup": setup, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
