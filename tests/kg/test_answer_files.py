"""Files of answers: a faulty line is one line's error."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dermiq.kg.answer_files import AnswerRow, read_rows
from dermiq.schema import KnowledgeError
from support.kg import exit_code, small_graph

GRAPH = small_graph()


def rows(tmp_path: Path, data: bytes) -> list[AnswerRow]:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(data)
    return read_rows(path, GRAPH)


def test_rows_keep_their_fields_and_line_separators_within_texts(tmp_path: Path) -> None:
    row = {"condition": "scabies", "answer": "one\u2028two\x85three", "question_type": None, "id": [1]}
    data = f"\ufeff{json.dumps(row, ensure_ascii=False)}\r\n\r\n{json.dumps(row)}".encode()
    assert rows(tmp_path, data) == [AnswerRow(row)] * 2


GOOD = b'{"condition": "scabies", "answer": "x"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"condition": "sca', r"line 2: not JSON \(Unterminated string.*, column 15\)"),
        (b"[" * 100_000, "line 2: not JSON"),
        (b'["scabies", "x"]', "line 2: must be an object with the texts 'condition' and 'answer'"),
        (b'{"condition": "scabies"}', "line 2: must be an object"),
        (b'{"condition": "scabies", "answer": 3}', "line 2: must be an object"),
        (b'{"condition": "scabbies", "answer": "x"}', r"line 2: .*no condition 'scabbies'\. Did you mean scabies"),
        (b'{"condition": "scabies", "answer": "x", "question_type": ["a"]}', "line 2: 'question_type' must be a text"),
        (b'{"condition": "scabies", "answer": "x", "question_type": "a"}', "line 2: There is no question type 'a'"),
    ],
)
def test_a_line_that_cannot_be_scored_is_one_lines_error(line: bytes, message: str, tmp_path: Path) -> None:
    first, second = rows(tmp_path, GOOD + line)
    assert not first.error
    assert re.search(message, second.error)
    with pytest.raises(KnowledgeError, match=message.replace("line 2", "line 1")):
        rows(tmp_path, line)


def test_no_rows_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="holds no answers"):
        rows(tmp_path, b"\n \n")
    with pytest.raises(KnowledgeError, match="cannot be read: it is not UTF-8"):
        rows(tmp_path, GOOD + b'{"condition": "scabies", "answer": "\xff"}')
    with pytest.raises(KnowledgeError, match=r"none\.jsonl cannot be read: No such file"):
        read_rows(tmp_path / "none.jsonl", GRAPH)


def test_score_writes_a_lone_surrogate_as_json(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "scores.jsonl"
    row = {"condition": "scabies", "answer": "\ud800 is contagious"}
    path.write_text(json.dumps(row), encoding="utf-8")
    assert exit_code("score", "--input", str(path), "--output", str(out)) == 0
    assert json.loads(out.read_text(encoding="utf-8"))["answer"] == row["answer"]


def test_a_bad_line_is_reported_and_the_others_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "answers.jsonl", tmp_path / "scores.jsonl"
    path.write_bytes(GOOD + b'{"condition": "scabbies", "answer": "x", "id": 7}\n' + GOOD + b'{"condition": "sca')
    assert exit_code("score", "--input", str(path), "--output", str(out)) == 1
    said = capsys.readouterr()
    assert "2 answers" in said.out and f"{path}, line 2: " in said.err and f"{path}, line 4: not JSON" in said.err
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert ["error" in record for record in records] == [False, True, False, True]
    assert records[1]["id"] == 7 and "Did you mean scabies" in records[1]["error"]


def test_many_bad_lines_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(GOOD + b"[]\n" * 13)
    assert exit_code("score", "--input", str(path)) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 11 and errors[-1] == "dermiq: … and 3 other lines that cannot be scored."


def test_a_file_without_a_good_line_leaves_everything_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "answers.jsonl", tmp_path / "scores.jsonl"
    path.write_bytes(b'{"condition": "sca')
    out.write_text("as it was")
    assert exit_code("score", "--input", str(path), "--output", str(out)) == 2
    assert f"{path}, line 1: not JSON" in capsys.readouterr().err
    assert out.read_text() == "as it was"
    assert not out.with_name("scores.jsonl.partial").exists()
