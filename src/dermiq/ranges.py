"""Validation of numeric options: an interval for each."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isnan

from dermiq.schema import DermIQError

# Larger numbers are typing errors: no machine has the memory or the time for them.
COUNT = "[1, 65536]"
TOKENS = "[1, 1000000]"
SECONDS = "(0, 1000000]"
SEED = "[0, 9223372036854775807]"


class RangeError(DermIQError, ValueError):
    """A numeric option outside its interval."""


def check_numbers(owner: object, **intervals: str) -> None:
    """Refuse attributes of an object that lie outside their intervals; None is no number.

    Args:
        owner: whose attributes they are, named by its class.
        intervals: attribute -> where it may lie, as in ``[0, 1)`` or ``(0, inf)``; infinity lies in none.

    Raises:
        RangeError: naming class, attribute and interval.
    """
    check_values(type(owner).__name__, {name: getattr(owner, name) for name in intervals}, intervals)


def check_values(owner: str, values: Mapping[str, float | None], intervals: Mapping[str, str]) -> None:
    """Refuse numbers that lie outside their intervals; None is no number.

    Raises:
        RangeError: see `check_numbers`.
    """
    for name, value in values.items():
        if value is not None and not _holds(intervals[name], value):
            raise RangeError(f"{owner}: {name} is {_in_words(intervals[name], value)}; got {value}.")


def _ends(interval: str) -> tuple[float, float]:
    """The lower and the upper end; whole numbers stay exact."""
    low, high = (int(end) if end.lstrip("-").isdigit() else float(end) for end in interval[1:-1].split(", "))
    return low, high


def _holds(interval: str, value: float) -> bool:
    low, high = _ends(interval)
    above = value > low if interval[0] == "(" else value >= low
    below = value < high if interval[-1] == ")" else value <= high
    return above and below


def _in_words(interval: str, value: float) -> str:
    low, high = _ends(interval)
    words = ["finite"] * (isnan(value) or value in (inf, -inf))
    words += [f"{'above' if interval[0] == '(' else 'at least'} {low}"] * (low > -inf)
    words += [f"{'below' if interval[-1] == ')' else 'at most'} {high}"] * (high < inf)
    return " and ".join(words)
