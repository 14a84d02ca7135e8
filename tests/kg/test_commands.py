"""`python -m dermiq.kg`: every command as a newcomer would run it, and every way in which it can fail."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dermiq.kg import Citation, Concept, Fact, KnowledgeGraph, load_graph
from dermiq.kg.ontology.tables import SOURCE
from dermiq.kg.ontology.writing import to_rdf_xml
from support.kg import exit_code, small_graph

COMMANDS = (
    "build",
    "validate",
    "list",
    "import",
    "score",
    "explain",
    "review",
    "pairs",
    "retrieve",
    "describe",
    "graph",
)
FALSE = "Scabies is contagious. It is caused by Sarcoptes scabiei. It is malignant."
TRUE = "Scabies is contagious."
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        return (exit_code(*arguments), *capsys.readouterr())

    return call


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.owl"
    path.write_text(to_rdf_xml(small_graph()), encoding="utf-8")
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """What a user lays on top: a synonym, another urgency, and a condition."""

    def fact(subject: str, relation: str, value: str) -> Fact:
        return Fact(subject, relation, value, "always", True, "house")

    concepts = (
        Concept("scabies", "condition", "scabies", ("seven year itch",)),
        Concept("paint_stain", "condition", "paint stain", definition="Paint on the skin."),
    )
    facts = (
        fact("scabies", "urgency", "emergency"),
        fact("paint_stain", "malignancy", "benign"),
        fact("paint_stain", "contagious", "non_contagious"),
        fact("paint_stain", "urgency", "self_care"),
    )
    works = {"house": Citation("house", "House Rules", "Us", 2026, "CC0")}
    path = tmp_path / "mine.owl"
    path.write_text(to_rdf_xml(KnowledgeGraph({one.id: one for one in concepts}, facts, works)), encoding="utf-8")
    return path


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    rows = ({"condition": "scabies", "answer": TRUE, "id": 7}, {"condition": "scabies", "answer": FALSE})
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_help_names_every_command_and_the_exit_codes(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0 and all(f"\n    {command}" in out for command in COMMANDS)
    assert "exit code: 0" in out and "No clinician" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_without_machine_paths(command: str, run: Run) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"python -m dermiq.kg {command}" in out
    assert str(SOURCE.parent) not in out


@pytest.mark.parametrize("arguments", [(), ("bogus",), ("describe",), ("graph", "scabies"), ("score", "--input")])
def test_usage_errors_exit_with_2(arguments: tuple[str, ...], run: Run) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("dermiq: ") and len(err.splitlines()) == 1 and "--help" in err


def small_tables(tmp_path: Path, condition: str) -> Path:
    """Tables with one condition, one kind of value and one work."""
    folder = tmp_path / "tables"
    for path, text in (
        ("vocabulary/malignancy.yaml", "benign:\nmalignant:\n"),
        ("bibliography.yaml", "w: {title: T, publisher: P, year: 2000, licence: none}\n"),
        ("conditions/stain.yaml", condition),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


STAIN = "name: stain\ndefinition: A stain.\ncite: w\nfacts:\n  malignancy: {always: [%s], closed: true}\n"


def test_build_writes_what_loads_again(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "built.owl"
    code, said, _ = run("build", "--source", small_tables(tmp_path, STAIN % "benign"), "--out", out)
    assert code == 0
    assert "warning: stain: has only 1 facts" in said
    assert "1 condition, 1 fact, 3 concepts, 1 work; 0 errors, 1 warning." in said
    assert load_graph(out).find("stain").definition == "A stain."
    assert not out.with_name("built.owl.partial").exists()


def test_build_writes_nothing_from_tables_with_errors(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "built.owl"
    out.write_text("as it was")
    code, said, _ = run("build", "--source", small_tables(tmp_path, STAIN % "bening"), "--out", out)
    assert code == 1
    assert "error: stain malignancy bening: 'bening' does not exist" in said
    code, _, err = run("build", "--source", small_tables(tmp_path, "name: [stain"), "--out", out)
    assert code == 2 and "stain.yaml" in err
    assert out.read_text() == "as it was"


def test_validate_good_files(run: Run, small: Path, tmp_path: Path) -> None:
    code, out, _ = run("validate", small)
    assert code == 0 and "6 conditions" in out and "0 errors" in out
    zipped = tmp_path / "small.owl.gz"
    zipped.write_bytes(gzip.compress(small.read_bytes()))
    assert run("validate", zipped)[:2] == (0, out.replace("small.owl", "small.owl.gz"))


def test_validate_lists_every_error(run: Run, small: Path, tmp_path: Path) -> None:
    bad, cited = tmp_path / "bad.owl", '<citation rdf:resource="urn:dermiq:work#'
    bad.write_text(small.read_text(encoding="utf-8").replace(f"{cited}handbook", f"{cited}lost"), encoding="utf-8")
    code, out, _ = run("validate", bad)
    assert code == 1
    assert out.count("which is not in the bibliography") == len(small_graph().facts)


def test_validate_with_files_on_top(run: Run, mine: Path) -> None:
    assert run("validate", mine)[0] == 1  # alone, its values do not exist
    assert run("validate", "--merge", mine)[0] == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "No such file"),
        (b"<html></html>", "XML of another kind"),
        (b"@prefix a: <b> .", "is Turtle"),
        (b"<rdf:RDF", "no well-formed XML"),
    ],
)
def test_files_that_are_no_ontology(data: bytes | None, message: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file.owl"
    if data is not None:
        path.write_bytes(data)
    for arguments in (("validate", path), ("list", "--ontology", path), ("list", "--merge", path)):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("dermiq: ") and str(path) in err and message in err


def test_list(run: Run, small: Path, mine: Path) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert out.splitlines() == sorted(concept.label for concept in load_graph().conditions)
    assert run("list", "--ontology", small)[1].splitlines() == sorted(c.label for c in small_graph().conditions)
    assert "paint stain" in run("list", "--merge", mine)[1].splitlines()


def test_files_on_top_add_a_synonym_a_condition_and_another_urgency(run: Run, mine: Path) -> None:
    judge = ("score", "--condition", "Seven-year itch", "--answer", "It is an emergency.")
    assert run(*judge)[0] == 2
    code, out, _ = run(*judge, "--merge", mine)
    assert code == 0
    assert "supported (1)" in out and "[House Rules (Us, 2026)]" in out
    assert "Paint on the skin." in run("describe", "paint stain", "--merge", mine)[1]


def test_import_of_the_real_ontologies(run: Run, data_root: Path, tmp_path: Path) -> None:
    (doid,) = data_root.glob("doid/*.owl.gz")
    out = tmp_path / "rich.owl"
    code, said, _ = run("import", "--doid", doid, "--symp", data_root / "symp" / "symp.owl", "--out", out)
    assert code == 0
    assert said.startswith("Matched ") and said.endswith(f"--ontology {out}\n")
    assert len(said.splitlines()) < 40
    rich, plain = load_graph(out), load_graph()
    assert len(rich.by_name) > len(plain.by_name)
    assert rich.facts == plain.facts


def test_import_says_what_is_missing(run: Run, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.owl"
    for arguments, message in (((), "--doid or --symp"), (("--doid", small), "Take doid.owl")):
        code, _, err = run("import", *arguments, "--out", out)
        assert code == 2 and message in err
    assert not out.exists()


def test_score_one_answer(run: Run) -> None:
    code, out, err = run("score", "--condition", "scabies", "--answer", FALSE)
    assert (code, err) == (0, "")
    assert out.startswith("score ")
    assert 'x scabies is malignant  "malignant"' in out
    assert '+ scabies is contagious  "contagious"' in out
    assert "\x1b" not in out  # colour is for terminals


def test_score_heeds_the_question(run: Run) -> None:
    answer = ("score", "--condition", "scabies", "--answer", TRUE, "--question-type")
    assert run(*answer, "treatment")[1].startswith("score 0.00")
    assert not run(*answer, "contagion")[1].startswith("score 0.00")
    code, _, err = run(*answer, "gossip")
    assert code == 2 and "treatment" in err


def test_explain_shows_links_claims_and_rules(run: Run) -> None:
    code, out, _ = run("explain", "--condition", "scabies", "It is caused by a mite. Thank you.")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "It is caused by a mite." and "  'mite': agent mite" in lines
    assert "  claim: scabies is caused by a mite" in lines and any(line.startswith("    supported: ") for line in lines)
    assert "Thank you." in lines and lines[-1] == "  no claim"


def test_a_reader_needs_a_server_and_a_model(run: Run) -> None:
    answer = ("score", "--condition", "scabies", "--answer", "It itches.")
    assert "--reader needs --reader-model" in run(*answer, "--reader", "http://127.0.0.1:9")[2]
    assert "go with --reader URL" in run(*answer, "--reader-model", "small")[2]
    assert (
        "Start an OpenAI-compatible server" in run(*answer, "--reader", "http://127.0.0.1:9", "--reader-model", "m")[2]
    )


def test_score_a_file_to_a_file(run: Run, answers: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    code, said, _ = run("score", "--input", answers, "--output", out)
    assert code == 0
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [record["answer"] for record in records] == [TRUE, FALSE]
    assert records[0]["id"] == 7
    assert records[0]["harm"] == 0 < records[1]["harm"]
    mean = (records[0]["score"] + records[1]["score"]) / 2
    assert f"{out}: 2 answers. Means: score {mean:.3f}" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "scores.jsonl"]
    assert run("score", "--input", answers)[1] == out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --condition and --answer, or --input"),
        (("--condition", "scabies"), "give --condition and --answer, or --input"),
        (("--condition", "scabbies", "--answer", "x"), "Did you mean scabies"),
        (("--condition", "scabies", "--answer", "x", "--output", "x.jsonl"), "--output is for the scores of --input"),
        (("--input", "x.jsonl", "--answer", "x"), "--input brings its own"),
        (("--input", "nowhere.jsonl"), "nowhere.jsonl cannot be read: No such file"),
    ],
)
def test_score_refuses(arguments: tuple[str, ...], message: str, run: Run) -> None:
    code, out, err = run("score", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_output_that_cannot_be_written(run: Run, answers: Path, tmp_path: Path) -> None:
    for out, reason in ((tmp_path / "none" / "x", "there is no folder"), (tmp_path, "directory")):
        for command in (("score", "--input", answers, "--output", out), ("graph", "scabies", "--out", out)):
            code, said, err = run(*command)
            assert (code, said) == (2, "")
            assert f"dermiq: {out} cannot be written: " in err and reason in err


def test_output_to_what_is_no_file_or_a_link(run: Run, tmp_path: Path) -> None:
    assert run("graph", "scabies", "--out", os.devnull)[0] == 0
    assert not Path(os.devnull).is_file()
    link, target = tmp_path / "link.svg", tmp_path / "target.svg"
    link.symlink_to(target)
    assert run("graph", "scabies", "--out", link)[0] == 0
    assert link.is_symlink() and target.stat().st_size


def test_retrieve(run: Run) -> None:
    code, out, _ = run("retrieve", "How is scabies treated?")
    assert code == 0 and out.startswith("1. Scabies ") and "permethrin" in out and "\nSources:\n[1] " in out
    code, out, _ = run("retrieve", "How is it treated?", "--condition", "scabies")
    assert code == 0 and "permethrin" in out


def test_retrieve_finds_nothing(run: Run) -> None:
    code, out, err = run("retrieve", "hello")
    assert (code, out) == (1, "") and "name a condition" in err
    assert "--budget 3 is too small" in run("retrieve", "How is scabies treated?", "--budget", "3")[2]
    for arguments in (("scabies", "--budget", "3"), ("scabies", "--budget", "0"), ("hello", "--condition", "scabbies")):
        assert run("retrieve", *arguments)[0] == 2


def test_describe_and_graph(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("describe", "DOID:8295")
    assert code == 0
    assert out.startswith("Scabies\n=======") and "No clinician has reviewed" in out
    code, _, err = run("describe", "scabbies")
    assert code == 2 and "Did you mean scabies" in err
    path = tmp_path / "scabies.svg"
    assert run("graph", "scabies", "--out", path) == (0, f"Wrote {path}.\n", "")
    assert ElementTree.parse(path).getroot().tag.endswith("svg")


def start(*arguments: object) -> subprocess.Popen[str]:
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs ignore it, and hand that on
    command, pipe = [sys.executable, "-m", "dermiq.kg", *map(str, arguments)], subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed)


def test_a_reader_that_leaves_early_ends_it_in_silence() -> None:
    with start("list") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_interrupted_scoring_keeps_what_was_done(answers: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    text = "In case {0} scabies is contagious. Burrow {0} itches."
    rows = (json.dumps({"condition": "scabies", "answer": text.format(number)}) for number in range(40_000))
    answers.write_text("\n".join(rows))
    part = out.with_name("scores.jsonl.partial")
    process = start("score", "--input", answers, "--output", out)
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, err = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")
    assert f"What was done so far is in {part}." in err and "Traceback" not in err
    assert not out.exists()
    records = [json.loads(line) for line in part.read_text(encoding="utf-8").splitlines()]
    assert 0 < len(records) < 40_000


@pytest.mark.skipif(shutil.which("script") is None, reason="needs `script` for a terminal")
@pytest.mark.parametrize("plain", [False, True])
def test_colour_on_a_terminal_unless_it_is_not_wanted(plain: bool) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color"} | ({"NO_COLOR": "1"} if plain else {})
    command = f"{sys.executable} -m dermiq.kg score --condition scabies --answer '{TRUE}'"
    shown = subprocess.run(["script", "-qec", command, os.devnull], env=environment, capture_output=True, text=True)
    assert "scabies is contagious" in shown.stdout
    assert ("\x1b[32m" in shown.stdout) is not plain
