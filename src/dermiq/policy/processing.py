"""From images and conversations to a model's inputs, by the model's own processor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig, ProcessorMixin

from dermiq.policy.chat_template import (
    Transcript,
    check_replies,
    frame,
    in_plain_text,
    render,
    reply_to_learn,
    says,
    special_ids,
    transcript,
    uneven,
    without_breaks,
)
from dermiq.schema import ModelError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ProcessorMixin",
    "banned_ids",
    "context_length",
    "encode_completions",
    "encode_conversations",
    "encode_prompts",
    "from_hub",
    "load_config",
    "load_processor",
    "stop_ids",
    "text_ids",
    "texts_of",
]


def from_hub(loader: Callable[..., Any], model_id: str, **options: Any) -> Any:
    """Call one of transformers' `from_pretrained` loaders; code that comes with a model is never run.

    Raises:
        ModelError: if the model is neither local nor on the hub, or is not what the loader reads.
    """
    try:
        return loader(model_id, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        known = "exists but does not hold" if Path(model_id).is_dir() else "is neither a local directory nor"
        raise ModelError(
            f"{model_id!r} {known} a vision-language model that can be loaded: {str(error).splitlines()[0]} "
            "Give model_id the id or the directory of an image-text-to-text model (config, weights, processor)."
        ) from error


def load_config(model_id: str) -> PreTrainedConfig:
    """The model's configuration.

    Raises:
        ModelError: if it is no image-text-to-text model.
    """
    config = cast(PreTrainedConfig, from_hub(AutoConfig.from_pretrained, model_id))
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise ModelError(
            f"{model_id!r} is a {config.model_type} model, which is no image-text-to-text model. "
            "DermIQ needs one that takes images, such as Qwen2.5-VL, Gemma 3, Idefics3 or LLaVA."
        )
    return config


def context_length(config: PreTrainedConfig) -> float:
    """Positions that a language model was made for, in tokens; infinite where its config does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or math.inf


def load_processor(model_id: str) -> ProcessorMixin:
    """The model's own processor, with left padding.

    Raises:
        ModelError: if the model or its processor takes no images, there is none, or its chat template leaves no room
            for an answer in structure.
    """
    load_config(model_id)
    processor = cast(ProcessorMixin, from_hub(AutoProcessor.from_pretrained, model_id))
    if not hasattr(processor, "image_processor"):
        raise ModelError(f"{model_id!r} has a processor that takes no images. Add its preprocessor_config.json.")
    processor.tokenizer.padding_side = "left"
    check_replies(processor)
    return processor


def encode_prompts(
    processor: ProcessorMixin, conversations: Sequence[list[dict[str, Any]]], images: Sequence[list[Image.Image]]
) -> dict[str, Tensor]:
    """Tokenise conversations that wait for the assistant's turn.

    Returns:
        `input_ids` and `attention_mask` [B, P] int64, padded on the left, and whatever else the model takes
        (pixels, grids, token types), opaque to everyone but the model.

    Raises:
        ModelError: if the model's chat template refuses a conversation.
    """
    return _encode(processor, [render(processor, each, waiting=True) for each in conversations], images, "left")


def encode_conversations(
    processor: ProcessorMixin, conversations: Sequence[list[dict[str, Any]]], images: Sequence[list[Image.Image]]
) -> tuple[dict[str, Tensor], Tensor]:
    """Tokenise whole conversations, and mark what the assistant writes in them.

    What counts of a turn is what a policy writes when it is asked for it: everything after the header up to and
    with the token that ends the turn, not the line break that a template may add.

    Args:
        processor: the model's own.
        conversations: B lists of messages, the last of each the assistant's.
        images: B lists of the images that the messages hold, in their order.

    Returns:
        What the model takes, with `input_ids` and `attention_mask` [B, L] int64, padded on the right, and
        loss_mask [B, L] bool (True = counts).

    Raises:
        ModelError: if the model's chat template refuses a conversation, or renders its beginning otherwise than
            the whole, so that the assistant's tokens cannot be told from the rest.
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
    """Token ids that end a completion: the end of the turn, the tokenizer's, and those that the model itself names."""
    named = configured if isinstance(configured, list) else [configured]
    ids = {frame(processor).end, processor.tokenizer.eos_token_id, *named}
    return tuple(sorted(i for i in ids if i is not None))


def banned_ids(processor: ProcessorMixin, config: PreTrainedConfig, stops: Sequence[int]) -> Tensor:
    """[V] bool: tokens that a policy may not write (image and other special tokens, unused rows)."""
    vocabulary = config.get_text_config().vocab_size
    tokenizer = processor.tokenizer
    special: set[int | None] = {*special_ids(tokenizer), *range(len(tokenizer), vocabulary)}
    special |= {getattr(config, name, None) for name in ("image_token_id", "video_token_id")}
    banned = torch.zeros(vocabulary, dtype=torch.bool)
    banned[[i for i in special if i is not None and i < vocabulary and i not in stops]] = True
    return banned


def encode_completions(processor: ProcessorMixin, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokenise completions as the model's chat template writes them, each closed by the end of the turn.

    Returns:
        ids [B, T] int64, padded on the right, and mask [B, T] bool (True = counts).
    """
    around = frame(processor)
    opening = _tokens(processor, around.header)
    rows = []
    for text in texts:
        reply = reply_to_learn(processor, [says("user", "?"), says("assistant", text)])
        whole = _tokens(processor, around.header + reply)
        follows = whole[: len(opening)] == opening
        rows.append([*(whole[len(opening) :] if follows else _tokens(processor, reply)), around.end])
    width = max(map(len, rows))
    ids = torch.tensor([row + [around.end] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return ids, mask


def text_ids(processor: ProcessorMixin, text: str) -> list[int]:
    """Token ids of some words of a reply."""
    (message,) = in_plain_text(processor, [says("assistant", text)])
    return _tokens(processor, message["content"][0]["text"])


def texts_of(processor: ProcessorMixin, ids: Tensor, mask: Tensor) -> list[str]:
    """Completions [N, T] under mask [N, T] as texts, each beginning with what the chat template has opened of it."""
    special, begun = special_ids(processor.tokenizer), frame(processor).opened
    rows = [[i for i in row[keep].tolist() if i not in special] for row, keep in zip(ids, mask, strict=True)]
    return [begun + without_breaks(text) for text in processor.tokenizer.batch_decode(rows)]


def _encode(
    processor: ProcessorMixin, texts: list[str], images: Sequence[list[Image.Image]], padding_side: str
) -> dict[str, Tensor]:
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
    """Pixels are float32 also within a step under ``bf16-true``, where some processors would round them."""
    former = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(former)


def _adds_begin(processor: ProcessorMixin, text: str) -> bool:
    """False if the chat template has written the token that begins a text already."""
    begin = processor.tokenizer.bos_token
    return not (begin and text.startswith(begin))


def _tokens(processor: ProcessorMixin, text: str, special: bool = False) -> list[int]:
    """Token ids of a text, images as their placeholders."""
    return list(processor.tokenizer(text, add_special_tokens=special)["input_ids"])


def _spans(processor: ProcessorMixin, said: Transcript, images: list[Image.Image], ids: list[int]) -> Iterator[slice]:
    """The assistant's turns in the unpadded `ids` of a transcript.

    Images take more tokens there than their placeholders in the text, but after the last image both agree when
    counted from the end. What stands before is measured by encoding the conversation up to there.
    """
    text = said.text
    special = _adds_begin(processor, text)
    plain = _tokens(processor, text, special)
    for turn in said.turns:
        head, tail = (_tokens(processor, text[:place], special) for place in (turn.start, turn.stop))
        if plain[: len(head)] != head or plain[: len(tail)] != tail:
            raise uneven(processor, f"runs a turn into what stands beside it ({text[turn.start : turn.stop][:40]!r})")
        shift = len(ids) - len(plain)
        if turn.images < len(images):
            before = _encode(processor, [text[: turn.start]], [images[: turn.images]], "right")
            shift = before["input_ids"].shape[1] - len(head)
        span = slice(len(head) + shift, len(tail) + shift)
        if ids[span] != plain[len(head) : len(tail)]:
            raise uneven(processor, "writes other tokens for a text with images than for the text alone")
        yield span
