"""Match image names in tables to files."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from dataset.classes import code_of, is_diagnosis
from dataset.opening import have_same_content
from dataset.roles import IMAGE_WORDS, READABLE, UNREADABLE, part_of

MAX_EXAMPLES = 3


class File(NamedTuple):
    """An image file in a data folder."""

    path: str
    place: tuple[str, ...]  # its folders, from the data folder down
    stem: str  # name without extension, Unicode-normalized for comparison
    suffix: str
    part: str = ""  # train, val or test, if one of its folders says so

    @property
    def shown(self) -> str:
        """Its path within the data folder."""
        return "/".join((*self.place, self.stem + self.suffix))


class Named(NamedTuple):
    """A cell that names an image, split into its parts."""

    folders: tuple[str, ...]
    stem: str
    suffix: str  # "" for none


def named(text: str) -> Named:
    r"""The folders, name and extension in a cell; drives, . and .. are dropped.

    Examples
    --------
    >>> named("C:\\photos\\a.JPG"), named("./a.b")
    (Named(folders=('photos',), stem='a', suffix='.JPG'), Named(folders=(), stem='a.b', suffix=''))
    """
    name, folders = text if text.isascii() else unicodedata.normalize("NFC", text), []
    if "/" in name or "\\" in name or ":" in name:
        *folders, name = name.replace("\\", "/").split("/")
        name = name[2:] if name[1:2] == ":" and name[0].isalpha() else name
    stem, suffix = os.path.splitext(name) if "." in name else (name, "")
    if suffix and suffix.lower() not in (*READABLE, *UNREADABLE):
        stem, suffix = name, ""
    folders = [folder for folder in folders if folder not in ("", ".", "..") and folder[1:] != ":"]
    return Named(tuple(folders), stem, suffix)


def image_name(text: str) -> str:
    """The name in a cell, without folders and extension, Unicode-normalized."""
    return named(text).stem


def unfound_name(cell: str) -> str:
    """Name of an image whose file is missing: as `image_name`, but the whole cell if it leads outside."""
    parts = cell.replace("\\", "/").split("/")
    leads_outside = ".." in parts or parts[0] == "" or ":" in parts[0]
    return cell if leads_outside else image_name(cell)


def loose(stem: str) -> str:
    """Key shared by spellings of a name: ignores case, leading zeros, a final .0 and a suffix."""
    if "." in stem:
        stem = os.path.splitext(stem)[0] if stem.lower().endswith(READABLE) else stem
        stem = re.sub(r"^(\d+)\.0$", r"\1", stem)
    return (_LEADING_ZEROS.sub("", stem) if "0" in stem else stem).casefold()


_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_FOR_IMAGE = f"(?:{'|'.join(sorted(IMAGE_WORDS, key=len, reverse=True))})"
_SUFFIX = f"(?:{'|'.join(map(re.escape, READABLE))})"
_BARE = re.compile(
    rf"(?:{_FOR_IMAGE}(?:[_\-. ]|(?=\d)))*(.+?)(?:[_\-. ]{_FOR_IMAGE})*{_SUFFIX}?", re.IGNORECASE | re.DOTALL
)


def bare(stem: str) -> str:
    """Key shared by the names of an image and its mask: `loose`, without words for image and an inner suffix.

    Examples
    --------
    >>> bare("img_03"), bare("3_image"), bare("photo3"), bare("3.jpg"), bare("image")
    ('3', '3', '3', '3', 'image')
    """
    match = _BARE.fullmatch(stem)
    return loose(match[1] if match else stem)


class Index:
    """Files by name."""

    def __init__(self, files: Iterable[File]) -> None:
        self.by_stem: dict[str, list[File]] = {}
        for file in files:
            self.by_stem.setdefault(file.stem, []).append(file)

    def __contains__(self, text: str) -> bool:
        """Whether a cell names one of the files, in any spelling."""
        stem = named(text).stem
        return stem in self.by_stem or (loose(stem) in self.loose)

    def names_any(self, cells: Iterable[str]) -> bool:
        """Whether one of these cells names a file; exact names are tried first, as they are quickly found."""
        cells = list(cells)
        return any(named(cell).stem in self.by_stem for cell in cells) or any(cell in self for cell in cells)

    @cached_property
    def loose(self) -> dict[str, list[str]]:
        """The stems that share each loose spelling."""
        stems: dict[str, list[str]] = {}
        for stem in self.by_stem:
            stems.setdefault(loose(stem), []).append(stem)
        return stems

    @cached_property
    def has_points(self) -> bool:
        """Whether a stem has a point, as a number may have."""
        return any("." in stem for stem in self.by_stem)

    def files_of(self, texts: Sequence[str]) -> list[list[File]]:
        """The files that each cell may mean; a loose spelling counts only if it is unique on both sides."""
        cells = [named(text) for text in texts]
        exact = {cell.stem for cell in cells} & self.by_stem.keys()
        spelled: dict[str, set[str]] = {}
        for cell in cells:
            if cell.stem not in exact:
                spelled.setdefault(loose(cell.stem), set()).add(cell.stem)
        matches = []
        for cell in cells:
            files = self.by_stem.get(cell.stem)
            if files is None and len(spelled[key := loose(cell.stem)]) == 1:
                stems = [stem for stem in self.loose.get(key, ()) if stem not in exact]
                files = self.by_stem[stems[0]] if len(stems) == 1 else None
            matches.append(_fitting(files or [], cell))
        return matches


def _fitting(files: list[File], cell: Named) -> list[File]:
    """The files that best fit the cell's folders and extension; none of another part or diagnosis."""
    if part := part_of(cell.folders):
        files = [file for file in files if file.part in ("", part)]
    if code := _code_of(cell.folders):
        files = [file for file in files if _code_of(file.place) in ("", code)]
    if len(files) < 2:
        return files
    if cell.suffix:
        files = [file for file in files if file.suffix.lower() == cell.suffix.lower()] or files
    return best(files, lambda file: _shared(file.place[::-1], cell.folders[::-1])) if cell.folders else files


@lru_cache(maxsize=4096)
def _code_of(folders: tuple[str, ...]) -> str:
    """The known diagnosis that the last folder names; "" for none."""
    code = code_of(folders[-1]) if folders else ""
    return code if is_diagnosis(code) else ""


def _shared(a: Sequence[str], b: Sequence[str]) -> int:
    """Number of leading entries that two lists share."""
    n = 0
    for entry, other in zip(a, b):
        if entry.casefold() != other.casefold():
            break
        n += 1
    return n


def best(files: list[File], score: Callable[[File], int]) -> list[File]:
    """The files with the highest score."""
    scores = [score(file) for file in files]
    return [file for file, value in zip(files, scores) if value == max(scores)]


def nearest(files: list[File], place: Sequence[str]) -> list[File]:
    """The files nearest to a folder."""
    return best(files, lambda file: _shared(file.place, place)) if len(files) > 1 else files


def one_of(files: list[File]) -> File | None:
    """The first of several identical files; None if there are none, or if they differ."""
    first, *others = files or [None]
    try:
        return first if all(have_same_content(first.path, other.path) for other in others) else None
    except (OSError, ValueError):
        return None


def rows_of(cells: Sequence[str], files: Sequence[File | None], names: Sequence[str]) -> list[int]:
    """The table row of each file, by the cells that name images, or by the file's name here; -1 for none.

    The first of several rows counts; a cell that matches several files counts for none.
    """
    index = Index({file.path: file for file in files if file}.values())
    by_path: dict[str, int] = {}
    by_name: dict[str, int] = {}
    for row, (cell, matches) in enumerate(zip(cells, index.files_of(cells))):
        if len(matches) == 1:
            by_path.setdefault(matches[0].path, row)
        by_name.setdefault(image_name(cell), row)
    return [
        by_path.get(file.path, by_name.get(name, -1) if name != file.stem else -1) if file else by_name.get(name, -1)
        for file, name in zip(files, names)
    ]


def refuse_two_places(doubtful: dict[str, list[File]], what: str, remedy: str, where: str = "") -> None:
    """Raises ValueError if a name matches several different files."""
    if doubtful:
        examples = "; ".join(
            f"{name}: {' and '.join(file.shown for file in files[:2])}"
            for name, files in list(doubtful.items())[:MAX_EXAMPLES]
        )
        many = len(doubtful) > 1
        subject = f"{len(doubtful):,} {what}{'s' * many}{where} {'have' if many else 'has'}"
        raise ValueError(f"{subject} several different files ({examples}). {remedy}")


def unique_names(files: Sequence[File]) -> list[str]:
    """A unique name for each file: its own, prefixed with its folders if other files share it."""
    names = [file.stem for file in files]
    for longer in (
        lambda file: "_".join((*file.place[-1:], file.stem)),
        lambda file: "_".join((*file.place, file.stem)),
        lambda file: "_".join((*file.place, file.stem, file.suffix[1:])),
    ):
        counts: dict[str, int] = {}
        for name in names:
            counts[name.casefold()] = counts.get(name.casefold(), 0) + 1
        if max(counts.values(), default=1) == 1:
            break
        names = [longer(file) if counts[name.casefold()] > 1 else name for name, file in zip(names, files)]
    return names
