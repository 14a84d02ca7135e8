"""The longest samples of a training split, without encoding all of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np

from dermiq.datamodules import DermDataModule
from dermiq.datamodules.collate import SampleDataset
from dermiq.schema import DataError

CANDIDATES = 64
_SEED = 0


class Longest(NamedTuple):
    """Rows of a training split whose encoding is the longest, among so many looked at, of so many there are."""

    rows: list[int]
    looked_at: int
    of: int


def longest_samples(data: DermDataModule, candidates: int = CANDIDATES) -> Longest:
    """The `batch_size` longest of some training samples, which are encoded one by one.

    Half of the candidates have the longest texts and the most images; the others are random, since the tokens of an
    image depend on its size. The processes of a run find the same ones.

    Raises:
        DataError: if no image of the candidates can be read (and bad ones are skipped).
    """
    dataset, collate = data.splits["train"], data.train_collate()
    sizes: dict[int, tuple[int, int]] = {}
    for row in _candidates(dataset, max(candidates, data.batch_size)):
        item = dataset[row]
        if not item.problem:
            sizes[row] = _size(collate([item]))
    if not sizes:
        raise DataError("No image of the samples that the preflight looked at can be read. Mend the training images.")
    order = sorted(sizes, key=lambda row: sizes[row], reverse=True)
    return Longest(list(islice(cycle(order), data.batch_size)), len(sizes), len(dataset))


def _candidates(dataset: SampleDataset, count: int) -> list[int]:
    table = dataset.source.table().take(dataset.indices)
    lengths, images = table.integers("length"), table.integers("images")
    longest = np.stack([np.argsort(-lengths, kind="stable"), np.lexsort((-lengths, -images))], axis=1).flatten()
    shuffled = np.random.default_rng(_SEED).permutation(len(dataset))[:count]
    return list(dict.fromkeys([*longest[: count // 2].tolist(), *shuffled.tolist()]))[:count]


def _size(batch: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of a batch, and the numbers that its images are made of."""
    inputs = batch["conversation"] if "conversation" in batch else batch["prompt"]
    completions = batch["completion_ids"].numel() if "completion_ids" in batch else 0
    return inputs["input_ids"].numel() + completions, sum(x.numel() for x in inputs.values() if x.is_floating_point())
