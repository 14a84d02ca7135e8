"""Cues of assertion: negation, hedges, conditions, contrasts, and the roles of names."""

from __future__ import annotations

from enum import IntEnum, auto
from pathlib import Path

import yaml


class Cue(IntEnum):
    """The effect of a word or phrase on the clause or sentence around it."""

    __hash__ = int.__hash__  # the fast one: cues are looked up for every word of every answer

    STOP = auto()  # ends a sentence
    QUESTION = auto()  # ends a question, which asserts nothing
    COMMA = auto()  # may part clauses, or the members of a list
    OR = auto()  # joins the members of a list
    BREAK = auto()  # starts a clause of its own
    WHICH = auto()  # starts a clause about the name before it
    CLOSE = auto()  # ends that clause
    COLON = auto()  # "Treatment: permethrin" is a statement
    BE = auto()
    VERB = auto()
    ITS = auto()  # "it's": a pronoun and a verb
    IT = auto()  # refers to the topic of the sentence before
    THERE = auto()  # "there is": about the case
    LESION = auto()  # refers to the case in question
    OTHERS = auto()  # "many rashes": the clause is about other conditions
    NOT = auto()  # denies what follows in the clause
    LACK = auto()  # likewise, and undoes another negation
    LEAVE = auto()
    ALONE = auto()  # after "leaves": denies what precedes it
    WITHOUT = auto()  # like LACK, but is no verb
    WRONG = auto()  # denies all that follows in the sentence
    ABSENT = auto()  # denies what precedes it
    SPARED = auto()  # denies a site before it, or what follows
    AVOID = auto()  # denies treatments and tests around it
    WORSEN = auto()  # likewise
    RELIEVE = auto()  # says that factors do good
    SEEN = auto()  # a negation before it denies what precedes that
    RATHER = auto()  # denies the next mention
    NON = auto()  # likewise, unless that is a name
    RARELY = auto()  # these say how often it is so
    OFTEN = auto()
    ALWAYS = auto()
    HEDGE = auto()
    IF = auto()  # asserts nothing up to the end of the sentence
    INVERTED = auto()  # an "if", where a sentence starts with it
    HISTORY = auto()  # is about another time or person, up to the end of the clause
    DIAGNOSIS = auto()  # the name that follows is the diagnosis
    LIKELY = auto()  # the name before it is the diagnosis
    DISTINGUISH = auto()  # of two names that follow, the second is a differential diagnosis of the first
    ALIKE = auto()  # of the names before it, the others are differential diagnoses of the first
    RESEMBLE = auto()  # the name that follows is the diagnosis or, where a name before it is the subject, its mimic
    MIMIC = auto()  # the name that follows is a differential diagnosis
    EXCLUDE = auto()  # likewise; but it denies values
    BECOME = auto()  # the name that follows is what the condition turns into
    FORM = auto()  # the name that follows is what the condition is a form of
    UNLIKE = auto()  # the name that follows has no part in the claim
    FIRST = auto()  # treatment of first choice
    SECOND = auto()  # treatment of later choice
    SPREAD = auto()  # licenses ways of transmission
    PERSON = auto()  # with SPREAD: it is contagious
    NEED = auto()  # something is needed or sought
    CARE = auto()  # licenses words for how soon
    DARK = auto()  # on dark skin
    NEUTRAL = auto()  # a phrase whose words mean something else on their own


_PHRASES: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_name("cues.yaml").read_text("utf-8"))
CUES: tuple[tuple[str, Cue], ...] = tuple(
    (phrase, Cue[name.upper()]) for name, phrases in reversed(_PHRASES.items()) for phrase in phrases
)
"""(phrase, cue) of ``cues.yaml``; of two cues with the same phrase the first one counts."""

# Verbs that are values too: after "and" they start a clause, so that a negation before it has ended.
VERBAL = frozenset(
    "itches hurts bleeds burns stings recurs scars resolves flares relapses ulcerates crusts flakes oozes weeps cracks "
    "metastasises metastasizes kills fades blisters scales spreads spread catch caught passes passed pass disappears "
    "goes grows enlarges settles invades destroys heals clears leaves".split()
)
