"""JSON files as tables: the wanted columns of every object, each of one type."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dermiq.datamodules.file_faults import reason
from dermiq.datamodules.sources.reading.csv_rows import listed
from dermiq.schema import DataError

_REMEDY = "Save it again: JSON with one object per line, or a whole Parquet file."
_DEEPEST = 4  # lists of structs, in a struct and a list
_SCALARS = (str, int, float, bool, type(None))


def read_json(path: Path, columns: Sequence[str]) -> tuple[pa.Table, NDArray[np.int64]]:
    """Some columns of a JSON file, and the number of each row's line, or its place in the list, from 1.

    Where a column holds texts in some rows and numbers in others, all count as texts.

    Args:
        path: one object per line, or a list of objects; UTF-8, with or without a byte order mark.
        columns: to read.

    Raises:
        DataError: if the file cannot be read, has no rows, lacks a column, or a column holds values of no one type.
    """
    values: dict[str, list[Any]] = {column: [] for column in columns}
    names: dict[str, None] = {}
    places = []
    for place, row in _objects(path):
        places.append(place)
        names |= dict.fromkeys(row)
        for column, found in values.items():
            found.append(row.get(column))
    if not places:
        raise DataError(f"{path}: the table has no rows.")
    lacking = [column for column in columns if column not in names]
    if lacking:
        raise DataError(
            f"{path}: the column(s) {', '.join(lacking)} are missing; there are {listed(names)}. Correct the "
            "`*_column` settings of the source."
        )
    arrays = [_array(path, column, values.pop(column)) for column in columns]
    return pa.table(arrays, names=list(columns)), np.array(places, np.int64)


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects, each with its place."""
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(0)
        if head.startswith(b"["):
            rows = _parsed(path, "the list", file.read())
            yield from ((place, _checked(path, f"entry {place}", row)) for place, row in enumerate(rows, start=1))
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _checked(path, f"line {number}", _parsed(path, f"line {number}", line))


def _parsed(path: Path, place: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        why = f"{place}: this is no UTF-8 text"
    except (ValueError, RecursionError) as error:
        why = f"{place}: this is no valid JSON: {reason(error)}"
    raise DataError(f"{path}: the table cannot be read as json ({why}). {_REMEDY}")


def _checked(path: Path, place: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path}: the table cannot be read as json ({place}: this is no object {{...}}). {_REMEDY}")
    return value


def _array(path: Path, column: str, values: list[Any]) -> pa.Array:
    """A column, of texts where its values are of several kinds."""
    kinds = {type(value) for value in values} - {type(None)}
    try:
        if kinds <= {int, float} or len(kinds) == 1:
            array = pa.array(values)
            if str(array.type).count("<") > _DEEPEST:
                raise RecursionError
            return array
        if kinds <= set(_SCALARS):
            return pa.array([None if value is None else _text(value) for value in values], pa.string())
        if kinds <= {*_SCALARS, list}:
            return pa.array([value if isinstance(value, list | None) else [_text(value)] for value in values])
    except (pa.ArrowException, OverflowError, UnicodeError, RecursionError, TypeError, ValueError) as error:
        why = reason(error)
        if kinds <= {int, float}:
            return pa.array([None if value is None else _text(value) for value in values], pa.string())
    else:
        why = f"it holds {' and '.join(sorted(kind.__name__ for kind in kinds))} in different rows"
    raise DataError(
        f"{path}: the column {column!r} cannot be used ({why}). Write values of one kind into all its rows: texts, "
        "numbers, or lists of them."
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
