"""What the page says of its model: what it learned from, its scores, its licence and its model card."""

import json
import re

import pytest
from conftest import ROOT

from browser import about
from checkpoints.trained import Trained
from dataset.synthetic import NOTE

BASE = {"task": "multitask", "classes": ["MEL", "NV"], "image_size": 64, "arguments": {}, "epoch": 3}
REAL = {"images": ["ISIC_1", "ISIC_2"], "lesions": ["HAM_1"]}
DRAWN = {"images": ["synthetic_00000", "synthetic_00001"], "lesions": ["LESION_00000"]}
OTHER = {"images": ["clinic_1", "clinic_2"], "lesions": ["one"]}


def model(place, *facts):
    """A model of checkpoints with these facts."""
    return Trained({place / f"best_{i}.pth": BASE | one for i, one in enumerate(facts)})


def words_of(trained):
    return " ".join(re.sub("<[^>]*>", " ", about.about(trained)).split())


@pytest.mark.parametrize(
    ("facts", "is_drawn"),
    [
        ([{"trained_on": DRAWN}], True),
        ([{"trained_on": REAL}], False),
        ([{"trained_on": DRAWN, "seen_before": {"trained_on": REAL}}], False),
        ([{"trained_on": DRAWN}, {"trained_on": REAL}], False),
        ([{"trained_on": DRAWN}, {}], False),
        ([{}], False),
        ([{"trained_on": DRAWN, "seen_before": {}}], True),
        ([{"note": NOTE}], True),
        ([{"trained_on": DRAWN, "seen_before": {"trained_on": {"images": []}}}], False),  # of an unknown training
        ([{"trained_on": OTHER, "note": NOTE}], True),  # a large set has other names
        ([{"trained_on": OTHER, "note": NOTE, "seen_before": {"trained_on": REAL}}], False),
        ([{"trained_on": OTHER, "note": NOTE}, {"trained_on": REAL}], False),
    ],
)
def test_a_model_is_of_drawn_lesions_only_if_all_that_it_learned_from_is_known_to_be_drawn(facts, is_drawn, tmp_path):
    assert about.is_of_drawn(model(tmp_path, *facts)) == is_drawn


@pytest.mark.parametrize(
    ("facts", "learned", "licence"),
    [
        ({"trained_on": DRAWN}, "2 images of drawn lesions: it knows nothing of real lesions.", "MIT"),
        (
            {"trained_on": REAL, "initial_weights": "ImageNet"},
            "2 images of HAM10000, from ImageNet weights.",
            "CC BY-NC",
        ),
        ({"trained_on": OTHER}, "Learned from 2 images.", "That of its training images"),
        ({"trained_on": OTHER, "seen_before": {"trained_on": REAL}}, "4 images, some of HAM10000", "non-commercial"),
        ({}, "Images that this checkpoint does not name.", "That of its training images"),
        ({"note": NOTE, "seen_before": {"trained_on": REAL}}, f"Trained on {NOTE}.", "non-commercial"),
        ({"note": NOTE}, "Learned from Images of drawn lesions: it knows nothing of real lesions.", "MIT"),
        ({"trained_on": OTHER, "note": NOTE}, "2 images of drawn lesions: it knows nothing of real lesions.", "MIT"),
    ],
)
def test_the_facts_name_the_training_images_and_the_licence_that_follows(facts, learned, licence, tmp_path):
    words = words_of(model(tmp_path, facts))
    assert learned in words and licence in words[words.index("Licence") :]


METRICS = {
    "epoch": 3,
    "views": 1,
    "label": {"n_images": 1000, "accuracy": 0.9, "balanced_accuracy": 0.8},
    "mask": {"n_images": 900, "mean_dice": 0.95},
    "intervals": {"label": {"accuracy": [0.85, 0.94], "balanced_accuracy": None}, "mask": {"mean_dice": [0.9, 0.96]}},
}


def test_scores_are_named_with_their_images_and_those_on_biopsied_images_come_first():
    assert about.score_lines(METRICS) == [
        "accuracy 0.900 (0.850–0.940), balanced accuracy 0.800 on 1,000 test images",
        "Dice 0.950 (0.900–0.960) on 900 test images",
    ]
    intervals = {"label": {"accuracy": [0.5, 0.7]}}
    biopsied = {"label": {"n_images": 10, "accuracy": 0.6, "balanced_accuracy": None}, "intervals": intervals}
    assert about.score_lines(METRICS | {"biopsied": biopsied}) == [
        "accuracy 0.600 (0.500–0.700) on 10 biopsied test images"
    ]
    assert about.score_lines({}) == []


@pytest.mark.parametrize("change", [{"epoch": 2}, {"views": 8}])
def test_scores_of_another_epoch_or_with_views_are_not_those_of_the_model(change, tmp_path):
    (tmp_path / "multitask").mkdir()
    file = tmp_path / "multitask" / "metrics.json"
    file.write_text(json.dumps(METRICS))
    assert "Accuracy 0.900" in words_of(model(tmp_path, {}))
    file.write_text(json.dumps(METRICS | change))
    assert "Test scores Not known" in words_of(model(tmp_path, {}))
    file.write_text(json.dumps(METRICS))
    assert "Test scores Not known" in words_of(model(tmp_path, {}, {}))  # an average has none


def test_the_card_is_the_file_beside_the_checkpoint_or_the_report_of_its_run(tmp_path):
    assert about.model_card(model(tmp_path, {})) == "" and "Model card" not in words_of(model(tmp_path, {}))
    (tmp_path / "report.html").write_text("the report")
    assert about.model_card(model(tmp_path, {})) == "the report" and "Model card" in words_of(model(tmp_path, {}))
    assert about.model_card(model(tmp_path, {}, {})) == ""
    (tmp_path / "best_0.md").write_text("# A card\n\n|a|b|\n|-|-|\n|1|2|\n")
    card = about.model_card(model(tmp_path, {}))
    assert "<h1>A card</h1>" in card and "<td>2</td>" in card and "the report" not in card


def test_a_card_links_to_no_file_and_holds_no_html_of_its_own():
    html = about.as_html("[a *b*](../a.md) [c](https://c.org) <script>d</script>")
    assert html == '<p>a <em>b</em> <a href="https://c.org">c</a> &lt;script&gt;d&lt;/script&gt;</p>\n'


@pytest.mark.parametrize("path", sorted((ROOT / "pretrained").glob("*.pth")), ids=lambda path: path.stem)
def test_the_scores_of_a_bundled_model_are_those_of_its_card(path):
    trained = Trained.load(path)
    (line,) = about.score_lines(about.metrics_of(trained))
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    scores = re.findall(r"0\.\d{3} \(0\.\d{3}–0\.\d{3}\)", line)
    assert scores and all(score in card for score in scores) and "on 792 biopsied test images" in line
    assert "7,009 images of HAM10000" in words_of(trained) and "<h1>" in about.model_card(trained)
