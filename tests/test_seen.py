"""Which of today's images a model has learned from; these are no test images for it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import quick
from PIL import Image

import models
from checkpoints import seen
from checkpoints.states import save
from checkpoints.trained import Trained
from dataset import prepare, splits
from dataset import table as tables
from dataset.csvfile import read_back


def test_a_picture_that_was_saved_again_does_not_keep_a_model_from_being_measured(
    demo_folder, finished, tmp_path, capsys
):
    folder = shutil.copytree(demo_folder, tmp_path / "data")
    before = read_back(tmp_path / "outputs" / "classification" / "predictions.csv")
    train_image = pd.read_csv(tmp_path / "outputs" / "splits.csv").query("split == 'train'")["image"].iloc[0]
    path = folder / "images" / f"{train_image}.jpg"
    Image.open(path).save(path, quality=30)
    assert quick(folder, tmp_path, "--evaluate-only") == 0
    assert f"0 of {len(before)} test images show lesions that it was trained on" in capsys.readouterr().out
    pd.testing.assert_frame_equal(read_back(tmp_path / "outputs" / "classification" / "predictions.csv"), before)


def test_evaluate_only_leaves_out_the_test_images_whose_lesions_were_learned_from_and_counts_them(
    demo_folder, finished, tmp_path, capsys
):
    """Those of the model's validation set, by which its best epoch was chosen, too."""
    before = pd.read_csv(finished / "splits.csv")
    new = set(before.loc[before["split"] == "test", "lesion_id"])
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--split-seed", "7") == 0
    today = tables.read_table(demo_folder)
    today["split"] = splits.split_table(today, 0.15, 0.15, seed=7)
    test = today[today["split"] == "test"]
    expected = set(test.loc[test["lesion_id"].isin(new), "image"])
    assert 0 < len(expected) < len(test)
    outputs = finished
    assert set(read_back(outputs / "classification" / "predictions.csv")["image"]) == expected
    assert set(read_back(outputs / "splits.csv").query("split == 'test'")["image"]) == expected
    assert f"{len(test) - len(expected)} of {len(test)} test images show lesions" in capsys.readouterr().out
    reasons = read_back(outputs / "data_report.csv").set_index("image")["reason"]
    left_out = set(test["image"]) - expected
    assert set(reasons[list(left_out)]) == {"best_classification_model.pth was trained on this lesion"}


def test_a_model_that_learned_from_every_test_image_is_not_measured(whole_run, demo_folder, tmp_path, capsys):
    checkpoint = models.load_checkpoint(whole_run[0] / "best_classification_model.pth")
    every = {"trained_on": {"images": list(tables.read_table(demo_folder)["image"])}, "split_hash": "another"}
    save(tmp_path / "a.pth", checkpoint | every)
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", str(tmp_path / "a.pth")) == 2
    assert "no val image with a label is left" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_evaluate_only_wants_the_models_own_image_size(demo_folder, finished, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--image-size", "48") == 2
    assert "trained at --image-size 32, not 48" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_tell_what_it_learned_from_is_refused_in_words(
    whole_run, demo_folder, tmp_path, capsys
):
    checkpoint = models.load_checkpoint(whole_run[0] / "best_classification_model.pth")
    known = {name: value for name, value in checkpoint.items() if name not in ("split_hash", "trained_on")}
    save(tmp_path / "a.pth", known)
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", str(tmp_path / "a.pth")) == 2
    assert "a.pth does not record its training images" in capsys.readouterr().err


def six_rows():
    """Two rows a part, which differ in everything."""
    return pd.DataFrame(
        {
            "image": list("abcdef"),
            "lesion_id": list("uvwxyz"),
            "patient_id": list("mnopqr"),
            "split": ["train", "train", "val", "val", "test", "test"],
            "status": tables.USED,
            "reason": "",
            "crc": 0,
            "label": pd.Categorical(["MEL"] * 6),
        }
    )


@pytest.mark.parametrize("kind", ["images", "lesions", "patients"])
def test_an_image_was_learned_from_if_its_lesion_or_its_patient_was(kind):
    """The training's validation images are kept in today's, for nothing was learned from them; not in the test set."""
    table = six_rows()
    names = table[{"images": "image", "lesions": "lesion_id", "patients": "patient_id"}[kind]].tolist()
    checkpoint = {"task": "classification", "trained_on": {kind: [names[0], names[2]]}}
    checkpoint["chosen_on"] = {kind: [names[3], names[5]]}
    seen.leave_out_learned(Path("a.pth"), checkpoint, table)
    assert table["split"].tolist() == ["train", "train", "", "val", "test", ""]
    assert (table["status"] == tables.LEFT_OUT).tolist() == [False, False, True, False, False, True]


def test_what_the_start_of_a_model_has_seen_counts_as_seen_by_the_model():
    table = six_rows()
    before = {"trained_on": {"images": ["c"]}, "chosen_on": {"lesions": ["z"]}}
    checkpoint = {"task": "classification", "trained_on": {"images": ["a"]}, "seen_before": before}
    seen.leave_out_learned(Path("a.pth"), checkpoint, table)
    assert table["split"].tolist() == ["train", "train", "", "val", "test", ""]
    assert seen.seen_by(checkpoint)["trained_on"]["images"] == ["a", "c"]


def test_a_start_may_have_heads_whose_targets_these_data_lack():
    """Labels alone are learned from a multi-task model; to evaluate that, there must be masks."""
    checkpoint = {"task": "multitask", "trained_on": {}}
    for heads in ((), ("label",)):
        seen.leave_out_learned(Path("a.pth"), checkpoint, six_rows().assign(status=tables.LABEL_ONLY), heads)
    with pytest.raises(ValueError, match="no val image with a mask is left"):
        seen.leave_out_learned(
            Path("a.pth"), checkpoint, six_rows().assign(status=tables.LABEL_ONLY), models.MultiTask.outputs
        )


@pytest.mark.parametrize("use", ["trained_on", "chosen_on"])
def test_other_data_lose_what_a_model_has_seen_but_not_names_of_todays_data_or_mere_numbers(use):
    other = six_rows().assign(
        image=["a", "b2", "c", "d", "e", "7"], lesion_id=list("uvwxyz"), patient_id=list("mnopqr")
    )
    today = six_rows().assign(lesion_id="", patient_id="", status=[*[tables.USED] * 5, tables.LEFT_OUT])
    names = {"images": ["a", "b2", "7"], "lesions": ["x"], "patients": ["q"]}
    given = prepare.OtherSet("other", other, None, "None overlap.")
    found = seen.leave_out_of_other({Path("m/a.pth"): {use: names}}, given, today)
    assert list(found.table.loc[found.table["status"] == tables.USED, "image"]) == ["a", "c", "7"]
    assert found.left_out.endswith(
        "3 images of other show lesions that m/a.pth was trained on or chosen by; they are left out."
    )
    with pytest.raises(ValueError, match="has no image to evaluate"):
        everything = {"lesions": list("uvwxyz")}
        seen.leave_out_of_other({Path("a.pth"): {use: everything}}, given, today)


@pytest.mark.parametrize("same", [True, False])
def test_where_the_data_are_those_of_the_training_nothing_is_compared_by_name(same):
    table = six_rows()
    checkpoint = {"task": "classification", "classes": ["MEL"], "image_size": 32, "trained_on": {"images": ["e"]}}
    checkpoint["split_hash"] = splits.split_hash(table) if same else "another"
    seen.fit_to_data([Trained({Path("a.pth"): checkpoint})], 32, table)
    assert (table.loc[4, "status"] == tables.LEFT_OUT) != same


def test_a_file_has_the_name_of_an_image_in_whatever_folder_format_and_unicode_form():
    composed, split = "caf\u00e9_1", "cafe\u0301_1"
    trained = SimpleNamespace(
        checkpoints={"a.pth": {"trained_on": {"images": [composed]}, "chosen_on": {"images": ["b.v2"]}}}
    )
    files = [f"photos/{split}.JPG", composed, "b.v2.png", "b.png", "1.jpg"]
    assert seen.named_as_seen(trained, files).tolist() == [True, True, True, False, False]
