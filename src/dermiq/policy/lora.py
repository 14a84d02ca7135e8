"""LoRA settings, and the layers of a model that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from dermiq.programs.arguments import did_you_mean, nearest
from dermiq.schema import ModelError

ALL = "all-linear"


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on the linear layers of the language model.

    Attributes:
        targets: names of the linear layers to adapt, as a list or as text with commas; ``all-linear`` for all of them.
        rank: rank of the update.
        alpha: the update is scaled by ``alpha / rank``.
        dropout: on the adapter's input; keep 0 for reinforcement learning.
        vision: adapt the layers of these names in the vision tower too, which puts it into autograd.
        fully_trained: names of modules to train as a whole (for models trained from scratch).
    """

    targets: tuple[str, ...] | str = ("q_proj", "k_proj", "v_proj", "o_proj")
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    vision: bool = False
    fully_trained: tuple[str, ...] | str = ()

    def __post_init__(self) -> None:
        for name in ("targets", "fully_trained"):
            object.__setattr__(self, name, split_names(getattr(self, name)))
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1 or not self.targets:
            raise ValueError(f"LoRA needs rank >= 1, alpha > 0, 0 <= dropout < 1 and at least one target; got {self}")

    def options(self, model: Any, model_id: str) -> dict[str, Any]:
        """Keyword arguments of peft's `LoraConfig` for a model of transformers.

        Raises:
            ModelError: if a name is none of the model's, or the rank is too large for its layers.
        """
        names = _target_names(model, model_id, self.targets, self.vision)
        _check_modules(model, model_id, self.fully_trained)
        layers = [cast(nn.Linear, model.get_submodule(name)) for name in names]
        widest = max(max(layer.in_features, layer.out_features) for layer in layers)
        if self.rank > widest:
            raise ModelError(f"lora.rank={self.rank} is more than the {widest} channels of the widest layer it adapts.")
        return {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": names,
            "modules_to_save": list(self.fully_trained) or None,
        }


def split_names(names: Sequence[str] | str) -> tuple[str, ...]:
    """Names as a tuple, from a list or from text with commas.

    >>> split_names("q_proj, v_proj")
    ('q_proj', 'v_proj')
    """
    parts = names.strip("[]()").split(",") if isinstance(names, str) else names
    return tuple(filter(None, (part.strip(" '\"") for part in parts)))


def _target_names(model: Any, model_id: str, targets: Sequence[str] | str, vision: bool) -> list[str]:
    """Full names of the linear layers whose last names are `targets`, of the language model alone unless `vision`.

    Raises:
        ModelError: at a name that no such layer has.
    """
    language = {id(module) for module in model.get_decoder().modules()}
    output = model.get_output_embeddings()
    linear = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear) and each is not output}
    allowed = [name for name, each in linear.items() if vision or id(each) in language]
    ends = {name.split(".")[-1] for name in allowed}
    wanted = split_names(targets)
    chosen = ends if ALL in wanted else set(wanted)
    for name in [each for each in wanted if each != ALL and each not in ends]:
        raise ModelError(_unknown(name, model_id, ends, {each.split(".")[-1] for each in linear}, model))
    return [name for name in allowed if name.split(".")[-1] in chosen]


def _check_modules(model: Any, model_id: str, names: Sequence[str] | str) -> None:
    """Refuse names of modules to train as a whole that the model does not have.

    Raises:
        ModelError: at a name that no module has.
    """
    known = {name.split(".")[-1] for name, _ in model.named_modules() if name}
    for name in split_names(names):
        if name.split(".")[-1] not in known:
            close = did_you_mean(nearest(name, known), "Leave it out of lora.fully_trained.")
            raise ModelError(f"No module of {model_id!r} is named {name!r}{close}")


def _unknown(name: str, model_id: str, ends: set[str], linear: set[str], model: Any) -> str:
    """The refusal of a target that no layer has."""
    output = next((key for key, each in model.named_modules() if each is model.get_output_embeddings()), "")
    if name == output.split(".")[-1]:
        return f"{name!r} is the output layer of {model_id!r}: name it in lora.fully_trained, not in lora.targets."
    if name in linear:
        return (
            f"In the language model of {model_id!r} no layer is named {name!r}, in its vision tower one is: to adapt "
            f"that too, set lora.vision=true. Linear layers of the language model: {sorted(ends)}."
        )
    close = nearest(name, ends)
    return (
        f"No layer of {model_id!r} is named {name!r}{f'; did you mean {close}?' if close else '.'} Its linear layers: "
        f"{sorted(ends)}."
    )
