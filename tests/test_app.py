"""The page in a real browser, and what it does with files."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, picture
from test_report import CHROMIUM

import predict
from dataset.classes import HAM10000, name_of
from decision import NO_TAU, Finding, Point

gradio = pytest.importorskip("gradio", reason="pip install -r requirements-app.txt")
playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r requirements-dev.txt")


@pytest.fixture
def page_address(whole_run, demo_folder, tmp_path):
    """app.py as a user starts it, and the folder that it may keep files in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, ROOT / "app.py", "--checkpoint", whole_run[0] / "best_multitask_model.pth"]
    command += ["--examples", demo_folder, "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "no_proxy": "127.0.0.1,localhost"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}/"
    for _ in range(240):
        time.sleep(0.5)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, (tmp_path / "log").read_text()
    yield address, tmp_path / "tmp", tmp_path / "log"
    process.terminate()
    process.wait()


@pytest.fixture
def visit(page_address):
    """Opens the page as a new visitor; no page may load anything from elsewhere or fail."""
    address, _, log = page_address
    errors, requests = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def open_page():
            page = browser.new_context(viewport={"width": 1100, "height": 1100}).new_page()
            page.on("request", lambda request: requests.append(request.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(address)
            page.get_by_text("not a medical device").wait_for()
            return page

        yield open_page
        browser.close()
    assert errors == []
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert "Traceback" not in log.read_text()


def results_of(page):
    """The captions of the pictures that are shown."""
    return [figure.inner_text() for figure in page.locator("figure").all()]


needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")


@needs_chromium
def test_a_picture_is_shown_with_classes_outline_and_heat_map(visit, page_address, demo_folder, tmp_path):
    shutil.copy(sorted((demo_folder / "images").iterdir())[0], tmp_path / "mine.jpg")
    page = visit()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "mine.jpg")
    page.locator("figure img").nth(1).wait_for()
    assert [("mine.jpg" in text) for text in results_of(page)] == [True, True]
    shown = page.inner_text("body")
    assert re.search(r"(Melanoma|Nevus|Lesion|Carcinoma|Keratosis|Dermatofibroma)\s*\d+%", shown)
    assert "Likeliest class: " in shown and "Balanced rule: " in shown
    assert re.search(r"Probability of a malignant lesion: [01]\.\d{4}, (above|below) the threshold", shown)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    shutil.copy(tmp_path / "page.png", os.environ.get("APP_SCREENSHOT", tmp_path / "copy.png"))
    assert not list(page_address[1].rglob("mine.jpg"))  # the examples may stay


@needs_chromium
def test_after_a_broken_file_nothing_of_the_picture_before_stays_but_the_explanation(visit, demo_folder, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    shutil.copy(sorted((demo_folder / "images").iterdir())[0], tmp_path / "mine.jpg")
    page = visit()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "mine.jpg")
    page.locator("figure img").nth(1).wait_for()
    page.get_by_label("Clear").first.click()
    page.locator("figure").first.wait_for(state="detached")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "mine.jpg")
    page.locator("figure img").nth(1).wait_for()
    page.get_by_label("Clear").first.click()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "text.jpg")
    page.get_by_role("alert").get_by_text("text.jpg cannot be used: not an image").wait_for()
    page.wait_for_timeout(1000)
    assert results_of(page) == [] and page.get_by_role("alert").count() == 1
    assert not re.search(r"\d+%|Likeliest|threshold", page.inner_text("body"))


@needs_chromium
def test_an_example_works_every_time_and_for_every_visitor(visit):
    for page in (visit(), visit()):
        for _ in range(2):
            page.locator(".gallery-item, .gallery button, button:has(img)").first.click()
            page.locator("figure img").nth(1).wait_for()
            assert all("synthetic_" in text for text in results_of(page))
            assert page.get_by_role("alert").count() == 0


def test_a_missing_checkpoint_is_one_message(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "app.py", "--checkpoint", "no.pth"], cwd=tmp_path,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and "No checkpoint at" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["99999", "taken"])
def test_a_port_that_cannot_be_had_is_one_message(port, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1]) if port == "taken" else port
        done = subprocess.run([sys.executable, ROOT / "app.py", "--checkpoint", "no.pth", "--port", port], cwd=tmp_path,
                              capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and "Cannot serve on" in done.stderr and "Traceback" not in done.stderr


def test_a_file_that_is_too_large_is_refused_with_its_size(whole_run, tmp_path, monkeypatch):
    import app

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setattr(app, "MAX_BYTES", 100)
    picture().save(tmp_path / "large.png")
    problem, *rest = app.look(str(tmp_path / "large.png"), None)
    assert "large.png cannot be used: it has" in problem and tuple(rest) == app.NOTHING[1:]
    assert (tmp_path / "large.png").exists()  # it is not an upload


def test_whatever_fails_nothing_is_shown_but_that_it_failed(tmp_path, monkeypatch):
    import app

    class Breaks:
        def read(self, content):
            raise RuntimeError("inside")

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    picture().save(tmp_path / "<b>.png")
    for path, reason in ((tmp_path / "<b>.png", "could not be processed"), (tmp_path / "gone.png", "no longer there")):
        problem, *rest = app.look(str(path), Breaks())
        assert reason in problem and "<b>." not in problem and tuple(rest) == app.NOTHING[1:]


def test_the_decisions_name_both_classes_and_both_thresholds_in_words():
    import app

    point = Point("melanoma", (0,), 0.2, 0.931, 0.658, 1499)
    findings = (Finding(point, 0.25), Finding(Point("malignant", (0, 2, 3), 0.4, None, None, None), 0.3))
    found = predict.Prediction((8, 8), np.eye(7)[1], None, None, balanced=0, findings=findings)
    assert app.decisions_of(found, [name_of(code) for code in HAM10000]) == (
        "<p>Likeliest class: <b>Nevus</b>.</p><p>Balanced rule: <b>Melanoma</b>.</p>"
        "<p>Probability of a melanoma: 0.2500, <b>above</b> the threshold 0.2000, which found 93 % of the melanomas "
        "and passed over 66 % of the rest in the test set (1,499 images).</p>"
        "<p>Probability of a malignant lesion: 0.3000, <b>below</b> the threshold 0.4000, fitted on the validation "
        "set; what it finds elsewhere is not known.</p>"
    )


def test_decisions_of_an_older_checkpoint_leave_out_what_it_lacks():
    import app

    findings = (Finding(Point("melanoma", (0,), None, None, None, None), 0.25),)
    found = predict.Prediction((8, 8), np.eye(7)[1], None, None, findings=findings)
    shown = app.decisions_of(found, [name_of(code) for code in HAM10000])
    assert "<b>Nevus</b>" in shown and NO_TAU in shown
    assert "Probability of a melanoma: 0.2500, no threshold is known." in shown and "%" not in shown
