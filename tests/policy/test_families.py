"""The tiny models of `families.py` behave like the released ones where the tests rely on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig, PreTrainedModel, ProcessorMixin

from support.families import FAMILIES, VOCAB_SIZE, build_model_dir

CLASSES = {
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
    "gemma3": "Gemma3",
    "idefics3": "Idefics3",
    "llava": "Llava",
}
END_OF_TURN = {
    "qwen2_5_vl": "<|im_end|>",
    "qwen3_vl": "<|im_end|>",
    "gemma3": "<end_of_turn>",
    "idefics3": "<end_of_utterance>",
    "llava": "</s>",
}


class Loaded:
    """A family's model and processor, with helpers to write prompts."""

    def __init__(self, family: str, directory: Path) -> None:
        self.family = family
        self.model: PreTrainedModel = AutoModelForImageTextToText.from_pretrained(directory)
        self.processor: ProcessorMixin = AutoProcessor.from_pretrained(directory)

    def messages(self, images: int, question: str) -> list[dict[str, Any]]:
        content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
        return [
            {"role": "system", "content": [{"type": "text", "text": "You are a dermatologist."}]},
            {"role": "user", "content": content},
        ]

    def prompt(self, images: int, question: str) -> str:
        return self.processor.apply_chat_template(self.messages(images, question), add_generation_prompt=True)

    def inputs(self, prompts: list[str], images: list[list[Image.Image]]) -> dict[str, torch.Tensor]:
        # The rule of `ProcessorMixin.apply_chat_template`: never a second <bos>.
        bos = self.processor.tokenizer.bos_token
        special = not (bos and prompts[0].startswith(bos))
        return self.processor(
            text=prompts, images=images, padding=True, padding_side="left", return_tensors="pt",
            add_special_tokens=special,
        )  # fmt: skip

    @torch.no_grad()
    def next_logprobs(self, prompts: list[str], images: list[list[Image.Image]]) -> torch.Tensor:
        """Log-probabilities of each prompt's next token, [B, V]."""
        return self.model(**self.inputs(prompts, images)).logits[:, -1].log_softmax(-1)


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(request.param, build_model_dir(request.param, tmp_path_factory.mktemp("family") / request.param))


def test_real_classes_load(loaded: Loaded) -> None:
    assert type(loaded.model).__name__ == f"{CLASSES[loaded.family]}ForConditionalGeneration"
    assert type(loaded.processor).__name__ == f"{CLASSES[loaded.family]}Processor"
    assert loaded.model.dtype == torch.float32
    assert len(loaded.processor.tokenizer) == VOCAB_SIZE


def test_batch_of_two_lengths_equals_each_alone(loaded: Loaded) -> None:
    prompts = [loaded.prompt(1, "What is the diagnosis?"), loaded.prompt(2, "Is the border sharp or irregular?")]
    images = [[picture(1)], [picture(2), picture(3)]]
    mask = loaded.inputs(prompts, images)["attention_mask"]
    assert mask.sum(1).tolist()[0] < mask.sum(1).tolist()[1]
    together = loaded.next_logprobs(prompts, images)
    alone = [loaded.next_logprobs([prompt], [few]) for prompt, few in zip(prompts, images, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_prompts_are_short(loaded: Loaded) -> None:
    ids = loaded.inputs([loaded.prompt(1, "What is the diagnosis?")], [[picture(1)]])["input_ids"]
    assert 40 <= ids.shape[1] <= 100


def test_images_matter(loaded: Loaded) -> None:
    prompts = [loaded.prompt(2, "What is the diagnosis?")]
    first = loaded.next_logprobs(prompts, [[picture(1), picture(2)]])
    for changed in ([picture(9), picture(2)], [picture(1), picture(9)], [picture(2), picture(1)]):
        other = loaded.next_logprobs(prompts, [changed])
        assert (first - other).abs().mean() > 0.05
    assert first.exp().max() > 5 / VOCAB_SIZE, "the logits are close to uniform"


def test_size_of_the_image_sets_the_number_of_tokens_in_qwen_only(loaded: Loaded) -> None:
    prompt = loaded.prompt(1, "What is the diagnosis?")
    lengths = [
        loaded.inputs([prompt], [[picture(1, width, height)]])["input_ids"].shape[1]
        for width, height in ((32, 32), (64, 48), (64, 64))
    ]
    assert len(set(lengths)) == (3 if loaded.family.startswith("qwen") else 1)


def test_generate_continues_each_prompt(loaded: Loaded) -> None:
    prompts = [loaded.prompt(1, "What is the diagnosis?"), loaded.prompt(1, "Is the border sharp or irregular?")]
    inputs = loaded.inputs(prompts, [[picture(1)], [picture(2)]])
    greedy = GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=loaded.processor.tokenizer.pad_token_id)
    out = loaded.model.generate(**inputs, generation_config=greedy, repetition_penalty=1.0)
    assert out.shape == (2, inputs["input_ids"].shape[1] + 4)
    first = loaded.model(**inputs).logits[:, -1].argmax(-1)
    assert out[:, -4].tolist() == first.tolist()


def test_assistant_turn_extends_the_prompt_and_ends_with_an_eos(loaded: Loaded) -> None:
    messages = loaded.messages(1, "What is the diagnosis?")
    prompt = loaded.processor.apply_chat_template(messages, add_generation_prompt=True)
    reply = [{"role": "assistant", "content": [{"type": "text", "text": "Melanoma."}]}]
    closed = loaded.processor.apply_chat_template(messages + reply)
    assert closed.startswith(prompt)
    end = END_OF_TURN[loaded.family]
    assert closed[len(prompt) :].strip() == f"Melanoma.{end}"
    eos = loaded.model.generation_config.eos_token_id
    eos_ids = eos if isinstance(eos, list) else [eos]
    assert loaded.processor.tokenizer.convert_tokens_to_ids(end) in eos_ids


def test_a_prompt_has_at_most_one_bos(loaded: Loaded) -> None:
    ids = loaded.inputs([loaded.prompt(1, "What?")], [[picture(1)]])["input_ids"][0].tolist()
    tokenizer = loaded.processor.tokenizer
    expected = 1 if loaded.family in ("gemma3", "idefics3", "llava") else 0
    assert ids.count(tokenizer.bos_token_id) == expected


def test_families_keep_their_quirks(loaded: Loaded) -> None:
    config = loaded.model.config
    if loaded.family == "gemma3":
        assert set(config.text_config.layer_types) == {"sliding_attention", "full_attention"}
        assert config.text_config.sliding_window == 16
    elif loaded.family == "qwen3_vl":
        assert list(config.vision_config.deepstack_visual_indexes) == [0, 1]
    elif loaded.family == "qwen2_5_vl":
        assert loaded.model.generation_config.repetition_penalty == 1.05


def test_same_seed_same_weights(loaded: Loaded, tmp_path: Path) -> None:
    again = Loaded(loaded.family, build_model_dir(loaded.family, tmp_path))
    other = Loaded(loaded.family, build_model_dir(loaded.family, tmp_path, seed=1))
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert any(not torch.equal(v, other.model.state_dict()[n]) for n, v in loaded.model.state_dict().items())
