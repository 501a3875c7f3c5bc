"""Folders named after diagnoses, one per class; and those that only look like it."""

import shlex
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from dataset.choice import Choice, as_flag
from dataset.classes import NAMES, code_of, codes_of, in_order, is_known, is_no_diagnosis, key_of
from dataset.files import N_SAMPLED, Contents, are_drawn, as_mask, look_alike, sample_of
from dataset.labels import Labels
from dataset.names import File, one_of, refuse_two_places, unique_names
from dataset.roles import (
    NEUTRAL_WORDS,
    SPARE_WORDS,
    is_neutral,
    is_numbered,
    part_of_name,
    role_of_name,
    words_of,
)


def class_folders(
    folder: Path, contents: Contents, wanted: Choice
) -> tuple[pd.DataFrame, Labels | None, list[File], list[str]]:
    """Rows, labels (None if there are no class folders), files and remarks of a folder with one folder per class.

    Raises
    ------
    ValueError : the folders may or may not be classes; says why, and what to pass.
    """
    nothing = pd.DataFrame({"image": []}, dtype=str), None, [], []
    named = {file: _class_of(file, wanted) for file in [*contents.images, *contents.unassigned]}
    named = {file: name for file, name in named.items() if name}
    known = {name for name in set(named.values()) if diagnosis_in(name) or _is_chosen(name, wanted)}
    named, strays = _siblings(named, known)
    words = {file: diagnosis_in(name) or name for file, name in named.items()}
    of_words = codes_of(words.values())
    codes = {name: of_words[words[file]] for file, name in named.items()}
    if len(set(codes.values())) < 2:
        return nothing
    if not known and (all(map(is_numbered, codes)) or _are_pairs(named)):
        return nothing
    _refuse_several_sets(folder, named)
    remarks = _refuse_two_depths(named, codes, wanted)
    files, copies = _once(list(named), named)
    _refuse_same_images(folder, files, named)
    remarks += copies
    rows = pd.DataFrame({"image": unique_names(files)}, dtype=str)
    code = pd.Series([codes[named[file]] for file in files], dtype=object)
    code, reason = code.mask(code.map(is_no_diagnosis), ""), pd.Series("", index=code.index)
    reason = reason.mask(code == "", "labelled by its folder, which is not a diagnosis")
    classes = in_order(set(code) - {""})
    if strays:
        remarks.append(f"Folders not treated as classes: {', '.join(sorted(strays)[:6])}.")
    merged = [
        f"{' and '.join(same)} are {code}"
        for code in classes
        if len(same := sorted({name for name in codes if codes[name] == code})) > 1
    ]
    remarks += [f"Folders of one class: {'; '.join(merged)}."] if merged else []
    return rows, Labels(f"{len(classes)} folders, one per class", classes, code, reason), files, remarks


def _class_of(file: File, wanted: Choice) -> str:
    """The folder that may name an image's class: the nearest known diagnosis, or else the nearest possible one."""
    for is_class in (
        lambda name: _is_chosen(name, wanted),
        diagnosis_in,
        lambda name: not is_neutral(name),
    ):
        if name := next(filter(is_class, reversed(file.place)), ""):
            return name
    return ""


def _is_chosen(name: str, wanted: Choice) -> bool:
    chosen = {key_of(code) for code in wanted.wanted()}
    return bool(chosen) and key_of(code_of(diagnosis_in(name) or name)) in chosen


@lru_cache(maxsize=4096)
def diagnosis_in(name: str) -> str:
    """The known diagnosis in a folder's name, without words for roles, parts and numbers; "" for none.

    Examples
    --------
    >>> diagnosis_in("Melanoma, NOS"), diagnosis_in("train_nevus_imgs_2"), diagnosis_in("images"), diagnosis_in("acne")
    ('Melanoma, NOS', 'nevus', '', '')
    """
    words, code = words_of(name), code_of(name)
    if not is_neutral(name):
        return name if code in NAMES or (is_known(code) and not set(words) & NEUTRAL_WORDS) else ""
    rest = " ".join(word for word in words if not is_neutral(word))
    return rest if code_of(rest) in NAMES else ""


def _siblings(named: dict[File, str], known: set[str]) -> tuple[dict[File, str], set[str]]:
    """The images in class folders; and the folders that are numbered or not beside a known class."""
    if not known:
        return named, set()
    places = {_above(file, name) for file, name in named.items() if name in known}
    kept = {
        file: name
        for file, name in named.items()
        if name in known or (_above(file, name) in places and not is_numbered(name))
    }
    _refuse_copies(kept, known)
    return kept, set(named.values()) - set(kept.values())


def _refuse_copies(named: dict[File, str], known: set[str]) -> None:
    """Raises ValueError if a folder with an unknown name holds the same file names as a known class."""
    stems = {file.stem for file, name in named.items() if name in known}
    for unknown in sorted(set(named.values()) - known):
        own = {file.stem for file, name in named.items() if name == unknown}
        if 2 * len(own & stems) >= len(own):
            raise ValueError(
                f"The folder {unknown} holds the same file names as {', '.join(sorted(known)[:4])}, like copies. If it "
                f"is a class, pass {as_flag([*sorted(known), unknown])}; otherwise move it out of the data folder."
            )


def _above(file: File, name: str) -> tuple[str, ...]:
    """The folders above the class folder, except parts of a split."""
    place = file.place[: len(file.place) - 1 - file.place[::-1].index(name)]
    return tuple(name for name in place if not part_of_name(name))


def _are_pairs(named: dict[File, str]) -> bool:
    """Whether two folders hold the same file names, like images and masks."""
    stems: dict[str, set[str]] = {}
    for file, name in named.items():
        stems.setdefault(name, set()).add(file.stem)
    sets = list(stems.values())
    return any(2 * len(a & b) >= min(len(a), len(b)) for i, a in enumerate(sets) for b in sets[:i])


def refuse_pairs(folder: Path, contents: Contents) -> Contents:
    """Tell images from masks by content if folders hold the same file names.

    Raises
    ------
    ValueError : the folders might be classes, but are not named like it; says what to pass.
    """
    files = contents.unassigned
    named = {file: _class_of(file, Choice({})) or (file.place[-1] if file.place else "") for file in files}
    names = sorted(set(named.values()) - {""})
    if contents.images or len(names) < 2:
        return contents
    groups = {name: [file for file in named if named[file] == name] for name in names}
    drawn = [name for name in names if are_drawn(groups[name])]
    if _are_pairs(named) and 0 < len(drawn) < len(names):
        images = [file for file in files if named[file] not in drawn]
        masks = [as_mask(file) for file in files if named[file] in drawn]
        return contents._replace(unassigned=images, masks=[*contents.masks, *masks])
    if contents.masks:
        return contents
    if all(map(is_neutral, names)):
        why = "are named after parts, numbers or roles"
    elif _are_pairs(named):
        why = "hold the same file names, like images and their masks"
    else:
        why = "are numbered"
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    raise ValueError(
        f"{folder} has no table of diagnoses, and its folders {shown} {why}, so they are not treated as classes. "
        f"Expected GroundTruth.csv, or one folder per class. If they are classes, pass {as_flag(names[:6])}"
    )


def _refuse_several_sets(folder: Path, named: dict[File, str]) -> None:
    """Raises ValueError if several places hold one folder per class and are not parts of one data set."""
    below: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
    for file, class_name in named.items():
        place = _above(file, class_name)
        meaningful = tuple(name for name in place if not is_neutral(name) or set(words_of(name)) & SPARE_WORDS)
        below.setdefault(meaningful, {})[key_of(class_name)] = place
    several = [next(iter(names.values())) for names in below.values() if len(names) > 1]
    if len(several) > 1:
        places = [str(folder.joinpath(*place)) for place in several]
        raise ValueError(
            f"{' and '.join(places[:4])} hold one folder per class each. Pass one of them: "
            f"--data-dir {shlex.quote(places[0])}"
        )


def _refuse_same_images(folder: Path, files: Sequence[File], named: dict[File, str]) -> None:
    """Raises ValueError if two folder trees hold the same images of one part, or images and their masks."""
    trees: dict[tuple[str, ...], int] = Counter()
    first: dict[tuple[str, str], File] = {}
    same: dict[tuple, list[tuple[File, File]]] = {}
    for file in files:
        trees[tree := _tree(file, named)] += 1
        other = first.setdefault((key_of(named[file]), file.stem), file)
        if (of_other := _tree(other, named)) != tree:
            same.setdefault((of_other, tree), []).append((other, file))
    for (a, b), pairs in sorted(same.items(), key=lambda item: -len(item[1]))[:N_SAMPLED]:
        outside = [[name for name in tree if not part_of_name(name)] for tree in (a, b)]
        differ_in_part = outside[0] == outside[1]
        if 2 * len(pairs) < min(trees[a], trees[b]) or (differ_in_part and pairs[0][0].part != pairs[0][1].part):
            continue
        drawn = [are_drawn(tree) for tree in zip(*pairs)]
        alike = [look_alike(*pair) for pair in sample_of(pairs)]
        words = {word for name in {*a} ^ {*b} if not diagnosis_in(name) for word in words_of(name)}
        is_numbered_anew = all(is_neutral(word) and not role_of_name(word) for word in words - SPARE_WORDS)
        if drawn[0] != drawn[1] or 2 * sum(alike) > len(alike) or not is_numbered_anew:
            content = "masks for the other" if drawn[0] != drawn[1] else "copies of the other"
            raise ValueError(
                f"Two folder trees in {folder} hold the same classes and file names, such as "
                f"{pairs[0][0].shown} and {pairs[0][1].shown}, as if one held {content}. Name a folder of masks masks, "
                "move copies out of the data folder, and give different images different names."
            )


def _tree(file: File, named: dict[File, str]) -> tuple[str, ...]:
    """The folders of an image, without its class folder."""
    last = len(file.place) - 1 - file.place[::-1].index(named[file])
    return file.place[:last] + file.place[last + 1 :]


def _refuse_two_depths(named: dict[File, str], codes: dict[str, str], wanted: Choice) -> list[str]:
    """A remark on class folders nested in others.

    Raises
    ------
    ValueError : images lie in a class folder and in another one below it, and no classes are chosen.
    """
    if wanted.members:
        return []
    outer: set[str] = set()
    for file in named:
        top = next(name for name in file.place if name in codes or diagnosis_in(name))
        outer.add(codes.get(top) or code_of(diagnosis_in(top)))
    flags = [as_flag(sorted(classes)) for classes in (outer, set(codes.values()))]
    for file, name in named.items():
        if above := next((parent for parent in file.place[: file.place.index(name)] if parent in codes), ""):
            raise ValueError(
                f"The folder {above} and its subfolder {name} both hold images, of different classes. Choose the "
                f"classes to learn. Outer folders: {flags[0]}\nAll folders: {flags[1]}"
            )
    is_nested = len(outer) > 1 and outer != set(codes.values())
    return [f"Class folders are nested. To learn the outer ones: {flags[0]}"] * is_nested


def _once(files: list[File], named: dict[File, str]) -> tuple[list[File], list[str]]:
    """Drop copies with the same name and class; returns the files, and a remark on the copies.

    Raises
    ------
    ValueError : two different images of one folder have the same name.
    """
    groups: dict[tuple, list[File]] = {}
    for file in files:
        groups.setdefault((named[file], file.stem), []).append(file)
    copies, doubtful = set(), {}
    for (_, stem), same in groups.items():
        for file in same[1:]:
            if file.part == same[0].part and one_of([same[0], file]):
                copies.add(file)
            elif file.place == same[0].place:
                doubtful[stem] = [same[0], file]
    refuse_two_places(doubtful, "name", "Remove one of each pair.")
    remarks = [f"{len(copies):,} identical copies of images are not used."] if copies else []
    return [file for file in files if file not in copies], remarks
