"""Runs in processes of their own, and the settings under which two processes are compared with one."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


TWO = ["--trainer.strategy=ddp", "--trainer.devices=2", "--data.batch_size=2"]


ONE = ["--data.batch_size=4"]


# The step of SGD at rate 1 is the gradient itself; Adam's first step would be little more than its sign.
SGD = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1.0"]


SETTINGS = {
    "sft": ("SFTModule", []),
    "dpo": ("DPOModule", []),
    "grpo": ("GRPOModule", ["--model.tokens_per_pass=10", "--model.kl_coef=0.1"]),
    "sft-accumulated": ("SFTModule", [], ["--data.batch_size=1", "--trainer.accumulate_grad_batches=2"]),
    "dpo-accumulated": ("DPOModule", [], ["--data.batch_size=1", "--trainer.accumulate_grad_batches=2"]),
    "grpo-by-tokens": (
        "GRPOModule",
        [
            "--model.token_weights=dermiq.objectives.losses.per_token",
            "--model.sampling.stop=[e,a,r]",
            "--model.tokens_per_pass=null",
        ],
    ),
    "grpo-in-one-pass": ("GRPOModule", ["--model.tokens_per_pass=null"]),
}


def shell(arguments):
    """Run the command line in processes of its own."""
    process = subprocess.run(
        [sys.executable, str(TESTS.parent / "cli.py"), *arguments],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr
