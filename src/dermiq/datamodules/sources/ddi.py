"""DDI, Diverse Dermatology Images: photographs of biopsied lesions on light, medium and dark skin.

    root/ddi_metadata.csv
    root/images/000001.png ...

The photographs may also lie beside the metadata file, as they are downloaded.

Source: https://ddi-dataset.github.io. Licence: Stanford University Dataset Research Use Agreement (non-commercial
research, no redistribution). Citation: R. Daneshjou et al., "Disparities in dermatology AI performance on a diverse,
curated clinical image set", Science Advances 8, eabq6147 (2022). 656 photographs of 570 patients with 78 diagnoses,
171 of them malignant; skin types I-II 208, III-IV 241, V-VI 207.

Diagnoses are proven by biopsy and written with hyphens. The skin type is that of a visit and of photographs, two types
at once (12, 34, 56). The metadata name no patients, and there is no split: it is a test set. Copies may lack
rows. The column `malignant`, in older copies `malignancy(malig=1)`, follows from the diagnosis and is not read.
"""

from __future__ import annotations

from collections.abc import Iterator

from dermiq.datamodules.sources.reading.csv_rows import read_table
from dermiq.datamodules.sources.reading.photographs import Photographs, Record, list_images
from dermiq.datamodules.sources.reading.skin_types import fitzpatrick

METADATA = "ddi_metadata.csv"
FOLDERS = ("images", ".")
COLUMNS = ("DDI_file", "skin_tone", "disease")
HINT = "Give `root` the folder with ddi_metadata.csv and the folder images/ with the photographs."


class DDI(Photographs):
    """The photographs of DDI with the diagnosis to name.

    Args:
        root: the folder that holds the metadata file and the photographs.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "ddi"
    left_out: frozenset[str] = frozenset()

    def records(self) -> Iterator[Record]:
        """One record per row of the metadata."""
        paths = list_images(self.root, FOLDERS, HINT)
        for row in read_table(self.root / METADATA, COLUMNS, HINT):
            file = row.required("DDI_file")
            image = file.removesuffix(".png")
            yield Record(
                id=image,
                images=(paths.get(image, str(self.root / FOLDERS[0] / file)),),
                label=row["disease"],
                group=image,
                links=(f"ddi:{file}",),
                skin_type=fitzpatrick(row, "skin_tone", "rated"),
                where=row.where,
            )
