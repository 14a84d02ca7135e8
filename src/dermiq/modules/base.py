"""The base of all stages: loading the policy, optimiser, checkpoints, and one evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from dermiq.metrics import EvaluationMetrics, EvaluationOutput, Judge, PredictionRow, Terminology
from dermiq.modules.accumulation import Window
from dermiq.modules.limits import check_rates, check_trainer
from dermiq.modules.predictions import add_facts, prediction_rows, with_samples
from dermiq.modules.random_state import random_state, set_random_state
from dermiq.modules.resuming import (
    advance,
    policy_of,
    prepare,
    put_in_force,
    refuse_earlier_end,
    refuse_other_policy,
    settings_of,
    way_out,
)
from dermiq.policy.adapters import difference
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import Batch, PromptBatch
from dermiq.policy.checkpoint_files import refuse_misfit
from dermiq.policy.grounding import FactRetriever, diagnose, ground
from dermiq.policy.rollout import Sampling, sample_rollout
from dermiq.ranges import check_numbers
from dermiq.rewards import RewardMixture
from dermiq.run_directory import hand_over
from dermiq.schema import Sample, TrainingError

_LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")


def adamw(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW as LoRA training commonly uses it: rate 1e-4, no weight decay."""
    return torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)


class StageModule(LightningModule):
    """A stage of the pipeline: it trains, evaluates and saves a policy.

    A checkpoint holds the adapter (of the model nothing else), the optimiser, the loop, gradients and counts of an open
    accumulation, and the random states, so that a resumed run equals an uninterrupted one. It records its stage, and
    another stage refuses it.

    Args:
        backbone: the policy.
        rewards: terms that score answers, in training (GRPO++) and in every evaluation.
        optimizer: makes an optimiser of the adapter's parameters.
        scheduler: makes a schedule of the optimiser, advanced once per optimiser step; None keeps the rate.
        max_grad_norm: clip the gradient to this norm; None clips nothing.
        eval_sampling: how the one judged answer of validation, test and predict is sampled.
        eval_samples: further answers per sample at temperature 1, for sampled accuracy, majority vote and top-k.
        retriever: puts facts of the condition that the policy itself names for the images into the prompts of test
            and predict, see `dermiq.policy.grounding`; validation is always of the policy alone.
        terminology: what the names of conditions mean, such as `dermiq.kg.Terminology`; without it names count as they
            stand, and the evaluation has neither hierarchy nor malignancy.
    """

    strict_loading = False

    def __init__(
        self,
        backbone: VLMBackbone,
        rewards: RewardMixture,
        optimizer: OptimizerCallable = adamw,
        scheduler: LRSchedulerCallable | None = None,
        max_grad_norm: float | None = 1.0,
        eval_sampling: Sampling = Sampling(temperature=0.0),  # noqa: B008 (frozen)
        eval_samples: int = 0,
        retriever: FactRetriever | None = None,
        terminology: Terminology | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.rewards = rewards
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.max_grad_norm = max_grad_norm
        self.eval_sampling = eval_sampling
        self.eval_samples = eval_samples
        self.retriever = retriever
        self.judge = Judge(terminology)
        self.val_metrics = EvaluationMetrics()
        self.test_metrics = EvaluationMetrics(detailed=True)
        self.window = Window()
        check_numbers(self, max_grad_norm="(0, inf)", eval_samples="[0, 65536]")
        self._resume: dict[str, Any] | None = None
        self._resumed_at = -1
        self._policy: dict[str, Any] = {}
        self._settings: dict[str, Any] = {}

    @property
    def accumulated_batches(self) -> int:
        """Batches that share one optimiser step."""
        return self.trainer.accumulate_grad_batches

    def setup(self, stage: str) -> None:
        """Refuse numbers of the trainer that train nothing.

        Raises:
            RangeError: naming the option.
        """
        if stage == "fit":
            check_trainer(self.trainer)

    def configure_model(self) -> None:
        """Load the weights; before this, construction is free."""
        self.backbone.load()
        self._policy = policy_of(self.backbone)

    def configure_optimizers(self) -> Any:
        """The optimiser of the adapter's parameters alone, with its schedule per step."""
        parameters = self.backbone.trainable_parameters()
        if not parameters:
            raise TrainingError("Nothing to train: the backbone has no adapter. Set --model.backbone.lora={}.")
        optimizer, scheduler = prepare(self.make_optimizer, self.make_scheduler, parameters)
        self._settings = settings_of(optimizer, scheduler, self.accumulated_batches)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Put the backbone into training mode, as Hugging Face loads it in evaluation mode and Lightning keeps that."""
        self.backbone.train()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Begin an accumulation where one is due; after a resume, restore random states and an open accumulation."""
        if batch_idx % self.accumulated_batches == 0:
            self.window = Window()
        elif self._resume is not None:
            self.window = Window(**{name: count.to(self.device) for name, count in self._resume["window"].items()})
        if self._resume is not None:
            set_random_state(self._resume["random"])
            for name, parameter in self.named_parameters():
                if name in self._resume["gradients"]:
                    parameter.grad = self._resume["gradients"][name].to(parameter.device)
            self._resume = None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the accumulated gradient by the count of all its batches, and clip it; it is unscaled by now.

        Raises:
            RangeError: if the schedule has made the rate negative, or no number.
        """
        check_rates(optimizer)
        if self.accumulated_batches > 1:
            # Lightning has divided the batches' losses by their number already.
            scale = self.window.scale * (self.accumulated_batches if self.automatic_optimization else 1)
            for parameter in self.backbone.trainable_parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        if self.max_grad_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.backbone.trainable_parameters(), self.max_grad_norm)
            self.log("train/grad_norm", norm)

    def on_validation_model_zero_grad(self) -> None:
        """Free the gradients for a validation, unless an accumulation may be open, which Lightning would lose."""
        if self.accumulated_batches == 1:
            super().on_validation_model_zero_grad()

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Advance the schedule by one step; see `dermiq.modules.resuming.advance`."""
        advance(scheduler, self.global_step)

    def check_finite(self, loss: Tensor, samples: Iterable[Sample]) -> None:
        """Stop at a loss that is not a finite number.

        Raises:
            TrainingError: naming the batch's samples.
        """
        if not torch.isfinite(loss):
            names = ", ".join(sample.id for sample in samples)
            raise TrainingError(
                f"The loss is {loss.item()} at step {self.global_step} on the samples {names}. "
                f"{way_out(self.trainer, self._resumed_at)}"
            )

    def world_scale(self, count: Tensor) -> Tensor:
        """The count over its mean over processes: a loss scaled by it weighs each token, pair or completion alike.

        In an accumulation it is over the mean of the first batch; what the whole window counts is made up for before
        the optimiser step. 0 where no process has any.
        """
        mean = count.to(torch.float32, copy=True)  # several processes reduce it in place
        return count / self.window.add(self.trainer.strategy.reduce(mean, reduce_op="mean"))

    def no_loss(self) -> Tensor | None:
        """The loss of a batch without readable images: None, or a zero for every weight where others share its step.

        Other processes exchange gradients in their backward pass and would wait for this one for ever; after other
        batches of an accumulation, no loss at all would be no step.
        """
        if self.trainer.world_size == 1 and not self.window.record():
            return None
        nothing = self.world_scale(torch.tensor(0, device=self.device))
        return nothing * torch.stack([weight.sum() for weight in self.backbone.trainable_parameters()]).sum()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reduce the model to its adapter, and add what Lightning leaves out.

        Raises:
            TrainingError: if the adapter's weights are not finite: they would replace the last good ones.
        """
        keys = self._adapter_keys()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in keys}
        if not all(value.isfinite().all() for value in checkpoint["state_dict"].values()):
            raise TrainingError(
                f"The adapter's weights are not finite at step {self.global_step}, and are not saved. "
                f"{way_out(self.trainer, self._resumed_at)}"
            )
        gradients: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        if self.accumulated_batches > 1:
            gradients = {n: p.grad for n, p in self.named_parameters() if p.requires_grad and p.grad is not None}
            counts = self.window.record()
        checkpoint["dermiq"] = {
            "stage": type(self).__name__,
            "policy": self._policy,
            "settings": self._settings,
            "random": random_state(),
            "gradients": gradients,
            "window": counts,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another stage, adapter or base model, and apply the settings of this run to it.

        Raises:
            TrainingError: saying which, and what to do instead.
        """
        record = checkpoint["dermiq"]
        if record["stage"] != type(self).__name__:
            raise TrainingError(
                f"This checkpoint is of a {record['stage']}, this run is a {type(self).__name__}: --ckpt_path only "
                f"resumes the same stage. To go on from another stage: {hand_over(self.trainer.ckpt_path)}"
            )
        keys = self._adapter_keys()
        expected = {name: parameter for name, parameter in self.named_parameters() if name in keys}
        missing, unknown, reshaped = difference(expected, checkpoint["state_dict"]).values()
        if first := (missing + unknown + reshaped)[:1]:
            raise TrainingError(
                f"The checkpoint's adapter does not fit this run: {len(missing)} weights missing, {len(unknown)} "
                f"unknown, {len(reshaped)} of another shape (first: {first[0]}). Resume with the model and the LoRA "
                "options the run began with (its config.yaml)."
            )
        trains = self.trainer.state.fn == TrainerFn.FITTING
        refuse_other_policy(record.get("policy", {}), self._policy, trains)
        loops = {name: getattr(self.trainer, name).state_dict() for name in _LOOPS}
        refuse_misfit(loops, checkpoint["loops"], "The checkpoint's place in the run")
        if trains:
            refuse_earlier_end(checkpoint, self.trainer.max_epochs)
            parameters = self.backbone.trainable_parameters()
            put_in_force(checkpoint, self.make_optimizer, self.make_scheduler, parameters, self.accumulated_batches)
            self._resumed_at = checkpoint["global_step"]
        self._resume = {name: record[name] for name in ("random", "gradients")} | {"window": record.get("window", {})}

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> EvaluationOutput:
        """Judge a batch; see `evaluate`."""
        rows = self.evaluate(batch)
        self.val_metrics.update(rows)
        return {"rows": rows}

    def test_step(self, batch: PromptBatch, batch_idx: int) -> EvaluationOutput:
        """Judge a batch, with facts in its prompts if there is a retriever; see `evaluate`."""
        rows = self._evaluate_grounded(batch)
        self.test_metrics.update(rows)
        return {"rows": rows}

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> EvaluationOutput:
        """Judge a batch, with facts in its prompts if there is a retriever; see `evaluate`."""
        return {"rows": self._evaluate_grounded(batch)}

    def on_validation_epoch_end(self) -> None:
        """Log the metrics as ``val/…``."""
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the metrics as ``test/…``, with intervals and slices."""
        self._log_metrics("test", self.test_metrics)

    def evaluate(self, batch: PromptBatch) -> list[PredictionRow]:
        """The rows of a batch: its questions answered and judged, see `dermiq.metrics.PredictionRow`.

        The random numbers depend on the samples alone, so that evaluations are comparable sample by sample.
        """
        samples = batch["samples"]
        if not samples:
            return []
        rollout = sample_rollout(self.backbone, batch, self.eval_sampling, seed="eval")
        rows = prediction_rows(self.judge, rollout, self.rewards(rollout.answers, samples))
        if self.eval_samples:
            sampling = replace(self.eval_sampling, temperature=1.0)
            rollout = sample_rollout(self.backbone, batch, sampling, self.eval_samples, seed="eval")
            rows = with_samples(rows, self.judge, rollout, self.rewards(rollout.answers, samples))
        return rows

    def _evaluate_grounded(self, batch: PromptBatch) -> list[PredictionRow]:
        """With a retriever, rows with the facts that stood in the prompt, and the condition that they are about."""
        if self.retriever is None or not batch["samples"]:
            return self.evaluate(batch)
        tokens = self.eval_sampling.max_new_tokens
        named = diagnose(self.backbone, batch, tokens)
        grounded = ground(self.backbone, batch, self.retriever, named, tokens)
        rows = self.evaluate({**batch, "prompt": grounded.prompt})
        add_facts(rows, grounded)
        return rows

    def _log_metrics(self, prefix: str, metrics: EvaluationMetrics) -> None:
        metrics.update([])
        values = metrics.compute()
        if not values:
            raise TrainingError(f"No sample of the {prefix} split could be read: nothing to judge. Mend its images.")
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()})
        metrics.reset()

    def _adapter_keys(self) -> set[str]:
        return {f"backbone.{key}" for key in self.backbone.adapter_keys()}
