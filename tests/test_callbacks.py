"""What a run shows and writes, callback by callback."""

import json

import pytest
import torch

from dermiq.callbacks import RunProgressBar, WritePredictions, completion_rows
from dermiq.prompts import parse
from dermiq.rewards import Scores
from dermiq.rollout import Rollout
from dermiq.schema import Sample
from lab import STAGES


def test_one_row_per_completion():
    samples = tuple(Sample(id=name, images=(), target=f"t-{name}", label="", group=name) for name in "ab")
    zeros = torch.zeros(4, 1)
    answers = [[parse("1"), parse("2")], [parse("3"), parse("4")]]
    rollout = Rollout(samples, zeros.long(), zeros.bool(), zeros, answers)
    total = torch.tensor([[0.0, 0.25], [0.5, 0.75]])
    rows = completion_rows(rollout, Scores(total, {"x": total * 2}, total > 0), [[1.0, 2.0], [3.0, 4.0]])
    assert [(row["id"], row["target"], row["completion"], row["advantage"], row["reward/x"]) for row in rows] == [
        ("a", "t-a", "1", 1.0, 0.0),
        ("a", "t-a", "2", 2.0, 0.5),
        ("b", "t-b", "3", 3.0, 1.0),
        ("b", "t-b", "4", 4.0, 1.5),
    ]


@pytest.mark.parametrize(("interval", "steps"), [(1, [1, 2, 3]), (2, [2]), (5, [])])
def test_completions_are_shown_at_their_interval(interval, steps, lab, tmp_path):
    callbacks = f"[{{class_path: dermiq.callbacks.LogCompletions, init_args: {{every_n_steps: {interval}}}}}]"
    lab.run("fit", "GRPOModule", tmp_path, "--trainer.max_steps=3", f"--trainer.callbacks={callbacks}")
    written = sorted(path.stem for path in tmp_path.glob("completions/*"))
    assert written == [f"step-{step:07d}" for step in steps]


def test_markup_in_a_completion_is_shown_as_it_is(capsys):
    from rich.console import Console

    from dermiq.callbacks import _table

    row = {"completion": "[bold]x[/bold] [/]", "advantage": 1.0, "reward": 0.5, "reward/x": 0.5}
    Console().print(_table([row], "title"))
    assert "[bold]x[/bold] [/]" in capsys.readouterr().out


@pytest.mark.parametrize("stage", STAGES)
def test_the_progress_bar_shows_what_matters(stage, lab, tmp_path, monkeypatch):
    shown = []
    original = RunProgressBar.get_metrics
    monkeypatch.setattr(
        RunProgressBar, "get_metrics", lambda self, *arguments: shown.append(original(self, *arguments)) or shown[-1]
    )
    lab.run("fit", stage, tmp_path, "--trainer.max_steps=2")
    expected = {
        "SFTModule": {"loss"},
        "DPOModule": {"loss", "accuracy"},
        "GRPOModule": {"reward", "accuracy", "tokens_per_second"},
    }
    assert shown[-1].keys() == expected[stage]


def test_rows_are_written_as_batches_finish(tmp_path):
    """An interrupted run keeps what it has, and a new one begins anew."""

    class Alone:
        default_root_dir, world_size = str(tmp_path / "run"), 1

    writer = WritePredictions()
    for _ in range(2):
        writer.on_predict_start(Alone(), None)
        writer.on_predict_batch_end(Alone(), None, {"rows": [{"id": "ä"}]}, None, 0)
        path = tmp_path / "run" / "predictions.jsonl"
        assert path.read_text(encoding="utf-8") == '{"id": "ä"}\n'
    writer.on_predict_batch_end(Alone(), None, {"rows": [{"id": "b"}]}, None, 1)
    assert [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()] == ["ä", "b"]


def test_nothing_is_reported_where_nothing_was_skipped(lab, tmp_path):
    lab.run("test", "SFTModule", tmp_path, "--data.init_args.on_bad_image=skip")
    assert not (tmp_path / "skipped.txt").exists()
