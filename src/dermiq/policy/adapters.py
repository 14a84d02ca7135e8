"""Surgery on modules with adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn


@contextmanager
def folded(model: nn.Module, adapter: str) -> Iterator[None]:
    """An adapter as part of the base's weights, which return bit by bit: the same results by fewer products.

    In float32 alone: rounding to fewer bits would swallow what the adapter adds.
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
    """True if all that the adapter does is to add to a whole float32 weight, without autocast."""
    data = layer.get_base_layer().weight.data
    at_work = not layer.disable_adapters and layer.active_adapters == [adapter] and adapter in layer.lora_A
    adds = adapter not in layer.lora_variant and layer.lora_A[adapter].bias is layer.lora_B[adapter].bias is None
    plain = type(data) is torch.Tensor and data.dtype == torch.float32
    return at_work and adds and plain and not torch.is_autocast_enabled(data.device.type)


def keep_unpacked(model: nn.Module) -> None:
    """Let 4-bit weights lie as they were read, on every CPU.

    In evaluation mode bitsandbytes rearranges them for good where the CPU has AVX512-BF16, for a product that has no
    gradient: whatever is trained afterwards would silently get a wrong one.
    """
    layers: list[Any] = list(model.modules())
    for module in layers:
        if hasattr(module, "support_avx512bf16_for_cpu"):  # a Linear4bit, if bitsandbytes is there at all
            module.support_avx512bf16_for_cpu = False


def in_float32(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a module with float32 weights stand in a base of another dtype, as peft does for LoRA layers alone."""

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
