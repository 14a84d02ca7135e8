"""Layers sharded over two processes, batches that one of them cannot read, and what they send each other."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from support.processes import ONE, SETTINGS, SGD, TWO, shell
from support.runs import Lab, adapter, checkpoint, different
from support.small_data import write_ham10000

REPOSITORY = Path(__file__).parents[2]
SHARDED = ["--trainer.strategy.class_path=dermiq.trainer.sharding.ShardedStrategy", *TWO[1:]]
ADAM = "--model.optimizer=torch.optim.AdamW"


@pytest.fixture(scope="module")
def communication():
    """The benchmark of that name."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        import communication
    finally:
        sys.path.pop(0)
    return communication


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        torch.testing.assert_close(second[key], first[key], atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "dpo", "grpo"])
def test_the_first_update_with_sharded_layers_is_the_same(name, lab, tmp_path):
    stage, options = SETTINGS[name]
    options = [*options, *SGD, "--trainer.max_steps=1", "--model.max_grad_norm=0.5"]
    lab.run("fit", stage, tmp_path / "one", *options, *ONE)
    shell(lab.arguments("fit", stage, tmp_path / "two", *options, *SHARDED))
    assert_same(adapter(tmp_path / "one"), adapter(tmp_path / "two"))


@pytest.mark.slow
def test_a_run_with_sharded_layers_resumes(lab, tmp_path):
    options = [*SHARDED, ADAM, "--data.batch_size=1", "--trainer.val_check_interval=2"]
    options += ["--trainer.limit_val_batches=1.0", "--trainer.accumulate_grad_batches=2"]
    shell(lab.arguments("fit", "SFTModule", tmp_path / "whole", *options, "--trainer.max_steps=3"))
    shell(lab.arguments("fit", "SFTModule", tmp_path / "parts", *options, "--trainer.max_steps=1"))
    resumed = [*options, "--trainer.max_steps=3", "--ckpt_path=last"]
    shell(lab.arguments("fit", "SFTModule", tmp_path / "parts", *resumed))
    whole, parts = (checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert parts["global_step"] == 3
    assert not different(whole["state_dict"], parts["state_dict"])
    assert not different(whole["optimizer_states"], parts["optimizer_states"])
    # The same checkpoint goes on under plain DDP: nothing in it is sharded.
    resumed = [*options[len(SHARDED) :], *TWO, "--data.batch_size=1", "--trainer.max_steps=4"]
    shell(lab.arguments("fit", "SFTModule", tmp_path / "parts", *resumed, "--ckpt_path=last"))
    assert checkpoint(tmp_path / "parts")["global_step"] == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "options", "problem"),
    [
        ("SFTModule", ["--model.backbone.load_in_4bit=true"], "in 4 bits cannot be sharded"),
        ("DPOModule", ["--model.reference_cache=cache.jsonl"], "reference_cache=null"),
    ],
)
def test_what_cannot_be_sharded_is_refused(stage, options, problem, lab, tmp_path):
    with pytest.raises(AssertionError, match=problem):
        shell(lab.arguments("fit", stage, tmp_path, *options, *SHARDED, "--trainer.devices=1"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "strategy"), [("sft", TWO), ("grpo", TWO), ("sft", SHARDED)], ids=["sft", "grpo", "sft-sharded"]
)
def test_one_process_without_readable_images_counts_nothing(name, strategy, family_dir, tmp_path):
    stage, options = SETTINGS[name]
    lab = Lab(tmp_path, write_ham10000(tmp_path / "photographs"), family_dir)
    options = [*options, *SGD, "--trainer.max_steps=1", "--data.on_bad_image=skip"]
    data = lab.run("fit", stage, tmp_path / "whole", *options, *ONE).datamodule
    loader = data.train_dataloader()
    second = [loader.dataset.source[loader.dataset.indices[place]] for place in loader.sampler.order()[2:4].tolist()]
    for sample in second:  # the first batch of the second process
        Path(sample.images[0]).write_bytes(b"")
    with pytest.warns(UserWarning, match="Skipped 2 samples"):
        lab.run("fit", stage, tmp_path / "one", *options, *ONE)
    shell(lab.arguments("fit", stage, tmp_path / "two", *options, *strategy))
    assert_same(adapter(tmp_path / "one"), adapter(tmp_path / "two"))
    whole, one = adapter(tmp_path / "whole"), adapter(tmp_path / "one")
    assert any((whole[key] - one[key]).abs().max() > 1e-3 for key in one)


def test_the_table_of_the_docs_is_the_scripts(communication):
    page = (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")
    shown = page.split("<!-- communication -->\n")[1].split("\n<!-- end -->")[0]
    assert shown == communication.table(communication.predictions())
    kept = json.loads((REPOSITORY / "benchmarks" / "results" / "communication.json").read_text())
    assert kept["rows"] == communication.predictions()


@pytest.mark.parametrize("model", ["Qwen2.5-VL-3B", "Qwen2.5-VL-7B"])
def test_the_shapes_are_those_of_the_class(model, communication):
    shape = communication.MODELS[model]
    tower = {"depth": 1, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
    tower |= {"out_hidden_size": shape.hidden, "spatial_merge_size": 2, "temporal_patch_size": 2}
    text = {"hidden_size": shape.hidden, "intermediate_size": shape.intermediate, "num_hidden_layers": 1}
    text |= {"num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "vocab_size": shape.vocabulary}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=tower, tie_word_embeddings=shape.tied)
    with torch.device("meta"):
        made = Qwen2_5_VLForConditionalGeneration(config)
    counted = sum(weight.numel() for weight in made.parameters())
    layer, block = (
        sum(weight.numel() for weight in part.parameters())
        for part in (made.model.language_model.layers[0], made.model.visual.blocks[0])
    )
    assert layer == shape.layer()
    assert counted + (shape.layers - 1) * layer + 31 * block == shape.total()


@pytest.mark.slow
def test_counted_bytes_are_those_worked_out(communication, lab, tmp_path):
    def count(stage, strategy):
        root = tmp_path / f"{stage}-{strategy is SHARDED}"
        arguments = lab.arguments("fit", stage, root, *strategy, "--trainer.max_steps=2")
        counted = communication.count(arguments, tmp_path)
        bookkeeping = counted["counted"]["allreduce_"] - counted["gradients"]
        assert 0 <= bookkeeping <= 64, "shares of the loss and the like"
        return counted

    assert count("SFTModule", TWO)["layers"] == 0
    worked_out = communication.gatherings(2)  # the tiny model has two layers
    for name in ("SFT", "DPO"):
        counted = count(f"{name}Module", SHARDED)
        assert counted["counted"]["_allgather_base_"] == worked_out[name] * counted["layers"] // 2 > 0
