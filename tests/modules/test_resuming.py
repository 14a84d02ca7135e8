"""What a resumed run is made of: the settings it is given, and the checkpoint of the same policy."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler as schedules

from dermiq.modules.resuming import advance, prepare, put_in_force, settings_of
from dermiq.modules.schedules import CosineWithWarmup
from dermiq.schema import TrainingError
from support.runs import different

STEPS, END = 5, 12


class Run:
    """Two small weights and an optimiser, trained on gradients that depend on the step alone."""

    def __init__(self, make_optimizer: Callable[..., Any], make_scheduler: Callable[..., Any] | None = None) -> None:
        self.made_by = make_optimizer, make_scheduler
        self.weights = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((2, 2), 0.5))]
        self.optimizer, self.scheduler = prepare(make_optimizer, make_scheduler, self.weights)
        self.step, self.rates = 0, []

    def train(self, until: int) -> Run:
        while self.step < until:
            for number, weight in enumerate(self.weights):
                weight.grad = torch.full_like(weight, math.cos(self.step + number))
            self.optimizer.step(lambda: 0.0)
            self.rates.append([_numbers(group) for group in self.optimizer.param_groups])
            if self.scheduler is not None:
                advance(self.scheduler, self.step)
            self.step += 1
        return self

    def saved(self, accumulated: int = 1, recorded: bool = True) -> dict[str, Any]:
        """A checkpoint, as it comes back from the disk."""
        settings = {"settings": settings_of(self.optimizer, self.scheduler, accumulated)} if recorded else {}
        file = io.BytesIO()
        states = [] if self.scheduler is None else [self.scheduler.state_dict()]
        content = {
            "optimizer_states": [self.optimizer.state_dict()],
            "lr_schedulers": states,
            "callbacks": {},
            "global_step": self.step,
            "dermiq": settings,
        }
        torch.save(content, file)
        file.seek(0)
        loaded: dict[str, Any] = torch.load(file, weights_only=True)
        return loaded

    def resume(self, before: Run, **options: Any) -> Run:
        """Go on from another run's checkpoint, restored in Lightning's way and order."""
        checkpoint = before.saved(**options)
        put_in_force(checkpoint, *self.made_by, self.weights, 1)
        for weight, value in zip(self.weights, before.weights, strict=True):
            weight.data = value.data.clone()
        self.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(checkpoint["lr_schedulers"][0])
        self.step = before.step
        return self


def _numbers(group: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({name: value for name, value in group.items() if name != "params"})


def in_turn(optimizer: optim.Optimizer, first: int, factor: float = 0.5) -> schedules.LRScheduler:
    parts = [schedules.ConstantLR(optimizer, factor, first), schedules.ExponentialLR(optimizer, 0.9)]
    return schedules.SequentialLR(optimizer, parts, [first])


def at_once(optimizer: optim.Optimizer, gamma: float) -> schedules.LRScheduler:
    return schedules.ChainedScheduler([schedules.ConstantLR(optimizer, 0.5, 3), schedules.StepLR(optimizer, 2, gamma)])


SGD, ADAMW = partial(optim.SGD, lr=0.1, momentum=0.9), partial(optim.AdamW, lr=0.1)
SCHEDULES = {
    "warm-up": (CosineWithWarmup, {"warmup_steps": 4, "total_steps": 20}, {"warmup_steps": 1, "total_steps": 14}),
    "warm-up ends here": (CosineWithWarmup, {"warmup_steps": 9, "total_steps": 20}, {"warmup_steps": STEPS}),
    "step": (schedules.StepLR, {"step_size": 2, "gamma": 0.5}, {"step_size": 3, "gamma": 0.1}),
    "milestones": (schedules.MultiStepLR, {"milestones": [2, 8]}, {"milestones": [3, 9], "gamma": 0.3}),
    "exponential": (schedules.ExponentialLR, {"gamma": 0.9}, {"gamma": 0.5}),
    "linear": (schedules.LinearLR, {"total_iters": 4}, {"total_iters": 10, "start_factor": 0.1}),
    "polynomial": (schedules.PolynomialLR, {"total_iters": 20}, {"total_iters": 9, "power": 2.0}),
    "cosine": (schedules.CosineAnnealingLR, {"T_max": 20}, {"T_max": 10, "eta_min": 0.01}),
    "restarts": (schedules.CosineAnnealingWarmRestarts, {"T_0": 3}, {"T_0": 4, "T_mult": 2}),
    "one cycle": (schedules.OneCycleLR, {"max_lr": 0.2, "total_steps": 20}, {"max_lr": 0.1, "total_steps": 15}),
    "one cycle, no momentum": (
        schedules.OneCycleLR,
        {"max_lr": 0.2, "total_steps": 20},
        {"max_lr": 0.2, "total_steps": 20, "cycle_momentum": False},
    ),
    "cyclic": (schedules.CyclicLR, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3}, {"step_size_up": 2}),
    "in turn": (in_turn, {"first": 3}, {"first": 7, "factor": 0.2}),
    "at once": (at_once, {"gamma": 0.5}, {"gamma": 0.9}),
}


@pytest.mark.parametrize("make_optimizer", [SGD, ADAMW], ids=["SGD", "AdamW"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_resumes_bit_for_bit_and_another_one_as_if_given_from_the_start(name, make_optimizer):
    schedule, settings, others = SCHEDULES[name]
    first = partial(schedule, **settings)
    whole = Run(make_optimizer, first).train(END)
    stopped = Run(make_optimizer, first).train(STEPS)
    same = Run(make_optimizer, first).resume(stopped).train(END)
    assert same.rates == whole.rates[STEPS:]
    assert different([weight.data for weight in same.weights], [weight.data for weight in whole.weights]) == []
    assert different(same.saved(), whole.saved()) == []
    second = partial(schedule, **settings | others)
    expected = Run(make_optimizer, second).train(END)
    changed = Run(make_optimizer, second).resume(stopped).train(END)
    assert changed.rates == expected.rates[STEPS:] != whole.rates[STEPS:]
    assert different(changed.saved()["lr_schedulers"], expected.saved()["lr_schedulers"]) == []


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (optim.SGD, {"lr": 0.3}),
        (optim.SGD, {"momentum": 0.5, "nesterov": True}),
        (optim.SGD, {"weight_decay": 0.1, "dampening": 0.0, "maximize": True}),
        (optim.AdamW, {"lr": torch.tensor(0.3)}),
        (optim.AdamW, {"betas": (0.5, 0.6), "eps": 1e-3}),
        (optim.AdamW, {"weight_decay": 0.3, "foreach": False}),
        (optim.AdamW, {"lr": 0.2, "fused": True}),
        (optim.Adam, {"weight_decay": 0.3, "decoupled_weight_decay": True}),
        (optim.NAdam, {"momentum_decay": 0.1}),
        (optim.RMSprop, {"alpha": 0.5}),
        (optim.Adagrad, {"lr_decay": 0.1}),
        (optim.Adafactor, {"beta2_decay": -0.5, "d": 2.0}),
        (optim.Rprop, {"step_sizes": (1e-4, 1.0)}),
        (optim.LBFGS, {"lr": 0.5}),
    ],
    ids=str,
)
@pytest.mark.parametrize("recorded", [True, False])
def test_numbers_of_the_optimiser_come_from_the_command_line_and_its_memory_from_the_checkpoint(
    kind, settings, recorded
):
    """`recorded`: checkpoints of earlier versions did not say what wrote them."""
    start = {"momentum": 0.9} if kind is optim.SGD else {}
    before = Run(partial(kind, **{"lr": 0.1} | start)).train(STEPS)
    now = Run(partial(kind, **{"lr": 0.1} | start | settings)).resume(before, recorded=recorded)
    (group,) = now.optimizer.param_groups
    assert {name: group[name] for name in settings} == settings
    assert different(now.saved()["optimizer_states"][0]["state"], before.saved()["optimizer_states"][0]["state"]) == []
    now.train(END)


def test_every_group_of_weights_has_its_own_numbers():
    def groups(rates, weights):
        return optim.AdamW([{"params": [weight], "lr": rate} for weight, rate in zip(weights, rates, strict=False)])

    before = Run(partial(groups, (0.1, 0.2))).train(STEPS)
    now = Run(partial(groups, (0.3, 0.4))).resume(before)
    assert [group["lr"] for group in now.optimizer.param_groups] == [0.3, 0.4]


class Counting(optim.SGD):
    """An optimiser that counts its steps in its groups, as schedule-free ones and Prodigy do."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.defaults["count"] = 0
        for group in self.param_groups:
            group["count"] = 0

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for group in self.param_groups:
            group["count"] += 1


def test_what_an_optimiser_learns_in_its_groups_stays():
    now = Run(partial(Counting, lr=0.5)).resume(Run(Counting).train(STEPS))
    assert now.optimizer.param_groups[0]["count"] == STEPS and now.optimizer.param_groups[0]["lr"] == 0.5


def two_groups(weights):
    return optim.SGD([{"params": [weight]} for weight in weights], lr=0.1, momentum=0.9)


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ((ADAMW,), (SGD,), r"optimizer torch.AdamW -> torch.SGD"),
        ((optim.Adam,), (ADAMW,), r"optimizer torch.Adam -> torch.AdamW"),
        ((SGD,), (SGD, SCHEDULES["step"][0], SCHEDULES["step"][1]), r"scheduler None -> torch.StepLR"),
        ((SGD, *SCHEDULES["step"][:2]), (SGD,), r"scheduler torch.StepLR -> None"),
        ((SGD, *SCHEDULES["step"][:2]), (SGD, *SCHEDULES["cosine"][:2]), r"torch.StepLR -> torch.CosineAnnealingLR"),
        ((ADAMW,), (partial(ADAMW, amsgrad=True),), r"has not kept max_exp_avg_sq, which this run's torch.AdamW"),
        ((optim.RMSprop,), (partial(optim.RMSprop, centered=True),), r"has not kept grad_avg"),
        ((optim.RMSprop,), (partial(optim.RMSprop, momentum=0.9),), r"has not kept momentum_buffer"),
        ((SGD,), (two_groups,), r"other groups of weights"),
        (
            (SGD, schedules.OneCycleLR, {"max_lr": 0.1, "total_steps": 20}),
            (SGD, schedules.OneCycleLR, {"max_lr": 0.1, "total_steps": 3}),
            r"torch.OneCycleLR cannot go beyond step 3 .*model.scheduler",
        ),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(before, now, words):
    first, second = (Run(make, partial(*rest[:1], **rest[1]) if rest else None) for make, *rest in (before, now))
    with pytest.raises(TrainingError, match=words):
        second.resume(first.train(STEPS))


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ((ADAMW,), (SGD,), "has not kept momentum_buffer"),
        ((SGD,), (SGD, partial(schedules.ExponentialLR, gamma=0.9)), "scheduler None -> torch.ExponentialLR"),
        ((SGD, partial(schedules.ExponentialLR, gamma=0.9)), (SGD,), "scheduler one -> None"),
    ],
)
def test_so_it_is_where_an_earlier_version_recorded_no_classes_as_far_as_can_be_told(before, now, words):
    with pytest.raises(TrainingError, match=words):
        Run(*now).resume(Run(*before).train(STEPS), recorded=False)


def test_another_accumulation_is_refused():
    with pytest.raises(TrainingError, match=r"accumulated batches 4 -> 1"):
        Run(SGD).resume(Run(SGD).train(STEPS), accumulated=4)


@pytest.mark.parametrize(
    ("made_by", "words"),
    [
        ((partial(optim.AdamW, lr=-1.0),), "Invalid learning rate"),
        ((partial(optim.AdamW, weight_decay=-1.0),), "Invalid weight_decay"),
        ((partial(optim.SGD, nesterov=True),), "Nesterov"),
        ((ADAMW, partial(CosineWithWarmup, warmup_steps=5, total_steps=5)), "warmup_steps < total_steps"),
        ((optim.Adagrad, partial(schedules.OneCycleLR, max_lr=0.1, total_steps=9)), "must support momentum"),
        ((ADAMW, schedules.ReduceLROnPlateau), "ReduceLROnPlateau waits for a metric"),
    ],
)
def test_settings_that_make_no_sense_are_a_sentence(made_by, words):
    with pytest.raises(TrainingError, match=words):
        Run(*made_by)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (
            partial(schedules.OneCycleLR, max_lr=0.1, total_steps=3),
            "cannot go beyond step 3 .*as many steps as training",
        ),
        (partial(schedules.StepLR, step_size=0), "torch.StepLR cannot go beyond step 0"),
        (
            partial(schedules.LambdaLR, lr_lambda=lambda step: [0.1, 0.1][step]),
            "torch.LambdaLR cannot go beyond step 1",
        ),
    ],
)
def test_a_schedule_that_comes_to_its_end_is_a_sentence(schedule, words):
    with pytest.raises(TrainingError, match=words):
        Run(SGD, schedule).train(END)
