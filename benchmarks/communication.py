"""Communication between processes per optimiser step: bytes computed from the shapes of a model, and counted.

    python benchmarks/communication.py [--count] [--out FILE]

Prints the table of `docs/scaling.md`. `--count` also runs two processes on the CPU with a tiny model, and counts the
bytes that they hand to every collective. How to read both: `docs/scaling.md`, "What is sent".
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

HERE = Path(__file__).parent
PROCESSES, RANK, NEW_TOKENS = 8, 16, 256
BFLOAT16, FLOAT32 = 2, 4  # bytes per number
LINKS = (10, 50, 450)  # GB/s: 100-gigabit Ethernet, 400-gigabit InfiniBand, NVLink within a machine


@dataclass(frozen=True)
class Shape:
    """What decides how many weights a Qwen2.5-VL has: its config.json, the tower being the same in all sizes."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    head_dim: int = 128

    def layer(self) -> int:
        """Weights of one decoder layer."""
        h, q, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = h * q + q + 2 * (h * kv + kv) + q * h
        return attention + 3 * h * self.intermediate + 2 * h

    def tower(self) -> int:
        """Weights of the vision tower with its merger."""
        h, i, merged = 1280, 3420, 4 * 1280
        block = 3 * h * h + 3 * h + h * h + h + 3 * h * i + 2 * i + h + 2 * h
        merger = h + merged * merged + merged + merged * self.hidden + self.hidden
        return 32 * block + 3 * 2 * 14 * 14 * h + merger

    def total(self) -> int:
        """All weights."""
        vocabulary = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * self.layer() + self.hidden + vocabulary + self.tower()

    def adapters(self, rank: int) -> int:
        """Weights of LoRA on the q, k, v and o projections."""
        h, q, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * rank * ((h + q) + 2 * (h + kv) + (q + h))


MODELS = {
    "Qwen2.5-VL-3B": Shape(2048, 11008, 36, 16, 2, 151936, tied=True),
    "Qwen2.5-VL-7B": Shape(3584, 18944, 28, 28, 4, 152064, tied=False),
}


def all_reduce(size: float, processes: int) -> float:
    """Bytes that each process sends for a sum over all of `size` bytes, on a ring: 2 (n - 1) / n of them."""
    return 2 * (processes - 1) / processes * size


def all_gather(size: float, processes: int) -> float:
    """Bytes that each process sends for a whole of `size` bytes, of which it holds a part: (n - 1) / n of them."""
    return (processes - 1) / processes * size


def gatherings(layers: int) -> dict[str, int]:
    """How many layers are gathered in a step, of a model with so many: each before its forward and its backward pass.

    DPO runs prompts and completions apart, and both once more for the reference, forward alone. The first layer of the
    completions passes no gradient on, so that it is not freed before the prompts' backward pass.
    """
    return {"SFT": 2 * layers, "DPO": 6 * layers - 1}


def predictions(processes: int = PROCESSES, rank: int = RANK) -> list[dict[str, Any]]:
    """Rows: model, way of training, and bytes that each process sends per optimiser step of one micro-batch.

    Adapters and their gradients are float32, all else bfloat16.
    """
    rows = []
    for model, shape in MODELS.items():
        layer, everything = (all_gather(BFLOAT16 * size, processes) for size in (shape.layer(), shape.total()))
        lora, gathered = all_reduce(FLOAT32 * shape.adapters(rank), processes), gatherings(shape.layers)
        ways = {
            f"LoRA of rank {rank}, DDP": lora,
            f"LoRA of rank {rank}, sharded layers, SFT": lora + gathered["SFT"] * layer,
            f"LoRA of rank {rank}, sharded layers, DPO": lora + gathered["DPO"] * layer,
            "all weights, DDP": 2 * everything,
            "all weights, FSDP": 3 * everything,
            f"sharded layers, while {NEW_TOKENS} tokens are decoded": NEW_TOKENS * shape.layers * layer,
        }
        rows += [{"model": model, "way": way, "bytes": round(size)} for way, size in ways.items()]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, with the least time that the links of `LINKS` need."""
    head = ["model", "way", "GB per step", *(f"s at {link} GB/s" for link in LINKS)]
    lines = [head, ["---", "---", *["---:"] * (1 + len(LINKS))]]
    for row in rows:
        size = row["bytes"] / 1e9
        lines.append([row["model"], row["way"], *(_short(value) for value in (size, *(size / link for link in LINKS)))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(value: float) -> str:
    """Two significant digits, or all in front of the point."""
    return f"{value:,.{max(0, 1 - math.floor(math.log10(value)))}f}"


class Traffic(TorchDispatchMode):
    """Bytes handed to each collective: what is summed, and what a gathering makes whole."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            tensors = args[0] if isinstance(args[0], list) else [args[0]]  # of a gathering: the outputs
            self.bytes[func._schema.name.removeprefix("c10d::")] += sum(t.nbytes for t in tensors if torch.is_tensor(t))
        return func(*args, **(kwargs or {}))


class CountTraffic(Callback):
    """Writes what the first process hands over in its last step, and what it should be.

    Args:
        path: a JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.traffic = Traffic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Work out what is to be counted, while what is sharded still lies in parts."""
        self.gradients, self.layers = _expected(pl_module)

    def on_train_batch_start(self, *_: Any) -> None:
        """Begin to count."""
        self.traffic.bytes.clear()
        self.traffic.__enter__()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Write the count."""
        self.traffic.__exit__(None, None, None)
        if trainer.is_global_zero:
            record = {"counted": dict(self.traffic.bytes), "gradients": self.gradients, "layers": self.layers}
            self.path.write_text(json.dumps(record))


def _expected(module: nn.Module) -> tuple[int, int]:
    """Bytes of all gradients, and of all weights that are sharded, made whole once."""
    weights = list(module.parameters())
    return (
        sum(weight.nbytes for weight in weights if weight.requires_grad),
        sum(weight.numel() * weight.element_size() for weight in weights if isinstance(weight, DTensor)),
    )


def count(arguments: list[str], folder: Path) -> dict[str, Any]:
    """What two processes of the command line with these arguments hand over in one step; see `CountTraffic`."""
    path = folder / "traffic.json"
    callback = json.dumps({"class_path": "communication.CountTraffic", "init_args": {"path": str(path)}})
    paths = [str(HERE), str(HERE.parent / "tests"), os.environ.get("PYTHONPATH", "")]
    subprocess.run(
        [sys.executable, str(HERE.parent / "cli.py"), *arguments, f"--trainer.callbacks+={callback}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def counts() -> dict[str, Any]:
    """`count` for one step of each stage, under DDP and with sharded layers."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from support.families import build_model_dir
    from support.runs import Lab
    from support.small_data import write_ham10000

    strategies = {"ddp": "ddp", "sharded": json.dumps({"class_path": "dermiq.trainer.sharding.ShardedStrategy"})}
    made = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lab = Lab(
            folder, write_ham10000(folder / "photographs"), lambda family: build_model_dir(family, folder / family)
        )
        for stage in ("SFTModule", "DPOModule", "GRPOModule"):
            for way, strategy in strategies.items():
                options = [f"--trainer.strategy={strategy}", "--trainer.devices=2", "--trainer.max_steps=2"]
                made[f"{stage}, {way}"] = count(lab.arguments("fit", stage, folder / "run", *options), folder)
                print(stage, way, made[f"{stage}, {way}"], flush=True)
    return made


def main() -> None:
    """Print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    shapes = {model: asdict(shape) for model, shape in MODELS.items()}
    result = {"processes": PROCESSES, "rank": RANK, "new_tokens": NEW_TOKENS, "shapes": shapes, "rows": predictions()}
    print(table(predictions()))
    if options.count:
        result["counted with two processes"] = counts()
        print(json.dumps(result["counted with two processes"], indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
