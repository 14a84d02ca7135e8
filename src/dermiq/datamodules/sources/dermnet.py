"""DermNet-style class folders: photographs of an atlas, sorted by chapter.

    root/train/Acne and Rosacea Photos/acne-cystic-12.jpg ...
    root/test/Acne and Rosacea Photos/acne-cystic-3.jpg ...

Source: https://www.kaggle.com/datasets/shubhamgoel27/dermnet, taken from the Dermnet Skin Disease Atlas (dermnet.com).
Licence: CC BY-NC-ND 4.0 as stated on Kaggle; rights and consent of the persons shown are not documented. Citation:
none; nobody published a description. 19,559 photographs (train 15,557, test 4,002) in 23 folders, from 265 (Urticaria
Hives) to 1,757 (Psoriasis pictures Lichen Planus and related diseases).

Most folders lump conditions, benign and malignant ones together. Files of one name and different numbers are a series
of the atlas, often of one patient, and stand in both parts: the series is the group. File names hold the diagnosis and
are never shown. There is no table, no patient and no skin type.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Literal

from dermiq.datamodules.sources.base import MAX_PIXELS
from dermiq.datamodules.sources.reading.photographs import Photographs, Record, list_images
from dermiq.schema import DataError

Half = Literal["train", "test"]
PARTS: tuple[Half, ...] = ("train", "test")
HINT = "Give `root` the folder that holds train/ and test/."

_NUMBER = re.compile(r"[\d\s_()-]+$")


class DermNet(Photographs):
    """The photographs of class folders with a diagnosis of the class to name.

    Args:
        root: the folder that holds ``train`` and ``test``.
        part: one of the two; None takes both.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "dermnet"

    def __init__(self, root: str, part: Half | None = None, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(root, max_pixels)
        self.part = part

    def records(self) -> Iterator[Record]:
        """One record per photograph, in the order of their names."""
        for part in PARTS if self.part is None else (self.part,):
            if not (self.root / part).is_dir():
                raise DataError(f"{self.root}: there is no folder {part}/. {HINT}")
            for label in sorted(entry.name for entry in os.scandir(self.root / part) if entry.is_dir()):
                for name, path in sorted(list_images(self.root, (f"{part}/{label}",), HINT).items()):
                    yield Record(
                        id=f"{part}/{label}/{name}",
                        images=(path,),
                        label=label,
                        group=series(name),
                        where=str(self.root / part / label),
                    )


def series(name: str) -> str:
    """A file's name without its number.

    >>> series("acne-cystic-12")
    'acne-cystic'
    """
    return (_NUMBER.sub("", name) or name).lower()
