"""Chat templates: rendered conversations, and the part of them that is the assistant's reply.

The template and the policy write a reply together. A template may open it in the prompt, as those of thinking models do
with ``<think>``: then a completion continues there, and its text begins with what was opened. The target of training is
what the template renders after that prompt. Where it renders a reply otherwise than it prompts for it (it drops the
reasoning, say), the target is the reply's own text. See `dermiq.policy.special_tokens` for special tokens in texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import ProcessorMixin

from dermiq.policy.special_tokens import in_plain_text
from dermiq.prompts import parse
from dermiq.schema import ModelError

_MARKER = "[reply]"  # a text that is found again in what is rendered
_GOLD = "<think> brown </think> <answer> melanoma </answer>"
_TAG = re.compile(r"<(/?)(think|answer)>", re.IGNORECASE)
_WHITE = re.compile(r"\s*")


class Turn(NamedTuple):
    """An assistant's turn in a transcript: characters [start, stop), and the number of images before."""

    start: int
    stop: int
    images: int


class Transcript(NamedTuple):
    """A conversation rendered up to the end of its last turn, and the assistant's turns in it."""

    text: str
    turns: list[Turn]


def text_message(role: str, text: str) -> dict[str, Any]:
    """A chat message of one text."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def render(processor: ProcessorMixin, conversation: Sequence[Mapping[str, Any]], generation_prompt: bool) -> str:
    """The rendered conversation; `generation_prompt` adds the header of the assistant's next turn.

    Raises:
        ModelError: if there is no chat template, or it refuses the conversation.
    """
    messages = in_plain_text(processor, conversation)
    try:
        return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt))
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


class Frame(NamedTuple):
    """The text that a template renders around a reply.

    Attributes:
        header: the generation prompt, after the user's turn.
        opened: the end of the header that belongs to the reply, from the tag on that it leaves open; empty if none is.
            A block that is closed again, as Qwen3's without thinking, is no part of the reply.
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
    """The text that the model's chat template renders around a reply."""
    return _frame(processor, str(processor.chat_template))


@lru_cache(maxsize=8)
def _frame(processor: ProcessorMixin, template: str) -> Frame:
    history = [text_message("user", _MARKER)]
    prompt = render(processor, history, generation_prompt=True)
    before = render(processor, history, generation_prompt=False)
    header = prompt[len(before) :] if prompt.startswith(before) else prompt[prompt.rindex(_MARKER) + len(_MARKER) :]
    tags = list(_TAG.finditer(header))  # a last one that opens is left to the policy to close
    whole = render(processor, [*history, text_message("assistant", _MARKER)], generation_prompt=False)
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


def check_replies(processor: ProcessorMixin) -> None:
    """Refuse a chat template under which an answer in structure cannot be learned, or read from a completion.

    Raises:
        ModelError: naming the template.
    """
    begun = frame(processor).opened
    rendered = begun + reply_to_learn(processor, [text_message("user", _MARKER), text_message("assistant", _GOLD)])
    if (found := parse(rendered)).diagnosis != "melanoma" or "brown" not in found.think:
        raise ModelError(
            f"The chat template of {processor.tokenizer.name_or_path!r} begins a reply with {begun!r}, where an answer "
            "of <think>...</think> <answer>...</answer> cannot go on. Take that out of its generation prompt "
            "(chat_template.jinja), or use another model."
        )


def reply_to_learn(processor: ProcessorMixin, conversation: Sequence[Mapping[str, Any]]) -> str:
    """The target text of a conversation's last turn, between the prompt and the token that ends the turn.

    What the template renders after the prompt, if that is all of the reply, else the reply's own text. White space at
    its beginning is stripped where it would share a token with the end of the prompt.
    """
    *history, last = in_plain_text(processor, conversation)
    around = frame(processor)
    reply = "".join(part["text"] for part in last["content"] if part["type"] == "text").removeprefix(around.space)
    before = render(processor, history, generation_prompt=True)
    after = render(processor, [*history, text_message(last["role"], reply)], generation_prompt=False)
    rendered = after[len(before) : _end(after, len(before), around)] if after.startswith(before) else ""
    if not _is_complete(around.opened + rendered, reply):
        rendered = _continuation(around, reply)
    return rendered if _keeps_tokens(processor, around.header, rendered) else rendered.lstrip()


def _is_complete(rendered: str, reply: str) -> bool:
    """True if a reply was rendered in full, but for white space and an empty think block before a plain one."""
    found, wanted = ("".join(text.split()) for text in (rendered, reply))
    thinks = wanted.lower().startswith("<think>")
    return found == wanted or (not thinks and found.lower() == f"<think></think>{wanted}".lower())


def _continuation(around: Frame, reply: str) -> str:
    """A reply's own text after what the template opens of it."""
    tag = _TAG.match(around.opened)
    if tag is None:
        return around.space + reply
    if reply.startswith(around.opened):
        return reply[len(around.opened) :]
    words = reply.lstrip()
    return words[len(tag[0]) :] if words.lower().startswith(tag[0].lower()) else f"</think>\n\n{words}"


def _keeps_tokens(processor: ProcessorMixin, header: str, rendered: str) -> bool:
    """True if the header's tokens stay what they are when a reply follows."""
    texts = (header, header + rendered)
    header_ids, whole = (processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    return bool(whole[: len(header_ids)] == header_ids)


def _end(text: str, start: int, around: Frame) -> int:
    """End of the last turn, which begins at `start`, without the token that closes it."""
    closed = text.rfind(around.closing, start)
    return closed if closed >= 0 else max(start, len(text.rstrip()))


def transcript(processor: ProcessorMixin, conversation: Sequence[Mapping[str, Any]]) -> Transcript:
    """The transcript of a conversation, its turns found by rendering the conversation up to each.

    Raises:
        ModelError: if an earlier turn is rendered otherwise than it is prompted for.
    """
    whole, around = render(processor, conversation, generation_prompt=False), frame(processor)
    text, turns, images = whole, [], 0
    for number, message in enumerate(conversation):
        images += sum(part["type"] == "image" for part in message["content"])
        if message["role"] != "assistant":
            continue
        before = render(processor, conversation[:number], generation_prompt=True)
        if number == len(conversation) - 1:
            text = before + reply_to_learn(processor, conversation) + around.closing
            turns.append(Turn(len(before), len(text), images))
            continue
        after = render(processor, conversation[: number + 1], generation_prompt=False)
        if not (after.startswith(before) and whole.startswith(after)):
            raise ambiguous_turns(
                processor, f"renders turn {number + 1} otherwise when it is asked for, or more is said"
            )
        stop = _end(after, len(before), around)
        turns.append(Turn(len(before), stop + len(around.closing) * after.startswith(around.closing, stop), images))
    if len(turns) > 1 and text[: turns[-2].stop] != whole[: turns[-2].stop]:
        raise ambiguous_turns(processor, "renders earlier turns otherwise when another is asked for")
    return Transcript(text, turns)


def ambiguous_turns(processor: ProcessorMixin, what: str) -> ModelError:
    """The refusal of a template under which it is not known which tokens are the assistant's."""
    return ModelError(
        f"The processor of {processor.tokenizer.name_or_path!r} {what}, so that the assistant's tokens cannot be told "
        "from the rest. Strip white space from the turns and thinking tags from all but the last, split the "
        "conversation into single turns, or use a model whose chat template renders turn by turn."
    )
