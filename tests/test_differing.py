"""Which settings differ between runs, and which runs are averaged."""

import json

import pytest
from conftest import edit
from test_comparison import compared, write_run


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_runs(place, **settings_of_runs):
    """Runs by name, each with seed, config and identity."""
    for number, (name, (seed, config, identity)) in enumerate(settings_of_runs.items()):
        write_run(place / name, seed, ["classification"], **config)

        def update(record, identity=identity, number=number):
            record["tasks"]["classification"]["identity"].update(identity)
            record["started"] = f"2026-01-02T00:00:{number:02}"

        edit(place / name / "record.json", update)


def rows_of(found):
    return {row["name"]: row["values"] for row in found["settings"]}


def test_the_settings_that_differ_come_first_one_column_per_run(place, capsys):
    first = {"LABEL_LOSS": "focal", "EMA": 0.0, "AUGMENT": ["flips"], "CACHE_DIR": "x", "WARM_UP": 0.5}
    second = {"LABEL_LOSS": "weighted", "EMA": 0.0, "AUGMENT": ["flips", "rotations"], "CACHE_DIR": "y"}
    write_runs(place, a=(1, first, {}), b=(1, second, {"split_hash": "t"}))
    assert rows_of(compared("a", "b")) == {
        "LABEL_LOSS": ["focal", "weighted"],
        "AUGMENT": ["flips", "flips rotations"],
        "WARM_UP": ["0.5", "–"],
        "split hash": ["s", "t"],
    }
    printed = capsys.readouterr().out
    assert printed.index("Settings that differ") < printed.index("Diagnoses")
    html = (place / "comparison/comparison.html").read_text(encoding="utf-8")
    assert html.index("<td>weighted</td>") < html.index("<h2>Scores</h2>") and "EMA" not in html


def test_what_came_of_a_setting_counts_and_not_how_it_was_asked_for(place):
    """Two runs without ImageNet weights, one because there was no network, and bf16 chosen by hand or not."""
    scratch = {"initial_weights": "scratch", "precision": "bf16"}
    write_runs(
        place,
        a=(1, {"PRETRAINED": "auto", "PRECISION": "auto"}, scratch),
        b=(2, {"PRETRAINED": "no", "PRECISION": "bf16"}, scratch),
        c=(3, {"PRETRAINED": "auto", "PRECISION": "auto"}, scratch | {"initial_weights": "ImageNet"}),
    )
    found = compared("a", "b", "c")
    assert rows_of(found) == {"SEED": ["1", "2", "3"], "initial weights": ["scratch", "scratch", "ImageNet"]}
    assert found["seeds"][0]["runs"] == ["a", "b"]
    assert found["not_averaged"] == [
        "c, classification: not averaged with a, because these settings differ: initial weights."
    ]


def test_epochs_of_another_task_are_no_setting_of_this_one(place):
    write_runs(place, a=(1, {"SEGMENTATION_EPOCHS": 25}, {}), b=(2, {"SEGMENTATION_EPOCHS": 50}, {}))
    found = compared("a", "b")
    assert rows_of(found) == {"SEED": ["1", "2"]} and found["seeds"][0]["n_runs"] == 2


def test_runs_of_several_splits_are_averaged_and_it_is_said(place, capsys):
    write_runs(
        place,
        a=(1, {"SPLIT_SEED": 42}, {}),
        b=(1, {"SPLIT_SEED": 43}, {"split_hash": "t"}),
        c=(2, {"SPLIT_SEED": 43}, {"split_hash": "t"}),
    )
    (row,) = compared("a", "b", "c")["seeds"]
    assert (row["runs"], row["seeds"], row["n_splits"], row["n_runs"]) == (["a", "b", "c"], [1, 1, 2], 2, 3)
    labels = " ".join(line[:36].strip() for line in capsys.readouterr().out.splitlines())
    assert "n = 3: seeds 1, 1, 2; 2 splits" in labels
    assert "1, 1, 2 (n = 3, 2 splits)" in (place / "comparison/comparison.html").read_text(encoding="utf-8")


def test_other_data_are_another_setting(place):
    write_runs(place, a=(1, {}, {}), b=(2, {}, {}))
    path = place / "b/splits.csv"
    path.write_text(path.read_text() + "more,NV,L8,train\n")
    found = compared("a", "b")
    assert not found["seeds"] and found["not_averaged"][0].endswith("these settings differ: images.")


def test_the_reason_why_runs_are_not_averaged_is_said_once_per_pair(place, capsys):
    write_runs(place, a=(1, {"EMA": 0.0}, {}), b=(2, {"EMA": 0.9}, {}), c=(3, {"EMA": 0.9, "DROPOUT": 0.1}, {}))
    found = compared("a", "b", "c")
    assert not found["seeds"]
    assert found["not_averaged"] == [
        "a, classification: not averaged with b, because these settings differ: EMA.",
        "b, classification: not averaged with c, because these settings differ: DROPOUT.",
    ] or found["not_averaged"] == [
        "a, classification: not averaged with b, because these settings differ: EMA.",
        "c, classification: not averaged with b, because these settings differ: DROPOUT.",
    ]
    printed = " ".join(capsys.readouterr().out.split())
    html = " ".join((place / "comparison/comparison.html").read_text(encoding="utf-8").split())
    assert all(note in shown for note in found["not_averaged"] for shown in (printed, html))


def test_the_reason_is_that_of_a_run_of_another_seed(place):
    """Of equal seeds no mean is expected: b is not compared with a, which is more similar, but with c."""
    write_runs(place, a=(1, {}, {}), b=(1, {"EMA": 0.9}, {}), c=(2, {"DROPOUT": 0.1}, {}))
    assert compared("a", "b", "c")["not_averaged"] == [
        "a, classification: not averaged with c, because these settings differ: DROPOUT.",
        "b, classification: not averaged with c, because these settings differ: EMA, DROPOUT.",
    ]


def test_runs_of_one_seed_and_several_settings_need_no_word(place):
    write_runs(place, a=(1, {"EMA": 0.0}, {}), b=(1, {"EMA": 0.9}, {}))
    assert compared("a", "b")["not_averaged"] == []


def test_a_run_that_repeats_seed_and_split_is_not_averaged_and_named(place):
    write_runs(place, a=(1, {}, {}), b=(2, {}, {}), c=(2, {}, {}))
    found = compared("a", "b", "c")
    assert found["seeds"][0]["runs"] == ["a", "b"]
    assert found["not_averaged"] == ["c, classification: not averaged, as b has its seed and split."]


def test_equal_settings_are_said_to_be_equal(place, capsys):
    write_runs(place, a=(1, {}, {}), b=(1, {}, {}))
    assert compared("a", "b")["settings"] == []
    assert "No setting differs." in capsys.readouterr().out
    assert json.loads((place / "comparison/comparison.json").read_text())["folders"] == {"a": "a", "b": "b"}
