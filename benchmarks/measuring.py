"""Measurement helpers: the machine, medians, memory of a process, publishing of results."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any

_M_MMAP_THRESHOLD, _M_MMAP_MAX = -3, -4  # malloc.h


def machine(*packages: str) -> dict[str, Any]:
    """What the figures depend on beside the settings: processor, and versions of Python and of `packages`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    found = {name: version(name) for name in packages}
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), **found}


def summary(values: list[float]) -> dict[str, Any]:
    """Median and all values."""
    return {"median": statistics.median(values), "all": values}


def resident(field: str) -> float:
    """Resident memory of this process in MiB: `VmRSS` now, `VmHWM` at its highest since `forget_peak` (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def forget_peak() -> None:
    """Let the peak of this process start anew at what is resident now.

    `getrusage` would not do: its `ru_maxrss` starts with the peak of the process that started this one.
    """
    Path("/proc/self/clear_refs").write_text("5")


def exact_malloc() -> None:
    """Let malloc return every freed tensor at once: what it keeps for later would hide what is in use (glibc)."""
    libc = ctypes.CDLL(None)
    for option, value in ((_M_MMAP_THRESHOLD, 65536), (_M_MMAP_MAX, 1_000_000)):
        if libc.mallopt(option, value) != 1:
            raise OSError("malloc cannot be made exact here")


def publish(result: dict[str, Any], out: Path | None) -> None:
    """Print a result as JSON, and write it to `out` if there is one."""
    text = json.dumps(result, indent=1)
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
