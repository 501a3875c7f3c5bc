"""Soft labels from teachers that have not seen the images they label: one teacher per fold of the training lesions.

    python benchmarks/out_of_fold.py --data-dir data --output soft_labels.csv
    python main.py --data-dir data --soft-labels soft_labels.csv

Each teacher is trained on the other folds and labels its own with its mean logits over eight flips and rotations. One
temperature is fitted to all folds. Each fold's logits are kept beside the output, so an interrupted run resumes.
"""

import argparse
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import torch

import data
import evaluate
import machine
import main
import models
import train
from benchmarks import start
from checkpoints import Checkpoints
from checkpoints.networks import Views
from dataset.classes import classes_of, positions_of
from dataset.groups import groups_of
from dataset.splits import split_hash
from encoders.start import imagenet_start

TEACHER = "--encoder efficientnet_lite0 --pretrained yes --image-size 128 --recipe strong --classification-epochs 6"


def run() -> None:
    """Train the teachers, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--output", type=Path, default=Path("soft_labels.csv"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--teacher", default=f"{TEACHER} --dropout 0.2 --drop-path 0.1", help="main.py's flags")
    options = parser.parse_args()
    config = main.parse_arguments(["--data-dir", options.data_dir, *options.teacher.split()])
    machine.keep_freed_memory()
    data_set = main.prepare_data(config)
    rows = data_set.table[(data_set.table["split"] == "train") & (positions_of(data_set.table) >= 0)]
    group, shuffled = groups_of(rows), np.random.default_rng(config.SEED)
    fold_of = pd.Series(shuffled.permutation(group.nunique()) % options.folds, index=group.unique())
    fold = group.map(fold_of).to_numpy()
    logits = np.empty((len(rows), len(classes_of(rows))))
    identity = repr((options.teacher, options.folds, split_hash(data_set.table)))
    key = hashlib.sha256(identity.encode()).hexdigest()[:8]  # the folds of other teachers or data are not reused
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for number in range(options.folds):
        kept = options.output.with_suffix(f".{key}.fold{number}.npy")
        if not kept.exists():
            np.save(kept, label_fold(config, data_set, rows[fold != number], rows[fold == number]))
        logits[fold == number] = np.load(kept)
    temperature = evaluate.fit_temperature(positions_of(rows), logits)
    soft = pd.DataFrame(evaluate.softmax(logits, temperature), index=rows["image"], columns=classes_of(rows))
    soft.to_csv(options.output, float_format="%.5f")
    accuracy = (logits.argmax(axis=1) == positions_of(rows)).mean()
    print(f"{options.output}: {len(soft):,} images, teacher accuracy {accuracy:.3f}, temperature {temperature:.2f}")


def label_fold(config, data_set, learned: pd.DataFrame, labelled: pd.DataFrame) -> np.ndarray:
    """Logits (N, K) of a teacher trained on other lesions; its epoch is chosen on the validation set."""
    device = machine.choose_device(config.DEVICE)
    torch.manual_seed(config.SEED)
    model = models.new_model("classification", len(classes_of(learned)), config.ENCODER)
    imagenet_start(config.PRETRAINED, config.ENCODER).give(model, classes_of(learned))
    model.regularise(config.DROPOUT, config.DROP_PATH)
    model.to(device, memory_format=torch.channels_last)
    recipe, precision = main.recipe_of(config, "classification"), machine.choose_precision("auto", device)
    batches = data.Batches(
        data_set.pixels, learned, recipe.batch_size, device=device, seed=config.SEED, augment=config.AUGMENT
    )
    val = data_set.table[data_set.table["split"] == "val"]
    kept = Checkpoints("cache/teacher/best.pth", "cache/teacher")
    val_batches = data.Batches(data_set.pixels, val, recipe.batch_size, device=device)
    train.fit(model, batches, val_batches, recipe=recipe, seed=config.SEED, precision=precision, checkpoints=kept)
    model.load_state_dict(kept.best_weights())
    held_out = data.Batches(data_set.pixels, labelled, recipe.batch_size, device=device)
    outputs = [output["label"].cpu() for _, output in evaluate.infer(Views(model), held_out.epoch(), precision)]
    return torch.cat(outputs).numpy()


if __name__ == "__main__":
    start(run)
