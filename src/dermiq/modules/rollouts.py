"""What a scored rollout tells: an estimator of advantages, and the curves of training."""

from __future__ import annotations

from dermiq.objectives.advantages import Graded, uniform_groups
from dermiq.policy.rollout import Rollout
from dermiq.rewards import Scores


def graded(rollout: Rollout, scores: Scores) -> Graded:
    """What an estimator is told; the strata are the skin types."""
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
