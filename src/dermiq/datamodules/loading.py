"""Data loaders that can stop within an epoch and resume there."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, default_collate, get_worker_info

from dermiq.datamodules.sampler import EpochSampler, mixed_seed
from dermiq.policy.checkpoint_files import refuse_misfit
from dermiq.programs.exits import leave_to_parent
from dermiq.schema import DermIQError, TrainingError

_ROWS = "the rows are others, in another order, or have other questions or answers"
_ORDER = {"samples": int, "batch_size": int, "world_size": int}
_POSITION = {"epoch": int, "served": int, "order": _ORDER}


class _Pickler(pickle.Pickler):
    """Writes tensors as arrays, which is quicker than torch's own way; NumPy has no bfloat16."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype != torch.bfloat16:
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


class _PickledBatch(NamedTuple):
    """A pickled batch, [bytes] uint8."""

    content: Tensor


class _PicklingCollate:
    """A collate function that pickles the batch in a worker, so that it is sent as a single tensor.

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
        content = io.BytesIO()
        _Pickler(content, pickle.HIGHEST_PROTOCOL).dump(batch)
        return _PickledBatch(torch.frombuffer(content.getbuffer(), dtype=torch.uint8))


class IsolatedDataLoader(DataLoader[Any]):
    """A loader that leaves the global random state alone, gets batches quickly and words its workers' errors plainly.

    Torch samples a seed for the workers from the global generator at every start of an iteration, which
    would make a policy's samples depend on how often it was validated. And it puts a worker's traceback
    into the message of the error that it raises again. The arguments are those of torch's loader.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["collate_fn"] = _PicklingCollate(kwargs.get("collate_fn") or default_collate)
        kwargs["generator"] = torch.Generator()
        kwargs.setdefault("worker_init_fn", leave_to_parent)
        super().__init__(*args, **kwargs)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # an iterator is all that callers use
        """Serve the batches; nothing is fetched before the first `next`.

        Lightning asks for the iterator before it sets the epoch, and workers would already fetch.
        """
        self.generator.manual_seed(self._iteration_seed())
        batches: Iterator[Any] = super().__iter__()
        try:
            for batch in batches:
                yield pickle.loads(batch.content.numpy().data) if isinstance(batch, _PickledBatch) else batch
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
        """Resume after the batches that `state` counts as served.

        Raises:
            TrainingError: if the run stopped within an epoch and now has another order of samples.
        """
        sampler = self._epoch_sampler()
        refuse_misfit(_POSITION, state, "The checkpoint's place in the training data")
        now = sampler.identity()
        before = {"rows": now["rows"]} | state["order"]  # earlier versions did not record the rows
        changes = [key for key in before | now if before.get(key) != now.get(key)]
        if changes and 0 < state["served"] < before["samples"] // (before["batch_size"] * before["world_size"]):
            changed = (_ROWS if key == "rows" else f"{key} {before.get(key)} -> {now.get(key)}" for key in changes)
            raise TrainingError(
                f"the checkpoint was written after {state['served']} batches of epoch {state['epoch']}, and the data "
                f"have changed since ({', '.join(changed)}), so that it cannot be continued there. Resume with the "
                "data settings of the saved config.yaml, or start a new run from the saved adapter."
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
        return mixed_seed(sampler.seed, sampler.epoch, sampler.rank)

    def _epoch_sampler(self) -> EpochSampler:
        if not isinstance(self.sampler, EpochSampler):
            raise TrainingError(
                "the trainer has replaced the sampler of the training data. Leave --trainer.use_distributed_sampler "
                "false, and use --data.limit in place of --trainer.overfit_batches."
            )
        return self.sampler


class EpochEndResume(Callback):
    """Resumes a checkpoint of an epoch's end with the next epoch, not the one after it.

    With `max_steps`, Lightning 2.6 takes such a checkpoint for one from within the epoch: it finishes the
    epoch a second time, counts it twice, and so leaves out the order of the next one. From a checkpoint of
    the last batch, written before the end hooks, it counts the next epoch as the same one, which a second
    resume trips over. Marking the epoch as done in the loaded state is all it takes. The data module adds
    this callback to the trainer (`DermDataModule.setup`).
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
