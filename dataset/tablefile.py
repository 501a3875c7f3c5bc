"""Read a user's table: any delimiter and encoding, decimal commas, with or without a header."""

import codecs
import csv
import io
import re
from pathlib import Path

import pandas as pd

from dataset.columns import is_reserved, may_name, names_images, with_image_column
from dataset.names import Index, named
from dataset.roles import part_of_name

MAX_BYTES = 1_000_000_000  # maximum size of a table
PEEKED = 1 << 16  # bytes read to identify a file
MAX_HEADER = 100_000  # characters
ZIP = b"PK\x03\x04"  # first bytes of a workbook
DELIMITERS = ",;\t|"
SAVE_AS = "Save it as CSV UTF-8, with commas"
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")


def read_rows(path: Path, images: Index | None = None) -> pd.DataFrame:
    """All rows of a table as stripped strings, without blank lines; the column that names the images is called image.

    Empty cells after the last column of the header are dropped, because some programs end each row with a comma. A
    table without a header has the columns image and label, or image and numbered columns.

    Parameters
    ----------
    images : show which column names them, and whether the first line is a header.

    Raises
    ------
    ValueError : not a file, or not a table; says in which line, and what to do.
    """
    lines = _parse(path)
    if not lines or not _trimmed(lines[0][1]):
        raise ValueError(f"{path} is empty. Expected a header and one row per image.")
    if not _has_header([cells for _, cells in lines[:20]], images):
        lines = [(0, _made_header(lines[0][1], images)), *lines]
    header, *rows = lines
    names = [name.strip() for name in _trimmed(header[1])]
    rows = _without_legend(rows, images)
    if repeated := sorted({name for name in names if name and names.count(name) > 1}):
        raise ValueError(f"{path} has more than one column {', '.join(repeated)}. Remove or rename all but one.")
    for line, cells in rows:
        del cells[len(names) + len(_trimmed(cells[len(names) :])) :]
        if len(cells) != len(names):
            raise ValueError(
                f"{path}, line {line}: {len(cells)} cells, but the header has {len(names)}: {', '.join(names[:12])}. "
                "Put cells with a comma in quotation marks, or remove the extra cells."
            )
    table = pd.DataFrame([[cell.strip() for cell in cells] for _, cells in rows], columns=names, dtype=str)
    table = table.loc[:, [bool(name) for name in names]]
    return with_image_column(table.apply(_with_points) if len(table.columns) else table, images)


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
    return names_images(columns) or any(may_name(cell, column) and cell in images for cell, column in cells)


def _parse(path: Path) -> list[tuple[int, list[str]]]:
    """The number and cells of each line that is not blank."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file. Expected a CSV file.")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes. Expected a CSV file with one row per image.")
    text = _decoded(path.read_bytes(), path)
    body, delimiter = _opened(text)
    reader = csv.reader(io.StringIO(body, newline=""), strict=True, delimiter=delimiter)
    skipped = text.count("\n") - body.count("\n")
    lines, line = [], 1 + skipped
    try:
        for cells in reader:
            if any("\n" in cell or "\0" in cell for cell in cells):
                raise csv.Error("unmatched quotation mark, or binary data")
            if cells and any(map(str.strip, cells)):
                lines.append((line, cells))
            line = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error}. Expected a text table. {SAVE_AS}.") from None
    return lines


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


def _without_legend(rows: list[tuple[int, list[str]]], images: Index | None) -> list[tuple[int, list[str]]]:
    """Drop final rows of one cell that follow a blank line and name no image."""
    n = len(rows)
    while n > 1 and len(_trimmed(rows[n - 1][1])) == 1 and not (images is not None and rows[n - 1][1][0] in images):
        n -= 1
    starts = [place for place in range(max(n, 1), len(rows)) if rows[place][0] > rows[place - 1][0] + 1]
    return rows[: starts[0]] if starts and len(rows[0][1]) > 1 else rows


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


def _with_points(cells: pd.Series) -> pd.Series:
    """Replace decimal commas in a column of numbers; leave other columns unchanged."""
    with_comma = cells.str.contains(",", regex=False)
    if not with_comma.any() or not cells[cells != ""].map(lambda cell: bool(_NUMBER.fullmatch(cell))).all():
        return cells
    return cells.str.replace(",", ".", regex=False)


def _trimmed(cells: list[str]) -> list[str]:
    """Drop the empty cells at the end."""
    n = len(cells)
    while n and not cells[n - 1].strip():
        n -= 1
    return cells[:n]
