"""Several finished runs side by side -> comparison.html, comparison.json and a figure, and tables for the console."""

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

import evaluate
import visualize
from dataset.csvfile import printable
from dataset.groups import groups_of
from measure import bootstrap
from measure.difference import holm
from measure.scores import HEADS, Score, compared, mean_and_std
from report.cells import rounded, score_at
from report.differing import ABSENT, SPLIT, differing, repeated, resolved_settings
from report.fitting import as_table, in_pieces, without_shared, wrapped
from report.folder import RECORD, RunFolder
from report.page import TEMPLATES
from report.pairing import difference, not_compared, pairs, read_runs, with_head
from report.pairtables import tables_of_pairs
from report.paper import refuse_other_files, write_files
from report.run import Finished

TEMPLATES.filters["in_pieces"] = in_pieces
N_PANELS = 3  # of a figure, side by side: its text is then as large as the page's


def compare_runs(folders: Sequence[Path], output_dir: Path, for_paper: bool = False) -> str:
    """Compare every run with the first one, write the comparison, and return it as text.

    Parameters
    ----------
    for_paper : also write the tables as LaTeX and CSV and the figure as PDF and SVG, to ``output_dir / "paper"``.

    Raises
    ------
    ValueError : the runs cannot be compared, `output_dir` is the folder of a run, or the folder for the paper holds
        other files or changed ones; nothing is written.
    """
    if (output_dir / RECORD).exists():
        raise ValueError(f"{output_dir} holds a run, with a comparison.json of its own. Name another --output-dir.")
    if for_paper:
        refuse_other_files(output_dir / "paper")
    comparison = side_by_side(read_runs(folders))
    kinds = kinds_of(comparison)
    png = b""
    if comparison["differences"]:
        png = visualize.png(_figure(kinds, comparison["first"]), comparison["note"])
    content = {"kinds": kinds, "png": base64.b64encode(png).decode(), "failure": evaluate.FAILURE, "absent": ABSENT}
    content["size"] = _size(comparison)
    page = TEMPLATES.get_template("comparison.html").render(comparison | content)
    folder = RunFolder(output_dir)
    folder.write_json("comparison.json", comparison)
    if png:
        folder.write("comparison.png", png)
    folder.write("comparison.html", page)
    if for_paper:
        with visualize.on_paper():
            figure = _figure(kinds, comparison["first"]) if png else None
            write_files(output_dir / "paper", tables_of_pairs(comparison, kinds, figure))
    return as_text(comparison, kinds)


def side_by_side(runs: Sequence[Finished]) -> dict:
    """Settings, scores, differences from the first run and spread over seeds, as comparison.json holds them."""
    names, start = without_shared([run.name for run in runs])
    folders = dict(zip(names, (run.name for run in runs)))
    runs = [run._replace(name=name) for run, name in zip(runs, names)]
    differences = corrected([difference(*pair) for pair in pairs(runs)])
    groups, notes = repeated(runs)
    grouped = max(runs, key=lambda run: "group" in run.test)  # the first that knows patients, or the first of all
    return {
        "first": runs[0].name,
        "folders": folders,
        "shared_start": start,
        "n_images": len(runs[0].test),
        "n_lesions": int(groups_of(grouped.test).nunique()),
        "units": grouped.files.units,
        "same_test_images": all(set(run.test.index) == set(runs[0].test.index) for run in runs),
        "n_resamples": bootstrap.N_RESAMPLES,
        "smallest_p": 2 / (bootstrap.N_RESAMPLES + 1),
        "largest_family": max(_tests_of_scores(differences).values(), default=0),
        "note": next((run.files.note for run in runs if run.files.note), ""),
        "settings": differing(runs),
        "cautions": [*_other_units(runs, grouped), *not_compared(differences)],
        "models": [_model(run, task, head) for head in HEADS for run, task in with_head(runs, head)],
        "differences": differences,
        "seeds": [_spread(*group) for group in groups],
        "not_averaged": notes,
    }


def corrected(differences: Sequence[dict]) -> list[dict]:
    """With ``p_holm`` beside each p value: corrected over all differences of a score."""
    for head in HEADS:
        rows = [row for row in differences if row["head"] == head]
        for key in compared(head) if rows else ():
            for row, p in zip(rows, holm([row[key]["p"] for row in rows])):
                row[key]["p_holm"] = p
    return list(differences)


def _other_units(runs: Sequence[Finished], grouped: Finished) -> list[str]:
    """A sentence for each run whose own intervals are from resamples of other units."""
    return [
        f"{run.name}: the intervals of its own scores are from resamples of {run.files.units}."
        for run in runs
        if run.files.unit != grouped.files.unit
    ]


def _tests_of_scores(differences: Sequence[dict]) -> Counter:
    """How many p values each score has: a difference that no resample changes has none."""
    return Counter(
        (row["head"], key) for row in differences for key in compared(row["head"]) if row[key]["p"] is not None
    )


def _model(run: Finished, task: str, head: str) -> dict:
    """The main scores of a run's task, as its metrics.json has them; of pooled folds also their deviation."""
    images = run.tables[task][head]["image"].unique()
    metrics = run.files.metrics[task]
    scores = {key: score_at(metrics, (head, *score.path)) for key, score in compared(head).items()}
    if "folds" in metrics:
        for key, cell in scores.items():
            cell["std"] = metrics["folds"]["scores"].get(key, {}).get("std")
    n_lesions = int(groups_of(run.test.loc[images]).nunique()) if run.files.unit != "image" else None
    about = {"head": head, "run": run.name, "task": task, "remark": run.remarks[task], "seed": run.seed}
    about["n_folds"] = metrics.get("folds", {}).get("n")
    return about | {"n_images": len(images), "n_lesions": n_lesions, "scores": scores}


def _spread(head: str, task: str, runs: list[Finished]) -> dict:
    """Mean and standard deviation (n - 1) over runs of one setting; None where a run's score is not defined."""
    models, scores = [_model(run, task, head)["scores"] for run in runs], {}
    for key in compared(head):
        scores[key] = mean_and_std([model[key]["value"] for model in models])
    about = {"head": head, "task": task, "remark": runs[0].remarks[task], "runs": [run.name for run in runs]}
    found = [resolved_settings(run, task) for run in runs]
    splits = {one.get(SPLIT, one.get("SPLIT_SEED", "")) for one in found}
    about |= {"seeds": [run.seed for run in runs], "n_splits": len(splits), "n_runs": len(runs)}
    return about | {"scores": scores}


def kinds_of(comparison: dict) -> list[dict]:
    """The comparison by head, with the words that page, figure, console and tables share."""
    kinds = []
    for head, title in HEADS.items():
        models, differences, seeds = (
            [row for row in comparison[name] if row["head"] == head] for name in ("models", "differences", "seeds")
        )
        if models:
            kind = {"title": title, "columns": {key: score.title for key, score in _shown(head, models)}}
            kind["models"] = [row | {"name": _named(row)} for row in models]
            kind["differences"] = [row | {"pair": _pair_of(row)} for row in differences]
            kind["seeds"] = [row | {"name": _named(row)} for row in seeds]
            kinds.append(kind)
    return kinds


def _shown(head: str, models: list[dict]) -> list[tuple[str, Score]]:
    """The scores of a head, but for those of a class that no model knows."""
    known = {key for row in models for key, cell in row["scores"].items() if cell["value"] is not None}
    return [(key, score) for key, score in compared(head).items() if key in known or not score.of_class]


def _pair_of(row: dict, apart: str = " ") -> str:
    second, first = _named(row, apart), _named(row, apart, "less_")
    return second if second == first else f"{second}{apart}minus {first}"


def _named(row: dict, apart: str = " ", which: str = "") -> str:
    task, remark = row[f"{which}task"], row[f"{which}remark"]
    return f"{task}{apart}({remark})" if remark else task


def _figure(kinds: list[dict], first: str) -> visualize.Figure:
    groups = []
    for kind in kinds:
        rows, columns = kind["differences"], list(kind["columns"].items())
        names = ["\n".join([row["run"], _pair_of(row, "\n")]) for row in rows]
        for start in range(0, len(columns), N_PANELS) if rows else ():
            part = columns[start : start + N_PANELS]
            groups.append((names, {title: [_ends(row[key]) for row in rows] for key, title in part}))
    return visualize.differences(groups, f"Differences from\n{first}")


def _ends(change: dict) -> list[float]:
    """Difference, low and high; NaN for what is not defined."""
    values = [change["difference"], *(change["interval"] or [None, None])]
    return [np.nan if value is None else value for value in values]


def as_text(comparison: dict, kinds: list[dict]) -> str:
    """The settings that differ, the scores, the differences and the spread over seeds, for the console."""
    blocks = [*_opening(comparison)]
    change = partial(_change, is_corrected=comparison["largest_family"] > 1)
    for kind in kinds:
        columns, first = kind["columns"], comparison["first"]
        models = [(f"{row['run']} {row['name']}{_of(row)}", row["scores"]) for row in kind["models"]]
        differences = [(f"{row['run']} {row['pair']}{_of(row)}", row) for row in kind["differences"]]
        seeds = [(f"{row['name']}, {_seeds(row)}", row["scores"]) for row in kind["seeds"]]
        for title, rows, shown in (
            (kind["title"], models, _value),
            (f"{kind['title']}, differences from {first}", differences, change),
            (f"{kind['title']}, mean and standard deviation over runs of one setting", seeds, _mean),
        ):
            if rows:
                blocks.append(_table(title, list(columns.values()), _cells(rows, columns, shown)))
    if comparison["differences"]:
        blocks.append(wrapped(_of_p(comparison)))
    blocks += [wrapped(printable(note)) for note in comparison["not_averaged"]]
    return "\n\n".join(blocks)


def _of_p(comparison: dict) -> str:
    smallest, n_pairs = comparison["smallest_p"], comparison["largest_family"]
    drawn = f"{comparison['n_resamples']:,} paired bootstrap resamples of {comparison['units']}"
    words = f"p: two-sided, from {drawn}, so at least {smallest:.3f}."
    if n_pairs < 2:
        return f"{words} One pair is compared: p is not corrected."
    least = f"at least {n_pairs * smallest:.3f}"
    return f"{words} Holm: corrected over the {n_pairs} differences of the same score ({least}), not over the scores."


def _size(comparison: dict) -> str:
    units = comparison["units"]
    of_units = f" of {comparison['n_lesions']:,} {units}" if units != "images" else ""
    return f"{comparison['n_images']:,} test images{of_units}"


def _opening(comparison: dict) -> Iterable[str]:
    size = _size(comparison)
    same = comparison["same_test_images"]
    yield wrapped(
        f"{size}; 95 % intervals in parentheses"
        if same
        else "The test sets differ: scores are of each run's own test images, differences of those that both tested. "
        "95 % intervals in parentheses"
    )
    if comparison["shared_start"]:
        yield wrapped(f"Folder names without their shared start {printable(comparison['shared_start'])}")
    yield from (wrapped(f"Caution: {printable(caution)}") for caution in comparison["cautions"])
    names, settings = list(comparison["folders"]), comparison["settings"]
    if settings:
        rows = [(row["name"], row["values"]) for row in settings]
        yield _table("Settings that differ", names, rows)
    else:
        yield "No setting differs."


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    rows = [(printable(label), [_printable_lines(cell) for cell in cells]) for label, cells in rows]
    return f"{wrapped(printable(title))}\n{as_table([printable(name) for name in columns], rows)}"


def _printable_lines(cell: str) -> str:
    return "\n".join(map(printable, cell.split("\n")))


def _cells(rows: list[tuple[str, dict]], columns: Iterable[str], shown: Callable[[dict], str]) -> list:
    return [(label, [shown(scores[key]) for key in columns]) for label, scores in rows]


def _of(row: dict) -> str:
    return f" ({row['n_images']:,} images)"


def _seeds(row: dict) -> str:
    splits = f"; {row['n_splits']} splits" if row["n_splits"] > 1 else ""
    return f"settings of {row['runs'][0]}, n = {row['n_runs']}: seeds {', '.join(map(str, row['seeds']))}{splits}"


def _value(score: dict) -> str:
    spread = f"\nSD of folds {score['std']:.3f}" if score.get("std") is not None else ""
    return _with_interval(score["value"], score["interval"], ".3f") + spread


def _change(score: dict, is_corrected: bool) -> str:
    p = "" if score["p"] is None else f"\np {score['p']:.3f}"
    p += f", Holm {score['p_holm']:.3f}" if p and is_corrected else ""
    return _with_interval(score["difference"], score["interval"], "+.3f") + p


def _mean(score: dict) -> str:
    return "-" if score["mean"] is None else f"{score['mean']:.3f} ± {score['std']:.3f}"


def _with_interval(value: float | None, interval: list | None, form: str) -> str:
    if value is None:
        return "-"
    ends = [f"{rounded(end):{form}}" for end in interval or ()]
    return f"{rounded(value):{form}}" + (f"\n({' to '.join(ends)})" if ends else "")
