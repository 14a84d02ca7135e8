"""docs/tutorial.md, run as a reader runs it: every bash and python block as written, in order, in one directory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
TUTORIAL = (REPOSITORY / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(bash|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    """A block of code, and what the page says that it prints ("..." stands for anything; None if it says nothing)."""

    language: str
    code: str
    promised: str | None


def steps() -> list[Step]:
    """The blocks of the page; a text block is what the block before it prints."""
    found: list[Step] = []
    for language, code in BLOCK.findall(TUTORIAL):
        if language == "text":
            found[-1] = found[-1]._replace(promised=code)
        else:
            found.append(Step(language, code, None))
    return found


def in_shell(code: str) -> str:
    """Run bash as in an activated environment, and stop at the first command that fails; what it prints."""
    environment = os.environ | {
        "NO_COLOR": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-e", "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A directory after the whole tutorial."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("configs", "cli.py"):
        (root / name).symlink_to(REPOSITORY / name)
    typed: dict[str, object] = {}  # one Python session for all blocks
    with contextlib.chdir(root):
        for language, code, promised in steps():
            printed = io.StringIO()
            if language == "python":
                with contextlib.redirect_stdout(printed):
                    exec(code, typed)
            else:
                printed.write(in_shell(code))
            if promised is not None:
                assert OutputChecker().check_output(promised, printed.getvalue(), ELLIPSIS), printed.getvalue()
    return root


def metrics(clone: Path, stage: str) -> dict[str, float]:
    return json.loads((clone / "runs" / "quickstart" / stage / "metrics.json").read_text())


def test_every_command_runs_and_prints_what_the_page_says(clone):
    assert sum(step.language == "bash" for step in steps()) >= 6  # the fixture ran them all
    assert sum(step.promised is not None for step in steps()) >= 3


def test_every_file_that_the_page_names_is_there(clone):
    named = set(re.findall(r"`(runs/quickstart/[^`]*)`", TUTORIAL))
    (folder,) = re.findall(r"^\| in `(runs/[^`]*)` \|", TUTORIAL, re.MULTILINE)
    table = TUTORIAL.split(f"| in `{folder}`")[1].split("\n\n")[0]
    named |= {folder + name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert len(named) > 10
    assert [name for name in sorted(named) if not (clone / name).exists()] == []


@pytest.mark.parametrize("stage", ["warmstart", "grpo"])
def test_answers_have_the_form_and_beat_guessing(clone, stage):
    found = metrics(clone, stage)
    assert found["test/reward/format"] > 0.8
    assert found["test/accuracy/low"] > 2 / 16
    assert found["test/accuracy/n"] == 200


def test_the_report_shows_both_stages(clone):
    page = (clone / "runs" / "quickstart" / "report" / "index.html").read_text(encoding="utf-8")
    assert "warmstart" in page and "grpo" in page and "phantom-9-0" in page
