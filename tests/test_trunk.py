"""torchvision's networks as encoders, compared with torchvision."""

import functools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from test_encoders import TRUNKS, on_meta
from test_models import lively
from torch import nn
from torchvision.models import ConvNeXt, get_model

from encoders import base, blueprint, make_encoder, trunk
from encoders.depthwise import DepthwiseConv
from models import Classifier


@functools.cache
def pair(name):
    """torchvision's network and the encoder with the same weights, which do something."""
    reference, encoder = lively(get_model(name, weights=None)), make_encoder(name).eval()
    state = {key: value for key, value in reference.state_dict().items() if key.partition(".")[0] not in trunk.HEADS}
    encoder.load_state_dict(state)
    return reference, encoder


def head_of(reference, deepest):
    """torchvision's own layers behind the deepest map."""
    if hasattr(reference, "fc"):
        return reference.fc(deepest.mean((2, 3)))
    if hasattr(reference, "head"):
        return reference.head(deepest.mean((2, 3)))
    pooled = deepest.mean((2, 3), keepdim=isinstance(reference, ConvNeXt))
    return reference.classifier(pooled)


@pytest.mark.parametrize("name", [name for name in TRUNKS if name != "vgg11_bn"])  # its head is large
@torch.inference_mode()
def test_torchvisions_head_on_the_deepest_map_gives_torchvisions_logits(name):
    reference, encoder = pair(name)
    image = torch.randn(1, 3, 64, 96)
    expected = reference(image)
    found = head_of(reference, encoder(image)[-1])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@torch.inference_mode()
def test_the_maps_are_the_last_ones_of_each_stride():
    """As the layers are numbered in Howard et al. 2019, table 2."""
    reference, encoder = pair("mobilenet_v3_small")
    image = torch.randn(1, 3, 64, 64)
    for last, found in zip((0, 1, 3, 8, 12), encoder(image), strict=True):
        torch.testing.assert_close(found, reference.features[: last + 1](image))


@pytest.mark.parametrize("name", TRUNKS)
@torch.inference_mode()
def test_the_last_stage_is_what_lies_between_the_last_two_maps(name):
    encoder = pair(name)[1]
    *_, before, last = encoder(torch.randn(1, 3, 64, 64))
    x = before.permute(0, 2, 3, 1) if encoder.is_last else before
    torch.testing.assert_close(encoder.last_stage()(x), last)


@torch.inference_mode()
def test_channels_come_first_in_every_map():
    reference, encoder = pair("swin_t")
    image = torch.randn(1, 3, 64, 64)
    found = encoder(image)
    torch.testing.assert_close(found[2], reference.features[:4](image).permute(0, 3, 1, 2))


@torch.inference_mode()
def test_a_network_that_begins_at_stride_4_gives_the_image_at_half_size_first():
    image = torch.randn(1, 3, 64, 32)
    expected = image.view(1, 3, 32, 2, 16, 2).mean((3, 5))
    torch.testing.assert_close(pair("convnext_tiny")[1](image)[0], expected)


@pytest.mark.parametrize("name", ["convnext_tiny", "densenet121", "swin_t"])
@torch.inference_mode()
def test_images_are_padded_at_the_lower_right_by_their_edge(name):
    encoder, image = pair(name)[1], torch.randn(1, 3, 33, 62)
    rows, columns = (torch.arange(64).clamp(max=n - 1) for n in image.shape[-2:])
    padded = encoder(image[:, :, rows][..., columns])
    for found, expected in zip(encoder(image), padded, strict=True):
        torch.testing.assert_close(found, expected[..., : found.shape[2], : found.shape[3]])


def point(network):
    """Have each layer pass on what lies at its centre, so that a cell sees only where it is centred."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            size = module.kernel_size[0]
            middle = slice((size - 1) // 2, size // 2 + 1)
            weight = torch.zeros_like(module.weight)
            weight[..., middle, middle] = 1 / weight.shape[1]
            module.weight.data = weight
        elif isinstance(module, nn.MaxPool2d):
            is_even = module.kernel_size == 2
            module.forward = (lambda x: F.avg_pool2d(x, 2)) if is_even else (lambda x: x[..., ::2, ::2])
        elif isinstance(module, nn.Linear):
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.forward = lambda x: x
    return network.eval()


@pytest.mark.parametrize("name", ["convnext_tiny", "densenet121", "mobilenet_v2", "regnet_x_400mf", "vgg11_bn"])
def test_a_cell_of_the_heat_map_lies_where_it_is_centred(name):
    encoder, image = point(make_encoder(name)), torch.full((1, 3, 128, 128), 1e-6, requires_grad=True)
    encoder(image)[-1][..., 1, 2].sum().backward()
    seen = image.grad.abs().sum((0, 1))
    row, column = ((seen.sum(1 - axis) / seen.sum() * torch.arange(128)).sum().item() for axis in (0, 1))
    first = encoder.first_cell((128, 128), 32)
    assert abs(row - first[0] - 32) <= 0.51 and abs(column - first[1] - 64) <= 0.51


@torch.inference_mode()
def test_the_heat_map_of_a_coarse_network_has_the_images_size():
    model = Classifier(encoder="densenet121").eval()
    for size in [(33, 33), (64, 96), (47, 130)]:
        assert model.heat_map(torch.randn(1, 3, *size)).shape == (1, 1, *size)


@torch.inference_mode()
def test_a_network_that_was_trained_on_another_scale_gets_it(monkeypatch):
    encoder = pair("mobilenet_v3_small")[1]
    other = SimpleNamespace(transforms=lambda: SimpleNamespace(mean=[0.5, 0.4, 0.3], std=[0.5, 0.6, 0.7]))
    monkeypatch.setattr(trunk, "published", lambda name: other)
    rescaled = make_encoder("mobilenet_v3_small").eval()
    rescaled.load_state_dict(encoder.state_dict())
    pixels = torch.rand(1, 3, 32, 32)
    batch, own = (
        (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        for mean, std in ((base.MEAN, base.STD), ([0.5, 0.4, 0.3], [0.5, 0.6, 0.7]))
    )
    torch.testing.assert_close(rescaled(batch)[0], encoder(own)[0], rtol=1e-4, atol=1e-5)


def test_only_efficientnetv2_l_was_trained_on_another_scale():
    assert blueprint("efficientnet_v2_l").is_rescaled and not blueprint("efficientnet_v2_s").is_rescaled


@pytest.mark.parametrize(("name", "n"), [("convnext_tiny", 18), ("efficientnet_b0", 16), ("swin_t", 12)])
def test_blocks_of_torchvision_are_skipped_as_asked_and_not_at_its_own_rates(name, n):
    encoder = on_meta(name)
    blocks = [module for module in encoder.modules() if type(module).__name__ == "StochasticDepth"]
    assert not any(block.p for block in blocks)
    encoder.set_drop_path(0.2)
    assert [block.p for block in blocks] == pytest.approx([0.2 * i / len(blocks) for i in range(len(blocks))])
    assert len(blocks) == n


@pytest.mark.parametrize("name", ["efficientnet_b0", "mnasnet0_5", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_convolutions_of_each_channel_alone_are_the_fast_ones(name):
    convs = [module for module in on_meta(name).modules() if isinstance(module, nn.Conv2d)]
    alone = [conv for conv in convs if conv.groups == conv.in_channels == conv.out_channels]
    assert alone and all(isinstance(conv, DepthwiseConv) for conv in alone)


def test_a_convolution_with_a_bias_keeps_it():
    assert not any(isinstance(module, DepthwiseConv) for module in on_meta("convnext_tiny").modules())
