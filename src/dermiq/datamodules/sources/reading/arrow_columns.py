"""Columns of Arrow tables: texts, and images as paths or as content, one or several per row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dermiq.datamodules.sample_table import IMAGE_LINK
from dermiq.datamodules.sources.reading.references import file_of, name_of
from dermiq.prompts import IMAGE


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without what only its storage needs: dictionaries, runs, views, names of types."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    if pa.types.is_dictionary(kind):
        return plain(column.cast(kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        return plain(pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], kind.value_type))
    if is_list(kind) and _stored(kind.value_type) != kind.value_type:
        return column.cast(pa.list_(_stored(kind.value_type)))
    return column if _stored(kind) == kind else column.cast(_stored(kind))


def _stored(kind: pa.DataType) -> pa.DataType:
    """The type to read texts and contents as."""
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.large_binary() if pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind) else kind


def texts(column: pa.ChunkedArray, names: Sequence[str] = ()) -> pa.Array:
    """A column as texts without white space at their ends; empty where a value is missing or not a number (NaN).

    Args:
        column: texts, numbers, or (with `names`) numbers of names.
        names: what the numbers stand for.

    Raises:
        ValueError: if it holds neither, such as lists; an `ArrowException`, too.
    """
    column = plain(column)
    kind = column.type
    if names:
        column = pc.take(pa.array(names, pa.string()), pc.if_else(pc.less(column, 0), None, column))
    elif pa.types.is_nested(kind):
        raise ValueError(f"it holds {str(kind)[:80]}, and neither texts nor numbers")
    elif pa.types.is_floating(kind):
        column = column.cast(pa.float32()) if pa.types.is_float16(kind) else column
        column = pc.if_else(pc.is_nan(column), None, column)
    elif pa.types.is_duration(kind):
        column = pa.chunked_array(
            [[None if value is None else str(value) for value in column.to_pylist()]], pa.string()
        )
    trimmed = pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.string()), ""))
    return trimmed.combine_chunks() if isinstance(trimmed, pa.ChunkedArray) else trimmed


def refuse_options(kind: pa.DataType) -> None:
    """Check that a column can hold options: texts, numbers, or lists of them.

    Raises:
        ValueError: saying what it holds.
    """
    leaf = kind.value_type if is_list(kind) or pa.types.is_dictionary(kind) else kind
    if pa.types.is_nested(leaf) or _is_content(leaf):
        raise ValueError(f"it holds {str(kind)[:80]}, and no texts, numbers or lists of them")


def refuse_images(kind: pa.DataType) -> None:
    """Check that a column can hold images: paths, contents, both in one struct, or lists of these.

    Raises:
        ValueError: saying what it holds.
    """
    leaf = kind.value_type if is_list(kind) else kind
    parts = [field.type for field in leaf if field.name in ("bytes", "path")] if pa.types.is_struct(leaf) else [leaf]
    if not parts or not all(_is_content(part) or _is_path(part) for part in parts):
        raise ValueError(
            f"it holds {str(kind)[:80]}: images are paths, the bytes of image files, structs of `bytes` and `path`, or "
            "lists of these"
        )


def first_repeated(values: pa.Array) -> tuple[int, int] | None:
    """The first value that stands in two rows of a column, and these rows."""
    counts = values.value_counts()
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if not len(twice):
        return None
    first = int(values.index(twice[0]).as_py())
    return first, int(values.index(twice[0], first + 1).as_py())


def is_list(kind: pa.DataType) -> bool:
    """True if a row holds several values."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def marked_rows(questions: pa.Array, column: pa.ChunkedArray) -> list[tuple[int, int, int]]:
    """Row, marks of images and images of each question that marks any."""
    marks = pc.count_substring(questions, IMAGE).to_numpy()
    rows = np.flatnonzero(marks)
    return list(zip(rows.tolist(), marks[rows].tolist(), image_counts(column)[rows].tolist(), strict=True))


def _is_path(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def _is_content(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def are_paths(column: pa.ChunkedArray) -> bool:
    """Whether a column of images holds nothing but paths."""
    return _is_path(column.type.value_type if is_list(column.type) else column.type)


def pictures(value: Any) -> list[Any]:
    """The images of one row, as Python has them: paths, contents, or both in one mapping."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def content_of(picture: Any) -> bytes | None:
    """The content of an image's file; None if the table has only its path."""
    content = picture.get("bytes") if isinstance(picture, Mapping) else picture
    return content if isinstance(content, bytes) else None


def path_of(picture: Any) -> str:
    """The path of an image whose content is not there; empty if that is missing, too."""
    path = picture.get("path") if isinstance(picture, Mapping) else picture
    return path if isinstance(path, str) else ""


def fingerprint(content: bytes) -> str:
    """What files of the same content have in common: ``md5:...``."""
    return "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()


def links(images: Sequence[Any], root: str) -> tuple[str, ...]:
    """What ties a row to others with an image of the same content, or with the same file as its first image.

    A path that the row gives as the group has it ties by the group.
    """
    contents = (content_of(picture) for picture in images)
    found = [fingerprint(content) for content in contents if content is not None]
    first = path_of(images[0]) if images and content_of(images[0]) is None else ""
    if first and name_of(root, first) != first:
        found.append(IMAGE_LINK + os.path.abspath(file_of(root, first)))
    return tuple(dict.fromkeys(found))


def any_link(column: pa.ChunkedArray, root: str) -> bool:
    """True if a row of a column of images may have `links`."""
    if not are_paths(column):
        return True
    firsts = texts(pc.list_element(column, 0) if is_list(column.type) else column)
    return any(name_of(root, path) != path for path in firsts.unique().to_pylist())


def image_counts(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The number of images of each row, [rows] int64."""
    if not is_list(column.type):
        return np.ones(len(column), np.int64)
    counts: NDArray[np.int64] = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    return counts


def first_without_image(column: pa.ChunkedArray) -> int | None:
    """The first row that has no image, or an image of which neither path nor content is there."""
    begin = 0
    for chunk in column.chunks:
        if is_list(chunk.type):
            bad = pc.fill_null(pc.equal(pc.list_value_length(chunk), 0), True).to_numpy(zero_copy_only=False)
            bad[_rows(chunk)[~_there(pc.list_flatten(chunk))]] = True
        else:
            bad = ~_there(chunk)
        if bad.any():
            return begin + int(bad.argmax())
        begin += len(chunk)
    return None


def _there(values: pa.Array) -> NDArray[np.bool_]:
    """Where an image has a path or a content."""
    if pa.types.is_struct(values.type):
        fields = [field.name for field in values.type if field.name in ("bytes", "path")]
        parts = [_there(pc.struct_field(values, name)) for name in fields]
        return np.logical_or.reduce(parts) if parts else np.zeros(len(values), bool)
    if pa.types.is_null(values.type):
        return np.zeros(len(values), bool)
    there: NDArray[np.bool_] = pc.fill_null(pc.greater(pc.binary_length(values), 0), False).to_numpy(
        zero_copy_only=False
    )
    return there


def identities(column: pa.ChunkedArray, root: str) -> pa.Array:
    """What rows of the same first image have in common: its name below `root`, or the fingerprint of its content."""
    if are_paths(column):
        codes = texts(pc.list_element(column, 0) if is_list(column.type) else column).dictionary_encode()
        return pa.array((name_of(root, path) for path in codes.dictionary.to_pylist()), pa.string()).take(codes.indices)
    contents = ((content_of(images[0]), images[0]) for images in each(column))
    return pa.array(
        (name_of(root, path_of(image)) if content is None else fingerprint(content) for content, image in contents),
        pa.string(),
    )


def paths(column: pa.ChunkedArray) -> Iterator[list[str]]:
    """The paths of each row's images, empty where the table holds the content; nothing else is read."""
    for chunk in column.chunks:
        names = _names(pc.list_flatten(chunk) if is_list(chunk.type) else chunk)
        counts = image_counts(pa.chunked_array([chunk]))
        each_name = iter([""] * int(counts.sum()) if names is None else pc.fill_null(names, "").to_pylist())
        for count in counts.tolist():
            yield list(islice(each_name, count))


def numbered(name: str, first: int, count: int) -> pa.Array:
    """``name-7``, ``name-8`` ...: `count` ids from the number `first` on."""
    return pc.binary_join_element_wise(name, pa.array(np.arange(first, first + count)).cast(pa.string()), "-")


def rows_with(column: pa.ChunkedArray, wanted: Callable[[str], bool]) -> list[int]:
    """The rows with an image that the table names without holding its content, and whose path is `wanted`.

    Every path is looked up once.
    """
    found, begin = [], 0
    known: dict[str, bool] = {}
    for chunk in column.chunks:
        names = _names(pc.list_flatten(chunk) if is_list(chunk.type) else chunk)
        if names is not None:
            codes = names.dictionary_encode()
            for name in codes.dictionary.to_pylist():
                known[name] = known[name] if name in known else bool(name) and wanted(name)
            hit = np.array([known[name] for name in codes.dictionary.to_pylist()], bool)
            found += np.unique(begin + _rows(chunk)[hit[codes.indices.to_numpy()]]).tolist()
        begin += len(chunk)
    return found


def _names(values: pa.Array) -> pa.Array | None:
    """The paths of images, empty where the content is there; None if that is everywhere."""
    if not pa.types.is_struct(values.type):
        return values.cast(pa.string()) if are_paths(pa.chunked_array([values])) else None
    fields = [field.name for field in values.type]
    paths = pc.fill_null(pc.struct_field(values, "path").cast(pa.string()), "") if "path" in fields else None
    if paths is None or "bytes" not in fields:
        return paths
    return pc.if_else(_there(pc.struct_field(values, "bytes")), "", paths)


def _rows(chunk: pa.Array) -> NDArray[np.int64]:
    """The row of each image."""
    return np.repeat(np.arange(len(chunk)), image_counts(pa.chunked_array([chunk])))


def each(column: pa.ChunkedArray) -> Iterator[list[Any]]:
    """The images of each row, one row in memory at a time."""
    for chunk in column.chunks:
        for scalar in chunk:
            yield pictures(scalar.as_py())
