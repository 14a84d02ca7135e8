"""Profile of a GRPO++ step: parts of the quickstart's step in seconds, and its operators by torch's profiler.

    python benchmarks/profile_step.py --out benchmarks/results/profile_step.json

The quickstart's own configuration is trained for some steps from a fresh adapter on the shipped tiny model. Parts are
distinguished by the functions that do them; what no part claims is Lightning, logging and waiting for data.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from measuring import machine, publish
from torch.profiler import ProfilerActivity, profile

import dermiq.modules.grpo as grpo
import dermiq.policy.rollout as rollout
from dermiq.cli import run
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.decoding import Decoder
from dermiq.policy.lora import LoRA
from dermiq.rewards import RewardMixture
from dermiq.tiny import write_tiny_vlm

CONFIG, BACKBONE = "configs/quickstart/grpo.yaml", "configs/backbone/tiny.yaml"
MODEL = ("prompt", "rollout", "reference", "update", "optimiser")


class Clock:
    """Seconds of each part, those of parts within it left out, over `count` steps after a warm-up."""

    def __init__(self, warm_up: int, count: int) -> None:
        self.first, self.last = warm_up + 1, warm_up + count
        self.step, self.start, self.total = 0, 0.0, 0.0
        self.parts: Counter[str] = Counter()
        self._within: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted as `name`."""

        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self._within.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds, within = time.perf_counter() - start, self._within.pop()
                if self._within:
                    self._within[-1] += seconds
                if self.first <= self.step <= self.last:
                    self.parts[name] += seconds - within

        return wrapper

    def stepping(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`training_step`, which begins a step and ends the one before."""

        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.step += 1
            if self.step == self.first:
                self.start = time.perf_counter()
            elif self.step == self.last + 1:
                self.total = time.perf_counter() - self.start
            return function(*args, **kwargs)

        return wrapper


def fresh_adapter(folder: Path) -> None:
    """An adapter of the shape that the quickstart's warm start trains."""
    options = yaml.safe_load(Path(BACKBONE).read_text())["lora"]
    backbone = VLMBackbone(str(folder / "tiny"), LoRA(**options))
    backbone.load()
    backbone.save_adapter(folder / "adapter")


def train(clock: Clock, steps: int, more: list[str]) -> None:
    """Some steps of the configuration with the clock in it."""
    module = grpo.GRPOModule
    parts = [
        (module, "training_step", clock.stepping(module.training_step)),
        (grpo, "prefill", clock.timed("prompt", grpo.prefill)),
        (Decoder, "complete", clock.timed("rollout", Decoder.complete)),
        (module, "_reference_logprobs", clock.timed("reference", module._reference_logprobs)),
        (module, "_backward", clock.timed("update", module._backward)),
        (module, "_step", clock.timed("optimiser", module._step)),
        (RewardMixture, "__call__", clock.timed("rewards", RewardMixture.__call__)),
        (rollout, "parse", clock.timed("parsing", rollout.parse)),
        (module, "_log", clock.timed("logging", module._log)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_vlm(Path(folder) / "tiny")
        fresh_adapter(Path(folder))
        arguments = [
            "fit",
            f"--config={CONFIG}",
            f"--trainer.default_root_dir={folder}/run",
            f"--trainer.max_steps={steps}",
            "--trainer.limit_val_batches=0",
            f"--model.backbone.model_id={folder}/tiny",
            f"--model.backbone.adapter_path={folder}/adapter",
        ]
        with ExitStack() as stack:
            for owner, name, wrapper in parts:
                stack.enter_context(mock.patch.object(owner, name, wrapper))
            run([*arguments, *more])


def operators(more: list[str]) -> list[dict[str, Any]]:
    """The operators that took most of the CPU in three steps."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        train(Clock(99, 1), 3, more)
    found = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in found)
    return [
        {"operator": event.key, "share": round(event.self_cpu_time_total / total, 4), "calls": event.count}
        for event in found[:20]
    ]


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options, more = parser.parse_known_args()
    clock = Clock(3, options.steps)
    train(clock, clock.last + 1, more)
    model = sum(clock.parts[name] for name in MODEL)
    result = {
        "machine": machine("torch", "transformers", "peft", "lightning", "dermiq")
        | {"threads": torch.get_num_threads()},
        "config": CONFIG,
        "steps": options.steps,
        "step_s": clock.total / options.steps,
        "parts_s": {name: round(value / options.steps, 5) for name, value in clock.parts.items()},
        "outside_the_model": round(1 - model / clock.total, 4),
        "operators": operators(more),
    }
    publish(result, options.out)


if __name__ == "__main__":
    main()
