"""Which layers of a model an adapter is put on, by the names that a user gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from dermiq.programs.arguments import did_you_mean, nearest
from dermiq.schema import ModelError

ALL = "all-linear"


def split_names(names: Sequence[str] | str) -> tuple[str, ...]:
    """Names as a tuple, given as such or as text.

    >>> split_names("q_proj, v_proj")
    ('q_proj', 'v_proj')
    """
    parts = names.strip("[]()").split(",") if isinstance(names, str) else names
    return tuple(filter(None, (part.strip(" '\"") for part in parts)))


def target_names(model: Any, model_id: str, targets: Sequence[str] | str, vision: bool) -> list[str]:
    """The whole names of the linear layers called as in `targets`, of the language model alone unless `vision`.

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


def check_modules(model: Any, model_id: str, names: Sequence[str] | str) -> None:
    """Check that modules to train as a whole are there.

    Raises:
        ModelError: at a name that no module has.
    """
    known = {name.split(".")[-1] for name, _ in model.named_modules() if name}
    for name in split_names(names):
        if name.split(".")[-1] not in known:
            close = did_you_mean(nearest(name, known), "Leave it out of lora.fully_trained.")
            raise ModelError(f"No module of {model_id!r} is named {name!r}{close}")


def _unknown(name: str, model_id: str, ends: set[str], linear: set[str], model: Any) -> str:
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
