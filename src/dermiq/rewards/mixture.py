"""Mixture of rewards from YAML: weighted terms behind gates, with a total and a breakdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dermiq.ranges import check_numbers
from dermiq.schema import Answer, Sample, TrainingError

RewardFunction = Callable[[Answer, Sample], float | None]


@dataclass(frozen=True)
class RewardTerm:
    """A function of (answer, sample) and its weight in the total; weight 0 is logged only.

    The function returns None where it does not apply to a sample.
    """

    fn: RewardFunction
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, weight="(-inf, inf)")


@dataclass(frozen=True)
class Scores:
    """Rewards of B groups of G completions.

    Attributes:
        total: [B, G] float32, the product of the gates times the weighted sum of the terms.
        by_term: [B, G] float32 values of each term and gate before weighting; NaN where it does not apply.
        correct: [B, G] bool, the outcome term and every gate are 1.
        terms: [K, B, G] float32, the contribution of each term to `total`, in the mixture's order.
        weights: [K] float32 of the terms.
    """

    total: Tensor
    by_term: dict[str, Tensor]
    correct: Tensor
    terms: Tensor
    weights: Tensor

    @property
    def means(self) -> dict[str, float]:
        """Mean of each term and gate over the answers that it applies to; without the ones that apply to none."""
        means = {name: float(values.nanmean()) for name, values in self.by_term.items()}
        return {name: mean for name, mean in means.items() if not math.isnan(mean)}

    def with_groups(self, places: Tensor, other: Scores) -> Scores:
        """These scores with the groups at `places` [b] int64 replaced by the b groups of `other`."""
        return Scores(
            total=self.total.index_copy(0, places, other.total),
            by_term={name: value.index_copy(0, places, other.by_term[name]) for name, value in self.by_term.items()},
            correct=self.correct.index_copy(0, places, other.correct),
            terms=self.terms.index_copy(1, places, other.terms),
            weights=self.weights,
        )


@dataclass(frozen=True)
class RewardMixture:
    """The weighted sum of terms, multiplied by gates.

    Attributes:
        terms: name -> term.
        gates: name -> function in [0, 1]; the total is multiplied by each (format, hedging).
        outcome: name of the term that is 1 for a right diagnosis.
    """

    terms: Mapping[str, RewardTerm]
    gates: Mapping[str, RewardFunction] = field(default_factory=dict)
    outcome: str = "diagnosis"

    def __post_init__(self) -> None:
        if self.outcome not in self.terms:
            raise ValueError(f"outcome {self.outcome!r} is none of the terms {sorted(self.terms)}")
        if shared := self.terms.keys() & self.gates.keys():
            raise ValueError(f"{sorted(shared)} are both terms and gates")

    @property
    def full(self) -> float:
        """The total of a perfect answer."""
        return sum(term.weight for term in self.terms.values())

    def __call__(self, answers: Sequence[Sequence[Answer]], samples: Sequence[Sample]) -> Scores:
        """The scores of G answers of each of B samples.

        Raises:
            TrainingError: if a reward raises or is not finite, naming the reward and the sample.
        """
        functions = {name: term.fn for name, term in self.terms.items()} | dict(self.gates)
        by_term = {
            name: torch.tensor(
                [
                    [_call(name, function, answer, sample) for answer in group]
                    for group, sample in zip(answers, samples, strict=True)
                ],
                dtype=torch.float32,
            )
            for name, function in functions.items()
        }
        gate = torch.ones_like(by_term[self.outcome])
        for name in self.gates:
            gate = gate * by_term[name].nan_to_num(1.0)
        terms = [term.weight * by_term[name].nan_to_num(0.0) for name, term in self.terms.items()]
        return Scores(
            total=gate * sum(terms),
            by_term=by_term,
            correct=(by_term[self.outcome] == 1) & (gate == 1),
            terms=gate * torch.stack(terms),
            weights=torch.tensor([float(term.weight) for term in self.terms.values()], dtype=torch.float32),
        )


def _call(name: str, function: RewardFunction, answer: Answer, sample: Sample) -> float:
    try:
        given = function(answer, sample)
        value = None if given is None else float(given)
    except Exception as error:
        raise TrainingError(
            f"Reward {name!r} failed on sample {sample.id!r} with {type(error).__name__}: {error}. "
            f"The completion was {answer.text!r}. Mend the reward; nothing is learned from a broken one."
        ) from error
    if value is None:
        return math.nan
    if not math.isfinite(value):
        raise TrainingError(
            f"Reward {name!r} gave {value} for sample {sample.id!r} and completion {answer.text!r}. "
            "A reward must be a finite number, or None where it does not apply."
        )
    return value
