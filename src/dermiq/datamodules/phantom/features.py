"""Dermoscopic structures, surface and relief of a lesion, rendered in place."""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import numpy as np

from dermiq.datamodules.phantom.canvas import Picture, between, blend, rgb
from dermiq.datamodules.phantom.shape import Shape
from dermiq.datamodules.phantom.textures import Plane, clouds, smoothstep, texture

DEPOSITS = ("scaly", "crusted")  # on top; the dermatoscope's fluid makes them transparent, so they are rendered first
Feature = Callable[[Picture, Shape, Plane, np.random.Generator], None]


def add_structure(box: Picture, name: str, lesion: Shape, rng: np.random.Generator) -> None:
    """Render a dermoscopic structure of a lesion, in place.

    Args:
        box: [3, H, W], the lesion's part of the picture.
        name: of the structure.
        lesion: its shape.
        rng: chooses the piece of the texture.
    """
    if name != "structureless":
        _STRUCTURES[name](box, lesion, _inside(lesion), rng)


def add_surface(box: Picture, name: str, lesion: Shape, height: Plane, rng: np.random.Generator) -> None:
    """Render the surface of a lesion, in place, and raise or lower its height map [H, W] accordingly."""
    if name in _SURFACES:
        _SURFACES[name](box, lesion, height, rng)


def _inside(lesion: Shape) -> Plane:
    return smoothstep(lesion.depth, 1.02, 0.9) * lesion.cover


def _network(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    lines = lesion.cut(texture("network", lesion.size), rng) * inside
    blend(box, rgb(0.86, 0.70, 0.54), 0.22 * (inside - lines))
    box *= 1.0 - 0.64 * lines


def _globules(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    clods = lesion.cut(texture("globules", lesion.size), rng) * inside
    blend(box, rgb(0.80, 0.62, 0.46), 0.18 * (inside - clods))
    blend(box, rgb(0.12, 0.07, 0.05), 0.88 * clods)


def _streaks(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    """Dark rays across the border."""
    height, width = lesion.depth.shape
    turn = between(rng, 0.0, 2.0 * pi)
    angle = np.arctan2(
        np.arange(height, dtype=np.float32)[:, None] - 0.5 * height, np.arange(width, dtype=np.float32) - 0.5 * width
    )
    rays = np.cos(angle * float(14 + int(rng.random() * 4.0)) + turn)
    rays -= 0.9 * (lesion.depth - 0.7)  # they taper
    rim = smoothstep(lesion.depth, 0.5, 0.7) * smoothstep(lesion.depth, 1.42, 1.3)
    rim *= smoothstep(rays, 0.0, 0.35)
    blend(box, rgb(0.09, 0.06, 0.05), 0.9 * rim)


def _cysts(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    blend(box, rgb(1.0, 0.90, 0.56), 0.95 * lesion.cut(texture("cysts", lesion.size), rng) * inside)


def _scar(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    blend(box, rgb(0.97, 0.90, 0.86), 0.9 * smoothstep(lesion.depth, 0.7, 0.42))


def _lacunae(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    clods = lesion.cut(texture("lacunae", lesion.size), rng) * inside
    blend(box, rgb(0.98, 0.80, 0.82), 0.3 * (inside - clods))
    blend(box, rgb(0.50, 0.0, 0.16), 0.88 * clods)


def _vessels(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    blend(box, rgb(0.66, 0.02, 0.06), 0.95 * lesion.cut(texture("vessels", lesion.size), rng) * inside)


def _dots(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    blend(box, rgb(0.46, 0.0, 0.05), 0.9 * lesion.cut(texture("dots", lesion.size), rng) * inside)


def _strawberry(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    """Red between pale follicles."""
    follicles = lesion.cut(texture("follicles", lesion.size), rng) * inside
    blend(box, rgb(0.74, 0.16, 0.20), 0.4 * (inside - follicles))
    blend(box, rgb(0.98, 0.90, 0.72), 0.85 * follicles)


def _rosettes(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    blend(box, rgb(0.94, 0.98, 1.0), 0.97 * lesion.cut(texture("rosettes", lesion.size), rng) * inside)


def _striae(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    """The white net of Wickham."""
    blend(box, rgb(0.94, 0.90, 0.98), 0.9 * lesion.cut(texture("striae", lesion.size), rng) * inside)


def _keratin(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    """A horny mass in the middle, within a white circle."""
    rough = lesion.depth + 0.09 * lesion.cut(clouds(lesion.size, 12), rng)
    blend(box, rgb(0.98, 0.95, 0.90), 0.7 * smoothstep(np.abs(rough - 0.68), 0.16, 0.08))
    core = smoothstep(rough, 0.52, 0.42)
    blend(box, rgb(0.80, 0.62, 0.28), 0.95 * core)
    box *= 1.0 - 0.4 * core * smoothstep(lesion.cut(clouds(lesion.size, 16), rng), 0.2, 0.8)


def _lobules(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    """White-yellow lobules in the middle, crowned by vessels that do not cross it."""
    middle = smoothstep(lesion.depth, 0.68, 0.5)
    crown = lesion.cut(texture("dots", lesion.size), rng) * smoothstep(np.abs(lesion.depth - 0.85), 0.16, 0.08)
    blend(box, rgb(0.74, 0.10, 0.14), 0.7 * crown)
    blend(box, rgb(1.0, 0.94, 0.74), 0.9 * middle * lesion.cut(texture("lobules", lesion.size), rng))


def _thrombi(box: Picture, lesion: Shape, inside: Plane, rng: np.random.Generator) -> None:
    """Clotted capillaries: dark dots, each in its pale papilla."""
    papillae, clots = lesion.cut(texture("thrombi", lesion.size), rng)
    blend(box, rgb(0.98, 0.90, 0.82), 0.6 * papillae * inside)
    blend(box, rgb(0.16, 0.02, 0.03), 0.95 * clots * inside)


_STRUCTURES: dict[str, Feature] = {
    "network": _network,
    "globules": _globules,
    "streaks": _streaks,
    "cysts": _cysts,
    "scar": _scar,
    "lacunae": _lacunae,
    "vessels": _vessels,
    "dots": _dots,
    "strawberry": _strawberry,
    "rosettes": _rosettes,
    "striae": _striae,
    "keratin": _keratin,
    "lobules": _lobules,
    "thrombi": _thrombi,
}


def _scaly(box: Picture, lesion: Shape, height: Plane, rng: np.random.Generator) -> None:
    """Silvery flakes, greyer on dark skin."""
    flakes = lesion.cut(texture("flakes", lesion.size), rng) * smoothstep(lesion.depth, 1.06, 0.94)
    light = 0.7 + 0.25 * float(box[0, 0, 0])
    blend(box, light * rgb(0.99, 0.99, 1.02), 0.75 * flakes)
    flakes *= 0.05
    height += flakes


def _warty(box: Picture, lesion: Shape, height: Plane, rng: np.random.Generator) -> None:
    """Crowded bumps with clefts between them."""
    bumps, clefts = lesion.cut(texture("bumps", lesion.size), rng)
    inside = _inside(lesion)
    box *= 1.0 - 0.6 * clefts * inside
    height += 0.15 * bumps * inside


def _crusted(box: Picture, lesion: Shape, height: Plane, rng: np.random.Generator) -> None:
    """Thick honey-coloured clumps with dark, dried edges."""
    clumps = lesion.cut(texture("clumps", lesion.size), rng) * _inside(lesion)
    blend(box, rgb(0.42, 0.24, 0.12), 0.85 * smoothstep(clumps, 0.05, 0.3))
    blend(box, rgb(0.80, 0.59, 0.28), 0.85 * smoothstep(clumps, 0.3, 1.0))
    height += 0.1 * clumps


def _ulcerated(box: Picture, lesion: Shape, height: Plane, rng: np.random.Generator) -> None:
    """A raw, wet crater off the middle, with a sloughy edge."""
    reach = max(1, lesion.size // 24)
    crater = lesion.shifted(reach if rng.random() < 0.5 else -reach, reach if rng.random() < 0.5 else -reach)
    crater += 0.1 * lesion.cut(clouds(lesion.size, 9), rng)
    inside = smoothstep(lesion.depth, 1.0, 0.9)
    blend(box, rgb(0.86, 0.73, 0.50), smoothstep(crater, 0.62, 0.54) * inside)
    floor = smoothstep(crater, 0.5, 0.42) * inside
    blend(box, rgb(0.46, 0.06, 0.07), floor)
    height -= 0.1 * floor


def _umbilicated(box: Picture, lesion: Shape, height: Plane, rng: np.random.Generator) -> None:
    """A dimple in the middle of each lesion, with a pale lip."""
    blend(box, rgb(1.0, 0.95, 0.90), 0.5 * smoothstep(np.abs(lesion.depth - 0.45), 0.16, 0.06))
    dimple = smoothstep(lesion.depth, 0.36, 0.24)
    box *= 1.0 - 0.5 * dimple
    height -= 0.16 * smoothstep(lesion.depth, 0.45, 0.15)


_SURFACES: dict[str, Feature] = {
    "scaly": _scaly,
    "warty": _warty,
    "crusted": _crusted,
    "ulcerated": _ulcerated,
    "umbilicated": _umbilicated,
}
