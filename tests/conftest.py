"""Small data sets that tests may spoil, the program run on them, and a model measured on one."""

import csv
import itertools
import json
import os
import shutil
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image
from processes import program

import data
import encoders
import main
import models
import predict
from dataset import cache, synthetic
from dataset.classes import HAM10000 as CLASSES
from dataset.table import read_table
from encoders.base import Encoder
from inference import process as running
from measure import bootstrap, tables
from measure import numbers as scoring
from measure.assess import assess
from measure.calibrate import calibrate, fit_calibration
from measure.calls import read_logits
from report.folder import RunFolder
from report.results import publish

ROOT = Path(__file__).resolve().parents[1]
QUICK = [
    *("--image-size", "32", "--pretrained", "no", "--device", "cpu", "--no-keep-freed-memory"),
    *("--classification-epochs", "1", "--segmentation-epochs", "1", "--multitask-epochs", "1"),
]
RESNET = ["--encoder", "resnet18"]  # for `quick`, where the real network matters
DEMO = ("demo", "data")  # the last names of the demo's folder

if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a process of its own: more threads would wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
else:
    torch.set_num_threads(min(torch.get_num_threads(), 2))
# Files and names of what trains, or runs the program, another process, a browser or a notebook; other tests are quick.
SLOW_FILES = {f"test_{name}.py" for name in ("app", "benchmarks", "distributed", "export", "fuzz", "notebook")}
SLOW_NAMES = {
    "Forked",
    "QUICK",
    "fit",
    "in_two_processes",
    "measured",
    "program",
    "quick",
    "run",
    "short_run",
    "subprocess",
    "whole_run",
}


def pytest_ignore_collect(collection_path, config):
    """Importing some slow files takes seconds alone, which someone who asks for quick tests need not wait for."""
    return True if config.option.markexpr == "quick" and collection_path.name in SLOW_FILES else None


# Files of few and long tests: with them first, no worker is left with one of them at the end.
LONG_FILES = ("notebook", "export", "app", "resume", "own", "checklist", "benchmarks", "fuzz", "readme", "page")


def pytest_configure(config):
    """Have pytest-xdist keep the order of the files."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    places = {f"test_{name}.py": place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for item in items:
        named = {*names_in(item.function.__code__), *item.fixturenames}
        if item.path.name not in SLOW_FILES and not named & SLOW_NAMES:
            item.add_marker("quick")


def names_in(code):
    """What a function's code names, with the functions and comprehensions in it."""
    inner = [names_in(constant) for constant in code.co_consts if hasattr(constant, "co_names")]
    return {*code.co_names}.union(*inner)


@pytest.fixture(scope="session", params=["cpu", *["cuda"] * torch.cuda.is_available()])
def device(request):
    """Each device that is there, in full float32 and repeatable, so that results can be compared."""
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def fresh_proxies():
    """urllib would keep the proxies that a process's first request found, which may be those that a test has set."""
    urllib.request.install_opener(None)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A folder of a name, which the first process of the session that asks for it fills; not to be changed."""

    def made(name, make):
        base = tmp_path_factory.getbasetemp()
        place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once" / name
        place.parent.mkdir(exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            if not place.with_suffix(".made").exists():
                shutil.rmtree(place, ignore_errors=True)  # of a process that failed
                place.mkdir()
                make(place)
                place.with_suffix(".made").touch()
        return place

    return made


@pytest.fixture(scope="session")
def demo_folder(made_once):
    """About 50 synthetic images of 35 lesions; not to be changed."""
    name, below = DEMO
    lesions = dict.fromkeys(CLASSES, 5)
    return made_once(name, lambda place: synthetic.write_dataset(place / below, seed=0, lesions=lesions)) / below


class Tiny(Encoder):
    """An encoder of five convolutions: a run with it writes kilobytes where a ResNet-18 writes 200 MB."""

    name, title, channels, label_channels = "tiny", "Tiny", (4, 4, 8, 8, 16), 16

    def __init__(self):
        super().__init__()
        pairs = zip((3, *self.channels), self.channels)
        self.stages = torch.nn.ModuleList(torch.nn.Conv2d(n, m, 3, stride=2, padding=1) for n, m in pairs)

    def forward(self, image):
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]).relu())
        return maps[1:]


encoders.ENCODERS["tiny"] = Tiny


class Folder:
    """A data folder built by hand: `add` a row with its files, then `write` the CSV."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []
        (path / "images").mkdir(parents=True)
        (path / "masks").mkdir()

    def add(self, name: str, code: str = "NV", image="picture", mask="disc", suffix: str = ".jpg", **options) -> None:
        self.rows.append([name, *(f"{float(code == other)}" for other in CLASSES)])
        image = picture(len(self.rows)) if isinstance(image, str) else image
        mask = disc() if isinstance(mask, str) else mask
        if image is not None:
            image.save(self.path / "images" / f"{name}{suffix}", **options)
        if mask is not None:
            mask.save(self.path / "masks" / f"{name}_segmentation.png")

    def fill(self, n_each: int = 4) -> "Folder":
        """Enough sound images of every class for a split."""
        for code in CLASSES:
            for i in range(n_each):
                self.add(f"{code}_{i}", code)
        return self.write()

    def write(self, name: str = "GroundTruth.csv") -> "Folder":
        with (self.path / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["image", *CLASSES], *self.rows])
        return self


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "data")


@pytest.fixture
def fill(tmp_path):
    """Writes files into the data folder: pictures, no two alike, discs for masks, and text."""
    numbers = itertools.count()

    def write(*names, **texts):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            (disc() if path.suffix == ".png" else picture(next(numbers))).save(path)
        for name, lines in texts.items():
            write_text(name, lines)
        return tmp_path

    def write_text(name, lines):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")

    write.text = write_text
    return write


TWO = ["image,label", "a,mel", "b,nv"]  # the lines of a table that names images a and b


@pytest.fixture
def put(tmp_path):
    """Saves pictures, or text, into tmp_path/data and returns that folder."""
    numbers = itertools.count()

    def save(files):
        for name, content in files.items():
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content == "photo":
                content = picture(next(numbers))
            elif content == "mask":
                content = disc()
            if isinstance(content, Image.Image):
                content.save(path)
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text("\n".join(content) + "\n")
        return tmp_path / "data"

    return save


def paths_of(table, column="image_path"):
    return [path.split("/data/")[-1] for path in table[column]]


def decoded(folder, size=16):
    """The table, and all pixels as an array."""
    table, pixels = cache.decode_table(read_table(folder.path), folder.path, size, folder.path.parent / "cache")
    return table, pixels[:]


def state_of(table, name):
    row = table[table["image"] == name].iloc[0]
    return row["status"], row["reason"]


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Random colours, (width, height)."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def disc(size: tuple[int, int] = (40, 30), inside: int = 255) -> Image.Image:
    """A round mask of 0 and `inside`, left of the centre."""
    y, x = np.mgrid[: size[1], : size[0]]
    lesion = np.hypot(x - size[0] / 3, y - size[1] / 2) < size[1] / 4
    return Image.fromarray(np.where(lesion, inside, 0).astype(np.uint8))


@pytest.fixture(scope="session")
def whole_run(demo_folder, made_once):
    """The outputs of the real program, all three models in miniature, and what it printed; not to be changed."""

    def make(place):
        done = program("--data-dir", demo_folder, *QUICK, cwd=place)
        assert done.returncode == 0, done.stderr
        (place / "printed.json").write_text(json.dumps({"stdout": done.stdout, "stderr": done.stderr}))

    place = made_once("whole", make)
    return place / "outputs", SimpleNamespace(**json.loads((place / "printed.json").read_text()))


@pytest.fixture(scope="session")
def short_run(demo_folder, made_once):
    """The place where `quick` has trained a classifier on the demo's images; not to be changed."""

    def make(place):
        assert quick(demo_folder, place) == 0

    return made_once("short", make)


@pytest.fixture
def finished(short_run, tmp_path):
    """`short_run` in tmp_path, to be changed: its outputs and its cache, as if the test had called `quick` itself."""
    copied(short_run, tmp_path)
    return tmp_path / "outputs"


def copied(source, target):
    """Copy a run's folder; its checkpoints are links, as the program never writes into a file that is there."""

    def copy_file(one, other):
        return os.link(one, other) if one.endswith(".pth") else shutil.copy2(one, other)

    return shutil.copytree(source, target, copy_function=copy_file, dirs_exist_ok=True)


def edit(path, change):
    """Change the content of a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def text_of(html: str) -> str:
    """What a reader of a page sees."""
    found = []

    class Text(HTMLParser):
        def handle_data(self, text):
            found.append(text)

    Text().feed(html)
    return " ".join("".join(found).split())


@pytest.fixture(scope="session")
def outputs(whole_run):
    """The folder of a whole run; not to be changed."""
    return whole_run[0]


@pytest.fixture
def copy(outputs, tmp_path):
    """The folder of a whole run, to be changed; it counts as a run on real lesions."""
    folder = copied(outputs, tmp_path / "outputs")
    edit(folder / "config.json", lambda config: config.pop("data"))
    return folder


DRAWN = ("class_distribution", "confusion", "dice_by_class", "gallery", "heat_maps", "mask_rows", "ranking_curves")
DRAWN += ("net_benefit", "reliability", "risk_coverage", "training_curves")  # visualize's figures of a run


def quick(folder, place, *flags):
    """The exit code of main in this process, one epoch of a `Tiny` classifier unless flags say otherwise.

    Its figures are made and not drawn, which would take more than half of the time; `whole_run` draws them. Those of
    the demo's own images, which are `whole_run`'s, are not even made.
    """
    places = ["--data-dir", str(folder), "--output-dir", str(place / "outputs"), "--cache-dir", str(place / "cache")]
    fakes = {"png": lambda *_: b"not drawn"}
    if Path(folder).parts[-2:] == DEMO and "--external-dir" not in flags:
        fakes |= dict.fromkeys(DRAWN, lambda *_: "no figure")
    with mock.patch.multiple("visualize", **fakes):
        return main.main([*places, *QUICK, "--encoder", "tiny", "--tasks", "classification", *map(str, flags)])


def contents(folder):
    """Every file and its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def metrics_in(place, name="average"):
    """The numbers that `quick` has written of a model."""
    return json.loads((place / "outputs" / name / "metrics.json").read_text())


LEARNED = np.repeat(np.arange(7), (11, 67, 5, 3, 11, 1, 2))  # labels of 100 training images


@pytest.fixture(scope="session")
def measured(demo_folder, tmp_path_factory, device):
    """An untrained multi-task model on all demo images, with what `assess` returned and wrote."""
    model, batches = untrained(demo_folder, tmp_path_factory.mktemp("cache"), device)
    calibration = calibrate(model, batches, "fp32", LEARNED)
    folder = RunFolder(tmp_path_factory.mktemp("run"), "synthetic demo data")
    assessment = assess(model, batches, calibration, "multitask")
    publish(folder, assessment, "multitask, test set")
    return model, batches, calibration, assessment.numbers, folder.path


def untrained(folder, place, device="cpu"):
    """A multi-task model that has learned nothing, and a folder's images with every kind of subgroup."""
    table, pixels = cache.decode_table(read_table(folder), folder, 64, place)
    table["age"] = np.resize([35.0, 40.0, 85.0, np.nan], len(table))
    table["sex"] = np.resize(["female", "male"], len(table))
    table["localization"] = np.resize(["back", None, "face"], len(table))
    torch.manual_seed(0)
    return models.MultiTask().to(device).eval(), data.Batches(pixels, table, 16, device=device)


def probabilities_in(written):
    """True classes (N,) and probabilities (N, K) of a table of predictions."""
    table = pd.read_csv(written / "predictions.csv")
    return table["true"].map(CLASSES.index).to_numpy(), table[list(CLASSES)].to_numpy()


def labels_and_logits(n=300):
    """Labels as frequent as in `LEARNED`, and logits that lean towards them and towards the frequent ones."""
    rng = np.random.default_rng(0)
    true = rng.choice(LEARNED, n)
    return true, rng.normal(size=(n, 7)) + 2 * np.eye(7)[true] + np.log(np.bincount(LEARNED) / 100)


@pytest.fixture(scope="session")
def both_rules():
    """The table of labels and what is written of them, with a tau at which the rules differ."""
    true, logits = labels_and_logits()
    rows = pd.DataFrame({"image": [f"i{i}" for i in range(len(true))], "label": true})
    calibration = fit_calibration(true, logits, LEARNED, CLASSES) | {"tau": 0.5}
    resamples = bootstrap.resample_lesions(np.arange(len(true)) // 2, 200)
    calls = read_logits(logits, calibration, CLASSES)
    numbers, intervals = scoring.label_numbers(rows, calls, resamples)
    return tables.prediction_table(rows, calls), calibration, resamples, numbers, intervals


def assess_rows(measured, rows, calibration=None):
    """The numbers of some rows of the table, as the model of `measured` was calibrated or otherwise."""
    model, batches, known, _, written = measured
    some = data.Batches(batches.pixels, rows, 16, device=batches.device)
    assessment = assess(model, some, calibration or known, "multitask")
    with mock.patch("visualize.png", return_value=b"not drawn"):  # those of `measured` are
        publish(RunFolder(written.with_name("some")), assessment, "multitask, some")
    return assessment.numbers


@pytest.fixture(scope="session")
def checkpoints(whole_run):
    """The checkpoint of each task of a whole run; not to be changed."""
    return {task: whole_run[0] / f"best_{task}_model.pth" for task in models.MODELS}


@pytest.fixture
def photos(tmp_path):
    """Five pictures of three sizes in two folders."""
    for i, name in enumerate(["a/one.jpg", "a/two.png", "a/three.JPG", "b/one.jpg", "four.v2.jpeg"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, (60 + 20 * (i % 3), 45)).save(path)
    return tmp_path / "photos"


def run(*arguments):
    """Exit code of predict.py."""
    try:
        return predict.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def rows_of(folder):
    """The rows that predict.py has written."""
    return list(csv.DictReader((folder / "predictions.csv").open(encoding="utf-8")))


def saved(model, task, path):
    """What a checkpoint must hold, and no more."""
    facts = {"task": task, "arguments": model.arguments, "classes": list(CLASSES), "image_size": 32}
    torch.save(facts | {"weights": model.state_dict()}, path)


def dies_after(n, monkeypatch):
    """Have predict.py stop, as by a kill, after so many rows."""
    rows = running.process_all

    def cut(*arguments):
        yield from itertools.islice(rows(*arguments), n)
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "process_all", cut)


def folder_of(place, values, header="image,diagnosis", **others):
    """Images i0, i1, ... with these cells behind their names."""
    for k in range(len(values)):
        (place / "images").mkdir(parents=True, exist_ok=True)
        picture(k).save(place / "images" / f"i{k}.jpg")
    (place / "t.csv").write_text("\n".join([header, *(f"i{k},{value}" for k, value in enumerate(values))]) + "\n")
    return place
