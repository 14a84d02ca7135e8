"""What a wrong answer should have been: the policy's own reasoning, followed by the right answer.

Where the label is known, a wrong answer tells more than that it is wrong. Its reasoning is kept as it was sampled and
gives no loss; the answer after it is replaced by the right one, and learned. So an all-wrong group, of which an
advantage can only say what not to do, shows what to do, and the reasoning stays the policy's own, where supervised
training on bare answers loses it. In the spirit of STaR's rationalisation (Zelikman et al. 2022, arXiv:2203.14465) and
of unified fine-tuning (Liu et al. 2025, arXiv:2505.16984); the form is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dermiq.backbone import VLMBackbone
from dermiq.processing import end_of_turn
from dermiq.prompts import gold_completion
from dermiq.rollout import Rollout
from dermiq.schema import Answer, Sample


@dataclass(frozen=True)
class Corrections:
    """The corrected completions of a rollout, n of T tokens.

    Attributes:
        rows: [n] int64, the prompt of each.
        ids: [n, T] int64, padded on the right.
        mask: [n, T] bool, True = a token of the completion.
        learned: [n, T] bool, True = a token of the answer, its tags and the end of the turn included.
    """

    rows: Tensor
    ids: Tensor
    mask: Tensor
    learned: Tensor

    def parts(self, tokens: int | None) -> Iterator[Corrections]:
        """Pieces of at most `tokens` padded tokens, at least one completion each; None gives one of all."""
        size = len(self.rows) if tokens is None else max(1, tokens // self.ids.shape[1])
        for start in range(0, len(self.rows), size):
            part = slice(start, start + size)
            yield Corrections(self.rows[part], self.ids[part], self.mask[part], self.learned[part])


def corrections(backbone: VLMBackbone, rollout: Rollout, correct: Tensor) -> Corrections | None:
    """The well-formed wrong answers of a rollout, corrected; None if there are none.

    Args:
        backbone: whose tokenizer writes them.
        rollout: B prompts with G completions.
        correct: [B, G] bool.
    """
    wrong = [
        (row, sample, answer)
        for row, (sample, group) in enumerate(zip(rollout.samples, rollout.answers, strict=True))
        for answer, is_right in zip(group, correct[row].tolist(), strict=True)
        if answer.well_formed and not is_right
    ]
    if not wrong:
        return None
    written = [_written(backbone, sample, answer) for _, sample, answer in wrong]
    shape = len(written), max(len(ids) for ids, _ in written)
    ids = torch.zeros(shape, dtype=torch.int64)
    mask, learned = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for place, (tokens, start) in enumerate(written):
        ids[place, : len(tokens)] = torch.tensor(tokens)
        mask[place, : len(tokens)] = True
        learned[place, start : len(tokens)] = True
    device = rollout.ids.device
    rows = torch.tensor([row for row, _, _ in wrong])
    return Corrections(rows.to(device), ids.to(device), mask.to(device), learned.to(device))


def _written(backbone: VLMBackbone, sample: Sample, answer: Answer) -> tuple[list[int], int]:
    """Token ids of the corrected completion, and where its answer begins."""
    text = gold_completion(replace(sample, reasoning=answer.think))
    encode = backbone.processor.tokenizer
    ids = [*encode(text, add_special_tokens=False)["input_ids"], end_of_turn(backbone.processor)]
    reasoning = encode(text[: text.rindex("<answer>")].rstrip(), add_special_tokens=False)["input_ids"]
    return ids, _common(reasoning, ids)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))
