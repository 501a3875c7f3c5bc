"""What the report says of unlike images, prediction sets, the most confident images and net benefit."""

import re

import pytest
from conftest import edit
from test_page import text_of

from report import page
from report.cells import benefit_of

SETS = {
    "coverage": 0.942,
    "size": 1.914,
    "single": 0.475,
    "single_right": 0.958,
    "target": 0.9,
    "always": ["DF", "VASC"],
}


def gains(*intervals):
    """The label part of a model whose gain has these intervals at 2, 4, ... per cent."""
    cells = {}
    for number, interval in enumerate(intervals, start=1):
        values = {"model": {"value": 0.1, "interval": None}, "all": {"value": 0.05, "interval": None}}
        cells[str(2 * number)] = values | {"gain": {"value": 0.05, "interval": interval}}
    return {"net_benefit": cells}


def test_the_thresholds_at_which_acting_on_alarms_is_shown_to_be_better():
    above, not_above = [0.01, 0.1], [-0.01, 0.1]
    found = benefit_of(gains(not_above, above, above, above, not_above))
    assert found["better"] == [4, 6, 8] and not found["has_holes"] and (found["first"], found["last"]) == (2, 10)
    assert benefit_of(gains(above, not_above, above, not_above, not_above))["has_holes"]
    assert benefit_of(gains(*[not_above] * 4, None))["better"] == [] and benefit_of({}) is None


@pytest.fixture
def told(copy):
    """The text of a report whose classifier has these numbers."""

    def change(found):
        label, classes = found["label"], found["label"]["per_class"]
        label["sets"] = SETS | {"per_class": {code: {"coverage": 0.9, "size": 2.0} for code in classes}}
        found["intervals"]["label"]["sets"] = {"coverage": [0.928, 0.955], "single": [0.447, 0.506]}
        label["surest"]["accuracy"], label["accuracy"] = 0.882, 0.805
        found["intervals"]["label"]["surest"]["accuracy"] = [0.859, 0.903]
        found["intervals"]["label"]["accuracy"] = [0.779, 0.828]
        for values in label["net_benefit"].values():
            values |= {"model": 0.162, "all": 0.105, "gain": 0.057}
        for number, values in enumerate(found["intervals"]["label"]["net_benefit"].values()):
            values["gain"] = [0.01, 0.1] if number else [-0.01, 0.1]
        found["unlike"], found["intervals"]["unlike"] = (
            {"flagged": 0.053, "n_images": 1499},
            {"flagged": [0.041, 0.066]},
        )
        sets = {"n_images": 792, "sets": {"coverage": 0.931, "size": 2.3}}
        found["biopsied"] = {"label": label | sets, "intervals": {}, "n_images": 792, "n_lesions": 460}

    edit(copy / "classification" / "metrics.json", change)
    return text_of(page.build(copy))


def test_the_words_are_those_of_the_numbers(told):
    assert "5.3 % (4.1 % to 6.6 %) of the 1,499 images are flagged as unlike the training images." in told
    assert "The threshold is the 95th percentile of the validation images, so about 5 % would be expected" in told
    assert "so that the sets of 90 % of the images of each class hold that class." in told
    assert (
        "47.5 % (44.7 % to 50.6 %) of the images have a set of one class; this class is correct for 95.8 % of them."
        in told
    )
    assert "Too few validation images to fit a limit, so in every set: DF, VASC." in told
    assert (
        "On the 80 % of the images with the highest top-1 probability, the accuracy is 88.2 % (85.9 % to 90.3 %); on "
        "all images, it is 80.5 % (77.9 % to 82.8 %)."
    ) in told
    assert "at least 10 % gains 16.2 true positives per 100 images, net of false positives; treating " in told
    assert "treating all images gains 10.5." in told
    assert "better than treating all images and than treating none at thresholds from 4 % to 50 %" in told
    assert re.search(r"All, biopsied only\s*0\.931\s*2\.300\s*792", told)


def test_nothing_is_said_of_what_was_not_measured(copy):
    def change(found):
        for name in ("sets", "surest", "net_benefit"):
            found["label"].pop(name, None)
        found.pop("unlike", None)

    for task in ("classification", "multitask"):
        edit(copy / task / "metrics.json", change)
    told = text_of(page.build(copy))
    assert "classification, segmentation, multitask: images unlike the training images cannot be detected" in told
    assert "flagged as unlike" not in told and "Prediction sets" not in told and "highest top-1" not in told
    assert "true positives per 100" not in told
