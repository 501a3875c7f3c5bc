import io
import math
import pickle
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from torchvision.models import resnet18

import machine
import models
from encoders import blueprint
from models import MODELS, Classifier, MultiTask, Segmenter, load_checkpoint, load_model

ONE_CHANNEL = SimpleNamespace(label_layer=torch.nn.Identity, label_channels=1)  # in place of an encoder
HEADS = {"classification": {"label"}, "segmentation": {"mask"}, "multitask": {"label", "mask"}}


def checkpoint_of(task, model):
    """What a checkpoint must hold."""
    classes = list("abcdefg")[: model.arguments.get("n_classes", 7)]
    facts = {"task": task, "arguments": model.arguments, "classes": classes, "image_size": 64}
    return facts | {"weights": model.state_dict()}


@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (75, 101)])
def test_every_model_gives_logits_of_the_promised_shape_at_any_size(task, size, device):
    output = MODELS[task]().to(device).eval()(torch.randn(2, 3, *size, device=device))
    assert set(output) == HEADS[task]
    shapes = {"label": (2, 7), "mask": (2, 1, *size)}
    assert all(logits.shape == shapes[name] for name, logits in output.items())


@pytest.mark.parametrize("name", ["tiny", "resnet50", "efficientnet_lite0", "mobilenet_v3_small", "convnext_tiny"])
@pytest.mark.parametrize("task", MODELS)
def test_the_heads_follow_the_encoder(task, name, device):
    model = MODELS[task](encoder=name).to(device)
    output = model(torch.randn(2, 3, 33, 50, device=device))
    shapes = {"label": (2, 7), "mask": (2, 1, 33, 50)}
    assert {head: logits.shape for head, logits in output.items()} == {head: shapes[head] for head in HEADS[task]}


def test_a_seed_gives_the_weights_that_heads_and_then_torchvisions_resnet18_draw_from_it():
    torch.manual_seed(3)
    heads = {
        "label": models.LabelHead(blueprint("resnet18"), 7),
        "mask": models.MaskDecoder((64, 64, 128, 256, 512), (128, 64, 64, 32)),
    }
    drawn = {f"heads.{name}": value for name, value in torch.nn.ModuleDict(heads).state_dict().items()}
    drawn |= {f"encoder.{name}": value for name, value in resnet18().state_dict().items() if not name.startswith("fc.")}
    torch.manual_seed(3)
    found = MultiTask().state_dict()
    assert set(found) == set(drawn) and all(torch.equal(found[name], drawn[name]) for name in drawn)


def test_encoder_weights_move_between_the_models():
    source = Segmenter()
    for model in (Classifier(), MultiTask()):
        model.encoder.load_state_dict(source.encoder.state_dict())


def test_gradients_reach_every_parameter(device):
    model = MultiTask().to(device)
    output = model(torch.randn(2, 3, 64, 64, device=device))
    sum(logits.square().mean() for logits in output.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_constructors_touch_neither_network_nor_disk(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    for model in MODELS.values():
        model()


def test_operations_are_twice_the_multiply_adds_of_the_layers():
    """A ResNet-18 without its last layer has 1.8136 G multiply-adds at 224 pixels (He et al. 2016)."""
    convolutions = 2 * 1.8136e9 / (224 / 64) ** 2
    assert models.operations("classification", "resnet18") == pytest.approx(convolutions + 2 * 512 * 7, 1e-3)
    assert models.operations("multitask", "resnet18") == models.operations("segmentation", "resnet18") + 2 * 512 * 7


def test_models_is_importable_alone():
    code = "import sys, models; sys.exit(bool({'data', 'train', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_labels_are_computed_in_float32_under_autocast(device):
    """In bfloat16, with its three digits, the logits of two classes tie."""
    torch.manual_seed(0)
    head, features = (
        models.LabelHead(blueprint("resnet18"), 7).to(device),
        [torch.rand(300, 512, 7, 7).bfloat16().to(device)],
    )
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        logits = head(features, (224, 224))
        heat = head.heat_map(features[0], logits.argmax(dim=1))
    assert logits.dtype == heat.dtype == torch.float32
    expected = features[0].double().mean(dim=(2, 3)) @ head.linear.weight.double().T + head.linear.bias.double()
    torch.testing.assert_close(logits.double(), expected, atol=1e-6, rtol=1e-6)


def test_one_pass_gives_logits_and_the_heat_map_of_the_likeliest_class(device):
    model, image = MultiTask().to(device).eval(), torch.randn(2, 3, 64, 96, device=device)
    with torch.inference_mode():
        found, logits = model.explain(image), model(image)
    torch.testing.assert_close(found, logits | {"heat": model.heat_map(image)})
    assert all(torch.equal(found[name], logits[name]) for name in logits)


@torch.inference_mode()
def test_mask_logits_are_upsampled_as_areas_and_not_from_corner_to_corner():
    torch.manual_seed(0)
    channels = blueprint("resnet18").channels
    decoder = models.MaskDecoder(channels, models.DECODER_CHANNELS).eval()
    features = [torch.randn(1, n, 64 // stride, 64 // stride) for n, stride in zip(channels, (2, 4, 8, 16, 32))]
    small, large = (decoder(features, size) for size in ((32, 32), (64, 64)))  # at stride 2, and at full size
    expected = torch.nn.functional.interpolate(small, size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(large, expected)


# Heat maps


def lively(model):
    """In eval mode, with batch norms that do something, as those of a trained model."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def test_cells_lie_at_multiples_of_their_stride():
    found = models.spread_cells(torch.tensor([[[[0.0, 1.0]]]]), 4, (3, 7))
    assert found[0, 0].tolist() == [[0, 0.25, 0.5, 0.75, 1, 1, 1]] * 3


@pytest.mark.parametrize(("name", "spot"), [("resnet18", (64, 96)), ("efficientnet_lite0", (63, 95))])
@pytest.mark.parametrize("size", [(128, 160), (224, 256)])
def test_the_heat_of_a_spot_is_largest_at_the_spot(name, spot, size):
    """Of a network that only blurs, which shows where its cells look; the spot lies where a cell is centred."""
    model = Classifier(encoder=name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            row = torch.tensor([math.comb(module.kernel_size[0] - 1, i) for i in range(module.kernel_size[0])])
            kernel = (row[:, None] * row).float()
            module.weight.data = (kernel / kernel.sum() / module.weight.shape[1]).expand_as(module.weight).clone()
    torch.nn.init.ones_(model.heads["label"].linear.weight)
    image = torch.zeros(1, 3, *size)
    image[..., spot[0], spot[1]] = 10
    assert model.heat_map(image)[0, 0].argmax() == spot[0] * size[1] + spot[1]


def test_heat_maps_under_autocast_are_those_of_float32():
    model = lively(MultiTask())
    image = torch.randn(2, 3, 64, 96)
    expected = model.heat_map(image, torch.tensor([0, 1]))
    model, image = (each.to(memory_format=torch.channels_last) for each in (model, image))
    with torch.autocast("cpu", torch.bfloat16):
        found = model.heat_map(image, torch.tensor([0, 1]))
        explained, logits = model.explain(image), model(image)
    assert found.shape == (2, 1, 64, 96) and found.dtype == torch.float32 and found.amax() == 1
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)
    assert all(torch.equal(explained[name], logits[name]) for name in logits)


def test_explaining_differentiates_nothing_and_changes_nothing():
    model, image = lively(Classifier()), torch.randn(1, 3, 32, 32)
    before, weights = repr(model), {name: value.clone() for name, value in model.state_dict().items()}
    found = model.explain(image)
    assert not found["heat"].requires_grad and found["label"].requires_grad
    assert repr(model) == before
    torch.testing.assert_close(dict(model.state_dict()), weights, rtol=0, atol=0)


def test_threads_that_explain_at_once_do_not_disturb_each_other():
    model, images = lively(Classifier()), torch.randn(8, 1, 3, 64, 64)
    expected = [model.heat_map(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(model.heat_map, images))
    torch.testing.assert_close(found, expected)


# Checkpoints


def test_a_trained_model_knows_its_size_and_gives_calibrated_probabilities(tmp_path):
    torch.manual_seed(0)
    content = checkpoint_of("classification", Classifier())
    torch.save(content, tmp_path / "a.pth")
    torch.save(content | {"calibration": {"temperature": 2.0}}, tmp_path / "b.pth")
    image = torch.randn(2, 3, 32, 32)
    plain, calibrated = (load_model(tmp_path / f"{name}.pth") for name in "ab")
    assert (calibrated.image_size, plain.temperature, calibrated.temperature) == (content["image_size"], 1.0, 2.0)
    logits = plain(image)["label"].detach()
    torch.testing.assert_close(plain.probabilities(image), logits.softmax(dim=1))
    torch.testing.assert_close(calibrated.probabilities(image), (logits / 2).softmax(dim=1))


@pytest.mark.parametrize("task", MODELS)
def test_load_model_rebuilds_the_network_from_the_file_alone(task, device, tmp_path):
    torch.manual_seed(0)
    model = MODELS[task]().to(device, memory_format=torch.channels_last).eval()
    torch.save(checkpoint_of(task, model), tmp_path / "model.pth")
    loaded = load_model(tmp_path / "model.pth", device)
    assert not loaded.training
    image = torch.randn(1, 3, 64, 64, device=device)
    with torch.no_grad():
        for name, logits in model(image).items():
            torch.testing.assert_close(loaded(image)[name], logits)


def test_other_sizes_of_model_are_rebuilt_too(tmp_path):
    model = MultiTask(n_classes=3, decoder_channels=(32, 16, 16, 8), encoder="resnet34")
    torch.save(checkpoint_of("multitask", model), tmp_path / "a.pth")
    found = load_model(tmp_path / "a.pth")
    assert found.arguments["encoder"] == "resnet34"
    assert found(torch.randn(1, 3, 32, 32))["label"].shape == (1, 3)


def test_a_checkpoint_from_before_there_were_encoders_to_choose_from_is_a_resnet18(tmp_path):
    content = checkpoint_of("multitask", MultiTask())
    torch.save(content | {"arguments": {"n_classes": 7, "decoder_channels": (128, 64, 64, 32)}}, tmp_path / "a.pth")
    assert load_model(tmp_path / "a.pth").arguments["encoder"] == "resnet18"


def test_what_is_no_checkpoint_is_refused_with_a_message(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No checkpoint at .*: it is a folder\..*python main.py"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No checkpoint at .*python main.py"):
        load_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"weights": {}}, tmp_path / "other.pth")
    torch.save(checkpoint_of("juggling", Classifier()), tmp_path / "task.pth")
    for name in ("text", "other", "task"):
        with pytest.raises(ValueError, match=f"{name}.pth"):
            load_checkpoint(tmp_path / f"{name}.pth")


def test_an_unknown_device_is_refused_with_a_message():
    with pytest.raises(ValueError, match="--device abacus"):
        machine.choose_device("abacus")


def test_a_device_whose_numbers_cannot_be_read_is_refused_with_a_message():
    with pytest.raises(ValueError, match="--device meta cannot be used"):
        machine.choose_device("meta")


# Checkpoints


@pytest.fixture
def content():
    torch.manual_seed(0)
    return checkpoint_of("classification", Classifier())


def loaded(content, path):
    torch.save(content, path)
    return load_model(path)


def test_a_checkpoint_without_what_is_optional_is_loaded(content, tmp_path):
    assert loaded(content, tmp_path / "a.pth")(torch.zeros(1, 3, 32, 32))["label"].shape == (1, 7)


CHANGES = {
    "a key is missing": lambda c: c.pop("classes"),
    "a key is of another kind": lambda c: c.update(image_size="64"),
    "it is no dict": None,
    "the task is unknown": lambda c: c.update(task="detection"),
    "the size is absurd": lambda c: c.update(image_size=10**9),
    "the arguments are another network's": lambda c: c.update(arguments={"decoder_channels": (1, 2, 3, 4)}),
    "the encoder is unknown": lambda c: c["arguments"].update(encoder="resnet9"),
    "the classes are too few": lambda c: c.update(classes=["a"]),
    "a weight is missing": lambda c: c["weights"].pop("encoder.conv1.weight"),
    "a weight is too many": lambda c: c["weights"].update(more=torch.zeros(1)),
    "a weight has another shape": lambda c: c["weights"].update({"encoder.bn1.bias": torch.zeros(3)}),
    "a weight has another type": lambda c: c["weights"].update({"encoder.bn1.bias": torch.zeros(64, dtype=torch.int8)}),
    "a weight is no number": lambda c: c["weights"]["encoder.bn1.bias"][:1].fill_(float("nan")),
    "a weight is text": lambda c: c["weights"].update({"encoder.bn1.bias": "x"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_not_such_a_checkpoint_is_one_message_that_names_it(content, tmp_path, change):
    if CHANGES[change]:
        CHANGES[change](content)
    else:
        content = [1, 2]
    with pytest.raises(ValueError, match=r"a\.pth") as refused:
        loaded(content, tmp_path / "a.pth")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "pickle", "other zip"])
def test_a_damaged_checkpoint_is_one_message_that_names_it(content, tmp_path, damage):
    path = tmp_path / "a.pth"
    torch.save(content, path)
    whole = path.read_bytes()
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("data.txt", "x")
    forms = {"empty": b"", "cut": whole[:-1000], "text": b"x" * 100, "pickle": pickle.dumps(1)}
    path.write_bytes((forms | {"other zip": other.getvalue()})[damage])
    with pytest.raises(ValueError, match=r"a\.pth is not a checkpoint of this project, or is damaged"):
        load_model(path)


def test_a_training_state_in_place_of_a_model_is_called_that_and_the_model_is_named(content, tmp_path):
    (tmp_path / "classification").mkdir()
    state = {"model": content["weights"], "optimizer": {}, "history": [], "best": {}, "identity": {}, "conditions": {}}
    with pytest.raises(
        ValueError, match=r"last\.pth is a training state for --resume.*best_classification_model\.pth\.$"
    ) as refused:
        loaded(state, tmp_path / "classification" / "last.pth")
    assert str(tmp_path / "best_classification_model.pth") in str(refused.value)


def test_what_speaks_against_a_class_is_no_heat():
    """One channel speaks for class 0 and against class 1, twice as much in the second cell; nothing speaks for 1."""
    head = models.LabelHead(ONE_CHANNEL, 2)
    head.linear.weight.data = torch.tensor([[1.0], [-1.0]])
    cells = torch.tensor([[1.0, 2.0]]).view(1, 1, 1, 2)
    assert head.heat_map(cells, torch.tensor([0])).flatten().tolist() == [0.5, 1]
    assert head.heat_map(cells, torch.tensor([1])).flatten().tolist() == [0, 0]


def test_each_images_heat_has_its_own_maximum():
    head = models.LabelHead(ONE_CHANNEL, 1)
    head.linear.weight.data = torch.ones(1, 1)
    cells = torch.tensor([[1.0, 2.0], [5.0, 10.0]]).view(2, 1, 1, 2)
    assert head.heat_map(cells, torch.tensor([0, 0])).flatten().tolist() == [0.5, 1, 0.5, 1]


def test_a_checkpoint_with_one_changed_byte_among_its_weights_is_damaged(tmp_path):
    path = tmp_path / "a.pth"
    model = Classifier(n_classes=3)
    content = {"task": "classification", "arguments": model.arguments, "classes": list("abc"), "image_size": 32}
    torch.save(content | {"weights": model.state_dict()}, path)
    assert load_checkpoint(path)
    stored = bytearray(path.read_bytes())
    place = stored.index(model.encoder.layer4[0].conv1.weight.detach().numpy().tobytes())
    stored[place] ^= 1  # the last bit of a weight, which no reading of the values would notice
    path.write_bytes(stored)
    with pytest.raises(ValueError, match=r"the checksum of .* is wrong"):
        load_checkpoint(path)


def test_the_heat_map_is_grad_cam(measured, device):
    """At the coarse map's cells it agrees with gradients taken by autograd, up to the scaling to one."""
    model = measured[0]
    image = torch.randn(2, 3, 64, 64, device=device)
    features = model.encoder(image)
    features[-1].retain_grad()
    logits = model.heads["label"](features, (64, 64))
    logits.max(dim=1).values.sum().backward()
    weights = features[-1].grad.mean(dim=(2, 3), keepdim=True)
    expected = (weights * features[-1]).sum(dim=1).relu().detach()
    found = model.heat_map(image)
    assert found.shape == (2, 1, 64, 64)
    assert expected.amax(dim=(1, 2)).all()
    for ours, theirs in zip(found[:, 0, ::32, ::32], expected):
        torch.testing.assert_close(ours / ours.max(), theirs / theirs.max())
    with pytest.raises(ValueError, match="only predicts masks"):
        models.Segmenter().to(device).heat_map(image)
