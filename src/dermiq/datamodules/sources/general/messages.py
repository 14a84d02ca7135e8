"""Conversations as TRL, LLaMA-Factory and the OpenAI API exchange them; see docs/conversations.md."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from dermiq.datamodules.file_faults import is_file, reading
from dermiq.datamodules.sample_table import IMAGE_LINK, SampleRow, SampleTable, sample_row
from dermiq.datamodules.sources.base import MAX_PIXELS, Source, open_image
from dermiq.datamodules.sources.reading.card import Meaning
from dermiq.datamodules.sources.reading.jsonl_rows import Row, Rows, open_rows
from dermiq.datamodules.sources.reading.labels import meaning_of_label
from dermiq.datamodules.sources.reading.references import file_of, name_of, refuse_distant
from dermiq.datamodules.sources.reading.turns import Turns, read_turns
from dermiq.prompts import normalise
from dermiq.ranges import check_numbers
from dermiq.schema import DataError, Sample


class Conversations(Source):
    """One conversation per row of a file, the last reply being the one to learn and to be judged by.

    Rows are read when they are asked for. The optional columns `id`, `group` and `target` say what they say in
    `dermiq.schema.Sample`: without them a row is named after the file and its number, the rows of one first image
    (by its path below `image_root`, or its content) are a group, and the conversation is about no condition.

    Args:
        path: .jsonl, .json (a list) or .parquet.
        image_root: folder that image paths start from; the file's own folder by default.
        licence: of all images.
        attribution: of all images.
        max_pixels: the largest width * height of an image accepted, in pixels.
    """

    def __init__(
        self,
        path: str,
        image_root: str | None = None,
        licence: str = "",
        attribution: str = "",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.path = Path(path)
        self.image_root = self.path.parent if image_root is None else Path(image_root)
        self.licence, self.attribution, self.max_pixels = licence, attribution, max_pixels
        check_numbers(self, max_pixels="[1, inf)")
        self._rows: Rows | None = None
        self._table = SampleTable.from_rows([])
        self._missing: list[int] = []

    def load(self) -> None:
        """Read the file once and check every row.

        Raises:
            DataError: if the file is missing, empty or unreadable, or a row is no conversation that can be learned
                from, names an image that is not local, or has the id of another row.
        """
        if self._rows is not None:
            return
        rows = open_rows(self.path)
        seen: dict[str, int] = {}
        entries, missing, known = [], [], {}
        for index, row in enumerate(rows):
            with reading(f"{rows.place(index)}: the row cannot be used", "Correct or remove it."):
                sample = self._sample(rows, index, row)
            first = seen.setdefault(sample.id, index)
            if first != index:
                raise DataError(
                    f"{rows.place(index)}: the id {sample.id!r} stands already in {rows.unit} {first + 1}. Give every "
                    "row an id of its own, or none."
                )
            entries.append(self._sample_row(sample))
            for reference in sample.images:
                if reference not in known:
                    known[reference] = self._embedded(reference) is not None or is_file(reference)
            if not all(known[reference] for reference in sample.images):
                missing.append(index)
        self._rows, self._table, self._missing = rows, SampleTable.from_rows(entries), missing

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._table)

    def __getitem__(self, index: int) -> Sample:
        """The conversation of one row."""
        rows = self._loaded()
        return self._sample(rows, index, rows[index])

    def table(self) -> SampleTable:
        """One entry per row, as `load` found them."""
        return self._table

    def missing(self) -> list[int]:
        """Indices of the rows with an image whose file is absent."""
        return self._missing

    def image(self, reference: str) -> Image.Image:
        """Open one of a sample's images, from its file or from the row that holds it.

        Raises:
            DataError: see `open_image`.
        """
        place = self._embedded(reference)
        if place is None:
            return open_image(reference, self.max_pixels)
        rows = self._loaded()
        row, number = place
        picture = self._turns(rows[row], rows.place(row)).pictures[number]
        return open_image(f"{rows.place(row)}, image {number + 1}", self.max_pixels, _content(picture))

    def _loaded(self) -> Rows:
        if self._rows is None:
            raise RuntimeError("call load() first")
        return self._rows

    def _sample_row(self, sample: Sample) -> SampleRow:
        return sample_row(sample)

    def _turns(self, row: Row, place: str) -> Turns:
        """The conversation of a row, the reply to learn at its end."""
        return read_turns(row, place)

    def _sample(self, rows: Rows, index: int, row: Row) -> Sample:
        place = rows.place(index)
        messages, pictures = self._turns(row, place)
        *history, question, reply = messages
        label = _text(row, "target", place)
        meaning = meaning_of_label(label) or Meaning(normalise(label), ())
        images = tuple(self._reference(picture, index, i, place) for i, picture in enumerate(pictures))
        name = _text(row, "id", place) or f"{self.path.stem}-{index + 1}"
        group = _text(row, "group", place)
        return Sample(
            id=name,
            images=images,
            target=meaning.target,
            label=label,
            group=group or (self._identity(pictures[0]) if images else name),
            question=question.text,
            history=tuple(history),
            reply=reply.text,
            synonyms=meaning.synonyms,
            concepts=meaning.concepts,
            licence=self.licence,
            attribution=self.attribution,
            links=() if group or not images or _content(pictures[0]) is not None else (_link(images[0]),),
        )

    def _reference(self, picture: Any, row: int, number: int, place: str) -> str:
        """The file of a picture, or its place in this source's own file."""
        if _content(picture, f"{place}, image {number + 1}") is not None:
            return f"{self.path}#{row}.{number}"
        given = _path(picture)
        if not given or not isinstance(given, str):
            raise DataError(f"{place}: image {number + 1} is neither a path nor the content of an image file.")
        try:
            refuse_distant(given)
        except ValueError as error:
            raise DataError(f"{place}: {error}.") from None
        return file_of(str(self.image_root), given)

    def _identity(self, picture: Any) -> str:
        """What rows of the same image have in common, wherever the files lie."""
        content = _content(picture)
        if content is None:
            return name_of(str(self.image_root), _path(picture))
        return hashlib.blake2b(content, digest_size=16).hexdigest()

    def _embedded(self, reference: str) -> tuple[int, int] | None:
        """Row and number of an image that stands in this source's own file."""
        path, _, place = reference.rpartition("#")
        if path != str(self.path):
            return None
        row, number = place.split(".")
        return int(row), int(number)


def _content(picture: Any, place: str = "") -> bytes | None:
    """The image file that a row holds itself; None where it stands elsewhere.

    Raises:
        DataError: if a data URL is none, or `bytes` holds no bytes.
    """
    if isinstance(picture, Mapping):
        content = picture.get("bytes")
        if content is not None and not isinstance(content, bytes):
            raise DataError(f"{place}: `bytes` of the image holds {type(content).__name__}. Store the file's bytes.")
        return content
    if not isinstance(picture, str) or not picture.startswith("data:"):
        return None
    head, _, encoded = picture.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError("no ;base64, in it")
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise DataError(
            f"{place}: the data URL cannot be read ({error}). Write data:image/jpeg;base64,... or name a file."
        ) from None


def _path(picture: Any) -> Any:
    return picture.get("path") if isinstance(picture, Mapping) else picture


def _link(reference: str) -> str:
    return IMAGE_LINK + os.path.abspath(reference)


def _text(row: Row, column: str, place: str) -> str:
    """An optional column; empty where it is missing or null.

    Raises:
        DataError: if it holds neither text nor number.
    """
    value = row.get(column)
    if isinstance(value, list | Mapping | bytes):
        raise DataError(f"{place}: `{column}` holds {type(value).__name__}. Write a text or a number.")
    return "" if value is None else str(value)
