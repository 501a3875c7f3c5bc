"""Infer from the names of folders and files whether they hold images, masks, or a part of a split."""

import re
from collections.abc import Sequence
from functools import lru_cache

READABLE = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp")
UNREADABLE = (  # unsupported image formats
    *(".heic", ".heif", ".avif", ".gif", ".jp2", ".j2k", ".jxl", ".dcm", ".dicom", ".svg", ".psd", ".raw", ".cr2"),
    *(".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".ppm", ".pgm", ".pbm", ".eps"),
)
IMAGE, MASK, OTHER, DOUBT = "image", "mask", "other", "doubt"
SPLITS = ("train", "val", "test")
IMAGE_WORDS = frozenset(
    [
        "image",
        "images",
        "img",
        "imgs",
        "input",
        "inputs",
        "photo",
        "photos",
        "photograph",
        "photographs",
        "picture",
        "pictures",
        "pic",
        "pics",
        "jpg",
        "jpeg",
        "jpegs",
        "jpegimages",
        "png",
        "pngs",
        "dermoscopic",
        "dermoscopy",
        "rgb",
        "original",
        "originals",
    ]
)
MASK_WORDS = frozenset(
    [
        "mask",
        "masks",
        "segmentation",
        "segmentations",
        "segmented",
        "seg",
        "segs",
        "segm",
        "gt",
        "gts",
        "groundtruth",
        "groundtruths",
        "truth",
        "annotation",
        "annotations",
        "annot",
        "annots",
        "label",
        "labels",
        "contour",
        "contours",
        "outline",
        "outlines",
        "delineation",
        "delineations",
    ]
)
EITHER_WORDS = frozenset(["binary", "binaries", "binarized", "binarised", "bw"])  # masks, or images of two classes
OTHER_WORDS = frozenset(
    [
        "superpixels",
        "superpixel",
        "thumbnail",
        "thumbnails",
        "thumbs",
        "preview",
        "previews",
        "overlay",
        "overlays",
        "heatmap",
        "heatmaps",
        "roi",
        "rois",
        "docs",
        "doc",
        "documentation",
        "figure",
        "figures",
        "figs",
        "plots",
        "screenshots",
        "readme",
        "paper",
        "slides",
    ]
)
PART_WORDS = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "valset", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tests", "testset", "tst", "holdout", "heldout"), "test"),
}
# Words that set a folder aside or number it, alone or with digits, rather than name a diagnosis.
SPARE_WORDS = frozenset(
    ["backup", "backups", "old", "new", "copy", "copies", "tmp", "temp", "unused", "extra", "extras"]
)
NEUTRAL_WORDS = SPARE_WORDS | frozenset(
    [
        "part",
        "parts",
        "batch",
        "batches",
        "fold",
        "folds",
        "chunk",
        "chunks",
        "set",
        "sets",
        "subset",
        "subsets",
        "split",
        "splits",
        "group",
        "groups",
        "patient",
        "patients",
        "pat",
        "subject",
        "subjects",
        "case",
        "cases",
        "visit",
        "visits",
        "session",
        "series",
        "site",
        "centre",
        "center",
        "clinic",
        "hospital",
        "year",
        "folder",
        "dir",
        "data",
        "dataset",
        "archive",
        "isic",
        "ham",
        "task",
        "v",
        "version",
        "lesion",
        "lesions",
        "all",
    ]
)
CLASS_WORDS = frozenset(["class", "label", "diagnosis", "dx", "category", "type", "grade", "stage"])
# A mask beside its image has the image's name with one of these words. A weak word counts only if that image exists and
# the file looks like a mask. `PHOTOGRAPH_ENDINGS` may also end an image's name; `OTHER_ENDINGS` are neither.
GLUED = "glued"  # a word without a separator: amask, a (mask), mask3
PHOTOGRAPH_ENDINGS = ("lesion", "m")
OTHER_ENDINGS = ("overlay", "overlays", "thumb", "thumbnail", "preview", "heatmap", "roi")
_WEAK = (*PHOTOGRAPH_ENDINGS, "label", "labels", "contour", "binary", "bw", "annotation", "msk", *OTHER_ENDINGS)
WEAK_ENDINGS = (*_WEAK, GLUED)
ENDINGS = (
    *("segmentation", "segmentations", "mask", "masks", "seg", "segm", "gt", "groundtruth", "ground_truth"),
    *("binary_mask", "segmentation_mask", "lesion_mask", "superpixels", "superpixel", *_WEAK),
)
_ENDING = re.compile(rf"(.+?)([_\-. ])({'|'.join(ENDINGS)})([_\- ]?(\d+))?", re.IGNORECASE)
_WORD = re.compile(
    "mask|seg|gt|truth|superpixel|lesion|label|contour|binary|bw|roi|annotation|overlay|thumb|preview|heatmap|msk",
    re.IGNORECASE,
)
_GLUED_PART = re.compile(rf"({'|'.join(PART_WORDS)})({'|'.join(sorted(IMAGE_WORDS | MASK_WORDS))}|[xy])")
_GLUED = re.compile(r"(.+?)(?: ?\(mask\)|mask|msk)", re.IGNORECASE)
_BEGINNING = re.compile(r"(mask|segmentation|seg|gt)([_\-. ]|(?=\d))(.+)", re.IGNORECASE)


def is_image(name: str) -> bool:
    return name.lower().endswith(READABLE) and not name.startswith(".")


def is_unreadable(name: str) -> bool:
    return name.lower().endswith(UNREADABLE) and not name.startswith(".")


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """The words and numbers of a name, in lower case.

    Examples
    --------
    >>> words_of("ISIC2018_Task1-2_TrainingInput")
    ('isic', '2018', 'task', '1', '2', 'training', 'input')
    >>> words_of("trainannot"), words_of("trainx")  # x is the input, y the target
    (('train', 'annot'), ('train', 'images'))
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = []
    for word in re.findall(r"[^\W\d_]+|\d+", spaced.lower()):
        glued = _GLUED_PART.fullmatch(word)
        words += [glued[1], {"x": "images", "y": "masks"}.get(glued[2], glued[2])] if glued else [word]
    return tuple(
        "groundtruth" if word == "truth" and i and words[i - 1] == "ground" else word for i, word in enumerate(words)
    )


@lru_cache(maxsize=4096)
def role_of_name(name: str) -> str:
    """The role that a folder's own name gives its files: "" for none, `DOUBT` if it is ambiguous."""
    words = set(words_of(name))
    if words & OTHER_WORDS:
        return OTHER
    if words & MASK_WORDS:
        return DOUBT if words & IMAGE_WORDS else MASK
    if words & EITHER_WORDS:
        return DOUBT
    return IMAGE if words & IMAGE_WORDS else ""


def role_of(place: Sequence[str]) -> str:
    """The role from the nearest folder whose name gives one."""
    return next(filter(None, map(role_of_name, reversed(place))), "")


@lru_cache(maxsize=4096)
def part_of_name(name: str) -> str:
    """The part of a split in the name of a folder or table, or in a cell; "" for none or several."""
    parts = {PART_WORDS[word] for word in words_of(name) if word in PART_WORDS}
    return parts.pop() if len(parts) == 1 else ""


def part_of(place: Sequence[str]) -> str:
    """The part from the nearest folder that names one."""
    return next(filter(None, map(part_of_name, reversed(place))), "")


@lru_cache(maxsize=4096)
def is_neutral(name: str) -> bool:
    """Whether a folder's name cannot be a diagnosis, because it gives a role, a part or a number."""
    words = words_of(name)
    is_numbering = all(word.isdigit() or word in NEUTRAL_WORDS for word in words)
    return is_numbering or bool(role_of_name(name)) or bool(part_of_name(name))


def is_numbered(name: str) -> bool:
    """Whether a folder's name is probably a number, not a diagnosis: it has digits, and no word for class."""
    return any(character.isdigit() for character in name) and words_of(name)[0] not in CLASS_WORDS


def mask_of(stem: str) -> tuple[tuple[str, ...], str]:
    """Possible images of a mask, by its file name, most likely first, and the word for mask; () for no mask.

    Examples
    --------
    >>> mask_of("a_Mask"), mask_of("mask_a"), mask_of("ISIC_1_superpixels"), mask_of("amask"), mask_of("a")
    ((('a',), 'mask'), (('a',), 'mask'), (('ISIC_1',), 'superpixels'), (('a',), 'glued'), ((), ''))
    >>> mask_of("a_mask_1"), mask_of("a_mask1"), mask_of("mask1")
    ((('a_1', 'a'), 'mask'), (('a1', 'a_1', 'a'), 'mask'), (('1',), 'glued'))
    """
    if stem[-1:].isdigit() and not _has_word(stem.rstrip("0123456789")):  # the usual name of an image
        return (), ""
    if match := _ENDING.fullmatch(stem):
        image, between, word, after, number = match.groups()
        numbered = (image + after, image + between + number) if number else ()
        return tuple(dict.fromkeys((*numbered, image))), word.lower()
    if match := _BEGINNING.fullmatch(stem):
        return (match[3],), match[1].lower() if match[2] else GLUED
    if match := _GLUED.fullmatch(stem):
        return (match[1],), GLUED
    return (), ""


@lru_cache(maxsize=4096)
def _has_word(text: str) -> bool:
    """Names that differ only in their final number share an entry of the cache."""
    return bool(_WORD.search(text))
