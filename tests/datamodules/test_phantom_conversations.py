"""Conversations about synthetic lesions are true, varied and a function of their seed."""

import re
from collections import Counter
from random import Random

import pytest

from dermiq.datamodules.phantom import CONDITIONS, PhantomConversations, PhantomSource
from dermiq.datamodules.sources import ConcatSource
from dermiq.findings import read_findings
from dermiq.kg import KGScorer, Retriever
from dermiq.kg.instruction import FINDING, answer, answerable, describe_findings, kinds, question, relations
from dermiq.kg.questions import question_types
from dermiq.schema import DataError, KnowledgeError
from dermiq.tiny.architecture import WORD, words

SCORER = KGScorer()
MANY = PhantomConversations(400, seed=11, turns=3, grounded=0.5)


@pytest.fixture(scope="module")
def samples():
    return list(MANY)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_answer_is_borne_out_by_the_graph(condition):
    for kind in kinds():
        if kind != FINDING and answerable(SCORER.graph, condition, kind):
            for number in range(20):
                text = answer(SCORER.graph, condition, kind, Random(f"{kind}{number}"))
                score = SCORER.score(text, condition)
                assert score.supported and not score.contradicted, text


def test_replies_state_the_findings():
    for lesion in PhantomSource(50, seed=4):
        told = read_findings(describe_findings(lesion.findings, Random(lesion.id)))
        assert told == dict(lesion.findings)


def test_the_wording_varies(samples):
    for kind in kinds():
        replies = [sample.reply for sample in samples if sample.id.endswith(kind)]
        assert len(set(replies)) > len(replies) / 2
    assert len({message.text for sample in samples for message in sample.history if message.role == "user"}) > 20


def test_a_conversation_is_a_function_of_seed_and_number(samples):
    assert PhantomConversations(400, seed=11, turns=3, grounded=0.5)[7] == samples[7]
    assert PhantomConversations(400, seed=12, turns=3, grounded=0.5)[7] != samples[7]
    assert len({sample.id for sample in samples}) == len(samples)


def test_turns_alternate_and_each_question_is_of_its_own_kind(samples):
    lengths = Counter(len(sample.history) for sample in samples)
    assert set(lengths) == {1, 3, 5}  # the system prompt, then questions with their answers
    for sample in samples:
        assert [message.role for message in sample.history[1:]] == ["user", "assistant"] * (len(sample.history) // 2)


def test_grounded_answers_tell_facts_that_are_shown(samples):
    grounded = [sample for sample in samples if sample.question.startswith("Facts: ")]
    assert 0.3 < len(grounded) / len(samples) < 0.6
    for sample in grounded:
        shown = {claim.claim.value for claim in SCORER.score(sample.question, sample.target).supported}
        told = {claim.claim.value for claim in SCORER.score(sample.reply, sample.target).supported}
        assert shown & told, (sample.question, sample.reply)


def test_findings_are_known_where_they_are_asked_for(samples):
    for sample in samples:
        assert bool(sample.findings) == sample.id.endswith(FINDING)
        assert not sample.asks_diagnosis


def test_the_tiny_vocabulary_has_every_word_of_them(samples):
    retriever = Retriever(budget=60, notes=False)
    texts = [
        text for sample in samples for text in (sample.question, sample.reply, *[m.text for m in sample.history[1:]])
    ]
    for sample in samples[:60]:
        texts += [
            passage.sentence
            for passage in retriever.retrieve(question(sample.id.rsplit("-")[-1], Random(sample.id)), [sample.target])
        ]
    unknown = {word for text in texts for word in re.findall(WORD, text.lower())} - set(words())
    assert not unknown


def test_the_graph_knows_what_each_question_is_after():
    understood = {"finding": "appearance", "name": "diagnosis"}
    for kind in kinds():
        for number in range(20):
            asked = question(kind, Random(number))
            assert question_types(asked)[0] == understood.get(kind, kind), asked


def test_relations_of_findings_are_none():
    assert relations(FINDING) == () and relations("cause")[0] == "cause"


@pytest.mark.parametrize("arguments", [{"turns": 0}, {"grounded": 1.5}, {"kinds": ["weather"]}, {"kinds": []}])
def test_what_makes_no_sense_is_refused(arguments):
    with pytest.raises(DataError):
        PhantomConversations(3, **arguments)
    with pytest.raises(KnowledgeError, match="weather"):
        question("weather", Random(0))


def test_sources_together():
    lesions, conversations = PhantomSource(3, seed=1), PhantomConversations(2, seed=2)
    both = ConcatSource([lesions, conversations])
    both.load()
    assert len(both) == 5 and [sample.id for sample in both] == [
        s.id for part in (lesions, conversations) for s in part
    ]
    assert list(both.table()) == [*lesions.table(), *conversations.table()] and both.missing() == []
    assert both.image(both[4].images[0]) == conversations.image(conversations[1].images[0])
    with pytest.raises(DataError, match="phantom-9-0"):
        both.image("phantom-9-0.png")
    with pytest.raises(DataError, match="at least one"):
        ConcatSource([])
