"""SCIN, the Skin Condition Image Network: photographs of their skin that people in the United States donated.

    root/dataset/scin_cases.csv, root/dataset/scin_labels.csv (or both in root)
    root/dataset/images/-3205742176803893704.png ...

Source: https://github.com/google-research-datasets/scin, doi:10.5281/zenodo.10819503. Licence: SCIN Data Use License
(attribution; no attempt to re-identify anybody). Citation: A. Ward et al., "Crowdsourcing Dermatology Images with
Google Search Ads: Creating a Real-World Skin Condition Dataset", arXiv:2402.18545 (2024). 5,033 cases with 10,407
photographs, one to three each; about three in five cases have a label, most often eczema (488 cases), allergic contact
dermatitis (270), urticaria (214) and insect bites (185).

Up to three dermatologists named up to three conditions each; their weighted opinions are the differential, and its
heaviest is the target (of equal ones the first). They saw nothing but the photographs and answers of the donor: no
diagnosis is proven. The two tables are joined on `case_id`, a signed integer that spreadsheets spoil. Yes is ``YES``
and no a blank. 48 cases that could be graded have no label; 15 photographs stand there 42 times in all, which ties
cases that share a file; one file is missing from the publication. Skin types are the donor's own (half of the cases),
a dermatologist's, or of the Monk scale by lay raters of two countries.
"""

from __future__ import annotations

import ast
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median_low
from typing import Literal

from dermiq.datamodules.sources.base import MAX_PIXELS
from dermiq.datamodules.sources.reading.csv_rows import Row, read_table
from dermiq.datamodules.sources.reading.photographs import Photographs, Record
from dermiq.datamodules.sources.reading.skin_types import FITZPATRICK, fitzpatrick
from dermiq.schema import DataError, SkinType

CASES, LABELS = "scin_cases.csv", "scin_labels.csv"
IMAGES = ("image_1_path", "image_2_path", "image_3_path")
WEIGHTS = "weighted_skin_condition_label"
GRADABLE = tuple(f"dermatologist_gradable_for_skin_condition_{number}" for number in (1, 2, 3))
RATED = tuple(f"dermatologist_fitzpatrick_skin_type_label_{number}" for number in (1, 2, 3))
SITE = "body_parts_"
NO_CONDITION = "Remove from labeling tool"
HINT = "Give `root` the folder into which the bucket dx-scin-public-data was downloaded."

SkinTypeOf = Literal["donor", "dermatologist", "monk_us", "monk_india"]


class SCIN(Photographs):
    """The cases of SCIN with the diagnosis to name.

    Args:
        root: the folder that holds ``dataset/images``.
        skin_type: whose: the donor's own, the (median) dermatologist's, or the Monk tone by raters of one country.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "scin"

    def __init__(self, root: str, skin_type: SkinTypeOf = "dermatologist", max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(root, max_pixels)
        self.skin_type = skin_type

    def records(self) -> Iterator[Record]:
        """One record per labelled case."""
        cases: dict[str, Row] = {}
        for row in read_table(self._table(CASES), ("case_id", *IMAGES, "fitzpatrick_skin_type"), HINT):
            if cases.setdefault(_case(row), row) is not row:
                raise DataError(f"{row.where}: the case {row['case_id']} stands there twice. Remove one of the rows.")
        weighted, bare = [], []
        for row in read_table(self._table(LABELS), ("case_id", WEIGHTS, *RATED), HINT):
            if weights := _weights(row):
                weighted.append((row, weights))
            else:
                bare.append(row)
        gradable = sum(any(row.known(column).startswith("DEFAULT_YES") for column in GRADABLE) for row in bare)
        logging.getLogger(__name__).info(
            "%s: left out %d cases without a condition; %d of them could be graded.", LABELS, len(bare), gradable
        )
        self._check(weighted)
        for row, weights in weighted:
            if _case(row) not in cases:
                raise DataError(f"{row.where}: {CASES} has no case {row['case_id']}. Download both tables again.")
            yield self._record(cases[_case(row)], row, weights)

    def _record(self, case: Row, row: Row, weights: dict[str, float]) -> Record:
        paths = [case.required(IMAGES[0]), *filter(None, map(case.known, IMAGES[1:]))]
        differential: dict[str, float] = {}
        for condition, weight in weights.items():
            name = self.card.meaning(condition, row.where).target
            differential[name] = differential.get(name, 0.0) + weight
        return Record(
            id=row["case_id"],
            images=tuple(str(self.root / path) for path in paths),
            label=max(weights, key=weights.__getitem__),
            group=row["case_id"],
            links=tuple(f"scin:{Path(path).stem}" for path in paths),
            differential=differential,
            skin_type=self._skin_type(case, row),
            site=", ".join(_words(column) for column in case if column.startswith(SITE) and case[column] == "YES"),
            where=row.where,
        )

    def _table(self, name: str) -> Path:
        return next(
            (path for path in (self.root / name, self.root / "dataset" / name) if path.is_file()), self.root / name
        )

    def _check(self, weighted: list[tuple[Row, dict[str, float]]]) -> None:
        """Name all unknown conditions at once: they are free text.

        Raises:
            DataError: if the card does not know one.
        """
        unknown: dict[str, str] = {}
        for row, weights in weighted:
            for condition in weights.keys() - self.card.labels.keys():
                unknown.setdefault(condition, row.where)
        if unknown:
            raise DataError(
                f"{self.card.title} has {len(unknown)} condition(s) that its card does not know: "
                + "; ".join(f"{condition!r} ({where})" for condition, where in sorted(unknown.items()))
                + ". Correct the rows, or add the conditions to cards/scin.yaml."
            )

    def _skin_type(self, case: Row, row: Row) -> SkinType | None:
        if self.skin_type == "donor":
            return fitzpatrick(case, "fitzpatrick_skin_type", "self-reported")
        if self.skin_type == "dermatologist":
            rated = [found.value for column in RATED if (found := fitzpatrick(row, column, "rated"))]
            order = list(FITZPATRICK.values())
            return SkinType("fitzpatrick", order[median_low(map(order.index, rated))], "rated") if rated else None
        tone = row.known(self.skin_type.replace("monk", "monk_skin_tone_label")).removesuffix(".0")
        if tone and tone not in map(str, range(1, 11)):
            raise DataError(f"{row.where}: the Monk skin tone {tone!r} is none of 1 to 10. Correct the row.")
        return SkinType("monk", tone, "crowd") if tone else None


def _case(row: Row) -> str:
    """Its number, as the table writes it."""
    if not re.fullmatch(r"-?\d+", row["case_id"]):
        raise DataError(
            f"{row.where}: the case_id {row['case_id']!r} is no whole number. Download the table again: a spreadsheet "
            "may have rounded it."
        )
    return row["case_id"]


def _weights(row: Row) -> dict[str, float]:
    """Condition -> weight, adding up to 1; empty if the case has no label."""
    text = row.known(WEIGHTS)
    try:
        read = ast.literal_eval(text) if text else {}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        read = None
    if not isinstance(read, dict) or not all(_weighted(*item) for item in read.items()):
        raise DataError(
            f"{row.where}: {WEIGHTS!r} is {text[:80]!r} in place of conditions and weights such as {{'Eczema': 0.7}}. "
            "Correct or remove the row."
        )
    weights = {name.strip(): float(weight) for name, weight in read.items() if name != NO_CONDITION}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _weighted(name: object, weight: object) -> bool:
    number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight) and weight > 0
    return isinstance(name, str) and bool(name.strip()) and number


def _words(column: str) -> str:
    """``body_parts_back_of_hand`` -> ``back of hand``."""
    return column.removeprefix(SITE).replace("_", " ")
