"""Rows of a file, read one at a time: JSON lines, a JSON array or Parquet."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from dermiq.datamodules.file_faults import is_file, reading, reason, refuse_special
from dermiq.datamodules.sources.reading.table_files import open_parquet
from dermiq.schema import DataError

Row = dict[str, Any]


class Rows(ABC):
    """The rows of one file, in its order.

    Attributes:
        path: the file.
        unit: what an editor calls a row of it.
    """

    unit = "row"

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def __getitem__(self, index: int) -> Row:
        """One row.

        Raises:
            DataError: if it is no object of names and values.
        """

    def __iter__(self) -> Iterator[Row]:
        """All rows, in order."""
        return (self[index] for index in range(len(self)))

    def place(self, index: int) -> str:
        """Where a row stands, for messages: the file and the row's number, from 1."""
        return f"{self.path}, {self.unit} {index + 1}"

    def text(self, index: int, row: Row, column: str) -> str:
        """A text or number of a row, as text without white space at its ends.

        Raises:
            DataError: if it is missing or blank.
        """
        value = row.get(column)
        if value is None or not str(value).strip():
            raise DataError(f"{self.place(index)}: {column!r} is missing or blank. Fill it in, or remove the row.")
        return str(value).strip()

    def _checked(self, index: int, value: object) -> Row:
        if not isinstance(value, dict):
            raise DataError(f"{self.place(index)}: this is no object ({{...}}). Correct or remove it.")
        return value


class JsonLines(Rows):
    """One JSON object per line; only the lines' places are kept in memory."""

    unit = "line"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            self._starts = [0, *accumulate(map(len, file))]

    def __len__(self) -> int:
        """Number of lines."""
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Row:
        """The object of one line.

        Raises:
            DataError: if the line is empty or no JSON object.
        """
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            return self._parsed(index, file.readline())

    def __iter__(self) -> Iterator[Row]:
        """The objects of all lines, in order."""
        with self.path.open("rb") as file:
            for index, line in enumerate(file):
                yield self._parsed(index, line)

    def _parsed(self, index: int, line: bytes) -> Row:
        if not line.strip():
            raise DataError(f"{self.place(index)}: the line is empty. Remove it.")
        try:
            return self._checked(index, json.loads(line.decode("utf-8-sig")))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{self.place(index)}: this is no valid JSON ({reason(error)}). Write one whole object per line, as "
                "UTF-8."
            ) from None


class JsonArray(Rows):
    """A list of JSON objects, kept in memory."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: this is no valid JSON ({reason(error)}). Write a list of objects, as UTF-8; a file with one "
                "object per line must be called .jsonl."
            ) from None
        if not isinstance(content, list):
            raise DataError(f"{path}: this is no list of objects ([{{...}}, ...]). Put the rows into a list.")
        self._rows: list[object] = content

    def __len__(self) -> int:
        """Number of objects."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        """One object."""
        return self._checked(index, self._rows[index])


class Parquet(Rows):
    """A Parquet file, read from the Arrow file into which `datasets` converts it once (in its own cache)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with reading(f"{path}: this cannot be read as Parquet", "Write the file again."):
            data = open_parquet(path)
        self._data = data.with_format("arrow")  # images stay undecoded

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._data)

    def __getitem__(self, index: int) -> Row:
        """One row."""
        return self._checked(index, self._data[index : index + 1].to_pylist()[0])


_FORMATS: dict[str, type[Rows]] = {".jsonl": JsonLines, ".json": JsonArray, ".parquet": Parquet}


def open_rows(path: Path) -> Rows:
    """The rows of a file, whose name says what it holds: .jsonl, .json or .parquet.

    Raises:
        DataError: if the file is missing, of another kind, empty or unreadable.
    """
    if path.suffix.lower() not in _FORMATS:
        raise DataError(f"{path}: unknown kind of file; give `path` one of {', '.join(_FORMATS)}.")
    refuse_special(path)
    if not is_file(path):
        raise DataError(f"{path}: the file is missing. Correct `path` of the source.")
    with reading(f"{path}: the file cannot be read", "Write it again."):
        rows = _FORMATS[path.suffix.lower()](path) if path.stat().st_size else None
    if not rows:
        raise DataError(f"{path}: the file has no rows. Write it again, or take the source out.")
    return rows
