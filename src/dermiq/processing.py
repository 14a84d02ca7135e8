"""From images and conversations to a model's inputs, by the model's own processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig, ProcessorMixin

from dermiq.schema import ModelError

__all__ = [
    "ProcessorMixin",
    "context_length",
    "encode_completions",
    "encode_prompts",
    "end_of_turn",
    "from_hub",
    "load_config",
    "load_processor",
]


def from_hub(loader: Callable[..., Any], model_id: str, **options: Any) -> Any:
    """Call one of transformers' `from_pretrained` loaders.

    Raises:
        ModelError: if the model is neither local nor on the hub, or is not what the loader reads.
    """
    try:
        return loader(model_id, **options)
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


def context_length(model_id: str) -> int | None:
    """Positions that the language model was made for, in tokens; None where its config does not say."""
    text_config = load_config(model_id).get_text_config()
    return getattr(text_config, "max_position_embeddings", None)


def load_processor(model_id: str) -> ProcessorMixin:
    """The model's own processor, with left padding.

    Raises:
        ModelError: if the model or its processor takes no images, or there is none.
    """
    load_config(model_id)
    processor = cast(ProcessorMixin, from_hub(AutoProcessor.from_pretrained, model_id))
    if not hasattr(processor, "image_processor"):
        raise ModelError(f"{model_id!r} has a processor that takes no images. Add its preprocessor_config.json.")
    processor.tokenizer.padding_side = "left"
    return processor


def encode_prompts(
    processor: ProcessorMixin, conversations: Sequence[list[dict[str, Any]]], images: Sequence[list[Image.Image]]
) -> dict[str, Tensor]:
    """Tokenise conversations that wait for the assistant's turn.

    Returns:
        `input_ids` and `attention_mask` [B, P] int64, padded on the left, and whatever else the model takes
        (pixels, grids, token types), opaque to everyone but the model.
    """
    texts = [
        processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        for conversation in conversations
    ]
    begin = processor.tokenizer.bos_token
    special = not (begin and texts[0].startswith(begin))
    encoded = processor(text=texts, images=list(images), padding=True, return_tensors="pt", add_special_tokens=special)
    return dict(encoded)


def end_of_turn(processor: ProcessorMixin) -> int:
    """The token id that closes the assistant's turn, read from the model's own chat template."""
    marker = "x"
    conversation: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": marker}]},
        {"role": "assistant", "content": [{"type": "text", "text": marker}]},
    ]
    text = processor.apply_chat_template(conversation, tokenize=False)
    tail = text[text.rindex(marker) + len(marker) :].strip()
    ids = processor.tokenizer(tail, add_special_tokens=False)["input_ids"]
    return int(ids[0]) if ids else int(processor.tokenizer.eos_token_id)


def encode_completions(processor: ProcessorMixin, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokenise completions, each closed by the end of the turn.

    Returns:
        ids [B, T] int64, padded on the right, and mask [B, T] bool (True = counts).
    """
    tokenizer = processor.tokenizer
    end = end_of_turn(processor)
    rows = [[*tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [end] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return ids, mask
