"""Where leakage.NEAR comes from: how similar fingerprints of the same and of different pictures are.

    python benchmarks/near_duplicates.py --data-dir data

(a) images against a copy of themselves that is cropped, recoloured and recompressed a little; (b) each image against
the most similar of its candidates that is of another lesion. Prints quantiles of both, and the shares from some
thresholds on, as Markdown.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance

from dataset import leakage
from dataset.cache import decode_table
from dataset.images import THUMBNAIL, read_image
from dataset.table import read_table, usable

SIZE = 32  # pixels that images are decoded to, which nothing here depends on
N_COPIES = 500  # images that are compared with their altered copies
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
    some = table.sample(min(N_COPIES, len(table)), random_state=0)
    copies = np.stack([altered(path, i) for i, path in enumerate(some["image_path"])])
    print("| pairs | n | " + " | ".join(f"{q:.0%}" for q in QUANTILES) + " | ", end="")
    print(" | ".join(f"≥ {t:.2f}" for t in THRESHOLDS) + " |\n" + "|---" * (2 + len(QUANTILES + THRESHOLDS)) + "|")
    print(row("an image and its altered copy", to_copies(thumbnails[some["row"].to_numpy()], copies)))
    print(row("an image and the nearest of another lesion", to_other_lesions(table, thumbnails)))
    found = share_found(some, copies, table, thumbnails)
    print(f"\nOf the copies, {found:.1%} are found among all {len(table):,} images.")


def altered(path: str, seed: int) -> np.ndarray:
    """The thumbnail of a picture cropped by up to 4 % at each side, recoloured and recompressed."""
    rng = np.random.default_rng(seed)
    with Image.open(path) as file:
        picture = file.convert("RGB")
    left, top, right, bottom = rng.uniform(0, 0.04, 4) * np.tile(picture.size, 2)
    picture = picture.crop((round(left), round(top), round(picture.width - right), round(picture.height - bottom)))
    for enhance, change in ((ImageEnhance.Color, 0.2), (ImageEnhance.Brightness, 0.1), (ImageEnhance.Contrast, 0.1)):
        picture = enhance(picture).enhance(rng.uniform(1 - change, 1 + change))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(rng.integers(50, 91)))
    return np.asarray(read_image(buffer.getvalue(), THUMBNAIL))


def to_copies(originals: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """The similarity (N,) of each image and its copy."""
    pairs = (leakage.near_duplicates(np.stack(pair), np.arange(2), threshold=-1) for pair in zip(originals, copies))
    return np.array([similarity for ((_, _, similarity),) in pairs])


def to_other_lesions(table: pd.DataFrame, thumbnails) -> np.ndarray:
    """For each image that has one, the highest similarity to a candidate of another lesion."""
    lesion = table["lesion_id"].to_numpy()
    found = leakage.near_duplicates(thumbnails, table["row"].to_numpy(), threshold=-1)
    pairs = pd.DataFrame([pair for pair in found if lesion[pair[0]] != lesion[pair[1]]], columns=["a", "b", "value"])
    both = pd.concat([pairs, pairs.rename(columns={"a": "b", "b": "a"})])
    return both.groupby("a")["value"].max().to_numpy()


def share_found(some: pd.DataFrame, copies: np.ndarray, table: pd.DataFrame, thumbnails) -> float:
    """How many of the copies `leakage.overlap` calls the same picture as one of all images."""
    unknown = pd.DataFrame({"image": "copy of " + some["image"], "lesion_id": "", "digest": "", "lesion_known": False})
    reason = leakage.overlap(unknown.assign(row=range(len(some))), copies, table, thumbnails)
    return (reason == "same picture").mean()


def row(name: str, values: np.ndarray) -> str:
    """A line of the table."""
    quantiles = [f"{value:.2f}" for value in np.quantile(values, QUANTILES)]
    shares = [f"{(values >= threshold).mean():.2%}" for threshold in THRESHOLDS]
    return f"| {' | '.join([name, f'{len(values):,}', *quantiles, *shares])} |"


if __name__ == "__main__":
    main()
