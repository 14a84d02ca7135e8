"""Reasoning to learn: with a known share of mistakes, typical of the label, or without any knowledge."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

import pytest

from dermiq.datamodules.phantom import CONDITIONS, PhantomSource
from dermiq.datamodules.sources import FormatOnly, LabelsOnly, NoisyReasoning, TypicalReasoning
from dermiq.findings import ATTRIBUTES, VOCABULARY, read_findings
from dermiq.kg import load_graph
from dermiq.kg.appearance import appearance
from dermiq.prompts import describe, gold_completion, parse
from dermiq.schema import DataError

PHANTOM = PhantomSource(count=100, seed=5)


class Changed(PhantomSource):
    """Synthetic lesions of whose samples some fields are others."""

    def __init__(self, count, **fields):
        super().__init__(count)
        self.fields = fields

    def __getitem__(self, index):
        return replace(super().__getitem__(index), **self.fields)


def loaded(source):
    source.load()
    return source


def wrong(sample, original):
    """The attributes of which a sample's reasoning tells another value than the original's only one."""
    told = read_findings(sample.reasoning)
    return {name for name, values in original.findings.items() if told[name] != values}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_findings_is_told_wrongly(share):
    """Of 100 samples with 7 findings each; 3 standard errors of 700 draws at 0.3 are 0.052."""
    noisy = loaded(NoisyReasoning(PHANTOM, share))
    assert len(noisy) == len(PHANTOM)
    mistakes = 0
    for sample, original in zip(noisy, PHANTOM, strict=True):
        told = read_findings(sample.reasoning)
        assert tuple(told) == ATTRIBUTES and all(len(values) == 1 for values in told.values())
        mistakes += len(wrong(sample, original))
        assert replace(sample, id=original.id, reasoning=None) == original
    assert abs(mistakes / (7 * 100) - share) <= (0.052 if 0 < share < 1 else 0)


def test_noise_is_even_over_the_other_values_and_its_seed_decides():
    noisy = loaded(NoisyReasoning(PHANTOM, 1.0))
    told = Counter(read_findings(sample.reasoning)["site"][0] for sample in noisy)
    assert set(told) == set(VOCABULARY["site"])
    again, other = loaded(NoisyReasoning(PHANTOM, 1.0)), loaded(NoisyReasoning(PHANTOM, 1.0, seed=1))
    assert list(again) == list(noisy)
    assert [sample.reasoning for sample in other] != [sample.reasoning for sample in noisy]


def test_more_noise_keeps_the_mistakes_of_less():
    few, many = loaded(NoisyReasoning(PHANTOM, 0.2)), loaded(NoisyReasoning(PHANTOM, 0.5))
    assert all(wrong(one, o) <= wrong(more, o) for one, more, o in zip(few, many, PHANTOM, strict=True))


def test_a_value_that_is_true_is_never_a_mistake():
    """Where all sites but the scalp are true of an image, the scalp alone is wrong."""
    sites = ("trunk", "limb", "face", "acral")
    noisy = loaded(NoisyReasoning(Changed(9, findings={"site": sites}), 1.0))
    assert {sample.reasoning for sample in noisy} == {"site : scalp ."}
    clean = loaded(NoisyReasoning(Changed(9, findings={"site": sites}), 0.0))
    assert {sample.reasoning for sample in clean} == {"site : trunk ."}


def test_without_findings_there_is_nothing_to_be_wrong_about():
    with pytest.raises(DataError, match="NoisyReasoning: the source has no sample"):
        NoisyReasoning(LabelsOnly(PHANTOM), 0.5).load()
    with pytest.raises(DataError, match=r"between 0 and 1; got 1\.5"):
        NoisyReasoning(PHANTOM, 1.5)


def test_typical_reasoning_is_that_of_the_label_by_the_ontology():
    """Of all values the ontology gives an attribute, the most probable one."""
    typical, graph = loaded(TypicalReasoning(PHANTOM)), load_graph()
    texts = {}
    for sample, original in zip(typical, PHANTOM, strict=True):
        texts.setdefault(sample.target, set()).add(sample.reasoning)
        assert replace(sample, id=original.id, reasoning=None) == original
    assert texts.keys() == set(CONDITIONS) and all(len(of) == 1 for of in texts.values())
    for name, (text,) in texts.items():
        looks = appearance(graph, name)
        for attribute, (value,) in read_findings(text).items():
            assert looks[attribute][value] == max(looks[attribute].values())
    (psoriasis,) = texts["psoriasis"]
    assert "morphology : plaque ." in psoriasis and "colour : red ." in psoriasis and "surface : scaly ." in psoriasis


def test_typical_reasoning_needs_labels_alone():
    """It says the same without the findings, and of a wrong label what is typical of that label."""
    bare, typical = loaded(LabelsOnly(PHANTOM)), loaded(TypicalReasoning(PHANTOM))
    assert [one.reasoning for one in loaded(TypicalReasoning(bare))] == [one.reasoning for one in typical]
    said = {sample.target: sample.reasoning for sample in typical}
    mislabelled = loaded(TypicalReasoning(PhantomSource(count=50, seed=5, label_noise=1.0)))
    assert all(sample.reasoning == said[sample.target] for sample in mislabelled)
    with pytest.raises(DataError, match="TypicalReasoning: the source has no sample"):
        TypicalReasoning(Changed(3, concepts=())).load()


def test_format_only_teaches_the_form():
    for sample in loaded(FormatOnly(PHANTOM)):
        answer = parse(gold_completion(sample))
        assert answer.well_formed and answer.diagnosis in CONDITIONS
        assert describe(read_findings(answer.think)) == answer.think
        assert tuple(read_findings(answer.think)) == ATTRIBUTES


def test_format_only_knows_nothing():
    """The target is right by chance (1 of 16, 3 standard errors of 500 are 0.032), and nothing true is left."""
    source = PhantomSource(count=500, seed=6, prior={"melanoma": 15.0})
    form = loaded(FormatOnly(source))
    pairs = list(zip(form, source, strict=True))
    assert abs(sum(other.target == true.target for other, true in pairs) / 500 - 1 / 16) < 0.032
    frequent = Counter(other.target for other, _ in pairs)
    assert all(abs(frequent[name] / 500 - 1 / 16) < 0.032 for name in CONDITIONS)
    told = [read_findings(other.reasoning)["site"] == true.findings["site"] for other, true in pairs]
    assert abs(sum(told) / 500 - 1 / 5) < 0.054
    graph = load_graph()
    for other, true in pairs[:100]:
        concept = graph.find(other.target)
        assert (other.label, other.synonyms, other.concepts) == (other.target, concept.synonyms, (concept.id,))
        assert other.findings == {} and not other.findings_observed
        assert (other.images, other.group, other.skin_type) == (true.images, true.group, true.skin_type)


def test_the_seed_decides_what_is_told():
    first, again, other = (loaded(FormatOnly(PHANTOM, seed)) for seed in (0, 0, 1))
    assert list(first) == list(again) != list(other)


@pytest.mark.parametrize(
    "source", [NoisyReasoning(PHANTOM, 0.5), TypicalReasoning(PHANTOM), FormatOnly(PHANTOM)], ids=lambda s: type(s)
)
def test_they_survive_pickling_and_show_the_source_images(source):
    source.load()
    again = pickle.loads(pickle.dumps(source))
    assert list(again) == list(source) and len({sample.id for sample in again}) == len(PHANTOM)
    assert again.image("phantom-5-7.png") == PHANTOM.image("phantom-5-7.png")
