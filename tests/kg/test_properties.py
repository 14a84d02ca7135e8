"""What no answer may gain by, on the real ontology: the properties that keep the score honest."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dermiq.kg import Fact, KGScore, KGScorer, KnowledgeGraph
from dermiq.kg.language.assertion import CUES
from dermiq.kg.linking import words
from dermiq.kg.questions import QUESTION_TYPES, relations_of
from dermiq.kg.scorer import MAX_WORDS
from dermiq.kg.verbalising import sentences

SCORER = KGScorer()
GRAPH = SCORER.graph
CONDITIONS = [concept.id for concept in GRAPH.conditions]
NEAR_ZERO = 0.05
SECONDS = 5.0
EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True)

# Kinds whose names are nouns, which can stand for one another in a sentence.
NOUNS = ("lesion", "surface", "site", "symptom", "dermoscopy", "agent", "test", "treatment")
HEDGES = (
    "It may be that {}",
    "Possibly, {}",
    "Perhaps {}",
    "It is possible that {}",
    "Maybe {}",
    "It might be that {}",
)
DENIALS = ("It is not true that {}", "It is wrong to say that {}", "It is a myth that {}")


def gold_facts(condition: str) -> list[Fact]:
    """What is always or typically so and asked for by some question, without notes."""
    facts = [fact for relation in relations_of(None) for fact in GRAPH.facts_of(condition).get(relation, ())]
    return [replace(fact, note="") for fact in facts if fact.strength in ("always", "typical")]


@st.composite
def some_facts(draw: st.DrawFn, condition: str | None = None) -> list[Fact]:
    """Up to eight of the gold facts of one condition."""
    facts = gold_facts(condition or draw(st.sampled_from(CONDITIONS)))
    return draw(st.lists(st.sampled_from(facts), min_size=1, max_size=8, unique=True))


def said(facts: list[Fact], graph: KnowledgeGraph = GRAPH) -> list[str]:
    return sentences(graph, facts)


def score(answer: str | list[str], condition: str, question: str | None = None) -> KGScore:
    return SCORER.score(answer if isinstance(answer, str) else " ".join(answer), condition, question)


def framed(frame: str, sentence: str) -> str:
    return frame.format(sentence[0].lower() + sentence[1:])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_whole_truth_scores_full_marks(condition):
    answer = said(gold_facts(condition))
    full = score(answer, condition)
    assert not full.contradicted
    assert full.score == pytest.approx(1)


@pytest.mark.parametrize("question", [None, *QUESTION_TYPES])
def test_the_empty_answer_scores_nothing(question):
    for condition in CONDITIONS:
        for answer in ("", " \n", "...", "I am not sure what this is."):
            assert score(answer, condition, question).score == 0


@pytest.mark.parametrize(
    "separator", [", ", " ", " and ", " - ", "\n", "\n- ", "\n* ", ". ", "; ", ": ", " | ", "\t", " / "]
)
def test_a_list_of_terms_scores_next_to_nothing(separator):
    scores = {}
    for condition in CONDITIONS:
        labels = [GRAPH.label(fact.value) for fact in gold_facts(condition)]
        scores[condition] = score(separator.join(labels), condition).score
    high = {condition: value for condition, value in scores.items() if value > NEAR_ZERO}
    assert not high, f"{len(high)} of {len(scores)}, mean {sum(scores.values()) / len(scores):.2f}"


@given(st.data())
@EXAMPLES
def test_a_shuffled_list_of_terms_scores_next_to_nothing_for_any_question(data):
    condition = data.draw(st.sampled_from(CONDITIONS))
    labels = data.draw(st.permutations([GRAPH.label(fact.value) for fact in gold_facts(condition)]))
    question = data.draw(st.sampled_from([None, *QUESTION_TYPES]))
    assert score(", ".join(labels), condition, question).score <= NEAR_ZERO


def test_a_list_of_all_terms_behind_a_name_and_a_colon_scores_next_to_nothing():
    scores = {}
    for condition in CONDITIONS:
        labels = [GRAPH.label(fact.value) for fact in gold_facts(condition)]
        scores[condition] = score(f"{GRAPH.label(condition)}: {', '.join(labels)}", condition).score
    high = {condition: value for condition, value in scores.items() if value > NEAR_ZERO}
    assert not high, f"{len(high)} of {len(scores)}, mean {sum(scores.values()) / len(scores):.2f}"


@given(some_facts(), st.integers(2, 30))
@EXAMPLES
def test_repeating_an_answer_raises_nothing(facts, times):
    condition, answer = facts[0].subject, said(facts)
    assert score(answer * times, condition).score <= score(answer, condition).score


@given(some_facts(), st.sampled_from(HEDGES))
@EXAMPLES
def test_hedging_every_sentence_scores_less(facts, hedge):
    condition, answer = facts[0].subject, said(facts)
    plain, hedged = score(answer, condition), score([framed(hedge, one) for one in answer], condition)
    assert plain.score > 0
    assert hedged.score < plain.score
    assert all(item.claim.hedged for item in hedged.supported)


@pytest.mark.parametrize("hedge", HEDGES)
def test_hedging_everything_there_is_to_say_scores_less(hedge):
    """However much is said."""
    gained = []
    for condition in CONDITIONS:
        answer = said(gold_facts(condition))
        hedged = score([framed(hedge, one) for one in answer], condition).score
        if hedged >= score(answer, condition).score:
            gained.append(condition)
    assert not gained, f"{len(gained)} of {len(CONDITIONS)}"


@given(some_facts(), st.sampled_from(DENIALS))
@EXAMPLES
def test_denying_every_sentence_scores_less(facts, denial):
    condition, answer = facts[0].subject, said(facts)
    negated = [framed(denial, one) for one in answer]
    assert score(negated, condition).score < score(answer, condition).score


@pytest.mark.parametrize("denial", DENIALS)
def test_denying_everything_there_is_to_say_scores_next_to_nothing(denial):
    for condition in CONDITIONS:
        negated = [framed(denial, one) for one in said(gold_facts(condition))]
        assert score(negated, condition).score <= NEAR_ZERO, condition


def wrong_facts() -> list[Fact]:
    """Facts that exclude what the graph holds: another agent, or another value of malignancy, contagion or urgency."""
    wrong = []
    flips = {"malignancy": ("benign", "malignant"), "contagious": ("contagious", "non_contagious")}
    urgencies = tuple(one.id for one in GRAPH.concepts.values() if one.kind == "urgency")
    agents = [one.id for one in GRAPH.concepts.values() if one.kind == "agent"]
    for condition in CONDITIONS:
        for relation, values in {**flips, "urgency": urgencies}.items():
            for fact in GRAPH.facts_of(condition).get(relation, ()):
                if fact.closed:  # otherwise books do not agree
                    wrong += [replace(fact, value=value, note="") for value in values if value != fact.value]
        listed = GRAPH.facts_of(condition).get("agent", ())
        if listed and all(fact.closed and fact.positive for fact in listed):
            others = [one for one in agents if not any(GRAPH.related(one, fact.value) for fact in listed)]
            wrong += [replace(listed[0], value=random.Random(condition).choice(others), note="")]
    return wrong


WRONG = wrong_facts()


@pytest.mark.parametrize("relation", ["agent", "contagious", "malignancy", "urgency"])
def test_a_wrong_sentence_is_contradicted(relation):
    wrong = [fact for fact in WRONG if fact.relation == relation]
    assert len(wrong) > 10
    for fact in wrong:
        found = score(said([fact]), fact.subject)
        assert (fact.subject, fact.value) in {(item.claim.subject, item.claim.value) for item in found.contradicted}, (
            fact
        )
        assert found.score == 0


@given(st.data(), st.sampled_from(WRONG))
@EXAMPLES
def test_a_wrong_sentence_never_helps_wherever_it_stands(data, wrong):
    condition = wrong.subject
    answer = said(data.draw(some_facts(condition)))
    place = data.draw(st.integers(0, len(answer)))
    question = data.draw(st.sampled_from([None, *QUESTION_TYPES]))
    worse = score([*answer[:place], *said([wrong]), *answer[place:]], condition, question)
    better = score(answer, condition, question)
    assert worse.score <= better.score
    assert len(worse.contradicted) > len(better.contradicted)
    assert worse.harm > better.harm


@given(st.data(), st.sampled_from(WRONG))
@EXAMPLES
def test_a_wrong_sentence_dressed_with_a_right_one_never_helps(data, wrong):
    """Nor if the same was said before: ". X is contagious. X is contagious and it itches." """
    condition = wrong.subject
    answer = [*said(data.draw(some_facts(condition))), *said([wrong])]
    right = data.draw(st.sampled_from(said(gold_facts(condition))))
    dressed = f"{said([wrong])[0].removesuffix('.')}, and {right[0].lower()}{right[1:]}"
    assert score([*answer, dressed], condition).score <= score(answer, condition).score


def renamed(facts: list[Fact], draw: st.DrawFn) -> KnowledgeGraph:
    """The graph with the values of facts under another of their names."""
    concepts = dict(GRAPH.concepts)
    for fact in facts:
        concept = concepts[fact.value]
        concepts[fact.value] = replace(concept, label=draw(st.sampled_from((concept.label, *concept.synonyms))))
    return replace(GRAPH, concepts=concepts)


def values(found: KGScore) -> set[tuple[str, str]]:
    return {(item.claim.subject, item.claim.value) for item in found.supported}


@given(st.data())
@EXAMPLES
def test_synonyms_do_not_matter(data):
    facts = [fact for fact in data.draw(some_facts()) if GRAPH.concepts[fact.value].kind in NOUNS]
    facts = [fact for fact in facts if fact.value != "no_treatment"]  # its names are verbs: "leave it alone"
    assume(facts)
    condition = facts[0].subject
    one = score(said(facts), condition)
    other = score(said(facts, renamed(facts, data.draw)), condition)
    assert values(other) == values(one)
    assert other.score == pytest.approx(one.score)


@given(st.data())
@EXAMPLES
def test_names_of_the_condition_do_not_matter(data):
    facts = data.draw(some_facts())
    concept = GRAPH.concepts[facts[0].subject]
    name = data.draw(st.sampled_from((concept.label, *concept.synonyms)))
    graph = replace(GRAPH, concepts={**GRAPH.concepts, concept.id: replace(concept, label=name)})
    assert score(said(facts, graph), name).score == pytest.approx(score(said(facts), concept.label).score)


@given(st.data())
@EXAMPLES
def test_the_order_of_sentences_does_not_matter(data):
    facts = data.draw(some_facts())
    condition = facts[0].subject
    wrong = data.draw(st.lists(st.sampled_from([one for one in WRONG if one.subject == condition]), max_size=2))
    answer = [*said(facts), *said(wrong)]
    assume(len(words(" ".join(answer))) <= MAX_WORDS)
    question = data.draw(st.sampled_from([None, *QUESTION_TYPES]))
    one, other = score(answer, condition, question), score(data.draw(st.permutations(answer)), condition, question)
    assert other.score == pytest.approx(one.score)
    assert values(other) == values(one)


def check_bounds(found: KGScore) -> None:
    for number in (found.score, found.precision, found.coverage, found.harm, found.contradiction_rate):
        assert math.isfinite(number)
        assert 0 <= number <= 1


NAMES = [name for concept in GRAPH.concepts.values() for name in (concept.label, *concept.synonyms)]
PIECES = st.sampled_from([*NAMES, *(phrase for phrase, _ in CUES), "the", "xyzzy", "\u202e", "\x00", "("])


@given(st.lists(PIECES, max_size=60), st.sampled_from(CONDITIONS), st.sampled_from([None, *QUESTION_TYPES]))
@settings(max_examples=400, deadline=None)
def test_any_salad_of_names_and_cues_has_a_score(pieces, condition, question):
    found = score(pieces, condition, question)
    check_bounds(found)
    assert found == score(pieces, condition, question)


@given(st.text(max_size=400), st.sampled_from(CONDITIONS))
@EXAMPLES
def test_any_text_has_a_score(text, condition):
    check_bounds(score(text, condition))
