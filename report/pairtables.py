"""A comparison of runs -> its tables as LaTeX and CSV, and its figure as PDF and SVG, for a manuscript."""

from collections.abc import Iterator

from dataset.csvfile import as_csv
from report.cells import cell_of
from report.latex import PaperTable, as_frame, as_latex
from report.paperfigures import printed
from visualize import Figure

CAPTION = "paired differences from {first}, with 95 % intervals from {n:,} bootstrap resamples of {units}; p values"
CAPTION += " two-sided, corrected by Holm's method over all differences of the same score"


def tables_of_pairs(comparison: dict, kinds: list[dict], figure: Figure | None) -> dict[str, bytes]:
    """The content of each file by name; `figure` is made `visualize.on_paper`, None where nothing is compared."""
    note, contents = comparison["note"], {}
    for table in _tables(comparison, kinds):
        contents[f"tables/{table.name}.tex"] = as_latex(table, note).encode()
        contents[f"tables/{table.name}.csv"] = as_csv(as_frame(table, note)).encode("utf-8", "backslashreplace")
    if figure:
        contents |= {f"figures/differences.{kind}": drawn for kind, drawn in printed(figure, note).items()}
    return contents


def _tables(comparison: dict, kinds: list[dict]) -> Iterator[PaperTable]:
    if comparison["settings"]:
        rows = [[row["name"], *row["values"]] for row in comparison["settings"]]
        yield PaperTable("settings", "Settings that differ", ["Setting", *comparison["folders"]], rows)
    for kind in kinds:
        name, titles = kind["title"].lower(), list(kind["columns"].values())
        rows = [
            [f"{row['run']} {row['name']}", row["n_images"], *(row["scores"][key] for key in kind["columns"])]
            for row in kind["models"]
        ]
        caption = f"{kind['title']}: scores, with 95 % intervals in parentheses"
        yield PaperTable(f"scores_{name}", caption, ["Run", "Images", *titles], rows)
        rows = [line for row in kind["differences"] for line in _by_score(row, kind["columns"])]
        columns = ["Run", "Score", "Images", "Difference", "p", "p, Holm"]
        caption = CAPTION.format(first=comparison["first"], n=comparison["n_resamples"], units=comparison["units"])
        if rows:
            yield PaperTable(f"differences_{name}", f"{kind['title']}: {caption}", columns, rows)
        rows = [_mean_of(row, kind["columns"]) for row in kind["seeds"]]
        caption = f"{kind['title']}: mean ± standard deviation over runs that differ in seed or split only"
        if rows:
            yield PaperTable(f"seeds_{name}", caption, ["Setting", "Runs", *titles], rows)


def _by_score(row: dict, columns: dict[str, str]) -> Iterator[list]:
    for key, title in columns.items():
        change = row[key]
        value = cell_of(change["difference"], change["interval"])
        yield [f"{row['run']} {row['pair']}", title, row["n_images"], value, change["p"], change["p_holm"]]


def _mean_of(row: dict, columns: dict[str, str]) -> list:
    scores = [row["scores"][key] for key in columns]
    cells = [None if cell["mean"] is None else f"{cell['mean']:.3f} ± {cell['std']:.3f}" for cell in scores]
    return [f"{row['name']}, {', '.join(row['runs'])}", row["n_runs"], *cells]
