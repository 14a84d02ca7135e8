"""In which order samples are served, and loaders that can stop and go on within an epoch."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate, get_worker_info

from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.splits import encoded, joined
from dermiq.policy.checkpoint_files import refuse_misfit
from dermiq.programs.exits import leave_to_parent
from dermiq.schema import DataError, DermIQError, TrainingError

_STRETCH = 50
_ROWS = "the rows are others, in another order, or have other questions or answers"
_ORDER = {"samples": int, "batch_size": int, "world_size": int}
_POSITION = {"epoch": int, "served": int, "order": _ORDER}


def _seed(*parts: int) -> int:
    """One 63-bit seed out of several numbers."""
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def equalising_weights(table: SampleTable, columns: Sequence[str]) -> NDArray[np.float64]:
    """Weights that make every combination of some columns' values that occurs equally frequent, [samples] float64.

    Args:
        table: of the samples.
        columns: names of columns of texts; see `dermiq.datamodules.sample_table.SampleRow`.
    """
    kinds, names = encoded(joined(table, columns))
    return (1 / np.bincount(kinds, minlength=len(names)))[kinds]


def _grouped(drawn: Tensor, lengths: Tensor, block: int) -> Tensor:
    """The indices `drawn` with neighbours of similar length, a stretch with the longest of all at the beginning."""
    batches = len(drawn) // block
    size = block * max(1, min(batches // 4, _STRETCH))
    stretches = [part[lengths[part].argsort(descending=True, stable=True)] for part in drawn.split(size)]
    longest = max(range(len(stretches)), key=lambda i: int(lengths[stretches[i][0]]))
    stretches[0], stretches[longest] = stretches[longest], stretches[0]
    return torch.cat(stretches)


def _digest(weights: Tensor) -> str:
    return hashlib.blake2b(weights.numpy().tobytes(), digest_size=8).hexdigest()


class EpochSampler(Sampler[int]):
    """Training order that depends on nothing but the seed and the epoch.

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
        weights: one positive number per sample; draws in proportion to them, with replacement.
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
        drawn = self._drawn(torch.Generator().manual_seed(_seed(self.seed, self.epoch)))
        block = self.batch_size * self.world_size
        drawn = drawn[: self.length // block * block]
        return drawn if self.lengths is None else _grouped(drawn, self.lengths, block)

    def __iter__(self) -> Iterator[int]:
        """Serve this process's indices, batch after batch, from batch `start` on."""
        shares = self.order().view(-1, self.world_size, self.batch_size)
        yield from shares[self.start :, self.rank].flatten().tolist()

    def __len__(self) -> int:
        """Indices of this process in a whole epoch, whatever `start` is."""
        return self.length // (self.batch_size * self.world_size) * self.batch_size

    def _drawn(self, generator: torch.Generator) -> Tensor:
        """Indices [samples] int64 of an epoch, of which whole batches are served."""
        if self.weights is None:
            return torch.randperm(self.length, generator=generator)
        return torch.multinomial(self.weights, self.length, replacement=True, generator=generator)


class _Pickler(pickle.Pickler):
    """Writes tensors as arrays, which is quicker than torch's own way; NumPy has no bfloat16."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype != torch.bfloat16:
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


class _Piece(NamedTuple):
    """A pickled batch, [bytes] uint8."""

    content: Tensor


class _InOnePiece:
    """Lets a worker hand a batch over in one piece of shared memory, and leaves it as it is in the main process.

    Torch sends each tensor by a file descriptor through a connection of its own, which costs the receiver 2 ms: a
    twentieth of a small model's step in all. Torch's other way, by the names of shared memory, breaks off a run on a
    busy machine, where the process that keeps the names does not answer in time.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        batch = self.collate(items)
        if get_worker_info() is None:
            return batch
        piece = io.BytesIO()
        _Pickler(piece, pickle.HIGHEST_PROTOCOL).dump(batch)
        return _Piece(torch.frombuffer(piece.getbuffer(), dtype=torch.uint8))


class IsolatedDataLoader(DataLoader[Any]):
    """A loader that leaves the global random state alone, gets batches quickly and words its workers' errors plainly.

    Torch draws a seed for the workers from the global generator at every start of an iteration, which
    would make a policy's samples depend on how often it was validated. And it puts a worker's traceback
    into the message of the error that it raises again. The arguments are those of torch's loader.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["collate_fn"] = _InOnePiece(kwargs.get("collate_fn") or default_collate)
        kwargs["generator"] = torch.Generator()
        kwargs.setdefault("worker_init_fn", leave_to_parent)
        super().__init__(*args, **kwargs)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # an iterator is all that callers use
        """Serve the batches; nothing is fetched before the first one is asked for.

        Lightning asks for the iterator before it sets the epoch, and workers would already fetch.
        """
        self.generator.manual_seed(self._iteration_seed())
        batches: Iterator[Any] = super().__iter__()
        try:
            for batch in batches:
                yield pickle.loads(batch.content.numpy().data) if isinstance(batch, _Piece) else batch
        except DermIQError as error:
            name = type(error).__name__
            raise type(error)(str(error).rsplit(f"{name}: ", 1)[-1].strip()) from None
        except (OSError, EOFError) as error:  # of a batch whose worker is gone; torch has words for other moments
            workers = {worker.sentinel: str(worker.pid) for worker in getattr(batches, "_workers", [])}
            dead = ", ".join(workers[sentinel] for sentinel in wait(list(workers), timeout=5.0) if sentinel in workers)
            if not dead:
                raise
            raise RuntimeError(f"DataLoader worker (pid {dead}) exited unexpectedly") from error

    def _iteration_seed(self) -> int:
        return 0


class ResumableDataLoader(IsolatedDataLoader):
    """A training loader over an `EpochSampler` that knows how many batches it has served.

    Lightning saves and loads its state. What counts is what the consumer got, not what workers
    fetched ahead. A loaded position holds only for the epoch that it was taken in: a checkpoint of an
    epoch's end makes the next epoch start at its first batch.
    """

    _epoch = 0
    _served = 0
    _resumed = False

    def state_dict(self) -> dict[str, Any]:
        """The epoch, the batches served in it, what the order depends on, and the sampler's own state."""
        sampler = self._epoch_sampler()
        return {
            "epoch": self._epoch,
            "served": self._served,
            "order": sampler.identity(),
            "sampler": sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that `state` says were served.

        Raises:
            TrainingError: if the run stopped within an epoch and now has another order of samples.
        """
        sampler = self._epoch_sampler()
        refuse_misfit(_POSITION, state, "The checkpoint's place in the training data")
        now = sampler.identity()
        before = {"rows": now["rows"]} | state["order"]  # earlier versions did not record the rows
        changes = [key for key in before | now if before.get(key) != now.get(key)]
        if changes and 0 < state["served"] < before["samples"] // (before["batch_size"] * before["world_size"]):
            told = (_ROWS if key == "rows" else f"{key} {before.get(key)} -> {now.get(key)}" for key in changes)
            raise TrainingError(
                f"the checkpoint was written after {state['served']} batches of epoch {state['epoch']}, and the data "
                f"have changed since ({', '.join(told)}), so that it cannot be continued there. Resume with the data "
                "settings of the saved config.yaml, or start a new run from the saved adapter."
            )
        sampler.load_state_dict(state.get("sampler", {}))
        self._epoch, self._served, self._resumed = state["epoch"], state["served"], True

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Serve the rest of the epoch after `load_state_dict`, the whole epoch otherwise."""
        sampler = self._epoch_sampler()
        if not (self._resumed and self._epoch == sampler.epoch):
            self._epoch, self._served = sampler.epoch, 0
        self._resumed = False
        sampler.start = self._served
        for batch in super().__iter__():
            self._served += 1
            yield batch

    def _iteration_seed(self) -> int:
        sampler = self._epoch_sampler()
        return _seed(sampler.seed, sampler.epoch, sampler.rank)

    def _epoch_sampler(self) -> EpochSampler:
        if not isinstance(self.sampler, EpochSampler):
            raise TrainingError(
                "the trainer has replaced the sampler of the training data. Leave --trainer.use_distributed_sampler "
                "false, and use --data.limit in place of --trainer.overfit_batches."
            )
        return self.sampler


class EpochEndResume(Callback):
    """Lets a run go on from a checkpoint of an epoch's end with the next epoch, not the one after it.

    With `max_steps`, Lightning 2.6 takes such a checkpoint for one from within the epoch: it finishes the
    epoch a second time, counts it twice, and so leaves out the order of the next one. From a checkpoint of
    the last batch, written before the end hooks, it counts the next epoch as the same one, which a second
    resume trips over. Marking the epoch as done in the loaded state is all it takes. The data module adds
    this callback by itself.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Mark an epoch whose last batch is done as completed."""
        loop = checkpoint["loops"]["fit_loop"]
        epoch, batch = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
        now = epoch["current"]
        in_end_hooks = now["ready"] == now["processed"] == now["completed"] + 1
        in_last_batch = batch["is_last_batch"] and now["ready"] == now["processed"] + 1
        if in_last_batch:
            loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
        if in_end_hooks or in_last_batch:
            for count in (epoch["total"], now):
                count["processed"] = count["completed"] = count["ready"]
            batch["total"]["completed"] = batch["total"]["processed"]
            batch["current"] = dict.fromkeys(batch["current"], 0)
            batch["is_last_batch"] = False
