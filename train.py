"""One training engine for every model: the recipe, the training step, and the loop over epochs."""

import inspect
import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from checkpoints import Checkpoints
from evaluate import SCORES, autocast, heads_of, infer
from losses import LOSSES, Loss, with_offset
from machine import from_first, hides_progress, is_distributed, is_first, n_ranks

Shares = dict[str, float] | None  # of images with the target, by head
# Factor of the learning rate by progress in [0, 1) after warm-up.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}
PRETRAINED = ("encoder.", "heads.label.layer.")  # prefixes of the weights that may start from ImageNet


class Recipe(NamedTuple):
    """How a model learns.

    Attributes
    ----------
    epochs, batch_size : passes over the training images, and images per step.
    lr : peak learning rate of AdamW.
    schedule : of the learning rate; a key of `SCHEDULES`.
    warm_up : share of all steps in which the learning rate rises linearly from 0.
    ema : decay of the exponential moving average of the weights per step, smaller in the first steps; 0 for no average.
        The average is validated and saved in place of the weights.
    label_loss, mask_loss : keys of ``LOSSES["label"]`` and ``LOSSES["mask"]``.
    encoder_lr_scale : multiplies the learning rate of the weights that may start from ImageNet.
    weight_decay : of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); biases and norms do not decay.
    """

    epochs: int
    batch_size: int
    lr: float
    schedule: str = "constant"
    warm_up: float = 0.0
    ema: float = 0.0
    label_loss: str = "cross-entropy"
    mask_loss: str = "bce"
    encoder_lr_scale: float = 1.0
    weight_decay: float = 0.0

    def losses(self, frequencies: Tensor | None = None, offset: Tensor | None = None) -> dict[str, Loss]:
        """The loss of each head, for images with these class `frequencies` (K,).

        Losses that take the frequencies get them. For another label loss the `offset` (K,) is added to the logits.
        """
        names = {"label": self.label_loss, "mask": self.mask_loss}
        chosen = {head: known[names.get(head, next(iter(known)))] for head, known in LOSSES.items()}
        takes = {head for head, loss in chosen.items() if "frequencies" in inspect.signature(loss).parameters}
        if offset is not None and "label" not in takes:
            chosen["label"] = with_offset(chosen["label"], offset)
        return chosen | {head: partial(chosen[head], frequencies=frequencies) for head in takes}

    def rate(self, step: int, n_steps: int) -> float:
        """Learning rate of a step, counted from 0."""
        n_rising = self.warm_up * n_steps
        if step < n_rising:
            return self.lr * (step + 1) / (n_rising + 1)
        return self.lr * SCHEDULES[self.schedule]((step - n_rising) / (n_steps - n_rising))


def fit(
    model: nn.Module,
    train_batches,
    val_batches,
    *,
    recipe: Recipe,
    seed: int,
    precision: str,
    checkpoints: Checkpoints | None = None,
    after_epoch: Callable[[list[dict]], None] | None = None,
) -> list[dict]:
    """Train with AdamW and return the history, one dict per epoch; keep the model with the lowest validation loss.

    Under torchrun every process calls this with its own share of the batches; the first one writes.

    Parameters
    ----------
    model : any module that maps images to a dict of logits ``"label"`` (N, K), ``"mask"`` (N, 1, H, W), or both.
    train_batches, val_batches : objects with ``epoch(number)``, ``len()``, ``sizes`` (images of each batch over all
        processes), ``n_images``, ``classes``; ``shares``, if batches have ``has_label`` or ``has_mask``;
        ``frequencies``, if the label loss takes them; and ``prior`` and ``offset``, if the drawn images have other
        class frequencies than those to learn, which validation images have. `data.Batches` has all of these.
    checkpoints : keeps the best model and the state of each epoch; None keeps nothing.
    after_epoch : called in the first process with the history, after the epoch was saved.

    Raises
    ------
    FloatingPointError : the loss is no longer finite, or fp16 overflows; the files of earlier epochs are kept.
    ValueError : as `Checkpoints.read` and `refuse_unfit`.
    """
    refuse_unfit(model, train_batches)
    losses, val_losses = losses_of(recipe, train_batches)
    learner = Learner(model, recipe, losses, precision, recipe.epochs * len(train_batches))
    history, best = [], {"loss": float("inf"), "epoch": 0}
    if checkpoints and (state := from_first(checkpoints.read)):
        learner.load_state_dict(state)
        history, best = state["history"], state["best"]
        if is_first():  # the run may have been stopped between the state and the history
            checkpoints.write_history(history)
    for epoch in range(len(history) + 1, recipe.epochs + 1):
        torch.manual_seed(seed * 100_003 + epoch)  # for random modules such as dropout
        started = time.perf_counter()
        trained = train_epoch(learner, train_batches, epoch)
        seconds = time.perf_counter() - started
        row = {"epoch": epoch, **trained, **validate(learner.watched, val_batches, val_losses, precision)}
        _check_finite(row["val_loss"], f"epoch {epoch}, on the validation images")
        row |= {"train_seconds": round(seconds, 3), "images_per_second": round(train_batches.n_images / seconds, 1)}
        history.append(row)
        is_best = row["val_loss"] < best["loss"]
        if is_best:
            best = {"loss": row["val_loss"], "epoch": epoch}
        if is_first():
            if checkpoints:
                state = learner.state_dict() | {"history": history, "best": best}
                checkpoints.write(state, learner.watched.state_dict() if is_best else None)
            tqdm.write(epoch_line(row, recipe.epochs, is_best))
            if after_epoch:
                after_epoch(history)
    return history


def losses_of(recipe: Recipe, batches) -> tuple[dict[str, Loss], dict[str, Loss]]:
    """The losses of the images that an epoch draws, and of images with the class frequencies to learn."""
    frequencies = getattr(batches, "frequencies", None)
    drawn = recipe.losses(frequencies, getattr(batches, "offset", None))
    return drawn, recipe.losses(getattr(batches, "prior", frequencies))


def refuse_unfit(model: nn.Module, batches) -> None:
    """Raises ValueError as `evaluate.heads_of`, or for a head without any training target."""
    for head in heads_of(model, next(batches.epoch(1))["image"][:1], batches.classes):
        if not (shares_of(batches) or {}).get(head, 1):
            raise ValueError(f"The model predicts a {head}, and no training image has one.")


def refuse_small(batches, image_size: int, task: str) -> None:
    """Raises ValueError if a batch has one image per process and the deepest feature map one pixel."""
    smallest = min(batches.sizes) // batches.n_ranks
    if smallest < 2 and image_size <= 32:
        raise ValueError(
            f"A batch of {task} has {smallest} image per process, too few for batch normalisation at {image_size} "
            f"pixels. Set another --{task}-batch-size or a larger --image-size."
        )


class Learner:
    """The state that training changes: a network, its optimizer, and the moving average of its weights.

    Parameters
    ----------
    n_steps : of the whole training, for the schedule.

    Attributes
    ----------
    watched : the network that is validated and saved: the average, or the network itself without one.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, losses: dict[str, Loss], precision: str, n_steps: int) -> None:
        self.model, self.recipe, self.losses = model, recipe, losses
        self.precision, self.n_steps = precision, n_steps
        self.optimizer = torch.optim.AdamW(parameter_groups(model, recipe), lr=recipe.lr, fused=True)
        device = next(model.parameters()).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")  # skips steps whose gradients overflow
        self.average = AveragedModel(model, use_buffers=True)
        self.watched = self.average.module if recipe.ema else model
        self.parallel = _parallel(model)

    def step(
        self, batch: dict[str, Tensor], number: int, weight: float = 1.0, shares: Shares = None
    ) -> dict[str, Tensor]:
        """Take training step `number`, counted from 0, and return the losses; `weight` multiplies the gradient."""
        with autocast(batch["image"].device, self.precision):
            output = self.parallel(batch["image"])

        losses = head_losses(output, batch, self.losses, shares)
        loss = sum(losses.values())

        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss * weight).backward()

        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(number, self.n_steps) * group["scale"]
        self.scaler.step(self.optimizer)
        self.scaler.update()

        if self.recipe.ema:
            self.average.multi_avg_fn = get_ema_multi_avg_fn(min(self.recipe.ema, (1 + number) / (10 + number)))
            self.average.update_parameters(self.model)

        return {"loss": loss.detach()} | {f"{name}_loss": value.detach() for name, value in losses.items()}

    def check_scale(self) -> None:
        """Raises FloatingPointError if the gradients overflow at any scale: all recent steps were skipped."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1:
            raise FloatingPointError("Gradients overflow in fp16 at every step. Use --precision bf16 or fp32.")

    def end_epoch(self) -> None:
        """Copy the running means and variances of the first process to all others."""
        if is_distributed():
            for buffer in (*self.model.buffers(), *self.average.buffers()):
                dist.broadcast(buffer, src=0)

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict:
        parts = {"model": self.model, "optimizer": self.optimizer}
        parts |= {"average": self.average} if self.recipe.ema else {}
        return parts | {"scaler": self.scaler} if self.scaler.is_enabled() else parts


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Optimizer groups of the weights that are not frozen, by learning rate and decay; biases and norms do not decay.

    ``scale`` multiplies the learning rate.
    """
    groups: dict[tuple, dict] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        scale = recipe.encoder_lr_scale if name.startswith(PRETRAINED) else 1.0
        decay = recipe.weight_decay if weight.ndim > 1 else 0.0
        group = groups.setdefault((scale, decay), {"params": [], "scale": scale, "weight_decay": decay})
        group["params"].append(weight)
    return list(groups.values())


def _parallel(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over the processes; the model itself in a single process."""
    if not is_distributed():
        return model
    device = next(model.parameters()).device
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def train_epoch(learner: Learner, batches, epoch: int) -> dict:
    """One pass over the training images; returns the mean loss of each head, and the sum."""
    learner.model.train()
    totals: dict[str, Tensor] = {}
    for number, batch in enumerate(_progress(batches, epoch)):
        # Gradients are averaged over ranks, each weighted by its share of the batch.
        weight = len(batch["image"]) * n_ranks() / batches.sizes[number]
        losses = learner.step(batch, (epoch - 1) * len(batches) + number, weight, shares_of(batches))
        _accumulate(totals, losses, batch)
        if batch["image"].device.type == "cpu" or number == len(batches) - 1:  # reading stalls a GPU
            _check_finite(totals["loss"], f"epoch {epoch}, at or before step {number + 1}")
            learner.check_scale()
    learner.end_epoch()
    return _means(totals, batches, "train")


def validate(model: nn.Module, batches, head_loss: dict[str, Loss], precision: str) -> dict:
    """Mean loss and scores of each head over validation images with its target, and the sum of the losses."""
    totals, shares = {}, shares_of(batches)
    for batch, output in infer(model, batches.epoch(), precision):
        losses = head_losses(output, batch, head_loss, shares)
        values = {"loss": sum(losses.values())} | {f"{name}_loss": value for name, value in losses.items()}
        for head, logits in output.items():
            for name, score in SCORES[head].items():
                values[f"{head}_{name}"] = mean_of_known(score, head, logits, batch, shares)
        _accumulate(totals, values, batch)
    return _means(totals, batches, "val")


def shares_of(batches) -> Shares:
    """Share of images with each target; None if every image has every target."""
    return getattr(batches, "shares", None)


def head_losses(
    output: dict[str, Tensor], batch: dict[str, Tensor], losses: dict[str, Loss], shares: Shares = None
) -> dict[str, Tensor]:
    """The loss of each head in float32, by `mean_of_known`."""
    return {name: mean_of_known(losses[name], name, logits.float(), batch, shares) for name, logits in output.items()}


def mean_of_known(
    function: Callable[[Tensor, Tensor], Tensor], head: str, logits: Tensor, batch: dict[str, Tensor], shares: Shares
) -> Tensor:
    """Mean over the images of a batch that have the head's target, rescaled so that every target counts the same.

    The factor is the share of such images in the batch over their share in the whole set. Averaged over all images,
    these means give the mean over the images with the target. 0 for a batch without any. The function of (logits,
    target) returns a mean, as a `Loss` does, or one value per image, as a score does.
    """
    known = batch.get(f"has_{head}")
    if known is None:
        return function(logits, batch[head]).mean()
    logits, target = logits[known], batch[head][known]
    if not len(target):
        return logits.sum()  # 0 with a graph: under torchrun every process must have gradients of all weights
    return function(logits, target).mean() * (len(target) / len(known) / shares[head])


def _accumulate(totals: dict[str, Tensor], means: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
    """Add batch means to sums over images, on the device, in float64 (float32 on MPS, which lacks it)."""
    for name, value in means.items():
        wide = value.dtype if value.device.type == "mps" else torch.float64
        totals[name] = totals.get(name, 0.0) + value.detach().to(wide) * len(batch["image"])


def _means(totals: dict[str, Tensor], batches, prefix: str) -> dict[str, float]:
    sums = torch.stack(list(totals.values()))
    if is_distributed():
        dist.all_reduce(sums)
    values = sums.tolist()  # the only read from the device per epoch
    return {f"{prefix}_{name}": value / batches.n_images for name, value in zip(totals, values)}


def _check_finite(loss: Tensor | float, where: str) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"The loss is no longer finite in {where}. Lower the learning rate, or use --precision fp32. "
            "The files of earlier epochs are kept."
        )


def _progress(batches, epoch: int):
    return tqdm(
        batches.epoch(epoch), f"epoch {epoch}", len(batches), leave=False, unit="batch", disable=hides_progress()
    )


def epoch_line(row: dict, epochs: int, is_best: bool) -> str:
    """One epoch in a line that fits a narrow terminal: training and validation loss, scores, speed."""
    scores = [name for name in row if name.startswith("val_") and not name.endswith("loss")]
    parts = [f"loss {row['train_loss']:.3f}, val {row['val_loss']:.3f}"]
    parts += [f"{name.split('_', 2)[2].replace('_', ' ')} {row[name]:.3f}" for name in scores]
    parts.append(f"{row['train_seconds']:.0f} s, {row['images_per_second']:.0f} img/s")
    return f"epoch {row['epoch']:3}/{epochs}  " + "  ".join(parts) + (" *best" if is_best else "")
