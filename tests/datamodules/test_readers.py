"""Readers and whatever people have: columns of every type in every role, odd names and files; sentences alone."""

from __future__ import annotations

import base64
import datetime
import decimal
import errno
import json
import logging
import os
import re
import socket
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from dermiq.datamodules import PromptDataModule
from dermiq.datamodules.sample_table import sample_row
from dermiq.datamodules.sources import HAM10000, Conversations, HubDataset, Preferences, Source, TabularSource
from dermiq.datamodules.sources.base import open_image
from dermiq.datamodules.sources.reading.csv_rows import read_table
from dermiq.datamodules.splits import parts_of
from dermiq.schema import DataError, DermIQError
from support.small_data import jpeg, refusal, write_csv, write_ham10000, write_jpeg


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def loaded(source: Source) -> Source:
    source.load()
    assert list(source.table()) == [sample_row(sample) for sample in source]
    source.missing()
    return source


# A column of every type in every role

DAY = datetime.datetime(2020, 1, 1)
COLUMNS = {
    "int8": pa.array([1, 2], pa.int8()),
    "uint64": pa.array([1, 2**63], pa.uint64()),
    "bool": pa.array([True, False]),
    "half float": pa.array([1.0, 2.0], pa.float16()),
    "double with NaN": pa.array([1.0, float("nan")]),
    "decimal": pa.array([decimal.Decimal("1.5")] * 2),
    "wide decimal": pa.array([decimal.Decimal("1.5")] * 2, pa.decimal256(40, 3)),
    "timestamp": pa.array([DAY, None], pa.timestamp("ns")),
    "timestamp of a zone": pa.array([DAY] * 2, pa.timestamp("us", "Europe/Berlin")),
    "date": pa.array([DAY.date()] * 2),
    "time": pa.array([datetime.time(1)] * 2),
    "duration": pa.array([datetime.timedelta(1)] * 2),
    "null": pa.nulls(2),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "dictionary of numbers": pa.array([1, 2]).dictionary_encode(),
    "string view": pa.array(["a", "b"], pa.string_view()),
    "large string": pa.array(["a", "b"], pa.large_string()),
    "binary": pa.array([b"a", b"\xff"]),
    "large binary": pa.array([b"a", b"\xff"], pa.large_binary()),
    "binary view": pa.array([b"a", b"\xff"], pa.binary_view()),
    "fixed-size binary": pa.array([b"ab", b"\xff\xfe"], pa.binary(2)),
    "list": pa.array([["a"], ["b", "c"]]),
    "large list": pa.array([["a"], ["b"]], pa.large_list(pa.string())),
    "fixed-size list": pa.array([["a"], ["b"]], pa.list_(pa.string(), 1)),
    "list view": pa.array([["a"], ["b"]], pa.list_view(pa.string())),
    "list of views": pa.array([["a"], ["b"]], pa.list_(pa.string_view())),
    "list of numbers": pa.array([[1, 2], [2, 3]]),
    "list of lists": pa.array([[["a"]], [["b"]]]),
    "list of nothing": pa.array([[None], None]),
    "list of structs": pa.array([[{"x": 1}], []]),
    "struct": pa.array([{"x": 1}] * 2),
    "struct with a number as path": pa.array([{"path": 1}] * 2),
    "struct with numbers as bytes": pa.array([{"bytes": [255, 216]}] * 2),
    "map": pa.array([[("k", "v")]] * 2, pa.map_(pa.string(), pa.string())),
    "extension": pa.array([b"0123456789abcdef"] * 2, pa.uuid()),
    "extension of texts": pa.array(['{"a": 1}'] * 2, pa.json_()),
}
IMAGES = {"dictionary", "string view", "large string", "binary", "large binary", "binary view", "fixed-size binary"}
IMAGES |= {"list", "large list", "fixed-size list", "list of views", "extension of texts"}
TEXTS = {"int8", "uint64", "bool", "half float", "decimal", "wide decimal", "timestamp of a zone", "date", "time"}
TEXTS |= {"duration", "dictionary", "dictionary of numbers", "string view", "large string", "extension of texts"}
ROLES = ("image", "label", "group", "question", "id", "site", "licence", "skin_type", "options")


def in_role(source: type[TabularSource], path: str, role: str) -> TabularSource:
    """A source that reads the column x in a role."""
    names = {"image_column": "image", "label_column": "dx", "kind": "vqa", f"{role}_column": "x"}
    return source(path, **names | ({"kind": "choice"} if role == "options" else {}))


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_every_type_in_every_role(kind, tmp_path):
    table = pa.table({"image": ["a.jpg", "b.jpg"], "dx": ["A", "B"], "x": COLUMNS[kind]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    for role in ROLES:
        try:
            loaded(in_role(TabularSource, str(tmp_path / "t.parquet"), role))
        except DataError as error:
            assert role not in ("image", "label") or kind not in (IMAGES if role == "image" else TEXTS), error
            assert str(error).startswith(str(tmp_path / "t.parquet")), error
            assert "'x'" in str(error) or re.search(r"row \d: ", str(error)), error
        else:
            assert kind in IMAGES or role != "image"


@pytest.mark.parametrize("kind", ["map", "list of lists", "struct", "binary view", "bool", "dictionary"])
@pytest.mark.parametrize("role", ["image", "label"])
def test_a_column_of_every_type_in_a_folder(kind, role, tmp_path):
    (tmp_path / "set").mkdir()
    table = pa.table({"image": ["a.jpg", "b.jpg"], "dx": ["A", "B"], "x": COLUMNS[kind]})
    pyarrow.parquet.write_table(table, tmp_path / "set" / "train.parquet")
    try:
        loaded(in_role(HubDataset, str(tmp_path / "set"), role))
    except DataError as error:
        assert str(error).startswith(str(tmp_path / "set")) and kind not in (IMAGES if role == "image" else TEXTS)
    else:
        assert kind in (IMAGES if role == "image" else TEXTS)


@pytest.mark.parametrize("column", ["messages", "images", "target", "chosen", "margin"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_conversations_with_a_column_of_every_type(kind, column, tmp_path):
    said = [[{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": "A mole."}] for i in "ab"]
    replies = {"prompt": ["Which?"] * 2, "chosen": ["this", "one"], "rejected": ["that", "two"]}
    source = Preferences if column in ("prompt", "chosen", "margin") else Conversations
    rows = replies if source is Preferences else {"messages": said}
    pyarrow.parquet.write_table(pa.table(rows | {column: COLUMNS[kind]}), tmp_path / "t.parquet")
    pairs = source(str(tmp_path / "t.parquet"))
    try:
        pairs.load()
    except DataError as error:
        assert str(error).startswith(str(tmp_path / "t.parquet"))
    else:
        assert len(list(pairs)) == len(pairs.table()) == 2


def test_a_split_file_of_other_types(tmp_path):
    path = tmp_path / "split.parquet"
    source = HAM10000(str(write_ham10000(tmp_path / "ham", 1)))
    source.load()
    for kind, column in COLUMNS.items():
        for name in ("id", "split"):
            texts = {other: ["a", "b"] for other in ("dataset", "id", "group", "split")}
            pyarrow.parquet.write_table(pa.table(texts | {name: column}), path)
            assert refusal(parts_of, path, source.table()).startswith(str(path)), kind


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("source", [TabularSource, HubDataset, Conversations])
def test_image_structs_without_a_path(source, several, tmp_path):
    """What pandas writes: the paths of all images are null, and so has the column no type."""
    nothing = pa.struct([("bytes", pa.binary()), ("path", pa.null())])
    images = [{"bytes": jpeg(i), "path": None} for i in range(2)]
    column = pa.array([[image] for image in images], pa.list_(nothing)) if several else pa.array(images, nothing)
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A mole."}]
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "train.parquet"
    pyarrow.parquet.write_table(pa.table({"image": column, "dx": ["nevus"] * 2, "messages": [talk] * 2}), path)
    options = {} if source is Conversations else {"image_column": "image", "label_column": "dx"}
    data = loaded(source(str(path.parent if source is HubDataset else path), **options))
    assert [data.image(reference).size for sample in data for reference in sample.images] == [(40, 30)] * 2
    assert len({sample.group for sample in data}) == 2 and data.missing() == []


# Images as texts

PAYLOAD = base64.b64encode(jpeg(0, (200, 200))).decode()
TEXTUAL = {
    "base64": (PAYLOAD, "the image's content itself stands there as text"),
    "short base64": (base64.b64encode(jpeg(0, (4, 4))).decode(), "the image's content itself stands there as text"),
    "base64 of a PNG": ("iVBORw0KGgo" + "A" * 80, "the image's content itself stands there as text"),
    "data URL": (f"data:image/jpeg;base64,{PAYLOAD}", "the image's content itself stands there as text"),
    "http": ("http://host/a.jpg", "http://host/a.jpg is on the network. Images must be local: download it"),
    "https": ("HTTPS://host/a.jpg", "HTTPS://host/a.jpg is on the network. Images must be local: download it"),
}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "list"])
@pytest.mark.parametrize(("given", "said"), TEXTUAL.values(), ids=TEXTUAL)
def test_images_that_are_no_paths(given, said, suffix, tmp_path):
    images = ["a.jpg", given]
    path = tmp_path / f"t.{suffix.replace('list', 'parquet')}"
    if suffix == "csv":
        write_csv(path, ("image", "dx"), [(image, "nevus") for image in images])
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps({"image": image, "dx": "nevus"}) + "\n" for image in images))
    else:
        column = [[image] for image in images] if suffix == "list" else images
        pyarrow.parquet.write_table(pa.table({"image": column, "dx": ["nevus"] * 2}), path)
    message = refusal(TabularSource(str(path), "image", "dx").load)
    assert said in message and (", line 3" if suffix == "csv" else ", row 2") in message and "'image'" in message
    assert len(message) < 500


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "9j/4AAQ/" * 30, "a\0b.jpg", "a" * 40 + "/" + "b" * 40 + ".jpg"])
def test_long_and_odd_names_are_missing_files(name, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"image": name, "dx": "nevus"}) + "\n")
    assert loaded(TabularSource(str(path), "image", "dx")).missing() == [0]


# Files that are not what they should be


@pytest.mark.parametrize(
    "name", ["a[1]", "b::c", "d*e", "f?g", "h i", "ü", "p%20q", "{x}", "~t", "c:d", "#h", "n\nl", "'q\""]
)
def test_folders_of_any_name(name, tmp_path):
    (tmp_path / "dXe").mkdir()
    (tmp_path / "dXe" / "t.parquet").write_bytes(b"of another folder")
    folder = tmp_path / name
    write_jpeg(folder / "a.jpg")
    row = {"image": "a.jpg", "dx": "nevus"}
    write_csv(folder / "t.csv", tuple(row), [tuple(row.values())])
    (folder / "t.jsonl").write_text(json.dumps(row))
    (folder / "t.json").write_text(json.dumps([row]))
    pyarrow.parquet.write_table(pa.Table.from_pylist([row]), folder / "t.parquet")
    for suffix in ("csv", "jsonl", "json", "parquet"):
        source = TabularSource(str(folder / f"t.{suffix}"), "image", "dx")
        if suffix == "parquet" and "::" in name:
            assert "takes '::' in a path for a URL. Rename the folder" in refusal(source.load)
            continue
        (sample,) = loaded(source)
        assert source.missing() == [] and source.image(sample.images[0]).size == (40, 30)
    hub = HubDataset(str(folder), "image", "dx")
    if re.search(r"[*?[\n]|::", name):
        assert "Rename the folder" in refusal(hub.load)
    else:
        hub.load()
        assert len(hub) >= 1


ROW = b'{"image": "a.jpg", "dx": "nevus"}\n'
JSON_FILES = {
    "null first": (b"null\n" + ROW, "line 1: this is no object"),
    "null between": (ROW + b"null\n" + ROW, "line 2: this is no object"),
    "null in a list": (b'[null, {"image": "a.jpg", "dx": "nevus"}]', "entry 1: this is no object"),
    "nulls alone": (b"[null]", "entry 1: this is no object"),
    "a number": (b"3\n", "line 1: this is no object"),
    "a text": (b'"x"\n', "line 1: this is no object"),
    "yes": (ROW + b"true\n", "line 2: this is no object"),
    "lists": (b'{"image": "a.jpg", "dx": "nevus"}\n[1]\n', "line 2: this is no object"),
    "Latin-1": (ROW + b'{"image": "\xe9.jpg"}\n', "line 2: this is no UTF-8 text"),
    "UTF-16": (ROW.decode().encode("utf-16"), "line 1: this is no UTF-8 text"),
    "UTF-16 without a mark": (ROW.decode().encode("utf-16-le"), "line 1: this is no valid JSON"),
    "a NUL": (b'{"image": "a\0.jpg", "dx": "nevus"}\n', "line 1: this is no valid JSON"),
    "half a line": (ROW + ROW[:12], "line 2: this is no valid JSON"),
    "one byte": (b"{", "line 1: this is no valid JSON"),
    "one bracket": (b"[", "this is no valid JSON"),
    "nothing": (b"", "the table has no rows"),
    "white space": (b" \n\n", "the table has no rows"),
    "an empty list": (b"[]", "the table has no rows"),
    "deep lists": (b'{"image": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "it is nested too deeply"),
    "deep objects": (b'{"image": ' + b'{"a": ' * 500 + b"1" + b"}" * 500 + b', "dx": "nevus"}\n', "'image'"),
    "half a character": (b'{"image": "\\ud800", "dx": "nevus"}\n', "the column 'image' cannot be used"),
    "objects and texts": (ROW + b'{"image": {"path": "b.jpg"}, "dx": "nevus"}\n', "the column 'image' cannot be used"),
    "no such column": (b'{"file": "a.jpg", "dx": "nevus"}\n', "the column(s) image are missing; there are file, dx"),
    "wrapped": (b'{"data": [{"image": "a.jpg"}]}', "the column(s) image, dx are missing; there are data"),
}


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
@pytest.mark.parametrize(("content", "said"), JSON_FILES.values(), ids=JSON_FILES)
def test_json_that_is_no_table(content, said, suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(content)
    message = refusal(TabularSource(str(path), "image", "dx").load)
    assert message.startswith(str(path)) and said in message and len(message) < 600
    assert refusal(Conversations(str(path)).load).startswith(str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + ROW,
        ROW + b"\n\n",
        b"\n" + ROW,
        b"[" + ROW + b"]",
        b"\xef\xbb\xbf [" + ROW + b"]",
        ROW.replace(b"\n", b"\r\n"),
        b'{"dx": "nevus", "deep": ' + b"[" * 500 + b"]" * 500 + b', "image": "a.jpg"}\n',
        b'{"dx": "nevus", "image": ["a.jpg"], "n": null}',
        b'{"dx": "nevus", "image": {"path": "a.jpg"}}',
    ],
)
def test_json_that_is_a_table(content, tmp_path):
    (tmp_path / "t.jsonl").write_bytes(content)
    (sample,) = loaded(TabularSource(str(tmp_path / "t.jsonl"), "image", "dx"))
    assert sample.images == (str(tmp_path / "a.jpg"),) and sample.target == "melanocytic nevus"


def test_values_of_several_kinds_in_json_are_texts(tmp_path):
    """The `datasets` library puts quotation marks around such texts."""
    answers = ["yes", 3, True, 2.5, "no"]
    rows = [{"image": "a.jpg" if i else ["a.jpg", "b.jpg"], "a": answer} for i, answer in enumerate(answers)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "t.jsonl").write_text(text)
    source = loaded(TabularSource(str(tmp_path / "t.jsonl"), "image", "a", kind="vqa"))
    assert [sample.label for sample in source] == ["yes", "3", "true", "2.5", "no"]
    assert [len(sample.images) for sample in source] == [2, 1, 1, 1, 1]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text(text)
    message = refusal(HubDataset(str(tmp_path / "set"), "image", "a", kind="vqa").load)
    assert "holds values of several kinds in different rows" in message


def test_whole_numbers_beyond_64_bits_and_dates_stay_as_they_are_written(tmp_path):
    rows = [{"image": "a.jpg", "dx": "nevus", "id": value} for value in (10**30, 7)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ids = [sample.id for sample in loaded(TabularSource(str(tmp_path / "t.jsonl"), "image", "dx", id_column="id"))]
    assert ids == [str(10**30), "7"]
    (tmp_path / "d.jsonl").write_text(json.dumps(rows[1] | {"id": "2020-01-01"}))
    (sample,) = loaded(TabularSource(str(tmp_path / "d.jsonl"), "image", "dx", id_column="id"))
    assert sample.id == "2020-01-01"


def test_a_hundred_thousand_columns(tmp_path):
    names = [f"c{i}" for i in range(100_000)]
    start = time.perf_counter()
    path = write_csv(tmp_path / "t.csv", ("image", "dx", *names), [("a.jpg", "nevus", *names)])
    assert len(loaded(TabularSource(str(path), "image", "dx"))) == 1
    assert read_table(path, ("dx",), "")[0]["c7"] == "c7"
    assert len(refusal(TabularSource(str(path), "file", "dx").load)) < 400
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.jpg", "dx": "nevus"} | dict.fromkeys(names, 1)))
    assert len(loaded(TabularSource(str(tmp_path / "t.jsonl"), "image", "dx"))) == 1
    assert len(refusal(TabularSource(str(tmp_path / "t.jsonl"), "file", "dx").load)) < 400
    assert time.perf_counter() - start < 20


def test_the_first_row_of_a_csv_file_is_line_2(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'id,dx\n"a"x,mel\n')
    assert refusal(read_table, path, ("id",), "").startswith(f"{path}, line 2: the row that begins here")


def test_a_cell_of_a_megabyte(tmp_path):
    path = write_csv(tmp_path / "t.csv", ("image", "dx", "note"), [("a.jpg", "nevus", "x" * 1_000_000)])
    assert len(loaded(TabularSource(str(path), "image", "dx"))) == 1


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pa.table({"image": pa.array([], pa.string()), "dx": pa.array([], pa.string())}), "the table has no rows"),
        (pa.Table.from_arrays([pa.array(["a"])] * 3, names=["image", "image", "dx"]), "'image' stand there twice"),
    ],
)
def test_parquet_files_that_are_no_tables(table, said, tmp_path):
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert said in refusal(TabularSource(str(tmp_path / "t.parquet"), "image", "dx").load)


def test_a_label_that_means_nothing_is_refused():
    with pytest.raises(DataError, match="`labels` maps 'x' to nothing"):
        TabularSource("t.csv", "image", "dx", labels={"y": "nevus", "x": []})


ODD_ROWS = {
    "a list as role": {"messages": [{"role": ["user"], "content": "x"}]},
    "a number as turn": {"messages": [3]},
    "a text as bytes": {"images": [{"bytes": "abc"}]},
    "a number as image": {"images": [3]},
    "a list as group": {"group": ["x"]},
    "an object as target": {"target": {"a": 1}},
    "bare base64": {"images": ["/9j/4AAQSkZJRgABAQ" + "A" * 100]},
    "no part": {"messages": [{"role": "user", "content": [None]}]},
}


@pytest.mark.parametrize("row", ODD_ROWS.values(), ids=ODD_ROWS)
def test_rows_that_are_no_conversations(row, tmp_path):
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A mole."}]
    whole = {"messages": talk, "images": ["a.jpg"]}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(whole) + "\n" + json.dumps(whole | row) + "\n")
    message = refusal(Conversations(str(path)).load)
    assert message.startswith(f"{path}, line 2") and "unhashable" not in message and "object" not in message


# What is no file


def special(folder: Path) -> dict[str, Path]:
    """Paths at which there is something, but no file that could be read to its end."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket"))
    server.close()
    os.symlink("loop", folder / "loop")
    os.symlink("nowhere", folder / "broken")
    os.symlink("/dev/zero", folder / "zero")
    return {name: folder / name for name in ("pipe", "folder", "socket", "loop", "broken", "zero")}


def test_pipes_devices_and_folders_never_hang(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    table = HAM10000(str(write_ham10000(tmp_path / "ham", 1))).table()
    for name, path in special(Path()).items():
        assert re.search("no file|missing|cannot be read", refusal(open_image, path)), name
        refusal(read_table, path, (), "Mend it.")
        refusal(parts_of, path, table)
        source = TabularSource(str(write_csv(Path("t.csv"), ("image", "dx"), [(str(path), "nevus")])), "image", "dx")
        assert loaded(source).missing() == [0]
        for suffix in ("csv", "json", "jsonl", "parquet"):
            linked = Path(f"{name}.{suffix}")
            linked.symlink_to(path)
            refusal(TabularSource(str(linked), "image", "dx").load)
            if suffix != "csv":
                refusal(Conversations(str(linked)).load)
    assert "this is a pipe and no file" in refusal(open_image, "pipe")
    assert "this is a device and no file" in refusal(open_image, "/dev/zero")
    assert "this is a folder and no file" in refusal(TabularSource("folder.csv", "image", "dx").load)


# Faults of the machine


class Failing:
    """In place of `open`: a file of which reading fails."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, *_: object, **__: object) -> object:
        if not self.number:
            raise MemoryError
        raise OSError(self.number, os.strerror(self.number))


FAULTS = ["EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "ETIMEDOUT", "EACCES", "MemoryError"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_machine_is_no_damaged_image(name, tmp_path, monkeypatch):
    write_jpeg(tmp_path / "a.jpg")
    monkeypatch.setattr("builtins.open", Failing(getattr(errno, name, 0)))
    with pytest.raises(DermIQError) as caught:
        open_image(tmp_path / "a.jpg")
    assert not isinstance(caught.value, DataError)
    assert str(caught.value).startswith(f"{tmp_path / 'a.jpg'}: the ") and "skip" not in str(caught.value)


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "EACCES"])
def test_a_fault_of_the_machine_is_no_missing_image(name, tmp_path, monkeypatch):
    source = HAM10000(str(write_ham10000(tmp_path, 1)))
    source.load()
    path = write_csv(tmp_path / "t.csv", ("image", "dx"), [("a.jpg", "nevus")])
    table = loaded(TabularSource(str(path), "image", "dx"))
    monkeypatch.setattr("os.stat", Failing(getattr(errno, name)))
    for missing in (source.missing, table.missing):
        with pytest.raises(DermIQError, match=r"cannot read the file now|may not be read") as caught:
            missing()
        assert not isinstance(caught.value, DataError)


def test_skipping_bad_images_does_not_skip_a_fault_of_the_machine(tmp_path, monkeypatch, family_dir):
    root = write_ham10000(tmp_path, 1)
    data = PromptDataModule(str(family_dir("qwen2_5_vl")), {"test": HAM10000(str(root))}, on_bad_image="skip")
    data.setup("test")
    monkeypatch.setattr("PIL.Image.open", Failing(errno.EIO))
    with pytest.raises(DermIQError, match=r"the machine cannot read the file now \(Input/output error\)"):
        list(data.test_dataloader())


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_a_fault_of_the_machine_is_no_broken_table(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"t.{suffix}"
    path.write_text("image,dx\na.jpg,nevus\n" if suffix == "csv" else '{"image": "a.jpg", "dx": "nevus"}')
    monkeypatch.setattr("pathlib.Path.open", Failing(errno.EIO))
    with pytest.raises(DermIQError, match="the machine cannot read the file now") as caught:
        TabularSource(str(path), "image", "dx").load()
    assert not isinstance(caught.value, DataError)


# Images and labels


def test_an_image_beyond_the_limit_of_pillow_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    write_jpeg(tmp_path / "a.jpg")  # 1,200 pixels
    assert "limit" in refusal(open_image, tmp_path / "a.jpg", 100)
    assert open_image(tmp_path / "a.jpg", 2_000).size == (40, 30) and Image.MAX_IMAGE_PIXELS == 500


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_fewer_bits_than_it_is_stored_in(bits, tmp_path):
    values = (np.arange(256, dtype=np.float64).reshape(16, 16) / 255 * (2**bits - 1)).round().astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    pixels = np.asarray(open_image(tmp_path / "a.png"))
    assert abs(pixels[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("keys", "cells"), [((0, 1), (0, 1)), ((False, True), (False, True)), ((0.0, 1.0), (0.0, 1.0))]
)
def test_labels_that_yaml_reads_as_numbers(keys, cells, suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        write_csv(path, ("image", "dx"), [("a.jpg", cell) for cell in cells])
    else:
        pyarrow.parquet.write_table(pa.table({"image": ["a.jpg"] * 2, "dx": list(cells)}), path)
    labels = dict(zip(keys, ("nevus", "melanoma"), strict=True))
    source = loaded(TabularSource(str(path), "image", "dx", labels=labels))
    assert [sample.target for sample in source] == ["melanocytic nevus", "melanoma"]
    labels = {keys[0]: "nevus"}
    assert "is unknown" in refusal(TabularSource(str(path), "image", "dx", labels=labels).load)


def test_when_every_image_is_missing(tmp_path, family_dir, caplog):
    path = write_csv(tmp_path / "t.csv", ("image", "dx"), [(f"A{i}.JPG", "nevus") for i in range(4)])
    write_jpeg(tmp_path / "a2.jpg")
    data = PromptDataModule(
        str(family_dir("qwen2_5_vl")), {"all": TabularSource(str(path), "image", "dx")}, on_bad_image="skip"
    )
    with caplog.at_level(logging.WARNING):
        message = refusal(data.setup, "fit")
    assert "none of the 4 samples of the source 'all' has its images" in message and "`image_root`" in message


def test_a_missing_image_whose_name_is_nearly_there(tmp_path, family_dir):
    write_jpeg(tmp_path / "a.jpg")
    write_jpeg(tmp_path / "B.JPEG.jpg")
    path = write_csv(tmp_path / "t.csv", ("image", "dx"), [("a", "nevus"), ("a.jpg", "nevus")])
    data = PromptDataModule(str(family_dir("qwen2_5_vl")), {"all": TabularSource(str(path), "image", "dx")})
    assert f"There is {tmp_path / 'a.jpg'}" in refusal(data.setup, "fit")


def test_the_features_of_a_saved_table_stay(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "dx": datasets.ClassLabel(names=["melanoma", "nevus"])})
    rows = {"image": [{"bytes": jpeg(0), "path": None}], "dx": [1]}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "t.parquet")
    (sample,) = loaded(TabularSource(str(tmp_path / "t.parquet"), "image", "dx"))
    assert sample.label == "nevus"
