"""Hashes of a backbone's weights, by which files know the policy that they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dermiq.policy.backbone import REFERENCE, VLMBackbone

_SAMPLED = 1024


def digest(parts: Iterable[bytes]) -> str:
    """A hash of some bytes, 32 hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:32]


def policy_digest(backbone: VLMBackbone) -> str:
    """A hash of the policy's adapter; of nothing without one."""
    keys = {key for key in backbone.adapter_keys() if f".{REFERENCE}." not in key}
    return digest(_contents({name: value.data for name, value in backbone.named_parameters() if name in keys}))


def reference_digest(backbone: VLMBackbone) -> str:
    """A hash of the reference's adapter; ``none`` without one."""
    keys = backbone.adapter_keys()
    adapter = {name: value for name, value in _frozen(backbone).items() if name in keys}
    return digest(_contents(adapter)) if adapter else "none"


def base_digest(backbone: VLMBackbone, packed: bool = True) -> str:
    """A hash of the base's weights: of about a thousand evenly spaced elements of each.

    Args:
        backbone: a loaded backbone.
        packed: count those in 4 bits too, which devices round differently.
    """
    keys = backbone.adapter_keys()
    base = {_plain(name): value for name, value in _frozen(backbone).items() if name not in keys}
    return digest(
        _contents({name: value for name, value in base.items() if packed or value.is_floating_point()}, _SAMPLED)
    )


def _frozen(backbone: VLMBackbone) -> dict[str, Tensor]:
    return {name: value.data for name, value in backbone.named_parameters() if not value.requires_grad}


def _plain(name: str) -> str:
    """A weight's name as it is where no adapter wraps its layer."""
    return name.replace(".base_layer", "").replace(".original_module", "")


def _contents(tensors: Mapping[str, Tensor], sampled: int | None = None) -> Iterable[bytes]:
    for name, tensor in sorted(tensors.items()):
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
        step = 1 if sampled is None else max(1, tensor.numel() // sampled)
        yield tensor.flatten()[::step].contiguous().view(torch.uint8).cpu().numpy().tobytes()
