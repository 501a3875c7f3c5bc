"""Soft labels: a table of class probabilities per image, learned beside the diagnoses.

They come from a teacher, which should not have learned from the images that it labels, or from several raters.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd

from dataset.classes import classes_of, positions_of
from dataset.names import named

PREFIX = "soft_"  # begins the name of the table's column for a class
WEIGHT = "weight_of_soft"  # column: of the soft label against the diagnosis


def add_soft_labels(table: pd.DataFrame, path: str | Path, weight: float) -> str:
    """Give the training images of a split table their soft labels, one column per class; returns a summary.

    The target of `soft_targets` is (1 - weight) * one-hot + weight * soft label, so that its cross-entropy is (1 -
    weight) * cross-entropy + weight * KL divergence from the soft label, but for a constant (Hinton et al. 2015,
    arXiv:1503.02531, at temperature 1). Images without a row, or without a diagnosis, keep what they have.

    Parameters
    ----------
    path : CSV with a column ``image``, or predict.py's ``file``, and a column of probabilities per class.

    Raises
    ------
    FileNotFoundError, ValueError : no such table; it lacks a class, names an image twice, holds other values than
        probabilities that sum to 1, or names no training image.
    """
    classes = list(classes_of(table))
    soft = _read(Path(path), classes)
    is_learned = ((table["split"] == "train") & (positions_of(table) >= 0)).to_numpy()
    known = soft.reindex(table["image"]).to_numpy(np.float32)
    chosen = is_learned & ~np.isnan(known).any(axis=1)
    if not is_learned.any():
        raise ValueError("No training image has a diagnosis, which soft labels are blended with. Omit --soft-labels.")
    if not chosen.any():
        raise ValueError(f"{path} names no training image. Its column image must hold the names of the data's images.")
    table[[PREFIX + name for name in classes]] = known
    table[WEIGHT] = np.where(chosen, weight, np.where(is_learned, 0, np.nan))
    n_unused = len(soft) - int(chosen.sum())
    unused = f" {n_unused:,} rows match no training image and are not used." if n_unused else ""
    return f"Soft labels: {chosen.sum():,} of {is_learned.sum():,} training images have one, in {path}.{unused}"


def soft_targets(table: pd.DataFrame, ratio: np.ndarray | float = 1.0) -> np.ndarray | None:
    """The label targets (N, K) of `add_soft_labels`, NaN where nothing is learned; None if the table has none.

    Parameters
    ----------
    ratio : (K,) how much more often each class is drawn than it occurs. A soft label is a probability among all images;
        the target is that among the drawn ones, as the diagnoses that are drawn beside it.
    """
    classes = classes_of(table)
    if WEIGHT not in table:
        return None
    soft = table[[PREFIX + name for name in classes]].to_numpy(np.float32) * ratio
    soft /= soft.sum(axis=1, keepdims=True)
    weight, one_hot = table[[WEIGHT]].to_numpy(), np.eye(len(classes))[positions_of(table)]
    return ((1 - weight) * one_hot + np.where(weight > 0, weight * soft, 0)).astype(np.float32)


def file_hash(path: str | Path) -> str:
    """Identifies a table of soft labels; "" for none."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12] if path else ""


def cautions_on(path: str | Path) -> list[str]:
    """What the report should say of a table that main.py --folds wrote: its models learned from test images."""
    if "fold" not in pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns:
        return []
    return [
        f"The soft labels in {path} are out-of-fold predictions (column fold). Their models learned from images of "
        "this test set, so its scores may be inflated. benchmarks/out_of_fold.py makes soft labels without them."
    ]


def _read(path: Path, classes: list[str]) -> pd.DataFrame:
    """Probabilities by image name, one column per class."""
    if not path.is_file():
        advice = "Name a CSV file with the column image and one column per class."
        raise FileNotFoundError(f"There is no table of soft labels at {path}. {advice}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} is not a readable table: {error}.") from None
    table.columns = table.columns.str.strip()
    if "image" not in table and "file" in table:  # as predict.py writes it
        table["image"] = table["file"].map(os.path.basename)
    columns = {f"{name}_" if f"{name}_" in table else name: name for name in classes}  # predict.py avoids two columns
    if missing := [name for name in ["image", *columns] if name not in table]:
        raise ValueError(f"{path} lacks the column {missing[0]}. It needs image and {', '.join(classes)}.")
    table["image"] = [named(cell.strip()).stem for cell in table["image"]]
    if (table["image"] == "").any():
        raise ValueError(f"{path} has a row without the name of an image.")
    soft = table.set_index("image")[list(columns)].rename(columns=columns)
    soft = soft.apply(pd.to_numeric, errors="coerce").dropna(how="all")
    if soft.index.has_duplicates:
        raise ValueError(f"{path} has {soft.index[soft.index.duplicated()][0]} twice.")
    wrong = ~((soft >= 0).all(axis=1) & (soft.sum(axis=1) - 1).abs().le(0.02))
    if wrong.any():
        raise ValueError(f"{path}: the values of {soft.index[wrong][0]} are not probabilities that sum to 1.")
    return soft.div(soft.sum(axis=1), axis=0)
