"""Sample -> chat messages, and completion text -> Answer: the only templates and the only parser."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dermiq.schema import Answer, Message, Sample

SYSTEM_PROMPT = (
    "You are a dermatologist. Look at the image and reason in this order: site and distribution, "
    "morphology, colour, border and surface, differential, diagnosis. Write your reasoning between "
    "<think> and </think>, then the name of exactly one condition between <answer> and </answer>."
)
CONVERSATION_PROMPT = "You are a dermatologist. Answer the question about the image truthfully, in plain words."
QUESTION = "What is the diagnosis?"
IMAGE = "<image>"

_STRUCTURE = re.compile(
    r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_ENDS = " .,:;!?*\"'`()"


def question(sample: Sample) -> str:
    """The user's question of a sample."""
    return sample.question or QUESTION


def to_messages(sample: Sample, system_prompt: str = SYSTEM_PROMPT) -> list[dict[str, Any]]:
    """Chat messages in the format of Hugging Face chat templates, up to the reply.

    One image placeholder per image, where the sample's texts mark it, else before the first user's text. A sample
    that asks for a diagnosis gets `system_prompt`; a conversation brings its own or none. No path, URL, label or
    identifier of the sample reaches the messages.
    """
    turns = [*sample.history, Message("user", question(sample))]
    if sample.asks_diagnosis:
        turns.insert(0, Message("system", system_prompt))
    if not any(IMAGE in turn.text for turn in turns if not sample.asks_diagnosis):
        first = next(i for i, turn in enumerate(turns) if turn.role == "user")
        return [_message(turn, len(sample.images) if i == first else 0) for i, turn in enumerate(turns)]
    return [_marked_message(turn) for turn in turns]


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


def to_conversation(sample: Sample, system_prompt: str = SYSTEM_PROMPT) -> list[dict[str, Any]]:
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
    """The completion to learn: the reply, or the diagnosis that earns the full reward of every term."""
    if sample.reply is not None:
        return sample.reply
    think = describe(sample.findings) if sample.reasoning is None else sample.reasoning
    return f"<think> {think} </think> <answer> {sample.target} </answer>"


def parse(text: str) -> Answer:
    """Parse a completion: tolerant of white space and case, strict about structure.

    Exactly one think block followed by exactly one non-empty answer block, nothing else around
    them and no tag inside them; anything else gives an Answer whose `diagnosis` is None.
    """
    match = _STRUCTURE.fullmatch(text)
    if match is None or len(_TAG.findall(text)) != 4 or not match["answer"].strip():
        return Answer(text=text, think="", diagnosis=None)
    return Answer(text=text, think=match["think"].strip(), diagnosis=" ".join(match["answer"].split()))


def normalise(name: str) -> str:
    """A condition's name reduced to what identifies it: lower case, single spaces, no punctuation at the ends."""
    words = re.sub(r"[\s_\-]+", " ", name.lower()).strip(_ENDS)
    return re.sub(r"^(?:an?|the) ", "", words).strip(_ENDS)


def accepted_names(sample: Sample) -> set[str]:
    """The names that count as the sample's target, normalised."""
    return {normalise(name) for name in (sample.target, *sample.synonyms)}
