"""Whether the machines of a run see the same cache folder, or the same images in folders of their own."""

import os
from pathlib import Path

import pandas as pd

import machine
from dataset.keeper import folder_named


def refuse_wrong_place(folder: Path, per_machine: bool) -> None:
    """Raises ValueError in all processes unless those that are to share the folder see the same one, and no other."""
    if machine.n_machines() == 1:
        return
    own = folder / f".seen-{os.urandom(8).hex()}"
    with folder_named(folder):
        seen = machine.in_all(lambda: (own.touch(), machine.leader(per_machine), own.name)[1:])
    mine = machine.leader(per_machine)
    agree = machine.in_all(lambda: all((folder / name).exists() == (other == mine) for other, name in seen))
    own.unlink(missing_ok=True)
    if all(agree):
        return
    if per_machine:
        message = (
            f"With --cache-per-machine each machine needs a --cache-dir of its own, and some share {folder.parent}. "
            "Name a local folder, or omit the flag."
        )
    else:
        message = (
            f"The machines do not share {folder.parent}. Name a --cache-dir on a disk that all of them see, or pass "
            "--cache-per-machine: each machine then decodes all images into its own."
        )
    machine.stop_all(ValueError(message))


def refuse_differing(table: pd.DataFrame) -> None:
    """Raises ValueError in all processes if the machines' images differ in their pixels or their verdicts."""
    columns = ["image", "status", "reason", "crc"]
    known = machine.from_first(lambda: table[columns])
    differing = table.loc[(known != table[columns]).any(axis=1), "image"]
    found = machine.in_all(lambda: (len(differing), differing.iloc[:3].tolist()))
    n, examples = max(found)
    if n:
        message = (
            f"{n:,} images differ between the machines (e.g. {', '.join(examples)}): their data folders or their "
            "versions of Pillow are not the same. Copy the folder again, or share one cache."
        )
        machine.stop_all(ValueError(message))
