"""Lists of known duplicates, read as ties between samples."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.sources.reading.csv_rows import read_table
from dermiq.datamodules.sources.reading.photographs import SUFFIXES
from dermiq.datamodules.splits.clusters import Numbers, Tie, encoded, union
from dermiq.schema import DataError

log = logging.getLogger(__name__)

CLUSTER = "cluster"
_HINT = "A list of duplicates is a CSV file with a header, and ids of duplicates in each row."


class _Cell(NamedTuple):
    """One value of a list: a sample's name, perhaps.

    Attributes:
        column: file and column.
        key: row, or cluster; the samples of one key are duplicates.
        name: the value.
    """

    column: str
    key: str
    name: str


def listed_tie(paths: Sequence[str], table: SampleTable) -> Tie:
    """The tie between samples that lists name as duplicates.

    A list is a CSV file. The samples in one row are duplicates; with a column `cluster`, those in all rows of the same
    cluster are. A sample is named by its id, by ``dataset:id``, or by one of its links; the suffix of an image file is
    ignored. Columns that name no sample at all are ignored.

    Raises:
        DataError: if a file is missing or unreadable, or names no two samples as duplicates.
    """
    cells = [cell for path in paths for cell in _cells(path)]
    samples, places = _named([cell.name for cell in cells], table)
    known = set(places.tolist())
    columns = {cell.column for place, cell in enumerate(cells) if place in known}
    kept = np.array([cell.column in columns for cell in cells], bool)
    names = encoded([cell.name for cell in cells])[0]
    keys = encoded([cell.key for cell in cells])[0]
    clusters = union(len(cells), [Tie(np.flatnonzero(kept), column[kept]) for column in (names, keys)])
    tie = Tie(samples, clusters[places])
    for path in paths:
        _refuse_useless(path, cells, tie, places)
    return tie


def _cells(path: str) -> Iterator[_Cell]:
    for number, row in enumerate(read_table(Path(path), (), _HINT)):
        for column, value in row.items():
            if value and column != CLUSTER:
                stem, end = os.path.splitext(value)
                yield _Cell(
                    f"{path}:{column}", f"{path}:{row.get(CLUSTER, number)}", stem if end.lower() in SUFFIXES else value
                )


def _named(names: Sequence[str], table: SampleTable) -> tuple[Numbers, Numbers]:
    """Indices of the samples that are named, and for each the position of the first name that names it."""
    wanted = pa.array(names, pa.string())
    ids, datasets = table.strings("id"), table.strings("dataset")
    samples, links = table.links()
    everyone = np.arange(len(table))
    found = []
    for owners, texts in (
        (everyone, ids),
        (everyone, pc.binary_join_element_wise(datasets, ids, ":")),
        (samples, links),
    ):
        places = pc.index_in(texts, wanted)
        there = pc.is_valid(places).to_numpy()
        found.append((owners[there], places.drop_null().to_numpy().astype(np.int64)))
    first, second = (np.concatenate(side) for side in zip(*found, strict=True))
    return first, second


def _refuse_useless(path: str, cells: Sequence[_Cell], tie: Tie, places: Numbers) -> None:
    """Log how many duplicates a list names; a list without any is refused."""
    ours = np.array([cell.column.startswith(f"{path}:") for cell in cells], bool)
    pairs = np.unique(np.stack([tie.keys, tie.samples])[:, ours[places]], axis=1)
    clusters, counts = np.unique(pairs[0], return_counts=True)
    tied = int((counts > 1).sum())
    if not tied:
        raise DataError(
            f"{path}: no row names two samples of these sources, by id, dataset:id or link (it names {len(clusters)}). "
            f"{_HINT} Give the sources that it is about, or leave it out."
        )
    log.info("%s: %d cluster(s) of known duplicates, %d samples.", path, tied, int(counts[counts > 1].sum()))
