"""Answers to be scored, read from JSONL files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.questions import relations_of
from dermiq.schema import KnowledgeError


@dataclass(frozen=True)
class AnswerRow:
    """A line of a file of answers.

    Attributes:
        fields: of the line's object: ``condition``, ``answer``, perhaps ``question_type``, and any others.
        error: why it cannot be scored, naming file and line; empty if it can.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def read_rows(path: Path, graph: KnowledgeGraph) -> list[AnswerRow]:
    """The lines of a JSONL file, each an object with the texts ``condition`` and ``answer``.

    Args:
        path: of the file; empty lines are skipped.
        graph: must have the conditions.

    Raises:
        KnowledgeError: if the file cannot be read, is empty, or holds no line that can be scored.
    """
    rows = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.append(_row(line, f"{path}, line {number}", graph))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 ({error.reason})"
        raise KnowledgeError(f"{path} cannot be read: {reason}.") from error
    if not rows:
        raise KnowledgeError(f"{path} holds no answers.")
    if all(row.error for row in rows):
        raise KnowledgeError(rows[0].error)
    return rows


def _row(line: str, where: str, graph: KnowledgeGraph) -> AnswerRow:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        return AnswerRow({}, f"{where}: not JSON ({reason}). Each line must be one JSON object.")
    if not isinstance(fields, dict) or not all(isinstance(fields.get(key), str) for key in ("condition", "answer")):
        own = fields if isinstance(fields, dict) else {}
        return AnswerRow(own, f"{where}: must be an object with the texts 'condition' and 'answer'.")
    asked = fields.get("question_type")
    if asked is not None and not isinstance(asked, str):
        return AnswerRow(fields, f"{where}: 'question_type' must be a text or null, not {asked!r}.")
    try:
        graph.find(fields["condition"])
        relations_of(asked)
    except KnowledgeError as error:
        return AnswerRow(fields, f"{where}: {error}")
    return AnswerRow(fields)
