"""The folder that predictions are written to: a table, and each picture's mask, overlay and heat map."""

import errno
import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from dataset import images
from inference.drawing import heat_map, mask_at, overlay, view_of
from inference.inputs import Listed
from inference.predictor import Prediction, Predictor
from inference.table import Table

OF_ONE_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)  # no other picture's outputs fail so


def columns(predictor: Predictor) -> list[str]:
    """The names of a picture's `values`."""
    names, heads = [], predictor.trained.heads
    if "label" in heads:
        names += ["predicted", "confidence"] + ["balanced"] * predictor.trained.has_rule
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
        classes = predictor.classes if "label" in predictor.trained.heads else ()
        self.table = Table(folder, columns(predictor), classes)

    def paths(self, name: str) -> dict[str, Path]:
        """The files of one picture, by kind."""
        paths = {"overlays": f"{name}.jpg"}
        if "mask" in self.predictor.trained.heads:
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
