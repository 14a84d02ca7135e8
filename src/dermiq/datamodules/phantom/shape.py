"""Geometry of the lesions of an image: one depth map for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np

from dermiq.datamodules.phantom.canvas import Picture, axis_of, between
from dermiq.datamodules.phantom.textures import Plane, clouds, piece, smoothstep

# Mean radius of a solitary lesion, in the picture's units: its width is 2.
_RADII = {
    "macule": (0.34, 0.44),
    "patch": (0.62, 0.74),
    "papule": (0.30, 0.38),
    "plaque": (0.54, 0.66),
    "nodule": (0.46, 0.58),
    "vesicle": (0.24, 0.32),
}
_FADES = {"diffuse": 0.6}  # over which share of the radius a border fades
_SHARP = 0.07


@dataclass(frozen=True)
class Shape:
    """The lesions of one picture, within the rectangle that holds them all.

    Attributes:
        size: of the picture, in pixels.
        top: first row of the rectangle.
        left: first column of it.
        depth: [H, W] float32, 0 in the middle of a lesion, 1 on its border, more outside. The middle of an annular
            lesion is the line that runs round within its ring.
        cover: [H, W] float32 in 0..1, opacity of the lesions.
    """

    size: int
    top: int
    left: int
    depth: Plane
    cover: Plane

    def within(self, picture: Picture) -> Picture:
        """The rectangle of a picture [3, size, size]: a view [3, H, W]."""
        height, width = self.depth.shape
        return picture[:, self.top : self.top + height, self.left : self.left + width]

    def cut(self, tile: Plane, rng: np.random.Generator) -> Plane:
        """A piece of a tile as large as the rectangle."""
        height, width = self.depth.shape
        return piece(tile, height, width, rng)

    def shifted(self, down: int, right: int) -> Plane:
        """The map of depth, moved by some pixels; what comes in from outside is deep outside."""
        height, width = self.depth.shape
        moved = np.full_like(self.depth, 9.0)
        target = moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        target[:] = self.depth[max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
        return moved


def shape(findings: Mapping[str, str], size: int, rng: np.random.Generator) -> Shape:
    """Place and bound lesions of the given morphology, distribution and border."""
    radius = between(rng, *_RADII[findings["morphology"]])
    arrangement, border = findings["distribution"], findings["border"]
    circles = _ARRANGED[arrangement](radius, rng)
    fade = _FADES.get(border, _SHARP)
    margin = 1.6 if border in ("diffuse", "irregular") or findings["structure"] == "streaks" else 1.2
    if findings["morphology"] == "vesicle":
        margin = max(margin, 1.4)
    axis = axis_of(size)
    top, bottom = _span([(y, r) for _, y, r in circles], margin, size)
    left, right = _span([(x, r) for x, _, r in circles], margin, size)
    xs, ys = axis[left:right], axis[top:bottom]
    if arrangement == "annular":
        depth = _ring(circles[0], xs, ys, rng)
    else:
        depth = _discs(circles, xs, ys, rng)
    height, width = depth.shape
    if border == "irregular":
        notches = clouds(size, 9 if arrangement == "solitary" else 15)  # the smaller the lesion, the closer
        depth *= 1.0 + 0.24 * piece(notches, height, width, rng)
        depth *= 1.0 + 0.08 * piece(clouds(size, 24), height, width, rng)
    else:
        uneven = 0.09 if findings["morphology"] == "patch" else 0.035  # a patch has the outline of an island
        depth *= 1.0 + uneven * piece(clouds(size, 6), height, width, rng)
    return Shape(size, top, left, depth, smoothstep(depth, 1.0 + fade, 1.0 - fade))


Circle = tuple[float, float, float]  # x and y of its centre, its radius


def _solitary(radius: float, rng: np.random.Generator) -> list[Circle]:
    return [(between(rng, -0.16, 0.16), between(rng, -0.16, 0.16), radius)]


def _grouped(radius: float, rng: np.random.Generator) -> list[Circle]:
    """A lesion closely surrounded by smaller ones."""
    middle = 0.16 + 0.36 * radius
    x, y = between(rng, -0.1, 0.1), between(rng, -0.1, 0.1)
    circles = [(x, y, middle)]
    count, turn = 4 + int(3.0 * rng.random()), between(rng, 0.0, 2.0 * pi)
    for number in range(count):
        small = middle * between(rng, 0.45, 0.8)
        angle = turn + (number + between(rng, -0.25, 0.25)) * 2.0 * pi / count
        distance = middle * 1.1 + small + between(rng, 0.0, 0.16)
        circles.append((x + distance * cos(angle), y + distance * sin(angle), small))
    return circles


def _scattered(radius: float, rng: np.random.Generator) -> list[Circle]:
    """Lesions of unequal size all over the picture, at a distance from each other."""
    largest = 0.12 + 0.28 * radius
    places = [(x, y) for y in (-0.62, 0.0, 0.62) for x in (-0.62, 0.0, 0.62) if x == y == 0.0 or rng.random() > 0.35]
    return [
        (
            x + between(rng, -0.17, 0.17),
            y + between(rng, -0.17, 0.17),
            largest * (1.0 if x == y == 0.0 else between(rng, 0.5, 1.0)),
        )
        for x, y in places
    ]


def _annular(radius: float, rng: np.random.Generator) -> list[Circle]:
    """A ring, given by its outer border."""
    return [(between(rng, -0.1, 0.1), between(rng, -0.1, 0.1), min(0.42 + 0.5 * radius, 0.76))]


_ARRANGED = {"solitary": _solitary, "grouped": _grouped, "scattered": _scattered, "annular": _annular}


def _span(extents: list[tuple[float, float]], margin: float, size: int) -> tuple[int, int]:
    """First and last pixel (exclusive) of what reaches `margin` radii around each centre."""
    low = min(centre - margin * radius for centre, radius in extents)
    high = max(centre + margin * radius for centre, radius in extents)
    return max(0, int(0.5 * (1.0 + low) * size)), min(size, int(0.5 * (1.0 + high) * size) + 2)


def _ring(circle: Circle, xs: Plane, ys: Plane, rng: np.random.Generator) -> Plane:
    x, y, radius = circle
    thickness = between(rng, 0.34, 0.42)
    distance = np.sqrt(((xs - x) * (1.0 / radius)) ** 2 + (((ys - y) * (1.0 / radius)) ** 2)[:, None])
    distance -= 1.0 - 0.5 * thickness
    np.abs(distance, out=distance)
    distance *= 2.0 / thickness
    return distance


def _discs(circles: list[Circle], xs: Plane, ys: Plane, rng: np.random.Generator) -> Plane:
    """Depth in the nearest of some slightly oval discs."""
    x, y, radius = circles[0]
    angle, squeeze = between(rng, 0.0, pi), between(rng, 0.85, 1.0)
    wide, narrow = (squeeze / radius) ** 2, 1.0 / (squeeze * radius) ** 2
    dx, dy = xs - x, (ys - y)[:, None]
    cosine, sine = cos(angle), sin(angle)
    squared = (wide * cosine * cosine + narrow * sine * sine) * dx * dx + (
        wide * sine * sine + narrow * cosine * cosine
    ) * dy * dy
    squared += ((2.0 * cosine * sine * (wide - narrow)) * dx) * dy
    pixels = (len(xs) - 1) / float(xs[-1] - xs[0])  # per unit of length
    for x, y, radius in circles[1:]:
        reach = 2.0 * radius
        left, right = _clipped((x - reach - xs[0]) * pixels, (x + reach - xs[0]) * pixels, len(xs))
        top, bottom = _clipped((y - reach - ys[0]) * pixels, (y + reach - ys[0]) * pixels, len(ys))
        area = squared[top:bottom, left:right]
        one = ((xs[left:right] - x) * (1.0 / radius)) ** 2 + (((ys[top:bottom] - y) * (1.0 / radius)) ** 2)[:, None]
        np.minimum(area, one, out=area)
    depth: Plane = np.sqrt(squared)
    return depth


def _clipped(low: float, high: float, length: int) -> tuple[int, int]:
    return min(max(int(low), 0), length), min(max(int(high) + 1, 0), length)
