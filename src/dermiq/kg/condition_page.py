"""The page of a condition for the terminal: all its facts with their sources."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable

from dermiq.kg.graph import Concept, Fact, KnowledgeGraph
from dermiq.kg.relations import REVIEW_STATUS, STRENGTHS
from dermiq.kg.verbalising import ADVERBS, capitalised, written

WIDTH = 80
_GROUPS = {
    "What it is": ("subtype_of", "category", "malignancy"),
    "What it looks like": (
        "morphology", "secondary_morphology", "colour", "colour_on_dark_skin", "distribution", "site", "dermoscopy",
        "dermoscopy_against",
    ),
    "What it feels like": ("symptom", "absent_symptom"),
    "Where it comes from": ("agent", "cause", "risk_factor", "trigger", "relieved_by", "contagious", "transmission"),
    "What it can be mistaken for": ("differential",),
    "Tests": ("test", "test_not_needed"),
    "Treatment": ("first_line", "second_line", "contraindicated", "insufficient_alone"),
    "How soon care is needed": ("urgency", "red_flag"),
    "Whom it affects, and how it goes on": ("age_group", "course", "quantity", "progresses_to"),
}  # fmt: skip
_TITLES = {
    "subtype_of": "form of", "morphology": "basic lesion", "secondary_morphology": "surface and border",
    "colour_on_dark_skin": "colour on dark skin", "absent_symptom": "missing symptoms",
    "dermoscopy_against": "dermoscopy that speaks against it", "differential": "differential diagnoses",
    "first_line": "first-line treatment", "second_line": "second-line treatment",
    "contraindicated": "treatment to avoid", "red_flag": "red flags", "contagious": "contagion",
    "age_group": "age groups", "test": "useful tests", "test_not_needed": "tests that are not needed",
    "risk_factor": "risk factors", "trigger": "triggers", "site": "sites", "symptom": "symptoms",
    "progresses_to": "can turn into", "insufficient_alone": "not enough alone", "quantity": "in numbers",
}  # fmt: skip


def title(relation: str) -> str:
    """The heading of a relation's values."""
    return _TITLES.get(relation, relation.replace("_", " "))


def describe(graph: KnowledgeGraph, condition: str) -> str:
    """The page of a condition, 80 columns wide.

    Args:
        graph: where to look.
        condition: its name, a synonym, an identifier or an xref.

    Raises:
        KnowledgeError: if the graph has no such condition.
    """
    concept = graph.find(condition)
    numbers: dict[str, int] = {}
    lines = _head(concept)
    every: list[Fact] = []
    for heading, relations in _GROUPS.items():
        body = []
        for relation in relations:
            if facts := graph.about(concept.id, relation):
                every += facts
                body += _relation(graph, concept, relation, facts, numbers)
        if body:
            lines += ["", heading.upper(), *body]
    if numbers:
        lines += ["", "SOURCES"]
        for text, number in numbers.items():
            lines += _wrapped(text, f"  [{number}] ", " " * len(f"  [{number}] "))
    return "\n".join([*lines, "", *_review(every)])


def _head(concept: Concept) -> list[str]:
    name = capitalised(written(concept.label))
    lines = [*textwrap.wrap(name, WIDTH), "=" * min(len(name), WIDTH)]
    if concept.definition:
        lines += _wrapped(concept.definition)
    if concept.synonyms:
        lines += _wrapped(", ".join(map(written, concept.synonyms)), "Also called: ", "  ")
    if concept.xrefs:
        lines += _wrapped(", ".join(concept.xrefs), "Elsewhere: ", "  ")
    return lines


def _relation(
    graph: KnowledgeGraph, concept: Concept, relation: str, facts: tuple[Fact, ...], numbers: dict[str, int]
) -> list[str]:
    """A relation's title, then a line for each strength."""
    marks = [f"as {written(graph.label(facts[0].subject))}"] if facts[0].subject != concept.id else []
    marks += ["complete list"] if any(fact.closed for fact in facts) else []
    heading = capitalised(title(relation)) + (f" ({', '.join(marks)})" if marks else "")
    lines = _wrapped(heading, "  ", "    ")
    for strength in STRENGTHS:
        if same := [fact for fact in facts if fact.strength == strength]:
            lines += _wrapped(_values(graph, same, numbers), f"    {ADVERBS[strength]:<11}", " " * 15)
    return lines


def _values(graph: KnowledgeGraph, facts: Iterable[Fact], numbers: dict[str, int]) -> str:
    """Values with their notes, grouped by citation, whose number follows."""
    by_citation: dict[str, list[str]] = {}
    for fact in facts:
        note = f" ({fact.note.strip()})" if fact.note else ""
        by_citation.setdefault(graph.cite(fact), []).append(written(graph.label(fact.value)) + note)
    return "; ".join(
        f"{', '.join(values)} [{numbers.setdefault(citation, len(numbers) + 1)}]"
        for citation, values in by_citation.items()
    )


def _review(facts: Iterable[Fact]) -> list[str]:
    """The numbers of facts by review status."""
    counts = Counter(fact.review for fact in facts)
    lines = []
    for status, count in counts.items():
        text = f"{count} of these {counts.total()} facts: {status}."
        if status == REVIEW_STATUS and len(counts) == 1:
            text = f"No clinician has reviewed any of these {count} facts. They are no medical advice."
        lines += _wrapped(text, "Review: ", "  ")
    return lines or ["The graph holds no facts about it."]


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest)
