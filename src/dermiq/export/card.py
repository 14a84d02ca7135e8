"""The model card: what the weights are, how they came to be, how good they are, and what they are not for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from dermiq.export.lineage import Config, Lineage, Stage, arguments, class_name, licences
from dermiq.prompts import QUESTION
from dermiq.schema import DermIQError

_NOT_SETTINGS = ("backbone", "rewards", "optimizer", "scheduler", "eval_sampling", "eval_samples")
_PACKAGES = ("dermiq", "torch", "transformers", "peft")
_LIMITS = """\
For research on vision-language models. **It is not a medical device.** It must not be used to diagnose, to triage or to
treat anyone, nor to advise anyone on their skin. No clinician has reviewed what it writes, and no authority has
approved it.

* It answers for every image, also where there is nothing to see or where it has never seen the like, and it sounds no
  less sure when it is wrong.
* It knows the conditions, cameras, body sites and skin tones of the data above, and no others. The figures say nothing
  about other people's images. Where a skin tone is rare in the data, expect more errors on it.
* Its reasoning is text that was rewarded or imitated. It need not be how the answer came about.
* What holds for the base model (languages, biases, harmful content) may hold here."""


@dataclass(frozen=True)
class MergeCost:
    """Cost of merging, measured on the written files.

    Attributes:
        deviation: of the logits from those of the adapter on its base: norm of the difference by the norm, mean
            over the positions of one prompt with an image.
        agreement: share of these positions at which the most probable next token is the same.
        dtype: of the merged weights.
        size: of the merged files, in bytes.
        policy_size: of base and adapter in memory, in bytes.
    """

    deviation: float
    agreement: float
    dtype: str
    size: int
    policy_size: int


def model_card(name: str, lineage: Lineage, cost: MergeCost | None) -> str:
    """The text of README.md, with the front matter that the Hugging Face hub reads.

    Args:
        name: of the export's directory.
        lineage: the stages that the adapter went through.
        cost: of merging; None for an adapter.
    """
    base = lineage.last.backbone["model_id"]
    stages = " → ".join(f"`{stage.name}`" for stage in lineage.stages)
    what = "A PEFT adapter (LoRA) for" if cost is None else "The merged weights, base and LoRA adapter in one, of"
    licence = base_licence(base)
    sections = {
        "Use": _use(name, lineage.last, cost is not None),
        "Training": _training(lineage),
        "Data": _data(lineage),
        "Results": _results(lineage),
        "What merging cost": "" if cost is None else merge_cost(cost, lineage.last),
        "Intended use and limits": _LIMITS,
        "Licence": _licence(licence),
        "Versions": ", ".join(f"{package} {version(package)}" for package in _PACKAGES),
    }
    front = yaml.safe_dump(_front_matter(lineage, licence, cost is not None), sort_keys=False, allow_unicode=True)
    head = (
        f"---\n{front}---\n\n# {name}\n\n{what} {_base_name(base)}, trained to reason about images of skin with "
        f"DermIQ: {stages}.\n\n> Research only. Not a medical device: not for diagnosis, triage or treatment.\n"
    )
    return head + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items() if text)


def load_lines(stage: Stage, directory: str, merged: bool) -> list[str]:
    """The lines of Python that load an export of `stage` from `directory` without DermIQ."""
    if merged:
        return [
            "from transformers import AutoModelForImageTextToText, AutoProcessor",
            f"model = AutoModelForImageTextToText.from_pretrained({directory!r})",
            f"processor = AutoProcessor.from_pretrained({directory!r})",
        ]
    base, names, options = stage.backbone["model_id"], "AutoModelForImageTextToText, AutoProcessor", ""
    dtype = stage.backbone["dtype"]
    if dtype != "auto":
        options += f", dtype={dtype!r}"
    if stage.backbone["load_in_4bit"]:
        names += ", BitsAndBytesConfig"
        compute = "bfloat16" if dtype == "auto" else dtype
        options += (
            ', quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
            f"bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype={compute!r})"
        )
    return [
        "from peft import PeftModel",
        f"from transformers import {names}",
        f"base = AutoModelForImageTextToText.from_pretrained({base!r}{options})",
        f"model = PeftModel.from_pretrained(base, {directory!r})",
        f"processor = AutoProcessor.from_pretrained({base!r})",
    ]


def merge_cost(cost: MergeCost, stage: Stage) -> str:
    """What merging cost, in words."""
    measured = (
        f"On one prompt with an image, the logits of these files deviate by {cost.deviation:.2g} (relative norm, mean "
        f"over positions) from those of the adapter on its base, and the most probable next token is the same at "
        f"{cost.agreement:.1%} of the positions. The results above were measured before merging."
    )
    size = f"The files take {file_size(cost.size)} ({cost.dtype})"
    if not stage.backbone["load_in_4bit"]:
        return f"{measured} {size}."
    return (
        "The adapter was trained on a base in 4 bits (NF4, double quantisation). Merged weights cannot stay in 4 bits "
        "without another rounding, so the base was dequantised. It keeps NF4's rounding error: these are **not** the "
        f"weights of the full-precision base plus the adapter. {measured} {size}; base and adapter in 4 bits take "
        f"{file_size(cost.policy_size)} in memory. To lose nothing, use the adapter on the base in 4 bits."
    )


def base_licence(model_id: str) -> dict[str, str]:
    """``license``, ``license_name`` and ``license_link`` from the base model's own card; empty if not at hand."""
    local = Path(model_id)
    try:
        card = ModelCard.load(local / "README.md" if local.is_dir() else model_id, ignore_metadata_errors=True)
    except (OSError, ValueError):  # no card, or a hub that cannot be reached
        return {}
    stated = {key: card.data.get(key) for key in ("license", "license_name", "license_link")}
    return {key: str(value) for key, value in stated.items() if value and stated["license"]}


def file_size(count: int) -> str:
    """Bytes as a person reads them (1 MB = 1,000,000 bytes)."""
    value, units = float(count), ["bytes", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}" if value < 1000 else f"{value:,.0f} {units[0]}"


def _front_matter(lineage: Lineage, licence: dict[str, str], merged: bool) -> dict[str, Any]:
    base = lineage.last.backbone["model_id"]
    stages = [stage.name.removesuffix("Module").lower() for stage in lineage.stages]
    hub = {} if Path(base).is_dir() else {"base_model": base}  # the hub takes no path for it
    return {
        **hub,
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "image-text-to-text",
        **licence,
        "tags": list(dict.fromkeys(["dermatology", "dermiq", *([] if merged else ["lora"]), *stages])),
    }


def _base_name(base: str) -> str:
    return f"`{Path(base).name}` (a local directory)" if Path(base).is_dir() else f"[{base}](https://hf.co/{base})"


def _use(name: str, stage: Stage, merged: bool) -> str:
    system = f'{{"role": "system", "content": [{{"type": "text", "text": {stage.system_prompt!r}}}]}}'
    content = f'[{{"type": "image", "path": "lesion.jpg"}}, {{"type": "text", "text": "{QUESTION}"}}]'
    lines = [
        *load_lines(stage, name, merged),
        "",
        "messages = [",
        f"    {system},",
        f'    {{"role": "user", "content": {content}}},',
        "]",
        "inputs = processor.apply_chat_template(",
        '    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"',
        ").to(model.device)",
        "answer = model.generate(**inputs, max_new_tokens=256, do_sample=False, repetition_penalty=1.0)",
        'print(processor.batch_decode(answer[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])',
    ]
    note = (
        "The system prompt is the one of the last stage. Another one gives other answers, and so does a repetition "
        "penalty, which the base model's own settings may ask for."
    )
    return "```python\n" + "\n".join(lines) + f"\n```\n\n{note}"


def _training(lineage: Lineage) -> str:
    first = lineage.stages[0]
    lora = first.backbone["lora"]
    if lineage.origin is not None:
        start = (
            f"The first run below went on from the adapter `{Path(lineage.origin).parent.name}`, whose own run was "
            "not at hand when this card was written."
        )
    else:
        whole = ", ".join(f"`{name}`" for name in lora["fully_trained"])
        start = (
            f"LoRA of rank {lora['rank']}, alpha {lora['alpha']}, dropout {lora['dropout']} on "
            + ", ".join(f"`{name}`" for name in lora["targets"])
            + (", in the vision tower too" if lora["vision"] else "")
            + (f"; trained as a whole: {whole}" if whole else "")
            + "."
        )
    return start + "".join(f"\n\n### {i}. {_stage(stage)}" for i, stage in enumerate(lineage.stages, 1))


def _stage(stage: Stage) -> str:
    trainer, data, options = stage.config["trainer"], stage.data, stage.options
    rewards = arguments(options["rewards"]) or options["rewards"]
    terms = ", ".join(f"{term} {entry['weight']}" for term, entry in rewards["terms"].items())
    rows = {
        "optimiser steps": "not known" if stage.steps is None else f"{stage.steps:,}",
        "optimiser": _short(options["optimizer"]),
        "schedule": _short(options["scheduler"]) or "constant rate",
        "batch": f"{data['batch_size']} samples, batches per step {trainer['accumulate_grad_batches']}",
        "devices": _short(trainer["devices"]),
        "precision": f"{trainer['precision']}, base in {_base_dtype(stage)}",
        "seed": _short(stage.config["seed_everything"]),
        "settings": _short({key: value for key, value in options.items() if key not in _NOT_SETTINGS}),
        "answers judged by": f"{terms}; gates: {', '.join(rewards['gates']) or 'none'}",
    }
    table = "".join(f"\n| {key} | {value} |" for key, value in rows.items())
    return f"`{stage.name}`, run `{stage.run_name}`\n\n| | |\n|---|---|{table}"


def _base_dtype(stage: Stage) -> str:
    if stage.backbone["load_in_4bit"]:
        return "4 bits (NF4)"
    return "the precision it was saved in" if stage.backbone["dtype"] == "auto" else str(stage.backbone["dtype"])


def _short(value: Any) -> str:
    """A value of a configuration in a few words; nothing for what is not set, and no path of this machine."""
    if isinstance(value, dict) and "class_path" in value:
        inner = _short(arguments(value))
        return f"`{class_name(value)}`" + (f" ({inner})" if inner else "")
    if isinstance(value, dict):
        shown = {key: _short(entry) for key, entry in value.items() if entry is not None and entry is not False}
        return ", ".join(f"{key} {entry}" for key, entry in shown.items() if entry)
    if isinstance(value, list):
        return " ".join(map(_short, value))
    if isinstance(value, str):
        return Path(value).name
    return "" if value is None else str(value)


def _data(lineage: Lineage) -> str:
    uses: dict[str, list[str]] = {}
    for stage in lineage.stages:
        for split, source in stage.sources.items():
            uses.setdefault(json.dumps(source, sort_keys=True), []).append(f"{stage.run_name}: {split}")
    rows = []
    for key, used in uses.items():
        source = json.loads(key)
        rows.append(f"| {_short(source)} | {'; '.join(used)} | {_licences(source)} |\n")
    return (
        "| source | used by run: split | samples, licence, attribution |\n|---|---|---|\n"
        + "".join(rows)
        + "\nImages are not part of this repository. Their licences bind whoever trains on them, and may bind what is "
        "trained (a licence for non-commercial use, for one)."
    )


def _licences(source: Config) -> str:
    try:
        counts = licences(source)
    except DermIQError:
        return "not at hand when this card was written; look the licence up"
    return "; ".join(
        f"{count:,}: {licence or 'no licence stated'}{f', {attribution}' if attribution else ''}"
        for (licence, attribution), count in counts.items()
    )


def _results(lineage: Lineage) -> str:
    tested = [stage for stage in lineage.stages if stage.metrics]
    if not tested:
        return "No run of this line was tested (`python cli.py test`)."
    names = sorted({name for stage in tested for name in stage.metrics})
    header = " | ".join(f"`{stage.run_name}`" for stage in tested)
    untested = ", ".join(f"`{stage.run_name}`" for stage in lineage.stages if not stage.metrics)
    rows = "".join(
        f"| {name.removeprefix('test/')} | "
        + " | ".join(f"{stage.metrics[name]:.4g}" if name in stage.metrics else "" for stage in tested)
        + " |\n"
        for name in names
    )
    return (
        f"On the test split of each run, after the stage named.\n\n| | {header} |\n"
        f"|---|{'---:|' * len(tested)}\n{rows}" + (f"\nNot tested: {untested}." if untested else "")
    ).rstrip()


def _licence(licence: dict[str, str]) -> str:
    if not licence:
        return (
            "This card names none, since the base model's card was not at hand or states none. Whoever publishes these "
            "weights chooses one that the base model and the data allow."
        )
    stated = licence.get("license_name", licence["license"])
    link = f" ({licence['license_link']})" if "license_link" in licence else ""
    return f"The base model's: `{stated}`{link}. The data may ask for more; see above."
