"""Activation checkpointing and CPU offloading of decoder layers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from dermiq.policy.attention import implementation

_WORTH_MOVING = 2**12  # elements


def recompute_layers(decoder: nn.Module) -> None:
    """Activation checkpointing: recompute each layer in the backward pass, with the same caches and attention.

    Transformers' own switch drops `past_key_values` with only a warning, and attends differently the second time.
    """
    config: Any = decoder.config

    def recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            # The backward pass may come after the kind of attention has been set back.
            again = implementation(config, config._attn_implementation)
            contexts = lambda: (nullcontext(), again)  # noqa: E731
            return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False, context_fn=contexts)

        return wrapper

    _wrap(decoder, recomputed)


def offload_layers(decoder: nn.Module) -> None:
    """CPU offloading: keep what each layer saves for the backward pass, but its weights, in pinned main memory."""

    def offloaded(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            weights = {parameter.untyped_storage().data_ptr() for parameter in forward.__self__.parameters()}  # type: ignore[attr-defined]
            with saved_tensors_hooks(partial(_to_main_memory, weights), _back):
                return forward(*args, **kwargs)

        return wrapper

    _wrap(decoder, offloaded)


def _wrap(decoder: nn.Module, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the forward method of each layer by `wrapper` of it."""
    layers: Any = decoder.layers
    for layer in layers:
        layer.forward = wrapper(layer.forward)


def _to_main_memory(weights: set[int], tensor: Tensor) -> tuple[torch.device, Tensor]:
    """A saved tensor's device, and the tensor in main memory if it is large and none of the weights."""
    if tensor.numel() < _WORTH_MOVING or tensor.untyped_storage().data_ptr() in weights:
        return tensor.device, tensor
    kept = torch.empty(tensor.size(), dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return tensor.device, kept.copy_(tensor, non_blocking=tensor.is_cuda)


def _back(packed: tuple[torch.device, Tensor]) -> Tensor:
    """The saved tensor on its device again."""
    device, tensor = packed
    return tensor.to(device, non_blocking=True)
