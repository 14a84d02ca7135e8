"""What a run shows and writes, callback by callback."""

import io
import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch

from dermiq.policy.rollout import Rollout
from dermiq.prompts import parse
from dermiq.rewards import Scores
from dermiq.schema import Sample
from dermiq.trainer.callbacks import (
    RunProgressBar,
    SaveMetrics,
    WritePredictions,
    completion_rows,
    confusion_table,
    predictions_table,
)
from support.runs import STAGES


def test_one_row_per_completion():
    samples = tuple(Sample(id=name, images=(), target=f"t-{name}", label="", group=name) for name in "ab")
    zeros = torch.zeros(4, 1)
    answers = [[parse("1"), parse("2")], [parse("3"), parse("4")]]
    rollout = Rollout(samples, zeros.long(), zeros.bool(), zeros, answers)
    total = torch.tensor([[0.0, 0.25], [0.5, 0.75]])
    scores = Scores(total, {"x": total * 2}, total > 0, total[None], torch.tensor([0.5]))
    rows = completion_rows(rollout, scores, [[1.0, 2.0], [3.0, 4.0]])
    assert [(row["id"], row["target"], row["completion"], row["advantage"], row["reward/x"]) for row in rows] == [
        ("a", "t-a", "1", 1.0, 0.0),
        ("a", "t-a", "2", 2.0, 0.5),
        ("b", "t-b", "3", 3.0, 1.0),
        ("b", "t-b", "4", 4.0, 1.5),
    ]


@pytest.mark.parametrize(("interval", "steps"), [(1, [1, 2, 3]), (2, [2]), (5, [])])
def test_completions_are_shown_at_their_interval(interval, steps, lab, tmp_path):
    callbacks = f"[{{class_path: dermiq.trainer.callbacks.LogCompletions, init_args: {{every_n_steps: {interval}}}}}]"
    lab.run("fit", "GRPOModule", tmp_path, "--trainer.max_steps=3", f"--trainer.callbacks={callbacks}")
    written = sorted(path.stem for path in tmp_path.glob("completions/*"))
    assert written == [f"step-{step:07d}" for step in steps]


def test_markup_in_a_completion_is_shown_as_it_is(capsys):
    from rich.console import Console

    from dermiq.trainer.callbacks import _table

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
        default_root_dir, world_size, global_rank = str(tmp_path / "run"), 1, 0

    writer = WritePredictions()
    for _ in range(2):
        writer.on_predict_start(Alone(), None)
        writer.on_predict_batch_end(Alone(), None, {"rows": [{"id": "ä"}]}, None, 0)
        path = tmp_path / "run" / "predictions.jsonl"
        assert path.read_text(encoding="utf-8") == '{"id": "ä"}\n'
    writer.on_predict_batch_end(Alone(), None, {"rows": [{"id": "b"}]}, None, 1)
    assert [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()] == ["ä", "b"]


def test_an_interrupted_test_keeps_its_rows_and_the_tables_of_the_last(lab, tmp_path, monkeypatch):
    """The second of two batches cannot be judged; whoever interrupts finds the first."""
    (tmp_path / "predictions.parquet").write_bytes(b"of the test before")
    batches = []
    original = WritePredictions.on_test_batch_end

    def end_of_batch(self, *arguments):
        if batches:
            raise KeyboardInterrupt
        batches.append(arguments[2]["rows"])
        original(self, *arguments)

    monkeypatch.setattr(WritePredictions, "on_test_batch_end", end_of_batch)
    with pytest.raises(SystemExit):
        lab.run("test", "SFTModule", tmp_path)
    written = {"predictions.parquet", "test_predictions.jsonl", "test_thumbnails.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == written
    kept = [json.loads(line) for line in (tmp_path / "test_predictions.jsonl").read_text().splitlines()]
    assert kept == batches[0] and len(kept) == 8
    assert (tmp_path / "predictions.parquet").read_bytes() == b"of the test before"


DIAGNOSIS = {"kind": "diagnosis", "dataset": "d", "concepts": [], "named_lineage": []}


def test_all_processes_rows_become_one_table_in_the_order_of_the_data(tmp_path):
    """Two processes take turns over a b c d e; c could not be read."""
    data = SimpleNamespace(source=[SimpleNamespace(id=name) for name in "xabcde"], indices=[1, 2, 3, 4, 5])
    writers = []
    for rank, names in enumerate(("ae", "bd")):
        trainer = SimpleNamespace(
            default_root_dir=str(tmp_path), world_size=2, global_rank=rank, is_global_zero=rank == 0,
            strategy=SimpleNamespace(barrier=lambda name: None), test_dataloaders=SimpleNamespace(dataset=data),
        )  # fmt: skip
        writers.append((WritePredictions(), trainer))
        writers[-1][0].on_test_start(trainer, None)
        for name in names:
            row = DIAGNOSIS | {"id": name, "target": "t", "named": "t"}
            writers[-1][0].on_test_batch_end(trainer, None, {"rows": [row]}, None, 0)
    for writer, trainer in reversed(writers):
        writer.on_test_end(trainer, None)
    assert pq.read_table(tmp_path / "predictions.parquet")["id"].to_pylist() == ["a", "b", "d", "e"]
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.parquet", "confusion.csv"}


def test_predictions_are_flat_columns():
    rows = [
        {"id": "ä", "correct": True, "scores": {"format": 1.0}, "options": ["x"]},
        {
            "id": "b",
            "correct": None,
            "scores": {"kg": 0.5},
            "sampled": {"reward/kg": 0.25},
            "facts": [{"sentence": "s"}],
        },
    ]
    file = pq.ParquetFile(io.BytesIO(predictions_table(rows)))
    assert file.read().to_pylist() == [
        {
            "id": "ä", "correct": True, "reward/format": 1.0, "options": ["x"], "reward/kg": None,
            "sampled_reward/kg": None, "facts": None,
        },
        {
            "id": "b", "correct": None, "reward/format": None, "options": None, "reward/kg": 0.5,
            "sampled_reward/kg": 0.25, "facts": [{"sentence": "s"}],
        },
    ]  # fmt: skip
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_confusion_table_by_hand():
    """A form of a class counts as the class; what is no diagnosis does not count at all."""
    named = [
        ("m", "m"),
        ("m", "m"),
        ("m", "n"),
        ("m", ""),
        ("n", "z"),
        ("n", "n"),
        ("n", "n nodular"),
        ("n, flat", "m"),
    ]
    rows = [DIAGNOSIS | {"target": target, "named": name, "concepts": [target.upper()]} for target, name in named]
    rows[6] |= {"target": "m", "concepts": ["M"], "named_lineage": ["N-NODULAR", "N"]}
    rows.append({"kind": "conversation", "target": "m", "named": None})
    table = (
        "target,m,n,\"n, flat\",other,none\n"
        "m,2,2,0,0,1\n"
        "n,0,1,0,1,0\n"
        "\"n, flat\",1,0,0,0,0\n"
    )  # fmt: skip
    assert confusion_table(rows) == table
    assert confusion_table(rows[-1:]) == "target,other,none\n"


def test_metrics_are_strict_json(tmp_path):
    """What is no number is left out: JSON has no word for it."""
    metrics = {"test/a": torch.tensor(float("nan")), "test/b": torch.tensor(0.5), "test/c": torch.tensor(float("inf"))}
    trainer = SimpleNamespace(default_root_dir=str(tmp_path), is_global_zero=True, callback_metrics=metrics)
    SaveMetrics().on_test_end(trainer, None)
    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"test/b": 0.5}


def test_nothing_is_reported_where_nothing_was_skipped(lab, tmp_path):
    lab.run("test", "SFTModule", tmp_path, "--data.on_bad_image=skip")
    assert not (tmp_path / "skipped.txt").exists()
