"""Hierarchical credit: how far from the root to the truth the answer has gone."""

from dataclasses import replace

import pytest
from jsonargparse import ArgumentParser

from dermiq.kg import Terminology
from dermiq.prompts import parse
from dermiq.rewards import DiagnosisCredit, RewardMixture, diagnosis
from dermiq.schema import Sample

TREE = {
    "tumour": (),
    "melanocytic": ("tumour",),
    "nevus": ("melanocytic", "tumour"),
    "blue": ("nevus", "melanocytic", "tumour"),
    "melanoma": ("melanocytic", "tumour"),
    "nodular": ("melanoma", "melanocytic", "tumour"),
    "psoriasis": (),
}
NAMES = {
    "tumour": ("tumour",),
    "melanocytic": ("melanocytic tumour", "melanocytic lesion"),
    "nevus": ("nevus", "mole"),
    "blue": ("blue nevus",),
    "melanoma": ("melanoma",),
    "nodular": ("nodular melanoma",),
    "psoriasis": ("psoriasis",),
}
CATEGORIES = ("tumour", "melanocytic")


class Toy:
    """A tree of conditions under two categories."""

    def concept(self, name):
        found = [concept for concept, names in NAMES.items() if name in names and concept not in CATEGORIES]
        return found[0] if found else None

    def names(self, concept):
        return NAMES[concept]

    def lineage(self, concept):
        return frozenset((concept, *TREE[concept]))


def sample(target, **more):
    return Sample(id="case-1", images=("1.jpg",), target=target, label="x", group="1", **more)


def completion(answer, think="colour : black ."):
    return parse(f"<think> {think} </think> <answer> {answer} </answer>")


@pytest.mark.parametrize(
    ("answer", "credit"),
    [
        ("blue nevus", 1.0),
        ("A Blue-Nevus.", 1.0),
        ("nevus", 3 / 4),
        ("mole", 3 / 4),
        ("melanocytic lesion", 2 / 4),
        ("tumour", 1 / 4),
        ("melanoma", 0.0),  # a cousin
        ("psoriasis", 0.0),
        ("something blue", 0.0),
        ("nevus or melanocytic tumour or tumour", 0.0),
    ],
)
def test_an_ancestor_earns_its_share_of_the_way(answer, credit):
    assert DiagnosisCredit(Toy())(completion(answer), sample("blue nevus")) == credit


def test_a_form_of_the_target_is_right_as_the_metrics_have_it():
    assert DiagnosisCredit(Toy())(completion("nodular melanoma"), sample("melanoma")) == 1
    assert DiagnosisCredit(Toy())(completion("blue nevus"), sample("melanoma")) == 0


def test_of_several_concepts_the_nearest_counts():
    """A label that means a blue nevus or a melanoma: "nevus" has gone 3 of 4 steps, "melanocytic tumour" 2 of 3."""
    lumped = sample("blue nevus", concepts=("blue", "melanoma"), synonyms=("melanoma",))
    assert DiagnosisCredit(Toy())(completion("nodular melanoma"), lumped) == 1
    assert DiagnosisCredit(Toy())(completion("nevus"), lumped) == 3 / 4
    assert DiagnosisCredit(Toy())(completion("melanocytic tumour"), lumped) == 2 / 3


def test_a_label_without_a_place_in_the_tree_is_right_or_wrong():
    broad = sample("dark spot", concepts=("blue", "melanoma"))
    assert DiagnosisCredit(Toy())(completion("dark spot"), broad) == 1
    assert DiagnosisCredit(Toy())(completion("melanocytic tumour"), broad) == 0
    assert DiagnosisCredit(Toy())(completion("tumour"), sample("dark spot")) == 0


def test_the_always_safe_answer_earns_little():
    """The root lies above both, and is worth a quarter; guessing one of them is worth a half on average."""
    credit = DiagnosisCredit(Toy())
    targets = ["blue nevus", "nodular melanoma"]
    assert [credit(completion("tumour"), sample(target)) for target in targets] == [0.25, 0.25]
    assert [credit(completion("blue nevus"), sample(target)) for target in targets] == [1.0, 0.0]


def test_other_questions_are_judged_as_by_the_plain_reward():
    credit = DiagnosisCredit(Toy())
    choice = sample("a", kind="choice", options=("blue nevus", "melanoma"), concepts=("blue",))
    for answer in ("a", "b", "nevus"):
        assert credit(completion(answer), choice) == diagnosis(completion(answer), choice)
    assert credit(parse("A blue nevus."), replace(sample("blue nevus"), reply="It is a blue nevus.")) is None
    assert credit(parse("a blue nevus"), sample("blue nevus")) == 0


def test_the_ontology_joins_it_by_yaml():
    """A blue nevus lies in {itself, melanocytic nevus, melanocytic tumour, benign tumour, tumour}."""
    parser = ArgumentParser()
    parser.add_argument("--rewards", type=RewardMixture)
    terminology = {"class_path": "dermiq.kg.Terminology"}
    fn = {"class_path": "dermiq.rewards.DiagnosisCredit", "init_args": {"terminology": terminology}}
    parsed = parser.parse_object({"rewards": {"terms": {"diagnosis": {"fn": fn}}}})
    mixture = parser.instantiate_classes(parsed).rewards
    assert isinstance(mixture.terms["diagnosis"].fn.terminology, Terminology)
    answers = [completion(name) for name in ("blue nevus", "mole", "melanocytic tumour", "benign growth", "melanoma")]
    scores = mixture([answers], [sample("blue nevus")])
    assert scores.total.tolist() == [pytest.approx([1.0, 4 / 5, 2 / 5, 2 / 5, 0.0])]
    assert scores.correct.tolist() == [[True, False, False, False, False]]
