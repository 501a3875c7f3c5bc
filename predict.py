"""Use a trained model on pictures: diagnoses, outlines at each picture's own size, overlays and heat maps.

python predict.py photos/ more/*.jpg --checkpoint outputs/best_multitask_model.pth
"""

import argparse
import csv
import glob
import io
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import averaging
import data
import decision
import evaluate
import machine
import models
import visualize
from dataset import images
from dataset.classes import name_of
from dataset.labels import SUFFIXES

SUFFIXES = (*SUFFIXES, ".bmp", ".tif", ".tiff", ".webp")  # taken from folders; a file that is named is tried
KINDS = ("masks", "overlays", "heatmaps")  # folders that are written
STRIP = 1 << 22  # pixels of a mask that are computed at a time
VIEW = 1600  # pixels: the longest side of an overlay
SHIPPED = Path(__file__).parent / "pretrained" / "ham10000.pth"  # comes with the repository
CHECKPOINT_HELP = "outputs/best_..._model.pth; several, each after its own --checkpoint, are averaged [the shipped one]"


class Picture(NamedTuple):
    """A decoded picture."""

    pixels: np.ndarray  # (S, S, 3) uint8, S the network's image size
    size: tuple[int, int]  # its own, upright: width, height


class Prediction(NamedTuple):
    """What a model says of one picture; None for what it has no head for."""

    size: tuple[int, int]  # the picture's own, upright: width, height
    probabilities: np.ndarray | None  # (K,), calibrated
    mask: np.ndarray | None  # (S, S) logits
    heat: np.ndarray | None  # (S, S) in [0, 1], for the likeliest class
    balanced: int | None = None  # class that the balanced rule calls; None also if the checkpoint has no tau
    findings: tuple[decision.Finding, ...] = ()  # melanoma and malignant: probability, above or below the threshold


class Predictor:
    """A checkpoint, ready for pictures.

    Parameters
    ----------
    checkpoints : any of those that main.py writes; of several the probabilities are averaged.
    tta : average the logits of the eight flips and quarter turns.
    explain : compute heat maps of the likeliest class, if the model has labels.

    Raises
    ------
    FileNotFoundError, ValueError : no such file; not a checkpoint; of other classes or sizes; no such device.
    """

    def __init__(
        self, *checkpoints: str | Path, device: str = "auto", tta: bool = False, explain: bool = False
    ) -> None:
        self.device = machine.choose_device(device)
        self.precision = machine.choose_precision("auto", self.device)
        found = {Path(path): models.load_checkpoint(path) for path in checkpoints}
        self.about, self.model = averaging.combined(found, tta), averaging.build(found, self.device, tta)
        self.explain = explain and "label" in self.model.heads
        self.classes, self.size = self.about["classes"], self.about["image_size"]
        has_labels, self.calibration = "label" in self.model.heads, self.about.get("calibration", {})
        self.temperature = self.calibration.get("temperature", 1.0)
        self.is_calibrated = not has_labels or "temperature" in self.calibration
        self.has_balanced = has_labels and "tau" in self.calibration
        self.points = decision.points_of(self.about) if has_labels else []

    def remarks(self) -> list[str]:
        """What a reader must know of the decisions: each threshold and what it did in the test set, and what lacks."""
        left_out = [decision.NO_TAU] if self.points and not self.has_balanced else []
        return [f"{point.name}: {point.describe()}." for point in self.points] + left_out

    def read(self, source: str | Path | bytes) -> Picture:
        """Decode a file, or its content, as for training. Raises as `images.read_image`."""
        image, size = images.read_image_and_size(source, self.size)
        return Picture(np.asarray(image), size)

    def predict(self, pictures: Sequence[Picture]) -> list[Prediction]:
        """What the model says of each picture, in one batch."""
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        image = data.normalise(pixels.to(self.device))
        forward = self.model.explain if self.explain else None
        ((_, output),) = evaluate.infer(self.model, [{"image": image}], self.precision, forward)
        output = {name: logits.cpu() for name, logits in output.items()}
        nothing = [None] * len(pictures)
        probabilities, masks, heat, balanced, findings = nothing, nothing, nothing, nothing, [()] * len(pictures)
        if "label" in output:
            probabilities = evaluate.softmax(output["label"].double().numpy(), self.temperature)
            findings = [decision.findings(of_picture, self.points) for of_picture in probabilities]
        if self.has_balanced:
            rule = self.calibration["prior"], self.calibration["tau"]
            balanced = evaluate.call_balanced(probabilities, *rule).tolist()
        if "mask" in output:
            masks = output["mask"][:, 0].numpy()
        if self.explain:
            heat = output["heat"][:, 0].numpy()
        found = zip(pictures, probabilities, masks, heat, balanced, findings)
        return [Prediction(picture.size, *of_picture) for picture, *of_picture in found]


def mask_at(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mask (H, W) uint8 in {0, 255} at `size` (width, height), where logits (S, S) resized bilinearly are positive."""
    width, height = size
    source, mask = Image.fromarray(logits), np.zeros((height, width), np.uint8)
    step, scale = max(1, STRIP // width), logits.shape[0] / height
    for top in range(0, height, step):
        bottom = min(top + step, height)
        box = (0, top * scale, logits.shape[1], bottom * scale)
        strip = source.resize((width, bottom - top), Image.Resampling.BILINEAR, box=box)
        mask[top:bottom] = (np.asarray(strip) > 0) * np.uint8(255)
    return mask


def overlay(image: Image.Image, prediction: Prediction, classes: Sequence[str]) -> Image.Image:
    """The outline on the picture, the class and its confidence in the margin."""
    mask = None if prediction.mask is None else mask_at(prediction.mask, image.size) > 0
    return visualize.outlined(image, mask, caption(prediction, classes))


def heat_map(image: Image.Image, prediction: Prediction, classes: Sequence[str]) -> Image.Image:
    """Where the likeliest class is seen."""
    heat = Image.fromarray(prediction.heat).resize(image.size, Image.Resampling.BILINEAR)
    return visualize.heated(image, np.asarray(heat), caption(prediction, classes))


def caption(prediction: Prediction, classes: Sequence[str]) -> str:
    """The class with its confidence, and how much of the picture is lesion."""
    parts = []
    if prediction.probabilities is not None:
        best = prediction.probabilities.argmax()
        confidence = prediction.probabilities[best]
        parts.append(f"{name_of(classes[best])} {'over 99%' if confidence > 0.995 else f'{confidence:.0%}'}")
    if prediction.mask is not None:
        parts.append(f"lesion: {(prediction.mask > 0).mean():.0%} of the picture")
    return ", ".join(parts)


def view_of(source: str | Path | bytes, size: tuple[int, int]) -> Image.Image:
    """The picture to draw on: at its own `size`, or smaller if that is very large."""
    scale = min(1, VIEW / max(size))
    return images.read_image(source, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))


def find_images(paths: Sequence[str], output_dir: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """The files that `paths` (files, folders, globs) name, each once, and what names nothing, with the reason.

    Folders are searched, but for what earlier runs have written into the output folder.
    """
    found: dict[str, Path] = {}
    skipped = []
    for text in paths:
        hits = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
        files = [file for hit in hits for file in (_images_in(hit, output_dir) if os.path.isdir(hit) else [Path(hit)])]
        if not files:
            skipped.append((text, f"no images there ({' '.join(SUFFIXES)})" if hits else "no such file or folder"))
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values()), skipped


def _images_in(folder: str, output_dir: Path) -> list[Path]:
    written = {os.path.realpath(output_dir / kind) for kind in KINDS}
    files = []
    for place, folders, names in os.walk(folder):
        if os.path.realpath(place) in written:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        files += [Path(place, name) for name in sorted(names) if _is_image(name)]
    return files


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def output_names(files: Sequence[Path]) -> list[str]:
    """A name for each file's outputs, no two alike: its path below the folder common to all, without suffix."""
    places = [os.path.abspath(file) for file in files]
    root = os.path.commonpath([os.path.dirname(place) for place in places])
    whole = [os.path.relpath(place, root) for place in places]
    stems = [os.path.splitext(name)[0] for name in whole]
    n_alike = Counter(stem.casefold() for stem in stems)  # some file systems do not tell case apart
    taken: set[str] = set()
    names = []
    for stem, name in zip(stems, whole):
        first = stem if n_alike[stem.casefold()] == 1 else name
        name, number = first, 2
        while name.casefold() in taken:
            name, number = f"{first}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def columns(predictor: Predictor) -> list[str]:
    """The names of a picture's `values`."""
    names, heads = [], predictor.model.heads
    if "label" in heads:
        names += ["predicted", "confidence"] + ["balanced"] * predictor.has_balanced
        for point in predictor.points:
            names += [f"p_{point.name}"] + [point.name] * (point.threshold is not None)
        names += predictor.classes
    return names + ["lesion_share"] * ("mask" in heads)


def values(prediction: Prediction, mask: np.ndarray | None, classes: Sequence[str]) -> list[str]:
    """What a table says of a picture; `mask` is that of `mask_at` the picture's own size."""
    found = []
    if prediction.probabilities is not None:
        best = prediction.probabilities.argmax()
        found += [classes[best], f"{prediction.probabilities[best]:.4f}"]
        found += [] if prediction.balanced is None else [classes[prediction.balanced]]
        for finding in prediction.findings:
            found += [f"{finding.probability:.4f}"] + [finding.verdict] * (finding.verdict is not None)
        found += [f"{p:.4f}" for p in prediction.probabilities]
    return found if mask is None else [*found, f"{np.count_nonzero(mask) / mask.size:.4f}"]


class Outputs:
    """The folder that predictions are written to.

    The probabilities in its table are the calibrated ones, softmax(logits / temperature), as in main.py's tables.
    """

    def __init__(self, folder: Path, predictor: Predictor) -> None:
        self.folder, self.predictor = folder, predictor
        self.table = folder / "predictions.csv"
        self.header = ["file", "output", *columns(predictor)]

    @contextmanager
    def open_table(self) -> Iterator:
        """A CSV writer; what it has written becomes the table in the end, also after an error, unless there is none."""
        partial = self.table.with_name(self.table.name + ".partial")
        try:
            with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(self.header)
                head_ends = file.tell()
                yield writer
        finally:
            if partial.stat().st_size > head_ends:
                os.replace(partial, self.table)
            else:
                partial.unlink()

    def paths(self, name: str) -> dict[str, Path]:
        """The files of one picture, by kind."""
        paths = {"overlays": f"{name}.jpg"}
        if "mask" in self.predictor.model.heads:
            paths["masks"] = f"{name}.png"
        if self.predictor.explain:
            paths["heatmaps"] = f"{name}.jpg"
        return {kind: self.folder / kind / file for kind, file in paths.items()}

    def write_picture(self, file: Path, name: str, prediction: Prediction) -> list | str:
        """Write one picture's files; returns its row of the table, or what is wrong with it."""
        paths, classes = self.paths(name), self.predictor.classes
        mask = None if prediction.mask is None else mask_at(prediction.mask, prediction.size)
        if mask is not None:
            _save(Image.fromarray(mask), paths["masks"], compress_level=1)
        try:
            view = view_of(file, prediction.size)
        except (ValueError, OSError) as error:  # it has changed meanwhile
            return reason_of(error)
        _save(overlay(view, prediction, classes), paths["overlays"], quality=90)
        if prediction.heat is not None:
            _save(heat_map(view, prediction, classes), paths["heatmaps"], quality=90)
        return [str(file), name, *values(prediction, mask, classes)]


def _save(image: Image.Image, path: Path, **options) -> None:
    content = io.BytesIO()
    image.save(content, {".png": "PNG", ".jpg": "JPEG"}[path.suffix], **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getbuffer())


def reason_of(error: Exception) -> str:
    """What is wrong with a file, in words."""
    if isinstance(error, MemoryError):
        return "too large for this machine's memory"
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def process(outputs: Outputs, files: Sequence[Path], names: Sequence[str]) -> list[list | str]:
    """Read, predict and write one batch; returns each file's row of the table, or what is wrong with it."""
    found: list[Picture | list | str] = []
    for file in files:
        try:
            found.append(outputs.predictor.read(file))
        except (ValueError, OSError, MemoryError) as error:
            found.append(reason_of(error))
    good = [i for i, picture in enumerate(found) if isinstance(picture, Picture)]
    if good:
        for i, prediction in zip(good, outputs.predictor.predict([found[i] for i in good])):
            found[i] = outputs.write_picture(files[i], names[i], prediction)
    return found


def process_all(outputs: Outputs, files: Sequence[Path], names: Sequence[str], batch_size: int) -> int:
    """Process all files, batches side by side, one on each core; returns how many files went well.

    A core that decodes and draws would keep the others waiting, if all of them computed one batch together.
    """
    n_done, n_workers = 0, torch.get_num_threads()
    size = min(batch_size, -(-len(files) // n_workers))
    batches = [slice(start, start + size) for start in range(0, len(files), size)]
    with ExitStack() as stack:
        pool = ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))
        stack.callback(pool.shutdown, cancel_futures=True)
        progress = stack.enter_context(tqdm(total=len(files), desc="predicting", unit="image", disable=None))
        table = stack.enter_context(outputs.open_table())
        done = machine.map_ahead(pool, lambda b: process(outputs, files[b], names[b]), batches, 2 * n_workers)
        for file, row in zip(files, itertools.chain.from_iterable(done)):
            if isinstance(row, str):
                tqdm.write(f"skipped {file}: {row}", file=sys.stderr)
            else:
                table.writerow(row)
                n_done += 1
            progress.update()
    return n_done


def predict_all(options: argparse.Namespace) -> int:
    """Predict and write; returns 0 if all was done, 1 if something was skipped, 2 if nothing was done."""
    files, nowhere = find_images(options.paths, options.output_dir)
    for text, reason in nowhere:
        print(f"skipped {text}: {reason}", file=sys.stderr)
    if not files:
        raise FileNotFoundError(f"There is no image to predict on. Name images ({' '.join(SUFFIXES)}) or folders.")
    checkpoints = choose_checkpoints(options.checkpoint)
    predictor = Predictor(*checkpoints, device=options.device, tta=options.tta, explain=options.explain)
    used = " and ".join(map(str, checkpoints))
    if options.explain and not predictor.explain:
        raise ValueError(f"Heat maps explain labels, and the model of {used} only outlines.")
    refuse_data_folder(options.output_dir)
    names, outputs = output_names(files), Outputs(options.output_dir, predictor)
    refuse_existing(outputs, files, names, options.overwrite)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    n_done = process_all(outputs, files, names, options.batch_size)
    n_skipped = len(nowhere) + len(files) - n_done
    places = (
        ", ".join([str(outputs.table), *(f"{kind}/" for kind in outputs.paths(""))]) if n_done else "nothing written"
    )
    print(f"{n_done} predicted, {n_skipped} skipped: {places}")
    for line in predictor.remarks():
        print(line)
    if not predictor.is_calibrated:
        print(f"{used} is not calibrated, so its confidence may be far off; main.py calibrates.")
    if predictor.about.get("note"):
        print(f"The model was trained on {predictor.about['note']}: it knows nothing of real lesions.")
    return 2 if not n_done else 1 if n_skipped else 0


def choose_checkpoints(named: list[Path] | None) -> list[Path]:
    """The checkpoints that were named, or else the one that comes with the repository, which is said.

    Raises
    ------
    FileNotFoundError : none was named, and that one is missing.
    """
    if named:
        return named
    if not SHIPPED.is_file():
        raise FileNotFoundError(f"Name a --checkpoint: the one of this repository is missing from {SHIPPED.parent}.")
    print(f"Using the model that comes with the repository: {SHIPPED.name}, for non-commercial use only.")
    return [SHIPPED]


def refuse_data_folder(folder: Path) -> None:
    """Raises ValueError for a folder in which predicted masks would be taken for true ones at the next training."""
    place = Path(os.path.realpath(folder))
    for near in (place, place.parent) if place.name.lower() in ("images", "masks") else (place,):
        if near.is_dir() and any(path.name.lower().endswith("groundtruth.csv") for path in near.iterdir()):
            raise ValueError(f"{folder} is data that main.py learns from. Name another --output-dir.")


def refuse_existing(outputs: Outputs, files: Sequence[Path], names: Sequence[str], overwrite: bool) -> None:
    """Raises ValueError if a file would be overwritten, unless that is wanted; one of the pictures never is."""
    written = [path for name in names for path in outputs.paths(name).values()]
    pictures = {os.path.realpath(file) for file in files}
    if lost := [path for path in written if os.path.realpath(path) in pictures]:
        raise ValueError(f"{lost[0]} is one of the pictures and would be overwritten. Name another --output-dir.")
    there = [] if overwrite else [path for path in (outputs.table, *written) if path.exists()]
    if there:
        more = f" and {len(there) - 1} more files are" if len(there) > 1 else " is"
        raise ValueError(f"{there[0]}{more} there already. Name another --output-dir, or pass --overwrite.")


def main(argv: list[str] | None = None) -> int:
    """Predict on what the command line names; a user's mistake ends in one message."""
    machine.print_anything()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image, folder (with all below it) or glob")
    parser.add_argument("--checkpoint", type=Path, action="append", help=CHECKPOINT_HELP)
    parser.add_argument("--output-dir", type=Path, default=Path("predictions"), help="[predictions]")
    parser.add_argument("--explain", action="store_true", help="heat maps of where the class is seen")
    parser.add_argument("--tta", action="store_true", help="average over the eight flips and turns; eight times slower")
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same names; others stay")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... [auto]")
    parser.add_argument("--batch-size", type=int, default=16, help="images a step on each core [16]")
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    machine.keep_freed_memory()
    try:
        return predict_all(options)
    except KeyboardInterrupt:
        parser.exit(130, f"Stopped. {options.output_dir / 'predictions.csv'} lists what was done.\n")
    except torch.cuda.OutOfMemoryError:
        parser.exit(2, f"The GPU's memory does not hold {options.batch_size} images. Try a smaller --batch-size.\n")
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        where = f"{error.filename or options.output_dir}: {error.strerror}"
        advice = "Make room, or name another --output-dir."
        parser.exit(2, f"{error}\n" if error.errno is None else f"Cannot write {where}. {advice}\n")


if __name__ == "__main__":
    sys.exit(main())
