"""The experiment: check the data, train three models, evaluate them on the test set, draw.

python main.py --data-dir path/to/HAM10000
python main.py --demo
"""

import argparse
import math
import os
import platform
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

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
from dataset import leakage, splits, synthetic
from dataset import table as tables
from dataset.cache import PixelFile, decode_table
from dataset.csvfile import read_back
from report import page, results
from report.folder import RunFolder

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


class DataSet(NamedTuple):
    """A data folder, read, checked, decoded and split."""

    table: pd.DataFrame
    pixels: PixelFile
    by_image: pd.Series | None  # the parts of a split by image; None if that is not possible


class External(NamedTuple):
    """Another data set, to be measured whole."""

    table: pd.DataFrame
    pixels: PixelFile
    left_out: str  # how many images show what was learned from, in words


def main(argv: list[str] | None = None) -> int:
    """Run the experiment and return the exit code; a user's mistake ends in one message."""
    machine.print_anything()
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
        return stop(1, f"Cannot write {where}: {error.strerror or error}. {advice}")
    return 0


def run(config: SimpleNamespace) -> None:
    """Prepare and check, and then train, measure and draw each model."""
    if config.KEEP_FREED_MEMORY:
        machine.keep_freed_memory()
    device, rank, n_ranks = machine.join_processes(machine.choose_device(config.DEVICE))
    precision = machine.choose_precision(config.PRECISION, device)
    folder = RunFolder(config.OUTPUT_DIR, DEMO_NOTE if config.DEMO else "")
    with folder.locked():
        environment = describe_environment(device, precision, n_ranks)
        show_settings(config, environment)

        # All that can be refused is refused before the first file is written.
        data_set = prepare_data(config)
        external = prepare_external(config, data_set) if config.EXTERNAL_DIR else None
        tasks = choose_tasks(config, folder, data_set.table)
        encoder_weights, start = models.imagenet_start("no" if config.EVALUATE_ONLY else config.PRETRAINED)
        say("" if config.EVALUATE_ONLY else start)
        pixels = data.to_device(data_set.pixels, device)
        batches = {task: make_batches(config, task, data_set.table, pixels, device, rank, n_ranks) for task in tasks}
        shared = {"precision": precision, "processes": n_ranks, "data": splits.split_hash(data_set.table)}
        shared["initial_weights"] = "ImageNet" if encoder_weights else "scratch"
        begin(config, folder, tasks, shared, environment, data_set.table)
        if folder.is_finished(tasks, config.EXTERNAL_DIR):
            return say(f"\n{folder.path} holds this run, finished: nothing is left to do.")

        write_data(folder, data_set, external)
        for task in tasks:
            say(f"\n=== {task} ===")
            if not folder.facts(task).get("trained"):
                train_model(config, folder, task, batches[task], encoder_weights, shared, environment)
            if folder.facts(task).get("measured") != config.EXTERNAL_DIR:
                measure_model(config, folder, task, batches[task], external, precision)
        audit_leakage(folder, data_set)
        compare_models(folder, data_set.table)
        if machine.is_first():
            folder.write("report.html", page.build(folder.path))
        folder.note(finished=True)
    say(f"\nModels, numbers and pictures are in {folder.path.resolve()}; open report.html there")


def prepare_data(config: SimpleNamespace) -> DataSet:
    """Read, check, decode and split; print what was found."""
    if config.DEMO:
        machine.from_first(draw_demo, config)
    fractions = {"val_fraction": config.VAL_FRACTION, "test_fraction": config.TEST_FRACTION, "seed": config.SEED}
    table = splits.limit_table(tables.read_table(config.DATA_DIR), config.LIMIT, config.SEED)
    table, pixels = decode_table(table, config.DATA_DIR, config.IMAGE_SIZE, config.CACHE_DIR)
    say(f"\n{tables.describe_table(table)}")
    if config.GROUP_DUPLICATES:
        usable = tables.usable(table)
        table.loc[usable.index, "lesion_id"] = leakage.merge_lesions(usable, leakage.find_pairs(usable, pixels))
    table["split"] = splits.split_table(table, **fractions, group_by_lesion=config.GROUP_BY_LESION)
    by_image = splits.split_by_image(table, **fractions)
    say(f"\n{splits.class_table(table).to_string()}\n{splits.describe_split(table, by_image)}")
    return DataSet(table, pixels, by_image)


def draw_demo(config: SimpleNamespace) -> None:
    if not Path(config.DATA_DIR).exists():
        synthetic.write_dataset(config.DATA_DIR, seed=config.SEED)


def prepare_external(config: SimpleNamespace, data_set: DataSet) -> External:
    """Read, check and decode the other data set, and leave out what shows the same as the images learned from."""
    table = tables.read_table(config.EXTERNAL_DIR)
    table, pixels = decode_table(table, config.EXTERNAL_DIR, config.IMAGE_SIZE, config.CACHE_DIR)
    learned = data_set.table[data_set.table["split"].isin(["train", "val"])]
    overlap = leakage.overlap(tables.usable(table), pixels, learned, data_set.pixels)
    left_out = leakage.describe_overlap(overlap, config.EXTERNAL_DIR)
    for reason, members in overlap[overlap != ""].groupby(overlap):
        tables.leave_out(table, table.index.isin(members.index), f"{reason} as an image learned from")
    say(f"\n{config.EXTERNAL_DIR}: {tables.describe_table(table)}\n{left_out}")
    if tables.usable(table).empty:
        raise ValueError(f"--external-dir {config.EXTERNAL_DIR} has no image that can be measured. {left_out}")
    return External(table, pixels, left_out)


def choose_tasks(config: SimpleNamespace, folder: RunFolder, table: pd.DataFrame) -> list[str]:
    """The tasks that there are masks for, and a checkpoint if nothing is trained; the others are named and left out."""
    with_mask = set(table.loc[tables.has_mask(table), "split"])
    possible = [task for task in config.TASKS if not has_masks(task) or with_mask >= set(tables.SPLITS)]
    problem = f"Too few masks in {config.DATA_DIR} for {{}}: each part of the split needs some."
    go_on_with(possible, config.TASKS, problem, "Put them into masks/ as <image>_segmentation.png.")
    if config.EVALUATE_ONLY:
        there = machine.from_first(lambda: [task for task in possible if folder.best_path(task).exists()])
        go_on_with(there, possible, f"No checkpoint in {folder.path} for {{}}.", "Train it first.")
        return there
    return possible


def go_on_with(some: Sequence[str], tasks: Sequence[str], problem: str, advice: str) -> None:
    """Say which of the tasks are left out; raises ValueError if none is left."""
    if missing := [task for task in tasks if task not in some]:
        message = problem.format(", ".join(missing))
        if not some:
            raise ValueError(f"{message} {advice}")
        say(f"{message} Going on without.")


def has_masks(task: str) -> bool:
    return task != "classification"


def make_batches(config, task: str, table: pd.DataFrame, pixels, device, rank: int, n_ranks: int) -> dict:
    """Batches by part of the split; a model of masks gets the rows that have one. Training is shuffled and augmented.

    Raises
    ------
    ValueError : a batch is too small for the processes, or for batch normalisation.
    """
    rows = table[tables.has_mask(table)] if has_masks(task) else table
    options: dict = {split: {"rank": rank, "n_ranks": n_ranks} for split in ("train", "val")} | {"test": {}}
    options["train"] |= {"seed": config.SEED, "augment": config.AUGMENT}
    size = setting(config, task, "BATCH_SIZE")
    found = {
        split: data.Batches(pixels, rows[rows["split"] == split], size, device=device, **options[split])
        for split in tables.SPLITS
    }
    smallest = min(found["train"].sizes) // n_ranks
    if smallest < 2 and config.IMAGE_SIZE <= 32:  # the deepest feature map is one pixel
        raise ValueError(
            f"A batch of {task} has {smallest} image in a process, too few for batch normalisation at "
            f"{config.IMAGE_SIZE} pixels. Set another --{task}-batch-size, or a larger --image-size."
        )
    return found


def begin(config, folder: RunFolder, tasks, shared: dict, environment: dict, table: pd.DataFrame) -> None:
    """Make the folder this run's, or refuse: go on in it, measure in it, or else start anew in an empty one."""
    settings = plain(config) | ({"data": DEMO_NOTE} if config.DEMO else {})
    if config.EVALUATE_ONLY:
        folder.go_on()
        checkpoints = {task: machine.from_first(models.load_checkpoint, folder.best_path(task)) for task in tasks}
        for task, checkpoint in checkpoints.items():
            check_checkpoint(config, folder.best_path(task), checkpoint, shared["data"], table)
        for task, checkpoint in checkpoints.items():
            folder.note_task(task, trained=True, measured=None, identity=checkpoint.get("identity", {}))
        folder.write_json("evaluation.json", {"config": settings, "environment": environment})
        if not machine.from_first((folder.path / "config.json").exists):
            folder.write_json("config.json", checkpoint["config"])
    else:
        if config.RESUME and machine.from_first(folder.holds_a_run):
            folder.go_on()
            for task, mine in {task: identity(config, task, shared) for task in models.MODELS}.items():
                train.refuse_other(folder.facts(task).get("identity", mine), mine, folder.path)
        elif earlier := folder.start_anew(environment["started"]):
            say(f"\nThe run in {folder.path} is moved to {earlier}.")
        if not folder.is_finished(tasks, config.EXTERNAL_DIR):
            folder.write_json("config.json", settings)
            folder.write_json("environment.json", environment)


def write_data(folder: RunFolder, data_set: DataSet, external: External | None) -> None:
    """What became of each row, and the split."""
    columns, table = ["image", "status", "reason"], data_set.table
    folder.write_table("data_report.csv", table[columns])
    used = table[table["split"] != ""].sort_values("image")
    codes = used["label"].map(dict(enumerate(tables.CLASSES)))
    folder.write_table("splits.csv", used.assign(label=codes)[["image", "label", "lesion_id", "split"]])
    counts = splits.class_table(table)
    folder.draw("class_distribution.png", visualize.class_distribution(counts, "Images per class and part"))
    if external:
        folder.write_table("external/data_report.csv", external.table[columns])


def identity(config: SimpleNamespace, task: str, shared: dict) -> dict:
    """What a run must share with the one it resumes."""
    names = ("SEED", "IMAGE_SIZE", "AUGMENT", *(f"{task.upper()}_{name}" for name in ("EPOCHS", "BATCH_SIZE", "LR")))
    return {name: getattr(config, name) for name in names} | shared


def train_model(config, folder: RunFolder, task: str, batches: dict, weights, shared: dict, environment: dict) -> None:
    """Train one model, keep its best epoch, calibrate it, and draw its curves."""
    torch.manual_seed(config.SEED)
    model = models.MODELS[task]()
    if weights:
        model.encoder.load_state_dict(weights)
    model.to(batches["train"].device, memory_format=torch.channels_last)
    mine = identity(config, task, shared)
    folder.note_task(task, identity=mine, trained=False)
    checkpoints = train.Checkpoints(
        folder.best_path(task),
        folder.path / task,
        description=describe_model(config, task, model, batches["train"].table, mine),
        identity=mine,
        conditions={name: environment[name] for name in ("device", "threads", "torch")},
        resume=config.RESUME,
    )
    try:
        history = train.fit(
            model,
            batches["train"],
            batches["val"],
            epochs=setting(config, task, "EPOCHS"),
            lr=setting(config, task, "LR"),
            seed=config.SEED,
            precision=shared["precision"],
            checkpoints=checkpoints,
        )
    except torch.cuda.OutOfMemoryError as error:
        size = setting(config, task, "BATCH_SIZE")
        advice = f"Try --{task}-batch-size {size // 2}" if size > 1 else "Try a smaller --image-size"
        raise MemoryError(f"The GPU's memory does not hold {task} with {size} images a batch. {advice}.") from error
    folder.draw(f"{task}/training_curves.png", visualize.training_curves(pd.DataFrame(history), task))
    folder.note_task(task, trained=True)
    if machine.is_first():
        checkpoints.drop_states()


def check_checkpoint(config, path: Path, checkpoint: dict, split_hash: str, table: pd.DataFrame) -> None:
    """Refuse to measure a checkpoint on images that it may have been trained on."""
    if checkpoint["image_size"] != config.IMAGE_SIZE:
        raise ValueError(f"{path} was trained at --image-size {checkpoint['image_size']}, not {config.IMAGE_SIZE}.")
    if checkpoint["split_hash"] == split_hash:
        return
    seen, test = checkpoint.get("trained_on", {"images": [], "lesions": []}), table[table["split"] == "test"]
    leaking = test.loc[test["image"].isin(seen["images"]) | test["lesion_id"].isin(seen["lesions"]), "image"]
    examples = f", such as {', '.join(leaking[:5])}" if len(leaking) else ""
    raise ValueError(
        f"{path} was trained on another split or other data: {len(leaking)} of today's {len(test)} test images show "
        f"lesions that it was trained on{examples}. Use the settings it was trained with, or train again."
    )


def measure_model(config, folder: RunFolder, task: str, batches: dict, external: External | None, precision) -> None:
    """Measure the best epoch's model on the test set, and on another data set if one is named."""
    path, test = folder.best_path(task), batches["test"]
    checkpoint = machine.from_first(models.load_checkpoint, path)
    model = models.build_model(checkpoint, test.device)
    if "calibration" not in checkpoint or not results.is_current(checkpoint["calibration"]):
        checkpoint["calibration"] = results.calibrate(model, batches["val"].whole(), precision)
        if machine.is_first():
            train.save(path, checkpoint)
    assess(model, test, checkpoint, folder.below(task), task, "test set", precision)
    if external:
        other = external_batches(external, task, test)
        if other:
            place = folder.below("external").below(task)
            assess(model, other, checkpoint, place, task, config.EXTERNAL_DIR, precision)
        else:
            say(f"{task}: {config.EXTERNAL_DIR} has no masks to measure it with.")
        folder.note(external={"folder": config.EXTERNAL_DIR, "left_out": external.left_out})
        folder.note_task(task, external=other is not None)
    folder.note_task(task, measured=config.EXTERNAL_DIR)


def assess(model, batches, checkpoint: dict, place: RunFolder, task: str, images: str, precision: str) -> None:
    """Write what a model does on some images, and print the main numbers."""
    about = {name: checkpoint.get(name, "unknown") for name in ("initial_weights", "epoch")}
    options = {"task": task, "precision": precision, "note": place.caption, "about": about}
    if found := results.assess(model, batches, checkpoint["calibration"], write=place.write, **options):
        say(results.summary(f"{task}, {images}", found))


def external_batches(external: External, task: str, like: data.Batches) -> data.Batches | None:
    """All usable images of the other data set; None if a model of masks alone finds no mask there."""
    rows = tables.usable(external.table)
    rows = rows[tables.has_mask(rows)] if task == "segmentation" else rows
    return data.Batches(external.pixels, rows, max(like.sizes), device=like.device) if len(rows) else None


def audit_leakage(folder: RunFolder, data_set: DataSet) -> None:
    """Write which pairs show the same thing, and how many lie across the split, and across one by image."""
    if not machine.is_first():
        return
    used = tables.usable(data_set.table).set_index("image", drop=False)
    pairs = leakage.crossing(leakage.find_pairs(used, data_set.pixels), used["split"])
    pairs["crosses_by_image"] = False
    if data_set.by_image is not None:
        parts = data_set.by_image.reindex(tables.usable(data_set.table).index).set_axis(used.index)
        pairs["crosses_by_image"] = leakage.crossing(pairs, parts)["crosses"]
    folder.write_table("leakage.csv", pairs)
    say(f"\n{leakage.describe(pairs)}")


def compare_models(folder: RunFolder, table: pd.DataFrame) -> None:
    """Write how the multi-task model differs from the single-task ones on the same test images."""
    if not machine.is_first():
        return
    lesions, found = tables.usable(table).set_index("image")["lesion_id"], {}
    for task, file in (("classification", "predictions.csv"), ("segmentation", "per_image.csv")):
        if all("measured" in folder.facts(name) for name in (task, "multitask")):
            pair = [read_back(folder.path / name / file) for name in (task, "multitask")]
            found[task] = results.compare(*pair, lesions)
    if found:
        folder.write_json("comparison.json", found)
    folder.note(comparison=bool(found))


def describe_environment(device: torch.device, precision: str, n_ranks: int) -> dict:
    """What a run is run on."""
    return {
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


def show_settings(config: SimpleNamespace, environment: dict) -> None:
    if config.DEMO:
        say(f"*** {DEMO_NOTE}: these numbers say nothing about real lesions ***")
    for name, value in (vars(config) | environment).items():
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
        "initial_weights": identity["initial_weights"],
        "split_hash": identity["data"],
        "trained_on": {"images": list(rows["image"]), "lesions": sorted(set(rows["lesion_id"]))},
        "identity": identity,
        "config": plain(config),
        "versions": versions(),
        "note": DEMO_NOTE if config.DEMO else "",
    }


def plain(config: SimpleNamespace) -> dict:
    """The settings as types that JSON knows."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}


def versions() -> dict[str, str]:
    return {module.__name__: str(module.__version__) for module in (torch, torchvision, np, pd, sklearn)}


def setting(config: SimpleNamespace, task: str, name: str):
    return getattr(config, f"{task.upper()}_{name}")


def say(text: str) -> None:
    if machine.is_first():
        print(text, flush=True)


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
        if name.endswith("_LR") and not math.isfinite(value):
            return f"{name} must be finite, not {value}"
    if config.VAL_FRACTION + config.TEST_FRACTION >= 1:
        return "VAL_FRACTION and TEST_FRACTION must leave images to train on: their sum must be below 1"
    if not 32 <= config.IMAGE_SIZE <= 4096:
        return f"IMAGE_SIZE must be at least 32 and at most 4096 pixels, not {config.IMAGE_SIZE}"
    if config.LIMIT < 0 or not 0 <= config.SEED < 2**32:
        return "LIMIT and SEED must not be negative, and SEED must be below 2 to the 32nd"
    if config.RESUME and config.EVALUATE_ONLY:
        return "RESUME trains and EVALUATE_ONLY does not: choose one"
    outputs = Path(os.path.realpath(config.OUTPUT_DIR))
    for name in ("DATA_DIR", "EXTERNAL_DIR"):  # a later run moves OUTPUT_DIR aside, with all that is in it
        if getattr(config, name) and Path(os.path.realpath(getattr(config, name))).is_relative_to(outputs):
            return f"OUTPUT_DIR {config.OUTPUT_DIR} holds {name}: name a folder for the outputs alone"
    if Path.cwd().is_relative_to(outputs):
        return f"OUTPUT_DIR {config.OUTPUT_DIR} holds the folder that you work in: name one for the outputs alone"
    return ""


def stop(code: int, message: str) -> int:
    print(f"\n{message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
