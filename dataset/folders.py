"""Folders that are called as diagnoses, one per class; and those that only look so."""

import shlex
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from dataset.choice import Choice, as_flag
from dataset.classes import NAMES, code_of, codes_of, in_order, is_known, is_no_diagnosis, key_of
from dataset.files import N_LOOKED_AT, Found, are_drawn, as_mask, look_alike, some_of
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
    folder: Path, found: Found, wanted: Choice
) -> tuple[pd.DataFrame, Labels | None, list[File], list[str]]:
    """Rows, labels and files of a folder with one folder per class, and remarks; no labels if it is none.

    Raises
    ------
    ValueError : it is not known whether the folders are classes; says why, and what to name.
    """
    nothing = pd.DataFrame({"image": []}, dtype=str), None, [], []
    named = {file: _class_of(file, wanted) for file in [*found.images, *found.untold]}
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
    said = _refuse_two_depths(named, codes, wanted)
    files, copies = _once(list(named), named)
    _refuse_same_pictures(folder, files, named)
    said += copies
    rows = pd.DataFrame({"image": unique_names(files)}, dtype=str)
    code = pd.Series([codes[named[file]] for file in files], dtype=object)
    code, reason = code.mask(code.map(is_no_diagnosis), ""), pd.Series("", index=code.index)
    reason = reason.mask(code == "", "labelled by its folder as no diagnosis")
    classes = in_order(set(code) - {""})
    if strays:
        said.append(f"Folders that are taken for no class: {', '.join(sorted(strays)[:6])}.")
    merged = [
        f"{' and '.join(same)} are {one}"
        for one in classes
        if len(same := sorted({n for n in codes if codes[n] == one})) > 1
    ]
    said += [f"Folders of one class: {'; '.join(merged)}."] if merged else []
    return rows, Labels(f"{len(classes)} folders, one per class", classes, code, reason), files, said


def _class_of(file: File, wanted: Choice) -> str:
    """The folder that may name a picture's class: the nearest known diagnosis, or else the nearest that may be one."""
    for is_class in (
        lambda name: _is_chosen(name, wanted),
        diagnosis_in,
        lambda name: not is_neutral(name),
    ):
        if name := next(filter(is_class, reversed(file.place)), ""):
            return name
    return ""


def _is_chosen(name: str, wanted: Choice) -> bool:
    chosen = {key_of(one) for one in wanted.wanted()}
    return bool(chosen) and key_of(code_of(diagnosis_in(name) or name)) in chosen


@lru_cache(maxsize=4096)
def diagnosis_in(name: str) -> str:
    """The diagnosis that the vocabulary knows in a folder's name, less words for roles, parts and numbers; "" for none.

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
    """The pictures in folders of classes; and the folders that lie elsewhere than known ones, or are numbered."""
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
    """Raises ValueError if a folder of no known word holds files called as those of a known class."""
    stems = {file.stem for file, name in named.items() if name in known}
    for unknown in sorted(set(named.values()) - known):
        own = {file.stem for file, name in named.items() if name == unknown}
        if 2 * len(own & stems) >= len(own):
            raise ValueError(
                f"The folder {unknown} holds files called as those of {', '.join(sorted(known)[:4])}, as copies are. "
                f"If it is a class, say so: {as_flag([*sorted(known), unknown])}; else move it out of the data folder."
            )


def _above(file: File, name: str) -> tuple[str, ...]:
    """The folders above the one that names the class, but for parts of a split."""
    place = file.place[: len(file.place) - 1 - file.place[::-1].index(name)]
    return tuple(one for one in place if not part_of_name(one))


def _are_pairs(named: dict[File, str]) -> bool:
    """Whether two folders hold files of the same names, as those of images and masks do."""
    stems: dict[str, set[str]] = {}
    for file, name in named.items():
        stems.setdefault(name, set()).add(file.stem)
    some = list(stems.values())
    return any(2 * len(a & b) >= min(len(a), len(b)) for i, a in enumerate(some) for b in some[:i])


def refuse_pairs(folder: Path, found: Found) -> Found:
    """The same, with images and masks told apart by content in two folders that hold files of the same names.

    Raises
    ------
    ValueError : the folders might be classes, and are not called so; says what to name.
    """
    named = {file: _class_of(file, Choice({})) or (file.place[-1] if file.place else "") for file in found.untold}
    names = sorted(set(named.values()) - {""})
    if found.images or len(names) < 2:
        return found
    groups = {name: [file for file in named if named[file] == name] for name in names}
    drawn = [name for name in names if are_drawn(groups[name])]
    if _are_pairs(named) and 0 < len(drawn) < len(names):
        images = [file for file in found.untold if named[file] not in drawn]
        masks = [as_mask(file) for file in found.untold if named[file] in drawn]
        return found._replace(untold=images, masks=[*found.masks, *masks])
    if found.masks:
        return found
    if all(map(is_neutral, names)):
        why = "are called as parts, numbers or roles"
    elif _are_pairs(named):
        why = "hold files of the same names, as images and their masks do"
    else:
        why = "are numbered"
    some = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    raise ValueError(
        f"{folder} has no table of diagnoses, and its folders {some} {why}, so they are not taken for classes. "
        f"Expected GroundTruth.csv, or one folder per class. If they are classes, say so: {as_flag(names[:6])}"
    )


def _refuse_several_sets(folder: Path, named: dict[File, str]) -> None:
    """Raises ValueError if there are several places with a folder per class that are no parts of one data set."""
    below: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
    for file, name in named.items():
        place = _above(file, name)
        telling = tuple(one for one in place if not is_neutral(one) or set(words_of(one)) & SPARE_WORDS)
        below.setdefault(telling, {})[key_of(name)] = place
    several = [next(iter(names.values())) for names in below.values() if len(names) > 1]
    if len(several) > 1:
        places = [str(folder.joinpath(*place)) for place in several]
        raise ValueError(
            f"{' and '.join(places[:4])} hold one folder per class each. Name one of them: "
            f"--data-dir {shlex.quote(places[0])}"
        )


def _refuse_same_pictures(folder: Path, files: Sequence[File], named: dict[File, str]) -> None:
    """Raises ValueError if two trees of folders hold the same pictures, or pictures and their masks, of one part."""
    trees: dict[tuple[str, ...], int] = Counter()
    first: dict[tuple[str, str], File] = {}
    same: dict[tuple, list[tuple[File, File]]] = {}
    for file in files:
        trees[tree := _tree(file, named)] += 1
        other = first.setdefault((key_of(named[file]), file.stem), file)
        if (of_other := _tree(other, named)) != tree:
            same.setdefault((of_other, tree), []).append((other, file))
    for (a, b), pairs in sorted(same.items(), key=lambda item: -len(item[1]))[:N_LOOKED_AT]:
        differ_in_part = [one for one in a if not part_of_name(one)] == [one for one in b if not part_of_name(one)]
        if 2 * len(pairs) < min(trees[a], trees[b]) or (differ_in_part and pairs[0][0].part != pairs[0][1].part):
            continue
        drawn = [are_drawn(some) for some in zip(*pairs)]
        alike = [look_alike(*pair) for pair in some_of(pairs)]
        words = {word for name in {*a} ^ {*b} if not diagnosis_in(name) for word in words_of(name)}
        is_numbered_anew = all(is_neutral(word) and not role_of_name(word) for word in words - SPARE_WORDS)
        if drawn[0] != drawn[1] or 2 * sum(alike) > len(alike) or not is_numbered_anew:
            what = "masks of the other's pictures" if drawn[0] != drawn[1] else "the other's pictures again"
            raise ValueError(
                f"Two trees of folders in {folder} hold files of the same classes and names, such as "
                f"{pairs[0][0].shown} and {pairs[0][1].shown}, as if one held {what}. Call a folder of masks masks, "
                "move copies out of the data folder, and give other pictures names of their own."
            )


def _tree(file: File, named: dict[File, str]) -> tuple[str, ...]:
    """The folders of a picture but for that of its class."""
    last = len(file.place) - 1 - file.place[::-1].index(named[file])
    return file.place[:last] + file.place[last + 1 :]


def _refuse_two_depths(named: dict[File, str], codes: dict[str, str], wanted: Choice) -> list[str]:
    """A remark on folders of classes that lie in those of others.

    Raises
    ------
    ValueError : pictures lie in a class's folder and in another class's below it, and none is chosen.
    """
    if wanted.members:
        return []
    outer: set[str] = set()
    for file in named:
        top = next(one for one in file.place if one in codes or diagnosis_in(one))
        outer.add(codes.get(top) or code_of(diagnosis_in(top)))
    flags = [as_flag(sorted(some)) for some in (outer, set(codes.values()))]
    for file, name in named.items():
        if above := next((one for one in file.place[: file.place.index(name)] if one in codes), ""):
            raise ValueError(
                f"Pictures lie in the folder {above} and, of another class, in {name} below it. Choose which of the "
                f"classes to learn. Those of the outer folders: {flags[0]}\nThose of all folders: {flags[1]}"
            )
    is_nested = len(outer) > 1 and outer != set(codes.values())
    return [f"Folders of classes lie in those of others. To learn the outer ones: {flags[0]}"] * is_nested


def _once(files: list[File], named: dict[File, str]) -> tuple[list[File], list[str]]:
    """The files without copies of the same name and class, and a remark on these.

    Raises
    ------
    ValueError : two pictures of one folder are called the same and differ.
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
    refuse_two_places(doubtful, "name", "Remove one of each two.")
    said = [f"{len(copies):,} copies of pictures, the same byte by byte, are not used."] if copies else []
    return [file for file in files if file not in copies], said
