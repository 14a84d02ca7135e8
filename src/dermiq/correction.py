"""What a wrong answer should have been: the policy's own reasoning, followed by the right answer.

Where the label is known, a wrong answer tells more than that it is wrong. Its reasoning is kept as it was sampled and
gives no loss; the answer after it is replaced by the right one, and learned. So an all-wrong group, of which an
advantage can only say what not to do, shows what to do, and the reasoning stays the policy's own, where supervised
training on bare answers loses it. In the spirit of STaR's rationalisation (Zelikman et al. 2022, arXiv:2203.14465) and
of unified fine-tuning (Liu et al. 2025, arXiv:2505.16984); the form is ours.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dermiq.backbone import VLMBackbone
from dermiq.processing import end_of_turn
from dermiq.rollout import Rollout
from dermiq.schema import Sample

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
    written = [
        _written(backbone, rollout.samples[row], rollout.ids[place][rollout.mask[place]].tolist(), answers[place].text)
        for row, place in zip(rows.tolist(), wrong, strict=True)
    ]
    shape = len(written), max(len(ids) for ids, _ in written)
    ids = torch.zeros(shape, dtype=torch.int64)
    mask, learned = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for place, (tokens, start) in enumerate(written):
        ids[place, : len(tokens)] = torch.tensor(tokens)
        mask[place, : len(tokens)] = True
        learned[place, start : len(tokens)] = True
    device = rollout.ids.device
    return Corrections(rows, ids.to(device), mask.to(device), learned.to(device))


def _written(backbone: VLMBackbone, sample: Sample, ids: list[int], text: str) -> tuple[list[int], int]:
    """Token ids of the corrected completion, and where its answer begins.

    The reasoning keeps the tokens that were sampled, as another tokenisation of the same text is another sequence.

    Args:
        backbone: whose tokenizer writes the answer.
        sample: what is right.
        ids: of the completion.
        text: they stand for.
    """
    tokenizer = backbone.processor.tokenizer
    reasoned, answered = _between(text)

    def end(count: int) -> int:
        return len(tokenizer.decode(ids[:count], skip_special_tokens=True))

    kept = bisect_right(range(len(ids) + 1), reasoned, key=end) - 1
    answer = f"{text[end(kept) : answered]}<answer> {sample.target} </answer>"
    written = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*ids[:kept], *written, end_of_turn(backbone.processor)], kept


def _between(text: str) -> tuple[int, int]:
    """Where the reasoning ends in a well-formed completion, and where its answer begins."""
    found = _BETWEEN.search(text)
    assert found is not None
    return found.start() + len("</think>"), found.end() - len("<answer>")
