"""GroundTruth.csv: cells, quotes, separators, encodings, columns and rows as no program should write them."""

import csv
import io
from pathlib import Path

import numpy as np

from dataset.classes import HAM10000 as CLASSES
from dataset.csvfile import as_csv, read_back
from dataset.table import LEFT_OUT, describe_table, read_table
from dataset.tablefile import read_rows

from . import refused_well

CELLS = [
    *("", " ", "1", "0", "1.0", "2", "-1", "nan", "NA", "null", "inf", "1e400", "yes", "True", "001", "=1+1", "$x$"),
    *(
        '"',
        '""',
        "'",
        ",",
        ";",
        "\t",
        "\r",
        "\n",
        "\r\n",
        "\0",
        "..",
        "../x",
        "a/b",
        "C:x",
        "é",
        "e\u0301",
        "\u202e",
        "😀",
    ),
    *("i0", "i1", "i0.jpg", "I0.JPG", "x" * 5000, "\x85", "\u2028", "image", "MEL", "AK", "AKIEC", "SCC", "\u202e"),
]


def one(seed: int, place: Path) -> None:
    rng = np.random.default_rng(seed)
    (place / "images").mkdir()
    for name in ("i0", "i1", "001", "NA", "é"):
        (place / "images" / f"{name}.jpg").touch()
    path = place / "GroundTruth.csv"
    path.write_bytes(damaged(rng, ["image", *CLASSES], row))
    verdicts = []
    for _ in range(2):
        try:
            table = read_table(place)
        except Exception as error:
            assert refused_well(error, path, place), f"{type(error).__name__}: {error}"
            verdicts.append(str(error))
        else:
            assert len(table) == len(read_rows(path)), "a row has vanished"
            assert (table["status"] != LEFT_OUT).sum() == table.loc[table["status"] != LEFT_OUT, "image"].nunique()
            assert (table.loc[table["status"] == LEFT_OUT, "reason"] != "").all()
            (place / "out.csv").write_text(as_csv(table), encoding="utf-8", newline="")
            assert len(read_back(place / "out.csv")) == len(table), "a row does not read back"
            verdicts.append(describe_table(table))
    assert verdicts[0] == verdicts[1]


def row(rng: np.random.Generator) -> list[str]:
    return [f"i{rng.integers(4)}", *np.eye(len(CLASSES), dtype=int)[rng.integers(len(CLASSES))].astype(str)]


def damaged(rng: np.random.Generator, header: list[str], make_row) -> bytes:
    """A table with some cells, rows, columns, bytes or its encoding changed."""
    rows = [header, *(make_row(rng) for _ in range(rng.integers(0, 6)))]
    for _ in range(rng.integers(0, 4)):
        cells = rows[rng.integers(len(rows))]
        place = int(rng.integers(len(cells))) if cells else 0
        change = rng.choice(["set", "set", "drop", "add", "repeat"])
        if change == "set" and cells:
            cells[place] = str(rng.choice(CELLS))
        elif change == "drop" and cells:
            del cells[place]
        elif change == "add":
            cells.insert(place, str(rng.choice(CELLS)))
        else:
            rows.append(list(cells))
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_MINIMAL if rng.random() < 0.7 else csv.QUOTE_ALL
    options = {"lineterminator": str(rng.choice(["\n", "\r\n", ",\n"])), "quoting": quoting}
    csv.writer(text, delimiter=str(rng.choice([",", ",", ",", ";", "\t"])), **options).writerows(rows)
    encoding = str(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    content = bytearray(text.getvalue().encode(encoding, "replace"))
    for _ in range(rng.integers(0, 3) if rng.random() < 0.3 else 0):
        if content:
            content[rng.integers(len(content))] = rng.integers(256)
    return bytes(content)
