"""The GRPO benchmark: its cost model by hand and against counted FLOPs, its targets, its pictures, and one tiny run."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from bench_models import FAMILIES, build, image_tokens, language_model, tower
from cost_model import Cost, LanguageModel, Step, Tower, causal, duplicated, ratios, shared
from targets import MODEL, SPEED, verdicts

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# 2 layers of width 4, no adapters, 1 picture of 4 patches; a prompt of 10 tokens and 3 completions of 2.
MODEL_BY_HAND = LanguageModel(layers=2, hidden=4, inner=8, query=4, key=2, vocabulary=16, rank=0)
TOWER_BY_HAND = Tower(blocks=1, hidden=2, inner=4, gated=False, patches=4, pairs=16, patch=3, projection=5)
STEP_BY_HAND = Step(prompt=10, images=1, new=2, group=3)


def test_cost_of_a_forward_and_a_backward_pass_by_hand():
    model = MODEL_BY_HAND
    # q, o: 2 x 4 x 4; k, v: 2 x 4 x 2; three of 4 x 8: 144 weights a layer.
    assert model.weights == 2 * 144
    assert model.forward(1, 0) == 2 * 288
    assert model.forward(0, 1) == 2 * (2 * 2 * 4)  # per layer: scores and values of 4 channels
    assert model.backward(1, 0) == 2 * 288  # frozen weights: the gradient of the input alone
    assert model.backward(0, 1) == 2 * model.forward(0, 1)
    adapted = replace(model, rank=1)
    assert adapted.adapters == 2 * (4 * 4 + 4 + 4 + 2 + 2)
    both = adapted.forward(1, 0) + adapted.backward(1, 0) - model.forward(1, 0) - model.backward(1, 0)
    assert both == 3 * 2 * adapted.adapters
    # embedding 3 x 2, block 4 x 2 x 2 + 2 x 2 x 4 = 32, projection 5; 4 patches; 16 pairs of 2 channels.
    assert TOWER_BY_HAND.flops == 2 * (6 + 32 + 5) * 4 + 4 * 2 * 16


def test_cost_of_a_step_by_hand():
    """The last token of a completion is never fed to a cache; a whole pass over prompt and completion feeds it."""
    model, tower_, step = MODEL_BY_HAND, TOWER_BY_HAND, STEP_BY_HAND
    ours, theirs = shared(model, tower_, step, tokens_per_pass=4), duplicated(model, tower_, step, micro_batch=2)
    assert (ours["rollout"].tokens, ours["rollout"].images) == (10 + 3 * 1, 1)
    assert (ours["update"].tokens, ours["update"].images) == (3 * 1, 0)
    assert (theirs["rollout"].tokens, theirs["rollout"].images) == (30 + 3, 3)
    assert (theirs["update"].tokens, theirs["update"].images) == (3 * 12, 3)
    assert ours["update_alone"] == ours["prefill"] + ours["update"]
    pairs = 3 * (10 + 1)  # each completion's one fed token sees the prompt and itself
    assert step.completion_pairs == pairs and causal(10) == 55
    forward, backward, logits = model.forward(3, pairs), model.backward(3, pairs), model.output(6)
    assert ours["update"].flops == forward + backward + model.backward(10, 55) + 3 * logits
    assert ours["rollout"].flops == model.forward(10, 55) + tower_.flops + forward + logits
    whole = 3 * (model.forward(12, 78) + model.backward(12, 78) + tower_.flops)
    assert theirs["update"].flops == whole + 3 * logits
    # 2 layers x (keys and values) x 2 channels x 4 bytes = 32 bytes a token.
    assert (ours["rollout"].cache_bytes, theirs["rollout"].cache_bytes) == (32 * (10 + 6), 32 * 3 * 12)
    assert (ours["update"].saved_bytes, theirs["update"].saved_bytes) == (14 * model.saved, 24 * model.saved)
    weights = 4 * (288 + 4 * 16)  # one step of decoding reads all of them once
    assert ours["rollout"].read_bytes == weights + 32 * (10 + 3)
    assert theirs["rollout"].read_bytes == weights + 32 * (3 * 10 + 3)


def test_ratios_leave_out_what_costs_nothing():
    found = ratios({"update": Cost(6, 3, 8)}, {"update": Cost(3, 0, 2), "update_alone": Cost(6, 1, 4)})
    assert found == {
        "update": {"tokens": 2.0, "flops": 4.0},
        "update_alone": {"tokens": 1.0, "images": 3.0, "flops": 2.0},
    }


@pytest.mark.parametrize(
    "family", [FAMILIES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES[1:])]
)
def test_the_prompt_is_as_long_as_asked_for_and_the_model_costs_what_is_predicted(family, tmp_path):
    """Against what torch counts in a real forward pass; it counts all pairs of tokens, causal or not."""
    from dermiq_grpo import RANK, load_policy

    case = build(family, "tiny", 340, tmp_path)
    backbone = load_policy(case.directory).eval()
    prompt = case.batch(0)["prompt"]
    assert prompt["input_ids"].shape == (1, 340) and 100 < image_tokens(backbone.vlm.config, case) < 240
    model, eyes = language_model(backbone.vlm.config, RANK), tower(backbone.vlm.config, case)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.vlm(**prompt, use_cache=False, logits_to_keep=1)
    predicted = model.forward(340, 340**2) + model.output(1) + eyes.flops
    assert predicted == pytest.approx(counter.get_total_flops(), rel=0.05)


def time_cell(factor, part="step", prompt_tokens=1100, group_size=8, new_tokens=64):
    settings = MODEL | {"kind": "time", "side": "both", "micro_batch": 0, "prompt_tokens": prompt_tokens}
    values = {"median": factor, "all": [factor, factor + 1]}
    parts = ("step", "rollout", "update", "update_alone")
    return {
        "settings": settings | {"group_size": group_size, "new_tokens": new_tokens},
        "seconds": {side: {"step": {"median": 1.0}} for side in ("trl", "dermiq")},
        "trl_over_dermiq": {part: values for part in parts},
        "predicted": {"trl_over_dermiq": {part: {"flops": 2 * factor} for part in parts}},
    }


def memory_cell(side, group_size, update, micro_batch=0):
    settings = MODEL | {"kind": "memory", "side": side, "micro_batch": micro_batch, "prompt_tokens": 1100}
    return {"settings": settings | {"group_size": group_size}, "mib": {"update_growth": update, "rollout_growth": 50.0}}


CELLS = [
    time_cell(3.0), time_cell(6.0, group_size=32), time_cell(2.5, prompt_tokens=340), time_cell(1.5, new_tokens=128),
    memory_cell("dermiq", 4, 100.0), memory_cell("dermiq", 64, 105.0),
    memory_cell("trl", 4, 400.0, 1), memory_cell("trl", 64, 900.0, 1),
]  # fmt: skip


def test_targets_are_met_or_missed():
    found = {each["what"].split(":")[0]: each for each in verdicts(CELLS)}
    assert found["step, prompt 1100, group 8"]["met_by"] == 3.0 / 4.0
    assert found["step, prompt 340, group 8"]["met_by"] == 2.5 / 2.5
    assert found["update_alone, prompt 1100, group 32"]["met_by"] == 6.0 / 12.0
    assert found["memory that an update adds, group 64 over group 4"]["met_by"] == 1.1 / 1.05
    assert len(found) == len(SPEED) + 3 + 1  # the three of the update count twice
    assert verdicts([]) == []


def test_pictures_and_table_hold_what_was_measured(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    import plot

    file = tmp_path / "versus.json"
    file.write_text(json.dumps({"cells": CELLS, "targets": verdicts(CELLS)}))
    monkeypatch.setattr(sys, "argv", ["plot.py", str(file), "--out", str(tmp_path / "pictures"), "--table"])
    plot.main()
    printed = capsys.readouterr().out
    assert "| qwen2_5_vl medium | 1100 | 64 | 32 | 1.00 | 1.00 | 6.0 (6.0–7.0) |" in printed
    assert "| TRL, one completion at a time | 64 | 50 | 900 |" in printed
    assert "| step, prompt 1100, group 8: times as fast as TRL, at least | 4.0 | 3.00 | missed: 75% of it |" in printed
    names = {f"speed_over_{name}" for name in ("prompt", "group", "completion")} | {"memory_over_group"}
    found = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert found == {f"{name}.{ending}" for name in names for ending in ("svg", "png")}
    svg = (tmp_path / "pictures" / "speed_over_group.svg").read_text()
    assert all(text in svg for text in ("completions per prompt", "times as fast as TRL", "predicted from FLOPs"))


def test_the_published_table_is_the_measured_one():
    plot = pytest.importorskip("plot")
    root = Path(__file__).parents[2]
    result = json.loads((root / "benchmarks" / "results" / "versus_trl_cpu.json").read_text())
    page = (root / "docs" / "speed.md").read_text()
    published = page.partition("<!-- results: versus_trl -->\n")[2].partition("\n<!-- end -->")[0]
    assert published == f"{plot.targets(result['targets'])}\n\n{plot.table(result['cells'])}"


@pytest.mark.slow
def test_a_tiny_run_measures_both_sides_and_goes_on_where_it_was(tmp_path):
    pytest.importorskip("trl")
    options = "--sizes tiny --prompt-tokens 200 --new-tokens 4 --groups 2 --repeats 1 --threads 1 --memory"

    def run():
        command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "versus_trl.py"), *options.split()]
        done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=True)
        return done.stderr, json.loads((tmp_path / "versus_trl_cpu.json").read_text())["cells"]

    said, (time, *memory) = run()
    assert "[4/4] memory of trl: qwen2_5_vl tiny, prompt 200, 2 x 4" in said
    assert time["agreement"]["same_prompt"] and time["agreement"]["max_abs_logprob_difference"] < 1e-4
    assert time["trl"]["micro_batch"] in (1, 2) and time["trl_over_dermiq"]["step"]["median"] > 0
    seconds = time["seconds"]["trl"]
    assert seconds["rollout"]["median"] + seconds["update"]["median"] < seconds["step"]["median"]
    assert [cell["settings"]["side"] for cell in memory] == ["dermiq", "trl", "trl"]
    assert all(cell["mib"]["update_growth"] > 0 for cell in memory)
    said, cells = run()
    assert said == "" and cells == [time, *memory]
