"""Evidence from the knowledge graph on an answer: a verdict on each of its claims, and facts about the condition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dermiq.kg import Fact, JudgedClaim, KGScorer, KnowledgeGraph, Passage, Retriever
from dermiq.kg.language.clauses import DIAGNOSIS
from dermiq.kg.linking import spans
from dermiq.kg.questions import question_types
from dermiq.kg.relations import RELATIONS
from dermiq.kg.rules import Judgement
from dermiq.kg.verbalising import capitalised, named, sentences, written
from dermiq.prompts import QUESTION

_TREATED = ("is treated with", "is not treated with")  # in whatever line, which is no relation of its own
_TOKENS = 120  # of facts


class Claim(NamedTuple):
    """A claim of an answer and the graph's verdict on it.

    Attributes:
        judgement: supported, contradicted or unknown.
        sentence: the claim in the graph's words.
        place: first character and last (exclusive) of the answer's own words for it; None if it has none.
        facts: sentences with their citations; empty if unknown.
    """

    judgement: Judgement
    sentence: str
    place: tuple[int, int] | None
    facts: tuple[tuple[str, str], ...]


class Evidence(NamedTuple):
    """The graph's verdicts and facts on an answer about a condition.

    Attributes:
        condition: the name of the condition that the answer is judged against.
        claims: in the order of the answer.
        passages: facts about the condition that bear on the question.
    """

    condition: str
    claims: tuple[Claim, ...]
    passages: tuple[Passage, ...]


class Expert:
    """The knowledge graph as judge of answers."""

    def __init__(self) -> None:
        self._scorer, self._retriever = KGScorer(), Retriever(budget=_TOKENS)
        self._graph = self._scorer.graph  # loaded now, so that the first answer need not wait

    def evidence(self, text: str, condition: str, question: str = "") -> Evidence | None:
        """Evidence on what an answer says of the condition that the policy names; None if the graph does not know it.

        The graph cannot tell whether that condition is the right one, so claims of the diagnosis are left out.

        Args:
            text: of the answer, its reasoning, or both.
            condition: a name.
            question: the user's; empty is the default question.
        """
        graph = self._graph
        found = graph.lookup(condition) if condition else None
        if found is None:
            return None
        types = question_types(question or QUESTION)
        score = self._scorer.score(text, found.id, types[0] if types else None)
        places = spans(text)
        claims = [_claim(item, graph, places) for item in score.claims if item.claim.relation != DIAGNOSIS]
        claims.sort(key=lambda claim: claim.place or (len(text), 0))
        passages = self._retriever.retrieve(question or QUESTION, [found.id])
        return Evidence(written(found.label), tuple(claims), tuple(passages))


def _claim(item: JudgedClaim, graph: KnowledgeGraph, places: list[tuple[int, int]]) -> Claim:
    said = item.claim
    relation = RELATIONS.get(said.relation)
    affirmed, denied = (relation.phrase, relation.negative) if relation else _TREATED
    subject, value = written(graph.label(said.subject)), named(graph.concepts[said.value])
    sentence = capitalised(f"{subject} {affirmed if said.positive else denied} {value}.")
    return Claim(item.verdict.judgement, sentence, said.place(places), _cited(item.verdict.evidence, graph))


def _cited(facts: Iterable[Fact], graph: KnowledgeGraph) -> tuple[tuple[str, str], ...]:
    """Sentences of facts, grouped by the work that they cite."""
    by_work: dict[str, list[Fact]] = {}
    for fact in facts:
        by_work.setdefault(graph.cite(fact), []).append(fact)
    return tuple((" ".join(sentences(graph, same)), work) for work, same in by_work.items())
