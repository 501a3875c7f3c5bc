"""Two models on the same images -> how much they differ, and how surely."""

import pandas as pd

from measure import bootstrap
from measure.scores import Score, compared


def refuse_repeated(names: pd.Series | pd.Index) -> None:
    names = pd.Index(names)
    if names.has_duplicates:
        raise ValueError(f"{names[names.duplicated()][0]!r} occurs twice; expected each image name once.")


def compare(head: str, first: pd.DataFrame, second: pd.DataFrame, lesions: pd.Series) -> dict:
    """Second less first model in each of the head's scores on the images both have, by a paired bootstrap of lesions.

    Parameters
    ----------
    first, second : of two models, as `report.run.read_head` gives them.
    lesions : lesion by image name.

    Raises
    ------
    ValueError : a name stands twice in one of the three, has no lesion, or the tables have none in common.
    """
    for names in (first["image"], second["image"], lesions.index):
        refuse_repeated(names)
    images = first.loc[first["image"].isin(second["image"]), "image"]
    unknown = images[~images.isin(lesions.index)].tolist()
    if images.empty or unknown:
        raise ValueError(f"No lesion is known of {unknown[0]!r}." if unknown else "The tables have no image in common.")
    tables = [table.set_index("image").loc[images] for table in (first, second)]
    of_images = lesions[images]
    resamples = bootstrap.resample_lesions(of_images)
    numbers: dict = {"n_images": len(images), "n_lesions": int(of_images.nunique())}
    for key, score in compared(head).items():
        numbers[key] = _difference(score, tables, resamples)
    if head == "label":
        right = [(table["predicted"] == table["true"]).to_numpy() for table in tables]
        numbers["only_first_right"] = int((right[0] & ~right[1]).sum())
        numbers["only_second_right"] = int((right[1] & ~right[0]).sum())
    return numbers


def _difference(score: Score, tables: list[pd.DataFrame], resamples: bootstrap.Resamples) -> dict:
    change = bootstrap.paired_difference(lambda i, weights: score.of(tables[i], weights), resamples)
    return change if None not in (change["interval"] or []) else change | {"interval": None}
