"""Qwen2.5-VL in its released shapes, randomly initialised on the device: no download, no file, no image library.

The policy is the product's own `VLMBackbone` around that model. Its tokenizer knows as many tokens as the released one,
under the same ids, but its words mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA

# The tokens behind the words, in the released order (ids 151643 to 151664).
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} {% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """A model of the Qwen2.5-VL family and a prompt about one square image.

    Attributes:
        text: what the language model's configuration sets.
        vision: what the tower's configuration sets.
        words: tokens in front of the special ones.
        grid: the image's side in merged patches; it takes `grid` ** 2 tokens.
        prompt_tokens: of image and text together.
        rank: of the adapters on q, k, v and o of the language model.
    """

    text: dict[str, Any]
    vision: dict[str, Any]
    words: int
    grid: int
    prompt_tokens: int
    rank: int = 16

    def token(self, name: str) -> int:
        """The id of a special token."""
        return self.words + SPECIAL.index(name)

    def slice(self, layers: int, depth: int) -> Shape:
        """The same widths with the first `layers` decoder layers and `depth` blocks of the tower."""
        full = [block for block in self.vision["fullatt_block_indexes"] if block < depth]
        vision = {**self.vision, "depth": depth, "fullatt_block_indexes": full}
        return replace(self, text={**self.text, "num_hidden_layers": layers}, vision=vision)


# config.json of Qwen/Qwen2.5-VL-3B-Instruct. The prompt: 1,024 tokens of an 896 x 896 image, 76 of text.
QWEN2_5_VL_3B = Shape(
    text={
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 128000, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    vision={
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "tokens_per_second": 2, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31], "out_hidden_size": 2048,
    },
    words=151643, grid=32, prompt_tokens=1100,
)  # fmt: skip
# For a machine without a GPU: every line of the benchmark runs, and no figure means anything.
SMOKE = Shape(
    text={
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    },
    vision={
        "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "tokens_per_second": 2, "window_size": 56,
        "fullatt_block_indexes": [1, 2], "out_hidden_size": 64,
    },
    words=256, grid=4, prompt_tokens=28, rank=2,
)  # fmt: skip


def build_model(
    shape: Shape, device: torch.device, dtype: torch.dtype, attention: str = "sdpa"
) -> Qwen2_5_VLForConditionalGeneration:
    """The model, made on the device itself: main memory never holds its weights."""
    ends = [shape.token("<|im_end|>"), shape.token("<|endoftext|>")]
    config = Qwen2_5_VLConfig(
        text_config={
            **shape.text, "tie_word_embeddings": True,
            "bos_token_id": ends[1], "eos_token_id": ends[0], "pad_token_id": ends[1],
        },
        vision_config=shape.vision, tie_word_embeddings=True,
        image_token_id=shape.token("<|image_pad|>"), video_token_id=shape.token("<|video_pad|>"),
        vision_start_token_id=shape.token("<|vision_start|>"), vision_end_token_id=shape.token("<|vision_end|>"),
    )  # fmt: skip
    torch.manual_seed(0)
    with device:
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attention)
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends[1])
    return model.eval()


def quantise(model: nn.Module, compute: torch.dtype) -> None:
    """Store all linear layers but the output's in NF4 with double quantisation, as `load_in_4bit` does, one by one."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    linear = [(name, m) for name, m in model.named_modules() if type(m) is nn.Linear and name != "lm_head"]
    for name, layer in linear:
        with torch.device("meta"):
            small = Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, compute, True, "nf4")
        weight = layer.weight.data
        small.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", module=small).to(weight.device)
        small.bias = layer.bias
        model.set_submodule(name, small)
    model.is_loaded_in_4bit = True  # how peft tells which layers it meets


@cache
def build_tokenizer(words: int) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of so many words and, behind them, the special tokens."""
    vocabulary = {token: i for i, token in enumerate([*(f"w{i}" for i in range(words)), *SPECIAL])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left",
        chat_template=TEMPLATE, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


class TextProcessor:
    """What a policy asks of a processor, without images."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.chat_template = tokenizer.chat_template
        self.apply_chat_template = tokenizer.apply_chat_template


def build_policy(shape: Shape, model: Qwen2_5_VLForConditionalGeneration, **memory: bool) -> VLMBackbone:
    """The product's policy around a ready model, in training mode, with an adapter that is not zero.

    Its completions never end of themselves, so that all have the length asked for. `memory` holds the policy's own
    switches (`gradient_checkpointing`, `offload_activations`).
    """
    tokenizer = build_tokenizer(shape.words)
    policy = VLMBackbone("random weights", LoRA(rank=shape.rank, alpha=2 * shape.rank), **memory)
    policy.attach(model, TextProcessor(tokenizer))
    policy.banned = policy.banned.to(model.device)
    generator = torch.Generator(model.device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(policy.named_parameters()):
            if "lora_B" in name:  # zero in a new adapter, which would leave its other half without a gradient
                parameter.normal_(0.0, 0.02, generator=generator)
    policy.banned[list(policy.stop_ids)] = True
    return policy.train()


def build_prompt(shape: Shape, device: torch.device) -> dict[str, Tensor]:
    """One prompt [1, P] as the family's processor would make it: text, image, text."""
    generator = torch.Generator().manual_seed(0)
    image = [shape.token("<|vision_start|>"), *[shape.token("<|image_pad|>")] * shape.grid**2]
    image.append(shape.token("<|vision_end|>"))
    text = torch.randint(shape.words, (shape.prompt_tokens - len(image),), generator=generator).tolist()
    ids = torch.tensor([text[:4] + image + text[4:]])
    side = shape.grid * shape.vision["spatial_merge_size"]
    values = 3 * shape.vision["temporal_patch_size"] * shape.vision["patch_size"] ** 2
    prompt = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == shape.token("<|image_pad|>")).int(),
        "pixel_values": torch.randn(side * side, values, generator=generator),
        "image_grid_thw": torch.tensor([[1, side, side]]),
    }
    return {name: value.to(device) for name, value in prompt.items()}


def build_completions(shape: Shape, count: int, length: int, device: torch.device) -> Tensor:
    """Ids [count, length] of random words."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(shape.words, (count, length), generator=generator).to(device)
