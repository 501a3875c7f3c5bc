"""The contract of an encoder, kept by each; the finer maps that heat is drawn from."""

import functools

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_models import lively
from torchvision import models
from torchvision.models import get_model, list_models
from torchvision.models._utils import _make_divisible
from torchvision.ops import Conv2dNormActivation, StochasticDepth

from encoders import ENCODERS, __main__, base, catalogue, coarse_heat, efficientnet_lite, make_encoder, title_of
from encoders.depthwise import DepthwiseConv
from encoders.efficientnet_lite import Block
from encoders.unlike import statistics

RESNETS = ["resnet18", "resnet34", "resnet50", "resnext50_32x4d"]
LITE = [name for name in ENCODERS if name.startswith("efficientnet_lite")]
TRUNKS = ["convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "mnasnet0_5", "mobilenet_v2"]
TRUNKS += ["mobilenet_v3_small", "regnet_y_400mf", "shufflenet_v2_x0_5", "swin_t", "vgg11_bn"]


def on_meta(name):
    """A new encoder that takes no memory."""
    with torch.device("meta"):
        return make_encoder(name)


@pytest.mark.parametrize(("name", "near"), [("resnet9", "resnet.*"), ("vit_b_16", ".*"), ("mobilenet", "mobilenet_v2")])
def test_an_unknown_encoder_is_refused_with_the_nearest_names(name, near):
    with pytest.raises(
        ValueError, match=rf"Unknown encoder '{name}'. The nearest ones are {near}.*-m encoders lists all"
    ):
        make_encoder(name)


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "inception_v3", "maxvit_t", "squeezenet1_0", "vit_b_16"])
def test_networks_without_maps_of_all_strides_are_not_offered(name):
    assert name not in ENCODERS


@pytest.mark.parametrize("name", RESNETS + LITE + TRUNKS)
@pytest.mark.parametrize("size", [(64, 96), (75, 101), (32, 32)])
def test_an_encoder_gives_one_map_per_stride(name, size):
    encoder = on_meta(name)
    features = encoder(torch.zeros(2, 3, *size, device="meta"))
    for feature, channels, stride in zip(features, encoder.channels, encoder.strides, strict=True):
        assert feature.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
    assert statistics(features).shape == (2, 2 * sum(encoder.channels[:3]))
    assert encoder.label_layer().to("meta")(features[-1]).shape[1] == encoder.label_channels


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_is_torchvisions_network(name, device):
    reference = get_model(name, weights=None).to(device)
    encoder = make_encoder(name).to(device)
    weights = {name: value for name, value in reference.state_dict().items() if not name.startswith("fc.")}
    encoder.load_state_dict(weights)
    reference.fc = torch.nn.Identity()
    image = torch.randn(2, 3, 64, 64, device=device)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(image)[-1].mean((2, 3)), reference.eval()(image))


@pytest.mark.parametrize(
    ("name", "channels", "n_blocks"),
    [  # Google's table, compound scaling of stem and head off
        ("efficientnet_lite0", (16, 24, 40, 112, 320), 16),
        ("efficientnet_lite1", (16, 24, 40, 112, 320), 21),
        ("efficientnet_lite2", (16, 24, 48, 120, 352), 21),
    ],
)
def test_an_efficientnet_lite_is_as_wide_and_deep_as_published(name, channels, n_blocks):
    encoder = make_encoder(name)
    assert encoder.channels == channels
    assert sum(isinstance(module, Block) for module in encoder.modules()) == n_blocks
    norms = [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_a_network_has_its_published_name():
    names = {"efficientnet_b0": "EfficientNet-B0", "efficientnet_v2_s": "EfficientNetV2-S", "swin_v2_t": "SwinV2-T"}
    names |= {"regnet_y_400mf": "RegNetY-400MF", "regnet_x_1_6gf": "RegNetX-1.6GF", "convnext_tiny": "ConvNeXt-Tiny"}
    names |= {"mnasnet0_5": "MNASNet-0.5", "mobilenet_v2": "MobileNetV2", "mobilenet_v3_large": "MobileNetV3-Large"}
    names |= {"shufflenet_v2_x0_5": "ShuffleNetV2-x0.5", "densenet121": "DenseNet-121", "vgg11_bn": "VGG-11-BN"}
    names |= {"resnext50_32x4d": "ResNeXt-50-32x4d", "wide_resnet50_2": "Wide ResNet-50-2", "resnet18": "ResNet-18"}
    assert {name: title_of(name) for name in names} == names


def test_the_table_of_encoders_is_what_the_command_counts():
    lines = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    rows = [row for row in rows if row[0] in ENCODERS]
    assert len(rows) >= 15
    for name, parameters, operations, cell, *_ in rows:
        counted = __main__.row(name)
        assert (parameters, operations, cell) == (counted[1], counted[2], counted[4]), name


def test_it_is_said_which_networks_have_coarse_heat_maps():
    assert coarse_heat(["resnet18", "resnext50_32x4d", "efficientnet_lite0"]) == ""
    assert coarse_heat(["vgg11_bn", "resnet18", "swin_t"]).startswith("Heat maps of VGG-11-BN and Swin-T have one cell")


# Finer maps


@functools.cache
def lively_encoder(name):
    """Made once, which takes longer than most passes."""
    return lively(make_encoder(name))


SIZES = [(64, 64), (128, 128), (224, 224), (200, 200), (256, 256), (320, 320), (448, 448), (75, 101), (96, 250)]
SIZES += [(32, 32), (33, 34), (161, 63)]


@pytest.mark.parametrize("stride", [16, 8])
@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name in ("resnet18", "efficientnet_lite0") for size in SIZES]
    + [(n, (75, 101)) for n in RESNETS + LITE],
)
@torch.inference_mode()
def test_the_finer_map_holds_the_coarse_one_where_its_cells_are_centred(name, size, stride, monkeypatch):
    monkeypatch.setattr(base, "HEAT_CELLS", {16: 1, 8: 1000}[stride])
    encoder = lively_encoder(name)
    torch.manual_seed(0)
    features = encoder(torch.randn(1, 3, *size))
    fine, found = encoder.refine(features)
    assert found == stride
    assert fine.shape == (1, encoder.channels[-1], -(-size[0] // stride), -(-size[1] // stride))
    pairs = zip(encoder.first_cell(size, 32), encoder.first_cell(size, stride))
    row, column = ((coarse - finer) // stride for coarse, finer in pairs)
    step = 32 // stride
    rounding = 5e-6 * features[-1].abs().amax().item()
    torch.testing.assert_close(fine[..., row::step, column::step], features[-1], rtol=0, atol=rounding)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize(("size", "stride"), [((32, 32), 8), ((208, 400), 8), ((209, 209), 16), ((224, 224), 16)])
def test_small_images_get_the_finest_map(name, size, stride):
    encoder = lively_encoder(name)
    shapes = zip(encoder.channels, encoder.strides)
    features = [torch.zeros(1, n, *(-(-pixels // s) for pixels in size)) for n, s in shapes]
    with torch.inference_mode():
        assert encoder.refine(features)[1] == stride


# Training


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_of_a_depthwise_convolution_in_bfloat16_are_those_of_float64(kernel, stride):
    torch.manual_seed(0)
    conv = DepthwiseConv(8, 8, kernel, stride, kernel // 2, groups=8, bias=False)
    x = torch.randn(4, 8, 12, 12).bfloat16().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    (y.float() ** 2).sum().backward()
    exact, weight = x.detach().double().requires_grad_(), conv.weight.detach().bfloat16().double().requires_grad_()
    z = torch.nn.functional.conv2d(exact, weight, None, stride, kernel // 2, groups=8)
    z.backward(2 * y.detach().double())
    assert y.dtype == torch.bfloat16
    for found, expected in ((x.grad, exact.grad), (conv.weight.grad, weight.grad)):
        torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


@pytest.mark.parametrize("name", LITE)
def test_the_deepest_block_is_skipped_for_the_share_of_images_and_earlier_ones_for_less(name):
    encoder = make_encoder(name)
    encoder.set_drop_path(0.2)
    rates = [block.drop_path.p for stage in encoder.maps for block in stage]
    assert rates == pytest.approx([0.2 * i / len(rates) for i in range(len(rates))])


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_a_network_without_stochastic_depth_refuses_it_and_says_what_to_change(name):
    on_meta(name).set_drop_path(0.0)
    with pytest.raises(ValueError, match=f"{name} has no stochastic depth: set DROP_PATH to 0"):
        on_meta(name).set_drop_path(0.1)


def test_the_names_that_are_known_without_torchvision_are_torchvisions():
    theirs = list_models(module=models)
    assert [name for name in theirs if name.startswith(tuple(catalogue.FAMILIES))] == [*catalogue.TRUNKS]
    assert {name for name in theirs if "resne" in name} == {*catalogue.RESNETS}


def test_the_layers_of_efficientnet_lite_are_those_of_torchvision():
    """Its own stand here so that the bundled model can predict without torchvision."""
    for channels in np.linspace(1, 400, 1000):
        assert efficientnet_lite.round_to_eight(channels) == _make_divisible(channels, 8)
    x, seen = torch.rand(64, 2, 3, 3), []
    for branch in (efficientnet_lite.DropPath(), StochasticDepth(0.0, "row")):
        branch.p = 0.25
        torch.manual_seed(0)
        seen.append(branch(x))
        assert torch.equal(branch.eval()(x), x)
    assert torch.equal(*seen) and not torch.equal(seen[0], x)
    theirs = Conv2dNormActivation(3, 8, 5, 2, norm_layer=efficientnet_lite.NORM, activation_layer=torch.nn.ReLU6)
    ours = efficientnet_lite.layer(3, 8, 5, 2)
    ours.load_state_dict(theirs.state_dict())
    image = 9 * torch.randn(2, 3, 9, 9)
    assert torch.equal(ours(image), theirs(image))
