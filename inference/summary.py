"""What the console shows of a table of predictions: one line per image, or of many images how many had which verdict.

The verdict has the order of `verdict`: an image unlike the training images gets only that warning.
"""

import csv
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from checkpoints.thresholds import OPERATING_POINTS, certainty, percent
from dataset.classes import name_of
from dataset.csvfile import printable
from inference.verdict import N_NAMED, UNLIKE

WIDTH = 100  # columns of the console
N_CLASSES = 20  # most frequent classes of a summary
Row = dict[str, str]  # a row of predictions.csv, by column


def of_each(rows: Sequence[Row]) -> list[str]:
    """A heading, and one line per image; [] without images."""
    cells = [_cells(row) for row in rows]
    shown = {column: column for found in cells for column in found}
    names = ["image", *(printable(row["file"]) for row in rows)]
    table = aligned([list(shown), *([found.get(column, "") for column in shown] for found in cells)])
    warned = [f"{UNLIKE}." if _is_unlike(row) else "" for row in rows]
    width = max(map(len, names))
    lines = [f"{name:{width}}  {warning or line}" for name, warning, line in zip(names, ["", *warned], table)]
    return lines if rows else []


def _cells(row: Row) -> Row:
    """The verdict on an image by column of the console; {} for one unlike the training images."""
    if _is_unlike(row):
        return {}
    cells = {"unlike": "no"} if row.get("unlike_verdict") else {}
    for point in OPERATING_POINTS:
        if f"p_{point}" in row:
            cells[point] = _side(row, point) or f"p = {row[f'p_{point}']}"  # where no threshold is known
    if row.get("set"):
        (members,) = csv.reader([row["set"]], delimiter=" ")
        more = f" and {len(members) - N_NAMED:,} more" if len(members) > N_NAMED else ""
        cells["prediction set"] = ", ".join(members[:N_NAMED]) + more
    if row.get("predicted"):
        cells["top-1 class"] = f"{name_of(row['predicted'])}, {certainty(row['confidence'])}"
    if row.get("lesion_share"):
        cells["lesion"] = percent(float(row["lesion_share"]))
    return cells


def _side(row: Row, point: str) -> str:
    """ "above" or "below" the threshold; "" without one, even if a class has the point's name."""
    return side if (side := row.get(point, "")) in ("above", "below") else ""


def _is_unlike(row: Row) -> bool:
    return row.get("unlike_verdict") == "unlike"


def of_all(rows: Iterable[Row]) -> list[str]:
    """How many images are unlike the training images, and of the others a table by top-1 class; reads rows once."""
    n_images, n_unlike = Counter(), Counter()
    above = {point: Counter() for point in OPERATING_POINTS}
    for row in rows:
        predicted = row.get("predicted", "")
        (n_unlike if _is_unlike(row) else n_images)[predicted] += 1
        for point in OPERATING_POINTS:
            if side := _side(row, point):
                above[point][predicted] += side == "above" and not _is_unlike(row)
    n = n_unlike.total()
    lines = [f"Unlike the training images: {n:,} of {n + n_images.total():,}. Do not rely on these."] if n else []
    if not any(n_images):
        return lines
    counts = [n_images, *filter(len, above.values())]
    table = [["top-1 class", "images", *(f"above {point}" for point in above if above[point])]]
    for code, _ in n_images.most_common(N_CLASSES):
        table.append([name_of(code), *(f"{count[code]:,}" for count in counts)])
    if (n_more := len(n_images) - N_CLASSES) > 0:
        table.append([f"and {n_more:,} more classes"] + [""] * len(counts))
    return [*lines, *aligned([*table, ["all", *(f"{count.total():,}" for count in counts)]], number_from=1)]


def aligned(rows: Sequence[Sequence[str]], number_from: int | None = None) -> list[str]:
    """The rows of a table as lines; columns of numbers, those from `number_from` on, end at the same place.

    Examples
    --------
    >>> aligned([["class", "n"], ["NV", "10"]], number_from=1)
    ['class   n', 'NV     10']
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    sides = ["<" if number_from is None or i < number_from else ">" for i in range(len(widths))]
    return ["  ".join(f"{c:{side}{width}}" for c, side, width in zip(row, sides, widths)).rstrip() for row in rows]


def in_lines(line: str) -> str:
    """A message in lines of at most `WIDTH` columns; a number keeps its per cent sign."""
    lines = textwrap.wrap(line.replace(" %", "\xa0%"), WIDTH, subsequent_indent="  ", break_long_words=False)
    return "\n".join(lines).replace("\xa0", " ")
