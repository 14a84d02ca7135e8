"""Any table of images and labels: CSV, JSON lines or Parquet, read through the `datasets` library.

Rows are read lazily from the Arrow file into which `datasets` converts the table once (in its own cache,
which ``HF_DATASETS_CACHE`` moves).
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from dermiq.atlas import CONDITIONS, concept_of, typical
from dermiq.datamodules.sources.base import IMAGE_LENGTH, MAX_PIXELS, Outline, Source
from dermiq.prompts import gold_completion, normalise
from dermiq.schema import DataError, Sample

_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_SHOWN = 30


class TabularSource(Source):
    """One sample per row of a table.

    The image column holds a path, or (JSON lines, Parquet) a list of paths for several images of one
    case. The findings of a sample are those that the atlas calls typical of its concept, and none where
    the atlas does not know the concept.

    Args:
        path: the table: .csv, .json, .jsonl or .parquet.
        image_column: where the image paths stand.
        label_column: where the label stands.
        image_root: folder that the image paths start from; the table's own folder by default.
        group_column: where the patient, lesion or cluster stands that must not be split; without it, or
            where it is empty, samples with the same first image are a group.
        id_column: where a unique id stands; the row's number by default.
        question_column: where the question stands; the default question is asked without it, or where
            it is empty.
        labels: label of the table -> concept; without it the labels must be names that the atlas knows.
        licence: of all images.
        attribution: of all images.
        max_pixels: the largest width * height of an image accepted, in pixels.
    """

    def __init__(
        self,
        path: str,
        image_column: str,
        label_column: str,
        image_root: str | None = None,
        group_column: str | None = None,
        id_column: str | None = None,
        question_column: str | None = None,
        labels: dict[str, str] | None = None,
        licence: str = "",
        attribution: str = "",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.path = Path(path)
        self.image_root = self.path.parent if image_root is None else Path(image_root)
        self.image_column, self.label_column = image_column, label_column
        self.group_column, self.id_column, self.question_column = group_column, id_column, question_column
        self.labels = labels
        self.licence, self.attribution = licence, attribution
        self.max_pixels = max_pixels
        self._data: datasets.Dataset | None = None
        self._concepts: dict[str, str] = {}

    def load(self) -> None:
        """Read the table and check its columns, labels, ids and image paths.

        Raises:
            DataError: if the table is missing, unreadable or empty, lacks a column, or a row has an unknown
                label, no image or the id of another row.
        """
        if self._data is not None:
            return
        data = self._read()
        wanted = [self.image_column, self.label_column, self.group_column, self.id_column, self.question_column]
        columns = list(dict.fromkeys(column for column in wanted if column is not None))
        lacking = [column for column in columns if column not in data.column_names]
        if lacking:
            raise DataError(
                f"{self.path}: the column(s) {', '.join(lacking)} are missing; there are "
                f"{', '.join(data.column_names)}. Correct the `*_column` settings of the source."
            )
        data = data.select_columns(columns)
        self._check_rows(data)
        self._concepts = {str(label): self._concept(data, label) for label in data.unique(self.label_column)}
        self._data = data

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._loaded())

    def __getitem__(self, index: int) -> Sample:
        """The sample of one row."""
        row = self._loaded()[index]
        label = str(row[self.label_column])
        concept = self._concepts[label]
        images = tuple(self._image(name) for name in _names(row[self.image_column]))
        known = concept in CONDITIONS
        return Sample(
            id=str(index) if self.id_column is None else str(row[self.id_column]),
            images=images,
            target=concept,
            label=label,
            group=self._group(row, images[0]),
            question=self._question(row),
            synonyms=CONDITIONS[concept].synonyms if known else (),
            findings=typical(concept) if known else {},
            licence=self.licence,
            attribution=self.attribution,
        )

    def outline(self) -> list[Outline]:
        """One entry per row, from the columns."""
        columns = self._loaded()[:]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        images = [_names(row[self.image_column]) for row in rows]
        targets = [self._concepts[str(row[self.label_column])] for row in rows]
        first = {target: i for i, target in reversed(list(enumerate(targets)))}
        completion = {target: len(gold_completion(self[i])) for target, i in first.items()}
        return [
            Outline(
                group=self._group(row, self._image(names[0])),
                target=target,
                question_length=len(self._question(row)),
                images=len(names),
                length=len(self._question(row)) + completion[target] + IMAGE_LENGTH * len(names),
            )
            for row, names, target in zip(rows, images, targets, strict=True)
        ]

    def _loaded(self) -> datasets.Dataset:
        if self._data is None:
            raise RuntimeError("call load() first")
        return self._data

    def _image(self, name: str) -> str:
        return os.path.join(self.image_root, name)

    def _group(self, row: dict[str, Any], image: str) -> str:
        group = None if self.group_column is None else row[self.group_column]
        return image if group in (None, "") else str(group)

    def _question(self, row: dict[str, Any]) -> str:
        return "" if self.question_column is None else row[self.question_column] or ""

    def _read(self) -> datasets.Dataset:
        if self.path.suffix.lower() not in _FORMATS:
            raise DataError(f"{self.path}: unknown kind of table; give `path` one of {', '.join(_FORMATS)}.")
        if not self.path.is_file():
            raise DataError(f"{self.path}: the table is missing. Correct `path` of the source.")
        kind = _FORMATS[self.path.suffix.lower()]
        try:
            options = self._csv_options() if kind == "csv" else {}
            data = datasets.load_dataset(kind, data_files=str(self.path), split="train", **options)
        except (DatasetGenerationError, OSError, ValueError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise DataError(
                f"{self.path}: the table cannot be read as {kind} ({reason}). Save it again, as UTF-8 text with the "
                "same number of fields in every row (CSV), one object per line (JSON lines), or a whole file (Parquet)."
            ) from None
        if not len(data):
            raise DataError(f"{self.path}: the table has no rows.")
        return data

    def _csv_options(self) -> dict[str, Any]:
        """Every column as text: guessed types would turn the id 007 into 7 and the label NA into nothing."""
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
        return {
            "features": datasets.Features({column: datasets.Value("string") for column in header}),
            "keep_default_na": False,
        }

    def _check_rows(self, data: datasets.Dataset) -> None:
        for number, value in enumerate(data[:][self.image_column], start=1):
            if not _names(value) or not all(_names(value)):
                raise DataError(
                    f"{self.path}, row {number}: the column {self.image_column!r} names no image. Fill it in, or "
                    "remove the row."
                )
        if self.id_column is not None and len(data.unique(self.id_column)) < len(data):
            raise DataError(
                f"{self.path}: the ids in the column {self.id_column!r} are not unique. Choose another `id_column`, or "
                "leave it out to number the rows."
            )

    def _concept(self, data: datasets.Dataset, label: object) -> str:
        """The concept of a label, from the label map or else from the atlas."""
        name = concept_of(str(label)) if self.labels is None else self.labels.get(str(label))
        if name is None:
            known = sorted(CONDITIONS if self.labels is None else self.labels)
            number = data[:][self.label_column].index(label) + 1
            raise DataError(
                f"{self.path}, row {number}: the label {label!r} is unknown. Known are {', '.join(known[:_SHOWN])}"
                f"{', ...' if len(known) > _SHOWN else ''}. Correct the row, or map the label to a concept in `labels` "
                "of the source."
            )
        return concept_of(name) or normalise(name)


def _names(value: str | list[str] | None) -> list[str]:
    """Image paths of one row."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value
