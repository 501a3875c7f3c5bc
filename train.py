"""One training engine for every model: losses by head, the epoch loop, best and last checkpoints, exact resume."""

import csv
import io
import os
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from evaluate import SCORES, autocast, infer
from machine import from_first, is_distributed, is_first

# For each head the training loss, (logits, target) -> mean over the batch; a model's loss is the sum over its heads.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "label": F.cross_entropy,
    "mask": F.binary_cross_entropy_with_logits,
}


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
    cuda_graphs: bool = False,
) -> list[dict]:
    """Train with Adam, keep the model of the lowest validation loss, and return the history, a dict an epoch.

    Under torchrun every process calls this with its own share of the batches; the first one writes.

    Parameters
    ----------
    train_batches, val_batches : objects with ``epoch(number)``, ``len()``, ``sizes`` (images of each batch over all
        processes) and ``n_images``, as `data.Batches`.
    best_path : checkpoint of the best epoch, for `models.load_model`.
    folder : gets ``history.csv``, ``last.pth`` and ``previous.pth`` each epoch.
    description : plain values that are stored in the best checkpoint beside the weights.
    identity : what must be the same for `resume` to continue: settings and the data's hash.
    cuda_graphs : replay each training step as one CUDA graph.

    Raises
    ------
    FloatingPointError : the loss is no longer finite; earlier epochs' files stay.
    ValueError : `resume` finds a state with another identity.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True, capturable=cuda_graphs)
    history, best = [], {"loss": float("inf"), "epoch": 0}
    if resume and (state := from_first(read_state, folder, identity)):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history, best = state["history"], state["best"]
    step = make_step(model, optimizer, precision)
    if cuda_graphs:
        step = GraphedStep(step)
    for epoch in range(len(history) + 1, epochs + 1):
        torch.manual_seed(seed * 100_003 + epoch)  # for modules that draw, such as dropout
        started = time.perf_counter()
        losses = train_epoch(model, train_batches, step, epoch)
        seconds = time.perf_counter() - started
        row = {"epoch": epoch, **losses, **validate(model, val_batches, precision)}
        row |= {"train_seconds": round(seconds, 3), "images_per_second": round(train_batches.n_images / seconds, 1)}
        history.append(row)
        is_best = row["val_loss"] < best["loss"]
        if is_best:
            best = {"loss": row["val_loss"], "epoch": epoch}
        if is_first():
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": history, "best": best}
            if is_best:
                weights = {name: value.cpu() for name, value in state["model"].items()}
                scores = {name: value for name, value in row.items() if name.startswith("val_")}
                save(best_path, {**description, "weights": weights, "epoch": epoch, "scores": scores})
            save_state(folder, state | {"identity": identity})
            write_history(folder / "history.csv", history)
            tqdm.write(summary(row, epochs, is_best))
    return history


Step = Callable[[dict[str, Tensor], float], dict[str, Tensor]]


def make_step(model: nn.Module, optimizer: torch.optim.Optimizer, precision: str) -> Step:
    """A function (batch, weight of its loss) that takes one training step and returns the losses."""
    if is_distributed():
        device = next(model.parameters()).device
        if device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        model = nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def step(batch: dict[str, Tensor], weight: float = 1.0) -> dict[str, Tensor]:
        with autocast(batch["image"].device, precision):
            output = model(batch["image"])

        losses = head_losses(output, batch)
        loss = sum(losses.values())

        optimizer.zero_grad(set_to_none=True)
        (loss * weight).backward()
        optimizer.step()

        return {"loss": loss.detach()} | {f"{name}_loss": value.detach() for name, value in losses.items()}

    return step


class GraphedStep:
    """A training step recorded as a CUDA graph for each batch size, and then replayed: one launch in place of hundreds.

    The first steps of a size are taken as they are, on a side stream, as torch.cuda.graph asks for before it records.
    """

    def __init__(self, step: Step, warm_up: int = 3) -> None:
        self.step, self.warm_up = step, warm_up
        self.seen: Counter[int] = Counter()
        self.recorded: dict[int, tuple] = {}

    def __call__(self, batch: dict[str, Tensor], weight: float = 1.0) -> dict[str, Tensor]:
        size = len(batch["image"])
        self.seen[size] += 1
        if self.seen[size] <= self.warm_up:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                losses = self.step(batch, weight)
            torch.cuda.current_stream().wait_stream(side)
            return losses
        if size not in self.recorded:
            graph, inputs = torch.cuda.CUDAGraph(), {name: value.clone() for name, value in batch.items()}
            with torch.cuda.graph(graph):
                losses = self.step(inputs, weight)
            self.recorded[size] = graph, inputs, losses
        graph, inputs, losses = self.recorded[size]
        for name, value in batch.items():
            inputs[name].copy_(value)
        graph.replay()
        return losses


def train_epoch(model: nn.Module, batches, step: Step, epoch: int) -> dict:
    """One pass over the training images; returns the mean loss per image, in all and by head."""
    model.train()
    totals: dict[str, Tensor] = {}
    n_ranks = dist.get_world_size() if is_distributed() else 1
    for number, batch in enumerate(_progress(batches, epoch)):
        # Ranks' gradients are averaged: each counts by its share of the batch's images.
        losses = step(batch, len(batch["image"]) * n_ranks / batches.sizes[number])
        _accumulate(totals, losses, batch)
        if batch["image"].device.type == "cpu" or number == len(batches) - 1:  # a look makes a GPU wait
            _check_finite(totals["loss"], epoch, number)
    if is_distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
    return _means(totals, batches, "train")


def validate(model: nn.Module, batches, precision: str) -> dict:
    """Mean losses and scores over the validation images, each image counting once."""
    totals: dict[str, Tensor] = {}
    for batch, output in infer(model, batches.epoch(), precision):
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
    sums = torch.stack(list(totals.values()))
    if is_distributed():
        dist.all_reduce(sums)
    values = sums.tolist()  # the epoch's one read from the device
    return {f"{prefix}_{name}": value / batches.n_images for name, value in zip(totals, values)}


def _check_finite(loss: Tensor, epoch: int, step: int) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"The loss is no longer finite in epoch {epoch}, at or before step {step + 1}. Lower the learning rate, "
            "or use --precision fp32. The files of earlier epochs are kept."
        )


def _progress(batches, epoch: int):
    hidden = None if is_first() else True  # None: shown on a terminal
    return tqdm(batches.epoch(epoch), f"epoch {epoch}", len(batches), leave=False, unit="batch", disable=hidden)


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
