"""A run's files -> report.html: one file that opens offline, with every value taken from the files of the run."""

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import pandas as pd

from dataset.csvfile import read_back
from dataset.table import CLASS_NAMES, CLASSES, SPLITS

TASKS = ("classification", "segmentation", "multitask")
FEW = 30  # test images of a class, below which its numbers are called uncertain
GAP = 1.3  # validation loss by training loss at the saved epoch, from which a model is called overfitted
HEADLINE = (  # column, head, path in metrics.json
    ("Accuracy", "label", ("accuracy",)),
    ("Balanced accuracy", "label", ("balanced_accuracy",)),
    ("Melanoma sensitivity", "label", ("per_class", "MEL", "recall")),
    ("Mean AUC", "label", ("official", "macro", "auc")),
    ("Mean Dice", "mask", ("mean_dice",)),
    ("Mean Jaccard, native size", "mask", ("native", "mean_iou")),
    ("Thresholded Jaccard, native size", "mask", ("native", "mean_threshold_iou")),
)
CAPTIONS = {
    "training_curves": "Loss and validation scores by epoch; the saved epoch is marked.",
    "confusion_matrix": "Test images by true and predicted class; colours show the share of the true class.",
    "roc_and_precision_recall": "Each class against the rest.",
    "reliability": "How often the model is right, by how sure it says it is.",
    "risk_coverage": "Errors among the images kept when the least confident are handed to a human.",
    "confident_errors": "The errors that the model was surest of.",
    "heat_maps": "Where the likeliest class is seen; the true outline in white.",
    "masks": "Best, median and worst outlines by Dice.",
    "dice_by_class": "Overlap by diagnosis; each dot is a test image.",
}
STYLE = """
:root { color-scheme: light dark; --ink: #1a1c1f; --soft: #5b626b; --line: #d9dde2; --page: #fff; --box: #f5f7f9;
  --mark: #b45309; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a3abb5; --line: #3a4048; --page: #16181b;
  --box: #1f2328; --mark: #f0a850; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { margin-top: 2.6rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
h3 { margin: 1.8rem 0 .4rem; }
p, li, dd { max-width: 46rem; }
a { color: inherit; }
nav a { margin-right: 1rem; }
code { overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); font-size: .92rem; }
.note { color: var(--mark); font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; margin: .6rem 0; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td small { color: var(--soft); white-space: nowrap; display: block; }
.cautions { background: var(--box); border-left: 4px solid var(--mark); padding: .6rem 1rem .6rem 1.8rem; }
figure { margin: 1.2rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; display: block; }
summary { cursor: pointer; }
@media print { body { max-width: none; font-size: 11pt; } nav { display: none; } }
"""


def build(folder: Path) -> str:
    """The report of the run in `folder`, as HTML.

    Raises
    ------
    FileNotFoundError : the folder holds no finished run.
    """
    run = Run(folder)
    if not run.metrics:
        raise FileNotFoundError(f"No metrics.json in {folder}: run main.py first.")
    models = "".join(_model_section(run, task) for task in run.metrics)
    sections = [
        ("Summary", _summary(run)),
        *([("Multi-task against single-task", _comparison(run))] if run.comparison else []),
        ("Models", models),
        *([("Another data set", _external(run))] if run.external else []),
        ("Data and leakage", _data(run)),
        ("Configuration and environment", _settings(run)),
        ("Model card", _model_card(run)),
    ]
    links = " ".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name, _ in sections[1:])
    body = sections[0][1].replace("<!-- links -->", f"<nav>{links}</nav>")
    body += "".join(f'<h2 id="{_anchor(name)}">{escape(name)}</h2>{content}' for name, content in sections[1:])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Skin lesion models: report</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


class Run:
    """The files of a run, read; what was done says its record, not which files there are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = self._json("record.json") or {"tasks": {}}
        self.config, self.environment = self._json("config.json") or {}, self._json("environment.json") or {}
        self.evaluation = self._json("evaluation.json") or {}
        done = [task for task in TASKS if "measured" in self.record["tasks"].get(task, {})]
        self.metrics = {task: self._json(f"{task}/metrics.json") for task in done}
        self.comparison = self._json("comparison.json") if self.record.get("comparison") else None
        elsewhere = [task for task in done if self.record["tasks"][task].get("external")]
        self.external = {task: self._json(f"external/{task}/metrics.json") for task in elsewhere}
        self.splits, self.report = self.table("splits.csv"), self.table("data_report.csv")
        self.leakage = self.table("leakage.csv")
        if self.leakage is not None:  # an empty column has no type
            self.leakage = self.leakage.astype({"crosses": bool, "crosses_by_image": bool})
        self.note = self.config.get("data", "")

    def _json(self, name: str) -> dict | None:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def table(self, name: str) -> pd.DataFrame | None:
        path = self.folder / name
        return read_back(path) if path.exists() else None

    def history(self, task: str) -> pd.DataFrame | None:
        return self.table(f"{task}/history.csv")

    def epochs(self, task: str) -> int | str:
        """That a task was to be trained for."""
        return self.record["tasks"][task].get("identity", {}).get("epochs", "?")


def _summary(run: Run) -> str:
    counts, config = run.splits["split"].value_counts(), run.config
    facts = {
        "Data": f"{len(run.splits):,} images of {run.splits['lesion_id'].nunique():,} lesions in {config['DATA_DIR']}: "
        + ", ".join(f"{counts.get(split, 0):,} {split}" for split in SPLITS),
        "Training": "; ".join(f"{task} {run.epochs(task)} epochs" for task in run.metrics)
        + f"; {config.get('IMAGE_SIZE')} pixels, seed {config.get('SEED')}",
        "Machine": f"{run.environment.get('device')}, {run.environment.get('precision')}; "
        f"started {str(run.environment.get('started', ''))[:10]}",
    }
    what = "".join(f"{name}: {escape(fact)}.<br>" for name, fact in facts.items())
    note = f'<p class="note">{escape(run.note)}: these numbers say nothing about real lesions.</p>' if run.note else ""
    cautions = "".join(f"<li>{text}</li>" for text in cautions_of(run))
    return (
        f"<h1>Skin lesion models: report</h1>{note}{_soft(what)}<!-- links -->{_headline(run.metrics)}"
        + _soft("Test set; in small print the 95 % interval from 2,000 bootstrap resamples of lesions.")
        + f'<h3>Read this first</h3><ul class="cautions">{cautions}</ul>'
    )


def cautions_of(run: Run) -> list[str]:
    """In plain language, what makes this run's numbers less than they seem; HTML."""
    found = []
    if run.note:
        found.append("The images are drawn by a program. Nothing here carries over to skin.")
    scratch = [task for task, metrics in run.metrics.items() if metrics.get("initial_weights") == "scratch"]
    if scratch:
        found.append(f"{', '.join(scratch)}: started from scratch, not from ImageNet weights, which costs accuracy.")
    for task, metrics in run.metrics.items():
        recall = metrics.get("label", {}).get("per_class", {}).get("MEL", {}).get("recall")
        if recall is not None and recall < 0.5:
            found.append(
                f"{task}: melanoma sensitivity is {recall:.2f}, so more than half of the melanomas are missed."
            )
        found += _fit_cautions(run, task)
    test = run.splits[run.splits["split"] == "test"]["label"].value_counts()
    few = [f"{code} ({test[code]})" for code in CLASSES if 0 < test.get(code, 0) < FEW]
    if few:
        found.append(f"Classes with fewer than {FEW} test images, whose own scores are uncertain: {', '.join(few)}.")
    absent = [code for code in CLASSES if not test.get(code, 0)]
    if absent:
        found.append(
            f"Classes without a test image: {', '.join(absent)}; all means but the organisers' own leave them out."
        )
    if run.leakage is not None:
        crossing = run.leakage[run.leakage["crosses"]]
        for kind, members in crossing.groupby("kind"):
            found.append(f"{len(members)} pairs of images that are the {escape(kind)} lie across the split: see below.")
    found.append("Research code, not a medical device: no diagnosis may rest on it.")
    return found


def _fit_cautions(run: Run, task: str) -> list[str]:
    history = run.history(task)
    if history is None:
        return []
    best = history.loc[history["val_loss"].idxmin()]
    ratio = best["val_loss"] / best["train_loss"]
    if ratio > GAP:
        return [f"{task}: overfitted; at the saved epoch the validation loss is {ratio:.1f} times the training loss."]
    if best["epoch"] == history["epoch"].max() and len(history) > 1:
        return [f"{task}: the last epoch was the best, so longer training may do better."]
    return []


def _table(columns: Sequence[str], rows: Iterable[Sequence]) -> str:
    """An HTML table of cells that are HTML already; the first of each row is its heading."""
    head = "".join(f"<th>{name}</th>" for name in columns)
    body = "".join(f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>" for first, *rest in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _soft(text: str) -> str:
    return f'<p class="soft">{text}</p>'


def _headline(metrics: dict[str, dict]) -> str:
    shown = [column for column in HEADLINE if any(column[1] in found for found in metrics.values())]
    rows = [[task, *(_cell(found, head, *path) for _, head, path in shown)] for task, found in metrics.items()]
    return _table(["Model", *(name for name, _, _ in shown)], rows)


def _cell(found: dict, *path: str) -> str:
    """A value of metrics.json, and its interval in small print."""
    value, interval = _at(found, path), _at(found, ("intervals", *path))
    if value is None:
        return "–"
    small = f"<small>{interval[0]:.3f} – {interval[1]:.3f}</small>" if interval and None not in interval else ""
    return f"{value:.3f}{small}"


def _at(found: dict, path: tuple[str, ...]):
    for name in path:
        found = (found or {}).get(name)
    return found


def _model_section(run: Run, task: str) -> str:
    return f"<h3>{task}</h3>{_numbers(run.metrics[task])}{_figures(run, task)}"


def _numbers(found: dict) -> str:
    return "".join(part(found) for part in (_label_tables, _mask_tables, _subgroups))


def _label_tables(found: dict) -> str:
    if "label" not in found:
        return ""
    label = found["label"]
    own = ("precision", "recall", "f1")
    official = ("specificity", "auc", "average_precision")
    rows = [
        [
            _class_name(code),
            *(_cell(found, "label", "per_class", code, key) for key in own),
            *(_cell(found, "label", "official", "per_class", code, key) for key in official),
            label["per_class"][code]["support"],
        ]
        for code in CLASSES
    ]
    text = _table(["Class", "Precision", "Recall", "F1", "Specificity", "AUC", "AP", "Images"], rows)
    text += _soft(
        "Precision, recall and F1 of the likeliest class; the others against the rest, as ISIC 2018 scores them."
    )
    means = {"of all classes, as ISIC 2018 takes it (1 for a class without images)": "macro"}
    means |= {"of the classes that are there": "macro_present"}
    keys = ("accuracy", "sensitivity", "specificity", "f1", "ppv", "npv", "auc", "average_precision")
    rows = [[name, *(_cell(found, "label", "official", mean, key) for key in keys)] for name, mean in means.items()]
    text += _table(["Mean", "Accuracy", "Sensitivity", "Specificity", "F1", "PPV", "NPV", "AUC", "AP"], rows)
    text += _soft("Each class against the rest, called where its calibrated probability exceeds 0.5.")
    rows = [
        [name, _cell(found, "label", "operating_points", name, "threshold")]
        + [_cell(found, "label", "operating_points", name, key) for key in ("sensitivity", "specificity", "ppv")]
        for name in label["operating_points"]
    ]
    text += _table(["To find", "Threshold", "Sensitivity", "Specificity", "PPV"], rows)
    text += _soft("Thresholds that reach 90 % sensitivity on the validation set, applied to the test set unchanged.")
    keys = ("ece", "nll", "brier", "aurc")
    rows = [
        [f"{when} scaling", *(_cell(found, "label", "calibration", when, key) for key in keys)]
        for when in ("before", "after")
    ]
    text += _table(["Calibration", "ECE", "NLL", "Brier", "Risk-coverage area"], rows)
    text += _soft(f"Temperature {label['calibration']['temperature']:.2f}, fitted on the validation set.")
    if heat := label.get("heat_map"):
        text += (
            f"<p>Of the heat maps' energy, {heat['energy_in_mask']:.0%} lies inside the true outline, which covers "
            f"{heat['mask_area']:.0%} of the picture ({heat['n_images']:,} images).</p>"
        )
    return text


def _mask_tables(found: dict) -> str:
    if "mask" not in found:
        return ""
    official = ("mean_iou", "mean_threshold_iou", "mean_dice", "mean_sensitivity", "mean_specificity", "mean_accuracy")
    sizes = {"at the mask's own size (official)": ("native",), "at the network's size": ()}
    rows = [
        [name, *(_cell(found, "mask", *path, key) for key in (*official, "pooled_dice", "failure_rate"))]
        for name, path in sizes.items()
    ]
    scores = ("Jaccard", "Thresholded", "Dice", "Sensitivity", "Specificity", "Accuracy", "Pooled Dice", "Failures")
    text = _table(["Outline", *scores], rows)
    keys = ("mean_dice", "mean_iou", "failure_rate", "mean_hd95", "mean_assd")
    places = {code: ("by_class", code) for code in CLASSES if found["mask"]["by_class"][code]["n_images"]}
    counts = {code: found["mask"]["by_class"][code]["n_images"] for code in places} | {"all": found["mask"]["n_images"]}
    rows = [
        [name, *(_cell(found, "mask", *path, key) for key in keys), counts[name]]
        for name, path in (places | {"all": ("native",)}).items()
    ]
    text += _table(["By diagnosis", "Dice", "Jaccard", "Failures", "HD95, pixels", "ASSD, pixels", "Images"], rows)
    return text + _soft(
        "At the mask file's own size. A failure is a Jaccard index below 0.65. Distances are 0 if truth and outline "
        "are both empty, and the image's diagonal if one is."
    )


def _subgroups(found: dict) -> str:
    groups = found.get("subgroups")
    if not groups:
        return ""
    keys = [key for key in ("accuracy", "balanced_accuracy", "mean_dice") if key in groups[0]]
    rows = [
        [escape(f"{group['group']}: {group['value']}"), group["n_images"], group["n_lesions"]]
        + [_cell(group, key) for key in keys]
        for group in groups
    ]
    columns = ["Subgroup", "Images", "Lesions", *(key.replace("_", " ").capitalize() for key in keys)]
    return f"<details><summary>By age, sex and site</summary>{_table(columns, rows)}</details>"


def _figures(run: Run, folder: str) -> str:
    return "".join(_figure(run.folder / folder / f"{name}.png", caption) for name, caption in CAPTIONS.items())


def _figure(path: Path, caption: str) -> str:
    if not path.exists():
        return ""
    content = base64.b64encode(path.read_bytes()).decode()
    alt = escape(caption, quote=True)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{content}"><figcaption>{alt}</figcaption></figure>'


def _comparison(run: Run) -> str:
    items = []
    for task, found in run.comparison.items():
        for key in ("balanced_accuracy", "accuracy", "mean_dice"):
            if key in found and found[key]["difference"] is not None:
                items.append(f"<li>{escape(_difference(task, key, found[key]))}</li>")
        if "only_first_right" in found:
            items.append(
                f"<li>Only the single-task model is right on {found['only_first_right']} images, only the multi-task "
                f"model on {found['only_second_right']}.</li>"
            )
    return f"<ul>{''.join(items)}</ul>" + _soft("The same test images, paired by bootstrap resamples of lesions.")


def _difference(task: str, key: str, found: dict) -> str:
    text = f"Against {task}, the multi-task model's {key.replace('_', ' ')} differs by {found['difference']:+.3f}"
    if not found["interval"] or None in found["interval"]:
        return f"{text}."
    low, high = found["interval"]
    none = " The interval holds 0, so this run shows no difference." if low <= 0 <= high else ""
    return f"{text} (95 % interval {low:+.3f} to {high:+.3f}).{none}"


def _external(run: Run) -> str:
    done = run.record["external"]
    text = (
        f"<p>All usable images of <code>{escape(done['folder'])}</code>; temperature and thresholds from this run's "
        f"validation set. {escape(done['left_out'])}</p>"
    )
    text += _headline(run.external)
    for task, found in run.external.items():
        text += f"<h3>{task}</h3>{_numbers(found)}{_figures(run, f'external/{task}')}"
    return text


def _data(run: Run) -> str:
    counts = pd.crosstab(run.splits["label"], run.splits["split"]).reindex(index=CLASSES, columns=SPLITS, fill_value=0)
    rows = [
        [_class_name(code), *(f"{n:,}" for n in counts.loc[code]), f"{counts.loc[code].sum():,}"] for code in CLASSES
    ]
    text = _table(["Class", *SPLITS, "all"], rows)
    states = run.report["status"].value_counts()
    text += "<p>" + ", ".join(f"{n:,} rows {escape(state)}" for state, n in states.items()) + ".</p>"
    reasons = run.report[run.report["reason"] != ""]
    kinds = reasons["reason"].str.split("(", n=1).str[0]
    items = [f"{n:,} {state}: {kind}" for (state, kind), n in reasons.groupby(["status", kinds]).size().items()]
    if items:
        text += f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
    text += _figure(run.folder / "class_distribution.png", "Images per class and part of the split.")
    return text + (_leakage(run.leakage) if run.leakage is not None else "")


def _leakage(pairs: pd.DataFrame) -> str:
    rows = []
    for kind in ("same file", "same picture", "same lesion"):
        some = pairs[pairs["kind"] == kind]
        rows.append([kind, *(f"{n:,}" for n in (len(some), some["crosses"].sum(), some["crosses_by_image"].sum()))])
    text = (
        "<h3>Leakage audit</h3><p>Pairs of images that are the same file (equal bytes), the same picture (near "
        "duplicates, also if cropped or coloured a little differently), or photographs of the same lesion. A pair "
        "across the split lets a model be tested on what it has learned.</p>"
    )
    text += _table(["Pairs that are the", "found", "across this split", "across a split by image"], rows)
    crossing = pairs[pairs["crosses"] & (pairs["kind"] != "same lesion")]
    if len(crossing):
        listed = "".join(
            f"<li>{escape(f'{pair.image_a} ({pair.split_a}) and {pair.image_b} ({pair.split_b}), {pair.kind}')}</li>"
            for pair in crossing.head(20).itertuples()
        )
        text += (
            "<p>Across this split (all in leakage.csv; <code>--group-duplicates</code> keeps such pairs together):</p>"
        )
        text += f"<ul>{listed}</ul>"
    return text


def _settings(run: Run) -> str:
    tables = [{"Setting": "", **run.config}, {"Environment": "", **run.environment}]
    if again := run.evaluation:
        tables += [{"Measured again with": "", **again["config"]}, {"On": "", **again["environment"]}]
    return "".join(
        _table([*list(values)[:1], ""], [[escape(k), escape(_shown(v))] for k, v in list(values.items())[1:]])
        for values in tables
    )


def _shown(value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _model_card(run: Run) -> str:
    source = f"The folder {run.config.get('DATA_DIR')}; its licence is for you to check"
    if run.note:
        source = "Synthetic demo data, drawn by dataset/synthetic.py"
    elif run.splits["lesion_id"].astype(str).str.startswith("HAM_").any():
        source = "HAM10000 (Tschandl, Rosendahl and Kittler, Sci Data 5:180161, 2018), CC BY-NC 4.0: no commercial use"
    numbers = [
        f"{task}: {name} {_at(found, (head, *path)):.3f}"
        for task, found in run.metrics.items()
        for name, head, path in HEADLINE
        if _at(found, (head, *path)) is not None
    ]
    facts = {
        "Models": f"ResNet-18 encoder; {', '.join(run.metrics)}. Diagnoses: {', '.join(CLASS_NAMES.values())}.",
        "Intended use": "Research on dermoscopic image analysis, by people who know its pitfalls.",
        "Not intended": "Diagnosis, triage or advice to anyone. Not a medical device; tested on no patient.",
        "Data": f"{source}.",
        "Metrics": f"{'; '.join(numbers)}. Test set of this run; the intervals are in the tables above.",
        "Limits": "Only the seven diagnoses exist for it: anything else is called one of them. Skin tones, devices and "
        "clinics that the data lack are untested. Dermoscopic pictures only. A single training run.",
    }
    return "<dl>" + "".join(f"<dt><b>{k}</b></dt><dd>{escape(v)}</dd>" for k, v in facts.items()) + "</dl>"


def _class_name(code: str) -> str:
    return f'{code} <span class="soft">{escape(CLASS_NAMES[code])}</span>'


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
