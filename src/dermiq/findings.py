"""Findings of a lesion: attributes and their values, and the extraction of findings from free text.

The phantom renders these values; rewards and metrics extract them. They are words of clinical and dermoscopic
description; the ontology knows which of them go with which condition (see `dermiq.kg.appearance`). ``structure`` is the
dermoscopic structure.

Sources of the words: Kittler, Marghoob, Argenziano et al., "Standardization of terminology in dermoscopy", Journal of
the American Academy of Dermatology, 2016; Griffiths, Barker, Bleiker, Chalmers and Creamer (eds), "Rook's Textbook of
Dermatology", 9th edition, Wiley, 2016.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

VOCABULARY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "site": ("trunk", "limb", "face", "scalp", "acral"),
        "distribution": ("solitary", "grouped", "scattered", "annular"),
        "morphology": ("macule", "patch", "papule", "plaque", "nodule", "vesicle"),
        "colour": ("brown", "tan", "black", "variegated", "pink", "red", "purple", "white", "pearly", "skin-coloured"),
        "border": ("regular", "irregular", "diffuse", "rolled"),
        "surface": ("smooth", "shiny", "scaly", "warty", "crusted", "ulcerated", "umbilicated"),
        "structure": (
            "structureless",
            "network",
            "globules",
            "streaks",
            "cysts",
            "scar",
            "lacunae",
            "vessels",
            "dots",
            "strawberry",
            "rosettes",
            "striae",
            "keratin",
            "lobules",
            "thrombi",
        ),
    }
)
ATTRIBUTES = tuple(VOCABULARY)
ATTRIBUTE_OF: Mapping[str, str] = MappingProxyType(
    {value: attribute for attribute, values in VOCABULARY.items() for value in values}
)
# A negation reaches over at most one word, and never past the end of a sentence.
_FINDING = re.compile(
    r"\b(?P<negation>(?:no|not|without|absent)[^\w.;!?]+(?:\w+[^\w.;!?]+)?)?"
    r"(?P<value>" + "|".join(sorted(map(re.escape, ATTRIBUTE_OF), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)


def read_findings(text: str) -> Mapping[str, tuple[str, ...]]:
    """Findings that a text states, by attribute, in the order of the text.

    Whole words only. A value is negated, and left out, if *no*, *not*, *without* or *absent* is one of the two words
    before it in the same sentence.
    """
    found: dict[str, dict[str, None]] = {}
    for match in _FINDING.finditer(text):
        if match["negation"] is None:
            value = match["value"].lower()
            found.setdefault(ATTRIBUTE_OF[value], {})[value] = None
    return {attribute: tuple(values) for attribute, values in found.items()}


def stated_truly(text: str, findings: Mapping[str, tuple[str, ...]]) -> tuple[int, int]:
    """Numbers of attributes that a text states correctly, and that it states at all, among the known ones.

    An attribute is correct if every value stated for it is true, so that naming all values earns nothing.

    Args:
        text: free text.
        findings: attribute -> the true values; other attributes do not count.

    Returns:
        The number stated correctly, and the number stated.
    """
    stated = read_findings(text)
    judged = [attribute for attribute in stated if attribute in findings]
    return sum(set(stated[attribute]) <= set(findings[attribute]) for attribute in judged), len(judged)
