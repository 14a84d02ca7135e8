"""Correction of wrong answers: the policy's own reasoning, followed by the right answer, learned by cross-entropy.

Where the label is known, a wrong answer tells more than that it is wrong. Its reasoning is kept as it was sampled and
gives no loss; the answer after it is replaced by the right one, and learned. So an all-wrong group, of which an
advantage can only say what not to do, shows what to do, and the reasoning stays the policy's own, where supervised
training on bare answers loses it. In the spirit of STaR's rationalisation (Zelikman et al. 2022, arXiv:2203.14465) and
of unified fine-tuning (Liu et al. 2025, arXiv:2505.16984); the form is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dermiq.objectives.auxiliary import AuxiliaryLoss, SupervisedCompletions
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.chat_template import frame
from dermiq.policy.processing import text_ids
from dermiq.policy.rollout import Rollout, tokens_within
from dermiq.prompts import reasoning_span, with_answer
from dermiq.ranges import check_numbers
from dermiq.rewards import Scores


class AnswerCorrection:
    """Cross-entropy of the right answer behind the reasoning of each wrong one.

    Args:
        coef: weight of the loss; at 1 a token of an answer weighs as one of a completion of advantage 1, at 0 nothing
            is corrected.
    """

    def __init__(self, coef: float = 1.0) -> None:
        self.coef = coef
        check_numbers(self, coef="[0, inf)")

    def prepare(self, backbone: VLMBackbone, rollout: Rollout, scores: Scores) -> AuxiliaryLoss | None:
        """The corrected completions as supervised ones; None if there are none."""
        corrected = corrections(backbone, rollout, scores.correct) if self.coef else None
        return None if corrected is None else AuxiliaryLoss(completions=corrected)


def corrections(backbone: VLMBackbone, rollout: Rollout, correct: Tensor) -> SupervisedCompletions | None:
    """The well-formed wrong answers of a rollout, corrected; None if there are none.

    The loss mask holds the answer, its tags and the end of the turn included.

    Args:
        backbone: whose tokenizer encodes them.
        rollout: B prompts with G completions.
        correct: [B, G] bool.
    """
    right, answers = correct.flatten().tolist(), rollout.flat_answers
    wrong = [place for place, answer in enumerate(answers) if answer.well_formed and not right[place]]
    if not wrong:
        return None
    rows = rollout.rows[wrong]
    end = frame(backbone.processor).end
    corrected = [
        _corrected(backbone, rollout.samples[row].target, rollout.ids[place], rollout.mask[place], answers[place].text)
        for row, place in zip(rows.tolist(), wrong, strict=True)
    ]
    shape = len(corrected), max(len(tokens) for tokens, _ in corrected) + 1
    ids = torch.zeros(shape, dtype=torch.int64)
    mask, loss_mask = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for place, (without_end, start) in enumerate(corrected):
        tokens = [*without_end, end]
        ids[place, : len(tokens)] = torch.tensor(tokens)
        mask[place, : len(tokens)] = True
        loss_mask[place, start : len(tokens)] = True
    device = rollout.ids.device
    return SupervisedCompletions(rows, ids.to(device), mask.to(device), loss_mask.to(device))


def _corrected(backbone: VLMBackbone, target: str, ids: Tensor, mask: Tensor, text: str) -> tuple[list[int], int]:
    """Token ids of a corrected completion without the end of the turn, and the number of them before its answer.

    The reasoning keeps the tokens that were sampled, as another tokenisation of the same text is another sequence.

    Args:
        backbone: whose tokenizer encodes the answer.
        target: the right answer.
        ids: [T] int64, of the completion.
        mask: [T] bool.
        text: the completion's.
    """
    span = reasoning_span(text)
    assert span is not None, "a well-formed completion has both tags"
    kept = tokens_within(backbone.decode, ids, mask, span[1] + len("</think>"))
    (reasoning,) = backbone.decode(ids[None, :kept], mask[None, :kept])
    answer = with_answer(text, target)[len(reasoning) :]
    return [*ids[:kept].tolist(), *text_ids(backbone.processor, answer)], kept
