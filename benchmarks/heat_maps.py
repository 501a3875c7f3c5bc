"""How well heat maps point at the lesion, by the grid they are computed on and the position of its cells.

python benchmarks/heat_maps.py CHECKPOINT --data-dir data
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import data
import models
from benchmarks import start
from dataset.prepare import prepare
from dataset.table import has_mask
from encoders import base


def heat_maps(model: models.Model, image: Tensor) -> Iterator[tuple[tuple[int, str], Tensor]]:
    """Heat maps (N, 1, H, W) of the predicted class by (stride of the grid, interpretation of a cell)."""
    size, head = image.shape[-2:], model.heads["label"]
    features = model.encoder(image)
    label = head(features, size).argmax(dim=1)
    for wanted in (0, 1, max(size)):  # cells per side: for the plain map, one refined stage, and two
        base.HEAT_CELLS = wanted
        grid, stride = model.encoder.refine(features) if wanted else (features[-1], 32)
        cells = head.heat_map(grid, label)
        yield (stride, "areas"), F.interpolate(cells, size=size, mode="bilinear", align_corners=False)
        yield (stride, "pixels"), models.spread_cells(cells, stride, size, model.encoder.first_cell(size, stride))


def score(heat: Tensor, mask: Tensor) -> Tensor:
    """Share of each map's energy inside the mask, and whether its hottest pixel is: (N, 2)."""
    energy = (heat * mask).sum(dim=(1, 2, 3)) / heat.sum(dim=(1, 2, 3)).clamp(min=1e-6)
    hottest = heat.flatten(1).argmax(dim=1, keepdim=True)
    return torch.stack([energy, mask.flatten(1).gather(1, hottest)[:, 0]], dim=1)


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--cache-dir", default="cache")
    options = parser.parse_args(argv)
    model = models.load_model(options.checkpoint)
    data_set = prepare(options.data_dir, model.image_size, options.cache_dir)  # main.py's defaults
    table = data_set.table
    batches = data.Batches(data_set.pixels, table[(table["split"] == "val") & has_mask(table)], 64)
    scores: dict[tuple[int, str], list[Tensor]] = {}
    area = []
    for batch in batches.epoch():
        area += batch["mask"].mean(dim=(1, 2, 3)).tolist()
        for kind, heat in heat_maps(model, batch["image"]):
            scores.setdefault(kind, []).append(score(heat, batch["mask"]))
    print(f"{batches.n_images} validation images, mean share of the mask {np.mean(area):.3f}\n")
    print("| grid | cells as | energy | pointing |\n|---|---|---|---|")
    for (stride, cells), parts in scores.items():
        energy, pointing = torch.cat(parts).mean(dim=0).tolist()
        print(f"| stride {stride} | {cells} | {energy:.3f} | {pointing:.3f} |")


if __name__ == "__main__":
    start(main)
