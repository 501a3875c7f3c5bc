"""The contract of an encoder, kept by each; the finer maps that heat is drawn from."""

import functools

import pytest
import torch
from test_models import lively
from torchvision.models import get_model

from encoders import ENCODERS as ALL
from encoders import base, make_encoder
from encoders.efficientnet_lite import Block, DepthwiseConv

ENCODERS = [name for name in ALL if name != "tiny"]  # that of conftest.py
RESNETS = [name for name in ENCODERS if name.startswith("resnet")]
LITE = [name for name in ENCODERS if name not in RESNETS]


def test_an_unknown_encoder_is_refused_by_name():
    with pytest.raises(ValueError, match=r"Unknown encoder 'resnet9': choose one of resnet18, .*efficientnet_lite0"):
        make_encoder("resnet9")


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("size", [(64, 96), (75, 101), (32, 32)])
def test_an_encoder_gives_one_map_per_stride(name, size, device):
    encoder = make_encoder(name).to(device)
    features = encoder(torch.randn(2, 3, *size, device=device))
    for feature, channels, stride in zip(features, encoder.channels, encoder.strides, strict=True):
        assert feature.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
    assert encoder.label_layer().to(device)(features[-1]).shape[1] == encoder.label_channels


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
    + [(n, (75, 101)) for n in ENCODERS],
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


def test_a_network_without_stochastic_depth_refuses_it_and_says_what_to_change():
    make_encoder("resnet18").set_drop_path(0.0)
    with pytest.raises(ValueError, match="resnet18 has no stochastic depth: set DROP_PATH to 0"):
        make_encoder("resnet18").set_drop_path(0.1)
