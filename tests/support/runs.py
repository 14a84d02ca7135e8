"""Small runs through the real command line: tiny models of real families on a few photographs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from dermiq.cli import DermIQCLI, run
from dermiq.datamodules.sources import HAM10000
from dermiq.run_directory import RunDirectory

REWARDS = {
    "class_path": "dermiq.rewards.RewardMixture",
    "init_args": {
        "terms": {
            "diagnosis": {"fn": "dermiq.rewards.diagnosis", "weight": 1.0},
            "letters": {"fn": "support.parts.letters", "weight": 1.0},
        },
        "gates": {"hedging": "dermiq.rewards.unhedged"},
    },
}
OWN_ARGUMENTS: dict[str, dict[str, Any]] = {
    "SFTModule": {},
    "DPOModule": {},
    "GRPOModule": {"group_size": 3, "sampling": {"max_new_tokens": 5}, "tokens_per_pass": 20},
}
DATA = {
    "SFTModule": "ConversationDataModule",
    "GRPOModule": "PromptDataModule",
    "DPOModule": "PreferenceDataModule",
}
STAGES = ("SFTModule", "GRPOModule", pytest.param("DPOModule", marks=pytest.mark.slow))  # has fast tests of its own
PAIRS = "preferences.jsonl"


def write_pairs(photographs: Path) -> Path:
    """A preference pair about each photograph, in TRL's columns and ours; the images are named from the file on."""
    source = HAM10000(str(photographs))
    source.load()
    rows = [
        {
            "id": sample.id,
            "group": sample.group,
            "target": sample.target,
            "images": [str(Path(sample.images[0]).relative_to(photographs))],
            "prompt": [{"role": "system", "content": "Look."}, {"role": "user", "content": "What is it?"}],
            "chosen": [{"role": "assistant", "content": f"A {sample.target} ."}],
            "rejected": [{"role": "assistant", "content": "A wheal that fades within a day."[number % 9 :]}],
            "margin": (number % 5) / 4,
        }
        for number, sample in enumerate(source)
    ]
    (photographs / PAIRS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return photographs / PAIRS


class Lab:
    """Runs on one small data set: 14 photographs each for training, validation and test.

    Args:
        folder: where configurations are written.
        photographs: a folder in HAM10000's layout.
        family_dir: the fixture of that name.
    """

    def __init__(self, folder: Path, photographs: Path, family_dir: Callable[..., Path]) -> None:
        self.folder, self.photographs, self.family_dir = folder, photographs, family_dir
        write_pairs(photographs)

    def config(self, stage: str, family: str = "idefics3") -> Path:
        """A whole experiment in one YAML file, smaller than any real one."""
        model = {
            "backbone": {
                "class_path": "dermiq.policy.backbone.VLMBackbone",
                "init_args": {"model_id": str(self.family_dir(family)), "lora": {"rank": 2}},
            },
            "rewards": REWARDS,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01, "weight_decay": 0.0}},
            "eval_sampling": {"max_new_tokens": 5, "temperature": 0.0},
        }
        data = {
            "sources": {"all": self.source(stage, self.photographs)},
            "fractions": {"train": 0.4, "val": 0.3, "test": 0.3},
            "batch_size": 2,
            "system_prompt": "Look.",
        }
        path = self.folder / f"{stage}-{family}.yaml"
        content = {
            "trainer": {"accelerator": "cpu", "limit_val_batches": 0, "enable_model_summary": False},
            "model": {"class_path": f"dermiq.modules.{stage}", "init_args": model | OWN_ARGUMENTS[stage]},
            "data": {"class_path": f"dermiq.datamodules.{DATA[stage]}", "init_args": data},
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def source(self, stage: str, photographs: Path) -> dict[str, Any]:
        """The samples that a stage trains on: photographs, or pairs about them."""
        if stage == "DPOModule":
            path = str(photographs / PAIRS)
            return {"class_path": "dermiq.datamodules.sources.Preferences", "init_args": {"path": path}}
        return {"class_path": "dermiq.datamodules.sources.HAM10000", "init_args": {"root": str(photographs)}}

    def arguments(self, subcommand: str, stage: str, root: Path, *more: str, family: str = "idefics3") -> list[str]:
        """The command line of a run in the directory `root`."""
        return [subcommand, f"--config={self.config(stage, family)}", f"--trainer.default_root_dir={root}", *more]

    def run(self, subcommand: str, stage: str, root: Path, *more: str, family: str = "idefics3") -> DermIQCLI:
        """Run it in this process; errors are raised."""
        return run(self.arguments(subcommand, stage, root, *more, family=family))


def adapter(root: Path) -> dict[str, Tensor]:
    """The weights in a run's adapter directory."""
    return load_file(root / "adapter" / "adapter_model.safetensors")


def checkpoint(root: Path) -> dict[str, Any]:
    """A run's last checkpoint."""
    return torch.load(RunDirectory(root).last_checkpoint, weights_only=True)


def logged(root: Path, without: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """All rows of a run's metrics.csv files, resumed runs after their beginnings, without what a clock measured."""
    left_out = {"train/tokens_per_second", *without}
    files = sorted((root / "metrics").glob("*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    rows = [row for path in files for row in csv.DictReader(path.read_text().splitlines())]
    return [{key: value for key, value in row.items() if key not in left_out} for row in rows]


def different(first: Any, second: Any, path: str = "") -> list[str]:
    """Where two nested structures of tensors and values differ, bit for bit."""
    if isinstance(first, Tensor):
        equal = isinstance(second, Tensor) and first.dtype == second.dtype and torch.equal(first, second)
        return [] if equal else [path]
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return [f"{path}: {sorted(map(str, first.keys() ^ second.keys()))}"]
        return [entry for key in first for entry in different(first[key], second[key], f"{path}/{key}")]
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return [f"{path}: {len(first)} != {len(second)}"]
        return [
            entry for i, pair in enumerate(zip(first, second, strict=True)) for entry in different(*pair, f"{path}/{i}")
        ]
    return [] if first == second else [f"{path}: {first} != {second}"]
