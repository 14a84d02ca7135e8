"""Dealing groups out to splits: stratum by stratum, or where that misses the shares, all in one sequence."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from dermiq.datamodules.splits.clusters import Numbers

POINT = 0.01  # of all samples: how far a split may be from its share without a word
FEW = 10  # strata: in every split at any price, which is ten groups beyond its share at most
_ALL = "all"


def deal(stratum: Numbers, size: Numbers, rank: Numbers, shares: Sequence[float]) -> Numbers:
    """The split of each group: whole strata shared out each by itself, or all groups together.

    Each stratum by itself is shared out by `shares` but for the rounding to whole groups. Where many strata round the
    same way, as with answers that are mostly unique, the sum is far from `shares`: by more than a point, and more than
    the largest group explains. Then all groups are dealt in one sequence, and strata too small to give every split a
    group count as one.

    Args:
        stratum: of each group, a number from 0 on, [groups] int64.
        size: samples of each group, [groups] int64.
        rank: of each group, its place within its stratum among the others, [groups] int64.
        shares: of the splits; positive, and together 1.

    Returns:
        The number of a split, [groups] int64.
    """
    if not len(size):
        return np.empty(0, np.int64)
    apart = _dealt_apart(stratum, size, rank, shares)
    largest = round(float(size.max() / size.sum()), 9)
    if missed(apart, size, shares) <= (0, max(POINT, largest if largest <= min(shares) else 0.0)):
        return apart
    return min(apart, _dealt_together(stratum, size, rank, shares), key=lambda split: missed(split, size, shares))


def missed(split: Numbers, size: Numbers, shares: Sequence[float]) -> tuple[int, float]:
    """How many splits are empty, and by which share of all samples a split misses its own at most."""
    held = np.bincount(split, size, len(shares))
    return int((held == 0).sum()), round(float(abs(held / size.sum() - shares).max()), 9)


def _dealt_apart(stratum: Numbers, size: Numbers, rank: Numbers, shares: Sequence[float]) -> Numbers:
    """In each stratum, each group goes to the split that has nothing of it yet, else the one furthest below."""
    order = np.lexsort([rank, stratum])
    split = np.empty(len(size), np.int64)
    for groups in np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1):
        split[groups] = _shared_out(size[groups].tolist(), shares)
    return split


def _shared_out(sizes: Sequence[int], shares: Sequence[float]) -> list[int]:
    counts, total, dealt = [0] * len(shares), 0, []
    numbers = range(len(shares))
    for size in sizes:
        number = max(numbers, key=lambda i: (not counts[i], shares[i] * total - counts[i], shares[i]))
        counts[number] += size
        total += size
        dealt.append(number)
    return dealt


def _dealt_together(stratum: Numbers, size: Numbers, rank: Numbers, shares: Sequence[float]) -> Numbers:
    """In one sequence, the largest first, groups below a point last, by the room that the others leave."""
    counts = np.bincount(stratum)
    least = len(shares) if np.count_nonzero(counts) <= FEW else math.ceil(1 / min(shares))
    stratum = np.where(counts[stratum] < least, -1, stratum)
    order = np.lexsort([rank, stratum])
    large = size[order] > POINT * size.sum()
    table = _Table(stratum, size, shares)
    table.lay(order[large][np.argsort(-size[order[large]], kind="stable")], shares)
    room = [max(room, 0.0) for room in table.room]
    table.lay(order[~large], [part / (sum(room) or 1) for part in room])
    return table.split


class _Table:
    """The splits while groups are laid down on them.

    Each stratum but -1, and the whole, is owed a group in every split: its last groups go where it has none.

    Attributes:
        split: of each group, [groups] int64.
        room: of each split, in samples.
    """

    def __init__(self, stratum: Numbers, size: Numbers, shares: Sequence[float]) -> None:
        self.split = np.empty(len(size), np.int64)
        self.room = (np.array(shares) * size.sum()).tolist()
        self._stratum, self._size, self._shares = stratum, size, shares
        numbers, counts = np.unique(stratum, return_counts=True)
        self._left: dict[Hashable, int] = dict(zip(numbers.tolist(), counts.tolist(), strict=True)) | {_ALL: len(size)}
        self._lacking: dict[Hashable, set[int]] = {name: set(range(len(shares))) for name in self._left if name != -1}

    def lay(self, groups: Numbers, shares: Sequence[float]) -> None:
        """Lay groups down one after the other, each on the split that is furthest below its share.

        Args:
            groups: in their order.
            shares: of these groups.
        """
        due = [0.0] * len(shares)
        numbers = []
        pairs = zip(self._stratum[groups].tolist(), self._size[groups].tolist(), strict=True)
        for stratum, size in pairs:
            choice = max(self._open(stratum, size), key=lambda i: (due[i], self._shares[i]))
            numbers.append(choice)
            for i, share in enumerate(shares):
                due[i] += share * size
            due[choice] -= size
            self.room[choice] -= size
            for name in (_ALL, stratum):
                self._left[name] -= 1
                self._lacking.get(name, set()).discard(choice)
        self.split[groups] = numbers

    def _open(self, stratum: int, size: int) -> Sequence[int]:
        """The splits that a group may go to: those owed one before it is too late, those with room, or the roomiest."""
        for name in (_ALL, stratum):
            lacking = self._lacking.get(name)
            if lacking and self._left[name] <= len(lacking):
                return sorted(lacking)
        numbers = range(len(self._shares))
        return [i for i in numbers if size <= self.room[i]] or [max(numbers, key=self.room.__getitem__)]
