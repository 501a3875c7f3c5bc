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
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import sklearn
import torch
import torchvision
from tqdm import tqdm

import data
import evaluate
import models
import synthetic
import train
import visualize

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
LIMIT = 0  # use only this many images, stratified by class; 0 = all
PRETRAINED = "auto"  # ImageNet weights: auto (if they can be had), yes (must be had), no
AUGMENT = "none"  # training images: none, turns (random flips and quarter turns)
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, ...
PRECISION = "auto"  # auto (bf16 where the hardware has it), fp32, bf16
RESUME = False  # continue the run in OUTPUT_DIR where it stopped
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
    "AUGMENT": "turns",
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
        return stop(130, "Stopped. Continue with the same command and --resume.")
    except torch.cuda.OutOfMemoryError:
        return stop(1, out_of_memory_message(config))
    except FloatingPointError as error:
        return stop(1, str(error))
    except (ValueError, FileNotFoundError) as error:
        return stop(2, str(error))
    except OSError as error:
        return stop(
            1,
            f"Cannot write {error.filename or 'to ' + config.OUTPUT_DIR}: {error.strerror}. Make room or name "
            "another --output-dir. What was finished is kept; --resume continues from it.",
        )
    return 0


def run(config: SimpleNamespace) -> None:
    """Prepare, then train, evaluate and draw each model."""
    if config.KEEP_FREED_MEMORY:
        train.keep_freed_memory()
    device = train.choose_device(config.DEVICE)
    precision = train.choose_precision(config.PRECISION, device)
    Path(config.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    if config.DEMO and not Path(config.DATA_DIR).exists():
        synthetic.write_dataset(config.DATA_DIR, seed=config.SEED)
    describe_run(config, device, precision)

    table, pixels = prepare_data(config)
    encoder_weights, start = models.imagenet_start(config.PRETRAINED)
    print(start)
    for task in choose_tasks(config, table):
        print(f"\n=== {task} ===", flush=True)
        (Path(config.OUTPUT_DIR) / task).mkdir(exist_ok=True)
        train_task(config, task, table, pixels, device, precision, encoder_weights, start)
        evaluate_task(config, task, table, pixels, device, precision)
    print(f"\nModels, numbers and pictures are in {Path(config.OUTPUT_DIR).resolve()}")


def prepare_data(config: SimpleNamespace) -> tuple[pd.DataFrame, np.ndarray]:
    """Read, check, decode and split; write what became of each row, and print the counts."""
    split_arguments = {name.lower(): getattr(config, name) for name in ("VAL_FRACTION", "TEST_FRACTION", "SEED")}
    table = data.limit_table(data.read_table(config.DATA_DIR), config.LIMIT, config.SEED)
    table, pixels = data.decode_table(table, config.DATA_DIR, config.IMAGE_SIZE, config.CACHE_DIR)
    table["split"] = data.split_table(table, **split_arguments, group_by_lesion=config.GROUP_BY_LESION)
    table["code"] = table["label"].map(dict(enumerate(data.CLASSES)))

    used = table[table["split"] != ""].sort_values("image")
    write(config, "data_report.csv", csv(table[["image", "status", "reason"]]))
    write(config, "splits.csv", csv(used[["image", "code", "lesion_id", "split"]].rename(columns={"code": "label"})))
    counts = data.class_table(table)
    note = DEMO_NOTE if config.DEMO else ""
    figure = visualize.class_distribution(
        counts.loc[list(data.CLASSES), list(data.SPLITS)], "Images per class and part"
    )
    write(config, "class_distribution.png", visualize.png(figure, note))
    print(f"\n{counts.to_string()}\n{data.describe(table)}")
    leaked = data.n_leaked_by_image_split(table, **split_arguments)
    n_test = int((table["split"] == "test").sum())
    print(
        f"A split by image would have put a lesion's sibling in train for {leaked} test images ({leaked / n_test:.1%})."
    )
    if not config.GROUP_BY_LESION:
        print("GROUP_BY_LESION is off: this is that split, and its test scores are too good.")
    return table, pixels


def choose_tasks(config: SimpleNamespace, table: pd.DataFrame) -> list[str]:
    """The tasks there are masks for; the others are named and left out."""
    with_mask = set(table.loc[table["status"] == data.USED, "split"])
    possible = [task for task in config.TASKS if task == "classification" or with_mask >= set(data.SPLITS)]
    if impossible := [task for task in config.TASKS if task not in possible]:
        message = f"No masks in every part of {config.DATA_DIR}: {', '.join(impossible)} cannot be trained."
        if not possible:
            raise ValueError(
                f"{message} Put them into masks/ as <image>_segmentation.png, or use --tasks classification."
            )
        print(message)
    return possible


def task_batches(config, task, table, pixels, device, split: str, training: bool = False) -> data.Batches:
    """The batches of one part of the table; a model with masks gets the rows that have one."""
    rows = table[table["split"] == split]
    if task != "classification":
        rows = rows[rows["status"] == data.USED]
    batch_size = getattr(config, f"{task.upper()}_BATCH_SIZE")
    options = {"seed": config.SEED, "augment": config.AUGMENT} if training else {}
    return data.Batches(pixels, rows, batch_size, device=device, **options)


def train_task(config, task, table, pixels, device, precision, encoder_weights, start: str) -> None:
    """Train one model and draw its curves."""
    torch.manual_seed(config.SEED)
    model = models.MODELS[task]()
    if encoder_weights:
        model.encoder.load_state_dict(encoder_weights)
    model.to(device, memory_format=torch.channels_last)
    settings = {"epochs": getattr(config, f"{task.upper()}_EPOCHS"), "lr": getattr(config, f"{task.upper()}_LR")}
    identity = {
        **{name: getattr(config, name) for name in ("SEED", "IMAGE_SIZE", "AUGMENT")},
        **{
            f"{task.upper()}_{name}": getattr(config, f"{task.upper()}_{name}")
            for name in ("EPOCHS", "BATCH_SIZE", "LR")
        },
        "initial weights": start,
        "precision": precision,
        "data": data.split_hash(table),
    }
    history = train.fit(
        model,
        task_batches(config, task, table, pixels, device, "train", training=True),
        task_batches(config, task, table, pixels, device, "val"),
        **settings,
        seed=config.SEED,
        precision=precision,
        best_path=checkpoint_path(config, task),
        folder=Path(config.OUTPUT_DIR) / task,
        description=describe_model(config, task, model, identity),
        identity=identity,
        resume=config.RESUME,
    )
    draw(config, f"{task}/training_curves.png", visualize.training_curves(pd.DataFrame(history), task))


def evaluate_task(config, task, table, pixels, device, precision) -> None:
    """Measure the best model on the test set; write numbers, predictions and pictures."""
    model = models.load_model(checkpoint_path(config, task), device)
    batches = task_batches(config, task, table, pixels, device, "test")
    rows = batches.table
    summaries = evaluate.summarise(
        model, tqdm(batches.epoch(), "test", len(batches), leave=False, disable=None), precision
    )
    found = {"data": DEMO_NOTE} if config.DEMO else {}
    if "label" in summaries:
        found["label"] = label_results(config, task, rows, summaries["label"])
    if "mask" in summaries:
        found["mask"] = mask_results(config, task, rows, summaries["mask"])
        draw(config, f"{task}/masks.png", mask_examples(task, model, batches, summaries["mask"], precision))
    write(config, f"{task}/metrics.json", as_json(found))
    print(evaluate.report(task, found))


def label_results(config, task: str, rows: pd.DataFrame, probabilities: np.ndarray) -> dict:
    true = rows["label"].to_numpy()
    predictions = pd.DataFrame(probabilities, columns=data.CLASSES)
    predictions.insert(0, "image", rows["image"].to_numpy())
    predictions.insert(1, "true", rows["code"].to_numpy())
    predictions.insert(2, "predicted", np.array(data.CLASSES)[probabilities.argmax(axis=1)])
    write(config, f"{task}/predictions.csv", csv(predictions))
    matrix = evaluate.confusion_matrix(true, probabilities)
    draw(config, f"{task}/confusion_matrix.png", visualize.confusion(matrix, data.CLASSES, task))
    return evaluate.label_metrics(true, probabilities, data.CLASSES)


def mask_results(config, task: str, rows: pd.DataFrame, counts: np.ndarray) -> dict:
    per_image = pd.DataFrame({"image": rows["image"].to_numpy(), **evaluate.mask_scores(counts)})
    write(config, f"{task}/per_image.csv", csv(per_image))
    return evaluate.mask_metrics(counts)


def mask_examples(task: str, model, batches: data.Batches, counts: np.ndarray, precision: str):
    """A figure of the two best, two median and two worst masks by Dice."""
    dice = evaluate.mask_scores(counts)["dice"]
    order = np.argsort(-dice, kind="stable")
    middle = len(order) // 2
    picks = list(dict.fromkeys([*order[:2], *order[middle : middle + 2], *order[-2:]]))
    few = batches.subset(picks)
    ((_, output),) = evaluate.predict(model, few.epoch(), precision)
    images, true = few.pictures()
    predicted = (output["mask"][:, 0] > 0).cpu().numpy()
    examples = [
        {
            "image": images[i],
            "true": true[i],
            "predicted": predicted[i],
            "title": f"{few.table['image'].iloc[i]}\n{few.table['code'].iloc[i]}, Dice {dice[pick]:.3f}",
        }
        for i, pick in enumerate(picks)
    ]
    return visualize.mask_rows(examples, f"{task}: best, median and worst masks of {len(order)} test images")


def describe_run(config: SimpleNamespace, device: torch.device, precision: str) -> None:
    """Print and save what is run, and on what."""
    environment = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
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
        print(f"*** {DEMO_NOTE}: these numbers say nothing about real lesions ***")
    for name, value in (settings | environment).items():
        print(f"{name:26} {' '.join(value) if isinstance(value, tuple) else value}")


def versions() -> dict[str, str]:
    return {module.__name__: str(module.__version__) for module in (torch, torchvision, np, pd, sklearn)}


def describe_model(config: SimpleNamespace, task: str, model, identity: dict) -> dict:
    """What a checkpoint says of its model beside the weights."""
    return {
        "task": task,
        "arguments": model.arguments,
        "classes": list(data.CLASSES),
        "image_size": config.IMAGE_SIZE,
        "mean": list(data.MEAN),
        "std": list(data.STD),
        "split_hash": identity["data"],
        "config": {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()},
        "versions": versions(),
        "note": DEMO_NOTE if config.DEMO else "",
    }


def checkpoint_path(config: SimpleNamespace, task: str) -> Path:
    return Path(config.OUTPUT_DIR) / f"best_{task}_model.pth"


def write(config: SimpleNamespace, name: str, content: str | bytes) -> None:
    train.write_file(Path(config.OUTPUT_DIR) / name, content.encode() if isinstance(content, str) else content)


def draw(config: SimpleNamespace, name: str, figure) -> None:
    write(config, name, visualize.png(figure, DEMO_NOTE if config.DEMO else ""))


def csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")


def as_json(content: dict) -> str:
    return json.dumps(content, indent=2) + "\n"


def parse_arguments(argv: list[str] | None) -> SimpleNamespace:
    """The constants at the top, as overridden by --demo and then by flags; exits with 2 on a mistake."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--demo", action="store_true", help="make a small synthetic data set and run on it, in minutes")
    comments = dict(re.findall(r"^([A-Z_]+) = .*?  # (.+)$", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    for name, default in CONSTANTS.items():
        options = {
            "help": f"{comments[name]} [{' '.join(default) if isinstance(default, tuple) else default}]",
            "default": argparse.SUPPRESS,
            "choices": CHOICES.get(name),
        }
        if isinstance(default, bool):
            options |= {"action": argparse.BooleanOptionalAction, "choices": None}
        elif isinstance(default, tuple):
            options |= {"nargs": "+"}
        else:
            options |= {"type": type(default), "metavar": name.rsplit("_", 1)[-1] if not options["choices"] else None}
        parser.add_argument(f"--{name.lower().replace('_', '-')}", dest=name, **options)
    flags = vars(parser.parse_args(argv))
    demo = flags.pop("demo")
    if demo and "DATA_DIR" in flags:
        parser.error("--demo makes its own data: leave out --data-dir, or --demo")
    config = SimpleNamespace(**CONSTANTS | (DEMO if demo else {}) | flags, DEMO=demo)
    if problem := check_config(config):
        parser.error(problem)
    return config


def check_config(config: SimpleNamespace) -> str:
    """What is wrong with the values; "" if nothing is."""
    for name, value in vars(config).items():
        if name.endswith(("_EPOCHS", "_BATCH_SIZE", "_LR", "_FRACTION")) and not value > 0:
            return f"{name} must be above 0, not {value}"
        if name in CHOICES and not {value} <= set(CHOICES[name]) and not set(value) <= set(CHOICES[name]):
            return f"{name} must be among {', '.join(CHOICES[name])}, not {value}"
    if config.IMAGE_SIZE < 32:
        return f"IMAGE_SIZE must be at least 32, not {config.IMAGE_SIZE}"
    if config.LIMIT < 0:
        return f"LIMIT must be 0 (all) or more, not {config.LIMIT}"
    if config.VAL_FRACTION + config.TEST_FRACTION >= 1:
        return "VAL_FRACTION and TEST_FRACTION must leave something to train on"
    return ""


def out_of_memory_message(config: SimpleNamespace) -> str:
    sizes = {f"{task.upper()}_BATCH_SIZE" for task in config.TASKS}
    advice = " ".join(
        f"--{name.lower().replace('_', '-')} {max(getattr(config, name) // 2, 1)}" for name in sorted(sizes)
    )
    return f"The GPU's memory is too small for this batch size. Try: {advice}"


def stop(code: int, message: str) -> int:
    print(f"\n{message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
