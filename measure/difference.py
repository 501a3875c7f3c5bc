"""Two models on the same images -> how much they differ, and how surely."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from measure import bootstrap
from measure.scores import FOLD, Score, compared


def refuse_repeated(names: pd.Series | pd.Index, folds: pd.Series | None = None) -> None:
    """Raise ValueError if an image name stands twice; in the same fold if `folds` are given."""
    names = pd.Index(names)
    again = names.duplicated() if folds is None else pd.MultiIndex.from_arrays([names, folds]).duplicated()
    if again.any():
        raise ValueError(f"{names[again][0]!r} occurs twice; expected each image name once.")


def compare(head: str, first: pd.DataFrame, second: pd.DataFrame, lesions: pd.Series) -> dict:
    """Second less first model in each of the head's scores on the images both have, by a paired bootstrap of lesions.

    An image that a model judged several times (a cross-validation with repeats) counts once: its rows share its weight.

    Parameters
    ----------
    first, second : of two models, as `report.run.read_head` gives them.
    lesions : lesion by image name.

    Returns
    -------
    ``n_images``, ``n_lesions``; by score ``difference``, ``interval`` (95 %) and ``p``, which is two-sided and not
    corrected; of labels ``only_first_right`` and ``only_second_right``, numbers of images, if each was judged once.

    Raises
    ------
    ValueError : a name stands twice in one of the three, has no lesion, or the tables have none in common.
    """
    refuse_repeated(lesions.index)
    for table in (first, second):
        refuse_repeated(table["image"], table.get(FOLD))
    images = pd.Index(first.loc[first["image"].isin(second["image"]), "image"].unique())
    unknown = images[~images.isin(lesions.index)]
    if images.empty or len(unknown):
        no_lesion = f"No lesion is known of {unknown[0]!r}." if len(unknown) else ""
        raise ValueError(no_lesion or "The tables have no image in common.")
    tables = [_of_images(table, images) for table in (first, second)]
    of_images = lesions[images]
    resamples = bootstrap.resample_lesions(of_images)
    numbers: dict = {"n_images": len(images), "n_lesions": int(of_images.nunique())}
    for key, score in compared(head).items():
        numbers[key] = _difference(score, tables, resamples)
    if head == "label" and all(len(table) == len(images) for table, _ in tables):
        right = [(table["predicted"] == table["true"]).to_numpy() for table, _ in tables]
        numbers["only_first_right"] = int((right[0] & ~right[1]).sum())
        numbers["only_second_right"] = int((right[1] & ~right[0]).sum())
    return numbers


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) of the p values of one family; None stays None and does not count.

    Examples
    --------
    >>> holm([0.04, 0.01, None, 0.03])  # 3 x 0.01, then 2 x 0.03, then not below it
    [0.06, 0.03, None, 0.06]
    """
    order = sorted((i for i, p in enumerate(p_values) if p is not None), key=p_values.__getitem__)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = corrected[i] = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
    return corrected


def _of_images(table: pd.DataFrame, images: pd.Index) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows of these images, in their order; and the position of each row's image."""
    places = images.get_indexer(table["image"])
    order = np.argsort(places, kind="stable")
    order = order[places[order] >= 0]
    return table.iloc[order], places[order]


def _difference(score: Score, tables: list[tuple[pd.DataFrame, np.ndarray]], resamples: bootstrap.Resamples) -> dict:
    drawn: tuple[list, list] = [], []

    def of_model(i: int, weights: np.ndarray) -> np.ndarray:
        table, places = tables[i]
        drawn[i].append(score.of(table, weights[:, places] / np.bincount(places)[places]))
        return drawn[i][-1]

    change = bootstrap.paired_difference(of_model, resamples)
    if not change["interval"] or None in change["interval"]:
        return change | {"interval": None, "p": None}
    first, second = (np.concatenate(values[1:]) for values in drawn)  # after the value on the images themselves
    return change | {"p": bootstrap.two_sided_p(second - first)}
