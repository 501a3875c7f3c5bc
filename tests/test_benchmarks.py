"""The benchmarks run and report; no test asserts a time or a figure of its own making."""

import json
import pkgutil
import re
import runpy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT

import machine
from benchmarks import evaluation, heat_maps, near_duplicates, peers, scale, speed
from encoders import base


@pytest.fixture
def options(demo_folder, tmp_path):
    return SimpleNamespace(data_dir=str(demo_folder), size=32, steps=1, device="cpu", cache_dir=str(tmp_path / "cache"))


def test_a_run_prints_a_table_and_writes_what_it_measured_and_on_what(options, tmp_path, monkeypatch, capsys):
    """Our rates come from a process of their own, as all figures do outside of tests."""
    command = ["speed.py", "--data-dir", options.data_dir, "--size", "32"]
    command += ["--steps", "1", "--repeats", "1", "--tasks", "classification", "--no-peers", "--device", "cpu"]
    command += ["--cache-dir", options.cache_dir, "--output-dir", str(tmp_path / "results")]
    fresh = speed.run_probe

    def here(task, name, options, data_dir=None):
        if task != "data":
            return fresh(task, name, options, data_dir)
        return speed.probe(
            task, name, SimpleNamespace(**vars(options) | {"data_dir": str(data_dir or options.data_dir)})
        )

    monkeypatch.setattr(speed, "run_probe", here)
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(sys, "argv", command)
    speed.main()
    printed = capsys.readouterr().out
    (path,) = (tmp_path / "results").iterdir()
    found = json.loads(path.read_text())
    assert {"device", "cores", "precision", "torch", "python", "date"} <= found["setup"].keys()
    figures = [row["figure"] for row in found["rows"]]
    for figure in ("training", "bare training step", "inference", "bare forward pass", "peak memory, 10,000 images"):
        assert figure in figures and f"| {figure} |" in printed
    assert all(row["value"] > 0 for row in found["rows"])


@pytest.mark.parametrize("name", [name for name in peers.PEERS["classification"] if name != "plain recipe"])
def test_a_peer_that_is_not_installed_is_reported_as_missing(name, options, monkeypatch):
    for module in ("fastai.vision.all", "lightning", "monai", "monai.networks.nets"):
        monkeypatch.setitem(sys.modules, module, None)
    assert "missing" in speed.probe("classification", name, options)


def test_a_peer_that_fails_is_a_row_and_not_the_end(options):
    options.data_dir = "nowhere"
    assert "No data folder" in speed.run_probe("classification", "plain recipe", options)["failed"]


def test_the_plain_recipe_takes_the_steps_it_is_timed_for(options):
    assert speed.probe("classification", "plain recipe", options)["training"] > 0


def test_the_benchmark_of_evaluating_runs_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["evaluation.py", "--images", "300", "--output-dir", str(tmp_path)])
    evaluation.main()
    (path,) = tmp_path.iterdir()
    rows = json.loads(path.read_text())["rows"]
    assert [row["set"] for row in rows] == ["ham10000", "rare"]
    for row in rows:
        assert row["images"] == 300 and row["mb"] >= row["mb_before"] > 0 and row["seconds"] >= row["scores"] > 0
        assert row["cpu_seconds"] > 0
    assert "| rare | 300 |" in capsys.readouterr().out


def test_the_benchmark_of_near_duplicates_prints_quantiles_and_shares_of_both_kinds(demo_folder, tmp_path, capsys):
    near_duplicates.main(["--data-dir", str(demo_folder), "--cache-dir", str(tmp_path)])
    copies, others = re.findall(r"\| an image and .*", capsys.readouterr().out)
    n_images = len(list((demo_folder / "images").iterdir()))
    for line in (copies, others):
        n, *values = line.strip("| ").split(" | ")[1:]
        quantiles, shares = [float(value) for value in values[:5]], [float(value.strip("%")) for value in values[5:]]
        assert int(n) == n_images and quantiles == sorted(quantiles) and -1 <= quantiles[0] <= quantiles[-1] <= 1
        assert shares == sorted(shares, reverse=True) and all(0 <= share <= 100 for share in shares)


def test_the_copies_of_the_benchmark_are_altered_the_same_each_time(demo_folder):
    path = str(next((demo_folder / "images").iterdir()))
    first, again, other = (near_duplicates.altered(path, seed) for seed in (1, 1, 2))
    assert first.shape == (96, 96, 3) and (first == again).all() and (first != other).any()


@pytest.mark.parametrize("script", ["finetuning", "heat_maps", "near_duplicates", "out_of_fold", "speed", "unlike"])
def test_a_missing_data_folder_ends_in_one_message(script, tmp_path, monkeypatch, capsys):
    model = [str(ROOT / "pretrained" / "ham10000.pth")] if script == "heat_maps" else []
    monkeypatch.setattr(sys, "argv", [script, *model, "--data-dir", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "benchmarks" / f"{script}.py"), run_name="__main__")
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("\nNo data folder")


RECORDS = [json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks" / "results").glob("speed-*-cpu*.json"))]
RECORDED = {(row["task"], row["figure"], row["who"].split()[0]): row for found in RECORDS for row in found["rows"]}
SPEED = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("who", ["plain", "fastai", "Lightning,", "MONAI"])
def test_the_rates_in_the_table_of_speeds_are_those_recorded(who):
    (line,) = [line for line in SPEED.splitlines() if line.startswith(f"| {who}")]
    for task, cell in zip(("classification", "segmentation", "multitask"), line.split("|")[2:5]):
        row = RECORDED.get((task, "training", who))
        assert (row is None) == ("–" in cell), (task, cell)
        if row:
            rate, ratio = (float(text.strip("(×ours:) ")) for text in cell.strip().split(" ", 1))
            assert rate == pytest.approx(row["value"], abs=0.051) and ratio == pytest.approx(row["ratio"], rel=0.025)


def test_our_own_rates_are_those_recorded_in_the_table():
    tasks = ("classification", "segmentation", "multitask")
    rates = [f"{RECORDED[task, 'training', 'ours']['value']:.1f}" for task in tasks]
    assert f"| **this project** | **{'** | **'.join(rates)}** |" in SPEED
    figures = {"bare training step": "our epochs relative to", "bare forward pass": "a pass over test images"}
    for figure, start in figures.items():
        ratios = " | ".join(f"{RECORDED[task, figure, 'ours']['ratio']:.2f}" for task in tasks)
        (line,) = [line for line in SPEED.splitlines() if line.startswith(f"| {start}")]
        assert line.endswith(f"| {ratios} |")


def test_the_benchmark_of_heat_maps_shows_every_grid_and_placement(
    whole_run, demo_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(base, "HEAT_CELLS", base.HEAT_CELLS)
    checkpoint = str(whole_run[0] / "best_multitask_model.pth")
    heat_maps.main([checkpoint, "--data-dir", str(demo_folder), "--cache-dir", str(tmp_path)])
    rows = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("| stride")]
    grids = [(stride.strip(), cells.strip()) for stride, cells in rows]
    assert grids == [(f"stride {stride}", cells) for stride in (32, 16, 8) for cells in ("areas", "pixels")]


@pytest.mark.parametrize("name", [name for names in scale.PHASES.values() for name in names])
def test_the_functions_that_are_timed_at_scale_exist(name):
    owner, function = name.rsplit(".", 1)
    assert callable(getattr(pkgutil.resolve_name(owner), function))


def test_a_phase_is_not_charged_for_the_phases_that_it_calls(monkeypatch):
    times = iter([0.0, 1.0, 4.0, 10.0])  # outer begins, inner begins, inner ends, outer ends
    monkeypatch.setattr(scale, "now", lambda: next(times) * np.array([1, 2]))
    monkeypatch.setattr(scale, "reset_peak", lambda: None)
    monkeypatch.setattr(scale, "peak_mb", lambda: 5.0)
    clock = scale.Clock()
    inner = clock.timed("audit", lambda: "inner")
    assert clock.timed("report", lambda: inner() + " and outer")() == "inner and outer"
    assert (*clock.seconds["audit"], *clock.seconds["report"]) == (3, 6, 7, 14)


def test_growth_is_the_cpu_time_by_that_for_the_number_before():
    phases = [*scale.PHASES, scale.REST]
    times = {10: (1, 0.25), 100: (2, 1.5), 1000: (3, 30)}
    runs = {
        n: {kind: dict.fromkeys(phases, value) for kind, value in zip((*scale.KINDS, "mb"), (*both, 9))}
        for n, both in times.items()
    }
    table = scale.table_of(runs, "run")
    assert "| audit | 1.0 | 0.2 | 9 | 2.0 | 1.5 | – | 9 | 3.0 | 30.0 | 20.0 | 9 |" in table  # 0.25 s says nothing
    assert len({line.count("|") for line in table.splitlines()[1:]}) == 1
