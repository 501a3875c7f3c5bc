"""The machine that a program runs on: device, number format, allocator, console, disk, threads and processes."""

import atexit
import ctypes
import errno
import importlib
import os
import pickle
import platform
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
from filelock import BaseFileLock, FileLock, Timeout

PATIENCE = timedelta(days=365)  # how long processes wait for one another: the first may decode or draw for hours


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks instead of returning them to Linux and faulting them in at every step.

    Call it before the first tensor is created. Does nothing without glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap is never trimmed


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA or Apple's MPS if available. Raises ValueError if the device cannot be used."""
    if name == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        return torch.device(next(kind for kind in there if there[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name} is no device. Try auto, cpu, cuda or mps.") from None
    try:
        torch.zeros(1, device=device).item()
        return device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used ({str(error).splitlines()[0]}). Try auto or cpu.") from None


def choose_precision(name: str, device: torch.device) -> str:
    """ "auto" is bf16 if the hardware supports it, else fp16 on CUDA and fp32 elsewhere."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    knows = device.type == "cpu" and hasattr(torch.cpu, "get_capabilities")
    capabilities = torch.cpu.get_capabilities() if knows else {}
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def say(message: str) -> None:
    """Print, in the first process only."""
    if is_first():
        print(message, flush=True)


def in_words(error: Exception, place: str | Path, advice: str) -> tuple[int, str]:
    """Exit code and message for an error that a user can fix: 2 for a mistake, 1 for a failure of the machine.

    Parameters
    ----------
    place : named as not writable if the error has no file name.
    advice : what to do.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return 1, f"Out of GPU memory: {error}\nPass --device cpu or smaller batches. {advice}"
    if isinstance(error, MemoryError | FloatingPointError):
        return 1, str(error) or f"Out of memory. Close other programs, or set a smaller image or batch size. {advice}"
    is_ours = isinstance(error, FileExistsError) and error.errno is None  # not the system's "File exists"
    if isinstance(error, OSError) and not (is_ours or isinstance(error, FileNotFoundError | ConnectionError)):
        return 1, f"Cannot write {error.filename or place}: {error.strerror or error}. {advice}"
    return 2, str(error)


def write_file(path: Path, content: bytes | Iterator[bytes]) -> None:
    """Write a file completely or not at all, even if the process or the machine stops.

    Parameters
    ----------
    content : in one piece, or in parts that are written as they come.

    Raises
    ------
    OSError : the file cannot be written; `filename` names it. The old file is kept.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.writelines(content if isinstance(content, Iterator) else [content])
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder against other runs while the body runs. The first process locks it for all.

    Raises
    ------
    ValueError : another run holds the lock, or the folder cannot be written.
    """
    with ExitStack() as held:
        from_first(held.enter_context, _lock_of(folder))
        yield


@contextmanager
def _lock_of(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Its file lies beside the folder, which need not exist yet, and is removed at the end."""
    place = Path(os.path.realpath(folder))  # resolve() fails on a link to itself
    path = place.with_name(f".{place.name}.lock")
    try:
        if folder.is_symlink() and not place.exists():  # perhaps an unmounted disk
            raise FileNotFoundError(errno.ENOENT, "it is a link to a folder that does not exist", str(place))
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", str(place))
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(path)
    except Timeout:
        raise ValueError(f"Another run is writing into {folder}. Wait for it, or name another folder.") from None
    except (OSError, NotImplementedError) as error:  # NotImplementedError: no file locks
        reason = getattr(error, "strerror", None) or error
        where = getattr(error, "filename", None) or path
        raise ValueError(f"{folder} cannot be written ({reason}: {where}). Name another folder.") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            path.unlink()  # before the release: afterwards it may be another run's
        lock.release()


def _acquired(path: Path) -> BaseFileLock:
    """The lock of a file, which is created if need be.

    The file may be removed by its last holder just before it is locked: such a lock would keep nobody out. While the
    file is open here, no other file can have its identity.
    """
    while True:
        with path.open("ab") as file:  # FileLock mistakes some failures to create it for another's lock
            lock = FileLock(path)
            lock.acquire(timeout=0)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return lock
        lock.release()


def map_ahead(pool: ThreadPoolExecutor, function: Callable, items: Iterable, n_ahead: int) -> Iterator:
    """`map` in a pool, in order; at most `n_ahead` results are computed in advance."""
    waiting: deque[Future] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > n_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def environment_of(device: torch.device, precision: str) -> dict:
    """The environment of a run, in plain types."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": n_ranks(),
        "precision": precision,
        "command": shlex.join([*launcher(), *sys.argv]),
        "commit": commit(Path(__file__)),
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions(),
    }


def in_short(environment: dict) -> str:
    """The result of `environment_of`, in one line."""
    device, precision, threads, processes = map(environment.get, ("device", "precision", "threads", "processes"))
    return f"On {device} in {precision}, threads: {threads}, processes: {processes}. All settings are in config.json."


def launcher() -> list[str]:
    """The command line before the script's name."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return [Path(sys.executable).name]
    n_nodes, n_here = os.environ["GROUP_WORLD_SIZE"], os.environ["LOCAL_WORLD_SIZE"]
    return ["torchrun", *([f"--nnodes={n_nodes}"] if n_nodes != "1" else []), f"--nproc-per-node={n_here}"]


def commit(file: Path) -> str:
    """The commit of the checkout that holds this file, with a "+" if files have changed; "" without git."""

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(file.resolve().parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", file.name)
        return git("rev-parse", "HEAD").strip() + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def versions() -> dict[str, str]:
    """Versions of the libraries that the scores depend on; a prediction need not load all of them."""
    names = ("torch", "torchvision", "numpy", "pandas", "sklearn")
    return {name: str(importlib.import_module(name).__version__) for name in names}


def join_processes(device: torch.device) -> torch.device:
    """This process's device; under torchrun the processes form one group."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if is_distributed():
        return device
    importlib.import_module("torch.distributed.nn")  # imported later, its default arguments would hold the group
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)  # otherwise its threads may outlive and abort the interpreter
    return device


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's rank."""
    return dist.get_rank() if is_distributed() else 0


def n_ranks() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if is_distributed() else 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def hides_progress() -> bool | None:
    """`disable` for tqdm: None (a bar on a terminal only) in the first process, True in the others."""
    return None if is_first() else True


def leader(per_machine: bool = False) -> int:
    """The rank whose results this process shares: the first of all, or of its machine as torchrun numbers them."""
    return rank() - int(os.environ["LOCAL_RANK"]) if per_machine and is_distributed() else 0


def from_first(function: Callable, *arguments, per_machine: bool = False, **options):
    """Call a function in the first process only, or in the first of each machine; return its result in all.

    An error ends all processes: the first raises it, the others exit in silence, so that one message is printed.
    """
    if not is_distributed():
        return function(*arguments, **options)
    result, own = None, leader(per_machine)
    outcome = _outcome(function, arguments, options) if own == rank() else None
    for source in sorted(set(in_all(leader, per_machine))) if per_machine else [0]:
        shared = [outcome]
        dist.broadcast_object_list(shared, src=source)
        value = _agreed(shared)[0]
        result = value if source == own else result
    return result


def in_all(function: Callable, *arguments) -> list:
    """Call a function in every process; return the results by rank in all. An error ends all, as in `from_first`."""
    if not is_distributed():
        return [function(*arguments)]
    outcomes = [None] * dist.get_world_size()
    dist.all_gather_object(outcomes, _outcome(function, arguments, {}))
    return _agreed(outcomes)


def _outcome(function: Callable, arguments: tuple, options: dict) -> tuple[Exception | None, object]:
    try:
        return None, function(*arguments, **options)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error with other arguments than its class takes
            return RuntimeError(f"{type(error).__name__}: {error}"), None
        return error, None


def _agreed(outcomes: list[tuple[Exception | None, object]]) -> list:
    """The results; `stop_all` with the first error among the outcomes, which all processes know."""
    if error := next((error for error, _ in outcomes if error), None):
        stop_all(error)
    return [result for _, result in outcomes]


def stop_all(error: Exception) -> NoReturn:
    """Raise an error that all processes have found: the first raises it, the others exit in silence."""
    raise error if is_first() else SystemExit(1)


def gather(value) -> list | None:
    """Each process's value, by rank, in the first process; None in the others. It must be picklable."""
    if not is_distributed():
        return [value]
    values = [None] * dist.get_world_size() if is_first() else None
    dist.gather_object(value, values)
    return values


def share(per_machine: bool = False) -> slice:
    """This process's share of a sequence dealt out one by one to all, or to those of its machine: ``rows[share()]``."""
    if per_machine and is_distributed():
        return slice(int(os.environ["LOCAL_RANK"]), None, int(os.environ["LOCAL_WORLD_SIZE"]))
    return slice(rank(), None, n_ranks())


def n_machines() -> int:
    """The number of machines that train together."""
    return int(os.environ.get("GROUP_WORLD_SIZE", 1)) if is_distributed() else 1


def n_cores() -> int:
    """This process's share of the machine's cores."""
    return max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
