"""What a model says of an image, and in which order."""

import doctest

import numpy as np

from checkpoints.thresholds import Finding, Point
from dataset.classes import HAM10000 as CLASSES
from inference import verdict as words
from inference.predictor import Prediction
from inference.verdict import UNLIKE, is_unlike, name_set, verdict

MELANOMA = Point("melanoma", (0,), 0.2, 0.931, 0.658, 1499)
MALIGNANT = Point("malignant", (0, 2, 3), 0.6, None, None, None)


def prediction(**more):
    """A nevus of 71 % that may be a melanoma."""
    findings = (Finding(MELANOMA, 0.25), Finding(MALIGNANT, 0.3))
    fields = {"findings": findings, "members": (1, 0), "unlike": 60.0} | more
    probabilities = np.array([0.25, 0.71, 0.01, 0.01, 0.01, 0.005, 0.005])
    return Prediction((8, 8), probabilities, None, None, **fields)


def test_the_alarm_stands_before_the_set_and_the_set_before_the_class():
    assert verdict(prediction(), CLASSES) == [
        "Above the threshold: melanoma",
        "Below the threshold: malignant",
        "Prediction set: Nevus, Melanoma",
        "Top-1 class: Nevus, 71 %",
    ]


def test_of_an_unlike_image_nothing_else_is_said():
    assert verdict(prediction(unlike=95.0), CLASSES) == [f"{UNLIKE}."]
    assert is_unlike(prediction(unlike=95.0)) and not is_unlike(prediction(unlike=94.9))


def test_what_a_model_does_not_know_is_left_out():
    known = prediction(unlike=None, members=(), findings=(Finding(MELANOMA._replace(threshold=None), 0.25),))
    assert verdict(known, CLASSES) == ["Top-1 class: Nevus, 71 %"] and not is_unlike(known)
    assert verdict(Prediction((8, 8), None, None, None), CLASSES) == []


def test_a_set_lists_its_classes_and_a_large_one_is_cut():
    assert doctest.testmod(words).failed == 0
    assert name_set((0,), CLASSES) == "Melanoma" and name_set((0,), ["Eczema", "MEL"]) == "Eczema"
    assert name_set((1, 0), ["Eczema", "MEL"]) == "Melanoma, Eczema"
    assert name_set(range(1000), [f"c{k}" for k in range(1000)]).endswith("c3, c4 and 995 more")
