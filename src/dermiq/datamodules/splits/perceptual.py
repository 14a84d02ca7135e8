"""Near-duplicate images: a perceptual hash, and the pairs of hashes that differ in few bits.

The hash is the known one of the discrete cosine transform (C. Zauner, "Implementation and benchmarking of perceptual
image hash functions", 2010), with 256 bits in place of 64: dermatoscopic photographs, a dark spot in the middle of
skin, are so alike that 64 bits do not tell lesions apart (docs/data_splits.md has the figures).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.splits.clusters import Numbers, Tie, union
from dermiq.schema import DataError

BITS = 256
_SIDE = 32  # of the picture that is transformed, in pixels
_FEWEST_BANDS = 8  # of 32 bits each
_CANDIDATES = 1 << 22  # pairs compared at once
_CHUNK = 32

_frequencies = np.arange(16)[:, None]
_COSINES = np.cos(np.pi / _SIDE * _frequencies * (np.arange(_SIDE) + 0.5))
_sources: Sequence[Source] = ()


class NearDuplicates(NamedTuple):
    """Ties between the samples of near-duplicate images.

    Attributes:
        tie: between samples.
        images: how many there are.
        unreadable: the errors of those that could not be opened; they have no tie.
    """

    tie: Tie
    images: int
    unreadable: list[str]


def image_hash(image: Image.Image) -> NDArray[np.uint64]:
    """Perceptual hash, [4] uint64: a bit for each of the 16 x 16 lowest frequencies, set if it exceeds their median."""
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    strength = (_COSINES @ np.asarray(grey, np.float64) @ _COSINES.T).ravel()
    return np.packbits(strength > np.median(strength[1:])).view(np.uint64)


def near_duplicates(sources: Sequence[Source], distance: int, processes: int | None = None) -> NearDuplicates:
    """Ties between samples with near-duplicate images.

    Args:
        sources: loaded; their samples count one source after the other.
        distance: the most bits of 256 in which the hashes of near-duplicates differ.
        processes: to open images in; None takes one per processor.

    Raises:
        DataError: if `distance` is negative, or too large to tell images apart.
    """
    if not 0 <= distance <= BITS // 4:
        raise DataError(f"`perceptual_distance` is {distance}, of {BITS} bits: give 0 to {BITS // 4}, or none.")
    owners, jobs = _images(sources)
    hashes, places, unreadable = [], [], []
    for place, result in enumerate(_hashed(sources, jobs, processes)):
        if isinstance(result, str):
            unreadable.append(result)
        else:
            hashes.append(result)
            places.append(place)
    distinct, same = np.unique(np.array(hashes, np.uint64).reshape(-1, BITS // 64), axis=0, return_inverse=True)
    pairs = close_pairs(distinct, distance)
    alike = union(len(distinct), [Tie(pairs.ravel(), np.arange(len(pairs)).repeat(2))])
    return NearDuplicates(Tie(owners[places], alike[same]), len(jobs), unreadable)


def close_pairs(hashes: NDArray[np.uint64], distance: int) -> Numbers:
    """The pairs of hashes that differ in at most `distance` bits.

    Multi-index hashing (M. Norouzi, A. Punjani, D. Fleet, CVPR 2012): the bits are cut into bands, more than half as
    many as bits may differ. Such hashes differ by at most one bit in some band, and only pairs that do are compared.

    Args:
        hashes: distinct, [images, 4] uint64.
        distance: bits.

    Returns:
        Pairs of indices, the smaller first, [pairs, 2] int64.
    """
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    found = [np.empty((0, 2), np.int64)]
    for band in np.array_split(bits, max(distance // 2 + 1, _FEWEST_BANDS), axis=1):
        keys = band.astype(np.int64) @ (1 << np.arange(band.shape[1]))
        for pairs in _candidates(keys, band.shape[1]):
            differing = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).sum(axis=1)
            found.append(pairs[differing <= distance])
    return np.unique(np.concatenate(found), axis=0)


def _candidates(keys: Numbers, width: int) -> Iterator[Numbers]:
    """Batches of pairs whose keys of `width` bits differ in at most one, the smaller index first, [pairs, 2] int64."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    for flip in [0, *(1 << np.arange(width)).tolist()]:
        start = np.searchsorted(ordered, ordered ^ flip, "left")
        counts = np.searchsorted(ordered, ordered ^ flip, "right") - start
        cuts = np.searchsorted(np.cumsum(counts), np.arange(_CANDIDATES, counts.sum(), _CANDIDATES))
        for rows in np.split(np.arange(len(keys)), cuts):
            repeats = counts[rows]
            place = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
            pairs = np.stack([order[np.repeat(rows, repeats)], order[np.repeat(start[rows], repeats) + place]], axis=1)
            yield pairs[pairs[:, 0] < pairs[:, 1]]


def _images(sources: Sequence[Source]) -> tuple[Numbers, list[tuple[int, str]]]:
    """The sample of each image by index, [images] int64, and the source and reference of each image."""
    owners: list[int] = []
    jobs: list[tuple[int, str]] = []
    start = 0
    for number, source in enumerate(sources):
        for index, sample in enumerate(source, start=start):
            owners += [index] * len(sample.images)
            jobs += [(number, reference) for reference in sample.images]
        start += len(source)
    return np.array(owners, np.int64), jobs


def _hashed(
    sources: Sequence[Source], jobs: Sequence[tuple[int, str]], processes: int | None
) -> Iterator[NDArray[np.uint64] | str]:
    console = Console(stderr=True)
    processes = os.cpu_count() if processes is None else processes
    with ProcessPoolExecutor(processes, initializer=_hold, initargs=(sources,)) as pool:
        results = pool.map(_hash, jobs, chunksize=_CHUNK)
        yield from track(
            results, "Hashing images", total=len(jobs), console=console, disable=not console.is_terminal, transient=True
        )


def _hold(sources: Sequence[Source]) -> None:
    """Initialise a worker process: keep the sources whose images it opens."""
    global _sources
    _sources = sources


def _hash(job: tuple[int, str]) -> NDArray[np.uint64] | str:
    number, reference = job
    try:
        return image_hash(_sources[number].image(reference))
    except DataError as error:
        return str(error)
