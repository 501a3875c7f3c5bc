"""A finished run -> its figures for print, drawn again from its tables, as PDF and SVG."""

import io
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import evaluate
import visualize
from measure.assess import net_benefit_figure
from measure.figures import label_figures, mask_figures
from measure.scores import FOLD, classes_in
from report.run import Run, read_head
from visualize import Figure

POINTS, COLUMNS_MM = 8, (85, 170)  # size of text; widths of one and two columns
TWO_COLUMNS = 7.0  # inches: a figure that is drawn at least so wide gets two columns
ONLY_IMAGES = {"masks", "confident_errors", "heat_maps"}  # figures of photographs


def figures_of(run: Run) -> Iterator[tuple[str, Figure]]:
    """The figures that can be drawn from the run's tables, by name, made for print."""
    yield "class_distribution", visualize.class_distribution(run.by_class("no diagnosis"), "Images per class and part")
    for prefix, place, sets in (("", run.folder, run.metrics), ("other_", run.folder / "external", run.external)):
        for task, metrics in sets.items():
            for name, figure in _of_model(run, place / task, task, metrics).items():
                if figure is not None:
                    yield f"{prefix}{task}_{name}", figure


def left_out(run: Run, drawn: set[str]) -> dict[str, str]:
    """The figures of the run that are not among those drawn, by path, each with the reason."""
    reasons = {}
    for path in sorted(run.folder.rglob("*.png")):
        parts = path.relative_to(run.folder).parts
        name = "_".join(["other", *parts[1:]] if parts[0] == "external" else parts).removesuffix(".png")
        is_of_run = len(parts) == 1 or (parts[-2] in run.metrics and not parts[0].startswith("fold-"))
        if is_of_run and name not in drawn:
            reasons["/".join(parts)] = "shows images" if path.stem in ONLY_IMAGES else "the run has no table of it"
    return reasons


def _of_model(run: Run, folder: Path, task: str, metrics: dict) -> dict[str, Figure | None]:
    """The figures of one model on one set of images."""
    figures: dict[str, Figure | None] = {}
    history, labels = run.table(f"{task}/history.csv"), {}
    if history is not None and folder.parent == run.folder:
        figures["training_curves"] = visualize.training_curves(history, task)
    if "label" in metrics:
        table = read_head(folder, "label")
        classes = classes_in(table)
        codes = {column: table[column].map(classes.index).to_numpy() for column in ("true", "predicted", "balanced")}
        probabilities, rules = (
            table[classes].to_numpy(),
            {"likeliest": codes["predicted"], "balanced": codes["balanced"]},
        )
        # Scaling divides the logits, which are log p but for a constant.
        temperatures = _temperatures(run, task, table, metrics)
        before = evaluate.softmax(np.log(np.maximum(probabilities, np.finfo(float).tiny)), 1 / temperatures)
        figures |= label_figures(codes["true"], before, probabilities, rules, classes, task)
        figures["net_benefit"] = net_benefit_figure(metrics, task)
        labels = dict(zip(table["image"], table["true"]))
    if "mask" in metrics:
        table = read_head(folder, "mask")
        is_own = folder.parent == run.folder
        labels = dict(zip(run.splits["image"], run.splits["label"])) if is_own else labels
        if is_own or labels:  # diagnoses of other data sets are kept in predictions alone
            places = {code: place for place, code in enumerate(run.classes)}
            codes = np.array([places.get(labels.get(image), -1) for image in table["image"]])
            figures |= mask_figures(table["dice"].to_numpy(), codes, run.classes, task)
    return figures


def _temperatures(run: Run, task: str, table: pd.DataFrame, metrics: dict) -> np.ndarray:
    """The temperature behind each row of predictions.csv, (N, 1): each fold has its own."""
    if FOLD not in table:
        return np.full((len(table), 1), metrics["label"]["calibration"]["temperature"])
    of_fold = {fold: Run(run.folder / f"fold-{fold}").metrics[task]["label"] for fold in table[FOLD].unique()}
    return np.array([[of_fold[fold]["calibration"]["temperature"]] for fold in table[FOLD]])


def printed(figure: Figure, note: str = "") -> dict[str, bytes]:
    """The figure as "pdf" and "svg" content, as wide as one or two columns, its text of 8 points, `note` at the bottom.

    PDF embeds its fonts, so that its text stays text. SVG has text as paths, which look the same without the fonts.
    """
    width, height = figure.get_size_inches()
    column = COLUMNS_MM[int(width >= TWO_COLUMNS)] / 25.4
    figure.set_size_inches(column, column * height / width)
    if note:
        figure.supxlabel(note, x=0.99, ha="right", color=visualize.GRAY, style="italic")
    for axis in figure.axes:
        axis.tick_params(labelsize=POINTS)
        n_columns = axis.get_subplotspec().get_gridspec().ncols
        length = int(column * 72 / n_columns / (0.68 * POINTS))
        axis.set_title("\n".join(textwrap.fill(line, length) for line in axis.get_title().splitlines()))
    for text in figure.findobj(lambda artist: hasattr(artist, "set_fontsize")):
        text.set_fontsize(POINTS)
    contents = {}
    for kind, date in (("pdf", "CreationDate"), ("svg", "Date")):
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # an emoji is drawn as a box
            figure.savefig(buffer, format=kind, metadata={date: None})
        contents[kind] = buffer.getvalue()
    return contents
