import numpy as np
import pandas as pd
import pytest

from report.comparison import compare

LESIONS = pd.Series({name: f"L{name}" for name in "abcd"})
SINGLE = pd.DataFrame(
    {"image": list("abcd"), "true": ["MEL", "MEL", "NV", "NV"], "predicted": ["MEL", "NV", "NV", "NV"]}
)


def test_comparing_two_models_counts_the_images_that_both_have():
    multi = SINGLE.assign(predicted=["MEL", "MEL", "NV", "NV"]).iloc[:3]
    found = compare(SINGLE, multi, LESIONS)
    assert found["n_images"] == 3
    assert found["balanced_accuracy"]["difference"] == pytest.approx(1 - (0.5 + 1) / 2)
    assert found["accuracy"]["difference"] == pytest.approx(1 - 2 / 3)
    assert (found["only_first_right"], found["only_second_right"]) == (0, 1)
    dice = compare(
        pd.DataFrame({"image": list("ab"), "dice": [0.5, 0.7]}),
        pd.DataFrame({"image": list("ab"), "dice": [0.6, 0.9]}),
        LESIONS,
    )
    assert dice["mean_dice"]["difference"] == pytest.approx(0.15)


def test_photographs_of_one_lesion_say_no_more_about_two_models_than_one_does():
    """Four photographs of each of 40 lesions: the interval is that of 40 images, twice as wide as of 160 lesions."""
    n = 160
    names, sibling = [f"i{i}" for i in range(n)], np.arange(n) // 4
    single = pd.DataFrame({"image": names, "true": "NV", "predicted": np.where(sibling % 4 == 0, "MEL", "NV")})
    multi = single.assign(predicted=np.where(sibling % 4 == 1, "MEL", "NV"))
    by_image, by_lesion = (
        np.diff(compare(single, multi, pd.Series(lesions, names))["accuracy"]["interval"])
        for lesions in (np.arange(n), sibling)
    )
    assert by_lesion / by_image == pytest.approx(2, abs=0.3)


def test_a_name_that_stands_twice_or_has_no_lesion_is_refused_by_name():
    for arguments in (
        (SINGLE, SINGLE, pd.concat([LESIONS, LESIONS["b":"b"]])),
        (SINGLE.iloc[[0, 1, 1]], SINGLE, LESIONS),
        (SINGLE, SINGLE.iloc[[0, 1, 1]], LESIONS),
    ):
        with pytest.raises(ValueError, match="'b' stands twice"):
            compare(*arguments)
    with pytest.raises(ValueError, match="No lesion is known of 'd'"):
        compare(SINGLE, SINGLE, LESIONS["a":"c"])
    with pytest.raises(ValueError, match="no image in common"):
        compare(SINGLE.iloc[:2], SINGLE.iloc[2:], LESIONS)
