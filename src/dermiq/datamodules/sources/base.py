"""What every source of samples offers, and the one way in which images are opened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from dermiq.prompts import gold_completion
from dermiq.schema import DataError, Sample

MAX_PIXELS = 50_000_000
IMAGE_LENGTH = 1_000  # of the characters that an image takes the place of: some 250 tokens


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS, content: bytes | None = None) -> Image.Image:
    """Open an image file as RGB; nothing is decoded before its size is known to be sane.

    Args:
        path: an image file that Pillow reads.
        max_pixels: the largest width * height accepted, in pixels.
        content: of the file, where it stands in a table; `path` then only names it.

    Raises:
        DataError: if the file is missing, too large, truncated or no image.
    """
    try:
        with Image.open(path if content is None else BytesIO(content)) as image:
            if image.width * image.height > max_pixels:
                raise DataError(
                    f"{path}: {image.width} x {image.height} pixels are more than the limit of {max_pixels:,}. "
                    "Resize the image, or raise `max_pixels` of its source."
                )
            return image.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{path}: the image is missing. Check the image folder of the source.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: {error} Resize the image.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path}: the image cannot be read ({error}). Replace the file, or pass --data.on_bad_image=skip."
        ) from None


class Outline(NamedTuple):
    """What splitting, balancing and checking need to know of a sample before it is built.

    Attributes:
        group: what must not be split.
        target: the concept to name.
        question_length: characters of its question; 0 means the default question.
        images: number of its images.
        length: characters of the whole conversation with its gold completion, and `IMAGE_LENGTH` for each image.
    """

    group: str
    target: str
    question_length: int
    images: int
    length: int


def outline_of(sample: Sample) -> Outline:
    """What there is to know of a sample."""
    said = sum(len(turn.text) for turn in sample.history) + len(sample.question) + len(gold_completion(sample))
    return Outline(
        group=sample.group,
        target=sample.target,
        question_length=len(sample.question),
        images=len(sample.images),
        length=said + IMAGE_LENGTH * len(sample.images),
    )


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

    def outline(self) -> list[Outline]:
        """One entry per sample, in order; a large source answers from its columns, without building samples."""
        return [outline_of(sample) for sample in self]

    def missing(self) -> list[int]:
        """Indices of the samples whose images are known to be absent; empty where finding out means opening files."""
        return []

    def image(self, reference: str) -> Image.Image:
        """Open one of a sample's `images` as RGB.

        Raises:
            DataError: see `open_image`.
        """
        return open_image(reference, self.max_pixels)
