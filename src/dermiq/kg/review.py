"""Review of verdicts by a clinician: a sheet to mark, and the judge's precision and recall from the marked sheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from scipy.stats import binomtest

from dermiq.kg.records import by_sentence, claim_in_words, evidence_in_words
from dermiq.kg.scorer import KGScorer
from dermiq.schema import KnowledgeError

FIELDS = ("row", "condition", "sentence", "claim", "verdict", "rule", "evidence", "mark")
NOT_SAID = "not said"
MARKS = ("supported", "contradicted", "neutral", NOT_SAID)
NONE = "none"  # the verdict on a sentence without a claim
_UNSAFE = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would take the cell for a formula
_LEVEL = 0.95


@dataclass(frozen=True)
class Rate:
    """A share of rows, with its Wilson interval."""

    hits: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval; (0, 1) without rows."""
        if not self.total:
            return 0.0, 1.0
        found = binomtest(self.hits, self.total).proportion_ci(_LEVEL, "wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        """For example ``0.90 [0.74, 0.97] of 30``."""
        if not self.total:
            return "no rows"
        low, high = self.interval
        return f"{self.hits / self.total:.2f} [{low:.2f}, {high:.2f}] of {self.total}"


@dataclass(frozen=True)
class Agreement:
    """How the judge's verdicts agree with a clinician's marks.

    Attributes:
        marked: number of rows with a mark.
        unmarked: number of rows without one.
        precision: verdict -> share of its rows that the clinician marks alike.
        recall: mark -> share of its rows that have that verdict.
    """

    marked: int
    unmarked: int
    precision: dict[str, Rate]
    recall: dict[str, Rate]

    def __str__(self) -> str:
        """A line for each verdict."""
        lines = [f"{self.marked} rows marked, {self.unmarked} not. 95 % intervals (Wilson)."]
        for verdict in self.precision:
            lines.append(f"{verdict:<13} precision {self.precision[verdict]}; recall {self.recall[verdict]}")
        return "\n".join(lines)


def write_sheet(file: TextIO, scorer: KGScorer, answers: Iterable[tuple[str, str, str | None]]) -> int:
    """Write the sheet of some answers and return its number of rows: one for a claim, or for a sentence without one.

    Args:
        file: text file.
        scorer: judges the answers.
        answers: (answer, condition, type of question or None).
    """
    sheet = csv.DictWriter(file, FIELDS, lineterminator="\n")
    sheet.writeheader()
    number = 0
    for answer, condition, asked in answers:
        for row in _rows(scorer, answer, condition, asked):
            number += 1
            sheet.writerow({name: _safe(text) for name, text in row.items()} | {"row": number, "mark": ""})
    return number


def _rows(scorer: KGScorer, answer: str, condition: str, asked: str | None) -> Iterator[dict[str, str]]:
    graph = scorer.graph
    for start, end, here in by_sentence(scorer.score(answer, condition, asked), answer):
        row = {"condition": condition, "sentence": answer[start:end].strip()}
        for item in here:
            yield row | {
                "claim": claim_in_words(item.claim, graph),
                "verdict": "neutral" if item.verdict.judgement == "unknown" else item.verdict.judgement,
                "rule": item.verdict.rule,
                "evidence": evidence_in_words(item.verdict, graph),
            }
        if not here:
            yield row | {"claim": "", "verdict": NONE, "rule": "", "evidence": ""}


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(_UNSAFE) else text


def read_sheet(path: Path) -> Agreement:
    """The agreement of a marked sheet.

    Raises:
        KnowledgeError: if it cannot be read, lacks a column, or a mark is none of `MARKS`, naming the row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            sheet = csv.DictReader(file)
            rows = list(sheet)
            columns = sheet.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise KnowledgeError(f"{path} cannot be read: {error}. Save the sheet as CSV in UTF-8.") from error
    if missing := {"verdict", "mark"}.difference(columns):
        raise KnowledgeError(f"{path} lacks the columns {', '.join(sorted(missing))} of a review sheet.")
    pairs = []
    for number, row in enumerate(rows, start=2):
        mark = (row["mark"] or "").strip().lower()
        if mark and mark not in MARKS:
            raise KnowledgeError(f"{path}, line {number}: the mark {mark!r} is none of {', '.join(MARKS)}.")
        if mark:
            pairs.append((row["verdict"], mark))
    if not pairs:
        raise KnowledgeError(f"{path} holds no mark. Write one of {', '.join(MARKS)} into the column 'mark'.")
    verdicts = ("supported", "contradicted", "neutral")
    both = {verdict: pairs.count((verdict, verdict)) for verdict in verdicts}
    return Agreement(
        len(pairs),
        len(rows) - len(pairs),
        {verdict: Rate(both[verdict], sum(one == verdict for one, _ in pairs)) for verdict in verdicts},
        {verdict: Rate(both[verdict], sum(mark == verdict for _, mark in pairs)) for verdict in verdicts},
    )
