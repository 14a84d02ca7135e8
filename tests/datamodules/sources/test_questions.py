"""Questions beside the diagnosis: what is asked, and that nothing but the image tells the answer."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from dermiq.datamodules.phantom import PhantomSource
from dermiq.datamodules.sources import HAM10000, ChoiceQuestions, FindingQuestions, ManagementQuestions
from dermiq.prompts import QUESTION, chosen_option, gold_completion, parse
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis, unhedged, well_formed
from dermiq.schema import DataError
from support.small_data import write_ham10000


@pytest.fixture(scope="module")
def ham10000(tmp_path_factory):
    return HAM10000(str(write_ham10000(tmp_path_factory.mktemp("ham10000"), lesions_per_diagnosis=4)))


@pytest.fixture(scope="module")
def choices(ham10000):
    questions = ChoiceQuestions(ham10000)
    questions.load()
    return questions


def test_choices_show_the_target_once_among_distinct_options(choices, ham10000):
    for sample, original in zip(choices, ham10000, strict=True):
        assert sample.question == QUESTION + "".join(f"\n{'ABCD'[i]}. {name}" for i, name in enumerate(sample.options))
        assert len(set(sample.options)) == 4 and sample.options["ABCD".index(sample.target)] == original.target
        assert sample.group == original.group and sample.links == original.links and sample.id != original.id


def test_places_are_balanced_within_each_target(choices, ham10000):
    places = defaultdict(Counter)
    for sample, original in zip(choices, ham10000, strict=True):
        places[original.target][sample.target] += 1
    assert all(set(count.values()) == {2} and len(count) == 4 for count in places.values())


def places_of(questions, source):
    """target -> how often the right option of its questions stands at each letter."""
    questions.load()
    places = defaultdict(Counter)
    for sample, original in zip(questions, source, strict=True):
        assert sample.options["ABCD".index(sample.target)] == original.target
        places[original.target][sample.target] += 1
    return places


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ({"A": 5.0}, {"A": 5, "B": 1, "C": 1, "D": 1}),
        ({"B": 3.0, "D": 0.0}, {"B": 24 / 5, "A": 8 / 5, "C": 8 / 5}),
        ({"A": 0, "B": 0, "C": 1, "D": 0}, {"C": 8}),
        ({}, {"A": 2, "B": 2, "C": 2, "D": 2}),
    ],
)
def test_places_may_be_biased(places, expected, ham10000):
    """Eight questions of each of seven targets: each place has its share, rounded up or down."""
    found = places_of(ChoiceQuestions(ham10000, places=places), ham10000)
    assert len(found) == 7
    for count in found.values():
        assert set(count) <= set(expected)
        assert all(abs(count[letter] - number) < 1 for letter, number in expected.items())


def test_a_bias_of_places_leaves_the_options_and_is_set_by_the_seed(choices, ham10000):
    biased, again, other = (ChoiceQuestions(ham10000, seed=seed, places={"A": 5.0}) for seed in (0, 0, 1))
    biased.load(), again.load(), other.load()
    assert list(again) == list(biased) and [s.target for s in other] != [s.target for s in biased]
    assert [set(sample.options) for sample in biased] == [set(sample.options) for sample in choices]
    firsts = [s.target for s in biased]
    assert firsts != sorted(firsts), "the places are in random order"


@pytest.mark.parametrize(
    "places", [{"E": 2.0}, {"a": 2.0}, {"A": -1.0}, {"A": float("nan")}, dict.fromkeys("ABCD", 0.0)]
)
def test_places_that_make_no_sense_are_refused(places, ham10000):
    with pytest.raises(DataError, match=r"`places` is .*: it gives letters from A to D a number from 0 on"):
        ChoiceQuestions(ham10000, places=places)


def test_equal_places_are_dealt_as_ever(choices):
    """The places of one target as they came before `places` existed."""
    assert "".join(sample.target for sample in choices if sample.label == "mel") == "ADBCACBD"


def test_options_are_shuffled_per_sample_and_set_by_the_seed(choices, ham10000):
    assert len({sample.options for sample in choices}) > 20
    again, other = ChoiceQuestions(ham10000), ChoiceQuestions(ham10000, seed=1)
    again.load(), other.load()
    assert list(again) == list(choices) and [s.options for s in other] != [s.options for s in choices]


def test_wrong_options_are_no_forms_of_the_right_one():
    forms = ["melanoma", "nodular melanoma", "melanocytic nevus"]
    source = ConditionsOf(forms)
    with pytest.raises(DataError, match=r"1 targets of the source differ from 'melanoma': too few for 3 options"):
        ChoiceQuestions(source, options=3).load()
    questions = ChoiceQuestions(source, options=2)
    questions.load()
    assert set(questions[0].options) == {"melanoma", "melanocytic nevus"}


@pytest.mark.parametrize("way", ["B", "(b)", "B. psoriasis", "b) psoriasis", "Psoriasis."])
def test_an_option_is_chosen_by_letter_or_name(way):
    answer = parse(f"<think> . </think> <answer> {way} </answer>")
    assert chosen_option(answer, ("acne vulgaris", "psoriasis")) == 1


def test_findings_are_asked_about_rendered_lesions():
    lesions = PhantomSource(40, seed=5)
    questions = FindingQuestions(lesions)
    questions.load()
    asked = Counter(sample.question for sample in questions)
    assert len(questions) == 40 and len(asked) > 4
    for sample, lesion in zip(questions, lesions, strict=True):
        attribute = sample.question.removeprefix("What is the ").removesuffix(" of the lesion?")
        assert lesion.findings[attribute] == (sample.target,)


def test_findings_that_are_only_typical_are_not_asked_for(ham10000):
    with pytest.raises(DataError, match="FindingQuestions: the source has no sample that could be asked this"):
        FindingQuestions(ham10000).load()


def test_management_is_what_the_ontology_says(ham10000):
    questions = ManagementQuestions(ham10000)
    questions.load()
    courses = {sample.label: sample.target for sample in questions}
    assert courses["mel"] == "urgent" and courses["nv"] != "urgent"
    assert questions[0].question == "What does this call for: emergency, urgent, routine or self-care?"


@pytest.mark.parametrize("kind", [ChoiceQuestions, FindingQuestions, ManagementQuestions])
def test_the_gold_answer_earns_the_full_reward_and_is_not_told(kind):
    rewards = RewardMixture({"diagnosis": RewardTerm(diagnosis)}, {"format": well_formed, "hedging": unhedged})
    questions = kind(PhantomSource(20, seed=3))
    questions.load()
    for sample in questions:
        assert float(rewards([[parse(gold_completion(sample))]], [sample]).total) == 1.0
        assert sample.id not in sample.question


def test_a_choice_needs_two_options(ham10000):
    with pytest.raises(DataError, match="between 2 to 26 options, not 1"):
        ChoiceQuestions(ham10000, options=1)


class ConditionsOf(PhantomSource):
    """One sample of each of some conditions, rendered or not."""

    def __init__(self, names):
        super().__init__(len(names))
        self.names = names

    def __getitem__(self, index):
        from dataclasses import replace

        from dermiq.datamodules.sources.reading.card import terminology

        name = self.names[index]
        return replace(super().__getitem__(index), target=name, concepts=(terminology().concept(name),))
