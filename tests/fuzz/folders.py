"""Whole data folders: random trees of the layouts of docs/data.md with random damage, whose truth the maker knows.

A folder may be refused in words. What is read must be true of every image: its class, its mask and its part; and a
folder without damage is read whole.
"""

import io
import random
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.choice import Choice
from dataset.images import decode_row
from dataset.layout import find
from dataset.ownsplit import own_split
from dataset.table import LEFT_OUT, read_layout

from . import refused_well

WORDS = {
    "MEL": ("mel", "Melanoma", "MELANOMA", "Melanoma, NOS", "melanoma"),
    "NV": ("nv", "Nevus", "naevus", "Melanocytic nevi", "NEV"),
    "BCC": ("bcc", "Basal cell carcinoma", "basal_cell_carcinoma"),
    "benign": ("benign", "Benign", "BENIGN"),
    "malignant": ("malignant", "Malignant"),
}
SETS = (("MEL", "NV"), ("MEL", "NV", "BCC"), ("benign", "malignant"))
NOTHING = ("unknown", "NA", "nan", "?", "n/a", "-1", "None", "indeterminate")
PARTS = {
    "train": ("train", "Training", "TRAIN"),
    "val": ("val", "Validation", "valid"),
    "test": ("test", "Test_v2", "testing"),
}
SUFFIXES = (".jpg", ".png", ".bmp", ".JPG", ".jpeg", ".tif")
IMAGE_FOLDERS = ("images", "imgs", "Photos", "input", "HAM10000_images_part_1")
MASK_FOLDERS = ("masks", "gt", "Segmentations", "GroundTruth", "annotations")
MASK_NAMES = ("{}_segmentation", "{}_mask", "{}", "{}_SEG", "{}_gt", "mask_{}")


class Truth(NamedTuple):
    """What is true of an image."""

    label: str  # code, "" for none
    mask: str  # path, "" for none
    part: str


class Maker:
    """A folder that grows, and the truth of each of its images by path."""

    def __init__(self, rng: random.Random, place: Path) -> None:
        self.rng, self.place, self.truth, self.n = rng, place, {}, 0
        self.is_damaged = False
        self.classes = rng.choice(SETS)
        self.words = {code: rng.choice(WORDS[code]) for code in self.classes}

    def image(self, folder: str, name: str, label: str = "", part: str = "", suffix: str = "") -> Path:
        """A photograph, unlike any other."""
        self.n += 1
        path = self.save(f"{folder or '.'}/{name}{suffix or self.rng.choice(SUFFIXES)}", photo(self.n % 40, self.n))
        self.truth[str(path)] = Truth(label, "", part)
        return path

    def mask(self, image: Path, folder: str, name: str) -> None:
        """A mask of an image."""
        path = self.save(f"{folder or '.'}/{name.format(image.stem)}.png", drawn(self.rng.randrange(10)))
        self.truth[str(image)] = self.truth[str(image)]._replace(mask=str(path))

    def save(self, name: str, content: bytes) -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def table(self, name: str, header: list[str], rows: list[list[str]]) -> None:
        """A table in some delimiter and encoding."""
        delimiter = self.rng.choice(",,;\t")
        quoted = lambda cell: f'"{cell}"' if delimiter in cell else cell  # noqa: E731
        text = "\n".join(delimiter.join(map(quoted, row)) for row in [header, *rows]) + "\n"
        self.save(name, text.encode(self.rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"))))

    def spelled(self, path: Path) -> str:
        """An image's name as people write it into tables."""
        name = str(path.relative_to(self.place))
        return self.rng.choice(
            (path.stem, path.stem, path.name, name, f"./{path.name}", name.replace("/", "\\"), path.stem.upper())
        )


@cache
def photo(kind: int, number: int) -> bytes:
    rng = np.random.default_rng(number)
    values = rng.integers(0, 256, (9, 12, 3), np.uint8)
    values[..., 0] |= 128
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def drawn(kind: int) -> bytes:
    values = np.zeros((9, 12), np.uint8)
    values[2:7, 2 : 5 + kind % 6] = (1, 255)[kind % 2]
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def one(seed: int, place: Path) -> None:
    rng = random.Random(seed)
    maker = Maker(rng, place / "data")
    layout = rng.choice(LAYOUTS)
    layout(maker)
    done = [damage.__name__ for damage in rng.sample(DAMAGES, rng.choice((0, 0, 1, 1, 2, 3))) if damage(maker)]
    about = f"{layout.__name__}, {', '.join(done) or 'no damage'}"
    try:
        found = find(maker.place)
        table, _ = read_layout(found, Choice({}))
        parts = own_split(found).parts
    except Exception as error:
        assert refused_well(error, maker.place, *(path.name for path in maker.place.rglob("*"))), f"{about}: {error!r}"
        assert maker.is_damaged, f"{about}: refused: {error}"
        return
    compare(maker, table, parts, about)


def compare(maker: Maker, table, parts, about: str) -> None:
    """Raises AssertionError if something is read that is not true, or an image of a sound folder is not."""
    seen = set()
    for position, row in table.iterrows():
        path, where = row["image_path"], f"{about}: {row['image']} ({row['reason']})"
        if row["status"] == LEFT_OUT:
            continue
        assert path in maker.truth, f"{where}: {path} is no image"
        truth = maker.truth[path]
        seen.add(path)
        label = row["label"] if isinstance(row["label"], str) else ""
        assert label == truth.label, f"{where}: {path} is {truth.label!r}, read as {label!r}"
        if row["mask_path"] not in ("", truth.mask):
            refused = decode_row(path, row["mask_path"], 16)[2]["mask_error"]
            assert refused, f"{where}: the mask of {path} is {truth.mask}, not {row['mask_path']}"
        assert parts is None or parts[position] == truth.part, (
            f"{where}: {path} is of {truth.part}, not {parts[position]}"
        )
        if not maker.is_damaged:
            assert row["mask_path"] == truth.mask, f"{where}: the mask {truth.mask} is lost"
            assert parts is not None or not truth.part, f"{where}: the part {truth.part} is lost"
    usable = {path for path, truth in maker.truth.items() if truth.label or truth.mask}
    assert maker.is_damaged or usable <= seen, f"{about}: not read: {sorted(usable - seen)[:3]}"


# Layouts


def one_table(maker: Maker) -> None:
    """Images, and a table of one of many kinds, one column of which may name parts."""
    rng, folder = maker.rng, maker.rng.choice((*IMAGE_FOLDERS, "a/deep/place", ""))
    with_masks, with_parts, is_one_hot = rng.random() < 0.5, rng.random() < 0.3, rng.random() < 0.4
    masks, mask_name, rows = rng.choice((*MASK_FOLDERS, folder)), rng.choice(MASK_NAMES), []
    if masks == folder and mask_name == "{}":
        mask_name = "{}_mask"
    for k in range(9):
        label, part = maker.classes[k % len(maker.classes)], ("train", "val", "test")[k // 3] if with_parts else ""
        if not is_one_hot and k > 6 and rng.random() < 0.3:
            label = ""
        image = maker.image(folder, f"img{k:03}", label, part)
        if with_masks and label:
            maker.mask(image, masks, mask_name)
        word = maker.words[label] if label else rng.choice(NOTHING)
        cells = [str(float(label == code)) for code in maker.classes] if is_one_hot else [word]
        rows.append([maker.spelled(image), *cells, *[rng.choice(PARTS[part or "train"])] * with_parts])
    rng.shuffle(rows)
    named = [maker.words[code] for code in maker.classes] if is_one_hot else [rng.choice(("label", "dx", "Diagnosis"))]
    header = [rng.choice(("image", "image_id", "Image Name", "path", "isic_id", "picture")), *named]
    name = rng.choice(
        ("GroundTruth.csv", "labels.csv", "HAM10000_metadata", "metadata.tab", "deep/Training_GroundTruth.csv")
    )
    maker.table(name, header + ["split"] * with_parts, rows)


def folders_of_classes(maker: Maker) -> None:
    """A folder per class, in one or more of parts, with masks for some."""
    rng, pattern = maker.rng, maker.rng.choice(("{}", "images/{}", "data/set/{}", "{}/images", "{}/2019"))
    parts = rng.choice(((), ("train", "test"), ("train", "val", "test")))
    with_masks = rng.random() < 0.4
    masks = rng.choice(("masks", "gt"))
    names = {part: rng.choice(PARTS[part]) for part in parts}
    for part in parts or ("",):
        for code in maker.classes:
            for k in range(3):
                above = f"{names[part]}/" if part else ""
                image = maker.image(above + pattern.format(maker.words[code]), f"{code}{part}{k}", code, part)
                if with_masks and k:
                    maker.mask(image, f"{masks}/{names[part]}" if part else masks, "{}_mask")


def tables_of_parts(maker: Maker) -> None:
    """train.csv and others, with images in folders of the parts, in which numbers begin anew."""
    rng, folder = maker.rng, maker.rng.choice(("images/{}", "{}/images", "{}"))
    name = rng.choice(("{}.csv", "ISIC_{}_GroundTruth.csv", "labels/{}.csv"))
    anew = rng.random() < 0.6
    for part in ("train", "val", "test"):
        rows, word = [], rng.choice(PARTS[part])
        for k in range(4):
            label = maker.classes[k % len(maker.classes)]
            image = maker.image(folder.format(word), f"{k:03}" if anew else f"{part}{k}", label, part)
            rows.append([image.name if anew else maker.spelled(image), maker.words[label]])
        maker.table(name.format(word), ["image", "label"], rows)


def images_and_masks(maker: Maker) -> None:
    """No diagnoses: images and masks in folders, of parts perhaps, or side by side."""
    rng, parts = maker.rng, maker.rng.choice(((), ("train", "test"), ("train", "val", "test")))
    images, masks = rng.choice(IMAGE_FOLDERS), rng.choice(MASK_FOLDERS)
    mask_name, beside = rng.choice(MASK_NAMES), rng.random() < 0.3
    order, anew = rng.random() < 0.5, rng.random() < 0.4
    for part in parts or ("",):
        word = rng.choice(PARTS[part]) if part else ""
        place = "{0}/" + word if order else word + "/{0}"
        for k in range(4):
            suffix = ".jpg" if beside and mask_name == "{}" else ""
            image = maker.image(place.format(images).strip("/"), f"{k}" if anew else f"x{part}{k}", "", part, suffix)
            maker.mask(image, place.format(images if beside else masks).strip("/"), mask_name)


def dataverse(maker: Maker) -> None:
    """HAM10000 as unpacked, with the challenge's test set beside it."""
    maker.classes = ("MEL", "NV")
    head = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    rows, others = [], []
    for k in range(8):
        label = maker.classes[k % 2]
        image = maker.image(f"HAM10000_images_part_{1 + k % 2}", f"ISIC_00{k}", label, suffix=".jpg")
        maker.mask(image, "HAM10000_segmentations_lesion_tschandl", "{}_segmentation")
        rows.append([f"L{k}", image.stem, label.lower(), "histo", "50", "male", "back"])
    for k in range(4):
        maker.save(f"ISIC2018_Task3_Test_Images/ISIC_09{k}.jpg", photo(0, 1000 + k))
        others.append([f"T{k}", f"ISIC_09{k}", "bkl", "histo", "50", "male", "back", "vidir"])
    maker.table(maker.rng.choice(("HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab")), head, rows)
    maker.table("ISIC2018_Task3_Test_GroundTruth.csv", [*head, "dataset"], others)


LAYOUTS = (one_table, one_table, one_table, folders_of_classes, tables_of_parts, images_and_masks, dataverse)


# Damage: each changes the folder, says whether it did, and tells the maker if a refusal is fair afterwards.


def stray_pictures(maker: Maker) -> bool:
    for k in range(maker.rng.randrange(1, 3)):
        maker.save(f"{maker.rng.choice(('docs', 'figures', 'previews'))}/stray{k}.png", photo(1, 2000 + k))
    return True


def superpixels(maker: Maker) -> bool:
    for path in list(map(Path, maker.truth))[:3]:
        maker.save(str(path.relative_to(maker.place).with_name(f"{path.stem}_superpixels.png")), photo(2, 3000))
    return True


def junk(maker: Maker) -> bool:
    maker.save("__MACOSX/images/._x.jpg", b"x")
    maker.save("images/x.heic", b"x")
    maker.save("hmnist_8_8.csv", b"pixel0000,label\n1,2\n")
    maker.save("README.txt", b"Where this comes from, and when\n")
    return True


def earlier_run(maker: Maker) -> bool:
    maker.save("outputs/record.json", b"{}")
    first = next(map(Path, maker.truth))
    maker.save(f"outputs/masks/{first.stem}.png", drawn(3))
    maker.save(f"outputs/images/{first.name}", photo(3, 4000))
    return True


def lost_files(maker: Maker) -> bool:
    maker.is_damaged = True
    names = [path.name for path in maker.place.rglob("*")]
    once = [
        path for path in sorted(maker.truth) if names.count(Path(path).name) == 1
    ]  # else another would take its place
    for path in once[:2]:
        Path(path).unlink()
        maker.truth.pop(path)
    return True


def lost_masks(maker: Maker) -> bool:
    if (maker.place / "masks_v2").exists():
        return False
    maker.is_damaged = True
    for path, truth in list(maker.truth.items())[::3]:
        if truth.mask:
            Path(truth.mask).unlink()
            maker.truth[path] = truth._replace(mask="")
    return True


def another_of_the_name(maker: Maker) -> bool:
    """Another picture of an image's name in a folder elsewhere."""
    maker.is_damaged = True
    path = Path(maker.rng.choice(sorted(maker.truth)))
    maker.save(f"{maker.rng.choice(('backup', 'old/images', 'test', 'masks_v2'))}/{path.name}", photo(4, 5000))
    return True


def second_masks(maker: Maker) -> bool:
    maker.is_damaged = True
    for path, truth in list(maker.truth.items())[:2]:
        maker.save(f"masks_v2/{Path(path).stem}_mask.png", drawn(7 if truth.mask else 5))
        if not truth.mask:
            maker.truth[path] = truth._replace(mask=str(maker.place / f"masks_v2/{Path(path).stem}_mask.png"))
    return True


def broken_line(maker: Maker) -> bool:
    """A row of too many cells in every table."""
    paths = [
        path for path in maker.place.rglob("*") if path.suffix in (".csv", ".tab") or path.name == "HAM10000_metadata"
    ]
    for path in paths:
        maker.is_damaged = True
        content = path.read_bytes()
        if not content.startswith((b"\xff\xfe", b"pixel")):
            path.write_bytes(content + b'x,"y,z;\t"\n')
    return bool(paths)


def flipped_bytes(maker: Maker) -> bool:
    """Some bytes of a table, which may change what it says: only what is read of other rows is known."""
    paths = [path for path in maker.place.rglob("*GroundTruth*") if path.is_file() and path.suffix == ".csv"]
    for path in paths[:1]:
        maker.is_damaged = True
        content = bytearray(path.read_bytes())
        content[: maker.rng.randrange(4)] = b""
        path.write_bytes(content)
    return bool(paths)


DAMAGES = (
    stray_pictures,
    superpixels,
    junk,
    earlier_run,
    lost_files,
    lost_masks,
    another_of_the_name,
    second_masks,
    broken_line,
    flipped_bytes,
)
