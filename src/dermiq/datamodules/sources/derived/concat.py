"""Concatenation of several sources."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from PIL import Image

from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.sources.base import Source
from dermiq.schema import DataError, Sample


class ConcatSource(Source):
    """The samples of several sources, one source after the other.

    Args:
        sources: at least one; their sample ids must differ.
    """

    def __init__(self, sources: list[Source]) -> None:
        if not sources:
            raise DataError("`ConcatSource` needs at least one source.")
        self.sources = sources

    def load(self) -> None:
        """Read the metadata of every source."""
        for source in self.sources:
            source.load()

    def __len__(self) -> int:
        """Number of samples."""
        return sum(map(len, self.sources))

    def __getitem__(self, index: int) -> Sample:
        """One sample, 0 <= index < len."""
        starts = self._starts()
        which = bisect_right(starts, index) - 1
        return self.sources[which][index - starts[which]]

    def table(self) -> SampleTable:
        """The rows of every source."""
        return SampleTable.concat([source.table() for source in self.sources])

    def missing(self) -> list[int]:
        """Indices of the samples whose images are known to be absent."""
        pairs = zip(self._starts(), self.sources, strict=True)
        return [start + index for start, source in pairs for index in source.missing()]

    def image(self, reference: str) -> Image.Image:
        """Open an image by the first source that can.

        Raises:
            DataError: what the last source said, if none can.
        """
        *others, last = self.sources
        for source in others:
            try:
                return source.image(reference)
            except DataError:
                continue
        return last.image(reference)

    def _starts(self) -> list[int]:
        return [0, *accumulate(map(len, self.sources[:-1]))]
