"""--classes: which diagnoses are learned, in which order, and which of them as one."""

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
    """Classes to learn, each of one or several of the data's own."""

    members: dict[str, tuple[str, ...]]  # the data's classes by the name of the one that they make, in order

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Choice":
        """What the words of --classes say: a class each, or NAME=one,"two, of a comma".

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
            name, of = _parsed(text)
            if not name or not all(of):
                raise ValueError(f"--classes {shlex.quote(text)}: expected a class, or NAME=CLASS,CLASS.")
            if name in members:
                raise ValueError(f"A class is named twice: {name}.")
            members[name] = of
        of_all = [key_of(one) for of in members.values() for one in of]
        if twice := {one for one in of_all if of_all.count(one) > 1}:
            raise ValueError(f"A class is named twice: {', '.join(sorted(twice))} is part of several classes.")
        return cls(members)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.members)

    def wanted(self) -> list[str]:
        """The data's classes that are chosen."""
        return [one for of in self.members.values() for one in of]

    def apply(self, labels: Labels, complete: bool, where: object) -> tuple[Labels, list[str]]:
        """The labels with these classes in place of the data's, and remarks.

        Parameters
        ----------
        complete : whether each class must have one of its members in the data.

        Raises
        ------
        ValueError : a class has none; names it and those of the data.
        """
        own = {key_of(code): code for code in labels.classes}
        # A class that is there already needs no mapping: the words of another data set are often the model's own.
        new = {own[key_of(name)]: name for name in self.members if key_of(name) in own and not complete}
        new |= {own[key_of(one)]: name for name, of in self.members.items() for one in of if key_of(one) in own}
        known = ", ".join(map(quoted, labels.classes)) or "none"
        if complete and (missing := [name for name in self.members if name not in new.values()]):
            raise ValueError(f"{where} has no class {', '.join(missing)}; its classes are {known}.")
        lost = [one for one in self.wanted() if key_of(one) not in own]
        remarks = [f"--classes names {', '.join(lost)}, which {where} does not have."] if lost and complete else []
        merged = [f"{name} is {' and '.join(of)}" for name, of in self.members.items() if of != (name,)]
        remarks += [f"--classes: {'; '.join(merged)}."] if merged else []
        # The data's class of the same name as one that is made of others is none of these.
        shadowed = labels.code.isin(self.names) & ~labels.code.isin(new)
        out = "labelled " + labels.code.astype(str) + ", which is not among the classes"
        code = labels.code.map(lambda code: new.get(code, code)).mask(shadowed, "")
        return labels._replace(classes=self.names, code=code, reason=labels.reason.mask(shadowed, out)), remarks


def _parsed(text: str) -> tuple[str, tuple[str, ...]]:
    """The class that a word of --classes names, and its members."""
    text = text.strip()
    found = None if re.fullmatch(QUOTED, text) else MAP.fullmatch(text)
    if not found:
        return code_of(_unquoted(text)), (code_of(_unquoted(text)),)
    return code_of(_unquoted(found[1])), tuple(code_of(cell) for cell in _cells(found[2]))


def _cells(text: str) -> list[str]:
    """What stands between commas, of which those in quotation marks separate nothing."""
    cells, more, end = [], ",", 0
    while more and (found := CELL.match(text, end)):
        cells.append(_unquoted(found[1]))
        more, end = found[2], found.end()
    return cells


def _unquoted(text: str) -> str:
    """Text less the quotation marks that enclose it; an apostrophe is none."""
    return text[1:-1].replace(text[0] * 2, text[0]) if re.fullmatch(QUOTED, text) else text


def as_flag(texts: Sequence[str]) -> str:
    """--classes with these classes, or maps NAME=NAME,OTHER that keep a name, to be pasted into a shell."""
    return f"--classes {shlex.join(text if _is_map(text) else quoted(text) for text in texts)}"


def _is_map(text: str) -> bool:
    name, of = _parsed(text)
    return len(of) > 1 and name == of[0]
