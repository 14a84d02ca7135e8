"""GRPO++ on one GPU in the shapes of Qwen2.5-VL-3B: seconds, memory and exactness, within 8 minutes.

    python benchmarks/gpu --out gpu.json         # needs torch, transformers and peft; no network, no installation
    python benchmarks/gpu --smoke                # the same in tiny shapes, on a CPU too: no figure means anything

The shared prompt is measured against the duplicated prompt (`gpu/paths.py`) and, where it can be imported, against
TRL; 4-bit weights are measured where bitsandbytes can be imported. Results are written after every measurement, the
most important first, so that a kill, a spent budget or a full memory leaves what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one GPU, also where there are more
os.environ.setdefault("CI", "1")  # TRL reports every trainer to its makers otherwise
sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from gpu.meter import Meter, Report, Result
from gpu.sections import QLORA_TARGET_GIB, TINY, Lab, Settings, bandwidth, decoding, exactness, group, qlora, trl
from gpu.shapes import QWEN2_5_VL_3B, SMOKE

UPDATE_TARGET, DECODING_TARGET, GRADIENT_TARGET = 4.0, 1.5, 1e-4


def run(report: Report, lab: Lab) -> None:
    """All sections, the most important first."""
    settings = lab.settings
    first, *others = settings.groups
    report.run("bandwidth", partial(bandwidth, lab), share=0.1)
    report.run("exactness", partial(exactness, lab), share=0.2)
    report.run("qlora", partial(qlora, lab), share=0.3)
    report.run(f"group_{first}", partial(group, lab, first, settings.new_tokens), share=0.4)
    report.run(f"decoding_{first}", partial(decoding, lab, first), share=0.2)
    report.run(f"trl_{first}", partial(trl, lab, first, report.section(f"group_{first}")), share=0.25)
    for size in others:
        report.run(f"group_{size}", partial(group, lab, size, settings.new_tokens), share=0.3)
    for size in others:
        report.run(f"trl_{size}", partial(trl, lab, size, report.section(f"group_{size}")), share=0.2)
    report.run(f"group_{first}_long", partial(group, lab, first, settings.long_tokens), share=0.5)


def targets(report: Report, first: int) -> list[Result]:
    """What was aimed at, what was found, and whether it is met; None where it was not measured."""
    update = report.section(f"group_{first}").get("duplicated_over_shared", {}).get("update")
    difference = report.section("exactness").get("shared_gradient_difference")
    qlora_step = report.section("qlora")
    peak = qlora_step.get("steps", {}).get("peak_allocated_gib")
    decoded = report.section(f"decoding_{first}")
    over = [decoded[engine]["over_floor"] for engine in ("eager", "compiled") if engine in decoded]
    over_floor = min((value for value in over if value is not None), default=None)
    return [
        _target("gradients in float32 differ by less than, relative", GRADIENT_TARGET, difference, less=True),
        _target(f"update at G = {first}: times as fast as duplicated", UPDATE_TARGET, update, less=False),
        _target("4-bit GRPO++ step: peak in GiB below", QLORA_TARGET_GIB, peak, less=True),
        _target(f"decoding at G = {first}: times the memory's floor", DECODING_TARGET, over_floor, less=True),
    ]


def _target(what: str, target: float, found: float | None, less: bool) -> Result:
    met = None if found is None else (found < target if less else found >= target)
    return {"target": what, "value": target, "found": found, "met": met}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure GRPO++ on one GPU in the shapes of Qwen2.5-VL-3B.")
    parser.add_argument("--out", type=Path, help="write the JSON here, after every measurement")
    parser.add_argument("--budget-s", type=float, default=420.0, help="seconds after which nothing more is begun")
    parser.add_argument("--attention", default="sdpa", help="kernel of prompts, towers and duplicated rows")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, to see that everything runs")
    return parser.parse_args()


def main() -> int:
    """Measure; 1 if a section broke."""
    options = parse()
    if not (torch.cuda.is_available() or options.smoke):
        raise SystemExit(
            "No GPU here: this benchmark has nothing to measure. --smoke runs it in tiny shapes on the CPU."
        )
    meter = Meter(torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))
    if not meter.cuda:
        torch.set_num_threads(1)  # tiny shapes are fastest so
    settings = replace(TINY if options.smoke else Settings(), attention=options.attention)
    shape = SMOKE if options.smoke else QWEN2_5_VL_3B
    about: dict[str, Any] = {"smoke": options.smoke, "machine": meter.machine(), "shape": asdict(shape)}
    report = Report(options.out, meter, options.budget_s, about | {"settings": asdict(settings)})
    run(report, Lab(shape, settings, meter))
    report.results["targets"] = targets(report, settings.groups[0])
    report.write()
    print(json.dumps(report.results, indent=1))
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
