"""GRPO++: group-relative policy optimisation made stable and cheap, the rollout in `training_step`.

One step, whose losses are in `dermiq.objectives.losses` and whose advantages in `dermiq.objectives.advantages`:

1. sample a group of completions of each prompt, and score them (`_sample`);
2. advantages within the groups;
3. log-probs under the reference (`_reference_logprobs`);
4. update in micro-batches, the prompt shared by all of them (`_backward`);
5. clip the gradient, and step (`_step`).

Curves, each ``train/NAME``: `loss` (the policy loss and the objectives on the rollout), `clip_fraction`, `kl` and
`entropy` (sums over tokens under the token weights), the unweighted loss of each auxiliary objective under its name;
`reward`, `reward_std`, `reward/TERM`, `accuracy`, `completion_length`, `truncated`, `uniform_groups` and
`all_wrong_groups` of the rollout that is learned from; `resampled` (share of the groups that were sampled again);
`rollout_mismatch` (mean absolute difference of the rollout's log-probs and the update's, nats per token);
`tokens_per_second` and `grad_norm` (before clipping).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dermiq.modules.manual import ManualStage
from dermiq.modules.rollouts import Update, curves, graded, refuse_conversation, sample_groups
from dermiq.objectives.advantages import Advantage, OutcomeAnchored
from dermiq.objectives.auxiliary import Objective, SupervisedCompletions, auxiliary_losses
from dermiq.objectives.losses import Surrogate, clipped_tokens, constant_length, counted, policy_loss
from dermiq.objectives.scored import ScoredRollout
from dermiq.policy.batches import PromptBatch
from dermiq.policy.prefix import Prefix, TokenScores, prefill, score
from dermiq.policy.rollout import Decoder, Engine, Rollout, RolloutPart, Sampling, sample_rollout
from dermiq.ranges import COUNT, SEED, check_numbers
from dermiq.rewards import Scores


class GRPOModule(ManualStage):
    """GRPO++; plain GRPO, Dr. GRPO and DAPO-style training are other settings of the same keywords.

    The prompt runs once per step, with gradient: the rollout forks from that pass, and the update's first epoch goes
    backward through it. Dropout is off throughout, so that the policy which learns is the one that was sampled. So the
    old policy's log-probs are the update's own of its first epoch, whose ratios are 1 at every precision; those of
    the rollout, which decoding rounds in another way, take their place where another program samples (an engine that
    is no `Decoder`).

    Args:
        group_size: completions per prompt; costs time, not memory, with `tokens_per_pass` and the engine's
            `rows_per_pass`.
        sampling: length, temperature and stops of the completions; keep the temperature above 0.
        advantage: the estimator, see `dermiq.objectives.advantages`; None is GRPO++'s `OutcomeAnchored()`.
        token_weights: (mask [N, T], max_new_tokens) -> weights [N, T], normalised over these N; see
            `dermiq.objectives.losses`. Batches that share a step, of all processes, weigh by what the weights are
            normalised by: by their completions, or by their tokens (`per_token`).
        surrogate: what the policy raises: `clipped_tokens` (GRPO, DAPO), `clipped_sequences` (GSPO) or
            `clipped_weights` (CISPO) of `dermiq.objectives.losses`. On the first step from a rollout all have the same
            gradient.
        clip_low: the probability ratio is clipped to [1 - clip_low, 1 + clip_high].
        clip_high: above clip_low, rare tokens may rise (DAPO's clip-higher).
        kl_coef: weight of the KL penalty; 0 saves the reference pass.
        entropy_coef: weight of the entropy bonus.
        objectives: auxiliary losses by name, such as `dermiq.objectives.correction.AnswerCorrection` and
            `dermiq.objectives.alignment.SemanticAlignmentLoss`.
        inner_epochs: optimiser steps on each rollout; more than one go with one batch per step.
        tokens_per_pass: tokens of completions, padding included, that run forward and backward together; None takes
            all.
        engine: samples the completions, see `dermiq.policy.decoding`; None is `Decoder()`.
        resample_uniform: how often, at most, groups whose outcomes are all alike are sampled again before the update,
            as in DAPO's dynamic sampling (arXiv:2503.14476, eq. 11), which takes other prompts. The same prompts need
            no state between steps, and leave every sample its share of the epoch and the batch its size.
        reference_sync_every: optimiser steps after which the reference becomes the policy; None never.
        seed: of the sampling.
        stage: arguments of `ManualStage` and `StageModule`.
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
        objectives: Mapping[str, Objective] | None = None,
        inner_epochs: int = 1,
        tokens_per_pass: int | None = None,
        engine: Engine | None = None,
        resample_uniform: int = 0,
        reference_sync_every: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if inner_epochs > 1 and self.accumulate_batches > 1:
            raise ValueError(
                "inner_epochs and accumulate_batches cannot both be above 1: raise data.batch_size instead"
            )
        if sampling.temperature == 0:
            raise ValueError("GRPO learns from differences within a group: sampling.temperature must be above 0")
        self.group_size, self.sampling, self.seed = group_size, sampling, seed
        self.engine = Decoder() if engine is None else engine
        self.resample_uniform = resample_uniform
        self.advantage = OutcomeAnchored() if advantage is None else advantage
        self.token_weights = token_weights
        self.surrogate = surrogate
        self.clip_low, self.clip_high = clip_low, clip_high
        self.kl_coef, self.entropy_coef = kl_coef, entropy_coef
        self.objectives = dict(objectives or {})
        self.inner_epochs = inner_epochs
        self.tokens_per_pass = tokens_per_pass
        self.reference_sync_every = reference_sync_every
        check_numbers(
            self,
            **dict.fromkeys(("group_size", "inner_epochs"), COUNT),
            **dict.fromkeys(("tokens_per_pass", "reference_sync_every"), "[1, inf)"),
            **dict.fromkeys(("clip_high", "kl_coef", "entropy_coef"), "[0, inf)"),
            clip_low="[0, 1]",
            resample_uniform="[0, 65536]",
            seed=SEED,
        )

    def configure_model(self) -> None:
        """Load the weights, and the copy that a moving reference needs."""
        super().configure_model()
        if self.reference_sync_every is not None:
            self.backbone.add_reference()

    def training_step(self, batch: PromptBatch, batch_idx: int) -> ScoredRollout | None:
        """Sample, score, and improve; returns the rollout and its scores for callbacks."""
        is_update_batch = self._is_update_batch(batch_idx)
        if not batch["samples"]:
            self._skip(self.inner_epochs if is_update_batch else 0)
            return None
        refuse_conversation(batch["samples"])
        start = time.perf_counter()
        with self.backbone.without_dropout():
            # 1. Sample a group of completions of each prompt, and score them.
            prefix = prefill(self.backbone, batch["prompt"])
            seed = f"{self.seed}/{self.current_epoch}/{batch_idx}"
            sampled = sample_groups(self._sample, batch, prefix.detach(), seed, self.resample_uniform)
            rollout, scores, resampled = sampled
            # 2 and 3. Advantages [B, G] within the groups, log-probs under the reference, auxiliary losses.
            scale = self.world_scale(counted(self.token_weights, rollout.mask, self.sampling.max_new_tokens))
            advantages = self.advantage(graded(rollout, scores)).to(self.device)
            update = Update(
                rollout=rollout,
                advantages=advantages.flatten(),
                token_weights=self.token_weights(rollout.mask, self.sampling.max_new_tokens),
                ref_logprobs=self._reference_logprobs(batch, rollout),
                auxiliary=auxiliary_losses(self.objectives, self.backbone, rollout, scores),
                scale=scale,
            )
            # 4 and 5. Update in micro-batches, clip and step; the old policy is that of the first epoch.
            old_logprobs = None if isinstance(self.engine, Decoder) else rollout.logprobs
            for epoch in range(self.inner_epochs):
                prefix = prefill(self.backbone, batch["prompt"]) if epoch else prefix
                stats, logprobs = self._backward(prefix.detach(), update, old_logprobs, is_update_batch)
                if epoch == 0:
                    mismatch = (logprobs - rollout.logprobs).abs().sum() / rollout.mask.sum()
                    old_logprobs = logprobs if old_logprobs is None else old_logprobs
                if is_update_batch:
                    self._step()
        values = {
            **stats,
            **curves(rollout, scores, self.sampling.max_new_tokens),
            **({"resampled": resampled} if self.resample_uniform else {}),
            "rollout_mismatch": mismatch.item(),
            "tokens_per_second": float(rollout.mask.sum()) / (time.perf_counter() - start),
        }
        self._log(values, ("reward", "accuracy", "tokens_per_second"), len(rollout.samples))
        return {"rollout": rollout, "scores": scores, "advantages": advantages}

    def _sample(self, batch: PromptBatch, prefix: Prefix, seed: str) -> tuple[Rollout, Scores]:
        """A group of completions of each prompt, scored."""
        rollout = sample_rollout(self.backbone, batch, self.sampling, self.group_size, seed, self.engine, prefix)
        return rollout, self.rewards(rollout.answers, rollout.samples)

    def _reference_logprobs(self, batch: PromptBatch, rollout: Rollout) -> Tensor | None:
        """[N, T] float32, or None without a KL penalty."""
        if self.kl_coef == 0:
            return None
        with self.backbone.sampling_mode(), self.backbone.reference():
            prefix = prefill(self.backbone, batch["prompt"])
            logprobs = torch.zeros_like(rollout.logprobs)
            for part in rollout.parts(self.tokens_per_pass):
                part.put(self._score(prefix, part).logprobs, logprobs)
            return logprobs

    def _backward(
        self, prefix: Prefix, update: Update, old_logprobs: Tensor | None, is_update_batch: bool
    ) -> tuple[Counter[str], Tensor]:
        """Gradients of all losses: completions in micro-batches, then the shared prompts once.

        Returns sums by curve, and the policy's log-probs [N, T], which stand for `old_logprobs` where these are None.
        """
        totals: Counter[str] = Counter()
        logprobs = torch.zeros_like(update.rollout.logprobs)
        for part in update.rollout.parts(self.tokens_per_pass):
            tokens = self._score(prefix, part, with_states=bool(update.on_rollout))
            part.put(tokens.logprobs.detach(), logprobs)
            loss, stats = policy_loss(
                tokens.logprobs,
                part.of(logprobs if old_logprobs is None else old_logprobs),
                part.of(update.advantages),
                part.of(update.token_weights),
                surrogate=self.surrogate,
                clip_low=self.clip_low,
                clip_high=self.clip_high,
                ref_logprobs=None if update.ref_logprobs is None else part.of(update.ref_logprobs),
                kl_coef=self.kl_coef,
                entropy=tokens.entropy,
                entropy_coef=self.entropy_coef,
            )
            for name, of_part in update.on_rollout.items():
                term = of_part(part, tokens)
                loss, stats[name] = loss + self.objectives[name].coef * term, term.detach()
            self.check_finite(loss, update.rollout.samples)
            self._backward_locally(loss * update.scale)
            totals.update({"loss": loss.item(), **{name: value.item() for name, value in stats.items()}})
        for name, completions in update.completions.items():
            for piece in completions.parts(self.tokens_per_pass):
                tokens = self._score(prefix, piece)
                loss = -(tokens.logprobs * piece.loss_mask).sum() / (len(logprobs) * self.sampling.max_new_tokens)
                self.check_finite(loss, update.rollout.samples)
                self._backward_locally(self.objectives[name].coef * loss * update.scale)
                totals.update({name: loss.item()})
        self._backward_last(prefix.backward_through_prompt(), is_update_batch)
        return totals, logprobs

    def _score(
        self, prefix: Prefix, part: RolloutPart | SupervisedCompletions, with_states: bool = False
    ) -> TokenScores:
        temperature = self.sampling.temperature
        return score(self.backbone, prefix, part.rows, part.ids, part.mask, temperature, with_states=with_states)

    def _step(self) -> None:
        super()._step()
        if self.reference_sync_every is not None and self.global_step % self.reference_sync_every == 0:
            self.backbone.sync_reference()
