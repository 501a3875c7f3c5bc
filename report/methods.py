"""A run's record -> the methods of a manuscript. methods.txt holds the sentences, references.bib what they cite.

They share their facts, and some of their sentences, with the checklist.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from dataset.csvfile import printable
from encoders import ENCODERS, title_of
from measure import bootstrap
from report.cells import at
from report.checklist import LANGUAGE, LOSS_OF, OPEN, OUTPUTS, items_of, what_it_knows
from report.run import Run

HERE = Path(__file__).parent
CITED = re.compile(r" ?\[@(\w+)\]")
OPEN_PART = re.compile(rf"{OPEN}: .*?[.](?= |$)")  # up to the end of its sentence
LOSSES = {
    "cross-entropy": "cross-entropy",
    "weighted": "cross-entropy with classes weighted by their inverse frequency",
    "sqrt-weighted": "cross-entropy with classes weighted by the square root of their inverse frequency",
    "logit-adjusted": "logit-adjusted cross-entropy [@menon2021]",
    "focal": "focal loss [@lin2017]",
    "bce": "binary cross-entropy of the masks",
    "bce+dice": "binary cross-entropy and Dice loss [@milletari2016] of the masks",
}
ENCODER_CITES = {  # first letters of an encoder's name; the first that fits counts
    "resnext": "xie2017",
    "wide_resnet": "zagoruyko2016",
    "resnet": "he2016",
    "efficientnet_v2": "tan2021",
    "efficientnet": "tan2019",
    "convnext": "liu2022convnet",
    "densenet": "huang2017",
    "mnasnet": "tan2019mnasnet",
    "mobilenet_v2": "sandler2018",
    "mobilenet_v3": "howard2019",
    "regnet": "radosavovic2020",
    "shufflenet": "ma2018",
    "swin_v2": "liu2022swin",
    "swin": "liu2021",
    "vgg": "simonyan2015",
}
AUGMENT_CITES = {"mixup": "zhang2018", "cutmix": "yun2019", "cutout": "devries2017"}
SOFTWARE = {  # key of environment.json: name, citation
    "python": ("Python", ""),
    "torch": ("PyTorch", "paszke2019"),
    "torchvision": ("torchvision", "torchvision2016"),
    "numpy": ("NumPy", "harris2020"),
    "pandas": ("pandas", ""),
    "sklearn": ("scikit-learn", "pedregosa2011"),
}
TOLD = {"seed", "image_size", "encoder", "augment", "precision", "processes", "soft_labels", "soft_weight", "epochs"}
TOLD |= {"batch_size", "lr", "schedule", "warm_up", "ema", "label_loss", "mask_loss", "weight_decay", "split_hash"}
TOLD |= {"initial_weights"}
NOT_SET = {"freeze": "nothing", "sampling": "all", "negatives": 0, "dropout": 0, "drop_path": 0, "encoder_lr_scale": 1}


def cite(key: str) -> str:
    return f"[@{key}]" if key else ""


def encoder_cite(name: str) -> str:
    """The mark that cites an encoder; "" for one that is not known here."""
    return cite(next((key for start, key in ENCODER_CITES.items() if name.startswith(start)), ""))


def _augmentation(name: str) -> str:
    return f"{name} {cite(AUGMENT_CITES.get(name, ''))}".strip()


def _title(name: str) -> str:
    return title_of(name) if name in ENCODERS else name


def _machine(environment: dict) -> str:
    """One environment's hardware: "a CPU (2 cores, threads: 1, processes: 1) in bf16"."""
    device = "a CPU" if environment["device"] == "cpu" else environment["device"]
    names = {"cpu_cores": "CPU cores", "threads": "threads", "processes": "processes"}
    counts = [f"{words}: {environment[name]}" for name, words in names.items() if name in environment]
    return f"{device} ({', '.join(counts)}) in {environment['precision']}"


LANGUAGE.filters |= {"encoder_cite": encoder_cite, "augmentation": _augmentation, "title": _title}
LANGUAGE.filters |= {"machine": _machine}


def methods_of(run: Run) -> dict[str, str]:
    """The paragraphs of the methods by title, with marks ``[@key]`` where they cite; without what the run lacks.

    Raises
    ------
    jinja2.UndefinedError : the run's files lack a value.
    """
    facts = _facts(run)
    paragraphs = {}
    for title, template in _paragraphs():
        if text := " ".join(printable(template.render(facts).replace("\n", " ")).split()):
            paragraphs[title] = re.sub(r" (?=[.,;:])", "", text)
    return paragraphs


def cited_in(paragraphs: dict[str, str]) -> list[str]:
    """The keys of what the methods cite, in order; marks that are no key of references.bib are names of the data."""
    return [key for key in dict.fromkeys(CITED.findall(" ".join(paragraphs.values()))) if key in references()]


def cited_in_words(text: str) -> str:
    """A paragraph whose marks are author and year."""
    return CITED.sub(lambda mark: f" ({author_and_year(mark[1])})" if mark[1] in references() else mark[0], text)


def author_and_year(key: str) -> str:
    """Author and year of an entry: "He et al. 2016"."""
    authors, year = (
        re.search(rf"{field} = {{(.*)}}", references()[key])[1].replace("{", "").replace("}", "")
        for field in ("author", "year")
    )
    names = [name.split(",")[0].strip() for name in authors.split(" and ")]
    if key == "torchvision2016":
        names = [authors]  # "and" belongs to the name
    return f"{' & '.join(names) if len(names) < 3 else f'{names[0]} et al.'} {year}"


@cache
def references() -> dict[str, str]:
    """The entries of references.bib by key."""
    text = (HERE / "references.bib").read_text(encoding="utf-8")
    entries = re.split(r"\n\n+(?=@)", text.strip())
    return {re.match(r"@\w+{(\w+),", entry)[1]: entry for entry in entries}


def bibliography(keys: list[str], is_known: bool) -> str:
    """A BibTeX file of these entries, with a remark if the data set is not known."""
    remark = "" if is_known else "The run does not know its data set: add the reference of your images.\n\n"
    return remark + "\n\n".join(references()[key] for key in keys) + "\n"


def _facts(run: Run) -> dict:
    """The facts of the checklist, its sentences without what is left to the author, and how the models were trained."""
    facts = what_it_knows(run)
    for task, model in facts["tasks"].items():
        model |= _training(run, task, model)
    heads = [head for metrics in run.metrics.values() for head in metrics]
    labels = list(facts["labels"].values())
    return facts | {
        "said": {item.question: " ".join(OPEN_PART.sub("", item.answer).split()) for item in items_of(run, [])},
        "hardware": list(dict.fromkeys(_machine(one) for one in run.environments if one.get("device"))),
        "has_masks": "mask" in heads,
        "has_exact": any("Clopper" in kind for metrics in run.metrics.values() for kind in _kinds(metrics)),
        "has_official": any("official" in label for label in labels),
        "has_benefit": any(label.get("net_benefit") for label in labels),
        "has_sets": any("sets" in label for label in labels),
        "has_heat": any(label.get("heat_map") for label in labels),
        "software": [
            f"{title} {versions} {cite(key)}".strip()
            for name, (title, key) in SOFTWARE.items()
            if (versions := " and ".join(dict.fromkeys(one[name] for one in run.environments if name in one)))
        ],
    }


def _training(run: Run, task: str, model: dict) -> dict:
    """How a model was trained, as far as its record tells; `learned` is empty if it does not."""
    metrics, learned = run.metrics[task], dict(run.record["tasks"][task].get("identity", {}))
    is_known = bool(learned.get("epochs")) and ("lr" in learned or "MODEL" in run.config) and not model["averaged"]
    if "epochs" in learned:
        learned["epochs"] = run.epochs(task)
    used = [name for name, head in LOSS_OF.items() if head in metrics and learned.get(name)]
    rest = {name: value for name, value in learned.items() if name not in TOLD and NOT_SET.get(name, "") != value}
    return {
        "learned": learned if is_known else {},
        "encoder_names": metrics.get("encoders", []),
        "outputs": [words for head, words in OUTPUTS.items() if head in metrics] or model["heads"],
        "losses": [LOSSES.get(learned[name], learned[name]) for name in used],
        "rest": [f"{name.replace('_', ' ')} {value}" for name, value in rest.items() if value not in ("", None)],
    }


def _kinds(part: dict) -> Iterator[str]:
    """The kinds of the intervals that are not the bootstrap's."""
    for name, value in (at(part, ("intervals",)) or part).items():
        if isinstance(value, dict):
            yield from _kinds(value)
        elif name.endswith(bootstrap.KIND) and value:
            yield value


@cache
def _paragraphs() -> list[tuple[str, object]]:
    """Title and template of each paragraph."""
    text = (HERE / "methods.txt").read_text(encoding="utf-8")
    parts = [part.partition("\n") for part in re.split(r"^# ", text, flags=re.MULTILINE)[1:]]
    return [(title.strip(), LANGUAGE.from_string(body)) for title, _, body in parts]
