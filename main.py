"""The experiment: check the data, train three models, evaluate them on the test set, draw.

python main.py --data-dir path/to/HAM10000
python main.py --demo
"""

import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace as Config

import settings

# Hyperparameters. Each is also a flag of the same name: --image-size 128.
DATA_DIR: str = "data"  # folder with GroundTruth.csv, images/ and masks/
OUTPUT_DIR: str = "outputs"  # folder for models, numbers and figures
CACHE_DIR: str = "cache"  # folder for decoded images, shared by all runs
CACHE_PER_MACHINE: bool = False  # with several machines: CACHE_DIR is a local disk of each, else all share it
TASKS: tuple = ("classification", "segmentation", "multitask")  # models to train
CLASSES: tuple = ()  # diagnoses to learn, in this order: () for those of the data, else NAME or NAME=ONE,ANOTHER,...
ZEROS: str = ""  # class of rows with a 0 for every class (ISIC 2017: NV); "" stops and asks
SPLIT_FILE: str = ""  # table of image,split: "" for the split of the data, if any; none for a new split
TEST_WHERE: tuple = ()  # COLUMN=VALUE ... of the test images, such as dataset=rosendahl; () for a random test set
SUBGROUPS: tuple = ()  # further columns of the data: scores are also reported for each of their groups
INVERT_MASKS: bool = False  # lesions are black in the masks
STRETCH_MASKS: bool = False  # masks were stretched to another shape: stretch them back
RECIPE: str = "paper"  # paper (the constants below), strong or finetune (values of RECIPES instead)
SEED: int = 42  # of initial weights, image order and augmentation
SPLIT_SEED: int = 42  # of the split, so that runs with several seeds share a test set
IMAGE_SIZE: int = 224  # pixels; images are resized to a square of this side
VAL_FRACTION: float = 0.15  # share of lesions in the validation set
TEST_FRACTION: float = 0.15  # share of lesions in the test set
FOLDS: int = 0  # of a cross-validation, in which every image is tested once; 0 for one split
REPEATS: int = 1  # of the FOLDS, each dealt anew
FOLD: int = 0  # train only this of the FOLDS x REPEATS, such as one per machine; 0 for all, and then pool them
GROUP_BY_LESION: bool = True  # keep all images of a lesion in one part
GROUP_DUPLICATES: bool = False  # treat near duplicates with different lesion ids as one lesion
LIMIT: int = 0  # use only this many images, stratified by class; 0 = all
ENCODER: str = "resnet18"  # shared by all models: resnet50, efficientnet_lite0, convnext_tiny, ... (python -m encoders)
PRETRAINED: str = "auto"  # ImageNet weights: auto (if available), yes (required), no
START_FROM: str = ""  # file of weights to start from: a checkpoint, or a state dict of the same encoder; "" for none
FREEZE: str = "nothing"  # keep as it is at the start: nothing, encoder, early-stages (the encoder but its last stage)
SAMPLING: str = "all"  # training images of an epoch: all (each once), sqrt, balanced (rare classes more often)
NEGATIVES: int = 0  # images of the commonest class drawn per epoch for each image of the others; 0 = all
AUGMENT: tuple = ("flips", "rotations")  # of training images: none, or names from docs/augmentations.md
DEVICE: str = "auto"  # auto, cpu, cuda, cuda:1, mps, ...
PRECISION: str = "auto"  # auto (bf16 where the hardware has it, else fp16 on a GPU), fp32, bf16, fp16
RESUME: bool = False  # continue the run in OUTPUT_DIR where it stopped
AFTER_EPOCH: str = ""  # MODULE:FUNCTION of your own to call after each epoch (docs/tracking.md); "" for none
KEEP_STATES: bool = False  # keep last.pth of finished models, to add epochs later: three times the size of a model
EVALUATE_ONLY: bool = False  # evaluate the models in OUTPUT_DIR instead of training new ones
CHECKPOINTS: tuple = ()  # with EVALUATE_ONLY: evaluate these files instead, several as one average
TTA: bool = False  # evaluate the average over the eight flips and rotations of each image: eight times slower
COVERAGE: float = 0.9  # target share of each class's images whose prediction set holds the true class
EXTERNAL_DIR: str = ""  # another folder like DATA_DIR, evaluated as a whole after the test set
ALL_PARTS: bool = False  # measure training and validation images as well, for images.csv
AUDIT: bool = True  # look for near duplicates and pairs of a lesion that cross the split
KEEP_FREED_MEMORY: bool = True  # reuse freed memory instead of returning it to Linux: faster steps

CLASSIFICATION_EPOCHS: int = 15  # passes over the training images
CLASSIFICATION_BATCH_SIZE: int = 32  # images per step
CLASSIFICATION_LR: float = 1e-4  # Adam's learning rate
SEGMENTATION_EPOCHS: int = 25  # passes over the training images
SEGMENTATION_BATCH_SIZE: int = 16  # images per step
SEGMENTATION_LR: float = 1e-4  # Adam's learning rate
MULTITASK_EPOCHS: int = 10  # passes over the training images
MULTITASK_BATCH_SIZE: int = 16  # images per step
MULTITASK_LR: float = 1e-4  # Adam's learning rate
SCHEDULE: str = "constant"  # of the learning rate: constant, cosine (decay to 0)
WARM_UP: float = 0.0  # share of the steps in which the learning rate rises from 0
EMA: float = 0.0  # decay of the exponential moving average of the weights; 0 = no average
LABEL_LOSS: str = "cross-entropy"  # of diagnoses: cross-entropy, weighted, sqrt-weighted, logit-adjusted, focal
SOFT_LABELS: str = ""  # table of class probabilities per image, learned along with the diagnoses; "" for none
SOFT_WEIGHT: float = 0.7  # weight of SOFT_LABELS against the diagnosis
MASK_LOSS: str = "bce"  # of masks: bce, bce+dice
ENCODER_LR_SCALE: float = 1.0  # factor of the encoder's learning rate
WEIGHT_DECAY: float = 0.0  # of AdamW
DROPOUT: float = 0.0  # before the linear layer of the label head
DROP_PATH: float = 0.0  # stochastic depth: share of images that skip the deepest block, if ENCODER has it

# What --recipe and --demo set instead; flags still win.
STRONG = {"CLASSIFICATION_EPOCHS": 16, "SEGMENTATION_EPOCHS": 25, "MULTITASK_EPOCHS": 20}
STRONG |= {"CLASSIFICATION_BATCH_SIZE": 64, "SEGMENTATION_BATCH_SIZE": 32, "MULTITASK_BATCH_SIZE": 64}
STRONG |= {"CLASSIFICATION_LR": 1e-3, "SEGMENTATION_LR": 1e-3, "MULTITASK_LR": 1e-3}
STRONG |= {"SCHEDULE": "cosine", "WARM_UP": 0.05, "EMA": 0.99, "MASK_LOSS": "bce+dice"}
FINETUNE = STRONG | {"AUGMENT": ("flips", "rotations", "crops", "mixup")}  # for a start from ImageNet
RECIPES = {"paper": {}, "strong": STRONG, "finetune": FINETUNE}
DEMO = {"DATA_DIR": "demo_data", "OUTPUT_DIR": "outputs_demo", "IMAGE_SIZE": 64, "SCHEDULE": "cosine"}
DEMO |= {"CLASSIFICATION_EPOCHS": 4, "SEGMENTATION_EPOCHS": 3, "MULTITASK_EPOCHS": 5}
DEMO |= {"CLASSIFICATION_LR": 1e-3, "SEGMENTATION_LR": 1e-3, "MULTITASK_LR": 1e-3}
RANGES = {"IMAGE_SIZE": "[32, 4096]", "SOFT_WEIGHT": "[0, 1]", "ENCODER_LR_SCALE": "(0, inf)"}
RANGES |= dict.fromkeys(("SEED", "SPLIT_SEED"), "[0, 4294967296)")
RANGES |= dict.fromkeys(("LIMIT", "WEIGHT_DECAY", "FOLDS", "FOLD", "NEGATIVES"), "[0, inf)") | {"REPEATS": "[1, inf)"}
RANGES |= dict.fromkeys(("VAL_FRACTION", "TEST_FRACTION", "COVERAGE"), "(0, 1)")
for task in ("CLASSIFICATION", "SEGMENTATION", "MULTITASK"):
    RANGES |= {f"{task}_EPOCHS": "[1, inf)", f"{task}_BATCH_SIZE": "[1, inf)", f"{task}_LR": "(0, inf)"}
RANGES |= dict.fromkeys(("WARM_UP", "EMA", "DROPOUT", "DROP_PATH"), "[0, 1)")


def choices() -> dict[str, tuple[str, ...]]:
    """Allowed values of settings."""
    return {
        "TASKS": tuple(models.MODELS),
        "ENCODER": tuple(ENCODERS),
        "PRETRAINED": ("auto", "yes", "no"),
        "FREEZE": models.FREEZABLE,
        "SAMPLING": tuple(data.SAMPLINGS),
        "AUGMENT": tuple(AUGMENTS),
        "PRECISION": ("auto", "fp32", "bf16", "fp16"),
        "SCHEDULE": tuple(train.SCHEDULES),
        "LABEL_LOSS": tuple(LOSSES["label"]),
        "MASK_LOSS": tuple(LOSSES["mask"]),
    }


def parse_arguments(
    argv: list[str] | None = None, choices: Callable[[], dict[str, tuple[str, ...]]] = choices
) -> Config:
    """The constants above, overridden by --demo and then by flags; exits with 2 on a mistake."""
    tables = {"ranges": RANGES, "presets": {"RECIPE": RECIPES}, "demo": DEMO}
    return settings.parse(argv, sys.modules[__name__], choices=choices, **tables, find_problem=find_problem)


def find_problem(config: Config) -> str:
    """Why settings contradict each other; "" if they do not."""
    if config.DEMO and DEMO["DATA_DIR"] != config.DATA_DIR:
        return "--demo makes its own data: leave out --data-dir, or --demo"
    if config.VAL_FRACTION + config.TEST_FRACTION >= 1:
        return "VAL_FRACTION and TEST_FRACTION must leave images to train on: their sum must be below 1"
    if config.FOLDS == 1 or (not config.FOLDS and (config.FOLD or config.REPEATS > 1)):
        return "FOLDS must be at least 2, or 0 without FOLD and REPEATS"
    if config.FOLD > config.FOLDS * config.REPEATS:
        return f"FOLD must be at most FOLDS times REPEATS, {config.FOLDS * config.REPEATS}, not {config.FOLD}"
    if config.FOLDS and (config.TEST_WHERE or config.CHECKPOINTS):
        return "FOLDS choose the test images and train a model for each: leave out TEST_WHERE and CHECKPOINTS"
    if config.FOLDS and config.VAL_FRACTION + 1 / config.FOLDS >= 1:
        return "VAL_FRACTION and 1 / FOLDS must leave images to train on: their sum must be below 1"
    if config.RESUME and config.EVALUATE_ONLY:
        return "RESUME trains and EVALUATE_ONLY does not: choose one"
    if config.START_FROM and (config.EVALUATE_ONLY or config.PRETRAINED == "yes"):
        return "START_FROM is for training, in place of ImageNet weights: leave out EVALUATE_ONLY and PRETRAINED=yes"
    if config.CHECKPOINTS and not config.EVALUATE_ONLY:
        return "CHECKPOINTS are evaluated, not trained: pass --evaluate-only as well"
    if config.NEGATIVES and config.SAMPLING != "all":
        return "NEGATIVES and SAMPLING both choose the images of an epoch: leave out one of them"
    if "none" in config.AUGMENT and len(config.AUGMENT) > 1:
        return "AUGMENT names none beside others: leave out none, or the others"
    return settings.find_misplaced(config, "OUTPUT_DIR", ["DATA_DIR", "EXTERNAL_DIR", "START_FROM"])


def answer_early() -> None:
    """Answer --help, mistaken flags and a missing data folder, before the imports below, which take seconds."""
    config = parse_arguments(choices=dict)
    if not config.DEMO:
        from dataset.layout import names_in

        try:
            names_in(config.DATA_DIR)
        except FileNotFoundError as error:
            sys.exit(settings.stop(2, str(error)))


if __name__ == "__main__":
    answer_early()

import pandas as pd
import torch

import data
import machine
import models
import train
import visualize
from augment import AUGMENTS
from checkpoints.seen import fit_to_data, leave_out_of_other
from checkpoints.startfile import choose_start, initial_model
from checkpoints.states import Checkpoints, facts_of
from checkpoints.trained import Trained
from dataset import splits, synthetic
from dataset import table as tables
from dataset.holdout import columns_in
from dataset.prepare import Prepared, Reading, Splitting, prepare, prepare_other
from dataset.soft import add_soft_labels, cautions_on, file_hash
from encoders import ENCODERS
from encoders.start import Start
from losses import LOSSES
from report import results, resume
from report.folder import RunFolder
from report.folds import Folds, as_tested, place_of, pool
from report.hook import Hook
from report.live import Live, work_left
from report.resume import Job


def main(argv: list[str] | None = None) -> int:
    """Run the experiment and return the exit code; a user's mistake ends in one message."""
    config = parse_arguments(argv)
    advice = "Make room, or name another --output-dir or --cache-dir. What was finished is kept for --resume."
    try:
        folder = RunFolder(config.OUTPUT_DIR, synthetic.NOTE if config.DEMO else synthetic.note_of(config.DATA_DIR))
        if config.FOLDS and not config.FOLD:
            run_folds(config, folder)
        else:
            run(config, place_of(folder, config.FOLD) if config.FOLD else folder)
    except KeyboardInterrupt:
        resumable = "" if config.EVALUATE_ONLY else " The same command with --resume continues from the last epoch."
        return settings.stop(130, f"Stopped.{resumable}")
    except (ValueError, OSError, FloatingPointError, MemoryError, torch.cuda.OutOfMemoryError) as error:
        return settings.stop(*machine.in_words(error, config.OUTPUT_DIR, advice))
    return 0


def run_folds(config: Config, whole: RunFolder) -> None:
    """Run each fold, and pool them."""
    machine.join_processes(machine.choose_device(config.DEVICE))
    runs = [place_of(whole, fold) for fold in range(1, config.FOLDS * config.REPEATS + 1)]
    if not (config.RESUME and machine.from_first(lambda: any(run.holds_a_training() for run in runs))):
        runs[0].whole = whole
    tables_of_folds: list[pd.DataFrame] = []
    with machine.locked(whole.path):
        for fold, folder in enumerate(runs, start=1):
            machine.say(f"\n##### {splits.name_of_fold(config.FOLDS, fold)} #####")
            data_set = run(Config(**vars(config) | {"FOLD": fold}), folder)
            tables_of_folds.append(data_set.table)
        data_set = data_set._replace(table=as_tested(tables_of_folds))
        pool(whole, Folds(config.FOLDS, runs), data_set, config.AUDIT)
    machine.say(f"\nAll folds together are in {whole.path.resolve()}; open report.html there")


def run(config: Config, folder: RunFolder) -> Prepared:
    """Prepare and check; then train, evaluate and draw each model. Returns the data."""
    hook = Hook(config.AFTER_EPOCH)
    if config.KEEP_FREED_MEMORY:
        machine.keep_freed_memory()
    device = machine.join_processes(machine.choose_device(config.DEVICE))
    environment = machine.environment_of(device, machine.choose_precision(config.PRECISION, device))
    with machine.locked(folder.path):
        machine.say(settings.describe(config, sys.modules[__name__], {"RECIPE": RECIPES}))
        machine.say(machine.in_short(environment))

        # Everything is checked before the first file is written.
        start = Start() if config.EVALUATE_ONLY else choose_start(config.START_FROM, config.PRETRAINED, config.ENCODER)
        data_set = prepare_data(config)
        other = (config.EXTERNAL_DIR, data_set, config.CACHE_DIR, reading_of(config), machine.say)
        one_each = {"cache_per_machine": config.CACHE_PER_MACHINE}
        external = prepare_other(*other, **one_each) if config.EXTERNAL_DIR else None
        data_set.remarks.extend(cautions := start.cautions(data_set.table, config.FREEZE))
        machine.say("\n".join([start.words, *cautions]))
        tasks = [] if config.CHECKPOINTS else resume.choose_tasks(config.TASKS, data_set.table, config.DATA_DIR)
        trained = resume.load_trained(folder, tasks, config.CHECKPOINTS, config.TTA) if config.EVALUATE_ONLY else []
        fit_to_data(trained, config.IMAGE_SIZE, data_set.table)
        if external:
            known = start.checkpoints | {path: one for model in trained for path, one in model.checkpoints.items()}
            external = leave_out_of_other(known, external, data_set.table)
        shared = {"split_hash": splits.split_hash(data_set.table), "initial_weights": start.kind}
        identities = {task: identity(config, task, environment, shared) for task in models.MODELS}
        split = partial(data.split_batches, data.to_device(data_set.pixels, device), device=device)
        jobs = [evaluation(config, model, data_set.table, split) for model in trained]
        if not trained:
            jobs = [training(config, identities[task], task, data_set.table, split, start) for task in tasks]
        how = config.EXTERNAL_DIR, config.TTA, config.COVERAGE, config.SUBGROUPS, config.ALL_PARTS
        evaluated_as = results.evaluated_as(*how)
        if not resume.begin(folder, settings.plain(config), environment, jobs, identities):
            machine.say(f"\n{folder.path} holds this run, finished: nothing is left to do.")
            return data_set

        folder.write_data(data_set.table)
        folder.note(reading=data_set.remarks)
        if external:
            folder.below("external").write_data_report(external.table)
        for number, job in enumerate(jobs):
            machine.say(f"\n=== {job.name} ===")
            if not (job.trained or folder.facts(job.name).get("trained")):
                work = [work_left(folder, later, external, evaluated_as) for later in jobs[number:]]
                train_model(config, folder, job, start, environment, hook.after(Live(folder, work, config.ENCODER)))
            if folder.facts(job.name).get("measured") != evaluated_as:
                model = job.trained or machine.from_first(Trained.load, folder.best_path(job.name), tta=config.TTA)
                results.evaluate_model(folder, model, job.batches, external, environment["precision"], evaluated_as)
        results.finish(folder, data_set, config.AUDIT)
    machine.say(f"\nModels, numbers and figures are in {folder.path.resolve()}; open report.html there")
    return data_set


def recipe_of(config: Config, task: str) -> train.Recipe:
    """Training recipe of a task."""
    own = (getattr(config, f"{task.upper()}_{name}") for name in ("EPOCHS", "BATCH_SIZE", "LR"))
    return train.Recipe(*own, **{name: getattr(config, name.upper()) for name in train.Recipe._fields[3:]})


def reading_of(config: Config) -> Reading:
    """How to read data folders. Raises ValueError if TEST_WHERE has another form."""
    as_named = config.CLASSES, config.ZEROS, config.SPLIT_FILE, config.INVERT_MASKS, config.STRETCH_MASKS
    return Reading(*as_named, (*config.SUBGROUPS, *columns_in(config.TEST_WHERE)))


def prepare_data(config: Config) -> Prepared:
    """Read, check, decode and split; print what was found."""
    if config.DEMO:
        machine.from_first(synthetic.write_missing, config.DATA_DIR, config.SPLIT_SEED)
    if note := synthetic.note_of(config.DATA_DIR):
        machine.say(f"*** {note}: these numbers say nothing about real lesions ***")
    fractions = config.VAL_FRACTION, config.TEST_FRACTION, config.SPLIT_SEED
    groups = config.GROUP_BY_LESION, config.GROUP_DUPLICATES, config.TEST_WHERE
    splitting = Splitting(*fractions, *groups, config.FOLDS, config.FOLD)
    places = config.DATA_DIR, config.IMAGE_SIZE, config.CACHE_DIR
    options = {"limit": config.LIMIT, "cache_per_machine": config.CACHE_PER_MACHINE, "say": machine.say}
    data_set = prepare(*places, reading_of(config), splitting, **options)
    if config.SOFT_LABELS:
        said = add_soft_labels(data_set.table, config.SOFT_LABELS, config.SOFT_WEIGHT)
        data_set.remarks.extend(cautions := cautions_on(config.SOFT_LABELS))
        machine.say("\n".join([said, *cautions]))
    return data_set


def identity(config: Config, task: str, environment: dict, shared: dict) -> dict:
    """Values that must not change when a run is resumed."""
    names = ("seed", "image_size", "encoder", "freeze", "sampling", "negatives", "dropout", "drop_path", "soft_weight")
    own = {name: getattr(config, name.upper()) for name in names}
    own |= {"augment": " ".join(config.AUGMENT), "soft_labels": file_hash(config.SOFT_LABELS)}
    own |= {"precision": environment["precision"], "processes": environment["processes"]}
    if environment["device"] not in ("cpu", "mps"):
        own["processes"] = "any"  # GPUs share the statistics of their batch norms
    return own | recipe_of(config, task)._asdict() | shared


def training(config: Config, identity: dict, task: str, table: pd.DataFrame, split: Callable, start: Start) -> Job:
    """A model to train. Raises ValueError if batches are too small, or as `initial_model`."""
    recipe, rows = recipe_of(config, task), tables.learnable(table, models.MODELS[task].outputs)
    options = {"seed": config.SEED, "sampling": config.NEGATIVES or config.SAMPLING, "augment": config.AUGMENT}
    batches = split(rows, recipe.batch_size, **options)
    train.refuse_small(batches["train"], config.IMAGE_SIZE, task)
    initial_model(task, batches["train"].classes, start, identity)  # refuses what does not fit
    return Job(task, batches, recipe, identity, None)


def evaluation(config: Config, trained: Trained, table: pd.DataFrame, split: Callable) -> Job:
    """A model that is only evaluated."""
    batches = split(tables.learnable(table, trained.heads), config.MULTITASK_BATCH_SIZE)  # any size: equal numbers
    identity = {} if trained.is_average else trained.checkpoint.get("identity", {})
    return Job(trained.name, batches, None, identity | {"checkpoints": list(map(str, trained.checkpoints))}, trained)


def train_model(config: Config, folder: RunFolder, job: Job, start: Start, environment: dict, watch: Callable) -> None:
    """Train one model, keep its best epoch, and draw its curves."""
    train_batches, val_batches = job.batches["train"], job.batches["val"]
    torch.manual_seed(config.SEED)
    model, words = initial_model(job.name, train_batches.classes, start, job.identity)
    for line in filter(None, (words, train_batches.describe_draws())):
        machine.say(line)
    model.to(train_batches.device, memory_format=torch.channels_last)
    folder.note_task(job.name, identity=job.identity, trained=False, measured=None)
    seen = train_batches.table, val_batches.table, start.seen_before
    about = facts_of(model, *seen, config.IMAGE_SIZE, job.identity)
    about |= {"task": job.name, "config": settings.plain(config), "initial_file": start.file}
    options = {"description": about | {"note": folder.caption}, "identity": job.identity, "resume": config.RESUME}
    options["conditions"] = {name: environment[name] for name in ("device", "threads", "torch", "processes")}
    checkpoints = Checkpoints(folder.best_path(job.name), folder.path / job.name, **options)
    options = {"seed": config.SEED, "precision": environment["precision"], "checkpoints": checkpoints}
    try:
        history = train.fit(model, train_batches, val_batches, recipe=job.recipe, after_epoch=watch, **options)
    except torch.cuda.OutOfMemoryError as error:
        size = job.recipe.batch_size
        advice = f"Try --{job.name}-batch-size {size // 2}" if size > 1 else "Try a smaller --image-size"
        raise MemoryError(f"Out of GPU memory: {job.name} with batches of {size}. {advice}.") from error
    folder.draw(f"{job.name}/training_curves.png", visualize.training_curves(pd.DataFrame(history), job.name))
    folder.note_task(job.name, trained=True)
    if machine.is_first():
        checkpoints.drop_states(config.KEEP_STATES, job.recipe.schedule, job.recipe.warm_up)


if __name__ == "__main__":
    sys.exit(main())
