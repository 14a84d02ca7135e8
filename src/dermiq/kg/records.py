"""Records of scores: as JSON, or as text for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.language.claims import Claim
from dermiq.kg.language.clauses import DIAGNOSIS, TREATMENT
from dermiq.kg.language.reading import sentence_spans
from dermiq.kg.linking import spans
from dermiq.kg.relations import RELATIONS
from dermiq.kg.rules import Verdict
from dermiq.kg.scorer import JudgedClaim, KGScore
from dermiq.kg.verbalising import named, sentences, written

NUMBERS = ("score", "precision", "coverage", "harm", "contradiction_rate")
MARKS = {"supported": "+", "contradicted": "x", "unknown": "?"}
_PHRASES = {
    DIAGNOSIS: ("has the diagnosis", "does not have the diagnosis"),
    TREATMENT: ("is treated with", "is not treated with"),
}
_WIDTH = 80


def as_record(score: KGScore, graph: KnowledgeGraph, answer: str) -> dict[str, Any]:
    """A score as a JSON record: the numbers, and each claim with its evidence and its span in the answer.

    ``answer[span[0] : span[1]]`` are the words that name the value.
    """
    places = spans(answer)
    record: dict[str, Any] = {name: round(getattr(score, name), 4) for name in NUMBERS}
    for name in MARKS:
        record[name] = [_claim(item, graph, places) for item in getattr(score, name)]
    return record | {"unread": [list(span) for span in score.unread]}


def _claim(item: JudgedClaim, graph: KnowledgeGraph, places: list[tuple[int, int]]) -> dict[str, Any]:
    claim = item.claim
    span = claim.place(places)
    record = {
        "subject": graph.label(claim.subject),
        "relation": claim.relation,
        "value": graph.label(claim.value),
        "positive": claim.positive,
        "hedged": claim.hedged,
        "span": list(span) if span else None,
        "rule": item.verdict.rule,
        "evidence": [_fact(fact, graph) for fact in item.verdict.evidence],
    }
    return record | {"severity": round(item.severity, 4)} if item.severity else record


def _fact(fact: Fact, graph: KnowledgeGraph) -> dict[str, Any]:
    return {
        "subject": graph.label(fact.subject),
        "relation": fact.relation,
        "value": graph.label(fact.value),
        "strength": fact.strength,
        "closed": fact.closed,
        "note": fact.note,
        "citation": graph.cite(fact),
        "review": fact.review,
    }


def as_text(score: KGScore, graph: KnowledgeGraph, answer: str) -> Iterator[tuple[str, str]]:
    """A score as lines of text: the numbers, then every claim with its evidence.

    Yields:
        (line, its part): ``supported``, ``contradicted``, ``unknown``, ``evidence`` or ``heading``.
    """
    yield "   ".join(f"{name.replace('_', ' ')} {getattr(score, name):.2f}" for name in NUMBERS), "heading"
    if score.unread:
        quoted = ", ".join(f'"{_printable(answer[slice(*span)])}"' for span in score.unread)
        yield "", "evidence"
        yield f"unread, so it earns nothing: {quoted}", "unknown"
    if not any(getattr(score, name) for name in MARKS):
        yield "", "evidence"
        yield "The answer claims nothing that could be read.", "evidence"
        return
    places = spans(answer)
    for name, mark in MARKS.items():
        items = getattr(score, name)
        yield "", "evidence"
        yield f"{name} ({len(items)})", "heading"
        for item in items:
            yield f"  {mark} {_line(item, graph, answer, places)}", name
            for line in _evidence(item.verdict, graph):
                yield line, "evidence"


def by_sentence(score: KGScore, answer: str) -> Iterator[tuple[int, int, list[JudgedClaim]]]:
    """First and last character (exclusive) of each sentence of an answer, and the claims whose words begin in it."""
    places = spans(answer)
    begun = [(span[0], item) for item in score.claims if (span := item.claim.place(places))]
    for start, end in sentence_spans(answer):
        yield start, end, [item for begin, item in begun if start <= begin < end]


def claim_in_words(claim: Claim, graph: KnowledgeGraph) -> str:
    """A claim as a short sentence."""
    relation = RELATIONS.get(claim.relation)
    phrases = (relation.phrase, relation.negative) if relation else _PHRASES[claim.relation]
    often = f"{claim.frequency} " if claim.frequency else ""
    text = f"{written(graph.label(claim.subject))} {often}{phrases[not claim.positive]} "
    return text + named(graph.concepts[claim.value])


def _line(item: JudgedClaim, graph: KnowledgeGraph, answer: str, places: list[tuple[int, int]]) -> str:
    """A claim as a sentence, with the words of the answer that make it."""
    text = claim_in_words(item.claim, graph)
    if span := item.claim.place(places):
        text += f'  "{_printable(answer[slice(*span)])}"'
    if item.claim.hedged:
        text += "  hedged"
    return f"{text}  severity {item.severity:.2f}" if item.severity else text


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _evidence(verdict: Verdict, graph: KnowledgeGraph) -> Iterator[str]:
    for text in (f"rule: {verdict.rule}" if verdict.rule else "", evidence_in_words(verdict, graph)):
        yield from textwrap.wrap(text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def evidence_in_words(verdict: Verdict, graph: KnowledgeGraph) -> str:
    """The facts that decided, as sentences with their citations; empty without any."""
    if not verdict.evidence:
        return ""
    start = "A complete list: " if len(verdict.evidence) > 1 else ""
    cited = "; ".join(dict.fromkeys(map(graph.cite, verdict.evidence)))
    return f"{start}{' '.join(sentences(graph, verdict.evidence))} [{cited}]"
