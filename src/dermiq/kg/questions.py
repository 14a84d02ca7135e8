"""Question types: the relations that answer a question, and the words that ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from types import MappingProxyType

from dermiq.kg.linking import Linker, words
from dermiq.schema import KnowledgeError

QUESTION_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "appearance": (
            "morphology", "secondary_morphology", "colour", "colour_on_dark_skin", "distribution", "site",
            "dermoscopy",
        ),
        "dermoscopy": ("dermoscopy", "dermoscopy_against"),
        "diagnosis": (
            "diagnosis", "category", "malignancy", "morphology", "secondary_morphology", "colour", "distribution",
            "site", "dermoscopy", "symptom",
        ),
        "symptoms": ("symptom", "absent_symptom"),
        "cause": ("agent", "cause", "risk_factor", "trigger", "category"),
        "contagion": ("contagious", "transmission", "agent"),
        "treatment": ("first_line", "second_line", "contraindicated"),
        "first treatment": ("first_line",),
        "test": ("test", "test_not_needed"),
        "urgency": ("urgency", "red_flag", "malignancy"),
        "warning signs": ("red_flag", "urgency"),
        "course": ("course", "progresses_to", "malignancy"),
        "differential": ("differential",),
        "malignancy": ("malignancy", "progresses_to", "category"),
        "patients": ("age_group", "risk_factor"),
    }
)  # fmt: skip

_ASKED_BY = {
    "appearance": "look like|looks like|appearance|appear|colour|shape|describe|what do you see|finding|lesion|where|"
    "site|part of the body|body part|morphology|dark skin|black skin|brown skin|skin of colour|distribution|located",
    "dermoscopy": "dermoscopic|dermoscopy|dermatoscope|dermatoscopic|under the dermatoscope",
    "diagnosis": "diagnosis|diagnose|what is this|what is it|which condition|what condition|which disease|what disease",
    "symptoms": "symptom|feel|itch|itchy|hurt|pain|painful",
    "cause": "cause|caused|why|come from|agent|trigger|reason|what brings|due to|set off|risk factor",
    "contagion": "contagious|catch|infectious|spread|pass|transmit|transmitted|give it to|passed on|swim|"
    "swimming|school|nursery|share|sharing|kiss|towel|pick it up",
    "treatment": "treat|treated|treatment|therapy|cure|medicine|drug|cream|manage|managed|management|get rid of|remedy|"
    "help against|avoid|contraindicated|remove|clear up|prescribe|put on|first aid|safe to use|instead of",
    "first treatment": "first line|first-line|first treatment|first choice|treated first|try first|initial treatment",
    "test": "test|tests|investigation|investigate|confirm|biopsy|work-up|workup|examination",
    "urgency": "urgent|urgency|emergency|how soon|see a doctor|hospital|worry|worried|serious|dangerous|wait",
    "warning signs": "warning sign|red flag|alarm sign|danger sign|look out for|watch out for|become melanoma|"
    "turned into melanoma|changed into cancer",
    "course": "prognosis|course|how long|go away|heal|outlook|get worse|last|progress|come back|turn into|become|"
    "spread to other organs|spread to the lymph nodes|spread inside|metastasise|scar|curable|for life",
    "differential": "differential|else could|mistaken|confused|distinguish|tell apart|differ|differentiate|mimic|"
    "resemble|alternatives|look-alikes|difference",
    "malignancy": "cancer|malignant|benign|cancerous|harmless|precancerous",
    "patients": "who gets|age|old|children|adults|at risk|who is affected|risk factor",
}
_LINKER = Linker((phrase, kind) for kind, phrases in _ASKED_BY.items() for phrase in phrases.split("|"))


@lru_cache(maxsize=2**10)
def question_types(question: str) -> tuple[str, ...]:
    """The types of a question, in the order in which its words ask for them; empty if none is recognised."""
    return tuple(dict.fromkeys(kind for _, _, kind in _LINKER.link(words(question))))


@cache
def relations_of(question_type: str | None) -> tuple[str, ...]:
    """The relations that answer a type of question; of None, those of every type.

    Raises:
        KnowledgeError: if there is no such type, naming those there are.
    """
    if question_type is None:
        return tuple(dict.fromkeys(name for names in QUESTION_TYPES.values() for name in names))
    if question_type not in QUESTION_TYPES:
        raise KnowledgeError(f"There is no question type {question_type!r}. Use one of: {', '.join(QUESTION_TYPES)}.")
    return QUESTION_TYPES[question_type]
