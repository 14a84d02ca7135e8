"""What all stages share: the backbone's life, the optimiser, checkpoints, and one evaluation."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from dermiq.backbone import VLMBackbone
from dermiq.grounding import FactRetriever, diagnose, ground
from dermiq.metrics import EvaluationMetrics, majority, named_concept
from dermiq.prompts import question
from dermiq.rewards import RewardMixture, Scores
from dermiq.rollout import Rollout, Sampling, sample_rollout
from dermiq.schema import Sample, TrainingError

Batch = dict[str, Any]
Row = dict[str, Any]


def adamw(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW as LoRA training commonly uses it: rate 1e-4, no weight decay."""
    return torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)


class StageModule(LightningModule):
    """A stage of the pipeline: a policy, how it is judged, and how it is saved.

    Checkpoints hold the adapter (all of it, and nothing else of the model), optimiser, loop, gradients of an
    open accumulation and random states, so that a resumed run equals an uninterrupted one. They
    record their stage, and another stage refuses them.

    Args:
        backbone: the policy.
        rewards: terms that score answers, in training (GRPO++) and in every evaluation.
        optimizer: makes an optimiser of the adapter's parameters.
        scheduler: makes a schedule of the optimiser, advanced once per optimiser step; None keeps the rate.
        max_grad_norm: clip the gradient to this norm; None leaves it.
        eval_sampling: how the one judged answer of validation, test and predict is drawn.
        eval_samples: further answers per sample at temperature 1, for sampled accuracy and majority vote.
        retriever: grounds the answers of test and predict in facts of the condition that the policy itself names
            for the images, see `dermiq.grounding`; validation is always of the policy alone.
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
        self.metrics = EvaluationMetrics()
        self._resume: dict[str, Any] | None = None

    @property
    def accumulated_batches(self) -> int:
        """Batches that share one optimiser step."""
        return self.trainer.accumulate_grad_batches

    def configure_model(self) -> None:
        """Load the weights; before this, construction is free."""
        self.backbone.load()

    def configure_optimizers(self) -> Any:
        """The optimiser of the adapter's parameters alone, with its schedule per step."""
        parameters = self.backbone.trainable_parameters()
        if not parameters:
            raise TrainingError("Nothing to train: the backbone has no adapter. Set backbone.init_args.lora.")
        optimizer = self.make_optimizer(parameters)
        if self.make_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"},
        }

    def on_fit_start(self) -> None:
        """Hugging Face loads models in evaluation mode and Lightning leaves it so."""
        self.backbone.train()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """After a resume, take up random states and open gradients where the checkpoint left them."""
        if self._resume is not None:
            _set_random_state(self._resume["random"])
            for name, parameter in self.named_parameters():
                if name in self._resume["gradients"]:
                    parameter.grad = self._resume["gradients"][name].to(parameter.device)
            self._resume = None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, whose scale is true by now under every precision."""
        if self.max_grad_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.backbone.trainable_parameters(), self.max_grad_norm)
            self.log("train/grad_norm", norm)

    def check_finite(self, loss: Tensor, samples: Iterable[Sample]) -> None:
        """Stop at a loss that is not a finite number.

        Raises:
            TrainingError: naming the batch's samples.
        """
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss.item()} at step {self.global_step} on the samples "
                f"{', '.join(sample.id for sample in samples)}. The last checkpoint is from before this step: "
                "lower the learning rate or max_grad_norm, or look at these samples, then resume with --ckpt_path last."
            )

    def share(self, count: Tensor) -> Tensor:
        """This process's count (of tokens, of pairs) over the mean of all processes, so that each counts alike."""
        mean = self.trainer.strategy.reduce(count.float(), reduce_op="mean")
        return count / mean

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapter alone of the model, and add what Lightning leaves out."""
        keys = self._adapter_keys()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in keys}
        gradients: dict[str, Tensor] = {}
        if self.accumulated_batches > 1:
            gradients = {n: p.grad for n, p in self.named_parameters() if p.requires_grad and p.grad is not None}
        checkpoint["dermiq"] = {"stage": type(self).__name__, "random": _random_state(), "gradients": gradients}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another stage or of another adapter.

        Raises:
            TrainingError: saying which, and what to do instead.
        """
        record = checkpoint.get("dermiq")
        if record is None:
            raise TrainingError("This checkpoint was not written by DermIQ. Pass one of this run's checkpoints/.")
        if record["stage"] != type(self).__name__:
            raise TrainingError(
                f"This checkpoint is of a {record['stage']}, this run is a {type(self).__name__}: --ckpt_path only "
                "resumes the same stage. To go on from another stage, pass its adapter directory: "
                "--model.init_args.backbone.init_args.adapter_path=RUN/adapter."
            )
        keys = self._adapter_keys()
        expected = {name: parameter.shape for name, parameter in self.named_parameters() if name in keys}
        found = {name: value.shape for name, value in checkpoint["state_dict"].items()}
        if expected != found:
            missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
            other = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
            raise TrainingError(
                f"The checkpoint's adapter does not fit this run: {len(missing)} weights missing, {len(unknown)} "
                f"unknown, {len(other)} of another shape (first: {(missing + unknown + other)[0]}). Resume with the "
                "model and the LoRA options the run began with (its config.yaml)."
            )
        self._resume = {"random": record["random"], "gradients": record["gradients"]}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Row]]:
        """Judge a batch; see `evaluate`."""
        return {"rows": self.evaluate(batch)}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Row]]:
        """Judge a batch, with facts in its prompts if there is a retriever; see `evaluate`."""
        return {"rows": self.evaluate(batch) if self.retriever is None else self._evaluate_grounded(batch)}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Row]]:
        """Judge a batch, with facts in its prompts if there is a retriever; see `evaluate`."""
        return self.test_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics as ``val/…``."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics as ``test/…``."""
        self._log_metrics("test")

    def evaluate(self, batch: Batch) -> list[Row]:
        """Answer the batch's questions, update the metrics, and return one row per sample.

        The random numbers depend on the samples alone, so that evaluations are comparable sample by sample.
        """
        if not batch["samples"]:
            return []
        samples = batch["samples"]
        rollout = sample_rollout(self.backbone, batch["prompt"], samples, self.eval_sampling, seed="eval")
        scores = self.rewards(rollout.answers, samples)
        answers = [group[0] for group in rollout.answers]
        values = _means(rollout, scores)
        rows = [
            {
                "id": sample.id,
                "group": sample.group,
                "images": list(sample.images),
                "question": question(sample),
                "completion": answer.text,
                "answer": answer.diagnosis,
                "target": sample.target,
                "named": named_concept(answer, sample),
                "reward": float(scores.total[i, 0]),
                "correct": bool(scores.correct[i, 0]) if sample.asks_diagnosis else None,
                "completion_length": int(rollout.lengths[i, 0]),
                "scores": _applying({name: float(term[i, 0]) for name, term in scores.by_term.items()}),
            }
            for i, (sample, answer) in enumerate(zip(samples, answers, strict=True))
        ]
        if self.eval_samples:
            values |= self._evaluate_samples(batch, rows)
        self.metrics.update(samples, answers, values)
        return rows

    def _evaluate_grounded(self, batch: Batch) -> list[Row]:
        """Rows with the facts that stood in the prompt, and the condition that they were retrieved for."""
        assert self.retriever is not None
        if not batch["samples"]:
            return []
        tokens = self.eval_sampling.max_new_tokens
        named = diagnose(self.backbone, batch, tokens)
        grounded = ground(self.backbone, batch, self.retriever, named, tokens)
        rows = self.evaluate(batch | {"prompt": grounded.prompt})
        for row, facts, condition in zip(rows, grounded.facts, grounded.conditions, strict=True):
            row["facts"] = [{"sentence": fact.sentence, "citation": fact.citation} for fact in facts]
            row["grounded_on"] = condition or None
        return rows

    def _evaluate_samples(self, batch: Batch, rows: list[Row]) -> dict[str, Tensor]:
        samples = batch["samples"]
        sampling = Sampling(self.eval_sampling.max_new_tokens, temperature=1.0)
        rollout = sample_rollout(self.backbone, batch["prompt"], samples, sampling, self.eval_samples, seed="eval")
        scores = self.rewards(rollout.answers, samples)
        named = [majority(group, sample) for group, sample in zip(rollout.answers, samples, strict=True)]
        self.metrics.update_majority(samples, named)
        asks = torch.tensor([sample.asks_diagnosis for sample in samples])
        accuracy = scores.correct.float().mean(1).where(asks, torch.nan)
        values = _means(rollout, scores) | {"accuracy": accuracy}
        for i, row in enumerate(rows):
            row["majority"] = named[i] if samples[i].asks_diagnosis else None
            row["sampled"] = _applying({name: float(value[i]) for name, value in values.items()})
        return {f"sampled_{name}": value for name, value in values.items()}

    def _log_metrics(self, prefix: str) -> None:
        if not self.metrics.update_called:
            raise TrainingError(f"No sample of the {prefix} split could be read: nothing to judge. Mend its images.")
        self.log_dict({f"{prefix}/{name}": value for name, value in self.metrics.compute().items()})
        self.metrics.reset()

    def _adapter_keys(self) -> set[str]:
        return {f"backbone.{key}" for key in self.backbone.adapter_keys()}


def _means(rollout: Rollout, scores: Scores) -> dict[str, Tensor]:
    """Per-sample means [B] of what the metrics average; lengths are tokens, of the reasoning words."""
    words = torch.tensor([[len(answer.think.split()) for answer in group] for group in rollout.answers])
    values = {"reward": scores.total, "completion_length": rollout.lengths, "reasoning_length": words}
    values |= {f"reward/{name}": term for name, term in scores.by_term.items()}
    return {name: value.float().mean(dim=1) for name, value in values.items()}


def _applying(values: dict[str, float]) -> dict[str, float]:
    """Without what does not apply to the sample."""
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _random_state() -> dict[str, Any]:
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    state["numpy"] = (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached)
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])
