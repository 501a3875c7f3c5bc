"""Data folders of every kind, read, decoded and split; and another one to measure on."""

import json
import os
import shutil
import sys

import pandas as pd
import pytest
from conftest import quick
from processes import Forked

from dataset.prepare import Reading, decode_other


def test_what_another_data_set_shares_with_the_training_images_is_left_out_and_said(demo_folder, tmp_path, capsys):
    shutil.copytree(demo_folder, tmp_path / "copy")
    assert quick(demo_folder, tmp_path, "--external-dir", str(tmp_path / "copy"), "--test-fraction", "0.01") == 0
    assert "left out" in capsys.readouterr().out
    learned = pd.read_csv(tmp_path / "outputs" / "splits.csv")
    tested = learned.loc[learned["split"] == "test", "image"]
    report = pd.read_csv(tmp_path / "outputs" / "external" / "data_report.csv", keep_default_na=False)
    assert set(report.loc[report["status"] == "used", "image"]) <= set(tested)
    assert "overlap with the training data and are left out" in (tmp_path / "outputs" / "report.html").read_text()


def test_a_wrong_external_folder_is_refused_before_training_and_writes_nothing(demo_folder, tmp_path, capsys):
    assert quick(demo_folder, tmp_path, "--external-dir", str(tmp_path / "nowhere")) == 2
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "outputs").exists()


def test_a_folder_with_bad_files_still_trains_and_reports_each_row(folder, tmp_path, capsys):
    folder.fill()
    (folder.path / "images" / "NV_0.jpg").write_bytes(b"")
    (folder.path / "masks" / "NV_1_segmentation.png").unlink()
    folder.rows.append(["../x", 1, 0, 0, 0, 0, 0, 0])
    folder.add("NV_4")
    folder.add("NV_5")
    folder.write()
    assert quick(folder.path, tmp_path) == 0
    report = pd.read_csv(tmp_path / "outputs" / "data_report.csv", keep_default_na=False)
    assert len(report) == len(folder.rows)
    assert report["status"].value_counts().to_dict() == {"used": 28, "left out": 2, "classification only": 1}
    printed = capsys.readouterr().out
    assert "1 left out: image: file is empty (e.g. NV_0)" in printed and "unsafe name" in printed


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are Unicode")
def test_a_folder_whose_name_is_no_utf_8_is_used(demo_folder, tmp_path):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/data\xff")
    shutil.copytree(demo_folder, place)
    done = Forked(quick, place, tmp_path, encoding="ascii").ended()
    assert done.returncode == 0, done.stderr
    assert "\\udcff" in (tmp_path / "outputs" / "report.html").read_text(encoding="utf-8")


def test_a_folder_without_masks_still_classifies(folder, tmp_path, capsys):
    folder.fill()
    shutil.rmtree(folder.path / "masks")
    assert quick(folder.path, tmp_path, "--tasks", "classification", "segmentation", "multitask") == 0
    assert "for segmentation, multitask" in capsys.readouterr().out
    assert (tmp_path / "outputs" / "best_classification_model.pth").exists()
    assert quick(folder.path, tmp_path, "--tasks", "segmentation") == 2
    assert "<image>_segmentation.png" in capsys.readouterr().err


def test_a_class_of_too_few_lesions_is_one_message(folder, tmp_path, capsys):
    folder.fill()
    folder.rows = [row for row in folder.rows if row[0] not in ("DF_2", "DF_3")]
    folder.write()
    assert quick(folder.path, tmp_path) == 2
    assert "Class DF (Dermatofibroma) has 2 lesion(s)" in capsys.readouterr().err


def test_an_absent_class_does_not_stop_the_run(folder, tmp_path, capsys):
    folder.fill()
    folder.rows = [row for row in folder.rows if not row[0].startswith("VASC")]
    folder.write()
    assert quick(folder.path, tmp_path) == 0
    assert "VASC (Vascular Lesion) has no image" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "outputs" / "classification" / "metrics.json").read_text())
    assert metrics["label"]["per_class"]["VASC"]["recall"] is None


def test_a_column_for_groups_that_another_data_set_lacks_is_said_and_does_not_stop_the_run(put, tmp_path):
    folder = put({"images/a.jpg": "photo", "t.csv": ["image,label,camera", "a,mel,X"]})
    said, place = [], {"image_size": 32, "cache_dir": tmp_path / "cache"}
    reading = Reading(columns=("camera", "lens"))
    table, _ = decode_other(folder, reading, ("MEL", "NV"), **place, say=said.append)
    assert table["column camera"].tolist() == ["X"] and "column lens" not in table
    assert "has the column lens with a known value" in said[0] and "Its columns are: image, label, camera." in said[0]


@pytest.mark.parametrize("what", ["none is there", "no class of the model", "all are damaged"])
def test_another_data_set_without_an_image_that_can_be_used_is_one_message(put, tmp_path, what):
    label = "wart" if what == "no class of the model" else "mel"
    folder = put(
        {"images/a.jpg": "photo" if label == "wart" else b"no picture", "t.csv": ["image,label", f"a,{label}"]}
    )
    if what == "none is there":
        (folder / "images" / "a.jpg").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=r"no image to evaluate|None of the images"):
        decode_other(folder, Reading(), ("MEL", "NV"), image_size=32, cache_dir=tmp_path / "cache", say=str)
