"""What a drawn lesion lies on, and what spoils its photograph: skin, sites, hairs, light, blur, noise."""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

# float32 throughout; numpy's stubs lose the width where a Python float meets an array.
Plane = NDArray[np.floating]
Picture = NDArray[np.floating]

# Colour (RGB, 0..1) of skin under even light, Fitzpatrick types I to VI.
SKIN_TONES = {
    "I": (0.95, 0.82, 0.76),
    "II": (0.91, 0.75, 0.66),
    "III": (0.85, 0.67, 0.55),
    "IV": (0.74, 0.55, 0.42),
    "V": (0.60, 0.42, 0.31),
    "VI": (0.46, 0.32, 0.25),
}


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Plane, Plane]:
    """Pixel coordinates x and y, each [size, size] float32, from -1 to 1."""
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    return np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))


@lru_cache(maxsize=64)
def _interpolation(size: int, cells: int) -> Plane:
    """Linear interpolation from `cells` + 1 knots to `size` pixels: [size, cells + 1] float32."""
    position = np.linspace(0.0, cells, size, dtype=np.float32)
    knots = np.arange(cells + 1, dtype=np.float32)
    weights: Plane = np.clip(1.0 - np.abs(position[:, None] - knots), 0.0, 1.0)
    return weights


def clouds(rng: np.random.Generator, size: int, cells: int) -> Plane:
    """Smooth noise [size, size] of zero mean and about unit deviation, `cells` bumps across."""
    weights = _interpolation(size, cells)
    knots = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
    return weights @ knots @ weights.T


def smoothstep(values: Plane, low: float, high: float) -> Plane:
    """0 below `low`, 1 above `high`, linear between: a cheap soft threshold."""
    ramp = (values - low) * (1.0 / (high - low))
    np.maximum(ramp, 0.0, out=ramp)
    np.minimum(ramp, 1.0, out=ramp)
    return ramp


def blend(picture: Picture, colour: tuple[float, float, float], alpha: Plane) -> None:
    """Paint a colour over a picture [3, size, size] in place, with opacity `alpha` [size, size]."""
    for channel, value in zip(picture, colour, strict=True):
        channel += (value - channel) * alpha


def skin(rng: np.random.Generator, size: int, tone: str) -> Picture:
    """Bare skin of a Fitzpatrick type: [3, size, size] in 0..1."""
    base = np.array(SKIN_TONES[tone], dtype=np.float32) * np.float32(rng.uniform(0.94, 1.06))
    mottling = 1.0 + 0.02 * clouds(rng, size, 6) + 0.02 * clouds(rng, size, 24)
    return base[:, None, None] * mottling[None]


def place(picture: Picture, site: str, rng: np.random.Generator) -> None:
    """Show the site in place: what of the surroundings is visible beside the lesion."""
    size = picture.shape[1]
    x, y = grid(size)
    angle = rng.uniform(0.0, pi)
    across = cos(angle) * x + sin(angle) * y
    along = cos(angle) * y - sin(angle) * x
    if site == "limb":  # a cylinder: dark drape shows past both of its edges
        edge = np.abs(across)
        picture *= 1.0 - 0.35 * smoothstep(edge, 0.45, 0.85)
        blend(picture, (0.13, 0.22, 0.30), smoothstep(edge, 0.84, 0.88))
    elif site == "acral":  # parallel ridges of palm and sole
        phase = rng.uniform(10.0, 13.0) * pi * across + 0.8 * clouds(rng, size, 4)
        picture *= 1.0 + 0.13 * np.sin(phase)
    elif site == "face":  # follicular openings in a loose lattice
        lattice = np.cos(8.0 * pi * across + 0.7 * clouds(rng, size, 8))
        lattice = lattice * np.cos(8.0 * pi * along + 0.7 * clouds(rng, size, 8))
        picture *= 1.0 - 0.35 * smoothstep(lattice, 0.55, 0.9)
    elif site == "scalp":  # a parting: dense, nearly parallel hair on both sides
        bend = 0.12 * clouds(rng, size, 3)
        strands = np.sin((26.0 * pi) * (across + bend)) + 0.5 * clouds(rng, size, 12)
        blend(picture, (0.16, 0.12, 0.10), 0.75 * smoothstep(strands, 0.35, 0.8))


def hairs(picture: Picture, rng: np.random.Generator) -> None:
    """Up to three single hairs across the picture, in place."""
    size = picture.shape[1]
    x, y = grid(size)
    for _ in range(rng.integers(0, 4)):
        angle, offset, bend = rng.uniform(0.0, pi), rng.uniform(-0.8, 0.8), rng.uniform(-0.3, 0.3)
        along = cos(angle) * x + sin(angle) * y
        distance = np.abs(cos(angle) * y - sin(angle) * x - offset - bend * along * along)
        blend(picture, (0.18, 0.13, 0.10), 0.7 * smoothstep(distance, 0.03, 0.01))


def photograph(picture: Picture, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture [3, size, size] as the camera saw it: uneven light, blur, noise; [size, size, 3] uint8."""
    size = picture.shape[1]
    x, y = grid(size)
    light = rng.uniform(0.88, 1.08) + rng.uniform(-0.08, 0.08) * x + rng.uniform(-0.08, 0.08) * y
    cast = rng.uniform(0.96, 1.04, 3).astype(np.float32)[:, None, None]
    seen = picture * (light * cast)
    softness = rng.uniform(0.0, 0.3)
    for axis in (1, 2):
        seen = (1.0 - softness) * seen + (0.5 * softness) * (np.roll(seen, 1, axis) + np.roll(seen, -1, axis))
    grain = rng.uniform(0.005, 0.025)
    seen += grain * rng.standard_normal(seen.shape, dtype=np.float32)
    return np.ascontiguousarray((np.clip(seen, 0.0, 1.0) * 255.0).astype(np.uint8).transpose(1, 2, 0))
