"""The quickstart: a tiny VLM goes through the whole pipeline on synthetic lesions, in minutes.

``python -m dermiq.quickstart`` runs, for each seed: a supervised warm start, GRPO++ (diagnose by reasoning), SFT
(converse), preference pairs chosen by the knowledge graph, and DPO on them; each stage starts from the adapter of the
one before. After each stage one evaluation tests diagnoses and conversations on the same held-out lesions, at the end
also with facts of the graph in the prompt (KG-RAG). ``results.json`` holds all figures, ``report/index.html`` shows
them and every case of the first seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from dermiq.cli import run
from dermiq.files import write_atomically
from dermiq.metrics import CONVERSATION
from dermiq.metrics.bootstrap import Estimate, resampled_means
from dermiq.programs.arguments import Program
from dermiq.programs.exits import exit_codes, interrupted
from dermiq.report import write_report
from dermiq.run_directory import RunDirectory
from dermiq.tiny import write_tiny_vlm
from dermiq.trainer.exclusive_run import Lock, set_aside

CONFIGS = Path(__file__).parent / "configs" / "quickstart"
STAGES = {"warmstart": "warm start", "grpo": "GRPO++", "sft": "SFT", "dpo": "DPO"}
GROUNDED = "grounded"
TITLES = STAGES | {GROUNDED: "DPO + KG-RAG"}
METRICS = {
    "sampled_accuracy": "accuracy (sampled)",
    "accuracy": "accuracy (greedy)",
    "majority_accuracy": "accuracy (majority of 8)",
    "macro_f1": "macro-F1 (greedy)",
    "sampled_reward/format": "format rate",
    "sampled_reward/truthfulness": "true findings in the reasoning",
    "sampled_reasoning_length": "reasoning (words)",
    "conversation/sampled_reward/kg_contradiction": "conversation: contradiction rate",
    "conversation/reward/kg_contradiction": "conversation: contradiction rate (greedy)",
    "conversation/sampled_reward/kg_harm": "conversation: harm",
    "conversation/sampled_reward/kg_precision": "conversation: KG precision",
    "conversation/sampled_reward/kg_coverage": "conversation: KG coverage",
    "conversation/sampled_reward/truthfulness": "conversation: true findings",
    "conversation/sampled_completion_length": "conversation: answer (tokens)",
    "training_seconds": "training (s)",
}


@dataclass(frozen=True)
class Change:
    """Paired difference of one stage from another, by held-out question, seeds averaged.

    Attributes:
        metric: a key of a prediction's ``sampled`` values.
        before: the stage compared with.
        after: the stage.
        conversation: of replies in conversation, else of diagnoses.
        mean: after - before.
        standard_error: of the mean, by resampling groups of questions (lesions).
        interval: of 95 %, by the same.
    """

    metric: str
    before: str
    after: str
    conversation: bool
    mean: float
    standard_error: float
    interval: tuple[float, float]


def main(args: Sequence[str] | None = None) -> None:
    """Run the quickstart, print its table and write ``results.json`` and the report."""
    parser = Program(prog="python -m dermiq.quickstart", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run for each seed (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="where all files go")
    parser.add_argument("--overrides", nargs="*", default=[], help="options for every stage, e.g. trainer.max_steps=2")
    options = parser.parse_args(args)
    torch.set_num_threads(1)  # at this size more threads wait for each other longer than they work
    with Lock(options.out):
        _carry_out(options)


def _carry_out(options: argparse.Namespace) -> None:
    """Run it for each seed, and write the results; an earlier quickstart is set aside."""
    if any(options.out.glob("seed*")):
        earlier = [*sorted(options.out.glob("seed*")), options.out / "results.json", options.out / "report"]
        set_aside(options.out, earlier, "The earlier quickstart")
    model = options.out / "tiny"
    write_tiny_vlm(model)
    overrides = [f"--{override}" for override in options.overrides]
    stages = {}
    try:
        for seed in options.seeds:
            stages[seed] = Pipeline(options.out / f"seed{seed}", model, seed, overrides).run()
    except (KeyboardInterrupt, SystemExit) as error:
        if interrupted(error):
            print("Interrupted. Started again, the quickstart begins anew.")
        raise
    results = {"seeds": options.seeds, "stages": stages, "changes": [asdict(c) for c in changes(options.out, stages)]}
    write_atomically(options.out / "results.json", json.dumps(results, indent=2) + "\n")
    report(results)
    print(f"All figures: {options.out / 'results.json'}")
    first = options.out / f"seed{options.seeds[0]}"
    story = [*STAGES, GROUNDED]
    page = write_report([first / stage for stage in story], [TITLES[stage] for stage in story], options.out / "report")
    print(f"A page to look at: {page}")


@dataclass(frozen=True)
class Pipeline:
    """All stages under one seed, each in its own directory under `root`."""

    root: Path
    model: Path
    seed: int
    overrides: list[str]

    def run(self) -> dict[str, dict[str, float]]:
        """Train and test stage after stage; the metrics of each."""
        metrics = {"warmstart": self._stage("warmstart")}
        metrics["grpo"] = self._stage("grpo", self._from("warmstart"), f"--model.seed={self.seed}")
        metrics["sft"] = self._stage("sft", self._from("grpo"))
        start = time.perf_counter()
        run(["predict", *self._arguments("pairs", self._from("sft"))])
        seconds = time.perf_counter() - start
        pairs = f"--data.sources.train.path={RunDirectory(self.root / 'pairs').preferences}"
        metrics["dpo"] = self._stage("dpo", self._from("sft"), pairs) | {"pairs_seconds": seconds}
        metrics[GROUNDED] = self._test(GROUNDED, self._from("dpo"))
        return metrics

    def _from(self, stage: str) -> str:
        return f"--model.backbone.adapter_path={RunDirectory(self.root / stage).adapter}"

    def _stage(self, stage: str, *more: str) -> dict[str, float]:
        """Train, then test; the metrics of the test and the seconds of the training."""
        start = time.perf_counter()
        run(["fit", *self._arguments(stage, *more)])
        seconds = time.perf_counter() - start
        return self._test(stage, *more, "--ckpt_path=last") | {"training_seconds": seconds}

    def _test(self, stage: str, *more: str) -> dict[str, float]:
        run(["test", *self._arguments(stage, *more)])
        metrics = RunDirectory(self.root / stage).metrics()
        return {name.removeprefix("test/"): value for name, value in metrics.items()}

    def _arguments(self, stage: str, *more: str) -> list[str]:
        return [
            f"--config={CONFIGS / stage}.yaml",
            f"--trainer.default_root_dir={self.root / stage}",
            *self.overrides,
            f"--seed_everything={self.seed}",
            f"--data.seed={self.seed}",
            f"--model.backbone.model_id={self.model}",
            *more,
        ]


def changes(out: Path, stages: dict[int, dict[str, Any]]) -> list[Change]:
    """Paired differences of each stage from the one before it."""
    return [
        _change(out, list(stages), before, after, metric, conversation)
        for before, after, metric, conversation in (
            ("warmstart", "grpo", "accuracy", False),
            ("grpo", "sft", "accuracy", False),
            ("grpo", "sft", "reward/kg_contradiction", True),
            ("sft", "dpo", "accuracy", False),
            ("sft", "dpo", "reward/kg_contradiction", True),
            ("sft", "dpo", "reward/kg_harm", True),
            ("sft", "dpo", "reward/kg_coverage", True),
            ("sft", "dpo", "reward/truthfulness", True),
            ("dpo", GROUNDED, "reward/kg_contradiction", True),
        )
    ]


def _change(out: Path, seeds: Sequence[int], before: str, after: str, metric: str, conversation: bool) -> Change:
    differences: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        one, other = (_sampled(out / f"seed{seed}" / stage, metric, conversation) for stage in (before, after))
        for question in one.keys() & other.keys():
            differences.setdefault(question, []).append(other[question] - one[question])
    questions = sorted(differences)
    means = np.array([np.mean(differences[question]) for question in questions])
    resampled = resampled_means(means[:, None], [group for group, _ in questions])[:, 0]
    found = Estimate(float(means.mean()), resampled)
    return Change(metric, before, after, conversation, found.value, found.standard_error, found.interval)


def _sampled(directory: Path, metric: str, conversation: bool) -> dict[tuple[str, str], float]:
    """Group and id of a question -> the mean over the answers sampled to it, where the metric applies."""
    column = f"sampled_{metric}"
    rows = pq.read_table(RunDirectory(directory).predictions, columns=["group", "id", "kind", column]).to_pylist()
    return {
        (row["group"], row["id"]): row[column]
        for row in rows
        if (row["kind"] == CONVERSATION) == conversation and row[column] is not None
    }


def report(results: dict[str, Any]) -> None:
    """Print the stages' metrics, means over the seeds, and the paired differences."""
    runs = list(results["stages"].values())
    table = Table(title=f"Held-out synthetic lesions, seeds {results['seeds']}", title_justify="left")
    table.add_column("")
    for stage in runs[0]:
        table.add_column(TITLES[stage], justify="right")
    for name, title in METRICS.items():
        values = [[stages[stage].get(name) for stages in runs] for stage in runs[0]]
        table.add_row(title, *map(_mean, values))
    console = Console()
    console.print(table)
    for change in results["changes"]:
        low, high = change["interval"]
        what = "conversation: " if change["conversation"] else ""
        console.print(
            f"{TITLES[change['before']]} → {TITLES[change['after']]}: {what}{change['metric']} "
            f"{100 * change['mean']:+.1f} points, 95 % interval [{100 * low:+.1f}, {100 * high:+.1f}]"
        )


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean = sum(known) / len(known)
    return f"{mean:.3f}" if mean <= 1 else f"{mean:.1f}"


if __name__ == "__main__":
    with exit_codes():
        main()
