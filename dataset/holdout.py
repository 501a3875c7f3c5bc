"""A test set selected by columns of the data, such as all images of one source."""

from collections.abc import Sequence

import pandas as pd

from dataset.classes import positions_of, quoted, with_names
from dataset.columns import column_for
from dataset.csvfile import printable
from dataset.groups import groups_of
from dataset.table import leave_out, usable

SIBLING = "its lesion or patient is in the test set of --test-where"
N_VALUES = 20  # values that a message lists


def hold_out(table: pd.DataFrame, conditions: Sequence[str]) -> tuple[pd.Series, list[str]]:
    """Make the matching images the test set and all others train, from which the caller takes val.

    Other images of a test image's lesion or patient are marked as left out: they must not be trained on, and they do
    not match.

    Parameters
    ----------
    table : with the columns that the conditions name, as `column_for` names them.
    conditions : "column=value" each. Several values of one column are alternatives; an image must match each of
        several columns. Case is ignored.

    Returns
    -------
    The part of each row, "" for rows left out; and remarks.

    Raises
    ------
    ValueError : a condition has another form, or a value does not occur; no usable image matches, no other image is
        left for training, or none of a tested class. The message lists the values that occur.
    """
    used = usable(table)
    wanted = _by_column(conditions)
    is_test, n_unknown = pd.Series(True, used.index), 0
    for column, values in wanted.items():
        cells = _as_text(used[column_for(column)])
        _refuse_absent(column, values, cells)
        is_test &= cells.str.casefold().isin([value.casefold() for value in values])
        n_unknown += int(cells.isna().sum())
    where = " and ".join(f"{column}={' or '.join(values)}" for column, values in wanted.items())
    if not is_test.any():
        raise ValueError(f"No usable image has {where}. Name values that occur together, or fewer columns.")
    group = groups_of(used)
    is_sibling = ~is_test & group.isin(set(group[is_test]))
    rest = used[~is_test & ~is_sibling]
    _refuse_untaught(used[is_test], rest, where)
    leave_out(table, is_sibling.reindex(table.index, fill_value=False), SIBLING)
    parts = pd.Series("", table.index, dtype=object)
    parts[used.index[is_test]], parts[rest.index] = "test", "train"
    remarks = [f"Split: the test set is {where} ({is_test.sum():,} images); train and val come from the others."]
    if n := int(is_sibling.sum()):
        remarks.append(f"{n:,} other images of the test set's lesions or patients are left out of all parts.")
    if n_unknown:
        remarks.append(f"{n_unknown:,} images whose {' or '.join(wanted)} is unknown are not in the test set.")
    return parts, remarks + _describe_untaught(used[is_test], rest)


def _by_column(conditions: Sequence[str]) -> dict[str, list[str]]:
    """The values of each column, in order."""
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        column, _, value = (part.strip() for part in condition.partition("="))
        if not (column and value):
            raise ValueError(f"TEST_WHERE holds {condition!r}. Expected column=value, such as dataset=rosendahl.")
        wanted.setdefault(column, []).append(value)
    return wanted


def columns_in(conditions: Sequence[str]) -> list[str]:
    """The columns that conditions name. Raises ValueError as `hold_out` for one of another form."""
    return list(_by_column(conditions))


def _as_text(values: pd.Series) -> pd.Series:
    """Cells as the user writes them, whole numbers without a decimal point; missing if unknown."""
    return values.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value), "ignore").astype(object)


def _refuse_absent(column: str, values: Sequence[str], cells: pd.Series) -> None:
    counts = cells.value_counts()
    if absent := [value for value in values if value.casefold() not in {cell.casefold() for cell in counts.index}]:
        there = ", ".join(f"{value} ({n:,} images)" for value, n in counts.head(N_VALUES).items())
        more = f" and {len(counts) - N_VALUES:,} more" if len(counts) > N_VALUES else ""
        raise ValueError(
            f"No usable image has {column}={' or '.join(map(quoted, absent))}, which --test-where names. The values of "
            f"{column} are: {printable(there)}{more}."
        )


def _refuse_untaught(test: pd.DataFrame, rest: pd.DataFrame, where: str) -> None:
    """Raises ValueError if no tested class could be learned."""
    if rest.empty:
        raise ValueError(f"All usable images, or their lesions, have {where}: none is left for training.")
    tested, learned = (set(positions_of(rows)) - {-1} for rows in (test, rest))
    if tested and not tested & learned:
        raise ValueError(f"The images with {where} share no diagnosis with the others: nothing can be tested.")


def _describe_untaught(test: pd.DataFrame, rest: pd.DataFrame) -> list[str]:
    """Remark on classes that occur only in the test set."""
    counts = test["label"].value_counts()
    only = [code for code, n in counts.items() if n and not (rest["label"] == code).any()]
    if not only:
        return []
    n = int(counts[only].sum())
    return [f"{n:,} test images are of {with_names(only)}, absent from all other images: this cannot be learned."]
