"""Verbalisation: facts as plain English sentences.

A sentence is a template of the relation, an adverb for the strength, and the value in the grammatical form that the
template needs. The tables of words are here and not in the ontology because they are about English.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from dermiq.kg.graph import Concept, Fact, KnowledgeGraph

ADVERBS: Mapping[str, str] = MappingProxyType(
    {"always": "always", "typical": "typically", "possible": "sometimes", "rare": "rarely", "never": "never"}
)

_TEMPLATES = {
    "subtype_of": "{c} is {often} a form of {v}",
    "category": "{c} is {often} {v}",
    "malignancy": "{c} is {often} {v}",
    "morphology": "{c} {often} appears as {v}",
    "secondary_morphology": "{c} {often} shows {v}",
    "colour": "the lesions of {c} are {often} {v}",
    "colour_on_dark_skin": "on dark skin, the lesions of {c} are {often} {v}",
    "distribution": "the lesions of {c} are {often} {v}",
    "site": "{c} is {often} found {v}",
    "symptom": "{c} {often} causes {v}",
    "absent_symptom": "{c} {often} occurs without {v}",
    "dermoscopy": "{c} {often} shows {v} under dermoscopy",
    "dermoscopy_against": "{c} is {often} made unlikely by {v} under dermoscopy",
    "agent": "{c} is {often} caused by {v}",
    "cause": "{c} is {often} due to {v}",
    "risk_factor": "{c} is {often} made more likely by {v}",
    "trigger": "{c} is {often} set off by {v}",
    "differential": "{c} must {often} be told apart from {v}",
    "progresses_to": "{c} {often} turns into {v}",
    "test": "{c} is {often} investigated with {v}",
    "test_not_needed": "{c} is {often} managed without {v}",
    "first_line": "{c} is {often} treated first {v}",
    "second_line": "{c} is {often} treated next {v}",
    "contraindicated": "{c} should {often} be treated {v}",
    "urgency": "{c} {often} calls for {v}",
    "red_flag": "warning signs in {c} {often} include {v}",
    "contagious": "{c} is {often} {v}",
    "transmission": "{c} is {often} acquired {v}",
    "age_group": "{c} is {often} seen in {v}",
    "course": "{c} is {often} {v}",
    "relieved_by": "{c} is {often} relieved by {v}",
    "insufficient_alone": "{c} is {often} not cured {v} alone",
    "quantity": "the {v} of {c} is {often} {note}",
    "contraindicated_in": "{c} must {often} be avoided in {v}",
}
# Where the plain adverb would say the opposite, or nothing.
_CONTRAINDICATED = MappingProxyType(
    {"always": "never", "typical": "typically not", "possible": "sometimes not", "rare": "rarely not"}
)
_DESCRIBES = "the lesions of {c} are {often} {v}"
_SPECIAL = {
    ("contraindicated_in", "never"): "{c} may be used in {v}",
    ("contraindicated", "never"): "{c} may well be treated {v}",
    ("contraindicated", "no_treatment"): "{c} should {often} be left with {v}",
    ("first_line", "no_treatment"): "{c} {often} needs {v} initially",
    ("second_line", "no_treatment"): "{c} {often} needs {v} as a later option",
    ("secondary_morphology", "flat_topped"): _DESCRIBES,
    ("secondary_morphology", "dome_shaped"): _DESCRIBES,
    ("secondary_morphology", "mobile_under_the_skin"): _DESCRIBES,
    ("distribution", "islands_of_sparing"): "{c} {often} shows {v}",
    ("distribution", "shawl_sign"): "{c} {often} shows {v}",
}
_ALTERNATIVES = frozenset(
    (
        "morphology", "colour", "colour_on_dark_skin", "absent_symptom", "test_not_needed", "contraindicated",
        "dermoscopy_against",
    )
)  # fmt: skip

_PLURAL_VERBS = {
    "is": "are", "appears": "appear", "shows": "show", "causes": "cause", "occurs": "occur", "turns": "turn",
    "calls": "call", "needs": "need", "has": "have",
}  # fmt: skip
_PLURAL = re.compile(r"(?:milia|striae distensae|(?:wart|tag|spot|cyst|mole|lesion)s|n(?:a?e)vi)$")

# By kind, the last words of what can be counted, and so takes an article.
_COUNTABLE = {
    kind: frozenset(words.split())
    for kind, words in {
        "condition": "wart cyst abscess nevus naevus haematoma lipoma keloid angioma angiokeratoma granuloma stain "
        "lentigo lesion keratoacanthoma keratosis dermatofibroma haemangioma lymphangioma syringoma pilomatricoma "
        "xanthogranuloma reaction",
        "category": "tumour lymphoma cyst malformation hamartoma infection infestation disease reaction disorder "
        "deficiency sarcoma syndrome",
        "lesion": "macule patch papule plaque nodule mass vesicle bulla pustule wheal cyst cavity comedone burrow "
        "track petechia papilloma horn tract angiofibroma neurofibroma",
        "surface": "fissure scar border surface appearance punctum sign halo consistency shape groove pattern edge rim "
        "rash band nail",
        "dermoscopy": "network veil pattern border mass hub area structure blotch sign patch rim appearance halo",
        "agent": "mite louse dermatophyte yeast bacterium streptococcus staphylococcus mycobacterium poxvirus "
        "enterovirus fungus hookworm worm protozoon flea insect larva bedbug mosquito tick mould",
        "factor": "mutation defect allergen spurt nail mole lentigo diet allele malignancy gammopathy wound disorder",
        "test": "biopsy test swab smear level x-ray stain electrocardiogram",
        "treatment": "corticosteroid antihistamine antibiotic inhibitor analogue retinoid antifungal antiviral "
        "antiseptic blocker contraceptive peel wig shampoo",
        "red_flag": "ulcer patient palsy neck disturbance neurofibroma sign",
        "transmission": "vector bite",
    }.items()
}
# Among red flags it may be the first word that is counted.
_COUNTABLE_FIRST = ("change in ", "nodule ", "infant ", "enlarged ", "new lesion ", "sudden ", "large ", "severe mood ")
_AN = re.compile(r"[aeio]|u(?:g|l|m|n(?!i)|r(?!e))|(?:h(?:iv|la|ras)|nras|mtor|nf1|fgfr3)\b")
_PROPER = {
    name.lower(): name
    for name in (
        "HIV|HLA|BRAF|KIT|CDKN2A|GNAQ|HRAS|NRAS|FGFR3|PTCH1|DNA|NF1|TSC1|TSC2|IKBKG|ATP2A2|ATP2C1|ACE|NSAIDs|NSAID|C1|"
        "PCR|BP180|X-ray|X-linked|JAK|mTOR|MEK|T-cell|parvovirus B19|hepatitis C|vitamin D|amphotericin B|Tzanck|"
        "Wood's|Doppler|Mohs|Wickham|Auspitz|Nikolsky|Darier|Lisch|Gottron|Blaschko|Bowen|Becker|Spitz|Hailey-Hailey|Kaposi|"
        "Lyme|Stevens-Johnson|Sweet syndrome|Fabry|Gardner|Parkinson|Down syndrome|Mediterranean|Fordyce|Merkel|"
        "Sarcoptes|Demodex|Trichophyton|Microsporum|Candida|Malassezia|Sporothrix|Staphylococcus aureus|"
        "Streptococcus pyogenes|Cutibacterium|Corynebacterium|Pseudomonas|Borrelia|Treponema|Mycobacterium leprae|"
        "Mycobacterium tuberculosis|Mycoplasma|Leishmania|Epidermophyton"
    ).split("|")
}
_PROPER_NAME = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(_PROPER, key=len, reverse=True)))})(?!\w)")

_NO_ARTICLE_SITES = ("around ", "behind ", "under ", "between ", "near ", "at ")
_IN_SITES = frozenset(
    "armpit groin mouth gluteal_cleft nasolabial_fold finger_web toe_web hairline beard_area napkin_area navel "
    "perianal_area".split()
)
_TREATED_WITH = ("first_line", "second_line", "contraindicated", "insufficient_alone")
_GERUNDS = ("stopping ", "keeping ", "treating ", "reducing ")
_FORMS = {
    "mother_to_child": ("through ", "transmission from mother to child"),
    "faecal_oral_route": ("through ", "the faecal-oral route"),
    "urgent": ("", "urgent care"),
    "routine": ("", "routine care"),
    "emergency": ("", "emergency care"),
}
_UNDER_DERMOSCOPY = " under dermoscopy"


class _Value(NamedTuple):
    """A value for a template: the words that it shares with its neighbours in a list, its own, and its note."""

    lead: str
    text: str
    note: str


def written(label: str) -> str:
    """A label, which the graph has in lower case, with its proper names and abbreviations in capitals.

    >>> written("hiv infection"), written("staphylococcus aureus"), written("scabies")
    ('HIV infection', 'Staphylococcus aureus', 'scabies')
    """
    return _PROPER_NAME.sub(lambda match: _PROPER[match[0]], label)


def named(concept: Concept) -> str:
    """The name of a concept in a sentence: a countable noun takes an article."""
    label = concept.label
    last = label.partition(" of ")[0].split(" ")[-1]
    first = concept.kind == "red_flag" and label.startswith(_COUNTABLE_FIRST)
    if not first and last not in _COUNTABLE.get(concept.kind, ()):
        return written(label)
    return f"the {written(label)}" if last == "sign" else with_article(label)


def with_article(label: str) -> str:
    """A label with the indefinite article.

    >>> with_article("ulcer"), with_article("brown macule")
    ('an ulcer', 'a brown macule')
    """
    return f"{'an' if _AN.match(label) else 'a'} {written(label)}"


def sentence(graph: KnowledgeGraph, fact: Fact) -> str:
    """One fact as one sentence, its note in brackets."""
    return _sentence(graph, (fact,))


def sentences(graph: KnowledgeGraph, facts: Iterable[Fact]) -> list[str]:
    """Facts as sentences; those of one condition, relation and strength share one."""
    groups: dict[tuple[str, str, str, str], list[Fact]] = {}
    for fact in facts:
        template = _template(fact)
        alone = fact.note if "{note}" in template else ""
        groups.setdefault((fact.subject, fact.relation, fact.strength, template + alone), []).append(fact)
    return [_sentence(graph, group) for group in groups.values()]


def capitalised(text: str) -> str:
    """A text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def _template(fact: Fact) -> str:
    for key in ((fact.relation, fact.strength), (fact.relation, fact.value)):
        if key in _SPECIAL:
            return _SPECIAL[key]
    return _TEMPLATES[fact.relation]


def _sentence(graph: KnowledgeGraph, facts: Sequence[Fact]) -> str:
    """The sentence of facts that share subject, relation, strength and template."""
    fact = facts[0]
    adverbs = _CONTRAINDICATED if fact.relation == "contraindicated" else ADVERBS
    template = _template(fact)
    label = graph.label(fact.subject)
    if _PLURAL.search(label) and template.startswith("{c}"):
        template = re.sub(r"\w+", lambda match: _PLURAL_VERBS.get(match[0], match[0]), template)
    values = [_value(graph, fact) for fact in facts]
    either = fact.relation in _ALTERNATIVES or fact.strength in ("possible", "rare", "never")
    filled = template.format(
        c=named(graph.concepts[fact.subject]),
        often=adverbs.get(fact.strength, ADVERBS["always"]),
        v=_list(values, "or" if either else "and"),
        note=fact.note,
    )
    filled = filled.replace(_UNDER_DERMOSCOPY * 2, _UNDER_DERMOSCOPY)
    if len(values) == 1 and values[0].note and "{note}" not in template:
        filled += f" ({values[0].note})"
    return capitalised(filled) + "."


def _value(graph: KnowledgeGraph, fact: Fact) -> _Value:
    label = graph.label(fact.value)
    note = fact.note.strip().rstrip(".")
    if fact.value in _FORMS:
        return _Value(*_FORMS[fact.value], note)
    lead, text = "", named(graph.concepts[fact.value])
    if fact.relation == "site":
        lead, text = ("", label) if label.startswith(_NO_ARTICLE_SITES) else (_preposition(fact.value), written(label))
    elif fact.relation in _TREATED_WITH and fact.value != "no_treatment":
        lead = "by " if label.startswith(_GERUNDS) else "with "
    elif fact.relation == "transmission":
        lead = "through "
    elif fact.relation == "subtype_of":
        text = written(label)
    return _Value(lead, text, note)


def _preposition(site: str) -> str:
    return "in the " if site in _IN_SITES else "on the "


def _list(values: Sequence[_Value], conjunction: str) -> str:
    """Values as a list; neighbours with the same lead share it. The note of a single value is left to the sentence."""
    by_lead: dict[str, list[str]] = {}
    for lead, text, note in values:
        by_lead.setdefault(lead, []).append(f"{text} ({note})" if note and len(values) > 1 else text)
    chunks = [lead + joined(texts, conjunction) for lead, texts in by_lead.items()]
    nested = len(chunks) > 1 and any(len(texts) > 1 for texts in by_lead.values())
    return joined(chunks, f", {conjunction}" if nested else conjunction)


def joined(texts: Sequence[str], conjunction: str = "and") -> str:
    """Texts as a list in prose.

    >>> joined(["scalp", "elbow", "knee"])
    'scalp, elbow and knee'
    """
    if len(texts) < 2:
        return "".join(texts)
    gap = "" if conjunction.startswith(",") else " "
    return f"{', '.join(texts[:-1])}{gap}{conjunction} {texts[-1]}"
