"""One training engine for every model: losses by head, the epoch loop, best and last checkpoints, exact resume."""

import csv
import ctypes
import io
import os
import platform
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from evaluate import SCORES, autocast, predict

# For each head the training loss, (logits, target) -> mean over the batch; a model's loss is the sum over its heads.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "label": F.cross_entropy,
    "mask": F.binary_cross_entropy_with_logits,
}
CHECK_EVERY = 20  # steps between two looks at the running loss, each of which waits for the device


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks, which it would hand back to Linux and fault in again at every step.

    Call it before the first tensor. Does nothing without glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap's end is not given back


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one; raises ValueError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} cannot be used ({str(error).splitlines()[0]}). Try auto or cpu.") from None


def choose_precision(name: str, device: torch.device) -> str:
    """ "auto" is bf16 where the hardware computes in it, else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if found.get("avx512_bf16") or found.get("amx_bf16") else "fp32"


def fit(
    model: nn.Module,
    train_batches,
    val_batches,
    *,
    epochs: int,
    lr: float,
    seed: int,
    precision: str,
    best_path: Path,
    folder: Path,
    description: dict,
    identity: dict,
    resume: bool = False,
) -> list[dict]:
    """Train with Adam, keep the model of the lowest validation loss, and return the history, a dict an epoch.

    Parameters
    ----------
    train_batches, val_batches : objects with ``epoch(number)``, ``len()`` and ``n_images``, as `data.Batches`.
    best_path : checkpoint of the best epoch, for `models.load_model`.
    folder : gets ``history.csv``, ``last.pth`` and ``previous.pth`` each epoch.
    description : plain values that are stored in the best checkpoint beside the weights.
    identity : what must be the same for `resume` to continue: settings and the data's hash.

    Raises
    ------
    FloatingPointError : the loss is no longer finite; earlier epochs' files stay.
    ValueError : `resume` finds a state with another identity.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    state = read_state(folder, identity) if resume else None
    history, best = [], {"loss": float("inf"), "epoch": 0}
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history, best = state["history"], state["best"]
    for epoch in range(len(history) + 1, epochs + 1):
        torch.manual_seed(seed * 100_003 + epoch)  # for modules that draw, such as dropout
        started = time.perf_counter()
        losses = train_epoch(model, train_batches, optimizer, epoch, precision)
        seconds = time.perf_counter() - started
        row = {"epoch": epoch, **losses, **validate(model, val_batches, precision)}
        row |= {"train_seconds": round(seconds, 3), "images_per_second": round(train_batches.n_images / seconds, 1)}
        history.append(row)
        if row["val_loss"] < best["loss"]:
            best = {"loss": row["val_loss"], "epoch": epoch}
            weights = {name: value.cpu() for name, value in model.state_dict().items()}
            scores = {name: value for name, value in row.items() if name.startswith("val_")}
            save(best_path, {**description, "weights": weights, "epoch": epoch, "scores": scores})
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": history, "best": best}
        save_state(folder, state | {"identity": identity})
        write_history(folder / "history.csv", history)
        tqdm.write(summary(row, epochs, best["epoch"] == epoch))
    return history


def train_epoch(model: nn.Module, batches, optimizer: torch.optim.Optimizer, epoch: int, precision: str) -> dict:
    """One pass over the training images; returns the mean loss per image, in all and by head."""
    model.train()
    totals: dict[str, Tensor] = {}
    for step, batch in enumerate(_progress(batches, epoch)):
        with autocast(batch["image"].device, precision):
            output = model(batch["image"])

        losses = head_losses(output, batch)
        loss = sum(losses.values())

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

        _accumulate(totals, {"loss": loss} | {f"{name}_loss": value for name, value in losses.items()}, batch)
        if step % CHECK_EVERY == 0 or step == len(batches) - 1:
            _check_finite(totals["loss"], epoch, step)
    return _means(totals, batches, "train")


def validate(model: nn.Module, batches, precision: str) -> dict:
    """Mean losses and scores over the validation images, each image counting once."""
    totals: dict[str, Tensor] = {}
    for batch, output in predict(model, batches.epoch(), precision):
        losses = head_losses(output, batch)
        values = {"loss": sum(losses.values())} | {f"{name}_loss": value for name, value in losses.items()}
        for head, logits in output.items():
            values |= {f"{head}_{name}": score(logits, batch[head]).mean() for name, score in SCORES[head].items()}
        _accumulate(totals, values, batch)
    return _means(totals, batches, "val")


def head_losses(output: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The loss of each head, in float32."""
    return {name: LOSSES[name](logits.float(), batch[name]) for name, logits in output.items()}


def _accumulate(totals: dict[str, Tensor], means: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
    """Add batch means to sums over images, on the device."""
    for name, value in means.items():
        totals[name] = totals.get(name, 0.0) + value.detach().double() * len(batch["image"])


def _means(totals: dict[str, Tensor], batches, prefix: str) -> dict[str, float]:
    values = torch.stack(list(totals.values())).tolist()  # the epoch's one read from the device
    return {f"{prefix}_{name}": value / batches.n_images for name, value in zip(totals, values)}


def _check_finite(loss: Tensor, epoch: int, step: int) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"The loss is no longer finite in epoch {epoch}, at or before step {step + 1}. Lower the learning rate, "
            "or use --precision fp32. The files of earlier epochs are kept."
        )


def _progress(batches, epoch: int):
    return tqdm(batches.epoch(epoch), f"epoch {epoch}", len(batches), leave=False, unit="batch", disable=None)


def summary(row: dict, epochs: int, is_best: bool) -> str:
    """An epoch in one line."""
    scores = [name for name in row if name.startswith("val_") and not name.endswith("loss")]
    parts = [f"train loss {row['train_loss']:.4f}", f"val loss {row['val_loss']:.4f}"]
    parts += [f"{name.replace('_', ' ')} {row[name]:.3f}" for name in scores]
    parts.append(f"{row['train_seconds']:.1f} s, {row['images_per_second']:.0f} images/s")
    return f"epoch {row['epoch']:3}/{epochs}  " + "  ".join(parts) + ("  *best" if is_best else "")


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also if the process or the machine stops meanwhile."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def save(path: Path, content: dict) -> None:
    """Write a checkpoint of plain types and tensors."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file(path, buffer.getbuffer())


def save_state(folder: Path, state: dict) -> None:
    """Write ``last.pth``; the one before it stays as ``previous.pth``."""
    last = folder / "last.pth"
    if last.exists():
        os.replace(last, folder / "previous.pth")
    save(last, state)


def read_state(folder: Path, identity: dict) -> dict | None:
    """The last whole state of a run with this identity; None if there is none."""
    for path in (folder / "last.pth", folder / "previous.pth"):
        if not path.exists():
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():  # checks the sums, which torch.load does not
                    raise ValueError("wrong check sum")
            state = torch.load(path, map_location="cpu", weights_only=True)
            found = state["identity"]
        except Exception as error:  # damaged files fail in many ways
            tqdm.write(f"{path} is damaged ({error}); falling back to the state before it.")
            continue
        differing = [key for key in identity | found if identity.get(key) != found.get(key)]
        if differing:
            changes = "; ".join(f"{key} was {found.get(key)}, is {identity.get(key)}" for key in differing)
            advice = "Restore the settings, name another --output-dir, or start anew without --resume."
            raise ValueError(f"Cannot resume from {path}: {changes}. {advice}")
        tqdm.write(f"Resuming after epoch {len(state['history'])}.")
        return state
    return None


def write_history(path: Path, history: list[dict]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_file(path, buffer.getvalue().encode())
