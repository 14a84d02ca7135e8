"""The phantom: reproducible drawings whose findings are known and visible."""

import numpy as np
import pytest

from dermiq.atlas import ATTRIBUTES, CONDITIONS, VOCABULARY, Condition, concept_of
from dermiq.datamodules.phantom import PhantomSource
from dermiq.datamodules.phantom.lesion import draw
from dermiq.schema import DataError

BASE = {
    "site": "trunk",
    "morphology": "macule",
    "colour": "brown",
    "border": "regular",
    "surface": "smooth",
    "structure": "structureless",
}


def test_the_same_sample_is_drawn_twice_alike_and_independent_of_the_count() -> None:
    first, second = PhantomSource(count=3, seed=7), PhantomSource(count=30, seed=7)
    for i in range(3):
        assert first[i] == second[i]
        reference = first[i].images[0]
        assert first.image(reference).tobytes() == second.image(reference).tobytes()


def test_another_seed_draws_other_lesions() -> None:
    first, second = PhantomSource(count=20, seed=0), PhantomSource(count=20, seed=1)
    assert [sample.findings for sample in first] != [sample.findings for sample in second]
    assert first.image("phantom-0-0.png").tobytes() != second.image("phantom-1-0.png").tobytes()


def test_samples_say_what_was_drawn() -> None:
    source = PhantomSource(count=200, seed=3)
    source.load()
    assert len(source) == 200
    for sample in source[:200]:
        assert tuple(sample.findings) == ATTRIBUTES
        assert sample.findings_drawn
        assert all(len(values) == 1 for values in sample.findings.values())
        assert all(values[0] in CONDITIONS[sample.target].findings[a] for a, values in sample.findings.items())
        assert sample.synonyms == CONDITIONS[sample.target].synonyms
        assert concept_of(sample.target) == sample.target
        assert sample.skin_type is not None and sample.skin_type.scale == "fitzpatrick"
        assert (sample.licence, sample.group) == ("CC0-1.0", sample.id)


def test_samples_follow_the_atlas() -> None:
    source = PhantomSource(count=4000, seed=5)
    samples = list(source)
    targets = [sample.target for sample in samples]
    assert all(abs(targets.count(name) / 4000 - 1 / 8) < 0.03 for name in CONDITIONS)
    colours = [sample.findings["colour"][0] for sample in samples if sample.target == "psoriasis"]
    assert abs(colours.count("red") / len(colours) - CONDITIONS["psoriasis"].findings["colour"]["red"]) < 0.1


def test_indices_behave_like_those_of_a_list() -> None:
    source = PhantomSource(count=4)
    assert source[-1] == source[3]
    assert list(source[1:3]) == [source[1], source[2]]
    with pytest.raises(IndexError):
        source[4]


def test_images_have_the_asked_size() -> None:
    image = PhantomSource(count=1, size=64).image("phantom-0-0.png")
    assert (image.size, image.mode) == ((64, 64), "RGB")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_each_value_changes_the_image(attribute: str) -> None:
    pictures = []
    for value in VOCABULARY[attribute]:
        rng = np.random.default_rng(0)
        pictures.append(draw({**BASE, attribute: value}, "III", 96, rng).astype(float))
    # Noise alone is below 0.03 * 255 per pixel; a finding has to stand out from it somewhere.
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert (np.abs(first - second).max(axis=2) > 30.0).mean() > 0.003


def test_bayes_accuracy_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two conditions that differ in colour and border only.

    Colour is brown with 0.8 or 0.4, border regular with 0.7 or 0.2. The best reader sees
    (brown, regular) 0.56 v 0.08, (brown, irregular) 0.24 v 0.32, (red, regular) 0.14 v 0.12 and
    (red, irregular) 0.06 v 0.48, and is right with (0.56 + 0.32 + 0.14 + 0.48) / 2 = 0.75.
    """
    same = {a: {BASE[a]: 1.0} for a in ATTRIBUTES}
    toy = {}
    for name, brown, regular in (("psoriasis", 0.8, 0.7), ("melanoma", 0.4, 0.2)):
        table = {"colour": {"brown": brown, "red": 1 - brown}, "border": {"regular": regular, "irregular": 1 - regular}}
        toy[name] = Condition(name=name, synonyms=(), malignant=False, findings={**same, **table})
    monkeypatch.setattr("dermiq.datamodules.phantom.source.CONDITIONS", toy)
    assert PhantomSource(count=1).bayes_accuracy() == pytest.approx(0.75)


def test_the_atlas_leaves_something_undecided() -> None:
    assert 0.85 < PhantomSource(count=1).bayes_accuracy() < 0.92
    assert PhantomSource(count=1, conditions=["melanoma"]).bayes_accuracy() == pytest.approx(1.0)


def test_a_reference_of_another_source_is_refused() -> None:
    source = PhantomSource(count=2, seed=1)
    for reference in ("phantom-0-1.png", "phantom-1-2.png", "photo.jpg"):
        with pytest.raises(DataError, match="no image of this phantom"):
            source.image(reference)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(DataError, match="count=0"):
        PhantomSource(count=0)
    with pytest.raises(DataError, match="acne"):
        PhantomSource(count=1, conditions=["acne"])
    with pytest.raises(DataError, match="no conditions"):
        PhantomSource(count=1, conditions=[])
