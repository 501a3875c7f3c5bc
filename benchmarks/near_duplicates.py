"""The basis of the constants of dataset/fingerprints.py: how similar the same and different images are.

    python benchmarks/near_duplicates.py --data-dir data

(a) Images against a slightly cropped, recoloured and recompressed copy; (b) each image against its most similar
candidate of another lesion. Prints quantiles of both, and the shares at or above some thresholds, as Markdown. Then the
pairs that are found if each image is looked up among fewer images, and those that small fingerprints leave.
"""

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageEnhance

from benchmarks import start
from dataset import fingerprints, leakage
from dataset.cache import decode_table
from dataset.images import THUMBNAIL, read_image
from dataset.table import read_table, usable

SIZE = 32  # pixels of decoded images; no result depends on it
N_COPIES = 500  # images compared with their altered copies
SEARCHED = (1024, 2048, 4096, 8192)  # images among which each is looked up
POSSIBLE = (0.30, 0.32, 0.36, 0.40)  # correlations of small fingerprints
QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
THRESHOLDS = (0.40, 0.44, 0.50)


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--cache-dir", default=tempfile.gettempdir() + "/near_duplicates_cache")
    options = parser.parse_args(argv)
    table, pixels = decode_table(read_table(options.data_dir), options.data_dir, SIZE, options.cache_dir)
    thumbnails = pixels.thumbnails
    table = usable(table).reset_index(drop=True)
    sample = table.sample(min(N_COPIES, len(table)), random_state=0)
    copies = np.stack([altered(path, i) for i, path in enumerate(sample["image_path"])])
    print("| pairs | n | " + " | ".join(f"{q:.0%}" for q in QUANTILES) + " | ", end="")
    print(" | ".join(f"≥ {t:.2f}" for t in THRESHOLDS) + " |\n" + "|---" * (2 + len(QUANTILES + THRESHOLDS)) + "|")
    print(row("an image and its altered copy", to_copies(thumbnails[sample["row"].to_numpy()], copies)))
    print(row("an image and the nearest of another lesion", to_other_lesions(table, thumbnails)))
    share = share_found(sample, copies, table, thumbnails)
    print(f"\n{share:.1%} of the copies are found among all {len(table):,} images.\n")
    print_search(fingerprints.Fingerprints(thumbnails, table["row"]))


def altered(path: str, seed: int) -> np.ndarray:
    """The thumbnail of an image cropped by up to 4 % at each side, recoloured and recompressed."""
    rng = np.random.default_rng(seed)
    with Image.open(path) as file:
        image = file.convert("RGB")
    left, top, right, bottom = rng.uniform(0, 0.04, 4) * np.tile(image.size, 2)
    image = image.crop((round(left), round(top), round(image.width - right), round(image.height - bottom)))
    for enhance, change in ((ImageEnhance.Color, 0.2), (ImageEnhance.Brightness, 0.1), (ImageEnhance.Contrast, 0.1)):
        image = enhance(image).enhance(rng.uniform(1 - change, 1 + change))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(50, 91)))
    return np.asarray(read_image(buffer.getvalue(), THUMBNAIL))


def to_copies(originals: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """The similarity (N,) of each image and its copy."""
    pairs = (np.stack(pair) for pair in zip(originals, copies))
    return np.concatenate([fingerprints.near_duplicates(pair, np.arange(2), threshold=-1)[1] for pair in pairs])


def to_other_lesions(table: pd.DataFrame, thumbnails) -> np.ndarray:
    """For each image that has one, the highest similarity to a candidate of another lesion."""
    lesion = table["lesion_id"].to_numpy()
    pairs, similarity = fingerprints.near_duplicates(thumbnails, table["row"].to_numpy(), threshold=-1)
    a, b = pairs.T
    pairs = pd.DataFrame({"a": a, "b": b, "value": similarity})[lesion[a] != lesion[b]]
    both = pd.concat([pairs, pairs.rename(columns={"a": "b", "b": "a"})])
    return both.groupby("a")["value"].max().to_numpy()


def share_found(sample: pd.DataFrame, copies: np.ndarray, table: pd.DataFrame, thumbnails) -> float:
    """The share of the copies that `leakage.overlap` recognises among all images."""
    copied = pd.DataFrame({"image": "copy of " + sample["image"], "lesion_id": "", "digest": "", "lesion_known": False})
    reason = leakage.overlap(copied.assign(row=range(len(sample))), copies, table, thumbnails)
    return (reason == "same picture").mean()


def print_search(prints: fingerprints.Fingerprints) -> None:
    """What the search finds and costs by its two constants, as Markdown."""
    layout, usual = prints.layout, fingerprints.N_SEARCHED
    print("| images searched | near duplicates found | seconds for the candidates |\n|---|---|---|")
    for fingerprints.N_SEARCHED in (*SEARCHED, usual):
        started = time.perf_counter()
        candidates = fingerprints.candidates_between(layout, layout, same=True)
        seconds = time.perf_counter() - started
        pairs, _ = fingerprints.near_among(prints, prints, candidates)
        print(f"| {fingerprints.N_SEARCHED:,} | {len(pairs):,} | {seconds:.1f} |")
    small = fingerprints.small_correlation(prints, prints, candidates)
    is_near = torch.isin(candidates @ torch.tensor([len(prints), 1]), torch.from_numpy(pairs @ [len(prints), 1]))
    lowest = f"{small[is_near].min():.2f}" if len(pairs) else "there are none"
    print(f"\nLowest small correlation of near duplicates: {lowest}\n\n| small | left |\n|---|---|")
    for threshold in POSSIBLE:
        print(f"| ≥ {threshold:.2f} | {(small >= threshold).float().mean():.1%} |")


def row(name: str, values: np.ndarray) -> str:
    """A row of the table."""
    quantiles = [f"{value:.2f}" for value in np.quantile(values, QUANTILES)]
    shares = [f"{(values >= threshold).mean():.2%}" for threshold in THRESHOLDS]
    return f"| {' | '.join([name, f'{len(values):,}', *quantiles, *shares])} |"


if __name__ == "__main__":
    start(main)
