"""Length and repetition: what so many words earn, right or wrong, and that padding earns no more."""

import pytest

from dermiq.prompts import parse
from dermiq.rewards import CorrectnessWeightedLength, ExtendedChain, LengthBand, Repetition
from dermiq.schema import Sample

SAMPLE = Sample(id="case-1", images=("1.jpg",), target="melanoma", label="mel", group="1")
TALK = Sample(id="case-2", images=("1.jpg",), target="melanoma", label="mel", group="1", reply="It is a melanoma.")
ALL = (ExtendedChain(10), CorrectnessWeightedLength(10), LengthBand(2, 4, 2), Repetition())


def completion(think, answer="melanoma"):
    return parse(f"<think> {think} </think> <answer> {answer} </answer>")


def words(count):
    return " ".join(f"w{number}" for number in range(count))


@pytest.mark.parametrize("reward", ALL, ids=lambda reward: type(reward).__name__)
def test_none_applies_to_conversation(reward):
    assert reward(parse("It is a melanoma."), TALK) is None


@pytest.mark.parametrize("reward", ALL, ids=lambda reward: type(reward).__name__)
def test_words_outside_of_the_structure_earn_nothing(reward):
    assert reward(parse(words(3)), SAMPLE) == 0
    assert reward(parse(words(3) + "<think> </think> <answer> melanoma </answer>"), SAMPLE) == 0


@pytest.mark.parametrize(("count", "value"), [(0, 0.0), (1, 0.1), (5, 0.5), (10, 1.0), (11, 1.0), (500, 1.0)])
def test_an_extended_chain_earns_its_share_of_the_full_length_and_no_more(count, value):
    assert ExtendedChain(10)(completion(words(count)), SAMPLE) == value
    assert ExtendedChain(10)(completion(words(count), "nevus"), SAMPLE) == value


@pytest.mark.parametrize(("count", "value"), [(0, 0.0), (5, 0.5), (500, 1.0)])
def test_correctness_weighted_length_pays_right_answers_only(count, value):
    assert CorrectnessWeightedLength(10)(completion(words(count)), SAMPLE) == value
    assert CorrectnessWeightedLength(10)(completion(words(count), "nevus"), SAMPLE) == 0


@pytest.mark.parametrize(
    ("count", "value"),
    [(0, 0.0), (6, 0.0), (7, 0.25), (9, 0.75), (10, 1.0), (15, 1.0), (20, 1.0), (21, 0.75), (23, 0.25), (24, 0.0),
     (500, 0.0)],
)  # fmt: skip
def test_a_band_falls_off_linearly_on_both_sides(count, value):
    assert LengthBand(low=10, high=20, soft=4)(completion(words(count)), SAMPLE) == value


def test_one_soft_word_makes_hard_edges():
    band = LengthBand(low=2, high=2, soft=1)
    assert [band(completion(words(count)), SAMPLE) for count in (1, 2, 3)] == [0.0, 1.0, 0.0]


def test_a_broken_structure_is_in_no_band():
    assert LengthBand(low=0, high=5, soft=1)(parse("melanoma"), SAMPLE) == 0
    assert LengthBand(low=0, high=5, soft=1)(completion(""), SAMPLE) == 1


def test_repeating_a_sentence_leaves_the_band():
    """Four words fit; said twice they are at the end of the soft edge."""
    band = LengthBand(low=2, high=4, soft=4)
    assert [band(completion("the colour is black " * times), SAMPLE) for times in (1, 2)] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("think", "n", "value"),
    [
        ("a b c d", 2, 0.0),
        ("a b a b", 2, -1 / 3),  # ab ba ab: one of three was there before
        ("a a a a", 1, -3 / 4),
        ("a a a a", 2, -2 / 3),
        ("Black and round . black AND round .", 3, -2 / 6),  # 8 words, 6 trigrams, the last two of them again
        ("a b", 3, 0.0),
        ("", 3, 0.0),
    ],
)
def test_repetition_is_the_share_of_ngrams_that_were_there_before(think, n, value):
    assert Repetition(n)(completion(think), SAMPLE) == pytest.approx(value)


def test_repetition_undoes_what_padding_earns():
    """Padding by repetition is paid by the length alone, and costs all but 4 of its 38 trigrams here."""
    padded = completion("the colour is black " * 10)
    assert ExtendedChain(40)(padded, SAMPLE) == 1
    assert Repetition(3)(padded, SAMPLE) == pytest.approx(-34 / 38)


def test_the_phantoms_way_of_writing_is_no_repetition():
    assert Repetition(3)(completion("site : trunk . colour : brown . border : regular ."), SAMPLE) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExtendedChain(0),
        lambda: CorrectnessWeightedLength(0),
        lambda: LengthBand(5, 4, 1),
        lambda: LengthBand(-1, 4, 1),
        lambda: LengthBand(1, 4, 0),
        lambda: Repetition(0),
    ],
)
def test_impossible_lengths_are_refused(make):
    with pytest.raises(ValueError, match=r"word|band"):
        make()
