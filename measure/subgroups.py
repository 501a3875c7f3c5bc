"""Scores of a model by group of images: method of confirmation, source, skin type, age, sex, site, further columns.

Shapes: N images, n of a group, B resamples.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

import evaluate
from dataset.classes import classes_of, positions_of
from dataset.columns import FURTHER, GROUPED
from dataset.groups import lesions_known
from dataset.table import targets
from measure import bootstrap
from measure.calls import Calls
from measure.collect import Collected
from measure.numbers import of_points

BIOPSIED = ("histo", "histopathology", "histology")  # values of dx_type; confocal microscopy is not a biopsy
AGE_BANDS = {"under 40": 0, "40 to 59": 40, "60 and over": 60}  # lower limits in years
FEW_NUMBERS = 10  # a column with more distinct numbers is split at its quartiles
ROMAN = ("i", "ii", "iii", "iv", "v", "vi")
SKIN_TYPES = {word: rank for rank, pair in enumerate(zip("123456", ROMAN)) for word in pair}
UNKNOWN = "unknown"
N_SHOWN = 20  # groups of a column that are shown: the largest
FEWEST = 10  # lesions of each kind that a score needs; groups with fewer do not count in the largest gap


def is_biopsied(rows: pd.DataFrame) -> np.ndarray:
    """Whether the diagnosis was confirmed by histopathology: (N,) bool."""
    if "dx_type" not in rows:
        return np.zeros(len(rows), bool)
    return rows["dx_type"].astype("string").str.lower().isin(BIOPSIED).to_numpy(bool)


def subgroup_numbers(
    rows: pd.DataFrame, collected: Collected, resamples: bootstrap.Resamples
) -> tuple[list[dict], list[dict]]:
    """The scores of each group, and the largest gap in each score between the groups of a column.

    Columns without a known value are skipped; images without a value form the group `UNKNOWN`. Groups are in their
    natural order: ages and other numbers ascending, skin types I to VI, others by size.

    Returns
    -------
    groups : ``group`` (the column), ``value``, numbers of images, of lesions if known, of melanomas and malignant
        lesions where there are such classes, scores and intervals. If some images lack a target, ``n_labels`` or
        ``n_masks`` is the number behind the scores.
    gaps : by column, ``group``, ``scores`` as `GroupScores.gaps`, and how many values and images are not shown,
        beyond the `N_SHOWN` largest groups.
    """
    of_groups, groups, gaps = GroupScores(rows, collected), [], []
    for column in [name for name in (*GROUPED, *_further(rows)) if name in rows and rows[name].notna().any()]:
        name, values = column.removeprefix(FURTHER), ordered_groups(column, rows[column])
        members = {value: np.flatnonzero(values == value) for value in values.cat.categories}
        members = {value: chosen for value, chosen in members.items() if len(chosen)}
        largest = sorted(members, key=lambda value: -len(members[value]))[:N_SHOWN]
        shown = {value: chosen for value, chosen in members.items() if value in largest}
        n_hidden = sum(len(chosen) for value, chosen in members.items() if value not in largest)
        hidden = {"n_values_not_shown": len(members) - len(shown), "n_images_not_shown": n_hidden}
        gaps.append({"group": name, "scores": of_groups.gaps(shown, resamples), **hidden})
        if len(unknown := np.flatnonzero(values.isna())):
            shown[UNKNOWN] = unknown
        groups += [{"group": name, "value": value} | of_groups.of(chosen, resamples) for value, chosen in shown.items()]
    return groups, gaps


def _further(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows if name.startswith(FURTHER)]


def ordered_groups(column: str, values: pd.Series) -> pd.Series:
    """The group of each value as an ordered categorical; missing if unknown.

    Ages are grouped into `AGE_BANDS`. Other columns with more than `FEW_NUMBERS` numbers are split at their quartiles.
    """
    numbers = pd.to_numeric(values, errors="coerce")
    if column == "age":
        return pd.cut(numbers, [*AGE_BANDS.values(), np.inf], right=False, labels=list(AGE_BANDS))
    are_numbers = numbers.notna().equals(values.notna())
    if are_numbers and numbers.nunique() > FEW_NUMBERS:
        limits = numbers.quantile([0, 0.25, 0.5, 0.75, 1]).unique()[1:-1]
        return pd.cut(numbers, [-np.inf, *limits, np.inf], labels=_bands(limits))
    texts = values.map(str, "ignore")
    n_images = texts.value_counts()

    def place(value: str) -> tuple:
        if column == "fitzpatrick_skin_type":
            return SKIN_TYPES.get(value.lower().split()[-1], len(SKIN_TYPES)), value
        return (float(value),) if are_numbers else (-n_images[value], value)

    return texts.astype(pd.CategoricalDtype(sorted(n_images.index, key=place), ordered=True))


def _bands(limits: Sequence[float]) -> list[str]:
    """Names of the bands between limits, with the digits that differ; each limit belongs to the band below it."""
    if not len(limits):
        return ["all"]
    in_digits = ([f"{limit:.{n}g}" for limit in limits] for n in range(6, 18))  # 17 tell any two numbers apart
    texts = next(texts for texts in in_digits if len(set(texts)) == len(texts))
    between = [f"over {low}, up to {high}" for low, high in pairwise(texts)]
    return [f"up to {texts[0]}", *between, f"over {texts[-1]}"]


class GroupScores:
    """The scores of a model on any group of its images.

    Sensitivity and specificity are those of the fitted melanoma threshold, accuracies those of the top-1 class.
    """

    def __init__(self, rows: pd.DataFrame, collected: Collected) -> None:
        self.rows, self.known = rows, targets(rows)
        self.heads = [head for head in ("label", "mask") if getattr(collected, head) is not None]
        self.kinds: dict[str, np.ndarray] = {}  # (N,) bool: images of the classes that are counted
        self.means: dict[str, np.ndarray] = {}  # (N,) bool: images behind each score that is a mean of values in [0, 1]
        # By score: from positions (n,) to a function of weights (B, n); the kinds of images that it needs, (N,) bool.
        self.scores: dict[str, tuple[Callable, tuple[np.ndarray, ...]]] = {}
        if "label" in self.heads:
            self._add_labels(collected.calls)
        if "mask" in self.heads:
            masked = self.known["mask"].to_numpy()
            dice = np.full(len(rows), np.nan)
            dice[masked] = evaluate.dice(collected.mask[masked])
            self._add_mean("mean_dice", dice, masked)

    def _add_labels(self, calls: Calls) -> None:
        true, classes, labelled = positions_of(self.rows), classes_of(self.rows), self.known["label"].to_numpy()
        predicted = calls.likeliest
        self._add_mean("accuracy", predicted == true, labelled)

        def balanced_accuracy(chosen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            pair = true[chosen], predicted[chosen]
            return _one("balanced_accuracy", evaluate.in_groups(partial(evaluate.label_scores, classes=classes), *pair))

        of_classes = tuple(labelled & (true == k) for k in np.unique(true[labelled])) or (labelled,)
        self.scores["balanced_accuracy"] = balanced_accuracy, of_classes
        points, malignant = of_points(true, calls.probabilities, classes)
        if "melanoma" in points:
            is_melanoma, called = points["melanoma"][0], calls.above["melanoma"]
            self.kinds["melanomas"] = is_melanoma
            self._add_mean("melanoma_sensitivity", called, labelled & is_melanoma)
            self._add_mean("melanoma_specificity", 1 - called, labelled & ~is_melanoma)
        if malignant:
            is_malignant, score = malignant
            self.kinds["malignant"] = is_malignant

            def auc(chosen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
                return _one("auc", evaluate.ranking_scores.of(is_malignant[chosen], score[chosen]))

            self.scores["malignant_auc"] = auc, (labelled & is_malignant, labelled & ~is_malignant)

    def _add_mean(self, name: str, values: np.ndarray, images: np.ndarray) -> None:
        """A score that is the mean of values (N,) in [0, 1] over some images, (N,) bool."""
        values, self.means[name] = values.astype(float), images

        def mean(chosen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            of_chosen = values[chosen]
            return lambda weights: evaluate.weighted_mean(weights, of_chosen)

        self.scores[name] = mean, (images,)

    def score(self, name: str, chosen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """A score of a group, positions (n,), as a function of weights (B, n); NaN without an image that it needs."""
        function, kinds = self.scores[name]
        needed = np.any(kinds, axis=0)[chosen]
        if not needed.any():
            return lambda weights: np.full(len(weights), np.nan)
        score, is_whole = function(chosen[needed]), needed.all()
        return lambda weights: score(weights if is_whole else weights[:, needed])

    def of(self, chosen: np.ndarray, resamples: bootstrap.Resamples) -> dict:
        """Counts, scores and intervals of a group; a single lesion has no intervals."""
        members = self.rows.iloc[chosen]
        counts = {"n_images": len(chosen)}
        counts |= {"n_lesions": int(members["lesion_id"].nunique())} if lesions_known(self.rows) else {}
        counts |= {f"n_{kind}": int(images[chosen].sum()) for kind, images in self.kinds.items()}
        n_known = self.known.iloc[chosen][self.heads].sum()
        counts |= {f"n_{head}s": int(n) for head, n in n_known.items() if n < len(chosen)}
        some = resamples.of(chosen)
        means = {name: images[chosen] for name, images in self.means.items()} if _n_lesions(some) > 1 else {}
        scores = {name: self.score(name, chosen) for name in self.scores}
        numbers, intervals = bootstrap.with_intervals(
            lambda weights: {name: score(weights) for name, score in scores.items()}, some, means
        )
        return counts | numbers | {"intervals": intervals}

    def gaps(self, members: dict[str, np.ndarray], resamples: bootstrap.Resamples) -> dict[str, dict]:
        """The largest difference between two groups in each score, with its interval over the resamples of both.

        Groups with fewer than `FEWEST` lesions of a kind that the score needs do not count. For balanced accuracy, the
        kinds are the classes of the set, since a mean over fewer classes is another score. Empty if fewer than two
        groups remain. The interval is for the difference between these two groups; it ignores how they were chosen.

        Returns
        -------
        By score: ``higher`` and ``lower``, the two groups; ``difference``; ``interval``.
        """
        largest = {}
        for name in self.scores:
            values = {value: self._reliable(name, chosen, resamples) for value, chosen in members.items()}
            values = {value: score for value, score in values.items() if score is not None}
            if len(values) < 2:
                continue
            lower, *_, higher = sorted(values, key=values.__getitem__)
            largest[name] = {"higher": higher, "lower": lower}
            largest[name] |= self._difference(name, members[lower], members[higher], resamples)
        return largest

    def _difference(self, name: str, first: np.ndarray, second: np.ndarray, resamples: bootstrap.Resamples) -> dict:
        """A score of the second group minus that of the first, with the weights of the same resamples."""
        scores = [self.score(name, group) for group in (first, second)]
        places = (slice(len(first)), slice(len(first), None))
        return bootstrap.paired_difference(
            lambda i, weights: scores[i](weights[:, places[i]]), resamples.of(np.concatenate([first, second]))
        )

    def _reliable(self, name: str, chosen: np.ndarray, resamples: bootstrap.Resamples) -> float | None:
        """A group's score; None if undefined, or if it rests on fewer than `FEWEST` lesions of a kind."""
        of_kinds = [chosen[images[chosen]] for images in self.scores[name][1]]
        if min(_n_lesions(resamples.of(images)) for images in of_kinds) < FEWEST:
            return None
        value = float(self.score(name, chosen)(np.ones((1, len(chosen))))[0])
        return None if np.isnan(value) else value


def _one(name: str, scores: Callable[[np.ndarray], evaluate.Scores]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weights: scores(weights)[name]


def _n_lesions(some: bootstrap.Resamples) -> int:
    return len(np.unique(some.lesion))
