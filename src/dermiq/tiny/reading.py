"""Reading lessons: questions with facts in the prompt, and answers from them.

The facts are made up: conditions and values are combined at random, so that a model learns to repeat what it is
shown, and nothing about any condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from dermiq.datamodules.phantom import CONDITIONS
from dermiq.kg import Fact, KnowledgeGraph, load_graph
from dermiq.kg.instruction import FINDING, answer, answerable, kinds, question, relations
from dermiq.kg.verbalising import sentence
from dermiq.prompts import grounded_question

_MOST_FACTS = 4


def readings(seed: int) -> Iterator[tuple[str, str]]:
    """Endless lessons: a question after made-up facts, and an answer that states one or two of them."""
    rng = Random(f"reading/{seed}")
    graph = load_graph()
    pool = {
        relation: [fact for name in CONDITIONS for fact in graph.about(graph.find(name).id, relation)]
        for kind in kinds()
        for relation in relations(kind)
    }
    while True:
        condition = rng.choice(list(CONDITIONS))
        kind = rng.choice([kind for kind in kinds() if kind != FINDING and answerable(graph, condition, kind)])
        facts = _made_up(graph, condition, relations(kind), pool, rng)
        passages = [sentence(graph, fact) for fact in facts]
        yield grounded_question(question(kind, rng), passages), answer(graph, condition, kind, rng, facts)


def _made_up(
    graph: KnowledgeGraph, condition: str, about: tuple[str, ...], pool: dict[str, list[Fact]], rng: Random
) -> list[Fact]:
    """Facts about a condition with values of any, the first relation being among them."""
    chosen = [about[0], *rng.choices(about, k=rng.randrange(_MOST_FACTS))]
    subject = graph.find(condition).id
    facts = [replace(rng.choice(pool[relation]), subject=subject, note="") for relation in chosen]
    rng.shuffle(facts)
    return facts
