"""Text and tables -> LaTeX, whatever characters they hold, and CSV."""

import re
from typing import NamedTuple

import pandas as pd

from dataset.csvfile import printable
from report.cells import rounded

N_ROWS = 40  # maximum number of rows on a page; a longer table continues on the next
N_CHARACTERS = 135  # maximum width of a table; a wider one continues, with its first column again
COMMANDS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after the end of a row it would be an option
    "*": "{*}",
    **{character: f"\\{character}" for character in "{}$&#_%"},
}


class PaperTable(NamedTuple):
    """A table of the paper.

    Attributes
    ----------
    rows : cells as numbers, text, or `report.cells.score_at`'s values with intervals; None for what is not defined.
    """

    name: str
    caption: str
    columns: list[str]
    rows: list[list]


def escaped(text: str) -> str:
    """Any text as LaTeX that prints it; characters that control a console are escaped, as everywhere."""
    text = printable(text).encode("utf-8", "backslashreplace").decode()
    text = "".join(COMMANDS.get(character, character) for character in text)
    return re.sub(r"([-'])(?=\1)", r"\1{}", text)  # two would become a dash or a quotation mark


def declarations(latex: str) -> str:
    """LaTeX that prints the code of each character of a text that pdflatex does not know, where it would stop.

    xelatex and lualatex know every character, and print those that the font has.
    """
    strange = sorted({character for character in latex if ord(character) > 127})
    lines = [
        f"\\@ifundefined{{u8:\\detokenize{{{one}}}}}{{\\DeclareUnicodeCharacter{{{ord(one):04X}}}{{[U+{ord(one):04X}]}}}}{{}}"
        for one in strange
    ]
    return "\n".join(["\\makeatletter", "\\ifdefined\\DeclareUnicodeCharacter", *lines, "\\fi", "\\makeatother"])


def as_latex(table: PaperTable, note: str) -> str:
    """The table as floats with booktabs rules, each small enough for a page and never wider than the text."""
    caption = ". ".join([escaped(table.caption), *([f"Data: {escaped(note)}"] if note else [])])
    cells = [list(map(escaped, table.columns)), *(list(map(_cell, row)) for row in table.rows)]
    parts = [
        [[row[k] for k in shown] for row in (cells[0], *cells[i : i + N_ROWS])]
        for i in range(1, len(cells), N_ROWS)
        for shown in _fitting(cells)
    ]
    floats = []
    for i, (head, *rows) in enumerate(parts):
        label = f"\\label{{tab:{table.name}}}" if i == 0 else ""
        lines = ["\\begin{table}[htbp]", "\\centering", f"\\caption{{{caption}{' (continued)' * (i > 0)}.}}{label}"]
        lines += ["\\small", "\\begin{adjustbox}{max width=\\linewidth}"]
        lines += [f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", "\\toprule", _row(head)]
        lines += ["\\midrule", *map(_row, rows), "\\bottomrule", "\\end{tabular}", "\\end{adjustbox}", "\\end{table}"]
        floats.append("\n".join(lines))
    return "\n\n".join(floats) + "\n"


def as_frame(table: PaperTable, note: str) -> pd.DataFrame:
    """The table with columns for an interval's ends where any row has one, and `note` in a column of its own."""
    columns: dict[str, list] = {}
    for title, cells in zip(table.columns, zip(*table.rows)):
        columns[title] = [_digits(cell["value"] if isinstance(cell, dict) else cell) for cell in cells]
        ends = [(cell["interval"] if isinstance(cell, dict) else None) or ("", "") for cell in cells]
        if any(end != ("", "") for end in ends):
            for i, side in enumerate(("low", "high")):
                columns[f"{title}, {side}"] = [_digits(end[i]) for end in ends]
    frame = pd.DataFrame(columns, dtype=object)
    return frame.assign(data=note) if note else frame


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _fitting(cells: list[list[str]]) -> list[list[int]]:
    """The columns of each part of a table, so that none is too wide; the first column stands in all."""
    widths = [max(map(len, column)) + 3 for column in zip(*cells)]
    parts = [[0]]
    for k in range(1, len(widths)):
        if len(parts[-1]) > 1 and sum(widths[i] for i in parts[-1]) + widths[k] > N_CHARACTERS:
            parts.append([0])
        parts[-1].append(k)
    return parts


def _cell(cell) -> str:
    """A cell as LaTeX, of numbers with fractions three decimals."""
    if not isinstance(cell, dict):
        return "--" if cell is None else f"{cell:,}" if isinstance(cell, int) else escaped(_digits(cell))
    if cell["interval"] is None:
        return _cell(cell["value"])
    return f"{_signed(cell['value'])} ({_signed(cell['interval'][0])}--{_signed(cell['interval'][1])})"


def _signed(value: float) -> str:
    return f"${_digits(value)}$" if value < 0 else _digits(value)


def _digits(value) -> str:
    return f"{rounded(value):.3f}" if isinstance(value, float) else "" if value is None else str(value)
