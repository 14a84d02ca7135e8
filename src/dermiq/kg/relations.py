"""The schema of the knowledge graph: kinds of concepts, relations between them, strengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CONDITION = "condition"
TREATMENT_KIND = "treatment"
STRENGTHS = ("always", "typical", "possible", "rare", "never")
REVIEW_STATUS = "not reviewed by a clinician"

KINDS: Mapping[str, str] = MappingProxyType(
    {
        CONDITION: "a disease, a lesion or a reaction of the skin",
        "category": "what sort of disease a condition is",
        "malignancy": "benign, pre-malignant or malignant",
        "lesion": "primary morphology: the basic lesion",
        "surface": "secondary morphology: what has become of the lesion's surface, border or substance",
        "colour": "a colour of the lesion",
        "distribution": "how lesions are arranged or spread",
        "site": "a part of the body",
        "symptom": "what the patient feels",
        "dermoscopy": "a structure seen through the dermatoscope",
        "agent": "an organism that causes disease",
        "factor": "a cause, a risk factor, a trigger, or a state of the patient",
        "test": "an investigation",
        "treatment": "a treatment",
        "urgency": "how soon care is needed",
        "red_flag": "a sign that makes the case urgent",
        "contagion": "whether it passes from person to person",
        "transmission": "a way in which it passes on",
        "age": "an age group",
        "course": "how it goes on with time",
        "quantity": "an age, a duration, a rate, a size or a dose",
    }
)


@dataclass(frozen=True)
class Relation:
    """A relation between a condition, or a treatment, and a value.

    Attributes:
        name: as in the ontology, in snake case.
        range: the kind of its values.
        phrase: the words between condition and value in a sentence ("is found on").
        negative: the same, denied.
        functional: a condition has one value, and values exclude each other.
        inherits: a fact about a value holds for its descendants too (site, treatment, test).
        domain: kinds of concepts that it is stated of.
    """

    name: str
    range: str
    phrase: str
    negative: str
    functional: bool = False
    inherits: bool = False
    domain: tuple[str, ...] = (CONDITION,)


_RELATIONS = (
    Relation("subtype_of", CONDITION, "is a form of", "is not a form of"),
    Relation("category", "category", "is a kind of", "is not a kind of"),
    Relation("malignancy", "malignancy", "is", "is not", functional=True),
    Relation("morphology", "lesion", "shows", "does not show"),
    Relation("secondary_morphology", "surface", "shows", "does not show"),
    Relation("colour", "colour", "is coloured", "is not coloured", inherits=True),
    Relation("colour_on_dark_skin", "colour", "looks, on dark skin,", "does not look, on dark skin,", inherits=True),
    Relation("distribution", "distribution", "is distributed", "is not distributed"),
    Relation("site", "site", "is found on", "spares", inherits=True),
    Relation("symptom", "symptom", "causes", "does not cause"),
    Relation("absent_symptom", "symptom", "typically lacks", "does not lack"),
    Relation("dermoscopy", "dermoscopy", "shows, under dermoscopy,", "does not show, under dermoscopy,"),
    Relation("dermoscopy_against", "dermoscopy", "is made unlikely by", "is not made unlikely by"),
    Relation("agent", "agent", "is caused by", "is not caused by"),
    Relation("cause", "factor", "is due to", "is not due to"),
    Relation("risk_factor", "factor", "is made more likely by", "is not made more likely by"),
    Relation("trigger", "factor", "is set off by", "is not set off by"),
    Relation("relieved_by", "factor", "is relieved by", "is not relieved by"),
    Relation("differential", CONDITION, "can be mistaken for", "is not mistaken for"),
    Relation("progresses_to", CONDITION, "can turn into", "does not turn into"),
    Relation("test", "test", "is investigated with", "is not investigated with", inherits=True),
    Relation("test_not_needed", "test", "usually does not need", "needs", inherits=True),
    Relation("first_line", "treatment", "is first treated with", "is not treated with", inherits=True),
    Relation("second_line", "treatment", "is next treated with", "is not treated with", inherits=True),
    Relation("contraindicated", "treatment", "must not be treated with", "may be treated with", inherits=True),
    Relation("insufficient_alone", "treatment", "is not cured by", "is cured by", inherits=True),
    Relation("urgency", "urgency", "calls for", "does not call for", functional=True),
    Relation("red_flag", "red_flag", "is alarming with", "is not alarming with"),
    Relation("contagious", "contagion", "is", "is not", functional=True),
    Relation("transmission", "transmission", "is passed on by", "is not passed on by"),
    Relation("age_group", "age", "is seen in", "is not seen in"),
    Relation("course", "course", "is", "is not"),
    Relation("quantity", "quantity", "has", "does not have", domain=(CONDITION, TREATMENT_KIND)),
    Relation("contraindicated_in", "factor", "must not be used in", "may be used in", domain=(TREATMENT_KIND,)),
)
RELATIONS: Mapping[str, Relation] = MappingProxyType({relation.name: relation for relation in _RELATIONS})
