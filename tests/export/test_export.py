"""What is exported loads without DermIQ, answers as the policy did, and says what it is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from dermiq.export.__main__ import main
from dermiq.export.card import base_licence, file_size, model_card
from dermiq.export.lineage import read_lineage
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA
from dermiq.policy.processing import encode_prompts
from dermiq.prompts import to_messages
from dermiq.schema import DermIQError, Sample
from support.families import FAMILIES
from support.images import picture
from support.runs import adapter

BACKBONE = "--model.backbone"
STEPS = ("--trainer.max_steps=2",)
WHOLE = f"{BACKBONE}.lora.fully_trained=[connector,lm_head]"


@pytest.fixture(scope="module")
def run(lab, tmp_path_factory):
    """A GRPO++ run that went on from a tested SFT run."""
    root = tmp_path_factory.mktemp("runs")
    lab.run("fit", "SFTModule", root / "warm", *STEPS, WHOLE)
    on = f"{BACKBONE}.adapter_path={root / 'warm' / 'adapter'}"
    lab.run("test", "SFTModule", root / "warm", on, "--trainer.limit_test_batches=1")
    lab.run("fit", "GRPOModule", root / "grpo", *STEPS, on)
    return root / "grpo"


@pytest.fixture(scope="module")
def four_bit(lab, tmp_path_factory):
    """An SFT run on a base in 4 bits, computed in float32."""
    root = tmp_path_factory.mktemp("four_bit")
    options = (f"{BACKBONE}.load_in_4bit=true", f"{BACKBONE}.dtype=float32", f"{BACKBONE}.lora.fully_trained=[lm_head]")
    lab.run("fit", "SFTModule", root, *STEPS, *options)
    return root


def at_backbone(config):
    return config["model"]["init_args"]["backbone"]["init_args"]


def edit(run, change):
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def export(run, out, capsys, *options):
    """What the command printed, and the lines of Python in it."""
    capsys.readouterr()
    main([str(run), "--out", str(out), *options])
    text = capsys.readouterr().out
    return text, [line.strip() for line in text.splitlines() if line.startswith("    ")]


def prompt(processor):
    sample = Sample(id="s", images=("s.png",), target="melanoma", label="mel", group="s")
    return encode_prompts(processor, [to_messages(sample, "Look.")], [[picture(0, 48)]])


@torch.no_grad()
def logits(model, inputs):
    return model(**inputs).logits


def policy(run, **options):
    """The policy as the next stage would load it, with its prompt's logits."""
    given = at_backbone(yaml.safe_load((run / "config.yaml").read_text()))
    options = {name: given[name] for name in ("load_in_4bit", "dtype")} | options
    backbone = VLMBackbone(given["model_id"], adapter_path=str(run / "adapter"), **options)
    backbone.load()
    return backbone, logits(backbone.eval().vlm, prompt(backbone.processor))


def loaded(lines):
    """What the printed lines load: plain peft and transformers, no DermIQ."""
    assert len(lines) <= 5 and not any("dermiq" in line for line in lines)
    names = {}
    exec("\n".join(lines), names)
    return names["model"].eval(), names["processor"]


def deviation(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


# The same logits


@pytest.mark.parametrize(("options", "tolerance"), [((), 1e-6), (("--merged",), 5e-5)])
def test_the_printed_lines_load_the_same_policy(options, tolerance, run, capsys, tmp_path):
    _, lines = export(run, tmp_path / "out", capsys, *options)
    model, processor = loaded(lines)
    found = logits(model, prompt(processor))
    torch.testing.assert_close(found, policy(run)[1], atol=tolerance, rtol=tolerance)
    assert deviation(found, policy(run.parent / "warm")[1]) > 1e-3  # the stage before is another policy


@pytest.mark.parametrize("options", [(), ("--merged",)])
def test_modules_trained_as_a_whole_are_in_the_files(options, run, capsys, tmp_path, family_dir):
    export(run, tmp_path / "out", capsys, *options)
    trained, base = adapter(run), load_file(family_dir("idefics3") / "model.safetensors")
    found = load_file(next((tmp_path / "out").glob("*.safetensors")))
    for name in ("lm_head.weight", "model.connector.modality_projection.proj.weight"):
        expected = trained[f"base_model.model.{name}"]
        assert torch.equal(found[name if options else f"base_model.model.{name}"], expected)
        assert not torch.equal(expected, base[name])


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    ("family", "fully_trained"), [*((family, ()) for family in FAMILIES), ("gemma3", ("lm_head",))]
)  # Gemma 3 ties its output layer to its embeddings, until it is trained as a whole
def test_every_family_merges(family, fully_trained, family_dir, tmp_path):
    torch.manual_seed(0)
    backbone = VLMBackbone(str(family_dir(family)), LoRA(rank=4, fully_trained=fully_trained))
    backbone.load()
    backbone.add_reference()
    with torch.no_grad():
        for parameter in backbone.trainable_parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    inputs = prompt(backbone.processor)
    expected = logits(backbone.eval().vlm, inputs)
    with backbone.reference():
        assert deviation(logits(backbone.vlm, inputs), expected) > 1e-2
    backbone.save_merged(tmp_path)
    assert deviation(logits(AutoModelForImageTextToText.from_pretrained(tmp_path).eval(), inputs), expected) < 1e-5


def test_the_merged_weights_have_the_precision_of_the_base(family_dir, tmp_path):
    backbone = VLMBackbone(str(family_dir("idefics3")), LoRA(rank=4, fully_trained=("lm_head",)), dtype="bfloat16")
    backbone.load()
    backbone.save_merged(tmp_path)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}


# 4 bits


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_four_bit_adapter_loads_with_its_base_in_four_bits(dtype, four_bit, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)  # it would round what peft runs
    shutil.copytree(four_bit, tmp_path / "run")
    edit(tmp_path / "run", lambda c: at_backbone(c).update(dtype=dtype))
    _, lines = export(tmp_path / "run", tmp_path / "out", capsys)
    _, expected = policy(tmp_path / "run")
    model, processor = loaded(lines)
    torch.testing.assert_close(logits(model, prompt(processor)), expected, atol=1e-6, rtol=1e-6)


def test_a_four_bit_base_merges_into_a_dequantised_copy(four_bit, capsys, tmp_path):
    _, lines = export(four_bit, tmp_path / "out", capsys, "--merged")
    model, processor = loaded(lines)
    found = logits(model, prompt(processor))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not hasattr(model.config, "quantization_config")
    assert deviation(found, policy(four_bit)[1]) < 1e-5
    assert deviation(found, policy(four_bit, load_in_4bit=False)[1]) > 0.1


def test_the_cost_of_merging_four_bits_is_said_and_measured(four_bit, capsys, tmp_path):
    text, _ = export(four_bit, tmp_path / "out", capsys, "--merged")
    card = (tmp_path / "out" / "README.md").read_text()
    size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir() if path.name != "README.md")
    for place in (text, card.replace("**", "")):
        assert "these are not the weights of the full-precision base plus the adapter" in place
        assert f"The files take {file_size(size)} (float32); base and adapter in 4 bits take" in place
        stated = float(place.split("deviate by ")[1].split(" ")[0])
        assert 0 < stated < 1e-5
    assert "What merging cost" in card


# The card


@pytest.fixture(scope="module")
def card(run):
    return model_card("derm", read_lineage(run), None)


def test_the_front_matter_is_what_the_hub_reads(card):
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag) == ("peft", "image-text-to-text")
    assert data.tags == ["dermatology", "dermiq", "lora", "sft", "grpo"]
    assert data.license is None and data.base_model is None  # the base is a directory, which the hub refuses


def test_the_card_tells_the_stages_in_their_order(card, run):
    assert card.index("### 1. `SFTModule`, run `warm`") < card.index("### 2. `GRPOModule`, run `grpo`")
    assert card.count("| optimiser steps | 2 |") == 2
    assert card.count("| optimiser | `AdamW` (lr 0.01, ") == 2
    assert "LoRA of rank 2, alpha 16" in card and "trained as a whole: `connector`, `lm_head`" in card
    assert "group_size 3" in card and "diagnosis 1.0, letters 1.0; gates: hedging" in card


def test_the_card_tells_data_and_licences(card, lab):
    assert "warm: all; grpo: all | 42: CC BY-NC 4.0, HAM10000, Tschandl et al. 2018" in card
    assert str(lab.photographs.parent) not in card  # no path of this machine


def test_the_card_counts_what_sources_within_a_source_hold(run, tmp_path):
    def together(config):
        sources = config["data"]["init_args"]["sources"]
        parts = [sources["all"], {"class_path": "dermiq.datamodules.phantom.PhantomSource", "init_args": {"count": 5}}]
        sources["all"] = {"class_path": "dermiq.datamodules.sources.ConcatSource", "init_args": {"sources": parts}}

    shutil.copytree(run, tmp_path / "run")
    edit(tmp_path / "run", together)
    text = model_card("derm", read_lineage(tmp_path / "run"), None)
    row = next(line for line in text.splitlines() if "`ConcatSource`" in line)
    assert row.endswith(
        "42: CC BY-NC 4.0, HAM10000, Tschandl et al. 2018, doi:10.7910/DVN/DBW86T; 5: CC0-1.0, DermIQ phantom |"
    )


def test_data_that_are_gone_are_said_to_be(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    edit(tmp_path / "run", lambda c: c["data"]["init_args"]["sources"]["all"]["init_args"].update(root="/gone"))
    assert "grpo: all" not in model_card("derm", read_lineage(run), None).split("warm: all; grpo: all")[1]
    text = model_card("derm", read_lineage(tmp_path / "run"), None)
    assert "| run: all | not at hand when this card was written" in text


def test_the_card_has_the_metrics_of_each_stage(card, run):
    metrics = json.loads((run.parent / "warm" / "metrics.json").read_text())
    for name, value in metrics.items():
        assert f"\n| {name.removeprefix('test/')} | {value:.4g} |\n" in card
    assert "Not tested: `grpo`." in card and "It is not a medical device" in card


def test_sizes_as_a_person_reads_them():
    assert [*map(file_size, (999, 1_330_000, 2 * 10**12))] == ["999 bytes", "1.33 MB", "2,000 GB"]


def test_a_base_on_the_hub_lends_its_name_and_licence(run, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--lab--vlm" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nlicense: other\nlicense_name: lab-1\nlicense_link: here\n---\n# VLM\n")
    (tmp_path / "models--lab--vlm" / "refs").mkdir()
    (tmp_path / "models--lab--vlm" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    lineage = read_lineage(run)
    lineage.last.config["model"]["init_args"]["backbone"]["init_args"]["model_id"] = "lab/vlm"
    data = ModelCard(model_card("derm", lineage, None)).data
    assert data.base_model == "lab/vlm"
    assert (data.license, data.license_name, data.license_link) == ("other", "lab-1", "here")
    assert base_licence("lab/none") == {}


@pytest.mark.parametrize("before", ["/gone/before", "{run}"])
def test_an_origin_that_is_not_at_hand_or_the_run_itself(before, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = before.format(run=tmp_path / "run") + "/adapter"
    edit(tmp_path / "run", lambda c: at_backbone(c).update(adapter_path=path))
    lineage = read_lineage(tmp_path / "run")
    assert (len(lineage.stages), lineage.origin) == (1, path)
    assert f"went on from the adapter `{path.split('/')[-2]}`" in model_card("derm", lineage, None)


# Refusals


@pytest.mark.parametrize("options", [(), ("--merged",)])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "is no run directory: it has no config.yaml"),
        (lambda run: (run / "config.yaml").write_text("a: [b"), "config.yaml cannot be read"),
        (lambda run: (run / "config.yaml").write_text("a: b"), "is not what `python cli.py fit` writes"),
        (lambda run: shutil.rmtree(run / "adapter"), "has no adapter/ yet"),
        (lambda run: (run / "metrics.json").write_text("{"), "metrics.json cannot be read"),
        (
            lambda run: edit(run, lambda c: at_backbone(c).update(model_id="/gone/vlm")),
            "'/gone/vlm' is neither a local directory nor a vision-language model",
        ),
    ],
)
def test_a_run_that_cannot_be_exported(spoil, message, options, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    spoil(tmp_path / "run")
    with pytest.raises(DermIQError) as caught:
        main([str(tmp_path / "run"), "--out", str(tmp_path / "out"), *options])
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda out: (out / "old").mkdir(parents=True), "is not empty. Name another directory with --out"),
        (lambda out: out.write_text("old"), "is a file"),
        (lambda out: out.parent.rmdir() or out.parent.write_text("old"), "could not be written"),
    ],
)
def test_a_place_that_cannot_be_written_to(make, message, run, tmp_path):
    out = tmp_path / "exports" / "derm"
    out.parent.mkdir()
    make(out)
    with pytest.raises(DermIQError) as caught:
        main([str(run), "--out", str(out)])
    assert str(out) in str(caught.value) and message in str(caught.value)


def test_an_empty_directory_and_the_rest_of_a_killed_export_are_no_hindrance(run, capsys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "half").touch()
    export(run, tmp_path / "out", capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files


# The program


def shell(*arguments):
    return [sys.executable, "-m", "dermiq.export", *map(str, arguments)]


@pytest.mark.slow
def test_the_cards_own_code_answers_in_a_fresh_process(run, capsys, tmp_path):
    picture(0, 48).save(tmp_path / "lesion.jpg")
    expected = policy(run)[1]
    torch.save(prompt(policy(run)[0].processor), tmp_path / "prompt.pt")
    for options in ((), ("--merged",)):
        export(run, tmp_path / "derm", capsys, *options)
        code = (tmp_path / "derm" / "README.md").read_text().split("```python\n")[1].split("```")[0]
        code += (
            "import sys, torch\n"
            "assert 'dermiq' not in sys.modules\n"
            "with torch.no_grad():\n"
            "    torch.save(model.eval()(**torch.load('prompt.pt')).logits, 'logits.pt')\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
        torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, atol=5e-5, rtol=5e-5)
        shutil.rmtree(tmp_path / "derm")


@pytest.mark.slow
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    result = subprocess.run(shell(tmp_path, "--out", tmp_path / "out"), capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert result.stderr.startswith(f"dermiq: {tmp_path} is no run directory")


@pytest.mark.slow
def test_a_killed_export_leaves_nothing_that_looks_whole(run, capsys, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(shell(run, "--out", out, "--merged"), env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not (tmp_path / "out.partial").exists():
        assert process.poll() is None, "the export ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    export(run, out, capsys, "--merged")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
