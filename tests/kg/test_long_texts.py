"""Texts of any length are read in bounded time, whatever they hold."""

from __future__ import annotations

import signal
import time

import pytest

from dermiq.kg import KGScorer

SCORER = KGScorer()
NAMES = [name for one in SCORER.graph.concepts.values() for name in (one.label, *one.synonyms)]
SECONDS = 5.0


def check_done_in(seconds: float, answer: str) -> None:
    """Score an answer, but stop what runs longer, so that the test fails instead of hanging."""

    def stop(*_: object) -> None:
        raise TimeoutError

    found = None
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        found = SCORER.score(answer, "psoriasis")
    except TimeoutError:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert found is not None, f"not done after {seconds} s"
    assert 0 <= found.score <= 1


MEGABYTE = 1_000_000
LONG = {
    "prose": "Psoriasis is contagious, but it does not itch (which is rare). ",
    "one sentence": "psoriasis is contagious and not red, ",
    "one word": "a",
    "names": "psoriasis ",
    "denials": "not ",
    "contractions": "isn't ",
    "beginnings of names": "squamous cell ",
    "full stops": ". ",
    "questions": "Is psoriasis contagious? ",
    "names alike": "psoriasis and melanoma are alike and ",
    "control characters": "\x00\x01\x1b[31m psoriasis\x7f is \x0bred. ",
    "right to left": "الصدفية \u202epsoriasis is red\u202c مرض. ",
    "emoji and combining marks": "p\u0301s\u0301 🧑🏽\u200d⚕️ psoriasis is red ",
    "capitals that grow": "İẞΣ psoriasis ",
    "which": "which is psoriasis ",
    "apostrophes": "'" * 7 + "n't ",
    "hyphens": "flat-",
    "colons": "psoriasis: ",
    "open parentheses": "(psoriasis; ",
    "question tags": "psoriasis is red, isn't it? ",
    "appositions": "psoriasis, a rash ",
    "names alone": "Psoriasis. ",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_megabyte_is_read_in_seconds(text):
    answer = text * (MEGABYTE // len(text))
    check_done_in(SECONDS, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Psoriasis " + "(" * 100_000 + " is red " + ")" * 100_000,
        "Psoriasis (" + "which is red (" * 50_000 + ")" * 50_000,
        "Psoriasis is red" + "," * 100_000 + " and scaly.",
        "Psoriasis is " + "red, " * 100_000,
        "Psoriasis" + " , not" * 100_000 + " red.",
        "Psoriasis is " + ", ".join(NAMES),
    ],
    ids=["parentheses", "relative clauses", "commas", "a list", "denials", "every name"],
)
def test_deep_and_long_sentences_are_read_in_seconds(answer):
    check_done_in(SECONDS, answer)


def test_time_grows_in_step_with_length():
    def seconds(times: int) -> float:
        answer = "Psoriasis is contagious and not red, " * times
        tries = []
        for _ in range(3):
            start = time.perf_counter()
            SCORER.score(answer, "psoriasis")
            tries.append(time.perf_counter() - start)
        return min(tries)

    assert seconds(8000) < 8 * 4 * seconds(1000)
