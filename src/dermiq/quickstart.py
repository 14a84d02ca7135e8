"""The quickstart: a tiny VLM learns to diagnose drawn lesions, by supervision and then by GRPO++, in minutes.

``python -m dermiq.quickstart`` runs, for each seed: the untouched model, a supervised warm start, GRPO++ from its
adapter, and as a baseline supervised training continued from the same adapter, on the same images, for the same
time. Each is tested on the same held-out images; ``results.json`` keeps all figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dermiq.cli import exit_codes, run
from dermiq.tiny import write_tiny_vlm

CONFIGS = Path(__file__).parents[2] / "configs" / "quickstart"
STAGES = {
    "untrained": "before",
    "warmstart": "warm start",
    "grpo": "GRPO++",
    "continued": "SFT instead",
}
METRICS = {
    "sampled_accuracy": "accuracy (sampled)",
    "accuracy": "accuracy (greedy)",
    "majority_accuracy": "accuracy (majority of 8)",
    "sampled_reward/format": "format rate",
    "sampled_reward/truthfulness": "true statements",
    "sampled_reasoning_length": "reasoning (words)",
    "training_seconds": "training (s)",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the quickstart, print its table and write ``results.json``."""
    parser = argparse.ArgumentParser(prog="python -m dermiq.quickstart", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run for each seed (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="where all files go")
    parser.add_argument("--overrides", nargs="*", default=[], help="options for every stage, e.g. trainer.max_steps=2")
    options = parser.parse_args(args)
    torch.set_num_threads(1)  # at this size more threads wait for each other longer than they work
    model = options.out / "tiny"
    write_tiny_vlm(model)
    overrides = [f"--{override}" for override in options.overrides]
    stages = {
        seed: _run_stages(options.out / f"seed{seed}", [*overrides, *_settings(model, seed)], seed)
        for seed in options.seeds
    }
    results = {"seeds": options.seeds, "stages": stages, "gains": _gains(options.out, options.seeds)}
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    report(results)
    print(f"All figures: {options.out / 'results.json'}")


def report(results: dict[str, Any]) -> None:
    """Print the stages' metrics, means over the seeds, and the gains over the warm start."""
    table = Table(title=f"Held-out drawn lesions, seeds {results['seeds']}", title_justify="left")
    table.add_column("")
    for title in STAGES.values():
        table.add_column(title, justify="right")
    for name, title in METRICS.items():
        runs = [[stages[stage][name] for stages in results["stages"].values()] for stage in STAGES]
        means = [sum(values) / len(values) for values in runs]
        table.add_row(title, *(f"{mean:.3f}" if mean <= 1 else f"{mean:.1f}" for mean in means))
    console = Console()
    console.print(table)
    for stage, gain in results["gains"].items():
        console.print(
            f"{STAGES[stage]}: sampled accuracy {100 * gain['mean']:+.1f} points over the warm start, "
            f"standard error {100 * gain['standard_error']:.1f}"
        )


def _settings(model: Path, seed: int) -> list[str]:
    return [
        f"--seed_everything={seed}",
        f"--data.init_args.seed={seed}",
        f"--model.init_args.backbone.init_args.model_id={model}",
    ]


def _run_stages(root: Path, settings: list[str], seed: int) -> dict[str, dict[str, float]]:
    adapter = f"--model.init_args.backbone.init_args.adapter_path={root / 'warmstart' / 'adapter'}"
    metrics = {"untrained": _test(root / "untrained", "warmstart", settings)}
    metrics["warmstart"] = _stage(root / "warmstart", "warmstart", settings)
    metrics["grpo"] = _stage(root / "grpo", "grpo", [*settings, adapter, f"--model.init_args.seed={seed}"])
    minutes, seconds = divmod(round(metrics["grpo"]["training_seconds"]), 60)
    limit = f"--trainer.max_time=00:00:{minutes:02d}:{seconds:02d}"
    metrics["continued"] = _stage(root / "continued", "continued", [*settings, adapter, limit])
    return metrics


def _stage(directory: Path, config: str, settings: list[str]) -> dict[str, float]:
    """Train, then test; the metrics of the test and the seconds of the training."""
    start = time.perf_counter()
    run(["fit", *_arguments(directory, config, settings)])
    seconds = time.perf_counter() - start
    return _test(directory, config, [*settings, "--ckpt_path=last"]) | {"training_seconds": seconds}


def _test(directory: Path, config: str, settings: list[str]) -> dict[str, float]:
    run(["test", *_arguments(directory, config, settings)])
    metrics = json.loads((directory / "metrics.json").read_text())
    return {name.removeprefix("test/"): value for name, value in metrics.items()} | {"training_seconds": 0.0}


def _arguments(directory: Path, config: str, settings: list[str]) -> list[str]:
    return [f"--config={CONFIGS / config}.yaml", f"--trainer.default_root_dir={directory}", *settings]


def _gains(out: Path, seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """Gains of GRPO++ and of continued supervision over the warm start, seeds averaged per image."""
    gains = {}
    for stage in ("grpo", "continued"):
        differences = [_sampled(out / f"seed{s}" / stage) - _sampled(out / f"seed{s}" / "warmstart") for s in seeds]
        per_image = torch.stack(differences).mean(dim=0)
        gains[stage] = {
            "mean": float(per_image.mean()),
            "standard_error": float(per_image.std()) / len(per_image) ** 0.5,
        }
    return gains


def _sampled(directory: Path) -> torch.Tensor:
    """[images] sampled accuracy of each test image."""
    lines = (directory / "test_predictions.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(line)["sampled"]["accuracy"] for line in lines], dtype=torch.float64)


if __name__ == "__main__":
    with exit_codes():
        main()
