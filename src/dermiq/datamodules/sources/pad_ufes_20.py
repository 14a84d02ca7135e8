"""PAD-UFES-20: photographs of skin lesions taken with smartphones in Brazil, in their published layout.

    root/metadata.csv
    root/images/imgs_part_1/PAT_1516_1765_530.png ...
    root/images/imgs_part_2/ ..., root/images/imgs_part_3/ ...

Source: doi:10.17632/zr7vgbcyr2.1. Licence: CC BY 4.0. Citation: A. G. C. Pacheco et al., "PAD-UFES-20: A skin lesion
dataset composed of patient data and clinical images collected from smartphones", Data in Brief 32, 106221 (2020).
Labels of the 2,298 images of 1,641 lesions of 1,373 patients: BCC 845, ACK 730, NEV 244, SEK 235, SCC 192 (Bowen's
disease among them), MEL 52. 58.4 % are proven by biopsy, among them all cancers.

The skin type stands in a column spelt `fitspatrick`, as a number such as 3.0, or is blank. Unpacked archives
may hold each folder in one of the same name. The group is the patient.
"""

from __future__ import annotations

from collections.abc import Iterator

from dermiq.datamodules.sources.reading.csv_rows import Row, read_table
from dermiq.datamodules.sources.reading.photographs import Photographs, Record, list_images
from dermiq.schema import DataError, SkinType

METADATA = "metadata.csv"
PARTS = ("imgs_part_1", "imgs_part_2", "imgs_part_3")
FOLDERS = (*(f"images/{part}" for part in PARTS), *(f"images/{part}/{part}" for part in PARTS), "images", *PARTS)
COLUMNS = ("patient_id", "lesion_id", "fitspatrick", "region", "diagnostic", "img_id")
SKIN_TYPES = {"1": "I", "2": "II", "3": "III", "4": "IV", "5": "V", "6": "VI"}
HINT = "Give `root` the folder with PAD-UFES-20's metadata.csv and the folder images/ of its unpacked archives."


class PADUFES20(Photographs):
    """The photographs of PAD-UFES-20 with the diagnosis to name.

    Args:
        root: the folder that holds the metadata file and the folder ``images``.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "pad_ufes_20"

    def records(self) -> Iterator[Record]:
        """One record per row of the metadata."""
        paths = list_images(self.root, FOLDERS, HINT)
        for row in read_table(self.root / METADATA, COLUMNS, HINT):
            file = row.required("img_id")
            image = file.removesuffix(".png")
            yield Record(
                id=image,
                images=(paths.get(image, str(self.root / FOLDERS[0] / file)),),
                label=row["diagnostic"],
                group=row.required("patient_id"),
                links=(f"pad_ufes_20-lesion:{row.required('lesion_id')}",),
                skin_type=_skin_type(row),
                site=row.known("region"),
                where=row.where,
            )


def _skin_type(row: Row) -> SkinType | None:
    value = row.known("fitspatrick")
    if value in ("", "UNK"):
        return None
    if value.removesuffix(".0") not in SKIN_TYPES:
        raise DataError(f"{row.where}: the skin type {value!r} is not 1 to 6. Correct the row, or leave it blank.")
    return SkinType("fitzpatrick", SKIN_TYPES[value.removesuffix(".0")], "rated")
