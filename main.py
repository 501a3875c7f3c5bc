"""The experiment: check the data, train three models, evaluate them on the test set, draw.

python main.py --data-dir path/to/HAM10000
python main.py --demo
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import settings

# Hyperparameters. Each is also a flag of the same name: --image-size 128.
DATA_DIR: str = "data"  # folder with GroundTruth.csv, images/ and masks/
OUTPUT_DIR: str = "outputs"  # folder for models, numbers and pictures
CACHE_DIR: str = "cache"  # folder for decoded images, shared by all runs
TASKS: tuple = ("classification", "segmentation", "multitask")  # models to train
CLASSES: tuple = ()  # diagnoses to learn, in this order: () for the data's own, else NAME or NAME=ONE,ANOTHER,...
ZEROS: str = ""  # class of the rows that have a 0 for every class (ISIC 2017: NV); "" asks
SPLIT_FILE: str = ""  # table of image,split to use: "" for the data's own split if they have one, none for a new one
INVERT_MASKS: bool = False  # lesion is black in the masks
STRETCH_MASKS: bool = False  # masks of another shape than their images were stretched: stretch them back
RECIPE: str = "paper"  # how models learn: paper (the constants below), strong or finetune (RECIPES' values instead)
SEED: int = 42  # of the initial weights, the order of images and their augmentation
SPLIT_SEED: int = 42  # of the split: runs of several seeds share one test set
IMAGE_SIZE: int = 224  # pixels; images are resized to a square of this side
VAL_FRACTION: float = 0.15  # share of lesions for choosing the best epoch
TEST_FRACTION: float = 0.15  # share of lesions for the final numbers
GROUP_BY_LESION: bool = True  # keep all images of a lesion in one part
GROUP_DUPLICATES: bool = False  # count near duplicates of different lesion ids as one lesion too
LIMIT: int = 0  # use only this many images, stratified by class; 0 = all
ENCODER: str = "resnet18"  # the network that models see with: resnet18, 34, 50, efficientnet_lite0, 1, 2
PRETRAINED: str = "auto"  # ImageNet weights: auto (if they can be had), yes (must be had), no
AUGMENT: tuple = ("turns",)  # of training images: none, or some of turns (flips and quarter turns), crops, mixup
DEVICE: str = "auto"  # auto, cpu, cuda, cuda:1, ...
PRECISION: str = "auto"  # auto (bf16 where the hardware has it), fp32, bf16
RESUME: bool = False  # continue the run in OUTPUT_DIR where it stopped
EVALUATE_ONLY: bool = False  # measure the models in OUTPUT_DIR instead of training new ones
CHECKPOINTS: tuple = ()  # with EVALUATE_ONLY: measure these files instead, several as the average of their outputs
TTA: bool = False  # measure the average over the eight flips and quarter turns of each image: eight times slower
EXTERNAL_DIR: str = ""  # another folder like DATA_DIR, measured whole after the test set
KEEP_FREED_MEMORY: bool = True  # reuse freed memory instead of handing it back to Linux: a faster step

CLASSIFICATION_EPOCHS: int = 15  # passes over the training images
CLASSIFICATION_BATCH_SIZE: int = 32  # images a step
CLASSIFICATION_LR: float = 1e-4  # Adam's learning rate
SEGMENTATION_EPOCHS: int = 25  # passes over the training images
SEGMENTATION_BATCH_SIZE: int = 16  # images a step
SEGMENTATION_LR: float = 1e-4  # Adam's learning rate
MULTITASK_EPOCHS: int = 10  # passes over the training images
MULTITASK_BATCH_SIZE: int = 16  # images a step
MULTITASK_LR: float = 1e-4  # Adam's learning rate
SCHEDULE: str = "constant"  # of the learning rate: constant, cosine (to 0)
WARM_UP: float = 0.0  # share of the steps in which the learning rate rises from 0
EMA: float = 0.0  # share of the weights' moving average that a step keeps; 0 = no average
LABEL_LOSS: str = "cross-entropy"  # of diagnoses: cross-entropy; docs/extending.md adds others
MASK_LOSS: str = "bce"  # of outlines: bce, bce+dice
ENCODER_LR_SCALE: float = 1.0  # share of the learning rate that the encoder learns with
WEIGHT_DECAY: float = 0.0  # AdamW's
DROPOUT: float = 0.0  # share of the channels that labels are read from, dropped in training
DROP_PATH: float = 0.0  # share of images that skip the encoder's deepest block in training; EfficientNet-Lite

RECIPES = {  # what --recipe sets instead; flags still win
    "paper": {},
    "strong": {
        "CLASSIFICATION_EPOCHS": 16,
        "CLASSIFICATION_BATCH_SIZE": 64,
        "CLASSIFICATION_LR": 1e-3,
        "SEGMENTATION_EPOCHS": 25,
        "SEGMENTATION_BATCH_SIZE": 32,
        "SEGMENTATION_LR": 1e-3,
        "MULTITASK_EPOCHS": 20,
        "MULTITASK_BATCH_SIZE": 64,
        "MULTITASK_LR": 1e-3,
        "SCHEDULE": "cosine",
        "WARM_UP": 0.05,
        "EMA": 0.99,
        "MASK_LOSS": "bce+dice",
    },
}
RECIPES["finetune"] = RECIPES["strong"] | {"AUGMENT": ("turns", "crops", "mixup")}  # for a start from ImageNet
RANGES = {
    **dict.fromkeys(("SEED", "SPLIT_SEED"), "[0, 4294967296)"),
    "IMAGE_SIZE": "[32, 4096]",
    **dict.fromkeys(("VAL_FRACTION", "TEST_FRACTION"), "(0, 1)"),
    "LIMIT": "[0, inf)",
    **dict.fromkeys(("CLASSIFICATION_EPOCHS", "SEGMENTATION_EPOCHS", "MULTITASK_EPOCHS"), "[1, inf)"),
    **dict.fromkeys(("CLASSIFICATION_BATCH_SIZE", "SEGMENTATION_BATCH_SIZE", "MULTITASK_BATCH_SIZE"), "[1, inf)"),
    **dict.fromkeys(("CLASSIFICATION_LR", "SEGMENTATION_LR", "MULTITASK_LR", "ENCODER_LR_SCALE"), "(0, inf)"),
    **dict.fromkeys(("WARM_UP", "EMA", "DROPOUT", "DROP_PATH"), "[0, 1)"),
    "WEIGHT_DECAY": "[0, inf)",
}
DEMO = {  # what --demo sets instead; flags still win
    "DATA_DIR": "demo_data",
    "OUTPUT_DIR": "outputs_demo",
    "IMAGE_SIZE": 64,
    "CLASSIFICATION_EPOCHS": 4,
    "CLASSIFICATION_LR": 1e-3,
    "SEGMENTATION_EPOCHS": 3,
    "SEGMENTATION_LR": 1e-3,
    "MULTITASK_EPOCHS": 5,
    "MULTITASK_LR": 1e-3,
    "SCHEDULE": "cosine",
}


def choices() -> dict[str, tuple[str, ...]]:
    """The values that settings may take."""
    return {
        "TASKS": tuple(models.MODELS),
        "ENCODER": tuple(ENCODERS),
        "PRETRAINED": ("auto", "yes", "no"),
        "AUGMENT": tuple(AUGMENTS),
        "PRECISION": ("auto", "fp32", "bf16"),
        "SCHEDULE": tuple(train.SCHEDULES),
        "LABEL_LOSS": tuple(train.LOSSES["label"]),
        "MASK_LOSS": tuple(train.LOSSES["mask"]),
    }


def parse_arguments(
    argv: list[str] | None = None, choices: Callable[[], dict[str, tuple[str, ...]]] = choices
) -> SimpleNamespace:
    """The constants above, overridden by --demo and then by flags; exits with 2 on a mistake."""
    tables = {"ranges": RANGES, "presets": {"RECIPE": RECIPES}, "demo": DEMO}
    return settings.parse(argv, sys.modules[__name__], choices=choices, **tables, find_problem=find_problem)


def find_problem(config: SimpleNamespace) -> str:
    """Which settings do not go together, in words; "" if all do."""
    if config.DEMO and DEMO["DATA_DIR"] != config.DATA_DIR:
        return "--demo makes its own data: leave out --data-dir, or --demo"
    if config.VAL_FRACTION + config.TEST_FRACTION >= 1:
        return "VAL_FRACTION and TEST_FRACTION must leave images to train on: their sum must be below 1"
    if config.RESUME and config.EVALUATE_ONLY:
        return "RESUME trains and EVALUATE_ONLY does not: choose one"
    if config.CHECKPOINTS and not config.EVALUATE_ONLY:
        return "CHECKPOINTS are measured, not trained: pass --evaluate-only too"
    return settings.find_misplaced(config, "OUTPUT_DIR", ["DATA_DIR", "EXTERNAL_DIR"])


def answer_early() -> None:
    """Answer --help, mistaken flags and a missing data folder."""
    config = parse_arguments(choices=dict)
    if not config.DEMO:
        from dataset.layout import names_in

        try:
            names_in(config.DATA_DIR)
        except FileNotFoundError as error:
            sys.exit(stop(2, str(error)))


def stop(code: int, message: str) -> int:
    print(f"\n{message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    answer_early()  # before the imports, which take seconds

import pandas as pd
import torch

import averaging
import data
import machine
import models
import train
import visualize
from augment import AUGMENTS
from checkpoints import Checkpoints, depends_on_epochs, describe
from dataset import leakage, prepare, splits, synthetic
from dataset import table as tables
from dataset.classes import classes_of
from dataset.prepare import OtherSet, Prepared, Reading
from encoders import ENCODERS, blueprint
from encoders.start import Start, imagenet_start
from report import comparison, page, takeover
from report.folder import RunFolder
from report.live import Live, count_epochs_after
from report.measure import load, load_named, measure


class Job(NamedTuple):
    """One model to be trained and measured."""

    task: str
    recipe: train.Recipe
    batches: dict[str, data.Batches]  # by part of the split
    identity: dict  # what a run must share with the one that it resumes


def main(argv: list[str] | None = None) -> int:
    """Run the experiment and return the exit code; a user's mistake ends in one message."""
    config = parse_arguments(argv)
    try:
        run(config)
    except KeyboardInterrupt:
        advice = "" if config.EVALUATE_ONLY else " The same command with --resume goes on from the last whole epoch."
        return stop(130, f"Stopped.{advice}")
    except torch.cuda.OutOfMemoryError as error:  # outside of training, which names its own batch size
        advice = (
            "What was finished is kept. Pass --device cpu, or smaller batches (--multitask-batch-size 4 and the like)"
        )
        return stop(1, f"Out of GPU memory: {error}\n{advice} with --evaluate-only to measure what was trained.")
    except (FloatingPointError, MemoryError) as error:
        return stop(
            1, str(error) or "Out of memory. Close other programs, or set a smaller --image-size or batch size."
        )
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
    environment = machine.describe(device, precision, n_ranks)
    folder = RunFolder(config.OUTPUT_DIR, synthetic.NOTE if config.DEMO else "")
    with machine.locked(folder.path):
        show_settings(config, environment)

        # All that can be refused is refused before the first file is written.
        data_set = prepare_data(config)
        external = prepare_external(config, data_set) if config.EXTERNAL_DIR else None
        blueprint(config.ENCODER).set_drop_path(config.DROP_PATH)
        named = load_named(config.CHECKPOINTS, folder, config.IMAGE_SIZE, data_set.table)
        folder.caption = folder.caption or averaging.note_of(named)
        tasks = [] if named else choose_tasks(config, folder, data_set.table)
        kept = {folder.best_path(task): task for task in tasks if config.EVALUATE_ONLY}
        loaded = {kept[path]: found for path, found in load(list(kept), config.IMAGE_SIZE, data_set.table).items()}
        start = imagenet_start("no" if config.EVALUATE_ONLY else config.PRETRAINED, config.ENCODER)
        machine.say("" if config.EVALUATE_ONLY else start.words)
        shared = {
            "precision": precision,
            "processes": n_ranks,
            "split_hash": splits.split_hash(data_set.table),
            "initial_weights": "ImageNet" if start.weights else "scratch",
        }
        pixels = data.to_device(data_set.pixels, device)
        batches = {task: make_batches(config, task, data_set.table, pixels, device, rank, n_ranks) for task in tasks}
        begin(config, folder, tasks, shared, environment, loaded)
        if folder.is_finished(tasks, measured_as(config)):
            return machine.say(f"\n{folder.path} holds this run, finished: nothing is left to do.")

        folder.write_data(data_set.table)
        folder.note(reading=data_set.remarks)
        if external:
            folder.below("external").write_data_report(external.table)
        for i, task in enumerate(tasks):
            machine.say(f"\n=== {task} ===")
            if not (config.EVALUATE_ONLY or folder.facts(task).get("trained")):
                live = watch(config, folder, tasks[i:], batches, external)
                job = Job(task, recipes(config)[task], batches[task], identity(config, task, shared))
                train_model(config, folder, job, start, environment, live)
            if folder.facts(task).get("measured") != measured_as(config):
                path = folder.best_path(task)
                checkpoint = loaded.get(task) or machine.from_first(models.load_checkpoint, path)
                measure_models(config, folder, task, {path: checkpoint}, batches[task], external, precision)
        if named:
            measure_named(config, folder, named, data_set.table, pixels, external, device, precision)
        audit_leakage(folder, data_set)
        folder.note(comparison=comparison.compare_tasks(folder, data_set.table), seconds=folder.seconds())
        if machine.is_first():
            folder.write("report.html", page.build(folder.path))
        folder.note(finished=True)
    machine.say(f"\nModels, numbers and pictures are in {folder.path.resolve()}; open report.html there")


def recipes(config: SimpleNamespace) -> dict[str, train.Recipe]:
    """How each task learns."""
    found = {
        "classification": (config.CLASSIFICATION_EPOCHS, config.CLASSIFICATION_BATCH_SIZE, config.CLASSIFICATION_LR),
        "segmentation": (config.SEGMENTATION_EPOCHS, config.SEGMENTATION_BATCH_SIZE, config.SEGMENTATION_LR),
        "multitask": (config.MULTITASK_EPOCHS, config.MULTITASK_BATCH_SIZE, config.MULTITASK_LR),
    }
    common = {name: getattr(config, name.upper()) for name in train.Recipe._fields[3:]}
    return {task: train.Recipe(*values, **common) for task, values in found.items()}


def prepare_data(config: SimpleNamespace) -> Prepared:
    """Read, check, decode and split; print what was found."""
    if config.DEMO:
        machine.from_first(draw_demo, config)
    reading, shared = reading_of(config), {"split_seed": config.SPLIT_SEED, "say": machine.say}
    places = {"image_size": config.IMAGE_SIZE, "cache_dir": config.CACHE_DIR}
    decoded = prepare.decode(config.DATA_DIR, reading, limit=config.LIMIT, **places, **shared)
    fractions = {"val_fraction": config.VAL_FRACTION, "test_fraction": config.TEST_FRACTION}
    groups = {"group_by_lesion": config.GROUP_BY_LESION, "group_duplicates": config.GROUP_DUPLICATES}
    return prepare.split(decoded, reading, **fractions, **groups, **shared)


def reading_of(config: SimpleNamespace) -> Reading:
    """How data folders are read."""
    return Reading(config.CLASSES, config.ZEROS, config.SPLIT_FILE, config.INVERT_MASKS, config.STRETCH_MASKS)


def draw_demo(config: SimpleNamespace) -> None:
    if not Path(config.DATA_DIR).exists():
        synthetic.write_dataset(config.DATA_DIR, seed=config.SPLIT_SEED)


def prepare_external(config: SimpleNamespace, data_set: Prepared) -> OtherSet:
    """Read, check and decode the other data set; print what was found."""
    options = {"image_size": config.IMAGE_SIZE, "cache_dir": config.CACHE_DIR, "say": machine.say}
    return prepare.prepare_other(config.EXTERNAL_DIR, reading_of(config), data_set, **options)


def choose_tasks(config: SimpleNamespace, folder: RunFolder, table: pd.DataFrame) -> list[str]:
    """The tasks that there are labels and masks for, and a checkpoint if nothing is trained; the others are named."""
    known = splits.heads_in_all_parts(table)
    possible = [task for task in config.TASKS if known[list(models.MODELS[task].outputs)].all()]
    missing = " and ".join({"label": "diagnoses", "mask": "masks"}[head] for head in known.index[~known])
    advice = (
        "Each part of the split needs some, of two classes or more; masks lie in masks/ as <image>_segmentation.png."
    )
    go_on_with(possible, config.TASKS, f"Too few {missing} in {config.DATA_DIR} for", advice)
    if config.EVALUATE_ONLY:
        there = machine.from_first(lambda: [task for task in possible if folder.best_path(task).exists()])
        go_on_with(there, possible, f"No checkpoint in {folder.path} for", "Train it first.")
        return there
    return possible


def go_on_with(some: Sequence[str], tasks: Sequence[str], problem: str, advice: str) -> None:
    """Say which of the tasks are left out; raises ValueError if none is left."""
    if missing := [task for task in tasks if task not in some]:
        message = f"{problem} {', '.join(missing)}."
        if not some:
            raise ValueError(f"{message} {advice}")
        machine.say(f"{message} Going on without.")


def make_batches(config, task: str, table: pd.DataFrame, pixels, device, rank: int, n_ranks: int) -> dict:
    """Batches by part of the split. Training is shuffled and augmented.

    Raises
    ------
    ValueError : a batch is too small for the processes, or for batch normalisation.
    """
    rows, size = tables.learnable(table, models.MODELS[task].outputs), recipes(config)[task].batch_size
    options: dict = {split: {"rank": rank, "n_ranks": n_ranks} for split in ("train", "val")} | {"test": {}}
    options["train"] |= {"seed": config.SEED, "augment": config.AUGMENT}
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


def identity(config: SimpleNamespace, task: str, shared: dict) -> dict:
    """What a run must share with the one it resumes."""
    own = {"seed": config.SEED, "image_size": config.IMAGE_SIZE, "encoder": config.ENCODER}
    own |= {"augment": " ".join(config.AUGMENT), "dropout": config.DROPOUT, "drop_path": config.DROP_PATH}
    return own | recipes(config)[task]._asdict() | shared


def begin(config, folder: RunFolder, tasks, shared: dict, environment: dict, loaded: dict[str, dict]) -> None:
    """Make the folder this run's, or refuse: go on in it, measure in it, or else start anew in an empty one.

    Parameters
    ----------
    loaded : the checkpoints that are only to be measured, by task.
    """
    about = settings.plain(config) | ({"data": folder.caption} if folder.caption else {})
    if config.EVALUATE_ONLY and not config.CHECKPOINTS:
        return takeover.measure_again(folder, loaded, about, environment)
    if config.RESUME and machine.from_first(folder.holds_a_training):
        identities = {task: identity(config, task, shared) for task in models.MODELS}
        about, environment = takeover.go_on(folder, tasks, identities, about, environment)
    elif earlier := folder.start_anew(environment["started"]):
        machine.say(f"\nThe run in {folder.path} is moved to {earlier}.")
    if not folder.is_finished(tasks, measured_as(config)):
        folder.write_json("config.json", about)
        folder.write_json("environment.json", environment)


def watch(config, folder: RunFolder, tasks: list[str], batches: dict, external: OtherSet | None) -> Live:
    """What shows the training of the first of these tasks, and knows what of the others is left to be done."""
    task, *later = tasks
    epochs = {name: recipe.epochs for name, recipe in recipes(config).items()}
    to_train = {name: epochs[name] - folder.n_epochs(name) for name in later if not folder.facts(name).get("trained")}
    to_measure = [task, *(name for name in later if folder.facts(name).get("measured") != measured_as(config))]
    sizes = {name: {part: some.n_images for part, some in parts.items()} for name, parts in batches.items()}
    options = {"n_views": averaging.N_VIEWS if config.TTA else 1, "n_external": external.n_images if external else 0}
    epochs_after = count_epochs_after(task, to_train, to_measure, sizes, config.ENCODER, **options)
    return Live(folder, task, epochs[task], list(to_train), epochs_after)


def train_model(config, folder: RunFolder, job: Job, start: Start, environment: dict, live: Live) -> None:
    """Train one model, keep its best epoch, and draw its curves."""
    model = make_model(config, job, start)
    folder.note_task(job.task, identity=job.identity, trained=False, measured=None)
    checkpoints = Checkpoints(
        folder.best_path(job.task),
        folder.path / job.task,
        description={
            **describe(model, *(job.batches[part].table for part in ("train", "val")), config.IMAGE_SIZE, job.identity),
            "task": job.task,
            "config": settings.plain(config),
            "note": synthetic.NOTE if config.DEMO else "",
            "initial_file": start.file,
        },
        identity=job.identity,
        conditions={name: environment[name] for name in ("device", "threads", "torch")},
        resume=config.RESUME,
    )
    options = {"seed": config.SEED, "precision": job.identity["precision"], "checkpoints": checkpoints}
    try:
        history = train.fit(
            model, job.batches["train"], job.batches["val"], recipe=job.recipe, after_epoch=live, **options
        )
    except torch.cuda.OutOfMemoryError as error:
        size = job.recipe.batch_size
        advice = f"Try --{job.task}-batch-size {size // 2}" if size > 1 else "Try a smaller --image-size"
        raise MemoryError(f"The GPU's memory does not hold {job.task} with {size} images a batch. {advice}.") from error
    folder.draw(f"{job.task}/training_curves.png", visualize.training_curves(pd.DataFrame(history), job.task))
    folder.note_task(job.task, trained=True)
    if machine.is_first():
        checkpoints.drop_states(but_last=not depends_on_epochs(job.recipe.schedule, job.recipe.warm_up))


def make_model(config, job: Job, start: Start) -> models.Model:
    """The network before its training, on the device, the same for the same seed."""
    torch.manual_seed(config.SEED)
    kind, options = models.MODELS[job.task], {"encoder": config.ENCODER}
    if "label" in kind.outputs:
        options["n_classes"] = len(classes_of(job.batches["train"].table))
    model = kind(**options)
    model.regularise(config.DROPOUT, config.DROP_PATH)
    if start.weights:
        model.start_from(start.weights)
    return model.to(job.batches["train"].device, memory_format=torch.channels_last)


def measured_as(config: SimpleNamespace) -> dict:
    """How a model was measured, for the record: a run that goes on does it again if that differs."""
    return {"external": config.EXTERNAL_DIR, "tta": config.TTA}


def measure_models(config, folder: RunFolder, name: str, checkpoints: dict, parts: dict, external, precision) -> None:
    """Measure one checkpoint, or the average of several, on the test set, and on another data set if one is named."""
    keep = not config.CHECKPOINTS
    folder.note_task(name, measured=None, external=None)  # its files may be stopped between one way and another
    measure(folder, name, checkpoints, parts, external, precision=precision, tta=config.TTA, keep=keep)
    folder.note_task(name, measured=measured_as(config))


def measure_named(config, folder, named: dict[Path, dict], table, pixels, external, device, precision: str) -> None:
    """Measure the checkpoints that were named, as one model."""
    name = "average" if len(named) > 1 else next(iter(named.values()))["task"]
    rows = tables.learnable(table, averaging.heads_of(named))
    size = config.MULTITASK_BATCH_SIZE  # nothing depends on it
    parts = {part: data.Batches(pixels, rows[rows["split"] == part], size, device=device) for part in tables.SPLITS}
    machine.say(f"\n=== {name} ===")
    own = next(iter(named.values())).get("identity", {}) if len(named) == 1 else {}
    folder.note_task(name, trained=True, identity=own | {"checkpoints": list(map(str, named))})
    measure_models(config, folder, name, named, parts, external, precision)


def audit_leakage(folder: RunFolder, data_set: Prepared) -> None:
    """Write which pairs show the same thing, and how many lie across the split, and across one by image."""
    if machine.is_first():
        pairs = leakage.audit(tables.usable(data_set.table), data_set.pixels.thumbnails, data_set.by_image)
        folder.write_table("leakage.csv", pairs)
        machine.say(f"\n{leakage.describe_pairs(pairs)}")


def show_settings(config: SimpleNamespace, environment: dict) -> None:
    if config.DEMO:
        machine.say(f"*** {synthetic.NOTE}: these numbers say nothing about real lesions ***")
    machine.say(settings.describe(config, sys.modules[__name__], {"RECIPE": RECIPES}))
    device, precision, threads, processes = map(environment.get, ("device", "precision", "threads", "processes"))
    machine.say(
        f"On {device} in {precision}, threads: {threads}, processes: {processes}. All settings are in config.json."
    )


if __name__ == "__main__":
    sys.exit(main())
