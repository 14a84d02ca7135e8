"""Splits that keep what belongs together on one side."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from dermiq.schema import DataError


def _hash(seed: int, group: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=16).digest()


def _strata(groups: Sequence[str], labels: Sequence[str], seed: int) -> list[list[list[int]]]:
    """Groups of indices, in hash order, one list per label.

    A group with several labels counts under the one that is rarest in the data.
    """
    frequency = Counter(labels)
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    strata: dict[str, list[str]] = defaultdict(list)
    for group, indices in members.items():
        strata[min((labels[i] for i in indices), key=lambda label: (frequency[label], label))].append(group)
    return [
        [members[group] for group in sorted(strata[label], key=lambda group: _hash(seed, group))]
        for label in sorted(strata)
    ]


def _next_split(counts: Mapping[str, int], fractions: Mapping[str, float]) -> str:
    """The split to fill next: one that has nothing yet, else the one furthest below its fraction."""
    return max(
        fractions,
        key=lambda name: (counts[name] == 0, fractions[name] * sum(counts.values()) - counts[name], fractions[name]),
    )


def split_by_group(
    groups: Sequence[str], labels: Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Split samples so that no group straddles two splits and every label reaches every split it can.

    The result depends on the seed and on the names of the groups, not on the order of the samples. A
    label with at least as many groups as there are splits stands in all of them; beyond that, each
    label is shared out by `fractions`, as closely as its groups can be cut.

    Args:
        groups: of each sample: patient, else lesion, else duplicate cluster.
        labels: of each sample, to stratify by.
        fractions: split -> share of the samples; positive, and together 1.
        seed: another seed gives another split.

    Returns:
        split -> indices of its samples, ascending.

    Raises:
        DataError: if the fractions are no shares of one whole, or a split stays empty.
    """
    if any(share <= 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise DataError(f"split fractions must be positive and add up to 1, and these do not: {dict(fractions)}.")
    splits: dict[str, list[int]] = {name: [] for name in fractions}
    for stratum in _strata(groups, labels, seed):
        counts: Counter[str] = Counter()
        for indices in stratum:
            name = _next_split(counts, fractions)
            counts[name] += len(indices)
            splits[name].extend(indices)
    for name, chosen in splits.items():
        if not chosen:
            raise DataError(
                f"the {name} split is empty: {len(set(groups))} group(s) of {len(groups)} sample(s) are too few for "
                f"{len(fractions)} splits. Add samples, or leave {name} out of `fractions`."
            )
    return {name: sorted(chosen) for name, chosen in splits.items()}


def limit_by_group(groups: Sequence[str], labels: Sequence[str], limit: int, seed: int) -> list[int]:
    """At most `limit` samples in whole groups, with the labels in about the proportions of the whole.

    A smaller limit gives a subset of what a larger one gives, as long as no group has to be left out
    because it is larger than the room that is left.

    Returns:
        Indices of the chosen samples, ascending.

    Raises:
        DataError: if not a single group fits.
    """
    queue = sorted(
        ((place + 0.5) / len(stratum), indices)
        for stratum in _strata(groups, labels, seed)
        for place, indices in enumerate(stratum)
    )
    chosen: list[int] = []
    for _, indices in queue:
        if len(chosen) + len(indices) <= limit:
            chosen.extend(indices)
    if not chosen:
        raise DataError(f"a limit of {limit} sample(s) leaves nothing: every group is larger. Raise the limit.")
    return sorted(chosen)
