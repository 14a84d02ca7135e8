"""Preference pairs: the layouts of TRL's data sets, the batches made of them, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from dermiq.datamodules import PreferenceDataModule, PromptDataModule
from dermiq.datamodules.collate import Item
from dermiq.datamodules.preference import PreferenceCollate
from dermiq.datamodules.sources import HAM10000, Preferences
from dermiq.datamodules.splits import SplitSource
from dermiq.prompts import to_messages
from dermiq.schema import DataError, Message, PreferencePair, Sample
from dermiq.tiny.architecture import build_model, build_processor
from support.small_data import write_ham10000, write_jpeg

ROW = {"prompt": "What is it?", "chosen": "A melanoma.", "rejected": "A wart.", "images": ["a.jpg"]}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def says(role, content):
    return {"role": role, "content": content}


def written(folder: Path, *rows, name: str = "pairs.jsonl") -> Preferences:
    """A source of these rows (dicts, or lines as they are), about two photographs beside the file."""
    for image in ("a.jpg", "b.jpg"):
        write_jpeg(folder / image)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / name).write_text("".join(line + "\n" for line in lines))
    return Preferences(str(folder / name))


def loaded(folder: Path, *rows, **options) -> Preferences:
    source = written(folder, *rows, **options)
    source.load()
    return source


def shown(folder: Path, row) -> list:
    """What the policy is shown of a row."""
    return to_messages(loaded(folder, row)[0])


def refusal(action, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        action(*arguments)
    return str(caught.value)


# TRL's layouts


PICTURE = {"type": "image"}


def text(content):
    return {"type": "text", "text": content}


def test_texts(tmp_path):
    source = loaded(tmp_path, ROW)
    pair = source[0]
    assert isinstance(pair, PreferencePair) and (pair.chosen, pair.rejected) == ("A melanoma.", "A wart.")
    assert (pair.id, pair.images, pair.margin, pair.target) == ("pairs-1", (str(tmp_path / "a.jpg"),), None, "")
    assert to_messages(pair) == [says("user", [PICTURE, text("What is it?")])]
    assert source.image(pair.images[0]).mode == "RGB" and source.missing() == []


def test_messages(tmp_path):
    row = ROW | {
        "prompt": [says("system", "Be brief."), says("user", "What is it?")],
        "chosen": [says("assistant", "A melanoma.")],
        "rejected": [says("assistant", [text("A wart.")])],
    }
    pair = loaded(tmp_path, row)[0]
    assert (pair.chosen, pair.rejected) == ("A melanoma.", "A wart.")
    assert shown(tmp_path, row) == [says("system", [text("Be brief.")]), says("user", [PICTURE, text("What is it?")])]


def test_parts_with_placeholders(tmp_path):
    parts = [text("First"), PICTURE, text("then"), PICTURE]
    row = ROW | {"prompt": [says("user", parts)], "images": ["a.jpg", "b.jpg"]}
    assert shown(tmp_path, row) == [says("user", parts)]


def test_an_implicit_prompt(tmp_path):
    """Whole conversations with a common beginning, of several turns, beside a prompt that repeats it or without."""
    beginning = [says("user", "Hello."), says("assistant", "Yes?"), says("user", "What is it?")]
    row = {"chosen": [*beginning, says("assistant", "A.")], "rejected": [*beginning, says("assistant", "B.")]}
    for more in ({}, {"prompt": "What is it?"}, {"prompt": beginning}):
        pair = loaded(tmp_path, row | more | {"image": "a.jpg"})[0]
        assert pair.history == (Message("user", "Hello."), Message("assistant", "Yes?"))
        assert (pair.question, pair.chosen, pair.rejected) == ("What is it?", "A.", "B.")
        assert len(pair.images) == 1


def test_our_own_columns(tmp_path):
    more = {"id": "p7", "group": "patient-3", "target": "melanoma", "margin": 0.25, "provenance": {"model": "m"}}
    pair = loaded(tmp_path, ROW | more | {"chosen_score": 1, "evidence": [{"fact": 1}]})[0]
    assert (pair.id, pair.group, pair.target, pair.margin) == ("p7", "patient-3", "melanoma", 0.25)


def test_a_json_list(tmp_path):
    write_jpeg(tmp_path / "a.jpg")
    (tmp_path / "pairs.json").write_text(json.dumps([ROW, ROW | {"rejected": "Scale."}], indent=1))
    source = Preferences(str(tmp_path / "pairs.json"))
    source.load()
    assert [pair.rejected for pair in source] == ["A wart.", "Scale."]


def test_parquet_with_images_inside(tmp_path):
    """As `datasets` writes TRL's vision preference sets."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, "PNG")
    rows = [
        {
            "prompt": [says("user", [{"type": "image", "text": None}, text("Well?")])],
            "chosen": [says("assistant", [text(chosen)])],
            "rejected": [says("assistant", [text("B.")])],
            "images": [{"bytes": buffer.getvalue(), "path": None}],
        }
        for chosen in ("A.", "C.")
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    source = Preferences(str(tmp_path / "pairs.parquet"))
    source.load()
    assert [pair.chosen for pair in source] == ["A.", "C."] and source.missing() == []
    image = source.image(source[1].images[0])
    assert image.size == (40, 30) and image.getpixel((0, 0)) == (255, 0, 0)
    assert source[0].group == source[1].group


def test_the_table_counts_the_longer_reply(tmp_path):
    source = loaded(tmp_path, ROW, ROW | {"rejected": "A wart." + "x" * 100})
    first, second = source.table()
    assert second.length - first.length == len("A wart.") + 100 - len("A melanoma.")


# Bad input


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("", "line 2: the line is empty"),
        ('{"prompt": "x"', "line 2: this is no valid JSON"),
        ({"prompt": "x", "chosen": "y"}, "line 2: `rejected` is missing. A preference pair needs"),
        ({"chosen": "x", "rejected": "y"}, "line 2: `prompt` is missing. A preference pair needs"),
        (ROW | {"chosen": " A wart. "}, "line 2: `chosen` and `rejected` are the same. Remove the row."),
        (ROW | {"chosen": " "}, "line 2, chosen, turn 2: the assistant's turn is empty"),
        (ROW | {"rejected": []}, "line 2, rejected: the conversation does not end with the assistant"),
        (ROW | {"rejected": [says("user", "B.")]}, "line 2, rejected, turn 2: this is a turn of the user"),
        (ROW | {"prompt": [says("tool", "B.")]}, "line 2, chosen, turn 1: tool calls are not supported"),
        (ROW | {"margin": "large"}, "line 2: the margin 'large' is no number of at least 0"),
        (ROW | {"margin": -1}, "line 2: the margin -1 is no number of at least 0"),
        (ROW | {"prompt": "<image> and <image>"}, "the messages mark 2 image(s)"),
        (ROW | {"id": "pairs-1"}, "line 2: the id 'pairs-1' stands already in line 1"),
        (
            {
                "chosen": [says("user", "a"), says("assistant", "b")],
                "rejected": [says("user", "c"), says("assistant", "d")],
            },
            "line 2: `chosen` and `rejected` do not begin alike",
        ),
    ],
)
def test_a_bad_row(row, message, tmp_path):
    source = written(tmp_path, ROW, row)
    found = refusal(source.load)
    assert str(tmp_path / "pairs.jsonl") in found and message in found


def test_an_empty_or_missing_file(tmp_path):
    assert "pairs.jsonl: the file has no rows" in refusal(written(tmp_path).load)
    assert "none.jsonl: the file is missing" in refusal(Preferences(str(tmp_path / "none.jsonl")).load)


def module(sources, model_id, **options):
    return PreferenceDataModule(str(model_id), sources, **options)


def test_a_missing_image(tmp_path, family_dir):
    source = written(tmp_path, ROW, ROW | {"images": ["gone.jpg"]})
    message = refusal(module({"train": source}, family_dir("idefics3")).setup, "fit")
    assert "1 of 2 images of the source 'train' are missing" in message and "gone.jpg" in message


# Batches


def test_a_batch(tmp_path, family_dir):
    """Chosen completions above rejected ones, each with the end of its turn; evaluation is that of every stage."""
    row = ROW | {"chosen": "An annular scaly plaque with central clearing."}
    write_ham10000(tmp_path / "photographs", 1, 1)
    held_out = HAM10000(str(tmp_path / "photographs"))
    data = module({"train": written(tmp_path, ROW, row), "test": held_out}, family_dir("idefics3"), batch_size=2)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    tokenizer = data.train_collate().processor.tokenizer
    ids, mask = batch["completion_ids"], batch["completion_mask"]
    assert ids.shape == mask.shape and ids.shape[0] == 4 and ids.dtype == torch.int64 and mask.dtype == torch.bool
    texts = [tokenizer.decode(row[kept], skip_special_tokens=True).strip() for row, kept in zip(ids, mask, strict=True)]
    pairs = list(batch["samples"])
    assert texts == [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    ends = {row[kept][-1].item() for row, kept in zip(ids, mask, strict=True)}
    assert ends == {tokenizer.convert_tokens_to_ids("<end_of_utterance>")}
    assert len(batch["prompt"]["input_ids"]) == len(batch["messages"]) == len(batch["images"]) == 2
    data.setup("test")
    assert "completion_ids" not in next(iter(data.test_dataloader()))


def test_the_held_out_parts_are_those_of_the_other_stages(tmp_path, family_dir):
    """Pairs for training beside the parts of a source that another stage splits as `all`."""
    root = str(write_ham10000(tmp_path / "photographs"))
    model_id, fractions = family_dir("idefics3"), {"train": 0.5, "val": 0.25, "test": 0.25}
    other = PromptDataModule(str(model_id), {"all": HAM10000(root)}, fractions=fractions, split_seed=3)
    parts = {name: SplitSource(HAM10000(root), name, fractions, seed=3) for name in ("val", "test")}
    data = module({"train": written(tmp_path, ROW)} | parts, model_id)
    for each in (other, data):
        each.setup("fit")
        each.setup("test")
    for name in ("val", "test"):
        ids = [[each.splits[name][i].sample.id for i in range(len(each.splits[name]))] for each in (other, data)]
        assert ids[0] == ids[1] and len(ids[0]) > 5


def test_pairs_about_a_held_out_patient_are_refused(tmp_path, family_dir):
    root = str(write_ham10000(tmp_path / "photographs"))
    test = SplitSource(HAM10000(root), "test", {"train": 0.5, "test": 0.5})
    test.load()
    pairs = written(tmp_path, ROW | {"group": test[0].group})
    message = refusal(module({"train": pairs, "test": test}, family_dir("idefics3")).setup, "fit")
    assert f"the group {test[0].group!r} stands in the sources of train and test" in message


def test_a_part_without_a_share(tmp_path):
    assert "no share for 'val'" in refusal(SplitSource, HAM10000(str(tmp_path)), "val", {"train": 0.5, "test": 0.5})


def encode(model_id, **changes):
    pair = PreferencePair("p", ("a.jpg",), "", "", "g", question="Why?", chosen="A melanoma.", rejected="A wart.")
    collate = PreferenceCollate(str(model_id), "", 8)
    return collate([Item(replace(pair, **changes), [Image.new("RGB", (32, 32))])])


def test_nothing_is_truncated(family_dir):
    message = refusal(lambda: encode(family_dir("idefics3"), rejected="a wheal " * 5000))
    assert "sample 'p': its prompt of" in message and "Nothing is truncated." in message


def test_pairs_of_another_tokenizer(tmp_path):
    """The quickstart's words are few; a text of a large model holds others."""
    processor = build_processor()
    processor.save_pretrained(tmp_path)
    build_model(processor.tokenizer).save_pretrained(tmp_path)
    assert encode(tmp_path, chosen="melanoma", rejected="the colour is brown")["completion_ids"].shape[0] == 2
    message = refusal(lambda: encode(tmp_path, chosen="melanoma", rejected="the Dermatofibrosarcoma is brown"))
    assert "pair 'p': the rejected reply holds 'Dermatofibrosarcoma', which the tokenizer of" in message
    assert "make them anew with this one" in message


@pytest.mark.parametrize("family", ["qwen2_5_vl", "idefics3"])
def test_special_tokens_in_a_reply(family, family_dir):
    token = "<|image_pad|>" if family == "qwen2_5_vl" else "<image>"
    message = refusal(lambda: encode(family_dir(family), chosen=f"See the {token} above."))
    assert f"the chosen reply holds {token!r}" in message


def test_a_sample_that_is_no_pair(family_dir):
    item = Item(Sample("s", ("a.jpg",), "melanoma", "mel", "g"), [Image.new("RGB", (32, 32))])
    message = refusal(PreferenceCollate(str(family_dir("idefics3")), "", 8), [item])
    assert "sample 's' is no preference pair" in message and "sources.Preferences" in message
