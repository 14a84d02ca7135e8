"""The stages that an adapter went through, read from the run directories that they left."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import instantiate_class

from dermiq.archive import read_checkpoint
from dermiq.backbone import VLMBackbone
from dermiq.checkpointing import ADAPTER, LAST
from dermiq.prompts import SYSTEM_PROMPT
from dermiq.schema import TrainingError

CONFIG, METRICS = "config.yaml", "metrics.json"
Config = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One run of one stage.

    Attributes:
        run: its directory.
        config: its ``config.yaml``.
        steps: optimiser steps of its last checkpoint; None if there is no checkpoint.
        metrics: its ``metrics.json``; empty if it was not tested.
    """

    run: Path
    config: Config
    steps: int | None
    metrics: dict[str, float]

    @property
    def name(self) -> str:
        """The stage's class, without its path."""
        return class_name(self.config["model"])

    @property
    def options(self) -> Config:
        """The stage's own arguments."""
        return arguments(self.config["model"])

    @property
    def backbone(self) -> Config:
        """The backbone's arguments."""
        return arguments(self.options["backbone"])

    @property
    def data(self) -> Config:
        """The data module's arguments."""
        return arguments(self.config["data"])

    @property
    def system_prompt(self) -> str:
        """What the system says before a question for the diagnosis."""
        return str(self.data.get("system_prompt") or SYSTEM_PROMPT)

    @property
    def sources(self) -> dict[str, Config]:
        """Split -> class and arguments of its source."""
        return dict(self.data["sources"])

    def load_policy(self) -> VLMBackbone:
        """The policy as the run left it, in evaluation mode.

        Raises:
            ModelError: if the base is missing, or the adapter does not fit it.
        """
        backbone = build(
            {
                "class_path": self.options["backbone"]["class_path"],
                "init_args": self.backbone
                | {"lora": None, "adapter_path": str(self.run / ADAPTER), "gradient_checkpointing": False},
            }
        )
        assert isinstance(backbone, VLMBackbone)
        backbone.load()
        backbone.eval()
        return backbone


@dataclass(frozen=True)
class Lineage:
    """An adapter's stages.

    Attributes:
        stages: oldest first, never empty.
        origin: the adapter that the oldest stage went on from, if the run that made it is not at hand.
    """

    stages: tuple[Stage, ...]
    origin: str | None

    @property
    def last(self) -> Stage:
        """The stage whose adapter is exported."""
        return self.stages[-1]


def read_lineage(run: Path) -> Lineage:
    """Follow ``adapter_path`` from a run back to the base model.

    Raises:
        TrainingError: if `run` is no run directory, has no adapter, or a file of its line cannot be read.
    """
    stage = _read_stage(run)
    if not (run / ADAPTER).is_dir():
        raise TrainingError(
            f"{run} has no {ADAPTER}/ yet: it is written with the first checkpoint. Go on training with "
            f"`python cli.py fit --config {run / CONFIG} --ckpt_path last`, or start anew."
        )
    stages = [stage]
    while (path := stages[0].backbone["adapter_path"]) is not None:
        before = Path(path).parent
        known = {stage.run.resolve() for stage in stages}
        if Path(path).name != ADAPTER or not (before / CONFIG).is_file() or before.resolve() in known:
            return Lineage(tuple(stages), str(path))
        stages.insert(0, _read_stage(before))
    return Lineage(tuple(stages), None)


def class_name(config: Config) -> str:
    """The class of a ``class_path``, without its path."""
    return str(config["class_path"]).rpartition(".")[2]


def arguments(config: Config) -> Config:
    """The ``init_args`` of a ``class_path``; empty where there are none."""
    return dict(config.get("init_args") or {})


def build(config: Any) -> Any:
    """The object that ``class_path`` and ``init_args`` describe, objects within its arguments included."""
    if isinstance(config, list):
        return [build(value) for value in config]
    if not isinstance(config, dict):
        return config
    if "class_path" not in config:
        return {name: build(value) for name, value in config.items()}
    return instantiate_class((), {"class_path": config["class_path"], "init_args": build(arguments(config))})


def licences(source: Config) -> dict[tuple[str, str], int]:
    """Samples of a source by licence and attribution of their images.

    Raises:
        DermIQError: if the data are not at hand.
    """
    loaded = build(source)
    loaded.load()
    counts: dict[tuple[str, str], int] = {}
    for sample in loaded:
        key = (sample.licence, sample.attribution)
        counts[key] = counts.get(key, 0) + 1
    return counts


def _read_stage(run: Path) -> Stage:
    if not (run / CONFIG).is_file():
        raise TrainingError(
            f"{run} is no run directory: it has no {CONFIG}. Name the directory that `python cli.py fit` wrote to, "
            "its trainer.default_root_dir."
        )
    config = _read(run / CONFIG, yaml.safe_load)
    metrics = _read(run / METRICS, json.loads) if (run / METRICS).is_file() else {}
    stage = Stage(run, config, _steps(run / LAST), metrics)
    try:
        _ = stage.name, stage.backbone["model_id"], stage.backbone["adapter_path"], stage.sources
    except (KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{run / CONFIG} is not what `python cli.py fit` writes: model, backbone or data sources are not where "
            f"they belong ({error!r}). Put the run's own {CONFIG} back."
        ) from error
    return stage


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TrainingError(
            f"{path} cannot be read ({str(error).splitlines()[0]}). Restore it, or train or test anew."
        ) from error


def _steps(checkpoint: Path) -> int | None:
    if not checkpoint.is_file():
        return None
    try:
        return int(read_checkpoint(checkpoint)["global_step"])
    except (TrainingError, KeyError, TypeError, ValueError):
        return None  # the adapter, which is what counts, stands beside it
