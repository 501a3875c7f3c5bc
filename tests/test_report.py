"""python -m report: the page of a run, and the comparison of several."""

import json

import pytest
from conftest import copied, edit

from measure.scores import compared
from report.__main__ import main
from report.page import name_of_run


def test_the_command_writes_the_page_that_the_run_wrote(outputs, tmp_path):
    """But for the name of the folder, which is another's."""
    copy = copied(outputs, tmp_path / "outputs")
    name, there = (name_of_run(folder).encode() for folder in (copy, outputs))
    written = (copy / "report.html").read_bytes().replace(there, name)
    (copy / "report.html").unlink()
    main([str(copy)])
    assert (copy / "report.html").read_bytes() == written


def test_a_run_is_compared_with_itself_under_another_seed_without_a_difference(outputs, tmp_path):
    copy = copied(outputs, tmp_path / "outputs")

    def another(record):
        record["started"] = "later"
        for facts in record["tasks"].values():
            facts["identity"]["seed"] = 43

    edit(copy / "record.json", another)
    main(["compare", str(outputs), str(copy), "--output-dir", str(tmp_path / "comparison")])
    found = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert len(found["models"]) == 8 and len(found["seeds"]) == 4
    for row in found["differences"]:
        assert found["folders"][row["run"]] == str(copy) and row["task"] == row["less_task"]
        for key in compared(row["head"]):
            assert row[key]["difference"] in (0, None) and row[key]["interval"] is None


def test_the_command_ends_in_one_message_without_a_run(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"No evaluated model in {tmp_path}: run main.py first.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["config.json", "splits.csv", "data_report.csv", "classification/metrics.json"])
@pytest.mark.parametrize("content", [None, '{"a'])
def test_a_damaged_or_missing_file_of_a_run_is_one_message_that_names_the_folder(name, content, copy, capsys):
    before = (copy / "report.html").read_bytes()
    (copy / name).unlink() if content is None else (copy / name).write_text(content)
    with pytest.raises(SystemExit) as stopped:
        main([str(copy)])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith(f"{copy}: ") and said.count("\n") == 1
    assert "damaged" in said and (copy / "report.html").read_bytes() == before
    assert content is None or not name.endswith(".json") or f"{name} is damaged" in said


def test_a_page_is_written_again_only_of_a_finished_run(copy, capsys):
    """Until then it would take the place of the page that shows the training."""
    edit(copy / "record.json", lambda record: record.update(finished=False))
    (copy / "report.html").write_text("live")
    with pytest.raises(SystemExit) as stopped:
        main([str(copy)])
    assert stopped.value.code == 2 and "is not finished" in capsys.readouterr().err
    assert (copy / "report.html").read_text() == "live"
    edit(copy / "record.json", lambda record: record.update(finished=True))
    main([str(copy)])
    assert "skin lesion models: report" in (copy / "report.html").read_text()
