"""The commands of the README and docs/ are valid, and those that end by themselves and the snippets run."""

import re
import shlex
import subprocess
import sys

import pytest
from conftest import QUICK, ROOT, picture
from processes import Forked
from torch.distributed.run import get_args_parser as torch_arguments

import export
import main
import predict
import settings
from dataset.__main__ import main as dataset_main

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = list(dict.fromkeys(line for language, block in BLOCKS if language == "bash" for line in block.splitlines()))


def flags_of(command):
    """The arguments of the last `python main.py` in a shell line."""
    return shlex.split(command.rsplit("main.py", 1)[1], comments=True)


@pytest.mark.parametrize("command", [command for command in COMMANDS if "main.py" in command])
def test_every_command_of_main_has_valid_flags(command):
    flags = flags_of(command)
    if "--help" not in flags:
        main.parse_arguments(flags)


def test_the_slurm_script_starts_one_torchrun_per_machine_with_valid_flags(tmp_path):
    """The cluster's programs are stand-ins: scontrol names the machines, srun shows its command."""
    scripts = {"scontrol": "echo node-1; echo node-2", "srun": 'printf "%s\\n" "$@"'}
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    for name, text in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    env |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-[1-2]"}
    script = ["bash", ROOT / "docs" / "slurm.sh", "--image-size", "128"]
    shown = subprocess.run(script, env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    name, *arguments = shown.splitlines()
    found = torch_arguments().parse_args(arguments)
    assert name == "torchrun" and (found.nnodes, found.nproc_per_node) == ("2", "4")
    assert (found.rdzv_backend, found.rdzv_endpoint, found.rdzv_id) == ("c10d", "node-1:29500", "7")
    config = main.parse_arguments(found.training_script_args)
    assert found.training_script == "main.py" and config.RESUME and config.IMAGE_SIZE == 128


NOT_OURS = {"--nnodes", "--node-rank", "--master-addr", "--master-port"}  # torchrun's
NOT_OURS |= {"--dist", "--nproc-per-node", "--logdir", "--index-url"}  # pytest's, torchrun's, TensorBoard's, pip's


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"(?<![-\w])--[a-z][a-z0-9-]+", README)) - NOT_OURS))
def test_every_flag_that_is_mentioned_exists(flag):
    known = {"--demo", "--help", *map(settings.flag_of, settings.declared(main))}
    known |= {
        settings.flag_of(name) for name in re.findall(r"^\+([A-Z_]+): ", README, re.MULTILINE)
    }  # a diff adds them
    for place in (
        "predict.py",
        "app.py",
        "export.py",
        "benchmarks/out_of_fold.py",
        "benchmarks/unlike.py",
        "tests/fuzz/__main__.py",
        "dataset/__main__.py",
        "report/__main__.py",
    ):
        known |= set(re.findall(r'add_argument\("(--[a-z0-9-]+)"', (ROOT / place).read_text(encoding="utf-8")))
    assert flag in known or flag.replace("--no-", "--") in known


@pytest.mark.parametrize("command", [line for line in COMMANDS if re.search(r"(predict|export)\.py", line)])
def test_the_commands_on_the_demo_run_as_printed(command, whole_run, demo_folder, tmp_path, monkeypatch):
    """Within this process where that is possible, as starting another takes longer than the command."""
    (tmp_path / "outputs_demo").symlink_to(whole_run[0])
    (tmp_path / "demo_data").symlink_to(demo_folder)
    picture(size=(60, 45)).save(tmp_path / "photo.jpg")
    launcher, *arguments = shlex.split(command)
    if launcher == "torchrun":
        arguments = [ROOT / word if word.endswith(".py") else word for word in arguments]
        launch = [sys.executable, "-m", "torch.distributed.run", *arguments]
        done = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        assert launcher in ("python", ".venv/bin/python")
        monkeypatch.chdir(tmp_path)
        assert {"predict.py": predict, "export.py": export}[arguments[0]].main(arguments[1:]) in (0, None)


def test_the_check_of_a_folder_runs_as_printed(demo_folder, tmp_path):
    (tmp_path / "data").symlink_to(demo_folder)
    (command,) = [line for line in COMMANDS if "dataset check" in line]
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "dataset"]
    done = Forked(dataset_main, words[3:], cwd=tmp_path).ended()
    assert done.returncode == 0, done.stderr


def test_the_install_commands_name_files_that_exist():
    for command in COMMANDS:
        for name in re.findall(r"-r (\S+)", command):
            assert (ROOT / name).is_file()


def test_the_commands_on_a_folder_named_data_run(demo_folder, tmp_path):
    (tmp_path / "data").symlink_to(demo_folder)
    command = next(command for command in COMMANDS if command.startswith("python main.py --data-dir data --image"))
    done = Forked(main.main, [*flags_of(command), *QUICK, "--tasks", "classification"], cwd=tmp_path).ended()
    assert done.returncode == 0, done.stderr


def test_the_notebook_snippet_runs_after_the_demo(whole_run, demo_folder, tmp_path):
    (tmp_path / "outputs_demo").symlink_to(whole_run[0])
    (tmp_path / "demo_data").symlink_to(demo_folder)
    (snippet,) = [block for language, block in BLOCKS if language == "python" and "outputs_demo" in block]
    done = Forked(exec, snippet, {}, cwd=tmp_path).ended()
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[A-Z]+ lesion: \d+% of the image\n", done.stdout)
