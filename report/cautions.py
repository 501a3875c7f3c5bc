"""A run's files -> signs that a classifier is of little use, in plain words for the report."""

from collections.abc import Iterator

from report.cells import at, rounded
from report.run import Run


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
            f"{task}: never predicted as top-1 class: {', '.join(never)}. Their precision of 0.000 and PPV of "
            "1.000 are conventions, not measurements."
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
