"""Export a run's adapter, or its merged weights, with a model card: ``python -m dermiq.export RUN --out DIR``."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from dermiq.cli import LIBRARY_NOISE
from dermiq.export.card import MergeCost, file_size, load_lines, merge_cost, model_card
from dermiq.export.lineage import Lineage, Stage, read_lineage
from dermiq.files import replacing_directory
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.hub import load_config
from dermiq.policy.processing import encode_prompts
from dermiq.programs.arguments import Program
from dermiq.programs.exits import exit_codes, reason
from dermiq.prompts import to_messages
from dermiq.schema import Sample, TrainingError

CARD = "README.md"
_EPILOG = """\
The adapter (default) is what `peft` loads on the base model. --merged writes the full weights, an ordinary directory of
`transformers`. Both have a model card, README.md. Run it from the directory in which you trained, so that the relative
paths in config.yaml still hold.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Export a run and say what was written, and how it is loaded."""
    parser = Program(prog="python -m dermiq.export", description=__doc__.split(":")[0], epilog=_EPILOG)
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run of `python cli.py fit`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; new or empty")
    parser.add_argument("--merged", action="store_true", help="full weights with the adapter merged in")
    options = parser.parse_args(args)
    for noise in LIBRARY_NOISE:
        warnings.filterwarnings("ignore", message=noise)
    _check_free(options.out)
    lineage = read_lineage(options.run)
    load_config(lineage.last.backbone["model_id"])
    write = write_merged if options.merged else write_adapter
    cost = _whole_or_nothing(options.out, lambda directory: write(lineage, directory, options.out.resolve().name))
    _report(options.out, lineage.last, cost)


def write_adapter(lineage: Lineage, directory: Path, name: str) -> None:
    """Write the adapter in PEFT's format, with the model card of the export called `name`."""
    card = model_card(name, lineage, None)
    shutil.copytree(lineage.last.run.adapter, directory)
    (directory / CARD).write_text(card, encoding="utf-8")


def write_merged(lineage: Lineage, directory: Path, name: str) -> MergeCost:
    """Write the merged model, load it again to measure what merging cost, and add the model card."""
    stage = lineage.last
    stage.load_policy().save_merged(directory)
    size = _size(directory)
    policy = stage.load_policy()  # anew, since saving used the first one up
    before, policy_size = _logits(policy, stage), policy.vlm.get_memory_footprint()
    del policy
    merged = VLMBackbone(str(directory), lora=None)
    merged.load()
    after = _logits(merged.eval(), stage)
    cost = MergeCost(
        deviation=float(((after - before).norm(dim=-1) / before.norm(dim=-1)).mean()),
        agreement=float((after.argmax(-1) == before.argmax(-1)).float().mean()),
        dtype=str(merged.vlm.dtype).removeprefix("torch."),
        size=size,
        policy_size=policy_size,
    )
    (directory / CARD).write_text(model_card(name, lineage, cost), encoding="utf-8")
    return cost


@torch.no_grad()
def _logits(policy: VLMBackbone, stage: Stage) -> Tensor:
    """[P, V] float32 logits at each position of one prompt with an image, without the tokens never written."""
    sample = Sample(id="probe", images=("probe",), target="", label="", group="")
    messages = to_messages(sample, stage.system_prompt)
    picture = Image.radial_gradient("L").convert("RGB")  # 256 x 256
    prompt = encode_prompts(policy.processor, [messages], [[picture]])
    logits: Tensor = policy.vlm(**{key: value.to(policy.vlm.device) for key, value in prompt.items()}).logits
    return logits[0][:, ~policy.banned.to(logits.device)].float().cpu()


def _check_free(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise TrainingError(f"{out} is not empty. Name another directory with --out, or delete this one.")
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file. Name a directory with --out.")


def _whole_or_nothing(out: Path, write: Callable[[Path], MergeCost | None]) -> MergeCost | None:
    """Let `write` fill `out`, which is there once it is complete."""
    try:
        with replacing_directory(out.resolve()) as partial:
            return write(partial)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{out} could not be written ({reason(error)}). Nothing was left there. Free space, or name another "
            "place with --out."
        ) from error


def _report(out: Path, stage: Stage, cost: MergeCost | None) -> None:
    kind = "the adapter in PEFT's format" if cost is None else "the merged weights with their processor"
    print(f"Wrote {out}: {kind} and a model card, {file_size(_size(out))}.")
    if cost is not None:
        print(merge_cost(cost, stage).replace("**", ""))
    base = stage.backbone["model_id"]
    if Path(base).is_dir():
        places = CARD if cost is not None else f"{CARD} (base_model) and adapter_config.json (base_model_name_or_path)"
        print(f"The base, {base}, is a local directory. Before you publish, put its hub id into {places}.")
    print("To load it:\n")
    print("\n".join(f"    {line}" for line in load_lines(stage, str(out), merged=cost is not None)))


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


if __name__ == "__main__":
    with exit_codes():
        main()
