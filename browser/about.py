"""What the page says of its model: what it learned from, its scores, its licence and its model card.

The scores are those of metrics.json, in the folder of the run beside the checkpoint. The bundled model has them in a
file of its own name.
"""

import json
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from browser.cards import TEMPLATES
from checkpoints.trained import Trained
from dataset import synthetic

SCORES = {  # by head, with their titles
    "label": {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"},
    "mask": {"mean_dice": "Dice"},
}


def about(trained: Trained) -> str:
    """The facts about a model as HTML."""
    seen = _seen_by(trained)
    return TEMPLATES.get_template("about.html").render(
        trained=trained,
        is_drawn=is_of_drawn(trained),
        n_images=len({name for part in seen for name in part["images"]}),
        of_ham10000={str(name).startswith("HAM_") for part in seen for name in part["lesions"]},
        is_from_imagenet=any(one.get("initial_weights") == "ImageNet" for one in trained.checkpoints.values()),
        scores=score_lines(metrics_of(trained)),
        has_card=bool(model_card(trained)),
    )


def is_of_drawn(trained: Trained) -> bool:
    """Whether a model, and the weights that it started from, learned from drawn lesions only."""
    return all(
        (one.get("note") == synthetic.NOTE or ("trained_on" in one and _has_drawn_names(one)))
        and (not one.get("seen_before") or _has_drawn_names(one["seen_before"]))
        for one in trained.checkpoints.values()
    )


def _has_drawn_names(training: dict) -> bool:
    """Whether the images that a training showed are known, and all named as the demo's."""
    names = training.get("trained_on", {}).get("images", [])
    return bool(names) and all(str(name).startswith(synthetic.PREFIX) for name in names)


def _seen_by(trained: Trained) -> list[dict]:
    """What each training showed, also those of the weights that a model started from, as `states.shown_by` gives it."""
    trainings = [part for one in trained.checkpoints.values() for part in (one, one.get("seen_before", {}))]
    return [part["trained_on"] for part in trainings if "trained_on" in part]


def metrics_of(trained: Trained) -> dict:
    """The numbers that a run wrote of this model as it is used here, without views; {} if there are none."""
    if trained.is_average:
        return {}
    path, known = trained.path, {"epoch": trained.checkpoint.get("epoch"), "views": 1}
    for place in (path.with_suffix(".json"), path.parent / trained.name / "metrics.json"):
        if place.is_file():
            metrics = json.loads(place.read_text(encoding="utf-8"))
            return metrics if metrics | known == metrics else {}
    return {}


def score_lines(metrics: dict) -> list[str]:
    """The scores on the biopsied test images, or on all if none are known to be, one line per number of images."""
    part, kind = (metrics["biopsied"], "biopsied test images") if "biopsied" in metrics else (metrics, "test images")
    by_n: dict[int, list[str]] = {}
    for head in filter(part.__contains__, SCORES):
        by_n.setdefault(part[head]["n_images"], []).extend(
            _score(title, part[head][name], part["intervals"][head].get(name))
            for name, title in SCORES[head].items()
            if part[head].get(name) is not None
        )
    return [f"{', '.join(scores)} on {n:,} {kind}" for n, scores in by_n.items()]


def _score(title: str, value: float, interval: list[float] | None) -> str:
    return f"{title} {value:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")


def model_card(trained: Trained) -> str:
    """The model card beside a checkpoint as an HTML page, or the report of its run; "" if there is neither."""
    if trained.is_average:
        return ""
    path: Path = trained.path
    if path.with_suffix(".md").is_file():
        content = as_html(path.with_suffix(".md").read_text(encoding="utf-8"))
        return TEMPLATES.get_template("modelcard.html").render(title=path.name, content=content)
    report = path.parent / "report.html"
    return report.read_text(encoding="utf-8") if report.is_file() else ""


def as_html(markdown: str) -> str:
    """Markdown as HTML; of links to other files only the words remain, as the page serves none of these."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in tokens:
        token.children = token.children and _without_files(token.children)
    return parser.renderer.render(tokens, parser.options, {})


def _without_files(tokens: list[Token]) -> list[Token]:
    kept, is_within = [], False
    for token in tokens:
        if token.type == "link_open":
            is_within = not str(token.attrs["href"]).startswith(("https:", "http:"))
        if not (is_within and token.type.startswith("link_")):
            kept.append(token)
    return kept
