"""Base class of sources of labelled photographs: a data card, and one record per sample."""

from __future__ import annotations

import inspect
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from dermiq.datamodules.file_faults import is_file, reading
from dermiq.datamodules.sources.base import MAX_PIXELS, Source
from dermiq.datamodules.sources.reading.card import DataCard, Meaning, load_card
from dermiq.prompts import IMAGE, check_marks
from dermiq.ranges import check_numbers
from dermiq.schema import DataError, Kind, Sample, SkinType

SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class Record:
    """What the metadata say of one sample; see `dermiq.schema.Sample`.

    Attributes:
        where: file and line, for errors.
        licence: of its images, where a row has its own.
        attribution: likewise.
        findings: what is known of this very image; without any the sample has those typical of its condition.
        (the others): as in `Sample`; `label` is looked up in the data card.
    """

    id: str
    images: tuple[str, ...]
    label: str
    group: str
    where: str
    links: tuple[str, ...] = ()
    skin_type: SkinType | None = None
    site: str = ""
    question: str = ""
    kind: Kind = "diagnosis"
    options: tuple[str, ...] = ()
    differential: Mapping[str, float] = field(default_factory=dict)
    findings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reasoning: str | None = None
    licence: str = ""
    attribution: str = ""


class Photographs(Source):
    """A data set on disk, in the layout in which it is downloaded.

    A subclass names its card, which lies in ``cards/`` beside its module, and reads its metadata into records.

    Args:
        root: the folder into which the data set was unpacked.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name: ClassVar[str]

    def __init__(self, root: str, max_pixels: int = MAX_PIXELS) -> None:
        self.root, self.max_pixels = Path(root), max_pixels
        check_numbers(self, max_pixels="[1, inf)")
        self._records: list[Record] = []

    @cached_property
    def card(self) -> DataCard:
        """Source, licence, citation and labels of the data set."""
        return load_card(Path(inspect.getfile(type(self))).parent / "cards" / f"{self.card_name}.yaml")

    @abstractmethod
    def records(self) -> Iterable[Record]:
        """Read the metadata.

        Raises:
            DataError: if a file is missing or unreadable, lacks a column, or a row cannot be used.
        """

    def meaning(self, record: Record) -> Meaning:
        """What the label of a record means, by the card.

        Raises:
            DataError: if the card does not know it.
        """
        return self.card.meaning(record.label, record.where)

    def load(self) -> None:
        """Read the metadata once; every label and every id is checked.

        Raises:
            DataError: see `records`; also if there are none, a label is unknown, or two have the same id.
        """
        if self._records:
            return
        with reading(f"{self.root}: the data set cannot be read", "See to its folder, or unpack it again."):
            records = list(self.records())
        seen: dict[str, str] = {}
        for record in records:
            self.meaning(record)
            if not record.id or record.id in seen:
                raise DataError(
                    f"{record.where}: the id {record.id!r} "
                    + (f"stands already in {seen[record.id]}" if record.id else "is empty")
                    + ". Correct or remove the row."
                )
            check_marks(record.question.count(IMAGE), len(record.images), record.where)
            seen[record.id] = record.where
        if not records:
            raise DataError(f"{self.root}: {self.card.title} has no usable row there. Give `root` its folder.")
        self._records = records

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        """The sample of one record."""
        record, card = self._records[index], self.card
        meaning = self.meaning(record)
        return Sample(
            id=record.id,
            images=record.images,
            target=meaning.target,
            label=record.label,
            group=f"{card.name}:{record.group}",
            dataset=card.name,
            links=record.links,
            kind=record.kind,
            options=record.options,
            question=record.question,
            synonyms=meaning.synonyms,
            concepts=meaning.concepts,
            differential=record.differential,
            findings=record.findings or meaning.findings,
            findings_observed=bool(record.findings),
            reasoning=record.reasoning,
            skin_type=record.skin_type,
            site=record.site,
            licence=record.licence or card.licence,
            attribution=record.attribution or card.attribution,
        )

    def missing(self) -> list[int]:
        """Indices of the samples with an image that is not on disk."""
        return [i for i, record in enumerate(self._records) if not all(map(is_file, record.images))]


def list_images(root: Path, folders: Sequence[str], hint: str, suffixes: Sequence[str] = SUFFIXES) -> dict[str, str]:
    """Name without suffix -> path of every image in some folders below `root`, as far as they are there.

    Raises:
        DataError: if there is no `root`.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder. {hint}")
    return {
        os.path.splitext(entry.name)[0]: entry.path
        for folder in folders
        if (root / folder).is_dir()
        for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        if entry.name.lower().endswith(tuple(suffixes))
    }
