"""SLAKE: questions about radiological images, in English and Chinese, in their published layout.

    root/train.json  root/validate.json  root/test.json       (the Hub calls the second validation.json)
    root/imgs/xmlab102/source.jpg ...

Source: www.med-vqa.com/slake. Licence: CC BY 4.0. Citation: B. Liu, L.-M. Zhan, L. Xu, L. Ma, Y. Yang, X.-M. Wu,
"SLAKE: A Semantically-Labeled Knowledge-Enhanced Dataset for Medical Visual Question Answering", ISBI 2021,
arXiv:2102.09542. 14,028 questions about 642 images. There are no labels but the answers.

Questions in both languages stand in the same files (`q_lang`); the other language's are left out. An image stands in
one part of the official split only. An answer may name several organs or sides, in no particular order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from dermiq.datamodules.sources.base import MAX_PIXELS
from dermiq.datamodules.sources.reading.answers import VisualQuestions
from dermiq.datamodules.sources.reading.jsonl_rows import open_rows
from dermiq.datamodules.sources.reading.photographs import Record

log = logging.getLogger(__name__)

FILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"train": ("train.json",), "validate": ("validate.json", "validation.json"), "test": ("test.json",)}
)


class SLAKE(VisualQuestions):
    """The questions of SLAKE in one of its languages.

    Args:
        root: the folder that holds the JSON files and ``imgs/``.
        part: of the official split; all by default.
        language: of the questions.
        max_pixels: the largest width * height of an image accepted, in pixels.
    """

    card_name = "slake"

    def __init__(
        self,
        root: str,
        part: Literal["train", "validate", "test"] | None = None,
        language: Literal["en", "zh"] = "en",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(root, max_pixels)
        self.part, self.language = part, language

    def records(self) -> Iterator[Record]:
        """One record per question in the language."""
        for part in FILES if self.part is None else (self.part,):
            yield from self._part(part)

    def _part(self, part: str) -> Iterator[Record]:
        paths = [self.root / name for name in FILES[part]]
        rows = open_rows(next((path for path in paths if path.is_file()), paths[0]))
        others = 0
        for index, row in enumerate(rows):
            if rows.text(index, row, "q_lang") != self.language:
                others += 1
                continue
            image = rows.text(index, row, "img_name")
            yield Record(
                id=f"{part}-{rows.text(index, row, 'qid')}",
                images=(str(self.root / "imgs" / image),),
                label=rows.text(index, row, "answer"),
                group=Path(image).parts[0],
                question=rows.text(index, row, "question"),
                kind="vqa",
                site=str(row.get("location") or "").strip(),
                where=rows.place(index),
            )
        if others:
            log.info(
                "%s: %d questions are in another language than %s and are left out.", rows.path, others, self.language
            )
