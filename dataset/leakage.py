"""Find pairs of images that show the same lesion, and whether such a pair crosses the split.

The kinds of pairs: the same file (equal bytes), the same picture (a near duplicate by its fingerprint, also if slightly
cropped, recompressed or recoloured), and the same lesion or patient (by the ids of the data set).
"""

import numpy as np
import pandas as pd

from dataset.fingerprints import Fingerprints, near_between, near_duplicates
from dataset.groups import components

MAX_GROUP = 100  # images; larger groups of one file or lesion are not listed pair by pair
KINDS = ("same file", "same picture", "same lesion", "same patient")


def find_pairs(table: pd.DataFrame, thumbnails) -> pd.DataFrame:
    """All pairs of images of the same file, picture, lesion or, if known, patient.

    Parameters
    ----------
    table : rows to compare, with columns image, lesion_id, digest and row.
    thumbnails : (n_rows, SIDE, SIDE, 3) uint8, from the pixels that `decode_table` returns.

    Returns
    -------
    One row per pair, with the columns image_a, image_b, kind (the closest of `KINDS`), similarity (of the fingerprints,
    in [-1, 1]; NaN if not compared), lesion_a, lesion_b.
    """
    near, similarity = near_duplicates(thumbnails, table["row"].to_numpy())
    found = {
        "same file": _pairs_within(table["digest"]),
        "same picture": near,
        "same lesion": _pairs_within(table["lesion_id"]),
        "same patient": _pairs_within(table["patient_id"]) if "patient_id" in table else near[:0],
    }
    codes = {kind: pairs[:, 0] * len(table) + pairs[:, 1] for kind, pairs in found.items()}
    code, first = np.unique(np.concatenate(list(codes.values())), return_index=True)  # the first is of the closest kind
    a, b = divmod(code, max(len(table), 1))
    names, lesions = table["image"].to_numpy(), table["lesion_id"].to_numpy()
    columns = {
        "image_a": names[a],
        "image_b": names[b],
        "kind": np.repeat(list(codes), [len(one) for one in codes.values()])[first],
        "similarity": pd.Series(similarity, codes["same picture"]).reindex(code).to_numpy(),
        "lesion_a": lesions[a],
        "lesion_b": lesions[b],
    }
    return pd.DataFrame(columns)


def audit(table: pd.DataFrame, thumbnails, by_image: pd.Series | None) -> pd.DataFrame:
    """`find_pairs`, and whether each pair crosses this split, and a split by image.

    Parameters
    ----------
    table : as for `find_pairs`, with the column split.
    by_image : the parts of a split by image, with the table's index; None if that is impossible.
    """
    pairs = crossing(find_pairs(table, thumbnails), table.set_index("image")["split"])
    pairs["crosses_by_image"] = False
    if by_image is not None:
        parts = by_image.reindex(table.index).set_axis(table["image"])
        pairs["crosses_by_image"] = crossing(pairs, parts)["crosses"]
    return pairs


def crossing(pairs: pd.DataFrame, split: pd.Series) -> pd.DataFrame:
    """Add the parts of both images, and whether they differ.

    Parameters
    ----------
    split : part by image name.
    """
    parts = pairs.assign(split_a=pairs["image_a"].map(split), split_b=pairs["image_b"].map(split))
    return parts.assign(crosses=parts["split_a"] != parts["split_b"])


def describe_pairs(pairs: pd.DataFrame) -> str:
    """Console lines: the number of pairs of each kind, and how many cross this split and a split by image."""
    lines = []
    for kind in kinds_in(pairs):
        of_kind = pairs[pairs["kind"] == kind]
        lines.append(
            f"{len(of_kind):6} pairs of the {kind}: {of_kind['crosses'].sum()} cross the split; "
            f"{of_kind['crosses_by_image'].sum()} would cross a split by image"
        )
    return "\n".join(lines)


def kinds_in(pairs: pd.DataFrame) -> tuple[str, ...]:
    """The kinds to report: patients only if there are such pairs."""
    return KINDS if (pairs["kind"] == KINDS[-1]).any() else KINDS[:-1]


def merge_lesions(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Lesion ids for splitting: identical and near-duplicate images share one."""
    lesions, code = np.unique(table["lesion_id"].to_numpy(), return_inverse=True)
    by_image = dict(zip(table["image"], code))
    duplicates = pairs[pairs["kind"].isin(["same file", "same picture"])]
    a, b = duplicates["image_a"].map(by_image).to_numpy(int), duplicates["image_b"].map(by_image).to_numpy(int)
    first = pd.Series(lesions).groupby(components(len(lesions), a, b)).transform("first").to_numpy()
    return pd.Series(first[code], index=table.index)


def overlap(other: pd.DataFrame, other_thumbnails, training: pd.DataFrame, training_thumbnails) -> pd.Series:
    """Which images of another data set overlap with the training data.

    Parameters
    ----------
    other, training : rows with the columns image, lesion_id, lesion_known, digest and row.

    Returns
    -------
    By the index of `other`: the first of "same lesion", "same file" and "same picture" that applies, or "". A lesion id
    counts only if it is more than a number, which any data set may use.
    """
    lesions = training.loc[training["lesion_known"], "lesion_id"]
    reason = pd.Series("", index=other.index)
    sets = (Fingerprints(other_thumbnails, other["row"]), Fingerprints(training_thumbnails, training["row"]))
    near, _ = near_between(*sets)
    matches = {
        "same picture": np.isin(np.arange(len(other)), near[:, 0]),
        "same file": other["digest"].isin(training["digest"]),
        "same lesion": other["lesion_known"] & is_specific(other["lesion_id"]) & other["lesion_id"].isin(lesions),
    }
    for name, members in matches.items():
        reason[members] = name
    return reason


def is_specific(names: pd.Series) -> pd.Series:
    """Which names are more than numbers, which any data set may use."""
    return names.astype(str).str.contains(r"[^\W\d_][^/]*$")


def describe_overlap(reason: pd.Series, name: str) -> str:
    """Summarize the result of `overlap`."""
    counts = reason[reason != ""].value_counts()
    if counts.empty:
        return f"None of the {len(reason):,} images of {name} overlaps with the training data."
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in counts.items())
    subject = f"{counts.sum():,} of {len(reason):,} images of {name}"
    return f"{subject} overlap with the training data and are left out ({kinds})."


def _pairs_within(groups: pd.Series) -> np.ndarray:
    """All pairs (M, 2) of positions with the same value; in groups above `MAX_GROUP`, each member with the first."""
    codes = pd.factorize(groups)[0]  # -1 for NaN
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]
    code = codes[order]
    size, first = np.bincount(code)[code], np.searchsorted(code, code)
    is_large, is_first = size > MAX_GROUP, first == np.arange(len(code))
    pairs = [np.stack([order[first], order], axis=1)[is_large & ~is_first]]
    for step in range(1, size[~is_large].max(initial=1)):
        chosen = (code[step:] == code[:-step]) & ~is_large[step:]
        pairs.append(np.stack([order[:-step], order[step:]], axis=1)[chosen])
    return np.concatenate(pairs)
