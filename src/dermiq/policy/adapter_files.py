"""Adapter directories in peft's format: loaded if they give the same policy as under peft, else refused."""

from __future__ import annotations

import json
import math
from copy import copy
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from dermiq.policy.adapters import difference, quiet
from dermiq.run_directory import ADAPTER_CONFIG, no_adapter
from dermiq.schema import ModelError

# Kinds of adapter that change single layers, and can be loaded twice, as policy and as reference. The others (prompts,
# prefixes, routers, ...) act in PeftModel.forward, which is not called here, or add losses or weights of their own.
KINDS = frozenset(
    "ADAMSS BEFT BOFT C3A DEFT DELORA FOURIERFT FROD GLORA GRALORA HIRA HRA IA3 LN_TUNING LOHA LOKR LORA MISS OFT OSF "
    "PEANUT PSOFT PVERA RANDLORA ROAD SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS UNILORA VBLORA VERA WAVEFT".split()
)
_UNKNOWN = ("alora_invocation_tokens", "arrow_config", "monteclora_config")  # variants whose kind is LORA
_REWRITES_BASE = ("pissa", "olora", "corda", "loftq")  # initialisations that subtract the adapter from the base
_MERGE = "Merge it into its base with peft (merge_and_unload), and give the result as model_id."
_FITTING = "Use the base model and the LoRA targets that the adapter was trained with."
_SAMPLES, _SAMPLE = 64, 4096  # places in a file of weights, and bytes read at each, to compare two models


def load_adapter(base: PreTrainedModel, path: Path, model_id: str) -> PeftModel:
    """The base with the trainable adapter of a directory; warns if it was made for another base.

    Raises:
        ModelError: if it is no adapter, is damaged, does not fit, or would not act here as it does under peft.
    """
    config, weights = _read(path)
    widest = max(max(parameter.shape, default=1) for parameter in base.parameters())
    if fault := _unknown(config) or _out_of_bounds(config, widest):
        raise ModelError(f"The adapter in {path} {fault}")
    made_for = config.base_model_name_or_path
    config.inference_mode, config.base_model_name_or_path = False, base.name_or_path
    try:
        with quiet():
            model = get_peft_model(base, config)
            expected = get_peft_model_state_dict(model)
    except Exception as error:  # whatever peft makes of any configuration
        raise ModelError(
            f"The adapter in {path} cannot be put on {model_id!r}: {_in_words(error)} {_FITTING}"
        ) from error
    if different := _difference(expected, weights):
        raise ModelError(f"The adapter in {path} does not fit {model_id!r}: {different}. {_FITTING}")
    if fault := _damaged(expected, weights):
        raise ModelError(f"The adapter in {path} {fault}")
    for parameter in model.parameters():
        if parameter.requires_grad:  # before its weights are set, which would be rounded
            parameter.data = parameter.data.float()
    set_peft_model_state_dict(model, weights)
    if not _same_model(made_for or model_id, model_id):
        warn(f"The adapter in {path} was made for {made_for!r}, and runs on {model_id!r} now.", stacklevel=2)
    assert isinstance(model, PeftModel)
    return model


def _read(path: Path) -> tuple[PeftConfig, dict[str, Tensor]]:
    """Configuration and weights of an adapter directory of one of `KINDS`."""
    if not (path / ADAPTER_CONFIG).is_file():
        raise ModelError(no_adapter(path))
    if not (path / "adapter_model.safetensors").is_file():
        raise ModelError(f"{path} holds no adapter_model.safetensors. Weights are read from safetensors alone.")
    try:
        kind = json.loads((path / ADAPTER_CONFIG).read_bytes())["peft_type"]
        config = PeftConfig.from_pretrained(str(path)) if kind in KINDS else None
        weights = load_peft_weights(str(path), device="cpu")
    except Exception as error:  # whatever peft makes of any JSON
        raise ModelError(f"The adapter in {path} cannot be read: {_in_words(error)}") from error
    if config is None:
        raise ModelError(
            f"The adapter in {path} is of peft's kind {kind}, which would be another policy here than under peft. "
            "Those that are the same change layers alone, such as LORA (DoRA too), LOHA, LOKR, IA3, OFT and VERA."
        )
    return config, weights


def beside(config: PeftConfig) -> PeftConfig:
    """The configuration of a second adapter of the same kind, whose initialisation leaves the base unchanged."""
    again = copy(config)
    if str(getattr(again, "init_lora_weights", "")).lower().startswith(_REWRITES_BASE):
        again.init_lora_weights = True  # type: ignore[attr-defined]
    return again


def _unknown(config: PeftConfig) -> str | None:
    """Why an adapter would be another policy here than under peft; None if it would not."""
    unknown = [name for name in _UNKNOWN if getattr(config, name, None)]
    if unknown:
        return f"has {unknown[0]}, which would make it another policy here than under peft. Train it as plain LoRA."
    bias, beginning = getattr(config, "bias", "none"), str(getattr(config, "init_lora_weights", ""))
    if bias != "none":
        return f"trains biases of its base (bias={bias!r}), and a reference needs them as they were. {_MERGE}"
    if beginning.lower().startswith("pissa_niter"):
        return (
            f"began with a random decomposition of its base ({beginning}), which no two runs share: save it as plain "
            "LoRA with peft (path_initial_model_for_weight_conversion)."
        )
    return None


def _out_of_bounds(config: PeftConfig, widest: int) -> str | None:
    """The first rank, alpha or dropout that is out of bounds, in words; None if none is."""
    ranks = _numbers(config, ("r",), "rank_pattern")
    alphas = _numbers(config, ("lora_alpha", "alpha"), "alpha_pattern")
    dropouts = _numbers(config, ("lora_dropout", "module_dropout"), "")
    for name, value in {**ranks, **alphas, **dropouts}.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            return f"says {name}={value!r}, which is no number."
    for name, value in ranks.items():
        if not 0 <= value <= widest:
            return f"says {name}={value}: a rank is at least 1, and at most the {widest} channels of the widest weight."
    for name, value in alphas.items():
        if value <= 0:
            return f"says {name}={value}: the update is scaled by it, so it is above 0."
    for name, value in dropouts.items():
        if not 0 <= value < 1:
            return f"says {name}={value}: a share that is dropped is at least 0 and below 1."
    return None


def _numbers(config: PeftConfig, names: tuple[str, ...], pattern: str) -> dict[str, Any]:
    """The options of these names that are not peft's defaults, and those that a pattern sets for single layers."""
    options = {
        name: value for name in names if (value := getattr(config, name, None)) != getattr(type(config), name, None)
    }
    by_layer = getattr(config, pattern, None) or {}
    if not isinstance(by_layer, dict):
        return options | {pattern: by_layer}
    return options | {f"{pattern}[{layer!r}]": value for layer, value in by_layer.items()}


def _damaged(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str | None:
    """What is wrong with the values of weights, in words; None if nothing is. Some kinds hold integers too."""
    for name, value in found.items():
        if value.is_floating_point() != expected[name].is_floating_point():
            return f"holds weights of the type {str(value.dtype).removeprefix('torch.')} (first: {name}), no floats."
        if not torch.isfinite(value.float()).all():
            return (
                f"holds weights that are no finite numbers (first: {name}): that run has failed. Take an earlier one."
            )
    return None


def _difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """Differences between the names and shapes of two sets of weights, in words; empty if there are none."""
    parts = difference(expected, found).items()
    return "; ".join(f"{len(keys)} weights {what} (first: {keys[0]})" for what, keys in parts if keys)


def _same_model(first: str, second: str) -> bool:
    """True if two ids or directories are the same model: by their weights if both are local, else by name."""
    if first == second:
        return True
    if Path(first).is_dir() and Path(second).is_dir():
        return _content(Path(first)) == _content(Path(second))
    return _name(first) == _name(second)


def _content(directory: Path) -> list[tuple[int, bytes]]:
    """Sizes and samples of bytes of all files of weights."""
    content = []
    for path in sorted(directory.glob("*.safetensors")):
        size = path.stat().st_size
        with path.open("rb") as file:
            for place in range(0, size, max(1, size // _SAMPLES)):
                file.seek(place)
                content.append((size, file.read(_SAMPLE)))
    return content


def _name(model: str) -> str:
    """The last part of an id or a path, also of one in the hub's cache."""
    parts = [part for part in model.replace("\\", "/").split("/") if part]
    cached = [part for part in parts if part.startswith("models--")]
    return (cached[-1].split("--")[-1] if cached else parts[-1] if parts else "").lower()


def _in_words(error: Exception) -> str:
    """The first line of an error as a sentence, with its class where the text alone says little."""
    line = (str(error).splitlines() or [""])[0].rstrip(" .:")
    return f"{line}." if isinstance(error, OSError | ValueError) and line else f"{type(error).__name__}: {line}."
