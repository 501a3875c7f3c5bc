"""Read, decode and split a data folder, with remarks: the same for a run and for a check."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dataset import leakage, splits
from dataset.cache import decode_table
from dataset.choice import Choice
from dataset.classes import classes_of
from dataset.groups import join_groups
from dataset.holdout import hold_out
from dataset.layout import find
from dataset.masks import ALONG_BORDERS, EMPTY, FULL, INVERTED, STRETCHED
from dataset.ownsplit import own_split
from dataset.pixelfile import PixelFile
from dataset.table import cautions, describe_table, has_mask, leave_out, read_layout, usable
from machine import from_first, stop_all


class Reading(NamedTuple):
    """How to read a data folder; each field is a setting of main.py."""

    classes: Sequence[str] = ()
    zeros: str = ""
    split_file: str = ""
    invert_masks: bool = False
    stretch_masks: bool = False
    columns: Sequence[str] = ()  # further columns of the data to keep

    @property
    def masks(self) -> str:
        """How to decode masks, as `how` of `decode_row`."""
        return " ".join([INVERTED] * self.invert_masks + [STRETCHED] * self.stretch_masks)


class Splitting(NamedTuple):
    """How images are dealt to train, val and test; each is a setting of main.py."""

    val_fraction: float = 0.15
    test_fraction: float = 0.15
    seed: int = 42
    by_lesion: bool = True
    join_duplicates: bool = False  # near duplicates of different lesions count as one lesion
    test_where: Sequence[str] = ()  # column=value of the test images, as for `hold_out`
    folds: int = 0  # of a cross-validation, as for `fold_split`; 0 for none
    fold: int = 1  # the one whose test set it is


AS_FOUND, USUAL = Reading(), Splitting()


class Decoded(NamedTuple):
    """A data folder, read, checked and decoded."""

    table: pd.DataFrame
    pixels: PixelFile
    given: pd.Series | None  # the parts of the data's own split; None if there is none
    where: str  # description of where that split is
    remarks: list[str]  # caveats for the report


class Read(NamedTuple):
    """A data folder, read and not yet decoded."""

    table: pd.DataFrame
    given: pd.Series | None  # as in `Decoded`
    where: str
    remarks: list[str]  # on the folder
    of_split: list[str]


class Prepared(NamedTuple):
    """Decoded data with a split."""

    table: pd.DataFrame
    pixels: PixelFile
    by_image: pd.Series | None  # the parts of a split by image; None if that is impossible
    remarks: list[str]


class OtherSet(NamedTuple):
    """Another data set, evaluated as a whole."""

    name: str
    table: pd.DataFrame
    pixels: PixelFile
    left_out: str  # message about the overlap with the training data

    @property
    def n_images(self) -> int:
        return len(usable(self.table))


def prepare(
    data_dir: str | Path,
    image_size: int = 224,
    cache_dir: str | Path = "cache",
    reading: Reading = AS_FOUND,
    splitting: Splitting = USUAL,
    *,
    limit: int = 0,
    cache_per_machine: bool = False,
    say: Callable[[str], None] = print,
) -> Prepared:
    """Read, check, decode and split a data folder; `say` what was found.

    Under torchrun the first process reads and splits for all, and all decode.

    Parameters
    ----------
    image_size : pixels; images are resized to a square of this side.
    cache_dir : folder for the decoded images, which other runs share.
    cache_per_machine : as `per_machine` of `decode_table`.
    limit : use only this many images, stratified by class; 0 for all.

    Raises
    ------
    FileNotFoundError, ValueError : as `decode` and `split`.
    """
    places = {"image_size": image_size, "cache_dir": cache_dir, "cache_per_machine": cache_per_machine}
    decoded = decode(data_dir, reading, **places, limit=limit, seed=splitting.seed, say=say)
    return split(decoded, reading, splitting, say)


def decode(
    data_dir: str | Path,
    reading: Reading,
    *,
    image_size: int,
    cache_dir: str | Path,
    cache_per_machine: bool = False,
    limit: int = 0,
    seed: int = 42,
    say: Callable[[str], None] = print,
) -> Decoded:
    """Read, check and decode a data folder; report through `say`.

    Raises
    ------
    FileNotFoundError, ValueError : the folder cannot be used for training; says why, and what to do.
    """
    found = from_first(_read, data_dir, reading, limit, seed, say)
    table, pixels = decode_table(found.table, data_dir, image_size, cache_dir, reading.masks, cache_per_machine)
    warnings = [*found.of_split, *cautions(table)]
    say("\n".join([describe_table(table), *warnings]))
    return Decoded(table, pixels, found.given, found.where, [*found.remarks, *warnings])


def _read(data_dir: str | Path, reading: Reading, limit: int, seed: int, say: Callable[[str], None]) -> Read:
    """The rows to decode: those of the data's own split, if there is one, and no more than `limit`."""
    choice = Choice.of(reading.classes)
    layout = find(data_dir, choice, reading.zeros, reading.columns)
    table, class_remarks = read_layout(layout, choice, columns=reading.columns)
    say("\n".join([f"\n{data_dir}: {layout.describe()}", *class_remarks]))
    own = own_split(layout, reading.split_file)
    if own.parts is not None:
        leave_out(table, own.parts == "", splits.NO_PART)
    table = splits.limit_table(table, limit, seed)
    return Read(table, own.parts, own.where, [*layout.remarks, *class_remarks], own.remarks)


def split(
    decoded: Decoded, reading: Reading, splitting: Splitting = USUAL, say: Callable[[str], None] = print
) -> Prepared:
    """Split the decoded data, or adopt the data's own split; report the counts through `say`.

    Raises
    ------
    ValueError : the masks seem inverted, a class is too small, or no test set can be held out; says what to do.
    """
    table, by_image, remarks = from_first(_split, decoded, reading, splitting, say)
    if "row" in decoded.table:
        table["row"] = decoded.table["row"]  # each machine may have a cache of its own
    return Prepared(table, decoded.pixels, by_image, [*decoded.remarks, *remarks])


def _split(
    decoded: Decoded, reading: Reading, splitting: Splitting, say: Callable[[str], None]
) -> tuple[pd.DataFrame, pd.Series | None, list[str]]:
    """The table with its ``split``, the split by image for comparison, and remarks."""
    table, given = decoded.table, decoded.given
    refuse_implausible_masks(table, reading)
    chosen = "--folds" if splitting.folds else "--test-where" if splitting.test_where else ""
    if chosen and given is not None:
        raise ValueError(
            f"{chosen} selects the test set, but the data comes with its own split, by {decoded.where}. Pass "
            f"--split-file none as well to ignore that split, or omit {chosen}."
        )
    if splitting.join_duplicates:
        used = usable(table)
        pairs = leakage.find_pairs(used, decoded.pixels.thumbnails)
        table.loc[used.index, "lesion_id"] = leakage.merge_lesions(used, pairs)
        table["group"] = join_groups(table)
    fractions = {name: getattr(splitting, name) for name in ("val_fraction", "test_fraction", "seed")}
    remarks: list[str] = []
    if splitting.test_where:
        given, remarks = hold_out(table, splitting.test_where)
    unit = splits.unit_of(usable(table)) if splitting.by_lesion else "image"
    if splitting.folds:
        fold = splitting.folds, splitting.fold, splitting.val_fraction, splitting.seed
        table["split"] = splits.fold_split(table, *fold, splitting.by_lesion)
        fractions["test_fraction"] = 1 / splitting.folds
        heading = remarks = [splits.describe_fold(*fold, unit)]
    elif given is None:
        table["split"] = splits.split_table(table, **fractions, group_by_lesion=splitting.by_lesion)
        heading = [f"Split: ours, by {unit}."]
    else:
        table["split"] = splits.complete_split(table, given, **fractions, group_by_lesion=splitting.by_lesion)
        heading = remarks = remarks or splits.describe_own(table, given, decoded.where)
    by_image = splits.split_by_image(table, **fractions)
    counts = splits.with_totals(splits.class_table(table))
    say("\n".join(filter(None, ["", *heading, counts.to_string(), splits.describe_split(table, by_image)])))
    return table, by_image, remarks


def prepare_other(
    data_dir: str | Path,
    data_set: Prepared,
    cache_dir: str | Path = "cache",
    reading: Reading = AS_FOUND,
    say: Callable[[str], None] = print,
    *,
    cache_per_machine: bool = False,
) -> OtherSet:
    """As `decode_other`, with the classes of the training data; images that overlap with it are left out."""
    options = {"image_size": data_set.pixels.shape[1], "cache_dir": cache_dir, "cache_per_machine": cache_per_machine}
    table, pixels = decode_other(data_dir, reading, classes_of(data_set.table), **options, say=say)
    learned = data_set.table[data_set.table["split"].isin(["train", "val"])]
    places = usable(table), pixels.thumbnails, learned, data_set.pixels.thumbnails
    overlap = from_first(leakage.overlap, *places)
    left_out = leakage.describe_overlap(overlap, data_dir)
    for reason, members in overlap[overlap != ""].groupby(overlap):
        leave_out(table, table.index.isin(members.index), f"{reason} as a training image")
    say(left_out)
    if usable(table).empty:
        stop_all(ValueError(f"--external-dir {data_dir} has no image to evaluate. {left_out}"))
    return OtherSet(str(data_dir), table, pixels, left_out)


def decode_other(
    data_dir: str | Path,
    reading: Reading,
    classes: Sequence[str],
    *,
    image_size: int,
    cache_dir: str | Path,
    cache_per_machine: bool = False,
    say: Callable[[str], None] = print,
) -> tuple[pd.DataFrame, PixelFile]:
    """Read, check and decode a data set to evaluate a model of these classes; report through `say`.

    `reading.classes` maps its labels to the model's classes.

    Raises
    ------
    FileNotFoundError, ValueError : as `decode`; none of its images can be used.
    """
    table, description = from_first(_read_other, data_dir, reading, classes)
    table, pixels = decode_table(table, data_dir, image_size, cache_dir, reading.masks, cache_per_machine)
    say("\n".join([description, describe_table(table), *cautions(table)]))
    if usable(table).empty:
        stop_all(ValueError(f"--external-dir {data_dir} has no image to evaluate, for the reasons above."))
    from_first(refuse_implausible_masks, table, reading)
    return table, pixels


def _read_other(data_dir: str | Path, reading: Reading, classes: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """The rows to decode, and a description of the folder."""
    choice = Choice.of(reading.classes) if reading.classes else Choice({code: (code,) for code in classes})
    layout = find(data_dir, choice, reading.zeros, reading.columns)
    table, remarks = read_layout(layout, choice, complete=False, columns=reading.columns)
    if usable(table).empty:
        raise ValueError(
            f"--external-dir {data_dir} has no image to evaluate: {describe_table(table)}\n"
            f"Its classes are {', '.join(layout.labels.classes)}; the model's are {', '.join(classes) or 'none'}. "
            "Map both to common classes, as in --classes malignant=MEL,BCC benign=NV."
        )
    return table, "\n".join([f"\n{data_dir}: {layout.describe()}", *remarks])


def refuse_implausible_masks(table: pd.DataFrame, reading: Reading) -> None:
    """Raises ValueError if most masks are empty, full, or lesion along all four borders (like inverted masks)."""
    masked = table[has_mask(table)]
    invert = "omit --invert-masks" if reading.invert_masks else "pass --invert-masks"
    again = "Download them again, or move them out of the data folder: without masks, only the classifier is trained."
    for note, problem, remedy in (
        (EMPTY, "empty. Expected a lesion in most of them", again),
        (FULL, "full. Expected some skin in most of them", again),
        (
            ALONG_BORDERS,
            "lesion along all four borders, as if inverted. Expected the lesion to be white, or above 0",
            f"If lesions are black, {invert}; otherwise remove these masks.",
        ),
    ):
        n = int(masked["reason"].str.contains(note, regex=False).sum())
        if 2 * n > len(masked):
            raise ValueError(f"{n:,} of {len(masked):,} masks are {problem}. {remedy}")
