"""Rewards: what earns what, for every source, and what a broken reward does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dermiq.datamodules.phantom import PhantomSource
from dermiq.datamodules.phantom.source import CONDITIONS
from dermiq.datamodules.sources import HAM10000, TabularSource
from dermiq.findings import VOCABULARY
from dermiq.prompts import gold_completion, parse
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis, findings, truthfulness, unhedged, well_formed
from dermiq.schema import Sample, TrainingError
from support.small_data import write_csv, write_ham10000

SAMPLE = Sample(
    id="case-1",
    images=("1.jpg",),
    target="melanoma",
    label="mel",
    group="1",
    synonyms=("malignant melanoma",),
    findings={"colour": ("black", "variegated"), "border": ("irregular",)},
)
DEFAULT = RewardMixture(
    terms={
        "diagnosis": RewardTerm(diagnosis, 1.0),
        "findings": RewardTerm(findings, 0.5),
        "truthfulness": RewardTerm(truthfulness, 0.0),
    },
    gates={"format": well_formed, "hedging": unhedged},
)


def completion(answer, think="colour : black . border : irregular ."):
    return parse(f"<think> {think} </think> <answer> {answer} </answer>")


def score(mixture, *answers, sample=SAMPLE):
    return mixture([list(answers)], [sample])


def phantom(tmp_path: Path):
    return PhantomSource(count=40, seed=5)


def ham10000(tmp_path: Path):
    return HAM10000(str(write_ham10000(tmp_path, lesions_per_diagnosis=1)))


def table(tmp_path: Path):
    rows = [(f"{i}.jpg", name) for i, name in enumerate([*CONDITIONS, "Rodent ulcer", "nevus"])]
    return TabularSource(str(write_csv(tmp_path / "t.csv", ("file", "dx"), rows)), "file", "dx")


def table_beyond_the_ontology(tmp_path: Path):
    rows = [("0.jpg", "VIT"), ("1.jpg", "MPX")]
    labels = {"VIT": "vitiligo", "MPX": "Warts, molluscum or other viral infections"}
    return TabularSource(str(write_csv(tmp_path / "t.csv", ("file", "dx"), rows)), "file", "dx", labels=labels)


@pytest.mark.parametrize("source", [phantom, ham10000, table, table_beyond_the_ontology])
def test_the_gold_completion_of_every_sample_earns_the_full_reward(source, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    samples = source(tmp_path)
    samples.load()
    assert len(samples) > 0
    for sample in samples:
        scores = score(DEFAULT, parse(gold_completion(sample)), sample=sample)
        assert scores.total.item() == DEFAULT.full, sample.id
        assert scores.correct.item()
        assert {name: value.item() for name, value in scores.by_term.items()} == dict.fromkeys(scores.by_term, 1.0)


@pytest.mark.parametrize("name", ["melanoma", "Melanoma.", "a MELANOMA", "malignant melanoma", "Malignant-Melanoma"])
def test_synonyms_case_and_punctuation_count(name):
    assert diagnosis(completion(name), SAMPLE) == 1


@pytest.mark.parametrize("name", ["nevus", "melanom", "no melanoma", "melanoma in situ", "mel"])
def test_other_names_do_not(name):
    assert diagnosis(completion(name), SAMPLE) == 0


@pytest.mark.parametrize(
    "answer",
    ["melanoma or nevus", "melanoma / nevus", "melanoma, nevus", "possibly melanoma", "melanoma vs nevus",
     "either melanoma or nevus", "Probably a melanoma", "melanoma; nevus", "it could be melanoma",
     "melanoma or melanoma"],
)  # fmt: skip
def test_a_hedged_answer_earns_nothing(answer):
    scores = score(DEFAULT, completion(answer))
    assert scores.total.item() == 0 and not scores.correct.item()
    assert scores.by_term["hedging"].item() == 0
    assert scores.by_term["findings"].item() == 1  # the reasoning was right, and is not paid


@pytest.mark.parametrize("answer", ["nevus", "actinic keratosis", "disorder of the skin", "vsop"])
def test_a_plain_wrong_answer_is_no_hedge(answer):
    assert unhedged(completion(answer), SAMPLE) == 1


def test_the_format_gates_the_reward():
    unclosed = parse("<think> colour : black . </think> <answer> melanoma")
    scores = score(DEFAULT, unclosed)
    assert scores.total.item() == 0 and not scores.correct.item()
    assert scores.by_term["format"].item() == 0


def test_a_wrong_answer_keeps_what_its_reasoning_earned():
    assert score(DEFAULT, completion("nevus")).total.item() == 0.5


def test_findings_count_once_and_only_if_all_is_true():
    """Two attributes are known: each is worth one half."""
    assert findings(completion("x", "black, irregular"), SAMPLE) == 1
    assert findings(completion("x", "black and variegated"), SAMPLE) == 0.5
    assert findings(completion("x", "black"), SAMPLE) == 0.5
    assert findings(completion("x", "black black black"), SAMPLE) == 0.5
    assert findings(completion("x", "black or pink, irregular"), SAMPLE) == 0.5
    assert findings(completion("x", ""), SAMPLE) == 0


@pytest.mark.parametrize("attribute", ["colour", "border"])
def test_naming_all_values_of_an_attribute_earns_nothing_for_it(attribute):
    everything = " ".join(VOCABULARY[attribute])
    assert findings(completion("x", everything), SAMPLE) == 0
    assert truthfulness(completion("x", everything), SAMPLE) == 0


def test_truthfulness_is_the_share_of_true_statements():
    """Of colour and border one is true; the site is not known, so it is not judged."""
    assert truthfulness(completion("x", "black, regular, trunk"), SAMPLE) == 0.5
    assert truthfulness(completion("x", "trunk"), SAMPLE) == 0
    assert truthfulness(completion("x", "black"), SAMPLE) == 1


def test_broken_structure_has_no_reasoning():
    assert findings(parse("colour : black . border : irregular ."), SAMPLE) == 0


def test_terms_add_up_and_weight_zero_is_logged_only():
    mixture = RewardMixture(
        {
            "diagnosis": RewardTerm(diagnosis, 2.0),
            "half": RewardTerm(lambda answer, sample: 0.5, 3.0),
            "free": RewardTerm(lambda answer, sample: 100.0, 0.0),
        }
    )
    scores = score(mixture, completion("melanoma"), completion("nevus"))
    assert scores.total.tolist() == [[3.5, 1.5]]
    assert scores.by_term["free"].tolist() == [[100.0, 100.0]]
    assert scores.correct.tolist() == [[True, False]]
    assert mixture.full == 5.0


def test_gates_multiply():
    gates = {"a": lambda answer, sample: 0.5, "b": lambda answer, sample: 0.4}
    scores = score(RewardMixture({"diagnosis": RewardTerm(diagnosis)}, gates), completion("melanoma"))
    torch.testing.assert_close(scores.total, torch.tensor([[0.2]]))
    assert not scores.correct.item()


def test_shapes_and_dtypes():
    scores = DEFAULT([[completion("nevus")] * 3] * 2, [SAMPLE] * 2)
    assert scores.total.shape == (2, 3) and scores.total.dtype == torch.float32
    assert scores.correct.dtype == torch.bool
    assert {tuple(value.shape) for value in scores.by_term.values()} == {(2, 3)}


def broken(answer, sample):
    raise KeyError("no such concept")


def test_a_reward_that_raises_stops_and_names_itself_and_the_sample():
    mixture = RewardMixture({"diagnosis": RewardTerm(diagnosis), "graph": RewardTerm(broken, 0.0)})
    with pytest.raises(TrainingError) as caught:
        score(mixture, completion("nevus"))
    message = str(caught.value)
    assert "Reward 'graph' failed on sample 'case-1' with KeyError: 'no such concept'" in message
    assert "<answer> nevus </answer>" in message and "Mend the reward" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_stops(value):
    mixture = RewardMixture({"diagnosis": RewardTerm(diagnosis)}, {"gate": lambda answer, sample: value})
    with pytest.raises(TrainingError, match=rf"Reward 'gate' gave {value} for sample 'case-1' .* finite number"):
        score(mixture, completion("nevus"))


def test_a_mixture_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="outcome 'diagnosis' is none of the terms"):
        RewardMixture({"findings": RewardTerm(findings)})
    with pytest.raises(ValueError, match="both terms and gates"):
        RewardMixture({"diagnosis": RewardTerm(diagnosis)}, {"diagnosis": well_formed})


# Conversation


TALK = replace(SAMPLE, question="What do you see?", reply="A black macule with an irregular border.")


def test_rewards_of_diagnoses_do_not_apply_to_conversation():
    answer = parse("A black macule.")
    assert [term(answer, TALK) for term in (diagnosis, well_formed, unhedged)] == [None, None, None]
    assert findings(answer, replace(TALK, findings={})) is None
    assert truthfulness(answer, replace(TALK, findings={})) is None


def test_findings_are_read_from_a_reply_in_plain_words():
    """Of colour and border one is stated, and truly."""
    assert findings(parse("A black macule."), TALK) == 0.5
    assert truthfulness(parse("A brown macule with an irregular border."), TALK) == 0.5
    structured = parse("<think> colour : black . </think> <answer> melanoma </answer> and more")
    assert findings(structured, SAMPLE) == 0  # a broken diagnosis still earns nothing


def test_what_does_not_apply_counts_nothing_and_closes_no_gate():
    mixture = replace(DEFAULT, gates={"format": well_formed})
    scores = mixture([[parse("A black macule.")]], [TALK])
    assert scores.by_term["diagnosis"].isnan().all() and scores.by_term["format"].isnan().all()
    assert scores.total.tolist() == [[0.25]]  # half of the findings, which weigh a half
    assert scores.correct.tolist() == [[False]]
