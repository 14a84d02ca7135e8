"""Curves of a reward that does not apply everywhere: means over the answers that it applies to."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest
import torch

from dermiq.rewards import Scores
from support.runs import logged

TERMS = [
    "--model.rewards.terms.samples.fn=support.parts.of_some_samples",
    "--model.rewards.terms.answers.fn=support.parts.of_some_answers",
]
TABLE = "--trainer.callbacks=[{class_path: dermiq.trainer.callbacks.LogCompletions, init_args: {every_n_steps: 1}}]"


def test_training(lab, tmp_path, capsys):
    """One sample to a step: the term of some samples has a point where it applies, and not the one before elsewhere."""
    options = [*TERMS, TABLE, "--data.batch_size=1", "--trainer.max_steps=6", "--model.group_size=4"]
    lab.run("fit", "GRPOModule", tmp_path, *options)
    rows = logged(tmp_path)
    assert not any("nan" in value for row in rows for value in row.values())
    points = [row["train/reward/samples"] for row in rows]
    asked = [pq.read_table(path).to_pylist() for path in sorted(tmp_path.glob("completions/*"))]
    applies = [sum(map(ord, step[0]["id"])) % 2 == 0 for step in asked]
    assert set(applies) == {True, False}, "the case says nothing"
    assert [bool(point) for point in points] == applies and {float(point) for point in points if point} == {0.25}
    assert {float(row["train/reward/answers"]) for row in rows if row["train/reward/answers"]} == {0.5}
    told = [{row["reward/answers"] for row in step} for step in asked]
    assert {None, 0.5} in told
    assert [step[0]["reward/samples"] is not None for step in asked] == applies
    said = capsys.readouterr().out
    assert "answers 0.50" in said and not re.search(r"(samples|answers) nan", said)


@pytest.mark.slow
def test_evaluation(lab, tmp_path):
    lab.run("test", "GRPOModule", tmp_path, *TERMS, "--model.eval_samples=4")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test/reward/samples"] == metrics["test/sampled_reward/samples"] == 0.25
    assert metrics["test/sampled_reward/answers"] == 0.5
    assert "NaN" not in (tmp_path / "metrics.json").read_text()


def test_means_by_hand():
    nan = float("nan")
    terms = {"all": [[1.0, 0.0]], "one": [[nan, 0.75]], "none": [[nan, nan]], "zero": [[0.0, 0.0]]}
    by_term = {name: torch.tensor(values) for name, values in terms.items()}
    total = torch.zeros(1, 2)
    scores = Scores(total, by_term, total > 0, total[None], torch.ones(1))
    assert scores.means == {"all": 0.5, "one": 0.75, "zero": 0.0}
