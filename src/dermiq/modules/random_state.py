"""Random states, saved and restored for an exact resume."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def random_state() -> dict[str, Any]:
    """The states of Python, NumPy and torch in this process, ready for a checkpoint."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    state["numpy"] = (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached)
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()  # of this process's own GPU: no other is used
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the states that `random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        saved = state["cuda"]
        if not isinstance(saved, Tensor):  # earlier checkpoints hold the state of every GPU that was visible
            own = torch.cuda.current_device()
            saved = saved[own if own < len(saved) else 0]
        torch.cuda.set_rng_state(saved.cpu())
