"""Broken lines of the training code do not go unnoticed: see `mutation_check.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

import mutation_check
from mutation_check import MUTATIONS, REPOSITORY, TESTS, Mutation, survives


def test_the_lines_to_break_are_there():
    for mutation in MUTATIONS:
        source = (REPOSITORY / "src" / "dermiq" / mutation.file).read_text(encoding="utf-8")
        assert source.count(mutation.old) == 1, mutation
        assert mutation.new != mutation.old
    per_file = [sum(mutation.file == file for mutation in MUTATIONS) for file in TESTS]
    assert min(per_file) >= 2 and sum(per_file) >= 10


def test_a_line_that_is_gone_is_said(tmp_path, capsys):
    assert survives(Mutation("objectives/losses.py", "a line that is gone", "no such line", ""), tmp_path)
    assert "STALE     objectives/losses.py: a line that is gone" in capsys.readouterr().out


def test_what_no_test_notices_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mutation_check, "failure", lambda tree, tests: None)
    (tmp_path / "src" / "dermiq" / "objectives").mkdir(parents=True)
    assert survives(MUTATIONS[0], tmp_path)
    assert f"SURVIVED  objectives/losses.py: {MUTATIONS[0].what}" in capsys.readouterr().out
    mended = (tmp_path / "src" / "dermiq" / "objectives" / "losses.py").read_text(encoding="utf-8")
    assert mended == (REPOSITORY / "src" / "dermiq" / "objectives" / "losses.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_broken_line_makes_a_fast_test_fail():
    script = Path(mutation_check.__file__)
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("caught") == len(MUTATIONS) + 1
