"""This project's own CSV files, in which names are always strings."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
N_ROWS = 20_000  # of a table that are text at once
# Columns read as strings in this project's own files: a name may be 001 or NA.
TEXT = {
    "image",
    "lesion_id",
    "patient_id",
    "group",
    "label",
    "split",
    "status",
    "reason",
    "true",
    "predicted",
    "balanced",
    "kind",
}
TEXT |= {f"{name}_{side}" for name in ("image", "lesion", "split") for side in "ab"}


def as_csv(table: pd.DataFrame, digits: str | None = None) -> str:
    """One of this project's tables as CSV, one line per row: control characters are escaped; `digits` as "%.6g"."""
    return "".join(csv_parts(table, digits))


def csv_parts(table: pd.DataFrame, digits: str | None = None) -> Iterator[str]:
    """The text of `as_csv` in parts of `N_ROWS` rows, so that a table of any length takes little memory."""
    for start in range(0, max(1, len(table)), N_ROWS):
        part = table.iloc[start : start + N_ROWS]
        text = [name for name in part if not pd.api.types.is_numeric_dtype(part[name])]
        part = part.assign(**{name: _escaped(part[name]) for name in text})
        yield part.to_csv(index=False, lineterminator="\n", float_format=digits, header=start == 0)


def _escaped(values: pd.Series) -> pd.Series:
    """`printable` of each value, where one of them needs it."""
    has_control = CONTROL.search("".join(map(str, values.dropna())))
    return values.map(printable, na_action="ignore") if has_control else values


def spaced(names: Sequence[str]) -> str:
    """Names with spaces between them, those that hold a space in quotes, as `csv` reads with ``delimiter=" "``.

    Examples
    --------
    >>> spaced(["NV", "basal cell carcinoma"])
    'NV "basal cell carcinoma"'
    """
    text = io.StringIO()
    csv.writer(text, delimiter=" ", lineterminator="").writerow(names)
    return text.getvalue()


def printable(text: str) -> str:
    """Escape the characters that control a console."""
    return CONTROL.sub(lambda match: repr(match[0])[1:-1], str(text))


def read_back(path: Path) -> pd.DataFrame:
    """Read one of this project's tables: names unchanged, numbers as numbers, NaN for missing ones."""
    columns = list(pd.read_csv(path, nrows=0, encoding="utf-8"))
    return pd.read_csv(
        path,
        dtype={name: str for name in columns if name in TEXT},
        keep_default_na=False,
        na_values={name: [""] for name in columns if name not in TEXT},
        encoding="utf-8",
    )
