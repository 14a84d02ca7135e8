"""Leakage of random splits of single samples: test samples with a companion in train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from dermiq.datamodules.splits.clusters import Numbers, Tie, union

SEEDS = 20


class Leak(NamedTuple):
    """Test samples with a companion in train, under random splits of single samples.

    Attributes:
        mean: share of the test samples, in [0, 1], over all seeds.
        sd: standard deviation of that share between seeds.
    """

    mean: float
    sd: float


def random_leak(clusters: Numbers, train: float, test: float, seeds: Iterable[int] = range(SEEDS)) -> Leak:
    """The share of test samples with a sample of their cluster in train, over random splits of single samples.

    Args:
        clusters: of each sample, a number from 0 on, [samples] int64.
        train: fraction of the samples to train on.
        test: fraction of the samples to test on.
        seeds: one random split for each; at least two.
    """
    length = len(clusters)
    shares = []
    for seed in seeds:
        order = clusters[np.random.default_rng(seed).permutation(length)]
        trained = np.zeros(clusters.max() + 1, bool)
        trained[order[: round(train * length)]] = True
        shares.append(trained[order[length - max(1, round(test * length)) :]].mean())
    return Leak(float(np.mean(shares)), float(np.std(shares, ddof=1)))


def leaks_by_cause(length: int, causes: Mapping[str, Tie], fractions: Mapping[str, float]) -> dict[str, Leak]:
    """The leak of a random split of single samples through each cause alone, and through ``all`` of them.

    Args:
        length: number of samples.
        causes: name -> the tie that connects samples.
        fractions: split -> fraction of the samples; the first is trained on, the last is tested on.
    """
    train, *_, test = fractions.values()
    ties = {name: [tie] for name, tie in causes.items()} | {"all": list(causes.values())}
    return {name: random_leak(union(length, tie), train, test) for name, tie in ties.items()}
