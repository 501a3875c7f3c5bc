"""Use a trained model on pictures: diagnoses, outlines at each picture's own size, overlays and heat maps.

python predict.py photos/ more/*.jpg --checkpoint outputs/best_multitask_model.pth
"""

import argparse
import errno
import hashlib
import io
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
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
from pictures.files import (
    READABLE,
    Listed,
    keep_names,
    list_pictures,
    refuse_data_folder,
    refuse_existing,
    refuse_pictures,
)
from pictures.table import FIRST, PREDICTED, SKIPPED, Table

STRIP = 1 << 22  # pixels of a mask that are computed at a time
OF_ONE_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)  # no other picture's outputs fail so
VIEW = 1600  # pixels: the longest side of an overlay
SHIPPED = Path(__file__).parent / "pretrained" / "ham10000.pth"  # comes with the repository
CHECKPOINT_HELP = "outputs/best_..._model.pth; several, each after a --checkpoint, are averaged [the repository's]"


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
        probabilities, masks, balanced, findings = nothing, nothing, nothing, [()] * len(pictures)
        if "label" in output:
            probabilities = evaluate.softmax(output["label"].double().numpy(), self.temperature)
            findings = [decision.findings(of_picture, self.points) for of_picture in probabilities]
        if self.has_balanced:
            rule = self.calibration["prior"], self.calibration["tau"]
            balanced = evaluate.call_balanced(probabilities, *rule).tolist()
        if "mask" in output:
            masks = output["mask"][:, 0].numpy()
        heat = output["heat"][:, 0].numpy() if self.explain else nothing
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
        parts.append(f"{name_of(classes[best])} {decision.certainty(prediction.probabilities[best])}")
    if prediction.mask is not None:
        parts.append(f"lesion: {decision.percent((prediction.mask > 0).mean())} of the picture")
    return ", ".join(parts)


def view_of(source: str | Path | bytes, size: tuple[int, int]) -> Image.Image:
    """The picture to draw on: at its own `size`, or smaller if that is very large."""
    scale = min(1, VIEW / max(size))
    return images.read_image(source, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))


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
        classes = predictor.classes if "label" in predictor.model.heads else ()
        self.table = Table(folder, columns(predictor), classes)

    def paths(self, name: str) -> dict[str, Path]:
        """The files of one picture, by kind."""
        paths = {"overlays": f"{name}.jpg"}
        if "mask" in self.predictor.model.heads:
            paths["masks"] = f"{name}.png"
        if self.predictor.explain:
            paths["heatmaps"] = f"{name}.jpg"
        return {kind: self.folder / kind / file for kind, file in paths.items()}

    def remove(self, one: Listed) -> None:
        """Delete what an earlier run, or a part of this one, has written of a picture that is skipped."""
        for path in self.paths(one.output).values() if one.output else ():
            with suppress(OSError):  # what could not be written cannot always be deleted
                path.unlink()

    def written(self, listed: Sequence[Listed]) -> Iterator[Path]:
        """All files that are written for these pictures."""
        yield from (self.table.path, self.table.as_json, self.table.run)
        yield from (path for one in listed if not one.problem for path in self.paths(one.output).values())

    def write_picture(self, one: Listed, prediction: Prediction) -> list[str] | str:
        """Write one picture's files; returns what the table says of it, or what is wrong with it."""
        paths, classes = self.paths(one.output), self.predictor.classes
        mask = None if prediction.mask is None else mask_at(prediction.mask, prediction.size)
        try:
            view = view_of(one.file, prediction.size)
        except (ValueError, OSError) as error:  # it has changed meanwhile
            return images.reason_of(error)
        try:
            if mask is not None:
                _save(Image.fromarray(mask), paths["masks"], compress_level=1)
            _save(overlay(view, prediction, classes), paths["overlays"], quality=90)
            if prediction.heat is not None:
                _save(heat_map(view, prediction, classes), paths["heatmaps"], quality=90)
        except OSError as error:
            if error.errno not in OF_ONE_NAME:
                raise
            return f"cannot write {error.filename}: {error.strerror}"
        return values(prediction, mask, classes)


def _save(image: Image.Image, path: Path, **options) -> None:
    content = io.BytesIO()
    image.save(content, {".png": "PNG", ".jpg": "JPEG"}[path.suffix], **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getbuffer())


def process(outputs: Outputs, listed: Sequence[Listed]) -> list[list[str] | str]:
    """Read, predict and write one batch; returns what the table says of each file, or what is wrong with it."""
    found: list[Picture | list[str] | str] = []
    for one in listed:
        try:
            found.append(one.problem or outputs.predictor.read(one.file))
        except (ValueError, OSError, MemoryError) as error:
            found.append(images.reason_of(error))
    good = [i for i, picture in enumerate(found) if isinstance(picture, Picture)]
    if good:
        for i, prediction in zip(good, outputs.predictor.predict([found[i] for i in good])):
            found[i] = outputs.write_picture(listed[i], prediction)
    return found


def process_all(outputs: Outputs, listed: Sequence[Listed], batch_size: int) -> Iterator[list[str]]:
    """The rows of all files, in order; batches are processed side by side, one on each core.

    A core that decodes and draws would keep the others waiting, if all of them computed one batch together.
    """
    n_workers = torch.get_num_threads()
    size = max(1, min(batch_size, -(-len(listed) // n_workers)))
    batches = [slice(start, start + size) for start in range(0, len(listed), size)]
    with ExitStack() as stack:
        pool = ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))
        stack.callback(pool.shutdown, cancel_futures=True)
        progress = stack.enter_context(
            tqdm(total=len(listed), desc="predicting", unit="image", disable=machine.hides_progress())
        )
        done = machine.map_ahead(pool, lambda batch: process(outputs, listed[batch]), batches, 2 * n_workers)
        for one, found in zip(listed, itertools.chain.from_iterable(done)):
            if isinstance(found, str):
                tqdm.write(f"skipped {one.file}: {found}", file=sys.stderr)
                outputs.remove(one)
                yield [one.file, one.output, found, *[""] * (len(outputs.table.header) - len(FIRST))]
            else:
                yield [one.file, one.output, "", *found]
            progress.update()


def predict_all(options: argparse.Namespace) -> int:
    """Predict and write; returns 0 if all was done, 1 if something was skipped, 2 if nothing was done.

    Under torchrun, which takes any other code for a crash, 0 where something was done.
    """
    device, rank, n_ranks = machine.join_processes(machine.choose_device(options.device))
    passed_over: Counter = Counter()
    listed = machine.from_first(list_pictures, options.paths, options.output_dir, passed_over)
    if all(one.problem for one in listed):
        found = "".join(f"{one.file}: {one.problem}. " for one in listed)
        raise FileNotFoundError(f"{found}There is no image to predict. Name images ({' '.join(READABLE)}) or folders.")
    checkpoints = choose_checkpoints(options.checkpoint)
    predictor = Predictor(*checkpoints, device=str(device), tta=options.tta, explain=options.explain)
    if options.explain and not predictor.explain:
        raise ValueError(f"Heat maps explain labels; the model of {' and '.join(map(str, checkpoints))} only outlines.")
    if passed_over and machine.is_first():
        print(f"Passed over: {', '.join(f'{n:,} {what}' for what, n in passed_over.items())}.")
    outputs = Outputs(options.output_dir, predictor)
    with machine.locked(options.output_dir):
        listed, left = machine.from_first(begin, outputs, listed, options, checkpoints)
        with outputs.table.open_part(rank) as write:
            for row in process_all(outputs, left[machine.share()], options.batch_size):
                write(row)
        machine.gather(None)  # all parts are whole
        n_done, n_skipped = machine.from_first(finish, outputs, listed, options.json)
    if machine.is_first():
        places = [str(outputs.table.path)] + [str(outputs.table.as_json)] * options.json
        places += [f"{kind}/" for kind in outputs.paths("")] if n_done else []
        earlier = f" ({len(listed) - len(left)} of them earlier)" if len(left) < len(listed) else ""
        print(f"{n_done} predicted{earlier}, {n_skipped} skipped: {', '.join(places)}")
        print_remarks(predictor, checkpoints)
    return 2 if not n_done else 1 if n_skipped and n_ranks == 1 else 0


def begin(
    outputs: Outputs, listed: Sequence[Listed], options: argparse.Namespace, checkpoints: Sequence[Path]
) -> tuple[list[Listed], list[Listed]]:
    """Make the folder this run's, or go on with an earlier one, or refuse.

    Returns all pictures, with the names that their outputs have by now, and those that are left to be predicted.
    """
    if goes_on := options.resume and outputs.table.run.exists():
        listed = keep_names(listed, outputs.table.outputs())
    refuse_data_folder(options.output_dir)
    refuse_pictures(outputs.written(listed), listed)
    names = (f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}" for path in checkpoints)
    identity = {"checkpoint": " and ".join(sorted(names)), "tta": options.tta, "explain": options.explain}
    if goes_on:
        state = outputs.table.go_on(identity, listed)
        return listed, [one for one, of_one in zip(listed, state) if of_one != PREDICTED]
    if not options.overwrite:
        refuse_existing(outputs.written(listed))
    outputs.table.begin(identity)
    for place in outputs.paths("").values():
        place.parent.mkdir(exist_ok=True)  # now: later a name that cannot be written is that of one picture
    return listed, listed


def finish(outputs: Outputs, listed: Sequence[Listed], as_json: bool) -> tuple[int, int]:
    """Make one table of all processes' rows; returns how many pictures were predicted and how many skipped."""
    state = outputs.table.join(listed)
    n_done, n_skipped = int((state == PREDICTED).sum()), int((state == SKIPPED).sum())
    if n_lost := len(listed) - n_done - n_skipped:
        raise ValueError(f"{n_lost} pictures have no row: --output-dir must be one folder that all machines share.")
    if as_json:
        outputs.table.write_json()
    return n_done, n_skipped


def print_remarks(predictor: Predictor, checkpoints: Sequence[Path]) -> None:
    for line in predictor.remarks():
        print(line)
    if not predictor.is_calibrated:
        used = " and ".join(map(str, checkpoints))
        print(f"{used} is not calibrated, so its confidence may be far off; main.py calibrates.")
    if predictor.about.get("note"):
        print(f"The model was trained on {predictor.about['note']}: it knows nothing of real lesions.")


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
    if machine.is_first():
        print(f"Using the model that comes with the repository: {SHIPPED.name}, for non-commercial use only.")
    return [SHIPPED]


def main(argv: list[str] | None = None) -> int:
    """Predict on what the command line names; a user's mistake ends in one message."""
    machine.print_anything()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image, folder (with all below it) or glob")
    parser.add_argument("--checkpoint", type=Path, action="append", help=CHECKPOINT_HELP)
    parser.add_argument("--output-dir", type=Path, default=Path("predictions"), help="[predictions]")
    parser.add_argument("--explain", action="store_true", help="heat maps of where the class is seen")
    parser.add_argument("--tta", action="store_true", help="average over the eight flips and turns; eight times slower")
    parser.add_argument("--json", action="store_true", help="write the table as predictions.json, too")
    parser.add_argument("--resume", action="store_true", help="go on with what an earlier run has begun there")
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same names; others stay")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... [auto]")
    parser.add_argument("--batch-size", type=int, default=16, help="images a step on each core [16]")
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    if options.resume and options.overwrite:
        parser.error("--resume keeps what is there and --overwrite does not: choose one")
    machine.keep_freed_memory()
    try:
        return predict_all(options)
    except KeyboardInterrupt:
        how = "--resume in place of --overwrite" if options.overwrite else "--resume"
        parser.exit(130, f"Stopped. The same command with {how} goes on.\n")
    except torch.cuda.OutOfMemoryError:
        size = options.batch_size
        parser.exit(2, f"Out of GPU memory with batches of {size}. Try a smaller --batch-size, or --device cpu.\n")
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        where = f"{error.filename or options.output_dir}: {error.strerror}"
        advice = "Make room, or name another --output-dir; --resume goes on."
        parser.exit(2, f"{error}\n" if error.errno is None else f"Cannot write {where}. {advice}\n")


if __name__ == "__main__":
    sys.exit(main())
