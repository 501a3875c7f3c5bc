"""A run's files -> the limitations of its numbers, in plain words for the report."""

import re
from collections.abc import Collection, Iterator, Sequence

from dataset.synthetic import NOTE
from measure.alarms import MIN_IMAGES
from report.cells import at, heat_of, in_percent, rounded
from report.run import Run

FEW = 30  # minimum test images of a class for certain scores
GAP = 1.3  # ratio of validation to training loss at the saved epoch that counts as overfitting
NUMBER = re.compile(r"([-+]?\d(?:[\d.,]*\d)?)")


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
        heat = heat_of(metrics)
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
    if run.unaudited:
        cautions.append(run.unaudited)
    if run.leakage is not None:
        for kind, members in run.leakage[run.leakage["crosses"]].groupby("kind"):
            cautions.append(f"{len(members)} pair{'s' * (len(members) > 1)} of the {kind} cross the split: see below.")
    cautions.append("Research code, not a medical device: never base a diagnosis on it.")
    return grouped(cautions, run.metrics)


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


def grouped(cautions: Sequence[str], models: Collection[str]) -> list[str]:
    """The cautions, with one line for those of several models ("model: ...") that differ in their numbers alone.

    Where the numbers differ, they stand in the order of the models: "a, b: accuracy is 0.500 / 0.600".
    """
    lines: dict[str, list[tuple[str, str]]] = {}
    for caution in cautions:
        model, _, said = caution.partition(": ")
        model, said = (model, said) if model in models else ("", caution)
        lines.setdefault(NUMBER.sub("#", said) if model else said, []).append((model, said))
    return [_one_line(*zip(*alike)) for alike in lines.values()]


def _one_line(models: Sequence[str], said: Sequence[str]) -> str:
    parts = zip(*(NUMBER.split(one) for one in said))  # each word and number, of all models
    names = ", ".join(filter(None, dict.fromkeys(models)))
    line = "".join(" / ".join(part if len(set(part)) > 1 else part[:1]) for part in parts)
    return f"{names}: {line}" if names else line


def label_cautions(run: Run, task: str) -> Iterator[str]:
    """Cautions on the diagnoses of a model; none for a model without them."""
    label = run.metrics[task].get("label")
    if label:
        yield from _no_better(task, run.metrics[task])
        yield from _chance(task, run.metrics[task])
        yield from _melanoma(task, label)
        yield from _never(run, task)
        yield from _shifted(run, task)


def _no_better(task: str, metrics: dict) -> Iterator[str]:
    """Whether the accuracy exceeds that of always predicting one class, by the paired interval."""
    always, path = at(metrics, ("label", "majority", "class")), ("label", "likeliest_less_majority")
    gains = {name: at(metrics, (*path, name)) for name in ("accuracy", "balanced_accuracy")}
    lows = {name: (at(metrics, ("intervals", *path, name)) or [gain])[0] for name, gain in gains.items()}
    if lows["accuracy"] is not None and lows["accuracy"] <= 0:
        also = "; its balanced accuracy is" if (lows["balanced_accuracy"] or 0) > 0 else ""
        gain = f"{rounded(gains['accuracy']):+.3f}"
        yield f"{task}: accuracy is not shown to be better than always predicting {always} (difference {gain}){also}."


def _chance(task: str, metrics: dict) -> Iterator[str]:
    """Whether the ranking of the classes, or of malignant lesions, may be no better than chance."""
    for name, path in (("mean AUC", ("official", "macro", "auc")), ("AUC of malignant", ("malignant", "auc"))):
        value, interval = at(metrics, ("label", *path)), at(metrics, ("intervals", "label", *path))
        low = interval[0] if interval and interval[0] is not None else value
        if low is not None and low <= 0.5:
            yield f"{task}: the {name} of {value:.3f} is not shown to be better than chance (0.5)."


def _melanoma(task: str, label: dict) -> Iterator[str]:
    recall, n = (at(label, ("per_class", "MEL", name)) for name in ("recall", "support"))
    if recall is not None and recall < 0.5:
        balanced = at(label, ("rules", "balanced", "per_class", "MEL", "recall"))
        by_other = "" if balanced is None else f" (balanced rule: {balanced:.2f})"
        missed = "the top-1 class misses more than half of the melanomas"
        if recall == 0:
            missed = f"the top-1 class finds none of the {n:,} melanomas"
        yield f"{task}: melanoma sensitivity is {recall:.2f}{by_other}; {missed}."


def _never(run: Run, task: str) -> Iterator[str]:
    """Classes that are never predicted: their precision and PPV divide by zero."""
    table = run.table(f"{task}/predictions.csv")
    predicted = set() if table is None else set(table["predicted"])
    if never := [code for code in at(run.metrics[task], ("label", "per_class")) if predicted and code not in predicted]:
        yield (
            f"{task}: never predicted as top-1 class: {', '.join(never)}. Their precision is undefined: it is "
            "shown as 0.000 by class, and as a PPV of 1.000 in the scores of ISIC 2018."
        )


def _shifted(run: Run, task: str) -> Iterator[str]:
    """Trainings after which probabilities are not those of the data's class frequencies."""
    identity = run.record["tasks"][task].get("identity", {})
    usual = {"label_loss": (None, "cross-entropy", "focal"), "sampling": (None, "all")}
    if unusual := [name for name, known in usual.items() if identity.get(name) not in known]:
        chosen = " and ".join(f"{name.replace('_', ' ')} {identity[name]}" for name in unusual)
        yield (
            f"{task}: trained with {chosen}, so the probabilities are those of more equally frequent classes: "
            "too high for rare classes of these data, too low for common ones."
        )
    elif identity.get("negatives") and identity.get("label_loss") == "focal":
        yield (
            f"{task}: trained with label loss focal and negatives {identity['negatives']}, so the probabilities are "
            "only roughly those of the data's class frequencies."
        )
