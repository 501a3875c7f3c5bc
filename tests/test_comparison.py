import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from accessibility import violations_of_file
from conftest import ROOT, edit
from PIL import Image
from test_difference import labels, outlines
from test_page import CHROMIUM, needs_chromium

from checkpoints.thresholds import SCALE
from dataset.classes import HAM10000 as CLASSES
from dataset.csvfile import as_csv
from measure import scores
from report import comparison
from report.__main__ import main

HOSTILE = """<script>stop</script> {{ 7*7 }} {% if %} &amp; 'single' $x^2$"""
IMAGES = ["001", "1", "NA", HOSTILE]  # of three lesions
TRUE = ["MEL", "NV", "NV", "BCC"]


def write_run(folder: Path, seed=1, tasks=("classification", "segmentation"), images=IMAGES, epochs=15, **config):
    """A finished run, by hand: probabilities, overlaps and scores are drawn from the seed."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    settings = {"SEED": seed, "OUTPUT_DIR": str(folder), "CLASSIFICATION_EPOCHS": epochs, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    facts = {"measured": "", "identity": {"seed": seed, "epochs": epochs, "split_hash": "s"}}
    record = {"started": f"2026-01-01T00:00:{seed:02}", "tasks": dict.fromkeys(tasks, facts), "finished": True}
    (folder / "record.json").write_text(json.dumps(record))
    n = len(images)
    splits = pd.DataFrame({"image": images, "label": TRUE[:n], "lesion_id": ["L1", "L2", "L2", "L3"][:n]})
    rest = pd.DataFrame({"image": ["x"], "label": ["NV"], "lesion_id": ["L9"], "split": ["train"]})
    (folder / "splits.csv").write_text(as_csv(pd.concat([splits.assign(split="test"), rest])), encoding="utf-8")
    for task in tasks:
        (folder / task).mkdir()
        found = {"intervals": {}}
        if task != "segmentation":
            write(folder / task / "predictions.csv", labels(images, TRUE[:n], rng.choice(CLASSES, n), seed))
            found["label"], found["intervals"]["label"] = drawn_scores("label", rng)
            found["label"]["calibration"] |= {"scale": SCALE, "tau": 0.5}
            found["label"]["per_class"] = {code: {} for code in CLASSES} | found["label"]["per_class"]
        if task != "classification":
            table = outlines(images, rng.uniform(0.3, 1, n))
            write(folder / task / "per_image.csv", table[["image", "iou", "dice"]])
            write(folder / task / "per_image_native.csv", table[["image", "iou", "dice", "threshold_iou"]])
            found["mask"], found["intervals"]["mask"] = drawn_scores("mask", rng)
        (folder / task / "metrics.json").write_text(json.dumps(found))
    return folder


def write(path, table):
    path.write_text(as_csv(table), encoding="utf-8")


def drawn_scores(head, rng):
    """Two nested dicts, of numbers and of their intervals."""
    numbers, intervals = {}, {}
    for score in scores.compared(head).values():
        value = float(rng.uniform(0.2, 0.8))
        for place, content in ((numbers, value), (intervals, [value - 0.1, value + 0.1])):
            for name in score.path[:-1]:
                place = place.setdefault(name, {})
            place[score.path[-1]] = content
    return numbers, intervals


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with two finished runs, a and b, of one setting."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 1), ("b", 2)):
        write_run(tmp_path / name, seed)
    return tmp_path


def compared(*arguments):
    """comparison.json after the command."""
    main(["compare", *arguments])
    return json.loads(Path("comparison/comparison.json").read_text())


def test_the_table_shows_what_each_run_measured(place, capsys):
    found = compared("a", "b")
    printed, html = capsys.readouterr().out, Path("comparison/comparison.html").read_text(encoding="utf-8")
    assert [(row["run"], row["task"]) for row in found["models"]] == [
        *(("a", "classification"), ("b", "classification"), ("a", "segmentation"), ("b", "segmentation"))
    ]
    auc = json.loads((place / "b/classification/metrics.json").read_text())["label"]["official"]["macro"]["auc"]
    assert found["models"][1]["scores"]["mean_auc"] == {"value": auc, "interval": [auc - 0.1, auc + 0.1]}
    assert f" {auc:.3f}" in printed and f" ({auc - 0.1:.3f} to {auc + 0.1:.3f})" in printed
    assert f"{auc:.3f}<small>{auc - 0.1:.3f} – {auc + 0.1:.3f}</small>" in html


@needs_chromium
def test_the_page_breaks_no_rule_of_accessibility(place):
    write_run(place / "c", 3, ["multitask"], epochs=60)
    compared("a", "b", "c")
    assert violations_of_file(place / "comparison/comparison.html", CHROMIUM) == []


def test_a_comparison_states_the_images_and_lesions_that_it_rests_on(place, capsys):
    found = compared("a", "b")
    assert (found["n_images"], found["n_lesions"]) == (4, 3)
    assert all((row["n_images"], row["n_lesions"]) == (4, 3) for row in found["models"] + found["differences"])
    assert "4 test images of 3 lesions" in capsys.readouterr().out
    assert "4 test images of 3 lesions;" in Path("comparison/comparison.html").read_text(encoding="utf-8")


def test_every_run_is_compared_with_the_first(place):
    write_run(place / "c", 3)
    found = compared("a", "b", "c")
    assert [(row["run"], row["less_run"]) for row in found["differences"]] == [("b", "a"), ("c", "a")] * 2
    dice = {name: pd.read_csv(place / name / "segmentation/per_image.csv")["dice"].mean() for name in "ac"}
    assert found["differences"][3]["mean_dice"]["difference"] == pytest.approx(dice["c"] - dice["a"])


def test_a_task_that_the_first_run_lacks_is_compared_with_one_of_its_kind(place):
    write_run(place / "c", 3, ["multitask"])
    rows = compared("a", "c")["differences"]
    pairs = [(row["head"], row["task"], row["less_task"]) for row in rows]
    assert pairs == [("label", "multitask", "classification"), ("mask", "multitask", "segmentation")]
    assert "multitask minus classification" in Path("comparison/comparison.html").read_text(encoding="utf-8")


def test_runs_of_no_common_kind_are_shown_without_a_difference(place):
    write_run(place / "c", 3, ["classification"])
    write_run(place / "d", 4, ["segmentation"])
    found = compared("c", "d")
    assert len(found["models"]) == 2 and not found["differences"]
    assert "No other run has a comparable model" in Path("comparison/comparison.html").read_text(encoding="utf-8")


def test_seeds_of_one_setting_have_a_mean_and_a_standard_deviation(place, capsys):
    write_run(place / "c", 5, CACHE_DIR="elsewhere")
    write_run(place / "other", 6, epochs=60)
    row = compared("a", "b", "c", "other")["seeds"][0]
    values = [
        json.loads((place / name / "classification/metrics.json").read_text())["label"]["accuracy"] for name in "abc"
    ]
    assert (row["runs"], row["seeds"], row["n_runs"]) == (["a", "b", "c"], [1, 2, 5], 3)
    mean, std = sum(values) / 3, np.sqrt(sum((value - sum(values) / 3) ** 2 for value in values) / 2)
    assert row["scores"]["accuracy"] == {"mean": pytest.approx(mean), "std": pytest.approx(std)}
    printed = " ".join(line[:36].strip() for line in capsys.readouterr().out.splitlines())
    assert "n = 3: seeds 1, 2, 5" in printed
    assert "1, 2, 5 (n = 3)" in Path("comparison/comparison.html").read_text(encoding="utf-8")


def test_a_score_that_is_not_defined_is_a_dash_and_has_no_mean(place, capsys):
    for name in "ab":
        edit(place / name / "classification/metrics.json", lambda found: found["label"].update(accuracy=None))
        edit(place / name / "classification/metrics.json", lambda found: found["intervals"].pop("label"))
    found = compared("a", "b")
    assert found["models"][0]["scores"]["accuracy"] == {"value": None, "interval": None}
    assert found["seeds"][0]["scores"]["accuracy"] == {"mean": None, "std": None}
    assert re.search(r"a classification \(4 images\) +- ", capsys.readouterr().out)


def rewrite(path, change):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    write(path, change(table))


def first_is(column, value):
    return lambda table: table.assign(**{column: [value, *table[column][1:]]})


NAMED = {  # runs that are named, and what is said of them
    "one run alone": (["a"], "One run alone cannot be compared: name two or more."),
    "the same run twice": (["a", "b", "b/../a"], "b/../a is the same run as a: name each once."),
    "a copy of a run": (["a", "b", "copy"], "copy is the same run as a: name each once."),
    "no folder": (["a", "nowhere"], "nowhere: holds no finished run."),
    "an output folder that holds a run": (["a", "b", "--output-dir", "copy"], "copy holds a run"),
}


@pytest.mark.parametrize("case", NAMED)
def test_runs_that_cannot_be_compared_are_refused_before_anything_is_written(case, place, capsys):
    shutil.copytree("a", "copy")
    names, message = NAMED[case]
    refuse(place, capsys, names, message)


def refuse(place, capsys, names, *messages):
    before = sorted(place.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *names])
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and not printed.out
    assert all(message in printed.err for message in messages), printed.err
    assert sorted(place.rglob("*")) == before


PREDICTIONS = "classification/predictions.csv"
DAMAGED = "b: a file is missing or damaged ("
DAMAGES = {  # what is done to files of run b, and what is said of it
    "not finished": (
        {"record.json": lambda path: edit(path, lambda record: record.update(finished=False))},
        "b: holds no finished run. Let main.py",
    ),
    "a damaged record": ({"record.json": lambda path: path.write_text("[1")}, "b: record.json is damaged. Restore it"),
    "a record that is a list": (
        {"record.json": lambda path: path.write_text("[1]")},
        DAMAGED,
    ),
    "a damaged table": (
        {PREDICTIONS: lambda path: path.write_bytes(b"\x00\xff\xfe")},
        DAMAGED,
    ),
    "a table without a column": (
        {PREDICTIONS: lambda path: rewrite(path, lambda table: table.drop(columns="BKL"))},
        "b: predictions.csv lacks the column BKL.",
    ),
    "scores of an earlier version": (
        {"segmentation/metrics.json": lambda path: edit(path, lambda found: found["mask"].pop("native"))},
        "b: segmentation/metrics.json lacks mask.native.mean_dice. Evaluate again: main.py --evaluate-only.",
    ),
    "no scores": ({"segmentation/metrics.json": Path.unlink}, "b: has no scores in segmentation/metrics.json."),
    "no split": ({"splits.csv": Path.unlink}, "b: has no splits.csv"),
    "no predictions": ({PREDICTIONS: Path.unlink}, DAMAGED),
    "no measured image in common": (
        {PREDICTIONS: lambda path: rewrite(path, lambda table: table[:0])},
        "b: no image in common with a (diagnoses of classification). Leave one out.",
    ),
    "measured images that are no test images": (
        {PREDICTIONS: lambda path: rewrite(path, first_is("image", "x"))},
        "b: classification was evaluated on images outside the test set of splits.csv: x.",
    ),
    "other labels": (
        {
            "splits.csv": lambda path: rewrite(path, first_is("label", "DF")),
            PREDICTIONS: lambda path: rewrite(path, first_is("true", "DF")),
        },
        "b: 1 test images have another true label than in a (001).",
    ),
    "labels that contradict the split": (
        {PREDICTIONS: lambda path: rewrite(path, first_is("true", "DF"))},
        "b: classification/predictions.csv and splits.csv disagree on 001.",
    ),
    "other lesions": (
        {"splits.csv": lambda path: rewrite(path, first_is("lesion_id", "L2"))},
        "b: 1 test images belong to another lesion than in a (001).",
    ),
    "a name that stands twice": ({PREDICTIONS: lambda path: rewrite(path, first_is("image", "NA"))}, "b: 'NA' occurs"),
    "an unknown class": (
        {PREDICTIONS: lambda path: rewrite(path, first_is("predicted", "wart"))},
        "b: predictions.csv has the class 'wart'; expected MEL",
    ),
    "a number that is missing": (
        {"segmentation/per_image.csv": lambda path: rewrite(path, first_is("dice", ""))},
        "lacks a number in the column dice.",
    ),
    "outlines of other images": (
        {"segmentation/per_image.csv": lambda path: rewrite(path, lambda table: table[:3])},
        "b: per_image.csv and per_image_native.csv have different images.",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_run_that_is_no_match_for_the_first_is_refused_before_anything_is_written(case, place, capsys):
    damage, message = DAMAGES[case]
    for name, spoil in damage.items():
        spoil(place / "b" / name)
    refuse(place, capsys, ["a", "b"], message)


def test_all_that_is_wrong_is_said_at_once(place, capsys):
    write_run(place / "c", 3, images=["2", "3"])
    messages = "nowhere: holds", "b/../b is the same run as b", "c: none of its test images is one of a: a tested 4 ("
    refuse(place, capsys, ["a", "b", "c", "nowhere", "b/../b"], *messages)


def test_only_the_first_few_of_many_names_are_printed(place, capsys):
    for name, numbers in (("many", range(10, 20)), ("few", range(30, 32))):
        rows = pd.DataFrame({"image": [f"i{n}" for n in numbers], "label": "NV", "lesion_id": "L", "split": "test"})
        write_run(place / name, 3, tasks=["multitask"], images=[])
        write(place / name / "splits.csv", rows)
    refuse(place, capsys, ["few", "many"], "few tested 2 (i30, i31); many tested 10 (i10, i11, i12, i13, i14, …).")


def test_names_are_shown_as_they_are(place):
    """Neither HTML nor the template's own language is read in a folder's name; "/" is not possible in one."""
    hostile = HOSTILE.replace("/", ":")
    write_run(place / hostile, 3)
    compared("a", hostile)
    html = Path("comparison/comparison.html").read_text(encoding="utf-8").replace("<wbr>", "")
    assert "<script" not in html and "&lt;script&gt;stop&lt;:script&gt; {{ 7*7 }} {% if %} &amp;amp;" in html


def test_the_page_stands_alone(place):
    compared("a", "b")
    html = Path("comparison/comparison.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"#][^"]*)"', html)
    assert sources and all(source.startswith("data:") for source in sources)


def test_a_comparison_of_demo_runs_says_so(place):
    edit(place / "b/config.json", lambda config: config.update(data="synthetic demo data"))
    compared("a", "b")
    assert "synthetic demo data: these numbers" in Path("comparison/comparison.html").read_text(encoding="utf-8")


def test_the_command_of_the_readme_compares_two_seeds(tmp_path, monkeypatch):
    (command,) = re.findall(r"^python -m report (compare .*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    monkeypatch.chdir(tmp_path)
    _, *runs = words = shlex.split(command, comments=True)
    for seed, name in enumerate(runs, start=42):
        write_run(tmp_path / name, seed)
    main(words)
    assert json.loads(Path("comparison/comparison.json").read_text())["seeds"][0]["seeds"] == [42, 43]


def test_it_writes_where_it_is_told_to_and_over_an_earlier_comparison(place):
    for _ in range(2):
        main(["compare", "a", "b", "--output-dir", "x/y"])
    assert {path.name for path in Path("x/y").iterdir()} == {"comparison.html", "comparison.json", "comparison.png"}


def test_a_folder_named_compare_is_reported_by_its_path(place, capsys):
    with pytest.raises(SystemExit):
        main(["./compare"])
    assert capsys.readouterr().err == "There is no folder compare: run main.py first.\n"


def test_the_first_run_is_named_also_where_it_has_no_labels(place, capsys):
    write_run(place / "c", 3, tasks=["segmentation"])
    found = compared("c", "a")
    assert found["first"] == "c" and {row["less_run"] for row in found["differences"]} == {"c"}
    assert "differences from c" in capsys.readouterr().out
    assert "Differences from <code>c</code>" in Path("comparison/comparison.html").read_text(encoding="utf-8")


def test_runs_over_turns_are_another_setting(place):
    path = place / "b" / "classification" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"views": 8}))
    assert {row["task"] for row in compared("a", "b")["seeds"]} == {"segmentation"}


def test_what_sets_a_model_apart_is_said_and_makes_it_another_setting(place, capsys):
    """A training that was stopped and then measured; one that was measured over turns."""
    write(place / "b" / "classification" / "history.csv", pd.DataFrame({"epoch": [1, 2]}))
    path = write_run(place / "c", 3) / "classification" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"views": 8}))
    found = compared("a", "b", "c")
    printed, html = capsys.readouterr().out, Path("comparison/comparison.html").read_text(encoding="utf-8")
    remarks = {row["run"]: row["remark"] for row in found["models"] if row["task"] == "classification"}
    assert remarks == {"a": "", "b": "stopped after 2 of 15 epochs", "c": "over 8 views"}
    assert {row["task"] for row in found["seeds"]} == {"segmentation"}
    labels = " ".join(line[:36].strip() for line in printed.splitlines())
    for shown in (labels, html):
        for name in ("classification (stopped after 2 of 15 epochs)", "classification (over 8 views)"):
            assert name in shown and f"{name} minus classification" in shown


def test_a_damaged_history_is_named_with_its_run(place, capsys):
    (place / "b" / "classification" / "history.csv").write_bytes(b"")
    with pytest.raises(SystemExit):
        main(["compare", "a", "b"])
    assert "b: a file is missing or damaged" in capsys.readouterr().err


LONG_NAMES = [
    f"experiments/resnet18-from-scratch-at-224-pixels-with-{kind}-loss-and-flips" for kind in ("plain", "focal")
]


def test_the_console_stays_within_100_columns_and_the_figure_is_legible(place, capsys):
    """The page is 1,024 pixels wide inside: the figure's text, of 8 points at 110 dpi, must not shrink below 9."""
    for seed, name in enumerate(LONG_NAMES, 3):
        write_run(place / name, seed, LABEL_LOSS=name)
    main(["compare", *LONG_NAMES, "a"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100
    with Image.open("comparison/comparison.png") as figure:
        assert 8 * 110 / 72 * min(1, 1024 / figure.width) >= 9


def test_what_folder_names_share_is_said_once_and_they_break_only_after_a_mark(place):
    for seed, name in enumerate(LONG_NAMES, 3):
        write_run(place / name, seed)
    found = compared(*LONG_NAMES)
    html = Path("comparison/comparison.html").read_text(encoding="utf-8")
    start = "experiments/resnet18-from-scratch-at-224-pixels-with-"
    assert found["folders"] == {f"…{name.removeprefix(start)}": name for name in LONG_NAMES}
    assert html.count(start) == 1 and "<code>…focal-<wbr>loss-<wbr>and-<wbr>flips<wbr></code>" in html


def test_p_values_of_several_runs_are_corrected_score_by_score(place, capsys):
    """Of two differences of a score: the smaller p doubled; the larger itself, but not below the other."""
    write_run(place / "c", 3)
    rows = [row["mean_dice"] for row in compared("a", "b", "c")["differences"] if row["head"] == "mask"]
    p = sorted(row["p"] for row in rows)
    assert sorted(row["p_holm"] for row in rows) == pytest.approx([min(1, 2 * p[0]), max(p[1], min(1, 2 * p[0]))])
    html, printed = Path("comparison/comparison.html").read_text(encoding="utf-8"), capsys.readouterr().out
    for row in rows:
        assert f"p {row['p']:.3f}<br>Holm {row['p_holm']:.3f}" in html
        assert f"p {row['p']:.3f}, Holm {row['p_holm']:.3f}" in printed
    assert "over the 2 differences of the same score (at least 0.002)" in " ".join(printed.split())


def test_one_pair_is_not_corrected(place, capsys):
    rows = compared("a", "b")["differences"]
    assert all(row["p"] == row["p_holm"] for one in rows for row in one.values() if isinstance(row, dict))
    assert "Holm" not in capsys.readouterr().out
    assert "Holm" not in Path("comparison/comparison.html").read_text(encoding="utf-8")


def test_a_paper_gets_the_differences_as_latex_and_csv_and_the_figure(place, capsys):
    rows = compared("--paper", "a", "b")["differences"]
    paper = Path("comparison/paper")
    assert {path.name for path in paper.glob("figures/*")} == {"differences.pdf", "differences.svg"}
    table = pd.read_csv(paper / "tables/differences_masks.csv").set_index("Score")
    assert table.loc["Mean Dice", "Difference"] == pytest.approx(rows[1]["mean_dice"]["difference"], abs=6e-4)
    assert table.loc["Mean Dice", "p, Holm"] == pytest.approx(rows[1]["mean_dice"]["p_holm"], abs=6e-4)
    names = {path.stem for path in paper.glob("tables/*.tex")}
    assert {f"{kind}_{head}" for kind in ("scores", "differences", "seeds") for head in ("masks", "diagnoses")} < names
    (paper / "tables/settings.tex").write_text("mine")
    before = Path("comparison/comparison.json").stat().st_mtime_ns
    with pytest.raises(SystemExit):
        main(["compare", "--paper", "a", "b"])
    assert "was changed by hand" in capsys.readouterr().err
    assert Path("comparison/comparison.json").stat().st_mtime_ns == before


def test_only_differences_with_a_p_value_are_counted_for_holm():
    rows = [{"head": "mask"} | {key: {"p": p} for key in scores.compared("mask")} for p in (0.2, None)]
    assert set(comparison._tests_of_scores(rows).values()) == {1}
