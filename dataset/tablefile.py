"""Read a user's table: any delimiter and encoding, decimal commas, with or without a header."""

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from dataset.classes import NAMES, code_of
from dataset.columns import (
    MEASUREMENTS,
    find_column,
    is_reserved,
    may_name,
    names_details,
    names_images,
    with_image_column,
)
from dataset.names import Index, named
from dataset.roles import part_of_name

MAX_BYTES = 1_000_000_000  # maximum size of a table
PEEKED = 1 << 16  # bytes read to identify a file
MAX_HEADER = 100_000  # characters
ZIP = b"PK\x03\x04"  # first bytes of a workbook
DELIMITERS = ",;\t|"
SAVE_AS = "Save it as CSV UTF-8, with commas"
N_SAMPLED = 1000  # first lines that show what a column holds
FEWEST_VALUES = 20  # distinct numbers in them that make a column of decimals one of measurements
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")
_MEASURED = re.compile(r"[-+]?\d*[.,]?\d+(?:[eE][-+]?\d+)?")


def read_rows(path: Path, images: Index | None = None, wanted: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of a table as stripped strings, without blank lines; the column that names the images is called image.

    Empty cells after the last column of the header are dropped, because some programs end each row with a comma. A
    table without a header has the columns image and label, or image and numbered columns. Columns of measurements are
    left out unless they are wanted: nothing else uses them, and ISIC 2024 has 34.

    Parameters
    ----------
    images : show which column names them, and whether the first line is a header.
    wanted : names of columns that the user asks for.

    Raises
    ------
    ValueError : not a file, or not a table; says in which line, and what to do.
    """
    lines = _parse(path)
    first = list(itertools.islice(lines, N_SAMPLED))
    if not first or not _trimmed(first[0][1]):
        raise ValueError(f"{path} is empty. Expected a header and one row per image.")
    if not _has_header([cells for _, cells in first[:20]], images):
        first = [(0, _made_header(first[0][1], images)), *first]
    header, *first = first
    names = [name.strip() for name in _trimmed(header[1])]
    if repeated := sorted({name for name in names if name and names.count(name) > 1}):
        raise ValueError(f"{path} has more than one column {', '.join(repeated)}. Remove or rename all but one.")
    samples = zip(*(cells for _, cells in first if len(cells) == len(names)))
    unused = {name for name, cells in zip(names, samples) if _are_measurements(name, cells, images, wanted)}
    kept = {name: place for place, name in enumerate(names) if name and name not in unused}
    rows = _Rows(path, names, list(kept.values()))
    doubtful: list[tuple[int, list[str]]] = []  # rows of one cell, which may be a legend
    for line, cells in itertools.chain(first, lines):
        if len(_trimmed(cells)) > 1:
            rows.extend([*doubtful, (line, cells)])
            doubtful = []
        else:
            doubtful.append((line, cells))
    rows.extend(_without_legend(doubtful, images, rows.last) if len(names) > 1 else doubtful)
    table = pd.DataFrame(
        {name: pd.array(_with_points(cells), dtype=str) for name, cells in zip(kept, rows.columns)}, columns=list(kept)
    )
    table.attrs[MEASUREMENTS] = [name for name in names if name in unused]
    return with_image_column(table, images)


class _Rows:
    """The kept cells of a table, column by column; equal cells are one string."""

    def __init__(self, path: Path, names: list[str], kept: list[int]) -> None:
        self._path, self._names, self.last = path, names, 0
        self.columns: list[list[str]] = [[] for _ in kept]
        self._add_to = [(place, column.append) for place, column in zip(kept, self.columns)]
        self._known: dict[str, str] = {}

    def extend(self, rows: Iterable[tuple[int, list[str]]]) -> None:
        """Add rows, each with the number of its line. Raises ValueError if one has another length than the header."""
        n, known = len(self._names), self._known.setdefault
        for line, cells in rows:
            if len(cells) > n:
                cells = cells[: n + len(_trimmed(cells[n:]))]
            if len(cells) != n:
                raise ValueError(
                    f"{self._path}, line {line}: {len(cells)} cells, but the header has {n}: "
                    f"{', '.join(self._names[:12])}. Put cells with a comma in quotation marks, or remove the extra "
                    "cells."
                )
            for place, add in self._add_to:
                cell = cells[place].strip()
                add(known(cell, cell))
            self.last = line


def _are_measurements(name: str, cells: Sequence[str], images: Index | None, wanted: Sequence[str]) -> bool:
    """Whether a column holds numbers with decimals, which differ from row to row and name no image."""
    if is_reserved(name) or names_details([name]) or find_column(wanted, [name]) or code_of(name) in NAMES:
        return False
    cells = {cell.strip() for cell in cells} - {""}
    numbers = [float(cell.replace(",", ".")) for cell in cells if _MEASURED.fullmatch(cell)]
    n_decimals = sum(not number.is_integer() for number in numbers)
    if len(numbers) < max(len(cells), FEWEST_VALUES) or 2 * n_decimals < len(numbers):
        return False
    return images is None or not images.has_points or not images.names_any(cells)


def header_of(path: Path) -> list[str]:
    """The cells of the first line of a table; [] for another file."""
    lines = peek(path)
    return [name.strip() for name in lines[0]] if lines else []


def peek(path: Path) -> list[list[str]]:
    """The cells of the first lines of a table; [] for an unreadable or binary file."""
    if not path.is_file():  # opening a pipe would block
        return []
    try:
        with path.open("rb") as file:
            content = file.read(PEEKED)
        if content.startswith(ZIP):
            return []
        text, delimiter = _opened(codecs.getincrementaldecoder(_encoding_of(content))("replace").decode(content))
        whole = len(content) < PEEKED
        lines = [line[:MAX_HEADER] for line in text.splitlines() if line.strip()][: None if whole else -1]
        return list(csv.reader(lines[:20], delimiter=delimiter))
    except (OSError, ValueError, csv.Error):
        return []


def is_of_images(lines: list[list[str]], images: Index) -> bool:
    """Whether a table with these first lines names images, by a column name or by its cells."""
    if not lines:
        return False
    columns = [name.strip() for name in lines[0]]
    cells = ((cell.strip(), column) for line in lines for cell, column in zip(line[:12], columns))
    return names_images(columns) or images.names_any(cell for cell, column in cells if may_name(cell, column))


def _parse(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and cells of each line that is not blank."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file. Expected a CSV file.")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes. Expected a CSV file with one row per image.")
    text = _decoded(path.read_bytes(), path)
    body, delimiter = _opened(text)
    skipped = text.count("\n") - body.count("\n")
    has_nul, content = "\0" in body, io.BytesIO(body.encode())  # io.StringIO takes four bytes per character
    del text, body
    each_line = io.TextIOWrapper(content, "utf-8", newline="")
    reader = csv.reader(each_line, strict=True, delimiter=delimiter)
    line = 1 + skipped
    try:
        for cells in reader:
            is_odd = has_nul or reader.line_num + skipped > line
            if is_odd and any(mark in cell for cell in cells for mark in "\n\0"):
                raise csv.Error("unmatched quotation mark, or binary data")
            if cells and any(map(str.strip, cells)):
                yield line, cells
            line = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error}. Expected a text table. {SAVE_AS}.") from None


def _decoded(content: bytes, path: Path) -> str:
    """Decode a text file. Raises ValueError for a binary file."""
    if content.startswith(ZIP):
        raise ValueError(f"{path} is an Excel workbook or another zip archive. {SAVE_AS}.")
    try:
        encoding = _encoding_of(content)
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not text in UTF-8, UTF-16 or cp1252 ({error}). {SAVE_AS}.") from None


def _encoding_of(content: bytes) -> str:
    """The encoding of a file: by its byte order mark, by its NULs, UTF-8, or else Western Windows (cp1252)."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    nulls = [content[start:PEEKED:2].count(0) for start in (0, 1)]
    if max(nulls) > 0.2 * min(len(content), PEEKED):
        return "utf-16-le" if nulls[1] > nulls[0] else "utf-16-be"
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        decoder.decode(content)
    except UnicodeDecodeError:
        # With UTF-8 sequences elsewhere, this is damaged UTF-8, not cp1252.
        return "utf-8-sig" if re.search(rb"[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}", content) else "cp1252"
    return "utf-8-sig"


def _opened(text: str) -> tuple[str, str]:
    """Drop the lines above the header (Excel's "sep=;", comments, a title); returns the rest and the delimiter."""
    if match := re.match(r'"?sep=(.)"?[ ,;\t]*\r?\n', text, re.IGNORECASE):
        return text[match.end() :], match[1]
    while text.lstrip().startswith("#"):
        first, _, text = text.lstrip().partition("\n")
        if names_images(_cells(first.strip("# \r"))):  # NumPy writes headers as comments
            text = first.strip("# \r") + "\n" + text
    lines = [line for line in text[:PEEKED].split("\n") if line.strip()][:20]
    if len(lines) > 1 and " " in lines[0].strip() and len(_cells(lines[0])) == 1 < len(_cells(lines[1])):
        text, lines = text[text.index(lines[0]) + len(lines[0]) + 1 :], lines[1:]
    if n := _n_between_blanks(lines):
        return "\n".join("\t".join(line.split(None, n - 1)) for line in text.split("\n")), "\t"
    return text, _delimiter_of(lines[0]) if lines else ","


def _cells(line: str) -> list[str]:
    """Split a line by the delimiter that fits it best."""
    try:
        return _trimmed(next(csv.reader([line], delimiter=_delimiter_of(line)), []))
    except csv.Error:
        return []


def _n_between_blanks(lines: list[str]) -> int:
    """Number of columns of a table separated by spaces (the last cell may hold some); 0 for another table."""
    if len(lines) < 2 or any(delimiter in line for line in lines for delimiter in DELIMITERS):
        return 0
    counts = {len(line.split()) for line in lines}
    names = [line.split()[0] for line in lines[1:]]
    is_list = len(set(map(_shape, names))) == 1 or all(named(name).suffix for name in names)
    is_list |= len(counts) == 1 and len(lines) > 2
    return min(counts) if is_list and min(counts) > 1 else 0


def _delimiter_of(line: str) -> str:
    """The delimiter of a first line: the one that yields an image column, or else the most cells."""

    def score(delimiter: str) -> tuple[bool, bool, int]:
        try:
            cells = next(csv.reader([line], delimiter=delimiter))
        except (csv.Error, StopIteration):
            return False, False, 0
        is_whole = not any(other in cell for cell in cells for other in DELIMITERS[1:])
        return names_images(cells), is_whole or len(cells) == 1, len(cells)

    best = max(DELIMITERS, key=lambda delimiter: (score(delimiter)[0], score(delimiter)[2] > 1, *score(delimiter)[1:]))
    return best if score(best)[2] > 1 else ","


def _has_header(lines: list[list[str]], images: Index | None) -> bool:
    """Whether the first line is a header: it names no image, and looks unlike the next."""
    first, *others = [[cell.strip() for cell in cells] for cells in lines]
    if any(is_reserved(cell) and not part_of_name(cell) for cell in first):
        return True
    if any(named(cell).suffix for cell in first) or any(
        cell in images for cell in first if images is not None and cell
    ):
        return False
    shapes = [_shape(cell) for cell in first if _shape(cell) != cell and any(c.isalpha() for c in cell)]
    return not any(_shape(cell) in shapes for cells in others[:1] for cell in cells)


def _without_legend(
    rows: list[tuple[int, list[str]]], images: Index | None, previous: int
) -> list[tuple[int, list[str]]]:
    """Final rows of one cell without those that follow a blank line and name no image; `previous` is the line above."""
    n = len(rows)
    while n and not (images is not None and rows[n - 1][1][0] in images):
        n -= 1
    above = [previous, *(line for line, _ in rows)]
    starts = [place for place in range(n, len(rows)) if rows[place][0] > above[place] + 1]
    return rows[: starts[0]] if starts and previous else rows


def _shape(name: str) -> str:
    """A name with each number replaced by #."""
    return re.sub(r"\d+", "#", name)


def _made_header(cells: list[str], images: Index | None) -> list[str]:
    """Column names for a table without a header."""
    n = len(_trimmed(cells))
    is_image = [bool(named(cell).suffix) or (images is not None and cell.strip() in images) for cell in cells[:n]]
    place = is_image.index(True) if any(is_image) else 0
    rest = ["label"] if n == 2 else [f"column {position}" for position in range(1, n + 1) if position != place + 1]
    return [*rest[:place], "image", *rest[place:]]


def _with_points(cells: list[str]) -> list[str]:
    """Replace decimal commas in a column of numbers; leave other columns unchanged."""
    if "," not in "".join(cells) or not all(map(_NUMBER.fullmatch, filter(None, cells))):
        return cells
    return [cell.replace(",", ".") for cell in cells]


def _trimmed(cells: list[str]) -> list[str]:
    """Drop the empty cells at the end."""
    n = len(cells)
    while n and not cells[n - 1].strip():
        n -= 1
    return cells[:n]
