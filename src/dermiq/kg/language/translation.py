"""Glossing of German, Spanish, French and Chinese sentences: word for word into the English that the rules read.

The longest phrases of a glossary (``glossaries/*.yaml``) are replaced, everything else but punctuation and the names of
the vocabulary becomes a word without a meaning. Word order stays, which is enough for short statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dermiq.kg.language.claims import Claim, Reading
from dermiq.kg.linking import Linker, words
from dermiq.kg.normalising import without_accents

LANGUAGES = ("de", "es", "fr", "zh")
UNREAD = "unread"  # a language that is recognised and not read
_FOLDER = Path(__file__).with_name("glossaries")
_EMPTY = "the"  # a word that means nothing to the rules
_LONG = 4  # letters of a word in a name that shows a language
_HAN = re.compile(r"[㐀-鿿]")
_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Gloss:
    """A sentence in English words.

    Attributes:
        tokens: its words and punctuation.
        sources: first and last word (exclusive) of the original that each of them stands for.
    """

    tokens: list[str]
    sources: list[tuple[int, int]]

    def restore(self, reading: Reading) -> Reading:
        """A reading of the gloss with its words counted as in the original."""
        claims, asked = ([self._original(claim) for claim in listed] for listed in (reading.claims, reading.asked))
        return replace(reading, claims=claims, asked=asked)

    def _original(self, claim: Claim) -> Claim:
        first, end = claim.words
        return claim._replace(words=(self.sources[first][0], self.sources[end - 1][1])) if end else claim


class Translator:
    """Recognises the language of a sentence and glosses it.

    Args:
        labels: identifier -> name of a condition.
        names: all names and cues of the English vocabulary.
    """

    def __init__(self, labels: Mapping[str, str], names: Iterable[str]) -> None:
        split = [words(name) for name in names]
        self._single = {_plain(found[0]) for found in split if len(found) == 1}
        self._glossaries = {language: _glossary(language, labels) for language in LANGUAGES}
        self._shown_by = _shown_by({_plain(word) for found in split for word in found})

    def language(self, tokens: Sequence[str]) -> str:
        """``en``, one of `LANGUAGES`, or `UNREAD`."""
        hits: dict[str, int] = {}
        count = 0
        for token in tokens:
            if _HAN.match(token):
                return "zh"
            count += bool(_WORD.match(token))
            for language in self._shown_by.get(_plain(token), ()):
                hits[language] = hits.get(language, 0) + 1
        english = hits.pop("en", 0)
        best = max(hits, key=hits.__getitem__, default="en")
        shown = hits.get(best, 0)
        if shown <= english or (shown < 2 and 2 * shown < count):
            return "en"
        return best if best in LANGUAGES else UNREAD

    def gloss(self, tokens: Sequence[str], language: str) -> Gloss:
        """The words of a sentence of one of `LANGUAGES` in English."""
        linker, suffixes = self._glossaries[language]
        folded = [_stem(token, suffixes) for token in tokens]
        found = Gloss([], [])
        end = 0
        for start, after, english in [*linker.link(folded), (len(tokens), len(tokens), "")]:
            for position in range(end, start):
                token = tokens[position]
                keep = not _WORD.match(token) or _plain(token) in self._single
                found.tokens.append(token if keep else _EMPTY)
                found.sources.append((position, position + 1))
            for word in words(english):
                found.tokens.append(word)
                found.sources.append((start, after))
            end = after
        return found


def condition_names() -> Iterator[tuple[str, str]]:
    """(name, identifier of the condition) for the names in all `LANGUAGES`, with and without accents."""
    for language in LANGUAGES:
        for name, condition in _names(language):
            yield name, condition
            if (plain := _plain(name)) != name.lower():
                yield plain, condition


def _names(language: str) -> Iterator[tuple[str, str]]:
    """(name, identifier of the condition) of one language."""
    for condition, names in _load("conditions").items():
        for name in names[LANGUAGES.index(language)]:
            yield name, condition


def _glossary(language: str, labels: Mapping[str, str]) -> tuple[Linker, tuple[str, ...]]:
    """The linker of a language's phrases to English ones, and the suffixes to strip."""
    table = _load(language)
    suffixes = tuple(table["suffixes"])
    entries = [(name, labels[condition]) for name, condition in _names(language) if condition in labels]
    entries += [(form, english) for english, forms in table["words"].items() for form in forms]
    stemmed = ((" ".join(_stem(word, suffixes) for word in words(form)), english) for form, english in entries)
    return Linker(stemmed), suffixes


def _shown_by(vocabulary: set[str]) -> dict[str, tuple[str, ...]]:
    """Word without accents -> languages that it shows; no word of the English vocabulary shows another one."""
    shown: dict[str, list[str]] = {}  # in the order of preference where two languages are as likely
    function = set(_load("en")["function"])
    english = function | vocabulary
    evidence: dict[str, Iterable[str]] = {}
    for language in LANGUAGES:
        table = _load(language)
        phrases = [words(form) for forms in table["words"].values() for form in forms]
        telling = {word for phrase in phrases for word in phrase if len(word) > 2 or len(phrase) == 1}
        telling |= {word for name, _ in _names(language) for word in words(name) if len(word) > _LONG}
        evidence[language] = {*table["function"], *telling}
    for language, telling in {**evidence, **_load("others")}.items():
        for word in set(map(_plain, telling)) - english:
            shown.setdefault(word, []).append(language)
    for word in function:
        shown.setdefault(word, []).append("en")
    return {word: tuple(languages) for word, languages in shown.items()}


@cache
def _load(name: str) -> dict[str, Any]:
    table: dict[str, Any] = yaml.load((_FOLDER / f"{name}.yaml").read_text("utf-8"), yaml.CSafeLoader)
    return table


@cache
def _plain(word: str) -> str:
    """A word in lower case without accents."""
    return without_accents(word.lower())


def _stem(word: str, suffixes: Sequence[str]) -> str:
    """A word without accents and inflection; four letters at least remain."""
    plain = _plain(word)
    for suffix in suffixes:
        if plain.endswith(suffix) and len(plain) >= len(suffix) + 4:
            return plain.removesuffix(suffix)
    return plain
