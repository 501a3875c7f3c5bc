"""A picture and what a model says of it -> the part of the page that shows both.

Here the values are prepared; cards.html says what is shown of them, in which words and where. Pictures and files to
download stand in the page itself, as data: addresses, so that the server keeps nothing.
"""

import base64
import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import jinja2
from PIL import Image

import visualize
from checkpoints import thresholds
from dataset import images
from dataset.classes import name_of
from inference.drawing import mask_at, overlay, view_of
from inference.outputs import columns, values
from inference.predictor import Prediction, Predictor

VIEW = 800  # pixels: the longest side of a picture that is shown
THUMBNAIL = 160  # pixels: the side of an example
HERE = jinja2.FileSystemLoader(Path(__file__).parent)
TEMPLATES = jinja2.Environment(
    loader=HERE, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)


class Card(NamedTuple):
    """What the page shows of one picture; "" for what the model has no head for."""

    name: str
    found: Prediction
    original: str  # this and what follows are data: addresses
    outline: str  # a transparent layer
    heat: str  # a layer that is not
    mask: str
    overlay: str
    row: list[str]  # of the table

    @property
    def stem(self) -> str:
        return os.path.splitext(self.name)[0]


class Example(NamedTuple):
    """A picture to try the page with."""

    name: str
    content: bytes
    thumbnail: str  # data: address


def look(name: str, content: bytes, predictor: Predictor) -> Card:
    """What a model sees on a picture. Raises ValueError with what is wrong with the file."""
    (found,) = predictor.predict([predictor.read(content)])
    enlarged = max(1, VIEW / max(found.size))
    view = view_of(content, (round(found.size[0] * enlarged), round(found.size[1] * enlarged)))
    shown = view.copy()
    shown.thumbnail((VIEW, VIEW))
    mask = None if found.mask is None else mask_at(found.mask, found.size)
    return Card(
        name,
        found,
        original=as_url(shown),
        outline="" if mask is None else as_url(outline_layer(found, shown.size), "PNG"),
        heat="" if found.heat is None else as_url(visualize.heat_colours(found.heat)),
        mask="" if mask is None else as_url(Image.fromarray(mask), "PNG"),
        overlay=as_url(overlay(view, found, predictor.classes)),
        row=[name, *values(found, mask, predictor.classes)],
    )


def outline_layer(found: Prediction, size: tuple[int, int]) -> Image.Image:
    """The outline alone, at `size` (width, height), to lie on a picture."""
    layer, mask = Image.new("RGBA", size), mask_at(found.mask, size) > 0
    if mask.any():
        layer.paste(*visualize.contour(mask))
    return layer


def render(cards: Sequence[Card], problems: Sequence[str], predictor: Predictor) -> str:
    """The cards as HTML, below an overview if there are several, and what was wrong with other pictures."""
    header = ["file", *columns(predictor)]
    return TEMPLATES.get_template("cards.html").render(
        cards=cards,
        problems=problems,
        names=[name_of(code) for code in predictor.classes],
        is_calibrated=predictor.trained.is_calibrated,
        PLURALS=thresholds.PLURALS,
        NO_TAU=thresholds.NO_TAU,
        certainty=lambda probability: thresholds.certainty(probability).replace(" ", "\xa0"),
        percent=lambda share: thresholds.percent(share).replace(" ", "\xa0"),
        table=lambda chosen: table(header, [card.row for card in chosen]),
    )


def picker(examples: Sequence[Example]) -> str:
    """What a picture is chosen with, as HTML: a field to drop files on, and the examples."""
    return TEMPLATES.get_template("picker.html").render(examples=examples)


def example_of(path: str | Path) -> Example:
    """A file as an example. Raises as `images.read_image`."""
    content = Path(path).read_bytes()
    name = os.fsencode(os.path.basename(path)).decode(errors="replace")
    return Example(name, content, as_url(images.read_image(content, THUMBNAIL)))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A CSV file as an address."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return "data:text/csv;charset=utf-8," + quote(text.getvalue())


def as_url(image: Image.Image, kind: str = "JPEG") -> str:
    """A picture as an address."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=90)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
