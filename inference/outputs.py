"""The folder of predictions: a table, and a mask, an overlay, a heat map and features per image."""

import errno
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dataset import images
from dataset.csvfile import spaced
from dataset.opening import content_of, digest_of
from inference.drawing import heat_map, lesion_share, mask_at, overlay, view_of
from inference.features import FORMATS
from inference.inputs import Listed
from inference.predictor import Prediction, Predictor
from inference.table import Table
from inference.verdict import is_unlike

OF_ONE_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)  # concern one file only


def columns(predictor: Predictor) -> list[str]:
    """The column names of `values`."""
    heads = predictor.trained.heads
    names = ["unlike", "unlike_verdict"] * predictor.trained.knows_unlike
    if "label" in heads:
        names += ["predicted", "confidence"] + ["set"] * bool(predictor.trained.sets)
        names += ["balanced"] * predictor.trained.has_rule
        for point in predictor.points:
            names += [f"p_{point.name}"] + [point.name] * (point.threshold is not None)
        names += predictor.classes
    return names + ["lesion_share"] * ("mask" in heads)


def values(prediction: Prediction, mask: np.ndarray | None, classes: Sequence[str]) -> list[str]:
    """The table's cells for an image; `mask` is from `mask_at`, at the image's own size."""
    cells = []
    if prediction.unlike is not None:
        cells += [f"{prediction.unlike:.1f}", "unlike" if is_unlike(prediction) else "like"]
    if prediction.probabilities is not None:
        best = prediction.probabilities.argmax()
        cells += [classes[best], f"{prediction.probabilities[best]:.4f}"]
        cells += [spaced([classes[k] for k in prediction.members])] * bool(prediction.members)
        cells += [] if prediction.balanced is None else [classes[prediction.balanced]]
        for finding in prediction.findings:
            cells += [f"{finding.probability:.4f}"] + [finding.verdict] * (finding.verdict is not None)
        cells += [f"{p:.4f}" for p in prediction.probabilities]
    return cells if mask is None else [*cells, f"{lesion_share(mask):.4f}"]


class Outputs:
    """The folder that predictions are written to.

    The probabilities in its table are calibrated: softmax(logits / temperature), as in main.py's tables.
    """

    def __init__(self, folder: Path, predictor: Predictor) -> None:
        self.folder, self.predictor = folder, predictor
        classes = predictor.classes if "label" in predictor.trained.heads else ()
        self.table = Table(folder, columns(predictor), classes)
        self.joined = [folder / f"features.{form}" for form in FORMATS]  # those of all images in one file

    def paths(self, name: str) -> dict[str, Path]:
        """The files of one image, by kind."""
        paths = {"overlays": f"{name}.jpg"}
        if "mask" in self.predictor.trained.heads:
            paths["masks"] = f"{name}.png"
        if self.predictor.explain:
            paths["heatmaps"] = f"{name}.jpg"
        if self.predictor.features:
            paths["features"] = f"{name}.npy"
        return {kind: self.folder / kind / file for kind, file in paths.items()}

    def remove(self, item: Listed) -> None:
        """Delete the files of a skipped image that this run or an earlier one has written."""
        for path in self.paths(item.output).values() if item.output else ():
            with suppress(OSError):  # a path that could not be written may not be deletable
                path.unlink()

    def remove_joined(self) -> None:
        """Delete the joined features of an earlier run, as the new run may have others."""
        for path in self.joined:
            path.unlink(missing_ok=True)

    def written(self, listed: Sequence[Listed]) -> Iterator[Path]:
        """All files that are written for these images."""
        yield from (self.table.path, self.table.as_json, self.table.run, *self.joined)
        yield from self.of_images(listed)

    def of_images(self, listed: Sequence[Listed]) -> Iterator[Path]:
        """The files of each of these images."""
        return (path for item in listed if not item.problem for path in self.paths(item.output).values())

    def write_image(self, item: Listed, prediction: Prediction) -> list[str] | str:
        """Write one image's files; return its table cells from the digest on, or what is wrong with it."""
        paths, classes = self.paths(item.output), self.predictor.classes
        mask = None if prediction.mask is None else mask_at(prediction.mask, prediction.size)
        try:
            view, digest = view_of(item.file, prediction.size), digest_of(content_of(item.file))
        except (ValueError, OSError) as error:  # the file has changed
            return images.reason_of(error)
        try:
            if mask is not None:
                _save(Image.fromarray(mask), paths["masks"], compress_level=1)
            _save(overlay(view, prediction, classes, mask), paths["overlays"], quality=90)
            if prediction.heat is not None:
                _save(heat_map(view, prediction, classes), paths["heatmaps"], quality=90)
            if prediction.features is not None:
                _write(paths["features"], partial(np.save, arr=prediction.features))
        except OSError as error:
            if error.errno not in OF_ONE_NAME:
                raise
            return f"cannot write {error.filename}: {error.strerror}"
        return [digest, *values(prediction, mask, classes)]


def _save(image: Image.Image, path: Path, **options) -> None:
    form = {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    _write(path, partial(image.save, format=form, **options))


def _write(path: Path, save: Callable[[io.BytesIO], None]) -> None:
    content = io.BytesIO()
    save(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getbuffer())
