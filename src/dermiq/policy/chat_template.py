"""What a model's own chat template makes of a conversation, and which part of it is the assistant's reply.

A reply is what the template and the policy write together. A template may open it in the prompt, as those of thinking
models do with ``<think>``: then a completion goes on from there, and its text begins with what was opened. What is
learned of a reply is what the template writes behind that prompt, or, where it writes the reply otherwise than it asks
for it (it drops the reasoning, say), the reply's own words. Special tokens in a text of the conversation are words like
others; see `in_plain_text`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from dermiq.prompts import BREAK, TAGS, parse
from dermiq.schema import ModelError

_MARKER = "[reply]"  # a text whose surroundings are looked at
_GOLD = "<think> brown </think> <answer> melanoma </answer>"
_TAG = re.compile(r"<(/?)(think|answer)>", re.IGNORECASE)
_SYMBOL = re.compile(r"[^\w\s]")  # in every special token but those that are ordinary words
_BRACKETED = re.compile("[<\\[{|\uff5c\u25c1].+[>\\]}|\uff5c\u25b7]", re.DOTALL)  # added, but no word of a speciality
_WHITE = re.compile(r"\s*")


class Turn(NamedTuple):
    """Where an assistant's turn stands in a transcript: [start, stop) in characters, after so many images."""

    start: int
    stop: int
    images: int


class Transcript(NamedTuple):
    """A conversation as its chat template writes it, up to the end of its last turn."""

    text: str
    turns: list[Turn]


def says(role: str, text: str) -> dict[str, Any]:
    """A message of one text."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def render(processor: ProcessorMixin, conversation: Sequence[Mapping[str, Any]], waiting: bool) -> str:
    """The conversation as text; `waiting` adds the header of the assistant's next turn.

    Raises:
        ModelError: if there is no chat template, or it refuses the conversation.
    """
    messages = in_plain_text(processor, conversation)
    try:
        return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=waiting))
    except TemplateError as error:
        raise ModelError(
            f"The chat template of {processor.tokenizer.name_or_path!r} refuses a conversation of "
            f"{', '.join(message['role'] for message in conversation)}: {error}. Leave out what it does not know (a "
            "system prompt?), or use another model."
        ) from None
    except (ValueError, TypeError, LookupError) as error:
        raise ModelError(
            f"The processor of {processor.tokenizer.name_or_path!r} renders no conversation ({error}). Add a "
            "chat_template.jinja to the model's directory, or use an instruction-tuned model."
        ) from None


def in_plain_text(processor: ProcessorMixin, conversation: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with an invisible break in each text that the tokenizer would take for a token of its own.

    ``<|im_end|>`` in a question ends no turn, and ``<image>`` in a reply is no image. `without_breaks` undoes it.
    """
    marks = _marks(processor)
    return [{**message, "content": _broken(marks, message["content"])} for message in conversation]


def _broken(marks: re.Pattern[str], content: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a message, its texts broken where they hold marks, and apart where they make one together."""
    texts = [marks.sub(rf"\1{BREAK}", part["text"]) for part in content if part["type"] == "text"]
    if marks.search("".join(texts)):  # a template that puts the images first joins the texts around them
        texts[1:] = [BREAK + text for text in texts[1:]]
    rest = iter(texts)
    return [part | {"text": next(rest)} if part["type"] == "text" else part for part in content]


def without_breaks(text: str) -> str:
    """A text of the policy as a person writes it."""
    return text.replace(BREAK, "")


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the tokens that are no text; the tags of an answer are text, whatever the tokenizer calls them."""
    return _special_ids(tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _special_ids(tokenizer: PreTrainedTokenizerBase, size: int) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder
    special = {i for i, token in added.items() if token.special}.union(tokenizer.all_special_ids)
    return frozenset(special.difference(i for i, token in added.items() if token.content.lower() in TAGS))


class Frame(NamedTuple):
    """What a template writes around a reply.

    Attributes:
        header: behind the user's turn, to ask for the assistant's.
        opened: the end of it that belongs to the reply: from the tag on that it leaves open. A block that is closed
            again, as Qwen3's without thinking is, is no part of the reply; empty if there is none.
        space: white space between header and reply.
        end: id of the token that closes the assistant's turn.
        closing: its text.
    """

    header: str
    opened: str
    space: str
    end: int
    closing: str


def frame(processor: ProcessorMixin) -> Frame:
    """What the model's chat template writes around a reply."""
    return _frame(processor, str(processor.chat_template))


@lru_cache(maxsize=8)
def _frame(processor: ProcessorMixin, template: str) -> Frame:
    asked = [says("user", _MARKER)]
    prompt, silent = render(processor, asked, waiting=True), render(processor, asked, waiting=False)
    header = prompt[len(silent) :] if prompt.startswith(silent) else prompt[prompt.rindex(_MARKER) + len(_MARKER) :]
    tags = list(_TAG.finditer(header))
    whole = render(processor, [*asked, says("assistant", _MARKER)], waiting=False)
    tail = whole[whole.rindex(_MARKER) + len(_MARKER) :].strip()
    ids = processor.tokenizer(tail, add_special_tokens=False)["input_ids"]
    end = int(ids[0]) if ids else int(processor.tokenizer.eos_token_id)
    opened = header[tags[-1].start() :] if tags and not tags[-1][1] else ""
    space = _WHITE.match(whole[len(prompt) :]) if whole.startswith(prompt) and not opened else None
    return Frame(
        header=header,
        opened=opened,
        space=space[0] if space else "",
        end=end,
        closing=str(processor.tokenizer.convert_ids_to_tokens(end)),
    )


def _marks(processor: ProcessorMixin) -> re.Pattern[str]:
    """What matches the first character of a text that is a token of its own to the model."""
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


def check_replies(processor: ProcessorMixin) -> None:
    """Make sure that an answer in structure can be learned, and be read from what the policy writes.

    Raises:
        ModelError: if it cannot.
    """
    begun = frame(processor).opened
    written = begun + reply_to_learn(processor, [says("user", _MARKER), says("assistant", _GOLD)])
    if (found := parse(written)).diagnosis != "melanoma" or "brown" not in found.think:
        raise ModelError(
            f"The chat template of {processor.tokenizer.name_or_path!r} begins a reply with {begun!r}, where an answer "
            "of <think>...</think> <answer>...</answer> cannot go on. Take that out of its generation prompt "
            "(chat_template.jinja), or use another model."
        )


def reply_to_learn(processor: ProcessorMixin, conversation: Sequence[Mapping[str, Any]]) -> str:
    """What a policy writes when it is asked for the last turn of a conversation, up to the token that ends it.

    What the template writes behind the prompt, if that is all of the reply, else the reply's own words. White space
    at its beginning goes where it would be one token with the end of the prompt.
    """
    *asked, last = in_plain_text(processor, conversation)
    around = frame(processor)
    reply = "".join(part["text"] for part in last["content"] if part["type"] == "text").removeprefix(around.space)
    before, after = render(processor, asked, True), render(processor, [*asked, says(last["role"], reply)], False)
    written = after[len(before) : _end(after, len(before), around)] if after.startswith(before) else ""
    if not _is_all(around.opened + written, reply):
        written = _continued(around, reply)
    return written if _keeps_tokens(processor, around.header, written) else written.lstrip()


def _is_all(written: str, reply: str) -> bool:
    """True if a reply was written whole, but for white space and an empty think block before plain words."""
    found, wanted = ("".join(text.split()) for text in (written, reply))
    thinks = wanted.lower().startswith("<think>")
    return found == wanted or (not thinks and found.lower() == f"<think></think>{wanted}".lower())


def _continued(around: Frame, reply: str) -> str:
    """A reply's own words behind what the template opens of it."""
    tag = _TAG.match(around.opened)
    if tag is None:
        return around.space + reply
    if reply.startswith(around.opened):
        return reply[len(around.opened) :]
    words = reply.lstrip()
    return words[len(tag[0]) :] if words.lower().startswith(tag[0].lower()) else f"</think>\n\n{words}"


def _keeps_tokens(processor: ProcessorMixin, header: str, written: str) -> bool:
    """True if the header's tokens stay what they are when a reply follows."""
    alone, whole = (processor.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (header, header + written))
    return bool(whole[: len(alone)] == alone)


def _end(text: str, start: int, around: Frame) -> int:
    """Where the last turn ends that begins at `start`, without the token that closes it."""
    closed = text.rfind(around.closing, start)
    return closed if closed >= 0 else max(start, len(text.rstrip()))


def transcript(processor: ProcessorMixin, conversation: Sequence[Mapping[str, Any]]) -> Transcript:
    """Render a conversation, and find the assistant's turns by rendering its beginnings.

    Raises:
        ModelError: if a turn before the last is rendered otherwise when it is asked for.
    """
    whole, around = render(processor, conversation, waiting=False), frame(processor)
    text, turns, images = whole, [], 0
    for number, message in enumerate(conversation):
        images += sum(part["type"] == "image" for part in message["content"])
        if message["role"] != "assistant":
            continue
        before = render(processor, conversation[:number], waiting=True)
        if number == len(conversation) - 1:
            text = before + reply_to_learn(processor, conversation) + around.closing
            turns.append(Turn(len(before), len(text), images))
            continue
        after = render(processor, conversation[: number + 1], waiting=False)
        if not (after.startswith(before) and whole.startswith(after)):
            raise uneven(processor, f"renders turn {number + 1} otherwise when it is asked for, or more is said")
        stop = _end(after, len(before), around)
        turns.append(Turn(len(before), stop + len(around.closing) * after.startswith(around.closing, stop), images))
    if len(turns) > 1 and text[: turns[-2].stop] != whole[: turns[-2].stop]:
        raise uneven(processor, "renders earlier turns otherwise when another is asked for")
    return Transcript(text, turns)


def uneven(processor: ProcessorMixin, what: str) -> ModelError:
    """The refusal of a template under which the assistant's tokens cannot be told from the rest."""
    return ModelError(
        f"The processor of {processor.tokenizer.name_or_path!r} {what}, so that the assistant's tokens cannot be told "
        "from the rest. Strip white space from the turns and thinking tags from all but the last, split the "
        "conversation into single turns, or use a model whose chat template renders turn by turn."
    )
