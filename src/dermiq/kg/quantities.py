"""Ranges of quantities: ages, durations, rates, sizes, concentrations and frequencies in canonical units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from dermiq.schema import KnowledgeError

_TOLERANCE = 2.0

_YEAR = 365.25
UNITS: dict[str, tuple[str, float]] = {
    "minute": ("day", 1 / 1440), "hour": ("day", 1 / 24), "day": ("day", 1.0), "week": ("day", 7.0),
    "month": ("day", 30.4), "year": ("day", _YEAR), "%": ("%", 1.0), "percent": ("%", 1.0),
    "mm": ("mm", 1.0), "cm": ("mm", 10.0), "times daily": ("times daily", 1.0),
}  # fmt: skip
_RANGE = re.compile(r"(over|under)?\s*([\d.]+)(?:\s*[-–]\s*([\d.]+))?\s*([a-z% ]+)")


class Range(NamedTuple):
    """A closed interval of a quantity in its canonical unit: ``day``, ``%``, ``mm`` or ``times daily``."""

    low: float
    high: float
    unit: str

    def overlaps(self, other: Range) -> bool:
        """True if the two share a value; ranges of different units share none."""
        return self.unit == other.unit and self.low <= other.high and other.low <= self.high


@lru_cache(maxsize=2**12)
def parse_range(text: str) -> Range:
    """The range of a fact of the relation ``quantity``, as its note gives it.

    >>> parse_range("7-10 days"), parse_range("under 1 %"), parse_range("over 6 mm")
    (Range(low=7.0, high=10.0, unit='day'), Range(low=0.0, high=1.0, unit='%'), Range(low=6.0, high=inf, unit='mm'))

    Raises:
        KnowledgeError: if it is no range, or its unit is unknown, naming those there are.
    """
    found = _RANGE.fullmatch(text.strip().lower())
    unit = found[4].strip() if found else ""
    known = UNITS.get(unit) or UNITS.get(unit.removesuffix("s"))
    if found is None or known is None:
        units = ", ".join(UNITS)
        raise KnowledgeError(f"{text!r} is no range. Write “7-10 days”, “over 6 mm” or “under 1 %” ({units}).")
    name, factor = known
    low, high = float(found[2]), float(found[3] or found[2])
    bounds = {"over": (low, inf), "under": (0.0, high)}
    low, high = bounds.get(found[1], (low, high))
    if low > high:
        raise KnowledgeError(f"{text!r} is no range: it ends before it begins.")
    return Range(low * factor, high * factor, name)


AGES: Mapping[str, Range] = MappingProxyType(
    {
        name: Range(low * _YEAR, high * _YEAR, "day")
        for name, low, high in (
            ("newborns", 0, 0.1),
            ("infants", 0, 2),
            ("children", 1, 12),
            ("adolescents", 12, 18),
            ("young_adults", 18, 40),
            ("middle_aged_adults", 40, 60),
            ("older_adults", 60, 120),
        )
    }
)
"""Age group -> its range."""


def far_apart(said: Range, held: Range) -> bool:
    """True if a range lies beyond twice, or below half of, another one of the same unit."""
    return said.unit == held.unit and (said.low > _TOLERANCE * held.high or _TOLERANCE * said.high < held.low)
