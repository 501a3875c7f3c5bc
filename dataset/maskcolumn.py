"""Masks named in a column of a table, beside the images."""

from collections.abc import Sequence

from dataset.columns import MASK_COLUMNS, find_column
from dataset.files import Contents, as_mask
from dataset.names import File, Index, named
from dataset.sources import Source


def paired(contents: Contents, tables: Sequence[Source]) -> Contents:
    """Pair images with the masks that mask columns of these tables name; such files are not images.

    A cell counts if it names exactly one file that no table names as an image, because 0 and 1 may be answers.
    """
    if not any(find_column(table.rows, MASK_COLUMNS) for table in tables):
        return contents
    files = Index([*contents.images, *contents.unassigned, *contents.orphans, *(mask.file for mask in contents.masks)])
    images: set[str] = set()
    mask_of: dict[str, File] = {}
    for table in tables:
        if column := find_column(table.rows, MASK_COLUMNS):
            if n := sum(bool(named(cell).suffix) and cell not in files for cell in table.rows[column]):
                contents.skipped[f"masks named in {table.name} are missing"] += n
            pairs = list(zip(*(files.files_of(list(table.rows[name])) for name in ("image", column))))
            images |= {image[0].path for image, _ in pairs if len(image) == 1}
            mask_of |= {
                image[0].path: mask[0] for image, mask in pairs if len(image) == len(mask) == 1 and image != mask
            }
    taken = {file.path for file in mask_of.values()} - images
    pairs = {path: as_mask(file) for path, file in mask_of.items() if file.path in taken}
    groups = (contents.images, contents.unassigned, contents.orphans)
    images, unassigned, orphans = ([file for file in files if file.path not in taken] for files in groups)
    masks = [mask for mask in contents.masks if mask.file.path not in taken] + list(pairs.values())
    return contents._replace(images=images, unassigned=unassigned, orphans=orphans, masks=masks, pairs=pairs)
