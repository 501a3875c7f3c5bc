"""Arrays and tables -> figures. The only file that imports matplotlib; nothing is shown or written here."""

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps, font_manager, rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from PIL import Image
from sklearn import metrics

# Okabe and Ito's colours, safe for colour-blind readers.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#E69F00", "#009E73", "#666666"
CLASS_COLOURS = ("#000000", "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#56B4E9", "#E69F00")
TRUE_COLOUR, PREDICTED_COLOUR = GREEN, ORANGE
MAX_LINE, MAX_NAME = 40, 22  # maximum characters of a title line and of a class name; the middle is omitted beyond
PER_INCH = 14  # characters of 8 points, as digits are
BESIDE = {"loc": "center left", "anchor": (1, 0.5)}  # place of a legend that the axes have no room for
MAX_SHAPE = 2.0  # height per width for which a row of images has room; higher images are drawn narrower
N_SHOWN, N_CURVES = 20, 14  # maximum number of classes in a figure; there are N_CURVES pairs of colour and line style
SAME_PLACE = 1 / 2000  # of a curve's axis: a third of a pixel, or of a dot in print
N_DOTS, N_LOWEST = 2_000, 100  # images of a class that are dots; of more a shape, and dots for those lowest
CHINESE = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei")
CHINESE += ("Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Malgun Gothic", "Arial Unicode MS")
# Fallback fonts, if installed: each character is drawn in the first font that has it.
rcParams["font.family"] = ["DejaVu Sans", *(set(CHINESE) & set(font_manager.get_font_names()))]
rcParams |= {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "figure"}  # whole fonts; text as paths
IS_ON_PAPER, ON_PAPER = False, {"N_SHOWN": 10, "N_CURVES": 7, "MAX_NAME": 14}  # what fits there


def png(figure: Figure, note: str = "") -> bytes:
    """The figure as PNG content, with `note` at the bottom."""
    if note:
        figure.text(0.99, -0.01, note, ha="right", va="top", fontsize=9, color=GRAY, style="italic")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # an emoji in a file name is drawn as a box
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


@contextmanager
def on_paper() -> Iterator[None]:
    """Make figures whose content fits a page in print, where text is larger in relation to the figure."""
    changed = ON_PAPER | {"IS_ON_PAPER": True}
    kept = {name: globals()[name] for name in changed}
    globals().update(changed)
    try:
        yield
    finally:
        globals().update(kept)


def scores_of(history: pd.DataFrame) -> dict[str, list[str]]:
    """Columns val_<head>_<score> of a history, by head."""
    scores: dict[str, list[str]] = {}
    for name in history.columns:
        if name.startswith("val_") and not name.endswith("loss"):
            scores.setdefault(name.split("_")[1], []).append(name)
    return scores


def training_curves(history: pd.DataFrame, title: str, n_epochs: int | None = None) -> Figure:
    """Training and validation loss, and validation scores of each head, by epoch; the saved epoch is marked.

    Parameters
    ----------
    history : columns epoch, train_loss, val_loss and val_<head>_<score>, one row per epoch.
    n_epochs : epochs planned, to which the axes run; None for those of the history.
    """
    scores = scores_of(history)
    height = 1.9 * (1 + len(scores)) if IS_ON_PAPER else 3.4
    figure = Figure(figsize=(4.6 * (1 + len(scores)), height), layout="constrained")
    axes = figure.subplots(1, 1 + len(scores), squeeze=False)[0]
    best = history.loc[history["val_loss"].idxmin()]
    axes[0].plot(history["epoch"], history["train_loss"], color=BLUE, marker=".", label="training")
    axes[0].plot(history["epoch"], history["val_loss"], color=ORANGE, marker=".", label="validation")
    label = f"saved: epoch {best['epoch']:.0f}"
    axes[0].plot(best["epoch"], best["val_loss"], "o", color=ORANGE, ms=9, mfc="none", label=label)
    axes[0].set(title=f"{title}: loss", ylabel="loss")
    for axis, (head, names) in zip(axes[1:], scores.items()):
        for name, colour in zip(names, (BLUE, GREEN, ORANGE)):
            axis.plot(history["epoch"], history[name], color=colour, marker=".", label=name.split("_", 2)[2])
        axis.axvline(best["epoch"], color=GRAY, lw=0.8, ls=":")
        axis.set(title=f"{title}: validation, {head}", ylabel="score", ylim=(None, 1.01))
    for axis in axes:
        _finish(axis, xlabel="epoch")
        if IS_ON_PAPER:
            _legend(axis, loc="upper center", anchor=(0.5, -0.28))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlim(0.5, (n_epochs or history["epoch"].max()) + 0.5)
    return figure


def commonest(counts: Sequence[int], n: int) -> list[int]:
    """Positions of the `n` largest counts, in ascending order."""
    return sorted(np.argsort(-np.asarray(counts), kind="stable")[:n].tolist())


def class_names(classes: Sequence[str]) -> list[str]:
    """Class names for figures: shortened, or "class 3" for the third if no font has its characters.

    Names that are the same when shortened begin with their position, such as "3: ".
    """
    names = ["".join(c if c.isprintable() else "?" for c in name) for name in classes]
    names = [_shortened(name, MAX_NAME) if _has_font(name) else f"class {i}" for i, name in enumerate(names, start=1)]
    n_same = Counter(names)
    return [
        name if n_same[name] == 1 else f"{i}: {_shortened(name, MAX_NAME - 2 - len(str(i)))}"
        for i, name in enumerate(names, start=1)
    ]


@cache
def _has_font(text: str) -> bool:
    """Whether the figure fonts have all of these characters."""
    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in rcParams["font.family"]]
    return all(any(font.get_char_index(ord(c)) for font in fonts) for c in text)


def _of_all(n_shown: int, n_classes: int, kind: str = "commonest") -> str:
    """Remark of a heading on classes that do not fit."""
    return "" if n_shown == n_classes else f"\nthe {n_shown} {kind} of {n_classes:,} classes"


def _rotated(names: Sequence[str], n_fitting: int = 60) -> int:
    """Characters of the longest line, if these names have to be rotated along a horizontal axis; else 0."""
    longest = max((len(line) for name in names for line in name.splitlines()), default=0)
    return longest if len(names) * longest > n_fitting else 0


def _name_axis(axis: Axis, names: Sequence[str], places: Sequence[float], n_fitting: int = 60, **options) -> None:
    """Write names along an axis, rotated on the horizontal axis if they would overlap."""
    axis.set_ticks(places, names, parse_math=False, **options)
    axis.set_tick_params(rotation=90 if axis.axis_name == "x" and _rotated(names, n_fitting) else 0)


def _figure_of_classes(names: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure with room for a bar of each class, and for their names below."""
    height = 3.8 + _rotated(names) / PER_INCH
    figure = Figure(figsize=(8 * max(1, len(names) / 10), height), layout="constrained")
    return figure, figure.subplots()


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix (K, K), true classes in rows: counts, and shares of each row.

    Beyond `N_SHOWN` classes, those with the most errors are shown and all others are merged.
    """
    accuracy, names, kind = np.trace(matrix) / max(matrix.sum(), 1), class_names(classes), ""
    if len(classes) > N_SHOWN:
        errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
        shown = commonest(errors, N_SHOWN - 1)
        group = np.full(len(classes), len(shown))
        group[shown] = range(len(shown))
        rows = np.array([matrix[group == i].sum(axis=0) for i in range(N_SHOWN)])
        matrix = np.array([rows[:, group == i].sum(axis=1) for i in range(N_SHOWN)]).T
        kind, names = _of_all(len(shown), len(classes), "most confused"), [*(names[i] for i in shown), "all others"]
    scale, is_stacked = max(1, len(names) / 10), IS_ON_PAPER and len(names) > 7
    size = (11, 15.3) if is_stacked else (11 * scale, (5.7 if IS_ON_PAPER else 4.6) * scale)
    figure = Figure(figsize=size, layout="constrained")
    support = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)
    n_right, of_class = f"{matrix.sum():,} test images (accuracy {accuracy:.3f})", "share of the true class"
    if IS_ON_PAPER:
        n_right, of_class = f"n = {matrix.sum():,}, accuracy {accuracy:.3f}", "share of class"
    panels = (matrix, "d", f"{title}: {n_right}{kind}"), (shares, ".2f", f"{title}: {of_class}{kind}")
    for axis, (values, form, heading) in zip(figure.subplots(*((2, 1) if is_stacked else (1, 2))), panels):
        # Both panels are coloured by share, or the large classes would hide the others.
        look = {"cmap": "Blues", "vmin": 0, "vmax": 1, "cbar": False, "square": True}
        sns.heatmap(shares, ax=axis, annot=values, fmt=form, annot_kws={"size": 10 if scale == 1 else 8}, **look)
        for side in (axis.xaxis, axis.yaxis):
            _name_axis(side, names, np.arange(len(names)) + 0.5, 30 if IS_ON_PAPER else 60, fontsize=9)
        axis.set(title=heading, xlabel="predicted", ylabel="true")
    return figure


def class_distribution(counts: pd.DataFrame, title: str) -> Figure:
    """Images per class and part on a logarithmic axis; the commonest classes beyond `N_SHOWN`.

    Parameters
    ----------
    counts : classes in rows, parts in columns.
    """
    names, shown = class_names(counts.index), commonest(counts.sum(axis=1), N_SHOWN)
    title = f"{title} (n = {counts.to_numpy().sum():,}){_of_all(len(shown), len(counts))}"
    names, counts = [names[i] for i in shown], counts.iloc[shown]
    figure, axis = _figure_of_classes(names)
    width = 0.8 / len(counts.columns)
    for i, (part, colour) in enumerate(zip(counts.columns, (BLUE, ORANGE, GREEN))):
        bars = axis.bar(np.arange(len(counts)) + (i - 1) * width, counts[part], width, color=colour, label=part)
        axis.bar_label(bars, fmt="{:,.0f}", fontsize=8, padding=2, rotation=90)
    axis.set_yscale("symlog", linthresh=10)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.set_ylim(0, counts.to_numpy().max() * 5 + 10)
    _name_axis(axis.xaxis, names, range(len(shown)))
    _finish(axis, title=title, ylabel="images (logarithmic)")
    _legend(axis, **BESIDE)
    return figure


def mask_rows(
    images: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray,
    titles: Sequence[str],
    heading: str,
    shapes: Sequence[float] | None = None,
) -> Figure:
    """Rows of image | true mask | predicted mask | both contours on the image.

    Parameters
    ----------
    images : (N, H, W, 3) uint8.
    true, predicted : (N, H, W) bool.
    shapes : height per width at which each image and its masks are drawn; None for H / W.
    """
    shapes = _shapes_of(images, shapes)
    heights = [2.1 * min(shape, MAX_SHAPE) for shape in shapes]
    figure = Figure(figsize=(8.4, sum(heights) + 0.08 * len(images) + 0.5), layout="constrained")
    figure.suptitle(heading, fontsize=11)
    axes = figure.subplots(len(images), 4, squeeze=False, height_ratios=heights)
    for row, image, truth, prediction, title, shape, height in zip(
        axes, images, true, predicted, titles, shapes, heights
    ):
        row[0].imshow(image)
        row[1].imshow(truth, cmap="gray", vmin=0, vmax=1)
        row[2].imshow(prediction, cmap="gray", vmin=0, vmax=1)
        _draw_contours(row[3], image, truth, prediction)
        row[0].set_ylabel(_as_text(title, int(height * PER_INCH)), fontsize=8, parse_math=False)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            _set_shape(axis, image, shape)
    for axis, name in zip(axes[0], ("image", "true mask", "predicted mask", "true (green), predicted (orange)")):
        axis.set_title(name, fontsize=8)
    return figure


def ranking_curves(true: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], title: str) -> Figure | None:
    """ROC and precision-recall curves of each class against the rest; None without two classes with images.

    Classes without test images are left out; of more than `N_CURVES` classes the commonest are shown.
    """
    names, counts = class_names(classes), np.bincount(true, minlength=len(classes))
    shown, title = commonest(counts, N_CURVES), f"{title} (n = {len(true):,})"
    if not any(0 < n < len(true) for n in counts):
        return None
    figure = Figure(figsize=(10.5, 6.2) if IS_ON_PAPER else (13, 4.6), layout="constrained")
    roc, pr = figure.subplots(1, 2)
    for i, k in enumerate(shown):
        positive, score = true == k, probabilities[:, k]
        if 0 < counts[k] < len(true):
            style = {"color": CLASS_COLOURS[i % len(CLASS_COLOURS)], "lw": 1.6}
            style["ls"] = "-" if i < 4 else "--" if i < 7 else ":" if i < 11 else "-."  # no two alike in both
            fpr, tpr, _ = metrics.roc_curve(positive, score)
            roc.plot(*thinned(fpr, tpr), label=f"{names[k]} {metrics.roc_auc_score(positive, score):.3f}", **style)
            precision, recall, _ = metrics.precision_recall_curve(positive, score)
            average = metrics.average_precision_score(positive, score)
            precision[-1] = precision[-2]  # scikit-learn's last point, (0, 1), is a convention, not a measurement
            pr.step(*thinned(recall, precision), where="post", label=f"{names[k]} {average:.3f}", **style)
    roc.plot([0, 1], [0, 1], color=GRAY, lw=0.8, ls=":")
    some = _of_all(len(shown), len(classes))
    _finish(roc, title=f"{title}: ROC, area{some}", xlabel="1 - specificity", ylabel="sensitivity")
    _finish(pr, title=f"{title}: precision-recall, average precision{some}", xlabel="recall", ylabel="precision")
    below = {"loc": "upper center", "anchor": (0.5, -0.18), "ncols": 2, "handlelength": 1.2, "columnspacing": 1}
    for axis in (roc, pr):
        _legend(axis, **(below if IS_ON_PAPER else BESIDE))
    return figure


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of a curve (N,) over [0, 1] that show; all of them if they are few.

    Of the points that follow each other within `SAME_PLACE` along x, these are the first, last, lowest and highest one:
    the curve through them covers the same heights, and is never further away than that (M4, Jugel et al. 2014).
    """
    if len(x) <= 4 / SAME_PLACE:
        return x, y
    starts = np.flatnonzero(np.diff(np.floor(x / SAME_PLACE), prepend=np.nan))
    ends = np.append(starts[1:], len(x))
    by_height = np.lexsort((y, np.repeat(np.arange(len(starts)), ends - starts)))  # within each place
    kept = np.unique(np.concatenate([starts, ends - 1, by_height[starts], by_height[ends - 1]]))
    return x[kept], y[kept]


def reliability(true: np.ndarray, before: np.ndarray, after: np.ndarray, n_bins: int, title: str) -> Figure:
    """Accuracy by confidence of the top-1 class, before and after temperature scaling, with the number of images.

    Parameters
    ----------
    before, after : probabilities (N, K).
    """
    figure = Figure(figsize=(6, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    edges = np.linspace(0, 1, n_bins + 1)
    upper.plot([0, 1], [0, 1], color=GRAY, lw=0.8, ls=":", label="perfect")
    for name, values, colour, marker in (("before scaling", before, ORANGE, "o"), ("after scaling", after, BLUE, "s")):
        confidence, right = values.max(axis=1), (values.argmax(axis=1) == true).astype(float)
        n, _ = np.histogram(confidence, edges)
        hits, _ = np.histogram(confidence, edges, weights=right)
        mean, _ = np.histogram(confidence, edges, weights=confidence)
        some = n > 0
        upper.plot(mean[some] / n[some], hits[some] / n[some], color=colour, marker=marker, label=name)
        lower.stairs(n, edges, color=colour, label=name)
    _finish(upper, title=f"{title} (n = {len(true):,}): reliability", ylabel="accuracy")
    _finish(lower, xlabel="confidence", ylabel="images")
    lower.get_legend().remove()
    return figure


def risk_coverage(coverage: np.ndarray, risk: np.ndarray, title: str) -> Figure:
    """Error rate among the images kept, as the least confident are referred to a human."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(*thinned(coverage, risk), color=BLUE, label=f"all images: {risk[-1]:.3f}")
    _finish(
        axis,
        title=f"{title} (n = {len(risk):,}): errors by coverage",
        xlabel="share of images kept, most confident first",
        ylabel="error rate",
    )
    axis.set_ylim(0, None)
    return figure


def net_benefit(
    percents: Sequence[int], curves: dict[str, Sequence[float]], band: Sequence[Sequence[float]], title: str
) -> Figure:
    """Net benefit per image of treating by the ``"model"`` and of treating ``"all"``, by threshold in per cent.

    Parameters
    ----------
    band : the lower and upper end of the model's interval at each threshold.
    """
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.fill_between(percents, *zip(*band), color=BLUE, alpha=0.2, lw=0)
    axis.plot(percents, curves["model"], color=BLUE, label="model")
    axis.plot(percents, curves["all"], color=ORANGE, label="treat all")
    axis.axhline(0, color="black", lw=1, label="treat none")
    names = {"xlabel": "threshold probability of malignancy, in %", "ylabel": "net benefit"}
    _finish(axis, title=f"{title}: net benefit", **names)
    highest = max(max(high for _, high in band), max(curves["all"]))
    axis.set_ylim(-0.3 * highest if highest > 0 else None, 1.1 * highest if highest > 0 else None)
    return figure


def dice_by_class(dice: dict[str, np.ndarray], title: str) -> Figure:
    """Distribution of Dice for the `N_SHOWN` commonest diagnoses: one dot per image, boxes for quartiles.

    Of more than `N_DOTS` images the width of a shape shows how many there are, and only the `N_LOWEST` are dots.
    """
    known = [(name, values) for name, values in zip(class_names(list(dice)), dice.values()) if len(values)]
    shown = [known[i] for i in commonest([len(values) for _, values in known], N_SHOWN)]
    title = f"{title}: Dice by diagnosis{_of_all(len(shown), len(known))}"
    names = [f"{name}\nn = {len(values)}" for name, values in shown]
    figure, axis = _figure_of_classes(names)
    axis.boxplot([values for _, values in shown], showfliers=False, widths=0.55, medianprops={"color": ORANGE, "lw": 2})
    rng = np.random.default_rng(0)  # spreads the dots
    for i, (_, values) in enumerate(shown, start=1):
        if len(values) > N_DOTS:
            counts, edges = np.histogram(values, 100, (0, 1))
            width = np.append(counts, 0) / counts.max() * 0.4
            axis.fill_betweenx(edges, i - width, i + width, step="post", color=BLUE, alpha=0.35, lw=0)
            values = np.sort(values)[:N_LOWEST]
        axis.plot(i + rng.uniform(-0.2, 0.2, len(values)), values, ".", color=BLUE, ms=3, alpha=0.35)
    _name_axis(axis.xaxis, names, range(1, len(shown) + 1))
    axis.set(title=title, ylabel="Dice", ylim=(-0.02, 1.02))
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def gallery(images: np.ndarray, titles: Sequence[str], heading: str, shapes: Sequence[float] | None = None) -> Figure:
    """Images (N, H, W, 3) with titles, four per row, each drawn with its height per width in `shapes` (None: H / W)."""
    shapes = _shapes_of(images, shapes)
    rows = [shapes[start : start + 4] for start in range(0, len(shapes), 4)]
    heights = [2.25 * min(max(row), MAX_SHAPE) + 0.5 for row in rows]
    figure = Figure(figsize=(9, sum(heights) + 0.4), layout="constrained")
    figure.suptitle(heading, fontsize=11)
    axes = figure.subplots(len(rows), 4, squeeze=False, height_ratios=heights).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, title, shape in zip(axes, images, titles, shapes):
        axis.imshow(image)
        axis.set_title(_as_text(title, int(2.25 * PER_INCH)), fontsize=8, parse_math=False)
        _set_shape(axis, image, shape)
    return figure


def _shapes_of(images: np.ndarray, shapes: Sequence[float] | None) -> Sequence[float]:
    return [image.shape[0] / image.shape[1] for image in images] if shapes is None else shapes


def _set_shape(axis: Axes, image: np.ndarray, shape: float) -> None:
    """Draw the image's pixels (H, W) so that its height is `shape` times its width."""
    axis.set_aspect(shape * image.shape[1] / image.shape[0])


def heat_maps(
    images: np.ndarray,
    true: np.ndarray,
    heat: np.ndarray,
    titles: Sequence[str],
    heading: str,
    shapes: Sequence[float] | None = None,
) -> Figure:
    """Heat maps (N, H, W) in [0, 1] over images (N, H, W, 3), with the true masks' contours; `shapes` as `gallery`."""
    figure = gallery(images, titles, heading, shapes)
    for axis, mask, values in zip(figure.axes, true, heat):
        axis.imshow(values, cmap="inferno", alpha=0.5, vmin=0, vmax=1, aspect=axis.get_aspect())
        if mask.any() and not mask.all():
            axis.contour(mask, levels=[0.5], colors="white", linewidths=1.2)
    return figure


def differences(groups: Sequence[tuple[Sequence[str], dict[str, Sequence]]], heading: str) -> Figure:
    """Differences with intervals, one panel per score; grey where the interval includes 0.

    Parameters
    ----------
    groups : each a row of panels: the names of the R models, and by score their (R, 3) difference, low and high, NaN
        for what is not defined.
    """
    n_columns = max(len(scores) for _, scores in groups)
    lines = [len(names) * max(len(name.splitlines()) for name in names) for names, _ in groups]
    heights = [0.22 * n + 0.6 for n in lines]
    figure = Figure(figsize=(2.4 * n_columns + 2, sum(heights) + 0.5 * len(groups)), layout="constrained")
    figure.suptitle(_as_text(heading), fontsize=11, parse_math=False)
    grid = figure.subplots(len(groups), n_columns, sharey="row", squeeze=False, height_ratios=heights)
    for axes, (names, scores) in zip(grid, groups):
        for axis, (title, values) in zip(axes, scores.items()):
            for y, (difference, low, high) in enumerate(values):
                colour = BLUE if low > 0 or high < 0 else GRAY
                axis.plot([low, high], [y, y], color=colour, lw=2)
                axis.plot(difference, y, "o", color=colour, ms=5)
            axis.axvline(0, color="black", lw=0.8, ls=":")
            if np.ptp(axis.get_xlim()) < 1e-9:  # all differences are 0, except for rounding
                axis.set_xlim(-0.1, 0.1)
            axis.set_title(title.replace(", ", "\n"), fontsize=9)
            axis.locator_params(axis="x", nbins=4)
            axis.tick_params(axis="x", labelsize=8)
            axis.grid(axis="x", alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_yticks(range(len(names)), [_as_text(name) for name in names], fontsize=8, parse_math=False)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        for axis in axes[len(scores) :]:
            axis.set_axis_off()
    return figure


def _as_text(title: str, length: int = MAX_LINE) -> str:
    """A title that may contain any file name: lines of printable characters, of at most this length.

    For `parse_math=False`, or matplotlib would read what stands between two dollars as mathematics.
    """
    lines = ["".join(c if c.isprintable() else "?" for c in line) for line in title.splitlines()]
    return "\n".join(_shortened(line, length) for line in lines)


def _shortened(line: str, length: int) -> str:
    """The line, without its middle if it is too long."""
    half = length // 2
    return line if len(line) <= length else f"{line[:half]}…{line[half + 1 - length :]}"


def _draw_contours(axis: Axes, image: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> None:
    """Draw the masks' contours on the image; the prediction is dashed."""
    axis.imshow(image)
    for mask, colour, style in ((true, TRUE_COLOUR, "solid"), (predicted, PREDICTED_COLOUR, "dashed")):
        if mask.any() and not mask.all():
            axis.contour(mask, levels=[0.5], colors="black", linewidths=2.6, linestyles=style)
            axis.contour(mask, levels=[0.5], colors=colour, linewidths=1.6, linestyles=style)


def heat_colours(heat: np.ndarray) -> Image.Image:
    """A heat map (H, W) in [0, 1] as an image, dark to bright."""
    return Image.fromarray(colormaps["inferno"](heat, bytes=True)[..., :3])


def _finish(axis: Axes, **labels: str) -> None:
    axis.set(**labels)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    _legend(axis)


def _legend(axis: Axes, anchor: tuple[float, float] | None = None, **where) -> None:
    for text in axis.legend(frameon=False, fontsize=8, bbox_to_anchor=anchor, **where).get_texts():
        text.set_parse_math(False)  # it may be the name of a class
