"""How fast this project trains, predicts and starts, beside what people use instead; all in one run, interleaved.

    python benchmarks/speed.py --data-dir data
    python benchmarks/speed.py --data-dir data --tasks classification --size 112 --repeats 5

Prints a table and writes it as JSON under benchmarks/results/. Peers that are not installed are reported as missing:
pip install -r benchmarks/requirements.txt
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import data
import evaluate
import models
import train
from benchmarks.peers import PEERS

BATCH_SIZE = {"classification": 32, "segmentation": 16, "multitask": 16}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--tasks", nargs="+", choices=list(BATCH_SIZE), default=list(BATCH_SIZE))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=224, help="pixels [224]")
    parser.add_argument("--steps", type=int, default=6, help="training steps timed at a time [6]")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, of which the median is reported [3]")
    parser.add_argument("--no-peers", action="store_true", help="leave out what others do")
    parser.add_argument("--no-start", action="store_true", help="leave out cache, start and memory")
    parser.add_argument("--cache-dir", default=tempfile.gettempdir() + "/speed_cache")
    parser.add_argument("--probe", choices=["start", "memory"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    train.keep_freed_memory()
    if options.probe:
        return probe(options)
    warnings.simplefilter("ignore")
    rows = [row for task in options.tasks for row in measure_task(task, options)]
    if not options.no_start:
        rows += measure_start(options)
    report(rows, options)


def load(options, data_dir=None):
    """The data set decoded and split, as main.py does it."""
    data_dir = data_dir or options.data_dir
    table, pixels = data.decode_table(data.read_table(data_dir), data_dir, options.size, options.cache_dir)
    table["split"] = data.split_table(table, 0.15, 0.15, seed=42)
    return table[table["status"] == data.USED], pixels


def measure_task(task: str, options) -> list[dict]:
    """Training and inference rates of one task, ours and others', in interleaved rounds."""
    device = train.choose_device(options.device)
    precision = train.choose_precision("auto", device)
    table, pixels = load(options)
    pixels = data.to_device(pixels, device)
    n_images = BATCH_SIZE[task] * (options.steps + 1)
    rows = table.sample(n_images, random_state=0)
    samples = list(zip(rows["image_path"], rows["mask_path"], rows["label"]))
    ours = Ours(task, pixels, rows, device, precision)
    contenders = {} if options.no_peers else PEERS[task]
    times: dict[str, list[float]] = {}
    for _ in range(options.repeats):
        for name, seconds in ours.seconds_an_image().items():
            times.setdefault(name, []).append(seconds)
        for name, contender in contenders.items():
            seconds = run_contender(contender, samples, task, options, device)
            if seconds is not None:
                times.setdefault(name, []).append(seconds)
    rates = {name: 1 / statistics.median(values) for name, values in times.items()}
    found = [row(task, "training", "ours", rates["ours"], "images/s")]
    for name in contenders:
        rate = rates.get(name)
        found.append(row(task, "training", name, rate, "images/s", rate and rates["ours"] / rate))
    found.append(row(task, "bare training step", "ours", rates["step"], "images/s", rates["ours"] / rates["step"]))
    found.append(row(task, "inference", "ours", rates["test"], "images/s"))
    found.append(row(task, "bare forward pass", "ours", rates["forward"], "images/s", rates["test"] / rates["forward"]))
    return found


class Ours:
    """This project's own epoch, test pass, and the bare step and forward pass that they contain."""

    def __init__(self, task: str, pixels, rows, device, precision) -> None:
        torch.manual_seed(0)
        self.model = models.MODELS[task]().to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=True)
        self.step = train.make_step(self.model, optimizer, precision)
        self.precision, self.device = precision, device
        self.train = data.Batches(pixels, rows, BATCH_SIZE[task], device=device, seed=0, augment="turns")
        self.test = data.Batches(pixels, rows, BATCH_SIZE[task], device=device)
        self.batch = next(iter(self.test.epoch()))

    def seconds_an_image(self) -> dict[str, float]:
        """Seconds an image of each: whole epochs, and as many bare steps."""
        n, n_batches = self.train.n_images, len(self.train)
        bare = lambda: [self.step(self.batch) for _ in range(n_batches)]  # noqa: E731
        forward = lambda: list(evaluate.predict(self.model, [self.batch] * n_batches, self.precision))  # noqa: E731
        self.model.train()
        self.step(self.batch)
        return {
            "ours": self._clock(lambda: train.train_epoch(self.model, self.train, self.step, 1)) / n,
            "step": self._clock(bare) / n,
            "test": self._clock(lambda: evaluate.summarise(self.model, self.test.epoch(), self.precision)) / n,
            "forward": self._clock(forward) / n,
        }

    def _clock(self, function) -> float:
        self._wait()
        started = time.perf_counter()
        function()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def run_contender(contender, samples, task, options, device) -> float | None:
    """Seconds an image over the steps after the first; None if the peer is not installed or fails."""
    try:
        ends = contender(samples, options.size, BATCH_SIZE[task], options.steps + 1, device)
        return (ends[-1] - ends[0]) / ((len(ends) - 1) * BATCH_SIZE[task])
    except ImportError as error:
        print(f"missing: {contender.__name__} ({error})", file=sys.stderr)
    except Exception as error:  # a peer's failure is a row of the table, not the end of it
        print(f"failed: {contender.__name__} ({error!r})", file=sys.stderr)
    return None


def measure_start(options) -> list[dict]:
    """Building the cache, starting on a built one, and peak memory with ten times the images."""
    table = data.read_table(options.data_dir)
    pairs = list(zip(table["image_path"], table["mask_path"]))[:300]
    torch.set_num_threads(1)
    started = time.perf_counter()
    for image, mask in pairs:
        data._decode_row(image, mask, options.size)
    single = len(pairs) / (time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        data.decode_table(table, options.data_dir, options.size, cache)
        build = len(table) / (time.perf_counter() - started)
    cores = os.cpu_count()
    rows = [
        row("data", "decoding, one core", "ours", single, "images/s"),
        row("data", f"building the cache, {cores} cores", "ours", build, "images/s", build / (cores * single)),
    ]
    load(options)
    seconds = json.loads(run_probe("start", options, options.data_dir))["seconds"]
    rows.append(row("data", f"first batch, {len(table):,} images cached", "ours", seconds, "s"))
    with tempfile.TemporaryDirectory() as place:
        peaks = []
        for times in (1, 10):
            folder = Path(place) / f"x{times}"
            link_copies(table.iloc[:1000], folder, times)
            peaks.append(json.loads(run_probe("memory", options, folder))["peak_mb"])
    rows.append(row("data", "peak memory, 1,000 images", "ours", peaks[0], "MB"))
    rows.append(row("data", "peak memory, 10,000 images", "ours", peaks[1], "MB", peaks[1] / peaks[0]))
    return rows


def run_probe(name: str, options, data_dir) -> str:
    """Run this script's measurement of a fresh process."""
    command = [sys.executable, __file__, "--probe", name, "--data-dir", str(data_dir), "--size", str(options.size)]
    done = subprocess.run([*command, "--cache-dir", options.cache_dir], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def probe(options) -> None:
    """In a fresh process, after the imports: the time to the first batch, or the peak of an epoch with ten steps."""
    started = time.perf_counter()
    table, pixels = load(options)
    ours = Ours("classification", pixels, table[table["split"] == "train"], torch.device("cpu"), "fp32")
    if options.probe == "start":
        print(json.dumps({"seconds": time.perf_counter() - started}))
        return
    for number, batch in enumerate(ours.train.epoch(1)):
        if number < 10:
            ours.step(batch)
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def link_copies(table, folder: Path, times: int) -> None:
    """A data folder with each image `times` times, as hard links where the disk allows, else copies."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    lines = ["image," + ",".join(data.CLASSES)]
    one_hot = np.eye(len(data.CLASSES), dtype=int)
    for image, image_path, mask_path, label in table[["image", "image_path", "mask_path", "label"]].values:
        for i in range(times):
            for source, target in ((image_path, f"images/{image}_{i}.jpg"), (mask_path, f"masks/{image}_{i}_mask.png")):
                try:
                    os.link(source, folder / target)
                except OSError:
                    shutil.copyfile(source, folder / target)
            lines.append(f"{image}_{i}," + ",".join(map(str, one_hot[label])))
    (folder / "GroundTruth.csv").write_text("\n".join(lines) + "\n")


def row(task: str, figure: str, who: str, value: float | None, unit: str, ratio: float | None = None) -> dict:
    return {"task": task, "figure": figure, "who": who, "value": value, "unit": unit, "ratio": ratio}


def report(rows: list[dict], options) -> None:
    """Print the table as Markdown, and write it with what it was measured on."""
    print("| task | figure | who | value | ours is |\n|---|---|---|---|---|")
    for r in rows:
        value = "missing" if r["value"] is None else f"{r['value']:.1f} {r['unit']}"
        ratio = f"{r['ratio']:.2f} ×" if r["ratio"] else ""
        print(f"| {r['task']} | {r['figure']} | {r['who']} | {value} | {ratio} |")
    device = train.choose_device(options.device)
    setup = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cores": os.cpu_count(),
        "precision": train.choose_precision("auto", device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "size": options.size,
        "steps": options.steps,
        "repeats": options.repeats,
    }
    print("\n" + ", ".join(f"{name} {value}" for name, value in setup.items()))
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"speed-{setup['date']}-{device.type}.json"
    path.write_text(json.dumps({"setup": setup, "rows": rows}, indent=2) + "\n")


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
