"""Textures of skin and lesions: tiles made once per size, from which each picture cuts its pieces.

A tile is larger than a picture and the same in every process; a piece of it at a random place costs nothing. Lengths
are in the picture's units: its width is 2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

# float32 throughout; numpy's stubs lose the width where a Python float meets an array.
Plane = NDArray[np.floating]

EXTENT = 3.0  # width of a tile, for pictures of width 2
VARIANTS = 8  # of what has a direction


def smoothstep(values: Plane, low: float, high: float) -> Plane:
    """0 at `low`, 1 at `high`, linear between, whichever is the greater: a cheap soft threshold."""
    ramp = values * (1.0 / (high - low))
    ramp -= low / (high - low)
    np.maximum(ramp, 0.0, out=ramp)
    np.minimum(ramp, 1.0, out=ramp)
    return ramp


def piece(tile: Plane, height: int, width: int, rng: np.random.Generator) -> Plane:
    """A view [..., height, width] of a tile at a random place."""
    top = int(rng.random() * (tile.shape[-2] - height + 1))
    left = int(rng.random() * (tile.shape[-1] - width + 1))
    return tile[..., top : top + height, left : left + width]


@lru_cache(maxsize=256)
def clouds(size: int, cells: int) -> Plane:
    """Smooth noise of zero mean and unit deviation, `cells` bumps across a picture: a tile."""
    rng = np.random.default_rng((cells, 0))
    side, knots = _side(size), round(cells * EXTENT / 2.0)
    position = np.linspace(0.0, knots, side, dtype=np.float32)
    weights = np.clip(1.0 - np.abs(position[:, None] - np.arange(knots + 1, dtype=np.float32)), 0.0, 1.0)
    noise: Plane = weights @ rng.standard_normal((knots + 1, knots + 1), dtype=np.float32) @ weights.T
    noise -= noise.mean()
    noise /= noise.std()
    return noise


@lru_cache(maxsize=256)
def texture(name: str, size: int) -> Plane:
    """The tile of that name for pictures of `size` pixels: [..., T, T] float32, opacities in 0..1."""
    return np.ascontiguousarray(_TILES[name](size), dtype=np.float32)


@lru_cache(maxsize=32)
def directed(name: str, size: int) -> Plane:
    """Variants of a factor [VARIANTS, 3, size, size] float32 for the colours of skin, each turned another way."""
    return np.stack([_DIRECTED[name](size, pi * (k + 0.5) / VARIANTS) for k in range(VARIANTS)]).astype(np.float32)


@lru_cache(maxsize=8)
def grain(size: int) -> Plane:
    """Noise of a sensor, of zero mean and unit deviation: a tile [3, T, T]."""
    return np.random.default_rng(0).standard_normal((3, _side(size), _side(size)), dtype=np.float32)


@lru_cache(maxsize=8)
def mottling(size: int) -> Plane:
    """The unevenness of bare skin, a factor about 1: a tile."""
    return 1.0 + 0.018 * clouds(size, 6) + 0.018 * clouds(size, 24)


def _side(size: int) -> int:
    return round(size * EXTENT / 2.0)


@lru_cache(maxsize=64)
def _cells(size: int, spacing: float, jitter: float) -> tuple[Plane, Plane, Plane, Plane]:
    """Around points in a jittered lattice (Worley, "A cellular texture basis function", SIGGRAPH 1996).

    Returns:
        Distance to the nearest point and to the next nearest, and the way to the nearest along x and y, each a tile
        in units of `spacing`.
    """
    rng = np.random.default_rng(round(1000 * spacing))
    axis = np.linspace(0.0, EXTENT / spacing, _side(size), dtype=np.float32)
    count = int(EXTENT / spacing) + 3
    moved = (0.5 + jitter * (rng.random((2, count, count), dtype=np.float32) - 0.5)).astype(np.float32)
    cell = np.floor(axis).astype(int)
    x, y = np.meshgrid(axis, axis)
    first, second = np.full_like(x, np.inf), np.full_like(x, np.inf)
    along, across = np.zeros_like(x), np.zeros_like(x)
    for down in (0, 1, 2):
        for right in (0, 1, 2):
            rows, columns = (cell + down)[:, None], (cell + right)[None]
            dx = columns - 1 + moved[0, rows, columns] - x
            dy = rows - 1 + moved[1, rows, columns] - y
            distance = np.hypot(dx, dy)
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            first = np.where(nearer, distance, first)
            along, across = np.where(nearer, dx, along), np.where(nearer, dy, across)
    return first, second, along, across


def _spots(spacing: float, jitter: float, outer: float, inner: float) -> Callable[[int], Plane]:
    return lambda size: smoothstep(_cells(size, spacing, jitter)[0], outer, inner)


def _edges(spacing: float, jitter: float, outer: float, inner: float) -> Callable[[int], Plane]:
    def tile(size: int) -> Plane:
        first, second, _, _ = _cells(size, spacing, jitter)
        return smoothstep(second - first, outer, inner)

    return tile


def _rosettes(size: int) -> Plane:
    _, _, along, across = _cells(size, 0.42, 0.4)
    return smoothstep(np.hypot(np.abs(along) - 0.16, np.abs(across) - 0.16), 0.16, 0.1)


def _flakes(size: int) -> Plane:
    """Plates of scale, thinner in places, some of them shed."""
    plates: Plane = 1.0 - _edges(0.14, 0.95, 0.14, 0.0)(size)
    plates *= smoothstep(clouds(size, 9), -0.6, 0.0)
    plates *= np.clip(0.85 + 0.15 * clouds(size, 28), 0.0, 1.0)
    return plates


def _vessels(size: int) -> Plane:
    """Trees of vessels: trunks that fork into ever thinner branches."""
    rng = np.random.default_rng(7)
    side = _side(size)
    tile = np.zeros((side, side), dtype=np.float32)
    pending = [
        (0.5 * (i + rng.random()), 0.5 * (j + rng.random()), 2.0 * pi * rng.random(), 0.042, 0)
        for i in range(6)
        for j in range(6)
    ]
    while pending:
        x, y, heading, width, age = pending.pop()
        for _ in range(14):
            heading += rng.normal(0.0, 0.22)
            x, y = x + 0.022 * cos(heading), y + 0.022 * sin(heading)
            _dab(tile, x, y, width)
        if age < 3:
            turn = rng.uniform(0.4, 0.9)
            pending += [(x, y, heading + sign * turn, width * 0.72, age + 1) for sign in (-1.0, 1.0)]
    return tile


def _dab(tile: Plane, x: float, y: float, width: float) -> None:
    """A soft disc at a place of a tile, in place."""
    scale = len(tile) / EXTENT
    reach = int(width * scale) + 2
    column, row = int(x * scale), int(y * scale)
    rows = np.arange(max(row - reach, 0), min(row + reach + 1, len(tile)))
    columns = np.arange(max(column - reach, 0), min(column + reach + 1, len(tile)))
    if rows.size and columns.size:
        distance = np.hypot(rows[:, None] + 0.5 - y * scale, columns + 0.5 - x * scale)
        area = tile[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        np.maximum(area, np.clip(0.5 + 0.5 * width * scale - distance, 0.0, 1.0), out=area)


def _thrombi(size: int) -> Plane:
    """Papillae, and the clots in their middles: two planes."""
    return np.stack([_spots(0.27, 0.35, 0.48, 0.38)(size), _spots(0.27, 0.35, 0.28, 0.18)(size)])


def _bumps(size: int) -> Plane:
    """The height of crowded bumps, and the clefts between them: two planes."""
    first, second, _, _ = _cells(size, 0.18, 0.6)
    return np.stack([1.0 - np.minimum(first / 0.75, 1.0) ** 2, smoothstep(second - first, 0.22, 0.04)])


_TILES: dict[str, Callable[[int], Plane]] = {
    "network": _edges(0.21, 0.5, 0.34, 0.12),
    "globules": _spots(0.26, 0.6, 0.38, 0.28),
    "dots": _spots(0.16, 0.3, 0.36, 0.24),
    "cysts": _spots(0.3, 0.7, 0.34, 0.22),
    "lacunae": _spots(0.3, 0.5, 0.48, 0.4),
    "vessels": _vessels,
    "rosettes": _rosettes,
    "follicles": _spots(0.27, 0.35, 0.36, 0.26),
    "striae": _edges(0.32, 0.95, 0.26, 0.1),
    "lobules": _spots(0.16, 0.5, 0.5, 0.3),
    "thrombi": _thrombi,
    "flakes": _flakes,
    "bumps": _bumps,
    "clumps": lambda size: smoothstep(clouds(size, 12) + 0.5 * clouds(size, 28), -0.3, 1.0),
}


def _turned(size: int, angle: float) -> tuple[Plane, Plane]:
    """Coordinates across and along a direction, each [size, size], from -1 to 1 on the way through the centre."""
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    return cos(angle) * axis + sin(angle) * axis[:, None], cos(angle) * axis[:, None] - sin(angle) * axis


def _ridges(size: int, angle: float) -> Plane:
    """Parallel ridges of palms and soles, which have less pigment than other skin."""
    across, _ = _turned(size, angle)
    ridges = np.sin(11.0 * pi * across + 0.8 * clouds(size, 4)[:size, :size])
    factor: Plane = (1.04 + 0.11 * ridges) * np.array([1.08, 1.02, 1.0])[:, None, None]
    return factor


def _openings(size: int, angle: float) -> Plane:
    """Follicular openings of the face, in a loose lattice."""
    across, along = _turned(size, angle)
    warp = clouds(size, 8)
    lattice = np.cos(8.0 * pi * across + 0.6 * warp[:size, :size]) * np.cos(
        8.0 * pi * along + 0.6 * warp[-size:, :size]
    )
    factor: Plane = (1.0 - 0.28 * smoothstep(lattice, 0.5, 0.9)) * np.ones((3, 1, 1))
    return factor


def _strands(size: int, angle: float) -> Plane:
    """Dense, nearly parallel hair of the scalp."""
    across, _ = _turned(size, angle)
    bent = across + 0.07 * clouds(size, 2)[:size, :size]
    strands = np.sin(19.0 * pi * bent) + np.sin(31.0 * pi * bent + 0.7 * clouds(size, 4)[-size:, :size])
    strands += 0.4 * clouds(size, 16)[:size, :size]
    factor: Plane = 1.0 - smoothstep(strands, 0.5, 1.1) * np.array([0.70, 0.74, 0.74])[:, None, None]
    return factor


def _cylinder(size: int, angle: float) -> Plane:
    """A limb: a cylinder that darkens towards its edges; past them lies a dark blue drape."""
    across, _ = _turned(size, angle)
    edge = np.abs(across)
    limb = 1.0 - 0.35 * smoothstep(edge, 0.45, 0.85)
    drape = smoothstep(edge, 0.84, 0.88)
    factor: Plane = limb * (1.0 - drape) + drape * np.array([0.17, 0.36, 0.6])[:, None, None]
    return factor


_DIRECTED: dict[str, Callable[[int, float], Plane]] = {
    "limb": _cylinder,
    "acral": _ridges,
    "face": _openings,
    "scalp": _strands,
}
