"""Functions and programs in other processes."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
# The first backward pass of a process starts autograd's threads, after which none that is forked from it can have one.
# On a CPU alone there are no such threads, unless torch.onnx has been at work before.
torch.ones(1, requires_grad=True).backward()


def program(*arguments, cwd=ROOT, env=None, **options) -> list:
    """Keyword and positional arguments for subprocess: this project's main.py."""
    command = [sys.executable, str(ROOT / "main.py"), *map(str, arguments)]
    env = {**os.environ, **threads(), **(env or {})}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, **options)


def threads():
    """The environment in which another process has as many threads as this one, so that sums agree to the last bit."""
    return {"OMP_NUM_THREADS": str(torch.get_num_threads())}


class Forked:
    """A function at work in another process, forked from this one so that it need not import anything.

    It works in the folder `cwd`, with `env` added to its environment. Its exit code is what the function returns.
    """

    def __init__(self, function, *arguments, cwd=".", env=None, encoding="utf-8") -> None:
        if torch.cuda.is_available():
            pytest.skip("with a GPU, no forked process can train")
        self.printed = [tempfile.TemporaryFile("w+", encoding=encoding) for _ in range(2)]  # noqa: SIM115
        fork = multiprocessing.get_context("fork")
        self.process = fork.Process(target=self._work, args=(function, arguments, cwd, env or {}))
        self.process.start()

    def _work(self, function, arguments, cwd, env):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the background jobs of a shell ignore it
        os.chdir(cwd)
        os.environ |= env
        torch.set_num_threads(1)
        sys.stdout, sys.stderr = self.printed
        sys.exit(function(*arguments))

    def ended(self, timeout=180):
        """Its exit code, negative for a signal, and what it printed."""
        self.process.join(timeout)
        texts = []
        for file in self.printed:
            file.seek(0)
            texts.append(file.read())
        return SimpleNamespace(returncode=self.process.exitcode, stdout=texts[0], stderr=texts[1])


def limited(n_bytes, function, *arguments):
    """Call a function in a process, this one, that may write no file of more than so many bytes."""
    import resource  # not everywhere

    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    return function(*arguments)


def in_two_processes(function, *arguments, n_machines=1, **options):
    """How two processes ended that called a function in the environment of torchrun, on one machine or as if on two."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": str(2 // n_machines), "GROUP_WORLD_SIZE": str(n_machines)}
    env |= {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    of_each = [env | {"RANK": str(n), "LOCAL_RANK": str(n if n_machines == 1 else 0)} for n in range(2)]
    both = [Forked(function, *arguments, env=own, **options) for own in of_each]
    return [one.ended() for one in both]
