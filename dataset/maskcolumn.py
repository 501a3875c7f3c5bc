"""Masks that a table's column names beside the images."""

from collections.abc import Sequence

from dataset.columns import MASK_COLUMNS, find_column
from dataset.files import Found, as_mask
from dataset.names import File, Index, named
from dataset.sources import Source


def paired(found: Found, tables: Sequence[Source]) -> Found:
    """The same with the masks that columns of these tables name for images, which are no images then.

    What a cell names counts if it is one file, and none that a table names as an image: 0 and 1 may be answers.
    """
    files = Index([*found.images, *found.untold, *found.orphans, *(mask.file for mask in found.masks)])
    images: set[str] = set()
    mask_of: dict[str, File] = {}
    for one in tables:
        if column := find_column(one.rows, MASK_COLUMNS):
            if n := sum(bool(named(cell).suffix) and cell not in files for cell in one.rows[column]):
                found.passed_over[f"masks that {one.name} names are not there"] += n
            pairs = list(zip(*(files.files_of(list(one.rows[name])) for name in ("image", column))))
            images |= {image[0].path for image, _ in pairs if len(image) == 1}
            mask_of |= {
                image[0].path: mask[0] for image, mask in pairs if len(image) == len(mask) == 1 and image != mask
            }
    taken = {file.path for file in mask_of.values()} - images
    pairs = {path: as_mask(file) for path, file in mask_of.items() if file.path in taken}
    left = (found.images, found.untold, found.orphans)
    images, untold, orphans = ([file for file in some if file.path not in taken] for some in left)
    masks = [mask for mask in found.masks if mask.file.path not in taken] + list(pairs.values())
    return found._replace(images=images, untold=untold, orphans=orphans, masks=masks, pairs=pairs)
