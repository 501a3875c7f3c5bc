"""Decode a mask file: which pixels are lesion.

Few values are an index mask: all but 0 is lesion, and 255 beside small numbers is "void", not lesion. Many values are
gray levels, cut at half of their range. Colours of equal gray are separated by their brightest channel, and transparent
pixels are not lesion. No drawn mask becomes empty in this way.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from dataset.opening import FORMATS, MAX_PIXELS, damage_reported, eight_bit, opened, orientation_of, stream_of, upright

ASPECT_TOLERANCE = 0.02  # relative; a mask with a larger difference belongs to another image
FEW = 8  # maximum number of values of an index mask
SMALL = 31  # maximum region number beside which 255 is "void"
LEAST_INDEX = 0.1  # minimum ratio of small numbers to 255 for "void"; fewer are JPEG noise
SOLID = 5  # pixels; side of a square of one small number that is not noise
SOFT = 8  # maximum distance from black or white of values on smoothed edges
BORDERED = 0.9  # minimum lesion share of each border in a mask that may be inverted
INVERTED, STRETCHED = "inverted", "stretched"  # how a mask is read
EMPTY, FULL, ALONG_BORDERS = "mask is empty", "mask is full", "mask is lesion along all four borders"


def decode_mask(
    content: bytes, image_size: tuple[int, int], orientation: int, how: str = ""
) -> tuple[Image.Image, str]:
    """A mask (L, 255 for lesion) at its own size, upright like its image, and a note on anything unusual.

    Parameters
    ----------
    image_size : size of the upright image.
    orientation : EXIF orientation of the image file; the mask may have been drawn on the stored pixels.
    how : `INVERTED`, `STRETCHED`, both or neither.

    Raises
    ------
    ValueError : not an image, a photograph, or another aspect ratio than its image.
    """
    image, _ = opened(content)
    with damage_reported():
        image.load()
    own_orientation = orientation_of(image)
    with damage_reported():
        gray = upright(_gray(image), own_orientation)
    if _is_photograph(image):
        raise ValueError("mask is a photograph")
    notes = []
    if orientation != 1 and own_orientation == 1:
        if orientation >= 5 and not same_aspect(gray.size, image_size):
            gray = upright(gray, orientation)
        elif orientation < 5 or same_aspect(gray.size, gray.size[::-1]):
            notes.append("image is rotated by EXIF, and its mask may not be")
    if STRETCHED not in how and not same_aspect(gray.size, image_size):
        raise ValueError(f"mask is {gray.width}x{gray.height}, image {image_size[0]}x{image_size[1]}")
    if _is_noisy(gray):
        gray = gray.point([255 * (value > 127) for value in range(256)])
        notes.append("mask has gray values")
    values = _values(gray)
    lesion, note = lesion_values(values)
    if INVERTED in how:
        void = {255} if _has_void(values) else set()
        lesion = sorted(set(values) - set(lesion) - void)
    is_mask = not set(values) - {0, 255} and lesion in ([], [255])  # the usual case
    mask = gray if is_mask else gray.point([255 * (value in lesion) for value in range(256)])
    if not lesion:
        notes.append(EMPTY)
    elif len(lesion) == len(values):
        notes.append(FULL)
    elif note:
        notes.append(note)
    if 0 < len(lesion) < len(values) and _fills_borders(mask):
        notes.append(ALONG_BORDERS)
    return mask, "; ".join(notes)


def lesion_values(values: list[int]) -> tuple[list[int], str]:
    """Which of a mask's gray values, in ascending order, are lesion, and a note if that is ambiguous.

    Examples
    --------
    >>> lesion_values([0, 1, 2])[0], lesion_values([0, 1, 255])[0], lesion_values([0, 255])
    ([1, 2], [1], ([255], ''))
    """
    if len(values) == 1:
        return [value for value in values if value], ""
    if len(values) == 2:
        return values[1:], ""
    near_white = values[-1] >= 255 - SOFT
    is_soft = len(values) > 3 and near_white and all(value <= SOFT or value >= 255 - SOFT for value in values)
    if len(values) > FEW or (is_soft and not _has_void(values)):
        middle = (values[0] + values[-1] + 1) // 2  # above half, like the organisers' threshold of more than 128 of 255
        return [value for value in values if value > middle], "mask has gray values"
    lesion = values[1:-1] if _has_void(values) else values[1:]
    return (
        lesion,
        f"mask has several values, of which all but the background are lesion ({', '.join(map(str, values))})",
    )


def _has_void(values: list[int]) -> bool:
    return len(values) > 2 and values[-1] == 255 and values[-2] <= SMALL


def _is_noisy(gray: Image.Image) -> bool:
    """Whether small numbers beside white are rare and scattered, i.e. noise in a binary mask, not an index."""
    counts, (*others, top) = gray.histogram(), _values(gray)
    is_two_toned = top >= 255 - SOFT and len(others) > 1 and all(n <= SMALL or n >= 255 - SOFT for n in others)
    if not is_two_toned or sum(counts[1 : SMALL + 1]) >= LEAST_INDEX * sum(counts[255 - SOFT :]):
        return False
    least, most = (np.asarray(gray.filter(kind(SOLID))) for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    return not ((least == most) & (least > 0) & (least <= SMALL)).any()


def _values(gray: Image.Image) -> list[int]:
    """The values, or palette indices, that occur in an image of one channel."""
    return [int(value) for value in np.flatnonzero(gray.histogram())]


def reduced(mask: Image.Image, size: int) -> Image.Image:
    """Resize a mask to the network's square; a lesion too small for it keeps one pixel."""
    small = mask.resize((size, size), Image.Resampling.NEAREST)
    if not small.getbbox() and (box := mask.getbbox()):
        y, x = (positions.mean() for positions in np.nonzero(np.asarray(mask.crop(box))))
        small.putpixel((int((box[0] + x) * size / mask.width), int((box[1] + y) * size / mask.height)), 255)
    return small


def _fills_borders(mask: Image.Image) -> bool:
    """Whether a mask is lesion along all four borders."""
    width, height = mask.size
    lines = (0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height)
    return all(np.asarray(mask.crop(line)).mean() >= BORDERED * 255 for line in lines)


def _is_photograph(image: Image.Image) -> bool:
    """Whether most of an image is coloured, in hundreds of colours."""
    if image.mode not in ("RGB", "CMYK", "YCbCr", "LAB", "HSV"):
        return False
    small = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.NEAREST)).reshape(-1, 3).astype(int)
    is_coloured = np.ptp(small, axis=1) > 16
    return is_coloured.mean() > 0.6 and (small.max(axis=1) < 16).mean() < 0.2 and len(np.unique(small, axis=0)) > 100


def _gray(image: Image.Image) -> Image.Image:
    """A mask as 8-bit gray, from its alpha channel, palette indices or colours, whichever holds the shape."""
    if image.mode[0] in "IF":
        return _gray_of_any_range(np.asarray(image))
    if image.mode == "P" and _has_void(_values(image)):
        return Image.fromarray(np.asarray(image))
    if ("A" in image.mode or "transparency" in image.info) and (alpha := _telling_alpha(image)):
        return alpha
    if image.mode == "L":
        return image
    colours = image.convert("RGB")
    gray = colours.convert("L")
    if image.mode == "P" and _hides_numbers(image, gray):
        return Image.fromarray(np.asarray(image))
    return gray if _varies(gray) or not _varies(colours) else _by_colour(np.asarray(colours))


def _telling_alpha(image: Image.Image) -> Image.Image | None:
    """The alpha channel if nothing else varies, or if it cuts a drawing out of a uniform background."""
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    low, high = alpha.getextrema()
    if low == high:
        return None
    colours, opacity = np.asarray(image.convert("RGB")), np.asarray(alpha)
    if not _varies(image.convert("RGB")):
        return alpha
    ground, drawn = colours[opacity == 0], colours[opacity == high]
    if not len(ground) or (ground != ground[0]).any():
        return None
    is_ground = (drawn == ground[0]).all(axis=1)
    is_whole = (drawn <= SOFT).all(axis=1).any() and (drawn >= 255 - SOFT).all(axis=1).any()
    return None if is_ground.any() or is_whole else alpha


def _hides_numbers(image: Image.Image, gray: Image.Image) -> bool:
    """Whether a palette shows several indices of an index mask as one gray, and the lowest index is darkest."""
    numbers = _values(image)
    if not len(_values(gray)) < len(numbers) <= FEW:
        return False
    return int(np.asarray(gray)[np.asarray(image) == numbers[0]][0]) == gray.getextrema()[0]


def _by_colour(colours: np.ndarray) -> Image.Image:
    """Separate colours of equal gray, (H, W, 3), by brightest channel, or else as equal to the first pixel or not."""
    brightest = colours.max(axis=2)
    differs = (colours != colours[0, 0]).any(axis=2)
    return Image.fromarray(brightest if np.ptp(brightest) else 255 * differs.astype(np.uint8))


def _varies(image: Image.Image) -> bool:
    return any(low < high for low, high in np.reshape(image.getextrema(), (-1, 2)))


def _gray_of_any_range(values: np.ndarray) -> Image.Image:
    """8-bit integers unchanged; other values as ranks if they are few, otherwise scaled to their range."""
    values = np.nan_to_num(values.astype(np.float64), nan=0, posinf=0, neginf=0)
    low, high = values.min(), values.max()
    if low >= 0 and high <= 255 and not (values % 1).any():
        return Image.fromarray(values.astype(np.uint8))
    distinct, rank = np.unique(values, return_inverse=True)
    if len(distinct) <= FEW:
        is_void = len(distinct) > 2 and distinct[-2] <= SMALL and distinct[-1] >= 255
        rank = rank.reshape(values.shape)
        return Image.fromarray(np.where(is_void & (rank == len(distinct) - 1), 255, rank).astype(np.uint8))
    return eight_bit((values - low) / (high - low) * 65535)


def same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) <= ASPECT_TOLERANCE


def is_drawn(path: str | Path) -> bool:
    """Whether a file looks like a mask: few gray values, or mostly black and white; False if unreadable."""
    try:
        image = Image.open(stream_of(path), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            return False
        if image.mode[0] in "IF":
            image = eight_bit(np.asarray(image))
        small = image.convert("RGB").resize((64, 64), Image.Resampling.NEAREST)
    except Exception:  # a damaged file can raise almost anything
        return False
    values = np.asarray(small).reshape(-1, 3).astype(int)
    n_values, is_coloured = len(np.unique(values, axis=0)), (np.ptp(values, axis=1) > 24).mean() > 0.05
    if is_coloured:
        return n_values <= 16 and (values.max(axis=1) == 0).mean() > 0.05
    ends = (values.mean(axis=1) < 32) | (values.mean(axis=1) > 223)
    return n_values <= 16 or ends.mean() > 0.9
