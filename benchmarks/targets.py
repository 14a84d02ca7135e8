"""Targets of the GRPO benchmark on 2 CPU cores, and by how much they are met."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Times as fast as TRL: part of the step, tokens of the prompt, completions, at least.
SPEED = (
    ("step", 1100, 8, 4.0),
    ("step", 340, 8, 2.5),
    ("update", 1100, 8, 7.0),
    ("update", 340, 8, 4.0),
    ("update", 1100, 32, 12.0),
)
MEMORY = 1.1  # what an update adds at the largest group over what it adds at the smallest, at most
MODEL = {"family": "qwen2_5_vl", "size": "medium", "new_tokens": 64}


def verdicts(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The targets, what was measured, and by how much each is met (1 or above) or missed (below).

    An update's target stands twice: for the update as it is, whose pass over the prompt the rollout has made already,
    and for the update that is charged with this pass too.
    """
    found = []
    for part, prompt, group, target in SPEED:
        for cell in _select(cells, kind="time", prompt_tokens=prompt, group_size=group, **MODEL):
            for each in (part, "update_alone") if part == "update" else (part,):
                measured = cell["trl_over_dermiq"][each]["median"]
                what = f"{each}, prompt {prompt}, group {group}: times as fast as TRL, at least"
                found.append({"what": what, "target": target, "measured": measured, "met_by": measured / target})
    memory = {
        cell["settings"]["group_size"]: cell["mib"]["update_growth"] for cell in _select(cells, side="dermiq", **MODEL)
    }
    if len(memory) > 1:
        small, large = min(memory), max(memory)
        measured = memory[large] / memory[small]
        what = f"memory that an update adds, group {large} over group {small}: at most"
        found.append({"what": what, "target": MEMORY, "measured": measured, "met_by": MEMORY / measured})
    return found


def _select(cells: Iterable[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    return [cell for cell in cells if all(cell["settings"][name] == value for name, value in settings.items())]
