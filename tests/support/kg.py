"""Small knowledge graph made by hand, for tests that recompute what the scorer does.

Its facts are chosen for the cases that they make, and are no medicine. Six conditions:

* tinea, and tinea corporis, a form of it that takes its agents from there;
* psoriasis, benign, of which nothing is malignant, closed in colour and silent on ways of transmission;
* melanoma, malignant and urgent; melanocytic nevus, benign, which may turn into it;
* scabies, of which agents and ways of transmission are closed.
"""

from __future__ import annotations

from pathlib import Path

from dermiq.kg import Citation, Concept, Fact, KGScore, KGScorer, KnowledgeGraph
from dermiq.kg.__main__ import main
from dermiq.kg.graph import identifier
from dermiq.kg.language.claims import Claim
from dermiq.kg.ontology.writing import to_rdf_xml
from dermiq.programs.exits import exit_codes

WORK = "handbook"
DIAGNOSIS, TREATMENT = "diagnosis", "treatment"  # relations of claims that are none of the graph's

# kind -> "label / synonym / ... < broader" for each concept
_CONCEPTS = {
    "condition": (
        "tinea / ringworm infection",
        "tinea corporis / body ringworm < tinea",
        "psoriasis / psoriasis vulgaris",
        "melanoma / malignant melanoma",
        "melanocytic nevus / naevus / mole",
        "scabies",
    ),
    "category": (
        "infection", "fungal infection < infection", "benign tumour", "melanocytic tumour", "inflammatory disease",
    ),
    "malignancy": ("benign / harmless", "pre-malignant / premalignant", "malignant / cancer"),
    "contagion": ("contagious", "non-contagious"),
    "urgency": ("self-care", "routine / routine appointment", "urgent / urgent referral", "emergency / emergency care"),
    "lesion": ("plaque", "papule", "burrow", "vesicle", "macule"),
    "surface": ("scale", "silvery scale < scale", "crust"),
    "colour": ("red", "silver", "brown", "blue", "dark brown < brown"),
    "site": ("arm", "elbow < arm", "wrist < arm", "hand", "finger web < hand", "scalp", "face"),
    "symptom": ("itch / itching", "night itch < itch", "fever", "pain", "numbness"),
    "dermoscopy": ("pigment network", "atypical pigment network < pigment network", "delta-wing sign"),
    "agent": ("fungus", "dermatophyte < fungus", "mite", "sarcoptes scabiei < mite", "staphylococcus aureus"),
    "factor": ("stress", "sunlight", "crowding", "alcohol"),
    "test": ("biopsy", "punch biopsy < biopsy", "blood tests", "skin scraping"),
    "treatment": (
        "antifungal", "terbinafine < antifungal", "nystatin < antifungal", "corticosteroid",
        "topical corticosteroid < corticosteroid", "oral corticosteroid < corticosteroid",
        "hydrocortisone < topical corticosteroid", "emollient", "excision", "wide excision < excision", "permethrin",
        "oral ivermectin",
    ),
    "red_flag": ("rapid growth",),
    "transmission": ("skin contact", "shared objects", "insect bite"),
    "age": ("children", "older adults"),
    "course": ("chronic", "metastasising", "self-limiting"),
}  # fmt: skip

# condition -> "relation[!]: strength value, strength value"; "!" marks a relation that is closed
_FACTS = {
    "tinea": ("agent!: always dermatophyte", "category!: always fungal infection"),
    "tinea corporis": (
        "subtype_of: always tinea", "malignancy!: always benign",
        "contagious!: always contagious", "transmission: typical skin contact",
        "urgency!: typical routine", "morphology: typical plaque", "secondary_morphology: typical scale",
        "site: typical arm, never scalp", "first_line: typical antifungal", "second_line: possible oral ivermectin",
        "contraindicated: typical corticosteroid, always nystatin", "test: typical skin scraping, never biopsy",
        "symptom: typical itch",
    ),
    "psoriasis": (
        "category!: always inflammatory disease", "malignancy!: always benign", "contagious!: always non-contagious",
        "urgency!: typical routine", "morphology: always plaque, never vesicle",
        "secondary_morphology: typical silvery scale", "colour!: typical red, possible silver",
        "site: typical elbow, typical scalp, possible face", "symptom: possible itch",
        "first_line: typical topical corticosteroid, typical emollient",
        "second_line: possible excision", "contraindicated: typical oral corticosteroid, never hydrocortisone",
        "absent_symptom: typical fever, possible numbness", "cause: possible stress", "trigger: typical alcohol",
        "risk_factor: possible sunlight", "differential: typical tinea corporis",
        "test_not_needed: typical blood tests", "course: typical chronic",
    ),
    "melanoma": (
        "category!: always melanocytic tumour", "malignancy!: always malignant", "contagious!: always non-contagious",
        "urgency!: always urgent", "dermoscopy: typical atypical pigment network",
        "dermoscopy_against: typical delta-wing sign", "first_line: always wide excision", "test: always biopsy",
        "course: possible metastasising", "red_flag: typical rapid growth", "site: possible face",
    ),
    "melanocytic nevus": (
        "category!: always benign tumour", "malignancy!: always benign", "progresses_to: possible melanoma",
        "dermoscopy: typical pigment network", "colour: typical dark brown", "differential: typical melanoma",
    ),
    "scabies": (
        "agent!: always sarcoptes scabiei", "contagious!: always contagious",
        "transmission!: typical skin contact, possible shared objects", "urgency!: typical self-care",
        "morphology: typical burrow, possible vesicle", "symptom: typical night itch", "site: typical finger web",
        "first_line!: typical permethrin", "second_line: typical oral ivermectin", "risk_factor: typical crowding",
    ),
}  # fmt: skip


def _concept(kind: str, row: str) -> Concept:
    names, _, broader = row.partition(" < ")
    label, *synonyms = names.split(" / ")
    above = (identifier(broader),) if broader else ()
    return Concept(identifier(label), kind, label, tuple(synonyms), above)


def _facts(condition: str, row: str) -> list[Fact]:
    relation, _, values = row.partition(": ")
    closed = relation.endswith("!")
    pairs = [value.split(" ", 1) for value in values.split(", ")]
    return [
        Fact(identifier(condition), relation.removesuffix("!"), identifier(value), strength, closed, WORK)
        for strength, value in pairs
    ]


def small_graph() -> KnowledgeGraph:
    """The graph of this file."""
    concepts = [_concept(kind, row) for kind, rows in _CONCEPTS.items() for row in rows]
    facts = [fact for condition, rows in _FACTS.items() for row in rows for fact in _facts(condition, row)]
    works = {WORK: Citation(WORK, "A Handbook of Nothing", "Nobody", 2000, "none")}
    return KnowledgeGraph({concept.id: concept for concept in concepts}, tuple(facts), works)


def small_scorer(folder: Path) -> KGScorer:
    """A scorer of the small graph, which it reads from an OWL file in `folder`, as a user's would."""
    path = folder / "small.owl"
    path.write_text(to_rdf_xml(small_graph()), encoding="utf-8")
    return KGScorer(path)


def claim(subject: str, relation: str, value: str, positive: bool = True, hedged: bool = False) -> Claim:
    """A claim from names instead of identifiers."""
    return Claim(identifier(subject), relation, identifier(value), positive, hedged=hedged)


Said = tuple[str, str, str, bool]


def said(score: KGScore, judgement: str) -> set[Said]:
    """(subject, relation, value, positive) of the claims of one judgement."""
    return {
        (item.claim.subject, item.claim.relation, item.claim.value, item.claim.positive)
        for item in getattr(score, judgement)
    }


def judgements(score: KGScore) -> dict[tuple[str, str], set[tuple[str, bool]]]:
    """(subject, value) -> {(judgement, affirmed)} over all judged claims."""
    found: dict[tuple[str, str], set[tuple[str, bool]]] = {}
    for name in ("supported", "contradicted", "unknown"):
        for item in getattr(score, name):
            key = (item.claim.subject, item.claim.value)
            found.setdefault(key, set()).add((name, item.claim.positive))
    return found


def exit_code(*arguments: object) -> int:
    """The exit code of ``python -m dermiq.kg`` with these arguments, run in this process."""
    try:
        with exit_codes():
            return main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
