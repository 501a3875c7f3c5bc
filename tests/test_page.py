"""The page of a run: what stands on it follows from the files, and a real browser shows it."""

import base64
import csv
import http.server
import io
import json
import re
import shutil
import subprocess
import threading
from functools import partial
from html.parser import HTMLParser

import pandas as pd
import pytest
from accessibility import violations_of_file
from conftest import edit, quick, text_of
from PIL import Image

import evaluate
from measure import bootstrap
from report import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")


def test_the_report_stands_alone(outputs):
    """No address of anything else: every picture is inlined, and nothing is fetched."""
    html = (outputs / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"#][^"]*)"', html)
    assert sources and all(source.startswith("data:") for source in sources)
    assert "http" not in re.sub(r'src="data:[^"]*"', "", html)


def test_the_tags_are_balanced(outputs):
    open_tags = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag, _attributes):
            if tag not in ("meta", "link", "img", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    parser = Balance()
    parser.feed((outputs / "report.html").read_text(encoding="utf-8"))
    assert not open_tags


HEADLINE = {
    "Images with a label": "label.n_images",
    "Accuracy": "label.accuracy",
    "Accuracy, balanced rule": "label.rules.balanced.accuracy",
    "Balanced accuracy": "label.balanced_accuracy",
    "Balanced accuracy, balanced rule": "label.rules.balanced.balanced_accuracy",
    "Melanoma sensitivity, top-1": "label.per_class.MEL.recall",
    "Melanoma sensitivity, balanced rule": "label.rules.balanced.per_class.MEL.recall",
    "AUC of malignant": "label.malignant.auc",
    "Partial AUC of malignant (chance 0.02, best 0.2)": "label.malignant.partial_auc",
    "Mean AUC": "label.official.macro.auc",
    "Images with a mask": "mask.n_images",
    "Mean Dice": "mask.mean_dice",
    "Mean Jaccard, native size": "mask.native.mean_iou",
    "Thresholded Jaccard, native size": "mask.native.mean_threshold_iou",
}


def at(found, path):
    """What stands in nested dicts at a path; None if nothing does."""
    for name in path.split("."):
        found = (found or {}).get(name)
    return found


def test_every_headline_value_is_the_one_in_the_runs_files(outputs):
    html, n_intervals = (outputs / "report.html").read_text(encoding="utf-8"), 0
    for task in ("classification", "segmentation", "multitask"):
        metrics, cells = json.loads((outputs / task / "metrics.json").read_text()), headline_of(html, task)
        assert cells.keys() == {name for name, path in HEADLINE.items() if path.split(".")[0] in metrics}
        for name, path in ((name, HEADLINE[name]) for name in cells):
            value, interval = at(metrics, path), at(metrics["intervals"], path)
            form = "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
            assert re.sub(r"<small.*", "", cells[name], flags=re.DOTALL) == form, name
            if interval and interval[1] - interval[0] > 0.01:
                assert f"{interval[0]:.3f} – {interval[1]:.3f}" in cells[name], name
                n_intervals += 1
    assert n_intervals > 10
    assert html.count("data:image/png;base64,") == n_pictures(outputs)
    picture = base64.b64encode((outputs / "classification" / "confusion_matrix.png").read_bytes()).decode()
    assert picture in html


def n_pictures(folder) -> int:
    """Number of a run's figures but for second confusion matrices equal to the first."""
    labels = [json.loads(path.read_text()).get("label") for path in folder.glob("*/metrics.json")]
    return len(list(folder.rglob("*.png"))) - sum(label["calibration"]["tau"] == 0 for label in labels if label)


def headline_of(html: str, model: str) -> dict[str, str]:
    """A model's cells in the tables above the first section, by the titles of their columns."""
    cells = {}
    for table in re.findall(r"<table>(.*?)</table>", html[: html.index("<h2")], re.DOTALL):
        _, *titles = re.findall(r'<th scope="col">([^<]*)</th>', table)
        rows = re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', table, re.DOTALL)
        cells |= {k: v for name, row in rows if name == model for k, v in zip(titles, td(row), strict=True)}
    return cells


def td(row: str) -> list[str]:
    return re.findall(r"<td>(.*?)</td>", row, re.DOTALL)


def test_cautions_follow_from_the_files(copy):
    def blind(metrics):
        metrics["label"]["per_class"]["MEL"]["recall"] = 0.3
        metrics["label"]["rules"]["balanced"]["per_class"]["MEL"]["recall"] = 0.45

    edit(copy / "classification" / "metrics.json", blind)
    edit(copy / "config.json", lambda config: config.update(data="synthetic demo data"))
    cautions = " ".join(page.cautions_of(page.Run(copy)))
    assert "trained on synthetic drawings" in cautions
    assert "classification: melanoma sensitivity is 0.30" in cautions and "(balanced rule: 0.45)" in cautions
    assert "classification, segmentation, multitask: trained from scratch" in cautions
    assert "fewer than 30 test images" in cautions and "not a medical device" in cautions


@pytest.mark.parametrize(("energy", "does_localise"), [(0.549, False), (0.55, True)])
def test_heat_maps_that_do_not_localise_are_called_so(copy, energy, does_localise):
    """Among the cautions and beside the numbers, with both of them."""
    tasks, numbers = ("classification", "multitask"), {"energy_in_mask": energy, "mask_area": 0.273, "n_images": 1499}
    for task in tasks:
        edit(copy / task / "metrics.json", lambda found: found["label"].update(heat_map=numbers))
    shown, cautions = text_of(page.build(copy)), " ".join(page.cautions_of(page.Run(copy)))
    shares = f"{100 * energy:.1f} % of their energy lies inside the true mask, which covers 27.3 % of the image."
    assert (f"classification, multitask: the heat maps do not localise; {shares}" in cautions) != does_localise
    assert (
        shown.count(
            f"{100 * energy:.1f} % of the heat maps' energy lies inside the true mask, which covers 27.3 % of the image"
        )
        == 2
    )
    assert shown.count("less than 55 %: the maps do not localise") == (0 if does_localise else 2)


def test_an_overfitted_model_is_called_so(copy):
    path = copy / "classification" / "history.csv"
    lines = path.read_text().splitlines()
    values = lines[1].split(",")
    values[1], values[2] = "0.1", "0.5"
    path.write_text("\n".join([lines[0], ",".join(values)]))
    assert any("overfitting" in text for text in page.cautions_of(page.Run(copy)))


HOSTILE = """<script>stop</script> {{ 7*7 }} {% if %} &amp; "double" 'single'"""


def test_names_from_the_data_are_shown_as_they_are(copy):
    """Neither HTML nor the template's own language is read in them."""
    edit(copy / "config.json", lambda config: config.update(DATA_DIR=HOSTILE, TASKS=["a", HOSTILE]))
    edit(copy / "environment.json", lambda environment: environment.update({HOSTILE: 1, "device": HOSTILE}))
    for name, row in {
        "data_report.csv": ["x", "left out", HOSTILE],
        "splits.csv": [HOSTILE, "MEL", HOSTILE, "train"],
        "leakage.csv": [HOSTILE, "b", "same file", "1", HOSTILE, "l", "test", HOSTILE, "True", "True"],
    }.items():
        with (copy / name).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)
    edit(copy / "classification" / "metrics.json", lambda found: found["subgroups"][-1].update(value=HOSTILE))
    html = page.build(copy)
    assert "<script" not in html
    # The folder in three places, TASKS, the device in two and a setting's name, a reason, a pair in two, a subgroup;
    # in the checklist the folder in two, the device, the reason and the subgroup.
    assert text_of(html).count(HOSTILE) == 11 + 5


def test_the_fixed_numbers_are_those_of_evaluate(outputs, monkeypatch):
    shown = text_of(page.build(outputs))
    assert "2,000 bootstrap resamples" in shown and "reach 90 % sensitivity" in shown and "index below 0.65." in shown
    monkeypatch.setattr(bootstrap, "N_RESAMPLES", 12345)
    monkeypatch.setattr(evaluate, "SENSITIVITY", 0.825)
    monkeypatch.setattr(evaluate, "FAILURE", 0.7)
    shown = text_of(page.build(outputs))
    assert "12,345 bootstrap resamples" in shown and "reach 82.5 % sensitivity" in shown
    assert "index below 0.7." in shown


def test_every_table_of_labels_shows_both_rules_and_the_page_says_what_the_second_changes(copy):
    def differ(metrics):
        label, intervals = metrics["label"], metrics["intervals"]["label"]
        label["rules"]["balanced"] |= {"accuracy": 0.1111, "balanced_accuracy": 0.2222}
        label["rules"]["balanced"]["per_class"]["MEL"] |= {"precision": 0.3333, "recall": 0.4444, "f1": 0.5556}
        label["balanced_less_likeliest"] = {"accuracy": -0.0491, "balanced_accuracy": 0.0902}
        intervals["balanced_less_likeliest"] = {"accuracy": [-0.06, -0.04], "balanced_accuracy": [0.05, 0.13]}
        label["calibration"]["tau"] = 0.45

    edit(copy / "classification" / "metrics.json", differ)
    html = page.build(copy)
    headline = headline_of(html, "classification")
    (by_class,) = re.findall(
        r"<tr><th scope=.row.>MEL <span[^>]*>Melanoma</span></th>(?:(?!</tr>).)*0\.333.*?</tr>", html
    )
    for name, value in {"Accuracy": 0.1111, "Balanced accuracy": 0.2222, "Melanoma sensitivity": 0.4444}.items():
        assert headline[f"{name}, balanced rule"].startswith(f"{value:.3f}")
    assert all(value in by_class for value in ("0.333<", "0.444<", "0.556<"))
    shown = text_of(html)
    assert (
        "The balanced rule changes accuracy by -0.049 (95 % interval -0.060 to -0.040) and balanced accuracy by"
        in shown
    )
    assert "by +0.090 (95 % interval +0.050 to +0.130) against the top-1 class" in shown
    assert "τ = 0.45, fitted on the validation set." in shown and "Accuracies of the top-1 class;" in shown


def model_of(html: str, task: str) -> str:
    """What stands in a model's fold."""
    return re.search(rf'<div id="{task}">.*?</div>\n</details>\n(?=<details|\n)', html, re.DOTALL)[0]


def test_at_tau_zero_nothing_is_shown_twice_and_the_page_says_why(copy):
    def with_tau(tau, task):
        edit(copy / task / "metrics.json", lambda found: found["label"]["calibration"].update(tau=tau))
        return page.build(copy)

    with_tau(0.0, "classification")
    one = with_tau(0.3, "multitask")
    first, second = model_of(one, "classification"), model_of(one, "multitask")
    assert "predicts the top-1 class here, as its τ = 0.00, fitted on the validation set." in text_of(first)
    assert "Precision: top-1" not in first and "The same images by true class" not in first
    assert "Precision: top-1" in second and "The same images by true class" in second and "τ = 0.30" in text_of(second)
    assert "Accuracy, balanced rule" in headline_of(one, "multitask") and "predicts the same" not in one
    both = with_tau(0.0, "multitask")
    assert not [name for name in headline_of(both, "multitask") if "balanced rule" in name]
    assert "the balanced rule predicts the same (τ = 0)" in text_of(both)


def test_numbers_that_are_not_defined_are_dashes_without_an_interval(copy):
    def undefine(metrics):
        metrics["label"]["accuracy"], metrics["intervals"]["label"]["accuracy"] = None, None
        metrics["intervals"]["label"]["balanced_accuracy"] = [None, None]
        metrics["intervals"]["label"].pop("balanced_accuracy_kind", None)

    edit(copy / "classification" / "metrics.json", undefine)
    balanced = json.loads((copy / "classification" / "metrics.json").read_text())["label"]["balanced_accuracy"]
    headline = headline_of(page.build(copy), "classification")
    assert (headline["Accuracy"], headline["Balanced accuracy"]) == ("–", f"{balanced:.3f}")


def test_the_headline_and_the_tables_say_how_many_images_each_head_was_measured_on(copy):
    def lack(metrics):
        metrics["label"]["n_images"], metrics["mask"]["n_images"] = 2345, 1234
        first, *_ = metrics["subgroups"]
        first |= {"value": "of some", "n_images": 77, "n_lesions": 66, "n_masks": 55}

    edit(copy / "multitask" / "metrics.json", lack)
    edit(copy / "comparison.json", lambda found: found["segmentation"].update(n_images=1111))
    html = page.build(copy)
    headline = headline_of(html, "multitask")
    assert (headline["Images with a label"], headline["Images with a mask"]) == ("2,345", "1,234")
    assert re.search(r"of some</th><td>0\.[^\n]*<td>77</td><td>66</td><td>\d+</td><td>\d+</td><td>55</td></tr>", html)
    shown = text_of(html)
    assert "Diagnoses: 2,345 images" in shown and "Masks: 1,234 images" in shown
    assert re.search(
        r"On 1,111 images the multi-task model's mean Dice differs from that of segmentation by \S+ \(95", shown
    )
    card = html[html.index('id="model-card"') :]
    assert all(f'<th scope="col">{name}</th>' in card for name in ("Accuracy", "Mean Dice", "Images with a mask"))
    assert '<tr><th scope="row">multitask</th><td>2,345</td>' in card


def test_the_biopsied_images_stand_beside_all_in_the_first_table_and_among_the_cautions(copy):
    def prove(metrics):
        biopsied = metrics["biopsied"] = json.loads(json.dumps({key: metrics[key] for key in ("label", "intervals")}))
        biopsied["label"] |= {"accuracy": 0.6616, "n_images": 792}
        biopsied["label"]["malignant"]["auc"] = 0.8413
        biopsied["intervals"]["label"]["malignant"]["auc"] = [0.81, 0.87]
        metrics["label"] |= {"accuracy": 0.8301, "n_images": 1499}

    edit(copy / "classification" / "metrics.json", prove)
    run = page.Run(copy)
    html = page.build(copy)
    column = headline_of(html, "classification, biopsied only")
    assert (column["Images with a label"], column["Accuracy"][:5], "Mean Dice" in column) == ("792", "0.662", False)
    assert column["AUC of malignant"].startswith("0.841") and "0.810 – 0.870" in column["AUC of malignant"]
    assert headline_of(html, "classification")["Accuracy"].startswith("0.830")
    told = "classification: accuracy is 0.662 on the 792 biopsied images and 0.830 on all 1,499."
    assert any(caution.startswith(told) for caution in page.cautions_of(run))
    assert "Biopsied only: the test images whose diagnosis was confirmed by histopathology." in text_of(html)
    edit(copy / "classification" / "metrics.json", lambda found: found.pop("biopsied"))
    assert "iopsied only" not in text_of(page.build(copy))


def test_subgroups_show_the_largest_gaps_the_groups_they_lie_between_and_what_is_not_shown(copy):
    def differ(metrics):
        gap = next(one for one in metrics["gaps"] if one["group"] == "sex")
        gap |= {"n_values_not_shown": 1234, "n_images_not_shown": 5678}
        gap["scores"] = {"accuracy": {"higher": "women", "lower": HOSTILE, "difference": 0.123, "interval": [0.1, 0.2]}}
        gap["scores"]["malignant_auc"] = {"higher": "a", "lower": "b", "difference": 0.456, "interval": [None, None]}

    edit(copy / "classification" / "metrics.json", differ)
    shown = text_of(page.build(copy))
    row = f"Largest gap 0.123 0.100 – 0.200 women − {HOSTILE} – – – 0.456 a − b"
    assert row.replace(" ", "") in shown.replace(" ", "")
    assert "Not shown: 1,234 more values of Sex, with 5,678 images." in shown
    assert "known groups with at least 10 lesions of each kind" in shown
    edit(copy / "classification" / "metrics.json", lambda found: found.pop("gaps"))  # as earlier versions wrote it
    assert "1,234 more values" not in text_of(page.build(copy))


@pytest.mark.parametrize(
    ("group", "size", "units"),
    [
        (None, "{n} images (lesions unknown) in", "images"),
        ("patient {}", "{n} images of {n} patients in", "patients"),
    ],
)
def test_the_page_speaks_of_lesions_only_where_these_are_known(group, size, units, copy):
    splits = pd.read_csv(copy / "splits.csv")
    splits["lesion_id"] = splits["image"]
    if group:
        splits["group"] = [group.format(i) for i in range(len(splits))]
    splits.to_csv(copy / "splits.csv", index=False)
    shown = " ".join(text_of(page.build(copy)).split())
    assert size.format(n=len(splits)) in shown
    assert f"bootstrap resamples of {units}." in shown and f"interval with {units} as trials" in shown


def test_the_links_at_the_top_lead_to_all_sections_and_models_and_each_model_back(outputs):
    html = page.build(outputs)
    nav = re.search(r"<nav.*?</nav>", html, re.DOTALL)[0]
    links, tasks = re.findall(r'href="#([^"]*)"', nav), ["classification", "segmentation", "multitask"]
    sections = re.findall(r'<h2 id="([^"]*)">', html)
    place = sections.index("models")
    assert links == ["top", *sections[:place], *tasks, *sections[place + 1 :]]
    assert all('href="#top"' in model_of(html, task) for task in tasks)


def test_a_model_named_like_a_section_has_a_place_of_its_own(copy):
    (copy / "segmentation").rename(copy / "checklist")
    edit(copy / "record.json", lambda found: found["tasks"].update(checklist=found["tasks"].pop("segmentation")))
    html = page.build(copy)
    assert html.count('id="checklist"') == html.count('id="checklist-model"') == 1
    assert 'href="#checklist-model">checklist</a>' in html


def test_the_title_and_the_heading_name_the_runs_folder(copy):
    place = copy.rename(copy.parent / "plain-1")
    html = page.build(place)
    assert f"<title>plain-1 ({copy.parent.name}): report</title>" in html
    assert re.search(r"<h1>(.*?) <", html)[1] == f"plain-1 ({copy.parent.name})"


def test_scores_come_first_then_the_data_then_the_cautions_which_are_counted_beside_the_scores(copy):
    html, n = page.build(copy), len(page.cautions_of(page.Run(copy)))
    order = [f"{n} cautions</b></a>", "<table>", " lesions in ", 'id="cautions"', '<details class="model"']
    places = [html.index(words) for words in order]
    assert places == sorted(places) and html.count("<li>", places[3], places[4]) >= n


def test_tables_pictures_and_places_are_marked_for_screen_readers(outputs):
    html = page.build(outputs)
    headings = re.findall(r"<th\b[^>]*>([^<]*)", html)
    assert html.count('<th scope="col">') + html.count('<th scope="row">') == len(headings)
    assert not re.search(r'<th scope="col"></th>', html)  # a column without a title
    alts, ids = re.findall(r'<img alt="([^"]*)"', html), re.findall(r' id="([^"]*)"', html)
    assert len(alts) == html.count("<img") and len(set(alts)) == len(alts) and len(set(ids)) == len(ids)
    assert all(f"<{part}" in html for part in ("header", "nav", "main"))


def test_a_figure_keeps_its_place_by_the_size_in_its_file():
    for size in ((640, 480), (3, 70000)):
        content = io.BytesIO()
        Image.new("1", size).save(content, "PNG")
        assert page.png_size(base64.b64encode(content.getvalue()).decode()) == size


@needs_chromium
def test_a_link_opens_its_model_beside_others_and_the_keyboard_enlarges_a_figure(outputs):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 390, "height": 800})
        opened = "[...document.querySelectorAll('details.model[open] > div')].map(e => e.id)"
        figure = "document.querySelector('#figure-multitask-confusion_matrix img').getBoundingClientRect().width"
        address = (outputs / "report.html").as_uri()
        tab.goto(address)
        assert tab.evaluate(opened) == []  # a page to choose from
        tab.goto(f"{address}#multitask")
        tab.wait_for_function(f"{opened}.length == 1")
        assert tab.evaluate(opened) == ["multitask"]
        assert tab.evaluate(figure) < 390
        tab.focus("#figure-multitask-confusion_matrix button")
        tab.keyboard.press("Enter")
        assert tab.evaluate(figure) >= 1000  # as many pixels as the file has, so its letters have their size
        tab.keyboard.press("Escape")
        assert tab.evaluate(figure) < 390
        tab.click("nav a[href='#segmentation']")
        tab.wait_for_function(f"{opened}.length == 2")
        assert tab.evaluate(opened) == ["segmentation", "multitask"]  # side by side, to compare


@needs_chromium
def test_the_report_breaks_no_rule_of_accessibility(outputs):
    assert violations_of_file(outputs / "report.html", CHROMIUM) == []


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run main\.py first"):
        page.build(tmp_path)


def test_a_run_that_lacks_a_number_is_refused(copy):
    edit(copy / "classification" / "metrics.json", lambda found: found["label"]["calibration"]["after"].pop("ece"))
    with pytest.raises(ValueError, match=r"no attribute 'ece'.*Evaluate again"):
        page.build(copy)


def test_the_baseline_stands_beside_the_models_and_every_row_says_how_many_images_it_rests_on(copy):
    def known(metrics):
        label = metrics["label"]
        label["majority"] |= {"class": "NV", "accuracy": 0.6543, "balanced_accuracy": 0.1234}
        label["n_images"] = 4321
        for code, row in label["per_class"].items():
            row["support"] = {"MEL": 1111, "BCC": 7}.get(code, 0)

    edit(copy / "classification" / "metrics.json", known)
    html = page.build(copy)
    baseline = headline_of(html, "always NV")
    assert baseline["Accuracy"].startswith("0.654") and baseline["Balanced accuracy"].startswith("0.123")
    assert baseline["Images with a label"] == "4,321" and baseline["Mean AUC"] == "–"
    for start in ("top-1", "always NV, the", "Mean over the classes", "before scaling"):
        row = re.search(rf"<tr><th scope=.row.>{start}.*?</tr>", html, re.DOTALL)[0]
        assert row.endswith("<td>4,321</td></tr>"), start
    assert "<td>1,111 of 4,321</td></tr>" in html and "<td>1,118 of 4,321</td></tr>" in html  # melanoma, malignant

    def without_melanomas(metrics):
        for rule in metrics["label"]["rules"].values():
            rule["per_class"]["MEL"]["recall"] = None

    edit(copy / "classification" / "metrics.json", without_melanomas)
    row = re.search(r"<tr><th scope=.row.>always NV, the.*?</tr>", page.build(copy), re.DOTALL)[0]
    assert row.endswith("<td>–</td><td>4,321</td></tr>")


def test_the_page_says_how_long_the_run_took_by_which_command_and_from_which_commit(copy):
    edit(copy / "record.json", lambda record: record.update(seconds=3723.4))
    edit(
        copy / "environment.json", lambda found: found.update(command="python main.py --seed 7", commit="a" * 40 + "+")
    )
    shown = text_of(page.build(copy))
    assert "took 1:02:03." in shown
    assert f"Command: python main.py --seed 7; code: commit {'a' * 12}, changed since." in shown
    first = {"command": "python main.py", "commit": "b" * 40, "started": "2025-01-02T03:04:05+00:00"}
    edit(copy / "environment.json", lambda found: found.update(before=[first]))
    shown = text_of(page.build(copy))
    assert "started 2025-01-02" in shown and "python main.py --seed 7" in shown
    assert f"Command: python main.py; code: commit {'b' * 12}. Command: python main.py --seed 7" in shown
    edit(copy / "environment.json", lambda found: found.pop("before"))
    edit(copy / "record.json", lambda record: record.pop("seconds"))
    edit(copy / "environment.json", lambda found: (found.pop("command"), found.pop("commit")))
    shown = text_of(page.build(copy))
    assert "took" not in shown and "Command" not in shown


def test_intervals_that_are_not_the_bootstraps_say_so_and_none_is_shown_without_a_width(copy):
    def agree(metrics):
        metrics["label"]["per_class"]["MEL"]["recall"] = 0.0
        metrics["intervals"]["label"]["per_class"]["MEL"] |= {"recall": [0, 0.2316], "recall_kind": "Clopper-Pearson"}
        metrics["intervals"]["label"]["official"]["macro"] |= {"auc": None, "auc_kind": "none: all resamples agree"}
        metrics["intervals"]["label"] |= {"accuracy": [0.5, 0.5], "balanced_accuracy": [0.99981, 0.99992]}
        for name in ("accuracy", "balanced_accuracy"):
            metrics["intervals"]["label"].pop(f"{name}_kind", None)

    edit(copy / "classification" / "metrics.json", agree)
    headline = headline_of(page.build(copy), "classification")
    assert headline["Melanoma sensitivity, top-1"] == '0.000<small title="Clopper-Pearson">0.000 – 0.232 †</small>'
    assert '<small title="none: all resamples agree">no interval</small>' in headline["Mean AUC"]
    assert "small" not in headline["Accuracy"]
    assert "<small>0.9998 – 0.9999</small>" in headline["Balanced accuracy"]


@needs_chromium
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it_without_requests_errors_or_sideways_scrolling(outputs, tmp_path, width):
    """Served by a server that counts requests, so that any further one would be seen."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    script = "<script>document.title='width '+document.documentElement.scrollWidth</script></body>"
    page = (outputs / "report.html").read_text(encoding="utf-8").replace("</body>", script)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/page.html"
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        flags += (
            " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom --virtual-time-budget=3000"
        )
        command = [
            CHROMIUM,
            *flags.split(),
            f"--window-size={width},900",
            f"--user-data-dir={tmp_path / 'profile'}",
            address,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        server.shutdown()
    assert asked == ["/page.html"]
    assert "CONSOLE" not in done.stderr
    shown = int(re.search(r"<title>width (\d+)</title>", done.stdout)[1])
    assert shown <= max(width, 500)  # headless Chromium has no narrower window than 500 pixels


@pytest.mark.skipif(not CHROMIUM or not shutil.which("pdftotext"), reason="no Chromium or no pdftotext is installed")
def test_on_paper_no_table_is_cut_no_figure_split_and_folded_tables_are_open(outputs, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        tab = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        tab.goto((outputs / "report.html").as_uri())
        tab.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)

    def told(*command):
        return subprocess.run([*command, tmp_path / "report.pdf", "-"], capture_output=True, text=True).stdout

    text, boxes = told("pdftotext", "-layout"), told("pdftotext", "-bbox")
    for last in (
        r"NPV +AUC +AP +Images\n",
        r"Failures +Images\n",
        r"HD95, pixels +ASSD, pixels +Images\n",
        r"Melanomas +Malignant\n",
    ):
        assert re.search(last, text), last
    assert re.search(r"female +\d", text)
    width = float(re.search(r'<page width="([0-9.]+)"', boxes)[1])
    assert width == pytest.approx(210 / 25.4 * 72, abs=1)  # A4, in points
    edges = [float(x) for x in re.findall(r'xM(?:in|ax)="([0-9.-]+)"', boxes)]
    assert min(edges) >= 12 / 25.4 * 72 - 1 and max(edges) <= width - 12 / 25.4 * 72 + 1
    listed = subprocess.run(["pdfimages", "-list", tmp_path / "report.pdf"], capture_output=True, text=True).stdout
    assert len(re.findall(r"^ *\d+ +\d+ image ", listed, re.MULTILINE)) == n_pictures(outputs)


@needs_chromium
def test_no_table_scrolls_sideways_at_1100_pixels(outputs):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        tab = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page(
            viewport={"width": 1100, "height": 800}
        )
        tab.goto((outputs / "report.html").as_uri())
        widths = tab.evaluate("[...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth, e.clientWidth])")
    assert widths and all(content <= room for content, room in widths)


def test_each_model_stands_under_the_data_set_that_it_was_measured_on(demo_folder, folder, tmp_path):
    for code in ("MEL", "NV"):
        folder.add(f"{code}_0", code)
    first = shutil.copytree(folder.write().path, tmp_path / "first")
    folder.add("NV_1", "NV")
    second = shutil.copytree(folder.write().path, tmp_path / "second")
    tasks = ["--tasks", "classification", "segmentation"]
    assert quick(demo_folder, tmp_path, *tasks, "--external-dir", str(first)) == 0
    assert quick(demo_folder, tmp_path, *tasks[:2], "--evaluate-only", "--external-dir", str(second)) == 0
    report = (tmp_path / "outputs" / "report.html").read_text()
    _, of_one, of_other = report[report.index('id="another-data-set"') :].split("<p>All usable images of")
    for section, place, task, n_images in (
        (of_one, second, "classification", 3),
        (of_other, first, "segmentation", 2),
    ):
        assert all(words in section for words in (f"<code>{place}<", f"<h3>{task}</h3>", f"<td>{n_images}</td>"))
    assert "<h3>segmentation</h3>" not in of_one and str(first) not in of_one


def test_two_models_of_a_data_set_that_has_changed_are_both_shown(demo_folder, folder, tmp_path):
    for code in ("MEL", "NV"):
        folder.add(f"{code}_0", code)
    other = folder.write().path
    options = ["--external-dir", str(other), "--tasks", "classification"]
    assert quick(demo_folder, tmp_path, *options, "segmentation") == 0
    folder.add("NV_1", "NV")
    folder.write()
    assert quick(demo_folder, tmp_path, *options, "--evaluate-only") == 0
    report = (tmp_path / "outputs" / "report.html").read_text()
    of_one, of_other = report[report.index('id="another-data-set"') :].split("<p>All usable images of")[1:]
    assert "None of the 3 images" in of_one and "<h3>classification</h3>" in of_one
    assert "None of the 2 images" in of_other and "<h3>segmentation</h3>" in of_other


def test_the_report_of_a_named_checkpoint_tells_its_own_seed_and_epochs(demo_folder, short_run, tmp_path):
    path = short_run / "outputs" / "best_classification_model.pth"
    assert quick(demo_folder, tmp_path, "--evaluate-only", "--checkpoints", str(path), "--seed", "43") == 0
    report = (tmp_path / "outputs" / "report.html").read_text()
    assert "classification 1 epoch;" in report and "seed 42" in report and "seed 43" not in report


def test_a_difference_that_rounds_to_zero_has_no_minus(copy):
    def tiny(metrics):
        metrics["label"]["calibration"]["tau"] = 0.3
        metrics["label"]["balanced_less_likeliest"] = {"accuracy": -0.0001, "balanced_accuracy": -0.0}
        metrics["intervals"]["label"]["balanced_less_likeliest"] = {"accuracy": [-0.25, -0.0001]}

    edit(copy / "classification" / "metrics.json", tiny)
    shown = text_of(page.build(copy))
    assert "accuracy by +0.000 (95 % interval -0.250 to +0.000) and balanced accuracy by +0.000" in shown
    assert "-0.000" not in shown


@pytest.mark.parametrize(
    ("interval", "words"),
    [([0.01, 0.2], "excludes 0: the multi-task model is better here"),
     ([-0.2, -0.01], "excludes 0: the multi-task model is worse here"),
     ([-0.1, 0.1], "no difference is established")],
)  # fmt: skip
def test_the_comparison_concludes_what_its_interval_allows(copy, interval, words):
    change = {"difference": sum(interval) / 2, "interval": interval}
    edit(copy / "comparison.json", lambda found: found["classification"].update(accuracy=change))
    (said,) = re.findall(r"multi-task model's accuracy differs.*?(?:here|established)", text_of(page.build(copy)))
    assert words in said
