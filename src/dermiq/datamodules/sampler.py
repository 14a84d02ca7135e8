"""Samplers: the order of training samples, a function of the seed and the epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.splits import encoded, joined
from dermiq.schema import DataError

_STRETCH = 50


def mixed_seed(*parts: int) -> int:
    """One 63-bit seed out of several numbers."""
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def equalising_weights(table: SampleTable, columns: Sequence[str]) -> NDArray[np.float64]:
    """Weights that make every combination of some columns' values that occurs equally frequent, [samples] float64.

    Args:
        table: of the samples.
        columns: names of columns of strings; see `dermiq.datamodules.sample_table.SampleRow`.
    """
    kinds, names = encoded(joined(table, columns))
    return (1 / np.bincount(kinds, minlength=len(names)))[kinds]


def _by_length(indices: Tensor, lengths: Tensor, block: int) -> Tensor:
    """The indices with neighbours of similar length, the stretch with the longest of all first."""
    batches = len(indices) // block
    size = block * max(1, min(batches // 4, _STRETCH))
    stretches = [part[lengths[part].argsort(descending=True, stable=True)] for part in indices.split(size)]
    longest = max(range(len(stretches)), key=lambda i: int(lengths[stretches[i][0]]))
    stretches[0], stretches[longest] = stretches[longest], stretches[0]
    return torch.cat(stretches)


def _digest(weights: Tensor) -> str:
    return hashlib.blake2b(weights.numpy().tobytes(), digest_size=8).hexdigest()


class EpochSampler(Sampler[int]):
    """The training order, which depends on nothing but the seed and the epoch.

    An epoch is cut into global batches of ``world_size * batch_size`` samples, and process `rank` takes
    its contiguous share of each, so that two processes with batches of B see in every step what one
    process with batches of 2B sees. The samples left over at the end of an epoch's order are not served
    in that epoch.

    With `lengths`, the samples of a batch are of similar length, as Hugging Face's ``group_by_length`` makes them: the
    random order is cut into stretches of 50 global batches (of a quarter of the epoch, if that is less), each sorted
    with the longest samples first. The stretch with the longest of all comes first, where a lack of memory shows.

    Attributes:
        epoch: which order to serve; Lightning sets it through `set_epoch`.
        start: how many of this process's batches the next iteration leaves out.
        rows: a fingerprint of the samples in their order; empty where nobody gave one.

    Args:
        length: number of samples.
        batch_size: samples per batch of one process.
        seed: decides the order together with the epoch.
        weights: one positive number per sample; samples in proportion to them, with replacement.
            None serves every sample at most once per epoch.
        rank: of this process.
        world_size: number of processes.
        lengths: one number per sample, in any unit; None leaves the order random.

    Raises:
        DataError: if the samples do not fill one global batch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        weights: Sequence[float] | NDArray[np.float64] | None = None,
        rank: int = 0,
        world_size: int = 1,
        lengths: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> None:
        if length < batch_size * world_size:
            raise DataError(
                f"the training split has {length} samples, too few for one batch of {batch_size} x {world_size} "
                "process(es). Lower batch_size, or add samples."
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        self.lengths = None if lengths is None else torch.tensor(lengths)
        self.epoch = 0
        self.start = 0
        self.rows = ""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch = epoch

    def identity(self) -> dict[str, int | bool | str]:
        """What must be equal for a position within an epoch to mean the same samples."""
        return {
            "samples": self.length,
            "batch_size": self.batch_size,
            "world_size": self.world_size,
            "seed": self.seed,
            "balance": self.weights is not None and _digest(self.weights),
            "group_by_length": self.lengths is not None,
            "rows": self.rows,
        }

    def state_dict(self) -> dict[str, Any]:
        """What the order depends on beside the arguments and the epoch: here nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""

    def order(self) -> Tensor:
        """Indices that all processes serve in this epoch, [batches * world_size * batch_size] int64."""
        indices = self._sampled(torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch)))
        block = self.batch_size * self.world_size
        indices = indices[: self.length // block * block]
        return indices if self.lengths is None else _by_length(indices, self.lengths, block)

    def __iter__(self) -> Iterator[int]:
        """Serve this process's indices, batch after batch, from batch `start` on."""
        shares = self.order().view(-1, self.world_size, self.batch_size)
        yield from shares[self.start :, self.rank].flatten().tolist()

    def __len__(self) -> int:
        """Indices of this process in a whole epoch, whatever `start` is."""
        return self.length // (self.batch_size * self.world_size) * self.batch_size

    def _sampled(self, generator: torch.Generator) -> Tensor:
        """Indices [samples] int64 of an epoch, of which whole batches are served."""
        if self.weights is None:
            return torch.randperm(self.length, generator=generator)
        return torch.multinomial(self.weights, self.length, replacement=True, generator=generator)
