"""The table of predictions: written in parts by several processes, resumed, and joined in order."""

import csv
import io
import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

import numpy as np

from inference.inputs import Listed
from machine import write_file

FIRST = ["file", "output", "skipped", "digest"]  # columns; those after `skipped` are empty for a skipped file
HASH = re.compile("[0-9a-f]{12}(?= and |$)")  # after a file's name; several files are joined by "and"
SKIPPED, PREDICTED = 1, 2  # states of an image; 0 without a row


class Table:
    """predictions.csv in a folder, and beside it, during a run, one part per process.

    A row is written to a part as soon as its image's files are, so a killed run can be resumed; `join` puts the rows
    of the table and of all parts into one table. It holds the images' names and 19 bytes per image in memory.

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

    def refuse_other(self, identity: dict) -> None:
        """Raise ValueError if rows of another checkpoint, other options or other columns are in the folder."""
        advice = "Name another --output-dir, or pass --overwrite to begin a new table."
        try:
            before = dict(json.loads(self.run.read_text(encoding="utf-8")))
        except ValueError:
            raise ValueError(f"{self.run} is damaged. {advice}") from None
        if changes := " and ".join(_changes(before, identity)):
            same = "Use the same options, name another --output-dir, or pass --overwrite to begin a new table."
            raise ValueError(f"Cannot add to {self.folder}: its table was made {changes}. {same}")
        if self.path.exists() and next(_rows(self.path, len(self.header)), ([],))[0] != self.header:
            raise ValueError(f"Cannot add to {self.folder}: {self.path.name} has other columns. {advice}")

    def resume(self, listed: Sequence[Listed], again: bool = False) -> np.ndarray:
        """Continue the table of an earlier run; returns as `join`.

        Parameters
        ----------
        again : leave out the rows of these images, which are then predicted again.
        """
        self.remove_leftovers()
        self.as_json.unlink(missing_ok=True)
        return self.join(listed, again)

    def outputs(self) -> dict[str, str]:
        """The output names of the images with a row from an earlier run, by file."""
        return {row[0]: row[1] for row in self.rows() if row[1]}

    def rows(self) -> Iterator[list[str]]:
        """All rows, also those of a stopped run, one at a time; a later one replaces that of a skipped image."""
        for path in filter(Path.exists, (self.path, *self.parts())):
            yield from (row for row, _, _ in _rows(path, len(self.header)) if row != self.header)

    def predicted(self, listed: Sequence[Listed]) -> Iterator[dict[str, str]]:
        """The rows of those of these images that are not skipped, by column, one at a time."""
        keys = {(item.file, item.output) for item in listed}
        return (dict(zip(self.header, row)) for row in self.rows() if not row[2] and (row[0], row[1]) in keys)

    @contextmanager
    def open_part(self, rank: int) -> Iterator[Callable[[list], None]]:
        """A function that appends a row to a process's own part."""
        with self.path.with_name(f"{self.path.name}.part{rank}").open("ab") as part:

            def write(row: list) -> None:
                part.write(_line(row))
                part.flush()

            yield write

    def join(self, listed: Sequence[Listed], again: bool = False) -> np.ndarray:
        """Put all rows into one table, and delete the parts: first those of other images, then these, in their order.

        Parameters
        ----------
        again : leave out the rows of these images.

        Returns
        -------
        (N,) int8 : PREDICTED or SKIPPED for each of these images; 0 if it has no row.
        """
        numbers = {(item.file, item.output): number for number, item in enumerate(listed)}
        states, source = array("b", bytes(len(listed))), array("h", bytes(2 * len(listed)))
        start, size = array("q", bytes(8 * len(listed))), array("q", bytes(8 * len(listed)))
        parts = self.parts()
        paths = [path for path in (self.path, *parts) if path.exists()]
        for i, path in enumerate(paths):
            for row, begins, ends in _rows(path, len(self.header)):
                if row == self.header:
                    continue
                number = numbers.setdefault((row[0], row[1]), len(states))
                if again and number < len(listed):
                    continue
                found = SKIPPED if row[2] else PREDICTED, i, begins, ends - begins
                for values, value in zip((states, source, start, size), found):
                    values[number : number + 1] = array(values.typecode, [value])  # appended for another image
        known = np.flatnonzero(np.array(states[: len(listed)]))
        self._write(paths, ((source[n], start[n], size[n]) for n in chain(range(len(listed), len(states)), known)))
        for part in parts:
            part.unlink()
        return np.array(states[: len(listed)], np.int8)

    def _write(self, paths: Sequence[Path], places: Iterable[tuple[int, int, int]]) -> None:
        """Replace the table by the rows at these places: number of the path, begin and size in bytes."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        with ExitStack() as stack:
            table = stack.enter_context(partial.open("wb"))
            files = [stack.enter_context(path.open("rb")) for path in paths]
            table.write(_line(self.header))
            for source, start, size in places:
                files[source].seek(start)
                table.write(files[source].read(size))
            table.flush()
            os.fsync(table.fileno())
        os.replace(partial, self.path)

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
    """The earlier options that differ, in words; a file with the same hash is the same under any name."""
    for option in now | before:
        old, new = before.get(option, False), now.get(option, False)
        hashes = [sorted(HASH.findall(str(value))) for value in (old, new)]
        if old != new and not (hashes[0] and hashes[0] == hashes[1]):
            told = f" {old}, not {new}" if isinstance(old, str) else ""
            yield f"{'with' if old else 'without'} --{option}{told}"


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
