"""HTML of a reading. Texts of the policy are untrusted: all of them are escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from dermiq.demo.evidence import Claim, Evidence
from dermiq.demo.reading import Differential, Reading, Turn
from dermiq.kg.rules import Judgement
from dermiq.kg.verbalising import capitalised
from dermiq.prompts import QUESTION

NOTICE = (
    "<p><strong>Research software, not a medical device, and no medical advice.</strong> Its answers are often wrong, "
    "however sure they sound. If a spot on your skin worries you, have a doctor look at it.</p>"
)
HEAD = "<h1>DermIQ</h1><p>Ask a trained policy about a photograph of skin, and see what speaks for its answer.</p>"
MARKS: dict[Judgement, str] = {"supported": "✓", "contradicted": "✕", "unknown": "?"}
WELCOME = "<p class='aside'>The reasoning and the answer will appear here, and under them what speaks for it.</p>"


class View(NamedTuple):
    """The parts of the page, as HTML; empty where there is nothing to show."""

    status: str
    answer: str
    evidence: str
    differential: str


def view(reading: Reading) -> View:
    """A reading as HTML."""
    claims = reading.evidence.claims if reading.evidence else ()
    turns = [_turn(turn, claims if turn is reading.turns[-1] else ()) for turn in reading.turns]
    judged = bool(reading.turns) and (reading.evidence is not None or reading.differential is not None)
    return View(
        status=f"<p role='status'>{escape(reading.doing)}</p>" if reading.doing else "",
        answer="".join(turns) or WELCOME,
        evidence=_evidence(reading.evidence, reading.named) if judged and not _writes(reading) else "",
        differential=_differential(reading.differential) if reading.differential else "",
    )


def problem(text: str) -> str:
    """A refusal, as HTML."""
    return f"<p role='alert' class='problem'>{escape(text)}</p>"


def marked(text: str, claims: Sequence[Claim]) -> str:
    """HTML of a text whose claims are marked by their verdicts; words of several claims by the first."""
    pieces, end = [], 0
    for claim in claims:
        start, stop = claim.place or (0, 0)
        if end <= start < stop <= len(text):
            words = escape(text[start:stop])
            title = f"{claim.judgement}: {claim.sentence}"
            pieces += [
                escape(text[end:start]),
                f"<mark class='{claim.judgement}' title='{escape(title)}'>{words}</mark>",
            ]
            end = stop
    return "".join([*pieces, escape(text[end:])])


def _turn(turn: Turn, claims: Sequence[Claim]) -> str:
    title = f"<h2>{escape(turn.question or QUESTION)}</h2>"
    said = marked(turn.reasoning, claims)
    if not turn.structured:
        return f"<article>{title}<p class='reply'>{said}</p></article>"
    named = f"<h3>Answer</h3><p class='named'>{escape(capitalised(turn.answer))}</p>" if turn.answer else ""
    return f"<article>{title}<h3>Reasoning</h3><p class='reply'>{said}</p>{named}</article>"


def _writes(reading: Reading) -> bool:
    return bool(reading.doing) and reading.evidence is None


def _evidence(evidence: Evidence | None, named: str) -> str:
    if evidence is None:
        what = f"The knowledge graph knows no condition called “{escape(named)}”" if named else "No condition was named"
        return f"<h2>Evidence</h2><p>{what}, so the answer cannot be judged.</p>"
    title = escape(evidence.condition)
    counts = Counter(claim.judgement for claim in evidence.claims)
    tally = ", ".join(f"{counts[name]} {name}" for name in MARKS if counts[name])
    claims = "".join(map(_claim, evidence.claims))
    said = (
        f"<p>What the answer says of {title}, judged by the knowledge graph: {tally}.</p>"
        f"<ul class='claims'>{claims}</ul>"
        if claims
        else "<p>The answer makes no claim that the knowledge graph can judge.</p>"
    )
    works: dict[str, list[str]] = {}
    for passage in evidence.passages:
        works.setdefault(passage.citation, []).append(passage.sentence)
    facts = "".join(f"<p>{_fact(' '.join(sentences), work)}</p>" for work, sentences in works.items())
    known = f"<h3>Known of {title}</h3><div class='facts'>{facts}</div>" if facts else ""
    return (
        f"<h2>Evidence</h2>{said}{known}<p class='aside'>The graph can tell whether an answer fits the condition that "
        "it names, not whether the photograph shows it. No clinician has reviewed the graph.</p>"
    )


def _claim(claim: Claim) -> str:
    facts = "".join(f"<p class='fact'>{_fact(*fact)}</p>" for fact in claim.facts)
    verdict = f"<span class='verdict'>{MARKS[claim.judgement]} {claim.judgement}</span>"
    return f"<li class='{claim.judgement}'><p>{verdict} {escape(claim.sentence)}</p>{facts}</li>"


def _fact(sentence: str, citation: str) -> str:
    return f"{escape(sentence)} <cite>{escape(citation)}</cite>"


def _differential(differential: Differential) -> str:
    rows = [
        f"<tr><th scope='row'>{escape(capitalised(name))}</th><td class='bar'><div style='width:"
        f"{100 * count / differential.sampled:.0f}%'></div></td><td>{count} of {differential.sampled}</td></tr>"
        for name, count in differential.counts
    ]
    if differential.unreadable:
        rows.append(
            "<tr class='unreadable'><th scope='row'>No readable answer</th><td></td>"
            f"<td>{differential.unreadable} of {differential.sampled}</td></tr>"
        )
    return (
        f"<h2>Differential</h2><p>What the policy names in {differential.sampled} further answers, sampled at "
        f"temperature 1. Frequencies of its answers, not probabilities of disease.</p><table>{''.join(rows)}</table>"
    )
