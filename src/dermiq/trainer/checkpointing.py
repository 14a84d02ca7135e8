"""Checkpoints that survive a full disk, Ctrl-C and the hand-over to the next stage."""

from __future__ import annotations

import errno
import pickle
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_info
from safetensors import SafetensorError

from dermiq.files import replacing, replacing_directory
from dermiq.modules import StageModule
from dermiq.policy.checkpoint_files import read_checkpoint
from dermiq.programs.exits import STOPS, answered, reason, stop
from dermiq.ranges import check_values
from dermiq.run_directory import RunDirectory
from dermiq.schema import TrainingError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint IO that replaces a file only once the new one is complete."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            TrainingError: if it cannot be written; the checkpoint that was there before is untouched.
        """
        try:
            with replacing(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError, TypeError, AttributeError, pickle.PicklingError) as error:
            raise TrainingError(
                f"The checkpoint {path} could not be written ({reason(error)}). {_after(error, Path(path))}"
            ) from error

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            TrainingError: if the file is missing, damaged or none of ours; see `dermiq.policy.checkpoint_files`.
        """
        return read_checkpoint(path)


def _after(error: Exception, path: Path) -> str:
    """What is left of a run whose checkpoint could not be written, and how it goes on."""
    if isinstance(error, TypeError | AttributeError | pickle.PicklingError):
        remedy = "Leave out the callback, optimiser or scheduler that has a state which cannot be saved"
    elif path.is_dir():
        remedy = "Move this directory away"
    elif isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = f"Make {path.parent} a directory that may be written to"
    else:
        remedy = "Free space on this disk"
    if path.is_file():
        return f"The previous checkpoint is whole. {remedy}, then resume with --ckpt_path last."
    return f"There is no earlier one here. {remedy}, then run the same command again."


class RunCheckpoint(ModelCheckpoint):
    """Checkpoint callback: saves ``checkpoints/last.ckpt`` (to resume) and ``adapter/`` (for the next stage).

    The checkpoint of a step is taken at its end and written last of all: after the step's metrics, the validation
    that is due then, and the adapter. So a run that is killed repeats a little and misses nothing.

    Args:
        every_n_train_steps: optimiser steps between two savings; the end of training is always saved.
    """

    def __init__(self, every_n_train_steps: int = 100) -> None:
        super().__init__(save_last=True, save_top_k=0)
        self.interval = every_n_train_steps
        check_values("RunCheckpoint", {"every_n_train_steps": every_n_train_steps}, {"every_n_train_steps": "[1, inf)"})
        self._taken: dict[str, Any] | None = None

    def take(self, trainer: Trainer) -> None:
        """Take the checkpoint of a step that ends now; `write` must follow before the next one changes the model."""
        self._taken = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        self._last_global_step_saved = trainer.global_step

    def write(self, trainer: Trainer, module: LightningModule) -> None:
        """Write what `take` has taken, if it is not written yet."""
        assert isinstance(module, StageModule)
        taken, self._taken = self._taken, None
        if taken is not None:
            run = RunDirectory(trainer.default_root_dir)
            if trainer.is_global_zero:
                _save_adapter(module, run)
            trainer.strategy.save_checkpoint(taken, run.last_checkpoint)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a checkpoint where the interval has passed, and at the last step while its epoch is still open."""
        step = trainer.global_step
        due = step % self.interval == 0 or step == trainer.max_steps
        if due and not self._should_skip_saving_checkpoint(trainer):
            self.take(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write the checkpoint of the step before."""
        self.write(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint of the epoch's last step."""
        self.write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of training."""
        if not self._should_skip_saving_checkpoint(trainer):
            self.take(trainer)
        self.write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the last step even if the validation after it fails; a resumed run leaves that validation out."""
        self.write(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: there is one checkpoint, and a copied run directory is as good as the first."""
        return {}


def _save_adapter(module: StageModule, run: RunDirectory) -> None:
    """Replace the adapter file by file, each as a whole: the directory can be read at every moment."""
    try:
        with replacing_directory(run.adapter) as fresh:
            module.backbone.save_adapter(fresh)
    except (OSError, SafetensorError) as error:
        resume = "resume with --ckpt_path last" if run.last_checkpoint.exists() else "run the same again"
        raise TrainingError(
            f"The adapter {run.adapter} could not be written ({reason(error)}). What was saved before is whole. "
            f"Free space on this disk, then {resume}."
        ) from error


class GracefulInterrupt(Callback):
    """The first Ctrl-C, SIGTERM or SIGHUP finishes the step, saves and stops; the second stops at once.

    The exit code is 130, 143 or 129. A validation that is due at the step is a part of it. All processes of a run stop
    at the same step, whichever of them gets the signal. SIGTERM and SIGHUP that were ignored when the program began
    (as by nohup) stay ignored.
    """

    def __init__(self) -> None:
        self.requested = 0  # the signal
        self._stops = 0
        self._former: dict[int, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the signal handlers before Lightning installs its own."""
        self.requested = self._stops = 0
        former = {number: signal.getsignal(number) for number in STOPS}
        kept = (None, signal.SIG_IGN)  # not Python's, and ignored; Ctrl-C is handled all the same
        self._former = {n: handler for n, handler in former.items() if handler not in kept or n == signal.SIGINT}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install handlers in place of Lightning's, which would stop without saving."""
        for number in self._former:
            signal.signal(number, answered(self._request))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a checkpoint if a stop is requested, in all processes at the same step."""
        requested = torch.tensor(self.requested, device=trainer.strategy.root_device)
        self._stops = int(trainer.strategy.reduce(requested, reduce_op="max"))
        if self._stops:
            for callback in _run_checkpoints(trainer):
                callback.take(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop after the step before."""
        self._stop(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after the epoch's last step."""
        self._stop(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop what would follow, where the signal came during the last saving."""
        self._release()
        if self.requested:
            stop(self.requested)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the former handlers."""
        self._release()

    def _release(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, signal.default_int_handler if handler is None else handler)
        self._former = {}

    def _stop(self, trainer: Trainer, module: LightningModule) -> None:
        if self._stops:
            for callback in _run_checkpoints(trainer):
                callback.write(trainer, module)
                rank_zero_info(f"Saved step {trainer.global_step}; go on with the same command and --ckpt_path last.")
            _forget_processes(trainer)
            stop(self._stops)

    def _request(self, number: int) -> None:
        self.requested = number
        for each in self._former:
            signal.signal(each, answered(stop))
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        rank_zero_info(f"{name}: finishing this step, then saving. Once more stops at once.")


def _forget_processes(trainer: Trainer) -> None:
    """Detach the other processes: Lightning would kill this one as soon as one of them ends."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy.barrier("stop")
        launcher.procs.clear()


def _run_checkpoints(trainer: Trainer) -> list[RunCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, RunCheckpoint)]
