"""An image and its prediction -> the part of the page that shows both.

This file prepares the values; cards.html lays them out and words them. Images and downloads are data: URLs in the page
itself, so the server stores nothing.
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

from checkpoints import thresholds
from checkpoints.seen import named_as_seen
from checkpoints.trained import Trained
from dataset import images
from dataset.classes import name_of
from dataset.synthetic import shows_drawing
from inference.canvas import contour, heat_layer
from inference.drawing import VIEW as HEAT_MAP
from inference.drawing import heat_map, lesion_share, mask_at, overlay, view_of
from inference.inputs import output_names
from inference.outputs import columns, values
from inference.predictor import Prediction, Predictor, always_in_sets
from inference.table import distinct
from inference.verdict import UNLIKE, heat_remarks, is_unlike, name_set

VIEW = 1200  # pixels: the longest side of an image on the page
TILE = 360  # pixels: the longest side of an image in the overview
THUMBNAIL = 160  # pixels: the side of an example
LARGEST = 4000  # pixels: the longest side of an overlay
HERE = jinja2.FileSystemLoader(Path(__file__).parent)
TEMPLATES = jinja2.Environment(
    loader=HERE, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)


class Card(NamedTuple):
    """The page's content for one image; "" where the model has no head for it."""

    name: str
    prediction: Prediction
    row: list[str]  # table cells
    share: float | None = None  # of the image that the lesion fills; None without a mask
    is_seen: bool = False  # has the name of an image that the model was trained or selected on
    stem: str = ""  # unique name of its downloads
    original: str = ""  # the strings from here on are data: URLs
    outline: str = ""  # a transparent layer
    heat: str = ""  # an opaque layer
    tile: str = ""  # small, with the outline
    mask: str = ""  # downloads, from here on
    overlay: str = ""
    heat_map: str = ""


class Example(NamedTuple):
    """An image to try the page with."""

    name: str
    content: bytes
    thumbnail: str  # data: URL
    is_drawn: bool  # by `dataset.synthetic`
    is_seen: bool  # as a card's


def look(name: str, content: bytes, predictor: Predictor) -> Card:
    """The card of an image. Raises ValueError with what is wrong with the file."""
    (prediction,) = predictor.predict([predictor.read(content)])
    view = view_of(content, prediction.size, LARGEST)
    shown, printed = scaled(view, VIEW), scaled(view, min(HEAT_MAP, max(view.size)))
    has_mask, has_heat = prediction.mask is not None, prediction.heat is not None
    mask = mask_at(prediction.mask, prediction.size) if has_mask else None
    return Card(
        name,
        prediction,
        row=[name, *values(prediction, mask, predictor.classes)],
        share=lesion_share(mask) if has_mask else None,
        is_seen=_is_seen(name, predictor.trained),
        original=as_url(shown),
        outline=as_url(outline_layer(prediction, shown.size), "PNG") if has_mask else "",
        heat=as_url(heat_layer(shown, prediction.heat)) if has_heat else "",
        tile=as_url(tile_of(view, prediction)),
        mask=as_url(Image.fromarray(mask), "PNG") if has_mask else "",
        overlay=as_url(overlay(view, prediction, predictor.classes, mask)),
        heat_map=as_url(heat_map(printed, prediction, predictor.classes)) if has_heat else "",
    )


def tile_of(view: Image.Image, prediction: Prediction) -> Image.Image:
    """A small image with its outline, for the overview."""
    tile = scaled(view, TILE)
    if prediction.mask is not None:
        layer = outline_layer(prediction, tile.size)
        tile.paste(layer, mask=layer)
    return tile


def scaled(image: Image.Image, side: int) -> Image.Image:
    """The image with a longest side of `side` pixels."""
    scale = side / max(image.size)
    return image.resize([max(1, round(scale * length)) for length in image.size])


def outline_layer(prediction: Prediction, size: tuple[int, int]) -> Image.Image:
    """The mask's contour alone, at `size` (width, height), as a layer over the image."""
    layer, mask = Image.new("RGBA", size), mask_at(prediction.mask, size) > 0
    if mask.any():
        layer.paste(*contour(mask))
    return layer


def render(cards: Sequence[Card], problems: Sequence[str], predictor: Predictor) -> str:
    """The problems and the cards as HTML, with an overview if there are several cards."""
    header = distinct(["file", *columns(predictor)])
    stems = output_names([card.name for card in cards])
    return TEMPLATES.get_template("cards.html").render(
        cards=[card._replace(stem=stem) for card, stem in zip(cards, stems)],
        LARGEST=LARGEST,
        problems=problems,
        names=[name_of(code) for code in predictor.classes],
        is_calibrated=predictor.trained.is_calibrated,
        localises=predictor.trained.localises,
        heat_remarks=heat_remarks(predictor.trained),
        UNLIKE=UNLIKE,
        is_unlike=is_unlike,
        set_in_words=lambda prediction: name_set(prediction.members, predictor.classes),
        target=predictor.trained.sets.get("target"),
        always=name_set(always_in_sets(predictor.trained), predictor.classes),
        PLURALS=thresholds.PLURALS,
        NO_TAU=thresholds.NO_TAU,
        certainty=lambda probability: thresholds.certainty(probability).replace(" ", "\xa0"),
        percent=lambda share: thresholds.percent(share).replace(" ", "\xa0"),
        table=lambda chosen: table(header, [card.row for card in chosen]),
    )


def picker(examples: Sequence[Example]) -> str:
    """The image picker as HTML: a field to drop files on, and the examples."""
    return TEMPLATES.get_template("picker.html").render(examples=examples)


def _is_seen(name: str, trained: Trained) -> bool:
    return bool(named_as_seen(trained, [name])[0])


def example_of(path: str | Path, trained: Trained) -> Example:
    """A file as an example. Raises as `images.read_image`."""
    content = Path(path).read_bytes()
    name = os.fsencode(os.path.basename(path)).decode(errors="replace")
    thumbnail = as_url(images.read_image(content, THUMBNAIL))
    return Example(name, content, thumbnail, shows_drawing(path), _is_seen(name, trained))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A CSV file as a data: URL."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return "data:text/csv;charset=utf-8," + quote(text.getvalue())


def as_url(image: Image.Image, kind: str = "JPEG") -> str:
    """An image as a data: URL."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=90)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
