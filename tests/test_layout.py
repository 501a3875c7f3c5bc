"""The shape of the house: who may import whom, and how long the README is."""

import ast
import doctest
import importlib
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, picture
from mutants.wrong import TESTS

import main

FOLDERS = ("browser", "checkpoints", "dataset", "encoders", "inference", "measure", "report")
FILES = [path for place in (".", *FOLDERS) for path in sorted((ROOT / place).glob("*.py"))]
ROOMS = {path.stem for path in ROOT.glob("*.py")} | {*FOLDERS}
CODE = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")
TREE, DIAGRAM = re.findall(r"```(?:text)?\n(.*?)```", CODE, re.DOTALL)
DRAWN = {left.strip(): set(right.split()) for left, _, right in (line.partition("->") for line in DIAGRAM.splitlines())}
# Modules that have no test file of their own name, by the one that tests them: because it tests several, or because the
# name is another file's.
TESTED_IN = {
    "assess": ("measure/figures",),
    "bootstrap": ("measure/shares",),
    "cache": ("dataset/keeper", "dataset/pixelfile"),
    "check": ("dataset/__main__",),
    "comparison": ("report/run", "report/pairtables"),
    "drawing": ("inference/canvas",),
    "encoders": tuple(
        f"encoders/{name}" for name in ("__main__", "base", "catalogue", "depthwise", "efficientnet_lite", "resnet")
    ),
    "images": ("dataset/opening",),
    "paper": ("report/paperfigures", "report/papertables"),
    "prediction_table": ("inference/table",),
    "reading": ("dataset/layout",),
    "report": ("report/__main__",),
    "run_folder": ("report/folder",),
    "table": ("dataset/csvfile",),
    "tablefile": ("dataset/columns", "dataset/sources"),
    "trained": ("checkpoints/networks",),
    "weights": ("encoders/start",),
}
# Public functions that share a name, with their files: commands; records of an environment, settings and a model; pages
# (built in full); numbers, and the figures that show them.
SAME_NAMES = {
    "main": {"app", "dataset/__main__", "export", "main", "predict", "report/__main__"},
    "build": {"app", "report/page"},
    "net_benefit": {"measure/benefit", "visualize"},
    "risk_coverage": {"evaluate", "visualize"},
}


def imports_of(path):
    """The modules that a file names, as dotted paths."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path):
    return path.stem if path.parent == ROOT else path.parent.name


def test_the_imports_are_those_of_the_diagram():
    found = {room: set() for room in ROOMS}
    for path in FILES:
        found[room_of(path)] |= {name.split(".")[0] for name in imports_of(path)} & ROOMS - {room_of(path)}
    assert {room: others for room, others in found.items() if others} == DRAWN


def test_the_tree_has_a_remark_of_three_to_six_words_for_every_file():
    folder, remarks = "", {}
    for line in filter(None, TREE.splitlines()):
        name, remark = line.split(maxsplit=1)
        folder = folder if line.startswith(" ") else name if name.endswith("/") else ""
        remarks[name if name == folder else folder + name] = remark
    described = [*FILES, *sorted((ROOT / "benchmarks").glob("*.py"))]
    paths = {path.relative_to(ROOT).as_posix() for path in described if path.stem != "__init__"}
    assert set(remarks) == paths | {f"{name}/" for name in (*FOLDERS, "benchmarks")}
    assert [name for name, remark in remarks.items() if not 3 <= len(remark.split()) <= 6] == []


def test_the_readmes_tree_has_every_file_and_folder_at_the_top():
    """Not what belongs to git and packaging."""
    others = {"CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "notebooks", "pyproject.toml"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    (tree,) = [block for language, block in blocks if not language and "settings.py" in block]
    named = re.findall(r"(?:^|  )([\w-]+(?:\.\w+|/)) ", tree, re.MULTILINE)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    places = {line.partition("/")[0] for line in listed.splitlines()} - others
    places = {name for name in places if not name.startswith((".", "requirements"))}
    assert sorted(named) == sorted(name if (ROOT / name).is_file() else f"{name}/" for name in places)


def test_no_package_stands_beside_the_source():
    assert not [path.name for kind in ("*.whl", "*.tar.gz") for path in ROOT.glob(kind)]


def test_no_way_leads_back():
    """Between the files as well as between the rooms."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    arrows = {name: set() for name in names}
    for name, path in names.items():
        for module in imports_of(path):
            arrows[name] |= {known for known in names if module == known or module.startswith(f"{known}.")} - {name}
    left = dict(arrows)
    while free := [name for name, others in left.items() if not others & left.keys()]:
        left = {name: others for name, others in left.items() if name not in free}
    assert not left, f"a circle through {sorted(left)}"


def test_every_file_has_a_file_of_tests_of_its_name():
    others = {module: name for name, modules in TESTED_IN.items() for module in modules}
    modules = {path.relative_to(ROOT).with_suffix("").as_posix() for path in FILES if path.stem != "__init__"}
    own = [module.rpartition("/")[2] for module in sorted(modules - others.keys())]
    assert others.keys() <= modules and len(set(own)) == len(own)
    assert [name for name in (*own, *TESTED_IN) if not (ROOT / "tests" / f"test_{name}.py").is_file()] == []


def test_the_files_of_tests_that_are_to_notice_mutants_exist():
    assert [name for names in TESTS.values() for name in names if not (ROOT / f"tests/test_{name}.py").is_file()] == []


def test_only_visualize_imports_matplotlib_to_draw():
    drawing = {path.name for path in FILES if any(name.startswith("matplotlib") for name in imports_of(path))}
    assert drawing <= {"visualize.py", "folder.py"}  # the folder names the type of what it writes


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 160


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_prose_stays_within_120_columns(path):
    is_code = False
    for line in path.read_text(encoding="utf-8").splitlines():
        is_code ^= line.startswith("```")
        assert is_code or line.startswith("|") or len(line) <= 120, line


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_every_file_that_is_linked_exists(path):
    for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_two_public_functions_or_classes_of_one_name_do_not_stand_in_two_files():
    """Private ones, and methods, belong to their file or class. `SAME_NAMES` says which share a name on purpose."""
    places = {}
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, set()).add(path.relative_to(ROOT).with_suffix("").as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == SAME_NAMES


def test_two_files_do_not_share_a_name():
    """But for the tables of a data folder and of predictions."""
    names = [path.stem for path in FILES]
    assert {name for name in names if names.count(name) > 1} == {"__init__", "__main__", "table"}


WRITTEN = (
    r"(?:--output-dir|--output|--cache-dir|--data-dir|--external-dir|dataset download(?: --official-test)?) (\w\S*)"
)
GIVEN = r"predict\.py (\w\S*)|export\.py \S+ (\w+\.\w+)|\b(outputs_\w+|predictions_\w+)\b"


def test_git_passes_over_what_the_documented_commands_write_and_read(tmp_path):
    """Photographs of patients would be one `git add .` from publication."""
    prose = "\n".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    commands = "\n".join(re.findall(r"```bash\n(.*?)```", prose, re.DOTALL))
    named = {name for found in re.findall(f"{WRITTEN}|{GIVEN}", commands) for name in found if name}
    code = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    named |= set(re.findall(r'"--(?:output|cache)-dir".*?default=Path\("(.+?)"\)', code))
    named |= {main.DATA_DIR, main.OUTPUT_DIR, main.CACHE_DIR, main.DEMO["DATA_DIR"], main.DEMO["OUTPUT_DIR"], "paper"}
    assert {"predictions", "comparison", "outputs", "photo.jpg", "isic2018_test"} <= named
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    paths = [name if "." in name.rpartition("/")[2] else f"{name}/patient.jpg" for name in sorted(named)]
    paths += ["predictions2/masks/a.png", "outputs.2/report.html", "outputs/paper/a.pdf", ".outputs.lock"]
    command = ["git", "check-ignore", "--no-index", *paths]
    ignored = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout.splitlines()
    assert sorted(set(paths) - set(ignored)) == []


def imported_by(*arguments):
    """The modules that Python loads for a command line."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("command", ["main.py --help", "main.py --epochs 3", "main.py --data-dir nowhere"])
@pytest.mark.parametrize("script", ["main.py", "predict.py"])
def test_help_mistakes_and_missing_folders_load_nothing_that_takes_seconds(command, script):
    words = command.replace("main.py", script).split()
    words = ["predict.py", "nowhere"] if script == "predict.py" and "nowhere" in words else words
    loaded = imported_by(*words)
    assert "argparse" in loaded and not loaded & {"torch", "torchvision", "sklearn", "seaborn", "matplotlib"}


def test_models_alone_load_no_library_of_tables_or_figures():
    assert not imported_by("-c", "import models") & {"pandas", "torchvision", "sklearn", "seaborn", "matplotlib"}


def test_a_photograph_is_predicted_without_libraries_that_take_longer_than_the_prediction(tmp_path):
    """With the bundled model. torch._dynamo is torch's compiler, which arithmetic on the meta device loads."""
    picture().save(tmp_path / "a.jpg")
    loaded = imported_by("predict.py", str(tmp_path / "a.jpg"), "--output-dir", str(tmp_path / "out"))
    assert (tmp_path / "out" / "predictions.csv").is_file() and "torch" in loaded
    assert not loaded & {"torch._dynamo", "torchvision", "scipy", "sklearn", "seaborn", "matplotlib"}


@pytest.mark.parametrize("path", [path for path in FILES if ">>> " in path.read_text(encoding="utf-8")], ids=str)
def test_the_examples_in_docstrings_hold(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert doctest.testmod(module).failed == 0
