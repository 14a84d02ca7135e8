"""Splits: no group on two sides, every label on every side, the same for everyone."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermiq.datamodules.splits import limit_by_group, split_by_group
from dermiq.schema import DataError

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}

# Groups of one to four samples, all of one label, at least three groups of each label.
tables = st.lists(st.lists(st.integers(1, 4), min_size=3, max_size=25), min_size=1, max_size=4).map(
    lambda labels: [
        (f"group-{label}-{group}", f"label-{label}")
        for label, sizes in enumerate(labels)
        for group, size in enumerate(sizes)
        for _ in range(size)
    ]
)


@given(tables, st.integers(0, 5))
def test_split_is_a_partition_that_keeps_groups_whole_and_every_label_everywhere(table, seed):
    groups, labels = zip(*table, strict=True)
    splits = split_by_group(groups, labels, FRACTIONS, seed)
    assert sorted(index for chosen in splits.values() for index in chosen) == list(range(len(table)))
    held = {name: {groups[i] for i in chosen} for name, chosen in splits.items()}
    assert not held["train"] & held["val"] and not held["train"] & held["test"] and not held["val"] & held["test"]
    for chosen in splits.values():
        assert {labels[i] for i in chosen} == set(labels)


@given(tables, st.randoms(use_true_random=False))
def test_split_does_not_depend_on_the_order_of_the_samples(table, shuffler: random.Random):
    shuffled = shuffler.sample(table, len(table))

    def held(rows):
        groups, labels = zip(*rows, strict=True)
        splits = split_by_group(groups, labels, FRACTIONS, 3)
        return {name: {groups[i] for i in chosen} for name, chosen in splits.items()}

    assert held(table) == held(shuffled)


@given(tables)
def test_every_label_is_shared_out_as_closely_as_its_groups_can_be_cut(table):
    groups, labels = zip(*table, strict=True)
    splits = split_by_group(groups, labels, FRACTIONS, 0)
    largest = max(Counter(groups).values())
    for name, chosen in splits.items():
        for label, count in Counter(labels).items():
            # Besides one group too many or too few, each of the other splits may hold one group that it got
            # only so as not to be empty.
            share = sum(labels[i] == label for i in chosen)
            assert abs(share - FRACTIONS[name] * count) <= 3 * largest


def test_another_seed_gives_another_split():
    groups = [f"lesion-{i}" for i in range(100)]
    splits = [split_by_group(groups, ["nv"] * 100, FRACTIONS, seed)["test"] for seed in (0, 1)]
    assert len(splits[0]) == len(splits[1]) == 10
    assert not np.array_equal(splits[0], splits[1])


def test_a_group_with_two_labels_counts_under_the_rarer():
    groups = ["a", "a", "b", "c"] + [f"n{i}" for i in range(40)]
    labels = ["nv", "mel", "mel", "mel"] + ["nv"] * 40
    splits = split_by_group(groups, labels, FRACTIONS, 0)
    for chosen in splits.values():
        assert sum(groups[i] in ("a", "b", "c") and labels[i] == "mel" for i in chosen) == 1


def test_an_empty_split_says_which_and_what_to_do():
    with pytest.raises(
        DataError, match=r"the test split is empty: 2 group\(s\) of 3 sample\(s\) are too few for 3 splits"
    ):
        split_by_group(["a", "a", "b"], ["nv"] * 3, FRACTIONS, 0)


@pytest.mark.parametrize("fractions", [{"train": 0.8, "test": 0.1}, {"train": 1.1, "test": -0.1}, {}])
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(DataError, match=r"positive and add up to 1"):
        split_by_group(["a", "b"], ["nv", "nv"], fractions, 0)


@given(tables, st.integers(4, 60))
def test_limit_keeps_whole_groups_up_to_the_limit(table, limit):
    groups, labels = zip(*table, strict=True)
    chosen = limit_by_group(groups, labels, limit, 0)
    assert 0 < len(chosen) <= limit
    kept = {groups[i] for i in chosen}
    assert len(chosen) == sum(group in kept for group in groups)
    if limit >= len(table):
        assert chosen.tolist() == list(range(len(table)))


def test_limit_keeps_the_proportions():
    groups = [str(i) for i in range(100)]
    labels = ["nv"] * 80 + ["mel"] * 20
    chosen = limit_by_group(groups, labels, 10, 0)
    assert Counter(labels[i] for i in chosen) == {"nv": 8, "mel": 2}
    assert set(chosen) < set(limit_by_group(groups, labels, 30, 0))


def test_a_limit_that_nothing_fits_is_refused():
    with pytest.raises(DataError, match=r"a limit of 1 sample\(s\) leaves nothing"):
        limit_by_group(["a", "a"], ["nv", "nv"], 1, 0)
