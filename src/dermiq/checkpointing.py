"""Checkpoints that survive a full disk, Ctrl-C and the hand-over to the next stage."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from safetensors import SafetensorError

from dermiq.modules import StageModule
from dermiq.schema import TrainingError

LAST, ADAPTER = "checkpoints/last.ckpt", "adapter"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old file and swaps at the end, so that the old one lasts until the new one is whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            TrainingError: if it cannot be written; the checkpoint that was there before is untouched.
        """
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            kept = "The previous checkpoint is whole." if target.exists() else "There is no earlier checkpoint."
            raise TrainingError(
                f"The checkpoint {target} could not be written ({error}). {kept} "
                "Free space on this disk, then resume with --ckpt_path last."
            ) from error

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            TrainingError: if the file is broken or missing.
        """
        try:
            checkpoint: dict[str, Any] = super().load_checkpoint(path, *args, **kwargs)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise TrainingError(
                f"The checkpoint {path} cannot be read ({str(error).splitlines()[0]}). Pass another one, or start a "
                "new run from the adapter/ beside it with --model.init_args.backbone.init_args.adapter_path."
            ) from error
        return checkpoint


class RunCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt`` (to resume) and ``adapter/`` (for the next stage) of a run up to date.

    Args:
        every_n_train_steps: optimiser steps between two savings; the end of training is always saved.
    """

    def __init__(self, every_n_train_steps: int = 100) -> None:
        super().__init__(save_last=True, save_top_k=0)
        self.interval = every_n_train_steps

    def save(self, trainer: Trainer, module: LightningModule) -> None:
        """Save checkpoint and adapter now."""
        assert isinstance(module, StageModule)
        root = Path(trainer.default_root_dir)
        trainer.save_checkpoint(root / LAST)
        self._last_global_step_saved = trainer.global_step
        if trainer.is_global_zero:
            self._save_adapter(module, root / ADAPTER)

    def _save_adapter(self, module: StageModule, target: Path) -> None:
        fresh = target.with_name(f"{target.name}.partial")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            module.backbone.save_adapter(fresh)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise TrainingError(
                f"The adapter {target} could not be written ({error}). The checkpoint beside it is whole. "
                "Free space on this disk, then resume with --ckpt_path last."
            ) from error
        if fresh.exists():
            shutil.rmtree(target, ignore_errors=True)
            fresh.replace(target)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where the interval has passed, and at the last step while its epoch is still open."""
        step = trainer.global_step
        due = step % self.interval == 0 or step == trainer.max_steps
        if due and not self._should_skip_saving_checkpoint(trainer):
            self.save(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: there is one checkpoint, and a copied run directory is as good as the first."""
        return {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of training."""
        if not self._should_skip_saving_checkpoint(trainer):
            self.save(trainer, pl_module)


class GracefulInterrupt(Callback):
    """The first Ctrl-C finishes the step, saves and stops (exit code 130); the second stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._former: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch for Ctrl-C."""
        self._former = signal.signal(signal.SIGINT, self._request)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop if asked to, in all processes at the same step."""
        if trainer.strategy.reduce_boolean_decision(self.requested, all=False):
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, RunCheckpoint):
                    callback.save(trainer, pl_module)
                    rank_zero_info(
                        f"Saved step {trainer.global_step}; go on with the same command and --ckpt_path last."
                    )
            trainer._logger_connector.update_train_step_metrics()  # Lightning would log this step only after us
            raise KeyboardInterrupt

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give Ctrl-C back."""
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)
            self._former = None

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        rank_zero_info("Ctrl-C: finishing this step, then saving. Press again to stop at once.")
