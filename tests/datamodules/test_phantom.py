"""The phantom: reproducible drawings whose findings are known and visible, and knobs that do what they say."""

import itertools
from math import prod, sqrt

import numpy as np
import pytest
from PIL import Image

from dermiq.datamodules.phantom import CONDITIONS, PhantomSource
from dermiq.datamodules.phantom.__main__ import main
from dermiq.datamodules.phantom.canvas import SKIN_TONES
from dermiq.datamodules.phantom.lesion import render
from dermiq.findings import ATTRIBUTES, VOCABULARY
from dermiq.kg import load_graph
from dermiq.kg.appearance import appearance
from dermiq.schema import DataError

BASE = {
    "site": "trunk",
    "distribution": "solitary",
    "morphology": "plaque",
    "colour": "brown",
    "border": "regular",
    "surface": "smooth",
    "structure": "structureless",
}
PAIR = ["psoriasis", "melanoma"]


def picture(tone="III", seed=0, ruled=False, **findings):
    return render({**BASE, **findings}, tone, 96, np.random.default_rng(seed), ruled).astype(float)


def share(flags):
    flags = list(flags)
    return sum(flags) / len(flags)


def test_the_same_sample_is_rendered_twice_alike_and_independent_of_the_count():
    first, second = PhantomSource(count=3, seed=7), PhantomSource(count=30, seed=7)
    for i in range(3):
        assert first[i] == second[i]
        reference = first[i].images[0]
        assert first.image(reference).tobytes() == second.image(reference).tobytes()


def test_another_seed_draws_other_lesions():
    first, second = PhantomSource(count=20, seed=0), PhantomSource(count=20, seed=1)
    assert [sample.findings for sample in first] != [sample.findings for sample in second]
    assert first.image("phantom-0-0.png").tobytes() != second.image("phantom-1-0.png").tobytes()


def test_samples_say_what_is_rendered():
    source, graph = PhantomSource(count=200, seed=3), load_graph()
    source.load()
    looks = {name: appearance(graph, name) for name in CONDITIONS}
    assert len(source) == 200
    for number, sample in enumerate(source[:200]):
        lesion = source.lesion(number)
        assert sample.target == sample.label == lesion.label == lesion.condition
        assert tuple(sample.findings) == ATTRIBUTES
        assert sample.findings_observed
        assert {attribute: values[0] for attribute, values in sample.findings.items()} == lesion.findings
        assert all(value in looks[sample.target][a] for a, (value,) in sample.findings.items())
        assert sample.concepts == (graph.find(sample.target).id,)
        assert sample.synonyms == graph.find(sample.target).synonyms
        assert sample.skin_type is not None
        assert (sample.skin_type.scale, sample.skin_type.value) == ("fitzpatrick", lesion.tone)
        assert (sample.dataset, sample.site) == ("phantom", lesion.findings["site"])
        assert (sample.licence, sample.group) == ("CC0-1.0", sample.id)


def test_samples_follow_the_ontology():
    samples = list(PhantomSource(count=4000, seed=5))
    targets = [sample.target for sample in samples]
    assert all(abs(targets.count(name) / 4000 - 1 / len(CONDITIONS)) < 0.015 for name in CONDITIONS)
    red = share(sample.findings["colour"] == ("red",) for sample in samples if sample.target == "psoriasis")
    assert abs(red - appearance(load_graph(), "psoriasis")["colour"]["red"]) < 0.1
    for tone in SKIN_TONES:
        assert abs(share(sample.skin_type.value == tone for sample in samples) - 1 / 6) < 0.02


def test_conditions_are_those_of_the_ontology_and_many():
    graph = load_graph()
    assert [graph.find(name).label for name in CONDITIONS] == list(CONDITIONS)
    assert len(set(CONDITIONS)) >= 14


def test_indices_behave_like_those_of_a_list():
    source = PhantomSource(count=4)
    assert source[-1] == source[3]
    assert list(source[1:3]) == [source[1], source[2]]
    with pytest.raises(IndexError):
        source[4]


@pytest.mark.parametrize("size", [16, 33, 64])
def test_images_have_the_asked_size(size):
    source = PhantomSource(count=20, size=size)
    for sample in source:
        image = source.image(sample.images[0])
        assert (image.size, image.mode) == ((size, size), "RGB")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_each_value_changes_the_image(attribute):
    pictures = [picture(**{attribute: value}) for value in VOCABULARY[attribute]]
    # Noise alone is below 0.03 * 255 per pixel; a finding has to stand out from it somewhere.
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert (np.abs(first - second).max(axis=2) > 30.0).mean() > 0.003


def test_every_skin_type_and_the_ruler_change_the_image():
    tones = [picture(tone).mean() for tone in SKIN_TONES]
    assert all(light > dark + 5.0 for light, dark in itertools.pairwise(tones))
    assert (np.abs(picture(ruled=True) - picture()).max(axis=2) > 30.0).mean() > 0.03


def test_redness_is_darker_and_more_violet_on_dark_skin():
    fair, dark = (picture(tone, colour="red")[40:56, 40:56].mean(axis=(0, 1)) for tone in ("I", "VI"))
    assert dark.sum() < fair.sum()
    assert dark[2] / dark[0] > 1.2 * fair[2] / fair[0]


def test_class_imbalance():
    samples = list(PhantomSource(count=1000, conditions=PAIR, prior={"melanoma": 3.0}))
    assert abs(share(sample.target == "melanoma" for sample in samples) - 0.75) < 0.05


def test_label_noise_changes_the_names_and_not_the_pictures():
    clean, noisy = PhantomSource(count=1000, seed=2), PhantomSource(count=1000, seed=2, label_noise=0.3)
    wrong = []
    for number, sample in enumerate(noisy):
        lesion = noisy.lesion(number)
        assert lesion.condition == clean[number].target
        assert sample.findings == clean[number].findings
        assert sample.target == sample.label == lesion.label
        wrong.append(lesion.label != lesion.condition)
    assert abs(share(wrong) - 0.3) < 0.05
    sample = noisy[wrong.index(True)]
    assert sample.concepts == (load_graph().find(sample.target).id,)
    reference = sample.images[0]
    assert noisy.image(reference).tobytes() == clean.image(reference).tobytes()


def test_skin_tone_imbalance_with_and_without_the_diagnosis():
    dark = {tone: 0.0 for tone in ("I", "II", "III", "IV")}
    source = PhantomSource(count=1000, conditions=PAIR, tones={"VI": 0.1}, tones_given={"psoriasis": dark})
    samples = list(source)
    melanoma = [sample.skin_type.value for sample in samples if sample.target == "melanoma"]
    psoriasis = [sample.skin_type.value for sample in samples if sample.target == "psoriasis"]
    assert abs(melanoma.count("VI") / len(melanoma) - 0.1 / 5.1) < 0.03
    assert set(psoriasis) == {"V", "VI"} and abs(psoriasis.count("V") / len(psoriasis) - 0.5) < 0.1


def test_a_ruler_may_give_the_diagnosis_away():
    source = PhantomSource(count=1000, conditions=PAIR, ruler=0.2, ruler_given={"melanoma": 0.9})
    lesions = [source.lesion(number) for number in range(1000)]
    assert abs(share(one.ruler for one in lesions if one.condition == "melanoma") - 0.9) < 0.06
    assert abs(share(one.ruler for one in lesions if one.condition == "psoriasis") - 0.2) < 0.06


def with_findings(source, **tables):
    """The same source with findings of its own for some attributes and the same ones for all others."""
    same = {attribute: {BASE[attribute]: 1.0} for attribute in ATTRIBUTES}
    source.findings = {name: {**same, **tables.get(name, {})} for name in source.conditions}
    return source


def test_bayes_accuracy_by_hand():
    """Two conditions that differ in colour and border only.

    Colour is brown with 0.8 or 0.4, border regular with 0.7 or 0.2. The best reader sees
    (brown, regular) 0.56 v 0.08, (brown, irregular) 0.24 v 0.32, (red, regular) 0.14 v 0.12 and
    (red, irregular) 0.06 v 0.48, and is right with (0.56 + 0.32 + 0.14 + 0.48) / 2 = 0.75.
    """
    toy = {}
    for name, brown, regular in (("psoriasis", 0.8, 0.7), ("melanoma", 0.4, 0.2)):
        border = {"regular": regular, "irregular": 1 - regular}
        toy[name] = {"colour": {"brown": brown, "red": 1 - brown}, "border": border}
    assert with_findings(PhantomSource(1, conditions=PAIR), **toy).bayes_accuracy() == pytest.approx(0.75)
    noisy = PhantomSource(1, conditions=PAIR, label_noise=0.1)
    assert with_findings(noisy, **toy).bayes_accuracy() == pytest.approx(0.75 * 0.9 + 0.25 * 0.1)


@pytest.mark.parametrize(
    ("knobs", "accuracy"),
    [
        ({}, 0.5),
        ({"prior": {"melanoma": 3.0}}, 0.75),
        ({"ruler_given": {"melanoma": 0.9}}, 0.9),
        ({"tones_given": {"melanoma": {"V": 0.0, "VI": 0.0}}}, 0.5 * (1 + 2 / 6)),
        ({"label_noise": 0.3}, 0.5),
        ({"prior": {"melanoma": 0.0}, "label_noise": 0.2}, 0.8),
        ({"prior": {"melanoma": 0.0}, "label_noise": 0.9}, 0.9),  # naming the other one is better
    ],
)
def test_bayes_accuracy_of_the_knobs_alone(knobs, accuracy):
    assert with_findings(PhantomSource(1, conditions=PAIR, **knobs)).bayes_accuracy() == pytest.approx(accuracy)


def test_bayes_accuracy_is_that_of_the_bayes_rule():
    """The rule is applied here to each sample on its own; 3 standard errors of 4,000 samples are 2 points."""
    source = PhantomSource(
        4000,
        seed=6,
        conditions=list(CONDITIONS[:6]),
        prior={"melanoma": 0.3},
        label_noise=0.1,
        tones_given={"actinic keratosis": {"V": 0.1, "VI": 0.1}},
        ruler_given={"melanoma": 0.7},
    )
    right = []
    for number in range(len(source)):
        lesion = source.lesion(number)

        def joint(name, lesion=lesion):
            ruler = source.ruler[name] if lesion.ruler else 1 - source.ruler[name]
            seen = prod(
                source.findings[name][attribute].get(value, 0.0) for attribute, value in lesion.findings.items()
            )
            return source.prior[name] * source.tones[name][lesion.tone] * ruler * seen

        right.append(max(source.conditions, key=joint) == lesion.label)
    expected = source.bayes_accuracy()
    assert abs(share(right) - expected) < 3 * sqrt(expected * (1 - expected) / len(right))


def test_the_findings_leave_something_undecided():
    assert 0.9 < PhantomSource(count=1).bayes_accuracy() < 0.95
    assert PhantomSource(count=1, conditions=["melanoma"]).bayes_accuracy() == pytest.approx(1.0)


def test_a_reference_of_another_source_is_refused():
    source = PhantomSource(count=2, seed=1)
    for reference in ("phantom-0-1.png", "phantom-1-2.png", "photo.jpg"):
        with pytest.raises(DataError, match="no image of this phantom"):
            source.image(reference)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count=0"),
        ({"conditions": ["scurvy"]}, "scurvy"),
        ({"conditions": []}, "none"),
        ({"conditions": ["melanoma", "melanoma"]}, "once"),
        ({"conditions": PAIR, "prior": {"vitiligo": 2.0}}, "vitiligo"),
        ({"prior": {"vitiligo": -1.0}}, "prior"),
        ({"conditions": ["melanoma"], "prior": {"melanoma": 0.0}}, "prior"),
        ({"label_noise": 1.5}, "label_noise"),
        ({"label_noise": 0.1, "conditions": ["melanoma"]}, "two conditions"),
        ({"tones": {"VII": 1.0}}, "VII"),
        ({"tones_given": {"melanoma": {"VII": 1.0}}}, "VII"),
        ({"ruler_given": {"scurvy": 0.5}}, "scurvy"),
        ({"ruler": -0.1}, "ruler"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        PhantomSource(**{"count": 1, **arguments})


def test_the_command_writes_a_sheet(tmp_path):
    out = tmp_path / "sheets" / "sheet.png"
    main(["--preview", str(out), "--size", "32", "--count", "1", "--conditions", "melanoma", "vitiligo"])
    with Image.open(out) as page:
        width, height = page.size
        colours = page.convert("RGB").getcolors(width * height)
    assert width > 6 * 32 and height > 2 * 32
    assert colours is not None and len(colours) > 1000
