"""The page in a real browser, and what it does with files."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT, picture
from test_report import CHROMIUM

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
    yield address, tmp_path / "tmp"
    process.terminate()
    process.wait()


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_a_picture_is_shown_with_classes_outline_and_heat_map(page_address, demo_folder, tmp_path):
    address, kept = page_address
    (tmp_path / "text.jpg").write_text("no picture")
    shutil.copy(sorted((demo_folder / "images").iterdir())[0], tmp_path / "mine.jpg")
    errors, requests = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1100})
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.get_by_text("not a medical device").wait_for()
        upload = page.locator("input[type=file]").first
        upload.set_input_files(tmp_path / "mine.jpg")
        page.locator("figure img").nth(1).wait_for()
        assert page.locator("figure").count() == 2
        assert re.search(r"(Melanoma|Nevus|Lesion|Carcinoma|Keratosis|Dermatofibroma)\s*\d+%", page.inner_text("body"))
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        page.get_by_label("Clear").first.click()
        page.locator("input[type=file]").first.set_input_files(tmp_path / "text.jpg")
        page.get_by_text("text.jpg cannot be used: not an image").wait_for()
        browser.close()
    assert errors == []
    outside = [url for url in requests if not url.startswith((address, "data:", "blob:"))]
    assert outside == []
    assert not list(kept.rglob("mine.jpg")) and not list(kept.rglob("text.jpg"))  # the examples may stay
    shutil.copy(tmp_path / "page.png", os.environ.get("APP_SCREENSHOT", tmp_path / "copy.png"))


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
    with pytest.raises(gradio.Error, match=r"large\.png has"):
        app.look(str(tmp_path / "large.png"), None)
    assert (tmp_path / "large.png").exists()  # it is not an upload
