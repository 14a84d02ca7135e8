"""The tiny VLM: an ordinary model directory whose tokenizer, template and weights fit each other."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor, Idefics3ForConditionalGeneration, Idefics3Processor

from dermiq import tiny
from dermiq.datamodules.phantom import CONDITIONS, PhantomSource
from dermiq.findings import ATTRIBUTES, VOCABULARY, read_findings
from dermiq.kg import load_graph
from dermiq.prompts import FINDING_QUESTION, QUESTION, gold_completion, parse, to_messages
from dermiq.tiny import recipe
from dermiq.tiny.__main__ import main
from dermiq.tiny.architecture import CAPTION_QUESTION, END, IMAGE_TOKENS


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    tiny.write_tiny_vlm(out)
    return out


@pytest.fixture(scope="module")
def processor(directory: Path) -> Idefics3Processor:
    return AutoProcessor.from_pretrained(directory)


@pytest.fixture(scope="module")
def model(directory: Path) -> Idefics3ForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(directory)


def test_the_weights_are_small() -> None:
    assert len((files("dermiq") / "assets" / "tiny.safetensors").read_bytes()) < 5_000_000


def test_the_directory_loads_as_fp32(model: Idefics3ForConditionalGeneration) -> None:
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_output_layer_is_its_own_copy_of_the_embedding(model: Idefics3ForConditionalGeneration) -> None:
    head, embedding = model.lm_head.weight, model.model.text_model.embed_tokens.weight
    assert torch.equal(head, embedding) and head is not embedding


def test_the_shipped_weights_arrive_in_the_model(model: Idefics3ForConditionalGeneration) -> None:
    with safe_open(files("dermiq") / "assets" / "tiny.safetensors", framework="pt") as weights:
        name = "model.vision_model.encoder.layers.0.mlp.fc1.weight"
        assert torch.equal(weights.get_tensor(name).float(), model.state_dict()[name])


def test_gold_completions_survive_the_tokenizer(processor: Idefics3Processor) -> None:
    tokenizer = processor.tokenizer
    seen = set()
    for sample in PhantomSource(count=100, seed=11):
        ids = tokenizer(gold_completion(sample), add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        answer = parse(tokenizer.decode(ids, skip_special_tokens=True))
        assert answer.diagnosis == sample.target
        assert read_findings(answer.think) == sample.findings
        seen.add(sample.target)
    assert seen == set(CONDITIONS)


def test_all_names_and_findings_are_in_the_vocabulary(processor: Idefics3Processor) -> None:
    concepts = [load_graph().find(name) for name in CONDITIONS]
    names = [name for concept in concepts for name in (concept.label, *concept.synonyms)]
    for text in (*names, *ATTRIBUTES, QUESTION, FINDING_QUESTION):
        assert processor.tokenizer.unk_token_id not in processor.tokenizer(text.format(attribute=""))["input_ids"]
    for values in VOCABULARY.values():
        for value in values:
            assert len(processor.tokenizer(value, add_special_tokens=False)["input_ids"]) == 1


def test_the_template_marks_the_turns(processor: Idefics3Processor) -> None:
    sample = PhantomSource(count=1)[0]
    messages = to_messages(sample)
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt.count("<image>") == 1
    assert "dermatologist" not in prompt
    turn = {"role": "assistant", "content": [{"type": "text", "text": "melanoma"}]}
    whole = processor.apply_chat_template([*messages, turn])
    assert whole == prompt + "melanoma" + END
    image = PhantomSource(count=1).image(sample.images[0])
    ids = processor(text=[prompt], images=[[image]])["input_ids"][0]
    assert ids.count(processor.tokenizer.bos_token_id) == 1
    assert ids.count(processor.image_token_id) == IMAGE_TOKENS
    assert processor.tokenizer.unk_token_id not in ids


def test_the_recipe_sees_images_as_the_processor_makes_them(processor: Idefics3Processor) -> None:
    image = PhantomSource(count=1).image("phantom-0-0.png")
    made = processor.image_processor([[image]], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(made, recipe.normalised(np.array(image)[None]), atol=1e-5, rtol=0.0)


def test_left_padding_does_not_change_what_is_generated(
    processor: Idefics3Processor, model: Idefics3ForConditionalGeneration
) -> None:
    source = PhantomSource(count=2, seed=4)
    prompts = [processor.apply_chat_template(to_messages(s), add_generation_prompt=True) for s in source]
    prompts[1] += "<think> site : "
    images = [[source.image(sample.images[0])] for sample in source]
    options = {"max_new_tokens": 8, "do_sample": False}
    together = processor(text=prompts, images=images, padding=True, return_tensors="pt")
    assert together["input_ids"][0, 0] == processor.tokenizer.pad_token_id
    both = model.generate(**together, **options)[:, together["input_ids"].shape[1] :]
    alone = processor(text=prompts[:1], images=images[:1], return_tensors="pt")
    one = model.generate(**alone, **options)[:, alone["input_ids"].shape[1] :]
    assert both[0, : one.shape[1]].tolist() == one[0].tolist()


def test_it_describes_what_it_sees_and_stops(
    processor: Idefics3Processor, model: Idefics3ForConditionalGeneration
) -> None:
    source = PhantomSource(count=64, seed=12)
    content = [{"type": "image"}, {"type": "text", "text": CAPTION_QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = [[source.image(sample.images[0])] for sample in source]
    inputs = processor(text=[prompt] * 64, images=images, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=40, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert (ids == processor.tokenizer.eos_token_id).any(dim=1).all()
    texts = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert not any(text.strip().startswith("<think>") for text in texts)
    right = [
        read_findings(text).get(attribute) == sample.findings[attribute]
        for text, sample in zip(texts, source, strict=True)
        for attribute in ATTRIBUTES
    ]
    assert sum(right) / len(right) > 0.75


def test_retraining_is_reproducible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "BATCH", 4)
    monkeypatch.setattr(recipe, "PERCEPTION_STEPS", 2)
    monkeypatch.setattr(recipe, "CAPTION_STEPS", 2)
    monkeypatch.setattr(recipe, "READINGS", 4)
    written = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        main(["--out", str(tmp_path / name), "--retrain", "--seed", str(seed)])
        written.append(AutoModelForImageTextToText.from_pretrained(tmp_path / name).state_dict())
    assert all(torch.equal(written[0][key], written[1][key]) for key in written[0])
    assert not torch.equal(*(weights["model.connector.modality_projection.proj.weight"] for weights in written[::2]))
