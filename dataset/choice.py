"""--classes: which diagnoses are learned, in which order, and which of them as one."""

import csv
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from dataset.classes import code_of, key_of
from dataset.labels import Labels


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
        return labels._replace(classes=self.names, code=labels.code.map(lambda code: new.get(code, code))), remarks


def quoted(name: str) -> str:
    """A class's name as one of several between commas."""
    return f'"{name}"' if "," in name else name


def _parsed(text: str) -> tuple[str, tuple[str, ...]]:
    """The class that a word of --classes names, and its members."""
    text = text.strip()
    if text[:1] in ("'", '"') and text[-1:] == text[:1] and text.count(text[0]) == 2:
        return code_of(text[1:-1]), (code_of(text[1:-1]),)
    name, is_map, of = text.partition("=")
    if not is_map:
        return code_of(text), (code_of(text),)
    cells = next(csv.reader([of.strip().replace("'", '"')], skipinitialspace=True), [])
    return code_of(name.strip("'\" ")), tuple(code_of(cell) for cell in cells) or ("",)


def as_flag(texts: Sequence[str]) -> str:
    """--classes with these words, to be pasted into a shell."""
    return f"--classes {shlex.join(texts)}"
