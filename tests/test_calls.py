"""What is read from logits: by hand, and the same for all folds together as for each."""

import numpy as np
import pytest

from measure.calls import pooled, read_logits

CLASSES = ("MEL", "NV", "BCC")
LOGITS = np.log(np.array([[0.1, 0.8, 0.1], [0.45, 0.5, 0.05], [0.2, 0.1, 0.7]]))
FITTED = {"temperature": 1.0, "tau": 1.0, "prior": [0.1, 0.8, 0.1], "scale": "calibrated"}
FITTED |= {"thresholds": {"melanoma": 0.2, "malignant": None}, "sets": {"target": 0.9, "limits": [0.2, 0.5, 0.9]}}


def test_the_calls_of_three_images_by_hand():
    calls = read_logits(LOGITS, FITTED, CLASSES)
    np.testing.assert_allclose(calls.probabilities, np.exp(LOGITS))
    assert calls.likeliest.tolist() == [1, 1, 2]
    assert calls.balanced.tolist() == [0, 0, 2]  # p / prior: (1, 1, 1) goes to the first, (4.5, .6, .5), (2, .1, 7)
    assert calls.commonest.tolist() == [1, 1, 1]
    assert calls.above["melanoma"].tolist() == [0, 1, 1] and np.isnan(calls.above["malignant"]).all()
    assert calls.sets.tolist() == [[False, True, False], [True, True, False], [True, False, True]]


def test_a_temperature_changes_the_calibrated_probabilities_alone():
    calls = read_logits(LOGITS, FITTED | {"temperature": 2.0}, CLASSES)
    np.testing.assert_allclose(calls.before, np.exp(LOGITS))
    roots = np.exp(LOGITS / 2)
    np.testing.assert_allclose(calls.probabilities, roots / roots.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("chosen", [np.array([False, True, True]), np.array([2, 0])])
def test_some_images_are_those_of_all_arrays(chosen):
    calls, arrays = read_logits(LOGITS, FITTED, CLASSES), ("before", "probabilities", "likeliest", "balanced", "sets")
    some = calls[chosen]
    for name in (*arrays, "commonest"):
        np.testing.assert_array_equal(getattr(some, name), getattr(calls, name)[chosen])
    for name, above in calls.above.items():
        np.testing.assert_array_equal(some.above[name], above[chosen])
    assert some.fitted == (FITTED,)


def test_each_fold_is_read_with_its_own_fit():
    other = FITTED | {"temperature": 3.0, "tau": 0.0, "thresholds": {"melanoma": 0.39, "malignant": 0.5}}
    parts = [read_logits(LOGITS, FITTED, CLASSES), read_logits(LOGITS, other | {"prior": [0.9, 0.05, 0.05]}, CLASSES)]
    calls = pooled(parts)
    for name in ("before", "probabilities", "likeliest", "balanced", "commonest", "sets"):
        np.testing.assert_array_equal(getattr(calls, name), np.concatenate([getattr(part, name) for part in parts]))
    assert calls.commonest.tolist() == [1, 1, 1, 0, 0, 0]
    np.testing.assert_array_equal(calls.above["melanoma"], [0, 1, 1, 0, 1, 0])  # cube roots: .25, .397, .30
    assert len(calls.fitted) == 2


@pytest.mark.parametrize("lacking", [0, 1])
def test_sets_that_one_fold_lacks_are_none(lacking):
    without = {name: value for name, value in FITTED.items() if name != "sets"}
    fitted = [FITTED, FITTED]
    fitted[lacking] = without
    assert pooled([read_logits(LOGITS, one, CLASSES) for one in fitted]).sets is None
