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
                write([name, name, "", "NV"])
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


def test_a_row_is_never_lost_to_a_run_that_names_other_pictures(checkpoints, photos, tmp_path, capsys):
    command = ["--checkpoint", checkpoints["classification"], "--output-dir", tmp_path / "out"]
    assert run(photos / "b", *command) == 0
    before = (tmp_path / "out" / "predictions.csv").read_bytes()
    assert run(photos / "a", *command, "--resume") == 2
    assert "b/one.jpg (output one) would be lost" in capsys.readouterr().err
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before


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
    assert run(*command, *twice, "--resume") == 2 and "--checkpoint was" in capsys.readouterr().err


def test_a_table_of_other_columns_is_not_gone_on_with(checkpoints, photos, tmp_path, capsys):
    """As an earlier version may have written, of whose rows none would be understood."""
    command = [photos, "--output-dir", tmp_path / "out", "--checkpoint", checkpoints["classification"]]
    assert run(*command) == 0
    path = tmp_path / "out" / "predictions.csv"
    path.write_text(path.read_text().replace(",skipped,", ",skipped,more,", 1))
    assert run(*command, "--resume") == 2 and "has other columns" in capsys.readouterr().err
