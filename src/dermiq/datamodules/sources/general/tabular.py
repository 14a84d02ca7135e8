"""Any table of images and labels, or of images, questions and answers: CSV, JSON lines or Parquet.

Of CSV and JSON the columns in use are read into memory. Parquet is read lazily from the Arrow file into which the
`datasets` library converts them once (in its own cache, which ``HF_DATASETS_CACHE`` moves).
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from dermiq.datamodules.file_faults import is_file
from dermiq.datamodules.sample_table import IMAGE_LENGTH, SampleTable, checksum, file_name
from dermiq.datamodules.sources.base import MAX_PIXELS, Source, open_image
from dermiq.datamodules.sources.reading import arrow_columns
from dermiq.datamodules.sources.reading.answers import completion_length, in_words, meaning_of_choice, read_choice
from dermiq.datamodules.sources.reading.card import Meaning
from dermiq.datamodules.sources.reading.csv_rows import listed
from dermiq.datamodules.sources.reading.labels import as_written, condition_names, fitzpatrick, meaning_of_label
from dermiq.datamodules.sources.reading.references import file_of
from dermiq.datamodules.sources.reading.table_checks import check_each, check_ids, check_images, check_types
from dermiq.datamodules.sources.reading.table_files import open_table
from dermiq.prompts import LETTERS, QUESTION, check_marks, choice_question
from dermiq.ranges import check_numbers
from dermiq.schema import DataError, Kind, Sample

_BLOCK = 1 << 16
_LINKS = pa.list_(pa.string())


class TabularSource(Source):
    """One sample per row of a table.

    The image column holds paths or the content of image files, one a row or a list of them. The label column holds
    the name of a condition, the right option, or an answer in words, as `kind` says. The findings of a diagnosis are
    those typical of its condition.

    Args:
        path: the table: .csv, .json, .jsonl or .parquet.
        image_column: where the images stand.
        label_column: where the label or the answer stands.
        image_root: folder that the image paths start from; the table's own folder by default.
        kind: what the questions ask for: the label of a ``diagnosis`` names a condition, of any other kind but
            ``choice`` (see `options_column`) it is the answer itself.
        labels: label of the table -> concept, or list of concepts where it lumps them, the first being the one to
            name; without it the labels must be names, synonyms or identifiers of conditions in the ontology. A name
            that the ontology lacks is the answer to give as it stands.
        question_column: where the question stands; the default question is asked without it, or where it is empty.
        options_column: where the options of multiple-choice questions stand: a column of lists, or a list of columns
            of one option each. The label then is an option's text, letter, or number from 0.
        group_column: where the patient, lesion or cluster stands that must not be split; without it, or where it is
            empty, samples with the same first image are a group, and images in the table are tied by their content.
        id_column: where a unique id stands; the row's number by default.
        skin_type_column: where the skin type stands: 1 to 6, I to VI or, two at a time, I-II or 12; -1 or nothing
            where it is unknown.
        skin_type_how: how the skin types were obtained (``self-reported``, ``rated``).
        site_column: where the site of the body stands.
        licence: of all images.
        attribution: of all images.
        licence_column: where an image's own licence stands, if it is another.
        attribution_column: where an image's own attribution stands, if it is another.
        dataset: name of the data set, which keeps its groups distinct from those of others.
        max_pixels: the largest width * height of an image accepted, in pixels.

    Raises:
        DataError: if there are options and the kind is no choice, or the other way round; or a label means nothing.
    """

    def __init__(
        self,
        path: str,
        image_column: str,
        label_column: str,
        image_root: str | None = None,
        kind: Kind = "diagnosis",
        labels: dict[str, str | list[str]] | None = None,
        question_column: str | None = None,
        options_column: str | list[str] | None = None,
        group_column: str | None = None,
        id_column: str | None = None,
        skin_type_column: str | None = None,
        skin_type_how: str = "unknown",
        site_column: str | None = None,
        licence: str = "",
        attribution: str = "",
        licence_column: str | None = None,
        attribution_column: str | None = None,
        dataset: str = "",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.path = path
        self.image_column, self.label_column, self.image_root = image_column, label_column, image_root
        self.kind, self.question_column = kind, question_column
        self.labels = None if labels is None else {text: to for key, to in labels.items() for text in as_written(key)}
        self.option_columns = [options_column] if isinstance(options_column, str) else options_column or []
        self.group_column, self.id_column = group_column, id_column
        self.skin_type_column, self.skin_type_how, self.site_column = skin_type_column, skin_type_how, site_column
        self.licence, self.attribution = licence, attribution
        self.licence_column, self.attribution_column = licence_column, attribution_column
        self.dataset, self.max_pixels = dataset, max_pixels
        check_numbers(self, max_pixels="[1, inf)")
        self._data: datasets.Dataset | None = None
        self._names: list[str] = []
        self._lines: NDArray[np.int64] | None = None
        self._meanings: dict[str, Meaning] = {}
        if bool(self.option_columns) != (kind == "choice"):
            raise DataError("`options_column` and `kind: choice` go together. Give the source both, or neither.")
        if nothing := [label for label, meant in (self.labels or {}).items() if not meant]:
            raise DataError(f"`labels` maps {nothing[0]!r} to nothing. Name what it means, or take the rows out.")

    def load(self) -> None:
        """Read the table and check its columns, images, ids, labels, options and skin types.

        Raises:
            DataError: if the table is missing, unreadable or empty, lacks a column, or a row has an unknown label,
                no image, or the id of another row.
        """
        if self._data is not None:
            return
        data = self._read()
        columns = self._columns()
        lacking = [column for column in columns if column not in data.column_names]
        if lacking:
            raise DataError(
                f"{self.path}: the column(s) {', '.join(lacking)} are missing; there are {listed(data.column_names)}. "
                "Correct the `*_column` settings of the source."
            )
        label = data.features[self.label_column]
        self._names = label.names if isinstance(label, datasets.ClassLabel) else []
        data = data.select_columns(columns).with_format("arrow")
        self._check(data[:])
        self._data = data

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._loaded())

    def __getitem__(self, index: int) -> Sample:
        """The sample of one row."""
        row = self._loaded()[index : index + 1]
        label, question = self._labels(row)[0].as_py(), self._text(row, self.question_column)
        images = arrow_columns.pictures(self._images(row)[0].as_py())
        options: tuple[str, ...] = ()
        if self.option_columns:
            options, place = read_choice([row[column][0].as_py() for column in self.option_columns], label)
            meaning, question = meaning_of_choice(options, place), choice_question(options, question or QUESTION)
        else:
            meaning = self._meaning(label)
        return Sample(
            id=self._ids(row, index)[0].as_py(),
            images=tuple(self._reference(index, number, picture) for number, picture in enumerate(images)),
            target=meaning.target,
            label=label,
            group=self._groups(row)[0].as_py(),
            question=question,
            kind=self.kind,
            options=options,
            synonyms=meaning.synonyms,
            concepts=meaning.concepts,
            findings=meaning.findings,
            skin_type=fitzpatrick(self._text(row, self.skin_type_column), self.skin_type_how),
            site=self._text(row, self.site_column),
            licence=self._text(row, self.licence_column) or self.licence,
            attribution=self._text(row, self.attribution_column) or self.attribution,
            dataset=self.dataset,
            links=arrow_columns.links(images, self._root()) if self.group_column is None else (),
        )

    def table(self) -> SampleTable:
        """One entry per row, from the columns."""
        table = self._loaded()[:]
        answers, texts = self._answered(table)
        questions = pc.utf8_length(texts).to_numpy().astype(np.int64)
        meanings = list(map(self._meaning, answers.dictionary.to_pylist()))
        codes = answers.indices.to_numpy()
        images, root = self._images(table), self._root()
        counts = arrow_columns.image_counts(images)
        tied = self.group_column is None and arrow_columns.any_link(images, root)
        types = self._texts(table, self.skin_type_column).dictionary_encode()
        known = [fitzpatrick(text, "") for text in types.dictionary.to_pylist()]
        return SampleTable.from_columns(
            id=self._ids(table, 0),
            group=self._groups(table),
            target=pa.array([meaning.target for meaning in meanings]).take(answers.indices),
            question_length=questions,
            images=counts,
            length=questions + np.array(list(map(completion_length, meanings)))[codes] + IMAGE_LENGTH * counts,
            dataset=self.dataset,
            links=pa.array((arrow_columns.links(row, root) for row in arrow_columns.each(images)), _LINKS)
            if tied
            else (),
            skin_type=pa.array([skin_type.value if skin_type else "" for skin_type in known]).take(types.indices),
            content=[
                checksum(question, list(map(file_name, paths)))
                for question, paths in zip(texts.to_pylist(), arrow_columns.paths(images), strict=True)
            ],
        )

    def missing(self) -> list[int]:
        """Indices of the rows with an image whose file is absent."""
        root = self._root()
        return arrow_columns.rows_with(self._images(self._loaded()[:]), lambda name: not is_file(file_of(root, name)))

    def image(self, reference: str) -> Image.Image:
        """Open one of a sample's images, from its file or from the row that holds it.

        Raises:
            DataError: see `open_image`.
        """
        name, _, place = reference.rpartition("#")
        if name != self.path:
            return open_image(reference, self.max_pixels)
        index, number = map(int, place.split("."))
        picture = arrow_columns.pictures(self._images(self._loaded()[index : index + 1])[0].as_py())[number]
        where = f"{self._place(index)}, image {number + 1}"
        return open_image(where, self.max_pixels, arrow_columns.content_of(picture))

    def _loaded(self) -> datasets.Dataset:
        if self._data is None:
            raise RuntimeError("call load() first")
        return self._data

    def _columns(self) -> list[str]:
        """The columns to read."""
        others = (self.question_column, self.group_column, self.id_column, self.skin_type_column, self.site_column)
        named = (self.image_column, self.label_column, *self.option_columns, *others)
        return list(dict.fromkeys(filter(None, (*named, self.licence_column, self.attribution_column))))

    def _root(self) -> str:
        """The folder that image paths start from."""
        return str(Path(self.path).parent) if self.image_root is None else self.image_root

    def _read(self) -> datasets.Dataset:
        """The table, with the columns to read and perhaps others."""
        data, self._lines = open_table(Path(self.path), self._columns())
        return data

    def _place(self, index: int) -> str:
        """Where a row stands, for errors."""
        if self._lines is not None:
            return f"{self.path}, line {self._lines[index]}"
        return f"{self.path}, row {index + 1}"

    def _check(self, table: pa.Table) -> None:
        check_types(self.path, table, self.image_column, self.option_columns, {self.label_column: self._names})
        check_images(self._images(table), self.image_column, self._place)
        if self.id_column is not None:
            check_ids(self._ids(table, 0), self.id_column, self._place)
        texts = self._texts(table, self.question_column)
        for row, marks, images in arrow_columns.marked_rows(texts, self._images(table)):
            check_marks(marks, images, self._place(row))
        if self.option_columns:
            self._answered(table)
        check_each(self._labels(table), self._check_label, self._place)
        types = self._texts(table, self.skin_type_column)
        check_each(types, lambda text: fitzpatrick(text, self.skin_type_how), self._place)

    def _check_label(self, label: str) -> None:
        """Look a label up, once for all its rows."""
        if not (label if self.option_columns else in_words(label)):
            raise ValueError(f"the column {self.label_column!r} is empty. Fill it in, or remove the row.")
        if self.kind != "diagnosis":
            return
        meaning = meaning_of_label(label, self.labels)
        if meaning is None:
            close = get_close_matches(label, condition_names() if self.labels is None else self.labels, n=3)
            hint = f"Did you mean {' or '.join(close)}? " if close else ""
            raise ValueError(
                f"the label {label!r} is unknown. {hint}Correct the "
                "row, or map the label to a condition in `labels` of the source. `python -m dermiq.kg list` names them "
                "all."
            )
        self._meanings[label] = meaning

    def _meaning(self, answer: str) -> Meaning:
        """What a label means, or what is to be answered."""
        if self.kind == "diagnosis":
            return self._meanings[answer]
        return Meaning(answer if self.option_columns else in_words(answer), ())

    def _answered(self, table: pa.Table) -> tuple[pa.DictionaryArray, pa.Array]:
        """The label of each row, or the letter of its right option, and its question."""
        labels, texts = self._labels(table), self._texts(table, self.question_column)
        if not self.option_columns:
            return labels.dictionary_encode(), texts
        letters, questions, index = [], [], 0
        for batch in table.select(self.option_columns).to_batches(_BLOCK):
            for given in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                try:
                    options, place = read_choice(given, labels[index].as_py())
                except ValueError as error:
                    raise DataError(f"{self._place(index)}: {error}. Correct or remove the row.") from None
                letters.append(LETTERS[place])
                questions.append(choice_question(options, texts[index].as_py() or QUESTION))
                index += 1
        return pa.array(letters, pa.string()).dictionary_encode(), pa.array(questions, pa.string())

    def _text(self, row: pa.Table, column: str | None) -> str:
        return str(self._texts(row, column)[0].as_py())

    def _texts(self, table: pa.Table, column: str | None) -> pa.Array:
        """A column as texts; empty ones if there is none."""
        return pa.repeat("", len(table)) if column is None else arrow_columns.texts(table[column])

    def _images(self, table: pa.Table) -> pa.ChunkedArray:
        return arrow_columns.plain(table[self.image_column])

    def _labels(self, table: pa.Table) -> pa.Array:
        return arrow_columns.texts(table[self.label_column], self._names)

    def _ids(self, table: pa.Table, first: int) -> pa.Array:
        """The ids of rows, the first of them having a number from 0."""
        if self.id_column is not None:
            return arrow_columns.texts(table[self.id_column])
        return arrow_columns.numbered(self._name(), first + 1, len(table))

    def _name(self) -> str:
        """What rows without ids are named after."""
        return self.dataset or Path(self.path).stem

    def _groups(self, table: pa.Table) -> pa.Array:
        """The groups of rows: of the column, or else what rows of the same first image have in common."""
        given = self._texts(table, self.group_column)
        blank = pc.equal(given, "")
        if blank.true_count:
            given = pc.replace_with_mask(
                given, blank, arrow_columns.identities(self._images(table).filter(blank), self._root())
            )
        return pc.binary_join_element_wise(self.dataset, given, ":") if self.dataset else given

    def _reference(self, index: int, number: int, picture: Any) -> str:
        """The file of an image, or its place in this table."""
        if arrow_columns.content_of(picture) is not None:
            return f"{self.path}#{index}.{number}"
        return file_of(self._root(), arrow_columns.path_of(picture))
