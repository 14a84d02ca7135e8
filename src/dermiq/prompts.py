"""Sample -> chat messages, and completion text -> Answer: the only templates and the only parser."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dermiq.schema import Answer, Sample

SYSTEM_PROMPT = (
    "You are a dermatologist. Look at the image and reason in this order: site and distribution, "
    "morphology, colour, border and surface, differential, diagnosis. Write your reasoning between "
    "<think> and </think>, then the name of exactly one condition between <answer> and </answer>."
)
QUESTION = "What is the diagnosis?"

_STRUCTURE = re.compile(
    r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_ENDS = " .,:;!?*\"'`()"


def question(sample: Sample) -> str:
    """The user's question of a sample."""
    return sample.question or QUESTION


def to_messages(sample: Sample, system_prompt: str = SYSTEM_PROMPT) -> list[dict[str, Any]]:
    """Chat messages in the format of Hugging Face chat templates.

    The user's turn holds one image placeholder per image and the question. No path, URL, label or
    identifier of the sample reaches the messages.
    """
    content: list[dict[str, str]] = [{"type": "image"} for _ in sample.images]
    content.append({"type": "text", "text": question(sample)})
    return [
        {"role": "system", "content": [{"type": "text", "text": system_prompt}]},
        {"role": "user", "content": content},
    ]


def describe(findings: Mapping[str, tuple[str, ...]]) -> str:
    """Findings as text in the dermatologist's order: ``site : trunk . colour : brown .``."""
    return " ".join(f"{attribute} : {values[0]} ." for attribute, values in findings.items())


def gold_completion(sample: Sample) -> str:
    """The completion that a perfect policy gives: it earns the full reward of every term."""
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
