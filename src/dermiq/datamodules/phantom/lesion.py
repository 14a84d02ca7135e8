"""Draws a lesion so that each of its findings can be seen, whatever its other findings are."""

from __future__ import annotations

from cmath import rect
from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

from dermiq.datamodules.phantom.canvas import (
    SKIN_TONES,
    Picture,
    Plane,
    blend,
    clouds,
    grid,
    hairs,
    photograph,
    place,
    skin,
    smoothstep,
)

# Share of the skin's own colour that shines through, and the pigment or blood above it.
_PIGMENTS = {
    "brown": (0.30, (0.40, 0.24, 0.13)),
    "tan": (0.45, (0.66, 0.48, 0.24)),
    "black": (0.12, (0.10, 0.08, 0.08)),
    "pink": (0.40, (0.95, 0.52, 0.58)),
    "red": (0.20, (0.80, 0.16, 0.16)),
    "purple": (0.20, (0.42, 0.13, 0.42)),
    "variegated": (0.25, (0.45, 0.28, 0.17)),
}
_RADII = {"macule": (0.40, 0.60), "papule": (0.30, 0.38), "plaque": (0.52, 0.66), "nodule": (0.45, 0.60)}


@dataclass(frozen=True)
class Frame:
    """Coordinates of a lesion.

    Attributes:
        u: [size, size] float32, along the lesion's main axis, in the picture's units.
        v: [size, size] float32, across it.
        depth: [size, size] float32, 0 at the centre, 1 on the border, more outside.
        cover: [size, size] float32 in 0..1, opacity of the lesion.
        radius: mean radius, in the picture's units.
        angle: of the main axis, in radians.
    """

    u: Plane
    v: Plane
    depth: Plane
    cover: Plane
    radius: float
    angle: float


def _frame(findings: Mapping[str, str], size: int, rng: np.random.Generator) -> Frame:
    """Place the lesion and shape its border."""
    x, y = grid(size)
    radius = rng.uniform(*_RADII[findings["morphology"]])
    left, top = rng.uniform(-0.16, 0.16), rng.uniform(-0.16, 0.16)
    angle = rng.uniform(0.0, pi)
    dx, dy = x - left, y - top
    u = cos(angle) * dx + sin(angle) * dy
    v = cos(angle) * dy - sin(angle) * dx
    squeeze = rng.uniform(0.82, 1.0)
    length = np.sqrt((u * squeeze) ** 2 + (v / squeeze) ** 2)
    heading = _heading(u, v)
    if findings["border"] == "irregular":
        lobes = [(int(rng.integers(3, 6)), 0.2), (int(rng.integers(6, 10)), 0.12)]
    else:
        lobes = [(2, 0.03), (3, 0.02)]
    outline = np.ones_like(length)
    for order, height in lobes:
        outline += height * (heading**order * rect(1.0, rng.uniform(0.0, 2.0 * pi))).real
    depth = length / (radius * outline)
    fade = 0.45 if findings["border"] == "diffuse" else 0.06
    return Frame(u, v, depth, smoothstep(depth, 1.0 + fade, 1.0 - fade), radius, angle)


def _heading(u: Plane, v: Plane) -> NDArray[np.complex64]:
    """Direction from the centre as a complex number of unit length."""
    heading = np.empty(u.shape, dtype=np.complex64)
    length = np.sqrt(u * u + v * v) + 1e-6
    heading.real, heading.imag = u / length, v / length
    return heading


def _lattice(frame: Frame, spacing: float, wobble: float, rng: np.random.Generator) -> Plane:
    """Distance to the nearest of the nodes of an uneven lattice, in units of `spacing`."""
    size = frame.u.shape[0]
    a = frame.u / spacing + wobble * clouds(rng, size, 7) + rng.uniform()
    b = frame.v / spacing + wobble * clouds(rng, size, 7) + rng.uniform()
    a += 0.5 * (np.floor(b) % 2.0)  # bricks rather than squares
    distance: Plane = np.hypot(a - np.floor(a) - 0.5, b - np.floor(b) - 0.5)
    return distance


def _paint(picture: Picture, findings: Mapping[str, str], tone: str, frame: Frame, rng: np.random.Generator) -> None:
    """Colour the lesion; dark skin darkens what shines through and what lies above it."""
    through, colour = _PIGMENTS[findings["colour"]]
    shade = 0.62 + 0.38 * SKIN_TONES[tone][0]
    red, green, blue = (
        value * shade * factor for value, factor in zip(colour, rng.uniform(0.93, 1.07, 3), strict=True)
    )
    blend(picture, (red, green, blue), (1.0 - through) * frame.cover)
    if findings["colour"] == "variegated":
        size = picture.shape[1]
        for patch in ((0.08, 0.07, 0.07), (0.42, 0.50, 0.62), (0.72, 0.22, 0.18)):
            blend(picture, patch, 0.85 * frame.cover * smoothstep(clouds(rng, size, 5), 0.45, 0.75))


def _structure(picture: Picture, name: str, frame: Frame, rng: np.random.Generator) -> None:
    """Add the dermoscopic structure within the lesion, in place."""
    size = picture.shape[1]
    inside = smoothstep(frame.depth, 1.0, 0.9) * frame.cover
    if name == "network":
        lines = _lattice(frame, 0.17, 0.15, rng)
        picture *= 1.0 - 0.6 * smoothstep(lines, 0.36, 0.46) * inside
        blend(picture, (0.80, 0.62, 0.46), 0.25 * smoothstep(lines, 0.3, 0.2) * inside)
    elif name == "globules":
        blend(picture, (0.10, 0.06, 0.04), 0.9 * smoothstep(_lattice(frame, 0.2, 0.3, rng), 0.33, 0.23) * inside)
    elif name == "dots":
        blend(picture, (0.45, 0.0, 0.04), 0.9 * smoothstep(_lattice(frame, 0.12, 0.05, rng), 0.34, 0.22) * inside)
    elif name == "cysts":
        blend(picture, (1.0, 0.98, 0.88), 0.95 * smoothstep(_lattice(frame, 0.26, 0.35, rng), 0.22, 0.12) * inside)
    elif name == "lacunae":
        clods = smoothstep(_lattice(frame, 0.3, 0.2, rng), 0.46, 0.38) * inside
        blend(picture, (0.98, 0.78, 0.80), 0.6 * (inside - clods))
        blend(picture, (0.42, 0.0, 0.14), 0.8 * clods)
    elif name == "rosettes":
        cells = _lattice(frame, 0.3, 0.1, rng)
        petals = np.cos(27.0 * frame.u) * np.cos(27.0 * frame.v)
        ring = smoothstep(cells, 0.5, 0.38) * smoothstep(np.abs(petals), 0.3, 0.55)
        blend(picture, (1.0, 0.97, 0.80), 0.9 * ring * inside)
    elif name == "vessels":
        warp_u, warp_v = clouds(rng, size, 5), clouds(rng, size, 9)
        trunk = np.abs(np.sin(7.0 * frame.u + 1.3 * warp_u))
        twig = np.abs(np.sin(9.0 * frame.v + 9.0 * frame.u + 1.6 * warp_v))
        tree = np.maximum(smoothstep(trunk, 0.3, 0.12), smoothstep(twig, 0.22, 0.08) * smoothstep(warp_u, -0.2, 0.2))
        blend(picture, (0.62, 0.0, 0.05), 0.9 * tree * inside)
    elif name == "streaks":
        rays = _heading(frame.u, frame.v) ** int(rng.integers(13, 18))
        rim = smoothstep(frame.depth, 0.55, 0.7) * smoothstep(frame.depth, 1.4, 1.3)
        blend(picture, (0.09, 0.06, 0.05), 0.9 * rim * smoothstep(rays.real, 0.1, 0.5))
    elif name == "scar":
        blend(picture, (0.98, 0.92, 0.88), 0.85 * smoothstep(frame.depth, 0.52, 0.36))


def _surface(picture: Picture, name: str, frame: Frame, rng: np.random.Generator) -> None:
    """Add the surface of the lesion, in place."""
    size = picture.shape[1]
    inside = smoothstep(frame.depth, 1.08, 0.95) * frame.cover
    if name == "scaly":  # silvery flakes with a shadow on one side
        flakes = smoothstep(clouds(rng, size, 13), 0.25, 0.5) * inside
        picture *= 1.0 - 0.35 * np.roll(flakes, (1, 1), (0, 1)) * (1.0 - flakes)
        blend(picture, (0.93, 0.93, 0.95), 0.72 * flakes)
    elif name == "crusted":  # thick honey-coloured clumps
        clumps = smoothstep(clouds(rng, size, 7), 0.25, 0.4) * inside
        blend(picture, (0.30, 0.17, 0.05), 0.9 * clumps)
        blend(picture, (0.80, 0.58, 0.16), 0.95 * smoothstep(clumps, 0.75, 1.0))
    elif name == "ulcerated":  # a wet, raw crater off the centre
        along, across = rng.uniform(-0.4, 0.4) * frame.radius, rng.uniform(-0.4, 0.4) * frame.radius
        crater = np.hypot(frame.u - along, frame.v - across) + 0.02 * clouds(rng, size, 8)
        reach = 0.1 + 0.22 * frame.radius
        blend(picture, (0.98, 0.86, 0.74), smoothstep(crater, reach, reach - 0.03) * inside)
        blend(picture, (0.36, 0.02, 0.03), smoothstep(crater, reach - 0.05, reach - 0.08) * inside)
    elif name == "warty":  # bumps lit from one side
        bumps = _lattice(frame, 0.15, 0.25, rng)
        relief = np.roll(bumps, (2, 2), (0, 1)) - bumps
        picture *= 1.0 + 1.1 * np.clip(relief, -0.35, 0.35) * inside


def _relief(picture: Picture, findings: Mapping[str, str], frame: Frame, light: float) -> None:
    """Shade what is raised, in place: a plaque's step, a papule's dome, a nodule's ball, a rolled rim."""
    height = np.zeros_like(frame.depth)
    morphology = findings["morphology"]
    reach, sharpness = (1.3, 1.2) if findings["border"] == "diffuse" else (1.05, 0.5)
    dome = np.clip(1.0 - (frame.depth / reach) ** 2, 0.0, 1.0) ** sharpness
    if morphology == "plaque":
        height += smoothstep(frame.depth, reach, 0.86) * 0.09
    elif morphology == "papule":
        height += 0.16 * dome
    elif morphology == "nodule":
        height += 0.42 * dome
    if findings["border"] == "rolled":
        height += 0.15 * smoothstep(np.abs(frame.depth - 0.92), 0.2, 0.0)
        blend(picture, (0.98, 0.88, 0.86), 0.55 * smoothstep(np.abs(frame.depth - 0.92), 0.14, 0.07))
    step = picture.shape[1] / 2.0
    slope_y, slope_x = np.gradient(height)
    slope = np.clip((cos(light) * slope_x + sin(light) * slope_y) * step, -1.2, 1.2)
    picture *= 1.0 - 0.42 * slope
    if morphology == "nodule":
        shine = np.hypot(_along(frame, light) + 0.16, _across(frame, light))
        blend(picture, (1.0, 1.0, 1.0), 0.75 * smoothstep(shine, 0.10, 0.03))


def _along(frame: Frame, light: float) -> Plane:
    """Distance from the lesion's centre along the direction of the light."""
    turn = light - frame.angle
    along: Plane = cos(turn) * frame.u + sin(turn) * frame.v
    return along


def _across(frame: Frame, light: float) -> Plane:
    """Distance from the lesion's centre across the direction of the light."""
    return _along(frame, light + 0.5 * pi)


def draw(findings: Mapping[str, str], tone: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A photograph of a lesion with the given findings: [size, size, 3] uint8, RGB.

    Args:
        findings: one value of the atlas per attribute.
        tone: Fitzpatrick type, ``I`` to ``VI``.
        size: width and height in pixels.
        rng: decides everything else: place, pose, light, hair, blur and noise.
    """
    picture = skin(rng, size, tone)
    place(picture, findings["site"], rng)
    frame = _frame(findings, size, rng)
    _paint(picture, findings, tone, frame, rng)
    _structure(picture, findings["structure"], frame, rng)
    _surface(picture, findings["surface"], frame, rng)
    _relief(picture, findings, frame, rng.uniform(0.0, 2.0 * pi))
    hairs(picture, rng)
    return photograph(picture, rng)
