"""A checked table -> training, validation and test set."""

import hashlib

import numpy as np
import pandas as pd

from dataset.classes import classes_of, in_words, positions_of
from dataset.table import SPLITS, leave_out, usable


def limit_table(table: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """Leave out all but `limit` usable rows, stratified by class, whole lesions first; 0 keeps all.

    Each class keeps at least ten images (or all it has), so that it can still be split in three.

    Raises
    ------
    ValueError : `limit` is too small for that.
    """
    used = usable(table)
    if not 0 < limit < len(used):
        return table
    label = pd.Series(positions_of(used), index=used.index)
    counts = label.value_counts().sort_index()
    quota = (counts * limit / len(used)).round().clip(lower=counts.clip(upper=10)).astype(int)
    quota[quota.idxmax()] -= quota.sum() - limit
    if (quota < counts.clip(upper=10)).any():
        raise ValueError(f"--limit {limit} is too few for {len(counts)} classes of ten images; use {20 * len(counts)}.")
    lesions = np.random.default_rng((seed, 1)).permutation(used["lesion_id"].unique())
    shuffled = used["lesion_id"].map(pd.Series(range(len(lesions)), index=lesions)).sort_values(kind="stable").index
    nth = label[shuffled].groupby(label).cumcount()
    kept = shuffled[nth < label[shuffled].map(quota)]
    table = table.copy()
    leave_out(table, ~table.index.isin(kept), "beyond --limit")
    return table


def split_table(
    table: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int, group_by_lesion: bool = True
) -> pd.Series:
    """Deal the usable rows to train, val and test; "" for rows left out.

    Within each class, lesions are shuffled, sorted by their number of images and dealt one by one to the part that
    is furthest behind its share. So each part gets its share of the lesions of each class, to within one lesion, and
    its share of the harder lesions that were photographed several times.

    Raises
    ------
    ValueError : a class has fewer than three lesions (or images, if not grouped); names it and the choices.
    """
    used = usable(table).sort_values("image")
    if used.empty:
        raise ValueError(
            "No image can be used, for the reasons above; `python -m dataset check FOLDER` says what to do about each."
        )
    lesion = used["lesion_id"] if group_by_lesion else used["image"]
    label = pd.Series(positions_of(used), index=used.index)
    lesions = label.groupby(lesion).agg(label=lambda labels: labels.mode()[0], n_images="size")
    lesions = lesions.sample(frac=1, random_state=seed).sort_values("n_images", ascending=False, kind="stable")
    shares = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    part = pd.Series("", index=lesions.index)
    for position, members in lesions.groupby("label"):
        if len(members) < len(SPLITS):
            raise ValueError(_too_few(used, position, len(members), group_by_lesion))
        dealt = dict.fromkeys(SPLITS, 0)
        for i, name in enumerate(members.index, start=1):
            # An empty part goes first, so that the smallest classes reach all three.
            behind = max(SPLITS, key=lambda split: (dealt[split] == 0, shares[split] * i - dealt[split]))
            dealt[behind] += 1
            part[name] = behind
    return lesion.map(part).reindex(table.index, fill_value="")


def _too_few(used: pd.DataFrame, position: int, n_lesions: int, grouped: bool) -> str:
    n_images, classes = int((positions_of(used) == position).sum()), classes_of(used)
    what = f"{n_lesions} lesion(s), {n_images} image(s)" if grouped else f"{n_images} image(s)"
    problem = f"{what}: too few for train, validation and test, which need one each. "
    ungroup = ", pass --no-group-by-lesion (its images then leak between the parts)" if grouped and n_images > 2 else ""
    if not classes:
        return f"There is {problem}Add images{ungroup}."
    others = " ".join(code for code in classes if code != classes[position])
    return (
        f"Class {in_words([classes[position]])} has {problem}"
        f"Add images, raise --limit if it is set{ungroup}, or learn the other classes alone: --classes {others}"
    )


def n_leaked(table: pd.DataFrame, split: pd.Series) -> int:
    """How many test images share a lesion with a training image."""
    train_lesions = set(table.loc[split == "train", "lesion_id"])
    return int(table.loc[split == "test", "lesion_id"].isin(train_lesions).sum())


def split_hash(table: pd.DataFrame) -> str:
    """Identifies what was learned from: names, labels, parts and decoded pixels, whatever folder they lie in."""
    rows = table.assign(label=positions_of(table)).sort_values("image")[["image", "label", "split", "status", "crc"]]
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()[:16]


def split_by_image(table: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int) -> pd.Series | None:
    """As `split_table` without lesions, for comparison; None where a class has too few images for it."""
    try:
        return split_table(table, val_fraction, test_fraction, seed, group_by_lesion=False)
    except ValueError:
        return None


def describe_split(table: pd.DataFrame, by_image: pd.Series | None) -> str:
    """Absent classes, what is known of lesions, and what a split by image leaks, as lines for the console."""
    used = usable(table)
    lines = [
        f"Class {in_words([code])} has no image: nothing is learned or measured for it."
        for code in classes_of(used)
        if not (used["label"] == code).any()
    ]
    n_known = int(used["lesion_known"].sum())
    if n_known < len(used):
        lines.append(
            f"Lesion ids are known for {n_known} of {len(used)} images: photographs of one lesion may lie in several "
            "parts, and the scores be too good."
        )
    if n_known and by_image is None:
        lines.append("A split by image is not possible: a class has fewer than three.")
    elif n_known:
        leaked, n_test = n_leaked(table, by_image), (by_image == "test").sum()
        lines.append(
            f"Split by image, {leaked} of {n_test} test images ({leaked / n_test:.1%}) would have had a sibling of "
            f"the same lesion in train; in this split, {n_leaked(table, table['split'])} have."
        )
    return "\n".join(lines)


def class_table(table: pd.DataFrame) -> pd.DataFrame:
    """Images per class (rows) and part (columns); in one row "no diagnosis", where there are no classes."""
    used, classes = table[table["split"] != ""], classes_of(table)
    label = used["label"].astype(object).fillna("no diagnosis")
    counts = pd.crosstab(label, used["split"])
    counts = counts.reindex(index=classes or ["no diagnosis"], columns=SPLITS, fill_value=0)
    return counts.rename_axis(index=None, columns=None)


def with_totals(counts: pd.DataFrame) -> pd.DataFrame:
    """The same with a row and a column "all"."""
    counts = counts.assign(all=counts.sum(axis=1))
    counts.loc["all"] = counts.sum()
    return counts
