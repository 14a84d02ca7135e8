"""Tokenisation: conversations with images to a model's inputs, and completions back to text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, ProcessorMixin

from dermiq.policy.chat_template import (
    Transcript,
    ambiguous_turns,
    frame,
    render,
    reply_to_learn,
    text_message,
    transcript,
)
from dermiq.policy.special_tokens import in_plain_text, special_ids, without_breaks

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ProcessorMixin",
    "banned_ids",
    "encode_completions",
    "encode_conversations",
    "encode_prompts",
    "stop_ids",
    "text_ids",
    "texts_of",
]


def encode_prompts(
    processor: ProcessorMixin, conversations: Sequence[list[dict[str, Any]]], images: Sequence[list[Image.Image]]
) -> dict[str, Tensor]:
    """Model inputs of conversations up to the header of the assistant's next turn.

    Returns:
        `input_ids` and `attention_mask` [B, P] int64, padded on the left, and whatever else the model takes
        (pixels, grids, token types), which only the model reads.

    Raises:
        ModelError: if the model's chat template refuses a conversation.
    """
    return _encode(
        processor, [render(processor, each, generation_prompt=True) for each in conversations], images, "left"
    )


def encode_conversations(
    processor: ProcessorMixin, conversations: Sequence[list[dict[str, Any]]], images: Sequence[list[Image.Image]]
) -> tuple[dict[str, Tensor], Tensor]:
    """Model inputs of whole conversations, and the loss mask of the assistant's tokens.

    Of a turn, the loss mask holds what a policy would sample: everything after the header up to and with the token that
    ends the turn, not the line break that a template may add.

    Args:
        processor: the model's own.
        conversations: B lists of messages, the last of each the assistant's.
        images: B lists of the messages' images, in their order.

    Returns:
        What the model takes, with `input_ids` and `attention_mask` [B, L] int64, padded on the right, and
        loss_mask [B, L] bool (True = counts).

    Raises:
        ModelError: if the model's chat template refuses a conversation, or renders its beginning otherwise than
            the whole, so that the assistant's tokens are not known.
    """
    transcripts = [transcript(processor, conversation) for conversation in conversations]
    inputs = _encode(processor, [each.text for each in transcripts], images, "right")
    mask = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    for row, (each, shown) in enumerate(zip(transcripts, images, strict=True)):
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
        for span in _spans(processor, each, shown, ids):
            mask[row, span] = True
    return inputs, mask


def stop_ids(processor: ProcessorMixin, configured: int | list[int] | None) -> tuple[int, ...]:
    """Token ids that end a completion: the end of the turn, the tokenizer's, and those of the generation config."""
    named = configured if isinstance(configured, list) else [configured]
    ids = {frame(processor).end, processor.tokenizer.eos_token_id, *named}
    return tuple(sorted(i for i in ids if i is not None))


def banned_ids(processor: ProcessorMixin, config: PreTrainedConfig, stops: Sequence[int]) -> Tensor:
    """Mask [V] bool of tokens that a policy may not sample: special ones (images among them) and unused rows."""
    vocabulary = config.get_text_config().vocab_size
    tokenizer = processor.tokenizer
    special: set[int | None] = {*special_ids(tokenizer), *range(len(tokenizer), vocabulary)}
    special |= {getattr(config, name, None) for name in ("image_token_id", "video_token_id")}
    banned = torch.zeros(vocabulary, dtype=torch.bool)
    banned[[i for i in special if i is not None and i < vocabulary and i not in stops]] = True
    return banned


def encode_completions(processor: ProcessorMixin, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids and mask of completions as the model's chat template renders them, with the end of the turn.

    Returns:
        ids [B, T] int64, padded on the right, and mask [B, T] bool (True = counts).
    """
    around = frame(processor)
    opening = _tokens(processor, around.header)
    rows = []
    for text in texts:
        reply = reply_to_learn(processor, [text_message("user", "?"), text_message("assistant", text)])
        whole = _tokens(processor, around.header + reply)
        follows = whole[: len(opening)] == opening
        rows.append([*(whole[len(opening) :] if follows else _tokens(processor, reply)), around.end])
    width = max(map(len, rows))
    ids = torch.tensor([row + [around.end] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return ids, mask


def text_ids(processor: ProcessorMixin, text: str) -> list[int]:
    """Token ids of a part of a reply."""
    (message,) = in_plain_text(processor, [text_message("assistant", text)])
    return _tokens(processor, message["content"][0]["text"])


def texts_of(processor: ProcessorMixin, ids: Tensor, mask: Tensor) -> list[str]:
    """Texts of completions [N, T] under mask [N, T], each beginning with what the chat template has opened of it."""
    special, begun = special_ids(processor.tokenizer), frame(processor).opened
    rows = [[i for i in row[keep].tolist() if i not in special] for row, keep in zip(ids, mask, strict=True)]
    return [begun + without_breaks(text) for text in processor.tokenizer.batch_decode(rows)]


def _encode(
    processor: ProcessorMixin, texts: list[str], images: Sequence[list[Image.Image]], padding_side: str
) -> dict[str, Tensor]:
    """Model inputs of rendered conversations."""
    with _default_float32():
        encoded = processor(
            text=texts,
            images=list(images) if any(images) else None,
            padding=True,
            padding_side=padding_side,
            return_tensors="pt",
            add_special_tokens=_adds_begin(processor, texts[0]),
        )
    return dict(encoded)


@contextmanager
def _default_float32() -> Iterator[None]:
    """Default dtype float32 within the context: under ``bf16-true`` some processors would round pixels."""
    former = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(former)


def _adds_begin(processor: ProcessorMixin, text: str) -> bool:
    """True if the tokenizer has to add the token that begins a text, since the chat template has not."""
    begin = processor.tokenizer.bos_token
    return not (begin and text.startswith(begin))


def _tokens(processor: ProcessorMixin, text: str, special: bool = False) -> list[int]:
    """Token ids of a text, images as their placeholders."""
    return list(processor.tokenizer(text, add_special_tokens=special)["input_ids"])


def _spans(processor: ProcessorMixin, whole: Transcript, images: list[Image.Image], ids: list[int]) -> Iterator[slice]:
    """Slices of the unpadded `ids` of a transcript that are the assistant's turns.

    Images take more tokens in `ids` than their placeholders in the text, but after the last image both agree when
    counted from the end. For an earlier turn, the conversation before it is encoded to measure its length.
    """
    text = whole.text
    special = _adds_begin(processor, text)
    plain = _tokens(processor, text, special)
    for turn in whole.turns:
        head, tail = (_tokens(processor, text[:place], special) for place in (turn.start, turn.stop))
        if plain[: len(head)] != head or plain[: len(tail)] != tail:
            raise ambiguous_turns(
                processor, f"runs a turn into what stands beside it ({text[turn.start : turn.stop][:40]!r})"
            )
        shift = len(ids) - len(plain)
        if turn.images < len(images):
            before = _encode(processor, [text[: turn.start]], [images[: turn.images]], "right")
            shift = before["input_ids"].shape[1] - len(head)
        span = slice(len(head) + shift, len(tail) + shift)
        if ids[span] != plain[len(head) : len(tail)]:
            raise ambiguous_turns(processor, "writes other tokens for a text with images than for the text alone")
        yield span
