"""The split file: data set, id, group and split of every sample, for all stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dermiq.datamodules.file_faults import is_file, reading, refuse_special
from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.splits.clusters import Numbers, straddling
from dermiq.datamodules.splits.stratified import joined
from dermiq.files import replacing
from dermiq.schema import DataError

COLUMNS = ("dataset", "id", "group", "split")
SETTINGS = b"dermiq.splits"
_KEY = ("dataset", "id")
_SHOWN = 5


def write_split(
    path: str | Path, samples: SampleTable, groups: pa.ChunkedArray, splits: Mapping[str, Numbers], settings: Any
) -> None:
    """Write a split file, its rows sorted by data set and id; an earlier file is replaced as a whole.

    Args:
        path: of the Parquet file.
        samples: of all samples.
        groups: the cluster of each.
        splits: split -> indices of its samples; each sample is in one of them.
        settings: what the split was made with, kept as JSON in the file's metadata.

    Raises:
        DataError: if two samples of one data set have the same id, or the file cannot be written.
    """
    names = np.empty(len(samples), object)
    for name, chosen in splits.items():
        names[chosen] = name
    columns = [samples.strings("dataset"), samples.strings("id"), groups, pa.array(names, pa.string())]
    table = pa.table(columns, names=COLUMNS).sort_by([(column, "ascending") for column in _KEY])
    _refuse_twins(table)
    table = table.replace_schema_metadata({SETTINGS: json.dumps(settings, sort_keys=True, default=str)})
    try:
        with replacing(path) as file:
            pq.write_table(table, file)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}). Name another file with --out.") from None


def read_split(path: str | Path) -> pa.Table:
    """The rows of a split file, with the columns `COLUMNS` as texts.

    Raises:
        DataError: if it is missing or no split file.
    """
    if not is_file(path):
        refuse_special(path)
        raise DataError(f"{path}: the split file is missing. Make it: {_command(path)}")
    with reading(f"{path}: the split file cannot be read", f"Make it anew: {_command(path)}"):
        table = pq.read_table(path)
    lacking = [column for column in COLUMNS if column not in table.column_names]
    if lacking:
        raise DataError(
            f"{path}: no split file, it lacks the column(s) {', '.join(lacking)}. Make one: {_command(path)}"
        )
    columns = []
    for column in COLUMNS:
        with reading(f"{path}: no split file, the column {column!r} holds no texts", f"Make one: {_command(path)}"):
            columns.append(table[column].cast(pa.string()))
    return pa.table(columns, names=COLUMNS, metadata=table.schema.metadata)


def parts_of(path: str | Path, samples: SampleTable) -> dict[str, Numbers]:
    """Indices of the samples of each split in a split file, looked up by data set and id.

    Returns:
        split -> indices of its samples, ascending, [samples of the split] int64; every split in the file.

    Raises:
        DataError: if the file is no split file, does not name every sample, or has samples of one group or link in
            two splits.
    """
    table = read_split(path)
    keys = pc.binary_join_element_wise(*(table[column] for column in _KEY), "\x1f")
    rows = pc.index_in(joined(samples, _KEY), keys)
    if rows.null_count:
        absent = samples.take(np.flatnonzero(pc.is_null(rows).to_numpy())[:_SHOWN])
        names = (f"{entry.id!r}" + (f" of {entry.dataset}" if entry.dataset else "") for entry in absent)
        raise DataError(
            f"{path} does not name {rows.null_count} of {len(samples)} samples: {', '.join(names)}"
            f"{', ...' if rows.null_count > _SHOWN else ''}. Make it anew with their source among `sources`: "
            f"{_command(path)}"
        )
    if table["split"].null_count:
        raise DataError(f"{path}: {table['split'].null_count} rows name no split. Make it anew: {_command(path)}")
    splits = table["split"].combine_chunks().dictionary_encode()
    names = splits.dictionary.to_pylist()
    sides = splits.indices.take(rows.combine_chunks()).to_numpy().astype(np.int64)
    if tied := straddling(samples, sides):
        kind, text, first, second = tied
        raise DataError(
            f"{path} puts samples of the {kind} {text!r} into both {names[first]} and {names[second]}: the sources "
            f"have changed since it was made. Make it anew: {_command(path)}"
        )
    return {name: np.flatnonzero(sides == number) for number, name in enumerate(names)}


def _refuse_twins(table: pa.Table) -> None:
    counts = table.group_by(list(_KEY)).aggregate([([], "count_all")])
    twins = counts.filter(pc.greater(counts["count_all"], 1))
    if len(twins):
        dataset, name = twins["dataset"][0].as_py(), twins["id"][0].as_py()
        raise DataError(
            f"{len(twins)} id(s) stand twice in the data set {dataset!r}, {name!r} among them, so that a split file "
            "could not tell their samples apart. Give their sources ids, or data set names, of their own."
        )


def _command(path: str | Path) -> str:
    return f"python -m dermiq.datamodules.splits --config splits.yaml --out {path}"
