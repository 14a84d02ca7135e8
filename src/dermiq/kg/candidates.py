"""Candidates files, with the sampled answers of a policy, and the preference pairs formed from them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dermiq.files import whole_lines, write_atomically
from dermiq.kg.pairs import PairMaker, Pairs
from dermiq.schema import CandidateRecord, KnowledgeError

Record = dict[str, Any]
_MEND = "Delete the line; `predict` fills in what is missing."
_FIELDS: Mapping[str, type] = {
    "id": str, "group": str, "target": str, "asks_diagnosis": bool, "question": str, "messages": list, "images": list,
    "candidates": list,
}  # fmt: skip
_CANDIDATE_FIELDS: Mapping[str, type] = {"completion": str, "grounded": bool, "facts": list, "length": int}
_HEADER = ("policy", "sampling")


def read_candidates(path: Path) -> tuple[Record, list[CandidateRecord]]:
    """The header and the questions of a candidates file, as `dermiq.trainer.preferences` writes it.

    Args:
        path: JSONL; a torn last line is ignored. The first line is the header with `policy` and `sampling`; each other
            one a `dermiq.schema.CandidateRecord`.

    Returns:
        The header, and the questions with the header's `policy` and `sampling`.

    Raises:
        KnowledgeError: if it cannot be read or a line lacks a field, naming the line.
    """
    if not path.is_file():
        raise KnowledgeError(f"There is no file {path}. `python cli.py predict --config configs/pairs.yaml` writes it.")
    try:
        lines = whole_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise KnowledgeError(f"{path} cannot be read: {error}.") from error
    header: Record = {}
    records: list[CandidateRecord] = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        row = _object(line, where)
        if number == 1:
            header = _header(row, where)
        else:
            records.append({**_question(row, where), "policy": header["policy"], "sampling": header["sampling"]})
    return header, records


def write_pairs(candidates: Path, out: Path, maker: PairMaker) -> Pairs:
    """The pairs formed from a candidates file, written as JSONL, as a whole or not at all.

    Image paths become relative to the new file.

    Raises:
        KnowledgeError: see `read_candidates` and `PairMaker`.
    """
    pairs = maker(read_candidates(candidates)[1])
    root = os.path.relpath(candidates.parent.resolve(), out.parent.resolve())
    for row in pairs.rows:
        row["images"] = [os.path.normpath(os.path.join(root, image)) for image in row["images"]]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in pairs.rows)
    write_atomically(out, "".join(lines))
    return pairs


def _object(line: str, where: str) -> Record:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise KnowledgeError(f"{where}: not JSON ({error}). {_MEND}") from error
    if not isinstance(row, dict):
        raise KnowledgeError(f"{where}: must be a JSON object. {_MEND}")
    return row


def _header(row: Record, where: str) -> Record:
    if lacking := [key for key in _HEADER if not isinstance(row.get(key), dict)]:
        raise KnowledgeError(
            f"{where}: the first line must be the header, with the objects {' and '.join(lacking)}. Take the file as "
            "`predict` wrote it."
        )
    return row


def _question(row: Any, where: str) -> CandidateRecord:
    problems = list(_problems(row, _FIELDS))
    if not problems:
        for place, candidate in enumerate(row["candidates"], start=1):
            fields = _problems(candidate, _CANDIDATE_FIELDS) if isinstance(candidate, dict) else ["no object"]
            problems += [f"candidate {place}: {problem}" for problem in fields]
    if problems:
        raise KnowledgeError(f"{where}: {problems[0]}. {_MEND}")
    question: CandidateRecord = row
    return question


def _problems(row: Mapping[str, Any], fields: Mapping[str, type]) -> Iterator[str]:
    for name, kind in fields.items():
        if not isinstance(row.get(name), kind):
            yield f"{name!r} must be a {kind.__name__}, not {row.get(name)!r}"
