"""Two processes on the CPU (gloo) make the same first update as one process with twice the batch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from support.processes import ONE, SETTINGS, SGD, TWO, shell
from support.runs import adapter, checkpoint, logged

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("stage", "options", "split"),
    [
        pytest.param(*setting, *[[]] * (len(setting) == 2), id=name, marks=[pytest.mark.slow] * (name != "grpo"))
        for name, setting in SETTINGS.items()
    ],
)
def test_the_first_update_is_the_same(stage, options, split, lab, tmp_path):
    """`split` are options of the two processes alone: batches of another size, with as many samples in the update."""
    options = [*options, *SGD, "--trainer.max_steps=1", "--model.max_grad_norm=0.5"]
    lab.run("fit", stage, tmp_path / "one", *options, *ONE)
    lab.run("fit", stage, tmp_path / "start", *options, *ONE, "--model.optimizer.lr=0.0")
    shell(lab.arguments("fit", stage, tmp_path / "two", *options, *TWO, *split))
    one, two, start = (adapter(tmp_path / name) for name in ("one", "two", "start"))
    assert any((one[key] - start[key]).abs().max() > 1e-3 for key in one)
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=1e-6, rtol=0)
    norms = [float(logged(tmp_path / name)[0]["train/grad_norm"]) for name in ("one", "two")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


@pytest.mark.slow
def test_evaluation_judges_each_sample_once(lab, tmp_path):
    lab.run("test", "SFTModule", tmp_path / "one")
    shell(lab.arguments("test", "SFTModule", tmp_path / "two", "--trainer.strategy=ddp", "--trainer.devices=2"))
    assert json.loads((tmp_path / "two" / "metrics.json").read_text()) == pytest.approx(
        json.loads((tmp_path / "one" / "metrics.json").read_text()), abs=1e-6
    )
    one, two = (pq.read_table(tmp_path / name / "predictions.parquet")["id"].to_pylist() for name in ("one", "two"))
    assert one == two and len(set(two)) == 14
    assert not list((tmp_path / "two").glob("*.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_all_at_the_same_step(rank, lab, tmp_path):
    options = ["--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.max_epochs=100000"]
    command = [sys.executable, str(TESTS.parent / "cli.py"), *lab.arguments("fit", "SFTModule", tmp_path, *options)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    leader = subprocess.Popen(command, env=environment, **streams)
    table, until = tmp_path / "metrics" / "version_0" / "metrics.csv", time.monotonic() + 200
    while not (table.is_file() and len(table.read_text().splitlines()) > 3):
        assert leader.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    (other,) = Path(f"/proc/{leader.pid}/task/{leader.pid}/children").read_text().split()
    os.kill([leader.pid, int(other)][rank], signal.SIGTERM)
    said = leader.communicate(timeout=60)[0]  # ends when no process holds the pipe
    assert leader.returncode == 143 and "Traceback" not in said, said
    assert f"Saved step {checkpoint(tmp_path)['global_step']};" in said
