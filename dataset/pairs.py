"""Match masks to images: by name, by part, and by the nearest folder."""

from collections.abc import Iterable, Sequence
from functools import cache

from dataset.classes import code_of
from dataset.files import Mask
from dataset.folders import diagnosis_in
from dataset.names import File, bare, loose, one_of, refuse_two_places
from dataset.roles import part_of_name, role_of_name


def by_image(masks: Iterable[Mask], stems: Iterable[str]) -> dict[str, list[Mask]]:
    """Masks by image name; a loose spelling counts if it fits one image, which has no other mask."""
    matches: dict[str, list[Mask]] = {}
    unmatched = list(masks)
    for spelling in (str, loose, bare):
        by_key: dict[str, list[str]] = {}
        for stem in stems if unmatched else ():
            if stem not in matches:
                by_key.setdefault(spelling(stem), []).append(stem)
        remaining = []
        for mask in unmatched:
            images = (by_key.get(spelling(name), []) for name in mask.of)
            if stem := next((same[0] for same in images if len(same) == 1), ""):
                matches.setdefault(stem, []).append(mask)
            else:
                remaining.append(mask)
        unmatched = remaining
    return matches


def masks_of(files: Sequence[File | None], masks: Sequence[Mask]) -> list[Mask | None]:
    """The mask of each image, by name, part and nearest folder; None for none.

    Raises
    ------
    ValueError : an image has several different masks, in different folders.
    """
    alike: dict[str, list[File]] = {}
    for file in {file.path: file for file in files if file}.values():
        alike.setdefault(file.stem, []).append(file)
    of_image = by_image(masks, alike)
    chosen: list[Mask | None] = []
    doubtful: dict[str, list[File]] = {}
    for file in files:
        candidates = of_image.get(file.stem, []) if file else []
        if len(candidates) == 1 and len(alike[file.stem]) == 1 and not (file.part and candidates[0].file.part):
            chosen.append(candidates[0])  # the usual case
            continue
        mask, several = _one_mask(file, candidates, alike[file.stem]) if candidates else (None, [])
        if several:
            doubtful[file.stem] = several
        chosen.append(mask)
    remedy = "Keep one: folders whose names begin with a dot are skipped, and masks/train/ goes with images/train/."
    refuse_two_places(doubtful, "mask", remedy)
    return chosen


def _one_mask(image: File, masks: list[Mask], alike: list[File]) -> tuple[Mask | None, list[File]]:
    """The mask of an image among candidates, or the files that are equally good."""
    near = _masks_near(image, masks, alike)
    if len(near) > 1 and not one_of([mask.file for mask in near]):
        return None, [mask.file for mask in near]
    if near and (
        rivals := [
            other for other in alike if other != image and _nearness(other, near[0]) == _nearness(image, near[0])
        ]
    ):
        return None, [image, *rivals]
    return (near[0] if near else None), []


def _masks_near(image: File, masks: list[Mask], alike: list[File]) -> list[Mask]:
    """Among masks with the name of an image, those nearer to it than to another image of that name."""
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
    """Whether the folders of an image and a mask differ only in their roles, and how many they share."""
    part = image.part == mask.file.part
    shared = 0
    for a, b in zip(image.place, mask.file.place):
        if a != b:
            break
        shared += 1
    return part and _without_roles(image.place) == _without_roles(mask.file.place), shared


@cache
def _without_roles(place: tuple[str, ...]) -> list[str]:
    """The folder names, without roles and parts."""
    diagnoses = [code_of(diagnosis_in(name)) for name in place]
    return [
        code or name for code, name in zip(diagnoses, place) if code or not (role_of_name(name) or part_of_name(name))
    ]
