"""A large synthetic data set in the layout of ISIC 2024: one table, and images in a folder or in one HDF5 file.

Malignant lesions are rare, patients have hundreds of images, and near duplicates with other lesion ids are known. It
shows how time and memory grow (benchmarks/scale.py); scores on it say nothing about real lesions.
"""

import io
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance
from tqdm import tqdm

from dataset.synthetic import IMAGES_PER_LESION, SIGN, SITES, SKIN_TONES, draw_lesion, draw_shape

TABLE, IMAGES, PAIRS = "train-metadata.csv", "train-image", "known_duplicates.csv"
BENIGN = {"NV": 0.9, "BKL": 0.06, "DF": 0.02, "VASC": 0.02}  # shares of what benign lesions look like
MALIGNANT = ("MEL", "BCC", "AKIEC")  # in turn
IMAGES_PER_MALIGNANT, FEWEST_MALIGNANT = 1000, 12  # one malignant image in so many, and at least so many
IMAGES_PER_PATIENT, FEWEST_PATIENTS = 385, 20  # on average
IMAGES_PER_DUPLICATE = 200  # one image in so many is a near duplicate of an earlier one
N_MEASURES = 30  # columns of numbers without meaning
PER_TASK = 64  # images that a process draws at a time
QUALITY, QUALITY_OF_COPY = 90, 80  # of JPEG files


def write_large(folder: str | Path, n_images: int, size: int = 64, hdf5: bool = False, seed: int = 42) -> None:
    """Write a table, images and the list of near duplicates into a new folder, drawn on all cores.

    The same seed gives the same files. The folder appears once it is complete.

    Parameters
    ----------
    n_images : at least `IMAGES_PER_DUPLICATE`.
    size : pixels; images are squares of this side.
    hdf5 : write the images as datasets of one HDF5 file, which needs h5py.

    Raises
    ------
    FileExistsError : `folder` already exists.
    ValueError : too few images or pixels, or h5py is not installed.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} already exists. Name a new folder for the synthetic data.")
    if n_images < IMAGES_PER_DUPLICATE or size < 32:
        raise ValueError(f"A large set has at least {IMAGES_PER_DUPLICATE} images of 32 pixels.")
    if hdf5 and find_spec("h5py") is None:
        raise ValueError("--hdf5 needs h5py: pip install -r requirements-hdf5.txt")
    place = folder.with_name(folder.name + ".partial")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    plan = plan_of(n_images, seed)
    progress = tqdm(total=n_images, desc="Drawing synthetic images", unit="image", disable=None)
    pool = ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))  # fork beside threads may hang
    with _store(place, hdf5) as write, pool:
        for files in pool.map(partial(_draw, size=size, seed=seed), _tasks(plan)):
            for name, content in files.items():
                write(name, content)
            progress.update(len(files))
    progress.close()
    _table(plan, seed).to_csv(place / TABLE, index=False, float_format="%.6g", lineterminator="\n")
    _known_pairs(plan).to_csv(place / PAIRS, index=False, lineterminator="\n")
    (place / "README.txt").write_text(f"Synthetic data, {SIGN}.\n")
    place.rename(folder)


def plan_of(n_images: int, seed: int) -> pd.DataFrame:
    """What is drawn, one row per image: ``image``, ``lesion``, ``patient``, ``malignant``, ``look`` and ``shows``.

    ``look`` is a key of `synthetic.LOOKS`; ``shows`` is the image's own row, or the row that a near duplicate repeats.
    """
    rng, rows = np.random.default_rng(seed), np.arange(n_images)
    siblings = 1 + rng.choice(len(IMAGES_PER_LESION), n_images, p=IMAGES_PER_LESION)
    lesion = np.repeat(rows, siblings)[:n_images]
    shows, copies = rows.copy(), 1 + rng.choice(n_images - 1, n_images // IMAGES_PER_DUPLICATE, replace=False)
    shows[copies] = rng.integers(copies)
    shows = np.where(shows[shows] == shows, shows, rows)  # no copy of a copy
    lesion = np.where(shows == rows, lesion, n_images + rows)  # a copy is a lesion of its own
    patients = rng.integers(max(FEWEST_PATIENTS, n_images // IMAGES_PER_PATIENT), size=2 * n_images)
    looks = rng.choice(np.array(list(BENIGN), object), 2 * n_images, p=list(BENIGN.values()))
    n_malignant = max(FEWEST_MALIGNANT, n_images // IMAGES_PER_MALIGNANT)
    looks[rng.choice(np.unique(lesion[shows == rows]), n_malignant, replace=False)] = np.resize(MALIGNANT, n_malignant)
    look = looks[lesion][shows]
    plan = {"image": [f"ISIC_{row:07}" for row in rows], "lesion": lesion, "patient": patients[lesion]}
    return pd.DataFrame(plan | {"malignant": np.isin(look.astype(str), MALIGNANT), "look": look, "shows": shows})


def _tasks(plan: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Some images at a time, with the lesion and the patient that each shows."""
    shown = plan[["lesion", "patient"]].iloc[plan["shows"]].set_axis(plan.index)
    plan = plan[["image", "look", "shows"]].join(shown)
    for start in range(0, len(plan), PER_TASK):
        yield plan.iloc[start : start + PER_TASK]


def _draw(some: pd.DataFrame, size: int, seed: int) -> dict[str, bytes]:
    """JPEG files by image name."""
    files = {}
    for row, image in some.iterrows():
        shape = draw_shape(image["look"], np.random.default_rng((seed, 1, image["lesion"])))
        tone = np.array(SKIN_TONES[np.random.default_rng((seed, 2, image["patient"])).integers(len(SKIN_TONES))], float)
        rng = np.random.default_rng((seed, 3, image["shows"]))
        picture = Image.fromarray(draw_lesion(image["look"], shape, tone, rng, (size, size))[0])
        altered = image["shows"] != row and row % 2  # every other copy, the rest are the same file
        if altered:
            picture = ImageEnhance.Brightness(picture).enhance(1.05)
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=QUALITY_OF_COPY if altered else QUALITY)
        files[image["image"]] = content.getvalue()
    return files


@contextmanager
def _store(place: Path, hdf5: bool) -> Iterator[Callable[[str, bytes], object]]:
    """A function that writes the file of an image, given its name."""
    if not hdf5:
        (place / IMAGES / "image").mkdir(parents=True)
        yield lambda name, content: (place / IMAGES / "image" / f"{name}.jpg").write_bytes(content)
        return
    import h5py

    with h5py.File(place / f"{IMAGES}.hdf5", "w") as file:
        yield lambda name, content: file.create_dataset(name, data=np.void(content))


def _table(plan: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The columns of ISIC 2024 that the program reads, and numbers that it does not."""
    rng = np.random.default_rng((seed, 4))
    n_patients = plan["patient"].max() + 1
    ages, sexes = 5 * rng.integers(4, 18, n_patients), rng.choice(["female", "male"], n_patients)
    table = {
        "isic_id": plan["image"],
        "patient_id": [f"IP_{number:07}" for number in plan["patient"]],
        "age_approx": ages[plan["patient"]],
        "sex": sexes[plan["patient"]],
        "anatom_site_general": rng.choice(SITES, len(plan)),
        "lesion_id": [f"IL_{number:07}" for number in plan["lesion"]],
        "iddx_1": np.where(plan["malignant"], "Malignant", "Benign"),
    }
    return pd.DataFrame(table | {f"tbp_lv_{i:02}": rng.normal(size=len(plan)) for i in range(1, N_MEASURES + 1)})


def _known_pairs(plan: pd.DataFrame) -> pd.DataFrame:
    """Near duplicates and what they repeat: ``image_a``, ``image_b`` and ``kind`` as in leakage.csv."""
    copies = plan.index[plan["shows"] != plan.index]
    names = plan["image"].to_numpy()
    kinds = np.where(copies % 2, "same picture", "same file")
    return pd.DataFrame({"image_a": names[plan["shows"][copies]], "image_b": names[copies], "kind": kinds})
