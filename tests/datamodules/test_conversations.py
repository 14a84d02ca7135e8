"""Whole conversations: what counts in the loss, one pass over them, and training on them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dermiq.datamodules import ConversationDataModule
from dermiq.datamodules.collate import Item
from dermiq.datamodules.sources import Conversations
from dermiq.objectives.losses import sft_loss
from dermiq.policy.backbone import LoRA, VLMBackbone
from dermiq.policy.logprobs import token_logprobs
from dermiq.policy.prefix import prefill, score, sequence_logprobs
from dermiq.policy.processing import (
    ProcessorMixin,
    encode_completions,
    encode_conversations,
    encode_prompts,
    load_processor,
)
from dermiq.schema import DataError, ModelError
from support.conversations import write_talks
from support.families import FAMILIES
from support.images import picture

END = {
    "qwen2_5_vl": "<|im_end|>", "qwen3_vl": "<|im_end|>", "gemma3": "<end_of_turn>", "idefics3": "<end_of_utterance>",
    "llava": "</s>",
}  # fmt: skip
SPACE = {"idefics3": " ", "llava": " "}  # what their templates put between the header and the reply

IMAGE = {"type": "image"}


def say(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


SINGLE = [say("user", IMAGE, "What is it?"), say("assistant", "<think> brown </think> <answer> nevus </answer>")]
LONGER = [
    say("system", "Look."),
    say("user", IMAGE, IMAGE, "Which skin condition do these two photographs show?"),
    say("assistant", "A melanoma."),
]
TURNS = [
    say("system", "Look."),
    say("user", "Can you help me?"),
    say("assistant", "Yes. Show it."),
    say("user", IMAGE, "What is it?"),
    say("assistant", "A nevus."),
    say("user", "And these?", IMAGE, IMAGE),
    say("assistant", "One is a melanoma, one is not."),
    say("user", "Is it urgent?"),
    say("assistant", "The melanoma is."),
]
TEXT = [say("user", "What is a melanoma, please?"), say("assistant", "A tumour.")]
TEXTS = [say("user", "Hm?"), say("assistant", "Show me the skin."), say("user", "No."), say("assistant", "Then not.")]


def pictures(conversation: list[dict[str, Any]]) -> list:
    count = sum(part == IMAGE for message in conversation for part in message["content"])
    return [picture(i, (48, 64)[i % 2]) for i in range(count)]


def replies(family: str, conversation: list[dict[str, Any]]) -> str:
    """What the assistant writes in all turns, as its template has it."""
    texts = [message["content"][0]["text"] for message in conversation if message["role"] == "assistant"]
    return "".join(f"{SPACE.get(family, '')}{text}{END[family]}" for text in texts)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def backbone(family, family_dir) -> VLMBackbone:
    return loaded(family_dir(family))


def loaded(directory: Path, checkpointing: bool = False) -> VLMBackbone:
    torch.manual_seed(0)
    backbone = VLMBackbone(str(directory), LoRA(rank=4), gradient_checkpointing=checkpointing)
    backbone.load()
    with torch.no_grad():
        for name, parameter in sorted(backbone.named_parameters()):
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    return backbone.train()


def encoded(processor: ProcessorMixin, *conversations: list) -> tuple[dict, torch.Tensor]:
    return encode_conversations(processor, conversations, [pictures(each) for each in conversations])


def test_what_the_assistant_says_counts_and_nothing_else(family, family_dir):
    processor = load_processor(str(family_dir(family)))
    conversations = (TURNS, SINGLE, TEXTS)
    inputs, mask = encoded(processor, *conversations)
    ids, attention = inputs["input_ids"], inputs["attention_mask"].bool()
    assert ids.shape == attention.shape == mask.shape and mask.dtype == torch.bool
    for row, conversation in enumerate(conversations):
        assert attention[row].tolist() == sorted(attention[row].tolist(), reverse=True)  # padded on the right
        assert not (mask[row] & ~attention[row]).any()
        assert processor.tokenizer.decode(ids[row][mask[row]]) == replies(family, conversation)
        assert mask[row][attention[row]][-1]  # nothing after the last end of turn


def test_a_conversation_is_what_the_prompts_before_its_turns_were(family, family_dir):
    """Every turn is learned behind the very tokens that the policy will be asked with."""
    processor = load_processor(str(family_dir(family)))
    inputs, mask = encoded(processor, TURNS)
    starts = [i for i in range(1, mask.shape[1]) if mask[0, i] and not mask[0, i - 1]]
    asked = [i for i, message in enumerate(TURNS) if message["role"] == "assistant"]
    for start, turn in zip(starts, asked, strict=True):
        shown = pictures(TURNS[:turn])
        prompt = encode_prompts(processor, [TURNS[:turn]], [shown])
        assert inputs["input_ids"][0, :start].tolist() == prompt["input_ids"][0].tolist()


@pytest.mark.parametrize("pair", [(SINGLE, LONGER), (SINGLE, TEXT), (TEXT, TEXTS[:2])], ids=["images", "mixed", "text"])
def test_one_pass_equals_prompt_and_completion(pair, family, backbone):
    processor = backbone.processor
    inputs, mask = encoded(processor, *pair)
    prompt = encode_prompts(processor, [each[:-1] for each in pair], [pictures(each) for each in pair])
    ids, counts = encode_completions(processor, [each[-1]["content"][0]["text"] for each in pair])
    for row in range(2):
        whole = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        asked = prompt["input_ids"][row][prompt["attention_mask"][row].bool()]
        assert torch.equal(whole, torch.cat([asked, ids[row][counts[row]]]))
        assert torch.equal(inputs["input_ids"][row][mask[row]], ids[row][counts[row]])
    with torch.no_grad():
        expected = score(backbone, prefill(backbone, prompt), torch.arange(2), ids, counts, restricted=False).logprobs
        found = sequence_logprobs(backbone, inputs, mask)
    assert found.shape == mask.shape and found.dtype == torch.float32 and not found[~mask].any()
    assert (found[mask] - expected[counts]).abs().max() < 1e-5
    assert float(sft_loss(found, mask)[0]) == pytest.approx(float(sft_loss(expected, counts)[0]), abs=1e-5)
    assert getattr(backbone.vlm.model, "rope_deltas", None) is None


def test_logits_are_made_where_they_are_needed(family, backbone, monkeypatch):
    inputs, mask = encoded(backbone.processor, TURNS, SINGLE)
    made: list[int] = []

    def counted(states, *rest):
        made.append(len(states))
        return token_logprobs(states, *rest)

    monkeypatch.setattr("dermiq.policy.prefix.token_logprobs", counted)
    with torch.no_grad():
        found = sequence_logprobs(backbone, inputs, mask)
        logits = backbone.vlm(**inputs, use_cache=False).logits[:, :-1]
    assert made == [int(mask.sum())]
    expected = logits.log_softmax(-1).gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
    assert (found[:, 1:][mask[:, 1:]] - expected[mask[:, 1:]]).abs().max() < 1e-5


def gradients(backbone: VLMBackbone) -> dict[str, torch.Tensor]:
    inputs, mask = encoded(backbone.processor, TURNS, SINGLE)
    sft_loss(sequence_logprobs(backbone, inputs, mask), mask)[0].backward()
    found = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
    backbone.zero_grad(set_to_none=True)
    return found


def test_checkpointing_changes_nothing(family, backbone, family_dir):
    plain, recomputed = gradients(backbone), gradients(loaded(family_dir(family), checkpointing=True))
    assert plain.keys() == recomputed.keys() and any(value.abs().max() > 0 for value in plain.values())
    for name, value in plain.items():
        torch.testing.assert_close(recomputed[name], value, atol=1e-6, rtol=1e-5)


# Templates


def with_template(model_id: Path, folder: Path, change) -> ProcessorMixin:
    processor = load_processor(str(model_id))
    processor.chat_template = change(processor.chat_template)
    processor.save_pretrained(folder)
    shutil.copy(model_id / "config.json", folder)
    return load_processor(str(folder))


def test_a_template_that_renders_a_beginning_otherwise_is_refused(family_dir, tmp_path):
    """As templates of thinking models do, which drop the reasoning of all turns but the last."""
    text = "{{ part['text'] if loop.last else part['text'][:3] }}"

    def shorten(template: str) -> str:
        assert "{{ part['text'] }}" in template
        changed = template.replace("{{ part['text'] }}", text.replace("loop.last", "last"))
        return changed.replace("{% for part in", "{% set last = loop.last %}{% for part in")

    processor = with_template(family_dir("qwen2_5_vl"), tmp_path, shorten)
    encoded(processor, TEXTS[:2])
    with pytest.raises(ModelError, match=r"renders turn 2 otherwise when it is asked for.*split the conversation"):
        encoded(processor, TEXTS)


def test_a_reply_that_runs_into_its_header_is_refused(family_dir, tmp_path):
    """Here header and reply make one word, and one token, together."""

    def run_on(template: str) -> str:
        header = "{{ 'brow' if message['role'] == 'assistant' else message['role'] + '\\n' }}"
        changed = template.replace("{{ message['role'] }}\n", header).replace("assistant\n", "brow")
        assert changed.count("brow") == 2
        return changed

    processor = with_template(family_dir("qwen2_5_vl"), tmp_path, run_on)
    assert encoded(processor, [TEXT[0], say("assistant", " It is.")])[1].sum() == len(
        processor.tokenizer(" It is.<|im_end|>")["input_ids"]
    )
    with pytest.raises(ModelError, match=r"runs a turn into what stands beside it \('n it is"):
        encoded(processor, [TEXT[0], say("assistant", "n it is.")])
    source = Conversations(str(write_talks(tmp_path, count=1)))
    source.load()
    item = Item(replace(source[0], reply="n it is."), [source.image(source[0].images[0])])
    with pytest.raises(ModelError, match=r"^samples talks-1: The processor of"):
        ConversationDataModule(str(tmp_path), {"all": source}).train_collate()([item])


def test_a_template_that_closes_no_turn(family_dir, tmp_path):
    """As LLaVA 1.5's: the last turn is closed by the end of the text, so that the policy learns to stop."""
    closing = "{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}"
    processor = with_template(family_dir("llava"), tmp_path, lambda template: template.replace(closing, " "))
    inputs, mask = encoded(processor, TEXTS)
    assert processor.tokenizer.decode(inputs["input_ids"][0][mask[0]]) == " Show me the skin. Then not.</s>"
    ids, counts = encode_completions(processor, ["Then not."])
    assert inputs["input_ids"][0][-int(counts.sum()) :].tolist() == ids[0].tolist()


def test_a_template_that_refuses_a_role(family_dir, tmp_path):
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    processor = with_template(family_dir("gemma3"), tmp_path, lambda template: refusing + template)
    with pytest.raises(ModelError, match=r"refuses a conversation of system, user.*: no system role"):
        encoded(processor, LONGER)


# Data


def columns(data: ConversationDataModule) -> tuple[int, int]:
    """Columns of all training batches, and those among them that hold tokens."""
    masks = [batch["conversation"]["attention_mask"] for batch in data.train_dataloader()]
    return sum(mask.numel() for mask in masks), int(sum(mask.sum() for mask in masks))


def test_grouping_by_length_saves_padding(family_dir, tmp_path):
    source = Conversations(str(write_talks(tmp_path, count=96)))

    def counted(grouped: bool) -> tuple[int, int]:
        data = ConversationDataModule(
            str(family_dir("qwen2_5_vl")), {"train": source}, batch_size=4, group_by_length=grouped
        )
        data.setup("fit")
        return columns(data)

    (random, tokens), (grouped, same) = counted(False), counted(True)
    assert tokens == same
    padding, left = 1 - tokens / random, 1 - same / grouped
    assert padding > 0.3 and left < padding / 3


def test_a_conversation_longer_than_the_context_is_refused_at_setup(family_dir, tmp_path):
    short = shutil.copytree(family_dir("qwen2_5_vl"), tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 120
    (short / "config.json").write_text(json.dumps(config))
    source = Conversations(str(write_talks(tmp_path, count=4)))
    with pytest.raises(DataError, match=r"sample 'talks-3': its prompt of \d+ tokens \(1 image.*the 120 tokens"):
        ConversationDataModule(str(short), {"train": source}, max_new_tokens_reserve=5).setup("fit")


def test_evaluation_batches_hold_prompts_and_the_replies_that_there_are(family_dir, tmp_path):
    source = Conversations(str(write_talks(tmp_path, count=2)))
    source.load()
    data = ConversationDataModule(str(family_dir("qwen2_5_vl")), {"all": source}, system_prompt="Name it.")
    talk, diagnosis = source[1], replace(source[0], reply=None, target="melanoma")
    items = [Item(sample, [source.image(name) for name in sample.images]) for sample in (diagnosis, talk)]
    batch = data.eval_collate()(items)
    assert len(batch["prompt"]["input_ids"]) == len(batch["messages"]) == 2
    assert len(batch["loss_mask"]) == len(batch["conversation"]["input_ids"]) == 1
    tokenizer = load_processor(str(family_dir("qwen2_5_vl"))).tokenizer
    ids = batch["conversation"]["input_ids"][0]
    prompt = batch["prompt"]["input_ids"][1][batch["prompt"]["attention_mask"][1].bool()]
    assert torch.equal(ids[: len(prompt)], prompt)
    assert tokenizer.decode(ids[batch["loss_mask"][0]]).count("<|im_end|>") == 2
