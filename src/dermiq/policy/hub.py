"""Configuration and processor of a model, from a local directory or the Hugging Face hub."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig, ProcessorMixin

from dermiq.policy.chat_template import check_replies
from dermiq.schema import ModelError


def from_hub(loader: Callable[..., Any], model_id: str, **options: Any) -> Any:
    """The result of one of transformers' `from_pretrained` loaders; code that comes with a model is never run.

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
    """The configuration of an image-text-to-text model.

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
    """Context length of the language model in tokens; infinite where its configuration does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or math.inf


def load_processor(model_id: str) -> ProcessorMixin:
    """The model's own processor, with left padding.

    Raises:
        ModelError: if the model or its processor takes no images, there is none, or its chat template rules out an
            answer in structure.
    """
    load_config(model_id)
    processor = cast(ProcessorMixin, from_hub(AutoProcessor.from_pretrained, model_id))
    if not hasattr(processor, "image_processor"):
        raise ModelError(f"{model_id!r} has a processor that takes no images. Add its preprocessor_config.json.")
    processor.tokenizer.padding_side = "left"
    check_replies(processor)
    return processor
