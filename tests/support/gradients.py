"""A policy with a random adapter, its gradients, and how far two sets of them are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA


def loaded(directory: Path, **options: Any) -> VLMBackbone:
    """A policy whose adapter is random, not zero, so that it differs from its reference."""
    torch.manual_seed(0)
    backbone = VLMBackbone(str(directory), LoRA(rank=4), **options)
    backbone.load()
    with torch.no_grad():
        for name, parameter in sorted(backbone.named_parameters()):
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    return backbone


def gradients(backbone: VLMBackbone) -> dict[str, Tensor]:
    """The gradients of all trained weights, removed from the policy."""
    found = {n: p.grad.clone() for n, p in backbone.named_parameters() if p.grad is not None}
    backbone.zero_grad(set_to_none=True)
    return found


def relative_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm of `b`."""
    assert a.keys() == b.keys() and a
    distance = sum(float((a[k] - b[k]).square().sum()) for k in a) ** 0.5
    return distance / sum(float(b[k].square().sum()) for k in b) ** 0.5
