"""Instruction data: questions and answers about a condition, worded from the graph's facts.

`instruction.yaml` has the wordings. An answer names the condition and states one fact of the relation that the question
is about, and at times a second one of a related relation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

import yaml

from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.verbalising import capitalised, named, with_article
from dermiq.schema import KnowledgeError

FINDING = "finding"
_OPENING = 0.75  # how often an answer opens with the name of the condition
_SECOND_FACT = 0.5  # how often it states a second fact
_PRONOUN = 0.5  # how often a condition that has been named is called "it"
_WEIGHTS = {"always": 3.0, "typical": 2.0, "possible": 0.5}  # denied facts are not used


@cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = yaml.safe_load((files("dermiq.kg") / "instruction.yaml").read_text(encoding="utf-8"))
    return tables


def kinds() -> tuple[str, ...]:
    """The kinds of questions: finding, name, cause, contagion, treatment, urgency."""
    return tuple(_tables()["questions"])


def relations(kind: str) -> tuple[str, ...]:
    """The relations that answer a kind of question, the necessary one first; none for findings."""
    return tuple(_tables()["relations"].get(kind, ()))


def question(kind: str, rng: Random) -> str:
    """A question of some kind, in a random wording.

    Raises:
        KnowledgeError: if there is no such kind.
    """
    if kind not in kinds():
        raise KnowledgeError(f"There is no kind of question {kind!r}. Use some of: {', '.join(kinds())}.")
    return rng.choice(_tables()["questions"][kind])  # type: ignore[no-any-return]


def answerable(graph: KnowledgeGraph, condition: str, kind: str) -> bool:
    """True if the graph has a fact of a condition that answers a kind of question; always true for findings."""
    if kind == FINDING:
        return True
    return bool(_facts(graph, graph.find(condition).id, relations(kind)[0]))


def describe_findings(findings: Mapping[str, Sequence[str]], rng: Random) -> str:
    """Findings in prose, in a random wording.

    Args:
        findings: the attributes of `dermiq.findings`, of which the first value is stated.
        rng: chooses the wording.
    """
    values = {attribute: known[0] for attribute, known in findings.items()}
    values["colour"] = with_article(values["colour"])
    template: str = rng.choice(_tables()["findings"])
    if "{border} border" in template:
        values["border"] = with_article(values["border"])
    return template.format(**values)


def answer(graph: KnowledgeGraph, condition: str, kind: str, rng: Random, facts: Sequence[Fact] | None = None) -> str:
    """A true answer to a kind of question about a condition, in a random wording.

    Args:
        graph: where the facts come from.
        condition: its name, a synonym or an xref.
        kind: of question, other than about findings; must be `answerable`.
        rng: chooses the facts, stronger ones more often, and the wording.
        facts: use these alone if any of them answers; None uses all of the graph.
    """
    concept = graph.find(condition)
    first, *others = relations(kind)
    chosen = [_choose(_facts(graph, concept.id, first, facts), rng)]
    related = [fact for relation in others for fact in _facts(graph, concept.id, relation, facts)]
    if related and rng.random() < _SECOND_FACT:
        chosen.append(_choose(related, rng))
    name = named(concept)
    sentences = [rng.choice(_tables()["openings"]).format(c=name)] if rng.random() < _OPENING else []
    for fact in chosen:
        subject = "it" if sentences and rng.random() < _PRONOUN else name
        sentences.append(capitalised(_worded(graph, fact, subject, name, rng)))
    return " ".join(sentences)


def _facts(graph: KnowledgeGraph, condition: str, relation: str, among: Sequence[Fact] | None = None) -> Sequence[Fact]:
    known = [fact for fact in graph.about(condition, relation) if fact.strength in _WEIGHTS]
    given = [fact for fact in among or () if fact.relation == relation and fact.strength in _WEIGHTS]
    return given or known


def _choose(facts: Sequence[Fact], rng: Random) -> Fact:
    return rng.choices(facts, [_WEIGHTS[fact.strength] for fact in facts])[0]


def _worded(graph: KnowledgeGraph, fact: Fact, subject: str, name: str, rng: Random) -> str:
    tables = _tables()
    templates: list[str] = tables["special"].get(fact.value) or tables["statements"][fact.relation]
    if fact.strength == "possible":
        templates = [template for template in templates if "{often}" in template] or templates
    value = tables["urgency"][fact.value] if fact.relation == "urgency" else named(graph.concepts[fact.value])
    often = rng.choice(tables["adverbs"][fact.strength])
    return rng.choice(templates).format(s=subject, c=name, v=value, often=often)
