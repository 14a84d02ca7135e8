"""The cases of a report: each question once, with its pictures and the answer of every stage, ready for JSON."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Hashable, Sequence
from typing import Any

from dermiq.metrics import PredictionRow
from dermiq.report.claims import VERDICTS, ClaimMarker
from dermiq.report.runs import Key
from dermiq.report.stages import Stage
from dermiq.trainer.thumbnails import read_thumbnails

Json = dict[str, Any]
Numbers = dict[Hashable, int]


def case_data(stages: Sequence[Stage]) -> Json:
    """What the case browser shows.

    Returns:
        ``stages``: their titles; ``cases``: in the order in which the stages were tested on them, where what does not
        apply is left out; and what they refer to by number, each once: ``passages`` of answers (heading, text, marks),
        ``notes`` on the claims in them, ``facts`` that stood in prompts, ``pictures`` as base64 of WebP.
    """
    marker = ClaimMarker()
    passages: Numbers = {}
    facts: Numbers = {}
    pictures, shown = _pictures(stages)
    cases: dict[Key, Json] = {}
    for stage in stages:
        for key, row in zip(stage.run.keys, stage.run.rows, strict=True):
            if key not in cases:
                cases[key] = _case(row, shown.get(key, {})) | {"answers": [None] * len(stages)}
            said = [_number(passages, passage) for passage in marker.mark(row)]
            cited = [_number(facts, f"{fact['sentence']} [{fact['citation']}]") for fact in row.get("facts") or []]
            cases[key]["answers"][stage.number - 1] = _answer(row, said, cited)
    return {
        "stages": [stage.title for stage in stages],
        "cases": list(cases.values()),
        "passages": list(passages),
        "notes": list(marker.notes),
        "facts": list(facts),
        "pictures": pictures,
    }


def verdict_counts(data: Json) -> dict[str, list[dict[str, int]]]:
    """Kind of question -> for each stage how many claims have each verdict, of what `case_data` returns."""
    counts: dict[str, list[dict[str, int]]] = {}
    for case in data["cases"]:
        of_kind = counts.setdefault(case["kind"], [dict.fromkeys(VERDICTS, 0) for _ in data["stages"]])
        for stage, answer in enumerate(case["answers"]):
            for passage in answer["passages"] if answer else ():
                for mark in data["passages"][passage].marks:
                    for note in mark.notes:
                        of_kind[stage][data["notes"][note].verdict] += 1
    return counts


def _pictures(stages: Sequence[Stage]) -> tuple[list[str], dict[Key, dict[int, int]]]:
    """Distinct images, and for each question place -> number of the image."""
    numbers: dict[bytes, int] = {}
    shown: dict[Key, dict[int, int]] = {}
    for stage in stages:
        for image, uses in read_thumbnails(stage.directory):
            number = numbers.setdefault(image, len(numbers))
            for dataset, name, place in uses:
                shown.setdefault((dataset, name), {}).setdefault(place, number)
    return [b64encode(image).decode() for image in numbers], shown


def _case(row: PredictionRow, pictures: dict[int, int]) -> Json:
    return _known(
        id=row["id"],
        dataset=row["dataset"],
        kind=row["kind"],
        question=row["question"],
        options=list(row.get("options") or []),
        target=row["target"],
        skin=row.get("skin_type"),
        site=row.get("site"),
        pictures=[pictures[place] for place in sorted(pictures)],
    )


def _answer(row: PredictionRow, passages: list[int], facts: list[int]) -> Json:
    stated = row.get("findings_stated")
    return _known(
        right=row["correct"],
        named=row["named"],
        findings=[row["findings_true"], stated] if stated else None,
        votes=list(zip(row.get("ranking") or [], row.get("votes") or [], strict=True)),
        facts=facts,
    ) | {"passages": passages}


def _number(numbers: Numbers, value: Hashable) -> int:
    """The number of a value, a new one for a new value."""
    return numbers.setdefault(value, len(numbers))


def _known(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value is not None and value not in ("", [])}
