"""Knowledge-graph retrieval (KG-RAG): the facts that answer a question, as sentences with citations.

The ranking:

    score = relevance of the relation to the question * strength * specificity + 1 if the question names the value
    rank by score * 0.9 ** (number of facts of this condition and relation that were picked before)

A value is specific if few conditions share it, and if it is deep in its tree. A question that names no condition but
findings ("itchy ring-shaped scaly patch") retrieves the facts by which they point to conditions
(`dermiq.kg.differential`); one that names a treatment and pregnancy, what is known of the treatment.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

from dermiq.kg.differential import Differential
from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.language.claims import STATES
from dermiq.kg.language.reading import ClaimReader
from dermiq.kg.ontology.loading import load_graph
from dermiq.kg.questions import question_types, relations_of
from dermiq.kg.relations import CONDITION, RELATIONS
from dermiq.kg.verbalising import sentence
from dermiq.ranges import check_numbers

_STRENGTH = {"always": 1.0, "typical": 0.9, "possible": 0.5, "rare": 0.4, "never": 0.6}
_LATER_TYPE = 0.8  # of the question types after the first
_LATER_RELATION = 0.85  # for each place in the list of relations that answer a type of question
_ASIDE = 0.5  # a relation that the question does not ask for, if it names the value
_COMPARED = 0.4  # differentials to other conditions, where conditions are compared
_REPEATED = 0.9
_NAMED = 1.0
_DEEP = 3
_COMPARISON = ("differential", "appearance", "symptoms")


def count_words(text: str) -> int:
    """An estimate of the number of tokens of a text: 1.3 for each word, rounded up."""
    return math.ceil(1.3 * len(text.split()))


@dataclass(frozen=True)
class Passage:
    """A retrieved fact.

    Attributes:
        fact: as in the graph.
        sentence: the fact in words.
        citation: the work it cites.
        score: its score; comparable within one question only.
    """

    fact: Fact
    sentence: str
    citation: str
    score: float


def as_context(passages: Iterable[Passage]) -> str:
    """Passages as text for a prompt: numbered sentences with citations, then the sources; empty without passages."""
    numbers: dict[str, int] = {}
    lines = []
    for index, passage in enumerate(passages, start=1):
        number = numbers.setdefault(passage.citation, len(numbers) + 1)
        lines.append(f"{index}. {passage.sentence} [{number}]")
    if not lines:
        return ""
    return "\n".join([*lines, "", "Sources:", *(f"[{number}] {citation}" for citation, number in numbers.items())])


class Retriever:
    """Retrieves the facts that answer a question.

    Args:
        ontology: an OWL file in place of the one that comes with the package.
        merge: OWL files to merge on top of it.
        budget: the most tokens of `as_context` of the passages.
        notes: include the notes of facts, in brackets; they qualify, but a model may copy them out of context.
    """

    def __init__(
        self,
        ontology: Path | None = None,
        merge: list[Path] | None = None,
        budget: int = 200,
        notes: bool = True,
    ) -> None:
        self.ontology = ontology
        self.merge = merge
        self.budget = budget
        self.notes = notes
        check_numbers(self, budget="[1, inf)")

    def __getstate__(self) -> dict[str, object]:
        return {"ontology": self.ontology, "merge": self.merge, "budget": self.budget, "notes": self.notes}

    @cached_property
    def graph(self) -> KnowledgeGraph:
        """The knowledge graph, loaded on first use."""
        return load_graph(self.ontology, self.merge or ())

    @cached_property
    def _reader(self) -> ClaimReader:
        return ClaimReader(self.graph)

    @cached_property
    def _differential(self) -> Differential:
        return Differential(self.graph)

    @cached_property
    def _shared(self) -> Counter[tuple[str, str]]:
        """(relation, value) -> how many conditions have it."""
        return Counter((fact.relation, fact.value) for fact in self.graph.facts if fact.positive)

    def retrieve(
        self,
        question: str,
        conditions: Sequence[str] = (),
        budget: int | None = None,
        count_tokens: Callable[[str], int] = count_words,
    ) -> list[Passage]:
        """The facts that answer a question, best first; none if it is about nothing that the graph knows.

        Args:
            question: free text.
            conditions: names of further conditions, such as the one in the image.
            budget: the most tokens of `as_context` of the passages; None takes that of the retriever.
            count_tokens: text -> number of tokens.

        Raises:
            KnowledgeError: if the graph lacks one of `conditions`.
        """
        named = dict.fromkeys(link[2] for link in self._reader.mentions(question))
        asked = [concept for concept in named if self.graph.concepts[concept].kind == CONDITION]
        values = frozenset(concept for concept in named if concept not in asked)
        view = list(dict.fromkeys((*(self.graph.find(name).id for name in conditions), *asked)))
        view += self._drugs(values)
        view = view or self._caused_by(values)
        if not view:
            return self._pick(self._pointed_to(values), self.budget if budget is None else budget, count_tokens)
        relevance = self._relevance(question, view, asked, values)
        scored: dict[Fact, float] = {}
        for condition in view:
            for name in RELATIONS:
                for fact in self.graph.about(condition, name):
                    score = self._score(fact, relevance.get(name, 0.0), values, view)
                    if score > 0.0:
                        scored.setdefault(fact, score)
        return self._pick(scored, self.budget if budget is None else budget, count_tokens)

    def _drugs(self, values: frozenset[str]) -> list[str]:
        """The treatments among some values of which it is known when they must not be used, beside such a state."""
        if STATES.isdisjoint(values):
            return []
        return [value for value in sorted(values) if "contraindicated_in" in self.graph.facts_of(value)]

    def _pointed_to(self, values: frozenset[str]) -> dict[Fact, float]:
        """The facts by which findings point to conditions, of the likeliest first."""
        return {
            fact: score * _REPEATED**place
            for score, facts in self._differential(values)
            for place, fact in enumerate(facts)
        }

    def _caused_by(self, values: frozenset[str]) -> list[str]:
        """The conditions with an agent among some values, or below one of them."""
        return list(
            dict.fromkeys(
                fact.subject
                for fact in self.graph.facts
                if fact.relation == "agent" and fact.positive and self._names(fact, values)
            )
        )

    def _relevance(
        self, question: str, view: Sequence[str], asked: Sequence[str], values: frozenset[str]
    ) -> dict[str, float]:
        """Relation -> its relevance to the question, in [0, 1]."""
        types: tuple[str | None, ...] = question_types(question)
        if "differential" in types:
            types = tuple(kind for kind in types if kind != "diagnosis")  # a "differential diagnosis" is one thing
        several = any(not self.graph.related(one, other) for one, other in combinations(asked, 2))
        if len(view) > 1 and ("differential" in types or (several and not types)):
            types = (*_COMPARISON, *(kind for kind in types if kind not in _COMPARISON))
        kinds = {self.graph.concepts[value].kind for value in values}
        if not types and (named := [name for name, relation in RELATIONS.items() if relation.range in kinds]):
            return dict.fromkeys(named, 1.0)
        relevance: dict[str, float] = {}
        for place, kind in enumerate(types or (None,)):
            for step, relation in enumerate(relations_of(kind)):
                weight = (_LATER_TYPE if place else 1.0) * (_LATER_RELATION**step if kind else 1.0)
                relevance[relation] = max(weight, relevance.get(relation, 0.0))
        return relevance

    def _score(self, fact: Fact, relevance: float, values: frozenset[str], view: Sequence[str]) -> float:
        named = self._names(fact, values)
        if fact.relation == "differential" and len(view) > 1:
            others = [condition for condition in view if not self.graph.related(condition, fact.subject)]
            named = any(self.graph.related(fact.value, other) for other in others)
            relevance *= 1.0 if named else _COMPARED
        if named and fact.relation == "differential" and not relevance:
            return 0.0  # of two conditions in a question about something else
        if named:
            relevance = max(relevance, _ASIDE)
        score = relevance * _STRENGTH.get(fact.strength, 0.0) * self._specificity(fact)
        return score + (_NAMED if named else 0.0)

    def _names(self, fact: Fact, values: frozenset[str]) -> bool:
        """True if the question names the value of a fact, an ancestor of it or, where facts inherit, a descendant."""
        if fact.value in values or values & self.graph.ancestors[fact.value]:
            return True
        relation = RELATIONS[fact.relation]
        if fact.relation == "colour_on_dark_skin" and "dark_skin" in values:
            return True
        if relation.functional:
            return any(self.graph.concepts[value].kind == relation.range for value in values)
        return relation.inherits and any(fact.value in self.graph.ancestors[value] for value in values)

    def _specificity(self, fact: Fact) -> float:
        """The specificity of a fact's value, from 0.6 if all conditions share it to 1; 1 in a functional relation."""
        if RELATIONS[fact.relation].functional:
            return 1.0
        count = max(2, len(self.graph.conditions))
        rarity = 1.0 - math.log(max(1, self._shared[fact.relation, fact.value])) / math.log(count)
        depth = min(_DEEP, len(self.graph.ancestors[fact.value])) / _DEEP
        return 0.6 + 0.3 * rarity + 0.1 * depth

    def _pick(self, scored: dict[Fact, float], budget: int, count_tokens: Callable[[str], int]) -> list[Passage]:
        """The best facts within the budget, relations picked before being discounted; ties in the graph's order."""
        picked: list[Passage] = []
        before: Counter[tuple[str, str]] = Counter()
        facts = list(scored)
        heap = [(-score, place) for place, score in enumerate(scored.values())]
        heapq.heapify(heap)
        while heap:
            priority, place = heapq.heappop(heap)
            fact = facts[place]
            topic = (fact.subject, fact.relation)
            now = -scored[fact] * _REPEATED ** before[topic]
            if now > priority:  # discounted since it was put there
                heapq.heappush(heap, (now, place))
                continue
            text = sentence(self.graph, fact if self.notes else replace(fact, note=""))
            passage = Passage(fact, text, self.graph.cite(fact), round(scored[fact], 4))
            if count_tokens(as_context([*picked, passage])) <= budget:  # what does not fit now will not fit later
                picked.append(passage)
                before[topic] += 1
        return picked
