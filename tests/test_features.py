"""The encoder's pooled features of pictures and of data folders: in one file, labelled, resumed, refused."""

import csv
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import dies_after, picture, run, saved

import data
import models
import predict


def joined(folder):
    """The arrays of features.npz by name."""
    with np.load(folder / "features.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def by_hand(path, file, layer=None):
    """The mean of the encoder's deepest map for an image file, in float32."""
    model = models.load_model(path)
    with torch.inference_mode():
        deepest = model.encoder(data.load_image(file, model.image_size))[-1]
        return (layer(model)(deepest) if layer else deepest).mean(dim=(2, 3))[0].numpy()


@pytest.mark.parametrize("task", models.MODELS)
def test_they_are_the_mean_of_the_encoders_deepest_map_in_float32(task, checkpoints, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(photos, "--checkpoint", checkpoints[task], "--output-dir", out, "--features") == 0
    found = joined(out)
    assert found.keys() == {"image", "file", "features"}
    assert list(found["image"]) == ["four.v2", "a/one", "a/three", "a/two", "b/one"]
    assert found["features"].shape == (5, 512) and found["features"].dtype == np.float32
    for file, vector in zip(found["file"], found["features"]):
        assert vector == pytest.approx(by_hand(checkpoints[task], file), rel=1e-4, abs=1e-5)
    assert f"{out / 'features.npz'}: 5 images x 512 features, without labels" in capsys.readouterr().out


def test_the_label_head_is_linear_in_them_on_an_encoder_with_a_layer_of_its_own_too(tmp_path):
    path = tmp_path / "a.pth"
    saved(models.Classifier(encoder="efficientnet_lite0"), "classification", path)
    picture().save(tmp_path / "a.png")
    predictor = predict.Predictor(path, device="cpu", features=True)
    (found,) = predictor.predict([predictor.read(tmp_path / "a.png")])
    layer = by_hand(path, tmp_path / "a.png", lambda model: model.heads["label"].layer)
    assert found.features.shape == (1280,) and found.features == pytest.approx(layer, rel=1e-4, abs=1e-5)
    linear, image = (
        predictor.model.heads["label"].linear,
        data.load_image(tmp_path / "a.png", predictor.trained.image_size),
    )
    with torch.inference_mode():
        assert linear(torch.from_numpy(found.features)).tolist() == pytest.approx(
            predictor.model(image)["label"][0].tolist(), abs=1e-5
        )


def test_a_prediction_is_the_same_with_and_without_them(checkpoints):
    decoded = predict.DecodedImage(np.asarray(picture(3, (32, 32))), (32, 32))
    one, other = (
        predict.Predictor(checkpoints["multitask"], device="cpu", features=wanted).predict([decoded])[0]
        for wanted in (False, True)
    )
    assert one.features is None and one.probabilities.tolist() == other.probabilities.tolist()
    assert np.array_equal(one.mask, other.mask) and one.unlike == other.unlike


def test_views_have_those_of_the_unchanged_image(checkpoints):
    predictors = [predict.Predictor(checkpoints["multitask"], device="cpu", features=True, tta=tta) for tta in (0, 1)]
    decoded = predict.DecodedImage(np.asarray(picture(3, (32, 32))), (32, 32))
    one, of_views = (predictor.predict([decoded])[0].features for predictor in predictors)
    assert one == pytest.approx(of_views, abs=1e-5)


def test_as_csv_they_are_the_same_to_the_last_bit(checkpoints, photos, tmp_path):
    command = [photos, "--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out", "--features"]
    assert run(*command) == 0
    before = joined(tmp_path / "out")
    assert run(*command, "csv", "--resume") == 0
    assert not (tmp_path / "out" / "features.npz").exists()
    header, *rows = csv.reader((tmp_path / "out" / "features.csv").open(encoding="utf-8"))
    assert header == ["image", "file", *(f"f{i}" for i in range(512))]
    assert [row[0] for row in rows] == list(before["image"])
    assert np.array_equal(np.array([row[2:] for row in rows], np.float32), before["features"])


def test_a_data_folders_labels_lesions_and_the_models_own_split_stand_beside_them(
    checkpoints, demo_folder, whole_run, tmp_path
):
    command = ["--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out", "--features"]
    picture(5).save(tmp_path / "another.png")
    assert run(demo_folder, tmp_path / "another.png", *command) == 0
    found = joined(tmp_path / "out")
    names = [name.rpartition("/")[2] for name in found["image"]]
    splits = pd.read_csv(whole_run[0] / "splits.csv").set_index("image")
    assert sorted(names) == sorted([*splits.index, "another"])
    for name, label, lesion, split in zip(names, found["label"], found["lesion_id"], found["split"]):
        if name == "another":
            assert (label, lesion, split) == ("", "", "")
        else:
            expected = splits.loc[name]
            assert (label, lesion) == (expected["label"], expected["lesion_id"])
            assert split == {"test": ""}.get(expected["split"], expected["split"])


def test_a_data_folder_that_cannot_be_read_is_named_and_a_folder_of_patients_is_no_class(
    checkpoints, photos, tmp_path, capsys
):
    command = [photos, "--checkpoint", checkpoints["classification"], "--output-dir"]
    assert run(*command, tmp_path / "one", "--features") == 0
    assert "label" not in joined(tmp_path / "one") and "written without labels" not in capsys.readouterr().out
    for name in ("GroundTruth.csv", "Other_GroundTruth.csv"):
        (photos / name).write_text("image,label\none,mel\ntwo,nv\nthree,nv\n")
    assert run(*command, tmp_path / "two", "--features") == 0
    assert f"The features of {photos} are written without labels: " in capsys.readouterr().out


def test_a_stopped_run_goes_on_to_the_same_features(checkpoints, photos, tmp_path, monkeypatch):
    command = [photos, "--checkpoint", checkpoints["multitask"], "--device", "cpu", "--features", "--output-dir"]
    assert run(*command, tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        dies_after(2, patch)
        assert run(*command, tmp_path / "parts") == 130
    assert not (tmp_path / "parts" / "features.npz").exists()
    picture(9).save(photos / "zzz.jpg")
    assert run(*command, tmp_path / "parts", "--resume") == 0
    whole, parts = joined(tmp_path / "whole"), joined(tmp_path / "parts")
    rows = [list(parts["file"]).index(file) for file in whole["file"]]
    assert len(parts["file"]) == 6 and parts["features"][rows] == pytest.approx(whole["features"], abs=1e-5)
    assert not list((tmp_path / "parts").glob("*.partial"))


def test_a_run_without_them_is_not_resumed_with_them_and_neither_is_changed(checkpoints, photos, tmp_path, capsys):
    command = [photos, "--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out"]
    assert run(*command, "--features") == 0
    before = (tmp_path / "out" / "features.npz").read_bytes()
    assert run(*command, "--resume") == 2
    assert "its table was made with --features. Use the same options" in capsys.readouterr().err
    assert run(*command) == 2 and "its table was made with --features. Use the same" in capsys.readouterr().err
    assert (tmp_path / "out" / "features.npz").read_bytes() == before
    assert run(*command, "--overwrite") == 0
    assert not (tmp_path / "out" / "features.npz").exists()  # as the table, it was an earlier run's
    assert run(*command, "--features", "--resume") == 2
    assert "its table was made without --features. Use the same options" in capsys.readouterr().err


def test_those_of_pictures_that_join_the_table_join_the_file(checkpoints, photos, tmp_path):
    command = ["--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out", "--features"]
    assert run(photos / "a", *command) == 0
    first = joined(tmp_path / "out")["features"]
    assert run(photos / "b", *command) == 0
    found = joined(tmp_path / "out")
    assert list(found["image"]) == ["one", "three", "two", "one-2"] and np.array_equal(found["features"][:3], first)


def test_a_skipped_picture_has_no_row_and_a_lost_file_of_one_is_named(checkpoints, photos, tmp_path, capsys):
    (photos / "empty.png").touch()
    command = [photos, "--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out", "--features"]
    assert run(*command) == 1
    assert "empty" not in joined(tmp_path / "out")["image"] and len(joined(tmp_path / "out")["features"]) == 5
    shutil.rmtree(tmp_path / "out" / "features" / "b")
    assert run(*command, "--resume") == 2
    assert f"{tmp_path / 'out' / 'features' / 'b' / 'one.npy'} is missing or damaged" in capsys.readouterr().err


def test_several_networks_and_a_path_in_the_place_of_the_format_are_refused(checkpoints, photos, tmp_path, capsys):
    both = ["--checkpoint", checkpoints["classification"], "--checkpoint", checkpoints["multitask"]]
    assert run(photos, *both, "--output-dir", tmp_path / "out", "--features") == 2
    assert "Features of several networks cannot be averaged" in capsys.readouterr().err
    assert run("--features", photos) == 2
    assert "name images before it, or --features=npz" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
