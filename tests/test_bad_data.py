"""Bad input: each message says what is wrong, where, and what to do."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import pytest

from dermiq.datamodules import PromptDataModule
from dermiq.datamodules.sources import HAM10000, TabularSource
from dermiq.datamodules.sources.base import open_image
from dermiq.schema import DataError
from small_data import FOLDERS, HEADER, write_csv, write_ham10000, write_jpeg


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write_bomb(path: Path, width: int, height: int) -> None:
    """A PNG file of a few bytes whose header claims an enormous picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def refusal(action, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        action(*arguments)
    return str(caught.value)


def test_missing_image(tmp_path):
    message = refusal(open_image, tmp_path / "none.jpg")
    assert message == f"{tmp_path / 'none.jpg'}: the image is missing. Check the image folder of the source."


def test_truncated_image(tmp_path):
    path = tmp_path / "half.jpg"
    write_jpeg(path, size=(200, 150))
    path.write_bytes(path.read_bytes()[:2000])
    message = refusal(open_image, path)
    assert message.startswith(f"{path}: the image cannot be read (") and "truncated" in message
    assert message.endswith("Replace the file, or pass --data.on_bad_image=skip.")


def test_file_that_is_no_image(tmp_path):
    path = tmp_path / "page.jpg"
    path.write_text("<html>404</html>")
    assert "page.jpg: the image cannot be read" in refusal(open_image, path)


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (9_000, 9_000),  # below Pillow's own limits: this project's
        (12_000, 12_000),  # where Pillow warns
        (60_000, 60_000),  # where Pillow refuses
    ],
)
def test_image_bomb_is_refused_before_it_is_decoded(width, height, tmp_path):
    write_bomb(tmp_path / "bomb.png", width, height)
    message = refusal(open_image, tmp_path / "bomb.png")
    assert "bomb.png" in message and "limit" in message and "Resize the image" in message


def test_the_limit_of_a_source_is_its_own(tmp_path):
    source = HAM10000(str(write_ham10000(tmp_path)), max_pixels=1000)
    source.load()
    message = refusal(source.image, source[0].images[0])
    assert "40 x 30 pixels are more than the limit of 1,000" in message and "raise `max_pixels`" in message


# HAM10000


def ham10000_with(root: Path, old: str, new: str) -> HAM10000:
    path = write_ham10000(root) / "HAM10000_metadata.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return HAM10000(str(root))


def test_ham10000_unknown_label(tmp_path):
    message = refusal(ham10000_with(tmp_path, ",bcc,", ",healthy,").load)
    assert "HAM10000_metadata.csv, line 4 (image ISIC_0000002): the label 'healthy' is unknown" in message
    assert "akiec, bcc, bkl, df, mel, nv, vasc" in message and "remove the row" in message


def test_ham10000_missing_columns(tmp_path):
    message = refusal(ham10000_with(tmp_path, "lesion_id,image_id", "lesion,image").load)
    assert "the column(s) lesion_id, image_id are missing; there are lesion, image, dx" in message


def test_ham10000_same_image_twice(tmp_path):
    message = refusal(ham10000_with(tmp_path, "ISIC_0000001", "ISIC_0000000").load)
    assert "line 3: the image 'ISIC_0000000' of lesion 'HAM_0000000'" in message and "stands there twice" in message


def test_ham10000_short_row(tmp_path):
    message = refusal(
        ham10000_with(tmp_path, "HAM_0000001,ISIC_0000002,bcc,histo,80.0,male,scalp,vidir_modern", "cut").load
    )
    assert "line 4" in message and "the label None is unknown" in message


def test_ham10000_without_metadata_or_images(tmp_path):
    assert f"there is neither {FOLDERS[0]}/ nor {FOLDERS[1]}/" in refusal(HAM10000(str(tmp_path)).load)
    write_ham10000(tmp_path)
    (tmp_path / "HAM10000_metadata.csv").unlink()
    message = refusal(HAM10000(str(tmp_path)).load)
    assert "HAM10000_metadata.csv: the metadata file is missing. Give `root` the folder" in message


def test_ham10000_unreadable_or_empty_metadata(tmp_path):
    write_ham10000(tmp_path)
    path = tmp_path / "HAM10000_metadata.csv"
    path.write_bytes(b"PK\x03\x04\xff\xfe\x00\x81")
    assert "the metadata cannot be read" in refusal(HAM10000(str(tmp_path)).load)
    write_csv(path, HEADER, [])
    assert "the metadata have no rows" in refusal(HAM10000(str(tmp_path)).load)


# Tables


def table(tmp_path: Path, rows: list[tuple[object, ...]], **options) -> TabularSource:
    path = write_csv(tmp_path / "table.csv", ("file", "dx", "name"), rows)
    return TabularSource(str(path), **{"image_column": "file", "label_column": "dx", **options})


def test_table_unknown_label_with_and_without_a_map(tmp_path):
    rows = [("a.jpg", "melanoma", "x"), ("b.jpg", "mlanoma", "y")]
    message = refusal(table(tmp_path, rows).load)
    assert "table.csv, row 2: the label 'mlanoma' is unknown. Known are actinic keratosis" in message
    assert "map the label to a concept in `labels`" in message
    message = refusal(table(tmp_path, rows, labels={"melanoma": "melanoma", "n": "nevus"}).load)
    assert "row 2: the label 'mlanoma' is unknown. Known are melanoma, n." in message


def test_table_missing_columns(tmp_path):
    message = refusal(table(tmp_path, [("a.jpg", "nevus", "x")], image_column="path", group_column="patient").load)
    assert "the column(s) path, patient are missing; there are file, dx, name" in message and "`*_column`" in message


def test_table_ids_that_repeat(tmp_path):
    rows = [("a.jpg", "nevus", "x"), ("b.jpg", "nevus", "x")]
    assert "the ids in the column 'name' are not unique" in refusal(table(tmp_path, rows, id_column="name").load)


def test_table_row_without_an_image(tmp_path):
    rows = [("a.jpg", "nevus", "x"), ("", "nevus", "y")]
    assert "row 2: the column 'file' names no image" in refusal(table(tmp_path, rows).load)


def test_table_missing_or_of_an_unknown_kind(tmp_path):
    assert "none.csv: the table is missing" in refusal(TabularSource(str(tmp_path / "none.csv"), "a", "b").load)
    message = refusal(TabularSource(str(tmp_path / "table.xlsx"), "a", "b").load)
    assert "unknown kind of table; give `path` one of .csv, .json, .jsonl, .parquet" in message


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("ragged.csv", b"file,dx\na.jpg,nevus\nb.jpg,nevus,too,many\n", "Expected 2 fields in line 3, saw 4"),
        ("binary.csv", b"PK\x03\x04\xff\xfe\x00\x81", "utf-8"),
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


@pytest.mark.parametrize("content", ["", "file,dx\n"])
def test_empty_tables(content, tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text(content)
    message = refusal(TabularSource(str(path), "file", "dx").load)
    assert "empty.csv: the table" in message and ("has no rows" in message or "cannot be read" in message)


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
