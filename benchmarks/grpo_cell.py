"""One cell of the GRPO benchmark: DermIQ and TRL measured in turn in one process."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from bench_models import HIDDEN, Case, build, image_tokens, language_model, tower
from cost_model import Step, duplicated, ratios, shared
from dermiq_grpo import RANK, fit, load_policy
from measuring import exact_malloc, summary
from trl_grpo import TRLSteps

from dermiq.policy.backbone import VLMBackbone

PARTS = ("step", "step_without_data", "rollout", "update", "update_alone")


@dataclass(frozen=True)
class Cell:
    """What one measurement depends on beside the machine.

    Attributes:
        kind: `time`, or `memory` of one side.
        family: of the model.
        size: of the model.
        prompt_tokens: pictures and text.
        new_tokens: of every completion.
        group_size: completions.
        repeats: steps that are timed on either side, after one that is not.
        threads: of torch.
        tokens_per_pass: DermIQ's micro-batch, in tokens of completions.
        side: `dermiq` or `trl`, whose memory it is; `both` for time.
        micro_batch: TRL's, in completions; 0 lets it find its fastest.
    """

    kind: str
    family: str
    size: str
    prompt_tokens: int
    new_tokens: int
    group_size: int
    repeats: int
    threads: int
    tokens_per_pass: int
    side: str = "both"
    micro_batch: int = 0

    @property
    def work(self) -> float:
        """About how long it takes, in no unit."""
        tokens = self.group_size * (self.prompt_tokens + 2 * self.new_tokens)
        return 8000 + tokens * (self.repeats + 3 if self.kind == "time" else 2) * (HIDDEN[self.size] / 320)

    def __str__(self) -> str:
        """A line of progress."""
        where = f"{self.family} {self.size}, prompt {self.prompt_tokens}, {self.group_size} x {self.new_tokens}"
        return f"{self.kind} of {self.side}: {where}"


def measure(cell: Cell) -> dict[str, Any]:
    """Measure one cell in this process, whose settings of torch and of malloc it changes."""
    torch.set_num_threads(cell.threads)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = build(cell.family, cell.size, cell.prompt_tokens, folder / "model")
        backbone = load_policy(case.directory)
        found = _times(cell, case, backbone, folder) if cell.kind == "time" else _memory(cell, case, backbone, folder)
        model = {
            "parameters": sum(p.numel() for p in backbone.vlm.parameters()),
            "trained": sum(p.numel() for p in backbone.trainable_parameters()),
            "images": len(case.images),
            "image_tokens": image_tokens(backbone.vlm.config, case),
        }
    return {"settings": asdict(cell), "model": model, **found, "load_average": [load, os.getloadavg()[0]]}


def _times(cell: Cell, case: Case, backbone: VLMBackbone, folder: Path) -> dict[str, Any]:
    """Seconds of both sides, whether they compute the same, and what the cost model says."""
    trl = TRLSteps(backbone, case, cell.group_size, cell.new_tokens, folder / "trl")
    kept = trl.completions()
    agreement = trl.agreement(kept, backbone, case.batch(0)["prompt"])
    best = trl.calibrate(kept)
    theirs: list[dict[str, float]] = []
    watch = fit(
        backbone, case, cell.group_size, cell.new_tokens, cell.tokens_per_pass, cell.repeats + 1, folder,
        lambda: theirs.append(trl.step()),
    )  # fmt: skip
    config = backbone.vlm.config
    step = Step(cell.prompt_tokens, len(case.images), cell.new_tokens, cell.group_size)
    sizes = language_model(config, RANK), tower(config, case), step
    fast, slow = shared(*sizes, cell.tokens_per_pass), duplicated(*sizes, best["micro_batch"])
    return {
        "agreement": agreement,
        "trl": best,
        **compare(watch.steps[1:], theirs[1:]),
        "predicted": {
            "dermiq": {phase: asdict(cost) for phase, cost in fast.items()},
            "trl": {phase: asdict(cost) for phase, cost in slow.items()},
            "trl_over_dermiq": ratios(slow, fast),
        },
    }


def _memory(cell: Cell, case: Case, backbone: VLMBackbone, folder: Path) -> dict[str, Any]:
    """Peaks of one side, and how far they are above what was resident before the step, in MiB."""
    exact_malloc()
    if cell.side == "trl":
        peaks = TRLSteps(backbone, case, cell.group_size, cell.new_tokens, folder).peaks(cell.micro_batch)
    else:
        peaks = fit(backbone, case, cell.group_size, cell.new_tokens, cell.tokens_per_pass, 2, folder).peaks[1]
    growth = {f"{part}_growth": peaks[part] - peaks["before"] for part in ("rollout", "update")}
    return {"mib": peaks | growth}


def compare(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of both sides and of the ratios of steps that stood side by side.

    TRL has no update that shares its pass over the prompt: `update_alone` holds its whole update against DermIQ's with
    the prefill.
    """
    theirs = [step | {"update_alone": step["update"]} for step in theirs]
    seconds = {
        side: {part: summary([step[part] for step in steps]) for part in steps[0]}
        for side, steps in (("dermiq", ours), ("trl", theirs))
    }
    pairs = list(zip(theirs, ours, strict=True))
    return {
        "seconds": seconds,
        "trl_over_dermiq": {part: summary([slow[part] / fast[part] for slow, fast in pairs]) for part in PARTS},
    }
