"""Synthetic pictures for tests that need pixels and no file."""

from __future__ import annotations

import torch
from PIL import Image


def picture(seed: int, size: int) -> Image.Image:
    """A square of noise, `size` pixels wide."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size, size, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())
