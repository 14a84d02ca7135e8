"""Allocation of groups to splits: stratum by stratum or, where that misses the fractions, all in one sequence."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from dermiq.datamodules.splits.clusters import Numbers

POINT = 0.01  # of all samples: how far a split may be from its fraction without a warning
FEW = 10  # strata: each is in every split, at the price of at most ten groups beyond the fraction
_ALL = "all"


def allocate(stratum: Numbers, size: Numbers, rank: Numbers, fractions: Sequence[float]) -> Numbers:
    """The split of each group, [groups] int64.

    Each stratum by itself follows `fractions` but for the rounding to whole groups. Where many strata round the same
    way, as with answers that are mostly unique, their sum is far from `fractions`: by more than a point, and by more
    than the largest group explains. Then all groups are allocated in one sequence, and strata too small to give every
    split a group count as one.

    Args:
        stratum: of each group, a number from 0 on, [groups] int64.
        size: samples of each group, [groups] int64.
        rank: of each group, its place within its stratum, [groups] int64.
        fractions: of the splits; positive, with the sum 1.
    """
    if not len(size):
        return np.empty(0, np.int64)
    by_stratum = _by_stratum(stratum, size, rank, fractions)
    largest = round(float(size.max() / size.sum()), 9)
    allowed = (0, max(POINT, largest if largest <= min(fractions) else 0.0))
    if deviation(by_stratum, size, fractions) <= allowed:
        return by_stratum
    found = [by_stratum, _in_sequence(stratum, size, rank, fractions)]
    if deviation(found[1], size, fractions) > allowed and np.count_nonzero(np.bincount(stratum)) > FEW:
        found.append(_in_sequence(np.zeros_like(stratum), size, rank, fractions))
    return min(found, key=lambda split: deviation(split, size, fractions))


def deviation(split: Numbers, size: Numbers, fractions: Sequence[float]) -> tuple[int, float]:
    """The number of empty splits, and the largest difference of a split's share of all samples from its fraction."""
    held = np.bincount(split, size, len(fractions))
    return int((held == 0).sum()), round(float(abs(held / size.sum() - fractions).max()), 9)


def _by_stratum(stratum: Numbers, size: Numbers, rank: Numbers, fractions: Sequence[float]) -> Numbers:
    """The allocation of each stratum by itself: [groups] int64."""
    order = np.lexsort([rank, stratum])
    split = np.empty(len(size), np.int64)
    for groups in np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1):
        split[groups] = _of_stratum(size[groups].tolist(), fractions)
    return split


def _of_stratum(sizes: Sequence[int], fractions: Sequence[float]) -> list[int]:
    """The split of each group in order: one that has none of the stratum yet, else the one furthest below."""
    counts, total, chosen = [0] * len(fractions), 0, []
    numbers = range(len(fractions))
    for size in sizes:
        number = max(numbers, key=lambda i: (not counts[i], fractions[i] * total - counts[i], fractions[i]))
        counts[number] += size
        total += size
        chosen.append(number)
    return chosen


def _in_sequence(stratum: Numbers, size: Numbers, rank: Numbers, fractions: Sequence[float]) -> Numbers:
    """The allocation of all groups in one sequence, [groups] int64.

    Groups above a point come first, the largest before the others; those below it follow, by the capacity that is left.
    """
    counts = np.bincount(stratum)
    least = len(fractions) if np.count_nonzero(counts) <= FEW else math.ceil(1 / min(fractions))
    stratum = np.where(counts[stratum] < least, -1, stratum)
    order = np.lexsort([rank, stratum])
    large = size[order] > POINT * size.sum()
    allocation = _Allocation(stratum, size, fractions)
    allocation.assign(order[large][np.argsort(-size[order[large]], kind="stable")], fractions)
    capacity = [max(capacity, 0.0) for capacity in allocation.capacity]
    allocation.assign(order[~large], [part / (sum(capacity) or 1) for part in capacity])
    return allocation.split


class _Allocation:
    """The splits while groups are assigned to them one after the other.

    Each stratum but -1, and the whole, needs a group in every split: its last groups go to the splits without one.

    Attributes:
        split: of each group, [groups] int64.
        capacity: samples that each split can still take.
    """

    def __init__(self, stratum: Numbers, size: Numbers, fractions: Sequence[float]) -> None:
        self.split = np.empty(len(size), np.int64)
        self.capacity = (np.array(fractions) * size.sum()).tolist()
        self._stratum, self._size, self._fractions = stratum, size, fractions
        numbers, counts = np.unique(stratum, return_counts=True)
        self._left: dict[Hashable, int] = dict(zip(numbers.tolist(), counts.tolist(), strict=True)) | {_ALL: len(size)}
        self._without: dict[Hashable, set[int]] = {
            name: set(range(len(fractions))) for name in self._left if name != -1
        }

    def assign(self, groups: Numbers, fractions: Sequence[float]) -> None:
        """Assign groups in their order, each to the split that is furthest below its fraction of these groups."""
        deficit = [0.0] * len(fractions)
        numbers = []
        pairs = zip(self._stratum[groups].tolist(), self._size[groups].tolist(), strict=True)
        for stratum, size in pairs:
            choice = max(self._allowed(stratum, size), key=lambda i: (deficit[i], self._fractions[i]))
            numbers.append(choice)
            for i, fraction in enumerate(fractions):
                deficit[i] += fraction * size
            deficit[choice] -= size
            self.capacity[choice] -= size
            for name in (_ALL, stratum):
                self._left[name] -= 1
                self._without.get(name, set()).discard(choice)
        self.split[groups] = numbers

    def _allowed(self, stratum: int, size: int) -> Sequence[int]:
        """The splits that a group may go to.

        Those that need one of the last groups; else those with the capacity for it; else the one with the most.
        """
        for name in (_ALL, stratum):
            without = self._without.get(name)
            if without and self._left[name] <= len(without):
                return sorted(without)
        numbers = range(len(self._fractions))
        return [i for i in numbers if size <= self.capacity[i]] or [max(numbers, key=self.capacity.__getitem__)]
