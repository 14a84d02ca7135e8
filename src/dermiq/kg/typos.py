"""Correction of misspelt words towards a vocabulary, by an index of deletions (symmetric delete)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from itertools import combinations

ONE_FROM, TWO_FROM = 6, 9  # letters of a word in which one mistake is forgiven, and two
_LONGEST = 32  # letters of a word


class Typos:
    """Finds the word of a vocabulary that a misspelt word stands for.

    Args:
        vocabulary: words; those of fewer than six letters are never meant by another.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._by_deletion: dict[str, list[str]] = {}
        for word in sorted(set(vocabulary)):
            if len(word) >= ONE_FROM and word.isalpha():
                for shorter in {word, *_deletions(word)}:
                    self._by_deletion.setdefault(shorter, []).append(word)

    def correct(self, word: str) -> str | None:
        """The only word within the distance forgiven, with the same first letter; None without one.

        The distance is Damerau and Levenshtein's: a transposition counts one.
        """
        if not ONE_FROM <= len(word) <= _LONGEST or not word.isalpha() or word in common_words():
            return None
        found: dict[str, int] = {}
        for shorter in {word, *_deletions(word)}:
            for candidate in self._by_deletion.get(shorter, ()):
                if candidate[0] == word[0] and candidate not in found:
                    distance = _distance(word, candidate)
                    if distance <= _forgiven(min(len(word), len(candidate))):
                        found[candidate] = distance
        best = min(found.values(), default=0)
        nearest = [candidate for candidate, distance in found.items() if distance == best]
        return nearest[0] if len(nearest) == 1 else None


@cache
def common_words() -> frozenset[str]:
    """English words that are near a word of the vocabulary, and are not meant for it."""
    text = (files("dermiq.kg") / "common_words.txt").read_text(encoding="utf-8")
    return frozenset(text.split())


def _forgiven(length: int) -> int:
    return 2 if length >= TWO_FROM else 1 if length >= ONE_FROM else 0


def _deletions(word: str) -> Iterator[str]:
    """The word with up to as many letters left out as mistakes are forgiven."""
    for count in range(1, _forgiven(len(word)) + 1):
        for places in combinations(range(1, len(word)), count):
            yield "".join(letter for place, letter in enumerate(word) if place not in places)


def _distance(one: str, other: str) -> int:
    """The optimal string alignment distance of two words."""
    width = len(other) + 1
    rows = [list(range(width))]
    for i, letter in enumerate(one, start=1):
        row = [i]
        for j, against in enumerate(other, start=1):
            cost = min(rows[-1][j] + 1, row[j - 1] + 1, rows[-1][j - 1] + (letter != against))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == against:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]
