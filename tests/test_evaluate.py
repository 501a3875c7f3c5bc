import doctest

import numpy as np
import pytest
import torch
from sklearn import metrics

import evaluate


def random_labels(seed, n=200, k=7):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(k), n)
    return rng.integers(0, k, n), probabilities


def test_the_docstrings_examples_hold():
    assert doctest.testmod(evaluate).failed == 0


def test_label_metrics_agree_with_scikit_learn():
    true, probabilities = random_labels(0)
    predicted = probabilities.argmax(axis=1)
    found = evaluate.label_metrics(true, probabilities, "abcdefg")
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(true, predicted))
    for name in ("precision", "recall", "f1"):
        score = getattr(metrics, f"{name}_score")
        assert found[f"macro_{name}"] == pytest.approx(score(true, predicted, average="macro"))
        for k, letter in enumerate("abcdefg"):
            by_class = score(true, predicted, labels=[k], average=None)[0]
            assert found["per_class"][letter][name] == pytest.approx(by_class)


def test_an_absent_class_has_no_value_and_leaves_the_means_alone():
    true = np.array([0, 0, 1, 1])
    probabilities = np.eye(3)[[0, 1, 1, 2]]
    found = evaluate.label_metrics(true, probabilities, "abc")
    assert found["per_class"]["c"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 0.5) / 2)
    assert found["macro_precision"] == pytest.approx((1 + 0.5) / 2)


def test_a_class_never_predicted_has_precision_zero():
    found = evaluate.label_metrics(np.array([0, 1]), np.eye(2)[[0, 0]], "ab")
    assert found["per_class"]["b"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}


def test_the_confusion_matrix_has_true_classes_in_rows():
    matrix = evaluate.confusion_matrix(np.array([0, 0, 2]), np.eye(3)[[0, 1, 2]])
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def masks(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), 1, 2, -1)


def test_overlap_of_masks_worked_by_hand():
    true = masks([1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1])
    logits = masks([9, -9, 9, -9], [-9, -9, -9, -9], [9, -9, -9, -9], [9, 9, 9, 9])
    counts = evaluate.mask_counts(logits, true)
    assert counts.tolist() == [[1, 1, 1], [0, 0, 0], [0, 1, 0], [4, 0, 0]]
    assert evaluate.iou(counts).tolist() == pytest.approx([1 / 3, 1, 0, 1])
    assert evaluate.dice(counts).tolist() == pytest.approx([1 / 2, 1, 0, 1])


def test_mask_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(1)
    true, logits = rng.integers(0, 2, (20, 1, 8, 8)), rng.normal(size=(20, 1, 8, 8))
    counts = evaluate.mask_counts(torch.tensor(logits), torch.tensor(true)).numpy()
    found = evaluate.mask_metrics(counts)
    flat = [(t.ravel(), (p > 0).ravel()) for t, p in zip(true, logits)]
    ious, dices = ([score(t, p) for t, p in flat] for score in (metrics.jaccard_score, metrics.f1_score))
    assert found["mean_iou"] == pytest.approx(np.mean(ious)) and found["std_iou"] == pytest.approx(np.std(ious))
    assert found["mean_dice"] == pytest.approx(np.mean(dices)) and found["std_dice"] == pytest.approx(np.std(dices))
    assert found["pooled_iou"] == pytest.approx(metrics.jaccard_score(true.ravel(), logits.ravel() > 0))
    assert found["pooled_dice"] == pytest.approx(metrics.f1_score(true.ravel(), logits.ravel() > 0))
    assert found["n_images"] == 20


class Brightness(torch.nn.Module):
    """Calls an image bright by its mean; the mask is where it is above 0."""

    def forward(self, image):
        mean = image.mean(dim=(1, 2, 3))
        return {"label": torch.stack([-mean, mean], dim=1), "mask": image[:, :1]}


def batches_of(size, n=10):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(n, 3, 4, 4, generator=generator)
    label, mask = torch.arange(n) % 2, torch.randn(n, 1, 4, 4, generator=generator).gt(0).float()
    return [
        {"image": image[i : i + size], "label": label[i : i + size], "mask": mask[i : i + size]}
        for i in range(0, n, size)
    ]


def test_the_numbers_do_not_depend_on_the_batch_size():
    one, four = (evaluate.summarise(Brightness(), batches_of(size)) for size in (1, 4))
    for head in ("label", "mask"):
        np.testing.assert_allclose(one[head], four[head])


def test_prediction_leaves_the_model_in_the_mode_it_came_in():
    for training in (True, False):
        model = Brightness().train(training)
        for _ in evaluate.predict(model, batches_of(4)):
            assert not model.training
        assert model.training is training


def test_best_median_and_worst_are_picked_by_score():
    scores = np.array([0.1, 0.9, 0.5, 0.8, 0.2, 0.4, 0.7, 0.3])
    assert evaluate.best_median_worst(scores) == [1, 3, 2, 5, 4, 0]
    assert evaluate.best_median_worst(np.array([0.5])) == [0]
    assert sorted(evaluate.best_median_worst(np.array([0.5, 0.1, 0.2]))) == [0, 1, 2]


def test_the_report_shows_what_was_measured():
    true, probabilities = random_labels(2)
    label = evaluate.label_metrics(true, probabilities, "abcdefg")
    mask = evaluate.mask_metrics(np.array([[1.0, 1.0, 0.0]]))
    text = evaluate.report("multitask", {"label": label, "mask": mask})
    assert f"accuracy {label['accuracy']:.3f}" in text and "Dice  mean 0.667" in text and "IoU   mean 0.500" in text
