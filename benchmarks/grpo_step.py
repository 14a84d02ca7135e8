"""Time one GRPO step, and measure its memory: the shared prompt of DermIQ against the usual duplicated prompt.

    python benchmarks/grpo_step.py [--group-size 8] [--prompt-tokens 1100] [--new-tokens 64] [--out FILE]

The duplicated path is what trainers do that know nothing of groups: every completion carries its own copy of the
image and the prompt, through `generate` in the rollout and through one full forward pass in the update. Both
paths score the same completions in micro-batches of the same size, and must agree on log-probs and gradients.
What is measured, and how to read the JSON: `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from dermiq.backbone import LoRA, VLMBackbone
from dermiq.losses import constant_length, policy_loss
from dermiq.prefix import log_softmax, prefill, score
from dermiq.processing import encode_prompts
from dermiq.prompts import to_messages
from dermiq.rollout import Sampling, sample_rollout
from dermiq.schema import Sample
from families import build_model_dir

LAYERS, HIDDEN = 3, 320
SAMPLE = Sample(id="lesion", images=("lesion.png",), target="melanoma", label="mel", group="lesion")
PER_ROW = ("input_ids", "attention_mask", "mm_token_type_ids")
# Memory that malloc keeps for later would hide what is in use: let it return every freed tensor at once.
EXACT_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """What is measured; every field is an option of the command line."""

    prompt_tokens: int
    new_tokens: int
    group_size: int
    groups: list[int]
    completions_per_pass: int
    repeats: int
    threads: int


@dataclass(frozen=True)
class Bench:
    """A loaded model, one prompt [1, P], and what both paths do with them."""

    backbone: VLMBackbone
    prompt: Inputs
    settings: Settings

    @property
    def image_tokens(self) -> int:
        """Positions of the prompt that hold the image."""
        return int((self.prompt["input_ids"] == self.backbone.vlm.config.image_token_id).sum())

    def copies(self, count: int) -> Inputs:
        """The prompt and its image `count` times, as a processor would make them of `count` equal conversations."""
        return {name: value.repeat(count, *[1] * (value.ndim - 1)) for name, value in self.prompt.items()}

    def completions(self, group_size: int) -> Tensor:
        """Ids [G, T] of completions, drawn from the tokens that a policy may write."""
        allowed = (~self.backbone.banned).nonzero().flatten()
        generator = torch.Generator().manual_seed(0)
        return allowed[torch.randint(len(allowed), (group_size, self.settings.new_tokens), generator=generator)]

    def rollout_shared(self, group_size: int) -> None:
        """Sample with the product's own code."""
        sampling = Sampling(self.settings.new_tokens)
        rollout = sample_rollout(self.backbone, self.prompt, [SAMPLE], sampling, group_size)
        assert rollout.ids.shape == (group_size, self.settings.new_tokens) and rollout.mask.all()

    def rollout_duplicated(self, group_size: int) -> None:
        """Sample with transformers' `generate`, one copy of the prompt per completion."""
        length = self.settings.new_tokens
        with self.backbone.sampling_mode():
            output = self.backbone.vlm.generate(
                **self.copies(group_size), do_sample=True, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0,
                suppress_tokens=self.backbone.banned.nonzero().flatten().tolist(),
                min_new_tokens=length, max_new_tokens=length,
            )  # fmt: skip
            ids = output[:, self.prompt["input_ids"].shape[1] :]
            self.backbone.decode(ids, torch.ones_like(ids, dtype=torch.bool))
        assert ids.shape == (group_size, length)
        self.backbone.vlm.model.rope_deltas = None

    def update_shared(self, ids: Tensor) -> Tensor:
        """Gradients of the policy loss as the GRPO module makes them; returns the log-probs [G, T]."""
        prefix = prefill(self.backbone, self.prompt).detach()
        logprobs = []
        for part in ids.split(self.settings.completions_per_pass):
            rows = torch.zeros(len(part), dtype=torch.int64)
            tokens = score(self.backbone, prefix, rows, part, torch.ones_like(part, dtype=torch.bool))
            logprobs.append(self._backward(tokens.logprobs, len(logprobs), len(ids)))
        prefix.pullback().backward()
        return torch.cat(logprobs)

    def update_duplicated(self, ids: Tensor) -> Tensor:
        """The same gradients from full forward passes over prompt and completion, one copy of each per row."""
        logprobs = []
        for part in ids.split(self.settings.completions_per_pass):
            inputs = self.copies(len(part))
            extra = {"input_ids": part, "attention_mask": torch.ones_like(part)}
            for name in PER_ROW:
                inputs[name] = torch.cat([inputs[name], extra.get(name, torch.zeros_like(part))], dim=1)
            self.backbone.vlm.model.rope_deltas = None
            output = self.backbone.vlm(**inputs, use_cache=False, logits_to_keep=part.shape[1] + 1)
            distribution = log_softmax(output.logits[:, :-1], self.backbone.banned)
            chosen = distribution.gather(-1, part[..., None])[..., 0]
            logprobs.append(self._backward(chosen, len(logprobs), len(ids)))
        self.backbone.vlm.model.rope_deltas = None
        return torch.cat(logprobs)

    def _backward(self, logprobs: Tensor, part: int, group_size: int) -> Tensor:
        """Send back the loss of one micro-batch, on its first inner epoch: the old policy is this one."""
        start = part * self.settings.completions_per_pass
        advantages = torch.linspace(-1.0, 1.0, group_size)[start : start + len(logprobs)]
        weights = constant_length(torch.ones_like(logprobs, dtype=torch.bool), self.settings.new_tokens)
        loss, _ = policy_loss(logprobs, logprobs.detach(), advantages, weights * len(logprobs) / group_size)
        loss.backward()
        return logprobs.detach()


PATHS: dict[str, tuple[Callable[[Bench, int], None], Callable[[Bench, Tensor], Tensor]]] = {
    "shared": (Bench.rollout_shared, Bench.update_shared),
    "duplicated": (Bench.rollout_duplicated, Bench.update_duplicated),
}


def load(directory: Path, settings: Settings) -> Bench:
    """Load the model, and an image that makes the prompt as long as asked for."""
    disable_progress_bar()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    backbone = VLMBackbone(str(directory), LoRA(rank=8))
    backbone.load()
    backbone.train()
    with torch.no_grad():
        for name, parameter in sorted(backbone.named_parameters()):
            if "lora_B" in name:  # zero in a new adapter, which would leave its other half without a gradient
                parameter.normal_(0.0, 0.1)
    backbone.banned[list(backbone.stop_ids)] = True  # completions of a fixed length
    images = backbone.processor.image_processor
    images.size = {"shortest_edge": 1, "longest_edge": 2**30}  # leave the picture's size as it is
    unit = images.patch_size * images.merge_size
    prompt = _encode(backbone, unit, 2, 2)
    tokens = settings.prompt_tokens - prompt["input_ids"].shape[1] + 4
    if tokens < 4:
        raise SystemExit(f"the text alone takes {settings.prompt_tokens - tokens} tokens: raise --prompt-tokens")
    heights = range(max(1, int(0.75 * tokens**0.5)), int(tokens**0.5) + 1)
    height = min(heights, key=lambda rows: abs(rows * round(tokens / rows) - tokens))
    return Bench(backbone, _encode(backbone, unit, height, round(tokens / height)), settings)


def _encode(backbone: VLMBackbone, unit: int, height: int, width: int) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (height * unit, width * unit, 3), generator=generator, dtype=torch.uint8)
    return encode_prompts(backbone.processor, [to_messages(SAMPLE)], [[Image.fromarray(pixels.numpy())]])


def compare(bench: Bench) -> dict[str, float]:
    """How far both paths are from each other on the same completions."""
    ids = bench.completions(bench.settings.group_size)
    logprobs, gradients = {}, {}
    for path, (_, update) in PATHS.items():
        logprobs[path] = update(bench, ids)
        gradients[path] = torch.cat([p.grad.flatten() for p in bench.backbone.trainable_parameters()])
        bench.backbone.zero_grad(set_to_none=True)
    distance = (gradients["shared"] - gradients["duplicated"]).norm() / gradients["duplicated"].norm()
    return {
        "max_abs_logprob_difference": float((logprobs["shared"] - logprobs["duplicated"]).abs().max()),
        "relative_gradient_difference": float(distance),
    }


def time_step(bench: Bench, path: str, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Seconds of one step and of its parts, on a batch that was not seen before."""
    bench = replace(bench, prompt={name: value.clone() for name, value in bench.prompt.items()})
    rollout, update = PATHS[path]
    group_size = bench.settings.group_size
    ids = bench.completions(group_size)
    start = time.perf_counter()
    rollout(bench, group_size)
    sampled = time.perf_counter()
    update(bench, ids)
    updated = time.perf_counter()
    optimizer.step()
    optimizer.zero_grad()
    end = time.perf_counter()
    return {"step": end - start, "rollout": sampled - start, "update": updated - sampled}


def time_paths(bench: Bench) -> dict[str, Any]:
    """Medians of both paths, run in turn, and the ratios of runs that stood side by side."""
    optimizer = torch.optim.AdamW(bench.backbone.trainable_parameters(), lr=1e-5)
    for path in PATHS:
        time_step(bench, path, optimizer)
    runs: dict[str, list[dict[str, float]]] = {path: [] for path in PATHS}
    for _ in range(bench.settings.repeats):
        for path, steps in runs.items():
            steps.append(time_step(bench, path, optimizer))
    parts = ("step", "rollout", "update")
    seconds = {path: {part: summary([run[part] for run in runs[path]]) for part in parts} for path in runs}
    pairs = list(zip(runs["duplicated"], runs["shared"], strict=True))
    ratios = {part: summary([slow[part] / fast[part] for slow, fast in pairs]) for part in parts}
    return {"seconds": seconds, "duplicated_over_shared": ratios}


def summary(values: list[float]) -> dict[str, Any]:
    """Median and all values."""
    return {"median": statistics.median(values), "all": values}


def resident(field: str) -> float:
    """Resident memory of this process in MiB: `VmRSS` now, `VmHWM` at its highest since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def probe(bench: Bench, path: str, part: str, group_size: int) -> dict[str, Any]:
    """Peak memory of one rollout or update in this process, which does nothing else (Linux only).

    `getrusage` would not do: its `ru_maxrss` starts with the peak of the process that started this one.
    """
    rollout, update = PATHS[path]
    ids = bench.completions(group_size)
    update(bench, ids[:1])  # what libraries allocate once, on first use
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS
    rollout(bench, group_size) if part == "rollout" else update(bench, ids)
    peak = resident("VmHWM")
    return {
        "path": path, "part": part, "group_size": group_size,
        "before_mib": before, "peak_mib": peak, "growth_mib": peak - before,
    }  # fmt: skip


def measure_memory(settings: Settings, directory: Path) -> dict[str, Any]:
    """Peaks of every path, part and group size, each in a fresh process, and the update's ratio over group sizes."""
    rows = []
    for path in PATHS:
        for part in ("update", "rollout"):
            for group_size in settings.groups:
                command = [sys.executable, __file__, "--probe", path, part, str(group_size), "--model", str(directory)]
                for name, value in asdict(settings).items():
                    values = value if isinstance(value, list) else [value]
                    command += [f"--{name.replace('_', '-')}", *map(str, values)]
                environment = os.environ | EXACT_MALLOC
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
                rows.append(json.loads(output))
    growth = {(row["path"], row["part"], row["group_size"]): row["growth_mib"] for row in rows}
    small, large = min(settings.groups), max(settings.groups)
    ratios = {
        f"{path}_{part}": growth[path, part, large] / growth[path, part, small]
        for path in PATHS
        for part in ("update", "rollout")
    }
    return {"runs": rows, f"growth_at_{large}_over_{small}": ratios}


def machine() -> dict[str, Any]:
    """What the figures depend on beside the settings."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft", "dermiq")},
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time one GRPO step: shared prompt against duplicated prompt.")
    parser.add_argument("--prompt-tokens", type=int, default=1100, help="image and text")
    parser.add_argument("--new-tokens", type=int, default=64, help="length of every completion")
    parser.add_argument("--group-size", type=int, default=8, help="completions of the timed step")
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 32], help="group sizes to measure memory at")
    parser.add_argument("--completions-per-pass", type=int, default=4, help="micro-batch of the update")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)  # for --probe: the directory made already
    parser.add_argument("--probe", nargs=3, help=argparse.SUPPRESS)  # path, part, group size
    return parser.parse_args()


def main() -> None:
    """Measure, and print JSON."""
    options = vars(parse())
    out, model, chosen = options.pop("out"), options.pop("model"), options.pop("probe")
    settings = Settings(**options)
    if chosen is not None:
        print(json.dumps(probe(load(model, settings), chosen[0], chosen[1], int(chosen[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        directory = build_model_dir("qwen2_5_vl", Path(folder), layers=LAYERS, hidden=HIDDEN)
        bench = load(directory, settings)
        result = {
            "machine": machine(),
            "settings": asdict(settings),
            "model": {
                "family": "qwen2_5_vl, random weights, float32",
                "parameters": sum(p.numel() for p in bench.backbone.vlm.parameters()),
                "trainable": sum(p.numel() for p in bench.backbone.trainable_parameters()),
                "prompt_tokens": bench.prompt["input_ids"].shape[1],
                "image_tokens": bench.image_tokens,
            },
            "agreement": compare(bench),
            "time": time_paths(bench),
            "memory": measure_memory(settings, directory),
        }
    text = json.dumps(result, indent=1)
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")


if __name__ == "__main__":
    main()
