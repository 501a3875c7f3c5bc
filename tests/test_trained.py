"""What a trained model is measured by, alone and averaged over networks, flips and rotations."""

import json

import pytest
import torch
from conftest import metrics_in, quick
from torch.testing import assert_close

import models
from checkpoints import networks
from checkpoints.states import save
from checkpoints.trained import Trained
from evaluate import LOCALISING


@pytest.fixture(scope="module")
def checkpoints():
    """What `load_checkpoint` returns, of three untrained networks."""
    torch.manual_seed(0)
    found = {}
    for task in models.MODELS:
        model = models.MODELS[task](*([3] if task != "segmentation" else []))
        found[task] = {"task": task, "arguments": model.arguments, "classes": list("abc"), "image_size": 32}
        found[task] |= {"weights": model.state_dict(), "calibration": {"temperature": 2.0}}
    return found


@pytest.fixture
def image():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_an_average_over_turns_is_the_same_for_a_turned_picture(checkpoints, image):
    model = Trained({"a": checkpoints["multitask"]}, tta=True).network()
    upright, turned = model(image), model(torch.rot90(image, 1, (2, 3)).flip(3))
    assert_close(upright["label"], turned["label"], atol=1e-4, rtol=0)
    assert_close(torch.rot90(upright["mask"], 1, (2, 3)).flip(3), turned["mask"], atol=1e-4, rtol=0)


def test_the_eight_views_are_eight_different_pictures():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    assert len({tuple(view.flatten().tolist()) for _, view in networks.views(image)}) == 8


@torch.inference_mode()
def test_several_networks_give_the_mean_of_their_probabilities(checkpoints, image):
    model = Trained(checkpoints).network()
    output = model(image)
    alone = {task: models.build_model(checkpoint)(image) for task, checkpoint in checkpoints.items()}
    labels = [(alone[task]["label"] / 2).softmax(dim=1) for task in ("classification", "multitask")]
    masks = [alone[task]["mask"].sigmoid() for task in ("segmentation", "multitask")]
    assert_close(output["label"].softmax(dim=1), (labels[0] + labels[1]) / 2)
    assert_close(output["mask"].sigmoid(), (masks[0] + masks[1]) / 2)
    assert set(model.heads) == {"label", "mask"}


@torch.inference_mode()
def test_heat_maps_of_an_average_explain_its_own_likeliest_class(checkpoints, image):
    model = Trained({task: checkpoints[task] for task in ("classification", "multitask")}).network()
    label = model(image)["label"].argmax(dim=1)
    expected = sum(member.heat_map(image, label) for member in model.members) / 2
    assert_close(model.explain(image)["heat"], expected)


def test_networks_of_other_classes_or_sizes_are_refused_by_name(checkpoints):
    one = checkpoints["multitask"]
    for key, value in (("classes", list("abd")), ("image_size", 48)):
        with pytest.raises(ValueError, match=r"other.pth and one.pth cannot be averaged"):
            Trained({"one.pth": one, "other.pth": one | {key: value}})


def test_one_checkpoint_alone_is_the_network_itself(checkpoints):
    assert isinstance(Trained({"a": checkpoints["multitask"]}).network(), models.MultiTask)


def test_with_views_what_was_fitted_for_them_counts_and_else_the_temperature_alone(checkpoints, tmp_path):
    one = checkpoints["multitask"] | {"calibration": {"temperature": 2.0, "tau": 0.5}}
    alone, views = (Trained({tmp_path / "a.pth": one}, tta=tta) for tta in (False, True))
    assert alone.calibration == {"temperature": 2.0, "tau": 0.5} and alone.has_rule
    assert views.calibration == {"temperature": 2.0} and not views.has_rule
    views.keep(calibration={"temperature": 3.0, "tau": 0.25}, tested={"melanoma": {}})
    alone, views = (Trained.load(tmp_path / "a.pth", tta=tta) for tta in (False, True))
    assert views.calibration == {"temperature": 3.0, "tau": 0.25} and alone.calibration == {
        "temperature": 2.0,
        "tau": 0.5,
    }


def test_what_stands_in_the_file_already_is_not_written_again(checkpoints, tmp_path):
    one = Trained({tmp_path / "a.pth": dict(checkpoints["multitask"])})
    one.keep(calibration={"temperature": 2.0})
    assert not (tmp_path / "a.pth").exists()
    one.keep(calibration={"temperature": 2.5})
    assert Trained.load(tmp_path / "a.pth").temperature == 2.5


def test_of_an_average_no_tau_and_no_threshold_is_known(checkpoints):
    average = Trained(checkpoints)
    assert average.calibration == {"temperature": 1.0} and average.classes == list("abc") and average.name == "average"
    uncalibrated = checkpoints | {"b": checkpoints["multitask"] | {"calibration": {}}}
    assert not Trained(uncalibrated).is_calibrated and Trained(checkpoints).is_calibrated
    assert Trained({"a": checkpoints["segmentation"] | {"calibration": {}}}).is_calibrated  # no labels


def test_networks_of_other_encoders_are_averaged_and_named(checkpoints, image):
    other = models.Classifier(3, encoder="efficientnet_lite0")
    second = {**checkpoints["classification"], "initial_file": "x.pth"}
    second |= {"arguments": other.arguments, "weights": other.state_dict()}
    average = Trained({"a": checkpoints["classification"], "b": second})
    with torch.inference_mode():
        assert average.network()(image)["label"].shape == (2, 3)
    about = average.provenance()
    assert about["encoders"] == ["efficientnet_lite0", "resnet18"] and about["initial_files"] == ["x.pth"]


@torch.inference_mode()
def test_over_turns_the_logits_are_the_mean_of_those_of_the_eight_turned_pictures(checkpoints, image):
    alone = models.build_model(checkpoints["classification"])
    turned = [torch.rot90(image, k, (2, 3)) for k in range(4)]
    expected = sum(alone(view)["label"] for view in [*turned, *(view.flip(3) for view in turned)]) / 8
    found = Trained({"a": checkpoints["classification"]}, tta=True).network()(image)["label"]
    assert_close(found, expected, atol=1e-5, rtol=0)


def test_members_over_turns_have_the_temperatures_that_were_fitted_over_turns(checkpoints):
    both = {"calibration": {"temperature": 2.0}, "calibration_tta": {"temperature": 3.0}}
    members = {name: checkpoints["classification"] | both for name in "ab"}
    assert Trained(members, tta=True).network().temperatures == (3.0, 3.0)
    assert Trained(members).network().temperatures == (2.0, 2.0)


def test_several_checkpoints_are_measured_as_their_average_and_stay_as_they_are(whole_run, demo_folder, tmp_path):
    paths = [whole_run[0] / f"best_{task}_model.pth" for task in models.MODELS]
    before = [path.read_bytes() for path in paths]
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", *map(str, paths)) == 0
    found = metrics_in(tmp_path)
    assert found["averaged"] == list(map(str, paths)) and {"label", "mask"} <= set(found)
    assert [path.read_bytes() for path in paths] == before
    assert "average" in (tmp_path / "outputs" / "report.html").read_text()
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", *map(str, paths)) == 0
    assert metrics_in(tmp_path) == found


def test_one_named_checkpoint_is_measured_where_it_lies(whole_run, demo_folder, tmp_path):
    path = whole_run[0] / "best_classification_model.pth"
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", str(path)) == 0
    assert metrics_in(tmp_path, "classification") == json.loads(
        (whole_run[0] / "classification" / "metrics.json").read_text()
    )


def test_checkpoints_that_do_not_fit_are_refused_by_name(whole_run, demo_folder, tmp_path, capsys):
    path = whole_run[0] / "best_classification_model.pth"
    other = models.load_checkpoint(path)
    save(tmp_path / "other.pth", other | {"classes": [*other["classes"][:6], "SCC"]})
    command = ["--evaluate-only", "--checkpoints", str(path), str(tmp_path / "other.pth")]
    assert quick(demo_folder, tmp_path, *command) == 2
    assert "other.pth" in capsys.readouterr().err and not (tmp_path / "outputs" / "average").exists()
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", str(tmp_path / "no.pth")) == 2
    assert "No checkpoint at" in capsys.readouterr().err
    own = ["--output-dir", str(whole_run[0]), "--evaluate-only", "--checkpoints", str(path)]
    assert quick(demo_folder, tmp_path, *own) == 2
    assert "holds a run of its own" in capsys.readouterr().err


@pytest.mark.parametrize(("energy", "localises"), [(LOCALISING - 1e-3, False), (LOCALISING, True), (None, None)])
def test_heat_maps_localise_from_the_reports_limit_on(checkpoints, energy, localises):
    tested = {"heat_map": {"energy_in_mask": energy, "mask_area": 0.3, "n_images": 9}} if energy else {}
    one = checkpoints["multitask"] | {"tested": tested}
    assert Trained({"a": one}).localises is localises
    assert Trained({"a": one, "b": one}).localises is None


def test_a_model_learned_from_the_images_that_it_names_and_not_from_some_or_more(checkpoints):
    one = checkpoints["classification"] | {"trained_on": {"images": ["x", "y"]}}
    found = [Trained({"a": one}).learned_from(images) for images in (["y", "x"], ["x"], ["x", "y", "z"], [])]
    assert found == [True, False, False, False]
    assert not Trained({"a": one, "b": one}).learned_from(["x", "y"])
    assert not Trained({"a": checkpoints["classification"]}).learned_from([])
