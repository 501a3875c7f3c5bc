"""What is fitted on training and validation images, so that images unlike them can be recognised."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.covariance import LedoitWolf

import data
import models
from encoders.unlike import ALARM, Unlike, statistics
from measure import alarms, bootstrap
from measure.collect import explaining


def drawn(n, seed, mean=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((6, 6))
    return (rng.standard_normal((n, 6)) @ mixing + 5 + mean).astype(np.float32)


def test_the_distances_are_those_of_scikit_learns_shrunk_covariance():
    train, val = drawn(400, 0), drawn(100, 1)
    unlike = Unlike(**alarms.fit_statistics(train, val))
    mean, scale = train.mean(axis=0), train.std(axis=0)
    oracle = LedoitWolf().fit((train - mean) / scale)
    expected = oracle.mahalanobis((val - mean) / scale)
    np.testing.assert_allclose(unlike.distance(torch.from_numpy(val)), expected, rtol=0.03)  # axes in half precision
    np.testing.assert_allclose(unlike.quantiles[[0, -1]], [expected.min(), expected.max()], rtol=0.03)


def test_one_in_twenty_images_like_the_training_images_is_flagged_and_others_are():
    unlike = Unlike(**alarms.fit_statistics(drawn(2000, 0), drawn(2000, 1)))

    def flagged(images):
        distance = unlike.distance(torch.from_numpy(images))
        return (100 * (distance[:, None] > unlike.quantiles).float().mean(dim=1) >= ALARM).float().mean()

    assert 0.035 < flagged(drawn(2000, 2)) < 0.065  # three standard errors of 0.05
    assert flagged(drawn(2000, 3, mean=20.0)) == 1


def test_a_statistic_that_never_changes_neither_fails_nor_counts():
    train, val = drawn(300, 0), drawn(100, 1)
    train[:, 2], val[:, 2] = 1.5, 1.5
    distance = Unlike(**alarms.fit_statistics(train, val)).distance(torch.from_numpy(val))
    assert distance.isfinite().all() and 0.5 < distance.mean() / 5 < 1.5


def test_many_statistics_are_kept_by_their_largest_axes(monkeypatch):
    monkeypatch.setattr(alarms, "MAX_NUMBERS", 12)
    fitted = alarms.fit_statistics(drawn(400, 0), drawn(100, 1))
    assert fitted["axes"].shape == (6, 2) and fitted["axes"].dtype == torch.float16
    assert fitted["variances"][1] >= fitted["rest"] > 0


class Few(torch.nn.Module):
    """An encoder whose shallowest map is the image."""

    def forward(self, image):
        return [image]


@pytest.fixture
def batches():
    pixels = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 4), np.uint8)
    names = [f"{i}" for i in range(80)]
    table = pd.DataFrame({"row": range(80), "image": names, "label": pd.Categorical(["NV"] * 80, ["MEL", "NV"])})
    table = table.assign(image_path="a", mask_path="", status="used", reason="", lesion_id=names, patient_id=None)
    return data.Batches(pixels, table, 7)


def test_it_is_fitted_on_the_training_images_as_they_are_and_ranked_among_the_validation_images(batches, monkeypatch):
    model = models.Segmenter().eval()
    model.encoder = Few()
    shuffled = data.Batches(batches.pixels, batches.table, 7, seed=1, augment=("flips",))
    fitted = alarms.fit_unlike(model, shuffled, batches, "fp32")
    images = torch.cat([batch["image"] for batch in batches])
    torch.testing.assert_close(fitted["mean"], statistics([images]).mean(dim=0))
    assert len(fitted["quantiles"]) == 80
    monkeypatch.setattr(alarms, "N_FITTED", 40)
    some = alarms.fit_unlike(model, batches, batches, "fp32")
    torch.testing.assert_close(some["mean"], statistics([images[::2]]).mean(dim=0))


def test_nothing_is_fitted_on_few_validation_images_or_without_an_encoder(batches):
    model = models.Segmenter().eval()
    few = data.Batches(batches.pixels, batches.table[:49], 7)
    assert alarms.fit_unlike(model, batches, few, "fp32") == {}
    assert alarms.fit_unlike(torch.nn.Identity(), batches, batches, "fp32") == {}


@pytest.mark.parametrize("encoder", [torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(5, 2), "resnet18", torch.nn.Flatten()])
def test_nothing_is_fitted_on_what_an_own_model_calls_its_encoder_if_that_gives_no_maps(encoder, batches):
    model = torch.nn.Identity()
    model.encoder, model.unlike = encoder, "a name of its own"
    assert alarms.fit_unlike(model, batches, batches, "fp32") == {} and explaining(model) is None


def test_looking_for_an_encoder_changes_nothing_in_the_model():
    model = models.Segmenter().train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    assert alarms.gives_maps(model, torch.randn(1, 3, 32, 32)) and model.encoder.training
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_the_share_of_flagged_images_has_an_interval():
    percentiles = np.array([0, 94.9, 95.0, 100] * 25)
    numbers, intervals = alarms.alarm_numbers(percentiles, bootstrap.resample_lesions(np.arange(100)))
    assert numbers == {"flagged": 0.5, "n_images": 100}
    assert 0.38 < intervals["flagged"][0] < 0.5 < intervals["flagged"][1] < 0.62
