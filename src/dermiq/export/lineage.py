"""Lineage of an adapter: the stages that trained it, read from their run directories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import instantiate_class

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.checkpoint_files import read_checkpoint
from dermiq.prompts import SYSTEM_PROMPT
from dermiq.run_directory import RunDirectory
from dermiq.schema import TrainingError

Config = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One run of one stage.

    Attributes:
        run: its files.
        config: what it was trained with.
        steps: optimiser steps of its last checkpoint; None if there is no checkpoint.
        metrics: of its test; empty if it was not tested.
    """

    run: RunDirectory
    config: Config
    steps: int | None
    metrics: dict[str, float]

    @property
    def run_name(self) -> str:
        """The name of the run's directory."""
        return self.run.path.resolve().name

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
        """The system prompt of a question for the diagnosis."""
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
                | {"lora": None, "adapter_path": str(self.run.adapter), "gradient_checkpointing": False},
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
        DermIQError: if `run` is no run directory, has no adapter, or a file of its line cannot be read.
    """
    stage = _read_stage(RunDirectory(run))
    if not stage.run.adapter.is_dir():
        raise TrainingError(
            f"{run} has no adapter/ yet: it is written with the first checkpoint. Go on training with "
            f"`python cli.py fit --config {stage.run.config_file} --ckpt_path last`, or start anew."
        )
    stages = [stage]
    while (path := stages[0].backbone["adapter_path"]) is not None:
        before = RunDirectory(Path(path).parent)
        known = {stage.run.path.resolve() for stage in stages}
        if Path(path) != before.adapter or not before.config_file.is_file() or before.path.resolve() in known:
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


def _read_stage(run: RunDirectory) -> Stage:
    if not run.config_file.is_file():
        raise TrainingError(
            f"{run.path} is no run directory: it has no {run.config_file.name}. Name the directory that "
            "`python cli.py fit` wrote to, its trainer.default_root_dir."
        )
    metrics = run.metrics() if run.metrics_file.exists() else {}
    stage = Stage(run, run.config(), _steps(run.last_checkpoint), metrics)
    try:
        _check_written(stage)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TrainingError(
            f"{run.config_file} is not what `python cli.py fit` writes: model, backbone or data sources are not where "
            f"they belong ({error!r}). Put the run's own {run.config_file.name} back."
        ) from error
    return stage


def _check_written(stage: Stage) -> None:
    """Look up what is read of a run's configuration, here and by the model card."""
    trainer, data, backbone, options = stage.config["trainer"], stage.data, stage.backbone, stage.options
    _ = stage.name, stage.config["seed_everything"], data["batch_size"], options["optimizer"], options["scheduler"]
    _ = trainer["accumulate_grad_batches"], trainer["devices"], trainer["precision"], backbone["load_in_4bit"]
    rewards = arguments(options["rewards"]) or options["rewards"]
    _ = [term["weight"] for term in rewards["terms"].values()], list(rewards["gates"])
    texts = [backbone["model_id"], backbone["dtype"], backbone["adapter_path"] or "", *stage.sources]
    wrong = next((value for value in texts if not isinstance(value, str)), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is no text")


def _steps(checkpoint: Path) -> int | None:
    if not checkpoint.is_file():
        return None
    try:
        return int(read_checkpoint(checkpoint)["global_step"])
    except (TrainingError, KeyError, TypeError, ValueError):
        return None  # the adapter, which is what counts, stands beside it
