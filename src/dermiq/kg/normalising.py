"""Normalisation of text before linking, with the place of every character in the original.

Undone are what hides words from a dictionary, and from no reader: compatibility forms (NFKC), zero-width and
bidirectional marks, soft hyphens, letters of other scripts that look Latin, digits for letters, spaced letters, and
hyphens at line ends.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

# Letters that look like the Latin ones below them.
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕһԁԛԝєкмтвнгпАВЕКМНОРСТУХІЈЅԌαορεινκτυχβγηΑΒΕΖΗΙΚΜΝΟΡΤΥΧıɑɡℓ",
    "aeopcyxijshdqwekmtbhrnABEKMHOPCTYXIJSGaopeivktuxbynABEZHIKMNOPTYXiagl",
)
_MARKS = {"。": ";", "、": ","}  # NFKC knows the other Chinese marks
_LEET = str.maketrans("013457@$!", "oleastasi")
_INVISIBLE = re.compile(r"[­​-‏‪-‮⁠-⁤﻿͏᠎]")
_SUSPECT = re.compile(
    r"[^\x00-\x7f]|(?<![^\W\d_])[^\W\d_](?:[ ._*·-][^\W\d_]){3,}(?![^\W\d_])|[a-z][013457@$!]+[a-z]|[a-z]-\n", re.I
)
_SPACED = re.compile(r"(?<!\w)[^\W\d_](?:([ ._*·-])(?:[^\W\d_]|-)(?=\1|\W|$)){3,}(?!\w)")
_LINE_END = re.compile(r"(?<=[a-z])-\n[ \t]*(?=[a-z])")
_LEETED = re.compile(r"(?<![\w@$!])[a-z]*[a-z][013457@$!]+[a-z]+[\w@$!]*", re.I)
_MIXED = re.compile(r"\w+")
_LATIN = re.compile(r"[A-Za-z]")
_READ = re.compile(r"[a-zA-Zªºß-ɏḀ-ỿ㐀-鿿]")  # Latin and Han
_BETWEEN = frozenset(" ,;-\n")
_MEMORY = 2**8  # texts


class Normal(NamedTuple):
    """A normalised text, and for each of its characters, and its end, the place in the original."""

    text: str
    places: range | tuple[int, ...]


@lru_cache(maxsize=_MEMORY)
def normalise(text: str) -> Normal:
    """A text in its normal form; most texts are in it."""
    if not _SUSPECT.search(text):
        return Normal(text, range(len(text) + 1))
    characters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for form in _forms(character, characters):
            characters.append(form)
            places.append(place)
    places.append(len(text))
    normal = Normal("".join(characters), tuple(places))
    normal = _replaced(normal, _MIXED, _latin)
    normal = _replaced(normal, _LEETED, _unleeted)
    return _without(_without_gaps(normal), _LINE_END)


def _forms(character: str, before: list[str]) -> str:
    """What stands for a character: nothing for an invisible one, or for an accent on a Latin letter."""
    if character.isascii():
        return character
    if _INVISIBLE.match(character):
        return ""
    if unicodedata.combining(character) and before and _LATIN.match(before[-1]):
        return ""
    return _MARKS.get(character) or unicodedata.normalize("NFKC", character)


def _latin(word: str) -> str:
    """A word with its look-alikes in Latin letters, if it has Latin ones or nothing else."""
    folded = word.translate(_LOOKALIKES)
    return folded if folded.isascii() and (_LATIN.search(word) or len(word) > 2) else word


def _unleeted(word: str) -> str:
    return word.translate(_LEET)


def _replaced(normal: Normal, pattern: re.Pattern[str], change: Callable[[str], str]) -> Normal:
    """The text with changed matches, which keep their length."""
    return Normal(pattern.sub(lambda match: change(match[0]), normal.text), normal.places)


def _without(normal: Normal, pattern: re.Pattern[str]) -> Normal:
    """The text without the matches of a pattern."""
    return _kept(normal, (place for match in pattern.finditer(normal.text) for place in range(*match.span())))


def _without_gaps(normal: Normal) -> Normal:
    """The text with spaced letters joined: "b e n i g n"."""
    gaps = (match.span() for match in _SPACED.finditer(normal.text))
    return _kept(normal, (place for start, end in gaps for place in range(start + 1, end, 2)))


def _kept(normal: Normal, dropped: Iterable[int]) -> Normal:
    """The text without some characters."""
    out = frozenset(dropped)
    if not out:
        return normal
    kept = [place for place in range(len(normal.text)) if place not in out]
    places = (*(normal.places[place] for place in kept), normal.places[-1])
    return Normal("".join(normal.text[place] for place in kept), places)


def other_scripts(text: str) -> list[tuple[int, int]]:
    """First and last character (exclusive) of each run of words in a script that is not read: neither Latin nor Han."""
    if text.isascii():
        return []
    normal, found = normalise(text), []
    start, letters, end = 0, 0, 0
    for place, character in enumerate(f"{normal.text}."):
        if unicodedata.category(character)[0] in "LM" and not _READ.match(character):
            start = place if not letters else start
            letters, end = letters + 1, place + 1
        elif letters and character not in _BETWEEN:
            if letters > 1:
                found.append((normal.places[start], normal.places[end - 1] + 1))
            letters = 0
    return found


def without_accents(word: str) -> str:
    """A word without accents.

    >>> without_accents("bénin"), without_accents("größe"), without_accents("œdème")
    ('benin', 'grosse', 'oedeme')
    """
    if word.isascii():
        return word
    split = unicodedata.normalize("NFD", word.replace("ß", "ss").replace("œ", "oe"))
    return "".join(character for character in split if not unicodedata.combining(character))
