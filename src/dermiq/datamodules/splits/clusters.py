"""Which samples belong together: the union of all that ties them, be it a group, a link or a known duplicate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dermiq.datamodules.sample_table import IMAGE_LINK, SampleTable

Numbers = NDArray[np.int64]


class Tie(NamedTuple):
    """Samples that have a key in common belong together.

    Attributes:
        samples: index of a sample, [entries] int64; a sample may have any number of entries.
        keys: its key, [entries] int64, 0 <= key; keys mean nothing beyond their tie.
    """

    samples: Numbers
    keys: Numbers


def encoded(texts: Any) -> tuple[Numbers, pa.Array]:
    """Texts as numbers: which of the distinct texts each is, and these, in the order in which they first occur.

    Args:
        texts: a list of texts or an Arrow array of them.
    """
    column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else pa.array(texts, pa.string())
    codes = column.dictionary_encode()
    return codes.indices.to_numpy().astype(np.int64), codes.dictionary


def group_tie(table: SampleTable) -> Tie:
    """What the groups of samples tie together."""
    return Tie(np.arange(len(table)), encoded(table.strings("group"))[0])


def link_tie(table: SampleTable) -> Tie:
    """What the links of samples tie together."""
    samples, links = table.links()
    return Tie(samples, encoded(links)[0])


def union(length: int, ties: Iterable[Tie]) -> Numbers:
    """The clusters that ties make of `length` samples.

    All roots are hooked at once to the smallest root that they meet, then paths are halved until they are flat, over
    and over until every tie lies within one tree (Shiloach and Vishkin, J. Algorithms 3 (1982) 57-67).

    Returns:
        The smallest index in the cluster of each sample, [length] int64.
    """
    parent = np.arange(length)
    pairs = [(parent[:0], parent[:0]), *map(_pairs, ties)]
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    while True:
        first, second = parent[left], parent[right]
        apart = first != second
        if not apart.any():
            return parent
        left, right, first, second = left[apart], right[apart], first[apart], second[apart]
        np.minimum.at(parent, np.maximum(first, second), np.minimum(first, second))
        while not np.array_equal(shorter := parent[parent], parent):
            parent = shorter


def straddling(table: SampleTable, sides: Numbers) -> tuple[str, str, int, int] | None:
    """Something that ties samples of two sides together.

    A group that is the name of an image below its data set's folder counts by the image's file alone, which is a link:
    in two folders one name may stand for two images.

    Args:
        table: of the samples.
        sides: a number for each sample, [samples] int64.

    Returns:
        What it is (``group`` or ``link``), its text, and the two sides; None if no side is tied to another.
    """
    samples, links = table.links()
    by_image = samples[pc.starts_with(links, IMAGE_LINK).to_numpy().astype(bool)]
    grouped = np.setdiff1d(np.arange(len(table)), by_image)
    groups = table.strings("group").take(pa.array(grouped))
    for kind, owners, texts in (("group", grouped, groups), ("link", samples, links)):
        keys, names = encoded(texts)
        lowest, highest = np.full(len(names), len(sides)), np.full(len(names), -1)
        np.minimum.at(lowest, keys, sides[owners])
        np.maximum.at(highest, keys, sides[owners])
        both = np.flatnonzero(lowest < highest)
        if len(both):
            return kind, names[both[0]].as_py(), int(lowest[both[0]]), int(highest[both[0]])
    return None


def cluster_names(table: SampleTable, clusters: Numbers | None = None) -> pa.ChunkedArray:
    """The cluster of each sample by a name that does not depend on their order: its alphabetically first group.

    Args:
        table: of the samples.
        clusters: any number for each cluster; None takes those that groups and links make.
    """
    groups = table.strings("group")
    if clusters is None:
        link = link_tie(table)
        if not len(link.samples):
            return groups
        clusters = union(len(table), [group_tie(table), link])
    codes, names = encoded(groups)
    order = pc.sort_indices(names).to_numpy().astype(np.int64)
    rank = np.argsort(order)
    least = np.full(len(table), len(names))
    np.minimum.at(least, clusters, rank[codes])
    return pa.chunked_array([names.take(pa.array(order[least[clusters]]))])


def _pairs(tie: Tie) -> tuple[Numbers, Numbers]:
    """Each entry's sample beside one sample of the same key."""
    if not len(tie.keys):
        return tie.samples, tie.samples
    one = np.zeros(tie.keys.max() + 1, np.int64)
    one[tie.keys] = tie.samples
    return tie.samples, one[tie.keys]
