"""The backbone: adapters where they belong, the reference that stays, and clear refusals."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA
from dermiq.policy.prefix import prefill, score
from dermiq.policy.processing import encode_prompts
from dermiq.prompts import to_messages
from dermiq.schema import ModelError, Sample
from support.families import FAMILIES
from support.images import picture

DECODER = dict.fromkeys(FAMILIES, "language_model") | {"idefics3": "text_model"}
TOWER = {"gemma3": "vision_tower", "idefics3": "vision_model", "llava": "vision_tower"}


def loaded(directory, lora=LoRA(rank=4), **options):  # noqa: B008 (frozen)
    torch.manual_seed(0)
    backbone = VLMBackbone(str(directory), lora, **options)
    backbone.load()
    return backbone


def move(backbone, seed=1):
    """Another policy than the one before."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.trainable_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)


def prompt(backbone, images=1):
    names = tuple(f"{i}.png" for i in range(images))
    sample = Sample(id="s", images=names, target="melanoma", label="mel", group="s")
    pictures = [picture(i, 48) for i in range(images)]
    return encode_prompts(backbone.processor, [to_messages(sample, "Look.")], [pictures])


@torch.no_grad()
def logits(backbone, images=1):
    output = backbone.output_layer(restricted=False)
    return output.logits(prefill(backbone.eval(), prompt(backbone, images)).last_state, 0, len(output.weight), 1.0)


@pytest.fixture
def own_dir(family_dir, tmp_path):
    """A model directory to spoil."""
    return shutil.copytree(family_dir("qwen2_5_vl"), tmp_path / "model")


def refusal(directory, **options):
    with pytest.raises(ModelError) as caught:
        VLMBackbone(str(directory), **options).load()
    return str(caught.value)


# Adapters


@pytest.mark.parametrize("layers", [2, 6])  # peft shortens a list of 20 names or more by its own rules
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_sit_in_the_language_model_alone(family, layers, family_dir):
    backbone = loaded(family_dir(family, layers=layers))
    expected = {
        f"model.base_model.model.model.{DECODER[family]}.layers.{i}.self_attn.{target}.lora_{side}.default.weight"
        for i in range(layers)
        for target in ("q_proj", "k_proj", "v_proj", "o_proj")
        for side in "AB"
    }
    assert backbone.adapter_keys() == expected
    assert {name for name, parameter in backbone.named_parameters() if parameter.requires_grad} == expected
    assert {parameter.dtype for parameter in backbone.trainable_parameters()} == {torch.float32}


@pytest.mark.parametrize("family", TOWER)
def test_the_tower_is_adapted_on_request(family, family_dir):
    text = loaded(family_dir(family)).adapter_keys()
    both = loaded(family_dir(family), LoRA(rank=4, vision=True)).adapter_keys()
    assert text < both
    assert all(f".{TOWER[family]}." in key for key in both - text)


def test_targets_and_rank_are_the_users(family_dir):
    backbone = loaded(
        family_dir("idefics3"), LoRA(targets=("up_proj",), rank=3, alpha=12, fully_trained=("connector",))
    )
    lora = {key: tuple(backbone.get_parameter(key).shape) for key in backbone.adapter_keys() if "lora_" in key}
    assert set(lora.values()) == {(3, 64), (128, 3)} and all("up_proj" in key for key in lora)
    whole = backbone.adapter_keys() - lora.keys()
    assert whole and all("connector.modules_to_save.default" in key for key in whole)


def test_without_lora_nothing_is_trained(family_dir):
    backbone = loaded(family_dir("idefics3"), None)
    assert backbone.adapter_keys() == set() and backbone.trainable_parameters() == []


def test_loading_twice_changes_nothing(family_dir):
    backbone = loaded(family_dir("idefics3"))
    before = backbone.model
    backbone.load()
    assert backbone.model is before


@pytest.mark.parametrize(
    ("family", "fully_trained"), [*((family, ()) for family in FAMILIES), ("idefics3", ("lm_head", "connector"))]
)
def test_a_saved_adapter_is_what_peft_loads(family, fully_trained, family_dir, tmp_path):
    backbone = loaded(family_dir(family), LoRA(rank=4, fully_trained=fully_trained))
    move(backbone)
    expected = logits(backbone)
    backbone.save_adapter(tmp_path / "adapter")

    again = loaded(family_dir(family), adapter_path=str(tmp_path / "adapter"))
    assert torch.equal(logits(again), expected)
    base = AutoModelForImageTextToText.from_pretrained(family_dir(family))
    assert not torch.equal(_plain_logits(base, again), expected)
    merged = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(_plain_logits(merged, again), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def _plain_logits(model, backbone):
    return model(**prompt(backbone)).logits[:, -1]


def test_the_incoming_adapter_decides_its_own_shape(family_dir, tmp_path):
    loaded(family_dir("idefics3"), LoRA(rank=2)).save_adapter(tmp_path)
    again = loaded(family_dir("idefics3"), LoRA(rank=16), adapter_path=str(tmp_path))
    assert {min(parameter.shape) for parameter in again.trainable_parameters()} == {2}


@pytest.mark.parametrize("fully_trained", [(), ("lm_head",)])
def test_casting_the_model_leaves_adapters_as_they_are(fully_trained, family_dir, tmp_path):
    """Lightning casts the module for bf16-true: the base follows, the adapter is not even rounded."""
    backbone = loaded(family_dir("idefics3"), LoRA(rank=4, fully_trained=fully_trained))
    move(backbone)
    before = {key: backbone.get_parameter(key).clone() for key in backbone.adapter_keys()}
    backbone.to(torch.bfloat16)
    assert backbone.vlm.get_input_embeddings().weight.dtype == torch.bfloat16
    for key, value in before.items():
        assert torch.equal(backbone.get_parameter(key), value)


def test_an_adapter_is_not_rounded_to_a_bfloat16_base(family_dir, tmp_path):
    backbone = loaded(family_dir("idefics3"), LoRA(rank=4, fully_trained=("lm_head",)), dtype="bfloat16")
    move(backbone)
    backbone.save_adapter(tmp_path)
    again = loaded(family_dir("idefics3"), adapter_path=str(tmp_path), dtype="bfloat16")
    for key in backbone.adapter_keys():
        assert torch.equal(again.get_parameter(key), backbone.get_parameter(key)), key


# The reference


def test_without_an_incoming_adapter_the_reference_is_the_base(family_dir):
    backbone = loaded(family_dir("idefics3"), LoRA(rank=4, fully_trained=("lm_head",)))
    base = logits(loaded(family_dir("idefics3"), None))
    move(backbone)
    with backbone.reference():
        assert torch.equal(logits(backbone), base)
    assert not torch.equal(logits(backbone), base)


def test_with_an_incoming_adapter_the_reference_is_its_frozen_copy(family_dir, tmp_path):
    before = loaded(family_dir("idefics3"), LoRA(rank=4, fully_trained=("lm_head",)))
    move(before)
    before.save_adapter(tmp_path)
    expected = logits(before)
    backbone = loaded(family_dir("idefics3"), adapter_path=str(tmp_path))
    trainable = {id(parameter) for parameter in backbone.trainable_parameters()}
    move(backbone, seed=2)
    moved = logits(backbone)
    with backbone.reference():
        assert torch.equal(logits(backbone), expected)
    assert torch.equal(logits(backbone), moved) and not torch.equal(moved, expected)
    assert {id(parameter) for parameter in backbone.trainable_parameters()} == trainable


def test_the_policy_returns_after_an_error_under_the_reference(family_dir, tmp_path):
    loaded(family_dir("idefics3")).save_adapter(tmp_path)
    backbone = loaded(family_dir("idefics3"), adapter_path=str(tmp_path))
    move(backbone)
    moved = logits(backbone)
    with pytest.raises(KeyError), backbone.reference():
        raise KeyError
    assert torch.equal(logits(backbone), moved) and backbone.trainable_parameters()


@pytest.mark.parametrize("fully_trained", [(), ("lm_head",)])
def test_the_reference_follows_when_synchronised(fully_trained, family_dir):
    backbone = loaded(family_dir("idefics3"), LoRA(rank=4, fully_trained=fully_trained))
    backbone.add_reference()
    start = logits(backbone)
    move(backbone)
    moved = logits(backbone)
    with backbone.reference():
        assert torch.equal(logits(backbone), start)
    backbone.sync_reference()
    move(backbone, seed=2)
    with backbone.reference():
        assert torch.equal(logits(backbone), moved)
    assert not torch.equal(logits(backbone), moved)


def test_the_reference_is_in_the_state_and_not_in_the_saved_adapter(family_dir, tmp_path):
    backbone = loaded(family_dir("idefics3"))
    backbone.add_reference()
    kinds = [".reference." in key for key in backbone.adapter_keys()]
    assert kinds.count(True) == kinds.count(False) == 16
    backbone.save_adapter(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip


def test_frozen_normalisation_stays_as_it_was_measured(family_dir):
    """In training mode a batch normalisation goes by the batch, and takes it over for good."""
    backbone = loaded(family_dir("idefics3"))
    frozen, trained = (torch.nn.BatchNorm2d(3) for _ in range(2))
    backbone.vlm.frozen, backbone.vlm.trained = frozen.requires_grad_(False), trained
    with backbone.train().without_dropout():
        assert not trained.training
    assert backbone.training and trained.training and not frozen.training


# 4-bit, several images


@pytest.mark.parametrize("family", ["qwen2_5_vl", "idefics3"])
def test_four_bit_trains_on_the_cpu(family, cpu, family_dir):
    backbone = loaded(family_dir(family), load_in_4bit=True)
    kinds = {type(module).__name__ for module in backbone.vlm.get_decoder().modules()}
    assert "Linear4bit" in kinds
    ids = (~backbone.banned).nonzero()[:3].T
    optimizer = torch.optim.AdamW(backbone.trainable_parameters(), lr=0.02)

    def loss():
        mask = torch.ones_like(ids, dtype=torch.bool)
        return -score(
            backbone.train(), prefill(backbone, prompt(backbone)), torch.tensor([0]), ids, mask
        ).logprobs.sum()

    start = loss()
    for _ in range(4):
        current = loss()
        current.backward()
        grads = [parameter.grad for parameter in backbone.trainable_parameters()]
        assert all(grad is not None and grad.dtype == torch.float32 for grad in grads)
        assert any(grad.abs().max() > 0 for grad in grads)
        optimizer.step()
        optimizer.zero_grad()
    assert loss() < start - 0.1


def test_four_bit_is_close_to_the_base(cpu, family_dir):
    full, quantised = (logits(loaded(family_dir("qwen2_5_vl"), load_in_4bit=flag)) for flag in (False, True))
    similarity = torch.nn.functional.cosine_similarity(full, quantised.float())
    assert 0.5 < similarity.item() < 1  # of unrelated logits 0.0


@pytest.mark.parametrize("family", ["qwen2_5_vl", "idefics3"])  # with biases, and without
def test_four_bit_gradients_do_not_depend_on_what_was_sampled_before(family, cpu, family_dir):
    def gradients(sampled):
        backbone = loaded(family_dir(family), load_in_4bit=True, dtype="float32")
        move(backbone)
        if sampled:
            logits(backbone)
        ids = (~backbone.banned).nonzero()[:3].T
        shared = prefill(backbone.train(), prompt(backbone))
        score(
            backbone, shared, torch.tensor([0]), ids, torch.ones_like(ids, dtype=torch.bool)
        ).logprobs.sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in backbone.trainable_parameters()])

    assert torch.equal(gradients(sampled=True), gradients(sampled=False))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_image_matters(family, family_dir):
    backbone = loaded(family_dir(family))
    sample = Sample(id="s", images=("a", "b", "c"), target="melanoma", label="mel", group="s")
    conversations = [to_messages(sample, "Look.")]

    @torch.no_grad()
    def answer(seeds):
        encoded = encode_prompts(backbone.processor, conversations, [[picture(seed, 48) for seed in seeds]])
        return prefill(backbone.eval(), encoded).last_state

    first = answer([0, 1, 2])
    for other in ([9, 1, 2], [0, 9, 2], [0, 1, 9]):
        assert (answer(other) - first).abs().max() > 1e-4


# Refusals


def test_a_model_of_text_alone(family_dir, tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes)).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert f"{str(tmp_path)!r} is a llama model, which is no image-text-to-text model" in message
    assert "such as Qwen2.5-VL" in message


def test_a_directory_that_is_missing_or_empty(tmp_path):
    message = refusal(tmp_path / "none")
    assert "is neither a local directory nor a vision-language model" in message and "Give model_id" in message
    assert "exists but does not hold a vision-language model" in refusal(tmp_path)


def test_a_directory_without_a_processor(own_dir):
    for name in ("preprocessor_config.json", "processor_config.json"):
        (own_dir / name).unlink(missing_ok=True)
    message = refusal(own_dir)
    assert str(own_dir) in message and "processor" in message


def test_a_directory_without_weights(own_dir):
    (own_dir / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(own_dir)


def test_weights_that_are_cut_off(own_dir):
    path = own_dir / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    message = refusal(own_dir)
    assert "exists but does not hold a vision-language model that can be loaded" in message


def test_lora_targets_that_no_layer_has(family_dir):
    message = refusal(family_dir("llava"), lora=LoRA(targets=("query",)))
    assert "is named 'query'. Its linear layers: ['down_proj', 'gate_proj'" in message and "'q_proj'" in message


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"rank": -1},
        {"alpha": 0},
        {"alpha": -8},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": float("nan")},
        {"targets": ()},
    ],
)
def test_lora_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match="LoRA needs rank >= 1"):
        LoRA(**options)


def test_a_directory_that_holds_no_adapter(family_dir, tmp_path):
    message = refusal(family_dir("idefics3"), adapter_path=str(tmp_path))
    assert message == (f"{tmp_path} holds no adapter_config.json. adapter_path takes the adapter/ of a stage's run.")


def test_renamed_adapter_keys(family_dir, tmp_path):
    loaded(family_dir("idefics3")).save_adapter(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({key.replace("q_proj", "query"): value for key, value in weights.items()}, path)
    message = refusal(family_dir("idefics3"), adapter_path=str(tmp_path))
    assert f"The adapter in {tmp_path} does not fit" in message
    assert "4 weights missing (first: base_model" in message and "4 weights unknown" in message


def test_an_adapter_of_another_shape(family_dir, tmp_path):
    loaded(family_dir("idefics3"), LoRA(rank=4)).save_adapter(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 8}))
    message = refusal(family_dir("idefics3"), adapter_path=str(tmp_path))
    assert "16 weights of another shape" in message and "Use the base model" in message


def test_an_adapter_of_another_model(family_dir, tmp_path):
    loaded(family_dir("idefics3")).save_adapter(tmp_path)
    message = refusal(family_dir("idefics3", hidden=32), adapter_path=str(tmp_path))
    assert "16 weights of another shape" in message


def test_an_adapter_of_another_family(family_dir, tmp_path):
    loaded(family_dir("idefics3")).save_adapter(tmp_path)
    message = refusal(family_dir("llava"), adapter_path=str(tmp_path))
    assert f"The adapter in {tmp_path} cannot be put on" in message and "Use the base model" in message
