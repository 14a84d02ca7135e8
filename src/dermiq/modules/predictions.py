"""Makes the rows of predictions of sampled and scored answers; `dermiq.metrics.rows` describes their columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from dermiq.metrics import CONVERSATION, Judge, PredictionRow
from dermiq.metrics.rows import AnsweredQuestion, Verdict, Vote
from dermiq.policy.grounding import Grounded
from dermiq.policy.rollout import Rollout
from dermiq.prompts import question
from dermiq.rewards import Scores


def prediction_rows(judge: Judge, rollout: Rollout, scores: Scores) -> list[PredictionRow]:
    """A row for each sample of a rollout of one completion each."""
    means = _means(rollout, scores)
    rows = []
    for i, sample in enumerate(rollout.samples):
        answer = rollout.answers[i][0]
        answered: AnsweredQuestion = {
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
        rows.append(_joined(answered, judge.judge(answer, sample)))
    return rows


def with_samples(rows: Sequence[PredictionRow], judge: Judge, rollout: Rollout, scores: Scores) -> list[PredictionRow]:
    """The rows with means and vote of the completions that were sampled to their questions."""
    means, found = _means(rollout, scores), []
    for i, (row, sample) in enumerate(zip(rows, rollout.samples, strict=True)):
        row["sampled"] = _applying({name: float(value[i]) for name, value in means.items()})
        if sample.structured:
            right = [judge.accepts(judge.name(answer, sample), sample) for answer in rollout.answers[i]]
            row["sampled"]["accuracy"] = sum(right) / len(right)
            row = _joined(row, judge.vote(rollout.answers[i], sample))
        found.append(row)
    return found


def add_facts(rows: list[PredictionRow], grounded: Grounded) -> None:
    """Add to each row the facts that stood in its prompt, and the condition that they are about."""
    for row, facts, condition in zip(rows, grounded.facts, grounded.conditions, strict=True):
        row["facts"] = [{"sentence": fact.sentence, "citation": fact.citation} for fact in facts]
        row["grounded_on"] = condition or None


def _joined(first: AnsweredQuestion, further: Verdict | Vote) -> PredictionRow:
    """One row; mypy cannot add up columns that a part may lack."""
    return cast(PredictionRow, {**first, **further})


def _means(rollout: Rollout, scores: Scores) -> dict[str, Tensor]:
    """Means [B] of a sample's answers, of those that a term applies to; lengths are tokens, of the reasoning words."""
    words = torch.tensor([[len(answer.think.split()) for answer in group] for group in rollout.answers])
    values = {"reward": scores.total, "completion_length": rollout.lengths, "reasoning_length": words}
    values |= {f"reward/{name}": term for name, term in scores.by_term.items()}
    return {name: value.float().nanmean(dim=1) for name, value in values.items()}


def _applying(values: dict[str, float]) -> dict[str, float]:
    """Without what does not apply to the sample."""
    return {name: value for name, value in values.items() if not math.isnan(value)}
