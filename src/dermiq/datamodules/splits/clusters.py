"""Clusters of samples: connected components by group, link, duplicate list or near-duplicate image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dermiq.datamodules.sample_table import IMAGE_LINK, SampleTable

Numbers = NDArray[np.int64]


class Tie(NamedTuple):
    """Edges between samples and keys: samples with a key in common are connected.

    Attributes:
        samples: index of a sample, [entries] int64; a sample may have any number of entries.
        keys: its key, [entries] int64, 0 <= key; the keys of two ties are unrelated.
    """

    samples: Numbers
    keys: Numbers


def encoded(texts: Any) -> tuple[Numbers, pa.Array]:
    """Dictionary encoding: the code of each text, [texts] int64, and the distinct texts in order of occurrence.

    Args:
        texts: a list of texts or an Arrow array of them.
    """
    column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else pa.array(texts, pa.string())
    codes = column.dictionary_encode()
    return codes.indices.to_numpy().astype(np.int64), codes.dictionary


def group_tie(table: SampleTable) -> Tie:
    """The tie of each sample to its group."""
    return Tie(np.arange(len(table)), encoded(table.strings("group"))[0])


def link_tie(table: SampleTable) -> Tie:
    """The tie of each sample to its links."""
    samples, links = table.links()
    return Tie(samples, encoded(links)[0])


def union(length: int, ties: Iterable[Tie]) -> Numbers:
    """The cluster of each of `length` samples, [length] int64: the smallest index of the samples that ties connect."""
    samples = np.arange(length)
    pairs = [(samples[:0], samples[:0]), *map(_pairs, ties)]
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    edges = coo_array((np.ones(len(left)), (left, right)), (length, length))
    components = connected_components(edges, directed=False)[1] if length else samples
    _, first = np.unique(components, return_index=True)
    return first[components]


def straddling(table: SampleTable, sides: Numbers) -> tuple[str, str, int, int] | None:
    """A group or a link with samples on two sides, the first that is found; None if there is none.

    A group that is the name of an image below its data set's folder counts by the image's file alone, which is a link:
    in two folders one name may stand for two images.

    Args:
        table: of the samples.
        sides: a number for each sample, [samples] int64.

    Returns:
        ``group`` or ``link``, its text, and the two sides.
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
    """The name of each sample's cluster, whatever the order of the samples: its alphabetically first group.

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
    """The edges between each entry's sample and one sample of the same key."""
    if not len(tie.keys):
        return tie.samples, tie.samples
    one = np.zeros(tie.keys.max() + 1, np.int64)
    one[tie.keys] = tie.samples
    return tie.samples, one[tie.keys]
