"""Metrics against counts by hand."""

from dataclasses import replace
from math import nan

import pytest
import torch

from dermiq.metrics import DiagnosisMetrics, EvaluationMetrics, majority, named_concept
from dermiq.prompts import parse
from dermiq.schema import Sample

SAMPLE = Sample(id="1", images=(), target="melanocytic nevus", label="nv", group="1", synonyms=("mole",))


def answer(name):
    return parse(f"<think></think><answer>{name}</answer>")


def computed(targets, named):
    metrics = DiagnosisMetrics()
    metrics.update(targets, named)
    return {name: value.item() for name, value in metrics.compute().items()}


def test_three_kinds_of_accuracy():
    """Targets a a a b b c, named a a b b x a.

    accuracy 3/6.  recalls: a 2/3, b 1/2, c 0, mean 7/18.
    F1 = 2 right / (actual + named): a 4 / (3 + 3), b 2 / (2 + 2), c 0 / (1 + 0); mean (2/3 + 1/2) / 3 = 7/18.
    """
    found = computed("aaabbc", "aabbxa")
    assert found == pytest.approx({"accuracy": 0.5, "balanced_accuracy": 7 / 18, "macro_f1": 7 / 18})


def test_the_majority_answer_is_at_chance_when_balanced():
    """Targets a x 8, b x 2, always named a: accuracy 0.8, recalls 1 and 0, F1 16/18 and 0."""
    found = computed("aaaaaaaabb", "aaaaaaaaaa")
    assert found == pytest.approx({"accuracy": 0.8, "balanced_accuracy": 0.5, "macro_f1": 8 / 18})


def test_batches_add_up():
    metrics = DiagnosisMetrics()
    metrics.update("aaa", "aab")
    metrics.update("bbc", "bxa")
    assert metrics.compute()["macro_f1"].item() == pytest.approx(7 / 18)


def test_a_malformed_answer_counts_as_wrong():
    assert named_concept(parse("melanocytic nevus"), SAMPLE) == ""
    assert computed(["nevus"], [""])["accuracy"] == 0


@pytest.mark.parametrize(
    ("name", "concept"),
    [
        ("mole", "melanocytic nevus"),  # a synonym of this sample
        ("Rodent ulcer", "basal cell carcinoma"),  # a synonym of the atlas
        ("Vitiligo.", "vitiligo"),  # unknown: the text itself
    ],
)
def test_names_become_concepts(name, concept):
    assert named_concept(answer(name), SAMPLE) == concept


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["melanoma", "mole", "naevus"], "melanocytic nevus"),
        (["melanoma", "mole"], "melanoma"),  # a tie: the earliest
        (["mole", "melanoma"], "melanocytic nevus"),
        (["psoriasis", "mole", "melanoma", "melanoma", "mole"], "melanocytic nevus"),
        (["", "", "melanoma"], "melanoma"),  # malformed answers do not vote
        (["", ""], ""),
    ],
)
def test_majority(names, expected):
    assert majority([answer(name) if name else parse("?") for name in names], SAMPLE) == expected


def test_evaluation_joins_greedy_answers_samples_and_means():
    metrics = EvaluationMetrics()
    metrics.update([SAMPLE, SAMPLE], [answer("mole"), answer("melanoma")], {"reward": torch.tensor([1.0, 0.0])})
    metrics.update([SAMPLE], [answer("mole")], {"reward": torch.tensor([0.5])})
    metrics.update_majority([SAMPLE] * 3, ["melanoma", "melanoma", "melanocytic nevus"])
    found = metrics.compute()
    assert found["accuracy"].item() == pytest.approx(2 / 3)
    assert found["majority_accuracy"].item() == pytest.approx(1 / 3)
    assert found["reward"].item() == pytest.approx(0.5)


def test_reset_forgets_everything():
    metrics = EvaluationMetrics()
    metrics.update([SAMPLE], [answer("melanoma")], {"reward": torch.tensor([1.0])})
    metrics.update_majority([SAMPLE], ["melanoma"])
    metrics.reset()
    metrics.update([SAMPLE], [answer("mole")], {"reward": torch.tensor([0.25])})
    found = metrics.compute()
    assert found["accuracy"].item() == 1 and found["reward"].item() == 0.25
    assert "majority_accuracy" not in found


def test_conversation_has_metrics_of_its_own():
    """Two diagnoses, one right, and two replies; a value that does not apply (NaN) is left out of its mean."""
    metrics = EvaluationMetrics()
    talk = replace(SAMPLE, reply="A mole.")
    answers = [answer("mole"), answer("melanoma"), parse("A mole."), parse("It is brown.")]
    values = {"length": torch.tensor([1.0, 2.0, 3.0, 5.0]), "format": torch.tensor([1.0, 0.0, nan, nan])}
    metrics.update([SAMPLE, SAMPLE, talk, talk], answers, values)
    metrics.update_majority([SAMPLE, talk], ["melanocytic nevus", "melanoma"])
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found["accuracy"] == 0.5 and found["majority_accuracy"] == 1.0
    assert (found["length"], found["conversation/length"], found["format"]) == (1.5, 4.0, 0.5)
    assert "conversation/format" not in found


def test_conversation_alone_can_be_judged():
    metrics = EvaluationMetrics()
    assert not metrics.update_called
    metrics.update([replace(SAMPLE, reply="A mole.")], [parse("A mole.")], {"length": torch.tensor([3.0])})
    assert metrics.update_called and {name: float(v) for name, v in metrics.compute().items()} == {
        "conversation/length": 3.0
    }
