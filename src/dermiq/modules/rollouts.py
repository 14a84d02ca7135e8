"""Scored rollouts: how they are sampled, what their advantages and updates are made of, and their curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dermiq.objectives.advantages import Graded, uniform_groups
from dermiq.objectives.auxiliary import AuxiliaryLoss, OnRollout, SupervisedCompletions
from dermiq.policy.batches import PromptBatch
from dermiq.policy.prefix import Prefix
from dermiq.policy.rollout import Rollout, select_prompts
from dermiq.rewards import Scores
from dermiq.schema import Sample, TrainingError


@dataclass(frozen=True)
class Update:
    """What the gradients from a rollout of N completions are made of; the same in every inner epoch.

    Attributes:
        rollout: the completions.
        advantages: [N] float32.
        token_weights: [N, T] float32, see `dermiq.objectives.losses`.
        ref_logprobs: [N, T] float32 under the reference; None without a KL penalty.
        auxiliary: losses of the auxiliary objectives that have any, by name.
        scale: of every loss, see `StageModule.world_scale`.
    """

    rollout: Rollout
    advantages: Tensor
    token_weights: Tensor
    ref_logprobs: Tensor | None
    auxiliary: dict[str, AuxiliaryLoss]
    scale: Tensor

    @property
    def on_rollout(self) -> dict[str, OnRollout]:
        """The auxiliary losses of the rollout's own completions."""
        return {name: loss.on_rollout for name, loss in self.auxiliary.items() if loss.on_rollout is not None}

    @property
    def completions(self) -> dict[str, SupervisedCompletions]:
        """The completions that auxiliary objectives add."""
        return {name: loss.completions for name, loss in self.auxiliary.items() if loss.completions is not None}


def refuse_conversation(samples: Iterable[Sample]) -> None:
    """Make sure that every sample asks for a diagnosis, since advantages are anchored to whether it is right.

    Raises:
        TrainingError: naming the samples that are conversation.
    """
    if talk := [sample.id for sample in samples if not sample.structured]:
        raise TrainingError(
            f"Samples {', '.join(talk)} are conversation and ask for no diagnosis, which GRPO++ learns from. Train on "
            "them with SFTModule, or give GRPOModule a source of diagnoses."
        )


def sample_groups(
    sample: Callable[[PromptBatch, Prefix, str], tuple[Rollout, Scores]],
    batch: PromptBatch,
    prefix: Prefix,
    seed: str,
    rounds: int,
) -> tuple[Rollout, Scores, float]:
    """A scored rollout whose groups of a single outcome were sampled again, and the share of these groups.

    Args:
        sample: (batch, prefix, seed) -> scored groups of its prompts.
        batch: B prompts.
        prefix: their states.
        seed: of the random numbers.
        rounds: how often, at most, groups are sampled again.
    """
    rollout, scores = sample(batch, prefix, seed)
    resampled = torch.zeros(len(rollout.samples), dtype=torch.bool)
    for number in range(1, rounds + 1):
        groups = uniform_groups(scores.correct).nonzero()[:, 0]  # [b]
        if not len(groups):
            break
        states = prefix.select(groups.to(prefix.last_state.device))
        other, other_scores = sample(select_prompts(batch, groups.tolist()), states, f"{seed}/redraw {number}")
        rollout = rollout.with_groups(groups.tolist(), other)
        scores = scores.with_groups(groups, other_scores)
        resampled[groups] = True
    return rollout, scores, resampled.float().mean().item()


def graded(rollout: Rollout, scores: Scores) -> Graded:
    """The input of an advantage estimator; the strata are the skin types."""
    types = [sample.skin_type for sample in rollout.samples]
    return Graded(
        rewards=scores.total,
        correct=scores.correct,
        confidence=rollout.confidence.cpu(),
        terms=scores.terms,
        weights=scores.weights,
        strata=tuple(None if found is None else f"{found.scale} {found.value}" for found in types),
    )


def curves(rollout: Rollout, scores: Scores, max_new_tokens: int) -> dict[str, float]:
    """Means over the completions, by name; a term that applies to none of them has no point in its curve."""
    lengths = rollout.lengths.float()
    return {
        "reward": float(scores.total.mean()),
        "accuracy": float(scores.correct.float().mean()),
        "reward_std": float(scores.total.std(dim=1).mean()) if rollout.group_size > 1 else 0.0,
        "completion_length": float(lengths.mean()),
        "truncated": float((lengths == max_new_tokens).float().mean()),
        "uniform_groups": float(uniform_groups(scores.correct).float().mean()),
        "all_wrong_groups": float((~scores.correct).all(dim=1).float().mean()),
        **{f"reward/{name}": mean for name, mean in scores.means.items()},
    }
