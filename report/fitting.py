"""Names and tables that fit: folder names without what they share, and tables of at most 100 columns of text."""

import os
import re
import textwrap
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

WIDTH = 100  # columns of the console
N_LABEL, N_CELL = 36, 24  # maximum characters of a line of a row's label and of another cell
LONG, LONGEST = 24, 40  # names longer than LONG lose the words they begin with in common; LONGEST is the maximum


def without_shared(names: Sequence[str]) -> tuple[list[str], str]:
    """Folder names without their shared start, each different; and that start, "" if there is none.

    Examples
    --------
    >>> without_shared(["/data/runs/plain", "/data/runs/strong"])
    (['plain', 'strong'], '/data/runs/')
    """
    parts = [Path(name).parts or (".",) for name in names]
    shared = _prefix([part[:-1] for part in parts])
    shared = [] if len(shared) == 1 and Path(shared[0]).is_absolute() else shared  # a root alone says nothing
    short = [os.path.join(*part[len(shared) :]) for part in parts]
    start = os.path.join(*shared, "") if shared else ""
    prefix = "".join(_prefix(short))
    n_words = max(prefix.rfind(mark) for mark in "_-. ") + 1
    if max(map(len, short)) > LONG and n_words and all(len(name) > n_words for name in short):
        short, start = ["…" + name[n_words:] for name in short], f"{start}{prefix[:n_words]}…"
    cut = [name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[1 - LONGEST // 2 :]}" for name in short]
    return (cut if len(set(cut)) == len(set(short)) else short), start


def _prefix(sequences: Sequence[Sequence[str]]) -> list[str]:
    """What all begin with."""
    return [some[0] for some in takewhile(lambda some: len(set(some)) == 1, zip(*sequences))]


def as_table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table of text; columns that do not fit beside the others follow below, with the rows' labels again.

    Parameters
    ----------
    rows : label and one cell per column. Labels and cells are wrapped; a cell keeps its own line breaks.
    """
    labels = [_wrapped(label, N_LABEL) for label, _ in rows]
    bodies = [[_words(cells[k]) for _, cells in rows] for k in range(len(columns))]
    least = [max(14, *map(_width, body), *map(len, in_pieces(name))) for name, body in zip(columns, bodies)]
    heads = [_wrapped(name, min(N_CELL, width)) for name, width in zip(columns, least)]
    widths = [max(map(_width, [head, *body])) for head, body in zip(heads, bodies)]
    first, parts = max(map(_width, labels)), [[]]
    for k, width in enumerate(widths):
        if parts[-1] and first + sum(widths[i] + 2 for i in parts[-1]) + 2 + width > WIDTH:
            parts.append([])
        parts[-1].append(k)
    blocks = []
    for part in parts:
        lines = [*_lines([[""], *(heads[k] for k in part)], [first, *(widths[k] for k in part)], at_bottom=True)]
        for i, label in enumerate(labels):
            lines += _lines([label, *(bodies[k][i] for k in part)], [first, *(widths[k] for k in part)])
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def wrapped(text: str) -> str:
    """Running text in lines of at most 100 characters; a long word, such as a folder's name, stays whole."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def in_pieces(text: str) -> list[str]:
    """The text in pieces after which a line may end: words, and the parts of a folder's name."""
    return re.findall(r"[^-_./ ]*[-_./ ]+|[^-_./ ]+$", text)


def _wrapped(text: str, width: int) -> list[str]:
    """The lines of a label; a piece that is longer than the width is cut."""
    lines = [""]
    for piece in in_pieces(text):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line[i : i + width].rstrip() for line in lines for i in range(0, max(1, len(line.rstrip())), width)]


def _words(cell: str) -> list[str]:
    """The lines of a cell, broken at spaces only."""
    return [line for given in cell.split("\n") for line in textwrap.wrap(given, N_CELL, break_on_hyphens=False) or [""]]


def _width(lines: Sequence[str]) -> int:
    return max(map(len, lines))


def _lines(cells: Sequence[list[str]], widths: Sequence[int], at_bottom: bool = False) -> list[str]:
    """One row of the table: the first cell is flush left, the others flush right."""
    n = max(map(len, cells))
    filled = [[""] * (n - len(cell)) + cell if at_bottom else cell + [""] * (n - len(cell)) for cell in cells]
    lines = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in zip(*filled)]
    return ["  ".join(line).rstrip() for line in lines]
