"""Sharing samples out in whole groups, so that every label reaches every split it can."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.splits.clusters import Numbers, cluster_names, encoded
from dermiq.datamodules.splits.dealing import FEW, POINT, deal, missed
from dermiq.schema import DataError

_SEPARATOR = "\x1f"


class _Deck(NamedTuple):
    """Groups to be dealt out.

    Attributes:
        group: of each sample, [samples] int64: its row in the other columns.
        stratum: of each group, [groups] int64: its label among all, the rarest first.
        size: samples of each group, [groups] int64.
        rank: of each group, [groups] int64: its place in an order drawn from the seed and the names.
        chance: of each group, [groups] float64: drawn likewise, evenly from 0 to 1.
    """

    group: Numbers
    stratum: Numbers
    size: Numbers
    rank: Numbers
    chance: NDArray[np.float64]


def split_table(table: SampleTable, fractions: Mapping[str, float], seed: int) -> dict[str, Numbers]:
    """Split samples by what groups and links tie together, stratified by target, skin type and data set.

    Raises:
        DataError: see `split_by_group`.
    """
    return split_by_group(
        cluster_names(table), table.strings("target"), fractions, seed, joined(table, ("skin_type", "dataset"))
    )


def joined(table: SampleTable, columns: Sequence[str]) -> pa.ChunkedArray:
    """The texts of some columns as one, to be compared."""
    return pc.binary_join_element_wise(*(table.strings(column) for column in columns), _SEPARATOR)


def split_by_group(
    groups: Any, labels: Any, fractions: Mapping[str, float], seed: int, within: Any = None
) -> dict[str, Numbers]:
    """Split samples so that no group straddles two splits and every label reaches every split it can.

    The result depends on the seed and on the names of the groups, not on the order of the samples. Each
    label is shared out by `fractions`, as closely as its groups can be cut; labels with too few groups for that are
    shared out together, see `dermiq.datamodules.splits.dealing`. Where splits miss `fractions` by more than a point all
    the same, the log says so.

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
    share = deal(deck.stratum, deck.size, deck.rank, list(fractions.values()))
    of_sample = share[deck.group]
    splits = {name: np.flatnonzero(of_sample == number) for number, name in enumerate(fractions)}
    for name, chosen in splits.items():
        if not len(chosen):
            raise DataError(
                f"the {name} split is empty: {len(deck.size)} group(s) of {len(of_sample)} sample(s) are too few for "
                f"{len(fractions)} splits. Add samples, or leave {name} out of `fractions`."
            )
    _warn_of_misses(share, deck, fractions)
    return splits


def shares_in_words(counts: Mapping[str, int], used: Mapping[str, int] | None = None) -> str:
    """What splits hold, in a line: ``train 800 samples (80.0 %), val 100 (10.0 %), test 100 (10.0 %)``.

    Args:
        counts: split -> number of its samples.
        used: split -> how many of them a limit leaves.
    """
    total, used = sum(counts.values()), counts if used is None else used
    parts = [
        f"{name} {count:,}{'' if place else ' samples'} ({100 * count / total:.1f} %"
        + (f", {used[name]:,} used)" if used[name] != count else ")")
        for place, (name, count) in enumerate(counts.items())
    ]
    return ", ".join(parts)


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
    order = np.lexsort([deck.rank, deck.stratum])
    stratum = deck.stratum[order]
    counts = np.bincount(stratum)
    first = np.cumsum(counts) - counts
    strata = np.count_nonzero(counts)
    # A stratum is taken from evenly. Were many small ones to begin at the middle, all would be as far when room ends.
    start = np.where((counts >= strata) | (strata <= FEW), 0.5, deck.chance[order[np.minimum(first, len(order) - 1)]])
    place = np.arange(len(order)) - first[stratum] + start[stratum]
    queue = order[np.lexsort((order, place / counts[stratum]))]
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
    """Groups in hash order; one with several labels counts under the rarest in the data."""
    group, names = encoded(groups)
    hashes = np.array([_hash(seed, name) for name in names.to_pylist()], "S16")
    keys = [hashes] if within is None else [hashes, _rarest(group, within, len(names))]
    return _Deck(
        group=group,
        stratum=_rarest(group, labels, len(names)),
        size=np.bincount(group, minlength=len(names)),
        rank=np.argsort(np.lexsort(keys)),
        chance=hashes.view("<u8")[1::2] / 2.0**64,  # the order goes by the first half of the hash
    )


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


def _warn_of_misses(share: Numbers, deck: _Deck, fractions: Mapping[str, float]) -> None:
    _, miss = missed(share, deck.size, list(fractions.values()))
    if miss <= POINT:
        return
    held, total = np.bincount(share, deck.size, len(fractions)), deck.size.sum()
    shares = ", ".join(
        f"{name} {part / total:.1%} in place of {wanted:.1%}"
        for (name, wanted), part in zip(fractions.items(), held, strict=True)
    )
    _warn(
        f"The splits miss `fractions` by up to {100 * miss:.1f} points ({shares}): groups are never divided (the "
        f"largest of {len(deck.size):,} holds {deck.size.max():,} of {total:,} samples), and of up to {FEW} targets "
        "every split gets all that it can. More or smaller groups mend it, or other `fractions`."
    )


@rank_zero_only
def _warn(message: str) -> None:
    logging.getLogger(__name__).warning(message)
