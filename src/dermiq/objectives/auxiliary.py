"""Auxiliary objectives: losses beside GRPO's policy loss, each an object that YAML names under ``objectives``.

An `Objective` looks at a scored rollout once and returns the `AuxiliaryLoss` of the updates from it: a term of the
rollout's own completions, further completions to learn, or both. Legend: N completions of T tokens in the rollout, a
part of n completions of t tokens, H channels of a hidden state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.prefix import TokenScores
from dermiq.policy.rollout import Rollout, RolloutPart
from dermiq.rewards import Scores

OnRollout = Callable[[RolloutPart, TokenScores], Tensor]


@dataclass(frozen=True)
class SupervisedCompletions:
    """Completions to learn by cross-entropy, n of T tokens, that follow prompts of the rollout.

    Attributes:
        rows: [n] int64, the prompt of each.
        ids: [n, T] int64, padded on the right.
        mask: [n, T] bool, True = a token of the completion.
        loss_mask: [n, T] bool, True = a token to learn.
    """

    rows: Tensor
    ids: Tensor
    mask: Tensor
    loss_mask: Tensor

    def parts(self, tokens: int | None) -> Iterator[SupervisedCompletions]:
        """Micro-batches of at most `tokens` padded tokens, at least one completion each; None gives one of all."""
        size = len(self.rows) if tokens is None else max(1, tokens // self.ids.shape[1])
        for start in range(0, len(self.rows), size):
            part = slice(start, start + size)
            yield SupervisedCompletions(self.rows[part], self.ids[part], self.mask[part], self.loss_mask[part])


@dataclass(frozen=True)
class AuxiliaryLoss:
    """What an objective adds to the updates from one rollout.

    Attributes:
        on_rollout: (part, scores) -> scalar, of a micro-batch of the rollout and what the policy makes of its tokens,
            hidden states included, with gradient; the loss is the sum over the micro-batches. None adds nothing.
        completions: learned by cross-entropy, summed over the tokens of the loss mask and divided by
            N * max_new_tokens, so that a token weighs as one of a completion of advantage 1. None adds nothing.
    """

    on_rollout: OnRollout | None = None
    completions: SupervisedCompletions | None = None


class Objective(Protocol):
    """An auxiliary objective of GRPO.

    Attributes:
        coef: weight of its loss beside the policy's; its curve shows the loss without it.
    """

    coef: float

    def prepare(self, backbone: VLMBackbone, rollout: Rollout, scores: Scores) -> AuxiliaryLoss | None:
        """The loss of the updates from a rollout; None if it has none.

        Args:
            backbone: the policy; it has not moved since it sampled.
            rollout: B prompts with G completions.
            scores: their rewards, and which are correct.
        """
        ...


def auxiliary_losses(
    objectives: Mapping[str, Objective], backbone: VLMBackbone, rollout: Rollout, scores: Scores
) -> dict[str, AuxiliaryLoss]:
    """The losses of the objectives that have any of a rollout, by name; see `Objective.prepare`."""
    found = {name: objective.prepare(backbone, rollout, scores) for name, objective in objectives.items()}
    return {name: loss for name, loss in found.items() if loss is not None}
