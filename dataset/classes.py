"""What diagnoses are called: short codes, full names, and how other data sets spell them."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from dataset.csvfile import CONTROL

HAM10000 = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
NAMES = {
    "MEL": "Melanoma",
    "NV": "Nevus",
    "BCC": "Basal Cell Carcinoma",
    "AKIEC": "Actinic Keratosis",
    "BKL": "Benign Keratosis",
    "DF": "Dermatofibroma",
    "VASC": "Vascular Lesion",
    "SCC": "Squamous Cell Carcinoma",
}
SPELLINGS = {spelling.lower(): code for code, name in NAMES.items() for spelling in (code, name)} | {
    "ak": "AKIEC",
    "melanocytic nevus": "NV",
    "melanocytic nevi": "NV",
    "benign keratosis-like lesions": "BKL",
    "vascular lesions": "VASC",
}
MALIGNANT = ("MEL", "BCC", "AKIEC", "SCC", "malignant")
NO_DIAGNOSIS = "UNK"  # ISIC 2019's column of what is none of the others: nothing to learn


def code_of(spelling: str) -> str:
    """The code of a class that is known by this code or name; the text itself for any other.

    Dots, which separate names in the scores, and control characters become _, but 1.0 is 1.

    Examples
    --------
    >>> code_of("melanoma"), code_of("AK"), code_of("benign"), code_of("1.0"), code_of("k. seb.")
    ('MEL', 'AKIEC', 'benign', '1', 'k_ seb_')
    """
    text = spelling.strip()
    return SPELLINGS.get(text.lower()) or CONTROL.sub("_", re.sub(r"^(\d+)\.0+$", r"\1", text)).replace(".", "_")


def name_of(code: str) -> str:
    """The full name of a class that is known; the code itself for any other."""
    return NAMES.get(code, code)


def in_words(codes: Iterable[str]) -> str:
    """Codes in a list, with the names of those that have one."""
    return ", ".join(f"{code} ({NAMES[code]})" if code in NAMES else code for code in codes)


def in_order(codes: Iterable[str], of_file: Sequence[str] = ()) -> tuple[str, ...]:
    """Classes in the file's order, where it has one, else by name; HAM10000's seven in their own."""
    codes = set(codes)
    if codes == set(HAM10000) or (codes <= set(HAM10000) and not of_file):
        return tuple(code for code in HAM10000 if code in codes)
    return tuple(of_file) or tuple(sorted(codes))


def classes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The classes of a table, in order; none for images without diagnoses, HAM10000's where labels are positions."""
    label = table["label"]
    return tuple(label.cat.categories) if isinstance(label.dtype, pd.CategoricalDtype) else HAM10000


def positions_of(table: pd.DataFrame) -> np.ndarray:
    """Position of each row's label among the classes, -1 for none: (N,) int64.

    A table made by hand may hold the positions themselves.
    """
    label = table["label"]
    return (label.cat.codes if isinstance(label.dtype, pd.CategoricalDtype) else label).to_numpy(np.int64)
