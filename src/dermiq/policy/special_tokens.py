"""Special tokens of a tokenizer: which ids they are, and texts in which they are spelled out.

``<|im_end|>`` in a question ends no turn, and ``<image>`` in a reply is no image: an invisible break within such a text
keeps the tokenizer from making a special token of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from dermiq.prompts import BREAK, TAGS

_SYMBOL = re.compile(r"[^\w\s]")  # in every special token but those that are ordinary words
_BRACKETED = re.compile("[<\\[{|\uff5c\u25c1].+[>\\]}|\uff5c\u25b7]", re.DOTALL)  # added, but no word of a speciality


def in_plain_text(processor: ProcessorMixin, conversation: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with an invisible break in each special token that its texts spell out; see `without_breaks`."""
    marks = _marks(processor)
    return [{**message, "content": _broken(marks, message["content"])} for message in conversation]


def _broken(marks: re.Pattern[str], content: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a message, with a break within each mark of a text, and between texts that join to a mark."""
    texts = [marks.sub(rf"\1{BREAK}", part["text"]) for part in content if part["type"] == "text"]
    if marks.search("".join(texts)):  # a template that puts the images first joins the texts around them
        texts[1:] = [BREAK + text for text in texts[1:]]
    rest = iter(texts)
    return [part | {"text": next(rest)} if part["type"] == "text" else part for part in content]


def without_breaks(text: str) -> str:
    """A text without the breaks of `in_plain_text`, which a policy may have copied."""
    return text.replace(BREAK, "")


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the special tokens, except for the tags of an answer, which are text here."""
    return _special_ids(tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _special_ids(tokenizer: PreTrainedTokenizerBase, size: int) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder
    special = {i for i, token in added.items() if token.special}.union(tokenizer.all_special_ids)
    return frozenset(special.difference(i for i, token in added.items() if token.content.lower() in TAGS))


def _marks(processor: ProcessorMixin) -> re.Pattern[str]:
    """Pattern of the first character of a special token spelled out in a text."""
    return _pattern(processor, len(processor.tokenizer))


@lru_cache(maxsize=8)
def _pattern(processor: ProcessorMixin, size: int) -> re.Pattern[str]:
    added = processor.tokenizer.added_tokens_decoder.values()
    named = {value for name, value in vars(processor).items() if name.endswith("_token") and isinstance(value, str)}
    special = {*named, *processor.tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
    tokens = {token for token in special if len(token) > 1 and _SYMBOL.search(token)}
    tokens |= {str(token) for token in added if _BRACKETED.fullmatch(str(token))}
    tokens = {token for token in tokens if token.lower() not in TAGS}
    if not tokens:
        return re.compile("(?!)")
    firsts = "".join(re.escape(first) for first in sorted({token[0] for token in tokens}))  # Gemma has 6,000 tokens
    return re.compile(rf"(?=[{firsts}])(?={'|'.join(map(re.escape, sorted(tokens)))})(.)", re.DOTALL)
