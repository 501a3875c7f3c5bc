"""The encoder's pooled features of all images of a run in one file, with what a data folder says of the images."""

import csv
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from checkpoints.seen import seen_by
from dataset.classes import is_known
from dataset.files import scan
from dataset.layout import find
from dataset.table import read_table
from inference.inputs import Listed

FORMATS = ("npz", "csv")
KNOWN = ("label", "lesion_id", "split")  # columns of images in a data folder; "" where unknown


def rows_known(paths: Sequence[str], checkpoint: dict, say: Callable[[str], None] = print) -> pd.DataFrame:
    """What is `KNOWN` of the images in those `paths` that are data folders, by their resolved files.

    The split is ``train`` or ``val`` for images, by name, that the model or the weights that it started from were
    trained on or chosen on. Data folders that cannot be read are reported through `say`.
    """
    tables = [table for path in paths if os.path.isdir(path) and (table := _read_known(path, say)) is not None]
    if not tables:
        return pd.DataFrame(columns=KNOWN)
    rows = pd.concat(tables, ignore_index=True).astype({"label": object})
    rows["lesion_id"] = rows["lesion_id"].where(rows["lesion_known"].astype(bool), "")
    trained, chosen = (rows["image"].isin(kinds["images"]) for kinds in seen_by(checkpoint).values())
    rows["split"] = np.select([trained, chosen], ["train", "val"], "")
    rows = rows[rows["image_path"] != ""]
    rows.index = [os.path.realpath(path) for path in rows["image_path"]]
    return rows.loc[~rows.index.duplicated(), [*KNOWN]].fillna("")


def _read_known(folder: str, say: Callable[[str], None]) -> pd.DataFrame | None:
    """The table of a data folder; None for a folder of images without diagnoses."""
    try:
        layout = find(folder)
        if layout.source or all(map(is_known, layout.labels.classes)):  # other folders need not be named by a class
            return read_table(layout)
    except FileNotFoundError:  # nothing to learn from
        pass
    except ValueError as error:
        if scan(folder).tables:
            say(f"The features of {folder} are written without labels: {error}")
    return None


def join_features(folder: Path, form: str, listed: Sequence[Listed], known: pd.DataFrame) -> str:
    """Write the features of the images, in their order, into one file; returns a message about it.

    Parameters
    ----------
    folder : of the outputs; ``features/<output>.npy`` holds the (C,) float32 of each image.
    form : of `FORMATS`.
    listed : the predicted images.
    known : from `rows_known`.

    Raises
    ------
    ValueError : the features of an image are missing or damaged; names the file.
    """
    path, partial = folder / f"features.{form}", folder / "predictions.features.partial"
    columns = {"image": [item.output for item in listed], "file": [item.file for item in listed]}
    if not known.empty:
        found = known.reindex([os.path.realpath(item.file) for item in listed]).fillna("")
        columns |= {name: list(found[name]) for name in KNOWN}
    vectors = (_read_vector(folder / "features" / f"{item.output}.npy") for item in listed)
    width = len(_read_vector(folder / "features" / f"{listed[0].output}.npy"))
    write = {"npz": _write_npz, "csv": _write_csv}[form]
    write(partial, columns, vectors, width)
    os.replace(partial, path)
    labelled = sum(map(bool, columns.get("label", [])))
    labels = f"with {', '.join(KNOWN)}, {labelled:,} of them with a label" if labelled else "without labels"
    return f"{path}: {len(listed):,} images x {width} features, {labels}"


def _read_vector(path: Path) -> np.ndarray:
    try:
        vector = np.load(path, allow_pickle=False)
        if vector.ndim == 1 and vector.dtype == np.float32:
            return vector
    except (OSError, ValueError, EOFError):
        pass
    raise ValueError(f"{path} is missing or damaged. Predict again with --overwrite instead of --resume.")


def _write_npz(path: Path, columns: dict[str, list[str]], vectors: Iterator[np.ndarray], width: int) -> None:
    """As `numpy.savez`, but with one image's features in memory at a time."""
    n_images = len(columns["image"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(values, dtype=str), allow_pickle=False)
        with archive.open("features.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (n_images, width)}
            np.lib.format.write_array_header_1_0(file, header)
            for vector in vectors:
                file.write(vector.astype("<f4").tobytes())


def _write_csv(path: Path, columns: dict[str, list[str]], vectors: Iterator[np.ndarray], width: int) -> None:
    """Nine digits give back each float32."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *(f"f{i}" for i in range(width))])
        for *cells, vector in zip(*columns.values(), vectors):
            writer.writerow([*cells, *(f"{value:.9g}" for value in vector)])
