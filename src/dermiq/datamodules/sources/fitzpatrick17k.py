"""Fitzpatrick17k: clinical photographs of two atlases with skin types, in their published layout.

    root/fitzpatrick17k.csv
    root/images/5e82a45bc5d78bd24ae9202d194423f8.jpg ...

The photographs are not part of the publication: they are fetched from the URLs of the table, or got from the authors
by a form (as ``finalfitz17k/``), and are named after `md5hash` or `url_alphanum`.

Source: https://github.com/mattgroh/fitzpatrick17k. Licence: CC BY-NC-SA 3.0; the photographs belong to the two atlases.
Citation: M. Groh et al., "Evaluating Deep Neural Networks Trained on Clinical Images in Dermatology with the
Fitzpatrick 17k Dataset", CVPR ISIC Workshop (2021). 16,577 rows of 114 labels, from psoriasis (653) to pilomatricoma,
pustular psoriasis and xanthomas (53 each); non-neoplastic 12,080, malignant 2,263, benign 2,234.

Flaws: no patients and no official split; near-duplicates of about a fifth of the photographs, and label errors of a
fifth or more (F. Groeger et al., arXiv:2505.11034: give the split tool their duplicate clusters). 504 rows were looked
at by a dermatologist (`qc`), who found 17 wrongly labelled. Names in the URLs show that many labels were matched by
spelling: `lichen simplex` holds 28 photographs of chickenpox, `lyme disease` 40 of erythrasma, `xanthomas` 18 of
anthrax. The two columns of skin types agree exactly on 47.9 % of the rows that have both; -1 means unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

from dermiq.datamodules.sources.base import MAX_PIXELS
from dermiq.datamodules.sources.reading.csv_rows import read_table
from dermiq.datamodules.sources.reading.photographs import Photographs, Record, list_images
from dermiq.datamodules.sources.reading.skin_types import fitzpatrick

METADATA = "fitzpatrick17k.csv"
FOLDERS = ("images", "finalfitz17k", ".")
COLUMNS = ("md5hash", "fitzpatrick_scale", "fitzpatrick_centaur", "label", "qc", "url_alphanum")
WRONG = "3 Wrongly labelled"
HINT = "Give `root` the folder with fitzpatrick17k.csv and the folder images/ with the photographs."


class Fitzpatrick17k(Photographs):
    """The photographs of Fitzpatrick17k with the diagnosis to name.

    Args:
        root: the folder that holds the metadata file and the folder ``images``.
        scale: the column of the skin type: rated by the crowd of Scale AI, or of Centaur Labs.
        wrongly_labelled: keep the rows that a dermatologist found wrongly labelled.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "fitzpatrick17k"

    def __init__(
        self,
        root: str,
        scale: Literal["fitzpatrick_scale", "fitzpatrick_centaur"] = "fitzpatrick_scale",
        wrongly_labelled: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(root, max_pixels)
        self.scale, self.wrongly_labelled = scale, wrongly_labelled
        self.left_out: frozenset[str] = frozenset()

    def records(self) -> Iterator[Record]:
        """One record per row of the metadata; `left_out` then holds the hashes of the rows left out."""
        paths = list_images(self.root, FOLDERS, HINT)
        rows = read_table(self.root / METADATA, COLUMNS, HINT)
        if not self.wrongly_labelled:
            self.left_out = frozenset(row["md5hash"] for row in rows if row["qc"] == WRONG)
            logging.getLogger(__name__).info("%s: left out %d rows with qc %r.", METADATA, len(self.left_out), WRONG)
        for row in rows:
            image = row.required("md5hash")
            if image in self.left_out:
                continue
            path = paths.get(image) or paths.get(row["url_alphanum"].removesuffix(".jpg"))
            yield Record(
                id=image,
                images=(path or str(self.root / FOLDERS[0] / f"{image}.jpg"),),
                label=row["label"],
                group=image,
                links=(f"fitzpatrick17k:{image}", f"md5:{image}"),
                skin_type=fitzpatrick(row, self.scale, "crowd"),
                where=row.where,
            )
