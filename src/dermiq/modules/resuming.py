"""Resuming: checks of a checkpoint's policy and settings, and the settings of the resumed run applied to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from warnings import catch_warnings

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from dermiq.modules.limits import check_rates, made
from dermiq.policy.backbone import POLICY, VLMBackbone
from dermiq.policy.checkpoint_files import refuse_misfit
from dermiq.policy.digests import base_digest, reference_digest
from dermiq.schema import TrainingError

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler]

_SCALE = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
_OF_NO_MATTER = ("transformers_version", "dtype", "torch_dtype", "name_or_path", "quantization_config", "architectures")
_STORED = ("dtype", "load_in_4bit")
_STATES = {"optimizer_states": list, "lr_schedulers": list, "callbacks": dict, "global_step": int}
_OPTIMIZER = {"state": dict, "param_groups": list}
_SETTINGS = {"optimizer": str, "accumulated batches": int}
_POLICY = {"model_id": str, "config": dict, "dtype": str, "load_in_4bit": bool, "weights": str, "adapter": dict}
_BACK = "Resume with those of the saved config.yaml, or start a new run from the adapter of this one"


def policy_of(backbone: VLMBackbone) -> dict[str, Any]:
    """The policy that an adapter's weights belong to: the base model, the adapter's scale and its initial weights.

    Call it on a freshly loaded backbone, before a trainer may change its dtype or device.
    """
    adapter = getattr(backbone.model, "peft_config", {}).get(POLICY)
    return {
        "model_id": backbone.model_id,
        "config": dict(_flat(backbone.vlm.config.to_dict())),
        "dtype": str(backbone.vlm.dtype),
        "load_in_4bit": backbone.load_in_4bit,
        "weights": base_digest(backbone, packed=False),
        "adapter": {name: _plain(getattr(adapter, name, None)) for name in _SCALE},
        "began": None if backbone.adapter_path is None else reference_digest(backbone),
    }


def refuse_other_policy(before: dict[str, Any], now: dict[str, Any], trains: bool) -> None:
    """Refuse a checkpoint whose adapter was trained on another base model or with another scale.

    Args:
        before: `policy_of` the run that wrote the checkpoint; empty where it did not record it.
        now: that of this run.
        trains: of this run; only then it counts how the base is stored and which adapter the run began with.

    Raises:
        TrainingError: naming what differs.
    """
    if not before:
        return
    refuse_misfit(_POLICY, before, "The checkpoint's record of its policy")
    stored_alike = all(before[name] == now[name] for name in _STORED)
    known = before["config"].keys() & now["config"].keys()  # versions of transformers differ in what they name
    changes = _changes({name: before["config"][name] for name in known}, now["config"])
    if stored_alike and before["weights"] != now["weights"]:
        changes.append("other weights")
    if changes:
        raise TrainingError(
            f"The checkpoint's adapter was trained on another base model ({before['model_id']}) than this run's "
            f"({now['model_id']}): {', '.join(changes[:3])}. Name the model that it was trained on with "
            "--model.backbone.model_id."
        )
    scale = [f"lora.{change}" for change in _changes(before["adapter"], now["adapter"])]
    if trains:
        scale += _changes({name: before[name] for name in _STORED}, {name: now[name] for name in _STORED})
        if before.get("began") != now["began"]:
            scale.append("adapter_path (the run began with another adapter)")
    if scale:
        raise TrainingError(
            f"The checkpoint's adapter does not fit this run, whose backbone has other settings: {', '.join(scale)}. "
            f"{_BACK}: --model.backbone.adapter_path=RUN/adapter."
        )


def refuse_earlier_end(checkpoint: Mapping[str, Any], max_epochs: int | None) -> None:
    """Refuse to end training before the epoch of the checkpoint.

    Raises:
        TrainingError: saying which epoch that is.
    """
    epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"]
    if max_epochs is not None and -1 < max_epochs < epoch:
        raise TrainingError(
            f"The checkpoint is of epoch {epoch} (the first is 1), and --trainer.max_epochs={max_epochs} ends training "
            "before it. Raise that, or judge the checkpoint with `test`."
        )


def way_out(trainer: Trainer, resumed_at: int) -> str:
    """The remedy for weights or losses that are not finite, by which checkpoints there are.

    Args:
        trainer: in training.
        resumed_at: the step of the checkpoint that the run was resumed from; -1 if there is none.
    """
    saved = (getattr(callback, "_last_global_step_saved", 0) for callback in trainer.checkpoint_callbacks)
    last = max([resumed_at, *saved])
    if last <= 0:
        return (
            "Nothing of this run is saved yet: lower the learning rate or max_grad_norm, or look at these samples, "
            "then start it again."
        )
    if last == trainer.global_step:
        return (
            "The last checkpoint is of this very step, so that its weights or these samples are spoilt: look at these "
            "samples, or lower the learning rate and start again, from an earlier adapter if there is one "
            "(--model.backbone.adapter_path)."
        )
    return (
        "The last checkpoint is from before this step: lower the learning rate or max_grad_norm, or look at these "
        "samples, then resume with --ckpt_path last."
    )


def prepare(
    make_optimizer: MakeOptimizer, make_scheduler: MakeScheduler | None, parameters: Sequence[nn.Parameter]
) -> tuple[Optimizer, LRScheduler | None]:
    """An optimiser and its schedule at step 0.

    Raises:
        TrainingError: if their settings make no sense to them, or the schedule follows a metric.
    """
    optimizer = made("optimizer", lambda: make_optimizer(parameters))
    check_rates(optimizer)
    scheduler = None if make_scheduler is None else made("scheduler", lambda: make_scheduler(optimizer))
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TrainingError(
            f"{type(scheduler).__name__} waits for a metric, and schedules are advanced at every step here. Give "
            "--model.scheduler one that depends on the step alone, such as dermiq.modules.schedules.CosineWithWarmup."
        )
    return optimizer, scheduler


def advance(scheduler: LRScheduler, step: int) -> None:
    """Advance a schedule by one optimiser step.

    Raises:
        TrainingError: if it has no more steps, or its settings make no sense.
    """
    try:
        scheduler.step()
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise TrainingError(
            f"The schedule {_name(scheduler)} cannot go beyond step {step} ({error}). Give model.scheduler settings "
            "for as many steps as training has."
        ) from error


def settings_of(optimizer: Optimizer, scheduler: LRScheduler | None, accumulated: int) -> dict[str, Any]:
    """The settings that have to stay the same for a resume, ready for the checkpoint."""
    return {
        "optimizer": _name(optimizer),
        "scheduler": None if scheduler is None else _name(scheduler),
        "accumulated batches": accumulated,
    }


def put_in_force(
    checkpoint: dict[str, Any],
    make_optimizer: MakeOptimizer,
    make_scheduler: MakeScheduler | None,
    parameters: Sequence[nn.Parameter],
    accumulated: int,
) -> None:
    """Apply this run's settings of optimiser and schedule to a checkpoint; its state (moments, step) stays.

    Restoring an optimiser brings back the rate, the decay and all else that it was made with. So they are replaced by
    those of a fresh one, whose schedule is advanced to the checkpoint's step as if it had been given from the start.
    With the same settings nothing changes, bit for bit.

    Args:
        checkpoint: as it was read; changed in place.
        make_optimizer: see `prepare`, as for the next two.
        make_scheduler: likewise.
        parameters: likewise.
        accumulated: batches that share one optimiser step in this run.

    Raises:
        TrainingError: if it is of another optimiser, schedule or accumulation.
    """
    refuse_misfit(_STATES, checkpoint, "The checkpoint")
    optimizer, scheduler = prepare(make_optimizer, make_scheduler, parameters)
    now = settings_of(optimizer, scheduler, accumulated)
    _refuse_other_settings(checkpoint, now)
    (state,) = checkpoint["optimizer_states"]
    refuse_misfit(_OPTIMIZER, state, "The checkpoint's optimiser")
    _refuse_other_state(state, optimizer, make_optimizer, parameters)
    if scheduler is not None:
        with catch_warnings(action="ignore"):  # torch wants a step of the optimiser before the first one
            for step in range(checkpoint["global_step"]):
                advance(scheduler, step)
        checkpoint["lr_schedulers"] = [scheduler.state_dict()]
    kept = optimizer.defaults.keys() - _arguments(type(optimizer))
    groups = [
        fresh | {name: saved[name] for name in kept | {"params"} if name in saved}
        for saved, fresh in zip(state["param_groups"], optimizer.state_dict()["param_groups"], strict=True)
    ]
    checkpoint["optimizer_states"] = [state | {"param_groups": groups}]


def _refuse_other_settings(checkpoint: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    recorded = checkpoint["dermiq"].get("settings")
    if recorded is None:  # of a version that recorded none: compare what the states show
        had = bool(checkpoint["lr_schedulers"])
        recorded = {**now, "scheduler": (now["scheduler"] or "one") if had else None}
    refuse_misfit(_SETTINGS, recorded, "The checkpoint's record of its settings")
    changes = _changes(recorded, now)
    if len(checkpoint["optimizer_states"]) != 1:
        changes.append(f"{len(checkpoint['optimizer_states'])} optimisers -> 1")
    if changes:
        raise TrainingError(
            f"The checkpoint cannot be resumed with other settings of these: {', '.join(changes)}. {_BACK} "
            "(--model.backbone.adapter_path=RUN/adapter). The rate, decay and other numbers of the same optimiser and "
            "scheduler may be changed."
        )


def _refuse_other_state(
    state: Mapping[str, Any], optimizer: Optimizer, make_optimizer: MakeOptimizer, parameters: Sequence[nn.Parameter]
) -> None:
    """Refuse a saved state of another number of weights, or without an entry that the optimiser needs."""
    sizes = [len(group["params"]) for group in state["param_groups"]]
    if sizes != [len(group["params"]) for group in optimizer.param_groups]:
        raise TrainingError(f"The checkpoint's optimiser trained other groups of weights than this run's. {_BACK}.")
    found = {name for kept in state["state"].values() for name in kept}
    lacking = sorted(_kept_names(make_optimizer, parameters) - found) if found else []
    if lacking:
        raise TrainingError(
            f"The checkpoint's optimiser has not kept {', '.join(lacking)}, which this run's {_name(optimizer)} goes "
            f"on from: another optimiser wrote it, or the same one without an option that needs it. {_BACK}."
        )


def _kept_names(make_optimizer: MakeOptimizer, parameters: Sequence[nn.Parameter]) -> set[str]:
    """Names of what an optimiser keeps of a weight, after a step of a copy of the smallest one."""
    copy = nn.Parameter(min(parameters, key=nn.Parameter.numel).detach().clone())
    copy.grad = torch.zeros_like(copy)
    optimizer = make_optimizer([copy])
    optimizer.step(lambda: 0.0)
    return {name for kept in optimizer.state.values() for name, value in kept.items() if value is not None}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``name former -> value`` of what differs from `before`."""
    return [f"{name} {before[name]} -> {now.get(name)}" for name in sorted(before) if before[name] != now.get(name)]


def _arguments(kind: type) -> set[str]:
    """Names of the arguments that a class and its bases are made with."""
    return {name for base in kind.__mro__ for name in inspect.signature(vars(base).get("__init__", id)).parameters}


def _name(part: object) -> str:
    """Package and class: modules within a package are moved between its versions."""
    kind = type(part)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def _plain(value: Any) -> Any:
    """A value that a checkpoint may hold: numbers as they are, names of enumerations and the like as text."""
    return value if value is None or type(value) in (bool, int, float) else str(getattr(value, "value", value))


def _flat(config: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """The values of nested mappings by dotted names, without those that only tell how a config was stored."""
    for name, value in config.items():
        if name in _OF_NO_MATTER or str(name).startswith("_"):
            continue
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
