"""Placing of claims in plain words in the vocabulary of a graph: the spans, conditions, relations and values."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.language.claims import Claim
from dermiq.kg.language.clauses import DIAGNOSIS, TREATMENT
from dermiq.kg.language.extraction import Extraction
from dermiq.kg.language.reading import sentence_spans
from dermiq.kg.linking import Linker, spans, words
from dermiq.kg.relations import CONDITION, RELATIONS

_NOT_READ = (
    "first_line", "second_line", "absent_symptom", "test_not_needed", "dermoscopy_against", "contraindicated_in",
    "quantity",
)  # fmt: skip
RELATIONS_READ: Mapping[str, str] = {
    DIAGNOSIS: "the patient has this condition",
    TREATMENT: "it is treated with this",
    **{name: relation.phrase for name, relation in RELATIONS.items() if name not in _NOT_READ},
}
"""Relation -> its meaning, for the relations that a claim in plain words may have."""
_CASE = ("case", "the case", "")


class Placer:
    """Turns listed claims into claims of a graph's vocabulary."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        self._kind = {concept.id: concept.kind for concept in graph.concepts.values()}
        self._linker = Linker(graph.by_name.items())

    def place(self, listed: Iterable[Any], text: str, case: str) -> Extraction:
        """The claims that can be placed, and where those stand that cannot.

        Args:
            listed: claims with the fields ``quote``, ``subject``, ``relation``, ``value``, ``denied``, ``hedged``;
                what has other fields, or quotes what is not in the text, is left out.
            text: the text that was read.
            case: identifier of the condition in question.
        """
        places = spans(text)
        starts = [start for start, _ in sentence_spans(text)]
        claims, unread = [], []
        for item in listed:
            found = _find(item.get("quote"), text) if isinstance(item, Mapping) else None
            if found is None:
                continue
            claim = self._claim(item, case)
            if claim is None:
                unread.append(found)
            else:
                sentence = bisect_right(starts, found[0]) - 1
                claims.append(claim._replace(words=_words(found, places), sentence=sentence))
        return Extraction(claims, unread)

    def _claim(self, item: Mapping[str, Any], case: str) -> Claim | None:
        subject = self._subject(item.get("subject"), case)
        relation = item.get("relation")
        if subject is None or not isinstance(relation, str) or relation not in RELATIONS_READ:
            return None
        kind = {DIAGNOSIS: CONDITION, TREATMENT: "treatment"}.get(relation) or RELATIONS[relation].range
        value = self._value(item.get("value"), kind)
        if value is None:
            return None
        subject = case if relation == DIAGNOSIS else subject
        named = item["subject"].strip().lower() not in _CASE
        positive, hedged = item.get("denied") is not True, item.get("hedged") is True
        return Claim(subject, relation, value, positive, hedged, named=named)

    def _subject(self, name: Any, case: str) -> str | None:
        if not isinstance(name, str):
            return None
        if name.strip().lower() in _CASE:
            return case
        found = self._graph.lookup(name)
        return found.id if found else None

    def _value(self, phrase: Any, kind: str) -> str | None:
        """The concept of a kind that a phrase names, the longest name first."""
        if not isinstance(phrase, str):
            return None
        links = [link for link in self._linker.link(words(phrase)) if self._kind[link[2]] == kind]
        return max(links, key=lambda link: link[1] - link[0])[2] if links else None


def _find(quote: Any, text: str) -> tuple[int, int] | None:
    """First and last character (exclusive) of a quotation, whatever its case and white space; None without it."""
    if not isinstance(quote, str) or not quote.strip():
        return None
    pattern = r"\s+".join(map(re.escape, quote.split()))
    found = re.search(pattern, text, re.IGNORECASE)
    return found.span() if found else None


def _words(span: tuple[int, int], places: list[tuple[int, int]]) -> tuple[int, int]:
    """First and last word (exclusive) within a span of characters; (0, 0) without one."""
    first = bisect_left(places, span[0], key=lambda place: place[0])
    end = bisect_left(places, span[1] + 1, key=lambda place: place[1])
    return (first, end) if first < end else (0, 0)
