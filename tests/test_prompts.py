"""The one template and the one parser."""

import pytest

from dermiq.prompts import describe, gold_completion, normalise, parse, question, to_messages
from dermiq.schema import Sample

WELL_FORMED = [
    "<think> brown </think> <answer> melanoma </answer>",
    "<think>brown</think><answer>melanoma</answer>",
    "\n <THINK>\nbrown\n</Think>\n\n<Answer>\n  melanoma\n</ANSWER>\n",
]
BROKEN = {
    "empty": "",
    "no tags": "melanoma",
    "no think": "<answer> melanoma </answer>",
    "no answer": "<think> brown </think>",
    "empty answer": "<think> brown </think> <answer>  </answer>",
    "answer not closed": "<think> brown </think> <answer> melanoma",
    "think not closed": "<think> brown <answer> melanoma </answer>",
    "wrong order": "<answer> melanoma </answer> <think> brown </think>",
    "answer inside think": "<think> brown <answer> melanoma </answer> </think>",
    "think twice": "<think> a </think> <think> b </think> <answer> melanoma </answer>",
    "nested think": "<think> a <think> b </think> </think> <answer> melanoma </answer>",
    "answer twice": "<think> a </think> <answer> melanoma </answer> <answer> nevus </answer>",
    "answer in the answer": "<think> a </think> <answer> <answer> melanoma </answer> </answer>",
    "text before": "Sure. <think> a </think> <answer> melanoma </answer>",
    "text between": "<think> a </think> so <answer> melanoma </answer>",
    "text after": "<think> a </think> <answer> melanoma </answer> I hope so.",
}


def sample(**options):
    return Sample(id="id-7", images=("secret.jpg",), target="melanoma", label="mel", group="lesion-9", **options)


@pytest.mark.parametrize("text", WELL_FORMED)
def test_white_space_and_case_do_not_matter(text):
    answer = parse(text)
    assert answer.well_formed
    assert (answer.text, answer.think, answer.diagnosis) == (text, "brown", "melanoma")


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_the_structure_does(text):
    answer = parse(text)
    assert not answer.well_formed
    assert (answer.text, answer.think, answer.diagnosis) == (text, "", None)


def test_reasoning_may_have_lines_and_be_empty():
    assert parse("<think>a\nb</think><answer>basal\ncell  carcinoma</answer>").diagnosis == "basal cell carcinoma"
    assert parse("<think></think><answer>nevus</answer>").well_formed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Melanoma", "melanoma"),
        (" basal  cell\ncarcinoma. ", "basal cell carcinoma"),
        ("a melanoma", "melanoma"),
        ("The *melanocytic-nevus*", "melanocytic nevus"),
        ("benign_keratosis", "benign keratosis"),
        ("angioma", "angioma"),
    ],
)
def test_normalise(name, expected):
    assert normalise(name) == expected


def test_messages_hold_one_placeholder_per_image_and_the_question():
    several = Sample(id="x", images=("1.jpg", "2.jpg"), target="t", label="l", group="g", question="What is this?")
    system, user = to_messages(several, "Be brief.")
    assert system == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert user["content"] == [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "What is this?"}]


def test_nothing_of_the_sample_leaks_into_the_messages():
    shown = str(to_messages(sample(synonyms=("mm",), findings={"colour": ("black",)}, reasoning="dark")))
    for secret in ("id-7", "secret", "melanoma", "'mel'", "lesion-9", "black", "dark"):
        assert secret not in shown
    assert question(sample()) in shown


def test_gold_completions_parse():
    written = gold_completion(sample(findings={"site": ("trunk", "limb"), "colour": ("black",)}))
    assert written == "<think> site : trunk . colour : black . </think> <answer> melanoma </answer>"
    assert parse(written).diagnosis == "melanoma"
    assert parse(gold_completion(sample(reasoning="It is dark."))).think == "It is dark."
    assert describe({}) == ""
