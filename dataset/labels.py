"""The rows of a table -> the diagnoses that they name."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dataset.classes import NAMES, code_of, codes_of, in_order, is_known, is_no_diagnosis, key_of
from dataset.columns import LABEL_COLUMNS, find_column, names_details
from dataset.columns import is_known as is_reserved

TRUTH = {"true": 1.0, "false": 0.0}
ANSWERS = ({"true": 1.0, "false": 0.0}, {"yes": 1.0, "no": 0.0}, {"y": 1.0, "n": 0.0}, {"t": 1.0, "f": 0.0})
OPPOSITES = {"malignant": "benign", "benign": "malignant"}  # what a 0 says in a column of this name alone
MOST_CLASSES = 100  # a column of more values, most of which stand once, is rather no column of diagnoses
LEAST_ZEROS = 0.05  # share of rows without a 1 that are asked about


class Labels(NamedTuple):
    """One reading of a folder's diagnoses."""

    where: str  # they stand, in words
    classes: tuple[str, ...]
    code: pd.Series  # of each row's class, "" for none
    reason: pd.Series  # why it has none, else ""


def no_labels(rows: pd.DataFrame) -> Labels:
    """The reading of images without diagnoses."""
    nothing = pd.Series("", index=rows.index, dtype=object)
    return Labels("none", (), nothing, nothing)


def read_labels(rows: pd.DataFrame, path: Path, zeros: str = "") -> list[Labels]:
    """All readings of the diagnoses in a table's rows that differ.

    Parameters
    ----------
    zeros : the class of rows that have a 0 for every class; "" to ask about these.

    Raises
    ------
    ValueError : two columns mean the same class; many rows have no 1, and `zeros` is not given.
    """
    columns = [column for name in LABEL_COLUMNS if (column := find_column(rows, [name]))]
    readings = [from_column(rows[column], column) for column in columns]
    of_columns = from_columns(rows, path, zeros)
    if of_columns and any(readings) and not set(of_columns.classes) & NAMES.keys():
        of_columns = None  # beside a diagnosis, columns of other zeros and ones are rather of the patient
    readings = [of_columns, *readings]
    if not any(readings):
        readings = [from_single_column(rows), *(from_known_words(rows[name], name) for name in _unreserved(rows))]
    found: list[Labels] = []
    for reading in filter(None, readings):
        if not any(_say_the_same(reading, other) for other in found):
            found = [other for other in found if not (_is_coded(other) and _same_groups(reading, other))]
            found.append(reading)
    few = [reading for reading in found if len(reading.classes) <= max(MOST_CLASSES, len(rows) / 2)]
    return few or found


def _say_the_same(reading: Labels, known: Labels) -> bool:
    """Whether a reading adds nothing to a known one: the same classes, or numbers for them."""
    return reading.code.equals(known.code) or (_is_coded(reading) and _same_groups(reading, known))


def _is_coded(reading: Labels) -> bool:
    """Whether the classes are numbers, which say less than words."""
    return all(code.isdigit() for code in reading.classes)


def _same_groups(a: Labels, b: Labels) -> bool:
    """Whether two readings tell the same rows apart, whatever they call them."""
    pairs = pd.DataFrame({"a": a.code, "b": b.code}).drop_duplicates()
    return pairs["a"].is_unique and pairs["b"].is_unique


def choose(readings: list[Labels], path: Path, wanted: Sequence[str]) -> Labels:
    """The reading that knows the wanted classes, all or else some. Raises ValueError if several do."""
    keys = set(map(key_of, wanted))
    for knows in (keys.issubset, lambda classes: not keys.isdisjoint(classes)):
        readings = [reading for reading in readings if knows(set(map(key_of, reading.classes)))] or readings
        if len(readings) == 1:
            return readings[0]
    ways = " or ".join(f"{reading.where} ({', '.join(reading.classes[:4])})" for reading in readings)
    example = shlex.join(readings[-1].classes[:6])
    raise ValueError(
        f"{path} can be read in {len(readings)} ways: {ways}. Choose with CLASSES, such as --classes {example}, or "
        "remove the other columns."
    )


def _unreserved(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows if not is_reserved(name)]


def from_columns(rows: pd.DataFrame, path: Path, zeros: str = "") -> Labels | None:
    """The diagnoses of columns with a 1 where the class holds: those of known classes, and others of zeros and ones.

    True is 1; False and a blank are 0.
    """
    columns = _unreserved(rows)
    known = [name for name in columns if code_of(name) in NAMES]
    numbers, blank = rows[columns].apply(as_numbers), rows[columns] == ""
    is_known_class = (numbers[known] == 1).any(axis=1)
    others = [name for name in columns if name not in known and _is_binary(numbers[name], blank[name])]
    others = [name for name in others if not (is_known_class & (numbers[name] == 1)).any()]  # a class excludes others
    columns = [name for name in columns if name in {*known, *others}]
    if len(columns) < 2:
        return None
    codes = list(map(code_of, columns))
    if same := [name for name in columns if codes.count(code_of(name)) > 1]:
        raise ValueError(f"{path} has the columns {' and '.join(sorted(same))}, which mean the same class. Remove one.")
    numbers = numbers[columns].mask(blank[columns], 0).set_axis(codes, axis=1)
    one_hot = numbers.isin([0, 1]).all(axis=1) & (numbers.sum(axis=1) == 1)
    empty = (numbers == 0).all(axis=1)
    if not (known or one_hot.mean() > 0.5):
        return None
    if zeros:
        code_of_zeros = code_of(zeros)
        if code_of_zeros not in codes:
            numbers[code_of_zeros] = 0.0
            codes = [*codes, code_of_zeros]
        numbers.loc[empty, code_of_zeros] = 1.0
        one_hot |= empty
    elif empty.sum() >= max(2, LEAST_ZEROS * len(rows)):
        raise ValueError(_ask_about_zeros(path, int(empty.sum()), len(rows), columns))
    code = numbers.fillna(0).idxmax(axis=1).where(one_hot, "").astype(object)
    reason = pd.Series("", index=rows.index).mask(~one_hot, "labels are not one-hot")
    reason = reason.mask(numbers.isna().any(axis=1), "labels are not numbers")
    unknown = [name for name in codes if is_no_diagnosis(name)]
    for name in unknown:
        code, reason = code.mask(code == name, ""), reason.mask(code == name, _says_nothing(name))
    classes = [name for name in codes if name not in unknown]
    return Labels(f"{len(classes)} columns of classes", in_order(classes, classes), code, reason)


def _ask_about_zeros(path: Path, n_empty: int, n_rows: int, columns: list[str]) -> str:
    return (
        f"{n_empty:,} of {n_rows:,} rows of {path} have a 0 for each of {', '.join(columns[:8])}. Say which class they "
        "are of, as in --zeros NV (ISIC 2017: nevus), or give them a column of their own; --zeros unknown leaves them "
        "out."
    )


def as_numbers(cells: pd.Series) -> pd.Series:
    """Numbers, with 1 and 0 for true and false, or for a whole column of other such answers; NaN for other text."""
    lower = cells.str.lower()
    for answers in ANSWERS[1:]:
        if lower.isin([*answers, ""]).all() and lower.isin(list(answers)).any():
            return lower.map(answers)
    numbers = pd.to_numeric(cells, errors="coerce")
    return numbers.fillna(lower.map(TRUTH)) if numbers.isna().any() else numbers


def _is_binary(numbers: pd.Series, blank: pd.Series) -> bool:
    """Whether a column holds nothing but 0, 1 and blanks for 0."""
    return bool((numbers.isin([0, 1]) | blank).all() and ((numbers == 1).any() or not blank.any()))


def from_single_column(rows: pd.DataFrame) -> Labels | None:
    """The diagnoses of one column of zeros and ones: what it is called, and the rest."""
    columns = _unreserved(rows)
    numbers, blank = rows[columns].apply(as_numbers), rows[columns] == ""
    binary = [name for name in columns if _is_binary(numbers[name], blank[name]) and (numbers[name] == 1).any()]
    known = [name for name in binary if code_of(name) in NAMES]
    if names_details(rows):  # then a column of any name is rather a detail
        binary = known
    if len(binary) != 1 and len(known) != 1:
        return None
    name = (known or binary)[0]
    positive = code_of(name)
    negative = OPPOSITES.get(positive, f"not {positive}")
    is_positive = numbers[name] == 1
    code = pd.Series(np.where(is_positive, positive, negative), index=rows.index, dtype=object)
    nothing = pd.Series("", index=rows.index)
    return Labels(f"column {name} of zeros and ones", (negative, positive), code, nothing)


def from_column(values: pd.Series, name: str) -> Labels | None:
    """The diagnoses of one column that names them, by code or by name."""
    if values.str.lower().isin([*TRUTH, ""]).all():
        values = values.str.lower().map({"true": "1", "false": "0", "": ""})
    codes = {text: "" if is_no_diagnosis(text) else code for text, code in codes_of(values[values != ""]).items()}
    code = values.map(codes).fillna("").astype(object)
    classes = set(code) - {""}
    if not classes:
        return None
    reason = values.map(lambda text: "" if codes.get(text) else _says_nothing(text) if text else "label is empty")
    return Labels(f"column {name}", in_order(classes), code, reason)


def _says_nothing(word: str) -> str:
    return f"labelled {word}, which is no diagnosis"


def from_known_words(values: pd.Series, name: str) -> Labels | None:
    """The diagnoses of a column of any name, most of whose words the vocabulary knows."""
    some = values[values != ""]
    is_word: Callable[[str], bool] = lambda text: is_no_diagnosis(text) or is_known(code_of(text))  # noqa: E731
    known = some.map({text: is_word(text) for text in some.unique()})
    reading = from_column(values, name) if len(some) and known.mean() >= 0.8 else None
    return reading if reading and any(map(is_known, reading.classes)) else None
