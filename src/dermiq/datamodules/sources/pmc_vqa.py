"""PMC-VQA: multiple-choice questions about figures of open-access articles, in its published layout.

    root/train.csv  root/test.csv  root/test_clean.csv  root/images/PMC1064097_F1.jpg ...         version 1
    root/train_2.csv  root/test_2.csv                   root/figures/PMC8253797_Fig4_11.jpg ...   version 2

Source: huggingface.co/datasets/xmcmic/PMC-VQA. Licence: that of each article, which PubMed Central's open-access list
gives. Citation: X. Zhang, C. Wu, Z. Zhao, W. Lin, Y. Zhang, Y. Wang, W. Xie, "PMC-VQA: Visual Instruction Tuning for
Medical Visual Question Answering", arXiv:2305.10415. Version 1 has some 227,000 questions about 149,000 images. There
are no labels but the letters of the right options.

Questions and answers were written by a language model from the captions; `test_clean` is the part of `test` that
people have checked. The options stand there with their letters (`` A:Diffuse uptake``), which are taken off. Version 1
has the letter in `Answer_label` and the text in `Answer`; version 2 has the letter in `Answer`. The group is the
article, since its figures may show one patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dermiq.datamodules.sources.base import MAX_PIXELS
from dermiq.datamodules.sources.reading.answers import VisualQuestions, meaning_of_choice, without_blanks
from dermiq.datamodules.sources.reading.card import Meaning
from dermiq.datamodules.sources.reading.csv_rows import Row, read_table
from dermiq.datamodules.sources.reading.photographs import Record
from dermiq.prompts import LETTERS, choice_question
from dermiq.schema import DataError

FOLDERS = ("images", "figures")
CHOICES = ("Choice A", "Choice B", "Choice C", "Choice D")
COLUMNS = ("Figure_path", "Question", "Answer", *CHOICES)
HINT = "Give `root` the folder with PMC-VQA's CSV files and its unpacked images."
_LETTER = re.compile(r"^[A-D]\s*:\s*")


class PMCVQA(VisualQuestions):
    """The multiple-choice questions of PMC-VQA.

    Args:
        root: the folder that holds the CSV files and the image folder.
        part: the CSV file to read, without its suffix; those of version 2 end in _2.
        max_pixels: the largest width * height of an image accepted, in pixels.
    """

    card_name = "pmc_vqa"

    def __init__(
        self,
        root: str,
        part: Literal["train", "test", "test_clean", "train_2", "test_2"] = "train",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(root, max_pixels)
        self.part = part

    def records(self) -> Iterator[Record]:
        """One record per row of the part's file; the label is the letter of the right option."""
        folder = next((self.root / name for name in FOLDERS if (self.root / name).is_dir()), self.root / FOLDERS[0])
        for number, row in enumerate(read_table(self.root / f"{self.part}.csv", COLUMNS, HINT), start=1):
            image = row.required("Figure_path")
            options, place = _options(row)
            yield Record(
                id=f"{self.part}-{number}",
                images=(str(folder / image),),
                label=LETTERS[place],
                group=Path(image).stem.partition("_")[0],
                question=choice_question(options, row.required("Question")),
                kind="choice",
                options=options,
                where=row.where,
            )

    def meaning(self, record: Record) -> Meaning:
        """The letter, and the other ways to name its option."""
        return meaning_of_choice(record.options, LETTERS.index(record.label))


def _options(row: Row) -> tuple[tuple[str, ...], int]:
    """The options that are not blank, and the place of the right one."""
    letter = row.get("Answer_label") or row["Answer"]
    if letter not in ("A", "B", "C", "D"):
        raise DataError(f"{row.where}: the right answer is {letter!r} and not A, B, C or D. Correct or remove the row.")
    try:
        return without_blanks([_LETTER.sub("", row[name]) for name in CHOICES], LETTERS.index(letter))
    except ValueError as error:
        raise DataError(f"{row.where}: {error}. Correct or remove the row.") from None
