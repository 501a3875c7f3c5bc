"""A run's files -> the items of three reporting guidelines, each answered from the run or left to the author.

CLEAR Derm (Daneshjou et al. 2022, JAMA Dermatol, doi:10.1001/jamadermatol.2021.4915), TRIPOD+AI (Collins et al. 2024,
BMJ, doi:10.1136/bmj-2023-078378) and CLAIM 2024 (Tejani et al. 2024, Radiol Artif Intell, doi:10.1148/ryai.240300). The
items that apply to an image model are merged and reworded; questions and answers are in checklist.txt.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd

import evaluate
from dataset.csvfile import printable
from dataset.leakage import kinds_in
from dataset.synthetic import NOTE
from dataset.table import LABEL_ONLY, LEFT_OUT, MASK_ONLY
from encoders import title_of
from measure import bootstrap
from measure.scores import HEADS, shown_in
from report.cells import at, score_at
from report.folder import RunFolder
from report.run import Run

OPEN = "You must say"  # in an answer that the author has to complete
DETAILS = {"age": "age", "sex": "sex", "localization": "site"}  # subgroups of metrics.json, in words
LIBRARIES = ("python", "torch", "torchvision", "numpy", "pandas", "sklearn")
OUTPUTS = {"label": "a probability for each class", "mask": "a mask of the lesion"}
LOSS_OF = {"label_loss": "label", "mask_loss": "mask"}  # settings that concern one head
NOT_SETTINGS = {
    "split_hash",
    "initial_weights",
    "checkpoints",
    "processes",
    "encoder",
    "precision",
    "soft_labels",
    "soft_weight",
}
INTRODUCTION = """The items of CLEAR Derm (2022), TRIPOD+AI (2024) and CLAIM (2024) that apply to an image model, merged
and reworded. Each answer is taken from the files of this run. For a checked box, only verify that the answer is right.
For an open box, add the part that only the authors know, after "You must say"."""
LANGUAGE = jinja2.Environment(undefined=jinja2.StrictUndefined)  # an answer's white space does not matter


class Item(NamedTuple):
    """One question of the checklist with the run's answer."""

    group: str
    question: str
    guidelines: str  # that ask for it
    answer: str

    @property
    def is_open(self) -> bool:
        """Whether the author has to add something."""
        return OPEN in self.answer


def _as_text(score: dict) -> str:
    """A `score_at` with its interval."""
    value, interval = score["value"], score["interval"]
    if value is None:
        return "not defined"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


LANGUAGE.filters |= {"n": "{:,}".format, "score": _as_text}


def items_of(run: Run, cautions: list[str]) -> list[Item]:
    """The checklist of a run, with the report's cautions among its answers.

    Raises
    ------
    jinja2.UndefinedError : the run's files lack a value.
    """
    facts = what_it_knows(run) | {"cautions": cautions}
    return [Item(*head, printable(" ".join(answer.render(facts).split()))) for head, answer in _questions()]


def what_it_knows(run: Run) -> dict:
    """What the run knows of its data, models and results, for the templates of the checklist and of the methods."""
    return _data_facts(run) | _model_facts(run) | _result_facts(run)


def as_markdown(items: list[Item]) -> str:
    """The checklist as Markdown, with a box for each item: checked if the run answers it in full."""
    lines = ["# Checklist", "", INTRODUCTION]
    for place, item in enumerate(items):
        if place == 0 or item.group != items[place - 1].group:
            lines += ["", f"## {item.group}", ""]
        answer = re.sub(r"([\\`*_<\[])", r"\\\1", item.answer)  # names in it are no Markdown
        lines.append(f"- [{' ' if item.is_open else 'x'}] **{item.question}** ({item.guidelines}): {answer}")
    return "\n".join(lines) + "\n"


def _data_facts(run: Run) -> dict:
    """The data, the labels and the split."""
    splits, reasons = run.splits, run.report[run.report["status"] == LEFT_OUT]["reason"]
    known = splits[splits["lesion_id"] != splits["image"]]["lesion_id"]
    status = run.report["status"].value_counts()
    counts = run.by_class() if run.classes else pd.DataFrame()
    crossing = run.leakage
    if crossing is not None:
        pairs = crossing[crossing["crosses"]]
        crossing = {kind: int((pairs["kind"] == kind).sum()) for kind in kinds_in(run.leakage)}
    subgroups, config = _subgroups(run), run.evaluation.get("config", run.config)  # the later one made the split
    return {
        "synthetic": run.note == NOTE,
        "is_ham10000": len(known) == len(splits) and known.str.startswith("HAM_").all(),
        "folder": config["DATA_DIR"],
        "config": config,
        "classes": run.classes,
        "n_images": len(splits),
        "n_lesions": known.nunique(),
        "n_lesions_known": len(known),
        "n_groups": splits["group"].nunique() if "group" in splits else 0,
        "units": run.units,
        "unit": run.unit,
        "n_rows": len(run.report),
        "n_left_out": len(reasons),
        "left_out": reasons.str.split("(", n=1).str[0].str.strip().value_counts().to_dict(),
        "n_label_only": int(status.get(LABEL_ONLY, 0)),
        "n_mask_only": int(status.get(MASK_ONLY, 0)),
        "subgroups": {words: subgroups[name] for name, words in DETAILS.items() if name in subgroups},
        "skin_types": subgroups.get("fitzpatrick_skin_type"),
        "proofs": subgroups.get("dx_type"),
        "details_missing": [words for name, words in DETAILS.items() if name not in subgroups],
        "parts": splits["split"].value_counts().reindex(run.parts).to_dict(),
        "own_split": " ".join(line for line in run.record.get("reading", []) if line.startswith("Split: ")),
        "crossing": crossing,
        "unaudited": run.unaudited,
        "by_class": {code: list(row) for code, row in counts.iterrows()},
        "absent": [code for code in run.classes if not counts.loc[code, "test"]],
    }


def _subgroups(run: Run) -> dict[str, list[str]]:
    """Test images by value of each column that makes subgroups."""
    values: dict[str, list[str]] = {}
    times = run.record.get("repeats", 1)  # each image is judged once a repeat
    for group in next((metrics["subgroups"] for metrics in run.metrics.values() if metrics.get("subgroups")), []):
        values.setdefault(group["group"], []).append(f"{group['value']} ({group['n_images'] // times:,})")
    return values


def _model_facts(run: Run) -> dict:
    """The models, and how they were trained."""
    tasks = {task: _model(run, task) for task in run.metrics}
    settings = [set(model["settings"]) for model in tasks.values()]
    shared = [one for one in next(iter(tasks.values()))["settings"] if all(one in others for others in settings)]
    if len(tasks) > 1 and any(others - set(shared) for others in settings):
        for model in tasks.values():
            model["settings"] = [one for one in model["settings"] if one not in shared]
    else:
        shared = []
    heads = [head for head in HEADS if any(head in metrics for metrics in run.metrics.values())]
    return {
        "tasks": tasks,
        "shared_settings": shared,
        "outputs": [OUTPUTS.get(head, head) for head in heads],
        "negatives": run.config.get("NEGATIVES", 0),
        "label_loss": "" if run.config.get("EVALUATE_ONLY") else run.config.get("LABEL_LOSS", ""),
        "seed": run.seed,
        "environment": {"commit": ""} | run.environment,
        "evaluated_on": run.evaluation.get("environment"),
        "versions": [f"{name} {run.environment[name]}" for name in LIBRARIES if name in run.environment],
        "n_trainings": run.record.get("folds", 1) * run.record.get("repeats", 1),
        "weights": [
            path.relative_to(run.folder).as_posix()
            for task in tasks
            for path in sorted(run.folder.glob(f"fold-*/best_{task}_model.pth"), key=_number_of_fold)
            or [RunFolder(run.folder).best_path(task)]
            if path.exists()
        ],
    }


def _number_of_fold(path: Path) -> int:
    return int(path.parent.name.removeprefix("fold-"))


def _model(run: Run, task: str) -> dict:
    metrics = run.metrics[task]
    return {
        "heads": [title.lower() for head, title in HEADS.items() if head in metrics],
        "encoders": list(map(title_of, metrics.get("encoders", []))),
        "start": metrics.get("initial_weights", ""),
        "files": metrics.get("initial_files", []),
        "averaged": metrics.get("averaged", []),
        "epoch": metrics.get("epoch", ""),
        "views": run.views(task),
        "settings": _settings(run, task),
        "scores": _scores(metrics),
    }


def _settings(run: Run, task: str) -> list[str]:
    """Settings of a task's training, as far as its record has them."""
    settings = dict(run.record["tasks"][task].get("identity", {}))
    if "epochs" in settings:
        settings["epochs"] = run.epochs(task)
    skipped = NOT_SETTINGS | {name for name, head in LOSS_OF.items() if head not in run.metrics[task]}
    known = {name: value for name, value in settings.items() if name not in skipped and value not in ("", None)}
    return [f"{name.replace('_', ' ')} {value}" for name, value in known.items()]


def _scores(metrics: dict) -> list[str]:
    """The report's main scores, as far as they are defined."""
    cells = {one.title: score_at(metrics, (one.head, *one.path)) for one in shown_in("report").values()}
    return [f"{title} {_as_text(score)}" for title, score in cells.items() if isinstance(score["value"], float)]


def _result_facts(run: Run) -> dict:
    labelled = {task: metrics for task, metrics in run.metrics.items() if metrics.get("label")}
    return {
        "n_masks": max(_n_masked(metrics) for metrics in run.metrics.values()) // run.record.get("repeats", 1),
        "n_resamples": bootstrap.N_RESAMPLES,
        "labels": {task: metrics["label"] for task, metrics in labelled.items()},
        "majority": next((_majority(metrics) for metrics in labelled.values() if "majority" in metrics["label"]), None),
        "is_compared": bool(run.comparison),
        "failures": list(_failures(run)),
        "others": sorted({run.other_set(task)["folder"] for task in run.external}),
        "elsewhere": {
            task: {"folder": run.other_set(task)["folder"], "n_images": metrics["n_images"], "scores": _scores(metrics)}
            for task, metrics in run.external.items()
        },
    }


def _n_masked(metrics: dict) -> int:
    """Test images whose mask is used, for scores or for the heat maps."""
    return max(at(metrics, path) or 0 for path in (("mask", "n_images"), ("label", "heat_map", "n_images")))


def _majority(metrics: dict) -> dict:
    path = ("label", "majority")
    known = {name: score_at(metrics, (*path, name)) for name in ("accuracy", "balanced_accuracy")}
    return known | {"class": metrics["label"]["majority"]["class"]}


def _failures(run: Run) -> Iterator[str]:
    """What the report shows of errors, by model."""
    for task, metrics in run.metrics.items():
        if (run.folder / task / "confident_errors.png").exists():
            yield f"{task}: its most confident errors are in report.html."
        if (rate := at(metrics, ("mask", "native", "failure_rate"))) is not None:
            yield f"{task}: {100 * rate:.1f} % of the masks have a Jaccard index below {evaluate.FAILURE:g}."


@cache
def _questions() -> list[tuple[tuple[str, str, str], jinja2.Template]]:
    """Group, question, guidelines and the answer's template of each item."""
    questions, text = [], (Path(__file__).parent / "checklist.txt").read_text(encoding="utf-8")
    for part in re.split(r"^# ", text, flags=re.MULTILINE)[1:]:
        group, *items = re.split(r"^## ", part, flags=re.MULTILINE)
        for item in items:
            question, guidelines, answer = re.fullmatch(r"(.+) \((.+)\)\n(.*)", item, re.DOTALL).groups()
            questions.append(((group.strip(), question, guidelines), LANGUAGE.from_string(answer)))
    return questions
