"""A small atlas of skin conditions: names, synonyms, findings, and how to find findings in free text.

The phantom draws from it, the HAM10000 source and the findings reward read it. It covers the seven
diagnostic groups of HAM10000 (two of them umbrella terms of that data set: "benign keratosis" and
"vascular lesion") and psoriasis. The numbers are the phantom's own: they keep the order of what is
typical in the sources below, but are flattened, so that no finding alone decides a diagnosis; they
are no frequencies observed in patients. `malignant` is True for invasive cancer only: actinic
keratosis is pre-malignant.

Sources: Kittler, Marghoob, Argenziano et al., "Standardization of terminology in dermoscopy", Journal
of the American Academy of Dermatology, 2016; Tschandl, Rosendahl and Kittler, "The HAM10000 dataset",
Scientific Data, 2018; Griffiths, Barker, Bleiker, Chalmers and Creamer (eds), "Rook's Textbook of
Dermatology", 9th edition, Wiley, 2016; DermNet, "Dermoscopy features" (dermnetnz.org), 2019.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dermiq.prompts import normalise
from dermiq.schema import DataError

ATTRIBUTES = ("site", "morphology", "colour", "border", "surface", "structure")
TYPICAL = 0.2


@dataclass(frozen=True)
class Condition:
    """One condition of the atlas.

    Attributes:
        name: the canonical concept, in lower case.
        synonyms: other names of it, in lower case; no name belongs to two conditions.
        malignant: True for invasive cancer.
        findings: attribute -> value -> probability given the condition; each attribute sums to 1.
    """

    name: str
    synonyms: tuple[str, ...]
    malignant: bool
    findings: Mapping[str, Mapping[str, float]]


_NEVUS = Condition(
    name="melanocytic nevus",
    synonyms=("nevus", "naevus", "mole", "melanocytic naevus", "nevi", "benign nevus", "benign mole"),
    malignant=False,
    findings={
        "site": {"trunk": 0.5, "limb": 0.25, "face": 0.15, "scalp": 0.05, "acral": 0.05},
        "morphology": {"macule": 0.45, "papule": 0.4, "plaque": 0.1, "nodule": 0.05},
        "colour": {"brown": 0.5, "tan": 0.25, "black": 0.15, "pink": 0.1},
        "border": {"regular": 0.75, "irregular": 0.15, "diffuse": 0.1},
        "surface": {"smooth": 0.85, "warty": 0.15},
        "structure": {"network": 0.4, "globules": 0.35, "structureless": 0.25},
    },
)
_MELANOMA = Condition(
    name="melanoma",
    synonyms=("malignant melanoma", "cutaneous melanoma", "melanoma of skin", "invasive melanoma"),
    malignant=True,
    findings={
        "site": {"trunk": 0.35, "limb": 0.3, "face": 0.15, "acral": 0.15, "scalp": 0.05},
        "morphology": {"plaque": 0.4, "macule": 0.3, "nodule": 0.2, "papule": 0.1},
        "colour": {"variegated": 0.4, "black": 0.3, "brown": 0.25, "pink": 0.05},
        "border": {"irregular": 0.6, "regular": 0.25, "diffuse": 0.15},
        "surface": {"smooth": 0.65, "ulcerated": 0.25, "crusted": 0.1},
        "structure": {"streaks": 0.35, "network": 0.25, "globules": 0.2, "structureless": 0.2},
    },
)
_BENIGN_KERATOSIS = Condition(
    name="benign keratosis",
    synonyms=(
        "seborrheic keratosis",
        "seborrhoeic keratosis",
        "seborrheic wart",
        "solar lentigo",
        "lichen planus like keratosis",
        "benign keratosis like lesion",
    ),
    malignant=False,
    findings={
        "site": {"trunk": 0.45, "face": 0.3, "limb": 0.15, "scalp": 0.1},
        "morphology": {"plaque": 0.45, "papule": 0.35, "macule": 0.2},
        "colour": {"brown": 0.45, "tan": 0.35, "black": 0.2},
        "border": {"regular": 0.7, "irregular": 0.2, "diffuse": 0.1},
        "surface": {"warty": 0.5, "smooth": 0.3, "scaly": 0.2},
        "structure": {"cysts": 0.45, "structureless": 0.3, "network": 0.25},
    },
)
_BASAL_CELL_CARCINOMA = Condition(
    name="basal cell carcinoma",
    synonyms=("bcc", "basal cell cancer", "basalioma", "basal cell epithelioma", "rodent ulcer"),
    malignant=True,
    findings={
        "site": {"face": 0.55, "trunk": 0.25, "scalp": 0.1, "limb": 0.1},
        "morphology": {"nodule": 0.4, "papule": 0.3, "plaque": 0.3},
        "colour": {"pink": 0.55, "red": 0.25, "tan": 0.1, "variegated": 0.1},
        "border": {"rolled": 0.45, "regular": 0.3, "diffuse": 0.25},
        "surface": {"smooth": 0.45, "ulcerated": 0.35, "crusted": 0.2},
        "structure": {"vessels": 0.5, "structureless": 0.35, "globules": 0.15},
    },
)
_ACTINIC_KERATOSIS = Condition(
    name="actinic keratosis",
    synonyms=("actinic keratoses", "solar keratosis", "senile keratosis"),
    malignant=False,
    findings={
        "site": {"face": 0.5, "scalp": 0.3, "limb": 0.2},
        "morphology": {"macule": 0.4, "papule": 0.3, "plaque": 0.3},
        "colour": {"pink": 0.45, "red": 0.35, "tan": 0.2},
        "border": {"diffuse": 0.55, "irregular": 0.25, "regular": 0.2},
        "surface": {"scaly": 0.5, "crusted": 0.25, "smooth": 0.25},
        "structure": {"rosettes": 0.4, "structureless": 0.4, "dots": 0.2},
    },
)
_VASCULAR_LESION = Condition(
    name="vascular lesion",
    synonyms=("angioma", "cherry angioma", "haemangioma", "hemangioma", "angiokeratoma", "pyogenic granuloma"),
    malignant=False,
    findings={
        "site": {"trunk": 0.45, "limb": 0.2, "face": 0.2, "scalp": 0.1, "acral": 0.05},
        "morphology": {"papule": 0.5, "nodule": 0.25, "macule": 0.25},
        "colour": {"red": 0.5, "purple": 0.4, "black": 0.1},
        "border": {"regular": 0.75, "irregular": 0.15, "diffuse": 0.1},
        "surface": {"smooth": 0.75, "crusted": 0.15, "warty": 0.1},
        "structure": {"lacunae": 0.5, "structureless": 0.35, "vessels": 0.15},
    },
)
_DERMATOFIBROMA = Condition(
    name="dermatofibroma",
    synonyms=("fibrous histiocytoma", "benign fibrous histiocytoma", "histiocytoma"),
    malignant=False,
    findings={
        "site": {"limb": 0.65, "trunk": 0.25, "acral": 0.05, "face": 0.05},
        "morphology": {"papule": 0.5, "nodule": 0.4, "plaque": 0.1},
        "colour": {"brown": 0.4, "tan": 0.3, "pink": 0.3},
        "border": {"diffuse": 0.5, "regular": 0.5},
        "surface": {"smooth": 0.85, "scaly": 0.15},
        "structure": {"scar": 0.45, "network": 0.3, "structureless": 0.25},
    },
)
_PSORIASIS = Condition(
    name="psoriasis",
    synonyms=("plaque psoriasis", "psoriasis vulgaris", "psoriatic plaque"),
    malignant=False,
    findings={
        "site": {"limb": 0.45, "scalp": 0.25, "trunk": 0.2, "acral": 0.1},
        "morphology": {"plaque": 0.7, "papule": 0.3},
        "colour": {"red": 0.55, "pink": 0.35, "purple": 0.1},
        "border": {"regular": 0.65, "irregular": 0.2, "diffuse": 0.15},
        "surface": {"scaly": 0.65, "smooth": 0.25, "crusted": 0.1},
        "structure": {"dots": 0.5, "structureless": 0.5},
    },
)

CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        condition.name: condition
        for condition in (
            _NEVUS,
            _MELANOMA,
            _BENIGN_KERATOSIS,
            _BASAL_CELL_CARCINOMA,
            _ACTINIC_KERATOSIS,
            _VASCULAR_LESION,
            _DERMATOFIBROMA,
            _PSORIASIS,
        )
    }
)


def _vocabulary() -> dict[str, tuple[str, ...]]:
    """Attribute -> every value that a condition of the atlas can show, in order of first mention."""
    return {
        attribute: tuple(
            dict.fromkeys(value for condition in CONDITIONS.values() for value in condition.findings[attribute])
        )
        for attribute in ATTRIBUTES
    }


VOCABULARY: Mapping[str, tuple[str, ...]] = MappingProxyType(_vocabulary())

_ATTRIBUTE_OF = {value: attribute for attribute, values in VOCABULARY.items() for value in values}
_CONCEPT_OF = {
    normalise(name): condition.name
    for condition in CONDITIONS.values()
    for name in (condition.name, *condition.synonyms)
}
# A negation reaches over at most one word, and never past the end of a sentence.
_FINDING = re.compile(
    r"\b(?P<negation>(?:no|not|without|absent)[^\w.;!?]+(?:\w+[^\w.;!?]+)?)?"
    r"(?P<value>" + "|".join(sorted(map(re.escape, _ATTRIBUTE_OF), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)


def concept_of(text: str) -> str | None:
    """The canonical concept that a name or a synonym means, whatever its case; None if unknown."""
    return _CONCEPT_OF.get(normalise(text))


def typical(concept: str) -> Mapping[str, tuple[str, ...]]:
    """Attribute -> the values typical of a concept (probability of at least 0.2), most typical first.

    Raises:
        DataError: if the atlas has no such concept.
    """
    if concept not in CONDITIONS:
        raise DataError(f"the atlas has no condition {concept!r}. Use one of: {', '.join(CONDITIONS)}.")
    return {
        attribute: tuple(
            value for value, share in sorted(values.items(), key=lambda item: -item[1]) if share >= TYPICAL
        )
        for attribute, values in CONDITIONS[concept].findings.items()
    }


def read_findings(text: str) -> Mapping[str, tuple[str, ...]]:
    """Attribute -> the findings that a text states, in the order in which it states them.

    Whole words only. A value is left out where *no*, *not*, *without* or *absent* stands in the same
    sentence within the two words before it.
    """
    found: dict[str, dict[str, None]] = {}
    for match in _FINDING.finditer(text):
        if match["negation"] is None:
            value = match["value"].lower()
            found.setdefault(_ATTRIBUTE_OF[value], {})[value] = None
    return {attribute: tuple(values) for attribute, values in found.items()}
