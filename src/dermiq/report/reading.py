"""Reader of ``predictions.parquet``: checks each column's type, and names the one that is wrong."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from dermiq.files import regular_bytes
from dermiq.metrics import CONVERSATION, PredictionRow
from dermiq.metrics.summary import DIAGNOSIS
from dermiq.run_directory import AGAIN, unreadable
from dermiq.schema import DataError

NEEDED = ("id", "dataset", "group", "kind", "question", "target", "named", "correct")
_ALWAYS = NEEDED[:6]
_TEXTS = ("completion", "answer", "label", "skin_type", "site", "majority", "position", "position_chosen")
_LISTS = ("options", "concepts", "named_lineage", "majority_lineage", "ranking", "images")


def read_rows(path: Path) -> tuple[PredictionRow, ...]:
    """The rows of a ``predictions.parquet``.

    Raises:
        FileNotFoundError: if it is not there.
        DataError: if it is no such table, or a value of it is not of its column's kind.
    """
    content = regular_bytes(path)
    try:
        table = pq.read_table(io.BytesIO(content))
        missing = [column for column in NEEDED if column not in table.column_names]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)}. {AGAIN}")
        _check_types(path, table)
        rows = tuple(table.to_pylist())
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    for number, row in enumerate(rows, start=1):
        wanting = [name for name in _expected(row) if row.get(name) is None]
        if wanting:
            raise DataError(f"{path}, row {number} ({row['kind']}) has no {wanting[0]}. {AGAIN}")
        if len(row.get("ranking") or ()) != len(row.get("votes") or ()):
            raise DataError(f"{path}, row {number} has not as many votes as names in its ranking. {AGAIN}")
    return rows


def _expected(row: PredictionRow) -> Sequence[str]:
    """The columns without which a row says nothing, which differ by what it is of."""
    if row["kind"] == CONVERSATION:
        return _ALWAYS
    of_diagnosis = ("concepts", "named_lineage") if row["kind"] == DIAGNOSIS else ()
    vote = ("majority_lineage",) if of_diagnosis and row.get("majority") is not None else ()
    return (*NEEDED, *of_diagnosis, *vote)


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _is_list(of: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    def check(kind: pa.DataType) -> bool:
        if not (types.is_list(kind) or types.is_large_list(kind)):
            return False
        return bool(types.is_null(kind.value_type)) or of(kind.value_type)

    return check


def _is_fact(kind: pa.DataType) -> bool:
    if not types.is_struct(kind):
        return False
    fields = {field.name: field.type for field in kind}
    return all(name in fields and _is_text(fields[name]) for name in ("sentence", "citation"))


_KINDS: Mapping[str, tuple[Callable[[pa.DataType], bool], tuple[str, ...]]] = {
    "text": (_is_text, (*NEEDED[:7], *_TEXTS)),
    "true or false": (types.is_boolean, ("correct", "closed", "malignant", "named_malignant")),
    "a number": (_is_number, ("reward", "confidence")),
    "a whole number": (types.is_integer, ("target_rank", "findings_true", "findings_stated")),
    "a list of texts": (_is_list(_is_text), _LISTS),
    "a list of whole numbers": (_is_list(types.is_integer), ("votes",)),
    "a list of facts": (_is_list(_is_fact), ("facts",)),
}


def _check_types(path: Path, table: pa.Table) -> None:
    twice = [name for name in table.column_names if table.column_names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has two columns {twice[0]}. {AGAIN}")
    for words, (fits, names) in _KINDS.items():
        for name in set(names).intersection(table.column_names):
            column = table[name]
            kind = column.type.value_type if types.is_dictionary(column.type) else column.type
            if not types.is_null(kind) and not fits(kind):
                raise DataError(f"{path}: the column {name} should be {words}, and is {column.type}. {AGAIN}")
            if words.startswith("a list") and not types.is_null(kind) and pc.list_flatten(column).null_count:
                raise DataError(f"{path}: a list of the column {name} has an entry without a value. {AGAIN}")
