"""Break lines of the training code one at a time, in a copy, and see that a fast test fails each time.

    python tests/mutation_check.py

It exits with 1 if a broken line goes unnoticed, if a line to break is not found exactly once (then this file has to
follow the code), or if the tests fail on the code as it is. A test that fails counts; code that no longer loads does
not. The libraries are imported once, and every check is a fork of the process that did so: a few seconds each.
"""

# ruff: noqa: T201 (what the user reads in the terminal)
from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
LOSSES, ADVANTAGES = "objectives/losses.py", "objectives/advantages.py"
PREFIX, SCORER = "policy/prefix.py", "kg/scorer.py"
SEVERITY, COVERAGE = "kg/severity.py", "kg/coverage.py"
TESTS = {  # the fast tests that answer for a file
    LOSSES: ["tests/objectives/test_losses.py", "tests/objectives/test_dpo_losses.py"],
    ADVANTAGES: ["tests/objectives/test_advantages.py"],
    PREFIX: ["tests/policy/test_prefix.py", "-k", "(logprobs or any_order) and not llava and not gemma3 and not qwen3"],
    SCORER: ["tests/kg/test_scorer.py", "-k", "not spawned"],
    SEVERITY: ["tests/kg/test_severities.py", "tests/kg/test_scorer.py", "-k", "not spawned"],
    COVERAGE: ["tests/kg/test_scorer.py", "-k", "not spawned"],
}


class Mutation(NamedTuple):
    """`old`, which stands in `file` exactly once, and what breaks it."""

    file: str
    what: str
    old: str
    new: str


MUTATIONS = [
    Mutation(LOSSES, "upper clip bound on the wrong side", "1 + clip_high) * adv", "1 - clip_high) * adv"),
    Mutation(LOSSES, "exponent of k3 not clamped", ".clamp(-KL_EXPONENT_LIMIT, KL_EXPONENT_LIMIT)", ""),
    Mutation(LOSSES, "k3 of the wrong direction", "(ref_logprobs - logprobs).clamp", "(logprobs - ref_logprobs).clamp"),
    Mutation(LOSSES, "CISPO's ratio not detached", "old_logprobs).detach().exp()", "old_logprobs).exp()"),
    Mutation(LOSSES, "entropy bonus of the wrong sign", "total - entropy_coef", "total + entropy_coef"),
    Mutation(LOSSES, "DPO prefers the worse reply", "margins = chosen - rejected", "margins = rejected - chosen"),
    Mutation(ADVANTAGES, "a wrong answer may gain", "advantages.clamp(max=0)", "advantages"),
    Mutation(ADVANTAGES, "confidence not detached", "confidence.detach()", "confidence"),
    Mutation(ADVANTAGES, "confidence without a floor", ".clamp(self.confidence_floor, 1.0)", ""),
    Mutation(ADVANTAGES, "one too many in RLOO's mean", "max(group_size - 1, 1)", "max(group_size, 1)"),
    Mutation(PREFIX, "completions begin one position early", "= mask.sum(-1)\n", "= mask.sum(-1) - 1\n"),
    Mutation(PREFIX, "image offsets of the wrong sign", "next_position + vlm", "next_position - vlm"),
    Mutation(PREFIX, "padding is attended to", "visible=None if mask.all() else mask.bool()", "visible=None"),
    Mutation(PREFIX, "completions come back in another order", "after[order.argsort()]", "after[order]"),
    Mutation(SEVERITY, "a severity lost", '"contraindicated": 0.6', '"contraindicated": 0.1'),
    Mutation(SEVERITY, "a hedged mistake does the whole harm", "severity / 2 if", "severity if"),
    Mutation(SCORER, "a refuted sentence earns support", "claim.sentence not in refuted", "claim.sentence >= 0"),
    Mutation(SCORER, "support counted without end", "claim.words[1] <= MAX_WORDS", "claim.words[1] >= 0"),
    Mutation(SCORER, "unknown claims are free", "- GRANTED * gained", "- 1e9"),
    Mutation(COVERAGE, "a possible fact counts in full", "else POSSIBLE * weight", "else weight"),
    Mutation(COVERAGE, "every fact weighs the same", "/ log(everybody)", "/ log(everybody) * 0 + 1"),
]


def failure(tree: Path, tests: list[str]) -> str | None:
    """The first of `tests` that fails on the package in `tree`, None if all pass; run in a fork of this process.

    Raises:
        RuntimeError: if they could not be run.
    """
    log = tree / "log.txt"
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _become(tree, tests, log)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = log.read_text(errors="replace")
    failed = re.search(r"^FAILED (.+?)(?: - |$)", text, re.MULTILINE)
    if (code, failed is None) not in ((0, True), (1, False)):
        raise RuntimeError(f"{' '.join(tests)} could not be run (exit code {code}):\n{text[-3000:]}")
    return failed[1] if failed else None


def _become(tree: Path, tests: list[str], log: Path) -> None:
    """Turn this process into pytest on the copy; it does not return."""
    code = 3
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(tree)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins want to be imported first
        os.environ["CI"] = "true"  # Hypothesis then sets no deadline and draws the same examples each time
        sys.dont_write_bytecode = True  # else what was compiled of a broken file could pass for the whole one
        sys.path[:0] = [str(tree / "src"), str(tree / "tests")]
        import dermiq

        assert Path(dermiq.__file__).is_relative_to(tree), f"{dermiq.__file__} is not the copy"
        import pytest

        code = int(pytest.main([*tests, "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def survives(mutation: Mutation, tree: Path) -> bool:
    """Break the copy, say what notices, and mend it again."""
    original, path = REPOSITORY / "src" / "dermiq" / mutation.file, tree / "src" / "dermiq" / mutation.file
    source = original.read_text(encoding="utf-8")
    name = f"{mutation.file}: {mutation.what}"
    if (found := source.count(mutation.old)) != 1:
        print(f"STALE     {name}: {mutation.old!r} was found {found} times")
        return True
    path.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        test = failure(tree, TESTS[mutation.file])
    finally:
        shutil.copy2(original, path)
    print(f"{'caught  ' if test else 'SURVIVED'}  {name}{f': {test}' if test else ''}", flush=True)
    return test is None


def main() -> int:
    """1 if anything went unnoticed, else 0."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    import lightning.pytorch.cli  # noqa: F401 (what takes seconds to import, once for all the forks)
    import peft  # noqa: F401

    import support.families  # noqa: F401

    assert "dermiq" not in sys.modules
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve()
        for name in ("src", "tests", "docs"):
            shutil.copytree(REPOSITORY / name, tree / name, symlinks=True)
        shutil.copy2(REPOSITORY / "pyproject.toml", tree)
        for file, tests in TESTS.items():
            if test := failure(tree, tests):
                print(f"{file} as it is: {test} fails")
                return 1
        survivors = [mutation.what for mutation in MUTATIONS if survives(mutation, tree)]
    print(f"{len(MUTATIONS) - len(survivors)} of {len(MUTATIONS)} broken lines were caught.")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
