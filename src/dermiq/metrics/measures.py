"""Measures as functions of sums over samples, so that a resample costs no more than its sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dermiq.metrics.bootstrap import RESAMPLES, Array, Estimate, ratio, resampled_sums

LEAST = 20


@dataclass(frozen=True)
class Measure:
    """A number that describes n samples.

    Attributes:
        counts: [n, m] float64, what each sample adds to the sums.
        statistic: sums [..., m] -> [...], NaN where it is undefined.
        n: of how many cases it is a share; None for what is no share.
    """

    counts: Array
    statistic: Callable[[Array], Array]
    n: int | None = None

    @property
    def value(self) -> float:
        """The measure of all samples."""
        return float(self.statistic(self.counts.sum(axis=0)))


def share(part: ArrayLike, whole: ArrayLike) -> Measure:
    """Sum of `part` [n] over sum of `whole` [n]."""
    counts = np.stack([np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)], axis=1)
    return Measure(counts, lambda sums: ratio(sums[..., 0], sums[..., 1]), int(counts[:, 1].sum()))


def mean(values: Sequence[float | None]) -> Measure:
    """Mean of the values that apply (are not None)."""
    applies = [value is not None for value in values]
    return share([value or 0.0 for value in values], applies)


def classification(targets: Sequence[str], named: Sequence[str]) -> dict[str, Measure]:
    """Accuracy, balanced accuracy and macro-F1 over the classes that occur as targets.

    Balanced accuracy is the mean of the classes' recalls; macro-F1 the mean of their F1 scores, 0 where a class is
    never named rightly. An answer that names none of the classes counts against its target's recall.

    Args:
        targets: [n], the class of each sample.
        named: [n], the class that was named, or anything else.
    """
    classes = np.array(sorted(set(targets)))
    actual = np.asarray(targets)[:, None] == classes
    claimed = np.asarray(named)[:, None] == classes
    right = actual & claimed
    recalls = np.hstack([right, actual]).astype(np.float64)

    def balanced(sums: Array) -> Array:
        hits, cases = np.split(sums, 2, axis=-1)
        return _mean(ratio(hits, cases))

    def macro_f1(sums: Array) -> Array:
        hits, cases, claims = np.split(sums, 3, axis=-1)
        return _mean(np.where(cases > 0, ratio(2 * hits, cases + claims), np.nan))

    return {
        "accuracy": share(right.any(axis=1), np.ones(len(targets))),
        "balanced_accuracy": Measure(recalls, balanced),
        "macro_f1": Measure(np.hstack([recalls, claimed]), macro_f1),
    }


def by_group(right: Sequence[bool], groups: Sequence[str | None]) -> dict[str, Measure]:
    """Accuracy within each group; samples without one (None or empty) are left out."""
    correct, names = np.asarray(right, dtype=np.float64), np.array([group or "" for group in groups])
    return {str(name): share(correct * (names == name), names == name) for name in np.unique(names) if name}


def worst_group_gap(accuracies: Mapping[str, Measure], least: int = LEAST) -> Measure | None:
    """Accuracy of the best group minus that of the worst, among the groups with at least `least` samples.

    Best and worst are found anew in each resample. Chance alone makes a gap: it is biased upwards, the more so the
    smaller and the more numerous the groups are, and its interval with it.

    Returns:
        None where fewer than two groups are large enough.
    """
    large = [measure for measure in accuracies.values() if (measure.n or 0) >= least]
    if len(large) < 2:
        return None

    def gap(sums: Array) -> Array:
        values = ratio(sums[..., 0::2], sums[..., 1::2])
        best: Array = np.where(np.isnan(values), -np.inf, values).max(axis=-1)
        worst: Array = np.where(np.isnan(values), np.inf, values).min(axis=-1)
        return best - worst

    return Measure(np.hstack([measure.counts for measure in large]), gap)


def resample(
    measures: Sequence[Measure], clusters: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0
) -> list[Estimate]:
    """Estimates of measures of the same n samples, all on the same resamples: their differences are paired.

    Args:
        measures: all of the same n samples.
        clusters: [n], what is resampled.
        resamples: R.
        seed: of the resamples.
    """
    if not measures:
        return []
    counts = [measure.counts for measure in measures]
    sums = resampled_sums(np.hstack(counts), clusters, resamples, seed)
    parts = np.split(sums, np.cumsum([each.shape[1] for each in counts])[:-1], axis=1)
    return [Estimate(measure.value, measure.statistic(part)) for measure, part in zip(measures, parts, strict=True)]


def estimates(measures: Mapping[str, Measure], clusters: Sequence[Hashable], seed: int = 0) -> dict[str, float]:
    """Measures by name with the ends of their 95 % intervals, ``NAME/low`` and ``NAME/high``, and ``NAME/n`` of shares.

    There is no interval where fewer than two clusters bear on a measure: nothing varies.

    Args:
        measures: all of the same n samples.
        clusters: [n], what is resampled.
        seed: of the resamples.
    """
    found: dict[str, float] = {}
    resampled = resample(list(measures.values()), clusters, seed=seed)
    for (name, measure), estimate in zip(measures.items(), resampled, strict=True):
        found[name] = estimate.value
        if len({clusters[row] for row in np.flatnonzero(measure.counts.any(axis=1)).tolist()}) > 1:
            found[f"{name}/low"], found[f"{name}/high"] = estimate.interval
        if measure.n is not None:
            found[f"{name}/n"] = measure.n
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _mean(values: Array) -> Array:
    """Mean over the last axis, NaN left out."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))
