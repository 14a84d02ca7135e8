"""VQA-RAD: questions of clinicians about radiological images, in its two published layouts.

    root/VQA_RAD Dataset Public.json
    root/VQA_RAD Image Folder/synpic54610.jpg ...

and, for `VQARADParquet`, as the Hugging Face Hub has it:

    root/data/train-00000-of-00001-….parquet     image (a file's content), question, answer
    root/data/test-00000-of-00001-….parquet

Source: osf.io/89kps. Licence: CC0 1.0. Citation: J. J. Lau, S. Gayen, A. Ben Abacha, D. Demner-Fushman, "A dataset of
clinically generated visual questions and answers about radiology images", Scientific Data 5, 180251 (2018). 2,248
questions about 315 images, of which 451 are the test set (`phrase_type` test_freeform or test_para); the Parquet files
have 1,793 and 451 of them, about 314 images. There are no labels but the answers.

The same images stand in both parts of the official split, so that whoever trains on one part and tests on the other
has seen the test's images: the group is the image, and a split by group keeps it on one side. Some triplets of image,
question and answer stand there more than once, one of them in both parts; the first of each counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dermiq.datamodules.sources.base import MAX_PIXELS
from dermiq.datamodules.sources.general.hub import PublishedQuestions
from dermiq.datamodules.sources.reading.answers import VisualQuestions, in_words
from dermiq.datamodules.sources.reading.jsonl_rows import open_rows
from dermiq.datamodules.sources.reading.photographs import Record

log = logging.getLogger(__name__)

METADATA = "VQA_RAD Dataset Public.json"
FOLDER = "VQA_RAD Image Folder"


class VQARAD(VisualQuestions):
    """The questions of VQA-RAD.

    Args:
        root: the folder that holds the JSON file and the image folder.
        part: of the official split; both by default. The parts share images.
        max_pixels: the largest width * height of an image accepted, in pixels.
    """

    card_name = "vqa_rad"

    def __init__(self, root: str, part: Literal["train", "test"] | None = None, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(root, max_pixels)
        self.part = part

    def records(self) -> Iterator[Record]:
        """One record per question, without those that repeat."""
        rows = open_rows(self.root / METADATA)
        seen: set[tuple[str, ...]] = set()
        repeated = 0
        for index, row in enumerate(rows):
            where = rows.place(index)
            image, question, answer = (rows.text(index, row, name) for name in ("image_name", "question", "answer"))
            part = "test" if rows.text(index, row, "phrase_type").startswith("test") else "train"
            if self.part not in (None, part):
                continue
            triplet = (image, in_words(question), in_words(answer))
            if triplet in seen:
                repeated += 1
                continue
            seen.add(triplet)
            yield Record(
                id=rows.text(index, row, "qid"),
                images=(str(self.root / FOLDER / image),),
                label=answer,
                group=Path(image).stem,
                question=question,
                kind="vqa",
                site=str(row.get("image_organ") or "").strip(),
                where=where,
            )
        if repeated:
            log.info("%s: %d questions repeat another about the same image and are left out.", rows.path, repeated)


class VQARADParquet(PublishedQuestions):
    """The questions of VQA-RAD in the layout of the Hugging Face Hub, images included.

    Args:
        root: the folder that holds ``data/``, or the id of the data set on the Hub.
        part: of the official split; both by default. The parts share images.
        max_pixels: the largest width * height of an image accepted, in pixels.
    """

    card_name = "vqa_rad"

    def __init__(self, root: str, part: Literal["train", "test"] | None = None, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(root, part or "train+test", max_pixels)
