"""One data set in many places and spellings: ids, groups and splits stay, and what one image is stays one group."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from dermiq.datamodules import PromptDataModule
from dermiq.datamodules.sources import Conversations, HubDataset, Preferences, Source, TabularSource
from dermiq.datamodules.sources.reading.references import file_of, name_of
from dermiq.datamodules.splits import split_table
from support.layouts import LAYOUTS, write_layout
from support.small_data import jpeg, refusal, write_csv, write_jpeg

FRACTIONS = {"train": 0.5, "test": 0.5}
ROWS = 24


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def split(source: Source) -> dict[str, list[str]]:
    """The ids in each split."""
    source.load()
    assert not source.missing()
    samples = source.table()
    ids = samples.strings("id").to_pylist()
    return {name: [ids[i] for i in chosen] for name, chosen in split_table(samples, FRACTIONS, 0).items()}


def moved(source: Source, old: Path, new: Path) -> Source:
    """The source as it would be given for another folder."""
    state = pickle.loads(pickle.dumps(source))
    for part in (state, *filter(None, [getattr(state, "base", None)])):
        for name, value in vars(part).items():
            if isinstance(value, str | Path) and str(value).startswith(str(old)):
                setattr(part, name, type(value)(str(new) + str(value)[len(str(old)) :]))
    return state


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_splits_alike_in_a_copy_and_by_a_relative_path(layout, tmp_path, monkeypatch):
    fresh = write_layout(layout, tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere" / "b")
    monkeypatch.chdir(tmp_path / "elsewhere")
    sources = (fresh, moved(fresh, tmp_path / "data", Path("b")), moved(fresh, tmp_path / "data", Path("../data/.")))
    rows = []
    for source in sources:
        source.load()
        rows.append([(entry.id, entry.group, entry.target) for entry in source.table()])
    assert rows[0] == rows[1] == rows[2]


# Every source of one's own


def talk(i: int, reference: object) -> dict:
    turns = [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": f"A mole, {i}."}]
    return {"messages": turns, "images": [reference]}


def pair(i: int, reference: object) -> dict:
    return {"prompt": "<image>What is it?", "chosen": f"A mole, {i}.", "rejected": f"None, {i}.", "images": [reference]}


def dump(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def conversations(root: Path, spell: Callable[[str], str]) -> Source:
    dump(root / "t.jsonl", [talk(i, spell(f"img/{i}.jpg")) for i in range(ROWS)])
    return Conversations(str(root / "t.jsonl"))


def preferences(root: Path, spell: Callable[[str], str]) -> Source:
    dump(root / "t.jsonl", [pair(i, spell(f"img/{i}.jpg")) for i in range(ROWS)])
    return Preferences(str(root / "t.jsonl"))


def structs(root: Path, spell: Callable[[str], str]) -> Source:
    rows = [talk(i, {"bytes": None, "path": spell(f"img/{i}.jpg")}) for i in range(ROWS)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), root / "t.parquet")
    return Conversations(str(root / "t.parquet"))


def table(root: Path, spell: Callable[[str], str]) -> Source:
    rows = [(spell(f"img/{i}.jpg"), "nevus") for i in range(ROWS)]
    return TabularSource(str(write_csv(root / "t.csv", ("image", "dx"), rows)), "image", "dx")


def json_lists(root: Path, spell: Callable[[str], str]) -> Source:
    dump(root / "t.jsonl", [{"image": [spell(f"img/{i}.jpg")], "dx": "nevus"} for i in range(ROWS)])
    return TabularSource(str(root / "t.jsonl"), "image", "dx")


def parquet(root: Path, spell: Callable[[str], str]) -> Source:
    rows = [{"image": {"bytes": None, "path": spell(f"img/{i}.jpg")}, "dx": "nevus"} for i in range(ROWS)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), root / "t.parquet")
    return TabularSource(str(root / "t.parquet"), "image", "dx")


OWN = [conversations, preferences, structs, table, json_lists, parquet]


def photographs(root: Path) -> Path:
    for i in range(ROWS):
        write_jpeg(root / "img" / f"{i}.jpg", i)
    return root


@pytest.mark.parametrize("make", OWN)
def test_the_spelling_of_a_path_does_not_matter(make, tmp_path, monkeypatch):
    root = photographs(tmp_path / "set")
    os.symlink(root, tmp_path / "link")
    wanted = split(make(root, lambda name: name))
    assert all(wanted.values())
    spellings = {
        "absolute": lambda name: str(root / name),
        "file URL": lambda name: f"file://{root / name}",
        "file URL of the host": lambda name: f"file://localhost{root / name}",
        "dot": lambda name: f"./{name}",
        "way round": lambda name: f"img/../{name}",
        "two slashes": lambda name: name.replace("/", "//"),
        "through a link": lambda name: str(tmp_path / "link" / name),
        "three slashes": lambda name: f"//{root / name}",
    }
    for words, spell in spellings.items():
        assert split(make(root, spell)) == wanted, words


@pytest.mark.parametrize("make", OWN)
def test_where_it_lies_does_not_matter(make, tmp_path, monkeypatch):
    root = photographs(tmp_path / "set")
    source = make(root, lambda name: name)
    path = Path(source.path).name
    wanted = split(source)
    shutil.copytree(root, tmp_path / "a b" / "copy[1]" if path.endswith("csv") else tmp_path / "a b" / "copy")
    (copy,) = (tmp_path / "a b").iterdir()
    os.symlink(root, tmp_path / "link")
    options = {"image_column": "image", "label_column": "dx"} if isinstance(source, TabularSource) else {}
    monkeypatch.chdir(copy)
    for place in (copy / path, path, f"./{path}", f"../{copy.name}/{path}", tmp_path / "link" / path):
        assert split(type(source)(str(place), **options)) == wanted, place
    monkeypatch.chdir(tmp_path)
    for image_root in ("set", "set/", f"{tmp_path}/set/.", "link", str(tmp_path / "link")):
        assert split(type(source)(f"set/{path}", image_root=image_root, **options)) == wanted, image_root


def folders(root: Path) -> HubDataset:
    for i in range(ROWS):
        write_jpeg(root / ("nevus" if i % 2 else "melanoma") / f"{i}.jpg", i)
    return HubDataset(str(root), "image", "label")


def test_class_folders_split_alike_wherever_they_lie(tmp_path, monkeypatch):
    wanted = split(folders(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "c" / "b")
    os.symlink(tmp_path / "a", tmp_path / "link")
    monkeypatch.chdir(tmp_path / "c")
    for place in (tmp_path / "c" / "b", "b", "./b/", "../a", tmp_path / "link"):
        assert split(HubDataset(str(place), "image", "label")) == wanted, place
    monkeypatch.chdir("b")
    assert split(HubDataset(".", "image", "label")) == wanted


def test_saved_data_sets_split_alike_wherever_they_lie(tmp_path):
    rows = {"image": [jpeg(i) for i in range(ROWS)], "dx": ["nevus"] * ROWS}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    first, second = (split(HubDataset(str(tmp_path / name), "image", "dx")) for name in ("one", "other"))
    assert first == second


# One image is one group, and two images of one name are two


def test_one_image_in_many_spellings_is_one_group(tmp_path):
    root = photographs(tmp_path / "set")
    names = ["img/1.jpg", "./img/1.jpg", str(root / "img" / "1.jpg"), f"file://{root}/img/1.jpg", "img/./1.jpg"]
    dump(root / "t.jsonl", [talk(i, name) for i, name in enumerate(names)])
    source = Conversations(str(root / "t.jsonl"))
    source.load()
    assert {entry.group for entry in source.table()} == {"img/1.jpg"}
    csv = write_csv(root / "t.csv", ("image", "dx"), [(name, "nevus") for name in names])
    own = TabularSource(str(csv), "image", "dx")
    own.load()
    assert {entry.group for entry in own.table()} == {"img/1.jpg"} and own.missing() == []
    assert {sample.group for sample in own} == {"img/1.jpg"}


@pytest.fixture(scope="module")
def model_id(family_dir) -> str:
    return str(family_dir("qwen2_5_vl"))


def test_folders_with_images_of_the_same_names_are_not_tied(model_id, tmp_path):
    train, test = (conversations(photographs(tmp_path / name), lambda name: name) for name in ("train", "test"))
    data = PromptDataModule(model_id, {"train": train, "test": test})
    data.setup("test")
    assert len(data.splits["train"]) == len(data.splits["test"]) == ROWS
    sources = {name: folders(tmp_path / "classes" / name) for name in ("train", "test")}
    PromptDataModule(model_id, sources).setup("test")


def test_one_image_in_two_sources_is_refused_however_it_is_spelt(model_id, tmp_path):
    root = photographs(tmp_path / "set")
    (root / "held").mkdir()
    dump(root / "train.jsonl", [talk(0, "img/3.jpg")])
    dump(root / "held" / "test.jsonl", [talk(0, "../img/3.jpg")])
    train, test = Conversations(str(root / "train.jsonl")), Conversations(str(root / "held" / "test.jsonl"))
    message = refusal(PromptDataModule(model_id, {"train": train, "test": test}).setup, "test")
    assert f"the link 'image:{root / 'img' / '3.jpg'}' stands in the sources of train and test" in message


@pytest.mark.parametrize(
    ("given", "name", "file"),
    [
        ("a.jpg", "a.jpg", "/set/a.jpg"),
        ("img\\a.jpg", "img/a.jpg", "/set/img\\a.jpg"),
        ("a b%20.jpg", "a b%20.jpg", "/set/a b%20.jpg"),
        ("file:///set/a%20b.jpg", "a b.jpg", "/set/a b.jpg"),
        ("file:/set/a.jpg", "a.jpg", "/set/a.jpg"),
        ("FILE:///set/a.jpg", "a.jpg", "/set/a.jpg"),
        ("/set/../set/a.jpg", "a.jpg", "/set/../set/a.jpg"),
        ("/other/a.jpg", "/other/a.jpg", "/other/a.jpg"),
        ("/settle/a.jpg", "/settle/a.jpg", "/settle/a.jpg"),
        ("../x/a.jpg", "../x/a.jpg", "/set/../x/a.jpg"),
        (".hidden/a.jpg", ".hidden/a.jpg", "/set/.hidden/a.jpg"),
        ("a.jpg/", "a.jpg", "/set/a.jpg/"),
        ("hätte.jpg", "hätte.jpg", "/set/hätte.jpg"),
        ("v1..2/a.jpg", "v1..2/a.jpg", "/set/v1..2/a.jpg"),
        ("a./b.jpg", "a./b.jpg", "/set/a./b.jpg"),
    ],
)
def test_what_an_image_is_called_and_where_it_lies(given, name, file):
    assert (name_of("/set/", given), file_of("/set", given)) == (name, file)
