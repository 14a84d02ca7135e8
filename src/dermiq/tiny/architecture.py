"""Architecture of the tiny VLM: an Idefics3 of about a million parameters, its tokenizer and its processor."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Split
from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

IMAGE_SIZE = 96
PATCH_SIZE = 12
SCALE_FACTOR = 2
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE // SCALE_FACTOR) ** 2
CAPTION_QUESTION = "Describe the image ."
NAME_QUESTION = "Describe a diagnosis ."

PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<bos>", "<end_of_utterance>"
_IMAGE_SPECIALS = ("<fake_token_around_image>", "<global-img>", "<image>")
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
WORD = r"\w+(?:-\w+)*|[^\w\s]"

# The vocabulary has no use for the system prompt's words, so the template leaves the system turn out.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages if message['role'] != 'system' %}"
    "{{ message['role'] + ' : ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<end_of_utterance>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)


@cache
def words() -> tuple[str, ...]:
    """The words of the vocabulary, in the order that the shipped weights were made for.

    They are those of `dermiq.findings`, of the names of the phantom's conditions, and of the phantom's conversations
    with the facts retrieved for them.
    """
    text = (files("dermiq") / "assets" / "tiny_words.txt").read_text(encoding="utf-8")
    return tuple(text.split())


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer: lower case, split at white space and punctuation, compounds with hyphens kept whole."""
    specials = [PAD, UNKNOWN, BEGIN, END, *_IMAGE_SPECIALS]
    vocabulary = {token: index for index, token in enumerate([*specials, *_TAGS, *words()])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Split(Regex(WORD), behavior="removed", invert=True)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in _TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        extra_special_tokens=list(_IMAGE_SPECIALS),
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> Idefics3Processor:
    """The ordinary Idefics3 processor; every image becomes one square of 96 pixels and 16 tokens."""
    image_processor = Idefics3ImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        max_image_size={"longest_edge": IMAGE_SIZE},
        do_image_splitting=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return Idefics3Processor(
        image_processor, build_tokenizer(), image_seq_len=IMAGE_TOKENS, chat_template=CHAT_TEMPLATE
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Idefics3ForConditionalGeneration:
    """A randomly initialised fp32 model on the CPU that fits the tokenizer."""
    tokens: dict[str, Any] = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    image_token: Any = tokenizer.convert_tokens_to_ids("<image>")
    config = Idefics3Config(
        **tokens,
        image_token_id=image_token,
        scale_factor=SCALE_FACTOR,
        tie_word_embeddings=True,
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "hidden_act": "relu",
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 512,
            **tokens,
            "tie_word_embeddings": True,
        },
    )
    model = Idefics3ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**tokens)
    return model
