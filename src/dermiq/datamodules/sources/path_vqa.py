"""PathVQA: questions about images from textbooks of pathology, in the layout of the Hugging Face Hub.

    root/data/train-00000-of-00007-….parquet       image (a file's content), question, answer
    root/data/validation-00000-of-00003-….parquet
    root/data/test-00000-of-00003-….parquet

Source: huggingface.co/datasets/flaviagiammarino/path-vqa, github.com/UCSD-AI4H/PathVQA. Licence: the repository is MIT;
images and captions belong to the publishers of the books and to the PEIR library. Citation: X. He, Y. Zhang, L. Mou,
E. Xing, P. Xie, "PathVQA: 30000+ Questions for Medical Visual Question Answering", arXiv:2003.10286. 19,654 questions
for training, 6,259 for validation and 6,719 for the test. There are no labels but the answers.

The images have no names: the group is the hash of an image's file, so that its questions stay together.
"""

from __future__ import annotations

from typing import Literal

from dermiq.datamodules.sources.base import MAX_PIXELS
from dermiq.datamodules.sources.general.hub import PublishedQuestions


class PathVQA(PublishedQuestions):
    """The questions of PathVQA.

    Args:
        root: the folder that holds ``data/``, or the id of the data set on the Hub.
        part: of the official split; all by default.
        max_pixels: the largest width * height of an image accepted, in pixels.
    """

    card_name = "path_vqa"

    def __init__(
        self, root: str, part: Literal["train", "validation", "test"] | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        super().__init__(root, part or "train+validation+test", max_pixels)
