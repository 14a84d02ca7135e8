"""Medical semantic alignment as a differentiable auxiliary loss on the reasoning's hidden states.

The semantic reward of Zhu et al. 2025 (arXiv:2505.13973) judges the text of the reasoning, and reaches the policy as a
score of whole completions. Here the same comparison is a loss with a gradient of its own. N completions of T tokens,
H channels of a hidden state, D of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from dermiq.objectives.auxiliary import AuxiliaryLoss
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.prefix import TokenScores
from dermiq.policy.rollout import Rollout, RolloutPart, tokens_within
from dermiq.prompts import reasoning_span
from dermiq.ranges import SEED, check_numbers
from dermiq.rewards import Scores, reference_description
from dermiq.schema import Sample, TrainingError
from dermiq.text_encoder import TextEncoder

Decode = Callable[[Tensor, Tensor], list[str]]  # (ids, mask) -> texts, as `VLMBackbone.decode`


@dataclass(frozen=True)
class AlignmentTargets:
    """Where the reasoning of N completions stands, and the embeddings of its references.

    Attributes:
        reasoning: [N, T] bool, True = a token of the reasoning; rows without any give no loss.
        embeddings: [N, D] float32.
        seed: of the projection to the size of the states.
    """

    reasoning: Tensor
    embeddings: Tensor
    seed: int

    def distance(self, states: Tensor, index: Tensor) -> Tensor:
        """Mean over the completions that have a reasoning of 1 - cos(its mean state, its target).

        Args:
            states: [n, t, H] hidden states, with gradient, each the one that predicts its token.
            index: [n] int64, the completions whose first t tokens these are; parts of the N add up to the mean.

        Returns:
            A scalar, float32, in [0, 2].
        """
        counted = self.reasoning[index, : states.shape[1]].float()  # [n, t]
        pooled = (states.float() * counted[..., None]).sum(dim=1) / counted.sum(dim=1, keepdim=True).clamp(min=1)
        projection = orthonormal(self.embeddings.shape[1], states.shape[2], self.seed).to(states.device)  # [D, H]
        distances = 1 - cosine_similarity(pooled, self.embeddings[index] @ projection, dim=-1)  # [n]
        return (distances * counted.any(dim=1)).sum() / self.reasoning.any(dim=1).sum()

    def of_part(self, part: RolloutPart, scores: TokenScores) -> Tensor:
        """`distance` as `AuxiliaryLoss.on_rollout`."""
        assert scores.states is not None, "the step keeps the states for objectives on the rollout"
        return self.distance(scores.states, part.index)


class SemanticAlignmentLoss:
    """Distance of the policy's mean last hidden state over its reasoning from the reference's embedding.

    Of well-formed completions of samples that have a reference, see `dermiq.rewards.reference_description`. The
    reasoning are the tokens that lie between the think tags as a whole. A fixed random projection brings the
    embedding to the size of the states; it keeps angles (Johnson and Lindenstrauss 1984), exactly so where the states
    are the larger, and leaves no weights to train or to save.

    Args:
        encoder: of the references; None takes the one that comes as a package.
        coef: weight of the loss.
        descriptions: describes samples that have neither reasoning nor findings (`dermiq.kg.TypicalDescription`).
        seed: of the projection; keep it from one run of a policy to the next.
    """

    def __init__(
        self,
        encoder: TextEncoder | None = None,
        coef: float = 0.1,
        descriptions: Callable[[Sample], str | None] | None = None,
        seed: int = 0,
    ) -> None:
        self.encoder = TextEncoder() if encoder is None else encoder
        self.coef = coef
        self.descriptions = descriptions
        self.seed = seed
        check_numbers(self, coef="[0, inf)", seed=SEED)

    def prepare(self, backbone: VLMBackbone, rollout: Rollout, scores: Scores) -> AuxiliaryLoss | None:
        """The distance as a loss on the rollout; None if no completion has both a reasoning and a reference."""
        targets = self.targets(backbone.decode, rollout)
        return None if targets is None else AuxiliaryLoss(on_rollout=targets.of_part)

    def targets(self, decode: Decode, rollout: Rollout) -> AlignmentTargets | None:
        """The targets of N completions; None if none of them has both a reasoning and a reference.

        Raises:
            TrainingError: if the encoder does not give one embedding for each text.
        """
        samples = [rollout.samples[row] for row in rollout.rows.tolist()]
        references = [reference_description(sample, self.descriptions) or "" for sample in samples]
        reasoning = torch.zeros_like(rollout.mask)
        for i, (answer, reference) in enumerate(zip(rollout.flat_answers, references, strict=True)):
            if answer.well_formed and reference:
                reasoning[i, _reasoning(decode, rollout.ids[i], rollout.mask[i])] = True
        if not reasoning.any():
            return None
        texts = sorted(set(references))
        with torch.no_grad():
            embeddings = self.encoder(texts)
        if embeddings.ndim != 2 or len(embeddings) != len(texts):
            raise TrainingError(
                f"The encoder of the alignment loss gave a tensor of shape {tuple(embeddings.shape)} for {len(texts)} "
                "texts. It has to give one embedding for each, [N, D]."
            )
        rows = [texts.index(reference) for reference in references]
        return AlignmentTargets(reasoning, embeddings.float().to(rollout.ids.device)[rows], self.seed)


def _reasoning(decode: Decode, ids: Tensor, mask: Tensor) -> slice:
    """The tokens of a well-formed completion [T] that lie between its think tags as a whole."""
    span = reasoning_span(decode(ids[None], mask[None])[0])
    assert span is not None, "a well-formed completion has both tags"
    first = tokens_within(decode, ids, mask, span[0] - 1) + 1  # after the tag's last token
    return slice(first, tokens_within(decode, ids, mask, span[1]))


@lru_cache(maxsize=4)
def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    """A random [rows, columns] float32 matrix whose rows, or columns if these are fewer, are orthonormal."""
    generator = torch.Generator().manual_seed(seed)
    tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float32)
    basis: Tensor = torch.linalg.qr(tall).Q
    return basis if rows >= columns else basis.T
