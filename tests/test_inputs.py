"""Which pictures a command line names, what their outputs are called, and what is never written over."""

import shutil
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
from conftest import disc, picture, rows_of, run

from inference.inputs import Listed, as_predicted, list_images, output_names, refuse_data_folder


def test_no_two_files_share_an_output_name(tmp_path):
    names = ["a/x.jpg", "b/x.jpg", "a/x.png", "a/X.jpg", "a/y.v1.jpg", "a/y.v2.jpg"]
    found = output_names([tmp_path / name for name in names])
    assert len({name.casefold() for name in found}) == len(names)
    assert found[1] == "b/x" and found[4] == "a/y.v1"


def test_a_data_folder_is_never_written_into(tmp_path):
    copy = tmp_path / "data"
    (copy / "masks").mkdir(parents=True)
    (copy / "GroundTruth.csv").write_text("image\n")
    for folder in (copy, copy / "masks", copy / "images"):
        with pytest.raises(ValueError, match="Name another --output-dir"):
            refuse_data_folder(folder)
    refuse_data_folder(copy / "predictions")
    refuse_data_folder(tmp_path / "elsewhere" / "predictions")


def test_folders_that_are_links_are_searched_once(tmp_path):
    photos = tmp_path / "photos"
    for folder in (photos, tmp_path / "more"):
        folder.mkdir()
    picture(1).save(photos / "one.png")
    picture(7).save(tmp_path / "more" / "seven.png")
    (photos / "linked").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "up").symlink_to(photos)
    files = [one.file for one in list_images([str(photos)], tmp_path / "out")]
    assert files == [str(photos / "one.png"), str(photos / "linked" / "seven.png")]
    (photos / "a").symlink_to(tmp_path / "more")
    both = [one.file for one in list_images([str(photos), str(tmp_path / "more")], tmp_path / "out")]
    assert both == [str(photos / "one.png"), str(tmp_path / "more" / "seven.png")]


# What is passed over


@pytest.fixture
def lay(tmp_path):
    """Saves pictures by name below a folder, masks where the name ends in png."""

    def save(*names):
        for number, name in enumerate(names):
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".heic", ".avif"):
                path.write_bytes(b"x")
            else:
                (disc() if path.suffix == ".png" else picture(number)).save(
                    path, "JPEG" if path.suffix[:2] == ".j" else None
                )
        return tmp_path / "in"

    return save


def listed_in(folder, output_dir="elsewhere"):
    passed = Counter()
    found = list_images([str(folder)], Path(output_dir), passed)
    return {Path(one.file).relative_to(folder).as_posix(): one.problem for one in found}, dict(passed)


def test_masks_are_passed_over_and_counted(lay):
    names = ["masks/a_segmentation.png", "images/a_mask.png", "images/a_lesion.png", "images/b.png", "deep/gt/a.png"]
    found, passed = listed_in(lay("images/a.jpg", "images/b.jpg", *names))
    assert found == {"images/a.jpg": "", "images/b.jpg": ""} and passed == {"masks": 5}


def test_a_photograph_whose_own_name_ends_in_lesion_is_predicted(lay):
    assert set(listed_in(lay("a.jpg", "a_lesion_1.jpg", "a_lesion.png"))[0]) == {"a.jpg", "a_lesion_1.jpg"}


def test_a_folder_of_masks_that_is_named_itself_is_predicted(lay):
    assert list(listed_in(lay("masks/a.png") / "masks")[0]) == ["a.png"]


@pytest.mark.parametrize("mark", ["record.json", "predictions.run.json"])
def test_what_we_have_written_is_passed_over_whole_and_counted(lay, mark):
    folder = lay("a.jpg", "outputs/x.png", "outputs/overlays/a.jpg", "outputs/figures/deep/b.png")
    (folder / "outputs" / mark).write_text("{}")
    assert listed_in(folder) == ({"a.jpg": ""}, {"written by main.py or predict.py": 3})


def test_jpegs_of_every_suffix_are_read_and_other_kinds_are_rows_of_skipped(lay):
    found, passed = listed_in(lay("a.jfif", "b.jpe", "c.heic", "d.avif"))
    assert found["a.jfif"] == found["b.jpe"] == "" and passed == {}
    assert found["c.heic"] == ".heic is not read: save it as JPEG, PNG or TIFF" and ".avif" in found["d.avif"]


def test_an_existing_output_is_kept_unless_told_otherwise(checkpoints, photos, tmp_path, capsys):
    """That of another picture too, which would have the same name."""
    command = [photos, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out"]
    assert run(photos / "b", *command[1:]) == 0
    shutil.copy(tmp_path / "out" / "masks" / "one.png", tmp_path / "out" / "masks" / "four.v2.png")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert run(*command) == 2
    assert "four.v2.png already exists" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert run(*command, "--overwrite") == 0


def test_outputs_are_not_taken_for_inputs(checkpoints, photos):
    command = [photos, "--checkpoint", checkpoints["multitask"], "--output-dir", photos / "predictions"]
    assert run(*command) == 0
    assert run(*command, "--overwrite") == 0
    assert len(rows_of(photos / "predictions")) == 5


def test_results_may_lie_beside_the_pictures(checkpoints, photos):
    command = ["--checkpoint", checkpoints["multitask"], "--output-dir", photos / "a"]
    assert run(photos / "a", *command) == 0
    assert run(photos / "a" / "one.jpg", *command, "--overwrite") == 0
    assert [row["output"] for row in rows_of(photos / "a")] == ["three", "two", "one"]


def test_a_picture_is_never_overwritten(checkpoints, photos, capsys):
    (photos / "masks").mkdir()
    picture(9).save(photos / "masks" / "x.png")
    before = (photos / "masks" / "x.png").read_bytes()
    command = ["--checkpoint", checkpoints["multitask"], "--output-dir", photos, "--overwrite"]
    assert run(photos / "masks" / "x.png", *command) == 2
    assert "is an input image" in capsys.readouterr().err
    assert (photos / "masks" / "x.png").read_bytes() == before


def test_a_file_named_twice_is_predicted_once(checkpoints, photos, tmp_path):
    out = tmp_path / "out"
    assert run(photos, photos / "a" / "one.jpg", f"{photos}/a/*", "--checkpoint", checkpoints["multitask"],
               "--output-dir", out) == 0  # fmt: skip
    assert len(rows_of(out)) == 5


def test_resuming_where_nothing_was_begun_replaces_no_file_of_the_users(checkpoints, photos, tmp_path, capsys):
    (tmp_path / "out" / "masks").mkdir(parents=True)
    (tmp_path / "out" / "masks" / "four.v2.png").write_text("mine")
    command = [photos, "--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out", "--resume"]
    assert run(*command) == 2 and "four.v2.png already exists" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_left_to_its_row_of_the_table(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"a")
    monkeypatch.setattr("inference.inputs.content_of", mock.Mock(side_effect=PermissionError(13, "Permission denied")))
    item = Listed(str(tmp_path / "a.jpg"), "a")
    assert as_predicted([item], [["elsewhere/a.jpg", "a", "", "00"]]) == [item]
