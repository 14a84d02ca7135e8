"""Percentile intervals by resampling whole clusters (patients, lesions), all statistics on the same resamples.

What is resampled are clusters and not samples: images of one lesion are not independent. A statistic of sums
over samples (a mean, a recall, F1) is computed of all resamples at once. A paired comparison is a difference
of two estimates on the same resamples, or an estimate of the samples' differences.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16; Field and Welsh,
"Bootstrapping clustered data", Journal of the Royal Statistical Society B 69, 2007.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
RESAMPLES = 1000
_CHOSEN_AT_ONCE = 1_000_000


def resampled_sums(values: ArrayLike, clusters: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Column sums of samples whose clusters are sampled with replacement, as many as there are.

    Args:
        values: [n, m], finite.
        clusters: [n], what each sample belongs to.
        resamples: how many times, R.
        seed: of the resamples; with equal clusters, equal seeds give the same ones.

    Returns:
        [R, m] float64.
    """
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(cluster, len(places)) for cluster in clusters], dtype=np.int64)
    columns = np.asarray(values, dtype=np.float64)
    size = len(places)
    sums = np.zeros((size, columns.shape[1]))
    np.add.at(sums, index, columns)
    rng = np.random.default_rng(seed)
    block = max(1, _CHOSEN_AT_ONCE // size)
    found = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        chosen = rng.integers(0, size, (rows, size)) + np.arange(rows)[:, None] * size
        found.append(np.bincount(chosen.ravel(), minlength=rows * size).reshape(rows, size) @ sums)
    return np.concatenate(found)


def resampled_means(
    values: ArrayLike, clusters: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0
) -> Array:
    """Column means of resamples, see `resampled_sums`.

    Args:
        values: [n, m]; NaN where a value does not apply to its sample.
        clusters: [n].
        resamples: R.
        seed: of the resamples.

    Returns:
        [R, m] float64; NaN where a resample holds no value.
    """
    columns = np.asarray(values, dtype=np.float64)
    applies = ~np.isnan(columns)
    sums = resampled_sums(np.hstack([np.where(applies, columns, 0.0), applies]), clusters, resamples, seed)
    total, count = np.hsplit(sums, 2)
    return ratio(total, count)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Quotients; NaN where nothing is divided."""
    quotient = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the resamples [R] of a statistic, NaN left out; two NaN if nothing is left."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_value(values: ArrayLike) -> float:
    """Two-sided p of the hypothesis that a difference is 0, from its resamples [R]; NaN left out.

    Twice the share of resamples on the far side of 0, each side counting one more than it has, so that p is never 0
    (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 4.2).
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(known) + 1))


@dataclass(frozen=True)
class Estimate:
    """A number, and the same number in each of R resamples.

    Attributes:
        value: of all samples.
        resampled: [R] float64.
    """

    value: float
    resampled: Array

    def __sub__(self, other: Estimate) -> Estimate:
        """The paired difference from an estimate on the same resamples."""
        return Estimate(self.value - other.value, self.resampled - other.resampled)

    @property
    def standard_error(self) -> float:
        """Standard deviation over the resamples."""
        return float(self.resampled.std(ddof=1))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % percentile interval."""
        return interval(self.resampled)

    @property
    def p(self) -> float:
        """Two-sided p value of the hypothesis that the number is 0."""
        return p_value(self.resampled)
