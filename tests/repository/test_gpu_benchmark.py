"""The benchmark for a GPU: its shapes, its report, and all of it in tiny shapes; see benchmarks/gpu."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from gpu.meter import Meter, Report
from gpu.sections import TINY, Lab, decoding, exactness, group
from gpu.shapes import QWEN2_5_VL_3B, SMOKE, build_model, build_prompt, build_tokenizer

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gpu" / "__main__.py"
CPU = torch.device("cpu")
RELEASED = 3_754_622_976  # parameters of Qwen/Qwen2.5-VL-3B-Instruct, as its safetensors index counts them
OPTIONAL = ("lightning", "datasets", "owlready2", "torchvision", "torchmetrics", "jsonargparse", "bitsandbytes", "trl")
# Runs a script as if the packages named in its first argument were not installed.
WITHOUT = """
import runpy, sys

class Without:
    def __init__(self, finder, names):
        self.finder, self.names = finder, names
    def find_spec(self, name, *rest):
        return None if name.split(".")[0] in self.names else self.finder.find_spec(name, *rest)
    def __getattr__(self, name):
        return getattr(self.finder, name)

names = sys.argv[1].split(",")
sys.meta_path[:] = [Without(finder, names) for finder in sys.meta_path]
sys.argv = sys.argv[2:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def lab():
    return Lab(SMOKE, TINY, Meter(CPU))


def collected(section):
    found = {}
    for part in section:
        found.update(part)
    return found


def test_shapes_are_the_released_ones():
    model = build_model(QWEN2_5_VL_3B, torch.device("meta"), torch.bfloat16)
    assert sum(weight.numel() for weight in model.parameters()) == RELEASED
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    prompt = build_prompt(QWEN2_5_VL_3B, CPU)
    assert prompt["input_ids"].shape == (1, 1100)
    assert int((prompt["input_ids"] == model.config.image_token_id).sum()) == 1024 == prompt["mm_token_type_ids"].sum()


def test_special_tokens_have_their_released_ids():
    tokenizer = build_tokenizer(QWEN2_5_VL_3B.words)
    names = ("<|endoftext|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|file_sep|>")
    assert tokenizer.convert_tokens_to_ids(names) == [151643, 151645, 151652, 151655, 151664]
    assert len(tokenizer) == 151665


def test_paths_are_exact_and_decoders_agree(lab):
    found = collected(exactness(lab))
    for path in ("shared", "checkpointed", "offloaded"):
        assert found[f"{path}_gradient_difference"] < 1e-5 and found[f"{path}_logprob_difference"] < 1e-5
    assert found["compiled_samples_alike"] == found["greedy_as_generate"] == 1.0


def test_a_group_is_timed_by_both_paths(lab):
    found = collected(group(lab, 2, TINY.new_tokens))
    for path, rows in (("shared", 2), ("duplicated", 1)):  # of 64 tokens a pass, 6 and 34 a row
        assert found[path]["rows_per_pass"] == rows
        assert all(found[path][part]["seconds"] > 0 for part in ("step", "rollout", "update"))
    assert found["duplicated_over_shared"].keys() == {"step", "rollout", "update", "update_without_vision"}
    assert found["tokens_duplicated_over_shared"] == pytest.approx(2 * 34 / 40)


def test_decoding_has_a_floor(lab):
    lab.bandwidth = 1e9
    found = collected(decoding(lab, 2))
    # Three layers of 64 channels, the output layer and the adapters; keys and values of 28 tokens and twice 4.
    language = lab.bench().policy.vlm.get_decoder()
    weights = sum(weight.numel() * weight.element_size() for weight in language.parameters())
    assert found["bytes_per_token"] == weights + 2 * 3 * 32 * 2 * (28 + 2 * 4)
    assert found["floor_ms"] == pytest.approx(found["bytes_per_token"] / 1e6)
    assert found["eager"]["seconds"] > 0 and found["compiled"]["seconds"] > 0


def test_report_keeps_what_was_found(tmp_path):
    out = tmp_path / "result.json"
    report = Report(out, Meter(CPU), 1.0, {"smoke": True})

    def full():
        yield {"first": 1}
        raise torch.OutOfMemoryError("CUDA out of memory.\nMore.")

    def endless():
        yield {"first": 1}
        while True:
            time.sleep(0.01)

    def broken():
        yield {"first": 1}
        raise ValueError("a mistake")

    report.run("full", full)
    report.run("broken", broken)
    report.run("endless", endless, share=0.1)
    report.run("endless to the end", endless)
    report.run("too late", broken)
    sections = json.loads(out.read_text())["sections"]
    assert all(sections[name]["first"] == 1 for name in sections if name != "too late")
    assert sections["full"]["out_of_memory"] == "CUDA out of memory."
    assert sections["broken"]["failed"][-1] == "ValueError: a mistake"
    assert sections["endless"]["stopped"].startswith("after 0 s") and sections["endless"]["section_seconds"] < 0.5
    assert "stopped" in sections["endless to the end"]
    assert sections["too late"] == {"skipped": "no time left"}
    assert report.broken == ["broken"]


def run_smoke(out, *interpreter):
    subprocess.run([sys.executable, *interpreter, BENCHMARK, "--smoke", "--out", out], check=True)
    return json.loads(out.read_text())["sections"]


@pytest.mark.slow
def test_smoke_runs_every_section(tmp_path):
    sections = run_smoke(tmp_path / "result.json")
    assert not any({"failed", "stopped", "skipped", "out_of_memory"} & section.keys() for section in sections.values())
    assert {
        "exactness",
        "qlora",
        "group_2",
        "decoding_2",
        "trl_2",
        "group_4",
        "trl_4",
        "group_2_long",
    } <= sections.keys()
    assert sections["trl_2"]["trl_over_shared"].keys() == {"step", "rollout", "update"}
    assert sections["qlora"]["steps"]["seconds"] > 0


@pytest.mark.slow
def test_torch_transformers_and_peft_are_enough(tmp_path):
    sections = run_smoke(tmp_path / "result.json", "-c", WITHOUT, ",".join(OPTIONAL))
    assert {name for name, section in sections.items() if "skipped" in section} == {"qlora", "trl_2", "trl_4"}


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_real_shapes_on_a_gpu(tmp_path):
    out = tmp_path / "result.json"
    start = time.perf_counter()
    subprocess.run([sys.executable, BENCHMARK, "--out", out], check=True)
    assert time.perf_counter() - start < 480
    result = json.loads(out.read_text())
    assert not any("failed" in section for section in result["sections"].values())
    assert result["sections"]["exactness"]["shared_gradient_difference"] < 1e-4
    assert all(target["met"] is not False for target in result["targets"])
