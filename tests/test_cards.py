"""What the page says of a prediction, in words."""

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import picture
from PIL import Image

import predict
from checkpoints.thresholds import NO_TAU, Finding, Point
from dataset.classes import HAM10000
from inference.drawing import lesion_share
from inference.verdict import NOT_LOCALISED, heat_remarks


def knows(**more):
    """As much of a predictor with labels as the page asks."""
    trained = SimpleNamespace(heads=["label"], has_rule=True, is_calibrated=True, knows_unlike=True, localises=None)
    trained.checkpoints = {"a.pth": {"trained_on": {"images": ["ISIC_1"]}}}
    trained.provenance = lambda: {"encoders": ["resnet18"]}
    trained.sets = {"target": 0.9, "limits": [0.1] * 7}
    return SimpleNamespace(trained=trained, classes=list(HAM10000), points=[], **more)


def test_in_the_downloaded_table_no_two_columns_have_one_name():
    from browser import cards

    predictor = knows()
    predictor.classes[:2] = "set", "set_"
    row = ["a.png", *[""] * len(cards.columns(predictor))]
    found = predict.Prediction((8, 8), np.eye(7)[0], None, None)
    html = cards.render([cards.Card("a.png", found, row)], [], predictor)
    (header,) = re.findall(r'href="data:text/csv;charset=utf-8,([^"]*?)%0A', html)
    names = header.split("%2C")
    assert names.count("set") == 1 and "set__" in names and len(set(names)) == len(row)


def share_of(found):
    return None if found.mask is None else lesion_share(predict.mask_at(found.mask, found.size))


def words_of(found, outline="", heat=""):
    """What the page says of a prediction."""
    from browser import cards

    card = cards.Card("a.png", found, ["a.png"], share_of(found), outline=outline, heat=heat)
    html = cards.render([card], [], knows())
    return " ".join(re.sub("<[^>]*>", " ", html).split())


@pytest.mark.parametrize(("n_pixels", "words"), [(0, "0 %"), (1, "under 1 %"), (399, "over 99 %"), (400, "100 %")])
def test_an_outline_fills_nothing_or_all_only_if_it_does(n_pixels, words):
    logits = np.where(np.arange(400) < n_pixels, 1.0, -1.0).reshape(20, 20)
    found = predict.Prediction((20, 20), np.eye(7)[0], logits, None)
    assert f"The lesion fills {words} of the image" in words_of(found, outline="data:,")
    assert predict.caption(found, HAM10000)[-1] == f"Lesion: {words} of the image"


def test_a_class_that_is_in_every_set_is_named_so_with_the_reason():
    from browser import cards

    found, predictor = predict.Prediction((8, 8), np.eye(7)[0], None, None, members=(0, 3)), knows()
    for limits, said in (([0.1] * 7, False), ([0.1, 0.1, 0.1, 0, 0.1, 0.1, 0.1], True)):
        predictor.trained.sets["limits"] = limits
        html = cards.render([cards.Card("a.png", found, ["a.png"])], [], predictor)
        assert (
            "; in every set, because too few validation images could fit a limit: Actinic Keratosis)" in html
        ) == said


def test_warnings_name_the_threshold_with_sensitivity_specificity_and_what_was_missed():
    point = Point("melanoma", (0,), 0.2, 0.931, 0.658, 1499)
    unmeasured = Point("malignant", (0, 2, 3), 0.4, None, None, None)
    found = predict.Prediction((8, 8), np.eye(7)[1], None, None, balanced=0, findings=(Finding(point, 0.25),))
    assert (
        "⚠ Melanoma: above the threshold Probability 0.2500, threshold 0.2000. On 1,499 test images, this threshold "
        "found 93 % of the melanomas (sensitivity) and excluded 66 % of the rest (specificity); 34 % of the rest "
        "were above it. Top-1 class: Nevus, over 99 % . Balanced rule: Melanoma ."
    ) in words_of(found)
    below = words_of(found._replace(findings=(Finding(point, 0.15), Finding(unmeasured, 0.3))))
    assert "excluded 66 % of the rest (specificity); 7 % of the melanomas were missed." in below
    assert "⚠" not in below and "Malignant: below the threshold Probability 0.3000, threshold 0.4000." in below
    assert "its sensitivity and specificity elsewhere are not known" in below


def test_decisions_of_an_older_checkpoint_leave_out_what_it_lacks():
    findings = (Finding(Point("melanoma", (0,), None, None, None, None), 0.25),)
    shown = words_of(predict.Prediction((8, 8), np.eye(7)[1], None, None, findings=findings))
    assert "Nevus, over 99 %" in shown and NO_TAU in shown and "Balanced rule:" not in shown
    assert "Melanoma: no threshold is known Probability 0.2500." in shown and "sensitivity" not in shown


def test_of_an_unlike_image_the_page_warns_and_folds_the_rest_away():
    found = predict.Prediction((8, 8), np.eye(7)[1], None, np.zeros((8, 8)), members=(1, 0), heat_of=1, unlike=99.5)
    words = words_of(found, heat="data:,")
    assert words.startswith("a.png ⚠ Unlike the training images: do not rely on this 99.5 % of the validation images")
    folded = words.index("What the model would predict")
    assert folded < words.index("Prediction set: Nevus, Melanoma") < words.index("Top-1 class: Nevus")
    assert "evidence for" not in words and "not reliable on this image" in words
    like = words_of(
        found._replace(unlike=12.3, findings=(Finding(Point("melanoma", (0,), 0.2, None, None, None), 0.1),))
    )
    assert "Like the training images (12.3 % of the validation images are closer)." in like and "would" not in like


@pytest.mark.parametrize("probabilities", [None, np.eye(7)[1]])
def test_an_image_is_said_to_be_like_the_training_images_by_a_model_without_thresholds_too(probabilities):
    found = predict.Prediction((8, 8), probabilities, None, None, unlike=12.3)
    assert "Like the training images (12.3 % of the validation images are closer)." in words_of(found)


@pytest.mark.parametrize(("localises", "is_open"), [(True, True), (None, True), (False, False)])
def test_a_heat_map_that_does_not_localise_is_closed_and_said_so(localises, is_open):
    from browser import cards

    found = predict.Prediction((8, 8), np.eye(7)[1], None, np.zeros((8, 8)), heat_of=1)
    predictor = knows()
    predictor.trained.localises = localises
    html = cards.render([cards.Card("a.png", found, ["a.png"], heat="data:,")], [], predictor)
    assert ('value="40"' in html) == is_open and ("--heat: 0" in html) != is_open
    assert (NOT_LOCALISED in html) != is_open and "evidence for Nevus" in html
    assert "have one cell" not in html


def test_a_coarse_heat_map_is_said_to_be_one():
    from browser import cards

    found = predict.Prediction((8, 8), np.eye(7)[1], None, np.zeros((8, 8)), heat_of=1)
    predictor = knows()
    predictor.trained.provenance = lambda: {"encoders": ["convnext_tiny", "resnet18"]}
    html = cards.render([cards.Card("a.png", found, ["a.png"], heat="data:,")], [], predictor)
    (remark,) = heat_remarks(predictor.trained)
    assert remark == "Heat maps of ConvNeXt-Tiny have one cell per 32 pixels of the input." and remark in html


@pytest.mark.parametrize(
    ("value", "words"),
    [(1.0, "a.png, with the contour of the lesion, which fills 100 % of the image"), (-1.0, "no lesion was found")],
)
def test_an_image_is_described_to_who_cannot_see_it(value, words):
    from browser import cards

    found = predict.Prediction((8, 8), np.eye(7)[1], np.full((8, 8), value), None)
    card = cards.Card("a.png", found, ["a.png"], share_of(found), outline="data:,")
    for chosen, n in (([card], 1), ([card, card], 4)):
        html = cards.render(chosen, [], knows()).replace("\xa0", " ")
        described = re.findall(r'<img alt="(a.png, [^"]*)"', html)
        assert sum(words in one for one in described) == n and sum("unchanged" in one for one in described) == len(
            chosen
        )


def test_downloads_of_two_images_of_one_name_have_two_names():
    from browser import cards

    found = predict.Prediction((8, 8), np.eye(7)[1], np.ones((8, 8)), None)
    card = cards.Card("a.png", found, ["a.png"], mask="data:,", overlay="data:,")
    paths = re.findall('data-path="([^"]*)"', cards.render([card, card], [], knows()))
    assert len(set(paths)) == len(paths) == 5 and "masks/a.png.png" in paths


@pytest.mark.parametrize(("size", "width"), [((600, 450), 600), ((4400, 1100), 4000), ((1100, 4400), 1000)])
def test_an_overlay_has_the_images_own_size_up_to_a_limit_that_is_said(size, width, tmp_path):
    from browser import cards

    found = predict.Prediction(size, np.eye(7)[1], np.pad(np.ones((8, 8)), 12, constant_values=-1), None)
    predictor = knows(read=lambda content: None, predict=lambda decoded: [found])
    picture(1, size).save(tmp_path / "a.jpg", quality=20)
    card = cards.look("a.jpg", (tmp_path / "a.jpg").read_bytes(), predictor)
    overlay, mask = (Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) for url in (card.overlay, card.mask))
    assert overlay.width == width and overlay.height > size[1] * width // size[0] and mask.size == size
    assert ("reduced to 4,000 pixels" in cards.render([card], [], predictor)) == (max(size) > 4000)


@pytest.mark.parametrize(("name", "is_seen"), [("ISIC_1.jpg", True), ("ISIC_2.jpg", False)])
def test_the_card_of_an_image_that_the_model_learned_from_says_so(name, is_seen):
    from browser import cards

    found = predict.Prediction((8, 8), np.eye(7)[1], None, None)
    predictor = knows(read=lambda content: None, predict=lambda decoded: [found])
    file = io.BytesIO()
    picture(1).save(file, "JPEG")
    html = cards.render([cards.look(name, file.getvalue(), predictor)], [], predictor)
    assert ("trained or selected on an image of this name" in html) == is_seen


@pytest.mark.parametrize("is_drawn", [True, False])
def test_an_example_is_said_to_be_drawn_only_if_it_is(is_drawn, demo_folder, tmp_path):
    from browser import cards

    drawn, photo = next((demo_folder / "images").iterdir()), tmp_path / "photo.jpg"
    picture().save(photo)
    html = cards.picker([cards.example_of(drawn if is_drawn else photo, knows().trained)])
    assert ("no real lesions" in html) == (", a drawn lesion" in html) == is_drawn
