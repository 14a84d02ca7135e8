"""derm7pt: dermoscopic and clinical photographs of the same lesions with the seven-point checklist.

    root/meta/meta.csv
    root/meta/train_indexes.csv, valid_indexes.csv, test_indexes.csv
    root/images/NEL/NEL025.JPG, NEL/Nel026.jpg ...

Source: http://derm.cs.sfu.ca. Licence: research use, the images may not be redistributed. Citation: J. Kawahara,
S. Daneshvar, G. Argenziano, G. Hamarneh, "Seven-point checklist and skin lesion classification using multitask
multimodal neural nets", IEEE Journal of Biomedical and Health Informatics 23(2), 538-546 (2019). Labels of the 1,011
cases: clark nevus 399, melanoma 252 (under six names, by stage), reed or spitz nevus 79, seborrheic keratosis 45, basal
cell carcinoma 42, dermal nevus 33, vascular lesion 29, blue nevus 28, lentigo 24, dermatofibroma 20, congenital nevus
17, melanosis 16, combined nevus 13, miscellaneous 8, recurrent nevus 6.

The official split (413, 203 and 395 cases) is given by positions of rows, from 0, which are the ids here. Paths differ
from the files' in upper and lower case. There are no patients: cases that share a photograph are tied, and nine have
the same photograph as clinical and dermoscopic one. The same answers to the checklist often stand beside different
diagnoses (16.4 % of all sets of answers, 30.3 % of the images; Consistent-Derm7pt). Cases labelled
`miscellaneous` have no diagnosis and are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from dermiq.datamodules.sources.base import MAX_PIXELS
from dermiq.datamodules.sources.reading.card import terminology
from dermiq.datamodules.sources.reading.csv_rows import Row, read_table
from dermiq.datamodules.sources.reading.photographs import Photographs, Record
from dermiq.schema import DataError

UNDIAGNOSED = "miscellaneous"
SEEN = {"pigment_network": "network", "streaks": "streaks", "vascular_structures": "vessels"}
VAGUE = ("dots_and_globules", "regression_structures", "pigmentation")  # no single word of `dermiq.findings` says these
COLUMNS = ("diagnosis", *SEEN, *VAGUE, "location", "clinic", "derm")
HINT = "Give `root` the folder release_v0 with the folders meta/ and images/."

log = logging.getLogger(__name__)


class Derm7pt(Photographs):
    """The cases of derm7pt with the diagnosis to name.

    Args:
        root: the folder ``release_v0``, which holds ``meta`` and ``images``.
        views: which photographs of a case to show, in that order.
        part: of the official split; None takes all cases.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "derm7pt"

    def __init__(
        self,
        root: str,
        views: Sequence[Literal["derm", "clinic"]] = ("derm",),
        part: Literal["train", "valid", "test"] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(root, max_pixels)
        if not views:
            raise DataError("`views` of derm7pt is empty: name derm, clinic or both.")
        self.views, self.part = tuple(views), part

    def records(self) -> Iterator[Record]:
        """One record per diagnosed case of the part."""
        rows = read_table(self.root / "meta" / "meta.csv", COLUMNS, HINT)
        positions = list(self._positions(len(rows)))
        diagnosed = [position for position in positions if rows[position]["diagnosis"] != UNDIAGNOSED]
        log.info("%s: %d of %d cases have no diagnosis.", self.root, len(positions) - len(diagnosed), len(positions))
        folder = self.root / "images"
        files = {path.relative_to(folder).as_posix(): str(path) for path in sorted(folder.rglob("*"))}
        folded = {name.lower(): path for name, path in files.items()}
        for position in diagnosed:
            row = rows[position]
            names = [row.required(view) for view in self.views]
            paths = [files.get(name) or folded.get(name.lower()) or str(folder / name) for name in names]
            yield Record(
                id=str(position),
                images=tuple(dict.fromkeys(paths)),
                label=row["diagnosis"],
                group=str(position),
                links=tuple(f"derm7pt:{name}" for name in dict.fromkeys((row["derm"].lower(), row["clinic"].lower()))),
                site=row.known("location"),
                findings=self._findings(row) if "derm" in self.views else {},
                where=row.where,
            )

    def _positions(self, count: int) -> Iterable[int]:
        """Positions of the part's rows in the metadata.

        Raises:
            DataError: if one is no number or no row.
        """
        if self.part is None:
            return range(count)
        rows = read_table(self.root / "meta" / f"{self.part}_indexes.csv", ("indexes",), HINT)
        for row in rows:
            if not row["indexes"].isdecimal() or int(row["indexes"]) >= count:
                raise DataError(
                    f"{row.where}: {row['indexes']!r} is the position of no row; meta.csv has rows 0 to {count - 1}."
                )
        return [int(row["indexes"]) for row in rows]

    def _findings(self, row: Row) -> Mapping[str, tuple[str, ...]]:
        """The structures of a melanocytic lesion, where the checklist says all of them in the words of the project.

        Of other lesions it leaves out what marks them (cysts, lacunae). Dots and globules are not distinguished, and
        regression and pigmentation have no exact word, so that a case with one of these is not wholly known.
        """
        concepts = self.card.meaning(row["diagnosis"], row.where).concepts
        melanocytic = any("melanocytic_tumour" in terminology().lineage(concept) for concept in concepts)
        seen = tuple(word for column, word in SEEN.items() if row[column] not in ("absent", ""))
        if melanocytic and seen and all(row[column] == "absent" for column in VAGUE):
            return {"structure": seen}
        return {}
