"""One split of a source, so that stages with their own sources share the same splits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.splits.clusters import Numbers
from dermiq.datamodules.splits.file import parts_of
from dermiq.datamodules.splits.stratified import split_table
from dermiq.ranges import SEED, check_numbers
from dermiq.schema import DataError, Sample


class SplitSource(Source):
    """The samples of one split of a source, by a split file or by fractions.

    The split is that of a data module whose source is ``all``, given the same fractions and seed or split file.

    Args:
        source: the whole.
        name: of the split.
        fractions: split -> fraction of the samples, of all splits.
        seed: of the split by fractions (`split_seed` of the data modules).
        split_file: see `dermiq.datamodules.splits.file`; in place of `fractions`.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        fractions: dict[str, float] | None = None,
        seed: int = 0,
        split_file: str | None = None,
    ) -> None:
        if (fractions is None) == (split_file is None):
            raise DataError("`SplitSource` needs `fractions` or a `split_file`, and not both.")
        if fractions is not None:
            _refuse_unknown(name, list(fractions), "`fractions`")
        self.source, self.name, self.fractions, self.seed, self.split_file = source, name, fractions, seed, split_file
        check_numbers(self, seed=SEED)
        self._indices: Numbers | None = None
        self._table = SampleTable.from_rows([])

    def load(self) -> None:
        """Read the metadata of the source, and split it.

        Raises:
            DataError: if the split file does not fit the source, or a split stays empty.
        """
        if self._indices is not None:
            return
        self.source.load()
        whole = self.source.table()
        if self.split_file is not None:
            parts = parts_of(self.split_file, whole)
            _refuse_unknown(self.name, list(parts), self.split_file)
        else:
            assert self.fractions is not None
            parts = split_table(whole, self.fractions, self.seed)
        self._indices, self._table = parts[self.name], whole.take(parts[self.name])

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._table)

    def __getitem__(self, index: int) -> Sample:
        """One sample, 0 <= index < len."""
        return self.source[int(self._loaded()[index])]

    def table(self) -> SampleTable:
        """The source's rows of these samples."""
        return self._table

    def missing(self) -> list[int]:
        """Indices of the samples whose images are known to be absent."""
        places: list[int] = np.flatnonzero(np.isin(self._loaded(), self.source.missing())).tolist()
        return places

    def image(self, reference: str) -> Image.Image:
        """Open an image by the source.

        Raises:
            DataError: see `open_image`.
        """
        return self.source.image(reference)

    def _loaded(self) -> Numbers:
        if self._indices is None:
            raise RuntimeError("call load() first")
        return self._indices


def _refuse_unknown(name: str, known: list[str], where: str) -> None:
    if name not in known:
        raise DataError(f"`SplitSource` has no share for {name!r}: {where} names {', '.join(known) or 'none'}.")
