"""Tiny, randomly initialised models of five real families, each with its real processor, built offline.

Every directory is an ordinary Hugging Face one (config, weights, tokenizer, processor, chat template), so
the program under test cannot tell it from a downloaded model. The quirks that matter are kept: window
attention in Qwen2.5-VL's vision tower, deepstack in Qwen3-VL, sliding layers in Gemma 3, a padding mask of
pixels in Idefics3, a tokenizer that adds `<bos>` itself in Gemma 3 and LLaVA (but not in the others).

Inputs that the processors return beside `input_ids`, `attention_mask` and `pixel_values`:

    qwen2_5_vl, qwen3_vl   image_grid_thw, mm_token_type_ids; pixel_values is [patches, values], not per image
    gemma3                 token_type_ids (1 = image token; the tokens of one image see each other both ways)
    idefics3               pixel_attention_mask; both are [prompt, image, ...], padded with empty images
    llava                  nothing more
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SiglipVisionConfig,
)

from support.family_texts import (
    CORPUS,
    GEMMA_TEMPLATE,
    IDEFICS_TEMPLATE,
    LLAVA_TEMPLATE,
    QWEN_TEMPLATE,
    THINKING_TEMPLATE,
    UNTHINKING_TEMPLATE,
)

VOCAB_SIZE = 480
MAX_POSITIONS = 8192
HEADS = 4
KV_HEADS = 2
VISION = {"hidden_size": 64, "intermediate_size": 128}  # no narrower than a block of 4-bit weights

Parts = tuple[PreTrainedModel, ProcessorMixin]


@dataclass(frozen=True)
class Sizes:
    """How large the language model is; the vision towers are always the same."""

    layers: int
    hidden: int

    def text(self) -> dict[str, Any]:
        """The keywords that every text configuration understands."""
        return {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": self.hidden,
            "intermediate_size": 2 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "max_position_embeddings": MAX_POSITIONS,
        }


def _tokenizer(specials: list[str], add_bos: bool = False, **named: Any) -> PreTrainedTokenizerFast:
    """A byte-level BPE of exactly `VOCAB_SIZE` entries that keeps each of `specials` whole."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS.strip().splitlines(), trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE, "the corpus is too short for the vocabulary"
    if add_bos:
        bos = named["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **named
    )


def _qwen_tokenizer() -> PreTrainedTokenizerFast:
    vision = ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
    return _tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *vision],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", *vision],
    )


def _qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = ("vision_start", "vision_end", "image_pad", "video_pad")
    start, end, image, video = (tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names)
    return {
        "vision_start_token_id": start,
        "vision_end_token_id": end,
        "image_token_id": image,
        "video_token_id": video,
    }


def _qwen2_5_vl(sizes: Sizes) -> Parts:
    tokenizer = _qwen_tokenizer()
    half = sizes.hidden // HEADS // 2
    rope = {"rope_type": "default", "rope_theta": 1e6}
    rope["mrope_section"] = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    config = Qwen2_5_VLConfig(
        text_config={**sizes.text(), "rope_parameters": rope, **_model_ids(tokenizer)},
        # Windows of 2 x 2 merged patches in the first block, full attention in the second.
        vision_config={
            **VISION, "depth": 2, "num_heads": 2, "patch_size": 8, "window_size": 32,
            "fullatt_block_indexes": [1], "out_hidden_size": sizes.hidden,
        },
        **_qwen_ids(tokenizer),
    )  # fmt: skip
    pixels = {"patch_size": 8, "min_pixels": 4 * 256, "max_pixels": 25 * 256}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**pixels), tokenizer, Qwen2VLVideoProcessor(**pixels), chat_template=QWEN_TEMPLATE
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3_vl(sizes: Sizes) -> Parts:
    tokenizer = _qwen_tokenizer()
    head_dim = sizes.hidden // HEADS
    side = head_dim // 2 * 5 // 16
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True}
    rope["mrope_section"] = [head_dim // 2 - 2 * side, side, side]
    config = Qwen3VLConfig(
        text_config={**sizes.text(), "head_dim": head_dim, "rope_parameters": rope, **_model_ids(tokenizer)},
        vision_config={
            **VISION, "depth": 3, "num_heads": 2, "patch_size": 8, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1][: sizes.layers], "out_hidden_size": sizes.hidden,
        },
        **_qwen_ids(tokenizer),
    )  # fmt: skip
    pixels = {"patch_size": 8, "size": {"shortest_edge": 4 * 256, "longest_edge": 25 * 256}}
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(**pixels), tokenizer, Qwen3VLVideoProcessor(**pixels), chat_template=QWEN_TEMPLATE
    )
    return Qwen3VLForConditionalGeneration(config), processor


def _gemma3(sizes: Sizes) -> Parts:
    tokenizer = _tokenizer(
        ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>",
         "<start_of_image>", "<end_of_image>", "<image_soft_token>"],
        add_bos=True, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        extra_special_tokens={
            "image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
        },
    )  # fmt: skip
    head_dim = sizes.hidden // HEADS
    text = Gemma3TextConfig(
        **sizes.text(), head_dim=head_dim, query_pre_attn_scalar=head_dim, sliding_window=16,
        layer_types=["full_attention" if i % 2 else "sliding_attention" for i in range(sizes.layers)],
        **_model_ids(tokenizer),
    )  # fmt: skip
    vision = SiglipVisionConfig(
        **VISION, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=4, vision_use_head=False
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=16,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": 32, "width": 32}),
        tokenizer,
        chat_template=GEMMA_TEMPLATE,
        image_seq_length=16,
    )
    return Gemma3ForConditionalGeneration(config), processor


def _idefics3(sizes: Sizes) -> Parts:
    image = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    crops = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = _tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *image, "<global-img>", *crops],
        bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>", unk_token="<|endoftext|>",
        additional_special_tokens=[*image, "<global-img>", *crops],
    )  # fmt: skip
    config = Idefics3Config(
        text_config=LlamaConfig(**sizes.text(), **_model_ids(tokenizer)),
        vision_config={
            **VISION, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    edge = {"longest_edge": 64}
    processor = Idefics3Processor(
        Idefics3ImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False),
        tokenizer,
        image_seq_len=16,
        chat_template=IDEFICS_TEMPLATE,
    )
    return Idefics3ForConditionalGeneration(config), processor


def _llava(sizes: Sizes) -> Parts:
    tokenizer = _tokenizer(
        ["<unk>", "<s>", "</s>", "<image>", "<pad>"],
        add_bos=True, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    vision = CLIPVisionConfig(
        **VISION, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8, projection_dim=32
    )
    config = LlavaConfig(
        text_config=LlamaConfig(**sizes.text(), **_model_ids(tokenizer)),
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=LLAVA_TEMPLATE,
        num_additional_image_tokens=1,
    )
    return LlavaForConditionalGeneration(config), processor


def _model_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


BUILDERS: dict[str, Callable[[Sizes], Parts]] = {
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "llava": _llava,
}
FAMILIES = tuple(BUILDERS)
EOS = {
    "qwen2_5_vl": ["<|im_end|>", "<|endoftext|>"],
    "qwen3_vl": ["<|im_end|>", "<|endoftext|>"],
    "gemma3": ["<eos>", "<end_of_turn>"],
    "idefics3": ["<end_of_utterance>"],
    "llava": ["</s>"],
}
# What the released directories ask of `generate`. A rollout that does not override all of it samples from
# another distribution than the one that the update scores (a repetition penalty bends even greedy decoding).
SAMPLING: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.05},
    "qwen3_vl": {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20},
    "gemma3": {"do_sample": True, "top_p": 0.95, "top_k": 64},
    "idefics3": {},
    "llava": {},
}


# Templates that write a part of the reply themselves; no families of their own.
THINKING = {"qwen3_vl_thinking": THINKING_TEMPLATE, "qwen3_vl_unthinking": UNTHINKING_TEMPLATE}
EOS |= dict.fromkeys(THINKING, EOS["qwen3_vl"])
SAMPLING |= dict.fromkeys(THINKING, SAMPLING["qwen3_vl"])


def _thinking(template: str, sizes: Sizes) -> Parts:
    model, processor = _qwen3_vl(sizes)
    processor.chat_template = template
    return model, processor


BUILDERS |= {name: partial(_thinking, template) for name, template in THINKING.items()}


def _initialise(model: PreTrainedModel, seed: int) -> None:
    """Give every matrix and bias weights large enough that logits are peaked and images matter.

    The classes' own initialisation is too small for that, and Gemma 3's image projection starts at zero.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 1.5 * parameter[0].numel() ** -0.5, generator=generator)
            elif not name.endswith("weight"):  # the weights left are those of norms
                parameter.normal_(0.0, 0.1, generator=generator)
        if isinstance(model, Gemma3ForConditionalGeneration):
            # Scaled, tied embeddings would make every token predict itself: shrink them, and let the last
            # norm (its factor is 1 + weight) restore the size of the logits.
            model.get_input_embeddings().weight.mul_(0.25)
            model.model.language_model.norm.weight.fill_(3.0)


def build_model_dir(family: str, out: Path, *, layers: int = 2, hidden: int = 64, seed: int = 0) -> Path:
    """Write a tiny model of `family` with its processor into the directory `out`.

    Args:
        family: one of `FAMILIES`, or of `THINKING`.
        out: created if missing; existing files of the same names are replaced.
        layers: of the language model.
        hidden: width of the language model; a multiple of 32.
        seed: of the weights.

    Returns:
        `out`, which `AutoModelForImageTextToText` and `AutoProcessor` load. Weights are float32.
    """
    model, processor = BUILDERS[family](Sizes(layers, hidden))
    tokenizer = processor.tokenizer
    _initialise(model, seed)
    eos = tokenizer.convert_tokens_to_ids(EOS[family])
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=eos if len(eos) > 1 else eos[0],
        pad_token_id=tokenizer.pad_token_id,
        **SAMPLING[family],
    )
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out
