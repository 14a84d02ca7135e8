"""One part of a source, so that stages with sources of their own share one split."""

from __future__ import annotations

from PIL import Image

from dermiq.datamodules.sources.base import Outline, Source
from dermiq.datamodules.splits import split_by_group
from dermiq.schema import DataError, Sample


class Part(Source):
    """The samples of a source that the split by group gives to one name.

    With the fractions and the seed of a data module whose source is ``all``, it is the same split.

    Args:
        source: the whole.
        name: which part.
        fractions: name -> share of the samples, of all parts.
        seed: of the split (`split_seed` of the data modules).
    """

    def __init__(self, source: Source, name: str, fractions: dict[str, float], seed: int = 0) -> None:
        if name not in fractions:
            raise DataError(f"`Part` has no share for {name!r}: `fractions` names {', '.join(fractions) or 'none'}.")
        self.source, self.name, self.fractions, self.seed = source, name, fractions, seed
        self._indices: list[int] = []

    def load(self) -> None:
        """Read the metadata of the source, and split it."""
        self.source.load()
        outline = self.source.outline()
        parts = split_by_group(
            [entry.group for entry in outline], [entry.target for entry in outline], self.fractions, self.seed
        )
        self._indices = parts[self.name]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        """One sample, 0 <= index < len."""
        return self.source[self._indices[index]]

    def outline(self) -> list[Outline]:
        """The source's outlines of these samples."""
        whole = self.source.outline()
        return [whole[i] for i in self._indices]

    def missing(self) -> list[int]:
        """Indices of the samples whose images are known to be absent."""
        absent = set(self.source.missing())
        return [place for place, index in enumerate(self._indices) if index in absent]

    def image(self, reference: str) -> Image.Image:
        """Open an image by the source.

        Raises:
            DataError: see `open_image`.
        """
        return self.source.image(reference)
