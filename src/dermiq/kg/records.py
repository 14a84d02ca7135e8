"""Records of scores: answers read from JSONL, scores as JSONL records or as text for the terminal."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.language.clauses import DIAGNOSIS, TREATMENT
from dermiq.kg.linking import spans
from dermiq.kg.questions import relations_of
from dermiq.kg.relations import RELATIONS
from dermiq.kg.scorer import JudgedClaim, KGScore
from dermiq.kg.verbalising import named, sentences, written
from dermiq.schema import KnowledgeError

NUMBERS = ("score", "precision", "coverage", "harm", "contradiction_rate")
MARKS = {"supported": "+", "contradicted": "x", "unknown": "?"}
_PHRASES = {
    DIAGNOSIS: ("has the diagnosis", "does not have the diagnosis"),
    TREATMENT: ("is treated with", "is not treated with"),
}
_WIDTH = 80


def read_rows(path: Path, graph: KnowledgeGraph) -> list[dict[str, Any]]:
    """The answers of a JSONL file, checked so that all can be scored.

    Args:
        path: each line is an object with the texts ``condition`` and ``answer``, optionally ``question_type``, and any
            other field.
        graph: must have the conditions.

    Raises:
        KnowledgeError: if the file cannot be read, is empty, or a line cannot be scored, naming the line.
    """
    rows = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.append(_row(line, f"{path}, line {number}", graph))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 ({error.reason})"
        raise KnowledgeError(f"{path} cannot be read: {reason}.") from error
    if not rows:
        raise KnowledgeError(f"{path} holds no answers.")
    return rows


def _row(line: str, where: str, graph: KnowledgeGraph) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        raise KnowledgeError(f"{where}: not JSON ({reason}). Each line must be one JSON object.") from error
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("condition", "answer")):
        raise KnowledgeError(f"{where}: must be an object with the texts 'condition' and 'answer'.")
    asked = row.get("question_type")
    if asked is not None and not isinstance(asked, str):
        raise KnowledgeError(f"{where}: 'question_type' must be a text or null, not {asked!r}.")
    try:
        graph.find(row["condition"])
        relations_of(asked)
    except KnowledgeError as error:
        raise KnowledgeError(f"{where}: {error}") from error
    return row


def as_record(score: KGScore, graph: KnowledgeGraph, answer: str) -> dict[str, Any]:
    """A score as a JSON record: the numbers, and each claim with its evidence and its span in the answer.

    ``answer[span[0] : span[1]]`` are the words that name the value.
    """
    places = spans(answer)
    record: dict[str, Any] = {name: round(getattr(score, name), 4) for name in NUMBERS}
    for name in MARKS:
        record[name] = [_claim(item, graph, places) for item in getattr(score, name)]
    return record


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
            yield f"  {mark} {_sentence(item, graph, answer, places)}", name
            for line in _evidence(item.verdict.evidence, graph):
                yield line, "evidence"


def _sentence(item: JudgedClaim, graph: KnowledgeGraph, answer: str, places: list[tuple[int, int]]) -> str:
    """A claim as a sentence, with the words of the answer that make it."""
    claim = item.claim
    relation = RELATIONS.get(claim.relation)
    phrases = (relation.phrase, relation.negative) if relation else _PHRASES[claim.relation]
    text = f"{written(graph.label(claim.subject))} {phrases[not claim.positive]} {named(graph.concepts[claim.value])}"
    if span := claim.place(places):
        quoted = "".join(character if character.isprintable() else " " for character in answer[slice(*span)])
        text += f'  "{quoted}"'
    if claim.hedged:
        text += "  hedged"
    return f"{text}  severity {item.severity:.2f}" if item.severity else text


def _evidence(facts: tuple[Fact, ...], graph: KnowledgeGraph) -> list[str]:
    if not facts:
        return []
    start = "A complete list: " if len(facts) > 1 else ""
    cited = "; ".join(dict.fromkeys(map(graph.cite, facts)))
    text = f"{start}{' '.join(sentences(graph, facts))} [{cited}]"
    return textwrap.wrap(text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
