"""Labels and skin types of users' own tables, mapped to the ontology."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from dermiq.datamodules.sources.reading.card import Meaning, meaning_of, terminology
from dermiq.datamodules.sources.reading.csv_rows import BLANKS
from dermiq.datamodules.sources.reading.skin_types import COARSE, FITZPATRICK
from dermiq.prompts import normalise
from dermiq.schema import SkinType

_FITZPATRICK = FITZPATRICK | COARSE
_NAMED = _FITZPATRICK | {name.lower(): name for name in _FITZPATRICK.values()}


def as_written(key: object) -> tuple[str, ...]:
    """The texts in a table that a key of a YAML file means, which may be a number, yes or no, or nothing.

    >>> as_written(1.0), as_written(True)
    (('1.0', '1'), ('true', 'True', 'TRUE'))
    """
    if isinstance(key, bool):
        return (str(key).lower(), str(key), str(key).upper())
    if isinstance(key, float) and key.is_integer():
        return (str(key), str(int(key)))
    return ("null",) if key is None else (str(key),)


def meaning_of_label(label: str, labels: Mapping[str, str | list[str]] | None = None) -> Meaning | None:
    """What a label means by a label map, or without one by the ontology; None if it is not known.

    Args:
        label: as the table has it.
        labels: label -> name of a condition, or several where it lumps them, the first being the one to answer. A
            single name that the ontology lacks is the answer as it stands.
    """
    if labels is not None and label not in labels:
        return None
    given = label if labels is None else labels[label]
    names = (given,) if isinstance(given, str) else tuple(given)
    meaning = _meaning_of(names)
    return Meaning(normalise(names[0]), ()) if meaning is None and labels is not None and len(names) == 1 else meaning


@cache
def _meaning_of(names: tuple[str, ...]) -> Meaning | None:
    """The joint meaning of several condition names; None if the ontology lacks one of them."""
    found = [terminology().concept(name) for name in names]
    concepts = tuple(concept for concept in found if concept is not None)
    if not concepts or len(concepts) < len(names):
        return None
    return meaning_of(concepts)


def condition_names() -> list[str]:
    """All names of all conditions in the ontology."""
    conditions = terminology().graph.conditions
    return [name for condition in conditions for name in condition.names]


def fitzpatrick(text: str, how: str) -> SkinType | None:
    """A skin type as 1 to 6, I to VI or, two at a time, I-II or 12; None where the text says that it is unknown.

    Raises:
        ValueError: if it is none of these.
    """
    value = text.strip().lower().removesuffix(".0")
    if value == "-1" or value in BLANKS:
        return None
    if value not in _NAMED:
        raise ValueError(f"the skin type {text!r} is none of {', '.join(_NAMED)}. Correct the row.")
    return SkinType("fitzpatrick", _NAMED[value], how)
