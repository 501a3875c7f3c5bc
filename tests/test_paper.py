"""python -m report paper: figures, tables and text for a manuscript, and what it refuses."""

import csv
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import contents, edit
from sklearn import metrics as reference

import evaluate
import visualize
from dataset.csvfile import read_back
from dataset.synthetic import NOTE
from report import paperfigures
from report.__main__ import main
from report.papertables import tables_of
from report.run import Run

MM = 72 / 25.4  # points
ODD = "50%_a & b $x^2$ #1 {癌} Ä~\\"


@pytest.fixture(scope="session")
def paper(outputs, made_once):
    """The paper of a whole run whose data are said to be drawn; not to be changed."""

    def make(place):
        shutil.copytree(outputs, place / "run", ignore=shutil.ignore_patterns("*.pth"))
        edit(place / "run" / "config.json", lambda found: found.update(data=NOTE))
        main(["paper", str(place / "run"), "--output-dir", str(place / "paper")])

    return made_once("paper", make) / "paper"


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["paper", *map(str, arguments)])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def rename(folder, old, new):
    """Give a class another name in all files of a run that the paper reads."""
    edit(folder / "record.json", lambda found: found.update(classes=[new if c == old else c for c in found["classes"]]))
    for path in [folder / "splits.csv", *folder.glob("*/predictions.csv")]:
        table = read_back(path).rename(columns={old: new})
        table.replace(
            {name: {old: new} for name in ("label", "true", "predicted", "balanced") if name in table}
        ).to_csv(path, index=False)

    def renamed(part):
        if not isinstance(part, dict):
            return new if part == old else part
        return {new if name == old else name: renamed(value) for name, value in part.items()}

    for path in folder.glob("*/metrics.json"):
        path.write_text(json.dumps(renamed(json.loads(path.read_text()))))


def test_every_figure_of_the_run_is_drawn_or_named_as_missing(outputs, paper):
    readme = (paper / "README.md").read_text()
    names = {path.stem for path in paper.glob("figures/*.pdf")}
    assert names == {path.stem for path in paper.glob("figures/*.svg")}
    found = {path.relative_to(outputs).as_posix() for path in outputs.rglob("*.png")}
    missing = set(re.findall(r"Not drawn: (\S+) \(shows images\)", readme))
    assert missing == {path for path in found if re.search("masks|heat_maps|confident_errors", path)}
    assert {path.replace("/", "_").removesuffix(".png") for path in found - missing} == names
    assert {f"includegraphics{{figures/{name}.pdf}}" for name in names} <= {
        line.strip("\\") for line in (paper / "paper.tex").read_text().splitlines()
    }


def test_figures_are_one_or_two_columns_wide_with_whole_fonts(paper):
    widths = set()
    for path in paper.glob("figures/*.pdf"):
        content = path.read_bytes()
        (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
        widths.add(round(float(box[0]) / MM, 1))
        assert float(box[1]) / MM < 245, path  # of a page
        assert b"/FontFile2" in content and b"/Type3" not in content
    assert widths == {85.0, 170.0}
    for path in paper.glob("figures/*.svg"):
        assert "<text" not in path.read_text()


def test_text_has_eight_points_and_the_note_stands_in_the_figure():
    with visualize.on_paper():
        figure = visualize.confusion(np.eye(3, dtype=int), ["a", "b", "c"], "a title")
        svg = paperfigures.printed(figure, "drawn & drawn")["svg"].decode()
    sizes = {
        text.get_fontsize() for text in figure.findobj(lambda one: hasattr(one, "get_fontsize")) if text.get_text()
    }
    assert sizes == {8} and "<!-- drawn &amp; drawn -->" in svg


def test_a_look_for_print_ends_with_its_block():
    before = visualize.N_SHOWN, visualize.MAX_NAME
    with pytest.raises(KeyError), visualize.on_paper():
        assert before > (visualize.N_SHOWN, visualize.MAX_NAME) and visualize.IS_ON_PAPER
        raise KeyError
    assert before == (visualize.N_SHOWN, visualize.MAX_NAME) and not visualize.IS_ON_PAPER


def test_every_figure_table_and_text_says_that_the_data_are_drawn(paper):
    for path in paper.glob("figures/*.svg"):
        assert f"<!-- {NOTE} -->" in path.read_text(), path
    for path in paper.glob("tables/*.csv"):
        assert {row["data"] for row in csv.DictReader(path.open(encoding="utf-8"))} == {NOTE}, path
    for path in paper.glob("tables/*.tex"):
        assert f"Data: {NOTE}" in path.read_text(), path
    for name in ("methods.txt", "methods.tex", "paper.tex", "README.md"):
        assert NOTE in " ".join((paper / name).read_text().split()), name


def test_probabilities_before_scaling_are_those_that_the_run_had(outputs, monkeypatch):
    """The run keeps the calibrated ones alone, and the likelihood of both."""
    drawn = []
    monkeypatch.setattr(paperfigures, "label_figures", lambda *values: drawn.append(values) or {})
    list(paperfigures.figures_of(Run(outputs)))
    (true, before, after, _, classes, task), *_ = drawn
    numbers = json.loads((outputs / task / "metrics.json").read_text())["label"]["calibration"]
    assert numbers["temperature"] != 1
    for name, probabilities in (("before", before), ("after", after)):
        nll = reference.log_loss(true, probabilities, labels=range(len(classes)))
        assert nll == pytest.approx(numbers[name]["nll"], rel=1e-4)


def test_the_dice_of_each_diagnosis_are_those_of_its_images(outputs, monkeypatch):
    drawn = {}
    monkeypatch.setattr(visualize, "dice_by_class", lambda dice, title: drawn.setdefault(title, dice))
    list(paperfigures.figures_of(Run(outputs)))
    table = read_back(outputs / "segmentation" / "per_image.csv")
    labels = read_back(outputs / "splits.csv").set_index("image")["label"][table["image"]].to_numpy()
    for code, values in drawn["segmentation"].items():
        np.testing.assert_allclose(values, table["dice"][labels == code])


def test_the_tables_hold_the_runs_numbers_with_three_decimals(outputs, paper):
    predictions = read_back(outputs / "classification" / "predictions.csv")
    classes = json.loads((outputs / "record.json").read_text())["classes"]
    true, predicted = predictions["true"], predictions["predicted"]
    table = pd.read_csv(paper / "tables" / "classification_by_class.csv", dtype=str).set_index("Class")
    recall = reference.recall_score(true, predicted, labels=classes, average=None, zero_division=0)
    assert table["Recall"].tolist() == [f"{value:.3f}" for value in recall]
    scores = pd.read_csv(paper / "tables" / "scores_diagnoses.csv", dtype=str).set_index("Score")
    accuracy = scores.loc["Accuracy"]
    assert accuracy["classification"] == f"{reference.accuracy_score(true, predicted):.3f}"
    low, high = json.loads((outputs / "classification" / "metrics.json").read_text())["intervals"]["label"]["accuracy"]
    assert [accuracy["classification, low"], accuracy["classification, high"]] == [f"{low:.3f}", f"{high:.3f}"]
    latex = (paper / "tables" / "scores_diagnoses.tex").read_text()
    assert f"{accuracy['classification']} ({low:.3f}--{high:.3f})" in latex
    counts = pd.read_csv(paper / "tables" / "data_by_class.csv").set_index("Class")
    splits = read_back(outputs / "splits.csv")
    assert counts.loc["all", "test"] == (splits["split"] == "test").sum()
    assert counts.loc["MEL", "All"] == (splits["label"] == "MEL").sum()


def test_all_that_a_run_measures_has_a_table(outputs):
    names = {table.name for table in tables_of(Run(outputs))}
    both = {f"{task}_{kind}" for task in ("segmentation", "multitask") for kind in ("masks_by_class", "subgroups")}
    both |= {f"{task}_{kind}" for task in ("classification", "multitask") for kind in ("by_class", "subgroups")}
    shared = {"data_flow", "data_by_class", "scores_diagnoses", "scores_masks", "masks", "calibration"}
    assert names == both | shared | {"operating_points"}


def test_rows_that_were_left_out_are_counted_in_the_flow(copy):
    table = read_back(copy / "data_report.csv")
    table.loc[:2, ["status", "reason"]] = ["left out", "too dark (mean 3)"]
    table.to_csv(copy / "data_report.csv", index=False)
    flow = next(table for table in tables_of(Run(copy)) if table.name == "data_flow")
    assert flow.rows[:2] == [["Rows in the table", len(table)], ["Left out: too dark", 3]]


def test_both_methods_are_one_text(paper):
    text = " ".join((paper / "methods.txt").read_text().split())
    latex = re.sub(r"\\paragraph{(.*?)}", r"\1", (paper / "methods.tex").read_text())
    keys = re.findall(r"~\\cite{(\w+)}", latex)
    latex = " ".join(re.sub(r"~\\cite{\w+}", "@", latex).replace("\\%", "%").replace("\\_", "_").split())
    words = re.sub(r" \([^()]*? \d{4}\)", "@", text)
    assert latex == words and keys
    assert set(keys) == set(re.findall(r"@\w+{(\w+),", (paper / "references.bib").read_text()))


@pytest.mark.skipif(
    not all(map(shutil.which, ("pdflatex", "bibtex", "pdffonts", "pdfinfo"))),
    reason="pdflatex, bibtex (TeX Live) and pdffonts, pdfinfo (Poppler) are not all installed",
)
def test_the_paper_compiles_with_odd_names_and_a_reader_finds_the_fonts(copy):
    rename(copy, "DF", ODD)
    main(["paper", str(copy)])
    for command in ("pdflatex -halt-on-error -interaction=nonstopmode paper", "bibtex paper"):
        done = subprocess.run(command.split(), cwd=copy / "paper", capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
    for path in (copy / "paper").glob("figures/*.pdf"):
        fonts, size = (
            subprocess.run([tool, path], capture_output=True, text=True).stdout for tool in ("pdffonts", "pdfinfo")
        )
        assert {line.split()[-5] for line in fonts.splitlines()[2:]} == {"yes"}
        width = float(re.search(r"Page size: +([\d.]+) x", size)[1])
        assert width / MM == pytest.approx(85, abs=0.1) or width / MM == pytest.approx(170, abs=0.1)
    main(["paper", str(copy)])  # what LaTeX has made there is no reason to refuse


def test_the_folder_is_the_runs_own_unless_another_is_named_and_is_written_again_alike(copy, capsys):
    main(["paper", str(copy)])
    assert "heat_maps.png (shows images)" in capsys.readouterr().out
    first = contents(copy / "paper")
    (copy / "paper" / "tables" / "masks.csv").unlink()
    main(["paper", str(copy)])
    assert contents(copy / "paper") == first
    edit(copy / "record.json", lambda found: [found["tasks"].pop(task) for task in ("segmentation", "multitask")])
    main(["paper", str(copy)])
    assert not list(copy.glob("paper/tables/*mask*")) and list(copy.glob("paper/tables/classification*"))


def test_files_of_others_and_changes_by_hand_are_kept(copy, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    assert "holds other files (thesis.tex)" in refused([copy, "--output-dir", tmp_path / "mine"], capsys)
    assert "holds other files" in refused([copy, "--output-dir", copy], capsys)
    assert "is a file" in refused([copy, "--output-dir", tmp_path / "mine" / "thesis.tex"], capsys)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    main(["paper", str(copy)])
    (copy / "paper" / "methods.tex").write_text("better")
    assert "methods.tex was changed by hand" in refused([copy], capsys)
    assert (copy / "paper" / "methods.tex").read_text() == "better"


def spoil(name, text="{"):
    return lambda folder: (folder / name).write_text(text)


DAMAGE = {
    "no finished run": lambda folder: edit(folder / "record.json", lambda found: found.update(finished=False)),
    "record.json": lambda folder: (folder / "record.json").unlink(),
    "damaged": spoil("classification/metrics.json"),
    "lacks the column predicted": spoil("classification/predictions.csv", "image,true\n"),
    "history.csv": spoil("multitask/history.csv", ""),
    "splits.csv": lambda folder: (folder / "splits.csv").unlink(),
    "data_report": lambda folder: (folder / "data_report.csv").unlink(),
    "temperature": lambda folder: edit(
        folder / "classification" / "metrics.json", lambda found: found["label"]["calibration"].pop("temperature")
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_run_that_is_unfinished_or_damaged_writes_nothing(kind, copy, capsys):
    DAMAGE[kind](copy)
    message = refused([copy], capsys)
    assert message.startswith(f"{copy}: ") and message.count("\n") == 1
    assert not (copy / "paper").exists()


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert "holds no finished run" in refused([tmp_path / "nothing"], capsys)
    assert not list(tmp_path.iterdir())


def test_a_share_of_zero_stays_zero_before_scaling():
    tiny = np.maximum(np.array([[1.0, 0.0]]), np.finfo(float).tiny)
    assert evaluate.softmax(np.log(tiny), 1 / 3.0).tolist() == [[1.0, 0.0]]
