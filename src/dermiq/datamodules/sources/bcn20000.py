"""BCN20000: dermoscopic photographs from Barcelona, as the ISIC archive exports its collection 249.

    root/bcn20000_metadata_2025-07-22.csv      (with the date of the export; the latest counts)
    root/ISIC-images/ISIC_0053453.jpg ...

Source: https://api.isic-archive.com/collections/249. Licence: CC BY-NC 4.0, unless `copyright_license` of an image says
otherwise. Citation: C. Hernandez-Perez et al., "BCN20000: Dermoscopic lesions in the wild", Scientific Data 11, 641
(2024). 18,946 images of eight classes and of lesions outside them; the archive publishes no counts by label.

Older exports name the condition in `diagnosis`, newer ones in `diagnosis_3`, or, of vascular lesions, in `diagnosis_2`
alone. Images without any are left out. The group is the patient or else the lesion, where the export knows them, else
the image. Many of the images are in ISIC 2019 too, with the same ids.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from dermiq.datamodules.sources.reading.csv_rows import Row, read_table
from dermiq.datamodules.sources.reading.photographs import Photographs, Record, list_images
from dermiq.schema import DataError

METADATA = "bcn20000_metadata_*.csv"
FOLDERS = ("ISIC-images", "images")
COLUMNS = ("isic_id", "attribution", "copyright_license", "lesion_id")
DIAGNOSES = ("diagnosis_3", "diagnosis_2", "diagnosis")  # the first that is known
SITES = ("anatom_site_general", "anatom_site_1")
HINT = f"Give `root` the folder with {METADATA} and the folder {FOLDERS[0]}/ of the unpacked images."

log = logging.getLogger(__name__)


class BCN20000(Photographs):
    """The photographs of BCN20000 that have a diagnosis to name.

    Args:
        root: the folder that holds the metadata file and the image folder.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "bcn20000"

    def records(self) -> Iterator[Record]:
        """One record per diagnosed row of the metadata."""
        paths = list_images(self.root, FOLDERS, HINT)
        metadata = self._metadata()
        rows = read_table(metadata, COLUMNS, HINT)
        if not set(DIAGNOSES) & set(rows[0]):
            raise DataError(f"{metadata}: there is none of the columns {', '.join(DIAGNOSES)}. {HINT}")
        diagnosed = [(row, label) for row in rows if (label := _first(row, DIAGNOSES))]
        log.info("%s: %d of %d images have no diagnosis.", metadata, len(rows) - len(diagnosed), len(rows))
        for row, label in diagnosed:
            image, lesion = row.required("isic_id"), row.known("lesion_id")
            yield Record(
                id=image,
                images=(paths.get(image, str(self.root / FOLDERS[0] / f"{image}.jpg")),),
                label=label,
                group=row.known("patient_id") or lesion or image,
                links=(f"isic:{image}", *([f"isic-lesion:{lesion}"] if lesion else [])),
                site=_first(row, SITES),
                licence=row.known("copyright_license"),
                attribution=row.known("attribution"),
                where=row.where,
            )

    def _metadata(self) -> Path:
        """The metadata file of the latest export."""
        exports = sorted(self.root.glob(METADATA))
        if not exports:
            raise DataError(f"{self.root}: there is no {METADATA}. {HINT}")
        return exports[-1]


def _first(row: Row, columns: tuple[str, ...]) -> str:
    return next(filter(None, map(row.known, columns)), "")
