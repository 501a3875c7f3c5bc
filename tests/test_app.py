"""The page in a real browser, and what it does with files."""

import base64
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from accessibility import violations
from conftest import ROOT, picture
from PIL import Image
from test_cards import knows
from test_page import CHROMIUM

import predict

gradio = pytest.importorskip("gradio", reason="pip install -r requirements-app.txt")
playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r requirements-dev.txt")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def page_address(whole_run, demo_folder, tmp_path_factory):
    """app.py as a user starts it, the folder that it may keep files in, its log, and its process."""
    place = tmp_path_factory.mktemp("page")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "tmp").mkdir()
    command = [sys.executable, ROOT / "app.py", "--checkpoint", whole_run[0] / "best_multitask_model.pth"]
    command += ["--examples", demo_folder, "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(place / "tmp"), "no_proxy": "127.0.0.1,localhost"}
    with (place / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, env=environment)
    for _ in range(240):
        time.sleep(0.5)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, (place / "log").read_text()
    yield f"http://127.0.0.1:{port}/", place / "tmp", place / "log", process
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(page_address, browser):
    """Opens the page as a new visitor; no page may load anything from elsewhere or fail."""
    address, _, log, _ = page_address
    errors, requests, contexts = [], [], []

    def open_page(width=1280, height=800, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.locator("[data-example]").first.wait_for()
        page.wait_for_load_state("networkidle")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert "Traceback" not in log.read_text()


@pytest.fixture
def files(demo_folder, tmp_path):
    """Two pictures of a visitor's own, under names that HTML and templates could obey."""
    for source, name in zip(sorted((demo_folder / "images").iterdir()), ("mine.jpg", "<b>{{yours}} ${1}.jpg")):
        shutil.copy(source, tmp_path / name)
    return [tmp_path / "mine.jpg", tmp_path / "<b>{{yours}} ${1}.jpg"]


def send(page, *paths):
    page.locator(".drop input").set_input_files(list(paths))


def shown(page):
    return page.locator(".results").last.inner_text()


@needs_chromium
def test_a_picture_is_shown_with_warnings_classes_and_layers_and_is_kept_nowhere(visit, page_address, files, tmp_path):
    page = visit()
    send(page, files[0])
    page.get_by_role("heading", name="mine.jpg").wait_for()
    assert page.locator(".seen img").count() == 3 and page.locator(".bars li").count() == 7
    assert re.search(r"Malignant: (above|below) the threshold\s+Probability [01]\.\d{4}, threshold", shown(page))
    assert "Top-1 class: " in shown(page) and "Balanced rule: " in shown(page)
    assert not [path for path in page_address[1].rglob("*") if path.is_file()]


@needs_chromium
@pytest.mark.parametrize(
    "size, reason", [(9, "cannot be used: not an image"), (51_000_000, "has 51.0 MB; the limit is 50 MB")]
)
def test_after_a_bad_file_nothing_of_the_picture_before_stays_but_the_explanation(visit, files, tmp_path, size, reason):
    with (tmp_path / "bad.jpg").open("wb") as file:
        file.truncate(size)
    page = visit()
    send(page, files[0])
    page.locator(".card").wait_for()
    send(page, tmp_path / "bad.jpg")
    page.get_by_role("alert").get_by_text(f"bad.jpg {reason}").wait_for()
    page.wait_for_timeout(1000)
    assert page.locator(".results img").count() == 0 and page.get_by_role("alert").count() == 1
    assert not re.search(r"mine|\d\s%|Top-1 class|threshold", shown(page))


@needs_chromium
def test_the_picture_is_shown_and_the_one_before_gone_while_the_model_has_not_answered(visit, files):
    page = visit()
    send(page, files[0])
    page.locator(".card").wait_for()
    page.route("**/queue/join**", lambda route: None)  # the server never hears of it
    send(page, files[1])
    page.get_by_role("status").get_by_text("Predicting").wait_for()
    assert page.locator(".card").count() == 0 and files[1].name in shown(page)
    assert page.evaluate("document.querySelector('.waiting img').naturalWidth") > 0


@needs_chromium
def test_an_answer_that_comes_after_the_next_choice_is_not_shown(visit, files, tmp_path):
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(51_000_000)
    page, held = visit(), []
    page.route("**/queue/join**", lambda route: held.append(route))
    send(page, files[0])
    page.locator(".waiting").wait_for()
    send(page, tmp_path / "large.jpg")
    page.get_by_role("alert").wait_for()
    with page.expect_response("**/queue/join**"):
        held[0].continue_()
    page.wait_for_timeout(2000)  # for the answer
    assert page.get_by_role("alert").count() == 1 and page.locator(".results img").count() == 0


@needs_chromium
def test_an_answer_stays_when_that_to_an_earlier_choice_comes_after_it(visit, files):
    page, held = visit(), []
    page.route("**/queue/join**", lambda route: route.continue_() if held else held.append(route))
    for file in files[:2]:
        send(page, file)
    page.get_by_role("heading", name=files[1].name).wait_for()
    with page.expect_response("**/queue/join**"):
        held[0].continue_()
    page.wait_for_timeout(2000)  # for the answer
    assert page.get_by_role("heading", name=files[1].name).count() == 1 and page.locator(".waiting").count() == 0


@needs_chromium
def test_an_example_works_every_time_and_for_every_visitor(visit):
    for page in (visit(), visit()):
        for _ in range(2):
            page.locator("[data-example]").first.click()
            page.locator(".waiting").wait_for(state="detached")
            page.locator(".card").wait_for()
            assert "synthetic_" in page.locator(".card h2").inner_text()
            assert page.get_by_role("alert").count() == 0


@needs_chromium
def test_two_visitors_with_the_same_file_at_once_are_both_answered(visit, files):
    pages = visit(), visit()
    for page in pages:
        send(page, files[0])
    for page in pages:
        page.get_by_role("heading", name="mine.jpg").wait_for()


@needs_chromium
def test_the_layers_can_be_changed_and_the_next_picture_begins_anew(visit, files):
    page = visit()
    opacity = "[...document.querySelectorAll('.seen .outline, .seen .heat')].map(e => getComputedStyle(e).opacity)"
    send(page, files[0])
    page.get_by_label("Contour", exact=True).uncheck()
    page.get_by_label("Heat map", exact=True).fill("90")
    assert page.evaluate(opacity) == ["0.9", "0"]
    send(page, files[1])
    page.get_by_role("heading", name="yours").wait_for()
    assert page.get_by_label("Contour", exact=True).is_checked()
    assert page.evaluate(opacity) == ["0", "1"]  # this model's heat maps do not localise


@needs_chromium
def test_mask_overlay_and_row_can_be_downloaded(visit, files):
    page, found = visit(), {}
    send(page, files[0])
    for name in ("Mask", "Overlay", "Heat map", "Row"):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        found[download.value.suggested_filename] = download.value.path()
    assert list(found) == ["mine_mask.png", "mine_overlay.jpg", "mine_heatmap.jpg", "mine.csv"]
    mask, (row,) = Image.open(found["mine_mask.png"]), csv.DictReader(found["mine.csv"].open())
    assert mask.size == Image.open(files[0]).size and set(np.unique(mask)) <= {0, 255}
    assert row["file"] == "mine.jpg" and float(row["lesion_share"]) == round(np.mean(np.asarray(mask) > 0), 4)
    assert [Image.open(found[f"mine_{kind}.jpg"]).format for kind in ("overlay", "heatmap")] == ["JPEG"] * 2


@needs_chromium
def test_several_pictures_make_a_gallery_and_a_table_and_a_bad_one_is_named(visit, files, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    page = visit()
    send(page, *files, tmp_path / "text.jpg")
    page.get_by_role("alert").get_by_text("text.jpg cannot be used").wait_for()
    names = [file.name for file in files]
    assert page.locator(".tile b").all_inner_texts() == names
    assert page.locator("tbody th").all_inner_texts() == names
    assert not page.locator(".columns").nth(1).is_visible()
    page.locator(".gallery a").nth(1).click()
    assert page.locator(".columns").nth(1).is_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="All rows").click()
    assert [row["file"] for row in csv.DictReader(download.value.path().open())] == names


@needs_chromium
def test_masks_overlays_heat_maps_and_table_of_several_pictures_are_one_zip(visit, files, tmp_path):
    page = visit()
    send(page, *files)
    with page.expect_download() as download:
        page.get_by_role("button", name="Everything (ZIP)").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    kinds = {"masks": "png", "overlays": "jpg", "heatmaps": "jpg"}
    expected = {f"{kind}/{file.stem}.{suffix}" for kind, suffix in kinds.items() for file in files}
    assert set(archive.namelist()) == expected | {"predictions.csv"} and len(archive.namelist()) == 7
    assert Image.open(tmp_path / "out" / "masks" / "mine.png").size == Image.open(files[0]).size
    table = csv.DictReader((tmp_path / "out" / "predictions.csv").open(encoding="utf-8"))
    assert [row["file"] for row in table] == [file.name for file in files]


GIVEN = """([event, files]) => {
    const data = new DataTransfer();
    for (const [name, text] of files)
        data.items.add(new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name, {type: "image/jpeg"}));
    const options = {bubbles: true, clipboardData: data, dataTransfer: data};
    document.body.dispatchEvent(event === "paste" ? new ClipboardEvent(event, options) : new DragEvent(event, options));
}"""


@needs_chromium
@pytest.mark.parametrize(("event", "n_files"), [("paste", 1), ("drop", 2)])
def test_pictures_can_be_pasted_and_several_dropped(visit, files, event, n_files):
    page = visit()
    chosen = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files[:n_files]]
    page.evaluate(GIVEN, [event, chosen])
    page.locator(".card").first.wait_for()
    assert page.locator(".card h2").all_inner_texts() == [name for name, _ in chosen]


@needs_chromium
def test_a_picture_is_enlarged_by_click_or_key_with_its_layers_and_closed_by_escape(visit, files):
    page = visit()
    send(page, files[0])
    page.get_by_label("Heat map", exact=True).fill("90")
    dialog, button = page.get_by_role("dialog"), page.get_by_role("button", name="Enlarge mine.jpg, with the contour")
    for act in (button.click, lambda: button.press("Enter")):
        act()
        dialog.wait_for()
        assert dialog.locator("img").count() == 3
        assert dialog.locator(".heat").evaluate("e => getComputedStyle(e).opacity") == "0.9"
        page.keyboard.press("Escape")
        dialog.wait_for(state="hidden")
    button.click()
    fits = dialog.locator(".layers").bounding_box()
    assert fits["width"] <= 1280 and fits["y"] + fits["height"] <= 800
    dialog.get_by_label("Size").fill("200")
    assert dialog.locator(".layers").bounding_box()["width"] == pytest.approx(2 * fits["width"], rel=0.01)
    dialog.get_by_role("button", name="Close").click()
    dialog.wait_for(state="hidden")


@needs_chromium
def test_a_server_that_does_not_answer_is_noticed_and_the_answer_still_comes_when_it_is_back(
    visit, files, page_address
):
    page, process = visit(), page_address[-1]
    notice = page.locator("#notice")
    process.send_signal(signal.SIGSTOP)
    try:
        send(page, files[0])
        notice.get_by_text("The server does not answer").wait_for()
        assert page.locator(".waiting").is_visible() and not page.get_by_text("Predicting").is_visible()
    finally:
        process.send_signal(signal.SIGCONT)
    notice.wait_for(state="hidden")
    page.get_by_role("heading", name="mine.jpg").wait_for()


@needs_chromium
def test_a_dead_server_is_noticed_while_nothing_runs_and_one_that_was_restarted_too(visit, files):
    page = visit()
    page.route("**/alive", lambda route: route.abort())
    page.locator("#notice").get_by_text("does not answer").wait_for()
    page.unroute("**/alive")
    page.route("**/alive", lambda route: route.fulfill(body="another start"))
    page.locator("#notice").get_by_text("was restarted. Reload this page").wait_for()
    page.unroute("**/alive")
    page.locator("#notice").wait_for(state="hidden")


def test_a_server_that_is_gone_is_noticed_within_five_seconds():
    """After an answer, two pauses may pass: one until the next question, and one until that is given up."""
    (pause,) = re.findall(r"const BEAT = (\d+);", (ROOT / "browser" / "script.js").read_text(encoding="utf-8"))
    assert 2 * int(pause) < 5000


FULL = """limit => {
    const set = Storage.prototype.setItem;
    Storage.prototype.setItem = function (key, value) {
        if (value.length > limit) throw new DOMException("full", "QuotaExceededError");
        set.call(this, key, value);
    };
}"""


@needs_chromium
@pytest.mark.parametrize(
    ("kept", "parts"), [("all", (1, 4, 0)), ("without downloads", (1, 0, 1)), ("nothing", (0, 0, 1))]
)
def test_a_reload_keeps_the_last_result_of_the_tab_as_far_as_it_fits(visit, files, kept, parts):
    page, other = visit(), visit()
    send(page, files[0])
    page.locator(".card").wait_for()
    size = page.evaluate("sessionStorage.getItem('result').length")
    page.evaluate(FULL, {"all": size + 1000, "without downloads": size - 1000, "nothing": 1000}[kept])
    for file, name in ((files[1], "yours"), (files[0], "mine")):
        send(page, file)
        page.get_by_role("heading", name=name).wait_for()
    page.reload()
    page.locator(".card, .results .soft").first.wait_for()
    found = page.locator(".card h2"), page.locator("a[download]"), page.get_by_text("were too large to keep")
    assert tuple(one.count() for one in found) == parts and "yours" not in shown(page)
    if kept == "all":
        page.get_by_label("Contour", exact=True).uncheck()
        assert page.locator(".seen .outline").evaluate("e => getComputedStyle(e).opacity") == "0"
    other.reload()
    other.locator(".drop").wait_for()
    assert other.locator(".card").count() == 0


def states_of(page, files, tmp_path):
    """The page by the name of its state."""
    (tmp_path / "text.jpg").write_text("no picture")
    yield "empty"
    send(page, files[0])
    page.locator(".card").wait_for()
    yield "one image"
    page.locator(".seen .zoom").click()
    page.get_by_role("dialog").wait_for()
    yield "enlarged"
    page.keyboard.press("Escape")
    send(page, *files)
    page.locator("#overview").wait_for()
    page.locator(".gallery a").first.click()
    yield "several images"
    send(page, tmp_path / "text.jpg")
    page.locator(".results .problem").wait_for()
    yield "a problem"


SMALL = """() => [...document.querySelectorAll("a, button, input, summary")].filter(e => {
    const target = (e.closest("label") ?? e).getBoundingClientRect();
    return target.height && e.checkVisibility() && Math.min(target.height, target.width) < 24;
}).map(e => e.outerHTML.slice(0, 80))"""


@needs_chromium
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_has_no_barrier_that_axe_finds_and_no_small_target(visit, files, tmp_path, width, color_scheme):
    page = visit(width, 844, color_scheme=color_scheme)
    for state in states_of(page, files, tmp_path):
        page.wait_for_timeout(300)  # for the colours
        assert (state, violations(page), page.evaluate(SMALL)) == (state, [], [])


@needs_chromium
def test_the_facts_and_the_model_card_are_those_of_the_run(visit, whole_run, page_address):
    page, metrics = visit(), json.loads((whole_run[0] / "multitask" / "metrics.json").read_text())
    words = page.locator(".about").last.inner_text()
    assert "drawn lesions: it knows nothing of real lesions" in words and "MIT" in words
    assert f"ccuracy {metrics['label']['accuracy']:.3f} (" in words and f"on {metrics['n_images']} test images" in words
    assert page.get_by_text("Examples: drawn by a program, no real lesions").is_visible()
    card = open_url(page_address[0] + "card").read()
    assert card == (whole_run[0] / "report.html").read_bytes()
    for path in ("card/config.json", "card/../config.json", "card/%2e%2e/config.json", "report.html", "config.json"):
        with pytest.raises(urllib.error.HTTPError):
            open_url(page_address[0] + path)


def open_url(address, content=None, headers=()):
    request = urllib.request.Request(address, content, dict(headers))
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)


@needs_chromium
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_phone_has_one_column_and_no_sideways_scrolling(visit, files, color_scheme):
    page = visit(390, 844, color_scheme=color_scheme)
    send(page, *files)
    page.locator(".gallery a").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    left = "e => [...e.querySelectorAll(':scope > *')].map(part => part.getBoundingClientRect().left)"
    assert len(set(page.locator(".columns").first.evaluate(left))) == 1
    size = "e => parseFloat(getComputedStyle(e).fontSize)"
    assert page.locator(".tile figcaption").first.evaluate(size) >= 14


@needs_chromium
def test_warnings_stand_above_the_fold_on_a_phone(visit, files):
    page = visit(390, 844)
    send(page, files[0])
    page.locator(".finding").last.wait_for()
    boxes = [page.locator(".finding").nth(i).bounding_box() for i in range(2)]
    assert all(box["y"] + box["height"] <= 844 for box in boxes)


@needs_chromium
def test_the_keyboard_reaches_every_control_in_order_and_shows_where_it_is(visit):
    page = visit()
    of_focus = """(() => {const e = document.activeElement, ring = e.closest('.drop') ?? e;
        return [e.type || e.textContent, getComputedStyle(ring).outlineStyle]})()"""
    reached = []
    for i in range(16):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(of_focus))
        if i == 1:
            page.keyboard.press("Enter")  # the first example
            page.locator(".card").wait_for()
    controls = ["file", *["button"] * 7, "checkbox", "range", "Mask (PNG)", "Overlay (JPEG)", "Heat map (JPEG)"]
    controls += ["Row (CSV)", "button", "Model card (new tab)"]
    assert reached == [[control, "solid"] for control in controls]


@pytest.mark.parametrize("path, size", [("gradio_api/queue/join", 76_000_000), ("gradio_api/upload", 1000)])
def test_the_server_takes_no_more_than_the_page_would_send_and_stores_no_file(page_address, path, size):
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%b\r\n--x--\r\n' % bytes(size)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as refused:
        open_url(page_address[0] + path, part, headers)
    assert getattr(refused.value, "code", 413) == 413
    assert not [path for path in page_address[1].rglob("*") if path.is_file()]


def learned_from(name):
    """As much of a predictor as the choice of examples asks."""
    return SimpleNamespace(trained=SimpleNamespace(checkpoints={"a": {"trained_on": {"images": [name]}}}))


REAL = learned_from("ISIC_0024306")


def refusal(capsys, *arguments):
    """What app.py prints where it ends before it serves."""
    import app

    with pytest.raises(SystemExit) as stopped:
        app.main(list(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_a_missing_checkpoint_is_one_message(capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    assert "No checkpoint at" in refusal(capsys, "--checkpoint", "no.pth", "--port", port)


@pytest.mark.parametrize("port", ["99999", "taken"])
def test_a_port_that_cannot_be_had_is_one_message(port, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1]) if port == "taken" else port
        assert "Cannot serve on" in refusal(capsys, "--checkpoint", "no.pth", "--port", port)


@pytest.mark.parametrize("task, parts", [("classification", (True, False)), ("segmentation", (False, True))])
def test_the_page_of_a_model_with_one_head_leaves_out_the_other(task, parts, whole_run, files):
    import app

    predictor = predict.Predictor(whole_run[0] / f"best_{task}_model.pth", explain=True)
    pictures = [(file.name, file.read_bytes()) for file in files]
    for chosen in (pictures[:1], pictures):
        page = app.answer(chosen, predictor)
        assert (('class="bars"' in page), ("Mask (PNG)" in page)) == parts and "Overlay (JPEG)" in page


def test_whatever_fails_nothing_is_shown_but_that_it_failed():
    import app

    def read(content):
        raise RuntimeError("inside")

    page = app.answer([("<b>.png", b"")], knows(read=read))
    assert "could not be processed" in page and "<b>." not in page and "card" not in page


def test_of_very_many_pictures_the_first_are_looked_at_and_this_is_said(monkeypatch):
    import app

    monkeypatch.setattr(app, "MAX_IMAGES", 2)
    seen = []
    monkeypatch.setattr(app.cards, "look", lambda name, *_: seen.append(name))
    monkeypatch.setattr(app.cards, "render", lambda found, problems, _: problems)
    (problem,) = app.answer([(str(i), b"") for i in range(5)], None)
    assert seen == ["0", "1"] and problem.startswith("Showing the first 2 of 5 images")


def test_a_file_that_is_no_picture_is_no_example(tmp_path):
    import app

    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"No images in .*Name another folder of --examples"):
        app.choose_examples(tmp_path, REAL)
    (tmp_path / "images" / "a.jpg").write_text("no picture")
    picture().save(tmp_path / "images" / "b.png")
    assert [example.name for example in app.choose_examples(tmp_path, REAL)] == ["b.png"]


def test_drawn_lesions_are_no_examples_of_a_model_of_real_lesions(demo_folder, capsys):
    import app

    assert app.choose_examples(demo_folder, REAL) == []
    assert capsys.readouterr().out.endswith("drawn, and the model did not learn from drawn lesions alone.\n")
    assert len(app.choose_examples(demo_folder, learned_from("synthetic_00001"))) == 6


def test_examples_that_the_model_learned_from_are_said_to_be_such(tmp_path):
    import app
    from browser import cards

    (tmp_path / "images").mkdir()
    for name in ("ISIC_1", "ISIC_2", "7"):
        picture(int(name[-1])).save(tmp_path / "images" / f"{name}.jpg")
    told = {}
    for known in ("ISIC_2", "7", "other"):  # a number alone may name any image
        examples = app.choose_examples(tmp_path, learned_from(known))
        told[known] = [example.name for example in examples if example.is_seen], cards.picker(examples)
    assert [names for names, _ in told.values()] == [["ISIC_2.jpg"], [], []]
    said = ["trained or selected on 1 of these images" in html for _, html in told.values()]
    assert said == [True, False, False] and "trained" not in told["7"][1]
    assert told["ISIC_2"][1].count("known to the model") == 1


def test_without_gradio_the_page_says_what_to_install():
    blocked = "import sys; sys.modules['gradio'] = None; import app"
    done = subprocess.run([sys.executable, "-c", blocked], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "The page needs Gradio: pip install -r requirements-app.txt\n"
