"""ONNX files say what PyTorch says, or are not kept."""

import json

import numpy as np
import pytest
import torch
from conftest import picture
from test_unlike import of_encoder

import export
import models
from checkpoints.states import save
from encoders.unlike import statistics

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")


@pytest.fixture
def small(short_run, tmp_path):
    """The checkpoint of a classifier on the `Tiny` encoder, which is exported in a second, and how it tells alarms."""
    values = of_encoder("tiny", quantiles=tuple(np.linspace(0, 1, 50)))
    content = models.load_checkpoint(short_run / "outputs" / "best_classification_model.pth")
    save(tmp_path / "small.pth", content | {"unlike": values})
    return tmp_path / "small.pth"


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        export.main([*map(str, arguments)])
    return stop.value.code


@pytest.mark.parametrize("task", models.MODELS)
def test_any_number_of_images_gets_the_logits_of_pytorch(task, whole_run, demo_folder, tmp_path, capsys):
    checkpoint, target = whole_run[0] / f"best_{task}_model.pth", tmp_path / "model.onnx"
    export.main([str(checkpoint), str(target), "--data-dir", str(demo_folder)])
    assert "16 real images" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(target))
    model = models.load_model(checkpoint)
    for n in (1, 3, 7):
        image = torch.randn(n, 3, 32, 32)
        with torch.inference_mode():
            expected = model(image)
        for name, found in zip(expected, session.run(list(expected), {"image": image.numpy()})):
            np.testing.assert_allclose(found, expected[name].numpy(), atol=1e-4)
    facts = {prop.key: json.loads(prop.value) for prop in onnx.load(target).metadata_props}
    assert facts["task"] == task and facts["image_size"] == 32 and len(facts["classes"]) == 7


@pytest.mark.parametrize("encoder", ["convnext_tiny", "efficientnet_lite0"])
def test_a_model_on_another_encoder_is_exported_too(encoder, tmp_path):
    torch.manual_seed(0)
    model = models.MultiTask(encoder=encoder)
    for module in model.modules():  # without running means and variances logits are too large to be compared
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one batch's
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))
    facts = {"task": "multitask", "arguments": model.arguments, "classes": list("abcdefg"), "image_size": 48}
    save(tmp_path / "a.pth", facts | {"weights": model.state_dict()})
    assert set(export.export(tmp_path / "a.pth", tmp_path / "a.onnx")) == {"random input"}  # within its tolerance
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    assert [output.name for output in session.get_outputs()] == ["label", "mask", "features"]


def test_features_and_how_unlike_an_image_is_are_exported(tmp_path, small):
    values = of_encoder("tiny", quantiles=tuple(np.linspace(0, 1e3, 1000)))
    save(tmp_path / "a.pth", models.load_checkpoint(small) | {"unlike": values})
    export.export(tmp_path / "a.pth", tmp_path / "a.onnx")
    image, model = torch.randn(5, 3, 32, 32), models.load_model(tmp_path / "a.pth")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    features, unlike = session.run(["features", "unlike"], {"image": image.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(features, statistics(model.encoder(image)), atol=1e-3)
        np.testing.assert_allclose(unlike, model.unlikeness(image), atol=0.2)
    assert unlike.min() > 0 and unlike.max() < 100


@pytest.mark.parametrize(("n_jumps", "is_kept"), [(1, True), (2, False)])
def test_a_percentile_may_jump_by_one_of_few_validation_images(n_jumps, is_kept, tmp_path, small):
    """One of 50 is 2 %. In the file all are nearer than the image, in PyTorch some are not."""
    export.export(small, tmp_path / "a.onnx")
    model = export.Exported(models.load_model(small)).eval()
    model.model.unlike.quantiles[:n_jumps] = 1e9
    difference = export.largest_difference(model, tmp_path / "a.onnx", [torch.randn(1, 3, 32, 32)])
    assert (difference <= export.TOLERANCE) == is_kept


def test_a_file_that_differs_is_not_kept_and_an_older_one_stays(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", -1)
    target = tmp_path / "model.onnx"
    target.write_text("older")
    assert command(small, target) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert command(small, target, "--overwrite") == 2
    assert "not kept" in capsys.readouterr().err
    assert target.read_text() == "older" and {*tmp_path.iterdir()} == {small, target}


def test_nan_counts_as_a_difference(small, tmp_path):
    checkpoint = models.load_checkpoint(small)
    checkpoint["weights"]["heads.label.linear.weight"].fill_(torch.finfo(torch.float32).max)  # of infinite logits
    save(tmp_path / "nan.pth", checkpoint)
    assert command(tmp_path / "nan.pth", tmp_path / "model.onnx") == 2
    assert not (tmp_path / "model.onnx").exists()


def test_mistakes_end_in_one_message(small, tmp_path, capsys):
    picture().save(tmp_path / "no.pth", "PNG")
    for checkpoint in (tmp_path / "no.pth", tmp_path / "nowhere.pth"):
        assert command(checkpoint, tmp_path / "model.onnx") == 2
    checkpoint = small
    assert command(checkpoint, tmp_path / "no" / "model.onnx") == 2
    assert command(checkpoint, checkpoint, "--overwrite") == 2
    assert command(checkpoint, tmp_path / "model.pt") == 2
    assert models.load_checkpoint(checkpoint)
    assert command(checkpoint, tmp_path / "model.onnx", "--data-dir", tmp_path) == 2
    errors = capsys.readouterr().err
    for text in (
        "not a checkpoint",
        "No checkpoint at",
        "Cannot write",
        "no images",
        "must end in .onnx",
        "checkpoint itself",
    ):
        assert text in errors


def test_without_a_data_folder_a_random_input_is_compared_on(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = models.load_checkpoint(small)
    save(small, checkpoint | {"config": checkpoint["config"] | {"DATA_DIR": "gone"}})
    export.main([str(small), "m.onnx"])
    assert "largest difference from PyTorch, random input" in capsys.readouterr().out


def test_a_damaged_picture_is_not_compared_on_and_not_the_end(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"")
    picture().save(tmp_path / "images" / "b.jpg")
    assert len(export.real_images(tmp_path, 32, must=True)) == 1


def test_half_precision_halves_the_file_and_hardly_changes_what_it_says(checkpoints, tmp_path):
    export.halve(checkpoints["multitask"], tmp_path / "half.pth")
    assert (tmp_path / "half.pth").stat().st_size < 0.52 * checkpoints["multitask"].stat().st_size
    image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, half = (models.load_model(path)(image) for path in (checkpoints["multitask"], tmp_path / "half.pth"))
    assert all(torch.allclose(whole[name], half[name], atol=0.02) for name in whole)
