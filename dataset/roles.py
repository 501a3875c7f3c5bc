"""What the names of folders and files say of the pictures in them: image, mask, part of a split, or nothing."""

import re
from collections.abc import Sequence
from functools import lru_cache

READABLE = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp")
UNREADABLE = (  # pictures of kinds that are not decoded
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
EITHER_WORDS = frozenset(["binary", "binaries", "binarized", "binarised", "bw"])  # masks, or of two classes
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
# What sets a folder aside, or numbers it, rather than naming a diagnosis, alone or with digits.
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
# A mask beside its image is called as the image with one of these words; the weak ones count where there is such an
# image, and what they end is drawn. The first of them may end a photograph's own name; the last are neither.
GLUED = "glued"  # a word that is none of its own: amask, a (mask), mask3
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


def is_picture(name: str) -> bool:
    return name.lower().endswith(READABLE) and not name.startswith(".")


def is_unreadable(name: str) -> bool:
    return name.lower().endswith(UNREADABLE) and not name.startswith(".")


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case, with its numbers.

    Examples
    --------
    >>> words_of("ISIC2018_Task1-2_TrainingInput")
    ('isic', '2018', 'task', '1', '2', 'training', 'input')
    >>> words_of("trainannot"), words_of("trainx")  # x is what is shown, and y what is to be learned
    (('train', 'annot'), ('train', 'images'))
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    found = []
    for word in re.findall(r"[^\W\d_]+|\d+", spaced.lower()):
        glued = _GLUED_PART.fullmatch(word)
        found += [glued[1], {"x": "images", "y": "masks"}.get(glued[2], glued[2])] if glued else [word]
    return tuple(
        "groundtruth" if one == "truth" and i and found[i - 1] == "ground" else one for i, one in enumerate(found)
    )


@lru_cache(maxsize=4096)
def role_of_name(name: str) -> str:
    """What a folder's own name says of its pictures: "" for nothing, `DOUBT` for two things."""
    words = set(words_of(name))
    if words & OTHER_WORDS:
        return OTHER
    if words & MASK_WORDS:
        return DOUBT if words & IMAGE_WORDS else MASK
    if words & EITHER_WORDS:
        return DOUBT
    return IMAGE if words & IMAGE_WORDS else ""


def role_of(place: Sequence[str]) -> str:
    """What the nearest telling one of a picture's folders says of it."""
    return next(filter(None, map(role_of_name, reversed(place))), "")


@lru_cache(maxsize=4096)
def part_of_name(name: str) -> str:
    """The part of a split that a folder's or table's name, or a cell, stands for; "" for none, or for several."""
    parts = {PART_WORDS[word] for word in words_of(name) if word in PART_WORDS}
    return parts.pop() if len(parts) == 1 else ""


def part_of(place: Sequence[str]) -> str:
    """The part of the nearest of a picture's folders that names one."""
    return next(filter(None, map(part_of_name, reversed(place))), "")


@lru_cache(maxsize=4096)
def is_neutral(name: str) -> bool:
    """Whether a folder's name can be no diagnosis: it tells a role or a part, or numbers something."""
    words = words_of(name)
    counts = all(word.isdigit() or word in NEUTRAL_WORDS for word in words)
    return counts or bool(role_of_name(name)) or bool(part_of_name(name))


def is_numbered(name: str) -> bool:
    """Whether a folder's name is rather a number's than a diagnosis: it holds digits, and no word for class."""
    return any(one.isdigit() for one in name) and words_of(name)[0] not in CLASS_WORDS


def mask_of(stem: str) -> tuple[tuple[str, ...], str]:
    """The image that a file's name says that it is a mask of, likeliest first, and the word that says so; () for none.

    Examples
    --------
    >>> mask_of("a_Mask"), mask_of("mask_a"), mask_of("ISIC_1_superpixels"), mask_of("amask"), mask_of("a")
    ((('a',), 'mask'), (('a',), 'mask'), (('ISIC_1',), 'superpixels'), (('a',), 'glued'), ((), ''))
    >>> mask_of("a_mask_1"), mask_of("a_mask1"), mask_of("mask1")
    ((('a_1', 'a'), 'mask'), (('a1', 'a_1', 'a'), 'mask'), (('1',), 'glued'))
    """
    if stem[-1:].isdigit() and not _WORD.search(stem):  # as nearly all names of photographs
        return (), ""
    if found := _ENDING.fullmatch(stem):
        image, between, word, behind, number = found.groups()
        numbered = (image + behind, image + between + number) if number else ()
        return tuple(dict.fromkeys((*numbered, image))), word.lower()
    if found := _BEGINNING.fullmatch(stem):
        return (found[3],), found[1].lower() if found[2] else GLUED
    if found := _GLUED.fullmatch(stem):
        return (found[1],), GLUED
    return (), ""
