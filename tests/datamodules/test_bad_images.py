"""Bad images: each is opened as what it shows, or refused in words."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermiq.datamodules.sources import HAM10000
from dermiq.datamodules.sources.base import open_image
from dermiq.policy.hub import load_processor
from dermiq.policy.processing import encode_prompts
from support.families import FAMILIES
from support.small_data import refusal, write_ham10000, write_jpeg


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
