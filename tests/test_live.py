import base64
import re
from datetime import datetime
from types import SimpleNamespace

import pytest
from accessibility import violations_of_file
from test_page import CHROMIUM, needs_chromium

import models
from report import live
from report.folder import RunFolder
from report.results import evaluated_as


def rows(n):
    """A history whose second epoch is the best."""
    losses = [0.9, 0.5, 0.7, 0.8, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7]
    row = {"train_loss": 1.25, "val_label_accuracy": 0.75, "train_seconds": 3.21}
    return [{"epoch": i + 1, "val_loss": losses[i], **row} for i in range(n)]


def watching(folder, to_come, epochs_after):
    """A training of 10 epochs, and what takes so many epochs of it afterwards."""
    work = [live.Work("classification", 10, 1, 0, 3 * epochs_after)]
    shown = live.Live(folder, work, "resnet18")
    shown.to_come = to_come
    return shown


@pytest.fixture
def watch(tmp_path):
    folder = RunFolder(tmp_path, "synthetic demo data")
    return watching(folder, ["segmentation", "multitask"], 30)


def page_of(tmp_path):
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_from_the_first_epoch_on_there_are_curves_and_a_page_that_loads_itself_again(tmp_path, watch):
    watch(rows(1))
    html, curves = page_of(tmp_path), (tmp_path / "classification" / "training_curves.png").read_bytes()
    assert "Reload this page every 10 seconds" in html and base64.b64encode(curves).decode() in html
    assert f"<title>1/10 classification, {tmp_path.name} ({tmp_path.parent.name})</title>" in html
    assert "epoch 1 of 10" in html and "Then: segmentation, multitask." in html and "synthetic demo data" in html
    watch(rows(2))
    assert (tmp_path / "classification" / "training_curves.png").read_bytes() != curves
    assert re.search(
        r"<th scope=.row.>2, the best</th><td>1.2500</td><td>0.5000</td><td>0.7500</td><td>3.2</td>", page_of(tmp_path)
    )


@needs_chromium
def test_the_page_loads_itself_again_until_the_reader_stops_it(tmp_path, watch):
    watch(rows(1))
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        tab = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        tab.clock.install()
        tab.goto((tmp_path / "report.html").as_uri())
        watch(rows(2))
        tab.clock.run_for(9_000)
        assert "epoch 1 of 10" in tab.inner_text("h1")
        with tab.expect_navigation():
            tab.clock.run_for(1_001)
        assert "epoch 2 of 10" in tab.inner_text("h1")
        watch(rows(3))
        tab.uncheck("#reload")
        tab.clock.run_for(60_000)
        assert "epoch 2 of 10" in tab.inner_text("h1")


@needs_chromium
def test_the_page_breaks_no_rule_of_accessibility(tmp_path, watch):
    watch(rows(2))
    assert violations_of_file(tmp_path / "report.html", CHROMIUM) == []


def test_the_axes_run_to_the_last_epoch_that_is_planned(watch, monkeypatch):
    drawn, draw = [], live.visualize.training_curves
    monkeypatch.setattr(live.visualize, "training_curves", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    watch(rows(1))
    assert [axis.get_xlim() for axis in drawn[0].axes] == [(0.5, 10.5)] * 2


def test_what_the_run_has_taken_is_kept_each_epoch(tmp_path, watch, monkeypatch):
    """A run that is killed says later what its epochs took."""
    monkeypatch.setattr(watch.folder, "_started", live.time.monotonic() - 100)
    watch(rows(1))
    assert RunFolder(tmp_path).read_record()["seconds"] >= 100


def test_the_page_shows_the_last_epochs_only_and_says_when_the_model_is_trained(tmp_path, watch):
    watch(rows(10))
    html = page_of(tmp_path)
    assert re.findall(r'<tr><th scope="row">(\d+)', html) == [str(epoch) for epoch in range(6, 11)]
    assert "Training is complete; evaluation is next." in html and "Training will take" not in html


def test_the_time_left_is_that_of_the_epochs_seen_and_not_of_those_before_an_interruption(
    tmp_path, watch, monkeypatch, capsys
):
    """Two epochs in 100 seconds after a start at epoch 4, of 10: four more take 200, and the run 30 epochs longer."""
    now = iter(watch.started + seconds for seconds in (60, 60, 100, 100))  # each is asked for twice
    monkeypatch.setattr(live.time, "monotonic", lambda: next(now))
    watch(rows(5))
    assert "Training will take about 5 min, until " in page_of(tmp_path)
    assert "The rest of the run will take about 35 min, until " in page_of(tmp_path)
    told = r"To go: 5 of 10 epochs, then segmentation and multitask, about 35 min, until \d\d:\d\d( on [\d-]+)?\.\n"
    assert re.fullmatch(told, capsys.readouterr().out)
    watch(rows(6))
    assert "Training will take about 3 min, until " in page_of(tmp_path)
    assert "The rest of the run will take about 28 min, until " in page_of(tmp_path)
    assert not capsys.readouterr().out  # once is enough


@pytest.mark.parametrize(("n_done", "to_come", "told"), [(9, [], 1), (10, [], 0), (10, ["multitask"], 1)])
def test_nothing_is_told_when_nothing_is_to_go(tmp_path, capsys, n_done, to_come, told):
    watching(RunFolder(tmp_path), to_come, 1)(rows(n_done))
    assert capsys.readouterr().out.count("To go: ") == told


@pytest.mark.parametrize(
    "minutes, words",
    [
        (0.4, "less than a minute"),
        (9, "about 9 min, until 12:54"),
        (110, "about 1 h 50 min, until 14:35"),
        (120, "about 2 h, until 14:45"),
        (690, "about 11 h 30 min, until 00:15 on 2026-11-26"),
    ],
)
def test_the_time_left_is_told_in_words_and_on_the_clock(minutes, words):
    assert live.time_left(60 * minutes, datetime(2026, 11, 25, 12, 45)) == words


def test_what_follows_a_training_is_counted_in_its_epochs_by_images_and_each_models_operations(monkeypatch, tmp_path):
    """Three passes a training image and one a validation image are an epoch; measuring passes over val and test."""
    monkeypatch.setattr(models, "operations", lambda task, encoder: {"segmentation": 20, "classification": 10}[task])
    sizes = {"classification": (100, 20, 30), "segmentation": (40, 8, 12)}
    jobs = {
        task: SimpleNamespace(
            name=task,
            recipe=SimpleNamespace(epochs=5),
            batches={part: SimpleNamespace(n_images=n) for part, n in zip(("train", "val", "test"), parts)},
        )
        for task, parts in sizes.items()
    }
    epochs, evaluating = [10 * 320, 20 * 128], [10 * 50, 20 * 20]

    def count(*tasks, tta=False):
        folder = RunFolder(tmp_path)
        watching = live.Live(
            folder, [live.work_left(folder, jobs[task], None, evaluated_as("", tta)) for task in tasks], "resnet18"
        )
        return watching.to_come, watching.epochs_after

    assert count("segmentation") == ([], evaluating[1] / epochs[1])
    both = ("classification", "segmentation")
    assert count(*both) == (["segmentation"], (5 * epochs[1] + sum(evaluating)) / epochs[0])
    RunFolder(tmp_path).write("segmentation/history.csv", "epoch\n1\n2\n")
    assert count(*both)[1] == (3 * epochs[1] + sum(evaluating)) / epochs[0]
    assert count("segmentation", tta=True) == ([], 8 * evaluating[1] / epochs[1])
    known = {"classification": {}, "segmentation": {"trained": True, "measured": None}}
    monkeypatch.setattr(RunFolder, "facts", lambda self, task: known[task])
    assert count(*both) == ([], sum(evaluating) / epochs[0])
    known["segmentation"]["measured"] = evaluated_as("", tta=False)
    assert count(*both) == ([], evaluating[0] / epochs[0])
