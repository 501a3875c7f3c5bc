"""Synthetic demo lesions in the folder layout of HAM10000; classes differ in colour, shape, border and texture.

They let the whole program run without real data. Scores on them say nothing about real lesions.
"""

import csv
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

NOTE = "synthetic demo data"  # shown with every number and figure that comes from it
SIGN = "drawn by a program; no image shows a real lesion"  # in the README.txt of every folder of drawn lesions
PREFIX = "synthetic_"  # of the images' names
WIDTH, HEIGHT = 160, 120  # pixels of the demo, in which the sizes below are given
LESIONS = {"MEL": 60, "NV": 150, "BCC": 50, "AKIEC": 45, "BKL": 60, "DF": 40, "VASC": 40}  # lesions per class
IMAGES_PER_LESION = (0.7, 0.2, 0.1)  # share of lesions with 1, 2, 3 images
SKIN_TONES = ((241, 205, 184), (232, 188, 160), (222, 170, 140), (198, 142, 110), (160, 110, 82))  # RGB
SITES = ("abdomen", "back", "chest", "face", "lower extremity", "trunk", "upper extremity")


class Look(NamedTuple):
    """Visual properties of a class, apart from its texture."""

    centre: tuple[int, int, int]  # RGB
    rim: tuple[int, int, int]  # RGB
    border: float  # amplitude of the contour's waves, in radii
    soft: float  # width of the border in pixels
    squeeze: float  # minimum ratio of short to long axis
    radius: tuple[float, float]  # pixels, minimum and maximum


LOOKS = {
    "MEL": Look((58, 36, 32), (112, 72, 54), border=0.15, soft=3, squeeze=0.6, radius=(28, 42)),
    "NV": Look((118, 76, 52), (152, 106, 78), border=0.04, soft=4, squeeze=0.8, radius=(18, 36)),
    "BCC": Look((214, 142, 136), (200, 126, 120), border=0.09, soft=5, squeeze=0.7, radius=(20, 38)),
    "AKIEC": Look((196, 98, 84), (208, 124, 106), border=0.1, soft=7, squeeze=0.6, radius=(24, 40)),
    "BKL": Look((164, 126, 84), (136, 98, 64), border=0.07, soft=1.2, squeeze=0.7, radius=(24, 42)),
    "DF": Look((186, 140, 118), (124, 80, 64), border=0.05, soft=6, squeeze=0.8, radius=(20, 32)),
    "VASC": Look((150, 26, 40), (164, 44, 58), border=0.07, soft=2, squeeze=0.7, radius=(18, 34)),
}


def write_missing(folder: str | Path, seed: int) -> None:
    """As `write_dataset`, unless the folder is there already."""
    if not Path(folder).exists():
        write_dataset(folder, seed)


def write_dataset(folder: str | Path, seed: int = 42, lesions: dict[str, int] = LESIONS) -> None:
    """Write ``GroundTruth.csv``, ``HAM10000_metadata.csv``, ``images/`` and ``masks/`` into a new folder.

    The same seed gives the same files. The folder appears once it is complete.

    Parameters
    ----------
    lesions : number of lesions per class code.

    Raises
    ------
    FileExistsError : `folder` already exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} already exists. Name a new folder for the synthetic data.")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("images", "masks"):
        (partial / name).mkdir(parents=True)
    truth, metadata = [], []
    codes = [code for code, n in lesions.items() for _ in range(n)]
    for number, code in enumerate(tqdm(codes, "Drawing synthetic lesions", unit="lesion", disable=None)):
        rng = np.random.default_rng((seed, number))
        person = (10 * int(rng.integers(3, 9)), str(rng.choice(["female", "male"])), str(rng.choice(SITES)))
        tone = np.array(SKIN_TONES[rng.integers(len(SKIN_TONES))], float)
        shape = draw_shape(code, rng)
        for _ in range(1 + rng.choice(len(IMAGES_PER_LESION), p=IMAGES_PER_LESION)):
            name = f"{PREFIX}{len(truth):05}"
            image, mask = draw_lesion(code, shape, tone, rng)
            Image.fromarray(image).save(partial / "images" / f"{name}.jpg", quality=92)
            Image.fromarray(mask).save(partial / "masks" / f"{name}_segmentation.png")
            truth.append([name, *(f"{float(code == other)}" for other in LOOKS)])
            metadata.append([f"LESION_{number:05}", name, code.lower(), "synthetic", *person])
    _write_csv(partial / "GroundTruth.csv", ["image", *LOOKS], truth)
    columns = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    _write_csv(partial / "HAM10000_metadata.csv", columns, metadata)
    (partial / "README.txt").write_text(f"Synthetic demo data, {SIGN}.\n")
    partial.rename(folder)


def shows_drawing(path: str | Path) -> bool:
    """Whether an image lies in a folder of drawn lesions, as the README.txt of that folder, or one above, says."""
    signs = (place / "README.txt" for place in Path(path).absolute().parents[:3])
    return any(SIGN in sign.read_text(encoding="utf-8", errors="replace") for sign in signs if sign.is_file())


def note_of(folder: str | Path) -> str:
    """`NOTE` for a data folder of drawn lesions, "" for another."""
    return NOTE if shows_drawing(Path(folder) / "images") else ""


def draw_shape(code: str, rng: np.random.Generator) -> dict:
    """Draw the constant properties of a lesion: size, contour, and the seed of its texture."""
    waves = np.arange(2, 9)
    return {
        "radius": rng.uniform(*LOOKS[code].radius),
        "squeeze": rng.uniform(LOOKS[code].squeeze, 1),
        "amplitudes": LOOKS[code].border * rng.normal(size=len(waves)) / np.sqrt(waves),
        "phases": rng.uniform(0, 2 * np.pi, len(waves)),
        "texture": int(rng.integers(2**31)),
        "shade": rng.normal(0, 9) + rng.normal(0, 3, 3),
    }


def draw_lesion(
    code: str, shape: dict, tone: np.ndarray, rng: np.random.Generator, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image (height, width, 3) uint8 of a size (width, height), and its mask (height, width) in {0, 255}."""
    distance, x, y = _lesion_coordinates(shape, rng, size)
    cover = 1 / (1 + np.exp(np.clip(2 * distance / LOOKS[code].soft, -30, 30)))[..., None]  # 1 inside, 0 outside
    skin = tone + 9 * _noise(rng, 5, size)[..., None] + 5 * _noise(rng, 40, size)[..., None]
    lesion = _texture(code, shape, x, y)
    image = skin * (1 - cover) + lesion * cover
    image = _light(image, rng)
    image = _hairs(image, rng)
    image += rng.normal(0, 2.5, image.shape)
    return image.clip(0, 255).astype(np.uint8), (distance <= 0).astype(np.uint8) * 255


def _lesion_coordinates(shape: dict, rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Signed distance to the contour (negative inside, in about pixels), and the lesion's own x and y in radii."""
    rotation, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.15)
    shift, (width, height) = rng.uniform(-10, 10, 2), size
    v, u = np.mgrid[:height, :width] * (HEIGHT / height)
    u, v = u - width * HEIGHT / height / 2 - shift[0], v - HEIGHT / 2 - shift[1]
    x, y = u * np.cos(rotation) + v * np.sin(rotation), v * np.cos(rotation) - u * np.sin(rotation)
    y = y / shape["squeeze"]
    angle, length = np.arctan2(y, x), np.hypot(x, y)
    waves = np.arange(2, 2 + len(shape["amplitudes"]))[:, None, None]
    wobble = (shape["amplitudes"][:, None, None] * np.cos(waves * angle + shape["phases"][:, None, None])).sum(axis=0)
    radius = shape["radius"] * zoom * (1 + wobble)
    return length - radius, x / (shape["radius"] * zoom), y / (shape["radius"] * zoom)


def _texture(code: str, shape: dict, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The lesion's own colours (HEIGHT, WIDTH, 3), which rotate with it."""
    rng = np.random.default_rng(shape["texture"])
    centre, rim = (np.array(colour, float) + shape["shade"] for colour in (LOOKS[code].centre, LOOKS[code].rim))
    depth = np.clip(np.hypot(x, y), 0, 1.3)[..., None]
    colour = centre * (1 - depth**2 / 1.69) + rim * depth**2 / 1.69
    if code == "NV":  # pigment network
        bent_x, bent_y = x + 0.06 * np.sin(5 * y), y + 0.06 * np.sin(6 * x)
        colour = colour - 12 * (np.cos(15 * bent_x) * np.cos(15 * bent_y))[..., None] * (1.2 - depth)
    elif code == "MEL":  # blotches of black, blue-gray and red, on one side
        for blotch in ((24, 18, 22), (92, 104, 128), (150, 58, 50)):
            colour = _spots(colour, x, y, rng, 2, (0.2, 0.45), blotch, 0.75)
        colour -= 10 * (np.cos(11 * x + 2 * np.sin(4 * y)) > 0.4)[..., None]
    elif code == "BCC":  # branching vessels and blue-gray dots
        for _ in range(4):
            bend, start, width = rng.uniform(2, 5), rng.uniform(-0.8, 0.8), 0.025
            line = np.abs(y - start - 0.25 * np.sin(bend * x + start * 9)) < width
            colour = np.where(line[..., None], (176, 44, 50), colour)
        colour = _spots(colour, x, y, rng, 5, (0.06, 0.12), (98, 104, 128), 0.9)
    elif code == "AKIEC":  # scale: whitish flakes on red
        colour = _spots(colour, x, y, rng, 26, (0.05, 0.14), (238, 216, 188), 0.75)
    elif code == "BKL":  # milia and plugs
        colour = _spots(colour, x, y, rng, 14, (0.05, 0.09), (240, 226, 180), 0.9)
        colour = _spots(colour, x, y, rng, 12, (0.05, 0.1), (82, 54, 34), 0.9)
    elif code == "DF":  # white scar in the middle
        colour = _spots(colour, x * 2, y * 2, rng, 3, (0.5, 0.8), (244, 230, 222), 0.7)
    elif code == "VASC":  # lacunae: round red to purple lakes
        for lake in ((196, 34, 46), (110, 18, 52), (84, 14, 40)):
            colour = _spots(colour, x, y, rng, 4, (0.14, 0.26), lake, 0.9)
    return colour


def _spots(colour, x, y, rng, n: int, radii: tuple[float, float], paint, opacity: float) -> np.ndarray:
    """Soft discs at random places in the unit circle."""
    for _ in range(n):
        r, phi, size = np.sqrt(rng.uniform(0, 0.8)), rng.uniform(0, 2 * np.pi), rng.uniform(*radii)
        away = np.hypot(x - r * np.cos(phi), y - r * np.sin(phi)) / size
        cover = opacity / (1 + np.exp(np.clip(10 * (away - 1), -30, 30)))[..., None]
        colour = colour * (1 - cover) + np.array(paint, float) * cover
    return colour


def _noise(rng: np.random.Generator, cells: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth noise of unit variance with about `cells` bumps across."""
    grid = Image.fromarray(rng.normal(size=(max(cells * size[1] // size[0], 2), cells)).astype(np.float32))
    return np.asarray(grid.resize(size, Image.Resampling.BICUBIC))


def _light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply exposure, white balance, and the dark corners of a dermatoscope."""
    height, width = image.shape[:2]
    v, u = np.mgrid[:height, :width]
    from_centre = np.hypot(u - width / 2, v - height / 2) / np.hypot(width / 2, height / 2)
    vignette = 1 - rng.uniform(0.05, 0.45) * from_centre**3
    return image * vignette[..., None] * rng.uniform(0.9, 1.08) * rng.normal(1, 0.02, 3)


def _hairs(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw thin dark curves across two images in five."""
    n_hairs = int(rng.integers(2, 9)) if rng.random() < 0.4 else 0
    height, width = image.shape[:2]
    layer = Image.new("L", (2 * width, 2 * height))
    for _ in range(n_hairs):
        start, end = (rng.uniform((0, 0), (2 * width, 2 * height)) for _ in range(2))
        pull = (start + end) / 2 + rng.normal(0, height / 3, 2)
        t = np.linspace(0, 1, 20)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * pull + t**2 * end
        ImageDraw.Draw(layer).line([tuple(point) for point in curve], fill=200, width=int(rng.integers(1, 4)))
    cover = np.asarray(layer.resize((width, height), Image.Resampling.BILINEAR))[..., None] / 255
    return image * (1 - cover) + np.array((46, 34, 28)) * cover


def _write_csv(path: Path, columns: list[str], rows: list[list]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
