"""Adapters that others wrote: sampled from, scored and merged as the policy that they are under peft, or refused."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from warnings import catch_warnings

import peft
import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from dermiq.policy.adapter_files import KINDS, _same_model
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA
from dermiq.policy.prefix import prefill, score
from dermiq.policy.processing import encode_prompts
from dermiq.policy.rollout import Sampling, sample_rollout
from dermiq.prompts import to_messages
from dermiq.schema import ModelError, Sample
from support.images import picture

SAMPLE = Sample(id="s", images=("0.png",), target="melanoma", label="mel", group="s")
ROWS = torch.zeros(3, dtype=torch.long)
TARGETS = ["q_proj", "v_proj"]


def lora(**options):
    return LoraConfig(**({"r": 4, "lora_alpha": 16, "target_modules": TARGETS} | options))


FAST = ("dora", "bias", "pissa", "kasa", "embeddings", "tokens", "ia3")
PLAIN = {
    "rslora": lora(use_rslora=True),
    "patterns": lora(
        rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 3}, exclude_modules=["layers.0.self_attn.q_proj"]
    ),
    "whole": lora(modules_to_save=["embed_tokens"]),
    "pattern of names": lora(target_modules=r".*layers\.1.*(q|down)_proj"),
}
OTHER = {
    "dora": lora(use_dora=True),
    "dora, rslora, mlp": lora(use_dora=True, use_rslora=True, target_modules=["gate_proj", "down_proj"]),
    "bias": lora(lora_bias=True),
    "pissa": lora(init_lora_weights="pissa"),
    "olora": lora(init_lora_weights="olora"),
    "mica": lora(init_lora_weights="mica"),
    "kasa": lora(kasa_config=peft.KasaConfig()),
    "blocks": lora(use_bdlora={"target_modules_bd_a": ["q_proj"], "target_modules_bd_b": ["v_proj"], "nblocks": 2}),
    "embeddings": lora(target_modules=["embed_tokens", "q_proj"]),
    "tokens": lora(trainable_token_indices=[5, 6, 300]),
    "parameters": lora(target_modules=["v_proj"], target_parameters=["q_proj.weight"]),
    "ia3": IA3Config(target_modules=TARGETS, feedforward_modules=[]),
    "loha": LoHaConfig(target_modules=TARGETS),
    "vera": VeraConfig(target_modules=TARGETS),
}


def written(config, family, family_dir, directory):
    """The adapter as peft writes it, and peft's own model with it."""
    torch.manual_seed(0)
    with catch_warnings(action="ignore"):
        model = get_peft_model(AutoModelForImageTextToText.from_pretrained(family_dir(family)), deepcopy(config))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape), alpha=0.3)
        model.save_pretrained(directory)
    return model.eval()


def policy(family, family_dir, directory):
    torch.manual_seed(1)
    backbone = VLMBackbone(str(family_dir(family)), adapter_path=str(directory))
    backbone.load()
    return backbone


def prompt(backbone):
    return encode_prompts(backbone.processor, [to_messages(SAMPLE, "Look.")], [[picture(0, 48)]])


@torch.no_grad()
def by_peft(model, backbone, rollout):
    """Log-probs of a rollout by whole forward passes of a model, one for each completion."""
    rows = torch.zeros(rollout.ids.shape)
    for row, (ids, mask) in enumerate(zip(rollout.ids, rollout.mask, strict=True)):
        inputs = prompt(backbone)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids[mask][None]], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, int(mask.sum())))
        logits = model(**inputs).logits[0, -int(mask.sum()) - 1 : -1].masked_fill(backbone.banned, -torch.inf)
        rows[row, mask] = logits.log_softmax(-1).gather(-1, ids[mask][:, None])[:, 0]
    return rows


def scored(backbone, rollout):
    with backbone.sampling_mode():
        return score(backbone, prefill(backbone, prompt(backbone)), ROWS, rollout.ids, rollout.mask).logprobs


def rollout_of(backbone):
    return sample_rollout(backbone, {"prompt": prompt(backbone), "samples": [SAMPLE]}, Sampling(5), 3)


def check_that_it_is_the_policy_of_peft(config, family, family_dir, tmp_path):
    theirs = written(config, family, family_dir, tmp_path / "theirs")
    backbone = policy(family, family_dir, tmp_path / "theirs")
    rollout = rollout_of(backbone)
    expected = by_peft(theirs, backbone, rollout)
    torch.testing.assert_close(rollout.logprobs, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scored(backbone, rollout), expected, atol=1e-4, rtol=1e-4)
    with backbone.sampling_mode(), backbone.reference():
        torch.testing.assert_close(scored(backbone, rollout), expected, atol=1e-4, rtol=1e-4)
    backbone.save_adapter(tmp_path / "ours")
    torch.testing.assert_close(
        scored(policy(family, family_dir, tmp_path / "ours"), rollout), expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in OTHER]
)
def test_an_adapter_is_the_policy_that_it_is_under_peft(name, family_dir, tmp_path):
    check_that_it_is_the_policy_of_peft(OTHER[name], "idefics3", family_dir, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "llava"])
@pytest.mark.parametrize("name", [*PLAIN, *OTHER])
def test_so_it_is_in_other_families(name, family, family_dir, tmp_path):
    if family == "gemma3" and name == "tokens":
        pytest.skip("its output layer shares the embeddings, and is refused")
    check_that_it_is_the_policy_of_peft((PLAIN | OTHER)[name], family, family_dir, tmp_path)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_lora_of_any_shape_is_folded(name, family_dir, tmp_path):
    check_that_it_is_the_policy_of_peft(PLAIN[name], "idefics3", family_dir, tmp_path)
    backbone = policy("idefics3", family_dir, tmp_path / "theirs")
    query = backbone.vlm.get_decoder().layers[1].self_attn.q_proj
    before = query.get_base_layer().weight.data_ptr()
    with backbone.folded():
        assert query.get_base_layer().weight.data_ptr() != before
    assert query.get_base_layer().weight.data_ptr() == before


KIND_OPTIONS = {
    "C3A": {"block_size": 16},
    "FOURIERFT": {"n_frequency": 10},
    "IA3": {"feedforward_modules": []},
    "ROAD": {"group_size": 16},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"target_modules": None, "token_indices": [5, 6]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "VBLORA": {"vector_length": 16, "num_vectors": 64},
    "WAVEFT": {"n_frequency": 10},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.filterwarnings("ignore")  # of peft's about its own kinds
def test_every_kind_that_is_let_in_is_the_policy_that_it_is_under_peft(kind, family_dir, tmp_path):
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind](**{"target_modules": TARGETS} | KIND_OPTIONS.get(kind, {}))
    check_that_it_is_the_policy_of_peft(config, "idefics3", family_dir, tmp_path)


@pytest.mark.parametrize("load_in_4bit", [True, False])
def test_dora_merges(load_in_4bit, family_dir, tmp_path):
    written(OTHER["dora"], "idefics3", family_dir, tmp_path / "theirs")
    backbone = VLMBackbone(
        str(family_dir("idefics3")), None, str(tmp_path / "theirs"), load_in_4bit=load_in_4bit, dtype="float32"
    )
    backbone.load()
    rollout = rollout_of(backbone)
    backbone.save_merged(tmp_path / "merged")
    merged = VLMBackbone(str(tmp_path / "merged"), None)
    merged.load()
    torch.testing.assert_close(scored(merged, rollout), rollout.logprobs, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("family", "name"), [("idefics3", "bias"), ("gemma3", "embeddings")])
def test_what_cannot_be_merged_is_refused(family, name, family_dir, tmp_path):
    """A bias for a layer that has none; embeddings that the output layer shares, which peft would change with them."""
    written(OTHER[name], family, family_dir, tmp_path)
    with pytest.raises(ModelError, match="The adapter cannot be merged"):
        policy(family, family_dir, tmp_path).save_merged(tmp_path / "merged")


# Refusals


@pytest.fixture(scope="module")
def saved(family_dir, tmp_path_factory):
    backbone = VLMBackbone(str(family_dir("idefics3")), LoRA(rank=4))
    backbone.load()
    directory = tmp_path_factory.mktemp("saved")
    backbone.save_adapter(directory)
    return directory


@pytest.fixture
def adapter(saved, tmp_path):
    """A directory to spoil."""
    return shutil.copytree(saved, tmp_path / "adapter")


def refusal(adapter, family_dir):
    with pytest.raises(ModelError) as caught:
        policy("idefics3", family_dir, adapter)
    message = str(caught.value)
    assert str(adapter) in message and "\n" not in message and message.endswith(".")
    return message


def configure(adapter, **options):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


PROMPTS = {
    "task_type": "CAUSAL_LM",
    "num_virtual_tokens": 4,
    "num_layers": 2,
    "token_dim": 64,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize(
    "kind",
    [
        *("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT", "CARTRIDGE"),
        *("ADAPTION_PROMPT", "XLORA", "POLY", "ADALORA", "LILY", "SHADOW"),
    ],
)
def test_a_kind_that_acts_elsewhere(kind, adapter, family_dir):
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": kind} | PROMPTS))
    assert f"is of peft's kind {kind}, which would be another policy" in refusal(adapter, family_dir)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alora_invocation_tokens": [5, 6]}, "has alora_invocation_tokens, which would make it another policy"),
        ({"monteclora_config": {"num_samples": 2}}, "has monteclora_config, which would make it another policy"),
        ({"bias": "all"}, "trains biases of its base (bias='all')"),
        ({"bias": "lora_only"}, "trains biases of its base (bias='lora_only')"),
        ({"init_lora_weights": "pissa_niter_4"}, "random decomposition"),
        ({"lora_alpha": -16}, "says lora_alpha=-16: the update is scaled by it, so it is above 0"),
        ({"lora_alpha": 0}, "says lora_alpha=0"),
        ({"lora_alpha": float("nan")}, "says lora_alpha=nan, which is no number"),
        ({"lora_alpha": float("inf")}, "says lora_alpha=inf"),
        ({"lora_alpha": "16"}, "says lora_alpha='16', which is no number"),
        ({"lora_alpha": None}, "says lora_alpha=None"),
        ({"alpha_pattern": {"q_proj": -1}}, "says alpha_pattern['q_proj']=-1"),
        ({"r": 10**9}, "says r=1000000000: a rank is at least 1, and at most the 480 channels of the widest weight"),
        ({"r": -4}, "says r=-4"),
        ({"r": 0}, "cannot be put on"),
        ({"r": 4.5}, "cannot be put on"),
        ({"r": True}, "says r=True"),
        ({"rank_pattern": {"q_proj": 10**9}}, "says rank_pattern['q_proj']=1000000000"),
        ({"lora_dropout": float("nan")}, "says lora_dropout=nan"),
        ({"lora_dropout": 1.0}, "says lora_dropout=1.0"),
        ({"lora_dropout": -0.1}, "says lora_dropout=-0.1"),
        ({"peft_type": "MAGIC"}, "is of peft's kind MAGIC, which would be another policy"),
        ({"peft_type": "lora"}, "is of peft's kind lora"),
        ({"peft_type": None}, "is of peft's kind None"),
        ({"peft_type": ["LORA"]}, "cannot be read"),
        ({"target_modules": ["no_such_layer"]}, "cannot be put on"),
        ({"target_modules": 7}, "cannot be put on"),
        ({"init_lora_weights": "corda"}, "cannot be put on"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "cannot be put on"),
        ({"rank_pattern": [1, 2]}, "says rank_pattern=[1, 2], which is no number"),
        ({"use_dora": True}, "8 weights missing"),
        ({"use_dora": True, "lora_bias": True}, "cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:aLoRA is currently only", "ignore:`init_lora_weights` is 'corda'")
def test_a_configuration_that_makes_no_sense(options, message, adapter, family_dir):
    configure(adapter, **options)
    assert message in refusal(adapter, family_dir)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"LORA"', "{}", "[" * 100_000, '{"r": 4}'])
def test_a_configuration_that_is_none(text, adapter, family_dir):
    (adapter / "adapter_config.json").write_text(text)
    assert "cannot be read" in refusal(adapter, family_dir)


def spoil(value, how):
    if how == "int8":
        return value.to(torch.int8)
    if how == "complex64":
        return value.to(torch.complex64)
    return value.index_fill(0, torch.tensor([0]), float(how))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("int8", "holds weights of the type int8 (first: base_model"),
        ("complex64", "holds weights of the type complex64"),
        ("nan", "holds weights that are no finite numbers (first: base_model"),
        ("inf", "holds weights that are no finite numbers"),
    ],
)
def test_weights_that_are_none(how, message, adapter, family_dir):
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[3]
    save_file(weights | {name: spoil(weights[name], how)}, path)
    assert message in refusal(adapter, family_dir)


@pytest.mark.parametrize("junk", [b"", b"\0" * 100, b"not a file of weights", b"\xff" * 8])
def test_a_file_of_weights_that_is_none(junk, adapter, family_dir):
    (adapter / "adapter_model.safetensors").write_bytes(junk)
    assert "cannot be read" in refusal(adapter, family_dir)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_another_precision_are_taken_as_they_are(dtype, adapter, family_dir):
    path = adapter / "adapter_model.safetensors"
    weights = {name: value.to(dtype) for name, value in load_file(path).items()}
    save_file(weights, path)
    backbone = policy("idefics3", family_dir, adapter)
    for parameter, value in zip(sorted_by_name(backbone), sorted(weights.items()), strict=True):
        assert parameter.dtype == torch.float32 and torch.equal(parameter, value[1].float())


def sorted_by_name(backbone):
    return [parameter for _, parameter in sorted(backbone.named_parameters()) if parameter.requires_grad]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rank": 10**9}, "lora.rank=1000000000 is more than the 64 channels"), ({"rank": 65}, "lora.rank=65 is more")],
)
def test_a_rank_beyond_every_layer(options, message, family_dir):
    with pytest.raises(ModelError, match=message):
        VLMBackbone(str(family_dir("idefics3")), LoRA(**options)).load()


# Another base


def test_an_adapter_of_another_base_of_the_same_shape(family_dir, tmp_path):
    written(lora(), "idefics3", family_dir, tmp_path)
    other = family_dir("idefics3", seed=5)
    backbone = VLMBackbone(str(other), adapter_path=str(tmp_path))
    with pytest.warns(UserWarning, match="was made for") as caught:
        backbone.load()
    assert [str(each.message) for each in caught if each.category is UserWarning] == [
        f"The adapter in {tmp_path} was made for '{family_dir('idefics3')}', and runs on '{other}' now."
    ]


def test_the_same_base_at_another_place(family_dir, tmp_path):
    written(lora(), "idefics3", family_dir, tmp_path / "adapter")
    moved = shutil.copytree(family_dir("idefics3"), tmp_path / "moved")
    VLMBackbone(str(moved), adapter_path=str(tmp_path / "adapter")).load()  # a warning is an error


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct", True),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "/models/Qwen2.5-VL-3B-Instruct/", True),
        ("/gone/models--Qwen--Qwen2.5-VL-3B-Instruct/snapshots/0123", "Qwen/Qwen2.5-VL-3B-Instruct", True),
        (r"C:\models\Qwen2.5-VL-3B-Instruct", "qwen/qwen2.5-vl-3b-instruct", True),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", False),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "/models/vlm", False),
        ("/gone/vlm", "/lost/vlm", True),
    ],
)
def test_names_of_the_same_model(first, second, same):
    assert _same_model(first, second) == _same_model(second, first) == same


def test_directories_are_compared_by_what_they_hold(family_dir, tmp_path):
    base = family_dir("idefics3")
    link = tmp_path / "link"
    link.symlink_to(base)
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    assert _same_model(str(base), str(link)) and _same_model(str(base), str(copy))
    weights = load_file(copy / "model.safetensors")
    save_file({name: value + 0.001 for name, value in weights.items()}, copy / "model.safetensors")
    assert not _same_model(str(base), str(copy))
