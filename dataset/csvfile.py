"""CSV files: those of a data folder, which may be anything, and this project's own, in which names are text."""

import csv
import io
import re
from pathlib import Path

import pandas as pd

MAX_BYTES = 1_000_000_000  # of a file that is read
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
MAX_HEADER = 100_000  # characters
# What is text in this project's own files, whatever it looks like: a name may be 001 or NA.
TEXT = {"image", "lesion_id", "label", "split", "status", "reason", "true", "predicted", "balanced", "kind"}
TEXT |= {f"{name}_{side}" for name in ("image", "lesion", "split") for side in "ab"}


def read_rows(path: Path) -> pd.DataFrame:
    """All rows of a CSV file as stripped text, blank lines left out.

    Empty cells behind the header's last column are dropped, as some programs end each row with a comma.

    Raises
    ------
    ValueError : not such a file, or one that is no table; says in which line.
    """
    lines = _parse(path)
    header, *rows = lines or [(1, [""])]
    names = [name.strip() for name in _trimmed(header[1])]
    if not names:
        raise ValueError(f"{path} is empty. Expected a header and one row an image.")
    if repeated := sorted({name for name in names if name and names.count(name) > 1}):
        raise ValueError(f"{path} has more than one column {', '.join(repeated)}. Remove or rename all but one.")
    for line, cells in rows:
        del cells[len(names) + len(_trimmed(cells[len(names) :])) :]
        if len(cells) != len(names):
            raise ValueError(
                f"{path}, line {line}: {len(cells)} cells, but the header has {len(names)}: {', '.join(names[:12])}."
            )
    table = pd.DataFrame([[cell.strip() for cell in cells] for _, cells in rows], columns=names, dtype=str)
    return table.loc[:, [bool(name) for name in names]]


def header_of(path: Path) -> list[str]:
    """The names of a CSV file's columns; [] if it is none."""
    if not path.is_file():  # to open a pipe would wait for its other end
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [name.strip() for name in next(csv.reader([file.readline(MAX_HEADER)]))]
    except (OSError, ValueError, csv.Error, StopIteration):
        return []


def _parse(path: Path) -> list[tuple[int, list[str]]]:
    """The cells of each line that is not blank, with its number."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file. Expected a CSV file there.")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes. Expected a CSV file with one row an image.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a comma-separated UTF-8 table: {error}.") from None
    reader, found, line = csv.reader(io.StringIO(text, newline=""), strict=True), [], 1
    try:
        for cells in reader:
            if any("\n" in cell or "\0" in cell for cell in cells):
                raise csv.Error("a quotation mark without its partner, or binary data")
            if cells and any(map(str.strip, cells)):
                found.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error}. Expected a comma-separated UTF-8 table.") from None
    return found


def _trimmed(cells: list[str]) -> list[str]:
    """Without the empty cells at the end."""
    n = len(cells)
    while n and not cells[n - 1].strip():
        n -= 1
    return cells[:n]


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
