"""Consistency: which condition the stated findings speak for, by Bayes' rule on the ontology's appearances."""

import copy
import pickle
import time
from dataclasses import replace

import pytest
from jsonargparse import ArgumentParser

from dermiq.findings import VOCABULARY
from dermiq.kg import ReasoningConsistency, TypicalDescription, load_graph
from dermiq.kg.appearance import appearance, typical
from dermiq.kg.consistency import SLIP
from dermiq.prompts import describe, parse
from dermiq.rewards import RewardMixture
from dermiq.schema import KnowledgeError, Sample

GRAPH = load_graph()
SAMPLE = Sample(id="case-1", images=("1.jpg",), target="melanoma", label="mel", group="1")
TWO = ["psoriasis", "vitiligo"]


def completion(think, answer):
    return parse(f"<think> {think} </think> <answer> {answer} </answer>")


def probability(condition, attribute, *values):
    """Of one of the values of an attribute, by the formula of the module."""
    looks = appearance(GRAPH, condition)[attribute]
    known = sum(looks.get(value, 0.0) for value in values)
    return (1 - SLIP) * known + SLIP * len(values) / len(VOCABULARY[attribute])


def test_one_finding_by_hand():
    """Scale is 2 of 3 in psoriasis and never in vitiligo; 7 surfaces share the slips."""
    assert appearance(GRAPH, "psoriasis")["surface"]["scaly"] == pytest.approx(2 / 3)
    assert "scaly" not in appearance(GRAPH, "vitiligo")["surface"]
    psoriasis, vitiligo = 0.95 * 2 / 3 + 0.05 / 7, 0.05 / 7
    expected = psoriasis / (psoriasis + vitiligo)
    assert ReasoningConsistency(TWO)(completion("scaly", "psoriasis"), SAMPLE) == pytest.approx(expected)
    assert ReasoningConsistency(TWO)(completion("scaly", "vitiligo"), SAMPLE) == pytest.approx(1 - expected)


def test_findings_multiply():
    said = completion("surface : scaly . colour : white . morphology : plaque .", "psoriasis")
    stated = {"surface": "scaly", "colour": "white", "morphology": "plaque"}
    likelihood = dict.fromkeys(TWO, 1.0)
    for condition in TWO:
        for attribute, value in stated.items():
            likelihood[condition] *= probability(condition, attribute, value)
    expected = likelihood["psoriasis"] / sum(likelihood.values())
    assert ReasoningConsistency(TWO)(said, SAMPLE) == pytest.approx(expected)


def test_several_values_mean_one_of_them():
    odds = [probability(condition, "colour", "white", "red") for condition in TWO]
    found = ReasoningConsistency(TWO)(completion("white or red", "vitiligo"), SAMPLE)
    assert found == pytest.approx(odds[1] / sum(odds))
    assert found < ReasoningConsistency(TWO)(completion("white", "vitiligo"), SAMPLE)


def test_naming_every_value_earns_nothing():
    everything = " ".join(value for values in VOCABULARY.values() for value in values)
    for condition in TWO:
        assert ReasoningConsistency(TWO)(completion(everything, condition), SAMPLE) == 0


def test_saying_a_finding_again_adds_nothing():
    consistency = ReasoningConsistency(TWO)
    once, often = completion("scaly", "psoriasis"), completion("scaly " * 50, "psoriasis")
    assert consistency(once, SAMPLE) == consistency(often, SAMPLE)


def test_a_denied_finding_is_none():
    assert ReasoningConsistency(TWO)(completion("It is not scaly.", "psoriasis"), SAMPLE) == 0


@pytest.mark.parametrize(
    ("think", "answer"),
    [("", "psoriasis"), ("no idea", "psoriasis"), ("scaly", "dragon pox"), ("scaly", "melanoma"),
     ("scaly", "psoriasis or vitiligo")],
)  # fmt: skip
def test_no_finding_no_name_and_a_condition_outside_earn_nothing(think, answer):
    assert ReasoningConsistency(TWO)(completion(think, answer), SAMPLE) == 0


def test_broken_structure_earns_nothing_and_conversation_has_no_say():
    consistency = ReasoningConsistency(TWO)
    assert consistency(parse("scaly, so psoriasis"), SAMPLE) == 0
    assert consistency(parse("scaly, so psoriasis"), replace(SAMPLE, reply="It is psoriasis.")) is None
    assert consistency(completion("scaly", "a"), replace(SAMPLE, kind="choice", options=("a", "b"))) is None


def test_it_never_looks_at_the_truth():
    consistency, said = ReasoningConsistency(), completion("surface : scaly . colour : red .", "psoriasis")
    others = [
        replace(SAMPLE, target="psoriasis", concepts=("psoriasis",)),
        replace(SAMPLE, id="psoriasis-7", images=("psoriasis.png",), label="psoriasis", findings={"colour": ("red",)}),
    ]
    assert {consistency(said, sample) for sample in others} == {consistency(said, SAMPLE)}


def test_all_conditions_compete_unless_some_are_named():
    """Over all names of the ontology the probabilities of one reasoning add up to 1."""
    think = "surface : scaly . morphology : plaque ."
    consistency = ReasoningConsistency()
    shares = {concept.id: consistency(completion(think, concept.label), SAMPLE) for concept in GRAPH.conditions}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["psoriasis"] > 5 * shares["vitiligo"]
    assert shares["psoriasis"] < ReasoningConsistency(TWO)(completion(think, "psoriasis"), SAMPLE)


def test_the_typical_look_of_a_condition_speaks_for_it():
    """Of conditions that look different, each is the most probable one given its own typical look."""
    names = ["melanoma", "psoriasis", "vitiligo", "seborrheic keratosis", "basal cell carcinoma"]
    consistency = ReasoningConsistency(names)
    for condition in names:
        think = describe(typical(GRAPH, condition))
        shares = {name: consistency(completion(think, name), SAMPLE) for name in names}
        assert max(shares, key=shares.get) == condition


def test_unknown_or_too_few_conditions_are_refused():
    with pytest.raises(KnowledgeError, match="dragon pox"):
        ReasoningConsistency(["psoriasis", "dragon pox"])(completion("scaly", "psoriasis"), SAMPLE)
    with pytest.raises(KnowledgeError, match="at least two"):
        ReasoningConsistency(["psoriasis", "plaque psoriasis"])(completion("scaly", "psoriasis"), SAMPLE)


def test_a_batch_costs_next_to_nothing():
    """128 completions, all different, against all conditions; a step of training takes a hundred times as long."""
    consistency, surfaces, colours = ReasoningConsistency(), VOCABULARY["surface"], VOCABULARY["colour"]
    thinks = [f"{a} {b} {c}" for a in surfaces for b in colours for c in VOCABULARY["site"]][:128]
    consistency(completion("scaly", "psoriasis"), SAMPLE)
    start = time.process_time()
    for think in thinks:
        consistency(completion(think, "psoriasis"), SAMPLE)
    assert time.process_time() - start < 1.0


def test_it_copies_and_comes_from_yaml():
    parser = ArgumentParser()
    parser.add_argument("--rewards", type=RewardMixture)
    fn = {"class_path": "dermiq.kg.ReasoningConsistency", "init_args": {"conditions": TWO}}
    parsed = parser.parse_object({"rewards": {"terms": {"consistency": {"fn": fn}}, "outcome": "consistency"}})
    made = parser.instantiate_classes(parsed).rewards.terms["consistency"].fn
    said = completion("scaly", "psoriasis")
    value = ReasoningConsistency(TWO)(said, SAMPLE)
    assert {each(said, SAMPLE) for each in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made)))} == {value}


def test_a_typical_description_is_of_the_most_typical_values():
    looks = typical(GRAPH, "psoriasis")
    text = TypicalDescription()(replace(SAMPLE, target="plaque psoriasis"))
    assert text == describe(looks) and "surface : scaly ." in text
    assert TypicalDescription()(replace(SAMPLE, target="spots", concepts=("psoriasis", "vitiligo"))) == text
    assert TypicalDescription()(replace(SAMPLE, target="dragon pox")) is None
    assert TypicalDescription()(replace(SAMPLE, target="psoriasis", reply="It is psoriasis.")) is None
