"""Does a model detect images that are unlike its training images?

    python benchmarks/unlike.py --data-dir data --photos PHOTOGRAPHS
    python benchmarks/unlike.py --data-dir data --photos PHOTOGRAPHS --checkpoint pretrained/ham10000_resnet18.pth

Compares `encoders.unlike.Unlike` with Mahalanobis distances from class means on the deepest feature map (Lee et al.
2018, arXiv:1807.03888), their relative form (Ren et al. 2021, arXiv:2106.09022), the 20th nearest neighbour (Sun et al.
2022, arXiv:2204.06507), energy (Liu et al. 2020, arXiv:2010.03759) and the top-1 probability, all on the same images
and network. Each method's threshold is the 95th percentile of the validation images. Prints a table with the share
flagged and the AUROC against the test images.

PHOTOGRAPHS are folders of photographs and drawings that show no skin; those smaller than 100 pixels are skipped. Each
file is used whole and as nine random crops. The images in installed Python packages are always used. Bare skin is
cropped from HAM10000 images outside their masks; some crops show hairs, rulers or a second lesion.
"""

import argparse
import hashlib
import io
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

import data
import models
from benchmarks import start
from dataset import synthetic
from dataset.prepare import prepare
from encoders.unlike import Unlike, statistics
from measure import alarms

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
N_PARTS = 10  # of a photograph: itself and random parts
N_DRAWN = 60  # images of each drawn kind
N_SKIN, N_TEST = 600, 400  # images at most
N_NEIGHBOURS = 20
CHANGES = {  # of test images
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 33)),
    "dark": lambda image: ImageEnhance.Brightness(image).enhance(0.25),
    "inverted": ImageOps.invert,
    "rotated 45°": lambda image: image.rotate(45),
    "gray": lambda image: image.convert("L").convert("RGB"),
}
Score = Callable[[dict[str, np.ndarray]], np.ndarray]


def main() -> None:
    """Evaluate all methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--photos", type=Path, nargs="+", default=[])
    parser.add_argument("--checkpoint", type=Path, default=Path(__file__).parents[1] / "pretrained" / "ham10000.pth")
    parser.add_argument("--cache-dir", default="cache")
    options = parser.parse_args()
    model = models.load_model(options.checkpoint)
    data_set = prepare(options.data_dir, model.image_size, options.cache_dir, say=lambda *_: None)
    parts = {part: data_set.table[data_set.table["split"] == part] for part in ("train", "val", "test")}
    outputs = {part: outputs_of_rows(model, data_set.pixels, rows) for part, rows in parts.items()}
    sets = {name: outputs_of(model, images) for name, images in image_sets(options.photos, parts, model.image_size)}
    print(f"{options.checkpoint.name}; test images {len(parts['test']):,}; flagged / AUROC")
    sizes = {name: len(features["logits"]) for name, features in sets.items()}
    print("| method | false alarms |", " | ".join(f"{name} ({n:,})" for name, n in sizes.items()), "|")
    for method, score in methods(outputs).items():
        limit, test = np.quantile(score(outputs["val"]), 0.95), score(outputs["test"])
        cells = [f"{np.mean(test > limit):.3f}"]
        for features in sets.values():
            values = score(features)
            truth = np.repeat([0, 1], [len(test), len(values)])
            cells.append(f"{np.mean(values > limit):.2f} / {roc_auc_score(truth, np.append(test, values)):.3f}")
        print(f"| {method} |", " | ".join(cells), "|", flush=True)


@torch.inference_mode()
def outputs_of_batch(model: models.Model, image: torch.Tensor) -> dict[str, torch.Tensor]:
    maps = model.encoder(image)
    logits = model.heads["label"](maps, image.shape[-2:])
    return {"statistics": statistics(maps), "deepest": maps[-1].mean(dim=(2, 3)), "logits": logits}


def joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def outputs_of_rows(model: models.Model, pixels, rows) -> dict[str, np.ndarray]:
    batches = data.Batches(pixels, rows, 64)
    return joined([outputs_of_batch(model, batch["image"]) | {"label": batch["label"]} for batch in batches])


def outputs_of(model: models.Model, images: list[np.ndarray]) -> dict[str, np.ndarray]:
    starts = range(0, len(images), 64)
    batches = [torch.from_numpy(np.stack(images[start : start + 64])) for start in starts]
    return joined([outputs_of_batch(model, data.normalise(batch)) for batch in batches])


def methods(outputs: dict[str, dict[str, np.ndarray]]) -> dict[str, Score]:
    """The methods' scores, higher for an unlike image."""
    train = outputs["train"]
    unlike = Unlike(**alarms.fit_statistics(train["statistics"], outputs["val"]["statistics"]))
    by_class, overall = (mahalanobis(train["deepest"], groups) for groups in (train["label"], 0 * train["label"]))
    bank = train["deepest"] / np.linalg.norm(train["deepest"], axis=1, keepdims=True)

    def neighbour(features: dict[str, np.ndarray]) -> np.ndarray:
        near = features["deepest"] / np.linalg.norm(features["deepest"], axis=1, keepdims=True) @ bank.T
        return -np.partition(near, -N_NEIGHBOURS, axis=1)[:, -N_NEIGHBOURS]

    logits = lambda features: torch.from_numpy(features["logits"]).double()  # noqa: E731
    return {
        "Unlike (shallow maps)": lambda features: unlike.distance(torch.from_numpy(features["statistics"])).numpy(),
        "Mahalanobis, deepest map": lambda features: by_class(features["deepest"]),
        "relative Mahalanobis": lambda features: by_class(features["deepest"]) - overall(features["deepest"]),
        "20th nearest neighbour": neighbour,
        "energy": lambda features: -logits(features).logsumexp(dim=1).numpy(),
        "1 - top-1 probability": lambda features: 1 - logits(features).softmax(dim=1).amax(dim=1).numpy(),
    }


def mahalanobis(train: np.ndarray, groups: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Squared distance to the nearest of the groups' means, with one covariance."""
    means = {group: train[groups == group].mean(axis=0) for group in np.unique(groups)}
    covariance, _ = ledoit_wolf(train - np.stack([means[group] for group in groups]))
    white = np.linalg.cholesky(np.linalg.inv(covariance))
    return lambda values: np.min([(((values - mean) @ white) ** 2).sum(axis=1) for mean in means.values()], axis=0)


def image_sets(folders: list[Path], parts: dict, size: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Kinds of images that are not dermoscopic, or altered dermoscopic images; each (S, S, 3) uint8."""
    rng = np.random.default_rng(0)

    def squared(images) -> list[np.ndarray]:
        return [np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)) for image in images]

    files = photographs([*folders, Path(np.__file__).parents[1]])
    print(f"{len(files)} different photographs and drawings")
    yield "photographs", squared(part for image in files for part in parts_of(image, rng))
    yield "pages", squared(page(rng) for _ in range(N_DRAWN))
    yield "charts", squared(chart(rng, number) for number in range(N_DRAWN))
    noise = [rng.integers(0, 256, (n, n, 3), np.uint8) for n in (4, 8, 16, 32, size) for _ in range(N_DRAWN // 3)]
    yield "noise", squared(map(Image.fromarray, noise))
    yield "colours", squared(Image.new("RGB", (9, 9), tuple(rng.integers(0, 256, 3).tolist())) for _ in range(N_DRAWN))
    yield "bare skin", squared(itertools.islice(bare_skin(parts, rng), N_SKIN))
    with tempfile.TemporaryDirectory() as place:
        synthetic.write_dataset(Path(place) / "demo", seed=0, lesions=dict.fromkeys(synthetic.LESIONS, 15))
        drawn = sorted((Path(place) / "demo" / "images").iterdir())
        yield "demo", squared(map(Image.open, drawn))
    images = [Image.open(path).convert("RGB") for path in parts["test"]["image_path"][:N_TEST]]
    for name, change in CHANGES.items():
        yield name, squared(map(change, images))


def photographs(folders: list[Path]) -> list[Image.Image]:
    """The distinct images in some folders, each reduced to at most 800 pixels in width and height."""
    distinct: dict[str, Image.Image] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        try:
            image = Image.open(path).convert("RGB")
        except OSError:
            continue
        if min(image.size) >= 100:
            image.thumbnail((800, 800))
            distinct.setdefault(hashlib.md5(image.resize((8, 8)).tobytes(), usedforsecurity=False).hexdigest(), image)
    return list(distinct.values())


def parts_of(image: Image.Image, rng: np.random.Generator) -> Iterator[Image.Image]:
    yield image
    for _ in range(N_PARTS - 1):
        width, height = (round(side * rng.uniform(0.3, 0.8)) for side in image.size)
        left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
        yield image.crop((left, top, left + width, top + height))


def page(rng: np.random.Generator) -> Image.Image:
    """Bars like lines of text on light paper."""
    image = Image.new("RGB", (600, 450), tuple(rng.integers(230, 256, 3).tolist()))
    draw, step = ImageDraw.Draw(image), int(rng.integers(12, 22))
    for y in range(20, 430, step):
        x = 20
        while x < 560:
            width = int(rng.integers(8, 50))
            draw.rectangle((x, y, x + width, y + step // 2), fill=(int(rng.integers(0, 90)),) * 3)
            x += width + 6
    return image


def chart(rng: np.random.Generator, number: int) -> Image.Image:
    figure = Figure(figsize=(4, 3), dpi=80)
    axes = figure.subplots()
    if number % 3 == 0:
        axes.plot(rng.standard_normal((30, 3)).cumsum(axis=0))
    elif number % 3 == 1:
        axes.bar(range(8), rng.random(8))
    else:
        axes.imshow(rng.random((12, 12)), cmap=("viridis", "magma", "coolwarm")[number % 9 // 3])
    content = io.BytesIO()
    figure.savefig(content)
    return Image.open(content)


def bare_skin(parts: dict, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Corners of images, as large as possible, without a pixel of the mask."""
    rows = parts["test"].iloc[rng.permutation(len(parts["test"]))]
    for image_path, mask_path in zip(rows["image_path"], rows["mask_path"]):
        image, mask = Image.open(image_path).convert("RGB"), Image.open(mask_path).convert("L")
        mask = np.asarray(mask.resize(image.size, Image.Resampling.NEAREST)) > 0
        for share in (0.6, 0.53, 0.47, 0.4):
            side = round(share * min(image.size))
            corners = itertools.product((0, image.width - side), (0, image.height - side))
            free = [(x, y) for x, y in corners if not mask[y : y + side, x : x + side].any()]
            if free:
                x, y = free[0]
                skin = image.crop((x, y, x + side, y + side))
                if np.asarray(skin).mean() > 60:  # no black corner
                    yield skin
                break


if __name__ == "__main__":
    start(main)
