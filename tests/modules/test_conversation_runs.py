"""Training on conversations through the real command line, with models of real families on drawn JPEG files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from dermiq.cli import run
from support.conversations import write_talks
from support.families import FAMILIES
from support.runs import Lab, adapter, different, logged


def talking(lab: Lab, folder: Path, *more: str, family: str = "idefics3") -> list[str]:
    """Arguments of a run on conversations: training, validation and test data in files of their own."""
    sources = {
        split: {
            "class_path": "dermiq.datamodules.sources.Conversations",
            "init_args": {"path": str(write_talks(folder / split, count))},
        }
        for split, count in (("train", 16), ("val", 6), ("test", 6))
    }
    config = yaml.safe_load(lab.config("SFTModule", family).read_text())
    config["trainer"]["limit_val_batches"] = 1.0
    config["data"]["init_args"] = {"sources": sources, "batch_size": 2, "eval_batch_size": 3, "group_by_length": True}
    path = folder / "talk.yaml"
    path.write_text(yaml.safe_dump(config))
    return [f"--config={path}", f"--trainer.default_root_dir={folder / 'run'}", *more]


def test_training_on_conversations_logs_the_held_out_loss(lab, tmp_path):
    run(["fit", *talking(lab, tmp_path, "--trainer.max_steps=2", "--trainer.val_check_interval=2")])
    rows = logged(tmp_path / "run")
    assert [name for row in rows for name in ("train/loss", "val/loss") if row.get(name)] == [
        "train/loss", "train/loss", "val/loss",
    ]  # fmt: skip


@pytest.mark.slow
def test_conversations_through_the_command_line(lab, tmp_path):
    """It learns, is judged, and the held-out loss counts every token alike, whatever the batches are."""
    run(["fit", *talking(lab, tmp_path, "--trainer.max_epochs=2")])
    rows = logged(tmp_path / "run")
    losses = [float(row["train/loss"]) for row in rows if row.get("train/loss")]
    held_out = [float(row["val/loss"]) for row in rows if row.get("val/loss")]
    assert len(losses) == 16 and len(held_out) == 2
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4]) and held_out[1] < held_out[0]

    found = []
    for size in (1, 4):
        saved = [f"--config={tmp_path / 'run' / 'config.yaml'}", "--ckpt_path=last"]
        run(["test", *saved, f"--data.eval_batch_size={size}"])
        found.append(json.loads((tmp_path / "run" / "metrics.json").read_text()))
    assert 0 < found[0]["test/loss"] < losses[0] and "test/conversation/reward" in found[0]
    assert not any("accuracy" in name for name in found[0])
    assert found[0]["test/loss"] == pytest.approx(found[1]["test/loss"], rel=1e-5)
    ids = pq.read_table(tmp_path / "run" / "predictions.parquet")["id"].to_pylist()
    assert ids == [f"talks-{i + 1}" for i in range(6)]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_on_conversations(family, lab, tmp_path):
    options = ["--trainer.max_steps=8", "--trainer.limit_val_batches=0"]
    run(["fit", *talking(lab, tmp_path, *options, family=family)])
    losses = [float(row["train/loss"]) for row in logged(tmp_path / "run")]
    assert len(losses) == 8 and sum(losses[-3:]) < sum(losses[:3])


@pytest.mark.slow
def test_interrupted_and_resumed_equals_uninterrupted(lab, tmp_path):
    """With batches of similar length, stopped within an epoch."""
    for name, steps in (("whole", 6), ("cut", 3)):
        run(["fit", *talking(lab, tmp_path / name, f"--trainer.max_steps={steps}", "--trainer.limit_val_batches=0")])
    saved = f"--config={tmp_path / 'cut' / 'run' / 'config.yaml'}"
    run(["fit", saved, "--ckpt_path=last", "--trainer.max_steps=6"])
    whole, cut = adapter(tmp_path / "whole" / "run"), adapter(tmp_path / "cut" / "run")
    assert different(whole, cut) == []
