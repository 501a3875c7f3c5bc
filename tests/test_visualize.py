import io
import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image
from sklearn import metrics

import visualize
from report.paperfigures import printed


def opened(figure, note=""):
    return Image.open(io.BytesIO(visualize.png(figure, note)))


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.fixture
def history():
    return pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train_loss": [0.9, 0.5, 0.3],
            "val_loss": [0.8, 0.6, 0.7],
            "val_label_loss": [0.4, 0.3, 0.3],
            "val_label_accuracy": [0.5, 0.7, 0.7],
            "val_mask_dice": [0.7, 0.8, 0.9],
            "val_mask_iou": [0.6, 0.7, 0.8],
        }
    )


def test_training_curves_show_both_losses_and_each_heads_scores(history):
    figure = visualize.training_curves(history, "multitask")
    loss, label, mask = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), history["train_loss"])
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), history["val_loss"])
    assert "saved: epoch 2" in texts(loss)
    np.testing.assert_array_equal(label.lines[0].get_ydata(), history["val_label_accuracy"])
    assert {"dice", "iou"} <= {text.get_text() for text in mask.get_legend().get_texts()}


def test_one_epoch_can_be_drawn(history):
    assert opened(visualize.training_curves(history[:1], "a")).width > 300


def test_the_confusion_matrix_shows_counts_and_row_shares():
    figure = visualize.confusion(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), ["MEL", "NV", "DF"], "classification")
    counts, shares = figure.axes
    assert [text.get_text() for text in counts.texts][:3] == ["3", "1", "0"]
    assert [text.get_text() for text in shares.texts][:3] == ["0.75", "0.25", "0.00"]
    assert "0.833" in counts.get_title()


def test_the_class_distribution_labels_every_bar():
    counts = pd.DataFrame({"train": [7, 70], "val": [1, 15], "test": [2, 15]}, index=["MEL", "NV"])
    figure = visualize.class_distribution(counts, "Images")
    assert {"7", "70", "1", "15", "2"} <= set(texts(figure).split())
    assert "100" not in [text.get_text() for text in figure.axes[0].texts]


def test_mask_rows_show_four_pictures_an_image():
    images = np.zeros((3, 16, 16, 3), np.uint8)
    true = np.zeros((3, 16, 16), bool)
    true[0, 4:9, 4:9] = True
    predicted = np.ones_like(true)
    figure = visualize.mask_rows(images, true, predicted, ["a", "b", "c"], "masks")
    assert len(figure.axes) == 12
    assert opened(figure).size[0] > 600


def drawn_shape(figure, axis):
    """Height per width of an axis on paper."""
    figure.draw_without_rendering()
    box = axis.get_position()
    return box.height * figure.get_figheight() / (box.width * figure.get_figwidth())


def test_images_are_drawn_in_the_shape_of_the_photograph():
    """The network's input is square; the photographs are 600 x 450, upright 450 x 600, and a tall 1 : 3."""
    images, mask, shapes = np.zeros((3, 16, 16, 3), np.uint8), np.zeros((3, 16, 16), bool), [0.75, 4 / 3, 3.0]
    mask[:, 4:9, 4:9] = True
    titles = ["a", "b", "c"]
    for figure in (
        visualize.gallery(images, titles, "x", shapes),
        visualize.heat_maps(images, mask, mask * 0.5, titles, "x", shapes),
    ):
        assert [drawn_shape(figure, axis) for axis in figure.axes[:3]] == pytest.approx(shapes, rel=1e-3)
    figure = visualize.mask_rows(images, mask, mask, titles, "x", shapes)
    for row, shape in enumerate(shapes):
        drawn = [drawn_shape(figure, axis) for axis in figure.axes[4 * row : 4 * row + 4]]
        assert drawn == pytest.approx([shape] * 4, rel=1e-3)
    plain = visualize.gallery(np.zeros((1, 8, 16, 3), np.uint8), ["a"], "x")
    assert drawn_shape(plain, plain.axes[0]) == pytest.approx(0.5, rel=1e-3)


def test_a_note_stands_in_the_picture(history):
    figure = visualize.training_curves(history, "a")
    visualize.png(figure, "synthetic demo data")
    assert "synthetic demo data" in texts(figure)


def binary(n=60, seed=3):
    """True classes and probabilities of three classes, the third without images."""
    rng = np.random.default_rng(seed)
    return rng.integers(2, size=n), rng.dirichlet(np.ones(3), size=n)


def test_the_ranking_curves_are_scikit_learns_and_leave_out_an_absent_class():
    true, probabilities = binary()
    roc, precision_recall = visualize.ranking_curves(true, probabilities, ["MEL", "NV", "DF"], "a").axes
    fpr, tpr, _ = metrics.roc_curve(true == 0, probabilities[:, 0])
    np.testing.assert_allclose(roc.lines[0].get_xydata(), np.stack([fpr, tpr], axis=1))
    precision, recall, _ = metrics.precision_recall_curve(true == 1, probabilities[:, 1])
    line = precision_recall.lines[1]
    np.testing.assert_allclose(line.get_xydata()[:-1], np.stack([recall, precision], axis=1)[:-1])
    for k, line in enumerate(precision_recall.lines):  # the first step of one class is at a recall above 0
        x, y = line.get_xydata().T
        area = -np.sum(np.diff(x) * y[:-1])  # under the steps
        assert x[-1] == 0 and y[-1] == y[-2]
        assert area == pytest.approx(metrics.average_precision_score(true == k, probabilities[:, k]))
    assert line.get_drawstyle() == "steps-post"
    assert f"NV {metrics.roc_auc_score(true == 1, probabilities[:, 1]):.3f}" in texts(roc)
    assert "DF" not in texts(roc) + texts(precision_recall)


def test_the_reliability_diagram_shows_mean_confidence_against_the_share_that_is_right():
    """Two bins: three images at 0.55, 0.65 and 0.75, of which one is right; one image at 0.95, right."""
    confidence = np.array([0.55, 0.65, 0.75, 0.95])
    probabilities, true = np.stack([confidence, 1 - confidence], axis=1), np.array([1, 1, 0, 0])
    upper, lower = visualize.reliability(true, probabilities, probabilities, 5, "a").axes
    (line,) = [line for line in upper.lines if line.get_label() == "after scaling"]
    np.testing.assert_allclose(line.get_xydata(), [[0.55, 0], [0.70, 0.5], [0.95, 1]])
    np.testing.assert_array_equal(lower.patches[0].get_data().values, [0, 0, 1, 2, 1])


def test_the_risk_figure_shows_the_curve_it_is_given_and_names_its_end():
    (axis,) = visualize.risk_coverage(np.array([0.5, 1.0]), np.array([0.0, 0.25]), "a").axes
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[0.5, 0], [1, 0.25]])
    assert "all images: 0.250" in texts(axis)


def test_the_dice_figure_shows_every_image_and_the_median_of_each_diagnosis():
    dice = {"MEL": np.array([0.2, 0.6, 0.9]), "NV": np.array([]), "DF": np.array([0.5])}
    (axis,) = visualize.dice_by_class(dice, "a").axes
    dots = [sorted(line.get_ydata()) for line in axis.lines if line.get_marker() == "."]
    assert dots == [[0.2, 0.6, 0.9], [0.5]]
    medians = [line.get_ydata()[0] for line in axis.lines if line.get_color() == visualize.ORANGE]
    assert medians == [0.6, 0.5] and "n = 3" in texts(axis) and "NV" not in texts(axis)


def test_of_many_images_the_dice_figure_shows_a_shape_of_their_number_and_the_lowest():
    values = np.random.default_rng(0).beta(9, 2, visualize.N_DOTS + 1)
    (axis,) = visualize.dice_by_class({"MEL": values, "NV": values[1:]}, "a").axes
    few, many = sorted((line.get_ydata() for line in axis.lines if line.get_marker() == "."), key=len)
    np.testing.assert_array_equal(few, np.sort(values)[: visualize.N_LOWEST])
    assert len(many) == visualize.N_DOTS
    (shape,) = [shape for shape in axis.collections if len(shape.get_paths())]
    outline = shape.get_paths()[0].vertices
    counts, edges = np.histogram(values, 100, (0, 1))
    for count, low in zip(counts, edges):
        some = outline[np.isclose(outline[:, 1], low + 0) | np.isclose(outline[:, 1], low + 0.01)]
        widest = np.isclose(np.abs(some[:, 0] - 1), 0.4 * count / counts.max(), atol=1e-6)
        assert widest.any(), low


@pytest.mark.parametrize("kind", ["rising", "falling", "jagged", "jump"])
def test_a_thinned_curve_is_nowhere_further_from_the_whole_one_than_shows(kind):
    """Heights between the points of one place are those of the whole curve, to which no more was added."""
    rng, n = np.random.default_rng(0), 60_000
    x = np.sort(rng.random(n)) if kind != "falling" else np.sort(rng.random(n))[::-1]
    if kind == "jump":  # as a ROC curve: half of the height within a thousandth of the width
        x = np.concatenate([x[: n // 2] / 1000, x[n // 2 :]])
    jagged = np.select([np.arange(n) % 501 == 7, np.arange(n) % 499 == 9], [1.0, 0.0], 0.5)
    heights = {"jagged": jagged, "falling": np.sqrt(x)}
    y = heights.get(kind, np.linspace(0, 1, n))
    few = visualize.thinned(x, y)
    assert len(few[0]) < 4.1 / visualize.SAME_PLACE and (few[0][[0, -1]] == x[[0, -1]]).all()
    assert {*zip(*few)} <= {*zip(x, y)}
    for place in np.unique(np.floor(x / visualize.SAME_PLACE)):
        whole, kept = (heights[np.floor(places / visualize.SAME_PLACE) == place] for places, heights in ((x, y), few))
        assert kept.min() == whole.min() and kept.max() == whole.max()
        assert kept[0] == whole[0] and kept[-1] == whole[-1]


def test_a_curve_of_few_points_is_drawn_as_it_is():
    x = np.linspace(0, 1, 1500)
    assert all((a == b).all() for a, b in zip(visualize.thinned(x, x**2), (x, x**2)))


def test_differences_that_are_0_except_for_rounding_have_an_axis_of_their_own_scale():
    (axis,) = visualize.differences([(["a"], {"Sensitivity": [[-4e-17, np.nan, np.nan]]})], "less x").axes
    assert axis.get_xlim() == (-0.1, 0.1)


def test_differences_are_dots_on_their_intervals_grey_where_these_hold_0():
    values = {"Accuracy": [[0.1, 0.05, 0.2], [0.1, -0.05, 0.2], [np.nan] * 3], "NLL, less": [[-0.1, -0.2, 0.0]] * 3}
    groups = [(["a", "b", "c"], values), (["d"], {"Dice": [[0.1, 0.1, 0.2]]})]
    accuracy, nll, dice, empty = visualize.differences(groups, "less x").axes
    dots = [line for line in accuracy.lines if line.get_marker() == "o"]
    assert [line.get_color() for line in dots] == [visualize.BLUE, visualize.GRAY, visualize.GRAY]
    np.testing.assert_array_equal([line.get_xydata()[0] for line in dots], [[0.1, 0], [0.1, 1], [np.nan, 2]])
    np.testing.assert_array_equal(accuracy.lines[0].get_xdata(), [0.05, 0.2])
    assert {line.get_color() for line in nll.lines if line.get_marker() == "o"} == {visualize.GRAY}
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["a", "b", "c"] and accuracy.yaxis_inverted()
    assert "Dice" in texts(dice) and not empty.axison


ODD_NAMES = [
    "$x^2$",
    "$\\frac{$",
    "back\\slash",
    "two\nlines\r\nmore",
    "\U0001f9ec",
    "long" * 1000,
    "\udcff",
    "\x00\x07",
    "",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_folders_name_is_drawn_as_text(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = visualize.differences([([f"{name}\nmultitask"], {"Dice": [[0.1, 0.0, 0.2]]})], f"from\n{name}")
        assert opened(figure).width < 2000
    assert "multitask" in texts(figure)


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("draw", ["mask_rows", "gallery", "heat_maps"])
def test_any_files_name_is_drawn_as_text(draw, name):
    images, mask = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), bool)
    arguments = {"mask_rows": (images, mask, mask), "gallery": (images,), "heat_maps": (images, mask, mask * 1.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = getattr(visualize, draw)(*arguments[draw], [f"{name}\nis MEL, called NV"], "a heading")
        assert opened(figure).width < 2000
    assert "is MEL, called NV" in texts(figure)
    if name.isprintable() and len(name) < 40:
        assert name in texts(figure)


def test_a_long_name_keeps_both_its_ends():
    figure = visualize.gallery(np.zeros((1, 8, 8, 3), np.uint8), ["ISIC_" + "0" * 90 + "34_b.jpg"], "")
    (title,) = [word for word in texts(figure).split() if word.startswith("ISIC_")]
    assert title.endswith("34_b.jpg") and len(title) == 31  # of 8 points in 2.25 inches


def test_names_of_classes_are_no_mathematics():
    classes, odd = ["$x^2$", "$_{$", "a"], np.array([[3, 1, 0], [0, 2, 0], [0, 0, 1]])
    true, probabilities = binary()
    counts = pd.DataFrame({"train": [7, 7, 7], "val": [1, 1, 1], "test": [2, 1, 2]}, index=classes)
    for figure in (
        visualize.confusion(odd, classes, "a"),
        visualize.class_distribution(counts, "Images"),
        visualize.ranking_curves(true, probabilities, classes, "a"),
        visualize.dice_by_class(dict.fromkeys(classes, np.array([0.2, 0.6])), "a"),
    ):
        opened(figure)
        assert "$_{$" in texts(figure)


# Any number of classes, whatever they are called


def of_classes(names, n=300):
    """The figures that show classes, each named, of random predictions in which the first classes are the commonest."""
    rng, k = np.random.default_rng(0), len(names)
    true = np.minimum(rng.geometric(0.15, n) - 1, k - 1)
    probabilities = rng.dirichlet(np.ones(k), n)
    matrix = metrics.confusion_matrix(true, probabilities.argmax(axis=1), labels=range(k))
    counts = pd.DataFrame({part: np.bincount(true, minlength=k) for part in ("train", "val", "test")}, index=names)
    dice = {name: rng.uniform(size=(true == i).sum()) for i, name in enumerate(names)}
    return {
        "confusion": visualize.confusion(matrix, names, "a"),
        "distribution": visualize.class_distribution(counts, "a"),
        "curves": visualize.ranking_curves(true, probabilities, names, "a"),
        "dice": visualize.dice_by_class(dice, "a"),
    }


def overlapping(figure, axis):
    """Whether two neighbouring names along an axis overlap when they are drawn."""
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axis.get_ticklabels() if label.get_text()]
    return any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("n_classes", [2, 7, 25, 200, 1000])
@pytest.mark.parametrize("name", ["c{}", "Squamous cell carcinoma of the {}th kind, in situ", "黑色素瘤{}"])
def test_names_of_any_number_of_classes_can_be_read_apart(n_classes, name):
    for figure in of_classes([name.format(i) for i in range(n_classes)]).values():
        assert max(figure.get_size_inches()) <= 30
        for axis in figure.axes:
            assert not overlapping(figure, axis.xaxis) and not overlapping(figure, axis.yaxis)


LONG_NAME = "Squamous cell carcinoma of the {}th kind, in situ"


def text_boxes(figure):
    """Left, bottom, right and top in pixels of every text that is drawn, (N, 4), and the texts."""
    figure.draw_without_rendering()
    hidden = {label for axis in figure.axes for side in (axis.xaxis, axis.yaxis) for label in hidden_by(axis, side)}
    drawn = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in hidden]
    return np.array([text.get_window_extent().extents for text in drawn]), [text.get_text() for text in drawn]


def hidden_by(axis, side):
    """Labels of ticks that matplotlib keeps and does not draw: beyond an axis, or where it is off."""
    low, high = sorted(side.get_view_interval())
    ticks = [*side.get_major_ticks(), *side.get_minor_ticks()]
    hidden = [tick for tick in ticks if not axis.axison or not low <= tick.get_loc() <= high]
    return [label for tick in hidden for label in (tick.label1, tick.label2)]


def overlaps(figure):
    """Pairs of texts of which one covers more than a pixel of the other."""
    boxes, names = text_boxes(figure)
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    shared = np.minimum(high, high.swapaxes(0, 1)) - np.maximum(low, low.swapaxes(0, 1))
    return [(names[i], names[j]) for i, j in np.argwhere((shared > 1).all(axis=2)) if i < j]


def cut(figure):
    """Texts that do not lie within the figure."""
    boxes, names = text_boxes(figure)
    width, height = figure.bbox.size
    return [name for name, box in zip(names, boxes) if min(box) < -1 or box[2] > width + 1 or box[3] > height + 1]


def of_images(names):
    """The figures that show images, each with a long name, and classes of these names."""
    images, mask = np.zeros((5, 8, 8, 3), np.uint8), np.zeros((5, 8, 8), bool)
    titles = [f"{'0123456789' * 4}\ntrue {name}\npredicted {name} (0.98)" for name in names[:5]]
    return {
        "gallery": visualize.gallery(images, titles, "a", [0.75] * 5),
        "heat_maps": visualize.heat_maps(images, mask, mask * 0.5, titles, "a", [1.5] * 5),
        "mask_rows": visualize.mask_rows(images, mask, mask, titles, "a", [0.75] * 5),
    }


@pytest.mark.parametrize(("n_classes", "name"), [(7, "c{}"), (25, LONG_NAME)])
def test_no_text_lies_over_another_or_beyond_the_figure(n_classes, name):
    names = [name.format(i) for i in range(n_classes)]
    for kind, figure in (of_classes(names, 5_000) | of_images(names)).items():
        assert overlaps(figure) == [], kind
        assert cut(figure) == [], kind


@pytest.mark.parametrize(("n_classes", "name"), [(7, "c{}"), (25, LONG_NAME)])
def test_no_text_lies_over_another_or_beyond_the_figure_in_print(n_classes, name):
    with visualize.on_paper():
        for kind, figure in of_classes([name.format(i) for i in range(n_classes)], 5_000).items():
            printed(figure, "drawn by a program")
            assert overlaps(figure) == [], kind
            assert cut(figure) == [], kind


def test_long_names_that_differ_in_the_middle_alone_stay_apart():
    names = visualize.class_names([LONG_NAME.format(i) for i in range(25)])
    assert len(set(names)) == 25 and max(map(len, names)) <= visualize.MAX_NAME
    assert names[2].startswith("3: Squam") and names[2].endswith("in situ")
    assert visualize.class_names(["NV", LONG_NAME])[0] == "NV"


def test_a_name_that_no_font_can_draw_is_its_number_and_a_long_one_keeps_its_ends(monkeypatch):
    visualize._has_font.cache_clear()
    monkeypatch.setitem(visualize.rcParams, "font.family", ["DejaVu Sans"])
    names = visualize.class_names(["NV", "Меланома", "黑色素瘤", "a" * 30 + "z"])
    assert names == ["NV", "Меланома", "class 3", "a" * 11 + "…" + "a" * 9 + "z"]
    visualize._has_font.cache_clear()


def test_no_two_curves_of_a_figure_look_alike():
    for axis in of_classes([f"c{i}" for i in range(200)])["curves"].axes:
        styles = [(line.get_color(), line.get_linestyle()) for line in axis.lines if " " in line.get_label()]
        assert len(styles) == len(set(styles)) == visualize.N_CURVES
        assert "the 14 commonest of 200 classes" in axis.get_title()


def test_of_many_classes_the_most_confused_are_shown_and_the_others_as_one():
    """30 classes of ten images: class 3 is always taken for 20, all others are right."""
    matrix = np.diag(np.full(30, 10))
    matrix[3, 3], matrix[3, 20] = 0, 10
    counts, shares = visualize.confusion(matrix, [f"c{i}" for i in range(30)], "a").axes
    names = [label.get_text() for label in counts.get_xticklabels()]
    assert len(names) == 20 and {"c3", "c20"} <= set(names) and names[-1] == "all others"
    cells = np.array([text.get_text() for text in counts.texts]).astype(int).reshape(20, 20)
    assert cells.sum() == 300 and cells[-1, -1] == 10 * (30 - 19)
    assert cells[names.index("c3"), names.index("c20")] == 10
    assert shares.texts[-1].get_text() == "1.00" and "(accuracy 0.967)" in counts.get_title()


def test_rows_of_the_others_are_true_classes():
    """31 classes: those beyond the shown are predicted as the first one, which is never taken for them."""
    matrix = np.diag(np.full(31, 100))
    matrix[1:19, 0] += 50
    matrix[19:, 0] += 1
    counts, _ = visualize.confusion(matrix, [f"c{i}" for i in range(31)], "a").axes
    cells = np.array([text.get_text() for text in counts.texts]).astype(int).reshape(20, 20)
    assert cells[-1, 0] == 12 and cells[0, -1] == 0


@pytest.mark.parametrize("true", [[0, 0, 0], [1, 1, 1]])
def test_a_set_of_one_class_has_no_ranking_curves(true):
    assert visualize.ranking_curves(np.array(true), np.full((3, 2), 0.5), ["a", "b"], "a") is None


def test_the_commonest_stand_in_their_own_order():
    assert visualize.commonest([1, 5, 3, 5, 0], 3) == [1, 2, 3] and visualize.commonest([2, 1], 5) == [0, 1]


def test_diagnoses_whose_names_are_shortened_alike_are_both_drawn():
    names = [f"{'a' * 15}{middle}{'b' * 15}" for middle in "12"]
    assert (
        "n = 2" in (shown := texts(visualize.dice_by_class(dict(zip(names, ([0.1, 0.2], [0.3]))), "a")))
        and "n = 1" in shown
    )
