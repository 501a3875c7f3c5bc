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
from measure.alarms import MIN_IMAGES
from measure.benefit import SUREST
from measure.scores import SCORES, shown_in
from measure.subgroups import FEWEST
from report.cautions import label_cautions
from report.cells import (
    at,
    benefit_of,
    cell_of,
    has_score,
    majority_column,
    rounded,
    score_columns,
    scores_at,
    subgroup_tables,
    with_biopsied,
)
from report.checklist import as_markdown, items_of
from report.folder import RunFolder
from report.run import Run

FEW = 30  # minimum test images of a class for certain scores
GAP = 1.3  # ratio of validation to training loss at the saved epoch that counts as overfitting
NO_LABEL = "no diagnosis"
N_PAIRS = 20  # pairs across the split that are listed
HERE = jinja2.FileSystemLoader(Path(__file__).parent)
TEMPLATES = jinja2.Environment(
    loader=HERE, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)
TEMPLATES.filters["thousands"] = "{:,}".format
TEMPLATES.globals["SYNTHETIC"] = NOTE


def ends(interval: list, sign: str = "-", between: str = " – ") -> str:
    """An interval's ends, with so many digits that they differ."""
    digits = next((n for n in range(3, 10) if round(interval[0], n) != round(interval[1], n)), 3)
    return between.join(f"{rounded(end, digits):{sign}.{digits}f}" for end in interval)


def in_percent(value: float) -> str:
    return f"{100 * value:.1f} %"


TEMPLATES.filters |= {"ends": ends, "in_percent": in_percent, "rounded": rounded}


def build(folder: Path) -> str:
    """The report of the run in `folder`, as HTML.

    Raises
    ------
    FileNotFoundError : no model of the folder was evaluated.
    ValueError : its files lack a number that the report shows, as those of earlier versions may.
    """
    run = Run(folder)
    if not run.metrics:
        raise FileNotFoundError(f"No metrics.json in {folder}: run main.py first.")
    try:
        return TEMPLATES.get_template("template.html").render(_values(run))
    except jinja2.UndefinedError as error:
        raise ValueError(
            f"A file in {folder} lacks a value of the page: {error}. Evaluate again: main.py --evaluate-only."
        ) from None


def write(folder: RunFolder) -> None:
    """Write the pages of a run, report.html and checklist.md. Raises as `build`."""
    folder.write("report.html", build(folder.path))
    run = Run(folder.path)
    folder.write("checklist.md", as_markdown(items_of(run, cautions_of(run))))


def cautions_of(run: Run) -> list[str]:
    """Limitations of this run's numbers, in plain language."""
    cautions = []
    if run.note == NOTE:
        cautions.append("The models were trained on synthetic drawings; nothing here transfers to real skin.")
    scratch = [task for task, metrics in run.metrics.items() if metrics.get("initial_weights") == "scratch"]
    if scratch:
        cautions.append(f"{', '.join(scratch)}: trained from scratch, not from ImageNet weights, which costs accuracy.")
    if blind := [task for task, metrics in run.metrics.items() if not metrics.get("unlike")]:
        why = f"fewer than {MIN_IMAGES} validation images, or a model without a suitable encoder"
        cautions.append(f"{', '.join(blind)}: images unlike the training images cannot be detected ({why}).")
    for task, metrics in run.metrics.items():
        if run.views(task) > 1:
            cautions.append(f"{task}: evaluated as the average over {run.views(task)} views of each image.")
        cautions += label_cautions(run, task)
        heat = _heat(metrics)
        if heat and not heat["localises"]:
            inside = f"{in_percent(heat['energy_in_mask'])} of their energy lies inside the true mask"
            covers = f"which covers {in_percent(heat['mask_area'])} of the image"
            cautions.append(f"{task}: the heat maps do not localise; {inside}, {covers}.")
        cautions += _biopsy_cautions(task, metrics)
        cautions += _fit_cautions(run, task)
    test = run.splits[run.splits["split"] == "test"]["label"].value_counts()
    few = [f"{code} ({test[code]})" for code in run.classes if 0 < test.get(code, 0) < FEW]
    if few:
        cautions.append(f"Scores of classes with fewer than {FEW} test images are uncertain: {', '.join(few)}.")
    val = set(run.splits[run.splits["split"] == "val"]["label"])
    if val and (unseen := [code for code in run.classes if code not in val]):
        cautions.append(f"Classes without a validation image, for which nothing was fitted: {', '.join(unseen)}.")
    absent = ", ".join(code for code in run.classes if not test.get(code, 0))
    if absent:
        cautions.append(f"Classes without a test image: {absent}; means exclude them, except those of ISIC 2018.")
    cautions += run.record.get("reading", [])
    if run.leakage is not None:
        for kind, members in run.leakage[run.leakage["crosses"]].groupby("kind"):
            cautions.append(f"{len(members)} pair{'s' * (len(members) > 1)} of the {kind} cross the split: see below.")
    cautions.append("Research code, not a medical device: never base a diagnosis on it.")
    return cautions


def _biopsy_cautions(task: str, metrics: dict) -> list[str]:
    """Accuracy on the biopsied images, if only some are biopsied."""
    everything, biopsied = (at(metrics, (*path, "label")) for path in ((), ("biopsied",)))
    if not biopsied or biopsied["n_images"] == everything["n_images"]:
        return []
    return [
        f"{task}: accuracy is {biopsied['accuracy']:.3f} on the {biopsied['n_images']:,} biopsied images and "
        f"{everything['accuracy']:.3f} on all {everything['n_images']:,}. The other diagnoses were confirmed by "
        "follow-up, consensus or similar."
    ]


def _fit_cautions(run: Run, task: str) -> list[str]:
    history = run.table(f"{task}/history.csv")
    if history is None:
        return []
    if run.stopped_after(task) is not None:
        return [f"{task}: stopped after {run.epochs(task)} epochs."]
    best = history.loc[history["val_loss"].idxmin()]
    ratio = best["val_loss"] / best["train_loss"]
    if ratio > GAP:
        return [f"{task}: overfitting; at the saved epoch the validation loss is {ratio:.1f} times the training loss."]
    if best["epoch"] == history["epoch"].max() and len(history) > 1:
        return [f"{task}: the last epoch was the best, so longer training may do better."]
    return []


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
        "averaged": [path for metrics in run.metrics.values() for path in metrics.get("averaged", [])],
        "models": _models(run.folder, run.metrics),
        "folds": _over_folds(run),
        "comparison": {task: _comparison(values) for task, values in (run.comparison or {}).items()},
        "other_sets": _other_sets(run),
        "data": _data(run),
        "leakage": None if run.leakage is None else _leakage(run.leakage),
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
    return {"n": max(one["n"] for one in folds.values()), "tasks": list(folds), "rows": rows}


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
    """The models' numbers on one set of images: side by side, and each in full."""
    shown = [
        score for score in shown_in("report").values() if any(has_score(numbers, score) for numbers in metrics.values())
    ]
    names = [score.title for score in shown]
    sets = with_biopsied(metrics)
    columns = score_columns(shown, sets)
    pairs = [(f"{task}: {name}", cell["value"]) for task, cells in columns.items() for name, cell in zip(names, cells)]
    summary = [f"{name} {value:.3f}" for name, value in pairs if isinstance(value, float)]  # not how many images
    columns |= majority_column(shown, metrics)
    return {
        "headline": {"columns": columns, "rows": dict(zip(names, zip(*columns.values()))), "summary": summary},
        "by_task": {task: _model(folder / task, numbers) for task, numbers in metrics.items()},
    }


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
    return heads | {"heat": _heat(metrics), "coarse": coarse, "subgroups": subgroups, "figures": _figures(folder)}


def _positives(label: dict) -> dict[str, int]:
    """Number of images of each operating point's classes."""
    support = [row["support"] for row in label["per_class"].values()]
    points = points_among(list(label["per_class"])).items()
    return {name: sum(support[k] for k in members) for name, members in points}


def _heat(metrics: dict) -> dict | None:
    """Energy of the heat maps inside the masks, and whether they localise; None without labels or masks."""
    heat = at(metrics, ("label", "heat_map"))
    return heat and heat | {"localises": heat["energy_in_mask"] >= evaluate.LOCALISING}


def _figures(folder: Path) -> dict[str, str]:
    return {path.stem: base64.b64encode(path.read_bytes()).decode() for path in folder.glob("*.png")}


def _comparison(comparison: dict) -> dict:
    known = {key: comparison[key] for key in shown_in("multitask") if key in comparison}
    cells = {SCORES[key].title: cell_of(one["difference"], one["interval"]) for key, one in known.items()}
    return comparison | {"differences": {title: cell for title, cell in cells.items() if cell["value"] is not None}}


def _data(run: Run) -> dict:
    reasons = run.report[run.report["reason"] != ""]
    kinds = reasons["reason"].str.split("(", n=1).str[0]
    lesions = run.splits["lesion_id"]
    return {
        "n_images": len(run.splits),
        "n_lesions": lesions.nunique(),
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
