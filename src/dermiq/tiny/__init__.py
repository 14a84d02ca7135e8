"""Tiny VLM that trains on two CPU cores: an ordinary Hugging Face model directory, written on the spot.

`write_tiny_vlm` writes it from the shipped weights; with `retrain` it repeats the pre-training that
made them (see `dermiq.tiny.recipe`). The shipped file holds those of seed 0 rounded to half precision,
without the output layer, which is the embedding; another machine's rounding gives another, equally good
set of weights.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import Idefics3ForConditionalGeneration

from dermiq.programs.exits import reason
from dermiq.schema import ModelError
from dermiq.tiny import recipe
from dermiq.tiny.architecture import build_model, build_processor

__all__ = ["write_tiny_vlm"]


def write_tiny_vlm(out: Path, retrain: bool = False, seed: int = 0) -> None:
    """Write config, fp32 weights, tokenizer, processor and generation config to a directory.

    Args:
        out: made if missing.
        retrain: repeat the pre-training (minutes) instead of loading the shipped weights.
        seed: of the pre-training; the shipped weights are those of seed 0.

    Raises:
        ModelError: if the directory cannot be written.
    """
    processor = build_processor()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(processor.tokenizer)
        if retrain:
            recipe.pretrain(model, processor, seed)
    if not retrain:
        with as_file(files("dermiq") / "assets" / "tiny.safetensors") as path:
            weights = {name: tensor.float() for name, tensor in load_file(path).items()}
        weights["lm_head.weight"] = weights["model.text_model.embed_tokens.weight"]
        model.load_state_dict(weights)
    _untie(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(out)
        processor.save_pretrained(out)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The tiny model could not be written to {out} ({reason(error)}). Free space on this disk, or name another "
            "directory with --out."
        ) from error


def _untie(model: Idefics3ForConditionalGeneration) -> None:
    """Give the output layer its own copy of the embedding, so that an adapter may train it as a whole."""
    model.lm_head.weight = nn.Parameter(model.model.text_model.embed_tokens.weight.detach().clone())
    model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
