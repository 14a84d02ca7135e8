"""Numbers in prose: ages, durations, rates, concentrations and doses, with the quantity that they are about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import inf
from typing import NamedTuple

from dermiq.kg.language.claims import Claim
from dermiq.kg.language.clauses import Frequency
from dermiq.kg.linking import Link
from dermiq.kg.quantities import UNITS, Range

_WORDS = {
    word: number
    for number, word in enumerate("one two three four five six seven eight nine ten eleven twelve".split(), start=1)
} | {"a": 1, "an": 1, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80}
_COUNTS = {"once": 1, "twice": 2, "thrice": 3}
_OVER = {
    ("more", "than"),
    ("at", "least"),
    ("older", "than"),
    ("longer", "than"),
    ("greater", "than"),
    ("larger", "than"),
}
_UNDER = {("less", "than"), ("fewer", "than"), ("at", "most"), ("up", "to"), ("younger", "than")}
_DAILY = (("a", "day"), ("daily",), ("per", "day"), ("each", "day"), ("every", "day"))
_AGE = frozenset(
    "age aged old older begins begin starts start onset appear appears affects affect occurs patients".split()
)
_LESION = frozenset("wheal wheals lesion lesions spot blister bruise each individual hive".split())
_ENDING = frozenset(
    "fade fades clear clears last lasts heal heals resolve resolves settle settles gone disappear disappears vanish "
    "vanishes better stay stays persist persists remain remains lasting".split()
)
_NEAR = 2  # words between a drug and its concentration
_MONTH = 30.0  # days; what is shorter is no age
_RARELY, _OFTEN = 5.0, 30.0  # per cent: at most and at least


class Number(NamedTuple):
    """A number with its unit: first and last word (exclusive), and the range in the canonical unit."""

    start: int
    end: int
    range: Range


def has_number(tokens: Sequence[str]) -> bool:
    """True if one of some words is a number."""
    return any(token[0].isdigit() or token in _COUNTS or token in _WORDS for token in tokens)


def numbers(tokens: Sequence[str]) -> Iterator[Number]:
    """The numbers with units among the words of a sentence."""
    position = 0
    while position < len(tokens):
        found = _number(tokens, position)
        if found:
            yield found
        position = found.end if found else position + 1


def _value(token: str) -> float | None:
    if re.fullmatch(r"\d+(?:[.,]\d+)?", token):
        return float(token.replace(",", "."))
    return _WORDS.get(token)


def _number(tokens: Sequence[str], start: int) -> Number | None:
    if tokens[start] in _COUNTS:
        end = _daily(tokens, start + 1)
        count = _COUNTS[tokens[start]]
        return Number(start, end, Range(count, count, "times daily")) if end else None
    low = _value(tokens[start])
    if low is None:
        return None
    high, end = low, start + 1
    if end < len(tokens) and tokens[end][0].isdigit() and (after := _value(tokens[end])):  # "7-10 days"
        high, end = max(low, after), end + 1
    elif end + 1 < len(tokens) and tokens[end] in ("to", "-", "–", "or", "and"):
        joined = tokens[end] != "and" or tokens[start - 1 : start] == ["between"]
        if joined and (second := _value(tokens[end + 1])) is not None:
            high, end = max(low, second), end + 2
    elif end + 1 < len(tokens) and tokens[end] in ("in", "of") and tokens[start] not in ("a", "an"):  # "1 in 1000"
        whole = _value(tokens[end + 1])
        if whole and whole > low:
            return _bounded(tokens, start, end + 2, 100 * low / whole, 100 * low / whole, "%")
    return _with_unit(tokens, start, end, low, high)


def _with_unit(tokens: Sequence[str], start: int, end: int, low: float, high: float) -> Number | None:
    if end < len(tokens) and tokens[end] in ("times", "x"):
        after = _daily(tokens, end + 1)
        return Number(start, after, Range(low, high, "times daily")) if after else None
    unit = tokens[end] if end < len(tokens) else ""
    if unit == "per" and tokens[end + 1 : end + 2] == ["cent"]:
        unit, end = "%", end + 1
    known = UNITS.get(unit) or UNITS.get(unit.removesuffix("s"))
    if known:
        return _bounded(tokens, start, end + 1, low * known[1], high * known[1], known[0])
    aged = start > 1 and tokens[start - 2 : start] == ["age", "of"]
    compared = start > 0 and tokens[start - 1] in ("over", "under", "above", "below", "aged")
    if (aged or compared) and tokens[start] not in ("a", "an"):
        return _bounded(tokens, start, end, low * UNITS["year"][1], high * UNITS["year"][1], "day")  # "over 70"
    return None


def _daily(tokens: Sequence[str], start: int) -> int:
    """The end of "a day" and the like from a word on; 0 without it."""
    for phrase in _DAILY:
        if tuple(tokens[start : start + len(phrase)]) == phrase:
            return start + len(phrase)
    return 0


def _bounded(tokens: Sequence[str], start: int, end: int, low: float, high: float, unit: str) -> Number:
    """The number with the comparison before it: "over 70 years", "fewer than 1 %"."""
    before = tuple(tokens[max(0, start - 2) : start])
    if before in _OVER or before[-1:] in (("over",), ("above",), ("after",)):
        return Number(start, end, Range(low, inf, unit))
    if before in _UNDER or before[-1:] in (("under",), ("below",), ("within",), ("before",)):
        return Number(start, end, Range(0.0, high, unit))
    return Number(start, end, Range(low, high, unit))


def with_numbers(
    tokens: Sequence[str], claims: list[Claim], subject: str, treatments: Sequence[Link], named: Sequence[str]
) -> list[Claim]:
    """The claims of a sentence, with those that its numbers make, and with the frequencies that percentages say.

    Args:
        tokens: its words.
        claims: what else it claims.
        subject: the condition that it is about.
        treatments: the treatments that it mentions.
        named: the quantities that it names.
    """
    found = list(numbers(tokens))
    claims = [
        claim._replace(frequency=claim.frequency or _share(claim, found)) if claim.relation == "course" else claim
        for claim in claims
    ]
    for number in found:
        about = ("", named[0]) if named else _quantity(tokens, number, treatments)
        if about is not None:
            drug, quantity = about
            claims.append(Claim(drug or subject, "quantity", quantity, True, words=number[:2], range=number.range))
    return claims


def _share(claim: Claim, found: Sequence[Number]) -> Frequency:
    """How often something is so by the last percentage before it."""
    before = [number.range for number in found if number.range.unit == "%" and number.end <= claim.words[0]]
    if not before:
        return ""
    return "rarely" if before[-1].high <= _RARELY else "often" if before[-1].low >= _OFTEN else ""


def _quantity(tokens: Sequence[str], number: Number, treatments: Sequence[Link]) -> tuple[str, str] | None:
    """The drug, or empty for the condition, and the quantity that a number is about; None if that is unclear."""
    said, unit = frozenset(tokens), number.range.unit
    if unit == "times daily":
        return (treatments[-1][2], "times_daily") if treatments else None
    if unit == "%":
        near = [one for one in treatments if 0 <= number.start - one[1] <= _NEAR or 0 <= one[0] - number.end <= 1]
        if near:
            return near[0][2], "concentration"
        return ("", "five_year_survival") if said & {"survival", "survive"} else None
    if unit == "mm":
        return "", "diameter"
    if "incubation" in said:
        return "", "incubation"
    if treatments and "for" in tokens[max(0, number.start - 2) : number.start]:
        return treatments[-1][2], "duration_of_treatment"
    if said & _AGE and not said & _ENDING and number.range.high >= _MONTH:
        return "", "age_at_onset"
    if said & _ENDING:
        return "", "duration_of_a_lesion" if said & _LESION else "duration_of_the_illness"
    return None
