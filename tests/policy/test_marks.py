"""Marks of images and special tokens in texts: words to the model, a place, or a sentence that names the row."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import datasets
import pytest
import torch
from PIL import Image

from dermiq.datamodules.collate import Item, PromptCollate
from dermiq.datamodules.conversation import ConversationCollate, HeldOutCollate
from dermiq.datamodules.sources import Conversations, HubDataset, TabularSource
from dermiq.policy.chat_template import text_message
from dermiq.policy.hub import load_processor
from dermiq.policy.processing import encode_completions, texts_of
from dermiq.policy.special_tokens import in_plain_text, special_ids
from dermiq.prompts import gold_completion, parse, with_facts
from dermiq.schema import DataError, Message, ModelError, Sample
from support.families import FAMILIES

GOLD = Sample("row-7", ("a.jpg",), "melanoma", "mel", "g")
TALK = replace(GOLD, id="talk-3", question="Is it brown?", reply="It is.")
PICTURE = Image.new("RGB", (48, 40), "brown")


def marks(processor) -> list[str]:
    """Every special and every added token of a model, and what other models take for an image."""
    own = {token.content for token in processor.tokenizer.added_tokens_decoder.values()}
    own |= {value for name, value in vars(processor).items() if name.endswith("_token") and isinstance(value, str)}
    return sorted(own | {"<|image_pad|>", "<start_of_image>", "[IMG]", "<image_soft_token>", "<|im_end|>", "</s>"})


def encode(collate: type[PromptCollate], model_id, *samples: Sample, system: str | None = None):
    items = [Item(sample, [PICTURE] * len(sample.images)) for sample in samples]
    return collate(str(model_id), system, 8)(items)


@pytest.fixture(params=FAMILIES)
def model_id(request, family_dir):
    return family_dir(request.param)


def test_special_tokens_in_texts_are_words(model_id):
    """In a question, in earlier turns, in a system prompt, and in what is to be learned, as often as they stand there.

    No more special tokens come of them than of the same texts without.
    """
    processor = load_processor(str(model_id))
    special = torch.tensor(sorted(special_ids(processor.tokenizer)))
    found = [mark for mark in marks(processor) if mark != "<image>"]
    said = f"{' '.join(found)}{''.join(found)} <{found[0]}"

    def counted(text: str) -> int:
        turns = (Message("system", text), Message("user", f"{text} first?"), Message("assistant", f"A {text}"))
        talk = replace(TALK, question=f"And {text}?", history=turns, reply=f"No {text}.")
        named = replace(GOLD, question=f"What is {text}?", reasoning=f"{text} brown", kind="vqa", target=f"a {text}")
        whole = encode(ConversationCollate, model_id, talk, named, system=f"Look. {text}")["conversation"]
        return int(torch.isin(whole["input_ids"][whole["attention_mask"].bool()], special).sum())

    assert counted(said) == counted("word")


def test_what_is_learned_reads_as_it_was_written(model_id):
    processor = load_processor(str(model_id))
    for mark in [*marks(processor), "<image>"]:
        sample = replace(GOLD, kind="vqa", target=f"the {mark} token", reasoning=f"see {mark}")
        ids, mask = encode_completions(processor, [gold_completion(sample)])
        answer = parse(texts_of(processor, ids, mask)[0])
        assert (answer.diagnosis, answer.think) == (sample.target, sample.reasoning)


def test_texts_without_marks_stay_as_they_are(model_id):
    processor = load_processor(str(model_id))
    for text in (
        "a < b > c",
        "<think> x </think> <answer> y </answer>",
        "[1] {2} |3|",
        "<b>bold</b>",
        "日本 \u200b",
        "<",
    ):
        message = text_message("user", text)
        assert in_plain_text(processor, [message]) == [message]
        once = in_plain_text(processor, [text_message("user", f"{text}<image></s><|im_end|>[IMG]")])
        assert in_plain_text(processor, once) == once


def test_words_that_were_added_to_a_tokenizer_stay_words(family_dir):
    processor = load_processor(str(family_dir("qwen3_vl")))
    processor.tokenizer.add_tokens(["nevus", "melanoma", "  ", "<tool_call>"])
    (message,) = in_plain_text(processor, [text_message("user", "A nevus  or melanoma? <tool_call>")])
    assert message["content"][0]["text"] == "A nevus  or melanoma? <\u200btool_call>"


def test_facts_and_prompts_are_alike_everywhere(family_dir):
    """Evaluation, DPO's prompts and those of supervised training; and what a vLLM server is sent."""
    sample = replace(TALK, question="<image> Is it <end_of_utterance> or <|im_end|>?")
    prompt = encode(HeldOutCollate, family_dir("idefics3"), sample)
    ids = prompt["prompt"]["input_ids"][0].tolist()
    assert prompt["conversation"]["input_ids"][0][: len(ids)].tolist() == ids
    processor = load_processor(str(family_dir("idefics3")))
    facts = with_facts(prompt["messages"][0], ["See <image> and <end_of_utterance>."])
    assert processor.apply_chat_template(in_plain_text(processor, facts)).count("<image>") == 1


def test_a_token_in_two_pieces_stays_in_two(family_dir):
    """A template that puts the images first joins the texts around them."""
    processor = load_processor(str(family_dir("llava")))
    batch = encode(PromptCollate, family_dir("llava"), replace(GOLD, question="A </<image>s> mark?"))
    (ids,) = batch["prompt"]["input_ids"]
    assert processor.tokenizer.eos_token_id not in ids.tolist() and "A </\u200bs> mark?" in processor.tokenizer.decode(
        ids
    )


# Places of images


@pytest.mark.parametrize("asked", ["<image>\nWhich condition?", "Which condition?\n<image>", "Is <image> brown?"])
@pytest.mark.parametrize("kind", ["diagnosis", "vqa"])
def test_a_mark_in_a_question_is_the_place(asked, kind, model_id):
    processor = load_processor(str(model_id))
    images = torch.tensor([processor.image_token_id])
    plain, marked = (
        encode(PromptCollate, model_id, replace(GOLD, question=text, kind=kind))["prompt"]["input_ids"]
        for text in ("Which condition?", asked)
    )
    assert int(torch.isin(marked, images).sum()) == int(torch.isin(plain, images).sum()) > 0
    if asked.startswith("<image>"):
        assert torch.equal(plain, marked)
    assert "<image>\n" not in processor.tokenizer.decode(marked[0]).replace(processor.image_token, "")


@pytest.mark.parametrize(
    ("asked", "images"),
    [("<image><image> Which?", 1), ("<image> Which?", 2), ("Which? <image>", 0), ("<image>" * 5, 3)],
)
def test_marks_of_another_number_name_the_sample(asked, images, family_dir):
    odd = replace(GOLD, question=asked, images=("a.jpg",) * images)
    for sample in (odd, replace(odd, reply="Yes."), replace(odd, kind="choice", options=("a", "b"))):
        with pytest.raises(DataError, match=rf"^sample 'row-7': the question marks \d image.*there are {images}\."):
            encode(PromptCollate, family_dir("qwen3_vl"), GOLD, sample)


ROWS = [{"image": "0.png", "question": f"<image>\nIs it {word}?", "answer": "yes"} for word in ("a", "b", "c")]


def write(folder, kind: str, rows) -> TabularSource:
    """A source of questions, of one of the kinds that there are."""
    for name in {"0.png", "1.png"}:
        PICTURE.save(folder / name)
    columns = {"image_column": "image", "label_column": "answer", "kind": "vqa", "question_column": "question"}
    if kind == "hub":
        given = [row | {"image": datasets.Image().encode_example(str(folder / "0.png"))} for row in rows]
        datasets.Dataset.from_list(given).to_parquet(folder / "hub" / "train.parquet")
        return HubDataset(str(folder / "hub"), split="train", **columns)
    path = folder / f"table.{kind}"
    with path.open("w", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    if kind == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    return TabularSource(str(path), **columns)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "hub"])
def test_a_table_with_marks(kind, tmp_path, family_dir):
    source = write(tmp_path, kind, ROWS)
    source.load()
    items = [Item(sample, [source.image(name) for name in sample.images]) for sample in source]
    batch = PromptCollate(str(family_dir("idefics3")), None, 8)(items)
    assert [part["type"] for part in batch["messages"][1][1]["content"]] == ["image", "text"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "hub"])
def test_one_row_of_many_is_found_at_load(kind, tmp_path):
    rows = [*ROWS, ROWS[0] | {"question": "<image> or <image>?"}, *ROWS]
    with pytest.raises(
        DataError, match=r"(row 4|line 8): the question marks 2 image\(s\) \(<image>\), and there are 1"
    ):
        write(tmp_path, kind, rows).load()


def test_an_option_is_no_place_for_an_image(tmp_path):
    PICTURE.save(tmp_path / "0.png")
    path = tmp_path / "choices.csv"
    path.write_text("image,label,a,b\n0.png,A,wart,nevus\n0.png,A,wart,<image>\n")
    source = TabularSource(str(path), "image", "label", kind="choice", options_column=["a", "b"])
    with pytest.raises(DataError, match=r"line 3: an option holds <image>"):
        source.load()


# What a processor cannot read


def test_a_template_that_refuses_one_sample_names_it(family_dir, tmp_path):
    processor = load_processor(str(family_dir("qwen3_vl")))
    refusing = "{% if messages[-1]['content'][-1]['text'] == 'No?' %}{{ raise_exception('never') }}{% endif %}"
    processor.chat_template = refusing + processor.chat_template
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((family_dir("qwen3_vl") / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"^samples bad: The chat template of .*never"):
        encode(PromptCollate, tmp_path, GOLD, replace(GOLD, id="bad", question="No?"), replace(GOLD, id="good"))


@pytest.mark.parametrize("collate", [PromptCollate, ConversationCollate, HeldOutCollate])
@pytest.mark.parametrize("text", ["\ud83d half a sign", "\udcff"])
def test_a_text_that_cannot_be_encoded_names_its_sample(collate, text, family_dir):
    bad = replace(TALK, question=text)
    with pytest.raises(DataError, match=r"^samples talk-3: the processor of .* cannot read what is asked and shown"):
        encode(collate, family_dir("idefics3"), GOLD, bad, replace(GOLD, id="row-8"))


def test_half_a_character_is_found_at_load(tmp_path):
    path = tmp_path / "talks.jsonl"
    asked = {"role": "user", "content": "Why?"}
    talks = [[asked, {"role": "assistant", "content": text}] for text in ("Sun.", "\ud83d.")]
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    with pytest.raises(DataError, match=r"line 2, turn 2: the text holds half a character"):
        Conversations(str(path)).load()


def test_an_image_that_the_processor_refuses_names_its_sample(family_dir):
    narrow = Item(replace(GOLD, id="narrow"), [Image.new("RGB", (1, 900))])
    with pytest.raises(DataError, match=r"^samples narrow: the processor of .*aspect ratio"):
        PromptCollate(str(family_dir("qwen2_5_vl")), None, 8)([Item(GOLD, [PICTURE]), narrow])


def test_what_is_short_on_this_machine_is_not_the_samples_fault(family_dir, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("dermiq.datamodules.collate.encode_prompts", full)
    with pytest.raises(MemoryError):
        encode(PromptCollate, family_dir("qwen3_vl"), GOLD)


def test_a_conversation_with_marks_in_replies_loads(tmp_path, family_dir):
    PICTURE.save(tmp_path / "a.png")
    path = tmp_path / "talks.jsonl"
    turns = [
        {"role": "user", "content": "<image>What is <|image_pad|>?"},
        {"role": "assistant", "content": "</s> [IMG]"},
    ]
    path.write_text(json.dumps({"messages": turns, "images": ["a.png"]}))
    source = Conversations(str(path))
    source.load()
    item = Item(source[0], [source.image(name) for name in source[0].images])
    for family in FAMILIES:
        collate = ConversationCollate(str(family_dir(family)), None, 8)
        batch, processor = collate([item]), load_processor(str(family_dir(family)))
        learned = batch["conversation"]["input_ids"][batch["loss_mask"]]
        assert not set(learned[:-1].tolist()) & special_ids(processor.tokenizer)
