"""The one template and the one parser."""

from dataclasses import replace

import pytest

from dermiq.prompts import (
    SYSTEM_PROMPTS,
    answer_text,
    choice_question,
    chosen_option,
    describe,
    gold_completion,
    normalise,
    parse,
    parse_unfinished,
    question,
    reasoning_span,
    to_conversation,
    to_messages,
    with_answer,
    with_facts,
)
from dermiq.schema import Answer, Message, PreferencePair, Sample

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


@pytest.mark.parametrize("text", WELL_FORMED)
def test_where_the_reasoning_stands(text):
    start, end = reasoning_span(text)
    assert text[start:end].strip() == "brown"
    assert (text[:start].lower().strip(), text[end:].lower()[:8]) == ("<think>", "</think>")


@pytest.mark.parametrize("text", ["", "brown", "<think> brown", "brown </think>", "</think> brown <think>"])
def test_no_closed_reasoning_no_span(text):
    assert reasoning_span(text) is None


@pytest.mark.parametrize("text", WELL_FORMED)
def test_another_answer_leaves_the_reasoning_as_it_is(text):
    changed = with_answer(text, "nevus")
    assert parse(changed).diagnosis == "nevus" and changed.endswith(answer_text("nevus"))
    assert changed[: reasoning_span(text)[1]] == text[: reasoning_span(text)[1]]


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


# Conversation

TURNS = (Message("system", "Be brief."), Message("user", "First? <image>"), Message("assistant", "Yes."))
TALK = Sample("t", ("a.jpg", "b.jpg"), "", "", "g", "<image> Second?", TURNS, "No.")
TEXT = {"type": "text", "text": "Second?"}


def test_images_stand_where_they_are_marked():
    first, second = {"type": "text", "text": "First?"}, {"type": "image"}
    assert [message["content"] for message in to_messages(TALK)[1:]] == [
        [first, {"type": "image"}],
        [{"type": "text", "text": "Yes."}],
        [second, TEXT],
    ]


def test_without_marks_images_come_first():
    plain = replace(TALK, history=(Message("user", "First?"), Message("assistant", "Yes.")), question="Second?")
    kinds = [[part["type"] for part in message["content"]] for message in to_messages(plain)]
    assert kinds == [["image", "image", "text"], ["text"], ["text"]]


def test_a_conversation_brings_its_own_system_prompt_or_none():
    assert to_messages(TALK, "Reason.")[0]["content"][0]["text"] == "Be brief."
    assert to_messages(replace(TALK, history=()), "Reason.")[0]["role"] == "user"
    pair = PreferencePair("p", (), "", "", "g", "Why?", chosen="Sun.", rejected="Rain.")
    assert [message["role"] for message in to_messages(pair, "Reason.")] == ["user"]


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        ("<image>\nWhich condition?", [{"type": "image"}, {"type": "text", "text": "Which condition?"}]),
        ("<image>Which condition?", [{"type": "image"}, {"type": "text", "text": "Which condition?"}]),
        ("Which condition?\n<image>", [{"type": "text", "text": "Which condition?"}, {"type": "image"}]),
        ("Is <image> brown?", [{"type": "text", "text": "Is"}, {"type": "image"}, {"type": "text", "text": "brown?"}]),
        (" <image> ", [{"type": "image"}, {"type": "text", "text": "What is the diagnosis?"}]),
        ("Is <Image> brown?", [{"type": "image"}, {"type": "text", "text": "Is <Image> brown?"}]),
    ],
)
@pytest.mark.parametrize("kind", SYSTEM_PROMPTS)
def test_a_mark_in_a_question_is_the_place_of_the_image(asked, content, kind):
    sample = Sample("d", ("a.jpg",), "melanoma", "mel", "g", asked, kind=kind)
    assert to_messages(sample)[1]["content"] == content


def test_only_users_show_images():
    """A mark in a system prompt, in a reply or in an earlier answer is text."""
    turns = (Message("user", "First? <image>"), Message("assistant", "Like <image>."))
    talk = Sample("t", ("a.jpg",), "", "", "g", "Second?", turns, "As in <image>.")
    kinds = [[part["type"] for part in message["content"]] for message in to_conversation(talk)]
    assert kinds == [["text", "image"], ["text"], ["text"], ["text"]]
    (system, _) = to_messages(replace(talk, reply=None, history=()), "Look at <image>.")
    assert system["content"] == [{"type": "text", "text": "Look at <image>."}]


def test_the_reply_is_the_last_turn_of_the_whole_conversation():
    assert to_conversation(TALK)[-1] == {"role": "assistant", "content": [{"type": "text", "text": "No."}]}
    assert to_conversation(TALK)[:-1] == to_messages(TALK)


def test_facts_stand_before_the_last_question():
    messages = to_messages(TALK)
    *before, last = with_facts(messages, ["A.", "B."])
    assert before == messages[:-1] and last["content"][-1]["text"] == "Facts: A. B.\nSecond?"
    assert messages[-1]["content"][-1] == TEXT  # the plain prompt is as it was
    pictured = [{"role": "user", "content": [TEXT, {"type": "image"}]}]
    assert [part["type"] for part in with_facts(pictured, ["A."])[0]["content"]] == ["text", "image"]
    bare = with_facts([{"role": "user", "content": [{"type": "image"}]}], ["A."])
    assert bare[0]["content"][1]["text"] == "Facts: A.\n"


@pytest.mark.parametrize("kind", SYSTEM_PROMPTS)
def test_each_kind_of_question_has_its_own_system_prompt(kind):
    sample = Sample("s", ("a.jpg",), "melanoma", "mel", "g", kind=kind)
    (system, _), (given, _) = to_messages(sample), to_messages(sample, "Look.")
    assert system["content"][0]["text"] == SYSTEM_PROMPTS[kind] and "<answer>" in SYSTEM_PROMPTS[kind]
    assert given["content"][0]["text"] == "Look."
    assert len(set(SYSTEM_PROMPTS.values())) == len(SYSTEM_PROMPTS)


def test_a_choice_is_asked_line_by_line():
    assert choice_question(["melanoma", "nevus"]) == "What is the diagnosis?\nA. melanoma\nB. nevus"


@pytest.mark.parametrize(
    ("text", "place"), [("A", 0), ("b.", 1), ("B) nevus", 1), ("Melanoma", 0), ("C", None), ("", None)]
)
def test_the_chosen_option_is_found_by_letter_or_text(text, place):
    assert chosen_option(Answer(text, "", text or None), ["melanoma", "nevus"]) == place


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("", "")),
        ("It is benign.", ("It is benign.", "")),
        ("<th", ("", "")),
        ("<think> brown", ("brown", "")),
        ("<think> brown </thi", ("brown", "")),
        ("<THINK> brown </Think>\n<ans", ("brown", "")),
        ("<think> brown </think> <answer>  halo\nnev", ("brown", "halo nev")),
        ("brown</think><answer>nevus</answer>", ("brown", "nevus")),
    ],
)
def test_a_completion_that_is_still_written_has_parts(text, parts):
    assert parse_unfinished(text) == parts
