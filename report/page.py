"""A run's files -> report.html: one file that opens offline, with every value taken from the files of the run.

Here the values are prepared; template.html says what is shown of them, in which words and where.
"""

import base64
from datetime import timedelta
from pathlib import Path

import jinja2
import pandas as pd

import evaluate
from checkpoints.thresholds import points_among
from dataset.classes import name_of
from dataset.leakage import kinds_in
from dataset.synthetic import NOTE
from encoders import coarse_heat, title_of
from encoders.unlike import ALARM
from measure import bootstrap
from measure.benefit import SUREST
from measure.figures import CAPTIONS
from measure.scores import HEADS, SCORES, shown_in
from measure.subgroups import FEWEST
from report.cautions import cautions_of
from report.cells import (
    at,
    benefit_of,
    cell_of,
    has_score,
    heat_of,
    in_percent,
    majority_column,
    rounded,
    rules_agree,
    score_columns,
    scores_at,
    subgroup_tables,
    with_biopsied,
)
from report.checklist import as_markdown, items_of
from report.folder import RunFolder
from report.run import Run

NO_LABEL = "no diagnosis"
N_PAIRS = 20  # pairs across the split that are listed
HERE = jinja2.FileSystemLoader(Path(__file__).parent)
TEMPLATES = jinja2.Environment(
    loader=HERE, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)
TEMPLATES.filters["thousands"] = "{:,}".format
TEMPLATES.globals |= {"SYNTHETIC": NOTE, "captions": CAPTIONS}


def ends(interval: list, sign: str = "-", between: str = " – ") -> str:
    """An interval's ends, with so many digits that they differ."""
    digits = next((n for n in range(3, 10) if round(interval[0], n) != round(interval[1], n)), 3)
    return between.join(f"{rounded(end, digits):{sign}.{digits}f}" for end in interval)


def png_size(content: str) -> tuple[int, int]:
    """Width and height in pixels of a PNG in base64, from its header."""
    header = base64.b64decode(content[:32])
    return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])


TEMPLATES.filters |= {"ends": ends, "in_percent": in_percent, "rounded": rounded, "png_size": png_size}


def build(folder: Path) -> str:
    """The report of the run in `folder`, as HTML.

    Raises
    ------
    FileNotFoundError : no model of the folder was evaluated.
    ValueError : its files lack a number that the report shows, as those of earlier versions may.
    """
    run = Run(folder)
    if not run.metrics:
        reason = f"No evaluated model in {folder}" if folder.is_dir() else f"There is no folder {folder}"
        raise FileNotFoundError(f"{reason}: run main.py first.")
    try:
        return TEMPLATES.get_template("template.html").render(_values(run))
    except jinja2.UndefinedError as error:
        raise ValueError(
            f"{folder}: a file lacks a value ({error}). Evaluate again: main.py --evaluate-only."
        ) from None


def write(folder: RunFolder, pages: dict[str, str] | None = None) -> None:
    """Write the pages of a run, `pages_of` it. Raises as `build`."""
    for name, content in (pages or pages_of(folder.path)).items():
        folder.write(name, content)


def pages_of(folder: Path) -> dict[str, str]:
    """The content of report.html and checklist.md. Raises as `build`."""
    run = Run(folder)
    return {"report.html": build(folder), "checklist.md": as_markdown(items_of(run, cautions_of(run)))}


def name_of_run(folder: Path) -> str:
    """Title of a run: its folder and, in parentheses, the folder above, as many runs are called "outputs"."""
    path = folder.resolve()
    return f"{path.name} ({path.parent.name})" if path.parent.name else path.name


def _values(run: Run) -> dict:
    """Values of template.html."""
    cautions = cautions_of(run)
    return {
        "sensitivity": evaluate.SENSITIVITY,
        "failure": evaluate.FAILURE,
        "fewest": FEWEST,
        "localising": evaluate.LOCALISING,
        "alarm": ALARM,
        "surest_share": SUREST,
        "n_resamples": bootstrap.N_RESAMPLES,
        "cutoff": evaluate.CUTOFF,
        "classes": {code: name_of(code) for code in run.classes},
        "note": run.note,
        "cautions": cautions,
        "checklist": items_of(run, cautions),
        "epochs": {task: run.epochs(task) for task, metrics in run.metrics.items() if "averaged" not in metrics},
        "encoders": list(map(title_of, _named(run, "encoders"))),
        "initial_files": _named(run, "initial_files"),
        "is_imagenet": all(metrics.get("initial_weights") == "ImageNet" for metrics in run.metrics.values()),
        "seed": run.seed,
        "name": name_of_run(run.folder),
        "averaged": [path for metrics in run.metrics.values() for path in metrics.get("averaged", [])],
        "models": _models(run.folder, run.metrics),
        "units": run.units,
        "folds": _over_folds(run),
        "comparison": {task: _comparison(values) for task, values in (run.comparison or {}).items()},
        "other_sets": _other_sets(run),
        "data": _data(run),
        "leakage": None if run.leakage is None else _leakage(run.leakage),
        "unaudited": run.unaudited,
        "config": run.config,
        "environment": run.environment,
        "started": run.environments[0].get("started", "")[:10],
        "commands": _commands(run.environments),
        "duration": _duration(run.record.get("seconds")),
        "settings": _settings(run),
    }


def _named(run: Run, key: str) -> list[str]:
    """Distinct values of a key in the models' metrics."""
    return list(dict.fromkeys(name for metrics in run.metrics.values() for name in metrics.get(key, [])))


def _over_folds(run: Run) -> dict | None:
    """How the report's scores vary over the folds, by title and model; None without folds."""
    folds = {task: metrics["folds"] for task, metrics in run.metrics.items() if "folds" in metrics}
    if not folds:
        return None
    known = {key: SCORES[key].title for one in folds.values() for key in one["scores"] if not key.startswith("n_")}
    rows = {title: [one["scores"].get(key) for one in folds.values()] for key, title in known.items()}
    places = [f"fold-{number}/report.html" for number in range(1, 1 + max(one["n"] for one in folds.values()))]
    pages = [place for place in places if (run.folder / place).exists()]
    return {"n": len(places), "tasks": list(folds), "rows": rows, "pages": pages}


def _other_sets(run: Run) -> list[dict]:
    """Numbers of the models on each other data set."""
    sets: dict[tuple, dict] = {}
    for task, metrics in run.external.items():
        sets.setdefault(tuple(run.other_set(task).items()), {})[task] = metrics
    return [dict(about) | _models(run.folder / "external", metrics) for about, metrics in sets.items()]


def _commands(environments: list[dict]) -> list[tuple[str, str]]:
    """Distinct command lines with their commits."""
    known = ((one["command"], one.get("commit", "")) for one in environments if "command" in one)
    return list(dict.fromkeys(known))


def _models(folder: Path, metrics: dict[str, dict]) -> dict:
    """The models' numbers on one set of images: the main scores of all, and each model in full."""
    return {
        "headline": _headline(metrics),
        "is_one_rule": rules_agree(metrics),
        "by_task": {task: _model(folder / task, numbers) for task, numbers in metrics.items()},
    }


def _headline(metrics: dict[str, dict]) -> dict[str, dict]:
    """Main scores by head: the titles of its scores, and the cells of each model that has it."""
    tables: dict[str, dict] = {}
    is_one_rule, sets = rules_agree(metrics), with_biopsied(metrics)
    for head, title in HEADS.items():
        known = {name: numbers for name, numbers in sets.items() if head in numbers}
        shown = [
            score
            for score in shown_in("report", head).values()
            if any(has_score(numbers, score) for numbers in known.values())
        ]
        shown = [score for score in shown if not (is_one_rule and "balanced" in score.path)]
        rows = score_columns(shown, known) | (majority_column(shown, metrics) if head == "label" else {})
        if shown:
            tables[title] = {"columns": [score.title for score in shown], "rows": rows}
    return tables


def _model(folder: Path, metrics: dict) -> dict:
    if "label" in metrics:
        metrics = metrics | {"label": metrics["label"] | {"n_positive": _positives(metrics["label"])}}
    heads = {head: scores_at(metrics, (head,)) if head in metrics else None for head in ("label", "mask", "unlike")}
    if heads["label"]:
        heads["label"]["benefit"] = benefit_of(heads["label"])
    biopsied = metrics.get("biopsied") if at(metrics, ("biopsied", "label", "sets")) else None
    heads["biopsied"] = biopsied and scores_at(biopsied, ("label",))
    subgroups = subgroup_tables(metrics.get("subgroups") or [], metrics.get("gaps") or [])
    coarse = coarse_heat(metrics.get("encoders", []))
    is_one_rule = rules_agree({"": metrics})
    shown = {"coarse": coarse, "subgroups": subgroups, "is_one_rule": is_one_rule, "figures": _figures(folder)}
    return heads | {"heat": heat_of(metrics)} | shown


def _positives(label: dict) -> dict[str, int]:
    """Number of images of each operating point's classes."""
    support = [row["support"] for row in label["per_class"].values()]
    points = points_among(list(label["per_class"])).items()
    return {name: sum(support[k] for k in members) for name, members in points}


def _figures(folder: Path) -> dict[str, str]:
    return {path.stem: base64.b64encode(path.read_bytes()).decode() for path in folder.glob("*.png")}


def _comparison(comparison: dict) -> dict:
    known = {key: comparison[key] for key in shown_in("multitask") if key in comparison}
    cells = {SCORES[key].title: cell_of(one["difference"], one["interval"]) for key, one in known.items()}
    return comparison | {"differences": {title: cell for title, cell in cells.items() if cell["value"] is not None}}


def _data(run: Run) -> dict:
    reasons = run.report[run.report["reason"] != ""]
    kinds = reasons["reason"].str.split("(", n=1).str[0]
    lesions, units = run.splits["lesion_id"], run.units
    n_units = run.splits.get("group", lesions).nunique()
    of_units = f" of {n_units:,} {units}" if units != "images" else " (lesions unknown)"
    return {
        "size": f"{len(run.splits):,} images{of_units}",
        "is_ham10000": lesions.astype(str).str.startswith("HAM_").any(),
        "splits": run.splits["split"].value_counts().reindex(run.parts).to_dict(),
        "by_class": {code: [*row, row.sum()] for code, row in run.by_class(NO_LABEL).iterrows()},
        "states": run.report["status"].value_counts().to_dict(),
        "reasons": reasons.groupby(["status", kinds]).size().to_dict(),
        "figures": _figures(run.folder),
    }


def _leakage(pairs: pd.DataFrame) -> dict:
    kinds = {kind: pairs[pairs["kind"] == kind] for kind in kinds_in(pairs)}
    counts = {kind: [len(some), *some[["crosses", "crosses_by_image"]].sum()] for kind, some in kinds.items()}
    crossing = pairs[pairs["crosses"] & pairs["kind"].isin(["same file", "same picture"])]
    return {"counts": counts, "crossing": crossing.head(N_PAIRS).to_dict("records")}


def _settings(run: Run) -> dict[str, dict]:
    tables = {"Setting": run.config, "Environment": run.environment}
    if again := run.evaluation:
        tables |= {"Evaluated again with": again["config"], "Evaluated again on": again["environment"]}
    return {title: {name: _shown(value) for name, value in table.items()} for title, table in tables.items()}


def _duration(seconds: float | None) -> str:
    """Hours, minutes and seconds; "" if it is not known."""
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


def _shown(value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
