"""Skin types, parsed from the spellings of tables."""

from __future__ import annotations

from dermiq.datamodules.sources.reading.csv_rows import Row
from dermiq.schema import DataError, SkinType

FITZPATRICK = {"1": "I", "2": "II", "3": "III", "4": "IV", "5": "V", "6": "VI"}
COARSE = {"12": "I-II", "34": "III-IV", "56": "V-VI"}
UNKNOWN = frozenset({"", "-1", "NONE_IDENTIFIED", "NONE_SELECTED"})


def fitzpatrick(row: Row, column: str, how: str) -> SkinType | None:
    """The skin type after Fitzpatrick in a column; None if it says in whatever words that nobody knows.

    Args:
        row: of a table.
        column: holds 1 to 6 (also as 1.0 or FST1), or two types at once (12, 34, 56).
        how: the value was obtained.

    Raises:
        DataError: if there is another value, naming the row.
    """
    value = row.known(column).removesuffix(".0").removeprefix("FST")
    if value in UNKNOWN:
        return None
    named = FITZPATRICK.get(value) or COARSE.get(value)
    if named is None:
        raise DataError(
            f"{row.where}: the skin type {row[column]!r} is none of 1 to 6, 12, 34 and 56. "
            "Correct the row, or leave it blank."
        )
    return SkinType("fitzpatrick", named, how)
