"""GRPO++: group-relative policy optimisation made stable and cheap, the rollout in `training_step`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from dermiq.modules.base import StageModule
from dermiq.modules.rollouts import curves, graded
from dermiq.objectives.advantages import Advantage, OutcomeAnchored, uniform_groups
from dermiq.objectives.alignment import Aim, SemanticPull
from dermiq.objectives.correction import Corrections, corrections
from dermiq.objectives.losses import Surrogate, clipped_tokens, constant_length, counted, policy_loss
from dermiq.objectives.scored import ScoredRollout
from dermiq.policy.batches import PromptBatch
from dermiq.policy.prefix import Prefix, TokenScores, prefill, score
from dermiq.policy.rollout import Decoder, Engine, Rollout, Sampling, only_prompts, sample_rollout
from dermiq.ranges import COUNT, SEED, check_numbers
from dermiq.rewards import Scores
from dermiq.schema import Sample, TrainingError

_SHOWN = ("train/reward", "train/accuracy", "train/tokens_per_second")  # beside the progress bar


class GRPOModule(StageModule):
    """GRPO++; plain GRPO, Dr. GRPO and DAPO-style training are other settings of the same keywords.

    Manual optimisation, so `trainer.accumulate_grad_batches` and `trainer.gradient_clip_val` do not apply:
    `accumulate_batches` and `max_grad_norm` take their place, and `trainer.max_steps` counts optimiser steps.
    The prompt runs once per step, with gradient: the rollout forks from that pass, and the update's first epoch goes
    backward through it. Dropout is off throughout, so that the policy which learns is the one that was sampled. So the
    old policy's log-probs are the update's own of its first epoch, whose ratios are 1 at every precision; those of
    the rollout, which decoding rounds in another way, take their place where another program draws (an engine that is
    no `Decoder`). ``train/rollout_mismatch`` is the mean of what lies between the two, in nats per token.

    Args:
        group_size: completions per prompt; costs time, not memory, with `tokens_per_pass` and the engine's
            `rows_per_pass`.
        sampling: how completions are drawn; keep the temperature above 0.
        advantage: the estimator, see `dermiq.objectives.advantages`; None is GRPO++'s `OutcomeAnchored()`.
        token_weights: (mask [N, T], max_new_tokens) -> weights [N, T], normalised over these N; see
            `dermiq.objectives.losses`. Batches that share a step, of all processes, weigh by what the weights are
            normalised by: by their completions, or by their tokens (`per_token`).
        surrogate: what the policy raises: `clipped_tokens` (GRPO, DAPO), `clipped_sequences` (GSPO) or
            `clipped_weights` (CISPO) of `dermiq.objectives.losses`. On the first step from a rollout all have the same
            gradient.
        clip_low: the probability ratio is clipped to [1 - clip_low, 1 + clip_high].
        clip_high: above clip_low, rare tokens may rise (DAPO's clip-higher).
        kl_coef: weight of the leash to the reference; 0 saves the reference pass.
        entropy_coef: weight of the entropy bonus.
        inner_epochs: optimiser steps on each rollout.
        accumulate_batches: batches that share one optimiser step (with one inner epoch).
        tokens_per_pass: tokens of completions, padding included, that run forward and backward together; None takes
            all.
        engine: draws the completions, see `dermiq.policy.decoding`; None is `Decoder()`.
        redraws: how often, at most, groups whose outcomes are all alike are drawn again before the update (in the
            manner of DAPO's dynamic sampling, arXiv:2503.14476, eq. 11). DAPO draws other prompts in their place;
            the same prompts keep no state between steps, every sample its share of the epoch, and the batch its size.
            What is logged of the rollout is of the groups that are learned from.
        alignment: an auxiliary loss on the reasoning's hidden states, see `dermiq.objectives.alignment`.
        correction_coef: weight of the cross-entropy of the right answer behind the reasoning of each wrong one, see
            `dermiq.objectives.correction`; 1 lets its tokens weigh as those of an answer of advantage 1.
        reference_sync_every: optimiser steps after which the reference becomes the policy; None never.
        seed: of the sampling.
        stage: arguments of `StageModule`.
    """

    def __init__(
        self,
        *args: Any,
        group_size: int = 8,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        advantage: Advantage | None = None,
        token_weights: Callable[[Tensor, int], Tensor] = constant_length,
        surrogate: Surrogate = clipped_tokens,
        clip_low: float = 0.2,
        clip_high: float = 0.28,
        kl_coef: float = 0.01,
        entropy_coef: float = 0.0,
        inner_epochs: int = 1,
        accumulate_batches: int = 1,
        tokens_per_pass: int | None = None,
        engine: Engine | None = None,
        redraws: int = 0,
        alignment: SemanticPull | None = None,
        correction_coef: float = 0.0,
        reference_sync_every: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if inner_epochs > 1 and accumulate_batches > 1:
            raise ValueError(
                "inner_epochs and accumulate_batches cannot both be above 1: raise data.batch_size instead"
            )
        if sampling.temperature == 0:
            raise ValueError("GRPO learns from differences within a group: sampling.temperature must be above 0")
        self.automatic_optimization = False
        self.group_size = group_size
        self.sampling = sampling
        self.advantage = OutcomeAnchored() if advantage is None else advantage
        self.token_weights = token_weights
        self.surrogate = surrogate
        self.clip_low, self.clip_high = clip_low, clip_high
        self.kl_coef, self.entropy_coef = kl_coef, entropy_coef
        self.inner_epochs = inner_epochs
        self.accumulate_batches = accumulate_batches
        self.tokens_per_pass = tokens_per_pass
        self.engine = Decoder() if engine is None else engine
        self.redraws = redraws
        self.alignment = alignment
        self.correction_coef = correction_coef
        self.reference_sync_every = reference_sync_every
        self.seed = seed
        self._logged: set[str] = set()
        check_numbers(
            self,
            **dict.fromkeys(("group_size", "inner_epochs"), COUNT),
            **dict.fromkeys(("accumulate_batches", "tokens_per_pass", "reference_sync_every"), "[1, inf)"),
            **dict.fromkeys(("clip_high", "kl_coef", "entropy_coef", "correction_coef"), "[0, inf)"),
            clip_low="[0, 1]",
            redraws="[0, 65536]",
            seed=SEED,
        )

    @property
    def accumulated_batches(self) -> int:
        """Batches that share one optimiser step."""
        return self.accumulate_batches

    def configure_model(self) -> None:
        """Load the weights, and the copy that a moving reference needs."""
        super().configure_model()
        if self.reference_sync_every is not None:
            self.backbone.add_reference()

    def training_step(self, batch: PromptBatch, batch_idx: int) -> ScoredRollout | None:
        """Sample, score, and improve; returns the rollout and its scores for callbacks."""
        closes = (batch_idx + 1) % self.accumulate_batches == 0 or self.trainer.is_last_batch
        if not batch["samples"]:
            self._skip(closes)
            return None
        _refuse_conversation(batch["samples"])
        start = time.perf_counter()
        with self.backbone.without_dropout():
            prefix = prefill(self.backbone, batch["prompt"])
            seed = f"{self.seed}/{self.current_epoch}/{batch_idx}"
            rollout, scores, redrawn = self._draw(batch, prefix.detach(), seed)
            share = self.share(counted(self.token_weights, rollout.mask, self.sampling.max_new_tokens))
            advantages = self.advantage(graded(rollout, scores)).to(self.device)
            ref_logprobs = self._reference_logprobs(batch, rollout)
            aim = self._aim(rollout)
            corrected = corrections(self.backbone, rollout, scores.correct) if self.correction_coef else None
            own, learned = torch.zeros_like(rollout.logprobs), rollout
            for epoch in range(self.inner_epochs):
                prefix = prefill(self.backbone, batch["prompt"]) if epoch else prefix
                losses = (prefix.detach(), learned, advantages.flatten(), ref_logprobs, share, closes, aim, corrected)
                stats = self._backward(*losses, own=None if epoch else own)
                if isinstance(self.engine, Decoder):
                    learned = replace(rollout, logprobs=own)
                if closes:
                    self._step()
        found = {
            **stats,
            **curves(rollout, scores, self.sampling.max_new_tokens),
            "rollout_mismatch": float((own - rollout.logprobs).abs().sum() / rollout.mask.sum()),
            "tokens_per_second": float(rollout.mask.sum()) / (time.perf_counter() - start),
        }
        self._log(found | ({"redrawn": redrawn.item()} if self.redraws else {}), len(rollout.samples))
        return {"rollout": rollout, "scores": scores, "advantages": advantages}

    def _draw(self, batch: PromptBatch, prefix: Prefix, seed: str) -> tuple[Rollout, Scores, Tensor]:
        """Sample and score, and draw groups of a single outcome again; the last is their share."""
        rollout = sample_rollout(self.backbone, batch, self.sampling, self.group_size, seed, self.engine, prefix)
        scores = self.rewards(rollout.answers, rollout.samples)
        redrawn = torch.zeros(len(rollout.samples), dtype=torch.bool)
        for number in range(1, self.redraws + 1):
            places = uniform_groups(scores.correct).nonzero()[:, 0]
            if not len(places):
                break
            other = sample_rollout(
                self.backbone,
                only_prompts(batch, places.tolist()),
                self.sampling,
                self.group_size,
                f"{seed}/redraw {number}",
                self.engine,
                prefix.select(places.to(self.device)),
            )
            rollout = rollout.with_groups(places.tolist(), other)
            scores = scores.with_groups(places, self.rewards(other.answers, other.samples))
            redrawn[places] = True
        return rollout, scores, redrawn.float().mean()

    def _aim(self, rollout: Rollout) -> Aim | None:
        """What the reasoning is pulled to, if there is anything."""
        if self.alignment is None:
            return None
        answers = [answer for group in rollout.answers for answer in group]
        samples = [rollout.samples[row] for row in rollout.rows.tolist()]
        return self.alignment.aim(self.backbone.decode, rollout.ids, rollout.mask, answers, samples)

    def _backward(
        self,
        prefix: Prefix,
        rollout: Rollout,
        advantages: Tensor,
        ref_logprobs: Tensor | None,
        share: Tensor,
        synchronise: bool,
        aim: Aim | None = None,
        corrected: Corrections | None = None,
        own: Tensor | None = None,
    ) -> Counter[str]:
        """Gradients of all losses: completions in parts, then the shared prompts once.

        On the policy that sampled, `own` [N, T] takes up its log-probs as they are computed here.
        """
        weights = self.token_weights(rollout.mask, self.sampling.max_new_tokens)
        totals: Counter[str] = Counter()
        for part in rollout.parts(self.tokens_per_pass):
            width = int(rollout.mask[part].sum(-1).max())
            tokens = self._score(prefix, rollout, part, width, with_states=aim is not None)
            old = rollout.logprobs[part, :width]
            if own is not None:
                own[part, :width] = tokens.logprobs.detach()
                old = tokens.logprobs.detach() if isinstance(self.engine, Decoder) else old
            loss, stats = policy_loss(
                tokens.logprobs,
                old,
                advantages[part],
                weights[part, :width],
                surrogate=self.surrogate,
                clip_low=self.clip_low,
                clip_high=self.clip_high,
                ref_logprobs=None if ref_logprobs is None else ref_logprobs[part, :width],
                kl_coef=self.kl_coef,
                entropy=tokens.entropy,
                entropy_coef=self.entropy_coef,
            )
            if self.alignment is not None and aim is not None and tokens.states is not None:
                distance = aim.distance(tokens.states, part)
                loss = loss + self.alignment.coef * distance
                stats["alignment"] = distance.detach()
            self.check_finite(loss, rollout.samples)
            with self._without_synchronisation():
                self.manual_backward(loss * share)
            totals.update({"loss": loss.item(), **{name: value.item() for name, value in stats.items()}})
        if corrected is not None:
            totals.update({"correction": self._backward_of_corrections(prefix, corrected, rollout, share)})
        with nullcontext() if synchronise else self._without_synchronisation():
            self.manual_backward(prefix.backward_through_prompt())
        return totals

    def _backward_of_corrections(
        self, prefix: Prefix, corrected: Corrections, rollout: Rollout, share: Tensor
    ) -> float:
        """Gradients of the corrected answers' cross-entropy, a token weighing as one of an answer of advantage 1."""
        total = 0.0
        for part in corrected.parts(self.tokens_per_pass):
            tokens = score(self.backbone, prefix, part.rows, part.ids, part.mask, self.sampling.temperature)
            loss = -(tokens.logprobs * part.learned).sum() / (len(rollout.ids) * self.sampling.max_new_tokens)
            self.check_finite(loss, rollout.samples)
            with self._without_synchronisation():
                self.manual_backward(self.correction_coef * loss * share)
            total += loss.item()
        return total

    def _score(
        self, prefix: Prefix, rollout: Rollout, part: Tensor, width: int, with_states: bool = False
    ) -> TokenScores:
        ids, mask, rows = rollout.ids[part, :width], rollout.mask[part, :width], rollout.rows[part]
        return score(self.backbone, prefix, rows, ids, mask, self.sampling.temperature, with_states=with_states)

    def _reference_logprobs(self, batch: PromptBatch, rollout: Rollout) -> Tensor | None:
        """[N, T] float32, or None without a leash."""
        if self.kl_coef == 0:
            return None
        with self.backbone.sampling_mode(), self.backbone.reference():
            prefix = prefill(self.backbone, batch["prompt"])
            logprobs = torch.zeros_like(rollout.logprobs)
            for part in rollout.parts(self.tokens_per_pass):
                width = int(rollout.mask[part].sum(-1).max())
                logprobs[part, :width] = self._score(prefix, rollout, part, width).logprobs
            return logprobs

    def _skip(self, closes: bool) -> None:
        """Take part in the steps that the other processes make of their batches."""
        zero = self.no_loss()
        for _ in range(self.inner_epochs if closes else 0):
            if zero is not None:
                self.manual_backward(zero, retain_graph=True)
            self._step()

    def _step(self) -> None:
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        if scheduler is not None:
            self.lr_scheduler_step(scheduler, None)
        if self.reference_sync_every is not None and self.global_step % self.reference_sync_every == 0:
            self.backbone.sync_reference()

    def _without_synchronisation(self) -> AbstractContextManager[Any]:
        """Gradients of several backward passes add up locally; the last pass exchanges them between processes."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _log(self, values: dict[str, float], batch_size: int) -> None:
        """Log the step's values alone: Lightning would repeat the last ones of a name that has none in this step."""
        # Lightning makes tensors of numbers in the default dtype, which bf16-true changes.
        points = {f"train/{name}": torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
        for name in self._logged - points.keys():
            self.trainer._results.pop(f"training_step.{name}", None)  # type: ignore[union-attr]  # set in training
        self._logged |= points.keys()
        shown = {name: points.pop(name) for name in _SHOWN}
        self.log_dict(points, batch_size=batch_size)
        self.log_dict(shown, prog_bar=True, batch_size=batch_size)


def _refuse_conversation(samples: Iterable[Sample]) -> None:
    """The advantage is anchored to whether the diagnosis is right."""
    if talk := [sample.id for sample in samples if not sample.structured]:
        raise TrainingError(
            f"Samples {', '.join(talk)} are conversation and ask for no diagnosis, which GRPO++ learns from. Train on "
            "them with SFTModule, or give GRPOModule a source of diagnoses."
        )
