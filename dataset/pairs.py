"""Which mask is of which image: called as it, of its part, and in the folder that is nearest."""

from collections.abc import Iterable, Sequence
from functools import cache

from dataset.classes import code_of
from dataset.files import Mask
from dataset.folders import diagnosis_in
from dataset.names import File, bare, loose, one_of, refuse_two_places
from dataset.roles import part_of_name, role_of_name


def by_image(masks: Iterable[Mask], stems: Iterable[str]) -> dict[str, list[Mask]]:
    """Masks by the name of their image; a loose spelling counts where it is one image's, that has no other mask."""
    found: dict[str, list[Mask]] = {}
    left = list(masks)
    for spelling in (str, loose, bare):
        called: dict[str, list[str]] = {}
        for stem in stems if left else ():
            if stem not in found:
                called.setdefault(spelling(stem), []).append(stem)
        stay = []
        for mask in left:
            images = (called.get(spelling(name), []) for name in mask.of)
            if stem := next((some[0] for some in images if len(some) == 1), ""):
                found.setdefault(stem, []).append(mask)
            else:
                stay.append(mask)
        left = stay
    return found


def masks_of(files: Sequence[File | None], masks: Sequence[Mask]) -> list[Mask | None]:
    """The mask of each image: called as it, of its part, and in the folder that is nearest; None for none.

    Raises
    ------
    ValueError : an image has several masks that differ, in different folders.
    """
    alike: dict[str, list[File]] = {}
    for file in {file.path: file for file in files if file}.values():
        alike.setdefault(file.stem, []).append(file)
    of_image = by_image(masks, alike)
    chosen: list[Mask | None] = []
    doubtful: dict[str, list[File]] = {}
    for file in files:
        some = of_image.get(file.stem, []) if file else []
        if len(some) == 1 and len(alike[file.stem]) == 1 and not (file.part and some[0].file.part):
            chosen.append(some[0])  # as nearly all are
            continue
        mask, several = _one_mask(file, some, alike[file.stem]) if some else (None, [])
        if several:
            doubtful[file.stem] = several
        chosen.append(mask)
    remedy = "Keep one: a folder whose name begins with a dot is passed over, and masks/train/ goes with images/train/."
    refuse_two_places(doubtful, "mask", remedy)
    return chosen


def _one_mask(image: File, masks: list[Mask], alike: list[File]) -> tuple[Mask | None, list[File]]:
    """An image's mask of some that are called so, or the files between which it is not known."""
    near = _masks_near(image, masks, alike)
    if len(near) > 1 and not one_of([mask.file for mask in near]):
        return None, [mask.file for mask in near]
    if near and (
        rivals := [one for one in alike if one != image and _nearness(one, near[0]) == _nearness(image, near[0])]
    ):
        return None, [image, *rivals]
    return (near[0] if near else None), []


def _masks_near(image: File, masks: list[Mask], alike: list[File]) -> list[Mask]:
    """Of masks that are called as an image, those that belong to it rather than to another one called the same."""
    masks = [mask for mask in masks if not (image.part and mask.file.part) or image.part == mask.file.part]
    masks = [mask for mask in masks if _nearness(image, mask) == max(_nearness(other, mask) for other in alike)]
    if len(masks) > 1:
        closest = max(_nearness(image, mask) for mask in masks)
        masks = [mask for mask in masks if _nearness(image, mask) == closest]
    if len({mask.file.place for mask in masks}) == 1:
        least = min(mask.rank for mask in masks)
        masks = [mask for mask in masks if mask.rank == least]
    return masks


def _nearness(image: File, mask: Mask) -> tuple[bool, int]:
    """Whether the folders of an image and a mask are called alike but for their roles, and how many they share."""
    part = image.part == mask.file.part
    shared = 0
    for a, b in zip(image.place, mask.file.place):
        if a != b:
            break
        shared += 1
    return part and _but_for_roles(image.place) == _but_for_roles(mask.file.place), shared


@cache
def _but_for_roles(place: tuple[str, ...]) -> list[str]:
    """What folders are called, less roles and parts."""
    diagnoses = [code_of(diagnosis_in(name)) for name in place]
    return [
        code or name for code, name in zip(diagnoses, place) if code or not (role_of_name(name) or part_of_name(name))
    ]
