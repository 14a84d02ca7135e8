"""Memory and time of a training step."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dermiq.modules import StageModule
from dermiq.trainer.preflight.step import worst_step

GIB = 2**30
_PROCESS, _MACHINE = Path("/proc/self/status"), Path("/proc/meminfo")
_CONTAINERS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_ALLOCATION_FAILED = ("can't allocate memory", "not enough memory", "ALLOC_FAILED")  # of the CPU's allocator, of cuBLAS


@dataclass(frozen=True)
class Needs:
    """Memory and time of a worst-case step, in bytes and seconds.

    Attributes:
        contents: of the step: name -> a description.
        memory: whose memory it is, and how it is counted.
        limit: what this process may take in all.
        peak: what it took; infinite where it ran out of memory.
        frozen: weights that are not trained.
        training: trained weights, their gradients and the optimiser's state.
        seconds: that the step took.
    """

    contents: dict[str, str]
    memory: str
    limit: float
    peak: float
    frozen: int
    training: int
    seconds: float

    @property
    def headroom(self) -> float:
        """What is left at the peak."""
        return self.limit - self.peak

    @property
    def exhausted(self) -> bool:
        """True if the step ran out of memory."""
        return self.peak == torch.inf


def measure(trainer: Trainer, module: StageModule, batch: Mapping[str, Any]) -> Needs:
    """Memory and time of a worst-case training step, of the process that needs most."""
    strategy, device = trainer.strategy, trainer.strategy.root_device
    gradients = sum(parameter.nbytes for parameter in module.backbone.trainable_parameters())
    state = optimiser_state(module)
    # Gradients of earlier batches stand beside the activations of the next one.
    standing = state + gradients * (module.accumulated_batches > 1)
    _free()
    memory: _Memory = _DeviceMemory(device) if device.type == "cuda" else _ResidentMemory()
    peak, output, start = torch.inf, None, time.perf_counter()
    try:
        placeholder = torch.ones(standing, dtype=torch.uint8, device=device)
        output = worst_step(trainer, module, batch)
        peak = memory.peak()
        del placeholder
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
    seconds = time.perf_counter() - start
    contents, output = _contents(batch, output), None
    _free()
    most = torch.tensor([peak / GIB, -memory.limit / GIB, seconds], dtype=torch.float32, device=device)
    peak, limit, seconds = strategy.reduce(most, reduce_op="max").tolist()
    frozen = sum(_own(tensor).nbytes for tensor in (*module.parameters(), *module.buffers())) - gradients
    return Needs(contents, memory.name, -limit * GIB, peak * GIB, frozen, 2 * gradients + state, seconds)


def optimiser_state(module: StageModule) -> int:
    """Bytes of the optimiser's state, as after a step on stand-ins of the weights.

    An optimiser that needs real weights for it (Adafactor, those of 8 bits) counts like Adam: two numbers per weight.
    """
    trained = module.backbone.trainable_parameters()
    weights = [nn.Parameter(torch.empty_like(parameter, device="meta")) for parameter in trained]
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    try:
        optimizer = module.make_optimizer(weights)
        optimizer.step()
    except Exception:  # kernels fail at tensors without content in any way
        return 2 * sum(parameter.nbytes for parameter in trained)
    kept = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in kept if isinstance(value, Tensor))


def in_bytes(count: float) -> str:
    """Bytes as text."""
    return f"{count / GIB:.2f} GiB" if abs(count) >= GIB else f"{count / 2**20:.2f} MiB"


class _Memory(Protocol):
    """A gauge of the peak memory since it was made."""

    limit: float

    @property
    def name(self) -> str: ...

    def peak(self) -> float: ...


class _DeviceMemory:
    """Memory of a GPU, as PyTorch allocates it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        free, _ = torch.cuda.mem_get_info(device)
        self.limit = float(free + torch.cuda.memory_reserved(device))
        torch.cuda.reset_peak_memory_stats(device)

    @property
    def name(self) -> str:
        reserved = torch.cuda.max_memory_reserved(self.device)
        return f"{torch.cuda.get_device_name(self.device)}; PyTorch reserved {in_bytes(reserved)}"

    def peak(self) -> float:
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device)


class _ResidentMemory:
    """Memory of the machine (or of the container), by what of the process is resident."""

    def __init__(self) -> None:
        self.name = "main memory, all of this process"
        if not _PROCESS.exists():
            self.name += " since it began"
            self.limit = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
            return
        self.limit = _entry(_PROCESS, "VmRSS") + _entry(_MACHINE, "MemAvailable")
        for path in _CONTAINERS:
            if path.exists() and (text := path.read_text().strip()).isdigit():
                self.limit = min(self.limit, float(text))
        try:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        except OSError:
            self.name += " since it began"

    def peak(self) -> float:
        if _PROCESS.exists():
            return _entry(_PROCESS, "VmHWM")
        import resource  # which Windows lacks

        unit = 1 if sys.platform == "darwin" else 1024
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _entry(path: Path, name: str) -> float:
    """A number of kilobytes in one of Linux's tables, in bytes."""
    return 1024.0 * int(path.read_text().split(f"{name}:")[1].split()[0])


def _contents(batch: Mapping[str, Any], output: Any) -> dict[str, str]:
    name = "conversation" if "conversation" in batch else "prompt"
    rows, tokens = batch[name]["input_ids"].shape
    images, longest = sum(map(len, batch["images"])), batch["samples"][0].id
    contents = {f"{name}s": f"{rows:,} of {tokens:,} tokens, {images:,} images, the longest of sample {longest!r}"}
    lengths = None
    if "completion_mask" in batch:
        lengths = batch["completion_mask"].sum(dim=1)
    elif isinstance(output, dict) and "rollout" in output:
        lengths = output["rollout"].lengths.flatten()
    if lengths is not None:
        contents["completions"] = f"{len(lengths):,} of {int(lengths.max()):,} tokens"
    return contents


def _own(tensor: Tensor) -> Tensor:
    """A tensor, or this process's part of one that is shared out."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(text in str(error) for text in _ALLOCATION_FAILED)


def _free() -> None:
    """Free unreferenced memory, so that the peak is the step's own."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
