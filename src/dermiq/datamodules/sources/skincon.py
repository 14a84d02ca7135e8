"""SkinCon: 48 clinical findings of photographs of Fitzpatrick17k and DDI.

    annotations_fitzpatrick17k.csv or annotations_ddi.csv, and the folder of the data set that it annotates

Source: https://skincon-dataset.github.io. Licence: none is stated for the annotations; the photographs keep theirs.
Citation: R. Daneshjou et al., "SkinCon: A skin disease dataset densely annotated by domain experts for fine-grained
model debugging and analysis", NeurIPS Datasets and Benchmarks (2022). 3,690 photographs of Fitzpatrick17k and 656 of
DDI, of which 3,230 and 636 can be used; the others are marked `Do not consider this image`. 22 of the findings are
there in at least 50 photographs. Header names may end in spaces.

Of the 48 columns, those are read that mean the same in `dermiq.findings`, erythema as red; the vocabulary has no word
for the others (pustule, erosion, atrophy, yellow...), and means by `scar` and `vessels` what a dermatoscope shows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from dermiq.datamodules.sources.ddi import DDI
from dermiq.datamodules.sources.fitzpatrick17k import Fitzpatrick17k
from dermiq.datamodules.sources.reading.card import DataCard
from dermiq.datamodules.sources.reading.csv_rows import Row, read_table
from dermiq.datamodules.sources.reading.photographs import Photographs, Record
from dermiq.schema import DataError

FLAG = "Do not consider this image"
FINDINGS = MappingProxyType(
    {
        "Macule": ("morphology", "macule"),
        "Patch": ("morphology", "patch"),
        "Papule": ("morphology", "papule"),
        "Plaque": ("morphology", "plaque"),
        "Nodule": ("morphology", "nodule"),
        "Vesicle": ("morphology", "vesicle"),
        "Scale": ("surface", "scaly"),
        "Crust": ("surface", "crusted"),
        "Ulcer": ("surface", "ulcerated"),
        "Warty/Papillomatous": ("surface", "warty"),
        "Umbilicated": ("surface", "umbilicated"),
        "Erythema": ("colour", "red"),
        "Brown(Hyperpigmentation)": ("colour", "brown"),
        "White(Hypopigmentation)": ("colour", "white"),
        "Purple": ("colour", "purple"),
        "Black": ("colour", "black"),
    }
)
HINT = "Give `annotations` SkinCon's table for the data set in `base`."


class SkinCon(Photographs):
    """Annotated photographs of another data set, with the diagnosis to name and the findings as truth.

    Args:
        annotations: SkinCon's table.
        base: the data set that it annotates.
    """

    card_name = "skincon"

    def __init__(self, annotations: str, base: Fitzpatrick17k | DDI) -> None:
        super().__init__(str(base.root), base.max_pixels)
        self.annotations, self.base = Path(annotations), base

    @cached_property
    def card(self) -> DataCard:
        """Its card, with the labels of the data set that it annotates."""
        return super().card.with_labels_of(self.base.card)

    def records(self) -> Iterator[Record]:
        """One record per row of the annotations, but for those flagged, and those that `base` leaves out."""
        photographs = {record.id: record for record in self.base.records()}
        base, flagged, left_out = self.base.card, 0, 0
        for row in read_table(self.annotations, ("ImageID", FLAG, *FINDINGS), HINT):
            image = row.required("ImageID").rsplit(".", 1)[0]
            if _positive(row, FLAG):
                flagged += 1
            elif image in self.base.left_out:
                left_out += 1
            elif image not in photographs:
                raise DataError(f"{row.where}: {base.title} has no photograph {row['ImageID']!r}. {HINT}")
            else:
                yield replace(
                    photographs[image],
                    id=f"skincon-{image}",
                    findings=_findings(row),
                    licence=base.licence,
                    attribution=f"{base.attribution}; {self.card.attribution}",
                    where=row.where,
                )
        logging.getLogger(__name__).info(
            "%s: left out %d photographs with %r, and %d that %s leaves out.",
            *(self.annotations.name, flagged, FLAG, left_out, base.title),
        )


def _findings(row: Row) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for column, (attribute, value) in FINDINGS.items():
        if _positive(row, column):
            found[attribute] = (*found.get(attribute, ()), value)
    return found


def _positive(row: Row, column: str) -> bool:
    value = row.known(column).removesuffix(".0")
    if value not in ("", "0", "1"):
        raise DataError(f"{row.where}: {column!r} is {row[column]!r} in place of 0 or 1. Correct or remove the row.")
    return value == "1"
