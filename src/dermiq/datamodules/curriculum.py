"""A curriculum: prompts that the policy now answers rightly about half of the time are served most often."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from dermiq.datamodules.loading import EpochSampler
from dermiq.schema import DataError, TrainingError


@dataclass(frozen=True)
class Curriculum:
    """How often a prompt is served, by its success rate p so far: in proportion to its learnability p (1 - p).

    That is the variance of a right answer, and with it the expected squared advantage: a group of right or of wrong
    answers alone teaches nothing (Foster et al. 2025, "Learning to Reason at the Frontier of Learnability",
    arXiv:2502.12272). The rate is the mean of a beta distribution that `prior` begins, so that prompts not seen yet
    count as learnable. The policy changes, so that old counts lose weight with every epoch (as in discounted UCB,
    Garivier & Moulines 2011), and what was too hard is tried again.

    Attributes:
        floor: least weight of any prompt; the most learnable one has 1.
        prior: right and wrong answers, as many of each, that every prompt is taken to have had.
        discount: what the counts of earlier epochs are multiplied by at the end of each; 1 forgets nothing.

    Raises:
        DataError: if a value makes no sense.
    """

    floor: float = 0.1
    prior: float = 1.0
    discount: float = 0.8

    def __post_init__(self) -> None:
        if not (0 < self.floor <= 1 and 0 < self.prior < math.inf and 0 <= self.discount <= 1):
            raise DataError(
                f"a curriculum needs 0 < floor <= 1, prior > 0 and 0 <= discount <= 1, not {self}. "
                "Correct --data.curriculum."
            )

    def weights(self, correct: Tensor, tried: Tensor) -> Tensor:
        """Weights in [floor, 1] of prompts, [prompts] float64.

        Args:
            correct: right answers to each prompt, [prompts] float64.
            tried: answers to each prompt, [prompts] float64.
        """
        rate = (correct + self.prior) / (tried + 2 * self.prior)
        learnability = rate * (1 - rate)
        return (learnability / learnability.max()).clamp(min=self.floor)


class CurriculumSampler(EpochSampler):
    """An order of training samples that follows a curriculum, from epoch to epoch.

    The weights of an epoch depend on what was recorded in the epochs before it, so that neither batches that are loaded
    ahead nor a resume within the epoch change its order. An epoch of n samples serves each of them as often as its
    share of the weights asks for, n w / sum(w) times, rounded up or down by chance (systematic sampling, Madow 1949).
    So the first epoch, of equal weights, serves every sample once.

    Attributes:
        correct: right answers to each sample so far, discounted, [samples] float64.
        tried: answers to each sample so far, discounted, [samples] float64.
        weights: of the running epoch, [samples] float64.

    Args:
        curriculum: the rule.
        ids: of the samples.
        batch_size: see `EpochSampler`, as for all that follow.
        seed: likewise.
        weights: multiply those of the curriculum.
        rank: likewise.
        world_size: likewise.
        lengths: likewise.

    Raises:
        DataError: if two samples have the same id, or they do not fill one global batch.
    """

    weights: Tensor

    def __init__(self, curriculum: Curriculum, ids: Sequence[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(len(ids), *args, **kwargs)
        self.curriculum = curriculum
        self._places = {id: place for place, id in enumerate(ids)}
        if len(self._places) < len(ids):
            twice = next(id for place, id in enumerate(ids) if self._places[id] != place)
            raise DataError(
                f"two training samples have the id {twice!r}: a curriculum could not tell how often each is answered "
                "rightly. Give them ids of their own, or leave the curriculum out."
            )
        self._ids = hashlib.blake2b("\n".join(ids).encode(), digest_size=8).hexdigest()
        self.correct = torch.zeros(len(ids), dtype=torch.float64)
        self.tried = torch.zeros_like(self.correct)
        self._balance = torch.ones_like(self.correct) if self.weights is None else self.weights
        self._balanced = super().identity()["balance"]
        self.weights = self._balance

    def outcomes(self, ids: Sequence[str], correct: Tensor) -> Tensor:
        """Right answers and answers to each sample of a step, [2, samples] int64.

        Args:
            ids: of the B samples of the step; one may occur several times.
            correct: [B, G] bool.
        """
        places = torch.tensor([self._places[id] for id in ids], dtype=torch.int64)
        counts = torch.stack([correct.sum(1), torch.full((len(ids),), correct.shape[1])]).to(torch.int64)
        return torch.zeros(2, self.length, dtype=torch.int64).index_add(1, places, counts)

    def record(self, outcomes: Tensor) -> None:
        """Count what `outcomes` of all processes add up to; it tells on the weights from the next epoch on."""
        self.correct += outcomes[0]
        self.tried += outcomes[1]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; another epoch than before has the weights of what is known by now."""
        if epoch != self.epoch:
            self.weights = self._balance * self.curriculum.weights(self.correct, self.tried)
            self.correct *= self.curriculum.discount
            self.tried *= self.curriculum.discount
        super().set_epoch(epoch)

    def identity(self) -> dict[str, int | bool | str]:
        """What must be equal for a position within an epoch to mean the same samples, beside the state."""
        return super().identity() | {"balance": self._balanced, "curriculum": str(self.curriculum)}

    def state_dict(self) -> dict[str, Any]:
        """The counts, and the weights of the running epoch."""
        return {
            "ids": self._ids,
            "epoch": self.epoch,
            "correct": self.correct.clone(),
            "tried": self.tried.clone(),
            "weights": self.weights.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the counts and the weights of `state`; that of a run without a curriculum has none.

        Raises:
            TrainingError: if they are of other samples.
        """
        if not state:
            return
        if state["ids"] != self._ids:
            raise TrainingError(
                "the checkpoint's curriculum counts the successes of other training samples. Resume with the data "
                "settings of the saved config.yaml, or start a new run from the saved adapter."
            )
        self.epoch = state["epoch"]
        self.correct, self.tried = state["correct"].clone(), state["tried"].clone()
        self.weights = state["weights"].clone()

    def _drawn(self, generator: torch.Generator) -> Tensor:
        shuffled = torch.randperm(self.length, generator=generator)
        ends = self.weights[shuffled].cumsum(0)
        start = torch.rand((), dtype=torch.float64, generator=generator)
        points = (torch.arange(self.length) + start) * (ends[-1] / self.length)
        drawn = shuffled[torch.searchsorted(ends, points, right=True).clamp(max=self.length - 1)]
        return drawn[torch.randperm(self.length, generator=generator)]


class RecordOutcomes(Callback):
    """Tells a `CurriculumSampler` which answers of a training step were right; the data module adds it by itself.

    It comes before whatever takes checkpoints, so that they hold the outcomes of the step they are taken at.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would throw the counts away.

        Raises:
            DataError: if the trainer makes its training loader anew while it trains.
        """
        if trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]  # set by a connector
            raise DataError(
                "a curriculum lives in the training loader, which --trainer.reload_dataloaders_every_n_epochs would "
                "replace. Leave that option out."
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step's answers, those of all processes.

        Raises:
            DataError: if the step has sampled none.
        """
        if outputs and "rollout" not in outputs:
            raise DataError(
                f"a curriculum needs to know how often each prompt is answered rightly, and {type(pl_module).__name__} "
                "samples no answers. Leave --data.curriculum out, or train with GRPOModule."
            )
        sampler: CurriculumSampler = trainer.train_dataloader.sampler  # type: ignore[union-attr]  # of our data module
        ids = [sample.id for sample in outputs["rollout"].samples] if outputs else []
        correct = outputs["scores"].correct.cpu() if outputs else torch.zeros(0, 0)
        outcomes = sampler.outcomes(ids, correct).to(pl_module.device)
        sampler.record(trainer.strategy.reduce(outcomes, reduce_op="sum").cpu())
