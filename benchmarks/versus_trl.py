"""GRPO with DermIQ and with TRL, side by side: seconds and memory of a step, its rollout and its update.

    python benchmarks/versus_trl.py --suite cpu --out benchmarks/results      # all cells; half an hour on 2 idle cores
    python benchmarks/versus_trl.py --families qwen3_vl --sizes tiny --prompt-tokens 340 --groups 4 8 --out DIR

Every cell (family, size, lengths, group) runs in a process of its own, in which both sides take turns on the same
model, prompt and pictures. The JSON is written after each; a run that was stopped goes on where it was, and measures
again only with `--again`. What is measured, and how to read the JSON: `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench_models import FAMILIES, HIDDEN, LAYERS
from grpo_cell import Cell, measure
from measuring import machine
from targets import verdicts

PACKAGES = ("torch", "transformers", "peft", "lightning", "trl", "dermiq")
LARGE_GROUP, FEW_REPEATS = 32, 3
MEMORY_GROUPS = (4, 16, 64)
MEMORY_TOKENS_PER_PASS = 256  # so that a group of 4 fills a micro-batch, and a larger one gets several


def suite(options: argparse.Namespace) -> list[Cell]:
    """The cells of the published table: what the targets are about first, memory last."""
    times = [("qwen2_5_vl", "medium", prompt, 64, 8) for prompt in (340, 1100)]
    times += [("qwen2_5_vl", "medium", 1100, 64, group) for group in (4, 16, 32, 64)]
    times += [("qwen2_5_vl", "medium", 1100, new, 8) for new in (32, 128, 256)]
    times += [("qwen2_5_vl", "medium", prompt, 64, 8) for prompt in (200, 700, 1500, 2000)]
    times += [(family, "medium", prompt, 64, 8) for family in FAMILIES[1:] for prompt in (340, 1100)]
    times += [(family, "tiny", 340, 64, 8) for family in FAMILIES]
    cells = [time_cell(options, *settings) for settings in times]
    return cells + [cell for group in MEMORY_GROUPS for cell in memory_cells(options, "medium", 1100, group)]


def grid(options: argparse.Namespace) -> list[Cell]:
    """Every combination of what the command line asks for, with memory where it says so."""
    chosen = (options.families, options.sizes, options.prompt_tokens, options.new_tokens, options.groups)
    cells = [time_cell(options, *settings) for settings in product(*chosen)]
    if options.memory:
        for size, prompt, group in product(options.sizes, options.prompt_tokens, options.groups):
            cells += memory_cells(options, size, prompt, group)
    return cells


def time_cell(options: argparse.Namespace, family: str, size: str, prompt: int, new: int, group: int) -> Cell:
    """A cell of times; large groups take long, and vary little."""
    repeats = min(options.repeats, FEW_REPEATS) if group >= LARGE_GROUP else options.repeats
    return Cell("time", family, size, prompt, new, group, repeats, options.threads, options.tokens_per_pass)


def memory_cells(options: argparse.Namespace, size: str, prompt: int, group: int) -> list[Cell]:
    """Memory of DermIQ, of TRL at its leanest (a completion at a time), and of TRL with four at a time."""
    new = options.new_tokens[0]
    common = ("memory", "qwen2_5_vl", size, prompt, new, group, 1, options.threads, MEMORY_TOKENS_PER_PASS)
    return [Cell(*common, "dermiq"), Cell(*common, "trl", 1), Cell(*common, "trl", min(4, group))]


def run(cells: list[Cell], path: Path, again: bool) -> None:
    """Measure what the file does not hold yet, each cell in a fresh process, and write the file after each.

    Raises:
        SystemExit: if the file is of another machine or of other versions, or a cell fails.
    """
    old = {"cells": []} if again or not path.exists() else json.loads(path.read_text())
    if old["cells"] and old["machine"] != machine(*PACKAGES):
        raise SystemExit(f"{path} is of {old['machine']}: measure all of it --again, or choose another --out.")
    kept: list[dict[str, Any]] = old["cells"]
    known = [entry["settings"] for entry in kept]
    left = [cell for cell in cells if asdict(cell) not in known]
    start, done = time.perf_counter(), 0.0
    write(path, kept)
    for place, cell in enumerate(left):
        kept.append(in_child(cell))
        write(path, kept)
        done += cell.work
        passed = time.perf_counter() - start
        rest = passed / done * sum(each.work for each in left[place + 1 :])
        print(f"[{place + 1}/{len(left)}] {cell} | {passed / 60:.1f} min, {rest / 60:.1f} left", file=sys.stderr)


def in_child(cell: Cell) -> dict[str, Any]:
    """What one cell gives in a process of its own, which starts with everything imported.

    Raises:
        SystemExit: with what the process said, if it failed.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryFile("w+") as said:
        child = context.Process(target=_report, args=(cell, sender, said.fileno()), daemon=True)
        child.start()
        sender.close()
        try:
            result: dict[str, Any] = receiver.recv()
        except EOFError:
            child.join()
            said.seek(0)
            raise SystemExit(f"{said.read()}\n{cell} failed (exit code {child.exitcode}): see above.") from None
        child.join()
    return result


def _report(cell: Cell, sender: Connection, said: int) -> None:
    """Measure in a child, whose output goes to the file `said`."""
    os.dup2(said, sys.stdout.fileno())
    os.dup2(said, sys.stderr.fileno())
    sender.send(measure(cell))


def write(path: Path, cells: list[dict[str, Any]]) -> None:
    """Write the JSON."""
    result = {
        "machine": machine(*PACKAGES),
        "common": {
            "layers": LAYERS, "hidden": HIDDEN, "dtype": "float32", "attention": "sdpa", "kl": 0, "inner_epochs": 1,
            "temperature": 1.0, "recomputation": "none",
            "dermiq": "one pass over the prompt, with gradient, counted in rollout, and in update_alone once more",
            "trl": "one call of generate for the group; log-probs of the completions alone, as on a GPU; the "
            "micro-batch that a trial found fastest",
        },
        "targets": verdicts(cells),
        "cells": cells,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time GRPO steps: DermIQ against TRL.")
    parser.add_argument("--suite", choices=["cpu"], help="the published table; the options below do not apply then")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=["qwen2_5_vl"])
    parser.add_argument("--sizes", nargs="+", choices=sorted(HIDDEN), default=["medium"])
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[1100], help="pictures and text")
    parser.add_argument("--new-tokens", type=int, nargs="+", default=[64], help="length of every completion")
    parser.add_argument("--groups", type=int, nargs="+", default=[8], help="completions per prompt")
    parser.add_argument("--memory", action="store_true", help="measure memory too, of qwen2_5_vl")
    parser.add_argument("--repeats", type=int, default=5, help="steps that are timed; at most 3 for large groups")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens-per-pass", type=int, default=512, help="DermIQ's micro-batch, in completion tokens")
    parser.add_argument("--again", action="store_true", help="measure again what the file holds already")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of versus_trl_cpu.json")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, and write the JSON."""
    options = parse()
    os.environ["CI"] = "1"  # TRL reports every trainer to its makers otherwise
    cells = suite(options) if options.suite else grid(options)
    run(cells, options.out / "versus_trl_cpu.json", options.again)


if __name__ == "__main__":
    main()
