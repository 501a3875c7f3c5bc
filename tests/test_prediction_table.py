"""The table of predictions: in JSON too, in parts of several processes, and joined without losing a row."""

import doctest
import json
import os
import shutil

import pandas as pd
import pytest
from conftest import dies_after, rows_of, run

from dataset.classes import HAM10000 as CLASSES
from inference import table
from inference.inputs import Listed
from inference.table import Table


def test_parts_are_joined_in_the_order_of_the_pictures_whatever_stands_in_a_name(tmp_path):
    names = ["a,b", 'a"b', "a\nb", "a\rb", "\udcff", "plain"]
    listed, table = [Listed(name, name) for name in names], Table(tmp_path, ["predicted"])
    table.begin({})
    for rank in (0, 1):
        with table.open_part(rank) as write:
            for name in names[rank::2][::-1]:
                write([name, name, "", "0", "NV"])
    assert table.join(listed).tolist() == [2] * 6 and not table.parts()
    content = (tmp_path / "predictions.csv").read_bytes()
    assert table.join(listed).tolist() == [2] * 6 and (tmp_path / "predictions.csv").read_bytes() == content
    table.write_json()
    assert [row["file"] for row in json.loads((tmp_path / "predictions.json").read_text())] == names
    read = pd.read_csv(tmp_path / "predictions.csv", encoding_errors="surrogateescape")
    assert read["file"].tolist() == names


def test_no_two_columns_have_one_name(tmp_path):
    assert doctest.testmod(table).failed == 0
    header = Table(tmp_path, ["predicted", "set", "file", "set", "set_"], ["file", "set", "set_"]).header
    assert header == [*table.FIRST, "predicted", "set", "file_", "set__", "set_"]


def test_the_table_as_json_says_the_same_with_numbers_as_numbers(checkpoints, photos, tmp_path):
    (photos / "text.jpg").write_text("no picture")
    out = tmp_path / "out"
    run(photos, "--checkpoint", checkpoints["multitask"], "--output-dir", out, "--json")
    found = json.loads((out / "predictions.json").read_text())
    for row, one in zip(rows_of(out), found, strict=True):
        texts = {name: value for name, value in row.items() if value and name not in CLASSES}
        assert {name: value for name, value in one.items() if name != "probabilities"} == {
            name: value if isinstance(one[name], str) else float(value) for name, value in texts.items()
        }
        assert one.get("probabilities", {}) == {code: float(row[code]) for code in CLASSES if row[code]}
    assert isinstance(found[0]["confidence"], float) and [one["skipped"] for one in found if "skipped" in one]


@pytest.mark.parametrize("name", ["predictions.csv", "predictions.json"])
def test_a_join_that_was_cut_short_loses_no_row(name, checkpoints, photos, tmp_path, monkeypatch, capsys):
    """Killed when the new table is written but not yet in its place, twice; `--resume` predicts nothing again."""
    out, replace = tmp_path / "out", os.replace
    command = [photos, "--checkpoint", checkpoints["classification"], "--output-dir", out, "--json"]

    def stop(source, target):
        if str(target).endswith(name):
            raise KeyboardInterrupt
        replace(source, target)

    assert run(*command) == 0
    expected = (out / "predictions.csv").read_bytes()
    with monkeypatch.context() as patch:
        dies_after(5, patch)  # all rows stand in the part
        assert run(*command, "--overwrite") == 130
        patch.setattr(table.os, "replace", stop)
        assert [run(*command, "--resume") for _ in range(2)] == [130, 130]
    capsys.readouterr()
    assert run(*command, "--resume") == 0
    assert "5 predicted (5 of them earlier)" in capsys.readouterr().out
    assert (out / "predictions.csv").read_bytes() == expected and not list(out.glob("*.part*"))


@pytest.mark.parametrize("flag", [[], ["--resume"], ["--overwrite"]])
def test_other_pictures_join_the_table(flag, checkpoints, photos, tmp_path):
    """Named alone, each would have the output name one; the first is as it was."""
    command = ["--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out"]
    assert run(photos / "b", *command) == 0
    before = rows_of(tmp_path / "out")
    first = {path: path.read_bytes() for path in (tmp_path / "out").rglob("one.*")}
    assert run(photos / "a" / "one.jpg", *command, *flag) == 0
    rows = rows_of(tmp_path / "out")
    assert rows[:1] == before and [row["output"] for row in rows] == ["one", "one-2"]
    assert len(first) == 2 and first == {path: path.read_bytes() for path in first}
    assert (tmp_path / "out" / "masks" / "one-2.png").is_file()


def test_a_picture_of_the_same_name_and_content_is_done_already(checkpoints, photos, tmp_path, capsys, monkeypatch):
    """From wherever it is named; its row is shown again. The time of the file does not count."""
    command = ["--checkpoint", checkpoints["multitask"], "--output-dir", tmp_path / "out"]
    assert run(photos / "b" / "one.jpg", *command) == 0
    line = capsys.readouterr().out.splitlines()[1]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.[jp][pn]g")}
    (tmp_path / "more").mkdir()
    shutil.copy(photos / "b" / "one.jpg", tmp_path / "more" / "one.jpg")
    for name in (photos / "b" / "one.jpg", tmp_path / "more" / "one.jpg"):
        assert run(name, *command) == 0
        shown = capsys.readouterr().out
        assert line in shown and "Already predicted" in shown and "1 predicted (1 of them earlier)" in shown
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.[jp][pn]g")}
    assert len(rows_of(tmp_path / "out")) == 1


def test_a_picture_whose_content_has_changed_is_predicted_again_only_if_that_is_asked_for(
    checkpoints, photos, tmp_path, capsys
):
    command = ["--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out"]
    assert run(photos, *command) == 0
    before = (tmp_path / "out" / "predictions.csv").read_bytes()
    shutil.copy(photos / "b" / "one.jpg", photos / "a" / "one.jpg")
    assert run(photos / "a" / "one.jpg", *command) == 2
    assert "one.jpg has changed since it was predicted. Pass --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before
    assert run(photos / "a" / "one.jpg", *command, "--overwrite") == 0
    rows = {row["output"]: row for row in rows_of(tmp_path / "out")}
    assert len(rows) == 5 and rows["a/one"]["digest"] == rows["b/one"]["digest"]


def test_a_stopped_overwriting_goes_on_and_keeps_the_rows_of_others(checkpoints, photos, tmp_path, monkeypatch):
    command = ["--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out"]
    assert run(photos, *command) == 0
    expected = sorted(row["file"] for row in rows_of(tmp_path / "out"))
    with monkeypatch.context() as patch:
        dies_after(2, patch)
        assert run(photos / "a", *command, "--overwrite") == 130
    assert run(photos / "a", *command, "--resume") == 0
    assert sorted(row["file"] for row in rows_of(tmp_path / "out")) == expected


def test_rows_of_other_options_are_replaced_only_if_that_is_asked_for(checkpoints, photos, tmp_path, capsys):
    command = [photos / "b", "--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out"]
    assert run(photos, *command[1:]) == 0
    assert run(*command, "--tta") == 2 and "its table was made without --tta. Use the same" in capsys.readouterr().err
    assert run(*command, "--tta", "--overwrite") == 0 and len(rows_of(tmp_path / "out")) == 1


def test_a_skipped_picture_that_was_retried_has_one_row_when_another_joins(tmp_path):
    """Both rows are of an image that is not named this time: the later one counts."""
    table = Table(tmp_path, ["predicted"])
    table.begin({})
    for rows in ([["a", "a", "damaged", "", ""], ["b", "b", "", "1", "NV"]], [["a", "a", "", "2", "MEL"]]):
        with table.open_part(0) as write:
            [write(row) for row in rows]
    assert table.join([Listed("c", "c")]).tolist() == [0]
    assert [row["predicted"] for row in rows_of(tmp_path)] == ["MEL", "NV"]
    assert table.join([Listed("a", "a"), Listed("c", "c")]).tolist() == [2, 0]
    assert [row["file"] for row in rows_of(tmp_path)] == ["b", "a"]
    assert table.join([Listed("a", "a")], again=True).tolist() == [0]
    assert [row["file"] for row in rows_of(tmp_path)] == ["b"]


def test_pictures_that_are_new_leave_the_names_of_earlier_outputs_as_they_are(checkpoints, photos, tmp_path):
    """Named alone, b/one.jpg is one; beside a/one.jpg it would be b/one."""
    command = ["--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out"]
    assert run(photos / "b", *command) == 0 and [row["output"] for row in rows_of(tmp_path / "out")] == ["one"]
    assert run(photos, *command, "--resume") == 0
    found = {row["file"]: row["output"] for row in rows_of(tmp_path / "out")}
    assert found[str(photos / "b" / "one.jpg")] == "one" and len(set(found.values())) == len(found) == 5
    assert all((tmp_path / "out" / "overlays" / f"{name}.jpg").exists() for name in found.values())


def test_a_copy_of_the_checkpoint_goes_on(checkpoints, photos, tmp_path, capsys):
    copy = shutil.copy(checkpoints["classification"], tmp_path / "copy.pth")
    command = [photos, "--output-dir", tmp_path / "out", "--checkpoint"]
    assert run(*command, checkpoints["classification"]) == 0
    assert run(*command, copy, "--resume") == 0 and "(5 of them earlier)" in capsys.readouterr().out
    twice = [checkpoints["classification"], "--checkpoint", copy]  # it counts twice in an average
    assert run(*command, *twice, "--resume") == 2 and "its table was made with --checkpoint" in capsys.readouterr().err


def test_a_table_of_other_columns_is_not_gone_on_with(checkpoints, photos, tmp_path, capsys):
    """As an earlier version may have written, of whose rows none would be understood."""
    command = [photos, "--output-dir", tmp_path / "out", "--checkpoint", checkpoints["classification"]]
    assert run(*command) == 0
    path = tmp_path / "out" / "predictions.csv"
    path.write_text(path.read_text().replace(",skipped,", ",skipped,more,", 1))
    assert run(*command, "--resume") == 2 and "has other columns" in capsys.readouterr().err
