"""Several finished runs side by side -> comparison.html, comparison.json and a figure, and tables for the console."""

import base64
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import evaluate
import visualize
from dataset.csvfile import printable
from dataset.groups import groups_of
from measure import bootstrap
from measure.difference import compare
from measure.scores import HEADS, Score, compared
from report.cells import rounded, score_at
from report.folder import RECORD, RunFolder
from report.page import TEMPLATES
from report.run import Finished, read_runs

RunTask = tuple[Finished, str]


def compare_runs(folders: Sequence[Path], output_dir: Path) -> str:
    """Compare every run with the first one, write the comparison, and return it as text.

    Raises
    ------
    ValueError : the runs cannot be compared, or `output_dir` is the folder of a run; nothing is written.
    """
    if (output_dir / RECORD).exists():
        raise ValueError(f"{output_dir} holds a run, with a comparison.json of its own. Name another --output-dir.")
    comparison = side_by_side(read_runs(folders))
    kinds = _kinds(comparison)
    png = b""
    if comparison["differences"]:
        png = visualize.png(_figure(kinds, comparison["first"]), comparison["note"])
    content = {"kinds": kinds, "png": base64.b64encode(png).decode(), "failure": evaluate.FAILURE}
    page = TEMPLATES.get_template("comparison.html").render(comparison | content)
    folder = RunFolder(output_dir)
    folder.write_json("comparison.json", comparison)
    if png:
        folder.write("comparison.png", png)
    folder.write("comparison.html", page)
    return as_text(comparison, kinds)


def side_by_side(runs: Sequence[Finished]) -> dict:
    """The main scores, the differences from the first run and the spread over seeds, as comparison.json holds them."""
    return {
        "first": runs[0].name,
        "n_images": len(runs[0].test),
        "n_lesions": int(runs[0].test["lesion_id"].nunique()),
        "n_resamples": bootstrap.N_RESAMPLES,
        "note": next((run.files.note for run in runs if run.files.note), ""),
        "models": [_model(run, task, head) for head in HEADS for run, task in _with_head(runs, head)],
        "differences": [_difference(*pair) for pair in _pairs(runs)],
        "seeds": [_spread(*group) for group in _repeated(runs)],
    }


def _with_head(runs: Sequence[Finished], head: str) -> list[RunTask]:
    """Each run and task of it that has this head."""
    return [(run, task) for run in runs for task in run.tables if head in run.tables[task]]


def _model(run: Finished, task: str, head: str) -> dict:
    """The main scores of a run's task, as its metrics.json has them."""
    images = run.tables[task][head]["image"]
    scores = {key: score_at(run.files.metrics[task], (head, *score.path)) for key, score in compared(head).items()}
    n_lesions = int(run.test.loc[images, "lesion_id"].nunique())
    about = {"head": head, "run": run.name, "task": task, "remark": run.remarks[task], "seed": run.seed}
    return about | {"n_images": len(images), "n_lesions": n_lesions, "scores": scores}


def _pairs(runs: Sequence[Finished]) -> Iterator[tuple[str, RunTask, RunTask]]:
    """By head, the first run's task of the same name, or else of the same kind, and each later run's."""
    for head in HEADS:
        of_first = [task for _, task in _with_head(runs[:1], head)]
        for run, task in _with_head(runs[1:], head) if of_first else ():
            yield head, (runs[0], task if task in of_first else of_first[0]), (run, task)


def _difference(head: str, first: RunTask, second: RunTask) -> dict:
    tables = [run.tables[task][head] for run, task in (first, second)]
    names = {"head": head}
    for prefix, (run, task) in (("", second), ("less_", first)):
        names |= {f"{prefix}run": run.name, f"{prefix}task": task, f"{prefix}remark": run.remarks[task]}
    return names | compare(head, *tables, groups_of(first[0].test))


def _repeated(runs: Sequence[Finished]) -> Iterator[tuple[str, str, list[Finished]]]:
    """Head, task and runs of each setting that was run with several seeds; of runs with equal seeds the first."""
    for head in HEADS:
        groups: dict[tuple[str, str], dict] = {}
        for run, task in _with_head(runs, head):
            groups.setdefault((task, run.setting(task)), {}).setdefault(run.seed, run)
        yield from ((head, task, list(group.values())) for (task, _), group in groups.items() if len(group) > 1)


def _spread(head: str, task: str, runs: list[Finished]) -> dict:
    """Mean and standard deviation (n - 1) over the seeds; None where a run's score is not defined."""
    models, scores = [_model(run, task, head)["scores"] for run in runs], {}
    for key in compared(head):
        values = [model[key]["value"] for model in models]
        scores[key] = {"mean": None, "std": None}
        if None not in values:
            scores[key] = {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}
    about = {"head": head, "task": task, "remark": runs[0].remarks[task], "runs": [run.name for run in runs]}
    return about | {"seeds": [run.seed for run in runs], "n_seeds": len(runs), "scores": scores}


def _kinds(comparison: dict) -> list[dict]:
    """The comparison by head, with the words that page, figure and console share."""
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
        if rows := kind["differences"]:
            values = {title: [_ends(row[key]) for row in rows] for key, title in kind["columns"].items()}
            groups.append((["\n".join([row["run"], _pair_of(row, "\n")]) for row in rows], values))
    return visualize.differences(groups, f"Differences from\n{first}")


def _ends(change: dict) -> list[float]:
    """Difference, low and high; NaN for what is not defined."""
    values = [change["difference"], *(change["interval"] or [None, None])]
    return [np.nan if value is None else value for value in values]


def as_text(comparison: dict, kinds: list[dict]) -> str:
    """The scores, the differences and the spread over seeds, as tables for the console."""
    size = f"{comparison['n_images']:,} test images of {comparison['n_lesions']:,} lesions"
    blocks = [f"{size}; 95 % intervals in parentheses"]
    for kind in kinds:
        models = [(f"{row['run']} {row['name']}{_of(row)}", row["scores"]) for row in kind["models"]]
        differences = [(f"{row['run']} {row['pair']}{_of(row)}", row) for row in kind["differences"]]
        seeds = [(f"{row['name']}, {_seeds(row)}", row["scores"]) for row in kind["seeds"]]
        for title, rows, shown in (
            (kind["title"], models, _value),
            (f"{kind['title']}, differences from {comparison['first']}", differences, _change),
            (f"{kind['title']}, mean and standard deviation over seeds", seeds, _mean),
        ):
            if rows:
                blocks.append(f"{printable(title)}\n{_table(kind['columns'], rows, shown)}")
    return "\n\n".join(blocks)


def _table(columns: dict[str, str], rows: list[tuple[str, dict]], shown: Callable[[dict], str]) -> str:
    cells = [[shown(scores[key]) for key in columns] for _, scores in rows]
    return pd.DataFrame(cells, [printable(name) for name, _ in rows], list(columns.values())).to_string()


def _of(row: dict) -> str:
    return f" ({row['n_images']:,} images)"


def _seeds(row: dict) -> str:
    return f"settings of {row['runs'][0]}, n = {row['n_seeds']}: seeds {', '.join(map(str, row['seeds']))}"


def _value(score: dict) -> str:
    return _with_interval(score["value"], score["interval"], ".3f")


def _change(score: dict) -> str:
    return _with_interval(score["difference"], score["interval"], "+.3f")


def _mean(score: dict) -> str:
    return "-" if score["mean"] is None else f"{score['mean']:.3f} ± {score['std']:.3f}"


def _with_interval(value: float | None, interval: list | None, form: str) -> str:
    if value is None:
        return "-"
    ends = [f"{rounded(end):{form}}" for end in interval or ()]
    return f"{rounded(value):{form}}" + (f" ({' to '.join(ends)})" if ends else "")
