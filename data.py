"""Rows and pixels -> batches on the device.

A batch is a dict, here and everywhere else (N images, K classes, H x W pixels):

=========  ============  ==================================================================
key        shape         dtype, range
=========  ============  ==================================================================
image      (N, 3, H, W)  float, (pixel / 255 - MEAN) / STD by channel, channels_last memory
label      (N,)          int64 in [0, K), position among the table's classes; -1 for none; mixed or soft: (N, K) float
mask       (N, 1, H, W)  float in {0, 1}; 0 for none; mixed: in [0, 1]
<number>   (N,)          float, for each of `dataset.table.NUMBERS`; 0 for none
has_<any>  (N,)          bool; only if some images of the data set lack this target
=========  ============  ==================================================================
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import machine
from augment import AUGMENTS, change_pixels, chosen
from dataset.classes import classes_of, positions_of
from dataset.images import read_image
from dataset.pixelfile import PixelFile
from dataset.soft import soft_targets
from dataset.table import NUMBERS, SPLITS, targets

Pixels = PixelFile | np.ndarray | torch.Tensor  # (n_rows, H, W, 4) uint8: red, green, blue, mask
COPIED_AT_A_TIME = 64_000_000  # bytes
SAMPLINGS = {  # of an epoch's images: the power by which rare classes are drawn more often
    "all": 0.0,  # every image once
    "sqrt": 0.5,  # a class in proportion to the square root of its frequency
    "balanced": 1.0,  # all classes equally often
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, RGB


def load_image(path: str | Path, size: int) -> torch.Tensor:
    """One image as a batch of one: (1, 3, `size`, `size`), normalised. Raises as `read_image`."""
    return normalise(torch.from_numpy(np.array(read_image(path, size)))[None])


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float as the batch's ``image``."""
    scale, shift = _scale_and_shift(pixels.device)
    return torch.addcmul(shift, pixels.float(), scale).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _scale_and_shift(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(p / 255 - MEAN) / STD as p * scale + shift, by channel."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (1 / (255 * std)).to(device), (-mean / std).to(device)


def to_device(pixels: PixelFile, device: torch.device) -> PixelFile | torch.Tensor:
    """Pixels in GPU memory if they take at most half of the free memory; otherwise unchanged."""
    if device.type == "cuda" and pixels.nbytes <= torch.cuda.mem_get_info(device)[0] / 2:
        return copied(pixels, device)
    return pixels


def copied(pixels: PixelFile, device: torch.device) -> torch.Tensor:
    """The pixels on the device, copied block by block."""
    there = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    step = max(1, COPIED_AT_A_TIME * len(pixels) // max(pixels.nbytes, 1))
    for start in range(0, len(pixels), step):
        there[start : start + step] = torch.from_numpy(pixels[start : start + step])
    return there


class Batches:
    """Batches of one part of the table, on the device. The same (seed, epoch) always gives the same batches.

    Iteration and `batches[i]` give the first epoch; `epoch(n)` gives the n-th, shuffled anew. On the CPU, worker
    processes can read them: ``torch.utils.data.DataLoader(batches, batch_size=None, num_workers=2)``.

    Parameters
    ----------
    pixels : (n_rows, H, W, 4) uint8 from `decode_table` (read ahead by a thread) or `to_device`, or an array.
    table : rows to draw from, with columns ``row`` and ``label``; `dataset.table.targets` gives their targets.
    batch_size : maximum number of images per batch, over all processes; batches differ by at most one image.
    seed : for shuffling and augmentation; also enables soft labels. None keeps the table's order, for evaluation.
    sampling : which images an epoch draws if they are shuffled: a key of `SAMPLINGS`; or n for all images, but of the
        commonest class only n per image of the others and without a label, chosen anew each epoch.
    augment : names in `augment.AUGMENTS`, each once, applied in this order if images are shuffled.
    share : this process's number, and how many processes share each batch.

    Attributes
    ----------
    classes : names of the labels.
    n_images : drawn per epoch, over all processes.
    shares : share of the drawn images with each target.
    frequencies : (K,) float, each class's share of the drawn images that have a label.
    prior : (K,) float, the same of the images behind the probabilities that are learned: all images if `sampling` is a
        number, else those drawn.
    offset : (K,) float, log(frequencies / prior); 0 for a class without images.

    Raises
    ------
    ValueError : a batch has fewer images than there are processes; `augment.chosen` refuses an augmentation.
    """

    def __init__(
        self,
        pixels: Pixels,
        table: pd.DataFrame,
        batch_size: int,
        *,
        device: str | torch.device = "cpu",
        seed: int | None = None,
        sampling: str | int = "all",
        augment: str | Sequence[str] = (),
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.pixels, self.table, self.device = pixels, table, torch.device(device)
        rows = torch.tensor(table["row"].to_numpy(np.int64))
        self.rows = rows.to(pixels.device) if isinstance(pixels, torch.Tensor) else rows
        labels = positions_of(table)
        self.classes, self.labels = classes_of(table), torch.tensor(labels).to(device)
        self.seed, (self.rank, self.n_ranks) = seed, share
        self.draws = _expected_draws(labels, sampling if seed is not None else "all")
        self.n_images = round(self.draws.sum())
        known = targets(table)
        self.shares = {
            name: float((values * self.draws).sum() / max(1, self.n_images)) for name, values in known.items()
        }
        values = {name: table[name].to_numpy(np.float32) for name in NUMBERS if name in table}
        self.numbers = {name: torch.tensor(np.nan_to_num(of_rows)).to(device) for name, of_rows in values.items()}
        self.frequencies = self._frequencies(labels, self.draws)
        once = np.ones(len(labels))
        self.prior = self._frequencies(labels, once if isinstance(sampling, int) else self.draws)
        self.offset = torch.nan_to_num((self.frequencies / self.prior).log())
        soft = soft_targets(table, self.offset.exp().cpu().numpy()) if seed is not None else None
        self.label_targets = self.labels if soft is None else torch.from_numpy(np.nan_to_num(soft)).to(device)
        partly = {f"has_{name}": values.to_numpy() for name, values in known.items() if not values.all()}
        self.has = {name: torch.tensor(values).to(device) for name, values in partly.items()}
        self.augment = chosen(augment)
        n_batches = -(-self.n_images // batch_size)
        self.sizes = [len(part) for part in np.array_split(np.arange(self.n_images), n_batches)] if n_batches else []
        if self.sizes and min(self.sizes) < self.n_ranks:
            raise ValueError(f"Batches of {min(self.sizes)} images cannot be split among {self.n_ranks} processes.")

    def _frequencies(self, labels: np.ndarray, draws: np.ndarray) -> torch.Tensor:
        """Share of each class (K,) among the images with a label, drawn so often."""
        counts = np.bincount(labels[labels >= 0], draws[labels >= 0], len(self.classes))
        return torch.tensor(counts, dtype=torch.float32, device=self.device) / counts.sum()

    def describe_draws(self) -> str:
        """How many images an epoch draws, if fewer than there are; else ""."""
        n, n_known = self.n_images, len(self.rows)
        return f"Each epoch draws {n:,} of {n_known:,} training images." if n < n_known else ""

    def subset(self, positions: Sequence[int]) -> "Batches":
        """The images at these positions of the table, as one batch."""
        return Batches(self.pixels, self.table.iloc[positions], len(positions), device=self.device)

    def whole(self) -> "Batches":
        """All images in this process, in the table's order."""
        return Batches(self.pixels, self.table, max(self.sizes), device=self.device)

    def images_and_masks(self) -> tuple[np.ndarray, np.ndarray]:
        """All images (N, H, W, 3) uint8 and masks (N, H, W) bool, for drawing."""
        pixels = self._gather(self.rows).cpu().numpy()
        return pixels[..., :3], pixels[..., 3] > 0

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return self.epoch()

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        number = range(len(self))[number]
        (batch,) = self._read(1, slice(number, number + 1))
        return batch

    def epoch(self, epoch: int = 1) -> Iterator[dict[str, torch.Tensor]]:
        """The images of the n-th epoch, in its order; with several ranks, this rank's share of each batch."""
        return self._read(epoch, slice(None))

    def _read(self, epoch: int, which: slice) -> Iterator[dict[str, torch.Tensor]]:
        """Some batches of an epoch."""
        drawn = self._draw(epoch)
        rows = self.rows[drawn["order"].to(self.rows.device)].split(self.sizes)[which]
        # Drawn values are copied to the device once per epoch: a copy per step would stall it.
        parts = zip(*(values.to(self.device).split(self.sizes)[which] for values in drawn.values()))
        mine = slice(self.rank, None, self.n_ranks)
        augment = self.augment if self.seed is not None else ()
        for pixels, values in zip(self._read_ahead([part[mine] for part in rows]), parts):
            part = {name: value[mine] for name, value in zip(drawn, values)}
            pixels = change_pixels(pixels, augment, part)
            batch = {
                "image": normalise(pixels[..., :3]),
                "label": self.label_targets[part["order"]],
                "mask": pixels[..., 3].gt(0).float().unsqueeze(1),
                **{name: values[part["order"]] for name, values in self.numbers.items()},
                **{name: values[part["order"]] for name, values in self.has.items()},
            }
            for name in augment:
                if AUGMENTS[name].batch:
                    batch = AUGMENTS[name].batch(batch, part[name], len(self.classes))
            yield batch

    def _draw(self, epoch: int) -> dict[str, torch.Tensor]:
        """The order of an epoch's images and the values drawn by each augmentation, one per image."""
        if self.seed is None:
            return {"order": torch.arange(len(self.rows))}
        rng = np.random.default_rng((self.seed, epoch))
        drawn = {"order": torch.from_numpy(self._order(rng))}
        draws = {name: draw for name in self.augment if (draw := AUGMENTS[name].draw)}
        return drawn | {name: torch.from_numpy(draw(rng, self.n_images)) for name, draw in draws.items()}

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        """An epoch's images, shuffled: each as often as `draws` says, rounded down or up (systematic sampling)."""
        shuffled = rng.permutation(len(self.rows))
        if (self.draws == 1).all():
            return shuffled
        ends = np.cumsum(self.draws[shuffled])
        places = np.searchsorted(ends, (rng.uniform() + np.arange(self.n_images)) * ends[-1] / self.n_images)
        return rng.permutation(shuffled[places])

    def _read_ahead(self, parts: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Gather the pixels of each part; a thread reads two steps ahead from disk."""
        if isinstance(self.pixels, torch.Tensor):
            yield from map(self._gather, parts)
            return
        with ThreadPoolExecutor(1) as reader:
            for pixels in machine.map_ahead(reader, self._gather, parts, 2):
                yield pixels.to(self.device, non_blocking=True)

    def _gather(self, rows: torch.Tensor) -> torch.Tensor:
        if isinstance(self.pixels, torch.Tensor):
            return self.pixels[rows]
        pixels = torch.from_numpy(self.pixels[rows.numpy()])
        return pixels.pin_memory() if self.device.type == "cuda" else pixels


def _expected_draws(labels: np.ndarray, sampling: str | int) -> np.ndarray:
    """How often each image (N,) is drawn per epoch on average; images without a label (-1) once."""
    draws, labelled = np.ones(len(labels)), labels >= 0
    if not labelled.any():
        return draws
    counts = np.bincount(labels[labelled])
    if isinstance(sampling, int):
        n_wanted = sampling * (len(labels) - counts.max())
        draws[labels == counts.argmax()] = min(1, n_wanted / counts.max()) if n_wanted else 1
        return draws
    draws[labelled] = (counts / labelled.sum())[labels[labelled]] ** -SAMPLINGS[sampling]
    draws[labelled] /= draws[labelled].mean()
    return draws


def split_batches(
    pixels: Pixels,
    table: pd.DataFrame,
    batch_size: int,
    device: str | torch.device = "cpu",
    *,
    seed: int | None = None,
    sampling: str | int = "all",
    augment: str | Sequence[str] = (),
) -> dict[str, Batches]:
    """Batches of train, val and test, the parts in the table's column ``split``; arguments as `Batches`.

    Only train is shuffled and augmented. With a seed, for training, the processes share train and val.
    """
    share = {} if seed is None else {"share": (machine.rank(), machine.n_ranks())}
    options = {"train": share | {"seed": seed, "sampling": sampling, "augment": augment}, "val": share, "test": {}}
    rows = {part: table[table["split"] == part] for part in SPLITS}
    return {part: Batches(pixels, rows[part], batch_size, device=device, **options[part]) for part in SPLITS}
