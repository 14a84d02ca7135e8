"""Retrieval: the facts that answer a question, within the budget, and nothing for what the graph does not know."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dermiq.kg import Concept, Fact, KnowledgeGraph
from dermiq.kg.questions import QUESTION_TYPES
from dermiq.kg.retrieval import Passage, Retriever, as_context, count_words
from dermiq.schema import KnowledgeError

RETRIEVER = Retriever()
GRAPH: KnowledgeGraph = RETRIEVER.graph
QUESTIONS = (
    "How is {} treated?",
    "What does {} look like?",
    "Is {} contagious?",
    "What causes {}?",
    "How soon should {} be seen by a doctor?",
    "What is the differential diagnosis of {}?",
    "Tell me about {}.",
)


def relations(passages: list[Passage]) -> set[str]:
    return {passage.fact.relation for passage in passages}


def test_treatment_question_gets_treatments_and_only_those() -> None:
    passages = RETRIEVER.retrieve("How is scabies treated?")
    assert "permethrin" in {passage.fact.value for passage in passages[:3]}
    assert relations(passages) <= set(QUESTION_TYPES["treatment"])
    assert {passage.fact.subject for passage in passages} == {"scabies"}


@pytest.mark.parametrize("question", ["What is the weather like?", "", "???", "Is it contagious?", "a" * 100_000])
def test_nothing_without_a_condition(question: str) -> None:
    assert RETRIEVER.retrieve(question) == []
    assert as_context([]) == ""


def test_condition_in_view_needs_no_mention() -> None:
    passages = RETRIEVER.retrieve("Is it contagious?", ["scabies"])
    assert passages[0].fact.relation == "contagious"
    assert passages[0].fact.subject == "scabies"


def test_value_named_in_the_question_comes_first() -> None:
    passages = RETRIEVER.retrieve("Is it contagious on towels?", ["scabies"])
    assert "shared_objects" in {passage.fact.value for passage in passages[:2]}
    assert RETRIEVER.retrieve("Does psoriasis itch?")[0].fact.value == "itch"


def test_named_value_alone_says_what_is_asked() -> None:
    passages = RETRIEVER.retrieve("Is scabies found on the face?")
    assert passages[0].fact.value == "face"
    assert relations(passages) == {"site"}


def test_dark_skin_is_answered_with_dark_skin() -> None:
    assert RETRIEVER.retrieve("What does psoriasis look like on dark skin?")[0].fact.relation == "colour_on_dark_skin"


def test_comparison_gets_both_with_differentials_first() -> None:
    passages = RETRIEVER.retrieve("How do I tell psoriasis from eczema?")
    assert passages[0].fact.relation == "differential"
    assert {passage.fact.subject for passage in passages} >= {"psoriasis", "dermatitis"}
    pair = {"psoriasis", "dermatitis"}
    ends = {passages[0].fact.subject, passages[0].fact.value}
    assert all(any(GRAPH.related(end, one) for one in pair) for end in ends)


def test_agent_stands_for_its_conditions() -> None:
    passages = RETRIEVER.retrieve("Which disease does Sarcoptes scabiei cause?")
    assert {passage.fact.subject for passage in passages} == {"scabies"}
    assert passages[0].fact.relation == "agent"


def test_subform_inherits_what_it_does_not_say_itself() -> None:
    for concept in GRAPH.conditions:
        lacking = "first_line" not in GRAPH.facts_of(concept.id)
        if lacking and GRAPH.about(concept.id, "first_line"):
            passages = RETRIEVER.retrieve(f"How is {concept.label} treated?")
            assert passages and passages[0].fact.subject in GRAPH.ancestors[concept.id]


def test_unknown_condition_in_view_is_an_error() -> None:
    with pytest.raises(KnowledgeError, match="no condition"):
        RETRIEVER.retrieve("How is it treated?", ["martian pox"])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(QUESTIONS), st.sampled_from(GRAPH.conditions), st.integers(0, 400))
def test_context_keeps_the_budget(question: str, concept: Concept, budget: int) -> None:
    passages = RETRIEVER.retrieve(question.format(concept.label), budget=budget)
    assert count_words(as_context(passages)) <= budget
    keys = [passage.fact for passage in passages]
    assert len(set(keys)) == len(keys)


def test_deterministic() -> None:
    fresh = Retriever()
    for concept in GRAPH.conditions[:20]:
        for question in QUESTIONS:
            asked = question.format(concept.label)
            assert fresh.retrieve(asked) == RETRIEVER.retrieve(asked)


def test_best_come_first_but_for_repetition() -> None:
    for concept in GRAPH.conditions[:20]:
        seen: dict[str, float] = {}
        for passage in RETRIEVER.retrieve(f"How is {concept.label} treated?", budget=1000):
            assert passage.score <= seen.get(passage.fact.relation, 9.0)
            seen[passage.fact.relation] = passage.score


def test_pickle_leaves_the_graph_behind() -> None:
    packed = pickle.dumps(RETRIEVER)
    assert len(packed) < 1000
    assert pickle.loads(packed).retrieve("How is scabies treated?") == RETRIEVER.retrieve("How is scabies treated?")


def test_every_condition_answers_what_it_has_facts_for() -> None:
    """At least 19 of 20 names are linked and get a treatment, if the graph knows one."""
    known = [concept for concept in GRAPH.conditions if GRAPH.about(concept.id, "first_line")]
    answered = [
        concept
        for concept in known
        if "first_line" in relations(RETRIEVER.retrieve(f"What is the treatment of {concept.label}?"))
    ]
    assert len(answered) > 0.95 * len(known)


def test_own_tokenizer_is_what_counts() -> None:
    def characters(text: str) -> int:
        return len(text)

    passages = RETRIEVER.retrieve("Tell me about melanoma.", budget=600, count_tokens=characters)
    assert passages
    assert 400 < len(as_context(passages)) <= 600


def test_specific_facts_come_before_common_ones() -> None:
    passages = RETRIEVER.retrieve("What does scabies look like?", budget=10_000)
    place = {(passage.fact.relation, passage.fact.value): index for index, passage in enumerate(passages)}
    assert place["morphology", "burrow"] < place["morphology", "papule"]


def test_diversity_shows_more_than_one_relation_early() -> None:
    assert len(relations(RETRIEVER.retrieve("What does melanoma look like?")[:4])) >= 2


def test_context_numbers_sentences_and_sources() -> None:
    passages = RETRIEVER.retrieve("Tell me about melanoma.", budget=400)
    lines = as_context(passages).splitlines()
    assert lines[0] == f"1. {passages[0].sentence} [1]"
    sources = lines[lines.index("Sources:") + 1 :]
    assert sources == [
        f"[{number}] {citation}"
        for number, citation in enumerate(dict.fromkeys(passage.citation for passage in passages), start=1)
    ]
    assert len(sources) > 1


ASKED = yaml.safe_load((Path(__file__).parent / "retrieval_questions.yaml").read_text(encoding="utf-8"))
FIRST = 5
SHORT = Retriever(budget=160)


@pytest.mark.parametrize(
    ("question", "view", "expected"),
    [row for rows in ASKED.values() for row in rows],
    ids=lambda value: value[:40],
)
def test_questions_as_people_ask_them(question: str, view: str, expected: str) -> None:
    passages = SHORT.retrieve(question, [view] if view else [])[:FIRST]
    found = {" ".join(said) for one in passages for said in _prefixes(one.fact)}
    assert passages == [] if expected == "NIL" else expected in found, sorted(found)


def _prefixes(fact: Fact) -> list[tuple[str, ...]]:
    return [(fact.subject,), (fact.subject, fact.relation), (fact.subject, fact.relation, fact.value)]


def test_there_are_sixty_questions() -> None:
    assert sum(map(len, ASKED.values())) >= 60
