"""What a wrong answer should have been: the policy's own reasoning, followed by the right answer.

Where the label is known, a wrong answer tells more than that it is wrong. Its reasoning is kept as it was sampled and
gives no loss; the answer after it is replaced by the right one, and learned. So an all-wrong group, of which an
advantage can only say what not to do, shows what to do, and the reasoning stays the policy's own, where supervised
training on bare answers loses it. In the spirit of STaR's rationalisation (Zelikman et al. 2022, arXiv:2203.14465) and
of unified fine-tuning (Liu et al. 2025, arXiv:2505.16984); the form is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.chat_template import frame
from dermiq.policy.processing import text_ids
from dermiq.policy.rollout import Rollout, tokens_within

_BETWEEN = re.compile(r"</think>\s*<answer>", re.IGNORECASE)


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
    answers = [answer for group in rollout.answers for answer in group]
    right = correct.flatten().tolist()
    wrong = [place for place, answer in enumerate(answers) if answer.well_formed and not right[place]]
    if not wrong:
        return None
    rows = rollout.rows[wrong]
    end = frame(backbone.processor).end
    written = [
        _written(backbone, rollout.samples[row].target, rollout.ids[place], rollout.mask[place], answers[place].text)
        for row, place in zip(rows.tolist(), wrong, strict=True)
    ]
    shape = len(written), max(len(tokens) for tokens, _ in written) + 1
    ids = torch.zeros(shape, dtype=torch.int64)
    mask, learned = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for place, (begun, start) in enumerate(written):
        tokens = [*begun, end]
        ids[place, : len(tokens)] = torch.tensor(tokens)
        mask[place, : len(tokens)] = True
        learned[place, start : len(tokens)] = True
    device = rollout.ids.device
    return Corrections(rows, ids.to(device), mask.to(device), learned.to(device))


def _written(backbone: VLMBackbone, target: str, ids: Tensor, mask: Tensor, text: str) -> tuple[list[int], int]:
    """Token ids of a corrected completion up to its end, and where its answer begins.

    The reasoning keeps the tokens that were sampled, as another tokenisation of the same text is another sequence.

    Args:
        backbone: whose tokenizer writes the answer.
        target: what is right.
        ids: [T] int64, of the completion.
        mask: [T] bool.
        text: they stand for.
    """
    between = _BETWEEN.search(text)
    assert between is not None, "a well-formed completion has both tags"
    kept = tokens_within(backbone.decode, ids, mask, between.start() + len("</think>"))
    (reasoning,) = backbone.decode(ids[None, :kept], mask[None, :kept])
    answer = f"{text[len(reasoning) : between.end() - len('<answer>')]}<answer> {target} </answer>"
    return [*ids[:kept].tolist(), *text_ids(backbone.processor, answer)], kept
