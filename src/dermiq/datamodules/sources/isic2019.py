"""ISIC 2019: dermoscopic photographs of the challenge of that year, in their published layout.

    root/ISIC_2019_Training_GroundTruth.csv
    root/ISIC_2019_Training_Metadata.csv
    root/ISIC_2019_Training_Input/ISIC_0000000.jpg, ISIC_0000004_downsampled.jpg ...
    root/ISIC_2019_Test_GroundTruth.csv, ISIC_2019_Test_Metadata.csv, ISIC_2019_Test_Input/ likewise

Source: https://challenge.isic-archive.com/data/#2019. Licence: CC BY-NC 4.0. Citation: P. Tschandl, C. Rosendahl,
H. Kittler, "The HAM10000 dataset", Scientific Data 5, 180161 (2018); N. Codella et al., "Skin lesion analysis toward
melanoma detection", arXiv:1710.05006; M. Combalia et al., "BCN20000: Dermoscopic lesions in the wild",
arXiv:1908.02288. Labels of the 25,331 training images: NV 12,875, MEL 4,522, BCC 3,323, BKL 2,624, AK 867, SCC 628,
VASC 253, DF 239.

The truth is one-hot. It holds the images of HAM10000 and many of BCN20000, which share their ids with these; those that
were made smaller for the challenge have `_downsampled` behind the id. The group is the lesion where it is known, else
the image: the test part names no lesions. The images of class UNK (in the test part only) have no diagnosis and are
left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

from dermiq.datamodules.sources.base import MAX_PIXELS
from dermiq.datamodules.sources.reading.csv_rows import Row, read_table
from dermiq.datamodules.sources.reading.photographs import Photographs, Record, list_images
from dermiq.schema import DataError

UNDIAGNOSED = "UNK"
LABELS = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", UNDIAGNOSED)
PARTS = {"train": "Training", "test": "Test"}
HINT = "Give `root` the folder with ISIC 2019's ground truth, metadata and the folder of its unpacked images."

log = logging.getLogger(__name__)


class ISIC2019(Photographs):
    """The photographs of ISIC 2019 with the diagnosis to name.

    Args:
        root: the folder that holds ground truth, metadata and the image folder.
        part: of the official split.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "isic2019"

    def __init__(self, root: str, part: Literal["train", "test"] = "train", max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(root, max_pixels)
        self.part = part

    def records(self) -> Iterator[Record]:
        """One record per diagnosed row of the ground truth, with what the metadata say of its image."""
        prefix = f"ISIC_2019_{PARTS[self.part]}"
        folder = f"{prefix}_Input"
        paths = list_images(self.root, (folder, f"{folder}/{folder}"), HINT)
        metadata = {
            row.required("image"): row
            for row in read_table(self.root / f"{prefix}_Metadata.csv", ("image", "anatom_site_general"), HINT)
        }
        truth = read_table(self.root / f"{prefix}_GroundTruth.csv", ("image", *LABELS), HINT)
        diagnosed = [(row, label) for row in truth if (label := _label(row)) != UNDIAGNOSED]
        log.info("%s: %d of %d images have no diagnosis.", self.root, len(truth) - len(diagnosed), len(truth))
        for row, label in diagnosed:
            image = row.required("image")
            if image not in metadata:
                raise DataError(f"{row.where}: the metadata have no row of the image {image!r}. {HINT}")
            lesion = metadata[image].known("lesion_id")
            links = [f"isic:{image.removesuffix('_downsampled')}", *([f"isic-lesion:{lesion}"] if lesion else [])]
            yield Record(
                id=image,
                images=(paths.get(image, str(self.root / folder / f"{image}.jpg")),),
                label=label,
                group=lesion or image,
                links=tuple(links),
                site=metadata[image].known("anatom_site_general"),
                where=row.where,
            )


def _label(row: Row) -> str:
    try:
        chosen = [label for label in LABELS if float(row[label]) == 1]
    except ValueError:
        chosen = []
    if len(chosen) != 1:
        raise DataError(
            f"{row.where}: one of {', '.join(LABELS)} must be 1 and the others 0. Correct or remove the row."
        )
    return chosen[0]
