"""Two processes, on one machine or as if on two, that decode into one cache or into one each."""

import os
import shutil

import numpy as np
import pytest
import torch
from conftest import quick
from processes import in_two_processes

import machine
from dataset import cache
from dataset.table import read_table


def decode_here(data, caches, per_machine=False):
    """Decode as one of two processes; write the names decoded here, and all pixels by name."""
    machine.join_processes(torch.device("cpu"))
    number, calls, decode_row = machine.rank(), [], cache.decode_row
    cache.decode_row = lambda *a: calls.append(os.path.basename(a[0])) or decode_row(*a)
    table = read_table(data[number % len(data)])
    table, pixels = cache.decode_table(
        table, data[number % len(data)], 16, caches[number % len(caches)], "", per_machine
    )
    np.savez(caches[0].parent / f"{number}.npz", calls=calls, names=table["image"], pixels=pixels[table["row"]])


def results_in(place):
    return [np.load(place / f"{number}.npz", allow_pickle=True) for number in (0, 1)]


@pytest.fixture
def seven(folder):
    for name in "abcdefg":
        folder.add(name, suffix=".png")
    return folder.write().path


@pytest.mark.parametrize("n_machines", [1, 2])
def test_each_process_decodes_its_share_into_one_file(seven, tmp_path, n_machines):
    ended = in_two_processes(decode_here, [seven], [tmp_path / "cache"], n_machines=n_machines)
    assert [one.returncode for one in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    both = results_in(tmp_path)
    assert sorted(len(one["calls"]) for one in both) == [3, 4]
    assert len({*both[0]["calls"], *both[1]["calls"]}) == 7
    assert len(list((tmp_path / "cache").rglob("pixels-*"))) == 1 and not list(tmp_path.rglob(".seen-*"))
    table, alone = cache.decode_table(read_table(seven), seven, 16, tmp_path / "alone")
    for one in both:
        np.testing.assert_array_equal(one["pixels"], alone[table["row"]])


def test_machines_with_a_cache_each_decode_all_images(seven, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(seven, copy)
    places = [tmp_path / "cache0", tmp_path / "cache1"]
    ended = in_two_processes(decode_here, [seven, copy], places, True, n_machines=2)
    assert [one.returncode for one in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    both = results_in(tmp_path)
    assert [len(one["calls"]) for one in both] == [7, 7]
    np.testing.assert_array_equal(both[0]["pixels"], both[1]["pixels"])


def refused(*arguments):
    """The message that ends two machines, which is printed once."""
    first, second = in_two_processes(decode_here, *arguments, n_machines=2)
    assert first.returncode and second.returncode and second.stderr == ""
    assert first.stderr, (first, second)
    return first.stderr


def test_machines_that_do_not_share_the_cache_as_the_setting_says_are_refused(seven, tmp_path):
    places = [tmp_path / "cache0", tmp_path / "cache1"]
    assert "The machines do not share" in refused([seven], places)
    assert "each machine needs a --cache-dir of its own" in refused([seven], places[:1], True)


def test_machines_with_different_data_are_refused(seven, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(seven, copy)
    shutil.copy(copy / "images" / "b.png", copy / "images" / "c.png")
    message = refused([seven, copy], [tmp_path / "cache0", tmp_path / "cache1"], True)
    assert "1 images differ between the machines (e.g. c)" in message


def fail_in(number, error, data, place):
    """Decode as one of two processes, one of which fails at its second image."""
    machine.join_processes(torch.device("cpu"))
    cache.ROUND, calls, write = 0, [], cache.RecordWriter.write

    def write_or_fail(*arguments):
        calls.append(arguments)
        if machine.rank() == number and len(calls) == 2:
            raise error
        write(*arguments)

    cache.RecordWriter.write = write_or_fail
    try:
        cache.decode_table(read_table(data), data, 16, place)
    finally:
        (place / f"{machine.rank()}").write_text(str(len(calls)))


@pytest.mark.parametrize("number", [0, 1])
def test_a_full_disk_in_one_process_ends_both_at_once_with_one_message(seven, tmp_path, number):
    place = tmp_path / "cache"
    first, second = in_two_processes(fail_in, number, OSError(28, "No space left on device"), seven, place)
    assert first.returncode and second.returncode
    assert "No space left on device: " in first.stderr and str(place) in first.stderr and second.stderr == ""
    assert max(int((place / name).read_text()) for name in "01") == 2  # neither decodes on
    assert not list(place.rglob("index.npz"))


def test_a_mistake_that_the_first_process_finds_ends_both_with_one_message(tmp_path, demo_folder):
    (tmp_path / "data").mkdir()
    first, second = in_two_processes(quick, tmp_path / "data", tmp_path)
    assert first.returncode == 2 and second.returncode == 1
    assert len(first.stderr.strip().splitlines()) == 1 and second.stderr == ""


def train_here(place, data, caches):
    """Train as one of two processes, with the cache of its number."""
    cache_dir = caches[int(os.environ["RANK"]) % len(caches)]
    flags = ["--cache-per-machine"] if len(caches) > 1 else []
    return quick(data, place, "--cache-dir", cache_dir, "--limit", "60", *flags)


def test_two_machines_train_the_weights_of_two_processes_on_one(demo_folder, tmp_path):
    weights = []
    for name, n_machines, caches in (("one", 1, "a"), ("shared", 2, "b"), ("each", 2, "cd")):
        places = [tmp_path / cache for cache in caches]
        ended = in_two_processes(train_here, tmp_path / name, demo_folder, places, n_machines=n_machines)
        assert [one.returncode for one in ended] == [0, 0], ended[0].stderr + ended[1].stderr
        weights.append(torch.load(tmp_path / name / "outputs" / "best_classification_model.pth")["weights"])
    for others in weights[1:]:
        assert all(torch.equal(weights[0][key], others[key]) for key in weights[0])
