"""Time and memory of an asynchronous device, and a report that survives a kill."""

from __future__ import annotations

import gc
import json
import platform
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

GIB = 2**30
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "trl", "flash-attn", "triton")

Result = dict[str, Any]


class OutOfTime(Exception):
    """The benchmark's time is spent."""


@dataclass(frozen=True)
class Meter:
    """Seconds and peak memory of what runs on `device`."""

    device: torch.device

    @property
    def cuda(self) -> bool:
        """Whether the device counts its memory."""
        return self.device.type == "cuda"

    def synchronise(self) -> None:
        """Wait until the device has done all that it was asked to."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def clear(self) -> None:
        """Free what nothing refers to any more, and give cached memory back, on a device whose memory is measured."""
        if self.cuda:
            gc.collect()
            torch.cuda.empty_cache()

    def seconds(self, run: Callable[[], object]) -> float:
        """Wall-clock seconds of one run, from an idle device to an idle device."""
        self.synchronise()
        start = time.perf_counter()
        run()
        self.synchronise()
        return time.perf_counter() - start

    @contextmanager
    def peak(self, result: Result) -> Iterator[None]:
        """Write the memory that the device held before, and at most, into `result` (GiB); nothing on a CPU."""
        if not self.cuda:
            yield
            return
        self.synchronise()
        result["before_gib"] = torch.cuda.memory_allocated(self.device) / GIB
        torch.cuda.reset_peak_memory_stats(self.device)
        yield
        self.synchronise()
        result["peak_allocated_gib"] = torch.cuda.max_memory_allocated(self.device) / GIB
        result["peak_reserved_gib"] = torch.cuda.max_memory_reserved(self.device) / GIB

    def measure(self, run: Callable[[], object], repeats: int, warm_up: Callable[[], object] | None = None) -> Result:
        """Median seconds and peak memory of `repeats` runs after `warm_up` (one more run, unless another is given)."""
        self.clear()
        (warm_up or run)()
        result: Result = {}
        with self.peak(result):
            seconds = [self.seconds(run) for _ in range(repeats)]
        return {"seconds": statistics.median(seconds), "all_seconds": seconds, **result}

    def bandwidth(self, size: int) -> float:
        """Bytes per second of a copy of `size` bytes on the device: what it reads and what it writes."""
        source = torch.empty(size, dtype=torch.uint8, device=self.device).zero_()
        target = torch.empty_like(source)
        rounds = 10
        target.copy_(source)
        seconds = min(self.seconds(lambda: [target.copy_(source) for _ in range(rounds)]) for _ in range(3))
        return 2 * size * rounds / seconds

    def machine(self) -> Result:
        """What the figures depend on beside the settings."""
        found: Result = {
            "device": torch.cuda.get_device_name(self.device) if self.cuda else platform.processor() or "cpu",
            "python": platform.python_version(),
            "cuda": torch.version.cuda,
            "versions": {name: _version(name) for name in PACKAGES},
        }
        if self.cuda:
            properties = torch.cuda.get_device_properties(self.device)
            found["memory_gib"] = properties.total_memory / GIB
            found["compute_capability"] = f"{properties.major}.{properties.minor}"
            found["multiprocessors"] = properties.multi_processor_count
            found["driver"] = _driver()
        return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return output.splitlines()[0].strip()


@dataclass
class Report:
    """Results by section, written to `out` whenever something is known, within a budget of seconds.

    Attributes:
        out: the JSON file, or None.
        meter: of the device.
        budget_s: after these seconds a running section is stopped and none is begun.
        results: what is known.
        broken: sections that failed for another reason than memory or time.
    """

    out: Path | None
    meter: Meter
    budget_s: float
    results: Result
    broken: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget_s - (time.perf_counter() - self.started)

    def section(self, name: str) -> Result:
        """What is known of a section, to be filled in."""
        found: Result = self.results.setdefault("sections", {}).setdefault(name, {})
        return found

    def run(self, name: str, section: Callable[[], Iterator[Result]], share: float = 1.0) -> None:
        """Run a section and keep each of the results that it yields, also when it runs out of time or memory.

        It may take at most `share` of the budget.
        """
        entry = self.section(name)
        limit = min(self.left, share * self.budget_s)
        if limit <= 0:
            entry["skipped"] = "no time left"
        else:
            start = time.perf_counter()
            try:
                with _alarm(limit):
                    for found in section():
                        entry.update(found)
                        self.write()
            except OutOfTime:
                entry["stopped"] = f"after {limit:.0f} s: this section's time was spent"
            except torch.OutOfMemoryError as error:
                entry["out_of_memory"] = str(error).splitlines()[0]
            except Exception:  # such as a recording of a CUDA graph that the alarm has cut short
                if time.perf_counter() - start >= limit:
                    entry["stopped"] = f"after {limit:.0f} s: this section's time was spent"
                else:
                    entry["failed"] = traceback.format_exc().splitlines()[-12:]
                    self.broken.append(name)
            entry["section_seconds"] = time.perf_counter() - start
        print(f"{name}: {', '.join(entry)}; {self.left:.0f} s left", file=sys.stderr)
        self.meter.clear()
        self.results["total_seconds"] = time.perf_counter() - self.started
        self.write()

    def write(self) -> None:
        """Replace the file as a whole, so that a kill leaves the last complete one."""
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            draft = self.out.with_name(self.out.name + ".part")
            draft.write_text(json.dumps(self.results, indent=1) + "\n")
            draft.replace(self.out)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise OutOfTime inside the block once `seconds` are over (between two operations of the main thread)."""

    def stop(*_: Any) -> None:
        raise OutOfTime

    if not hasattr(signal, "setitimer"):  # Windows: sections are not stopped, only no more are begun
        yield
        return
    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
