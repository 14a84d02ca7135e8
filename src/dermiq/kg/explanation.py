"""Explanation of verdicts: the way of each sentence from its words to the rules that judged it."""

from __future__ import annotations

from collections.abc import Iterator

from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.language.assertion import Cue
from dermiq.kg.language.reading import ClaimReader
from dermiq.kg.linking import spans
from dermiq.kg.records import by_sentence, claim_in_words, evidence_in_words
from dermiq.kg.scorer import KGScore


def explain(score: KGScore, graph: KnowledgeGraph, answer: str) -> Iterator[tuple[str, str]]:
    """A score as lines of text, sentence by sentence: words, what they were linked to, claims, rules and facts.

    Yields:
        (line, its part): ``heading``, ``link``, ``evidence``, or the judgement of a claim.
    """
    links = ClaimReader(graph).links(answer)
    places = spans(answer)
    for start, end, judged in by_sentence(score, answer):
        yield answer[start:end].strip(), "heading"
        for first, last, what in links:
            if start <= places[first][0] < end:
                quoted = answer[places[first][0] : places[last - 1][1]]
                yield f"  {quoted!r}: {_meaning(what, graph)}", "link"
        for item in judged:
            verdict = item.verdict
            hedged = " (hedged)" if item.claim.hedged else ""
            yield f"  claim: {claim_in_words(item.claim, graph)}{hedged}", verdict.judgement
            yield f"    {verdict.judgement}: {verdict.rule or 'no rule applies'}", verdict.judgement
            if evidence := evidence_in_words(verdict, graph):
                yield f"    {evidence}", "evidence"
        if not judged:
            yield "  no claim", "evidence"


def _meaning(what: str | Cue, graph: KnowledgeGraph) -> str:
    if isinstance(what, Cue):
        return f"cue {what.name.lower()}"
    return f"{graph.concepts[what].kind} {graph.label(what)}"
