"""Rows of CSV files: with or without a byte order mark, commas or semicolons, any line ends."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from dermiq.datamodules.file_faults import PASSING, passing_fault, refuse_special
from dermiq.schema import DataError

DELIMITERS = ",;\t"
_SHOWN = 12
_LONGEST = 2**31 - 1  # of a cell, in characters: what `csv` takes everywhere
BLANKS = frozenset({"", "nan", "na", "n/a", "none", "null", "unknown"})


class Row(dict[str, str]):
    """One row of a table, by column, without white space at the ends of its values.

    Attributes:
        where: file and line, for errors.
    """

    where: str = ""

    def known(self, column: str) -> str:
        """The value of a column, or an empty text where it says in whatever words that there is none."""
        value = self.get(column, "")
        return "" if value.lower() in BLANKS else value

    def required(self, column: str) -> str:
        """The value of a column that must not be blank.

        Raises:
            DataError: naming the row.
        """
        value = self.known(column)
        if not value:
            raise DataError(f"{self.where}: the column {column!r} is empty. Fill it in, or remove the row.")
        return value


def read_table(path: Path, columns: Sequence[str], hint: str) -> list[Row]:
    """All rows of a CSV file.

    The delimiter is whichever of comma, semicolon and tab the header has most of.

    Args:
        path: UTF-8 text with a header, with or without a byte order mark.
        columns: those that must be there; others may be.
        hint: what to do if the file is not what it should be.

    Raises:
        DataError: if the file is missing, empty or unreadable, lacks a column or has one twice, or a row has too many
            or too few values.
    """
    lines = read_lines(path, columns, hint)
    _, names = next(lines)
    rows = []
    for line, values in lines:
        row = Row(zip(names, values, strict=True))
        row.where = f"{path}, line {line}"
        rows.append(row)
    return rows


def read_lines(path: Path, columns: Sequence[str], hint: str) -> Iterator[tuple[int, list[str]]]:
    """The header and the rows of a CSV file, each with the line that it begins at.

    Args:
        path: see `read_table`, also for the others.
        columns: that must be there.
        hint: what to do.

    Raises:
        DataError: see `read_table`.
    """
    line = rows = 0
    refuse_special(path)
    csv.field_size_limit(_LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(DELIMITERS, key=header.count), strict=True)
            names = [name.strip() for name in next(reader, [])]
            _check_header(path, names, columns, hint)
            line = reader.line_num
            yield 1, names
            for values in reader:
                line = reader.line_num
                if not values:
                    continue
                rows += 1
                begin = line - sum(value.count("\n") for value in values)
                if len(values) != len(names):
                    raise DataError(
                        f"{path}, line {begin}: {len(values)} values in place of {len(names)}. Correct or remove the "
                        "row."
                    )
                yield begin, [value.strip() for value in values]
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing. {hint}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}, line {_undecodable(path)}: this is no UTF-8 text. Save the table as UTF-8.") from None
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line + 1}: the row that begins here cannot be read ({error}). Correct or remove it."
        ) from None
    except OSError as error:
        if error.errno in PASSING:
            raise passing_fault(path, error) from error
        raise DataError(f"{path}: the table cannot be read ({error}). {hint}") from None
    if not rows:
        raise DataError(f"{path}: the table has no rows. {hint}")


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first of them where they are many."""
    rest = iter(names)
    shown = ", ".join(islice(rest, _SHOWN)) or "none"
    return shown + (", ..." if next(rest, None) is not None else "")


def _check_header(path: Path, names: list[str], columns: Sequence[str], hint: str) -> None:
    counts = Counter(names)
    lacking = [column for column in columns if column not in counts]
    if lacking:
        raise DataError(
            f"{path}: the column(s) {', '.join(map(repr, lacking))} are missing; there are {listed(names)}. {hint}"
        )
    twice = sorted(name for name, count in counts.items() if name and count > 1)
    if twice:
        raise DataError(f"{path}: the header has {listed(map(repr, twice))} more than once. Rename the columns.")


def _undecodable(path: Path) -> int:
    """The first line of a file that is no UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1
