"""Photographs from a browser: checked, turned upright, stripped of all metadata."""

from __future__ import annotations

import base64
import random
from io import BytesIO

from PIL import Image

from dermiq.datamodules.phantom import PhantomSource
from dermiq.datamodules.sources.base import MAX_PIXELS, open_image
from dermiq.schema import DataError

MAX_BYTES = 20_000_000
LONGEST_SIDE = 1024  # pixels kept; no model here looks at more
_LESIONS = 1_000_000


def read(content: bytes) -> Image.Image:
    """The pixels of an image file, RGB, upright, at most `LONGEST_SIDE` wide and high.

    Nothing else of the file survives: no EXIF data, hence no place and no time, no comment, no colour profile. Nothing
    is decoded before the size that the file claims is known to be sane.

    Raises:
        DataError: if the file is too large in bytes or pixels, or no photograph.
    """
    if len(content) > MAX_BYTES:
        raise _refused("The file is too large.")
    try:
        upright = open_image("photograph", MAX_PIXELS, content)
    except DataError as error:
        raise _refused("The file cannot be used.") from error
    upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return Image.frombytes("RGB", upright.size, upright.tobytes())


def from_data_url(text: object) -> Image.Image:
    """`read`, of a file as a browser hands it over: ``data:image/jpeg;base64,...``.

    Raises:
        DataError: as `read`.
    """
    encoded = text.partition(",")[2] if isinstance(text, str) else ""
    if len(encoded) > 4 * (MAX_BYTES // 3 + 1):
        raise _refused("The file is too large.")
    try:
        return read(base64.b64decode(encoded, validate=True))
    except ValueError as error:  # no base64, or not even ASCII
        raise _refused("The file did not arrive whole.") from error


def to_data_url(image: Image.Image) -> str:
    """An image to be shown in a page, without a file."""
    file = BytesIO()
    image.save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def synthetic_lesion() -> tuple[Image.Image, str]:
    """A synthetic lesion, a new one each time, and the name of its condition."""
    source = PhantomSource(_LESIONS)
    sample = source[random.randrange(_LESIONS)]
    return source.image(sample.images[0]), sample.target


def _refused(what: str) -> DataError:
    return DataError(
        f"{what} A photograph has at most {MAX_BYTES // 10**6} MB and {MAX_PIXELS // 10**6} megapixels, and is a JPEG, "
        "PNG, WebP, GIF, TIFF or BMP file. Choose another one, or make it smaller."
    )
