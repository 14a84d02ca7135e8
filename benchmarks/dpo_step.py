"""Time one DPO step: DermIQ's shared prompt against TRL's `DPOTrainer`, on the same model, pair and adapter weights.

    python benchmarks/dpo_step.py [--prompt-tokens 1100] [--new-tokens 64] [--out FILE]

Both train on the same pair again and again, in turn, each with its own model and optimiser. They must agree on the
gradient of the first step and on the loss of every step. What is measured, and how to read the JSON:
`benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from grpo_step import HIDDEN, LAYERS, Bench, Inputs, Settings, load, machine, summary
from lightning.pytorch import Callback, LightningModule, Trainer
from trl import DPOConfig, DPOTrainer

from dermiq.datamodules.collate import Samples
from dermiq.modules import DPOModule
from dermiq.prompts import to_messages
from dermiq.schema import PreferencePair
from families import build_model_dir
from trl_lab import adapter_weights, difference, quiet_trainer, trl_trainer

BETA, RATE, MAX_NORM = 0.1, 1e-5, 1.0
PAIR = PreferencePair(id="pair", images=("lesion.png",), target="", label="", group="pair", chosen="a", rejected="b")


class TakeTurns(Callback):
    """After each step of DermIQ's `fit`, one step of TRL's trainer, both timed.

    Args:
        trainer: TRL's, on its own copy of the policy.
        inputs: a batch as its collator makes it.
    """

    def __init__(self, trainer: DPOTrainer, inputs: Inputs) -> None:
        self.trl, self.inputs = trainer, inputs
        self.weights = adapter_weights(trainer.model)
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=RATE)
        self.seconds: dict[str, list[float]] = {"dermiq": [], "trl": []}
        self.losses: dict[str, list[float]] = {"dermiq": [], "trl": []}
        self.gradients: dict[str, Tensor] = {}
        self.gradient_difference = float("nan")

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the first gradient."""
        if not self.gradients:
            self.gradients = {name: weight.grad.clone() for name, weight in adapter_weights(pl_module).items()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Stop the clock, and let TRL take its step: forward passes, backward, clipping, optimiser."""
        self.seconds["dermiq"].append(time.perf_counter() - self.start)
        self.losses["dermiq"].append(outputs["loss"].item())
        inputs = {name: value.clone() for name, value in self.inputs.items()}
        start = time.perf_counter()
        loss = self.trl.training_step(self.trl.model, inputs, None)
        if trainer.global_step == 1:
            found = {name: weight.grad for name, weight in self.weights.items()}
            self.gradient_difference = difference(self.gradients, found)
        torch.nn.utils.clip_grad_norm_(self.weights.values(), MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds["trl"].append(time.perf_counter() - start)
        self.losses["trl"].append(loss.item())


def dermiq_batch(bench: Bench, ids: Tensor) -> dict[str, Any]:
    """A batch of one pair [2, T] as the data module serves it, its tensors new."""
    _, rows, columns = (
        bench.prompt["image_grid_thw"][0] * bench.backbone.processor.image_processor.patch_size
    ).tolist()
    return {
        "samples": Samples([PAIR]),
        "messages": [to_messages(PAIR)],
        "images": [[Image.new("RGB", (columns, rows))]],
        "prompt": {name: value.clone() for name, value in bench.prompt.items()},
        "completion_ids": ids,
        "completion_mask": torch.ones_like(ids, dtype=torch.bool),
    }


def trl_inputs(bench: Bench, ids: Tensor) -> Inputs:
    """The same pair as TRL's collator serves it: each completion behind its own copy of prompt and image."""
    inputs = bench.copies(2)
    length = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = pad(inputs["mm_token_type_ids"], (0, ids.shape[1]))
    inputs["completion_mask"] = pad(torch.ones_like(ids), (length, 0))
    return inputs


def time_steps(directory: Path, settings: Settings, precomputed: bool) -> dict[str, Any]:
    """Steps of both in turn; the reference's log-probs are computed in every step, or known from the first one on."""
    bench = load(directory, settings)
    ids = bench.completions(2)
    with tempfile.TemporaryDirectory() as folder:
        row = {"prompt": "unused", "chosen": "unused", "rejected": "unused", "images": []}
        trainer = trl_trainer(
            bench.backbone, DPOTrainer, DPOConfig, [row], output_dir=folder, beta=BETA, max_length=None
        )
        inputs = trl_inputs(bench, ids)
        if precomputed:  # TRL refuses to for images, so its own code is asked directly
            trainer.precompute_ref_logps = True
            inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = trainer.compute_ref_log_probs(
                trainer.model, inputs
            )
        turns = TakeTurns(trainer, inputs)
        module = DPOModule(
            bench.backbone, None, partial(torch.optim.AdamW, lr=RATE), max_grad_norm=MAX_NORM, beta=BETA,
            reference_cache=str(Path(folder) / "reference.jsonl") if precomputed else None,
        )  # fmt: skip
        batches = DataLoader([dermiq_batch(bench, ids) for _ in range(settings.repeats + 1)], batch_size=None)
        quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[turns]).fit(module, batches, batches)
    seconds = {path: summary(values[1:]) for path, values in turns.seconds.items()}  # without the warm-up
    pairs = zip(seconds["trl"]["all"], seconds["dermiq"]["all"], strict=True)
    losses = list(zip(turns.losses["dermiq"], turns.losses["trl"], strict=True))
    return {
        "seconds": seconds,
        "trl_over_dermiq": summary([slow / fast for slow, fast in pairs]),
        "agreement": {
            "first_losses": dict(zip(("dermiq", "trl"), losses[0], strict=True)),
            "first_relative_gradient_difference": turns.gradient_difference,
            "max_abs_loss_difference": max(abs(a - b) for a, b in losses),
        },
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time one DPO step: DermIQ against TRL's DPOTrainer.")
    parser.add_argument("--prompt-tokens", type=int, default=1100, help="image and text")
    parser.add_argument("--new-tokens", type=int, default=64, help="length of both completions")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    return parser.parse_args()


def main() -> None:
    """Measure, and print JSON."""
    options = parse()
    os.environ["CI"] = "1"  # TRL reports every trainer to its makers otherwise
    settings = Settings(
        options.prompt_tokens, options.new_tokens, group_size=2, groups=[], completions_per_pass=2,
        repeats=options.repeats, threads=options.threads,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        directory = build_model_dir("qwen2_5_vl", Path(folder), layers=LAYERS, hidden=HIDDEN)
        bench = load(directory, settings)
        result = {
            "machine": machine() | {"trl": version("trl")},
            "settings": {name: value for name, value in vars(options).items() if name != "out"},
            "model": {
                "family": "qwen2_5_vl, random weights, float32",
                "parameters": sum(p.numel() for p in bench.backbone.vlm.parameters()),
                "trainable": sum(p.numel() for p in bench.backbone.trainable_parameters()),
                "prompt_tokens": bench.prompt["input_ids"].shape[1],
                "image_tokens": bench.image_tokens,
            },
            "reference_in_every_step": time_steps(directory, settings, precomputed=False),
            "reference_precomputed": time_steps(directory, settings, precomputed=True),
        }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
