"""Speed of training, prediction and start of this project and common alternatives, in interleaved rounds of one run.

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
import pandas as pd
import torch

import data
import evaluate
import machine
import models
import train
from benchmarks import start
from benchmarks.peers import PEERS
from checkpoints.states import save
from dataset import images
from dataset.cache import decode_table
from dataset.classes import HAM10000 as CLASSES
from dataset.classes import positions_of
from dataset.pixelfile import PixelFile
from dataset.prepare import prepare
from dataset.table import USED, read_table
from inference.inputs import list_images
from inference.outputs import Outputs
from inference.predictor import Predictor
from inference.process import process_all

BATCH_SIZE = {"classification": 32, "segmentation": 16, "multitask": 16}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument(
        "--tasks", nargs="*", choices=list(BATCH_SIZE), default=list(BATCH_SIZE), help="none: data only"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=224, help="pixels [224]")
    parser.add_argument("--steps", type=int, default=6, help="training steps per timing [6]")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the median is reported [3]")
    parser.add_argument("--no-peers", action="store_true", help="skip the alternatives")
    parser.add_argument("--no-start", action="store_true", help="skip cache, start, memory and predict.py")
    parser.add_argument(
        "--output-dir", type=Path, default=Path(__file__).parent / "results", help="folder for the JSON"
    )
    parser.add_argument("--cache-dir", default=tempfile.gettempdir() + "/speed_cache")
    parser.add_argument("--probe", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(probe(*options.probe, options)))
        return
    load(options)  # builds the cache if it is missing
    rows = [row for task in options.tasks for row in measure_task(task, options)]
    if not options.no_start:
        rows += measure_start(options)
    report(rows, options)


def probe(task: str, name: str, options) -> dict[str, float | str]:
    """One measurement, in this process: seconds per image, or another unit, by figure."""
    warnings.simplefilter("ignore")
    if task == "data":
        return {"start": time_start, "memory": peak_memory, "predict": time_predict}[name](options)
    device = machine.choose_device(options.device)
    if name == "ours":
        return Ours(task, options, device).seconds_per_image()
    table, _ = load(options)
    rows = table.sample(min(len(table), BATCH_SIZE[task] * (options.steps + 1)), random_state=0)
    samples = list(zip(rows["image_path"], rows["mask_path"], positions_of(rows)))
    try:
        ends = PEERS[task][name](samples, options.size, BATCH_SIZE[task], options.steps + 1, device)
    except ImportError as error:
        return {"missing": str(error)}
    return {"training": (ends[-1] - ends[0]) / ((len(ends) - 1) * BATCH_SIZE[task])}


def run_probe(task: str, name: str, options, data_dir=None) -> dict:
    """`probe` in a fresh process, as for a user's script: no setting of one contender reaches another."""
    command = [sys.executable, __file__, "--probe", task, name, "--data-dir", str(data_dir or options.data_dir)]
    for option in ("device", "size", "steps", "cache_dir"):
        command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def load(options) -> tuple[pd.DataFrame, PixelFile]:
    """The rows with a diagnosis and a mask, split as in main.py, and all pixels."""
    data_set = prepare(options.data_dir, options.size, options.cache_dir, say=str)
    return data_set.table[data_set.table["status"] == USED], data_set.pixels


def measure_task(task: str, options) -> list[dict]:
    """Training and inference rates of one task, ours and others'."""
    names = ["ours"] + ([] if options.no_peers else list(PEERS[task]))
    rates, troubles = median_rates(task, names, options)
    ours = rates["ours", "training"]
    rows = [row(task, "training", "ours", ours, "images/s")]
    for name in names[1:]:
        rate = rates.get((name, "training"))
        rows.append(row(task, "training", name, rate, "images/s", rate and ours / rate, troubles.get(name, "")))
    for figure, bare in (("training", "bare training step"), ("inference", "bare forward pass")):
        rate = rates["ours", bare]
        if figure != "training":
            rows.append(row(task, figure, "ours", rates["ours", figure], "images/s"))
        rows.append(row(task, bare, "ours", rate, "images/s", rates["ours", figure] / rate))
    return rows


def median_rates(task: str, names: list[str], options) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    """Images per second by (contender, figure) over interleaved rounds, and the last failure by contender."""
    seconds: dict[tuple[str, str], list[float]] = {}
    troubles: dict[str, str] = {}
    for name in names * options.repeats:
        for figure, value in run_probe(task, name, options).items():
            if isinstance(value, str):
                troubles[name] = f"{figure}: {value}"
            else:
                seconds.setdefault((name, figure), []).append(value)
    return {key: 1 / statistics.median(values) for key, values in seconds.items()}, troubles


class Ours:
    """This project's epoch and test pass, and the bare step and forward pass that they contain."""

    def __init__(self, task: str, options, device: torch.device) -> None:
        machine.keep_freed_memory()
        table, pixels = load(options)
        rows = table[table["split"] == "train"]
        self.device, self.precision = device, machine.choose_precision("auto", device)
        torch.manual_seed(0)
        self.model = models.MODELS[task]().to(device, memory_format=torch.channels_last)
        rows = rows.sample(min(len(rows), BATCH_SIZE[task] * (options.steps + 1)), random_state=0)
        pixels = data.to_device(pixels, device)
        self.train = data.Batches(pixels, rows, BATCH_SIZE[task], device=device, seed=0, augment=("flips", "rotations"))
        self.test = data.Batches(pixels, rows, BATCH_SIZE[task], device=device)
        self.batch = next(self.train.epoch(1))
        recipe = train.Recipe(1, BATCH_SIZE[task], 1e-4)
        self.learner = train.Learner(self.model, recipe, recipe.losses(), self.precision, len(self.train))

    def seconds_per_image(self, rounds: int = 3) -> dict[str, float]:
        """Medians of interleaved rounds: whole epochs, and as many bare steps on one batch."""
        n_batches = len(self.train)
        figures = {
            "training": lambda: train.train_epoch(self.learner, self.train, 1),
            "bare training step": lambda: [self.learner.step(self.batch, 0) for _ in range(n_batches)],
            "inference": lambda: train.validate(self.model, self.test, self.learner.losses, self.precision),
            "bare forward pass": lambda: list(evaluate.infer(self.model, [self.batch] * n_batches, self.precision)),
        }
        self.model.train()
        self.learner.step(self.batch, 0)
        times: dict[str, list[float]] = {name: [] for name in figures}
        for _ in range(rounds):
            for name, run in figures.items():
                times[name].append(self._clock(run))
        return {name: statistics.median(values) / self.train.n_images for name, values in times.items()}

    def _clock(self, function) -> float:
        self._wait()
        started = time.perf_counter()
        function()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure_start(options) -> list[dict]:
    """Building the cache, starting on a built one, and peak memory with ten times the images."""
    table = read_table(options.data_dir)
    pairs = list(zip(table["image_path"], table["mask_path"]))[:300]
    torch.set_num_threads(1)
    started = time.perf_counter()
    for image, mask in pairs:
        images.decode_row(image, mask, options.size)
    single = len(pairs) / (time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        decode_table(table, options.data_dir, options.size, cache)
        build = len(table) / (time.perf_counter() - started)
    cores = os.cpu_count()
    rows = [
        row("data", "decoding, one core", "ours", single, "images/s"),
        row("data", f"building the cache, {cores} cores", "ours", build, "images/s", build / (cores * single)),
    ]
    seconds = run_probe("data", "start", options)["seconds"]
    rows.append(row("data", f"first batch, {len(table):,} images cached", "ours", seconds, "s"))
    with tempfile.TemporaryDirectory() as place:
        peaks = []
        for times in (1, 10):
            folder = Path(place) / f"x{times}"
            link_copies(table.iloc[:1000], folder, times)
            peaks.append(run_probe("data", "memory", options, folder)["peak_mb"])
    rows.append(row("data", "peak memory, 1,000 images", "ours", peaks[0], "MB"))
    rows.append(row("data", "peak memory, 10,000 images", "ours", peaks[1], "MB", peaks[1] / peaks[0]))
    seconds = run_probe("data", "predict", options)
    bare = seconds["bare forward pass"]
    return rows + [row("predict.py", name, "ours", 1 / s, "images/s", bare / s) for name, s in seconds.items()]


def time_start(options) -> dict[str, float]:
    """Seconds from the end of the imports to the first training batch."""
    started = time.perf_counter()
    table, pixels = load(options)
    batches = data.Batches(pixels, table[table["split"] == "train"], 32, device=torch.device("cpu"), seed=0)
    next(batches.epoch(1))
    return {"seconds": time.perf_counter() - started}


def peak_memory(options) -> dict[str, float]:
    """This process's peak over ten training steps and one epoch of reading."""
    machine.keep_freed_memory()
    table, pixels = load(options)
    model = models.Classifier().to(memory_format=torch.channels_last)
    recipe = train.Recipe(1, 32, 1e-4)
    learner = train.Learner(model, recipe, recipe.losses(), "fp32", 10)
    batches = data.Batches(pixels, table[table["split"] == "train"], 32, device=torch.device("cpu"), seed=0)
    for number, batch in enumerate(batches.epoch(1)):
        if number < 10:
            learner.step(batch, number)
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def time_predict(options, n_images: int = 200, rounds: int = 3) -> dict[str, float]:
    """predict.py on JPEGs of 600x450 pixels with an untrained multi-task model: seconds per image, by step."""
    machine.keep_freed_memory()
    with tempfile.TemporaryDirectory() as place:
        folder, model = Path(place), models.MultiTask()
        about = {"task": "multitask", "arguments": model.arguments, "classes": list(CLASSES)}
        save(folder / "model.pth", about | {"image_size": options.size, "weights": model.state_dict()})
        predictor = Predictor(folder / "model.pth", device=options.device)
        files = []
        for path in read_table(options.data_dir)["image_path"][:n_images]:
            files.append(folder / Path(path).with_suffix(".jpg").name)
            images.read_image(path, (600, 450)).save(files[-1], quality=92)
        listed = list_images(list(map(str, files)), folder)
        everything, nothing = (Outputs(folder, predictor) for _ in range(2))
        nothing.write_image = lambda *_: []
        batch = [predictor.read(file) for file in files[:16]]
        runs = {
            "bare forward pass": lambda: [predictor.predict(batch) for _ in range(-(-len(files) // 16))],
            "decoding and predicting": lambda: list(process_all(nothing, listed, 16)),
            "with masks and overlays": lambda: list(process_all(everything, listed, 16)),
        }
        predictor.predict(batch)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                started = time.perf_counter()
                run()
                n = 16 * -(-len(files) // 16) if name.startswith("bare") else len(files)
                times[name].append((time.perf_counter() - started) / n)
        return {name: statistics.median(values) for name, values in times.items()}


def link_copies(table, folder: Path, times: int) -> None:
    """A data folder with each image `times` times, as hard links if the disk allows, else copies."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    lines = ["image," + ",".join(CLASSES)]
    one_hot = np.eye(len(CLASSES), dtype=int)
    for image, image_path, mask_path, label in table[["image", "image_path", "mask_path", "label"]].values:
        for i in range(times):
            link_or_copy(image_path, folder / f"images/{image}_{i}.jpg")
            link_or_copy(mask_path, folder / f"masks/{image}_{i}_mask.png")
            lines.append(f"{image}_{i}," + ",".join(map(str, one_hot[CLASSES.index(label)])))
    (folder / "GroundTruth.csv").write_text("\n".join(lines) + "\n")


def link_or_copy(source: str, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def row(task: str, figure: str, who: str, value: float | None, unit: str, ratio=None, trouble: str = "") -> dict:
    return {
        "task": task,
        "figure": figure,
        "who": who,
        "value": value,
        "unit": unit,
        "ratio": ratio,
        "trouble": trouble,
    }


def report(rows: list[dict], options) -> None:
    """Print the table as Markdown, and write it with its setup."""
    print("| task | figure | who | value | ours is |\n|---|---|---|---|---|")
    for r in rows:
        value = r["trouble"] if r["value"] is None else f"{r['value']:.1f} {r['unit']}"
        ratio = f"{r['ratio']:.2f} ×" if r["ratio"] else ""
        print(f"| {r['task']} | {r['figure']} | {r['who']} | {value} | {ratio} |")
    device = machine.choose_device(options.device)
    setup = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cores": os.cpu_count(),
        "precision": machine.choose_precision("auto", device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "size": options.size,
        "steps": options.steps,
        "repeats": options.repeats,
    }
    print("\n" + ", ".join(f"{name} {value}" for name, value in setup.items()))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    part = "" if len(options.tasks) == len(BATCH_SIZE) else f"-{'-'.join(options.tasks) or 'data'}"
    path = options.output_dir / f"speed-{setup['date']}-{device.type}{part}.json"
    path.write_text(json.dumps({"setup": setup, "rows": rows}, indent=2) + "\n")


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    start(main)
