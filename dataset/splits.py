"""Split a checked table into training, validation and test set."""

import hashlib
from itertools import zip_longest

import numpy as np
import pandas as pd

from dataset.choice import as_flag, quoted
from dataset.classes import classes_of, is_malignant, positions_of, with_names
from dataset.groups import groups_of
from dataset.roles import SPLITS
from dataset.table import leave_out, targets, usable

NO_PART = "in no part of the data's own split"


def limit_table(table: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """Keep only `limit` usable rows, stratified by class, whole lesions first; 0 keeps all.

    Each class keeps at least ten images (or all it has), so that it can still be split into three parts.

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
        advice = f"{len(counts)} classes need ten images each. Use {20 * len(counts)}."
        raise ValueError(f"--limit {limit} is too few: {advice}")
    group = groups_of(used)
    lesions = np.random.default_rng((seed, 1)).permutation(group.unique())
    shuffled = group.map(pd.Series(range(len(lesions)), index=lesions)).sort_values(kind="stable").index
    nth = label[shuffled].groupby(label).cumcount()
    kept = shuffled[nth < label[shuffled].map(quota)]
    table = table.copy()
    leave_out(table, ~table.index.isin(kept), "beyond --limit")
    return table


def split_table(
    table: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int, group_by_lesion: bool = True
) -> pd.Series:
    """Assign the usable rows to train, val and test; "" for rows left out.

    Within each class, lesions (together with other lesions of the same patient, if known) are shuffled, sorted by
    number of images and assigned one by one to the part furthest behind its share. Each part thus gets its share of the
    lesions of each class, to within one lesion, and its share of the harder lesions with several images. Lesions and
    patients of several classes count only for the rarest of them, such as the patients with a malignant image.

    Raises
    ------
    ValueError : a class has fewer than three lesions (or images, if not grouped); names it and the options.
    """
    shares = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    return _deal(table, shares, seed, group_by_lesion)


def _deal(table: pd.DataFrame, shares: dict[str, float], seed: int, group_by_lesion: bool) -> pd.Series:
    """`split_table` for any parts and shares."""
    used = usable(table).sort_values("image")
    if used.empty:
        raise ValueError(
            "No image can be used, for the reasons above; `python -m dataset check FOLDER` gives advice on each."
        )
    lesion = groups_of(used) if group_by_lesion else used["image"]
    label = pd.Series(positions_of(used), index=used.index)
    lesions = _rarest_labels(lesion, label, len(shares)).sample(frac=1, random_state=seed)
    lesions = lesions.sort_values("n_images", ascending=False, kind="stable")
    part = pd.Series("", index=lesions.index)
    for position, members in lesions.groupby("label"):
        if (n_lesions := lesion[label == position].nunique()) < len(shares):
            raise ValueError(_too_few(used, position, n_lesions, group_by_lesion, list(shares)))
        part[members.index] = _dealt(len(members), shares)
    return lesion.map(part).reindex(table.index, fill_value="")


def _rarest_labels(lesion: pd.Series, label: pd.Series, n_parts: int) -> pd.DataFrame:
    """Each lesion's label with the fewest images in the data, and its number of images ``n_images``; sorted by lesion.

    A label of fewer lesions than parts, which cannot reach all parts, and no label (-1) come after the others.
    """
    counts = label.groupby([lesion.rename("lesion"), label.rename("label")]).size().rename("n").reset_index()
    of_label = counts.groupby("label")
    counts["is_late"] = (counts["label"] < 0) | (of_label["lesion"].transform("size") < n_parts)
    counts["n_in_data"] = of_label["n"].transform("sum")
    rarest = counts.sort_values(["lesion", "is_late", "n_in_data", "label"]).groupby("lesion").first()
    return rarest[["label"]].assign(n_images=counts.groupby("lesion")["n"].sum())


def _dealt(n: int, shares: dict[str, float]) -> list[str]:
    """The parts of n lesions in turn: an empty part first, so that the smallest classes reach every part; then the part
    that is furthest behind its share."""
    dealt, turns = dict.fromkeys(shares, 0), []
    for i in range(1, n + 1):
        behind = max(shares, key=lambda part: (dealt[part] == 0, shares[part] * i - dealt[part]))
        dealt[behind] += 1
        turns.append(behind)
    return turns


def fold_split(
    table: pd.DataFrame, folds: int, fold: int, val_fraction: float, seed: int, group_by_lesion: bool = True
) -> pd.Series:
    """The split of one fold of a cross-validation: each usable row is in the test set of one of the folds.

    Lesions are dealt to the folds as in `split_table`, and the validation set is cut from the other folds. Folds beyond
    the first `folds` are repeats, dealt with the next seeds.

    Parameters
    ----------
    fold : from 1 on.

    Raises
    ------
    ValueError : a class has fewer lesions (or images, if not grouped) than there are folds, or too few beside a fold.
    """
    repeat, number = divmod(fold - 1, folds)
    names = [f"fold {i + 1}" for i in range(folds)]
    dealt = _deal(table, dict.fromkeys(names, 1 / folds), seed + repeat, group_by_lesion)
    given = dealt.map(lambda name: "test" if name == names[number] else name and "train")
    return complete_split(table, given, val_fraction, 1 / folds, seed + repeat, group_by_lesion)


def name_of_fold(folds: int, fold: int) -> str:
    """A fold, and its repeat if it is not of the first.

    Examples
    --------
    >>> name_of_fold(5, 2), name_of_fold(5, 7)
    ('fold 2 of 5', 'fold 2 of 5, repeat 2')
    """
    repeat, number = divmod(fold - 1, folds)
    return f"fold {number + 1} of {folds}" + (f", repeat {repeat + 1}" if repeat else "")


def describe_fold(folds: int, fold: int, val_fraction: float, seed: int, unit: str) -> str:
    """The split of `fold_split` by a lesion, patient or image, as a sentence."""
    return (
        f"Split: {name_of_fold(folds, fold)} of a cross-validation by {unit}, stratified by class, with "
        f"{val_fraction:g} of all for validation, seed {seed + (fold - 1) // folds}."
    )


def complete_split(
    table: pd.DataFrame,
    given: pd.Series,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    group_by_lesion: bool = True,
) -> pd.Series:
    """The data's own split, unchanged; missing parts are cut from train as in `split_table`.

    Parameters
    ----------
    given : the part of each row; rows with "" must have been left out.

    Raises
    ------
    ValueError : train has no usable image, or a class has too few to cut a part from.
    """
    parts = given.where(table.index.isin(usable(table).index), "")
    if not (parts == "train").any():
        raise ValueError("The data's own split has no usable training image. Pass --split-file none for a new split.")
    _refuse_disjoint_classes(table, parts)
    fractions = {"val": val_fraction, "test": test_fraction}
    shares = {part: share for part, share in fractions.items() if not (parts == part).any()}
    if not shares:
        return parts
    # A missing part gets its share of all images, given the shares of the existing parts.
    whole = 1 - sum(share for part, share in fractions.items() if part not in shares)
    shares = {"train": 1 - sum(shares.values()) / whole} | {part: share / whole for part, share in shares.items()}
    of_train = table[parts == "train"]
    return parts.mask(parts == "train", _deal(of_train, shares, seed, group_by_lesion).reindex(table.index))


def _refuse_disjoint_classes(table: pd.DataFrame, parts: pd.Series) -> None:
    """Raises ValueError if a part shares no class with train, e.g. because each table uses other names."""
    labels = {part: table.loc[parts == part, "label"].dropna().unique().tolist() for part in SPLITS}
    for part in SPLITS[1:]:
        if labels["train"] and labels[part] and not set(labels["train"]) & set(labels[part]):
            ours, theirs = (", ".join(map(quoted, labels[name])) for name in ("train", part))
            both = (sorted(labels[name], key=lambda code: (is_malignant(code), code)) for name in ("train", part))
            pairs = [[code for code in pair if code] for pair in zip_longest(*both)]
            example = [f"{quoted(a)}={','.join(map(quoted, (a, *b)))}" if b else a for a, *b in pairs]
            raise ValueError(
                f"The data's own split has the classes {theirs} in {part} and {ours} in train, with none in common. "
                f"Map them, as in {as_flag(example)}\nOr pass --split-file none."
            )


def _too_few(used: pd.DataFrame, position: int, n_lesions: int, grouped: bool, parts: list[str]) -> str:
    n_images, classes = int((positions_of(used) == position).sum()), classes_of(used)
    size = f"{n_lesions} lesion(s), {n_images} image(s)" if grouped else f"{n_images} image(s)"
    three = "train, validation and test" if len(parts) == len(SPLITS) else " and ".join(parts)
    names = f"{len(parts)} folds" if parts[0].startswith("fold") else three
    problem = f"{size}: too few for {names}, which need one each. "
    enough = n_images >= len(parts)
    ungroup = ", pass --no-group-by-lesion (its images then leak between the parts)" if grouped and enough else ""
    if not classes:
        return f"There is {problem}Add images{ungroup}."
    if position < 0:
        return (
            f"Without a diagnosis, the data has {problem}Add images, give these a diagnosis, or remove them{ungroup}."
        )
    others = [quoted(code) for code in classes if code != classes[position]]
    choice = f", or learn only the other classes: {as_flag(others)}" if 1 < len(others) <= 20 else ""
    return (
        f"Class {with_names([classes[position]])} has {problem}Add images, raise --limit if it is set{ungroup}"
        f"{choice or ', or merge classes: --classes name=one,other'}"
    )


def heads_in_all_parts(table: pd.DataFrame) -> pd.Series:
    """Whether each part of the split has targets for label and mask; labels need two classes."""
    is_complete = targets(table).groupby(table["split"]).any().reindex(SPLITS, fill_value=False).all()
    is_complete["label"] &= len(classes_of(table)) > 1
    return is_complete


def n_leaked(table: pd.DataFrame, split: pd.Series) -> int:
    """Number of test images that share a lesion or a patient with a training image."""
    group = groups_of(table)
    return int(group[split == "test"].isin(set(group[split == "train"])).sum())


def split_hash(table: pd.DataFrame) -> str:
    """Hash of names, labels, parts and decoded pixels, independent of the folder."""
    rows = table.assign(label=positions_of(table)).sort_values("image")[["image", "label", "split", "status", "crc"]]
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()[:16]


def split_by_image(table: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int) -> pd.Series | None:
    """`split_table` without lesions, for comparison; None if a class has too few images."""
    try:
        return split_table(table, val_fraction, test_fraction, seed, group_by_lesion=False)
    except ValueError:
        return None


def describe_split(table: pd.DataFrame, by_image: pd.Series | None) -> str:
    """Console lines: classes that all or some parts lack, unknown lesions, and the leakage of a split by image."""
    used, lines = usable(table), []
    for code, n_images in class_table(table).loc[list(classes_of(used))].iterrows():
        if missing := [part for part in SPLITS if not n_images[part]]:
            where = f" in {' and '.join(missing)}" if n_images.any() else ": it is neither learned nor evaluated"
            lines.append(f"Class {with_names([code])} has no image{where}.")
    lines += _warn_of_unknown_ids(used)
    unit = unit_of(used)
    if unit != "image" and by_image is None:
        lines.append("A split by image is impossible: a class has fewer than three images.")
    elif unit != "image":
        leaked, n_test = n_leaked(table, by_image), (by_image == "test").sum()
        of_test = f"{leaked} of {n_test} test images ({leaked / n_test:.1%})"
        in_this = f"in this split, {n_leaked(table, table['split'])} do"
        lines.append(f"If single images were split, {of_test} would share a {unit} with train; {in_this}.")
    return "\n".join(lines)


def unit_of(used: pd.DataFrame) -> str:
    """What stays in one part as a whole: a lesion, a patient, either, or a single image if neither is known."""
    has_patients = "patient_id" in used and used["patient_id"].notna().any()
    return " or ".join(["lesion"] * bool(used["lesion_known"].any()) + ["patient"] * bool(has_patients)) or "image"


def _warn_of_unknown_ids(used: pd.DataFrame) -> list[str]:
    """Warn that images without lesion and patient ids may leak and inflate the scores."""
    has_patient = used["patient_id"].notna() if "patient_id" in used else pd.Series(False, index=used.index)
    n_known = int((used["lesion_known"] | has_patient).sum())
    if n_known == len(used):
        return []
    n_patients = int(has_patient.sum())
    of_patients = f", patient ids for {n_patients}" if n_patients else ""
    n_lesions = int(used["lesion_known"].sum())
    return [
        f"Lesion ids are known for {n_lesions} of {len(used)} images{of_patients}: images of one lesion or "
        "patient may be in several parts, which cannot be checked and may inflate the scores."
    ]


def describe_own(table: pd.DataFrame, given: pd.Series, where: str) -> list[str]:
    """Describe the data's own split, the parts cut from train, and lesions and patients in several parts."""
    used = usable(table)
    cut = [part for part in SPLITS if part != "train" and not (given[used.index] == part).any()]
    lines = [f"Split: the data's own, by {where}" + (f"; {' and '.join(cut)} cut from train." if cut else ".")]
    for column, name in (("lesion_id", "lesions"), ("patient_id", "patients")):
        known = used[used["lesion_known"]] if column == "lesion_id" else used[used["patient_id"].notna()]
        n_parts = known.groupby(known[column])["split"].nunique()
        if n := int((n_parts > 1).sum()):
            lines.append(f"{n:,} of {len(n_parts):,} {name} are in several parts of it: scores are inflated.")
    return lines


def class_table(table: pd.DataFrame) -> pd.DataFrame:
    """Images per class (rows) and part (columns); one row "no diagnosis" if there are no classes."""
    used, classes = table[table["split"] != ""], classes_of(table)
    label = used["label"].astype(object).fillna("no diagnosis")
    counts = pd.crosstab(label, used["split"])
    counts = counts.reindex(index=classes or ["no diagnosis"], columns=SPLITS, fill_value=0)
    return counts.rename_axis(index=None, columns=None)


def with_totals(counts: pd.DataFrame) -> pd.DataFrame:
    """Add a row and a column "all"."""
    counts = counts.assign(all=counts.sum(axis=1))
    counts.loc["all"] = counts.sum()
    return counts
