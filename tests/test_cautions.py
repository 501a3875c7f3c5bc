"""What shows that a classifier is of little use is said, and nothing is said of one that is of use."""

import json

import pytest
from conftest import edit

from dataset.csvfile import read_back
from report import page
from report.cautions import grouped, label_cautions
from report.run import Run


def cautions(folder, task="classification"):
    return " ".join(label_cautions(Run(folder), task))


@pytest.fixture
def useful(copy):
    """A run whose classifier is better than the baseline and than chance, and predicts every class."""

    def improve(metrics):
        label, intervals = metrics["label"], metrics["intervals"]["label"]
        label["likeliest_less_majority"] = {"accuracy": 0.1, "balanced_accuracy": 0.3}
        intervals["likeliest_less_majority"] = {"accuracy": [0.05, 0.15], "balanced_accuracy": [0.2, 0.4]}
        label["official"]["macro"]["auc"], intervals["official"]["macro"]["auc"] = 0.9, [0.8, 0.95]
        label["malignant"]["auc"], intervals["malignant"]["auc"] = 0.9, [0.8, 0.95]
        label["per_class"]["MEL"]["recall"] = 0.7

    edit(copy / "classification" / "metrics.json", improve)
    path = copy / "classification" / "predictions.csv"
    table = read_back(path)
    classes = json.loads((copy / "record.json").read_text())["classes"]
    table.loc[: len(classes) - 1, "predicted"] = classes
    table.to_csv(path, index=False)
    return copy


def change(folder, key, value, interval):
    def apply(metrics):
        label, intervals = metrics["label"], metrics["intervals"]["label"]
        *above, last = key.split(".")
        for name in above:
            label, intervals = label[name], intervals[name]
        label[last], intervals[last] = value, interval

    edit(folder / "classification" / "metrics.json", apply)


def test_a_useful_model_has_no_caution_and_nor_has_one_without_diagnoses(useful):
    assert cautions(useful) == cautions(useful, "segmentation") == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label_loss": "weighted"}, "trained with label loss weighted, so"),
        ({"sampling": "sqrt", "label_loss": "focal"}, "trained with sampling sqrt, so"),
        ({"label_loss": "logit-adjusted", "sampling": "balanced"}, "label loss logit-adjusted and sampling balanced"),
    ],
)
def test_probabilities_of_more_equally_frequent_classes_are_called_so(useful, settings, words):
    edit(useful / "record.json", lambda record: record["tasks"]["classification"]["identity"].update(settings))
    assert words in cautions(useful) and cautions(useful, "multitask").count("more equally frequent") == 0


@pytest.mark.parametrize(
    ("loss", "words"), [("cross-entropy", ""), ("focal", "only roughly"), ("weighted", "too high")]
)
def test_few_negatives_leave_the_probabilities_as_the_loss_makes_them(useful, loss, words):
    settings = {"negatives": 20, "label_loss": loss}
    edit(useful / "record.json", lambda record: record["tasks"]["classification"]["identity"].update(settings))
    assert words in cautions(useful) and bool(words) == ("trained with" in cautions(useful))


@pytest.mark.parametrize(("interval", "gain"), [([-0.01, 0.1], 0.05), ([0.0, 0.1], 0.05), (None, -0.0)])
def test_a_model_that_is_no_better_than_the_commonest_class_is_called_so(useful, interval, gain):
    change(useful, "likeliest_less_majority.accuracy", gain, interval)
    found = cautions(useful)
    assert (
        "accuracy is not shown to be better than always predicting" in found
        and f"difference +{abs(gain):.3f})" in found
    )
    assert found.endswith("; its balanced accuracy is.")
    change(useful, "likeliest_less_majority.balanced_accuracy", 0.0, [-0.1, 0.1])
    assert "its balanced accuracy" not in cautions(useful)


@pytest.mark.parametrize("interval", [[0.45, 0.7], [0.5, 0.7], [0.3, 0.45]])
@pytest.mark.parametrize(("key", "name"), [("official.macro.auc", "mean AUC"), ("malignant.auc", "AUC of malignant")])
def test_a_ranking_that_may_be_chance_is_called_so(useful, interval, key, name):
    change(useful, key, sum(interval) / 2, interval)
    assert f"the {name} of" in cautions(useful) and "is not shown to be better than chance" in cautions(useful)


def test_a_model_that_finds_no_melanoma_is_called_so_in_plain_words(useful):
    def blind(metrics):
        metrics["label"]["per_class"]["MEL"] |= {"recall": 0.0, "support": 1234}

    edit(useful / "classification" / "metrics.json", blind)
    assert "the top-1 class finds none of the 1,234 melanomas." in cautions(useful)


def test_classes_that_are_never_predicted_are_named_once_with_the_convention(useful):
    path = useful / "classification" / "predictions.csv"
    read_back(path).replace({"predicted": {"DF": "NV", "VASC": "NV"}}).to_csv(path, index=False)
    assert "never predicted as top-1 class: DF, VASC. Their precision is undefined" in cautions(useful)


def test_a_class_without_validation_images_is_named(copy):
    path = copy / "splits.csv"
    table = read_back(path)
    table[(table["label"] != "DF") | (table["split"] != "val")].to_csv(path, index=False)
    said = "Classes without a validation image, for which nothing was fitted: DF."
    html = page.build(copy)
    assert said in page.cautions_of(Run(copy)) and html.index(said) < html.index('id="models"')


def test_models_with_the_same_caution_share_a_line_with_the_numbers_of_each():
    """What is said of the data, and what differs in a word, keeps a line of its own."""
    said = [
        "a: accuracy is 0.5 of 1,499 (difference -0.031).",
        "a: never predicted: MEL.",
        "3 pairs cross: see below.",
        "b: accuracy is 0.61 of 1,499 (difference +0.2).",
        "b: never predicted: NV.",
        "4 pairs cross: see below.",
        "c: never predicted: NV.",
    ]
    assert grouped(said, ("a", "b", "c")) == [
        "a, b: accuracy is 0.5 / 0.61 of 1,499 (difference -0.031 / +0.2).",
        "a: never predicted: MEL.",
        "3 pairs cross: see below.",
        "b, c: never predicted: NV.",
        "4 pairs cross: see below.",
    ]
