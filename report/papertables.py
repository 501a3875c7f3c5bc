"""A finished run -> the tables of a manuscript."""

from collections.abc import Iterator

from measure.scores import HEADS, SCORES, shown_in
from report.cells import at, has_score, majority_column, score_at, score_columns, subgroup_tables, with_biopsied
from report.checklist import what_it_knows
from report.latex import PaperTable
from report.run import Run

NO_LABEL = "no diagnosis"
CLASS_SCORES = {  # title: where it stands in a model's numbers, with the class for {}
    "Precision": ("label", "per_class", "{}", "precision"),
    "Recall": ("label", "per_class", "{}", "recall"),
    "F1": ("label", "per_class", "{}", "f1"),
    "AUC": ("label", "official", "per_class", "{}", "auc"),
    "Average precision": ("label", "official", "per_class", "{}", "average_precision"),
}
CALIBRATION = {"ECE": "ece", "NLL": "nll", "Brier score": "brier", "Risk-coverage area": "aurc"}
POINT = {"Threshold": "threshold", "Sensitivity": "sensitivity", "Specificity": "specificity", "PPV": "ppv"}
MASK_SCORES = {
    "Dice": "mean_dice",
    "Jaccard": "mean_iou",
    "Thresholded Jaccard": "mean_threshold_iou",
    "Sensitivity": "mean_sensitivity",
    "Specificity": "mean_specificity",
    "Failure rate": "failure_rate",
}
MASK_BY_CLASS = {
    "Dice": "mean_dice",
    "Jaccard": "mean_iou",
    "Failure rate": "failure_rate",
    "HD95, pixels": "mean_hd95",
    "ASSD, pixels": "mean_assd",
}
WITH = "with 95 % intervals in parentheses"


def tables_of(run: Run) -> list[PaperTable]:
    """All tables that the run has rows for: of its data, of the test set, and of other data sets."""
    tables = [_flow(run), _classes(run), *_folds(run)]
    for prefix, images, sets in (("", "test set", run.metrics), ("other_", "other data set", run.external)):
        for table in (*_scores(sets), *_by_model(sets), *_calibration(sets)):
            tables.append(table._replace(name=prefix + table.name, caption=f"{table.caption}, {images}"))
    return [table for table in tables if table.rows]


def _flow(run: Run) -> PaperTable:
    """From the rows of the data to the images of each part."""
    facts = what_it_knows(run)
    rows = [["Rows in the table", facts["n_rows"]]]
    rows += [[f"Left out: {reason}", count] for reason, count in facts["left_out"].items()]
    rows += [["Images used", facts["n_images"]]]
    optional = {"without a mask": "n_label_only", "without a diagnosis": "n_mask_only"}
    rows += [[f"of these, {words}", facts[name]] for words, name in optional.items() if facts[name]]
    rows += [[f"Images in {part}", count] for part, count in facts["parts"].items()]
    return PaperTable("data_flow", "From the rows of the data to the images of each part", ["Step", "Number"], rows)


def _classes(run: Run) -> PaperTable:
    counts = run.by_class(NO_LABEL)
    rows = [[code, *map(int, row), int(row.sum())] for code, row in counts.iterrows()]
    rows += [["all", *map(int, counts.sum()), int(counts.to_numpy().sum())]] if len(rows) > 1 else []
    return PaperTable("data_by_class", "Images by class and part", ["Class", *counts.columns, "All"], rows)


def _folds(run: Run) -> Iterator[PaperTable]:
    """How the main scores vary over the folds of a cross-validation."""
    for task, metrics in run.metrics.items():
        scores = at(metrics, ("folds", "scores")) or {}
        rows = [
            [SCORES[key].title, one["mean"], one["std"], min(one["values"]), max(one["values"])]
            for key, one in scores.items()
            if one["mean"] is not None
        ]
        caption = f"{task}: the test scores of the folds, mean and standard deviation, lowest and highest"
        yield PaperTable(f"{task}_over_folds", caption, ["Score", "Mean", "SD", "Lowest", "Highest"], rows)


def _scores(sets: dict[str, dict]) -> Iterator[PaperTable]:
    """The main scores of each head, models side by side."""
    for head, title in HEADS.items():
        metrics = {task: numbers for task, numbers in sets.items() if head in numbers}
        shown = [one for one in shown_in("report", head).values() if any(has_score(m, one) for m in metrics.values())]
        columns = score_columns(shown, {task: part for task, part in with_biopsied(metrics).items() if head in part})
        columns |= majority_column(shown, metrics) if head == "label" else {}
        rows = [[one.title, *cells] for one, cells in zip(shown, zip(*columns.values()))]
        yield PaperTable(f"scores_{title.lower()}", f"{title}: scores {WITH}", ["Score", *columns], rows)


def _by_model(sets: dict[str, dict]) -> Iterator[PaperTable]:
    """Scores by class and of subgroups of each model."""
    for task, metrics in sets.items():
        classes = (at(metrics, ("label", "per_class")) or {}).items()
        rows = [
            [code, row["support"], *(score_at(metrics, _path(path, code)) for path in CLASS_SCORES.values())]
            for code, row in classes
        ]
        caption = f"{task}: precision, recall and F1 of the top-1 class, and ranking, {WITH}"
        yield PaperTable(f"{task}_by_class", caption, ["Class", "Images", *CLASS_SCORES], rows)
        by_class = at(metrics, ("mask", "by_class")) or {}
        parts = {code: ("mask", "by_class", code) for code, part in by_class.items() if part["n_images"]}
        parts |= {"all": ("mask", "native")} if "mask" in metrics else {}
        rows = [
            [code, *(score_at(metrics, (*path, key)) for key in MASK_BY_CLASS.values())] for code, path in parts.items()
        ]
        caption = f"{task}: masks by diagnosis at the size of the mask files, {WITH}"
        yield PaperTable(f"{task}_masks_by_class", caption, ["Class", *MASK_BY_CLASS], rows)
        found = subgroup_tables(metrics.get("subgroups") or [], metrics.get("gaps") or [])
        rows = [[f"{part['title']}: {row['value']}", *row["cells"]] for part in found["parts"] for row in part["rows"]]
        yield PaperTable(f"{task}_subgroups", f"{task}: subgroups, {WITH}", ["Subgroup", *found["columns"]], rows)


def _calibration(sets: dict[str, dict]) -> Iterator[PaperTable]:
    """Calibration and operating points, and masks at both sizes, of all models."""
    labelled = {task: metrics for task, metrics in sets.items() if "label" in metrics}
    rows = [
        [
            task,
            f"{when} scaling",
            *(score_at(metrics, ("label", "calibration", when, key)) for key in CALIBRATION.values()),
        ]
        for task, metrics in labelled.items()
        for when in ("before", "after")
    ]
    columns = ["Model", "Probabilities", *CALIBRATION]
    yield PaperTable("calibration", f"Calibration before and after temperature scaling, {WITH}", columns, rows)
    rows = [
        [task, name, *(score_at(metrics, ("label", "operating_points", name, key)) for key in POINT.values())]
        for task, metrics in labelled.items()
        for name in metrics["label"].get("operating_points", {})
    ]
    caption = f"Operating points, fitted on the validation set and applied unchanged, {WITH}"
    yield PaperTable("operating_points", caption, ["Model", "Positive", *POINT], rows)
    rows = [
        [task, size, *(score_at(metrics, (*path, key)) for key in MASK_SCORES.values())]
        for task, metrics in sets.items()
        for size, path in {"mask file": ("mask", "native"), "network": ("mask",)}.items()
        if "mask" in metrics
    ]
    yield PaperTable(
        "masks", f"Masks at the size of the file and of the network, {WITH}", ["Model", "Size", *MASK_SCORES], rows
    )


def _path(path: tuple[str, ...], code: str) -> tuple[str, ...]:
    return tuple(code if name == "{}" else name for name in path)
