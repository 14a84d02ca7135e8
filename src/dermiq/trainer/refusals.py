"""Lightning's refusals of trainer options, as sentences that name the option to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ProgressBar

from dermiq.schema import TrainingError

_REMEDIES = {  # what Lightning's message holds -> what to do
    "gradient_clip": "This stage steps its optimiser itself and clips by --model.max_grad_norm: leave "
    "--trainer.gradient_clip_val out.",
    "accumulate_grad_batches": "This stage steps its optimiser itself and accumulates by --model.accumulate_batches: "
    "leave --trainer.accumulate_grad_batches out.",
    "val_check_interval": "Give --trainer.val_check_interval at most the batches of an epoch, or a share of them "
    "from 0.0 to 1.0, or leave it out for one validation an epoch.",
    "ModelSummary": "Leave --trainer.enable_model_summary out, or the callback.",
    "barebones": "Leave --trainer.barebones out.",
    "limit_": "Give it a number of batches, or a share of them from 0.0 to 1.0.",
    "max_time": "Write it as DD:HH:MM:SS.",
    "precision": "See --trainer.precision: 32-true, bf16-mixed, ….",
    "check_val_every_n_epoch": "See --trainer.check_val_every_n_epoch.",
}
_MACHINE = "See --trainer.accelerator (auto takes what there is), --trainer.devices and --trainer.strategy."
_MACHINE_WORDS = ("backend", "accelerator", "devices", "gpu", "GPU", "strategy", "num_nodes")


@contextmanager
def lightning_worded() -> Iterator[None]:
    """Reword Lightning's own refusals as one sentence with a remedy.

    Raises:
        TrainingError: saying what Lightning said, and which option to change.
    """
    try:
        yield
    except (MisconfigurationException, ValueError, TypeError) as error:
        if not isinstance(error, MisconfigurationException) and not _raised_by_lightning(error):
            raise
        said = " ".join(str(error).split())
        remedy = next((words for part, words in _REMEDIES.items() if part in said), "")
        if not remedy and any(word in said for word in _MACHINE_WORDS):
            remedy = _MACHINE
        raise TrainingError(f"The trainer cannot do this: {said.rstrip('.! ')}. {remedy}".rstrip()) from error


def fitting_callbacks(config: Mapping[str, Any]) -> list[Callback] | None:
    """The callbacks of a trainer's configuration; without a progress bar where it is switched off.

    Raises:
        TrainingError: if what a run is kept by is switched off.
    """
    for name, off in (("enable_checkpointing", False), ("barebones", True)):
        if config.get(name) is off:
            raise TrainingError(
                f"--trainer.{name}={str(off).lower()} would lose the run: its checkpoint is what it resumes from, and "
                "what the next stage takes. Leave it out; --trainer.fast_dev_run=1 tries a run and keeps nothing."
            )
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, list) or config.get("enable_progress_bar") is not False:
        return callbacks
    return [callback for callback in callbacks if not isinstance(callback, ProgressBar)]


def _raised_by_lightning(error: BaseException) -> bool:
    """True if the line that raised it is one of Lightning's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("lightning.")
