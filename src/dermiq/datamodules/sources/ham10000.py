"""HAM10000: dermatoscopic photographs of pigmented skin lesions, in their published layout.

    root/HAM10000_metadata.csv
    root/HAM10000_images_part_1/ISIC_0027419.jpg ...
    root/HAM10000_images_part_2/ISIC_0031630.jpg ...

Source: doi:10.7910/DVN/DBW86T. Licence: CC BY-NC 4.0. Citation: P. Tschandl, C. Rosendahl, H. Kittler, "The
HAM10000 dataset, a large collection of multi-source dermatoscopic images of common pigmented skin lesions",
Scientific Data 5, 180161 (2018). Labels of the 10,015 images of 7,470 lesions: nv 6,705, mel 1,113, bkl 1,099,
bcc 514, akiec 327, vasc 142, df 115.

Photographs of one lesion share its `lesion_id`, which is the group; there are no patients, no skin types and no
official split. Some lesions stand there under two ids. Re-uploads may hold rows of other labels, which are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from dermiq.datamodules.sources.reading.csv_rows import read_table
from dermiq.datamodules.sources.reading.photographs import Photographs, Record, list_images

METADATA = "HAM10000_metadata.csv"
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
COLUMNS = ("lesion_id", "image_id", "dx", "localization")
HINT = "Give `root` the folder with HAM10000's metadata file and the two folders of its unpacked archives."


class HAM10000(Photographs):
    """The photographs of HAM10000 with the diagnosis to name.

    Args:
        root: the folder that holds the metadata file and the two image folders.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "ham10000"

    def records(self) -> Iterator[Record]:
        """One record per row of the metadata."""
        paths = list_images(self.root, FOLDERS, HINT)
        for row in read_table(self.root / METADATA, COLUMNS, HINT):
            image, lesion = row.required("image_id"), row.required("lesion_id")
            yield Record(
                id=image,
                images=(paths.get(image, str(self.root / FOLDERS[0] / f"{image}.jpg")),),
                label=row["dx"],
                group=lesion,
                links=(f"isic:{image}", f"isic-lesion:{lesion}"),
                site=row.known("localization"),
                where=row.where,
            )
