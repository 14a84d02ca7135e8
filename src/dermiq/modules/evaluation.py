"""Rows of an evaluation: one per question, with what was asked, what was answered, and how it was judged."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dermiq.metrics import CONVERSATION, Judge
from dermiq.policy.rollout import Rollout
from dermiq.prompts import question
from dermiq.rewards import Scores

Row = dict[str, Any]


def judged_rows(judge: Judge, rollout: Rollout, scores: Scores) -> list[Row]:
    """A row for each sample of a rollout of one completion each; see `dermiq.modules.base.StageModule.evaluate`."""
    means = _means(rollout, scores)
    rows = []
    for i, sample in enumerate(rollout.samples):
        answer = rollout.answers[i][0]
        row = {
            "id": sample.id,
            "dataset": sample.dataset,
            "group": sample.group,
            "kind": sample.kind if sample.structured else CONVERSATION,
            "images": list(sample.images),
            "question": question(sample),
            "options": list(sample.options),
            "label": sample.label,
            "target": sample.target,
            "skin_type": sample.skin_type.value if sample.skin_type else None,
            "site": sample.site,
            "completion": answer.text,
            "answer": answer.diagnosis,
            "reward": float(means["reward"][i]),
            "completion_length": int(means["completion_length"][i]),
            "reasoning_length": int(means["reasoning_length"][i]),
            "scores": _applying({name: float(term[i, 0]) for name, term in scores.by_term.items()}),
        }
        rows.append(row | judge.judge(answer, sample))
    return rows


def add_samples(rows: list[Row], judge: Judge, rollout: Rollout, scores: Scores) -> None:
    """Add to each row the means and the vote of the completions that were drawn of its sample."""
    means = _means(rollout, scores)
    for i, (row, sample) in enumerate(zip(rows, rollout.samples, strict=True)):
        row["sampled"] = _applying({name: float(value[i]) for name, value in means.items()})
        if sample.structured:
            right = [judge.accepts(judge.name(answer, sample), sample) for answer in rollout.answers[i]]
            row["sampled"]["accuracy"] = sum(right) / len(right)
            row |= judge.vote(rollout.answers[i], sample)


def _means(rollout: Rollout, scores: Scores) -> dict[str, Tensor]:
    """Means [B] of a sample's answers, of those that a term applies to; lengths are tokens, of the reasoning words."""
    words = torch.tensor([[len(answer.think.split()) for answer in group] for group in rollout.answers])
    values = {"reward": scores.total, "completion_length": rollout.lengths, "reasoning_length": words}
    values |= {f"reward/{name}": term for name, term in scores.by_term.items()}
    return {name: value.float().nanmean(dim=1) for name, value in values.items()}


def _applying(values: dict[str, float]) -> dict[str, float]:
    """Without what does not apply to the sample."""
    return {name: value for name, value in values.items() if not math.isnan(value)}
