"""A folder belongs to one run: what an earlier one left there is moved aside whole, and the user's own files stay."""

import shutil

import pytest
from conftest import contents, disc, picture, quick

import machine
import models
from dataset.classes import HAM10000 as CLASSES
from report.folder import RunFolder


def test_a_folder_that_is_a_link_is_set_aside_again_and_again(tmp_path):
    """The link's target is renamed, and an empty folder is in its place, so that the link still leads somewhere."""
    disk = tmp_path / "disk" / "runs"
    disk.mkdir(parents=True)
    (tmp_path / "outputs").symlink_to(disk)
    for number in range(3):
        folder = RunFolder(tmp_path / "outputs")
        earlier = folder.start_anew("today")
        folder.write("best_classification_model.pth", f"{number}")
        assert (
            earlier is None
            if number == 0
            else (earlier / "best_classification_model.pth").read_text() == str(number - 1)
        )
    assert (tmp_path / "outputs").readlink() == disk and len(list(disk.parent.iterdir())) == 3


@pytest.mark.parametrize("below", ["", "below"])
def test_the_folder_that_one_is_in_is_not_moved_away(tmp_path, monkeypatch, below):
    """A relative path, such as that of the data, would lead into the renamed folder."""
    (tmp_path / "work" / "below").mkdir(parents=True)
    (tmp_path / "work" / "best_classification_model.pth").touch()
    monkeypatch.chdir(tmp_path / "work" / below)
    with pytest.raises(ValueError, match="is the current folder"):
        RunFolder(tmp_path / "work").start_anew("today")
    assert list(tmp_path.iterdir()) == [tmp_path / "work"]


def test_a_finished_run_keeps_its_weights_and_no_state(whole_run):
    """The demo's networks are the same ones, and weigh nearly all of it; a state is three times a network."""
    outputs, done = whole_run
    assert not [*outputs.rglob("last.pth"), *outputs.rglob("previous.pth")]
    assert sum(path.stat().st_size for path in outputs.rglob("*") if path.is_file()) < 200e6
    assert done.stdout.count("Training states are deleted when a model is finished.") == 1


def test_a_second_run_moves_the_first_aside_whole_and_reports_only_itself(demo_folder, folder, tmp_path, capsys):
    """All tasks and another data set; then a single task, another seed and a third data set, into the same folder."""
    for place in ("a", "b"):
        shutil.copytree(folder_of(folder, 8).path, tmp_path / place, dirs_exist_ok=True)
    everything = ["--tasks", *models.MODELS, "--external-dir", str(tmp_path / "a")]
    assert quick(demo_folder, tmp_path, *everything) == 0
    before = contents(tmp_path / "outputs")
    assert quick(demo_folder, tmp_path, "--seed", "7", "--external-dir", str(tmp_path / "b")) == 0
    (earlier,) = tmp_path.glob("outputs-*")
    assert str(earlier) in capsys.readouterr().out
    assert contents(earlier) == before
    html = (tmp_path / "outputs" / "report.html").read_text()
    assert not (tmp_path / "outputs" / "comparison.json").exists()
    assert "segmentation" not in html and "Multi-task against" not in html and str(tmp_path / "b") in html
    assert quick(demo_folder, tmp_path) == 0
    assert len(list(tmp_path.glob("outputs-*"))) == 2


def folder_of(folder, n):
    """Some sound images that no other test data hold."""
    for i in range(n):
        folder.add(f"other_{i}", CLASSES[i % 7], image=picture(1000 + i, (64, 48)), mask=disc((64, 48)))
    return folder.write()


def test_a_second_run_on_the_same_folder_at_once_is_refused(demo_folder, tmp_path, capsys):
    with machine.locked(tmp_path / "outputs"):
        assert quick(demo_folder, tmp_path) == 2
    assert "Another run is writing into" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_a_folder_of_the_users_own_files_is_not_moved(demo_folder, tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "notes.txt").write_text("mine")
    assert quick(demo_folder, tmp_path) == 0
    assert (tmp_path / "outputs" / "notes.txt").read_text() == "mine" and not list(tmp_path.glob("outputs-*"))


def test_a_folder_of_measurements_is_moved_aside_like_any_run(whole_run, demo_folder, tmp_path):
    both = [str(whole_run[0] / f"best_{task}_model.pth") for task in ("segmentation", "multitask")]
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", *both) == 0
    labels = [str(whole_run[0] / f"best_{task}_model.pth") for task in ("classification", "multitask")]
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", *labels) == 0
    assert len(list(tmp_path.glob("outputs-*"))) == 1
    assert quick(demo_folder, tmp_path) == 0
    assert len(list(tmp_path.glob("outputs-*"))) == 2 and not (tmp_path / "outputs" / "average").exists()
