"""Rendering of lesions: each finding can be seen, whatever the other findings are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

from dermiq.datamodules.phantom.canvas import (
    PLAIN,
    SKIN_TONES,
    Camera,
    Picture,
    between,
    blend,
    hairs,
    photograph,
    rgb,
    ruler,
    skin,
)
from dermiq.datamodules.phantom.features import DEPOSITS, add_structure, add_surface
from dermiq.datamodules.phantom.shape import Shape, shape
from dermiq.datamodules.phantom.textures import Plane, clouds, smoothstep

# Opacity, and the factors by which a pigment changes the skin's red, green and blue: on the fairest skin, and on the
# darkest, where blood does not look red but violet to brown (Taylor and Kelly, "Dermatology for Skin of Color", 2016).
_PIGMENTS = {
    "brown": (0.92, (0.50, 0.34, 0.22), (0.46, 0.38, 0.34)),
    "tan": (0.90, (0.78, 0.62, 0.36), (0.72, 0.60, 0.42)),
    "black": (0.95, (0.13, 0.12, 0.13), (0.22, 0.24, 0.28)),
    "variegated": (0.92, (0.50, 0.36, 0.24), (0.46, 0.38, 0.34)),
    "pink": (0.88, (1.03, 0.72, 0.78), (1.04, 0.78, 0.98)),
    "red": (0.92, (0.86, 0.30, 0.28), (0.80, 0.44, 0.62)),
    "purple": (0.90, (0.58, 0.32, 0.58), (0.58, 0.40, 0.86)),
    "skin-coloured": (0.90, (0.97, 0.94, 0.88), (1.06, 1.0, 0.92)),
}
# Opacity, and the colour itself, of what hides the skin's own colour.
_COVERS = {"white": (0.95, (1.0, 0.97, 0.94)), "pearly": (0.6, (0.92, 0.83, 0.90))}
_DOMES = {"papule": 0.24, "nodule": 0.5, "vesicle": 0.2}  # heights, in the picture's units
_PATCHES = ((0.10, 0.08, 0.08), (0.38, 0.43, 0.53), (0.56, 0.20, 0.17))  # of a variegated lesion


@lru_cache(maxsize=128)
def _pigment(colour: str, tone: str) -> tuple[float, NDArray[np.float32]]:
    """Opacity and colour [3, 1, 1] of a lesion on skin of a Fitzpatrick type."""
    own = SKIN_TONES[tone]
    if colour in _COVERS:
        opacity, (red, green, blue) = _COVERS[colour]
        shade = 0.75 + 0.25 * own[0]
        return opacity, rgb(red * shade, green * shade, blue * shade)
    opacity, fair, dark = _PIGMENTS[colour]
    share = list(SKIN_TONES).index(tone) / (len(SKIN_TONES) - 1)
    red, green, blue = (own[i] * (fair[i] * (1.0 - share) + dark[i] * share) for i in range(3))
    return opacity, rgb(red, green, blue)


def _paint(box: Picture, findings: Mapping[str, str], tone: str, lesion: Shape, rng: np.random.Generator) -> None:
    """Colour the lesion; a vesicle lies on a coloured base and holds clear fluid."""
    opacity, pigment = _pigment(findings["colour"], tone)
    vary = 0.02 if findings["colour"] in _COVERS else 0.06
    pigment = pigment * (1.0 - vary + 2.0 * vary * rng.random((3, 1, 1), dtype=np.float32))
    if findings["morphology"] == "vesicle":
        blend(box, pigment, opacity * smoothstep(lesion.depth, 1.38, 1.0))
        fluid = rgb(*(0.45 + 0.55 * value for value in SKIN_TONES[tone]))
        blend(box, fluid, 0.6 * smoothstep(lesion.depth, 0.92, 0.76))
    else:
        blend(box, pigment, opacity * lesion.cover)
    if findings["colour"] == "variegated":
        for patch in _PATCHES:
            where = smoothstep(lesion.cut(clouds(lesion.size, 6), rng), 0.25, 0.85)
            where *= lesion.cover
            blend(box, rgb(*patch), 0.88 * where)


def _height(findings: Mapping[str, str], lesion: Shape) -> Plane:
    """How far a lesion rises above the skin, [H, W]: a plaque's step, a papule's dome, a nodule's ball, a rim."""
    morphology = findings["morphology"]
    reach = 1.3 if findings["border"] == "diffuse" else 1.05
    height: Plane
    if morphology == "plaque":
        height = 0.14 * smoothstep(lesion.depth, reach, 0.84)
    elif morphology in _DOMES:
        height = lesion.depth * (1.0 / reach)
        height *= height
        np.subtract(1.0, height, out=height)
        np.maximum(height, 0.0, out=height)
        if findings["border"] != "diffuse":
            np.sqrt(height, out=height)
        height *= _DOMES[morphology]
    else:
        height = np.zeros_like(lesion.depth)
    return height


def _roll(box: Picture, lesion: Shape, height: Plane) -> None:
    """A raised, pearly rim."""
    rim = smoothstep(np.abs(lesion.depth - 0.9), 0.2, 0.02)
    blend(box, rgb(0.98, 0.88, 0.87), 0.62 * smoothstep(rim, 0.3, 0.8))
    height += 0.16 * rim


def _shade(box: Picture, height: Plane, light: float, size: int) -> None:
    """Light the slopes from one side, in place; the outermost pixels stay as they are."""
    steepness = 0.11 * size  # of a slope in the picture's units, from a difference over two pixels
    slope = (cos(light) * steepness) * (height[1:-1, 2:] - height[1:-1, :-2])
    slope += (sin(light) * steepness) * (height[2:, 1:-1] - height[:-2, 1:-1])
    np.maximum(slope, -0.5, out=slope)
    np.minimum(slope, 0.5, out=slope)
    np.subtract(1.0, slope, out=slope)
    box[:, 1:-1, 1:-1] *= slope


def _gloss(box: Picture, lesion: Shape, light: float, reach: float, strength: float) -> None:
    """Reflections of the light on each lesion, in place."""
    away = 0.5 * lesion.size * reach
    spot = lesion.shifted(round(-away * sin(light)), round(-away * cos(light)))
    blend(box, rgb(1.0, 1.0, 1.0), strength * smoothstep(spot, 0.46, 0.14))


def render(
    findings: Mapping[str, str],
    tone: str,
    size: int,
    rng: np.random.Generator,
    ruled: bool = False,
    camera: Camera = PLAIN,
) -> NDArray[np.uint8]:
    """An image of lesions with the given findings: [size, size, 3] uint8, RGB.

    Args:
        findings: one value of `dermiq.findings.VOCABULARY` per attribute.
        tone: Fitzpatrick type, ``I`` to ``VI``.
        size: width and height in pixels.
        rng: decides everything else: place, pose, light, hair, blur and noise.
        ruled: a ruler lies beside the lesion.
        camera: the optics.
    """
    picture = skin(rng, size, tone, findings["site"])
    lesion = shape(findings, size, rng)
    box = lesion.within(picture)
    light = between(rng, 1.05 * pi, 1.45 * pi)
    _paint(box, findings, tone, lesion, rng)
    height = _height(findings, lesion)
    surface = findings["surface"]
    if surface in DEPOSITS:
        add_surface(box, surface, lesion, height, rng)
    add_structure(box, findings["structure"], lesion, rng)
    if surface not in DEPOSITS:
        add_surface(box, surface, lesion, height, rng)
    if findings["border"] == "rolled":
        _roll(box, lesion, height)
    _shade(box, height, light, size)
    if surface == "shiny":
        _gloss(box, lesion, light, 0.11, 0.85)
    elif findings["morphology"] == "vesicle":
        _gloss(box, lesion, light, 0.07, 0.7)
    hairs(picture, rng)
    if ruled:
        ruler(picture, rng)
    return photograph(picture, rng, camera)
