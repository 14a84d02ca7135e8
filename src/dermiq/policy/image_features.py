"""Cache of the last batch's image features.

Rollout, update and reference share what a frozen vision tower has computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import torch
from torch import Tensor


class ImageFeatures:
    """A model's `get_image_features` that casts the pixels and caches the features of the last batch.

    The key is the identity of the pixel tensor and its count of changes in place. The tensor is kept, so that no other
    can get its identity.

    Args:
        compute: the model's own method.
        dtype: of the tower.
        frozen: features depend on no trained weight, and may be cached.
    """

    def __init__(self, compute: Callable[..., Any], dtype: torch.dtype, frozen: bool) -> None:
        update_wrapper(self, compute)  # `generate` reads the signature
        self.compute, self.dtype, self.frozen = compute, dtype, frozen
        self._pixels: Tensor | None = None
        self._version = -1
        self._features: Any = None

    def __call__(self, pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The features of `pixel_values`, whose layout is that of the model's processor."""
        if self._pixels is pixel_values and self._version == _version(pixel_values):
            return self._features
        features = self.compute(pixel_values.to(self.dtype), *args, **kwargs)
        if self.frozen:
            self._pixels, self._version, self._features = pixel_values, _version(pixel_values), features
        return features


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; inference tensors keep no count."""
    return 0 if tensor.is_inference() else tensor._version
