"""Bad tables and bad runs: each message says what is wrong, where, and what to do."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from dermiq.datamodules import PromptDataModule
from dermiq.datamodules.sources import HAM10000, TabularSource
from dermiq.datamodules.sources.reading.csv_rows import read_table
from dermiq.schema import DataError
from support.small_data import refusal, write_csv, write_ham10000, write_jpeg


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


# CSV files of published data sets


HINT = "Give the folder."
PLAIN = b"id,dx\n007,NA\n8,mel\n"


def rows_of_table(path: Path, content: bytes) -> list[dict[str, str]]:
    path.write_bytes(content)
    return [dict(row) for row in read_table(path, ("id", "dx"), HINT)]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b",", b";"),
        PLAIN.replace(b",", b"\t"),
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        PLAIN.replace(b"8,mel", b' 8 ,"mel"'),
        PLAIN.replace(b"\n8", b"\n\n\n8") + b"\n",
        b'"id","dx"\n"007","NA"\n8,mel',
    ],
)
def test_tables_that_say_the_same(content, tmp_path):
    path = tmp_path / "t.csv"
    assert rows_of_table(path, content) == [{"id": "007", "dx": "NA"}, {"id": "8", "dx": "mel"}]
    source = TabularSource(str(path), "id", "dx", labels={"NA": "nevus", "mel": "melanoma"})
    source.load()
    assert [(Path(sample.images[0]).name, sample.label) for sample in source] == [("007", "NA"), ("8", "mel")]


def test_quoted_newlines_and_delimiters_are_kept(tmp_path):
    content = b'id,dx\r\n1,"a, ""b""\r\nc"\r\n2,d\r\n3\r\n'
    path = tmp_path / "t.csv"
    message = refusal(rows_of_table, path, content)
    assert message == f"{path}, line 5: 1 values in place of 2. Correct or remove the row."
    assert rows_of_table(path, content[:-3]) == [{"id": "1", "dx": 'a, "b"\r\nc'}, {"id": "2", "dx": "d"}]


BROKEN = [
    (b"id,dx\na,mel\nb,mel,too,many\n", ", line 3: 4 values in place of 2. Correct or remove the row."),
    (b"id,dx\na,mel\nb\n", ", line 3: 1 values in place of 2. Correct or remove the row."),
    (b"id,dx\na,mel\nb,m\xe9l\n", ", line 3: this is no UTF-8 text. Save the table as UTF-8."),
    ("id,dx\na,mel\n".encode("utf-16"), ", line 1: this is no UTF-8 text. Save the table as UTF-8."),
    (b'id,dx\na,mel\n"b,mel\nc,mel\n', ", line 3: the row that begins here cannot be read (unexpected end of data)."),
    (b'id,dx\na,mel\n"b"c,mel\n', ", line 3: the row that begins here cannot be read (',' expected after '\"')."),
    (b"id,dx,dx\na,b,c\n", ": the header has 'dx' more than once. Rename the columns."),
    (b"id,disease\na,b\n", ": the column(s) 'dx' are missing; there are id, disease."),
    (b"id,dx\n", ": the table has no rows."),
    (b"", ": the column(s) 'id', 'dx' are missing; there are none."),
]


@pytest.mark.parametrize(("content", "said"), BROKEN)
def test_broken_tables_are_named_with_the_line(content, said, tmp_path):
    path = tmp_path / "t.csv"
    assert refusal(rows_of_table, path, content).startswith(f"{path}{said}")
    assert refusal(TabularSource(str(path), "id", "dx").load).startswith(f"{path}{said}")


def test_a_missing_table(tmp_path):
    assert (
        refusal(read_table, tmp_path / "none.csv", (), HINT) == f"{tmp_path / 'none.csv'}: the file is missing. {HINT}"
    )


def test_the_same_image_twice_in_a_published_table(tmp_path):
    path = write_ham10000(tmp_path) / "HAM10000_metadata.csv"
    path.write_text(path.read_text().replace("ISIC_0000001", "ISIC_0000000", 1))
    message = refusal(HAM10000(str(tmp_path)).load)
    assert (
        message == f"{path}, line 3: the id 'ISIC_0000000' stands already in {path}, line 2. Correct or remove the row."
    )


# Tables of one's own


def table(tmp_path: Path, rows: list[tuple[object, ...]], **options) -> TabularSource:
    path = write_csv(tmp_path / "table.csv", ("file", "dx", "name"), rows)
    return TabularSource(str(path), **{"image_column": "file", "label_column": "dx", **options})


def test_table_unknown_label_with_and_without_a_map(tmp_path):
    rows = [("a.jpg", "melanoma", "x"), ("b.jpg", "mlanoma", "y")]
    message = refusal(table(tmp_path, rows).load)
    assert "table.csv, line 3: the label 'mlanoma' is unknown. Did you mean melanoma" in message
    assert "map the label to a condition in `labels`" in message
    message = refusal(table(tmp_path, rows, labels={"melanoma": "melanoma", "n": "nevus"}).load)
    assert "line 3: the label 'mlanoma' is unknown. Did you mean melanoma?" in message


def test_table_label_map_with_an_unknown_condition(tmp_path):
    rows = [("a.jpg", "m", "x")]
    message = refusal(table(tmp_path, rows, labels={"m": ["melanoma", "no such thing"]}).load)
    assert "line 2: the label 'm' is unknown" in message


@pytest.mark.parametrize("kind", ["diagnosis", "vqa"])
@pytest.mark.parametrize("label", ["", " ", None])
def test_table_empty_label(label, kind, tmp_path):
    rows = [{"file": "a.jpg", "dx": "nevus"}, {"file": "b.jpg", "dx": label}]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = refusal(TabularSource(str(path), "file", "dx", kind=kind).load)
    assert f"{path}, row 2: the column 'dx' is empty. Fill it in, or remove the row." in message


def test_table_labels_that_are_no_numbers(tmp_path):
    pyarrow.parquet.write_table(pa.table({"file": ["a", "b"], "dx": [1.0, float("nan")]}), tmp_path / "t.parquet")
    message = refusal(TabularSource(str(tmp_path / "t.parquet"), "file", "dx", labels={"1": "nevus"}).load)
    assert "t.parquet, row 2: the column 'dx' is empty" in message


def test_table_missing_columns(tmp_path):
    message = refusal(table(tmp_path, [("a.jpg", "nevus", "x")], image_column="path", group_column="patient").load)
    assert (
        "the column(s) 'path', 'patient' are missing; there are file, dx, name" in message and "`*_column`" in message
    )


@pytest.mark.parametrize(("names", "places"), [("xyx", (4, 2)), ("xy", (3, 3))])
def test_table_ids_that_repeat_or_are_missing(names, places, tmp_path):
    rows = [("a.jpg", "nevus", name.replace("y", "") if len(names) == 2 else name) for name in names]
    message = refusal(table(tmp_path, rows, id_column="name").load)
    again, first = places
    assert f"table.csv, line {again}: the id in the column 'name' is empty, or stands already in {tmp_path}" in message
    assert f"table.csv, line {first}. Choose another `id_column`" in message


def test_table_row_without_an_image(tmp_path):
    rows = [("a.jpg", "nevus", "x"), ("", "nevus", "y")]
    assert "line 3: the column 'file' names no image" in refusal(table(tmp_path, rows).load)


def test_table_unknown_skin_type(tmp_path):
    rows = [("a.jpg", "nevus", "III"), ("b.jpg", "nevus", "VII")]
    message = refusal(table(tmp_path, rows, skin_type_column="name").load)
    assert "line 3: the skin type 'VII' is none of 1, 2" in message


def test_table_options_and_kind_go_together(tmp_path):
    for options in ({"kind": "choice"}, {"options_column": "name"}):
        with pytest.raises(DataError, match="`options_column` and `kind: choice` go together"):
            table(tmp_path, [("a.jpg", "x", "x")], **options)


def test_table_answer_that_is_no_option(tmp_path):
    path = write_csv(
        tmp_path / "t.csv", ("file", "a", "b", "right"), [("1.jpg", "x", "y", "A"), ("2.jpg", "x", "y", "z")]
    )
    source = TabularSource(str(path), "file", "right", kind="choice", options_column=["a", "b"])
    assert "t.csv, line 3: 'z' is none of the options 'x', 'y'. Correct" in refusal(source.load)


def test_table_missing_or_of_an_unknown_kind(tmp_path):
    assert "none.csv: the table is missing" in refusal(TabularSource(str(tmp_path / "none.csv"), "a", "b").load)
    message = refusal(TabularSource(str(tmp_path / "table.xlsx"), "a", "b").load)
    assert "unknown kind of table; give `path` one of .csv, .json, .jsonl, .parquet" in message


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("broken.jsonl", b'{"file": "a.jpg", "dx"\n', "JSON"),
        ("broken.parquet", b"PAR1 and then nothing", "arquet"),
    ],
)
def test_unreadable_tables(name, content, reason, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(TabularSource(str(path), "file", "dx").load)
    assert (
        message.startswith(f"{path}: the table cannot be read as") and reason in message and "Save it again" in message
    )


# Images, through a data module


@pytest.fixture(scope="module")
def model_id(family_dir) -> str:
    return str(family_dir("qwen2_5_vl"))


@pytest.fixture
def root(tmp_path) -> Path:
    return write_ham10000(tmp_path / "ham")


def rows_of(batches) -> list[str]:
    return [sample.id for batch in batches for sample in batch["samples"]]


def spoil(root: Path) -> tuple[Path, Path]:
    """One photograph missing, one truncated: not one of the longest samples, which setup opens."""
    photographs = sorted((root / "HAM10000_images_part_1").iterdir())
    photographs[0].unlink()
    photographs[2].write_bytes(photographs[2].read_bytes()[:300])
    return photographs[0], photographs[2]


def test_missing_photographs_are_counted_at_setup(model_id, root):
    gone, _ = spoil(root)
    message = refusal(PromptDataModule(model_id, {"all": HAM10000(str(root))}).setup, "fit")
    assert message == (
        f"1 of 42 images of the source 'all' are missing: {gone} (sample {gone.stem!r}). Complete the image "
        "folders, or pass --data.on_bad_image=skip."
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_photograph_stops_the_run(workers, model_id, root):
    write_jpeg(spoil(root)[0])
    data = PromptDataModule(model_id, {"train": HAM10000(str(root))}, batch_size=1, num_workers=workers)
    data.setup("fit")
    with pytest.raises(DataError, match=r"^\S+\.jpg: the image cannot be read .*pass --data.on_bad_image=skip\.$"):
        list(data.train_dataloader())


def test_skipping_counts_and_lists(model_id, root, caplog):
    gone, cut = spoil(root)
    data = PromptDataModule(model_id, {"test": HAM10000(str(root))}, on_bad_image="skip", eval_batch_size=4)
    with caplog.at_level(logging.WARNING):
        data.setup("test")
    assert f"1 of 42 images of the source 'test' are missing: {gone} (sample {gone.stem!r}). " in caplog.text
    batches = list(data.test_dataloader())
    skipped = [entry for batch in batches for entry in batch["skipped"]]
    assert len(skipped) == 1 and skipped[0].startswith(f"{cut.stem}: {cut}: the image cannot be read")
    assert len(rows_of(batches)) == 40 and cut.stem not in rows_of(batches)
    assert sorted(len(batch["samples"]) for batch in batches) == [1, 3] + [4] * 9


def test_a_batch_without_a_readable_image_is_empty(model_id, root, caplog):
    _, cut = spoil(root)
    data = PromptDataModule(model_id, {"test": HAM10000(str(root))}, on_bad_image="skip", eval_batch_size=1)
    data.setup("test")
    batches = list(data.test_dataloader())
    empty = [batch for batch in batches if not batch["samples"]]
    assert len(batches) == 41 and len(empty) == 1
    assert empty[0]["prompt"] == {} and empty[0]["skipped"][0].startswith(f"{cut.stem}: ")
    assert f"a whole batch is left out, no image of it can be read: {cut.stem}:" in caplog.text
