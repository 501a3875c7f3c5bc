"""What a checkpoint stores to decide by, complete, older and in part."""

import numpy as np
import pytest

from checkpoints import thresholds
from dataset.classes import HAM10000 as CLASSES

TESTED = {
    "melanoma": {"threshold": 0.2, "sensitivity": 0.931, "specificity": 0.658, "n_images": 1499},
    "malignant": {"threshold": 0.4, "sensitivity": 0.9, "specificity": 0.75, "n_images": 1499},
}
CALIBRATION = {"thresholds": {"melanoma": 0.2, "malignant": 0.4}, "scale": "calibrated"}
CHECKPOINT = {"classes": list(CLASSES), "calibration": CALIBRATION, "tested": TESTED}
PROBABILITIES = np.array([0.2, 0.5, 0.1, 0.05, 0.05, 0.05, 0.05])


def points(checkpoint):
    return thresholds.points_of(checkpoint["classes"], checkpoint.get("calibration", {}), checkpoint.get("tested", {}))


def test_melanoma_is_one_class_and_malignant_the_sum_of_three():
    melanoma, malignant = thresholds.findings(PROBABILITIES, points(CHECKPOINT))
    assert melanoma.probability == 0.2 and malignant.probability == pytest.approx(0.2 + 0.1 + 0.05)


def test_at_the_threshold_is_above_as_in_the_scores():
    assert [finding.verdict for finding in thresholds.findings(PROBABILITIES, points(CHECKPOINT))] == [
        "above",
        "below",
    ]


def test_the_order_of_the_classes_is_the_checkpoints():
    known = points(CHECKPOINT | {"classes": list(CLASSES[::-1])})
    assert [finding.probability for finding in thresholds.findings(PROBABILITIES[::-1], known)] == pytest.approx(
        [0.2, 0.35]
    )


def test_the_words_say_what_the_threshold_did_in_the_test_set():
    melanoma, malignant = points(CHECKPOINT)
    assert melanoma.describe() == (
        "threshold 0.2000, which found 93 % of the melanomas and excluded 66 % of the rest in the test set "
        "(1,499 images)"
    )
    assert "found 90 % of the malignant lesions and excluded 75 % of the rest" in malignant.describe()


@pytest.mark.parametrize(
    "tested",
    [
        None,
        {},
        {"melanoma": TESTED["melanoma"] | {"threshold": 0.21}},
        {"melanoma": TESTED["melanoma"] | {"sensitivity": None}},
        {"melanoma": TESTED["melanoma"] | {"specificity": None}},
    ],
    ids=["older checkpoint", "nothing measured", "another threshold", "no melanoma in test", "nothing else in test"],
)
def test_no_sensitivity_is_claimed_that_was_not_measured(tested):
    checkpoint = {name: value for name, value in CHECKPOINT.items() if name != "tested"}
    melanoma = points(checkpoint | ({} if tested is None else {"tested": tested}))[0]
    assert melanoma.describe() == "threshold 0.2000, fitted on the validation set; its sensitivity elsewhere is unknown"


@pytest.mark.parametrize(
    "calibration",
    [
        None,
        {"thresholds": {"melanoma": None, "malignant": 0.4}, "scale": "calibrated"},
    ],
    ids=["never calibrated", "no melanoma in validation"],
)
def test_without_a_threshold_nothing_is_above_or_below(calibration):
    checkpoint = {name: value for name, value in CHECKPOINT.items() if name != "calibration"}
    known = points(checkpoint | ({} if calibration is None else {"calibration": calibration}))
    melanoma = thresholds.findings(PROBABILITIES, known)[0]
    assert melanoma.probability == 0.2 and melanoma.verdict is None
    assert melanoma.point.describe() == "no threshold is known"


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "0 %"),
        (0.005, "under 1 %"),
        (0.0051, "1 %"),
        (0.5, "50 %"),
        (0.9949, "99 %"),
        (0.9955, "over 99 %"),
        (1, "100 %"),
    ],
)
def test_a_share_is_nothing_or_all_only_if_it_is(share, words):
    """Of 222 melanomas one was missed: that is not 100 %."""
    assert thresholds.percent(share) == words


@pytest.mark.parametrize(
    ("probability", "words"), [(0, "under 1 %"), (0.005, "under 1 %"), (np.float32(1), "over 99 %"), (0.8, "80 %")]
)
def test_no_probability_is_called_certain(probability, words):
    assert thresholds.certainty(probability) == words


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["NV", "MEL", "SCC"], {"melanoma": [1], "malignant": [1, 2]}),
        (["NV", "MEL"], {"melanoma": [1]}),
        (["MEL", "BCC"], {"melanoma": [0]}),
        (["MEL"], {}),
        (["DF", "VASC"], {}),
    ],
)
def test_an_operating_point_is_of_some_classes_and_not_of_all_and_no_two_are_of_the_same(classes, expected):
    assert thresholds.points_among(classes) == expected
