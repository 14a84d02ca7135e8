"""Stratified splits of whole groups: every label in every split that its groups can reach."""

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
from dermiq.datamodules.splits.allocation import FEW, POINT, allocate, deviation
from dermiq.datamodules.splits.clusters import Numbers, cluster_names, encoded
from dermiq.schema import DataError

_SEPARATOR = "\x1f"


class _Groups(NamedTuple):
    """The groups of some samples, as columns.

    Attributes:
        group: of each sample, [samples] int64: its row in the other columns.
        stratum: of each group, [groups] int64: its label among all, the rarest first.
        size: samples of each group, [groups] int64.
        rank: of each group, [groups] int64: its place in a random order by the seed and the names.
        uniform: of each group, [groups] float64: a random number by the seed and the name, uniform in [0, 1).
    """

    group: Numbers
    stratum: Numbers
    size: Numbers
    rank: Numbers
    uniform: NDArray[np.float64]


def split_table(table: SampleTable, fractions: Mapping[str, float], seed: int) -> dict[str, Numbers]:
    """Indices of the samples of each split, [samples of the split] int64: whole clusters, stratified.

    Clusters are what groups and links connect, strata the targets, then skin type and data set within each.

    Raises:
        DataError: see `split_by_group`.
    """
    return split_by_group(
        cluster_names(table), table.strings("target"), fractions, seed, joined(table, ("skin_type", "dataset"))
    )


def joined(table: SampleTable, columns: Sequence[str]) -> pa.ChunkedArray:
    """The texts of some columns joined row by row, as one key to compare."""
    return pc.binary_join_element_wise(*(table.strings(column) for column in columns), _SEPARATOR)


def split_by_group(
    groups: Any, labels: Any, fractions: Mapping[str, float], seed: int, within: Any = None
) -> dict[str, Numbers]:
    """Stratified group split: no group is in two splits, and every label is in every split that its groups can reach.

    The result depends on the seed and on the names of the groups, not on the order of the samples. Each label is
    allocated by `fractions`, as closely as its whole groups allow; labels with too few groups for that are allocated
    as one, see `dermiq.datamodules.splits.allocation`. A split that still misses its fraction by more than a point is
    logged as a warning.

    Args:
        groups: of each sample, a list or an Arrow array of texts: patient, else lesion, else duplicate cluster.
        labels: of each sample, to stratify by.
        fractions: split -> fraction of the samples; positive, with the sum 1.
        seed: another seed gives another split.
        within: of each sample: what to stratify by within each label. The groups of a label are allocated sorted by
            it (systematic sampling), so that its values follow `fractions` as well.

    Returns:
        split -> indices of its samples, ascending, [samples of the split] int64.

    Raises:
        DataError: if the fractions are no shares of one whole, or a split stays empty.
    """
    if any(share <= 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise DataError(f"split fractions must be positive and add up to 1, and these do not: {dict(fractions)}.")
    table = _grouped(groups, labels, seed, within)
    split = allocate(table.stratum, table.size, table.rank, list(fractions.values()))
    of_sample = split[table.group]
    splits = {name: np.flatnonzero(of_sample == number) for number, name in enumerate(fractions)}
    for name, chosen in splits.items():
        if not len(chosen):
            raise DataError(
                f"the {name} split is empty: {len(table.size)} group(s) of {len(of_sample)} sample(s) are too few for "
                f"{len(fractions)} splits. Add samples, or leave {name} out of `fractions`."
            )
    _warn_of_deviation(split, table, fractions)
    return splits


def shares_in_words(counts: Mapping[str, int], used: Mapping[str, int] | None = None) -> str:
    """The sizes of splits in one line: ``train 800 samples (80.0 %), val 100 (10.0 %), test 100 (10.0 %)``.

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
    """Indices of at most `limit` samples in whole groups, [samples] int64 ascending: a stratified subset.

    A smaller limit gives a subset of what a larger one gives, as long as no group is left out because it is larger
    than what the limit still allows.

    Args:
        groups: as of `split_by_group`.
        labels: likewise.
        limit: the most samples.
        seed: likewise.

    Raises:
        DataError: if not a single group fits.
    """
    table = _grouped(groups, labels, seed)
    order = np.lexsort([table.rank, table.stratum])
    stratum = table.stratum[order]
    counts = np.bincount(stratum)
    first = np.cumsum(counts) - counts
    strata = np.count_nonzero(counts)
    # Systematic sampling: the groups of a stratum are evenly spaced in the queue. Of many small strata each gets a
    # random offset, or the first groups of all of them would stand at the same place.
    start = np.where((counts >= strata) | (strata <= FEW), 0.5, table.uniform[order[np.minimum(first, len(order) - 1)]])
    place = np.arange(len(order)) - first[stratum] + start[stratum]
    queue = order[np.lexsort((order, place / counts[stratum]))]
    chosen = np.zeros(len(table.size), bool)
    left = limit
    for group, size in zip(queue.tolist(), table.size[queue].tolist(), strict=True):
        if size <= left:
            chosen[group] = True
            left -= size
            if not left:
                break
    if not chosen.any():
        raise DataError(f"a limit of {limit} sample(s) leaves nothing: every group is larger. Raise the limit.")
    return np.flatnonzero(chosen[table.group])


def _grouped(groups: Any, labels: Any, seed: int, within: Any = None) -> _Groups:
    """The groups of samples, ranked by hash; one with several labels counts under the rarest in the data."""
    group, names = encoded(groups)
    hashes = np.array([_hash(seed, name) for name in names.to_pylist()], "S16")
    keys = [hashes] if within is None else [hashes, _rarest(group, within, len(names))]
    return _Groups(
        group=group,
        stratum=_rarest(group, labels, len(names)),
        size=np.bincount(group, minlength=len(names)),
        rank=np.argsort(np.lexsort(keys)),
        uniform=hashes.view("<u8")[1::2] / 2.0**64,  # of the second half of the hash: the first one ranks
    )


def _hash(seed: int, group: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=16).digest()


def _rarest(group: Numbers, labels: Any, groups: int) -> Numbers:
    """The rarest label of each group, [groups] int64: its place among all labels, rarest first."""
    codes, distinct = encoded(labels)
    counts, names = np.bincount(codes, minlength=len(distinct)), distinct.to_pylist()
    rank = np.argsort(sorted(range(len(names)), key=lambda code: (counts[code], names[code])))
    least = np.full(groups, len(names))
    np.minimum.at(least, group, rank[codes])
    return least


def _warn_of_deviation(split: Numbers, table: _Groups, fractions: Mapping[str, float]) -> None:
    _, miss = deviation(split, table.size, list(fractions.values()))
    if miss <= POINT:
        return
    held, total = np.bincount(split, table.size, len(fractions)), table.size.sum()
    shares = ", ".join(
        f"{name} {part / total:.1%} in place of {wanted:.1%}"
        for (name, wanted), part in zip(fractions.items(), held, strict=True)
    )
    _warn(
        f"The splits miss `fractions` by up to {100 * miss:.1f} points ({shares}): groups are never divided (the "
        f"largest of {len(table.size):,} holds {table.size.max():,} of {total:,} samples), and of up to {FEW} targets "
        "every split gets all that it can. More or smaller groups mend it, or other `fractions`."
    )


@rank_zero_only
def _warn(message: str) -> None:
    logging.getLogger(__name__).warning(message)
