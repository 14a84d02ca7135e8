"""Tables on disk (CSV, JSON, Parquet), read whole or column by column."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dermiq.datamodules.file_faults import is_file, reading, refuse_special
from dermiq.datamodules.sources.reading.csv_rows import listed, read_lines
from dermiq.datamodules.sources.reading.json_table import read_json
from dermiq.schema import DataError

_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_BLOCK = 1 << 16  # lines of CSV that become one piece of a table


def open_table(path: Path, columns: Sequence[str]) -> tuple[datasets.Dataset, NDArray[np.int64] | None]:
    """The wanted columns of a table, and for CSV the line at which each row begins.

    Args:
        path: .csv, .json, .jsonl or .parquet.
        columns: to read.

    Raises:
        DataError: if the file is missing, of another kind, unreadable or empty, or lacks a column.
    """
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: unknown kind of table; give `path` one of {', '.join(_FORMATS)}.")
    refuse_special(path)
    if not is_file(path):
        raise DataError(f"{path}: the table is missing. Correct `path` of the source.")
    if kind == "csv":
        return _read_csv(path, columns)
    with reading(
        f"{path}: the table cannot be read as {kind}",
        "Save it again: JSON with one object per line, or a whole Parquet file.",
    ):
        if kind == "json":
            table, _ = read_json(path, columns)
            return datasets.Dataset(datasets.table.InMemoryTable(table.combine_chunks())), None
        data = open_parquet(path, columns)
    if not len(data):
        raise DataError(f"{path}: the table has no rows.")
    return data, None


def open_parquet(path: Path, columns: Sequence[str] | None = None) -> datasets.Dataset:
    """A Parquet file as the `datasets` library has it, or some columns of it.

    Raises:
        DataError: if it lacks a column, or the library has no word for the type of one.
        Exception: whatever the library raises at a file that it cannot read.
    """
    if "::" in os.path.abspath(path):
        raise DataError(f"{path}: the `datasets` library takes '::' in a path for a URL. Rename the folder.")
    described = pq.read_metadata(path)
    schema = described.schema.to_arrow_schema()
    names = dict.fromkeys(schema.names)
    twice = sorted(column for column in names if len(schema.get_all_field_indices(column)) > 1)
    if twice or not described.num_rows:
        said = f"the columns {listed(map(repr, twice))} stand there twice" if twice else "the table has no rows"
        raise DataError(f"{path}: {said}. Write the file again.")
    lacking = [column for column in columns or () if column not in names]
    if lacking:
        raise DataError(
            f"{path}: the column(s) {', '.join(lacking)} are missing; there are {listed(names)}. Correct the "
            "`*_column` settings of the source."
        )
    for column in names if columns is None else columns:
        with reading(
            f"{path}: the column {column!r} holds {schema.field(column).type}, which `datasets` cannot read",
            "Save it as texts, numbers, bytes, or lists of them.",
        ):
            datasets.features.features.generate_from_arrow_type(schema.field(column).type)
    options = {} if columns is None else {"columns": list(columns)}
    return datasets.load_dataset("parquet", data_files=glob.escape(os.path.abspath(path)), split="train", **options)


def _read_csv(path: Path, columns: Sequence[str]) -> tuple[datasets.Dataset, NDArray[np.int64]]:
    """Every column is text: guessed types would turn the id 007 into 7 and the label NA into nothing."""
    lines = read_lines(path, columns, "Correct the `*_column` settings of the source, or save the table again.")
    _, names = next(lines)
    places = [names.index(column) for column in columns]
    blocks, begins = [], []
    while block := list(islice(lines, _BLOCK)):
        arrays = [pa.array([values[place] for _, values in block], pa.string()) for place in places]
        blocks.append(pa.table(arrays, names=list(columns)))
        begins.append(np.fromiter((line for line, _ in block), np.int64))
    table = datasets.table.InMemoryTable(pa.concat_tables(blocks).combine_chunks())
    return datasets.Dataset(table), np.concatenate(begins)
