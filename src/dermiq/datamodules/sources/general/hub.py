"""Data sets of the Hugging Face `datasets` library: from the Hub, from a directory of files, or saved to disk."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any, ClassVar

import datasets

from dermiq.datamodules.file_faults import reading
from dermiq.datamodules.sources.base import MAX_PIXELS
from dermiq.datamodules.sources.general.tabular import TabularSource
from dermiq.datamodules.sources.reading.card import load_card
from dermiq.schema import DataError

_ODD = re.compile(r"[*?\[\n]|::")


class HubDataset(TabularSource):
    """One sample per row of a data set that `datasets.load_dataset` or `datasets.load_from_disk` reads.

    Images may be embedded; they are not decoded before a sample is used.

    Args:
        path: its id on the Hub, or a directory: of files, or saved by `save_to_disk`.
        image_column: where the images stand, embedded or as paths.
        label_column: where the label or the answer stands.
        split: which split, or several as in ``train+test``.
        name: of its configuration, where it has several.
        options: the other arguments of `TabularSource`; image paths start from the directory by default.

    Raises:
        DataError: see `TabularSource`.
    """

    def __init__(
        self,
        path: str,
        image_column: str,
        label_column: str,
        split: str = "train",
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, image_column, label_column, **options)
        self.split, self.name = split, name
        self._is_directory = False

    def _root(self) -> str:
        return self.path if self.image_root is None else self.image_root

    def _name(self) -> str:
        """The split, after the data set's name; a directory's name is none, as it may be another elsewhere."""
        return self.split if self._is_directory and not self.dataset else f"{super()._name()}-{self.split}"

    def _place(self, index: int) -> str:
        return f"{self.path} ({self.split}), row {index + 1}"

    def _read(self) -> datasets.Dataset:
        """The splits, one after the other; what looks like a directory is not looked for on the Hub."""
        self._is_directory = os.path.isdir(self.path)
        if self.path.count("/") > 1 and not self._is_directory:
            raise DataError(f"{self.path}: there is no such directory. Correct `path` of the source.")
        if self._is_directory and _ODD.search(os.path.abspath(self.path)):
            raise DataError(
                f"{self.path}: the `datasets` library takes *, ?, [ and :: in the name of a folder for a pattern or a "
                "URL, and cannot read one with a line break. Rename the folder."
            )
        with reading(
            f"{self.path}: the split {self.split!r} of the data set cannot be read",
            "Give `path` the id of a data set on the Hub or a directory that `datasets` reads, and `split` and `name` "
            "what it has.",
        ):
            data = self._opened()
        mixed = [name for name in self._columns() if type(data.features.get(name)).__name__ == "Json"]
        if mixed:
            raise DataError(
                f"{self.path}: the column {mixed[0]!r} holds values of several kinds in different rows. Write values "
                "of one kind into all of them."
            )
        return data

    def _opened(self) -> datasets.Dataset:
        if os.path.isfile(os.path.join(self.path, "dataset_info.json")):
            return datasets.load_from_disk(self.path)
        if os.path.isfile(os.path.join(self.path, "dataset_dict.json")):
            saved = datasets.load_from_disk(self.path)
            return datasets.concatenate_datasets([saved[part] for part in self.split.split("+")])
        path = os.path.abspath(self.path) if self._is_directory else self.path
        return datasets.load_dataset(path, self.name, split=self.split)


class PublishedQuestions(HubDataset):
    """A published data set of questions with embedded images, `question` and `answer`, described by a data card.

    A subclass names its card, which lies in ``cards/`` beside its module.

    Args:
        root: the folder that holds ``data/``, or the id of the data set on the Hub.
        split: which split, or several as in ``train+test``.
        max_pixels: the largest width * height of an image accepted, in pixels.
    """

    card_name: ClassVar[str]

    def __init__(self, root: str, split: str, max_pixels: int = MAX_PIXELS) -> None:
        card = load_card(Path(inspect.getfile(type(self))).parent / "cards" / f"{self.card_name}.yaml")
        super().__init__(
            root,
            "image",
            "answer",
            split,
            kind="vqa",
            question_column="question",
            licence=card.licence,
            attribution=card.attribution,
            dataset=card.name,
            max_pixels=max_pixels,
        )
