"""Bad input: each message says what is wrong, where, and what to do."""

from __future__ import annotations

import json
import logging
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from dermiq.datamodules import PromptDataModule
from dermiq.datamodules.sources import HAM10000, TabularSource
from dermiq.datamodules.sources.base import open_image
from dermiq.datamodules.sources.tables import read_table
from dermiq.processing import encode_prompts, load_processor
from dermiq.schema import DataError
from families import FAMILIES
from small_data import write_csv, write_ham10000, write_jpeg


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write_png(path: Path, size: tuple[int, int], bits: int, colour: int, rows: bytes) -> None:
    """A PNG file with this header (colour 2 = RGB) and these rows, whether they fit or not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def write_bomb(path: Path, width: int, height: int) -> None:
    """A PNG file of a few bytes whose header claims an enormous picture."""
    write_png(path, (width, height), 8, 2, b"")


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


# Photographs in every state


def saved(picture: Image.Image, path: Path, **options) -> Path:
    picture.save(path, **options)
    return path


def opened(path: Path) -> np.ndarray:
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


GREY = np.arange(256, dtype=np.uint16).reshape(16, 16)


def test_zero_bytes(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    assert f"{path}: the image cannot be read (cannot identify" in refusal(open_image, path)


def test_grey_of_16_bits_is_scaled(tmp_path):
    pixels = opened(saved(Image.fromarray(GREY * 257), tmp_path / "deep.png"))
    assert (pixels == GREY[..., None]).all()


@pytest.mark.parametrize("top", [1, 255, 65_535])
def test_grey_in_decimals_is_scaled(top, tmp_path):
    values = (GREY / 255 * top).astype(np.float32)
    assert (opened(saved(Image.fromarray(values), tmp_path / "f.tif")) == GREY[..., None]).all()


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 1e6), (0, np.nan)])
def test_decimals_of_no_scale_are_refused(low, high, tmp_path):
    values = np.array([[low, high]] * 2, np.float32)
    assert "which fit no scale" in refusal(open_image, saved(Image.fromarray(values), tmp_path / "f.tif"))


def test_colours_of_16_bits_keep_their_high_bits(tmp_path):
    row = b"\0" + struct.pack(">HHH", 0x1234, 0x8000, 0xFFFF) * 4
    write_png(tmp_path / "deep.png", (4, 4), 16, 2, row * 4)
    assert opened(tmp_path / "deep.png")[0, 0].tolist() == [0x12, 0x80, 0xFF]


def test_colours_of_print(tmp_path):
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixels = opened(saved(red, tmp_path / "print.jpg", quality=100))
    assert (abs(pixels.astype(int) - [254, 0, 0]) < 4).all()


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "L", "RGB"])
def test_what_is_transparent_is_white(mode, tmp_path):
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 4, 8))
    options = {"transparency": 0} if mode == "L" else {"transparency": (0, 0, 0)} if mode == "RGB" else {}
    path = saved(picture.convert(mode), tmp_path / "t.png", **options)
    left, right = opened(path)[0, 0].tolist(), opened(path)[0, 7].tolist()
    assert left == [255, 255, 255] and right == ([255, 255, 255] if options else [0, 0, 0])


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_turned_cameras(suffix, tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6  # the top of the picture is on its right
    picture = Image.new("RGB", (32, 16))
    picture.paste((255, 255, 255), (0, 0, 8, 16))
    pixels = opened(saved(picture, tmp_path / f"turned.{suffix}", exif=exif))
    assert pixels.shape == (32, 16, 3) and pixels[2].min() > 200 and pixels[20].max() < 50


def test_damaged_exif_is_no_obstacle(tmp_path):
    path = saved(Image.new("RGB", (8, 8), (200, 100, 50)), tmp_path / "odd.jpg", exif=b"Exif\0\0MM\0*" + b"\xff" * 40)
    assert opened(path).shape == (8, 8, 3)


def test_an_animation_shows_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    path = saved(frames[0], tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert opened(path)[0, 0].tolist() == [255, 0, 0]


def test_two_pictures_in_one_jpeg(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    path = saved(frames[0], tmp_path / "stereo.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert opened(path)[0, 0].tolist() == [254, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_smallest_and_the_narrowest_can_be_encoded(family, size, family_dir, tmp_path):
    image = open_image(saved(Image.new("RGB", size), tmp_path / "dot.png"))
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    prompt = encode_prompts(load_processor(str(family_dir(family))), [asked], [[image]])
    assert prompt["pixel_values"].isfinite().all()


def test_narrower_pictures_are_refused(tmp_path):
    path = saved(Image.new("RGB", (201, 1)), tmp_path / "line.png")
    assert "line.png: 201 x 1 pixels are no photograph" in refusal(open_image, path)


def test_headers_that_hide_a_larger_picture(tmp_path):
    gif = bytearray(saved(Image.new("P", (300, 300)), tmp_path / "a.gif").read_bytes())
    gif[6:10] = struct.pack("<HH", 1, 1)  # the screen; the frame is as large as before
    (tmp_path / "a.gif").write_bytes(gif)
    assert "300 x 300 pixels are more than the limit" in refusal(open_image, tmp_path / "a.gif", 1000)
    icon = saved(Image.new("RGB", (64, 64)), tmp_path / "a.ico", sizes=[(64, 64)])
    assert "cannot identify" in refusal(open_image, icon)
    script = tmp_path / "a.png"
    script.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert "cannot identify" in refusal(open_image, script)


def test_200_megapixels_are_refused_in_no_time(tmp_path):
    write_bomb(tmp_path / "huge.png", 20_000, 10_000)
    start = time.perf_counter()
    message = refusal(open_image, tmp_path / "huge.png")
    assert "limit of 178956970 pixels" in message and "Resize the image" in message
    assert time.perf_counter() - start < 1


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
