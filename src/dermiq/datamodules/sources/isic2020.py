"""ISIC 2020 (SIIM-ISIC): dermoscopic photographs of many lesions of each patient, in their published layout.

    root/ISIC_2020_Training_GroundTruth_v2.csv
    root/ISIC_2020_Training_Duplicates.csv      (optional: pairs of images of the same lesion)
    root/train/ISIC_0015719.jpg ...

Source: doi:10.34970/2020-ds01. Licence: CC BY-NC 4.0. Citation: V. Rotemberg et al., "A patient-centric dataset of
images and metadata for identifying melanomas using clinical context", Scientific Data 8, 34 (2021). Labels of the
33,126 images of 2,056 patients: unknown 27,124, nevus 5,193, melanoma 584, seborrheic keratosis 135, lentigo NOS 44,
lichenoid keratosis 37, solar lentigo 7, cafe-au-lait macule 1, atypical melanocytic proliferation 1.

The images of diagnosis `unknown`, four in five, are benign and no more is known; there is nothing to name, and they are
left out. The group is the patient. Test images have no published truth.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator

from dermiq.datamodules.sources.reading.csv_rows import read_table
from dermiq.datamodules.sources.reading.photographs import Photographs, Record, list_images

METADATA = "ISIC_2020_Training_GroundTruth_v2.csv"
DUPLICATES = "ISIC_2020_Training_Duplicates.csv"
FOLDERS = ("train", "ISIC_2020_Training_JPEG/train")
COLUMNS = ("image_name", "patient_id", "lesion_id", "anatom_site_general_challenge", "diagnosis")
HINT = "Give `root` the folder with ISIC 2020's ground truth (version 2) and the folder train/ of its JPEG archive."

log = logging.getLogger(__name__)


class ISIC2020(Photographs):
    """The photographs of ISIC 2020 that have a diagnosis to name.

    Args:
        root: the folder that holds the ground truth and the image folder.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "isic2020"

    def records(self) -> Iterator[Record]:
        """One record per diagnosed row of the ground truth."""
        paths = list_images(self.root, FOLDERS, HINT)
        duplicates = self._duplicates()
        rows = read_table(self.root / METADATA, COLUMNS, HINT)
        diagnosed = [row for row in rows if row.known("diagnosis")]
        log.info("%s: %d of %d images have no diagnosis.", self.root, len(rows) - len(diagnosed), len(rows))
        for row in diagnosed:
            image, lesion = row.required("image_name"), row.known("lesion_id")
            links = [f"isic:{name}" for name in (image, *duplicates[image])]
            yield Record(
                id=image,
                images=(paths.get(image, str(self.root / FOLDERS[0] / f"{image}.jpg")),),
                label=row["diagnosis"],
                group=row.required("patient_id"),
                links=(*links, f"isic-lesion:{lesion}") if lesion else tuple(links),
                site=row.known("anatom_site_general_challenge"),
                where=row.where,
            )

    def _duplicates(self) -> defaultdict[str, list[str]]:
        """Image -> images of the same lesion, by the official list if it is there."""
        duplicates: defaultdict[str, list[str]] = defaultdict(list)
        if (self.root / DUPLICATES).is_file():
            for row in read_table(self.root / DUPLICATES, ("image_name_1", "image_name_2"), HINT):
                one, other = row.required("image_name_1"), row.required("image_name_2")
                duplicates[one].append(other)
                duplicates[other].append(one)
        return duplicates
