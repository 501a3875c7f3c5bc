"""Each loss against a calculation of its own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import losses

SHARES = np.array([0.5, 0.3, 0.2, 0.0])


@pytest.fixture
def batch():
    """Logits of 8 images for 4 classes, the last of which no training image has, and their labels."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=(8, 4))), torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])


def log_p(logits):
    return logits.numpy() - np.log(np.exp(logits.numpy()).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("name", "power"), [("weighted", 1.0), ("sqrt-weighted", 0.5)])
def test_class_weights_are_powers_of_the_frequency_with_mean_1_over_the_training_images(name, power, batch):
    logits, label = batch
    weight = SHARES[:3] ** -power / (SHARES[:3] ** (1 - power)).sum()
    by_hand = [-weight[k] * log_p(logits)[i, k] for i, k in enumerate(label)]
    found = losses.LOSSES["label"][name](logits, label, torch.tensor(SHARES))
    assert found.item() == pytest.approx(np.mean(by_hand), rel=1e-3)  # the absent class has a tiny share


def test_a_weighted_loss_is_a_mean_over_images_in_batches_of_any_size(batch):
    logits, label = batch
    parts = [
        losses.weighted_cross_entropy(logits[i : i + 2], label[i : i + 2], torch.tensor(SHARES)) for i in (0, 2, 4, 6)
    ]
    whole = losses.weighted_cross_entropy(logits, label, torch.tensor(SHARES))
    assert whole.item() == pytest.approx(np.mean([part.item() for part in parts]))


def test_the_logit_adjusted_loss_is_cross_entropy_under_the_training_classes_prior(batch):
    logits, label = batch
    p = np.exp(logits.numpy()) * SHARES
    by_hand = [-np.log(p[i, k] / p[i].sum()) for i, k in enumerate(label)]
    found = losses.logit_adjusted_loss(logits, label, torch.tensor(SHARES))
    assert found.item() == pytest.approx(np.mean(by_hand), rel=1e-3)


def test_the_offset_is_added_to_the_logits_and_the_logit_adjusted_loss_is_that_of_equal_classes(batch):
    """Of drawn images, whose frequencies differ from the prior."""
    logits, label = batch
    drawn, prior = torch.tensor([0.2, 0.3, 0.4, 0.1]), torch.tensor([0.9, 0.05, 0.04, 0.01])
    p = np.exp(logits.numpy()) * (drawn / prior).numpy()
    by_hand = np.mean([-np.log(p[i, k] / p[i].sum()) for i, k in enumerate(label)])
    found = losses.with_offset(F.cross_entropy, (drawn / prior).log())(logits, label)
    assert found.item() == pytest.approx(by_hand, rel=1e-6)
    to_equal = losses.with_offset(F.cross_entropy, (drawn / 0.25).log())(logits, label)
    torch.testing.assert_close(losses.logit_adjusted_loss(logits, label, drawn), to_equal)


def test_the_focal_loss_lessens_what_is_already_sure(batch):
    logits, label = batch
    of_true = log_p(logits)[np.arange(8), label]
    expected = -((1 - np.exp(of_true)) ** 2 * of_true).mean()
    assert losses.focal_loss(logits, label).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", losses.LOSSES["label"])
def test_probabilities_of_one_class_count_as_that_label_and_an_absent_class_is_no_infinity(name, batch):
    logits, label = batch
    loss = losses.LOSSES["label"][name]
    options = {"frequencies": torch.tensor(SHARES)} if name in ("weighted", "sqrt-weighted", "logit-adjusted") else {}
    as_probabilities = loss(logits, F.one_hot(label, 4).to(logits), **options)
    torch.testing.assert_close(as_probabilities, loss(logits, label, **options))
    assert loss(logits, torch.full((8,), 3), **options).isfinite()


def test_the_dice_loss_is_one_less_dice_where_probabilities_are_sure():
    mask = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]]).view(2, 1, 2, 2)
    logits = torch.tensor([[99.0, -99, 99, -99], [-99, -99, -99, -99]]).view(2, 1, 2, 2)
    by_hand = ((1 - (2 * 1 + 1) / (2 + 2 + 1)) + 0) / 2
    assert losses.dice_loss(logits, mask).item() == pytest.approx(by_hand)
    both = losses.LOSSES["mask"]["bce+dice"](logits, mask) - F.binary_cross_entropy_with_logits(logits, mask)
    assert both.item() == pytest.approx(by_hand, abs=1e-5)
