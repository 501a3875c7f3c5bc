"""Read the diagnoses in the rows of a table."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dataset.classes import NAMES, code_of, codes_of, in_order, is_known, is_no_diagnosis, key_of, quoted
from dataset.columns import GUESS, LABEL_COLUMNS, are_parts, find_column, is_reserved, names_details

TRUTH = {"true": 1.0, "false": 0.0}
ANSWERS = ({"true": 1.0, "false": 0.0}, {"yes": 1.0, "no": 0.0}, {"y": 1.0, "n": 0.0}, {"t": 1.0, "f": 0.0})
OPPOSITES = {"malignant": "benign", "benign": "malignant"}  # meaning of 0 in a single column of this name
MOST_CLASSES = 100  # a column of more values, mostly unique, probably does not hold diagnoses
LEAST_ZEROS = 0.05  # share of rows without a 1 from which --zeros is required


class Labels(NamedTuple):
    """One reading of a folder's diagnoses."""

    where: str  # description of the place
    classes: tuple[str, ...]
    code: pd.Series  # class of each row, "" for none
    reason: pd.Series  # why a row has none, else ""
    has_zeros: bool = False  # whether --zeros can name the class of all-zero rows
    columns: tuple[str, ...] = ()  # the table's columns that hold them


def no_labels(rows: pd.DataFrame) -> Labels:
    """The reading of images without diagnoses."""
    nothing = pd.Series("", index=rows.index, dtype=object)
    return Labels("none", (), nothing, nothing)


def read_labels(rows: pd.DataFrame, path: Path, zeros: str = "") -> list[Labels]:
    """All distinct readings of the diagnoses in the rows of a table.

    Parameters
    ----------
    zeros : the class of rows with a 0 for every class; "" to raise for these.

    Raises
    ------
    ValueError : two columns mean the same class; many rows have no 1 and `zeros` is not given.
    """
    columns = [column for name in LABEL_COLUMNS if name != GUESS and (column := find_column(rows, [name]))]
    readings = [from_column(rows[column], column) for column in columns if not are_parts(rows[column])]
    one_hot = from_columns(rows, path, zeros)
    has_known_class = bool(one_hot) and not NAMES.keys().isdisjoint(one_hot.classes)
    if not has_known_class and not any(readings) and (guess := find_column(rows, [GUESS])):
        readings = [from_column(rows[guess], guess)]
    if not has_known_class and any(readings):
        one_hot = None  # beside a diagnosis, other binary columns probably describe the patient
    readings = [one_hot, *readings]
    if is_single := not any(readings):
        readings = [from_single_column(rows, zeros)]
    if is_single or all(_is_coded(reading) for reading in filter(None, readings)):
        readings += [from_known_words(rows[name], name) for name in _unreserved(rows)]
    distinct: list[Labels] = []
    for reading in filter(None, readings):
        if not any(_adds_nothing(reading, other) for other in distinct):
            distinct = [other for other in distinct if not (_is_coded(other) and _same_groups(reading, other))]
            distinct.append(reading)
    plausible = [reading for reading in distinct if len(reading.classes) <= max(MOST_CLASSES, len(rows) / 2)]
    return plausible or distinct


def _adds_nothing(reading: Labels, other: Labels) -> bool:
    """Whether a reading repeats another one: the same classes, or numbers for them."""
    return reading.code.equals(other.code) or (_is_coded(reading) and _same_groups(reading, other))


def _is_coded(reading: Labels) -> bool:
    """Whether the classes are numbers, which are less informative than words."""
    return all(code.isdigit() for code in reading.classes)


def _same_groups(a: Labels, b: Labels) -> bool:
    """Whether two readings group the rows equally, under any class names."""
    pairs = pd.DataFrame({"a": a.code, "b": b.code}).drop_duplicates()
    return pairs["a"].is_unique and pairs["b"].is_unique


def choose(readings: list[Labels], path: Path, wanted: Sequence[str], zeros: str = "") -> Labels:
    """The reading that has the wanted classes, all of them or else some.

    Raises
    ------
    ValueError : several readings have them, or the only one is doubtful; `zeros` is given but does not apply.
    """
    readings = _with_classes(readings, wanted)
    if len(readings) > 1:
        raise ValueError(_ask_which(readings, path, wanted))
    (reading,) = readings
    if len(reading.classes) == 2 and reading.has_zeros and not any(map(is_known, reading.classes)) and not wanted:
        names = " and ".join(reading.classes)
        raise ValueError(
            f"{path} has columns of 0 and 1, {names}, which may not be diagnoses. If they are, pass "
            f"{_as_flag(reading.classes)}\nOtherwise remove these columns."
        )
    refuse_zeros(zeros if not reading.has_zeros else "", reading.where)
    return reading


def refuse_zeros(zeros: str, where: str) -> None:
    """Raises ValueError for a --zeros that does not apply."""
    if zeros:
        raise ValueError(
            f"--zeros {zeros} needs columns of 0 and 1, but the diagnoses are read from {where}. Omit --zeros."
        )


def _with_classes(readings: list[Labels], wanted: Sequence[str]) -> list[Labels]:
    """The readings that have all wanted classes, or else some of them, or else all readings."""
    keys = set(map(key_of, wanted))
    for matches in (keys.issubset, lambda classes: not keys.isdisjoint(classes)):
        readings = [reading for reading in readings if matches(set(map(key_of, reading.classes)))] or readings
    return readings


def _ask_which(readings: list[Labels], path: Path, wanted: Sequence[str]) -> str:
    """Message about several readings and how to choose: by classes that only one reading has, if there are any."""
    ways = " or ".join(f"{reading.where} ({', '.join(reading.classes[:4])})" for reading in readings)
    available = {key_of(code) for reading in readings for code in reading.classes}
    lacking = [word for word in wanted if key_of(word) not in available]
    problem = f"{path} has no class {', '.join(lacking)}. It" if lacking else str(path)
    unique = [reading for reading in readings if len(_with_classes(readings, reading.classes)) == 1]
    if unique:
        remedy = f"Choose classes, e.g. {_as_flag(unique[-1].classes)}, or remove the other columns."
    else:
        n = pd.concat([reading.code != readings[0].code for reading in readings[1:]], axis=1).any(axis=1).sum()
        remedy = f"They differ in {n:,} rows. Correct these rows, or keep only one of these columns."
    return f"{problem} can be read in {len(readings)} ways: {ways}. {remedy}"


def _as_flag(classes: Sequence[str]) -> str:
    return f"--classes {shlex.join(map(quoted, classes))}"


def _unreserved(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows if not is_reserved(name)]


def from_columns(rows: pd.DataFrame, path: Path, zeros: str = "") -> Labels | None:
    """The diagnoses in one-hot columns: those of known classes, and other columns of 0 and 1.

    True is 1; False and a blank are 0.
    """
    columns = _unreserved(rows)
    known = [name for name in columns if code_of(name) in NAMES]
    numbers, blank = rows[columns].apply(as_numbers), rows[columns] == ""
    of_zeros = [name for name in columns if name not in known and (numbers[name] == 0).all()]
    is_known_class = (numbers[known] == 1).any(axis=1)
    others = [name for name in columns if name not in known and _is_binary(numbers[name], blank[name])]
    others = [name for name in others if not (is_known_class & (numbers[name] == 1)).any()]  # they are exclusive
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
        code, reason = code.mask(code == name, ""), reason.mask(code == name, _no_diagnosis(name))
    classes = [name for name in codes if name not in unknown]
    where = f"{len(classes)} columns of classes"
    more = f" and {len(of_zeros) - 4} more" if len(of_zeros) > 4 else ""
    where += f", without {', '.join(of_zeros[:4])}{more} (0 in each row)" if of_zeros else ""
    return Labels(where, in_order(classes, classes), code, reason, has_zeros=True, columns=(*columns, *of_zeros))


def _ask_about_zeros(path: Path, n_empty: int, n_rows: int, columns: list[str]) -> str:
    return (
        f"{n_empty:,} of {n_rows:,} rows of {path} have a 0 for each of {', '.join(columns[:8])}. Name their class, "
        "as in --zeros NV (ISIC 2017: nevus), or add a column for it; --zeros unknown leaves these rows out."
    )


def as_numbers(cells: pd.Series) -> pd.Series:
    """Cells as numbers: 1 and 0 for true and false, or for a whole column of yes/no, y/n or t/f; NaN for the rest."""
    lower = cells.str.lower()
    for answers in ANSWERS[1:]:
        if lower.isin([*answers, ""]).all() and lower.isin(list(answers)).any():
            return lower.map(answers)
    numbers = pd.to_numeric(cells, errors="coerce")
    return numbers.fillna(lower.map(TRUTH)) if numbers.isna().any() else numbers


def _is_binary(numbers: pd.Series, blank: pd.Series) -> bool:
    """Whether a column holds 1, and otherwise only 0, or blanks for 0."""
    return bool((numbers.isin([0, 1]) | blank).all() and (numbers == 1).any())


def from_single_column(rows: pd.DataFrame, zeros: str = "") -> Labels | None:
    """The diagnoses in one column of 0 and 1: 1 means its name, 0 the class `zeros` or the opposite."""
    columns = _unreserved(rows)
    numbers, blank = rows[columns].apply(as_numbers), rows[columns] == ""
    binary = [name for name in columns if _is_binary(numbers[name], blank[name])]
    known = [name for name in binary if code_of(name) in NAMES]
    if names_details(rows):  # then an unknown column is probably a detail
        binary = known
    if len(binary) != 1 and len(known) != 1:
        return None
    name = (known or binary)[0]
    positive = code_of(name)
    negative = code_of(zeros) if zeros else OPPOSITES.get(positive, f"not {positive}")
    words = pd.Series(np.where(numbers[name] == 1, positive, negative), index=rows.index, dtype=object)
    is_known_label = words.map(lambda word: word == positive or not is_no_diagnosis(word))
    reason = pd.Series("", index=rows.index).mask(~is_known_label, _no_diagnosis(negative))
    classes = (negative, positive) if is_known_label.all() else (positive,)
    where = f"column {name} of 0 and 1"
    return Labels(where, classes, words.where(is_known_label, ""), reason, has_zeros=True, columns=(name,))


def from_column(values: pd.Series, name: str) -> Labels | None:
    """The diagnoses in one column of codes or names."""
    if values.str.lower().isin([*TRUTH, ""]).all():
        values = values.str.lower().map({"true": "1", "false": "0", "": ""})
    codes = {text: "" if is_no_diagnosis(text) else code for text, code in codes_of(values[values != ""]).items()}
    code = values.map({text: codes.get(text, "") for text in values.unique()}).astype(object)
    classes = set(code) - {""}
    if not classes:
        return None
    why = {"": "label is empty"} | {text: "" if code else _no_diagnosis(text) for text, code in codes.items()}
    reason = values.map(why)
    return Labels(f"column {name}", in_order(classes), code, reason, columns=(name,))


def _no_diagnosis(word: str) -> str:
    return f"labelled {word}, which is not a diagnosis"


def from_known_words(values: pd.Series, name: str) -> Labels | None:
    """The diagnoses in a column of any name if the vocabulary knows most of its cells."""
    filled = values[values != ""]
    is_word: Callable[[str], bool] = lambda text: is_no_diagnosis(text) or is_known(code_of(text))  # noqa: E731
    is_known_word = filled.map({text: is_word(text) for text in filled.unique()})
    reading = from_column(values, name) if len(filled) and is_known_word.mean() >= 0.8 else None
    return reading if reading and any(map(is_known, reading.classes)) else None
