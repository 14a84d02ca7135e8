"""The interface of a source of samples, and how images are opened."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dermiq.datamodules.file_faults import PASSING, passing_fault, refuse_special
from dermiq.datamodules.sample_table import SampleTable, sample_row
from dermiq.schema import DataError, Sample

MAX_PIXELS = 50_000_000
MAX_ASPECT = 200  # the processors of Qwen's models refuse more
_SHOWN = 300
# What photographs come as. Others hide a picture of another size behind their header (ICO), or start programs (EPS).
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM")


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS, content: bytes | None = None) -> Image.Image:
    """Open an image file as RGB with 8 bits a channel; nothing is decoded before its size is known to be sane.

    It is turned upright as its EXIF orientation says, laid on white where it is transparent, and scaled where it has
    more than 8 bits; of several frames the first counts. Damaged EXIF data are ignored.

    Args:
        path: a file of one of `FORMATS`.
        max_pixels: the largest width * height accepted, in pixels.
        content: of the file, where it stands in a table; `path` then only names it.

    Raises:
        DataError: if the file is missing, too large, too narrow, truncated or no image.
        DermIQError: if the machine cannot read it now, whatever it holds.
    """
    if content is None:
        refuse_special(path)
    try:
        # Pillow warns of what is harmless (odd metadata) or refused below (size).
        with warnings.catch_warnings(action="ignore"), _at_least(max_pixels):
            with Image.open(path if content is None else BytesIO(content), formats=FORMATS) as image:
                _refuse_size(path, image.size, max_pixels)
                return _as_photograph(image)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: the image is missing. Check the image folder of the source.") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error} Resize the image.") from None
    except Exception as error:  # a damaged file makes Pillow's readers fail in any way
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in PASSING):
            raise passing_fault(path, error) from error
        raise DataError(
            f"{str(path)[:_SHOWN]}: the image cannot be read ({str(error)[:_SHOWN]}). Replace the file, or pass "
            "--data.on_bad_image=skip."
        ) from None


@contextmanager
def _at_least(max_pixels: int) -> Iterator[None]:
    """Pillow's own limit of pixels, raised where a source's is higher."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = before if before is None else max(before, max_pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _refuse_size(path: str | Path, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise DataError(
            f"{path}: {width} x {height} pixels are more than the limit of {max_pixels:,}. Resize the image, or raise "
            "`max_pixels` of its source."
        )
    if max(size) > MAX_ASPECT * min(size):
        raise DataError(
            f"{path}: {width} x {height} pixels are no photograph: one side is more than {MAX_ASPECT} times the other. "
            "Replace the file, or pass --data.on_bad_image=skip."
        )


def _as_photograph(image: Image.Image) -> Image.Image:
    """Upright, 8 bits a channel, RGB, on white."""
    image.load()
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data fail in any way, and the picture is none the worse for them
        upright = image
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _eight_bits(upright)
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    return upright.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 8 to 16 bits, or numbers between 0 and 1, 255 or 65,535, scaled to 8 bits; Pillow would clip them.

    Cameras and DICOM write 10, 12 or 14 bits into 16: the least range that holds all values is taken for the one used.

    Raises:
        ValueError: if they are of another range.
    """
    values = np.asarray(image, dtype=np.float32)
    scales = (1, 255, 65_535) if image.mode == "F" else (255, 1_023, 4_095, 16_383, 65_535)
    top = next((scale for scale in scales if values.max() <= scale), None)
    if top is None or not values.min() >= 0:
        raise ValueError(f"grey values from {values.min():g} to {values.max():g}, which fit no scale up to 65,535")
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8))


class Source(ABC):
    """A lazy sequence of samples; metadata is read by `load`, images only when asked for."""

    max_pixels: int = MAX_PIXELS

    @abstractmethod
    def load(self) -> None:
        """Read the metadata; idempotent, and the only method that touches the metadata files.

        Raises:
            DataError: if the metadata is missing, unreadable, lacks columns or holds unknown labels.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """One sample, 0 <= index < len."""

    def __iter__(self) -> Iterator[Sample]:
        """All samples, in order."""
        return (self[index] for index in range(len(self)))

    def table(self) -> SampleTable:
        """One entry per sample, in order; a large source answers from its columns, without building samples."""
        return SampleTable.from_rows(map(sample_row, self))

    def missing(self) -> list[int]:
        """Indices of the samples whose images are known to be absent; empty where finding out means opening files."""
        return []

    def image(self, reference: str) -> Image.Image:
        """Open one of a sample's `images` as RGB.

        Raises:
            DataError: see `open_image`.
        """
        return open_image(reference, self.max_pixels)
