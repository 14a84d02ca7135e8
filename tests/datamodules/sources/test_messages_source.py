"""Conversations from files: the formats that others write, and what is refused."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import datasets
import pytest

from dermiq.datamodules import ConversationDataModule
from dermiq.datamodules.sources import Conversations
from dermiq.datamodules.sources.base import open_image, sample_row
from dermiq.prompts import to_conversation
from dermiq.schema import DataError, Message
from support.small_data import write_jpeg

USER, ASSISTANT = "What is it?", "A mole."


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, name in enumerate(("a.jpg", "b.jpg", "a photo.jpg")):
        write_jpeg(tmp_path / name, seed)
    return tmp_path


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def chat(*contents: Any) -> list[dict[str, Any]]:
    return [turn(("user", "assistant")[i % 2], content) for i, content in enumerate(contents)]


def lines(folder: Path, *rows: Any) -> Conversations:
    path = folder / "talks.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return Conversations(str(path))


def loaded(source: Conversations) -> Conversations:
    source.load()
    return source


def data_url(path: Path) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


TEXT, IMAGE = {"type": "text", "text": USER}, {"type": "image"}
FORMATS = {
    "LLaMA-Factory": {"messages": chat(f"<image>{USER}", ASSISTANT), "images": ["a.jpg"]},
    "no mark": {"messages": chat(USER, ASSISTANT), "images": ["a.jpg"]},
    "one image": {"messages": chat(USER, ASSISTANT), "image": "a.jpg"},
    "TRL parts": {"messages": chat([IMAGE, TEXT], [{"type": "text", "text": ASSISTANT}]), "images": ["a.jpg"]},
    "OpenAI file": {"messages": chat([{"type": "image_url", "image_url": {"url": "a.jpg"}}, TEXT], ASSISTANT)},
    "Hugging Face parts": {"messages": chat([{"type": "image", "path": "a.jpg"}, TEXT], ASSISTANT)},
    "TRL texts": {"prompt": USER, "completion": ASSISTANT, "images": ["a.jpg"]},
    "TRL messages": {"prompt": chat(USER), "completion": [turn("assistant", ASSISTANT)], "images": ["a.jpg"]},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": f"<image>\n{USER}"}, {"from": "gpt", "value": ASSISTANT}],
        "images": "a.jpg",
    },
}


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS.keys())
def test_every_format_says_the_same(row, folder):
    (sample,) = loaded(lines(folder, row))
    assert (sample.id, sample.images, sample.reply) == ("talks-1", (str(folder / "a.jpg"),), ASSISTANT)
    assert (sample.target, sample.group) == ("", "a.jpg") and not sample.asks_diagnosis
    assert to_conversation(sample) == [
        turn("user", [IMAGE, TEXT]),
        turn("assistant", [{"type": "text", "text": ASSISTANT}]),
    ]


def test_several_turns_with_several_images(folder):
    messages = [
        turn("system", "Be brief."),
        *chat("<image>First.", "A mole.", [{"type": "text", "text": "And this?"}, IMAGE, IMAGE], "Warts."),
    ]
    row = {"messages": messages, "images": ["a.jpg", "b.jpg", "a.jpg"], "id": 7, "group": "p1", "target": "Naevus"}
    (sample,) = source = loaded(lines(folder, row))
    assert sample.history == (
        Message("system", "Be brief."), Message("user", "<image>First."), Message("assistant", "A mole."),
    )  # fmt: skip
    assert (sample.question, sample.reply) == ("And this?<image><image>", "Warts.")
    assert [Path(name).name for name in sample.images] == ["a.jpg", "b.jpg", "a.jpg"]
    assert (sample.id, sample.group, sample.label, sample.target) == ("7", "p1", "Naevus", "melanocytic nevus")
    assert "mole" in " ".join(sample.synonyms)
    assert list(source.table()) == [sample_row(sample)]
    said = sum(map(len, ("Be brief.", "<image>First.", "A mole.", "And this?<image><image>", "Warts.")))
    assert source.table()[0].length == said + 3000


def test_text_alone_and_an_empty_system_turn(folder):
    (sample,) = loaded(lines(folder, {"messages": [turn("system", ""), *chat(USER, ASSISTANT)], "images": []}))
    assert (sample.images, sample.history, sample.group) == ((), (), "talks-1")


@pytest.mark.parametrize("url", ["data", "file", "relative", "absolute"])
def test_local_image_urls(url, folder):
    path = folder / "a photo.jpg"
    urls = {"data": data_url(path), "file": path.as_uri(), "relative": path.name, "absolute": str(path)}
    content = [{"type": "image_url", "image_url": {"url": urls[url]}}, TEXT]
    source = loaded(lines(folder, {"messages": chat(content, ASSISTANT)}))
    (reference,) = source[0].images
    assert source.image(reference).tobytes() == open_image(path).tobytes()
    assert len(reference) < 200 and source.missing() == []


def test_an_image_root_of_its_own(folder):
    write_jpeg(folder / "pictures" / "c.jpg")
    path = folder / "t.json"
    path.write_text(json.dumps([{"messages": chat(USER, ASSISTANT), "images": ["c.jpg"]}] * 2))
    source = loaded(Conversations(str(path), image_root=str(folder / "pictures")))
    assert source.missing() == [] and [sample.id for sample in source] == ["t-1", "t-2"]
    assert {entry.group for entry in source.table()} == {"c.jpg"}


@pytest.mark.parametrize("parts", [False, True])
def test_parquet_as_datasets_writes_it(parts, folder):
    """Images embedded as {bytes, path}, and parts of messages with null where another part has a value."""
    first = [IMAGE | {"text": None}, TEXT] if parts else f"<image>{USER}"
    rows = [
        {
            "messages": chat(first, [{"type": "text", "text": ASSISTANT}] if parts else ASSISTANT),
            "images": [{"bytes": (folder / name).read_bytes(), "path": None if parts else name}],
        }
        for name in ("a.jpg", "b.jpg", "a.jpg")
    ]
    table = datasets.Dataset.from_list(rows).cast_column("images", datasets.List(datasets.Image()))
    table.to_parquet(folder / "talks.parquet")
    source = loaded(Conversations(str(folder / "talks.parquet")))
    (folder / "a.jpg").rename(folder / "gone.jpg")
    samples = list(source)
    assert [sample.reply for sample in samples] == [ASSISTANT] * 3 and source.missing() == []
    opened = source.image(samples[2].images[0])
    assert opened.tobytes() == open_image(folder / "gone.jpg").tobytes()
    assert samples[0].group == samples[2].group != samples[1].group  # the same photograph
    again = pickle.loads(pickle.dumps(source))
    assert list(again) == samples and again.image(samples[0].images[0]).size == (40, 30)


def test_parquet_with_paths(folder):
    rows = [{"prompt": USER, "completion": ASSISTANT, "image": str(folder / "a.jpg"), "id": name} for name in "xy"]
    table = datasets.Dataset.from_list(rows)
    for name, written in (("text", table), ("struct", table.cast_column("image", datasets.Image()))):
        written.to_parquet(folder / f"{name}.parquet")
        source = loaded(Conversations(str(folder / f"{name}.parquet")))
        assert [sample.id for sample in source] == ["x", "y"] and source[1].images == (str(folder / "a.jpg"),)


def test_lines_are_read_when_they_are_asked_for(folder):
    rows = [{"messages": chat(f"{USER} {i}", ASSISTANT), "images": ["a.jpg"]} for i in range(100)]
    source = loaded(lines(folder, *rows))
    again = pickle.loads(pickle.dumps(source))
    assert [again[i].question for i in (99, 0, 57)] == [f"{USER} 99", f"{USER} 0", f"{USER} 57"]
    source.path.unlink()
    assert len(source) == len(source.table()) == 100
    with pytest.raises(FileNotFoundError):
        source[5]


# What is refused

GOOD = {"messages": chat(USER, ASSISTANT), "images": ["a.jpg"]}
HTTP = [{"type": "image_url", "image_url": {"url": "https://host/a.jpg"}}, TEXT]
BAD_LINES = {
    "empty line": ("", "the line is empty"),
    "malformed": ('{"messages": [', "this is no valid JSON"),
    "no object": ("[1]", "this is no object"),
    "no messages": ({"text": "hi", "images": []}, "there are no messages.*this one has text, images"),
    "empty messages": ({"messages": []}, "there are no messages"),
    "not a list": ({"messages": "hi"}, "the messages are no list"),
    "empty reply": ({"messages": chat(USER, " ")}, "2: the assistant's turn is empty"),
    "null reply": ({"messages": chat(USER, None)}, "2: the assistant's turn is empty"),
    "empty question": ({"messages": chat("", ASSISTANT)}, "1: the user's turn is empty"),
    "unknown role": ({"messages": [turn("doctor", "Hi.")]}, "1: the role 'doctor' is unknown"),
    "tool call": (
        {"messages": [*chat(USER), turn("assistant", None) | {"tool_calls": [{"id": "1"}]}]},
        "2: tool calls are not supported",
    ),
    "tool result": ({"messages": [*chat(USER), turn("tool", "42")]}, "2: tool calls are not supported"),
    "no reply": ({"messages": chat(USER)}, "does not end with the assistant"),
    "two questions": (
        {"messages": [*chat(USER), *chat(USER, ASSISTANT)]},
        "2: this is a turn of the user where one of the assistant should stand",
    ),
    "late system": (
        {"messages": [*chat(USER, ASSISTANT), turn("system", "Be brief.")]},
        "3: this is a turn of the system where one of the user should stand",
    ),
    "too few images": (
        {"messages": chat("<image><image>?", ASSISTANT), "images": ["a.jpg"]},
        r"the messages mark 2 image\(s\).*there are 1 in `images`",
    ),
    "too many images": (
        {"messages": chat("<image>?", ASSISTANT), "images": ["a.jpg", "b.jpg"]},
        r"the messages mark 1 image\(s\).*there are 2",
    ),
    "image in a reply": (
        {"messages": chat(USER, "Look: <image>"), "images": ["a.jpg"]},
        "2: there is an image in the assistant's turn",
    ),
    "video": ({"messages": chat([{"type": "video"}], "?")}, "1: a part of the type 'video' cannot be used"),
    "content": ({"messages": chat(7, ASSISTANT)}, "1: the content is neither text nor"),
    "network": ({"messages": chat(HTTP, ASSISTANT)}, "https://host/a.jpg is on the network. Images must be local"),
    "data URL": ({"prompt": "?", "completion": "!", "image": "data:image/png,xyz"}, "the data URL cannot be read"),
    "base64": ({"prompt": "?", "completion": "!", "image": "data:a;base64,x"}, "1: the data URL cannot be read"),
    "no image": ({"messages": chat(USER, ASSISTANT), "images": [None]}, "1 is neither a path nor"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_named(line, message, folder):
    with pytest.raises(DataError, match=rf"{folder}/talks\.jsonl, line 3(, turn|, image|:).*{message}"):
        lines(folder, GOOD, GOOD, line, GOOD).load()


def test_the_same_id_twice(folder):
    with pytest.raises(DataError, match="line 3: the id 'x' stands already in line 1"):
        lines(folder, GOOD | {"id": "x"}, GOOD, GOOD | {"id": "x"}).load()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "none.jsonl: the file is missing"),
        ("empty.jsonl", "", "empty.jsonl: the file has no rows"),
        ("empty.json", "[]", "empty.json: the file has no rows"),
        ("empty.parquet", "", "empty.parquet: the file has no rows"),
        ("broken.parquet", "PAR1 no", "broken.parquet: this cannot be read as Parquet"),
        ("lines.json", '{"a": 1}\n{"a": 2}\n', "lines.json: this is no valid JSON.*must be called .jsonl"),
        ("object.json", '{"a": 1}', "object.json: this is no list"),
        ("row.json", '[{"prompt": "?", "completion": "!"}, 7]', "row.json, row 2: this is no object"),
        ("talks.csv", "a,b\n", "talks.csv: unknown kind of file; give `path` one of .jsonl, .json, .parquet"),
    ],
)
def test_a_bad_file(name, content, message, folder):
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(DataError, match=message):
        Conversations(str(folder / name)).load()


def test_a_missing_image_stops_or_is_left_out(folder, family_dir):
    rows = [GOOD | {"images": [name]} for name in ("a.jpg", "none.jpg", "b.jpg")]
    source = loaded(lines(folder, *rows))
    assert source.missing() == [1]
    model_id = str(family_dir("qwen2_5_vl"))
    with pytest.raises(DataError, match=r"1 of 3 images of the source 'train' are missing: .*none\.jpg"):
        ConversationDataModule(model_id, {"train": source}).setup("fit")
    data = ConversationDataModule(model_id, {"train": source}, on_bad_image="skip")
    data.setup("fit")
    assert list(data.splits["train"].indices) == [0, 2] and "talks-2" in data.left_out[0]
    (folder / "b.jpg").write_text("no image")
    (batch,) = list(data.train_collate()([item]) for item in [data.splits["train"][1]])
    assert not batch["samples"] and "cannot be read" in batch["skipped"][0]
