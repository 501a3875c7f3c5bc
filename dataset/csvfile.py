"""This project's own CSV files, in which names are strings whatever they look like."""

import re
from pathlib import Path

import pandas as pd

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# What is text in this project's own files, whatever it looks like: a name may be 001 or NA.
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


def as_csv(table: pd.DataFrame) -> str:
    """One of this project's own tables as text, a line a row whatever the names are: control characters are escaped."""
    text = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    table = table.assign(**{name: table[name].map(printable, na_action="ignore") for name in text})
    return table.to_csv(index=False, lineterminator="\n")


def printable(text: str) -> str:
    """The text with an escape in place of each character that a console would obey."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], str(text))


def read_back(path: Path) -> pd.DataFrame:
    """One of this project's own tables: names as they were, numbers as numbers, and NaN for none."""
    columns = list(pd.read_csv(path, nrows=0, encoding="utf-8"))
    return pd.read_csv(
        path,
        dtype={name: str for name in columns if name in TEXT},
        keep_default_na=False,
        na_values={name: [""] for name in columns if name not in TEXT},
        encoding="utf-8",
    )
