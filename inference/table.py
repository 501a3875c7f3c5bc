"""The table of predictions: written in parts by several processes, resumed, and joined in order."""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from inference.inputs import Listed
from machine import write_file

FIRST = ["file", "output", "skipped"]  # columns; those after them are empty for a skipped file
HASH = re.compile("[0-9a-f]{12}(?= and |$)")  # after a file's name; several files are joined by "and"
SKIPPED, PREDICTED = 1, 2  # states of an image; 0 without a row


class Table:
    """predictions.csv in a folder, and beside it, during a run, one part per process.

    A row is written to a part as soon as its image's files are, so a killed run can be resumed; `join` puts the rows
    of the table and of all parts into one table. It holds the images' names and 16 bytes per image in memory.

    Parameters
    ----------
    columns : names of the columns after `FIRST`; those of the classes' probabilities are `classes`.
    """

    def __init__(self, folder: Path, columns: Sequence[str], classes: Sequence[str] = ()) -> None:
        self.folder, header, self.classes = folder, [*FIRST, *columns], list(classes)
        # The classes' columns begin at the last match, as a class may have the name of another column.
        self.first = [i for i in range(len(header) + 1) if header[i : i + len(self.classes)] == self.classes][-1]
        self.header = distinct(header)
        self.path, self.as_json, self.run = (folder / f"predictions.{kind}" for kind in ("csv", "json", "run.json"))

    def parts(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.path.name}.part[0-9]*"))

    def remove_leftovers(self) -> None:
        """Delete the unfinished files of a killed run: their rows are still in the table or in the parts."""
        for path in self.folder.glob("predictions.*.partial"):
            path.unlink()

    def begin(self, identity: dict) -> None:
        """Delete an earlier table, and write what a run must share with this one to resume it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.remove_leftovers()
        for path in (self.run, self.path, self.as_json, *self.parts()):
            path.unlink(missing_ok=True)
        write_file(self.run, (json.dumps(identity, indent=2) + "\n").encode())
        self.join([])  # an empty table marks the folder as one of predictions

    def resume(self, identity: dict, listed: Sequence[Listed]) -> np.ndarray:
        """Resume an earlier run; returns as `join`.

        Raises
        ------
        ValueError : the options or columns differ, or an image of the earlier run is no longer named.
        """
        try:
            before = dict(json.loads(self.run.read_text(encoding="utf-8")))
        except ValueError:
            raise ValueError(f"{self.run} is damaged. Name another --output-dir, or pass --overwrite.") from None
        advice = "Name another --output-dir, or pass --overwrite."
        if changes := "; ".join(_changes(before, identity)):
            raise ValueError(f"Cannot resume in {self.folder}: {changes}. {advice}")
        if self.path.exists() and next(_rows(self.path, len(self.header)), ([],))[0] != self.header:
            raise ValueError(f"Cannot resume in {self.folder}: {self.path.name} has other columns. {advice}")
        self._refuse_lost(listed)
        self.remove_leftovers()
        self.as_json.unlink(missing_ok=True)
        return self.join(listed)

    def outputs(self) -> dict[str, str]:
        """The output names of the images with a row from an earlier run, by file."""
        return {row[0]: row[1] for row in self._earlier_rows() if row[1]}

    def _earlier_rows(self) -> Iterator[list[str]]:
        for path in filter(Path.exists, (self.path, *self.parts())):
            yield from (row for row, _, _ in _rows(path, len(self.header)) if row != self.header)

    def _refuse_lost(self, listed: Sequence[Listed]) -> None:
        """Raise ValueError if an image with a row is no longer listed, or has another output name."""
        kept = {(item.file, item.output) for item in listed}
        for row in self._earlier_rows():
            if not row[2] and (row[0], row[1]) not in kept:
                advice = "Name the same images in the same way, or more of them, or another --output-dir."
                raise ValueError(f"Cannot resume in {self.folder}: {row[0]} (output {row[1]}) would be lost. {advice}")

    @contextmanager
    def open_part(self, rank: int) -> Iterator[Callable[[list], None]]:
        """A function that appends a row to a process's own part."""
        with self.path.with_name(f"{self.path.name}.part{rank}").open("ab") as part:

            def write(row: list) -> None:
                part.write(_line(row))
                part.flush()

            yield write

    def join(self, listed: Sequence[Listed]) -> np.ndarray:
        """Put all rows of these images into the table, in their order, and delete the parts.

        Returns
        -------
        (N,) int8 : PREDICTED or SKIPPED for each image; 0 if it has no row.
        """
        numbers = {(item.file, item.output): number for number, item in enumerate(listed)}
        states, source = np.zeros(len(listed), np.int8), np.zeros(len(listed), np.int16)
        start, size = np.zeros(len(listed), np.int64), np.zeros(len(listed), np.int32)
        parts = self.parts()
        paths = [path for path in (self.path, *parts) if path.exists()]
        for i, path in enumerate(paths):
            for row, begins, ends in _rows(path, len(self.header)):
                number = numbers.get((row[0], row[1]))
                if number is not None:  # a row of a later part replaces that of a skipped image
                    states[number], source[number] = SKIPPED if row[2] else PREDICTED, i
                    start[number], size[number] = begins, ends - begins
        partial = self.path.with_name(f"{self.path.name}.partial")
        with ExitStack() as stack:
            table = stack.enter_context(partial.open("wb"))
            files = [stack.enter_context(path.open("rb")) for path in paths]
            table.write(_line(self.header))
            for number in np.flatnonzero(states):
                file = files[source[number]]
                file.seek(start[number])
                table.write(file.read(size[number]))
            table.flush()
            os.fsync(table.fileno())
        os.replace(partial, self.path)
        for part in parts:
            part.unlink()
        return states

    def write_json(self) -> None:
        """Write the table as a JSON list, one object per line, without empty cells and with numbers as numbers."""
        partial = self.as_json.with_name(f"{self.as_json.name}.partial")
        with partial.open("w", encoding="utf-8") as file:
            between = "[\n"
            for row, begins, _ in _rows(self.path, len(self.header)):
                if begins:  # not the header
                    file.write(between + json.dumps(self._as_object(row)))
                    between = ",\n"
            file.write("\n]\n")
        os.replace(partial, self.as_json)

    def _as_object(self, row: list[str]) -> dict:
        n_classes, first = len(self.classes), self.first
        cells = list(zip(self.header, row))
        others = cells[:first] + cells[first + n_classes :]
        values = {name: float(cell) if _is_number(name) else cell for name, cell in others if cell}
        of_classes = zip(self.classes, row[first : first + n_classes])
        probabilities = {name: float(cell) for name, cell in of_classes if cell}
        return values | ({"probabilities": probabilities} if probabilities else {})


def distinct(columns: Sequence[str]) -> list[str]:
    """Column names, each repeated one with as many `_` appended as make it unlike all others.

    Examples
    --------
    >>> distinct(["file", "set", "set", "set_"])
    ['file', 'set', 'set__', 'set_']
    """
    taken, names = set(columns), []
    for name in columns:
        if name in names:
            while name in taken:
                name += "_"
            taken.add(name)
        names.append(name)
    return names


def _changes(before: dict, now: dict) -> Iterator[str]:
    """The options that differ, in words; a file with the same hash is the same under any name."""
    for option in now | before:
        old, new = before.get(option, False), now.get(option, False)
        hashes = [sorted(HASH.findall(str(value))) for value in (old, new)]
        if old != new and not (hashes[0] and hashes[0] == hashes[1]):
            yield f"--{option} was {old}, is {new}"


def _is_number(column: str) -> bool:
    return column in ("unlike", "confidence", "lesion_share") or column.startswith("p_")


def _line(row: list) -> bytes:
    """A row of a CSV file; names with any kind of line break are quoted."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(row)
    return (text.getvalue()[:-2] + "\n").encode("utf-8", "surrogateescape")


def _rows(path: Path, n_columns: int) -> Iterator[tuple[list[str], int, int]]:
    """The complete rows of a CSV file, each with its begin and end; a truncated row is left out."""
    begins, ends, is_whole = 0, 0, True
    with path.open("rb") as file:

        def lines() -> Iterator[str]:
            nonlocal ends, is_whole
            for line in file:
                ends, is_whole = ends + len(line), line.endswith(b"\n")
                yield line.decode("utf-8", "surrogateescape").replace("\0", "")

        for row in csv.reader(lines()):
            if len(row) == n_columns and is_whole:
                yield row, begins, ends
            begins = ends
