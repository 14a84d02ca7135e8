"""Pairs: which of two answers is chosen, which is rejected, and when there is no pair at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dermiq.kg import KGScorer, PairMaker
from dermiq.kg.candidates import read_candidates, write_pairs
from dermiq.schema import KnowledgeError
from support.kg import exit_code

TRUE = "Scabies is contagious. It is caused by Sarcoptes scabiei. It spreads by skin contact."
FALSE = "Scabies is not contagious. It is caused by a fungus. It spreads by skin contact."
LITTLE = "Scabies is contagious. Many people ask this question of their own doctor every single week."
NOTHING = "The weather was fine today. Many people went out to walk in the park with their dog."
MILD = "Scabies is contagious. It is caused by a fungus. It spreads by skin contact."
HEADER = {"policy": {"model_id": "m", "adapter": "a", "weights": "w"}, "sampling": {"temperature": 1.0}}
SCORER = KGScorer()


def candidate(text: str, grounded: bool = False, **more: Any) -> dict[str, Any]:
    facts = ["Scabies is always contagious."] if grounded else []
    return {"completion": text, "grounded": grounded, "facts": facts, "length": len(text.split())} | more


def record(*candidates: str | dict[str, Any], **more: Any) -> dict[str, Any]:
    """A question about scabies that was answered."""
    made = [candidate(one) if isinstance(one, str) else one for one in candidates]
    asked = "Is it contagious?"
    row = {
        "id": "s1", "group": "g1", "target": "scabies", "asks_diagnosis": False, "question": asked,
        "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]}],
        "images": ["images/a.png"], "candidates": made,
    }  # fmt: skip
    return row | HEADER | more


def said(row: dict[str, Any]) -> tuple[str, str]:
    return row["chosen"][0]["content"], row["rejected"][0]["content"]


def reasons(*records: dict[str, Any], **options: Any) -> dict[str, int]:
    """Why the answers of questions stand in no pair; a question that makes one goes with them."""
    return dict(PairMaker(**options)([record(TRUE, MILD), *records]).left_out)


def test_a_true_answer_is_chosen_over_a_false_one() -> None:
    pairs = PairMaker()([record(FALSE, TRUE)])
    (row,) = pairs.rows
    assert said(row) == (TRUE, FALSE)
    assert row["margin"] == pytest.approx(row["chosen_score"] - row["rejected_score"]) and row["margin"] >= 0.15
    assert row["chosen_score"] == round(SCORER.score(TRUE, "scabies", "contagion").score, 4)
    assert row["rejected_score"] == round(SCORER.score(FALSE, "scabies", "contagion").score, 4)
    assert {key: row[key] for key in ("id", "group", "target", "question", "images")} == {
        "id": "s1", "group": "g1", "target": "scabies", "question": "Is it contagious?", "images": ["images/a.png"],
    }  # fmt: skip
    assert row["prompt"] == record()["messages"]
    assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
    assert (pairs.questions, pairs.candidates, dict(pairs.left_out)) == (1, 2, {})


def test_the_evidence_names_the_claims_that_decide() -> None:
    (row,) = PairMaker()([record(FALSE, TRUE)]).rows
    wrong = {(claim["relation"], claim["words"]) for claim in row["evidence"]["contradicted"]}
    assert wrong == {("contagious", "contagious"), ("agent", "fungus")}
    assert all(fact["citation"] for claim in row["evidence"]["contradicted"] for fact in claim["evidence"])
    right = {(claim["relation"], claim["words"]) for claim in row["evidence"]["supported"]}
    assert right == {("contagious", "contagious"), ("agent", "Sarcoptes scabiei")}  # skin contact is in both


def test_facts_are_told_in_the_provenance_and_not_in_the_prompt() -> None:
    (row,) = PairMaker()([record(candidate(TRUE, grounded=True), FALSE)]).rows
    assert "always contagious" not in json.dumps(row["prompt"])
    assert row["provenance"]["chosen"] == {
        "grounded": True, "facts": ["Scabies is always contagious."], **HEADER,
    }  # fmt: skip
    assert row["provenance"]["rejected"] == {"grounded": False, "facts": [], **HEADER}


def test_nothing_contradicted_is_ever_chosen() -> None:
    """What is half right scores more than nothing, and is still no answer to learn."""
    assert SCORER.score(MILD, "scabies", "contagion").score > SCORER.score(NOTHING, "scabies").score + 0.15
    assert reasons(record(MILD, NOTHING, FALSE)) == {"no answer fit to be chosen": 3}
    assert reasons(record(MILD, FALSE)) == {"no answer fit to be chosen": 2}


BLIND = "It is contagious. It spreads by skin contact. It is not malignant."


def test_what_suits_many_images_is_never_chosen() -> None:
    """Unless the question itself names the condition."""
    assert reasons(record(BLIND, FALSE)) == {"no answer fit to be chosen": 2}
    (row,) = PairMaker()([record(BLIND, FALSE, question="Is scabies contagious?")]).rows
    assert said(row) == (BLIND, FALSE)


def test_plausible_mistakes_come_before_absurd_ones() -> None:
    """The empty and the irrelevant answer are farther away, and are not taken."""
    (row,) = PairMaker(max_length_ratio=100, omissions=True)([record(NOTHING, "Yes.", "", LITTLE, FALSE, TRUE)]).rows
    assert said(row) == (TRUE, FALSE)
    (row,) = PairMaker(omissions=True)([record(NOTHING, LITTLE, TRUE)]).rows
    assert said(row) == (TRUE, LITTLE)
    (row,) = PairMaker(omissions=True)([record(NOTHING, TRUE)]).rows
    assert said(row) == (TRUE, NOTHING)


def test_omissions_make_no_pair_unless_asked_for() -> None:
    answers = [record(TRUE, LITTLE, id="s1"), record(TRUE, FALSE, id="s2")]
    pairs = PairMaker()(answers)
    assert [row["id"] for row in pairs.rows] == ["s2"]
    assert pairs.left_out == {"below the margin without a mistake": 2}
    assert [row["id"] for row in PairMaker(omissions=True)(answers).rows] == ["s1", "s2"]


def test_likely_mistakes_without_facts_come_first() -> None:
    rare, likely = candidate(FALSE, confidence=0.1), candidate(MILD, confidence=0.6)
    (row,) = PairMaker()([record(rare, likely, TRUE)]).rows
    assert said(row) == (TRUE, MILD)
    grounded = candidate(MILD, grounded=True, confidence=0.6)
    (row,) = PairMaker()([record(rare, grounded, TRUE)]).rows
    assert said(row) == (TRUE, FALSE)
    (row,) = PairMaker()([record(FALSE, MILD, TRUE)]).rows
    assert said(row) == (TRUE, MILD)  # nothing known of likelihood: the nearer


def test_of_equal_answers_the_one_without_facts_is_chosen() -> None:
    other = "It spreads by skin contact. It is caused by Sarcoptes scabiei. Scabies is contagious."
    (row,) = PairMaker()([record(candidate(TRUE, grounded=True), other, FALSE)]).rows
    assert said(row) == (other, FALSE)


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 0), (1.5, 1)])
def test_lengths_are_comparable(ratio: float, count: int) -> None:
    longer = f"{FALSE} It is seen rather often now."
    assert reasons(record(TRUE, longer), max_length_ratio=ratio).get("other length", 0) == 2 * (1 - count)


@pytest.mark.parametrize(
    "other",
    [
        f"{TRUE} It is malignant.",  # the chosen one is its beginning
        TRUE.upper().replace(".", " !"),
        TRUE.replace("Sarcoptes", "the Sarcoptes"),  # a word that carries no claim
    ],
)
def test_trivial_differences_make_no_pair(other: str) -> None:
    with pytest.raises(KnowledgeError, match="make no pair"):
        PairMaker(margin=0.01)([record(TRUE, other)])


def test_an_answer_is_judged_once() -> None:
    assert reasons(record(FALSE, FALSE.lower(), TRUE, TRUE.replace(" ", "  "))) == {"repeats another answer": 2}


@pytest.mark.parametrize("cut", [TRUE, FALSE])
def test_what_was_cut_off_is_in_no_pair(cut: str) -> None:
    answers = [candidate(text, finished=text != cut) for text in (TRUE, FALSE)]
    assert reasons(record(*answers))["cut off at max_new_tokens"] == 1
    assert sum(reasons(record(*answers)).values()) == 2


def test_a_diagnosis_is_chosen_in_its_structure_alone() -> None:
    thought = "It is itchy. It is caused by Sarcoptes scabiei. It is contagious."
    formed = f"<think> {thought} </think> <answer> scabies </answer>"
    wrong = f"<think> {thought.replace('is cont', 'is not cont')} </think> <answer> scabies </answer>"
    broken = f"{thought} The diagnosis is scabies. It is found on the finger web."
    asked = {"asks_diagnosis": True, "question": "What is the diagnosis?"}
    (row,) = PairMaker(margin=0.1)([record(broken, wrong, formed, **asked)]).rows
    assert said(row) == (formed, wrong)
    assert row["chosen_score"] == round(SCORER.score(f"{thought}\nThe diagnosis is scabies.", "scabies").score, 4)
    with pytest.raises(KnowledgeError, match="no answer fit to be chosen"):
        PairMaker(margin=0.1)([record(broken, wrong, **asked)])


def test_several_pairs_of_one_question_share_no_answer() -> None:
    also = "Scabies is contagious. It is caused by Sarcoptes scabiei. It spreads by shared objects."
    again = "Scabies is not contagious. It is caused by a fungus. It spreads by shared objects."
    answers = record(TRUE, FALSE, also, again)
    assert len(PairMaker()([answers]).rows) == 1
    pairs = PairMaker(pairs_per_question=5)([answers])
    assert [row["id"] for row in pairs.rows] == ["s1", "s1/2"]
    assert {text for row in pairs.rows for text in said(row)} == {TRUE, FALSE, also, again}
    assert PairMaker()([answers]).left_out == {"not needed": 2}


def test_a_question_about_no_condition_makes_no_pair() -> None:
    assert reasons(record(TRUE, FALSE, target="")) == {"no target to judge by": 2}


def test_an_unknown_target_is_an_error_that_names_the_sample() -> None:
    with pytest.raises(KnowledgeError, match=r"'s1'.*no condition 'martian pox'"):
        PairMaker()([record(TRUE, FALSE, target="martian pox")])


def test_all_below_the_margin_says_what_to_change() -> None:
    highest = SCORER.score(TRUE, "scabies", "contagion").score - SCORER.score(FALSE, "scabies", "contagion").score
    with pytest.raises(KnowledgeError) as caught:
        PairMaker(margin=1.0)([record(TRUE, FALSE), record(FALSE)])
    message = str(caught.value)
    assert "3 candidates of 2 questions" in message and f"{highest:.3f}" in message
    assert all(word in message for word in ("margin", "temperature", "candidates", "2 below the margin"))
    with pytest.raises(KnowledgeError, match="no candidates"):
        PairMaker()([])
    with pytest.raises(KnowledgeError, match="max_new_tokens"):
        PairMaker()([record(candidate(TRUE, finished=False))])


@pytest.mark.parametrize(
    "options", [{"margin": 0}, {"margin": 1.5}, {"max_length_ratio": 0.5}, {"pairs_per_question": 0}]
)
def test_options_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"PairMaker: {next(iter(options))} is "):
        PairMaker(**options)


def test_the_order_of_the_answers_decides_nothing_but_ties() -> None:
    answers = [NOTHING, LITTLE, FALSE, MILD, TRUE]
    rows = [PairMaker()([record(*answers[i:], *answers[:i])]).rows for i in range(len(answers))]
    assert all(row == rows[0] for row in rows)


# Files and the command line


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write candidates.jsonl from rows or lines."""

    def make(*rows: dict[str, Any] | str, folder: str = "run") -> Path:
        path = tmp_path / folder / "candidates.jsonl"
        path.parent.mkdir(exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return make


def bare(row: dict[str, Any]) -> dict[str, Any]:
    """A record as it stands in the file, the header's part left out."""
    return {key: value for key, value in row.items() if key not in HEADER}


def test_the_command_forms_pairs_again(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = write(HEADER, bare(record(candidate(TRUE, grounded=True), FALSE)), bare(record(TRUE, LITTLE, id="s2")))
    out = path.parent.parent / "preferences.jsonl"
    assert exit_code("pairs", str(path), "--out", str(out), "--margin", "0.2", "--omissions") == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [said(row) for row in rows] == [(TRUE, FALSE), (TRUE, LITTLE)]
    assert rows[0]["images"] == ["run/images/a.png"]  # relative to the new file
    assert rows[0]["provenance"]["chosen"]["policy"] == HEADER["policy"]
    shown = capsys.readouterr().out
    mean = sum(row["margin"] for row in rows) / 2
    assert "2 pairs from 4 answers to 2 questions" in shown and f"Mean margin {mean:.3f}" in shown
    assert "50% of the rejected answers are contradicted; 50% of the chosen" in shown


def test_the_command_fails_with_advice(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = write(HEADER, bare(record(TRUE, FALSE)))
    out = path.with_name("preferences.jsonl")
    assert exit_code("pairs", str(path), "--out", str(out), "--margin", "1") == 2
    assert "Lower the margin" in capsys.readouterr().err and not out.exists()
    assert exit_code("pairs", str(path), "--out", str(out), "--margin", "7") == 2
    assert "PairMaker: margin is above 0 and at most 1; got 7" in capsys.readouterr().err
    assert exit_code("pairs", str(path.with_name("none.jsonl")), "--out", str(out)) == 2
    assert "There is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: not JSON"),
        ("[]", "line 3: must be a JSON object"),
        (json.dumps({**record(), "target": 3}), "line 3: 'target' must be a str, not 3"),
        (json.dumps({**record(), "candidates": ["yes"]}), "line 3: candidate 1: no object"),
        (json.dumps(record(TRUE, {"completion": "x"})), "line 3: candidate 2: 'grounded' must be a bool"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str, write: Callable[..., Path]) -> None:
    path = write(HEADER, bare(record(TRUE, FALSE)), line)
    with pytest.raises(KnowledgeError, match=message):
        read_candidates(path)


def test_a_file_needs_its_header(write: Callable[..., Path]) -> None:
    with pytest.raises(KnowledgeError, match="line 1: the first line must be the header"):
        read_candidates(write(bare(record(TRUE, FALSE))))
    with pytest.raises(KnowledgeError, match="no candidates"):
        write_pairs(write(HEADER), Path(os.devnull), PairMaker())


def test_a_torn_last_line_is_left_out(write: Callable[..., Path]) -> None:
    path = write(HEADER, bare(record(TRUE, FALSE)))
    path.write_bytes(path.read_bytes() + b'{"id": "s2", "gro')
    assert [row["id"] for row in read_candidates(path)[1]] == ["s1"]
