"""One worst-case training step before training: what it takes of memory and time, and what to lower."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.text import Text

from dermiq.datamodules import DermDataModule
from dermiq.modules import GRPOModule, StageModule
from dermiq.ranges import COUNT, check_numbers
from dermiq.schema import TrainingError
from dermiq.trainer.preflight.advice import advised
from dermiq.trainer.preflight.longest import CANDIDATES, Longest, longest_samples
from dermiq.trainer.preflight.memory import Needs, in_bytes, measure

__all__ = ["Preflight"]

TIGHT = 0.1  # of the memory; less headroom than this is worth a warning


class Preflight(Callback):
    """Runs one training step on the longest samples before the first one, and reports its peak of memory.

    Of GRPO++ no completion may end before `max_new_tokens`. While the step runs, a placeholder stands where the
    optimiser's state will. Nothing of the step remains: a run with it equals a run without it, bit for bit. With
    several processes each runs its own step, without an exchange of gradients, and the one that needs most counts.

    Args:
        candidates: training samples that are encoded to find the longest.
    """

    def __init__(self, candidates: int = CANDIDATES) -> None:
        self.candidates = candidates
        check_numbers(self, candidates=COUNT)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the step; neither the optimiser nor the loops have been restored, and no cache is open yet.

        Raises:
            TrainingError: if the step does not fit into memory, saying what to lower.
        """
        assert isinstance(pl_module, StageModule)
        data: DermDataModule = trainer.datamodule  # type: ignore[attr-defined]  # set by a connector
        longest = longest_samples(data, self.candidates)
        dataset = data.splits["train"]
        needs = measure(trainer, pl_module, data.train_collate()([dataset[row] for row in longest.rows]))
        advice = "".join(f"\n  {options}  ({effect})" for options, effect in advised(trainer, pl_module, data))
        if needs.headroom < 0:
            contents = "; ".join(f"{name} {content}" for name, content in needs.contents.items())
            took = "it runs out of it" if needs.exhausted else f"it takes {in_bytes(needs.peak)}"
            raise TrainingError(
                f"A training step on the longest samples ({contents}) does not fit into memory: {took}, and there are "
                f"{in_bytes(needs.limit)} ({needs.memory}). Lower, in this order:{advice}"
            )
        if trainer.is_global_zero:
            text = _lines(needs, longest, longest_training(trainer, pl_module, data, needs.seconds))
            if needs.headroom < TIGHT * needs.limit:
                text.append(
                    f"\nLess than {TIGHT:.0%} of it is left. If training runs out, lower, in this order:{advice}"
                )
            Console(stderr=True, highlight=False).print(text, soft_wrap=True)


def longest_training(trainer: Trainer, module: StageModule, data: DermDataModule, seconds: float) -> float | None:
    """Seconds of all training batches at so many seconds each, validation left out; None where training has no end."""
    limit = trainer.limit_train_batches
    batches = len(data.train_dataloader())
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    bounds = []
    if trainer.max_steps >= 0:
        updates = module.inner_epochs if isinstance(module, GRPOModule) else 1
        bounds.append(trainer.max_steps * module.accumulated_batches / updates)
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        bounds.append(trainer.max_epochs * batches)
    return min(bounds) * seconds if bounds else None


def _lines(needs: Needs, longest: Longest, most: float | None) -> Text:
    rows = {
        "samples": f"the {len(longest.rows):,} longest of {longest.looked_at:,} looked at of {longest.of:,}",
        **needs.contents,
        "peak": f"{in_bytes(needs.peak)} of {in_bytes(needs.limit)} ({needs.memory})",
        "- frozen weights": in_bytes(needs.frozen),
        "- training": f"{in_bytes(needs.training)} (trained weights, gradients, the optimiser's state as estimated)",
        "headroom": f"{in_bytes(needs.headroom)} ({needs.headroom / needs.limit:.0%})",
        "time": in_time(needs.seconds) + (f", {in_time(most)} at most for all training steps" if most else ""),
    }
    return Text("Preflight: one training step", style="bold").append(
        "".join(f"\n  {name:<16}  {value}" for name, value in rows.items()), style="not bold"
    )


def in_time(seconds: float) -> str:
    """Seconds as text."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
