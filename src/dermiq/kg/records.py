"""A score as a record for JSONL, and as text for the terminal."""

from __future__ import annotations

import textwrap
from typing import Any

from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.linking import spans
from dermiq.kg.scorer import JudgedClaim, KGScore

_MARKS = {"supported": "+", "contradicted": "x", "unknown": "?"}


def as_record(score: KGScore, graph: KnowledgeGraph, answer: str) -> dict[str, Any]:
    """JSON-ready: the numbers, and each claim with its evidence and its place in the answer (characters)."""
    places = spans(answer)
    record: dict[str, Any] = {
        name: round(getattr(score, name), 4)
        for name in ("score", "precision", "coverage", "harm", "contradiction_rate")
    }
    for name in _MARKS:
        record[name] = [_claim(item, graph, places) for item in getattr(score, name)]
    return record


def _claim(item: JudgedClaim, graph: KnowledgeGraph, places: list[tuple[int, int]]) -> dict[str, Any]:
    claim = item.claim
    first, end = claim.words
    record = {
        "subject": graph.label(claim.subject),
        "relation": item.verdict.relation,
        "value": graph.label(claim.value),
        "positive": claim.positive,
        "hedged": claim.hedged,
        "span": [places[first][0], places[end - 1][1]] if end else None,
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


def as_text(score: KGScore, graph: KnowledgeGraph, answer: str) -> str:
    """Readable: the numbers, then every claim with the evidence under it."""
    places = spans(answer)
    lines = [
        f"score {score.score:.2f}   precision {score.precision:.2f}   coverage {score.coverage:.2f}   "
        f"harm {score.harm:.2f}"
    ]
    for name, mark in _MARKS.items():
        items = getattr(score, name)
        lines.append(f"\n{name} ({len(items)})")
        for item in items:
            lines += _explained(item, graph, answer, places, mark)
    return "\n".join(lines)


def _explained(
    item: JudgedClaim, graph: KnowledgeGraph, answer: str, places: list[tuple[int, int]], mark: str
) -> list[str]:
    claim = item.claim
    said = "" if claim.positive else "not "
    hedge = " (hedged)" if claim.hedged else ""
    first, end = claim.words
    quoted = f'  "{answer[places[first][0] : places[end - 1][1]]}"' if end else ""
    relation = item.verdict.relation.replace("_", " ")
    lines = [f"  {mark} {graph.label(claim.subject)}: {relation}: {said}{graph.label(claim.value)}{hedge}{quoted}"]
    shown = item.verdict.evidence[:3]
    for fact in shown:
        note = f"; {fact.note}" if fact.note else ""
        text = f"{fact.relation.replace('_', ' ')}: {fact.strength} {graph.label(fact.value)}{note}. {graph.cite(fact)}"
        lines += textwrap.wrap(text, 78, initial_indent="      ", subsequent_indent="      ")
    if len(item.verdict.evidence) > len(shown):
        lines.append(f"      and {len(item.verdict.evidence) - len(shown)} more of a complete list")
    return lines
