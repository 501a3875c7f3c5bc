"""The experiment: check the data, train three models, evaluate them on the test set, draw.

python main.py --data-dir path/to/HAM10000
python main.py --demo
"""

import argparse
import json
import os
import platform
import re
import sys
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import sklearn
import torch
import torchvision

import data
import machine
import models
import train
import visualize
from dataset import cache, leakage, splits, synthetic
from dataset import table as tables
from report import page, results

# Hyperparameters. Each is also a flag of the same name: --image-size 128.
DATA_DIR = "data"  # folder with GroundTruth.csv, images/ and masks/
OUTPUT_DIR = "outputs"  # folder for models, numbers and pictures
CACHE_DIR = "cache"  # folder for decoded images, shared by all runs
TASKS = ("classification", "segmentation", "multitask")  # models to train
SEED = 42  # of the split, the initial weights, the order of images and their augmentation
IMAGE_SIZE = 224  # pixels; images are resized to a square of this side
VAL_FRACTION = 0.15  # share of lesions for choosing the best epoch
TEST_FRACTION = 0.15  # share of lesions for the final numbers
GROUP_BY_LESION = True  # keep all images of a lesion in one part
GROUP_DUPLICATES = False  # count near duplicates of different lesion ids as one lesion too
LIMIT = 0  # use only this many images, stratified by class; 0 = all
PRETRAINED = "auto"  # ImageNet weights: auto (if they can be had), yes (must be had), no
AUGMENT = "turns"  # training images: turns (random flips and quarter turns), none
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, ...
PRECISION = "auto"  # auto (bf16 where the hardware has it), fp32, bf16
RESUME = False  # continue the run in OUTPUT_DIR where it stopped
EVALUATE_ONLY = False  # measure the models in OUTPUT_DIR instead of training new ones
EXTERNAL_DIR = ""  # another folder like DATA_DIR, measured whole after the test set
CUDA_GRAPHS = False  # replay each training step as one CUDA graph: for GPUs that small batches leave idle
KEEP_FREED_MEMORY = True  # reuse freed memory instead of handing it back to Linux: a faster step

CLASSIFICATION_EPOCHS = 15  # passes over the training images
CLASSIFICATION_BATCH_SIZE = 32  # images a step
CLASSIFICATION_LR = 1e-4  # Adam's learning rate
SEGMENTATION_EPOCHS = 25  # passes over the training images
SEGMENTATION_BATCH_SIZE = 16  # images a step
SEGMENTATION_LR = 1e-4  # Adam's learning rate
MULTITASK_EPOCHS = 10  # passes over the training images
MULTITASK_BATCH_SIZE = 16  # images a step
MULTITASK_LR = 1e-4  # Adam's learning rate

# What --demo sets instead; flags still win.
DEMO = {
    "DATA_DIR": "demo_data",
    "OUTPUT_DIR": "outputs_demo",
    "IMAGE_SIZE": 64,
    **{"CLASSIFICATION_EPOCHS": 12, "SEGMENTATION_EPOCHS": 8, "MULTITASK_EPOCHS": 12},
    **{"CLASSIFICATION_LR": 1e-3, "SEGMENTATION_LR": 1e-3, "MULTITASK_LR": 1e-3},
}

CONSTANTS = {name: value for name, value in globals().items() if name.isupper() and name != "DEMO"}
CHOICES = {
    "TASKS": tuple(models.MODELS),
    "PRETRAINED": ("auto", "yes", "no"),
    "AUGMENT": ("none", "turns"),
    "PRECISION": ("auto", "fp32", "bf16"),
}
DEMO_NOTE = "synthetic demo data"


def main(argv: list[str] | None = None) -> int:
    """Run the experiment and return the exit code; a user's mistake ends in one message."""
    config = parse_arguments(argv)
    try:
        run(config)
    except KeyboardInterrupt:
        return stop(130, "Stopped. The same command with --resume goes on from the last whole epoch.")
    except (FloatingPointError, MemoryError) as error:
        return stop(1, str(error))
    except (ValueError, FileNotFoundError) as error:
        return stop(2, str(error))
    except OSError as error:
        where = error.filename or config.OUTPUT_DIR
        advice = "Make room, or name another --output-dir or --cache-dir. What was finished is kept for --resume."
        return stop(1, f"Cannot write {where}: {error.strerror}. {advice}")
    return 0


def run(config: SimpleNamespace) -> None:
    """Prepare, then train, evaluate and draw each model."""
    if config.KEEP_FREED_MEMORY:
        machine.keep_freed_memory()
    device, rank, n_ranks = machine.join_processes(machine.choose_device(config.DEVICE))
    precision = machine.choose_precision(config.PRECISION, device)
    with machine.first_process_first():
        Path(config.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
        if config.DEMO and not Path(config.DATA_DIR).exists():
            synthetic.write_dataset(config.DATA_DIR, seed=config.SEED)
        describe_run(config, device, precision, n_ranks)
        table, pixels = prepare_data(config)
        encoder_weights, start = models.imagenet_start("no" if config.EVALUATE_ONLY else config.PRETRAINED)
        say("" if config.EVALUATE_ONLY else start)

    pixels = data.to_device(pixels, device)
    tasks = choose_tasks(config, table)
    for task in tasks:
        say(f"\n=== {task} ===")
        ranks = {"train": (rank, n_ranks), "val": (rank, n_ranks), "test": (0, 1)}
        batches = {split: make_batches(config, task, table, pixels, device, split, *ranks[split]) for split in ranks}
        if config.EVALUATE_ONLY:
            check_checkpoint(config, task, table)
        else:
            train_model(
                config,
                task,
                batches,
                precision,
                encoder_weights,
                identity(config, task, table, precision, "ImageNet" if encoder_weights else "scratch"),
            )
        assess_model(config, task, batches, precision)
    if machine.is_first():
        audit_leakage(config, table, pixels)
        compare_models(config, table)
        write(config, "report.html", page.build(Path(config.OUTPUT_DIR)))
    say(f"\nModels, numbers and pictures are in {Path(config.OUTPUT_DIR).resolve()}; open report.html there")


def prepare_data(config: SimpleNamespace) -> tuple[pd.DataFrame, np.ndarray]:
    """Read, check, decode and split; write what became of each row, and print the counts."""
    fractions = {"val_fraction": config.VAL_FRACTION, "test_fraction": config.TEST_FRACTION, "seed": config.SEED}
    table = splits.limit_table(tables.read_table(config.DATA_DIR), config.LIMIT, config.SEED)
    table, pixels = cache.decode_table(table, config.DATA_DIR, config.IMAGE_SIZE, config.CACHE_DIR)
    write(config, "data_report.csv", as_csv(table[["image", "status", "reason"]]))
    say(f"\n{tables.describe_table(table)}")
    if config.GROUP_DUPLICATES:
        usable = table[table["status"] != tables.LEFT_OUT]
        table.loc[usable.index, "lesion_id"] = leakage.merge_lesions(usable, leakage.find_pairs(usable, pixels))
    table["split"] = splits.split_table(table, **fractions, group_by_lesion=config.GROUP_BY_LESION)

    used = table[table["split"] != ""].sort_values("image")
    codes = used["label"].map(dict(enumerate(tables.CLASSES)))
    write(config, "splits.csv", as_csv(used.assign(label=codes)[["image", "label", "lesion_id", "split"]]))
    counts = splits.class_table(table)
    draw(config, "class_distribution.png", visualize.class_distribution(counts, "Images per class and part"))
    say(f"\n{counts.to_string()}\n{splits.describe_split(table, **fractions)}")
    return table, pixels


def choose_tasks(config: SimpleNamespace, table: pd.DataFrame) -> list[str]:
    """The tasks that there are masks for; the others are named and left out."""
    with_mask = set(table.loc[table["status"] == tables.USED, "split"])
    possible = [task for task in config.TASKS if not has_masks(task) or with_mask >= set(tables.SPLITS)]
    left_out = ", ".join(task for task in config.TASKS if task not in possible)
    if left_out:
        message = f"Too few masks in {config.DATA_DIR} for {left_out}: each part of the split needs some."
        if not possible:
            raise ValueError(f"{message} Put them into masks/ as <image>_segmentation.png.")
        say(f"{message} Going on without.")
    return possible


def has_masks(task: str) -> bool:
    return task != "classification"


def make_batches(config, task: str, table: pd.DataFrame, pixels, device, split: str, rank: int, n_ranks: int):
    """One part of the table; a model of masks gets the rows that have one. Training is shuffled and augmented."""
    rows = table[table["split"] == split]
    if has_masks(task):
        rows = rows[rows["status"] == tables.USED]
    options = {"seed": config.SEED, "augment": config.AUGMENT} if split == "train" else {}
    size = setting(config, task, "BATCH_SIZE")
    return data.Batches(pixels, rows, size, device=device, rank=rank, n_ranks=n_ranks, **options)


def identity(config, task: str, table: pd.DataFrame, precision: str, start: str) -> dict:
    """What a run must share with the one it resumes."""
    names = ("SEED", "IMAGE_SIZE", "AUGMENT", *(f"{task.upper()}_{name}" for name in ("EPOCHS", "BATCH_SIZE", "LR")))
    settings = {name: getattr(config, name) for name in names}
    return settings | {"precision": precision, "initial weights": start, "data": splits.split_hash(table)}


def train_model(config, task: str, batches: dict, precision: str, encoder_weights: dict | None, identity: dict) -> None:
    """Train one model, keep its best epoch, and draw its curves."""
    torch.manual_seed(config.SEED)
    model = models.MODELS[task]()
    if encoder_weights:
        model.encoder.load_state_dict(encoder_weights)
    model.to(batches["train"].device, memory_format=torch.channels_last)
    try:
        history = train.fit(
            model,
            batches["train"],
            batches["val"],
            epochs=setting(config, task, "EPOCHS"),
            lr=setting(config, task, "LR"),
            seed=config.SEED,
            precision=precision,
            best_path=checkpoint_path(config, task),
            folder=Path(config.OUTPUT_DIR) / task,
            description=describe_model(config, task, model, batches["train"].table, identity),
            identity=identity,
            resume=config.RESUME,
            cuda_graphs=config.CUDA_GRAPHS and batches["train"].device.type == "cuda" and not machine.is_distributed(),
        )
    except torch.cuda.OutOfMemoryError as error:
        size = setting(config, task, "BATCH_SIZE")
        advice = f"Try --{task}-batch-size {size // 2}" if size > 1 else "Try a smaller --image-size"
        raise MemoryError(f"The GPU's memory does not hold {task} with {size} images a batch. {advice}.") from error
    draw(config, f"{task}/training_curves.png", visualize.training_curves(pd.DataFrame(history), task))


def check_checkpoint(config, task: str, table: pd.DataFrame) -> None:
    """Refuse to evaluate a checkpoint on images that it may have been trained on."""
    path = checkpoint_path(config, task)
    checkpoint = models.load_checkpoint(path)
    if checkpoint["image_size"] != config.IMAGE_SIZE:
        raise ValueError(f"{path} was trained at --image-size {checkpoint['image_size']}, not {config.IMAGE_SIZE}.")
    if checkpoint["split_hash"] == splits.split_hash(table):
        return
    seen, test = checkpoint.get("trained_on", {"images": [], "lesions": []}), table[table["split"] == "test"]
    leaking = test.loc[test["image"].isin(seen["images"]) | test["lesion_id"].isin(seen["lesions"]), "image"]
    examples = f", such as {', '.join(leaking[:5])}" if len(leaking) else ""
    raise ValueError(
        f"{path} was trained on another split or other data: {len(leaking)} of today's {len(test)} test images show "
        f"lesions that it was trained on{examples}. Use the settings it was trained with, or train again."
    )


def assess_model(config, task: str, batches: dict, precision: str) -> None:
    """Measure the best epoch's model on the test set, and on another data set if one is named."""
    path = checkpoint_path(config, task)
    with machine.first_process_first():  # which has just written the checkpoint
        model = models.load_model(path, batches["test"].device)
        checkpoint = models.load_checkpoint(path)
    if "calibration" not in checkpoint or not results.is_current(checkpoint["calibration"]):
        checkpoint["calibration"] = results.calibrate(model, batches["val"].whole(), precision)
        if machine.is_first():
            train.save(path, checkpoint)
    about = {name: checkpoint.get(name, "unknown") for name in ("initial_weights", "epoch")}
    options = {"task": task, "precision": precision, "note": DEMO_NOTE if config.DEMO else "", "about": about}
    found = results.assess(
        model,
        batches["test"],
        checkpoint["calibration"],
        write=partial(write, config, folder=task),
        **options,
    )
    if found:
        say(results.summary(f"{task}, test set", found))
    if config.EXTERNAL_DIR:
        folder = f"external/{task}"
        with machine.first_process_first():
            external = external_batches(config, task, batches["test"])
        if external is None:
            say(f"{task}: {config.EXTERNAL_DIR} has no masks to measure it with.")
            return
        found = results.assess(
            model,
            external,
            checkpoint["calibration"],
            write=partial(write, config, folder=folder),
            **options,
        )
        if found:
            say(results.summary(f"{task}, {config.EXTERNAL_DIR}", found))


def external_batches(config, task: str, like: data.Batches) -> data.Batches | None:
    """All usable images of the other data set; None if a model of masks alone finds no mask there."""
    table, pixels = cache.decode_table(
        tables.read_table(config.EXTERNAL_DIR), config.EXTERNAL_DIR, config.IMAGE_SIZE, config.CACHE_DIR
    )
    write(config, "external/data_report.csv", as_csv(table[["image", "status", "reason"]]))
    wanted = [tables.USED] if task == "segmentation" else [tables.USED, tables.LABEL_ONLY]
    rows = table[table["status"].isin(wanted)]
    return data.Batches(pixels, rows, like.sizes[0], device=like.device) if len(rows) else None


def audit_leakage(config, table: pd.DataFrame, pixels) -> None:
    """Write which pairs show the same thing, and how many lie across the split."""
    used = table[table["split"] != ""]
    pairs = leakage.find_pairs(used, data.to_host(pixels))
    by_image = splits.split_table(table, config.VAL_FRACTION, config.TEST_FRACTION, config.SEED, group_by_lesion=False)
    pairs = leakage.crossing(pairs, used.set_index("image")["split"])
    pairs["crosses_by_image"] = leakage.crossing(pairs, by_image.set_axis(table["image"]))["crosses"]
    write(config, "leakage.csv", as_csv(pairs))
    say(f"\n{leakage.describe(pairs)}")


def compare_models(config, table: pd.DataFrame) -> None:
    """Write how the multi-task model differs from the single-task ones on the same test images."""
    lesions, found = table[table["split"] != ""].set_index("image")["lesion_id"], {}
    for task, file in (("classification", "predictions.csv"), ("segmentation", "per_image.csv")):
        pair = [Path(config.OUTPUT_DIR) / name / file for name in (task, "multitask")]
        if {task, "multitask"} <= set(config.TASKS) and all(path.exists() for path in pair):
            found[task] = results.compare(*map(pd.read_csv, pair), lesions)
    if found:
        write(config, "comparison.json", as_json(found))


def describe_run(config: SimpleNamespace, device: torch.device, precision: str, n_ranks: int) -> None:
    """Print and save what is run, and on what."""
    environment = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processes": n_ranks,
        "precision": precision,
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions(),
    }
    settings = vars(config) | ({"data": DEMO_NOTE} if config.DEMO else {})
    write(config, "config.json", as_json(settings))
    write(config, "environment.json", as_json(environment))
    if config.DEMO:
        say(f"*** {DEMO_NOTE}: these numbers say nothing about real lesions ***")
    for name, value in (settings | environment).items():
        say(f"{name:26} {' '.join(value) if isinstance(value, tuple | list) else value}")


def describe_model(config, task: str, model: models.Model, rows: pd.DataFrame, identity: dict) -> dict:
    """What a checkpoint says of its model beside the weights, in plain types."""
    return {
        "task": task,
        "arguments": model.arguments,
        "classes": list(tables.CLASSES),
        "image_size": config.IMAGE_SIZE,
        "mean": list(data.MEAN),
        "std": list(data.STD),
        "initial_weights": identity["initial weights"],
        "split_hash": identity["data"],
        "trained_on": {"images": list(rows["image"]), "lesions": sorted(set(rows["lesion_id"]))},
        "config": json.loads(as_json(vars(config))),
        "versions": versions(),
        "note": DEMO_NOTE if config.DEMO else "",
    }


def versions() -> dict[str, str]:
    return {module.__name__: str(module.__version__) for module in (torch, torchvision, np, pd, sklearn)}


def setting(config: SimpleNamespace, task: str, name: str):
    return getattr(config, f"{task.upper()}_{name}")


def checkpoint_path(config: SimpleNamespace, task: str) -> Path:
    return Path(config.OUTPUT_DIR) / f"best_{task}_model.pth"


def say(text: str) -> None:
    if machine.is_first():
        print(text, flush=True)


def write(config: SimpleNamespace, name: str, content: str | bytes, folder: str = "") -> None:
    if machine.is_first():
        path = Path(config.OUTPUT_DIR) / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        train.write_file(path, content.encode() if isinstance(content, str) else content)


def draw(config: SimpleNamespace, name: str, figure) -> None:
    write(config, name, visualize.png(figure, DEMO_NOTE if config.DEMO else ""))


def as_csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")


def as_json(content: dict) -> str:
    return json.dumps(content, indent=2) + "\n"


def parse_arguments(argv: list[str] | None) -> SimpleNamespace:
    """The constants at the top, overridden by --demo and then by flags; exits with 2 on a mistake."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("--demo", action="store_true", help="make a small synthetic data set and run on it, in minutes")
    source = Path(__file__).read_text(encoding="utf-8")
    comments = dict(re.findall(r"^([A-Z_]+) = .*?  # (.+)$", source, re.MULTILINE))
    for name, default in CONSTANTS.items():
        flag, shown = f"--{name.lower().replace('_', '-')}", " ".join(default) if name == "TASKS" else default
        kind: dict = {"type": type(default), "choices": CHOICES.get(name)}
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif isinstance(default, tuple):
            kind = {"nargs": "+", "choices": CHOICES[name]}
        elif name not in CHOICES:
            kind["metavar"] = {int: "N", float: "X", str: "TEXT"}[type(default)]
        parser.add_argument(flag, dest=name, default=argparse.SUPPRESS, help=f"{comments[name]} [{shown}]", **kind)
    flags = vars(parser.parse_args(argv))
    demo = flags.pop("demo")
    if demo and "DATA_DIR" in flags:
        parser.error("--demo makes its own data: leave out --data-dir, or --demo")
    config = SimpleNamespace(**CONSTANTS | (DEMO if demo else {}) | flags, DEMO=demo)
    if problem := find_problem(config):
        parser.error(problem)
    return config


def find_problem(config: SimpleNamespace) -> str:
    """What is wrong with the settings' values, in words; "" if nothing is."""
    for name, value in vars(config).items():
        chosen = value if isinstance(value, tuple | list) else (value,)
        if name in CHOICES and not (chosen and set(chosen) <= set(CHOICES[name])):
            return f"{name} must be among {', '.join(CHOICES[name])}, not {value}"
        if name.endswith(("_EPOCHS", "_BATCH_SIZE", "_LR", "_FRACTION")) and not value > 0:
            return f"{name} must be above 0, not {value}"
    if config.VAL_FRACTION + config.TEST_FRACTION >= 1:
        return "VAL_FRACTION and TEST_FRACTION must leave images to train on: their sum must be below 1"
    if config.IMAGE_SIZE < 32:
        return f"IMAGE_SIZE must be at least 32, not {config.IMAGE_SIZE}"
    if config.LIMIT < 0 or config.SEED < 0:
        return "LIMIT and SEED must not be negative"
    return ""


def stop(code: int, message: str) -> int:
    print(f"\n{message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
