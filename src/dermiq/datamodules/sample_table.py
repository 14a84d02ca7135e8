"""The table of samples that splitting, balancing and checking work on: one row each, before any sample is built."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dermiq.prompts import gold_completion
from dermiq.schema import PreferencePair, Sample

IMAGE_LENGTH = 1_000  # of the characters that an image takes the place of: some 250 tokens
IMAGE_LINK = "image:"  # begins the link of a sample that is grouped by its image: the place of the image's file
_IN_TABLE = re.compile(r"#\d+\.\d+$")  # the row and the number of an image whose content stands there
_NAME = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        ("group", pa.string()),
        ("target", _NAME),
        ("question_length", pa.int32()),
        ("images", pa.int32()),
        ("length", pa.int32()),
        ("id", pa.string()),
        ("dataset", _NAME),
        ("links", pa.list_(pa.string())),
        ("skin_type", _NAME),
        ("content", pa.int64()),
    ]
)
_BLOCK = 1 << 16


class SampleRow(NamedTuple):
    """One sample as a row of the table.

    Attributes:
        group: what must not be split.
        target: what to answer.
        question_length: characters of its question; 0 means the default question.
        images: number of its images.
        length: characters of the whole conversation with its gold completion, and `IMAGE_LENGTH` for each image.
        id: see `dermiq.schema.Sample`.
        dataset: likewise.
        links: what else must not be split, likewise.
        skin_type: its value; empty where unknown.
        content: a checksum of the conversation and of what is learned beside the target, see `content_of`.
    """

    group: str
    target: str
    question_length: int
    images: int
    length: int
    id: str
    dataset: str = ""
    links: tuple[str, ...] = ()
    skin_type: str = ""
    content: int = 0


def sample_row(sample: Sample) -> SampleRow:
    """The row of a sample."""
    characters = sum(len(turn.text) for turn in sample.history) + len(sample.question) + len(gold_completion(sample))
    return SampleRow(
        group=sample.group,
        target=sample.target,
        question_length=len(sample.question),
        images=len(sample.images),
        length=characters + IMAGE_LENGTH * len(sample.images),
        id=sample.id,
        dataset=sample.dataset,
        links=sample.links,
        skin_type=sample.skin_type.value if sample.skin_type else "",
        content=content_of(sample),
    )


def content_of(sample: Sample) -> int:
    """A checksum of a sample's conversation, replies, reference reasoning and names of image files, not of folders."""
    turns = [f"{turn.role}: {turn.text}" for turn in sample.history]
    learned = [sample.reply, sample.reasoning]
    if isinstance(sample, PreferencePair):
        learned += [sample.chosen, sample.rejected, repr(sample.margin)]
    texts = ["" if text is None else text for text in (*turns, *learned)]
    return checksum(sample.question, list(map(file_name, sample.images)), texts if any(texts) else [])


def checksum(question: str, images: Sequence[str], texts: Sequence[str] = ()) -> int:
    """The checksum of a question, the names of its image files, and further texts."""
    return crc32("\0".join((question, *images, *texts)).encode(errors="surrogatepass"))


def file_name(reference: str) -> str:
    """The name of an image's file, without its folder; empty for an image within a table (``table.parquet#3.0``)."""
    name = reference.rpartition("/")[2]
    return "" if _IN_TABLE.search(name) else name


class SampleTable:
    """The rows of many samples, in order, as columns of one Arrow table.

    A million of them take about 100 MB, a tenth of what as many objects would take. Indexed or iterated over, the table
    gives `SampleRow` records.

    Args:
        arrow: with the columns of `SampleRow`, as `from_rows` and `from_columns` make it.
    """

    def __init__(self, arrow: pa.Table) -> None:
        self.arrow = arrow

    @classmethod
    def from_rows(cls, entries: Iterable[SampleRow]) -> SampleTable:
        """The table of some rows."""
        rows, blocks = iter(entries), []
        while block := list(islice(rows, _BLOCK)):
            columns = zip(_SCHEMA, zip(*block, strict=True), strict=True)
            blocks.append(cls(pa.table([pa.array(values, field.type) for field, values in columns], schema=_SCHEMA)))
        return cls.concat(blocks)

    @classmethod
    def from_columns(
        cls,
        *,
        id: Any,
        group: Any,
        target: Any,
        question_length: Any,
        images: Any,
        length: Any,
        dataset: Any = "",
        links: Any = (),
        skin_type: Any = "",
        content: Any = 0,
    ) -> SampleTable:
        """The table of some columns, as a source that has columns makes it.

        Args:
            id: one text per sample, as whatever Arrow takes: an Arrow or NumPy array, a list.
            group: likewise.
            target: likewise; one text alone counts for all samples.
            question_length: numbers; one alone counts for all samples.
            images: likewise.
            length: likewise.
            dataset: texts; one alone counts for all samples.
            links: lists of texts; an empty tuple: no sample has any.
            skin_type: texts; one alone counts for all samples.
            content: numbers, see `content_of`; one alone counts for all samples.

        Raises:
            ValueError: if a value is missing (null) or the columns differ in length.
        """
        given = {name: value for name, value in locals().items() if name != "cls"}
        columns = [_column(given[field.name], field.type, len(id)) for field in _SCHEMA]
        for field, column in zip(_SCHEMA, columns, strict=True):
            if column.null_count:
                raise ValueError(f"{column.null_count} samples have no {field.name}")
        return cls.concat([cls(pa.table(columns, schema=_SCHEMA))])

    @classmethod
    def concat(cls, parts: Sequence[SampleTable]) -> SampleTable:
        """The rows of several tables, one table after the other."""
        whole = pa.concat_tables([part.arrow for part in parts]) if parts else _SCHEMA.empty_table()
        return cls(whole.unify_dictionaries().combine_chunks())

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> SampleTable:
        """The rows at `indices`, in that order."""
        return SampleTable(self.arrow.take(pa.array(indices, pa.int64())))

    def strings(self, name: str) -> pa.ChunkedArray:
        """A column of strings."""
        return self.arrow[name].cast(pa.string())

    def integers(self, name: str) -> NDArray[np.int64]:
        """A column of integers."""
        column: NDArray[np.int64] = self.arrow[name].to_numpy().astype(np.int64)
        return column

    def links(self) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
        """For every link of every sample: the index of the sample [links], and the link."""
        column = self.arrow["links"]
        counts = pc.list_value_length(column).to_numpy()
        return np.repeat(np.arange(len(self)), counts), pc.list_flatten(column)

    def fingerprint(self) -> str:
        """A hash of the samples in their order: of ids, targets, contents and links.

        The folders of image files do not count: data may move between two runs.
        """
        places, links = self.links()
        kept = pc.invert(pc.starts_with(links, IMAGE_LINK))
        places, links = places[kept.to_numpy().astype(bool)], links.filter(kept)
        digest = hashlib.blake2b(digest_size=16)
        for strings in (self.strings("id"), self.strings("target"), links):
            digest.update(pc.binary_length(strings).to_numpy().astype(np.int64).tobytes())
            digest.update("".join(strings.to_pylist()).encode(errors="surrogatepass"))
        digest.update(self.integers("content").tobytes() + places.tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        """Number of samples."""
        return int(self.arrow.num_rows)

    def __getitem__(self, index: int) -> SampleRow:
        """One entry."""
        (row,) = self.arrow.slice(range(len(self))[index], 1).to_pylist()
        return SampleRow(**row | {"links": tuple(row["links"])})

    def __iter__(self) -> Iterator[SampleRow]:
        """All entries, in order."""
        for batch in self.arrow.to_batches(_BLOCK):
            for row in batch.to_pylist():
                yield SampleRow(**row | {"links": tuple(row["links"])})


def _column(values: Any, kind: pa.DataType, length: int) -> pa.ChunkedArray:
    """Values as a column of `length` rows; a text or number alone, or an empty tuple, stands for all of them."""
    if isinstance(values, str | int):
        values = pa.repeat(pa.scalar(values), length)
    elif isinstance(values, tuple):
        values = pa.repeat(pa.scalar(list(values), kind), length)
    elif not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(values)
    column = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    return column.cast(pa.string()).dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
