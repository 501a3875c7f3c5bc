"""One pass of a model over a set of images, shared among the processes -> the outputs behind all numbers."""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import data
import evaluate
import machine
from dataset import images
from dataset.table import has_mask
from encoders.unlike import Unlike
from measure.calls import Calls, pooled

OTHERS = "others."  # begins the names of further heads' outputs in a file


class Collected(NamedTuple):
    """Outputs of one pass over N images, in the table's order; None for missing heads.

    Attributes
    ----------
    label : (N, K) logits.
    calls : what they say, read with a calibration; None before that.
    heat : (N, 2) share of the heat map inside the mask, and the mask's share of the image.
    mask, native : (N, 4) `evaluate.mask_counts` at the network's size, and at each mask file's own.
    surface : (N, 2) 95 % Hausdorff and average surface distance in pixels of the mask file.
    unlike : (N, 1) percentile of `encoders.unlike.Unlike`.
    others : by the name of a further head, (N, n) each image's scores in the order of ``evaluate.SCORES[name]``.

    `heat`, `mask`, `native` and `surface` are of images with a mask only, and NaN elsewhere.
    """

    label: np.ndarray | None = None
    calls: Calls | None = None
    heat: np.ndarray | None = None
    mask: np.ndarray | None = None
    native: np.ndarray | None = None
    surface: np.ndarray | None = None
    unlike: np.ndarray | None = None
    others: dict[str, np.ndarray] | None = None

    def of(self, chosen: np.ndarray) -> "Collected":
        """A subset of the images, by positions or as (N,) bool."""
        *arrays, others = self
        some = (None if values is None else values[chosen] for values in arrays)
        return Collected(*some, {name: values[chosen] for name, values in (others or {}).items()})


def packed(collected: Collected, names: Sequence[str]) -> bytes:
    """The outputs and the names of their images as an .npz file; without the calls."""
    arrays = collected._asdict()
    others = {OTHERS + name: values for name, values in (arrays.pop("others") or {}).items()}
    kept = {name: values for name, values in arrays.items() if isinstance(values, np.ndarray)}
    content = io.BytesIO()
    np.savez_compressed(content, image=np.array(names, str), **kept, **others)
    return content.getvalue()


def unpacked(path: Path) -> tuple[Collected, list[str]]:
    """What `packed` made."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    names = arrays.pop("image").tolist()
    others = {name.removeprefix(OTHERS): arrays.pop(name) for name in list(arrays) if name.startswith(OTHERS)}
    return Collected(**arrays, others=others), names


def joined(parts: Sequence[Collected]) -> Collected:
    """The outputs of several models on the images of each, one after the other; None where one has none."""
    fields: dict = {}
    for name in Collected._fields:
        values = [getattr(part, name) for part in parts]
        if name == "others":
            fields[name] = {key: np.concatenate([one[key] for one in values]) for key in values[0]}
        elif any(value is None for value in values):
            fields[name] = None
        else:
            fields[name] = pooled(values) if name == "calls" else np.concatenate(values)
    return Collected(**fields)


def collect(model: nn.Module, batches: data.Batches, precision: str) -> Collected | None:
    """Run the model over all images once.

    Under torchrun every process calls this with the same images and runs over its share; the first one gets all, the
    others None.
    """
    rows = batches.table.iloc[machine.share()]
    one = batches.subset([0])[0]
    heads, forward = evaluate.heads_of(model, one["image"], batches.classes), explaining(model)
    ((_, explained),) = evaluate.infer(model, [one], precision, forward)
    widths = {name: {name: len(scores)} for name, scores in evaluate.SCORES.items()}
    widths |= {"label": {"label": len(batches.classes)}, "mask": {"mask": 4, "native": 4, "surface": 2}}
    widths |= {"heat": {"heat": 2}, "unlike": {"unlike": 1}}
    given = [*heads, *(name for name in ("heat", "unlike") if name in explained)]  # gathered in one order by all
    kept = {name: np.full((len(rows), n), np.nan) for head in given for name, n in widths[head].items()}
    start = 0
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for batch, output in run_over_share(model, batches, precision, forward):
            place = slice(start, start + len(batch["image"]))
            start = place.stop
            for name, values in _of_batch(batch, output, rows.iloc[place], pool).items():
                kept[name][place] = values
    whole = {name: gather_rows(values) for name, values in kept.items()}
    others = {name: whole.pop(name) for name in heads if name not in ("label", "mask")}
    return Collected(**whole, others=others) if machine.is_first() else None


def explaining(model: nn.Module) -> Callable[[Tensor], dict[str, Tensor]] | None:
    """The function that adds ``"heat"`` and ``"unlike"`` to a model's logits, as `models.Model.explain`; or None."""
    if hasattr(model, "explain"):
        return model.explain
    if isinstance(getattr(model, "unlike", None), Unlike):
        return lambda image: model(image) | {"unlike": model.unlike(model.encoder(image))}
    return None


def _of_batch(batch: dict, output: dict, rows: pd.DataFrame, pool: ThreadPoolExecutor) -> dict[str, np.ndarray]:
    """The fields of `Collected` for a batch."""
    values = {"label": output["label"].cpu().numpy()} if "label" in output else {}
    values |= {"unlike": output["unlike"].cpu().numpy()[:, None]} if "unlike" in output else {}
    for name in output.keys() - {"label", "mask", "heat", "unlike"}:
        scores = [score(output[name], batch[name]).cpu().numpy() for score in evaluate.SCORES[name].values()]
        values[name] = np.stack(scores, axis=1)
    masked = has_mask(rows)
    for name, of_masked in _against_masks(batch, output, rows, pool).items() if masked.any() else ():
        values[name] = np.full((len(rows), of_masked.shape[1]), np.nan)
        values[name][masked] = of_masked
    return values


def run_over_share(
    model: nn.Module, batches: data.Batches, precision: str, forward=None
) -> Iterator[tuple[dict, dict]]:
    """`evaluate.infer` over this process's share of the images, which may be none."""
    rows = batches.table.iloc[machine.share()]
    if len(rows):
        share = data.Batches(batches.pixels, rows, max(batches.sizes), device=batches.device)
        progress = tqdm(
            share.epoch(), "measuring", len(share), leave=False, unit="batch", disable=machine.hides_progress()
        )
        yield from evaluate.infer(model, progress, precision, forward)


def gather_rows(share: np.ndarray) -> np.ndarray | None:
    """All rows in their original order, gathered in the first process from the shares of `machine.share`."""
    parts = machine.gather(share)
    if parts is None:
        return None
    whole = np.empty((sum(map(len, parts)), *share.shape[1:]), share.dtype)
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def _against_masks(batch: dict, output: dict, rows: pd.DataFrame, pool: ThreadPoolExecutor) -> dict[str, np.ndarray]:
    """The fields of `Collected` that need a mask, for the M images of a batch with one."""
    some, fields = torch.tensor(has_mask(rows)), {}
    if "heat" in output:
        fields["heat"] = heat_inside(output["heat"], batch["mask"]).cpu()[some].numpy()
    if "mask" in output:
        logits, mask, files = output["mask"].cpu()[some], batch["mask"].cpu()[some], rows[some.numpy()]
        fields["mask"] = evaluate.mask_counts(logits, mask).numpy()
        how = files["mask_how"] if "mask_how" in files else [""] * len(files)
        native = list(pool.map(native_overlap, logits, files["image_path"], files["mask_path"], how))
        fields["native"] = np.stack([counts for counts, _ in native])
        fields["surface"] = np.stack([surface for _, surface in native])
    return fields


def heat_inside(heat: Tensor, mask: Tensor) -> Tensor:
    """Share of each heat map (N, 1, H, W) inside the mask, and the mask's share of the image: (N, 2)."""
    total = heat.sum(dim=(1, 2, 3)).clamp(min=1e-6)
    return torch.stack([(heat * mask).sum(dim=(1, 2, 3)) / total, mask.mean(dim=(1, 2, 3))], dim=1)


def native_overlap(
    logits: Tensor, image_path: str, mask_path: str, how: str = ""
) -> tuple[np.ndarray, tuple[float, float]]:
    """Overlap and surface distances at the mask file's own size, to which the logits (1, H, W) are resized."""
    true = images.read_native_mask(image_path, mask_path, how)
    full = F.interpolate(logits[None], size=true.shape, mode="bilinear", align_corners=False)
    counts = evaluate.mask_counts(full, torch.from_numpy(true)[None, None])[0].numpy()
    return counts, evaluate.surface_distances(full[0, 0].numpy() > 0, true)
