"""Numeric options of all classes that YAML names: each below, at and above its bounds."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from math import inf, nan
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule

import dermiq
from dermiq.cli import main
from dermiq.datamodules.phantom import PhantomSource
from dermiq.datamodules.sources.base import Source
from dermiq.modules import SFTModule
from dermiq.modules.limits import check_rates, check_trainer
from dermiq.modules.schedules import CosineWithWarmup
from dermiq.objectives.advantages import Advantage, OutcomeAnchored
from dermiq.ranges import RangeError
from dermiq.schema import DermIQError
from support.trl import attached, quiet_trainer

NAMED = (LightningModule, LightningDataModule, Callback, Advantage, Source)  # and their subclasses
ALSO = {
    "LoRA",
    "Sampling",
    "Decoder",
    "VLLMServer",
    "Curriculum",
    "SemanticAlignmentLoss",
    "Camera",
    "Retriever",
    "PairMaker",
}
ALSO |= {"RewardTerm", "CosineWithWarmup", "AnswerCorrection"}
PROGRAMS = re.compile(r"dermiq\.(demo|report|study|export|tiny|quickstart|cli)\b")  # YAML names nothing of theirs
SEED, COUNT, POSITIVE, WEIGHT = "[0, 9223372036854775807]", "[1, 65536]", "(0, inf)", "[0, inf)"
STAGE = {"max_grad_norm": POSITIVE, "eval_samples": "[0, 65536]"}
ACCUMULATION = {"accumulate_batches": "[1, inf)"}
DATA = {"split_seed": SEED, "batch_size": COUNT, "eval_batch_size": COUNT, "num_workers": "[0, 1024]", "seed": SEED}
DATA |= {"limit": "[1, inf)", "max_new_tokens_reserve": "[0, 1000000]"}
PHANTOM = {"count": "[1, 10000000]", "seed": SEED, "size": "[16, 4096]"}
# Integers unless the option is a float. `fractions` and weights by name are checked together, see the tests of each.
TABLE: dict[str, dict[str, str]] = {
    "StageModule": STAGE,
    "SFTModule": STAGE,
    "DPOModule": STAGE | {"beta": POSITIVE, "label_smoothing": "[0, 0.5)", "full_margin": POSITIVE, "sft_coef": WEIGHT},
    "CandidateModule": STAGE | {"candidates": "[2, 65536]", "seed": SEED},
    "ManualStage": STAGE | ACCUMULATION,
    "GRPOModule": STAGE
    | ACCUMULATION
    | {
        "group_size": COUNT,
        "clip_low": "[0, 1]",
        "clip_high": WEIGHT,
        "kl_coef": WEIGHT,
        "entropy_coef": WEIGHT,
        "inner_epochs": COUNT,
        "tokens_per_pass": "[1, inf)",
        "resample_uniform": "[0, 65536]",
        "reference_sync_every": "[1, inf)",
        "seed": SEED,
    },
    "CosineWithWarmup": {"warmup_steps": "[0, 9]", "total_steps": "[2, inf)"},
    "ProgressLines": {"seconds": "[0, 1000000]"},
    "LoRA": {"rank": "[1, inf)", "alpha": POSITIVE, "dropout": "[0, 1)"},
    "Sampling": {"max_new_tokens": "[1, 1000000]", "temperature": "[0, 100]"},
    "Decoder": {"rows_per_pass": "[1, inf)"},
    "VLLMServer": {"timeout": "(0, 1000000]"},
    "GroupFair": {"strength": WEIGHT},
    "OutcomeAnchored": {"anchor": "[0, 1]", "shaping": WEIGHT, "confidence_floor": "[0, 1]", "uniform_weight": WEIGHT},
    "AnswerCorrection": {"coef": WEIGHT},
    "SemanticAlignmentLoss": {"coef": WEIGHT, "seed": SEED},
    "RewardTerm": {"weight": "(-inf, inf)"},
    "JudgedAlignment": {"timeout": "(0, 1000000]"},
    "ExtendedChain": {"full_words": "[1, inf)"},
    "CorrectnessWeightedLength": {"full_words": "[1, inf)"},
    "LengthBand": {"low": "[0, 50]", "high": "[20, inf)", "soft": "[1, inf)"},
    "Repetition": {"n": "[1, inf)"},
    "Retriever": {"budget": "[1, inf)"},
    "PairMaker": {"margin": "(0, 1]", "max_length_ratio": "[1, inf)", "pairs_per_question": "[1, inf)"},
    "DermDataModule": DATA,
    "PromptDataModule": DATA,
    "ConversationDataModule": DATA,
    "PreferenceDataModule": DATA,
    "Curriculum": {"floor": "(0, 1]", "prior": POSITIVE, "discount": "[0, 1]"},
    "Camera": {"contrast": POSITIVE, "softness": "[0, 0.5]", "noise": "[0, 1]"},
    "PhantomSource": PHANTOM | {"label_noise": "[0, 1]", "ruler": "[0, 1]"},
    "PhantomConversations": PHANTOM | {"turns": "[1, inf)", "grounded": "[0, 1]"},
    "SplitSource": {"seed": SEED},
    "ChoiceQuestions": {"options": "[2, 26]", "seed": SEED},
    "FindingQuestions": {"seed": SEED},
    "NoisyReasoning": {"share": "[0, 1]", "seed": SEED},
    "FormatOnly": {"seed": SEED},
    "LogCompletions": {"every_n_steps": "[1, inf)", "shown": "[0, inf)"},
    "RunCheckpoint": {"every_n_train_steps": "[1, inf)"},
    "WriteAccepted": {"limit": "[1, inf)"},
    "WriteThumbnails": {"longest_side": COUNT},
    "Preflight": {"candidates": COUNT},
}
TOGETHER = {"fractions", "prior", "tones", "tones_given", "ruler_given", "places", "cast"}
NEEDED: dict[str, dict[str, Any]] = {
    "LengthBand": {"low": 20, "high": 50, "soft": 10},
    "CosineWithWarmup": {"warmup_steps": 1, "total_steps": 10},
    "SplitSource": {"fractions": {"x": 1.0}},
    "JudgedAlignment": {"url": "http://localhost:1"},
    "GroupFair": {"advantage": OutcomeAnchored()},
    "SemanticAlignmentLoss": {"encoder": len},
    "NoisyReasoning": {"share": 0.5},
}


def slow(*values: Any) -> Any:
    """A case of the slow tests."""
    return pytest.param(*values, marks=pytest.mark.slow)


def classes() -> Iterator[type]:
    """What YAML can name: modules, data, sources, callbacks, estimators, rewards, and what these take."""
    for module in pkgutil.walk_packages(dermiq.__path__, "dermiq."):
        if PROGRAMS.match(module.name) or module.name.endswith("__main__"):
            continue
        for name, found in vars(import_module(module.name)).items():
            if inspect.isclass(found) and found.__module__ == module.name and not name.startswith("_"):
                reward = module.name.startswith(("dermiq.rewards.", "dermiq.kg.rewards")) and "__call__" in vars(found)
                if issubclass(found, NAMED) or name in ALSO or reward:
                    yield found


def numeric(found: type) -> dict[str, bool]:
    """Options that are numbers, of its own or handed on; True for a float."""
    options: dict[str, bool] = {}
    for base in reversed(found.__mro__):
        if base.__module__.startswith("dermiq") and "__init__" in vars(base):
            parameters = inspect.signature(base).parameters
            options = options if "kwargs" in parameters else {}
            for name, parameter in parameters.items():
                hint = re.sub(r"Callable\[.*\]", "", str(parameter.annotation))
                if name != "self" and re.search(r"\b(int|float)\b", hint):
                    options[name] = "float" in hint
    return options


CLASSES = {found.__name__: found for found in classes()}
MAX_PIXELS = {name: {"max_pixels": "[1, inf)"} for name, found in CLASSES.items() if "max_pixels" in numeric(found)}
ROWS = MAX_PIXELS | TABLE


def beside(interval: str, is_float: bool) -> tuple[list[float], list[float]]:
    """Values at the bounds that an interval holds, and beside them that it does not."""
    low, high = (float(end) for end in interval[1:-1].split(", "))
    step = 1e-6 if is_float else 1
    held: list[float] = []
    refused: list[float] = [nan, inf, -inf] if is_float else []
    for end, closed, outwards in ((low, interval[0] == "[", -step), (high, interval[-1] == "]", step)):
        if abs(end) == inf:
            held.append(1e6 if end > 0 else -1e6)
            continue
        exact = end if is_float else int(interval[1:-1].split(", ")[outwards > 0])
        held.append(exact if closed else exact - outwards)
        refused += [exact + outwards if closed else exact, exact + outwards * (1e12 if is_float else 10**19)]
    return [value if is_float else int(value) for value in held], refused


def made(name: str, option: str, value: float) -> Any:
    """An object of the class, all else as it must be."""
    found = CLASSES[name]
    given: dict[str, Any] = {}
    for parameter in inspect.signature(found).parameters.values():
        if parameter.default is inspect.Parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            hint = str(parameter.annotation)
            given[parameter.name] = {"str": "x", "Source": PhantomSource(4)}.get(hint, 2)
    if issubclass(found, LightningModule):
        given = {"backbone": None, "rewards": None}
    if issubclass(found, LightningDataModule):
        given = {"model_id": "x", "sources": {"all": PhantomSource(4)}}
        value = {"train": value} if option == "limit" else value
    if found is CosineWithWarmup:
        given["optimizer"] = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    return found(**given | NEEDED.get(name, {}) | {option: value})


BASES = {name for name, found in CLASSES.items() if inspect.isabstract(found)} | {"PublishedQuestions"}


@pytest.mark.parametrize(
    ("name", "option", "interval"),
    [(name, option, interval) for name, row in ROWS.items() for option, interval in row.items() if name not in BASES],
)
def test_at_and_beside_its_bounds(name, option, interval):
    held, refused = beside(interval, numeric(CLASSES[name])[option])
    for value in held:
        made(name, option, value)
    for value in refused:
        with pytest.raises((ValueError, DermIQError)) as caught:
            made(name, option, value)
        assert len(str(caught.value)) < 300


def test_no_numeric_option_is_left_out():
    """A new option needs a row here."""
    missing = {
        f"{name}.{option}"
        for name, found in CLASSES.items()
        for option in numeric(found)
        if option not in ROWS.get(name, {}) and option not in TOGETHER
    }
    assert missing == set()
    assert all(ROWS[name].keys() <= numeric(CLASSES[name]).keys() for name in ROWS)


@pytest.mark.parametrize(
    ("name", "interval"),
    [
        ("max_steps", "[1, inf)"),
        ("max_epochs", "[1, inf)"),
        ("accumulate_grad_batches", "[1, inf)"),
        ("gradient_clip_val", WEIGHT),
        ("limit_train_batches", POSITIVE),
        ("val_check_interval", POSITIVE),
        ("check_val_every_n_epoch", "[1, inf)"),
        ("log_every_n_steps", "[0, inf)"),
    ],
)
def test_numbers_of_the_trainer(name, interval):
    """Beyond -1, which is no end, and what Lightning refuses by itself, in words of its own."""
    held, refused = beside(interval, name in ("gradient_clip_val", "limit_train_batches", "val_check_interval"))
    for value in held:
        check_trainer(quiet_trainer(**{name: value}))
    for value in set(refused) - {-1}:
        with pytest.raises((RangeError, MisconfigurationException), match=name):
            check_trainer(quiet_trainer(**{name: value}))


@pytest.mark.parametrize("rate", [-1e-9, -1.0, nan, inf, -inf])
@pytest.mark.parametrize("option", ["lr", "weight_decay"])
@pytest.mark.parametrize("kind", ["AdamW", "SGD", "Adam", "RMSprop"])
def test_numbers_of_the_optimiser(kind, option, rate):
    """Torch refuses some of them, by an error of its own."""
    optimizer = partial(getattr(torch.optim, kind), **{"lr": 1e-3, option: rate})
    backbone = SimpleNamespace(trainable_parameters=lambda: [torch.zeros(1, requires_grad=True)])
    module = attached(SFTModule(backbone, None, optimizer=optimizer))
    with pytest.raises(DermIQError, match=f"{option}|learning rate"):
        module.configure_optimizers()


def test_other_numbers_of_the_optimiser():
    weights = [torch.zeros(1, requires_grad=True)]
    check_rates(torch.optim.SGD(weights, lr=0.0, momentum=0.9, weight_decay=0.0))
    for options in ({"momentum": nan}, {"momentum": inf}, {"dampening": nan}):
        with pytest.raises(RangeError, match=next(iter(options))):
            check_rates(torch.optim.SGD(weights, lr=1.0, **options))


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (["torch.optim.lr_scheduler.ExponentialLR", "gamma=-1"], r"SGD: lr is at least 0; got -0\.01"),
        slow(["torch.optim.lr_scheduler.ExponentialLR", "gamma=.nan"], "SGD: lr is finite and at least 0; got nan"),
        slow(["torch.optim.lr_scheduler.LinearLR", "start_factor=2"], "cannot be made.*Starting"),
        slow(["dermiq.modules.schedules.CosineWithWarmup", "warmup_steps=5", "total_steps=5"], "warmup_steps < total"),
    ],
)
def test_schedules(scheduler, message, lab, tmp_path):
    """Those of torch take anything, and turn the rate around in a later step."""
    path, *options = scheduler
    given = [f"--model.scheduler={path}", *(f"--model.scheduler.{option}" for option in options)]
    sgd = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.01", "--trainer.max_steps=3"]
    with pytest.raises(DermIQError, match=message):
        lab.run("fit", "SFTModule", tmp_path, *sgd, *given)


@pytest.mark.parametrize(
    "option",
    [
        "--model.max_grad_norm=-1",
        "--model.optimizer.lr=-1",
        "--trainer.accumulate_grad_batches=0",
        slow("--model.max_grad_norm=0"),
        slow("--model.max_grad_norm=.nan"),
        slow("--model.optimizer.weight_decay=-1"),
        slow("--model.eval_sampling.max_new_tokens=1000000000000"),
        slow("--data.batch_size=0"),
        slow("--data.batch_size=1000000000000"),
        slow("--data.split_seed=-1"),
        slow("--data.limit.train=0"),
        slow("--trainer.max_steps=0"),
        slow("--trainer.gradient_clip_val=.nan"),
    ],
)
def test_on_the_command_line(option, lab, tmp_path, capsys):
    """One sentence that names the option, and exit code 2."""
    with pytest.raises(SystemExit) as left:
        main(lab.arguments("fit", "SFTModule", tmp_path, option))
    said = capsys.readouterr().err
    assert left.value.code == 2 and "Traceback" not in said
    name = option.split("=")[0].split(".")[-1]
    assert ("limit" if name == "train" else "learning rate" if name == "lr" else name) in said
