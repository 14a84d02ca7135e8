"""LoRA helpers: merge for decoding or export, keep 4-bit weights unpacked, run a float32 module in a bf16 base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any
from warnings import catch_warnings

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from dermiq.schema import ModelError


def quiet() -> catch_warnings[None]:
    """No warnings of peft within the context: they are about another use of an adapter."""
    return catch_warnings(action="ignore", category=UserWarning)


@contextmanager
def folded(model: nn.Module, adapter: str) -> Iterator[None]:
    """Merge an adapter into the base's float32 weights within the context; they are restored bit by bit.

    The results are the same with fewer matrix products. In float32 alone: fewer bits would round away what is added.
    """
    layers: list[Any] = [m for m in model.modules() if type(m) is Linear and _foldable(m, adapter)]
    kept = [layer.get_base_layer().weight.data for layer in layers]
    try:
        for layer, data in zip(layers, kept, strict=True):
            base = layer.get_base_layer()
            base.weight.data = data + layer.get_delta_weight(adapter)
            layer.forward = base.forward
        yield
    finally:
        for layer, data in zip(layers, kept, strict=True):
            layer.get_base_layer().weight.data = data
            vars(layer).pop("forward", None)


def _foldable(layer: Any, adapter: str) -> bool:
    """True if the adapter only adds to a float32 weight, and is active, without autocast."""
    data = layer.get_base_layer().weight.data
    at_work = not layer.disable_adapters and layer.active_adapters == [adapter] and adapter in layer.lora_A
    adds = adapter not in layer.lora_variant and layer.lora_A[adapter].bias is layer.lora_B[adapter].bias is None
    plain = type(data) is torch.Tensor and data.dtype == torch.float32
    return at_work and adds and plain and not torch.is_autocast_enabled(data.device.type)


def merged(model: PeftModel, adapter: str, four_bit: bool) -> PreTrainedModel:
    """The base with an adapter merged into its weights, in the base's dtype; the base itself is changed.

    Args:
        model: base and adapter.
        adapter: the adapter's name.
        four_bit: the base is quantised, and has to be dequantised first, in main memory.

    Raises:
        ModelError: if peft cannot merge an adapter of this kind.
    """
    base: Any = model.get_base_model()
    inputs, outputs, dtype = base.get_input_embeddings(), base.get_output_embeddings(), base.config.dtype
    if isinstance(inputs, BaseTunerLayer) and inputs.get_base_layer().weight is outputs.weight:
        raise ModelError("The adapter cannot be merged: it changes embeddings whose weights the output layer shares.")
    whole: Any = model
    if four_bit:
        config, weights = model.peft_config[adapter], get_peft_model_state_dict(model, adapter_name=adapter)
        whole = get_peft_model(whole.unload().cpu().dequantize(), config)
        set_peft_model_state_dict(whole, weights)
    try:
        with quiet():  # an output layer trained as a whole is untied
            result: PreTrainedModel = whole.merge_and_unload(adapter_names=[adapter]).to(dtype)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"The adapter cannot be merged into its base: {error} Export it as an adapter, without --merged."
        ) from error
    return result


def keep_unpacked(model: nn.Module) -> None:
    """Keep bitsandbytes from rearranging 4-bit weights, on every CPU.

    It does so for good in evaluation mode where the CPU has AVX512-BF16, for a product that has no gradient: what is
    trained afterwards would silently get a wrong one.
    """
    layers: list[Any] = list(model.modules())
    for module in layers:
        if hasattr(module, "support_avx512bf16_for_cpu"):  # a Linear4bit, if bitsandbytes is there at all
            module.support_avx512bf16_for_cpu = False


def in_float32(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward method of a float32 module, casting for a base of another dtype, as peft does for LoRA layers."""

    @wraps(forward)
    def wrapper(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not hidden.is_floating_point():
            return forward(hidden, *args, **kwargs)
        return forward(hidden.float(), *args, **kwargs).to(hidden.dtype)

    return wrapper


def difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Names of the weights that are ``missing``, ``unknown`` and ``of another shape`` in one set against another."""
    common = expected.keys() & found.keys()
    return {
        "missing": sorted(expected.keys() - common),
        "unknown": sorted(found.keys() - common),
        "of another shape": sorted(name for name in common if expected[name].shape != found[name].shape),
    }
