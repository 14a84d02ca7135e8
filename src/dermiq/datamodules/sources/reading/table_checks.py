"""Checks of a table's columns and rows before the first sample is made of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import pyarrow as pa

from dermiq.datamodules.file_faults import reading
from dermiq.datamodules.sources.reading import arrow_columns
from dermiq.datamodules.sources.reading.references import refuse_distant
from dermiq.schema import DataError

Place = Callable[[int], str]


def check_types(
    path: str, table: pa.Table, image_column: str, option_columns: Collection[str], names: Mapping[str, Sequence[str]]
) -> None:
    """Check that every column holds what it is read for.

    Args:
        path: of the table, for messages.
        table: with the columns in use.
        image_column: holds images; the others, but for options, hold texts or numbers.
        option_columns: hold options.
        names: column -> what the numbers in it stand for.

    Raises:
        DataError: naming the column that does not.
    """
    for column in table.column_names:
        with reading(f"{path}: the column {column!r} cannot be used", "Correct the column, or name another."):
            if column == image_column:
                arrow_columns.refuse_images(arrow_columns.plain(table[column]).type)
            elif column in option_columns:
                arrow_columns.refuse_options(table[column].type)
            else:
                arrow_columns.texts(table[column], names.get(column, ()))


def check_images(images: pa.ChunkedArray, column: str, place: Place) -> None:
    """Check that every row has images, and that those it names are files on this machine.

    Raises:
        DataError: naming the first row that has none, or one that is elsewhere.
    """
    empty = arrow_columns.first_without_image(images)
    if empty is not None:
        raise DataError(f"{place(empty)}: the column {column!r} names no image. Fill it in, or remove the row.")
    for row in arrow_columns.rows_with(images, _is_distant)[:1]:
        for picture in arrow_columns.pictures(images[row].as_py()):
            try:
                refuse_distant("" if arrow_columns.content_of(picture) else arrow_columns.path_of(picture))
            except ValueError as error:
                raise DataError(f"{place(row)}, column {column!r}: {error}.") from None


def check_ids(ids: pa.Array, column: str, place: Place) -> None:
    """Check that every row has an id of its own.

    Raises:
        DataError: naming the first row that has not.
    """
    first, again = arrow_columns.first_repeated(ids) or (ids.index("").as_py(),) * 2
    if again >= 0:
        raise DataError(
            f"{place(again)}: the id in the column {column!r} is empty, or stands already in {place(first)}. Choose "
            "another `id_column`, or leave it out to number the rows."
        )


def check_each(texts: pa.Array, check: Callable[[str], object], place: Place) -> None:
    """Check every text of a column once.

    Raises:
        DataError: naming the first row with a text that `check` refuses with a ValueError.
    """
    for text in texts.unique().to_pylist():
        try:
            check(text)
        except ValueError as error:
            raise DataError(f"{place(texts.index(text).as_py())}: {error}") from None


def _is_distant(given: str) -> bool:
    try:
        refuse_distant(given)
    except ValueError:
        return True
    return False
