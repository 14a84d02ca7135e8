"""The formula of `dermiq.kg.scorer`, recomputed by hand on the small graph of `kg_lab`; and the scorer as a reward."""

from __future__ import annotations

import math
import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dermiq.kg import Concept, Fact, KGScore, KGScorer, KnowledgeGraph
from dermiq.kg.ontology.writing import to_rdf_xml
from dermiq.kg.scorer import MAX_WORDS
from dermiq.prompts import parse
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis
from dermiq.schema import Answer, KnowledgeError, Sample
from support.kg import WORK, said, small_scorer

BLUE = "Psoriasis is blue."  # contradicted: the list of its colours is closed
PLAQUES = "Psoriasis shows plaques."
APPEARANCE = "appearance"
SAMPLE = Sample(id="case-1", images=(), target="psoriasis", label="pso", group="1", question="How is it treated?")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> KGScorer:
    return small_scorer(tmp_path_factory.mktemp("kg"))


def f_score(precision: float, coverage: float) -> float:
    return 2 * precision * coverage / (precision + coverage) if precision and coverage else 0.0


def check_formula(score: KGScore) -> None:
    """What holds between the numbers of any score."""
    harm = 1 - math.prod(1 - item.severity for item in score.contradicted)
    assert score.harm == pytest.approx(harm)
    assert score.score == pytest.approx((1 - harm) * f_score(score.precision, score.coverage))
    assert all(0 < item.severity <= 1 for item in score.contradicted)
    assert all(item.severity == 0 for item in (*score.supported, *score.unknown))


SHARED = (math.log(7 / 2) / math.log(7)) ** 2  # the weight of a fact that two of the six conditions share; alone, 1
ONE = 1 + SHARED  # the name of the condition, and such a fact
MOST, OVERALL = 1.8, 2.8  # what is needed at most, of a type of question and of none

# (answer, condition, type of question, weight of support, weight of contradiction, coverage)
BY_HAND = [
    # what was stated, over what the question needs
    (PLAQUES, "psoriasis", APPEARANCE, 1, 0, ONE / MOST),
    (PLAQUES, "psoriasis", None, 1, 0, ONE / OVERALL),
    ("Psoriasis shows plaques. It is red. It is found on the elbow and the scalp.", "psoriasis", APPEARANCE, 4, 0, 1),
    (
        "Psoriasis shows plaques and silvery scale. It is red. It is found on the elbow and the scalp.",
        "psoriasis", APPEARANCE, 5, 0, 1,
    ),
    ("Psoriasis is treated first with emollients and topical corticosteroids.", "psoriasis", "treatment", 2, 0, 1),
    ("Psoriasis does not cause fever.", "psoriasis", "symptoms", 1, 0, 1),
    ("Tinea is caused by dermatophytes. Tinea is a fungal infection.", "tinea", None, 2, 0, 1),
    ("Tinea corporis is caused by dermatophytes.", "tinea corporis", "cause", 1, 0, ONE / MOST),  # known of tinea
    # a fact that is possibly so counts a quarter
    ("Psoriasis is found on the face.", "psoriasis", APPEARANCE, 1, 0, (1 + SHARED / 4) / MOST),
    ("Psoriasis is found on the face and is silver.", "psoriasis", APPEARANCE, 2, 0, (1 + SHARED / 4 + 1 / 4) / MOST),
    # of one relation no more than the weight of the name counts if everything is asked for
    ("Psoriasis is found on the elbow, the scalp and the face.", "psoriasis", None, 3, 0, 2 / OVERALL),
    ("Psoriasis is found on the elbow, the scalp and the face.", "psoriasis", APPEARANCE, 3, 0, 1),
    # two names of one fact are two claims, but one fact; without the name of the condition less is covered
    ("It shows scale and silvery scale.", "psoriasis", APPEARANCE, 2, 0, 1 / MOST),
    ("It shows scale.", "psoriasis", APPEARANCE, 1, 0, SHARED / MOST),  # shared by tinea, where it is just scale
    ("It shows plaques.", "psoriasis", APPEARANCE, 1, 0, SHARED / MOST),
    ("The diagnosis is psoriasis.", "psoriasis", "diagnosis", 1, 0, 1 / MOST),
    ("The diagnosis is tinea.", "tinea corporis", "diagnosis", 1, 0, 0.5 / MOST),
    # a hedged claim weighs half
    ("Psoriasis may show plaques.", "psoriasis", APPEARANCE, 0.5, 0, ONE / 2 / MOST),
    ("Psoriasis may be found on the face.", "psoriasis", APPEARANCE, 0.5, 0, (1 + SHARED / 4) / 2 / MOST),
    (f"{PLAQUES} Psoriasis may be red.", "psoriasis", APPEARANCE, 1.5, 0, 1),
    (f"{PLAQUES} Psoriasis is possibly blue.", "psoriasis", APPEARANCE, 1, 0.5, ONE / MOST),
    ("Psoriasis may be benign.", "psoriasis", None, 0, 0, 0),
    ("Psoriasis may be non-contagious.", "psoriasis", "contagion", 0, 0, 0),
    ("Psoriasis may call for a routine appointment.", "psoriasis", "urgency", 0, 0, 0),
    ("The diagnosis is possibly psoriasis.", "psoriasis", "diagnosis", 0, 0, 0),
    # what has no bearing on the question, or is about another condition, supports nothing
    ("Psoriasis is benign.", "psoriasis", APPEARANCE, 0, 0, 0),
    ("Melanoma is malignant.", "psoriasis", None, 0, 0, 0),
    # but contradicts all the same
    (f"{PLAQUES} Psoriasis is malignant.", "psoriasis", APPEARANCE, 1, 1, ONE / MOST),
    (f"{PLAQUES} Melanoma is benign.", "psoriasis", APPEARANCE, 1, 1, ONE / MOST),
    (f"{PLAQUES} {BLUE}", "psoriasis", APPEARANCE, 1, 1, ONE / MOST),
    (f"{PLAQUES} {BLUE} Psoriasis is contagious.", "psoriasis", APPEARANCE, 1, 2, ONE / MOST),
    (f"{BLUE} Psoriasis is contagious.", "psoriasis", APPEARANCE, 0, 2, 0),
    # nothing at all
    ("", "psoriasis", None, 0, 0, 0),
    ("I do not know.", "psoriasis", None, 0, 0, 0),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "condition", "question", "supported", "contradicted", "coverage"), BY_HAND)
def test_the_formula_by_hand(scorer, answer, condition, question, supported, contradicted, coverage):
    score = scorer.score(answer, condition, question)
    total = supported + contradicted
    assert score.precision == pytest.approx(supported / total if total else 0)
    assert score.coverage == pytest.approx(coverage)
    assert (score.harm > 0) == (contradicted > 0)
    check_formula(score)


def test_three_scores_worked_out_to_the_end(scorer):
    assert scorer.score("It shows plaques.", "psoriasis", APPEARANCE).score == pytest.approx(0.3743, abs=1e-4)
    assert scorer.score("Psoriasis does not cause fever.", "psoriasis", "symptoms").score == pytest.approx(1)
    wrong = scorer.score(f"It shows plaques. {BLUE}", "psoriasis", APPEARANCE)  # precision 1/2, coverage 0.2302
    assert wrong.score == pytest.approx((1 - wrong.contradicted[0].severity) * 0.3153, abs=1e-4)


UNFOUNDED = " It is found on the hand."  # the graph does not know


@pytest.mark.parametrize(
    ("answer", "precision"),
    [
        (f"{PLAQUES}{UNFOUNDED} It is due to crowding.", 1 / (1 + 2 - 0.5)),
        (f"{PLAQUES} Psoriasis is red.{UNFOUNDED}", 1),  # one in three is granted
        (f"{PLAQUES} It is not found on the hand. It is not due to crowding. It does not itch at night.", 1),
        (f"{PLAQUES} Scabies is found on the scalp. Scabies is due to stress.", 1),
    ],
)
def test_what_the_graph_does_not_know_of_the_case_costs_where_it_is_much(scorer, answer, precision):
    assert scorer.score(answer, "psoriasis").precision == pytest.approx(precision)


@pytest.mark.parametrize(
    "answer",
    [
        "Psoriasis shows plaques and is blue.",
        "Psoriasis is blue and shows plaques.",
        "Psoriasis is benign, but it is contagious.",
        "Psoriasis shows plaques, whereas melanoma is benign.",
        f"{BLUE} Psoriasis is blue and shows plaques.",  # the same mistake twice
        "Psoriasis is blue. Psoriasis may be blue and shows plaques.",
    ],
)
def test_a_sentence_with_a_contradiction_earns_no_credit(scorer, answer):
    score = scorer.score(answer, "psoriasis")
    assert said(score, "supported"), "otherwise there is no credit to withhold"
    assert len(score.contradicted) == 1
    assert (score.precision, score.coverage, score.score) == (0, 0, 0)


def test_what_a_wrong_sentence_and_a_right_one_both_say_is_credited_to_the_right_one(scorer):
    wrong = "Psoriasis shows plaques and is blue."
    first, last = (scorer.score(text, "psoriasis") for text in (f"{PLAQUES} {wrong}", f"{wrong} {PLAQUES}"))
    assert first.precision == last.precision == 0.5
    assert first.score == last.score > 0


@pytest.mark.parametrize("times", [2, 5, 40])
def test_a_claim_counts_once(scorer, times):
    answer = f"{PLAQUES} Psoriasis is red. Psoriasis is contagious."
    once, often = scorer.score(answer, "psoriasis"), scorer.score(" ".join([answer] * times), "psoriasis")
    assert often.score == once.score > 0
    for name in ("supported", "contradicted", "unknown"):
        assert said(often, name) == said(once, name)
        assert len(getattr(often, name)) == len(getattr(once, name))


def test_of_a_plain_and_a_hedged_claim_the_plain_one_counts(scorer):
    plain = scorer.score(PLAQUES, "psoriasis").score
    for answer in (f"{PLAQUES} Psoriasis may show plaques.", f"Psoriasis may show plaques. {PLAQUES}"):
        assert scorer.score(answer, "psoriasis").score == plain


def test_words_beyond_the_limit_earn_nothing_but_can_contradict(scorer):
    def after(words: int, answer: str) -> KGScore:
        return scorer.score("lorem " * words + answer, "psoriasis", APPEARANCE)

    assert after(MAX_WORDS - 3, PLAQUES).score == scorer.score(PLAQUES, "psoriasis", APPEARANCE).score
    late = after(MAX_WORDS - 2, PLAQUES)
    assert said(late, "supported")
    assert late.score == 0
    assert after(5 * MAX_WORDS, BLUE).harm == scorer.score(BLUE, "psoriasis").harm > 0
    assert scorer.score(f"{PLAQUES} {'lorem ' * MAX_WORDS}. {BLUE}", "psoriasis", APPEARANCE).precision == 0.5


def harm(scorer: KGScorer, answer: str, condition: str) -> float:
    score = scorer.score(answer, condition)
    assert len(score.contradicted) == 1, answer
    check_formula(score)
    return score.harm


def test_sending_the_ill_home_costs_more_than_calling_an_ambulance_for_nothing(scorer):
    over = harm(scorer, "Psoriasis calls for emergency care.", "psoriasis")
    a_step_under = harm(scorer, "Melanoma calls for a routine appointment.", "melanoma")
    two_steps_under = harm(scorer, "Melanoma calls for self-care.", "melanoma")
    assert over < a_step_under < two_steps_under


def test_denying_that_care_is_urgent_costs_more_than_calling_an_ambulance_for_nothing(scorer):
    over = harm(scorer, "Psoriasis calls for emergency care.", "psoriasis")
    assert over < harm(scorer, "It would be wrong to say that melanoma calls for an urgent referral.", "melanoma")


@pytest.mark.parametrize(
    "answer",
    ["Melanoma is benign.", "Melanoma is not malignant.", "The diagnosis is psoriasis.", "This is not melanoma."],
)
def test_underrated_malignancy_costs_most(scorer, answer):
    most = harm(scorer, answer, "melanoma")
    others = [
        ("Psoriasis is malignant.", "psoriasis"),
        ("Psoriasis is contagious.", "psoriasis"),
        ("The diagnosis is melanoma.", "psoriasis"),
        ("The diagnosis is scabies.", "psoriasis"),
        ("Psoriasis is treated with oral corticosteroids.", "psoriasis"),
        ("Scabies is treated first with emollients.", "scabies"),
        ("Scabies is caused by Staphylococcus aureus.", "scabies"),
        ("Melanoma calls for self-care.", "melanoma"),
        (BLUE, "psoriasis"),
    ]
    for other, condition in others:
        assert harm(scorer, other, condition) < most, other


@pytest.mark.parametrize(
    ("plain", "hedged", "condition"),
    [
        ("Melanoma is benign.", "Melanoma is possibly benign.", "melanoma"),
        (BLUE, "Psoriasis is possibly blue.", "psoriasis"),
        ("Melanoma calls for self-care.", "Melanoma possibly calls for self-care.", "melanoma"),
    ],
)
def test_a_hedged_mistake_does_half_the_harm(scorer, plain, hedged, condition):
    assert harm(scorer, hedged, condition) == pytest.approx(harm(scorer, plain, condition) / 2)


def test_the_contradiction_rate_counts_unknown_claims_too(scorer):
    score = scorer.score(f"{PLAQUES} {BLUE} Psoriasis is found on the hand. Psoriasis is red.", "psoriasis")
    assert score.contradiction_rate == pytest.approx(1 / 4)
    assert scorer.score("", "psoriasis").contradiction_rate == 0


def test_a_judged_claim_shows_its_evidence(scorer):
    score = scorer.score("Scabies is caused by Staphylococcus aureus and is contagious.", "scabies")
    [wrong] = score.contradicted
    assert [(fact.relation, fact.value) for fact in wrong.verdict.evidence] == [("agent", "sarcoptes_scabiei")]
    [right] = score.supported
    assert scorer.graph.cite(right.verdict.evidence[0]) == "A Handbook of Nothing (Nobody, 2000)"


@pytest.mark.parametrize("name", ["psoriasis", "Psoriasis", " PSORIASIS ", "psoriasis vulgaris"])
def test_a_condition_goes_by_any_of_its_names(scorer, name):
    assert scorer.score(PLAQUES, name) == scorer.score(PLAQUES, "psoriasis")


@pytest.mark.parametrize(
    ("name", "close"), [("psoriasi", "psoriasis"), ("melanom", "melanoma"), ("tinea corpris", "tinea corporis")]
)
def test_an_unknown_condition_is_an_error_that_names_what_is_close(scorer, name, close):
    with pytest.raises(KnowledgeError, match=close) as error:
        scorer.score(PLAQUES, name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", ["", "xyzzy", "plaque", "x" * 1_000_000])
def test_an_unknown_condition_like_none_is_an_error_too(scorer, name):
    with pytest.raises(KnowledgeError) as error:
        scorer.score(PLAQUES, name)
    assert len(str(error.value)) < 1000


def test_an_unknown_type_of_question_is_an_error_that_names_those_there_are(scorer):
    with pytest.raises(KnowledgeError, match=r"'treatments'.*treatment"):
        scorer.score(PLAQUES, "psoriasis", "treatments")


def test_it_pickles_as_where_its_graph_comes_from(scorer):
    expected = scorer.score(f"{PLAQUES} {BLUE}", "psoriasis")
    data = pickle.dumps(scorer)
    assert len(data) < 1000
    assert pickle.loads(data).score(f"{PLAQUES} {BLUE}", "psoriasis") == expected
    assert pickle.loads(pickle.dumps(expected)) == expected


def test_it_works_in_spawned_processes(scorer):
    answers = [(PLAQUES, "psoriasis"), (BLUE, "psoriasis"), ("Melanoma is malignant.", "melanoma")]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(scorer.score, answers) == [scorer.score(*answer) for answer in answers]


class ScoredAnswers(Dataset[float]):
    """Answers that are scored where they are loaded."""

    def __init__(self, scorer: KGScorer, answers: list[tuple[str, str]]) -> None:
        self.scorer, self.answers = scorer, answers

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, index: int) -> float:
        return self.scorer.score(*self.answers[index]).score


@pytest.mark.slow
def test_it_works_in_spawned_data_loader_workers():
    answers = [
        ("Psoriasis is non-contagious.", "psoriasis"),
        ("Psoriasis is contagious.", "psoriasis"),
        ("Melanoma is malignant. Melanoma is brown.", "melanoma"),
        ("Scabies is caused by mites and causes itching.", "scabies"),
    ]
    scorer = KGScorer()  # the real graph
    loader = DataLoader(ScoredAnswers(scorer, answers), batch_size=2, num_workers=2, multiprocessing_context="spawn")
    scores = torch.cat(list(loader)).tolist()
    assert scores == [scorer.score(*answer).score for answer in answers]
    assert scores[0] > scores[1] == 0


def completion(think: str, answer: str) -> Answer:
    return parse(f"<think> {think} </think> <answer> {answer} </answer>")


TREATED = "Psoriasis is treated first with emollients."


def test_as_a_reward_in_a_mixture(scorer):
    mixture = RewardMixture({"diagnosis": RewardTerm(diagnosis, 1.0), "knowledge": RewardTerm(scorer, 0.5)})
    good, bad = completion(TREATED, "psoriasis"), completion("Psoriasis is contagious.", "melanoma")
    scores = mixture([[good, bad]], [SAMPLE])
    expected = scorer.score(TREATED, "psoriasis", "treatment").score
    assert scores.by_term["knowledge"].tolist() == [[pytest.approx(expected), 0.0]]
    assert scores.total.tolist() == [[pytest.approx(1 + 0.5 * expected), 0.0]]


def test_as_a_reward_it_reads_the_question_the_reasoning_and_the_diagnosis(scorer):
    answer = completion(TREATED, "melanoma")
    score = scorer.judge(answer, SAMPLE)
    assert scorer(answer, SAMPLE) == score.score
    assert ("psoriasis", "diagnosis", "melanoma", True) in said(score, "contradicted")
    assert scorer.judge(completion(TREATED, "psoriasis"), SAMPLE).coverage == 1


def test_as_a_reward_it_reads_a_broken_completion_as_it_stands(scorer):
    answer = parse(f"{TREATED} <think>")
    assert answer.diagnosis is None
    assert scorer(answer, SAMPLE) == scorer.score(TREATED, "psoriasis", "treatment").score > 0


def test_it_does_not_apply_to_a_target_that_the_graph_does_not_know(scorer):
    """Labels of data sets have names that the ontology lacks; cards and tables check their spelling."""
    sample = Sample(id="case-9", images=(), target="phytophotodermatitis", label="", group="1")
    assert scorer(completion(TREATED, "psoriasis"), sample) is None
    assert scorer(completion(TREATED, "psoriasis"), replace(sample, concepts=("psoriasis",))) > 0


def test_another_ontology_and_one_laid_on_top_are_a_matter_of_a_path(tmp_path: Path):
    small = small_scorer(tmp_path)
    with pytest.raises(KnowledgeError):
        small.score("", "vitiligo")
    concepts = {one: small.graph.concepts[one] for one in ("red", "benign")}
    concepts["frobnitis"] = Concept("frobnitis", "condition", "frobnitis")
    facts = [
        Fact("frobnitis", "colour", "red", "always", True, WORK),
        Fact("frobnitis", "malignancy", "benign", "always", True, WORK),
    ]
    more = tmp_path / "more.owl"
    more.write_text(to_rdf_xml(KnowledgeGraph(concepts, tuple(facts), small.graph.citations)), encoding="utf-8")
    both = KGScorer(small.ontology, merge=[more])
    assert both.score("Frobnitis is red. It is harmless.", "frobnitis").score == 1  # by a name of the graph below
    assert said(both.score(BLUE, "psoriasis"), "contradicted")
