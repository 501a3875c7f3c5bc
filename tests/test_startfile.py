"""Weights from a file: what fits is taken, what does not is named, and another network is refused."""

import json
import re
import sys

import pandas as pd
import pytest
import torch
from conftest import RESNET, picture, quick, saved
from torch import nn
from torchvision.models import resnet18, resnet34

import models
import train
from checkpoints.startfile import choose_start, initial_model, read_start
from checkpoints.trained import Trained
from dataset.csvfile import read_back


@pytest.fixture
def foreign(tmp_path):
    """Saves something, and says what a classifier of two classes on a ResNet-18 takes of it."""

    def start(content, encoder="resnet18", n_classes=2):
        torch.save(content, tmp_path / "weights.pth")
        model = models.Classifier(n_classes, encoder=encoder)
        return model, read_start(tmp_path / "weights.pth").give(model, "ab"[:n_classes])

    return start


PREFIXES = {
    "": "",
    "module.": "state_dict",
    "module.encoder_q.": "state_dict",
    "backbone.": "model",
    "net.encoder.": "",
}


@pytest.mark.parametrize(("prefix", "key"), PREFIXES.items())
def test_a_state_dict_of_the_same_network_is_taken_whatever_stands_before_its_names(prefix, key, foreign):
    state = resnet18().state_dict()
    named = {prefix + name: value for name, value in state.items()} | {"queue": torch.zeros(3)}
    model, words = foreign({key: named, "epoch": 3} if key else named)
    assert torch.equal(model.encoder.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert "100 of 102 tensors are taken from weights.pth" in words
    assert "heads.label.linear.weight is missing" in words and f"Not used: {prefix}fc.bias" in words


def test_of_two_networks_of_equal_names_the_first_is_taken(foreign):
    states = [resnet18().state_dict() for _ in "qk"]
    both = {f"encoder_{which}.{name}": value for which, state in zip("qk", states) for name, value in state.items()}
    model, _ = foreign(both)
    assert torch.equal(model.encoder.conv1.weight, states[0]["conv1.weight"])


def test_of_several_entries_of_one_size_the_first_is_taken_and_named_with_the_others(tmp_path):
    """As in files of DINO."""
    first, second = (resnet18().state_dict() for _ in range(2))
    torch.save({"student": first, "teacher": second, "args": {"lr": 1}}, tmp_path / "dino.pth")
    start = read_start(tmp_path / "dino.pth")
    assert torch.equal(start.weights["conv1.weight"], first["conv1.weight"])
    assert start.words.endswith("), entry 'student' (not used: teacher).")


def test_timms_names_of_efficientnet_lite_are_taken_in_their_order(foreign):
    """Its state dict has the tensors of ours, label layer included, in the order of the layers."""
    source = models.Classifier(2, encoder="efficientnet_lite0")
    layer = source.heads["label"].layer.state_dict()
    state = [*source.encoder.state_dict().items(), *layer.items(), ("classifier", torch.zeros(5))]
    model, words = foreign(
        {f"{i}.{name.split('.')[-1]}": value for i, (name, value) in enumerate(state)}, "efficientnet_lite0"
    )
    for one, other in zip(source.encoder.state_dict().values(), model.encoder.state_dict().values()):
        assert torch.equal(one, other)
    assert torch.equal(model.heads["label"].layer[0].weight, source.heads["label"].layer[0].weight)
    assert "heads.label.linear.weight is missing" in words


def odd_stem():
    return resnet18().state_dict() | {"conv1.weight": torch.zeros(64, 1, 7, 7)}


def cut_short(state):
    return {name: value for name, value in state.items() if name != "layer4.1.bn2.bias"}


def test_the_old_names_in_torchvisions_files_of_densenets_are_understood(foreign):
    source = models.Classifier(2, encoder="densenet121").encoder.state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(?=[12]\.)", r"\1.", name): value for name, value in source.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    model, _ = foreign(old, "densenet121")
    assert all(torch.equal(value, source[name]) for name, value in model.encoder.state_dict().items())


def test_the_weights_of_a_shallower_network_are_refused(foreign):
    with pytest.raises(ValueError, match=r"does not fit resnet34: layer1.2.conv1.weight is missing"):
        foreign(resnet18().state_dict(), "resnet34")


def test_a_tensor_of_another_shape_is_left_and_named(foreign):
    _, words = foreign(odd_stem())
    assert "encoder.conv1.weight is (64, 1, 7, 7), expected (64, 3, 7, 7)" in words and "99 of 102" in words


def test_a_layer_that_stays_random_is_not_frozen(tmp_path):
    torch.save(odd_stem(), tmp_path / "weights.pth")
    identity = {"encoder": "resnet18", "dropout": 0, "drop_path": 0, "freeze": "early-stages"}
    start = read_start(tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"keep random weights.*encoder.conv1.weight is \(64, 1, 7, 7\)"):
        initial_model("classification", ("a", "b"), start, identity)
    initial_model("classification", ("a", "b"), start, identity | {"freeze": "nothing"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: resnet34().state_dict(), r"does not fit resnet18: layer1.2.*is not a layer of resnet18"),
        (lambda: cut_short(resnet18().state_dict()), r"does not fit resnet18: layer4.1.bn2.bias is missing"),
        (
            lambda: {"optimizer": {}, "history": [], "model": resnet18().state_dict()},
            "is a training state for --resume",
        ),
        (lambda: nn.Linear(3, 3).state_dict(), r"does not fit resnet18: weight is \(3, 3\), expected"),
        (lambda: {"a": 1}, "holds no weights"),
        (lambda: [torch.zeros(3)], "holds no weights"),
        (lambda: {"w": torch.tensor([float("nan")])}, "w has values that are not finite"),
        (lambda: nn.Linear(3, 3), "holds more than tensors and plain values"),
    ],
)
def test_another_network_and_what_holds_no_weights_are_refused(content, message, foreign):
    with pytest.raises(ValueError, match=message):
        foreign(content())


def test_an_image_is_no_file_of_weights_and_no_danger(tmp_path):
    picture().save(tmp_path / "photo.jpg")
    with pytest.raises(ValueError, match=r"photo.jpg is not a file of weights, or is damaged\.$"):
        read_start(tmp_path / "photo.jpg")


def test_a_missing_start_is_refused_before_a_large_data_folder_is_decoded(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--start-from", str(tmp_path / "no.pth")) == 2
    assert "there is no file" in capsys.readouterr().err and not (tmp_path / "cache").exists()


def test_a_missing_a_damaged_and_an_unreadable_file_are_one_message(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="Name a file of weights"):
        choose_start(str(tmp_path / "no.pth"), "auto", "resnet18")
    (tmp_path / "cut.pth").write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match="or is damaged"):
        read_start(tmp_path / "cut.pth")
    (tmp_path / "a.safetensors").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ValueError, match="needs: pip install safetensors"):
        read_start(tmp_path / "a.safetensors")


def test_safetensors_are_read(tmp_path):
    library = pytest.importorskip("safetensors.torch", reason="pip install -r requirements-dev.txt")
    state = {name: value.clone() for name, value in resnet18().state_dict().items()}
    library.save_file(state, tmp_path / "a.safetensors")
    model = models.Segmenter()
    words = read_start(tmp_path / "a.safetensors").give(model, ())
    assert torch.equal(model.encoder.conv1.weight, state["conv1.weight"]) and "heads.mask" in words


def test_sorted_tensors_of_unknown_names_are_refused_with_the_format_that_keeps_their_order(tmp_path):
    library = pytest.importorskip("safetensors.torch", reason="pip install -r requirements-dev.txt")
    state = models.Classifier(2, encoder="mobilenet_v3_small").encoder.state_dict()
    library.save_file(
        {f"timm_{i:03}": value.clone() for i, value in enumerate(reversed(state.values()))}, tmp_path / "a.safetensors"
    )
    with pytest.raises(ValueError, match=r"save it as \.pth"):
        read_start(tmp_path / "a.safetensors").give(models.Segmenter(encoder="mobilenet_v3_small"), ())


# Checkpoints of this project


def test_a_checkpoint_gives_its_encoder_and_the_heads_that_fit(checkpoints):
    """The last layer of labels is not that of other classes, even if there are as many; the decoder is."""
    start = read_start(checkpoints["multitask"])
    weights = models.load_checkpoint(checkpoints["multitask"])["weights"]
    classes = models.load_checkpoint(checkpoints["multitask"])["classes"]
    model = models.MultiTask()
    assert "Not taken" not in start.give(model, classes)
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())
    assert torch.equal(model.encoder.bn1.running_var, weights["encoder.bn1.running_var"])
    other = models.MultiTask()
    words = start.give(other, [*classes[:-1], "SCC"])
    assert "heads.label.linear.weight is of other classes" in words
    assert torch.equal(other.heads["mask"].logits.weight, weights["heads.mask.logits.weight"])
    assert not torch.equal(other.heads["label"].linear.weight, weights["heads.label.linear.weight"])


def test_a_head_that_is_not_used_is_named_as_one(checkpoints):
    names = models.load_checkpoint(checkpoints["multitask"])["weights"]
    n = sum(name.startswith("heads.mask.") and not name.endswith("num_batches_tracked") for name in names)
    model, classes = models.Classifier(), models.load_checkpoint(checkpoints["multitask"])["classes"]
    assert read_start(checkpoints["multitask"]).give(model, classes).endswith(f"Not used: heads.mask ({n} tensors).")


def test_a_checkpoint_on_another_encoder_is_refused_with_the_flag_that_fits(checkpoints):
    with pytest.raises(ValueError, match="a model on resnet18, not on resnet34: pass --encoder resnet18"):
        read_start(checkpoints["multitask"]).give(models.Classifier(encoder="resnet34"), ())


def test_what_a_start_was_trained_on_is_no_test_image_and_stays_known(demo_folder, finished, tmp_path, capsys):
    """On another split the start has seen test images; a checkpoint that starts from it has seen them as well."""
    before = read_back(finished / "splits.csv")
    trained = set(before.loc[before["split"] == "train", "lesion_id"])
    start = finished / "best_classification_model.pth"
    flags = ["--split-seed", "7", "--start-from", str(start), "--output-dir", str(tmp_path / "second")]
    assert quick(demo_folder, tmp_path, *flags) == 0
    printed = capsys.readouterr().out
    assert "test images show lesions that it was trained on and are left out" in printed
    after = read_back(tmp_path / "second" / "splits.csv")
    assert not trained & set(after.loc[after["split"].isin(["val", "test"]), "lesion_id"])
    content = models.load_checkpoint(tmp_path / "second" / "best_classification_model.pth")
    now = set(after.loc[after["split"] == "train", "lesion_id"])
    assert (
        set(content["trained_on"]["lesions"]) == now and set(content["seen_before"]["trained_on"]["lesions"]) == trained
    )
    assert Trained.load(tmp_path / "second" / "best_classification_model.pth").learned_from(
        after.loc[after["split"] == "train", "image"]
    )
    assert content["initial_weights"] == content["initial_file"]
    assert content["initial_weights"].startswith("best_classification_model.pth (SHA-256 ")
    page = (tmp_path / "second" / "report.html").read_text()
    assert "scratch" not in page and "Started from weights of: best_class" in page and "ImageNet weights" not in page
    again = ["--evaluate-only", "--split-seed", "7", "--output-dir", str(tmp_path / "second")]
    assert quick(demo_folder, tmp_path, *again) == 0  # on the images of the training's own test set
    pd.testing.assert_frame_equal(read_back(tmp_path / "second" / "splits.csv"), after)


def test_other_data_that_the_start_has_seen_are_not_evaluated_on(demo_folder, folder, finished, tmp_path, capsys):
    for i in range(4):
        folder.add(f"MEL_{i}", "MEL")
    content = models.load_checkpoint(finished / "best_classification_model.pth")
    content |= {"trained_on": {"images": ["MEL_0"]}, "chosen_on": {"images": ["MEL_1"]}}
    torch.save(content, tmp_path / "start.pth")
    flags = ["--start-from", tmp_path / "start.pth", "--external-dir", folder.write().path]
    assert quick(demo_folder, tmp_path, *flags) == 0
    words = f"2 images of {folder.path} show lesions that {tmp_path / 'start.pth'} was trained on or chosen by"
    assert words in capsys.readouterr().out and words in (tmp_path / "outputs" / "report.html").read_text()
    tested = read_back(tmp_path / "outputs" / "external" / "classification" / "predictions.csv")
    assert list(tested["image"]) == ["MEL_2", "MEL_3"]


def test_a_checkpoint_that_does_not_tell_its_training_images_is_as_a_foreign_one(tmp_path):
    saved(models.Classifier(), "classification", tmp_path / "mine.pth")
    (caution,) = read_start(tmp_path / "mine.pth").cautions(pd.DataFrame(), "nothing")
    assert "does not record its training images" in caution


def test_a_start_within_the_outputs_is_refused_as_they_are_moved_aside(demo_folder, finished, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        quick(demo_folder, tmp_path, "--start-from", finished / "best_classification_model.pth")
    assert "contains START_FROM" in capsys.readouterr().err


def test_the_start_is_named_in_report_and_identity_and_a_foreign_ones_images_are_unknown(demo_folder, tmp_path, capsys):
    torch.save(resnet18().state_dict(), tmp_path / "mine.pth")
    flags = [*RESNET, "--start-from", str(tmp_path / "mine.pth")]
    assert quick(demo_folder, tmp_path, *flags) == 0
    page = (tmp_path / "outputs" / "report.html").read_text()
    assert "mine.pth (SHA-256" in page and "does not record its training images" in page
    assert "The models start from mine.pth" in capsys.readouterr().out
    torch.save(resnet18().state_dict(), tmp_path / "mine.pth")
    assert quick(demo_folder, tmp_path, *flags, "--resume") == 2
    assert "initial weights was mine.pth" in capsys.readouterr().err


def test_an_unfit_start_ends_before_anything_is_written(demo_folder, tmp_path, capsys):
    torch.save(resnet34().state_dict(), tmp_path / "mine.pth")
    assert quick(demo_folder, tmp_path, *RESNET, "--start-from", str(tmp_path / "mine.pth")) == 2
    assert (
        "Pass the --encoder that the weights belong to" in capsys.readouterr().err
        and not (tmp_path / "outputs").exists()
    )
    with pytest.raises(SystemExit, match="2"):
        quick(demo_folder, tmp_path, "--start-from", "mine.pth", "--pretrained", "yes")


# Frozen parts


@pytest.mark.parametrize(("part", "learns"), [("encoder", "none"), ("early-stages", "layer4"), ("nothing", "")])
def test_a_frozen_part_keeps_its_weights_and_statistics_in_a_whole_run(part, learns, demo_folder, tmp_path, capsys):
    state = {name: value + 0 for name, value in resnet18().state_dict().items()}
    torch.save(state, tmp_path / "mine.pth")
    flags = [*RESNET, "--start-from", str(tmp_path / "mine.pth"), "--freeze", part, "--classification-lr", "0.1"]
    assert quick(demo_folder, tmp_path, *flags) == 0
    weights = models.load_checkpoint(tmp_path / "outputs" / "best_classification_model.pth")["weights"]
    same = {name for name, value in state.items() if torch.equal(value, weights.get(f"encoder.{name}", value))}
    for name in state.keys() - {"fc.weight", "fc.bias"}:
        frozen = not name.startswith(learns)
        assert (name in same) == frozen, name
    assert not torch.equal(weights["heads.label.linear.bias"], models.Classifier().heads["label"].linear.bias)
    assert ("parameters are trained" in capsys.readouterr().out) == (part != "nothing")
    identity = json.loads((tmp_path / "outputs" / "record.json").read_text())["tasks"]["classification"]["identity"]
    assert identity["freeze"] == part


def test_frozen_batch_norms_stay_so_after_each_validation():
    model = models.MultiTask()
    model.freeze("early-stages")
    for mode in (True, False, True):
        model.train(mode)
        assert not model.encoder.bn1.training and not model.encoder.layer3.training
        assert model.encoder.layer4[0].bn1.training == mode == model.heads["mask"].training


def test_freezing_random_weights_is_a_caution_and_an_unknown_last_stage_a_refusal(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--freeze", "encoder") == 0
    words = "The frozen layers (FREEZE encoder) start from random weights"
    assert words in capsys.readouterr().out and words in (tmp_path / "outputs" / "report.html").read_text()
    assert quick(demo_folder, tmp_path, "--freeze", "early-stages") == 2
    assert "tiny does not tell its last stage" in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "outputs" / "classification" / "history.csv")) == 1  # the first run's


@pytest.mark.parametrize("flags", [("--drop-path", "0.1"), ("--encoder-lr-scale", "0.1")])
def test_settings_of_an_encoder_that_is_frozen_are_refused(flags, demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--freeze", "encoder", *flags) == 2
    assert "DROP_PATH and ENCODER_LR_SCALE have nothing to act on" in capsys.readouterr().err


def test_frozen_parts_have_no_place_in_the_optimizer():
    model = models.Classifier()
    model.freeze("encoder")
    groups = train.parameter_groups(model, train.Recipe(1, 4, 0.1))
    assert sum(one.numel() for group in groups for one in group["params"]) == 512 * 7 + 7
    n_all = sum(one.numel() for one in model.parameters())
    assert f"3,591 of {n_all:,} parameters are trained" in model.freeze("encoder")
