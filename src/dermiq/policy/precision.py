"""Matrix products in float32, whatever the factors' dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def matmul_float32(left: Tensor, right: Tensor) -> Tensor:
    """Left @ right, [n, k] and [k, m] -> [n, m] float32, or batches of them, [b, n, k] and [b, k, m].

    Rounding a score or a logit to bfloat16 before it is exponentiated would cost two decimal places. On a GPU the
    factors stay in half precision, which is exact and uses its matrix units.
    """
    if left.dtype == right.dtype == torch.float32 and not torch.is_autocast_enabled(left.device.type):
        return left @ right
    with torch.autocast(left.device.type, enabled=False):
        if not left.is_cuda or left.dtype != right.dtype or left.dtype == torch.float32:
            return left.float() @ right.float()
        product = torch.mm if left.ndim == 2 else torch.bmm
        return product(left, right, out_dtype=torch.float32)
