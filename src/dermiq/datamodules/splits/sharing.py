"""Sharing samples out in whole groups, so that every label reaches every split it can."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dermiq.datamodules.outline import Outlines
from dermiq.datamodules.splits.clusters import Numbers, cluster_names, encoded
from dermiq.schema import DataError

_SEPARATOR = "\x1f"


class _Deck(NamedTuple):
    """Groups in the order in which they are dealt out, those of one stratum after those of another.

    Attributes:
        group: of each sample, [samples] int64: its row in the other columns before ordering.
        order: the groups, [groups] int64.
        stratum: of each group, [groups] int64.
        size: samples of each group, [groups] int64.
    """

    group: Numbers
    order: Numbers
    stratum: Numbers
    size: Numbers


def split_outlines(outlines: Outlines, fractions: Mapping[str, float], seed: int) -> dict[str, Numbers]:
    """Split samples by what groups and links tie together, stratified by target, skin type and data set.

    Raises:
        DataError: see `split_by_group`.
    """
    return split_by_group(
        cluster_names(outlines), outlines.texts("target"), fractions, seed, joined(outlines, ("skin_type", "dataset"))
    )


def joined(outlines: Outlines, columns: Sequence[str]) -> pa.ChunkedArray:
    """The texts of some columns as one, to be compared."""
    return pc.binary_join_element_wise(*(outlines.texts(column) for column in columns), _SEPARATOR)


def split_by_group(
    groups: Any, labels: Any, fractions: Mapping[str, float], seed: int, within: Any = None
) -> dict[str, Numbers]:
    """Split samples so that no group straddles two splits and every label reaches every split it can.

    The result depends on the seed and on the names of the groups, not on the order of the samples. A
    label with at least as many groups as there are splits stands in all of them; beyond that, each
    label is shared out by `fractions`, as closely as its groups can be cut.

    Args:
        groups: of each sample, a list or an Arrow array of texts: patient, else lesion, else duplicate cluster.
        labels: of each sample, to stratify by.
        fractions: split -> share of the samples; positive, and together 1.
        seed: another seed gives another split.
        within: of each sample: what to stratify by within each label, in the second place. The groups of a label are
            dealt out sorted by it (systematic sampling), so that its values are shared out by `fractions`, too.

    Returns:
        split -> indices of its samples, ascending, [samples of the split] int64.

    Raises:
        DataError: if the fractions are no shares of one whole, or a split stays empty.
    """
    if any(share <= 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise DataError(f"split fractions must be positive and add up to 1, and these do not: {dict(fractions)}.")
    deck = _deck(groups, labels, seed, within)
    share = np.empty(len(deck.size), np.int64)
    for stratum in np.split(deck.order, np.flatnonzero(np.diff(deck.stratum[deck.order])) + 1):
        share[stratum] = _dealt(deck.size[stratum].tolist(), list(fractions.values()))
    of_sample = share[deck.group]
    splits = {name: np.flatnonzero(of_sample == number) for number, name in enumerate(fractions)}
    for name, chosen in splits.items():
        if not len(chosen):
            raise DataError(
                f"the {name} split is empty: {len(deck.size)} group(s) of {len(of_sample)} sample(s) are too few for "
                f"{len(fractions)} splits. Add samples, or leave {name} out of `fractions`."
            )
    return splits


def limit_by_group(groups: Any, labels: Any, limit: int, seed: int) -> Numbers:
    """At most `limit` samples in whole groups, with the labels in about the proportions of the whole.

    A smaller limit gives a subset of what a larger one gives, as long as no group has to be left out
    because it is larger than the room that is left.

    Args:
        groups: as of `split_by_group`.
        labels: likewise.
        limit: the most samples.
        seed: likewise.

    Returns:
        Indices of the chosen samples, ascending, [at most `limit`] int64.

    Raises:
        DataError: if not a single group fits.
    """
    deck = _deck(groups, labels, seed)
    stratum = deck.stratum[deck.order]
    counts = np.bincount(stratum)
    place = np.arange(len(stratum)) - (np.cumsum(counts) - counts)[stratum]
    queue = deck.order[np.lexsort((deck.order, (place + 0.5) / counts[stratum]))]
    chosen = np.zeros(len(deck.size), bool)
    room = limit
    for group, size in zip(queue.tolist(), deck.size[queue].tolist(), strict=True):
        if size <= room:
            chosen[group] = True
            room -= size
            if not room:
                break
    if not chosen.any():
        raise DataError(f"a limit of {limit} sample(s) leaves nothing: every group is larger. Raise the limit.")
    return np.flatnonzero(chosen[deck.group])


def _deck(groups: Any, labels: Any, seed: int, within: Any = None) -> _Deck:
    """Groups, those of one label in hash order; one with several labels counts under the rarest in the data."""
    group, names = encoded(groups)
    stratum = _rarest(group, labels, len(names))
    hashes = np.array([_hash(seed, name) for name in names.to_pylist()], "S16")
    keys = [hashes, stratum] if within is None else [hashes, _rarest(group, within, len(names)), stratum]
    return _Deck(group, np.lexsort(keys), stratum, np.bincount(group, minlength=len(names)))


def _hash(seed: int, group: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=16).digest()


def _rarest(group: Numbers, labels: Any, groups: int) -> Numbers:
    """The label of each group that is rarest in the data, as its place among all, rarest first."""
    codes, distinct = encoded(labels)
    counts, names = np.bincount(codes, minlength=len(distinct)), distinct.to_pylist()
    rank = np.argsort(sorted(range(len(names)), key=lambda code: (counts[code], names[code])))
    least = np.full(groups, len(names))
    np.minimum.at(least, group, rank[codes])
    return least


def _dealt(sizes: Sequence[int], shares: Sequence[float]) -> list[int]:
    """For each group the split that has nothing yet, else the one furthest below its share."""
    counts, total, dealt = [0] * len(shares), 0, []
    numbers = range(len(shares))
    for size in sizes:
        number = max(numbers, key=lambda i: (not counts[i], shares[i] * total - counts[i], shares[i]))
        counts[number] += size
        total += size
        dealt.append(number)
    return dealt
