"""Sample -> chat messages, and completion text -> Answer: the only templates and the only parser."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dermiq.schema import Answer, DataError, Kind, Message, Sample

_REASONING = (
    "You are a dermatologist. Look at the image and reason in this order: site and distribution, "
    "morphology, colour, border and surface, differential, diagnosis. Write your reasoning between "
    "<think> and </think>, then "
)
SYSTEM_PROMPT = _REASONING + "the name of exactly one condition between <answer> and </answer>."
SYSTEM_PROMPTS: Mapping[Kind, str] = MappingProxyType(
    {
        "diagnosis": SYSTEM_PROMPT,
        "choice": _REASONING + "the letter of exactly one option between <answer> and </answer>.",
        "finding": (
            "You are a dermatologist. Look at the image and describe what you see between <think> and </think>, then "
            "write the finding asked for, in one word, between <answer> and </answer>."
        ),
        "management": _REASONING + "exactly one of the courses of action offered between <answer> and </answer>.",
        "vqa": (
            "You are a physician. Look at the image and reason between <think> and </think>, then write the answer to "
            "the question, in as few words as it takes, between <answer> and </answer>."
        ),
    }
)
CONVERSATION_PROMPT = "You are a dermatologist. Answer the question about the image truthfully, in plain words."
QUESTION = "What is the diagnosis?"
FINDING_QUESTION = "What is the {attribute} of the lesion?"
MANAGEMENT_QUESTION = "What does this call for: {options}?"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
IMAGE = "<image>"
BREAK = "\N{ZERO WIDTH SPACE}"  # within a text that is no mark and no token, though it looks like one
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

_STRUCTURE = re.compile(
    r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL | re.IGNORECASE
)
_REASONING_BLOCK = re.compile(r"<think>(.*?)</think>", re.DOTALL | re.IGNORECASE)
_UNTHOUGHT = re.compile(r"^\s*<think>\s*</think>\s*", re.IGNORECASE)
_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_UNFINISHED_TAG = re.compile(r"<[/a-z]*$", re.IGNORECASE)
_END_OF_REASONING = re.compile(r"</think>", re.IGNORECASE)
_ENDS = " .,:;!?*\"'`()"


def question(sample: Sample) -> str:
    """The user's question of a sample; marks of images alone stand before the default one."""
    if sample.structured and not sample.question.replace(IMAGE, "").strip():
        return sample.question + QUESTION
    return sample.question or QUESTION


def choice_question(options: Sequence[str], asked: str = QUESTION) -> str:
    r"""A multiple-choice question, one lettered option a line.

    >>> choice_question(["melanoma", "nevus"])
    'What is the diagnosis?\nA. melanoma\nB. nevus'
    """
    lines = (f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return "\n".join((asked, *lines))


def ways_to_choose(options: Sequence[str], place: int) -> tuple[str, ...]:
    """What counts as choosing the option at a place: its letter, its text, or both."""
    letter, option = LETTERS[place], options[place]
    return letter, f"{letter}. {option}", f"{letter}) {option}", f"{letter}: {option}", option


def chosen_option(answer: Answer, options: Sequence[str]) -> int | None:
    """The place of the option that an answer chooses; None if it chooses none."""
    name = normalise(answer.diagnosis or "")
    for place in range(len(options)):
        if name in map(normalise, ways_to_choose(options, place)):
            return place
    return None


def to_messages(sample: Sample, system_prompt: str | None = None) -> list[dict[str, Any]]:
    """Chat messages in the format of Hugging Face chat templates, up to the reply.

    One image placeholder per image, where the user's texts mark it, else before the first of them. A sample
    to be answered in structure gets `system_prompt`, by default that of its kind; a conversation brings its own or
    none. No path, URL, label or identifier of the sample reaches the messages.
    """
    turns = [*sample.history, Message("user", question(sample))]
    if sample.structured:
        turns.insert(0, Message("system", SYSTEM_PROMPTS[sample.kind] if system_prompt is None else system_prompt))
    if not any(IMAGE in turn.text for turn in turns if turn.role == "user"):
        first = next(i for i, turn in enumerate(turns) if turn.role == "user")
        return [_message(turn, len(sample.images) if i == first else 0) for i, turn in enumerate(turns)]
    return [_marked_message(turn) if turn.role == "user" else _message(turn, 0) for turn in turns]


def check_marks(marks: int, images: int, where: str) -> None:
    """Make sure that texts mark the place of no image, or of each.

    Args:
        marks: how often `IMAGE` stands in what the user says.
        images: how many there are.
        where: the sample or the row.

    Raises:
        DataError: if they mark another number.
    """
    if marks not in (0, images):
        raise DataError(
            f"{where}: the question marks {marks} image(s) ({IMAGE}), and there are {images}. Make them agree, or "
            "leave out all marks to show the images first."
        )


def _message(turn: Message, images: int) -> dict[str, Any]:
    content: list[dict[str, str]] = [{"type": "image"}] * images
    return {"role": turn.role, "content": [*content, {"type": "text", "text": turn.text}]}


def _marked_message(turn: Message) -> dict[str, Any]:
    content: list[dict[str, str]] = []
    for i, text in enumerate(turn.text.split(IMAGE)):
        if i:
            content.append({"type": "image"})
        if text.strip():
            content.append({"type": "text", "text": text.strip()})
    return {"role": turn.role, "content": content}


def unmarked(text: str) -> str:
    """A text that shows no image: ``<image>`` in it, as somebody may type it, is broken invisibly."""
    return text.replace(IMAGE, f"{IMAGE[0]}{BREAK}{IMAGE[1:]}")


def to_conversation(sample: Sample, system_prompt: str | None = None) -> list[dict[str, Any]]:
    """Chat messages with the reply to learn as the last turn."""
    return [*to_messages(sample, system_prompt), _message(Message("assistant", gold_completion(sample)), 0)]


def with_facts(messages: Sequence[dict[str, Any]], facts: Sequence[str]) -> list[dict[str, Any]]:
    r"""The same messages with facts (sentences) before the last user's text; unchanged without facts.

    >>> with_facts([{"role": "user", "content": [{"type": "text", "text": "Is it urgent?"}]}], ["It is."])
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'Facts: It is.\nIs it urgent?'}]}]
    """
    if not facts:
        return list(messages)
    *before, last = messages
    content = list(last["content"])
    place = max((i for i, part in enumerate(content) if part["type"] == "text"), default=len(content))
    asked = "".join(part["text"] for part in content[place : place + 1])
    content[place : place + 1] = [{"type": "text", "text": grounded_question(asked, facts)}]
    return [*before, {"role": last["role"], "content": content}]


def grounded_question(text: str, facts: Sequence[str]) -> str:
    """A question behind the facts (sentences) that bear on it."""
    return f"Facts: {' '.join(facts)}\n{text}" if facts else text


def describe(findings: Mapping[str, tuple[str, ...]]) -> str:
    """Findings as text in the dermatologist's order: ``site : trunk . colour : brown .``."""
    return " ".join(f"{attribute} : {values[0]} ." for attribute, values in findings.items())


def gold_completion(sample: Sample) -> str:
    """The completion to learn: the reply, or the answer in structure that earns the full reward of every term."""
    if sample.reply is not None:
        return sample.reply
    think = describe(sample.findings) if sample.reasoning is None else sample.reasoning
    return f"<think> {think} </think> {answer_text(sample.target)}"


def answer_text(target: str) -> str:
    """The answer block that says `target`: ``<answer> melanoma </answer>``."""
    return f"<answer> {target} </answer>"


def with_answer(text: str, target: str) -> str:
    r"""A well-formed completion up to its answer, followed by the answer `target`.

    >>> with_answer("<think>brown</think>\n<ANSWER>nevus</ANSWER>", "melanoma")
    '<think>brown</think>\n<answer> melanoma </answer>'
    """
    match = _STRUCTURE.fullmatch(text)
    assert match is not None, "a well-formed completion has both blocks"
    return text[: match.start("answer") - len("<answer>")] + answer_text(target)


def reasoning_span(text: str) -> tuple[int, int] | None:
    """Where the reasoning stands in a completion, without its tags; None without a closed think block.

    >>> reasoning_span("<think>brown</think> <answer> nevus </answer>")
    (7, 12)
    """
    match = _REASONING_BLOCK.search(text)
    return None if match is None else match.span(1)


def parse(text: str) -> Answer:
    """Parse a completion: tolerant of white space and case, strict about structure.

    Exactly one think block followed by exactly one non-empty answer block, nothing else around
    them and no tag inside them; anything else gives an Answer whose `diagnosis` is None.
    """
    match = _STRUCTURE.fullmatch(text)
    if match is None or len(_TAG.findall(text)) != 4 or not match["answer"].strip():
        return Answer(text=text, think="", diagnosis=None)
    return Answer(text=text, think=match["think"].strip(), diagnosis=" ".join(match["answer"].split()))


def parse_unfinished(text: str) -> tuple[str, str]:
    """Reasoning and answer of a completion that may still be written, both without tags; plain words are reasoning.

    >>> parse_unfinished("<think> brown </think> <answer> nev")
    ('brown', 'nev')
    """
    reasoning, *rest = _END_OF_REASONING.split(_UNFINISHED_TAG.sub("", text), maxsplit=1)
    return _TAG.sub("", reasoning).strip(), " ".join(_TAG.sub("", "".join(rest)).split())


def in_words(text: str) -> str:
    r"""A reply in plain words, without the empty think block that the templates of thinking models put before it.

    >>> in_words("<think>\n\n</think>\n\nIt is benign.")
    'It is benign.'
    """
    words = _UNTHOUGHT.sub("", text)
    return text if _TAG.search(words) else words


def normalise(name: str) -> str:
    """A condition's name reduced to what identifies it: lower case, single spaces, no punctuation at the ends."""
    words = re.sub(r"[\s_\-]+", " ", name.lower()).strip(_ENDS)
    return re.sub(r"^(?:an?|the) ", "", words).strip(_ENDS)


def accepted_names(sample: Sample) -> set[str]:
    """The names that count as the sample's target, normalised."""
    return {normalise(name) for name in (sample.target, *sample.synonyms)}
