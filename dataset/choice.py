"""--classes: which diagnoses to learn, in which order, and which to merge."""

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from dataset.classes import code_of, key_of, quoted
from dataset.labels import Labels

QUOTED = r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*')"""  # a quotation mark inside is doubled
CELL = re.compile(rf"\s*({QUOTED}|[^,]*?)\s*(,|\Z)")
MAP = re.compile(rf"({QUOTED}|[^=]*?)\s*=(.*)", re.DOTALL)


class Choice(NamedTuple):
    """Classes to learn, each made of one or several classes of the data."""

    members: dict[str, tuple[str, ...]]  # classes of the data by the name of the class to learn, in order

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Choice":
        """Parse the words of --classes: each is a class, or NAME=one,"two, with a comma".

        Raises
        ------
        ValueError : a class is named twice, or has no name or no members.

        Examples
        --------
        >>> Choice.of(["malignant=MEL,BCC", "nevus"]).members
        {'malignant': ('MEL', 'BCC'), 'NV': ('NV',)}
        """
        members: dict[str, tuple[str, ...]] = {}
        for text in texts:
            name, codes = _parsed(text)
            if not name or not all(codes):
                raise ValueError(f"--classes {shlex.quote(text)}: expected a class, or NAME=CLASS,CLASS.")
            if name in members:
                raise ValueError(f"A class is named twice: {name}.")
            members[name] = codes
        codes = [code for several in members.values() for code in several]
        keys = [key_of(code) for code in codes]
        if twice := {key: code for key, code in zip(keys, codes) if keys.count(key) > 1}:
            raise ValueError(f"A class is named twice: {', '.join(sorted(twice.values()))} is part of several classes.")
        return cls(members)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.members)

    def wanted(self) -> list[str]:
        """The chosen classes of the data."""
        return [member for members in self.members.values() for member in members]

    def apply(self, labels: Labels, complete: bool, where: object) -> tuple[Labels, list[str]]:
        """Map the data's labels to these classes; returns the labels, and remarks.

        Parameters
        ----------
        complete : whether each class must have at least one of its members in the data.

        Raises
        ------
        ValueError : a class has no member in the data; names it and the classes of the data.
        """
        own = {key_of(code): code for code in labels.classes}
        # A class that exists already needs no mapping: another data set often uses the model's class names.
        new = {own[key_of(name)]: name for name in self.members if key_of(name) in own and not complete}
        new |= {
            own[key_of(code)]: name for name, codes in self.members.items() for code in codes if key_of(code) in own
        }
        available = ", ".join(map(quoted, labels.classes)) or "none"
        if complete and (missing := [name for name in self.members if name not in new.values()]):
            raise ValueError(f"{where} has no class {', '.join(missing)}; its classes are {available}.")
        lost = [code for code in self.wanted() if key_of(code) not in own]
        remarks = [f"--classes names {', '.join(lost)}, which {where} does not have."] if lost and complete else []
        merged = [f"{name} is {' and '.join(codes)}" for name, codes in self.members.items() if codes != (name,)]
        remarks += [f"--classes: {'; '.join(merged)}."] if merged else []
        # A class of the data with the same name as a class made of others does not belong to it.
        shadowed = labels.code.isin(self.names) & ~labels.code.isin(new)
        out = "labelled " + labels.code.astype(str) + ", which is not among the classes"
        code = labels.code.map(lambda code: new.get(code, code)).mask(shadowed, "")
        return labels._replace(classes=self.names, code=code, reason=labels.reason.mask(shadowed, out)), remarks


def _parsed(text: str) -> tuple[str, tuple[str, ...]]:
    """The class that a word of --classes names, and its members."""
    text = text.strip()
    match = None if re.fullmatch(QUOTED, text) else MAP.fullmatch(text)
    if not match:
        return code_of(_unquoted(text)), (code_of(_unquoted(text)),)
    return code_of(_unquoted(match[1])), tuple(code_of(cell) for cell in _cells(match[2]))


def _cells(text: str) -> list[str]:
    """Split a string at its commas, except those in quotation marks."""
    cells, more, end = [], ",", 0
    while more and (match := CELL.match(text, end)):
        cells.append(_unquoted(match[1]))
        more, end = match[2], match.end()
    return cells


def _unquoted(text: str) -> str:
    """Remove enclosing quotation marks; an apostrophe is not one."""
    return text[1:-1].replace(text[0] * 2, text[0]) if re.fullmatch(QUOTED, text) else text


def as_flag(texts: Sequence[str]) -> str:
    """--classes with these classes, or maps NAME=NAME,OTHER, to paste into a shell."""
    return f"--classes {shlex.join(text if _is_map(text) else quoted(text) for text in texts)}"


def _is_map(text: str) -> bool:
    name, codes = _parsed(text)
    return len(codes) > 1 and name == codes[0]
