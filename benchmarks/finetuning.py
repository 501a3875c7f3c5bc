"""A small set of two diagnoses, learned from scratch and from a model of other lesions.

    python benchmarks/finetuning.py --data-dir data --output-dir finetuning

Half of HAM10000's lesions train the model to start from. The small set has one image each of up to 250 melanomas and
750 nevi of the other half.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd

import main
from benchmarks import start
from dataset.layout import names_in

FLAGS = "--image-size 64 --pretrained no --tasks classification"
WAYS = {  # flags of main.py; START is the model to start from
    "scratch": "--recipe strong",
    "all": "--recipe finetune --start-from START",
    "all, strong": "--recipe strong --start-from START",
    "slow encoder, strong": "--recipe strong --start-from START --encoder-lr-scale 0.1",
    "last stage": "--recipe finetune --start-from START --freeze early-stages",
    "last stage, strong": "--recipe strong --start-from START --freeze early-stages",
    "heads, strong": "--recipe strong --start-from START --freeze encoder",
}


def run() -> None:
    """Make both data folders, train, and print the commands' exit codes; the reports are in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--output-dir", type=Path, default=Path("finetuning"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    folder = options.output_dir
    make_folders(options.data_dir, folder)
    train(folder, "other", "start", "--recipe strong", 1)
    weights = folder / "start" / "best_classification_model.pth"
    for seed in options.seeds:
        for name, flags in WAYS.items():
            train(folder, "small", f"{name.replace(', ', '-').replace(' ', '-')}-{seed}", flags, seed, weights)


def train(folder: Path, data: str, name: str, flags: str, seed: int, weights: Path = Path()) -> None:
    places = ["--data-dir", folder / data, "--output-dir", folder / name, "--cache-dir", folder / "cache"]
    flags = f"{FLAGS} {flags} --seed {seed} --resume".split()
    if main.main([str(weights) if word == "START" else str(word) for word in [*places, *flags]]):
        sys.exit(f"{name} failed.")


def make_folders(source: Path, folder: Path) -> None:
    """Write the tables of both sets, with links to the images."""
    names_in(source)  # refuses a missing folder
    truth, details = (pd.read_csv(source / name) for name in ("GroundTruth.csv", "HAM10000_metadata.csv"))
    details = details.set_index("image_id").loc[truth["image"]].reset_index()
    rng = np.random.default_rng(0)
    lesions = rng.permutation(details["lesion_id"].unique().astype(object))
    is_other = details["lesion_id"].isin(lesions[: len(lesions) // 2])
    rest = details[~is_other].drop_duplicates("lesion_id")
    nevi = rng.permutation(rest.loc[rest["dx"] == "nv", "image_id"].to_numpy(object))[:750]
    small = [*rest.loc[rest["dx"] == "mel", "image_id"][:250], *nevi]
    for name, chosen, columns in (
        ("other", is_other, list(truth)),
        ("small", truth["image"].isin(small), ["image", "MEL", "NV"]),
    ):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        truth.loc[chosen, columns].to_csv(place / "GroundTruth.csv", index=False)
        details[chosen].to_csv(place / "HAM10000_metadata.csv", index=False)
        if not (place / "images").exists():
            (place / "images").symlink_to((source / "images").resolve(), target_is_directory=True)


if __name__ == "__main__":
    start(run)
