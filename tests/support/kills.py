"""Killing of commands (SIGKILL) at a chosen moment, and checks of what they leave behind.

Each command is a process of its own, forked from a server that has imported the libraries: the kill is as real as
a shell's, and the start costs a second instead of ten.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from dermiq.cli import main
from dermiq.files import PARTIAL, whole_lines

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["dermiq.cli", "transformers.models.idefics3.modeling_idefics3", "tensorboard", "pytest"])
OPERATIONS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
ADAPTER_FILES = {"adapter_model.safetensors", "adapter_config.json", "README.md"}
CLOCK = {"train/tokens_per_second"}


@dataclass(frozen=True)
class Moment:
    """When to kill: right before an operation on the run's files (from 0), or some seconds after it has begun."""

    operation: int
    seconds: float | None


@dataclass(frozen=True)
class Finished:
    """What an undisturbed command took: seconds, and operations on the run's files."""

    seconds: float
    operations: int

    def moments(self, seed: str) -> Iterator[Moment]:
        """Random moments, by turns right before an operation and at any time up to the next one or the one after.

        Counting operations, not seconds alone, spreads them evenly over a run however busy the machine is.
        """
        generator = random.Random(seed)
        while True:
            yield Moment(generator.randrange(self.operations), None)
            yield Moment(generator.randrange(self.operations), generator.uniform(0, 2 * self.seconds / self.operations))


def serve() -> None:
    """Start the server, so that no command waits for its imports."""
    process = FORK.Process(target=int)
    process.start()
    process.join()


def finish(arguments: list[str], root: Path) -> Finished:
    """Run a command to its end."""
    start = time.monotonic()
    process, begun = _start(arguments, root, None)
    process.join()
    assert process.exitcode == 0, _log(root).read_text()
    return Finished(time.monotonic() - start, begun.value)


def kill(arguments: list[str], root: Path, moment: Moment) -> bool:
    """Run a command and kill it at a moment; False if it had finished by then."""
    process, begun = _start(arguments, root, moment.operation if moment.seconds is None else None)
    while process.is_alive() and (moment.seconds is None or begun.value <= moment.operation):
        process.join(0.001)
    if moment.seconds is not None:
        process.join(moment.seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), _log(root).read_text()
    return process.exitcode != 0


def survivors(command: Callable[[Path], list[str]], whole: Path, kills: int, seed: str) -> Iterator[Path]:
    """Directories of runs that were killed, some several times over, until so many kills are made; all finished.

    Args:
        command: gives the command that goes on where a run directory stands.
        whole: where an undisturbed run goes before.
        kills: how many to make.
        seed: of their moments.
    """
    serve()
    moments = finish(command(whole), whole).moments(seed)
    assert_whole(whole, finished=True)
    made, run = 0, 0
    while made < kills:
        run += 1
        root = whole.with_name(f"killed-{run}")
        while made < kills and kill(command(root), root, next(moments)):
            made += 1
            assert_whole(root)
        finish(command(root), root)
        assert_whole(root, finished=True)
        yield root


def assert_whole(root: Path, finished: bool = False) -> None:
    """Every file that the run directory holds can be read to its end; a finished run has left none unfinished.

    Of a file that grows line by line a kill may tear the last one.
    """
    for path in sorted(root.rglob("*")):
        if path.is_file() and PARTIAL not in str(path.relative_to(root)):
            _READERS[path.suffix if "tfevents" not in path.name else "tfevents"](path)
    if finished:
        left = [path for path in root.rglob(f"*{PARTIAL}") if "earlier" not in path.relative_to(root).parts]
        assert left == []  # but of what was set aside as a kill had left it
        for path in root.rglob("*.jsonl"):
            _lines(path)
    if (root / "adapter").exists():
        assert {path.name for path in (root / "adapter").iterdir()} >= ADAPTER_FILES


def history(root: Path) -> dict[tuple[int, bool], dict[str, str]]:
    """The metrics by (step, whether of a validation), over all runs in a directory, without what a clock measured.

    What a resumed run did a second time must have come out the same.
    """
    rows: dict[tuple[int, bool], dict[str, str]] = {}
    for path in (root / "metrics").glob("*/metrics.csv"):
        for whole in csv.DictReader(path.read_text().splitlines()):
            row = {key: value for key, value in whole.items() if value and key not in CLOCK}
            key = int(row["step"]), any(name.startswith("val/") for name in row)
            assert rows.setdefault(key, row) == row
    return rows


def _start(arguments: list[str], root: Path, fatal: int | None) -> tuple[Any, Any]:
    begun = FORK.Value("l", 0, lock=False)
    process = FORK.Process(target=_run, args=(arguments, str(root), str(_log(root)), fatal, begun))
    process.start()
    return process, begun


def _log(root: Path) -> Path:
    return root.with_suffix(".log")


def _run(arguments: list[str], root: str, log: str, fatal: int | None, begun: Any) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)

    def watch(event: str, values: tuple[Any, ...]) -> None:
        if event in OPERATIONS and any(isinstance(v, str | os.PathLike) and str(v).startswith(root) for v in values):
            if begun.value == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            begun.value += 1

    sys.addaudithook(watch)
    main(arguments)


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n"), path
    return text.splitlines()


def _table(path: Path) -> None:
    header, *rows = csv.reader(io.StringIO("\n".join(_lines(path))))
    assert all(len(row) == len(header) for row in rows), path


def _mapping(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path


_READERS: dict[str, Callable[[Path], object]] = {
    ".ckpt": lambda path: torch.load(path, weights_only=True),
    ".safetensors": load_file,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": lambda path: [json.loads(line) for line in whole_lines(path)],
    ".yaml": _mapping,
    ".parquet": pq.read_table,
    ".csv": _table,
    ".txt": _lines,
    ".png": lambda path: Image.open(path).load(),
    ".lock": lambda path: path.read_text(encoding="utf-8"),
    ".md": lambda path: path.read_text(encoding="utf-8"),
    "tfevents": lambda path: None,  # TensorBoard's readers stop at the last whole record
}
