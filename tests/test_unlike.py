"""How unlike the training images an image is, by an encoder's shallow feature maps."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

import models
from checkpoints.networks import Average, Views
from checkpoints.states import save
from encoders import blueprint
from encoders.unlike import ALARM, N_MAPS, SMALLEST, Unlike, find_flaw, statistics
from models import load_checkpoint


def fitted(n=4, n_axes=None, quantiles=(1.0, 2.0, 3.0, 4.0), seed=0):
    """Arguments of `Unlike` for n statistics, and the covariance that they stand for."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.standard_normal((n, n)))
    variances = np.sort(rng.uniform(0.1, 3, n))[::-1]
    n_axes = n_axes or n
    variances[n_axes:] = variances[n_axes:].mean() if n_axes < n else variances[n_axes:]
    mean, scale = rng.standard_normal(n), rng.uniform(0.5, 2, n)
    kept = {"mean": mean, "scale": scale, "axes": axes[:, :n_axes], "variances": variances[:n_axes].copy()}
    kept |= {"rest": variances[-1], "quantiles": quantiles}
    values = {name: torch.tensor(np.array(value), dtype=torch.float32) for name, value in kept.items()}
    return values, scale[:, None] * (axes * variances @ axes.T) * scale


def of_encoder(name="resnet18", quantiles=(1.0, 2.0)):
    return fitted(2 * sum(blueprint(name).channels[:N_MAPS]), n_axes=3, quantiles=quantiles)[0]


def test_the_statistics_are_mean_and_log_deviation_of_each_channel_of_the_shallowest_maps():
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 1, 4, 4), torch.zeros(2, 1, 2, 2), torch.randn(2, 9, 1, 1)]
    found = statistics(maps).numpy()
    assert found.shape == (2, 2 * (3 + 1 + 1))
    np.testing.assert_allclose(found[:, :3], maps[0].numpy().mean(axis=(2, 3)), atol=1e-6)
    np.testing.assert_allclose(found[:, 3:6], np.log(maps[0].numpy().std(axis=(2, 3))), atol=1e-5)
    np.testing.assert_allclose(found[:, 8:], np.tile([0, np.log(SMALLEST)], (2, 1)), atol=1e-6)  # a dead channel


@pytest.mark.parametrize("n_axes", [6, 2])
def test_the_distance_is_scipys_mahalanobis_distance(n_axes):
    values, covariance = fitted(6, n_axes)
    images = torch.randn(5, 6)
    inverse, mean = np.linalg.inv(covariance), values["mean"].numpy()
    expected = [mahalanobis(image, mean, inverse) ** 2 for image in images.numpy()]
    np.testing.assert_allclose(Unlike(**values).distance(images), expected, rtol=1e-4)


def test_the_percentile_is_the_share_of_the_validation_images_that_are_closer():
    values, _ = fitted(4, quantiles=(1.0, 2.0, 3.0, 4.0))
    unlike = Unlike(**values)
    distances = torch.tensor([0.5, 1.0, 2.5, 9.0])
    unlike.distance = lambda _: distances
    assert unlike([torch.zeros(4, 1, 2, 2)]).tolist() == [0, 0, 50, 100]


def test_the_percentile_is_the_same_under_autocast():
    unlike = Unlike(**fitted(2 * 3, quantiles=tuple(np.linspace(0, 30, 1000)))[0])
    maps = [torch.randn(8, 3, 9, 9)]
    with torch.autocast("cpu", torch.bfloat16):
        found = unlike(maps)
    torch.testing.assert_close(found, unlike(maps))


def test_a_network_tells_it_with_its_logits_alone_over_views_and_as_an_average(device):
    torch.manual_seed(0)
    image = torch.randn(3, 3, 32, 32, device=device)
    members = [models.MultiTask(n_classes=3).to(device).eval() for _ in range(2)]
    assert members[0].unlikeness(image) is None and "unlike" not in members[0].explain(image)
    values = of_encoder()
    for member in members:
        with torch.inference_mode():
            distances = Unlike(**values).to(device).distance(statistics(member.encoder(image)))
        quantiles = torch.linspace(float(distances.min()) - 1, float(distances.max()) - 1e-3, 11)
        member.unlike = Unlike(**values | {"quantiles": quantiles}).to(device)
    with torch.inference_mode():
        alone = [member.unlikeness(image) for member in members]
        assert alone[0].max() == 100 and alone[0].min() < 100
        assert torch.equal(members[0].explain(image)["unlike"], alone[0])
        assert torch.equal(Views(members[0]).explain(image, label_of=None)["unlike"], alone[0])
        torch.testing.assert_close(Average(members, [1, 1]).explain(image)["unlike"], (alone[0] + alone[1]) / 2)
        members[1].unlike = None
        assert "unlike" not in Average(members, [1, 1]).explain(image)


def test_it_is_no_part_of_the_weights():
    model = models.Segmenter()
    before = model.state_dict().keys()
    model.unlike = Unlike(**of_encoder())
    assert model.state_dict().keys() == before


def content_of(model, **more):
    facts = {"task": "segmentation", "arguments": model.arguments, "classes": [], "image_size": 32}
    return facts | {"weights": model.state_dict()} | more


def test_a_checkpoint_gives_it_back(tmp_path):
    torch.manual_seed(0)
    values = of_encoder() | {"axes": of_encoder()["axes"].half()}
    save(tmp_path / "a.pth", content_of(models.Segmenter(), unlike=values))
    model = models.load_model(tmp_path / "a.pth")
    assert all(torch.equal(getattr(model.unlike, name), value.float()) for name, value in values.items())
    save(tmp_path / "b.pth", content_of(models.Segmenter(), unlike={}))
    assert models.load_model(tmp_path / "b.pth").unlike is None


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("rest"),
        lambda values: values.update(mean=values["mean"][1:]),
        lambda values: values.update(axes=values["axes"][0]),
        lambda values: values.update(variances=values["variances"][:1]),
        lambda values: values.update(scale=[1.0]),
        lambda values: values.update(quantiles=torch.tensor([1.0, float("nan")])),
        lambda values: values.update(more=1),
    ],
)
def test_other_content_is_refused_by_name(tmp_path, change):
    values = of_encoder()
    assert find_flaw(values, blueprint("resnet18").channels) == ""
    change(values)
    save(tmp_path / "a.pth", content_of(models.Segmenter(), unlike=values))
    with pytest.raises(ValueError, match=r"a\.pth is not a checkpoint of this project: in unlike, "):
        load_checkpoint(tmp_path / "a.pth")
    assert "should" in find_flaw([1], (1, 1, 1)) and 0 < ALARM < 100
