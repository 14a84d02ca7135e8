"""Targets other than diagnoses: a short answer, or one of several options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dermiq.datamodules.sources.reading.card import Meaning
from dermiq.datamodules.sources.reading.photographs import Photographs, Record
from dermiq.prompts import IMAGE, LETTERS, gold_completion, normalise, ways_to_choose
from dermiq.schema import DataError, Sample


def in_words(answer: str) -> str:
    """An answer as it is to be given: lower case, single spaces, no full stop at the end."""
    return " ".join(answer.lower().split()).rstrip(" .")


def find_option(given: Sequence[str | None], right: str) -> int:
    """The place of the right option, of which a table gives the text, the letter, or the number from 0.

    Raises:
        ValueError: if it is none of the options.
    """
    names = [normalise(option or "") for option in given]
    if right and normalise(right) in names:
        return names.index(normalise(right))
    if len(right) == 1 and right.upper() in LETTERS[: len(given)]:
        return LETTERS.index(right.upper())
    if right.isdecimal() and int(right) < len(given):
        return int(right)
    raise ValueError(f"{right!r} is none of the options {', '.join(map(repr, given))}")


def without_blanks(given: Sequence[str | None], place: int) -> tuple[tuple[str, ...], int]:
    """The options that are not blank, and the place of the right one among them.

    Raises:
        ValueError: if the right one is blank, there is no other, or one marks an image.
    """
    texts = [(option or "").strip() for option in given]
    options = tuple(filter(None, texts))
    if any(IMAGE in option for option in options):
        raise ValueError(f"an option holds {IMAGE}, and no image can stand there")
    if not texts[place] or len(options) < 2:
        raise ValueError(f"there is no choice: option {LETTERS[place]} of {', '.join(map(repr, texts))} is right")
    return options, sum(map(bool, texts[:place]))


def read_choice(cells: Sequence[Any], right: str) -> tuple[tuple[str, ...], int]:
    """The options of a row of a table, and the place of the right one.

    Args:
        cells: one list of options, or one option each.
        right: see `find_option`.

    Raises:
        ValueError: see `find_option` and `without_blanks`.
    """
    values = cells[0] if len(cells) == 1 and isinstance(cells[0], list) else cells
    given = [None if value is None else str(value) for value in values]
    return without_blanks(given, find_option(given, right))


def meaning_of_choice(options: Sequence[str], place: int) -> Meaning:
    """What counts as choosing an option: its letter, and its text unless that is another option's letter."""
    letter, *others = ways_to_choose(options, place)
    letters = LETTERS[: len(options)]
    return Meaning(letter, (), tuple(way for way in others if way.upper() == letter or way.upper() not in letters))


def completion_length(meaning: Meaning) -> int:
    """Characters of the gold completion of a question whose answer means this."""
    sample = Sample(id="", images=(), target=meaning.target, label="", group="", findings=meaning.findings)
    return len(gold_completion(sample))


class VisualQuestions(Photographs):
    """A data set of questions about images, answered in a few words.

    Args:
        root: the folder into which the data set was unpacked.
        max_pixels: the largest width * height of an image accepted, in pixels.
    """

    def meaning(self, record: Record) -> Meaning:
        """The answer to give; nothing else counts as right.

        Raises:
            DataError: if there is none.
        """
        target = in_words(record.label)
        if not target:
            raise DataError(f"{record.where}: the question has no answer. Fill it in, or remove the row.")
        return Meaning(target, ())
