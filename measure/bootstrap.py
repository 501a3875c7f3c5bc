"""Bootstrap intervals: lesions are resampled, each with all of its images.

Shapes: N images, L lesions, B resamples.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaincinv

import machine
from evaluate import Scores

N_RESAMPLES = 2000  # per interval
NO_WIDTH = 1e-9  # narrower intervals mean that all resamples agree, except for rounding
KIND = "_kind"  # suffix of the key that names the kind of an interval other than the bootstrap's
NONE = "none: all resamples give the same"
OF_SIZE = "test inversion, because resampling inflates absolute values"
BLOCK = 2**21  # weights per block, 16 MB
N_THREADS = 2  # blocks at once: more would wait for the memory rather than for a core


@dataclass(frozen=True)
class Resamples:
    """A bootstrap of lesions: how often each image counts when whole lesions are drawn with replacement.

    Image weights are computed block by block: all of them together would take 8 B N bytes, 1.6 GB for 100,000 images.

    Parameters
    ----------
    draws : (B, L) uint8, how often each lesion was drawn; the mean is 1, so 255 is never exceeded.
    lesion : (N,) int in [0, L), each image's lesion.
    """

    draws: np.ndarray
    lesion: np.ndarray

    def of(self, images: np.ndarray) -> "Resamples":
        """The same draws for a subset of the images, by positions or as (N,) bool."""
        return Resamples(self.draws, self.lesion[images])

    def blocks(self) -> Iterator[np.ndarray]:
        """Weights (b, N) of all resamples, block by block, float."""
        return map(self._weights, self._starts())

    def map(self, function: Callable[[np.ndarray], Any]) -> Iterator:
        """The function's value of each block, in order. Threads share the blocks: NumPy lets them run at once."""
        if len(self._starts()) == 1:
            yield function(self._weights(0))
            return
        with ThreadPoolExecutor(N_THREADS) as pool:
            yield from machine.map_ahead(pool, lambda start: function(self._weights(start)), self._starts(), N_THREADS)

    def _starts(self) -> range:
        return range(0, len(self.draws), self._n_rows)

    @property
    def _n_rows(self) -> int:
        return max(1, BLOCK // max(1, len(self.lesion)))

    def _weights(self, start: int) -> np.ndarray:
        return np.take(self.draws[start : start + self._n_rows], self.lesion, axis=1).astype(float)


def resample_lesions(lesions: Sequence, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Resamples:
    """Draw as many lesions as there are, with replacement.

    Images of one lesion are not independent, so drawing images would give intervals that are too narrow.

    Parameters
    ----------
    lesions : (N,) lesion of each image.
    """
    _, lesion = np.unique(np.asarray(lesions), return_inverse=True)
    n, rng = int(lesion.max()) + 1, np.random.default_rng(seed)
    draws = np.empty((n_resamples, n), np.uint8)
    for draw in draws:  # one at a time: all at once would take 8 bytes each
        draw[:] = rng.multinomial(n, np.full(n, 1 / n))
    return Resamples(draws, lesion)


def with_intervals(
    score: Callable[[np.ndarray], Scores], resamples: Resamples, means: dict[str, np.ndarray] | None = None
) -> tuple[dict, dict]:
    """Point estimates, and 95 % percentile intervals (Efron 1979) of a score that takes weights.

    If all resamples agree (e.g. 0 of 14 melanomas found), the bootstrap gives no interval. A score among the `means`
    then gets `exact_interval`, any other score none; the key with suffix `KIND` names the kind.

    Parameters
    ----------
    means : for scores that are means of values in [0, 1], the images behind the mean, (N,) bool, by name.

    Returns two dicts, nested along the dots in the names: numbers, and [low, high]. Undefined numbers are None.
    """
    point = score(np.ones((1, len(resamples.lesion))))
    drawn = list(resamples.map(score))
    intervals: dict = {}
    for name in point:
        values = np.concatenate([block[name] for block in drawn])
        defined = values[~np.isnan(values)]
        low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
        intervals[name] = [_number(low), _number(high)] if not np.isnan(point[name][0]) else None
        if high - low < NO_WIDTH and intervals[name]:
            images = (means or {}).get(name, np.zeros(len(resamples.lesion), bool))
            n_lesions = len(np.unique(resamples.lesion[images]))
            intervals[name] = exact_interval(float(point[name][0]), n_lesions) if n_lesions else None
            intervals[name + KIND] = f"Clopper-Pearson, {n_lesions} trials" if n_lesions else NONE
    return _nested({name: _number(values[0]) for name, values in point.items()}), _nested(intervals)


def interval_of_size(parts: np.ndarray, drawn: np.ndarray) -> list[float]:
    """95 % interval of a sum of absolute values, such as a calibration error over its bins.

    Chance makes each part larger, never smaller, and a resample adds its own chance to it: the percentiles of the
    resampled sums lie above the truth, and never hold 0. So the truth is taken to be the parts, all multiplied by one
    factor t, with the resamples' deviations as noise. The interval is of the t at which the sum that was found lies
    between the 2.5th and the 97.5th percentile (Neyman 1937); it is made to hold that sum itself, which noise alone may
    bring about.

    Parameters
    ----------
    parts : (M,) that were found.
    drawn : (B, M) those of the resamples.
    """
    size, noise = np.abs(parts).sum(), drawn - parts
    largest = np.percentile(np.abs(noise).sum(axis=1), 97.5)
    if not size:
        return [0.0, float(largest)]
    possible = [1.0]
    for t in np.linspace(0, 1 + largest / size, 201):  # beyond, the noise cannot bring the sum down to what was found
        low, high = np.percentile(np.abs(t * parts + noise).sum(axis=1), [2.5, 97.5])
        possible += [t] if low <= size <= high else []
    return [float(min(possible) * size), float(max(possible) * size)]


def exact_interval(mean: float, n: int) -> list[float]:
    """Clopper and Pearson's 95 % interval (1934) of a share of `n` lesions.

    For a mean of other values in [0, 1] it is too wide rather than too narrow: none of the same mean vary more than 0
    and 1 do. `mean` times `n` need not be whole (Korn and Graubard 1998).

    Examples
    --------
    >>> [round(end, 3) for end in exact_interval(0, 14)]  # the upper end is 1 - 0.025 ** (1 / 14)
    [0.0, 0.232]
    """
    hits = min(max(mean, 0.0), 1.0) * n
    low = betaincinv(hits, n - hits + 1, 0.025) if hits > 0 else 0
    high = betaincinv(hits + 1, n - hits, 0.975) if hits < n else 1
    return [float(low), float(high)]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _nested(flat: dict) -> dict:
    """{"a.b": 1} to {"a": {"b": 1}}."""
    nested: dict = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def paired_difference(
    score: Callable[[int, np.ndarray], np.ndarray], resamples: Resamples
) -> dict[str, float | list[float] | None]:
    """Second minus first model on the same images, with a 95 % interval from resamples that both share.

    Parameters
    ----------
    score : (model 0 or 1, weights (B, N)) -> (B,).
    """
    numbers, intervals = with_intervals(lambda weights: {"": score(1, weights) - score(0, weights)}, resamples)
    return {"difference": numbers[""], "interval": intervals[""]}


def two_sided_p(drawn: np.ndarray) -> float:
    """p value of a difference of 0 from its bootstrap resamples (B,): twice the smaller share on one side of 0.

    One is added to both counts (Davison and Hinkley 1997, section 4.4), so the smallest p is 2 / (B + 1), never 0.
    Resamples in which the difference is not defined do not count.

    Examples
    --------
    >>> two_sided_p(np.array([-1.0, 1, 2, 3, 4, 5, 6, 7, 8]))  # 2 (1 + 1) / (9 + 1)
    0.4
    """
    defined = drawn[~np.isnan(drawn)]
    smaller = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (1 + smaller) / (1 + len(defined))))
