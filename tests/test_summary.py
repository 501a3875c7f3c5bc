"""What the console shows of a table of predictions."""

import doctest

from inference import summary
from inference.summary import in_lines, of_all, of_each
from inference.verdict import UNLIKE


def row(file, code, confidence, **more):
    return {"file": file, "predicted": code, "confidence": confidence} | more


SURE = row("a.jpg", "NV", "0.9991", unlike_verdict="like", set="NV", p_melanoma="0.01", melanoma="below")
SURE |= {"p_malignant": "0.2", "malignant": "below", "lesion_share": "0.3071"}
ALARM = SURE | row("b/long.jpg", "MEL", "0.5100", set='MEL "basal cell" NV', melanoma="above", lesion_share="0.0030")
OTHER = SURE | row("c.jpg", "MEL", "0.9000", unlike_verdict="unlike", melanoma="above", malignant="above")


def test_each_image_has_one_line_in_the_order_of_a_verdict():
    assert of_each([SURE, ALARM, OTHER]) == [
        "image       unlike  melanoma  malignant  prediction set       top-1 class       lesion",
        "a.jpg       no      below     below      NV                   Nevus, over 99 %  31 %",
        "b/long.jpg  no      above     below      MEL, basal cell, NV  Melanoma, 51 %    under 1 %",
        f"c.jpg       {UNLIKE}.",
    ]
    assert of_each([]) == [] and of_each([OTHER])[1:] == [f"c.jpg  {UNLIKE}."]


def test_a_line_has_what_the_model_knows():
    assert of_each([{"file": "a\n.png", "lesion_share": "0.5"}]) == ["image    lesion", "a\\n.png  50 %"]
    assert of_each([row("a", "NV", "0.7", p_melanoma="0.1234")]) == [
        "image  melanoma    top-1 class",
        "a      p = 0.1234  Nevus, 70 %",
    ]
    of_a_class = row("a", "melanoma", "0.7", p_melanoma="0.7", melanoma="0.7000")  # no threshold, a class of its name
    assert of_each([of_a_class])[1] == "a      p = 0.7   melanoma, 70 %" and "above" not in of_all([of_a_class])[0]
    (_, line) = of_each([row("a", "NV", "0.7", set="A B C D E F G")])
    assert line == "a      A, B, C, D, E and 2 more  Nevus, 70 %"


def test_many_images_are_counted_by_class_without_those_unlike_the_training_images():
    assert of_all(iter([*[SURE] * 1200, ALARM, OTHER, OTHER])) == [
        "Unlike the training images: 2 of 1,203. Do not rely on these.",
        "top-1 class  images  above melanoma  above malignant",
        "Nevus         1,200               0                0",
        "Melanoma          1               1                0",
        "all           1,201               1                0",
    ]
    assert of_all([OTHER]) == ["Unlike the training images: 1 of 1. Do not rely on these."]
    assert of_all([{"file": "a.png", "lesion_share": "0.5"}]) == []


def test_of_many_classes_the_most_frequent_are_listed():
    rows = [row("a", f"c{k:02}", "0.5") for k in range(25) for _ in range(25 - k)]
    lines = of_all(rows)
    assert lines[1].split() == ["c00", "25"] and lines[20].split() == ["c19", "6"]
    assert lines[21] == "and 5 more classes" and lines[22].split() == ["all", "325"]


def test_lines_are_aligned_and_break_between_words_but_not_before_a_per_cent_sign():
    assert doctest.testmod(summary).failed == 0
    assert in_lines("melanoma " * 10 + "before 95 % of all").splitlines() == [
        "melanoma " * 10 + "before",
        "  95 % of all",
    ]
    assert max(map(len, in_lines("found 95 % of all " * 40).splitlines())) <= 100
