"""The background of a synthetic lesion and the optics: skin, sites, hairs, a ruler, light, blur, noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import cos, hypot, inf, pi, sin

import numpy as np
from numpy.typing import NDArray

from dermiq.datamodules.phantom.textures import VARIANTS, Plane, directed, grain, mottling, piece
from dermiq.schema import DataError

Picture = NDArray[np.floating]

# Colour (RGB, 0..1) of skin under even light, Fitzpatrick types I to VI.
SKIN_TONES = {
    "I": (0.95, 0.80, 0.73),
    "II": (0.91, 0.74, 0.64),
    "III": (0.85, 0.66, 0.53),
    "IV": (0.73, 0.53, 0.40),
    "V": (0.57, 0.40, 0.30),
    "VI": (0.42, 0.29, 0.22),
}


@dataclass(frozen=True)
class Camera:
    """What a camera does to every picture, on top of the light, blur and noise that vary from one to the next.

    The defaults do nothing, to the last bit.

    Attributes:
        cast: factors of red, green and blue: white balance and exposure.
        contrast: factor of the distance to middle grey; below 1 as behind a foggy lens.
        softness: standard deviation of a Gaussian blur, as a share of the picture's width.
        noise: standard deviation of the sensor's noise, as a share of full white.

    Raises:
        DataError: if a number makes no sense.
    """

    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contrast: float = 1.0
    softness: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        sensible = all(0.0 < factor < inf for factor in (*self.cast, self.contrast))
        if not sensible or not 0.0 <= self.softness <= 0.5 or not 0.0 <= self.noise <= 1.0:
            raise DataError(
                "the phantom's camera needs factors of `cast` and `contrast` above 0, and `softness` from 0 to 0.5 and "
                f"`noise` from 0 to 1; got {self}."
            )


PLAIN = Camera()


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number sampled uniformly from an interval."""
    return low + (high - low) * rng.random()


def blend(picture: Picture, colour: NDArray[np.float32], alpha: Plane) -> None:
    """Paint a colour [3, 1, 1] over a picture [3, H, W] in place, with opacity `alpha` [H, W]."""
    layer = colour - picture
    layer *= alpha
    picture += layer


@lru_cache(maxsize=512)
def rgb(red: float, green: float, blue: float) -> NDArray[np.float32]:
    """A colour to blend, [3, 1, 1]."""
    return np.array((red, green, blue), dtype=np.float32)[:, None, None]


def skin(rng: np.random.Generator, size: int, tone: str, site: str) -> Picture:
    """Bare skin of a Fitzpatrick type at a site, with what of the site is visible: [3, size, size] in 0..1."""
    base = rgb(*SKIN_TONES[tone]) * np.float32(between(rng, 0.94, 1.06))
    mottled = piece(mottling(size), size, size, rng)
    if site == "trunk":
        return base * mottled
    variant = directed(site, size)[int(rng.random() * VARIANTS)]
    picture: Picture = variant * mottled
    picture *= base
    return picture


def hairs(picture: Picture, rng: np.random.Generator) -> None:
    """Up to three single hairs across the picture, in place."""
    size = picture.shape[1]
    for _ in range(int(rng.random() * 4.0)):
        angle, offset, bend = between(rng, 0.0, pi), between(rng, -0.8, 0.8), between(rng, -0.3, 0.3)
        along = _walk(size)
        across = offset + bend * along * along
        x = (0.5 * size * (1.0 + cos(angle) * along - sin(angle) * across)).astype(np.intp)
        y = (0.5 * size * (1.0 + sin(angle) * along + cos(angle) * across)).astype(np.intp)
        width = max(1, size // 64)
        seen = (x >= 0) & (x < size - width) & (y >= 0) & (y < size - width)
        x, y = x[seen], y[seen]
        for step in range(width):
            where = (y + step) * size + x
            for channel in picture.reshape(3, -1):
                channel[where] = channel[where] * 0.3 + 0.09


@lru_cache(maxsize=8)
def _walk(size: int) -> Plane:
    return np.linspace(-1.5, 1.5, 2 * size, dtype=np.float32)


def ruler(picture: Picture, rng: np.random.Generator) -> None:
    """A white ruler with ticks along one edge of the picture, in place."""
    strip = _ruler(picture.shape[1])
    side = int(rng.random() * 4.0)
    turned = picture.transpose(0, 2, 1) if side % 2 else picture
    if side < 2:
        turned[:, : len(strip)] = strip
    else:
        turned[:, -len(strip) :] = strip[::-1]


@lru_cache(maxsize=8)
def _ruler(size: int) -> Plane:
    height = max(3, round(0.11 * size))
    strip = np.full((height, size), 0.93, dtype=np.float32)
    strip[-1] = 0.6
    spacing = max(3, size // 24)
    for number, column in enumerate(range(spacing // 2, size, spacing)):
        tick = height - 2 if number % 5 == 0 else (height + 1) // 2
        strip[-tick:, column : column + max(1, size // 96)] = 0.12
    return strip


def photograph(picture: Picture, rng: np.random.Generator, camera: Camera = PLAIN) -> NDArray[np.uint8]:
    """The picture [3, size, size] as the camera saw it: light, vignette, blur, noise; [size, size, 3] uint8.

    The camera consumes no random numbers, so two cameras see one image in the same light.
    """
    size = picture.shape[1]
    axis, corner = axis_of(size), _corners(size)
    brightness, right, down = between(rng, 0.88, 1.08), between(rng, -0.08, 0.08), between(rng, -0.08, 0.08)
    light = (brightness + right * axis) + down * axis[:, None]
    vignette = between(rng, -0.4, 0.4)
    if vignette > 0.0:
        light -= vignette * corner
    picture *= light
    picture *= rgb(*camera.cast) * (255.0 * (0.96 + 0.08 * rng.random((3, 1, 1), dtype=np.float32)))
    softness = between(rng, -0.4, 0.4)
    if softness > 0.0:
        _blur(picture, softness)
    if camera.softness > 0.0:
        kernel = _gaussian(size, camera.softness)
        picture = kernel @ picture @ kernel.T
    if camera.contrast != 1.0:
        picture -= 127.5
        picture *= camera.contrast
        picture += 127.5
    noise = hypot(between(rng, 0.005, 0.025), camera.noise)  # independent noises add up like that
    picture += np.float32(255.0 * noise) * piece(grain(size), size, size, rng)
    np.maximum(picture, 0.0, out=picture)
    np.minimum(picture, 255.0, out=picture)
    planes = picture.astype(np.uint8)
    seen = np.empty((size, size, 3), dtype=np.uint8)
    for channel in range(3):  # three strided copies are quicker than one transposed
        seen[..., channel] = planes[channel]
    return seen


@lru_cache(maxsize=8)
def axis_of(size: int) -> Plane:
    """The coordinate of each pixel along an axis, [size] float32 from -1 to 1."""
    return np.linspace(-1.0, 1.0, size, dtype=np.float32)


@lru_cache(maxsize=8)
def _corners(size: int) -> Plane:
    """How far in the corners each pixel is, [size, size] float32 from 0 to 1."""
    squares = axis_of(size) ** 2
    corners: Plane = (0.5 * (squares + squares[:, None])) ** 2
    return corners


@lru_cache(maxsize=8)
def _gaussian(size: int, deviation: float) -> Plane:
    """Weights of a Gaussian blur along an axis, [size, size] float32; rows add up to 1, at the edges too."""
    place = np.arange(size) / (size * deviation)
    weights: Plane = np.exp(-0.5 * (place[:, None] - place) ** 2).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _blur(picture: Picture, softness: float) -> None:
    """Mix each pixel with its neighbours, in place; the edge stays as it is."""
    for view in (picture, picture.transpose(0, 2, 1)):
        beside = view[:, :, 2:] + view[:, :, :-2]
        beside *= 0.5 * softness
        inner = view[:, :, 1:-1]
        inner *= 1.0 - softness
        inner += beside
