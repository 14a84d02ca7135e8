"""What the model was shown in a test stays beside its predictions, small, and each image once."""

import io
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dermiq.trainer.thumbnails import WriteThumbnails, read_thumbnails, thumbnail


def noise(seed, size=(60, 40)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def batch(**images):
    """Questions of the data set d, by id, with their images."""
    samples = [SimpleNamespace(dataset="d", id=name) for name in images]
    return {"samples": samples, "images": list(images.values())}


def process(root, rank=0, world_size=1):
    """What the callback asks of a trainer."""
    strategy = SimpleNamespace(barrier=lambda name: None)
    return SimpleNamespace(
        default_root_dir=str(root), global_rank=rank, world_size=world_size, is_global_zero=rank == 0, strategy=strategy
    )


def tested(*trainers_and_batches):
    """Each process sees its batches; the first writes the table when all have."""
    callbacks = []
    for trainer, batches in trainers_and_batches:
        callback = WriteThumbnails()
        callback.on_test_start(trainer, None)
        for number, each in enumerate(batches):
            callback.on_test_batch_end(trainer, None, {}, each, number)
        callbacks.append((callback, trainer))
    for callback, trainer in reversed(callbacks):
        callback.on_test_end(trainer, None)


def test_each_image_is_stored_once_with_every_question_that_shows_it(tmp_path):
    one, other = noise(1), noise(2)
    tested((process(tmp_path), [batch(a=[one], b=[other, one]), batch(c=[one.copy()])]))
    assert {path.name for path in tmp_path.iterdir()} == {"thumbnails.parquet"}
    found = list(read_thumbnails(tmp_path))
    assert [shown for _, shown in found] == [[("d", "a", 0), ("d", "b", 1), ("d", "c", 0)], [("d", "b", 0)]]
    assert [image for image, _ in found] == [thumbnail(one, 192), thumbnail(other, 192)]


def test_several_processes_write_one_table(tmp_path):
    one, other = noise(1), noise(2)
    tested((process(tmp_path, 0, 2), [batch(a=[one]), batch(c=[other])]), (process(tmp_path, 1, 2), [batch(b=[one])]))
    assert {path.name for path in tmp_path.iterdir()} == {"thumbnails.parquet"}
    assert [shown for _, shown in read_thumbnails(tmp_path)] == [[("d", "a", 0), ("d", "b", 0)], [("d", "c", 0)]]


def test_a_new_test_begins_anew(tmp_path):
    tested((process(tmp_path), [batch(a=[noise(1)])]))
    tested((process(tmp_path), [batch(a=[noise(2)])]))
    assert [image for image, _ in read_thumbnails(tmp_path)] == [thumbnail(noise(2), 192)]


@pytest.mark.parametrize("size, expected", [((1000, 500), (192, 96)), ((60, 120), (60, 120))])
def test_no_side_is_longer_than_asked_and_small_images_keep_their_size(size, expected):
    assert Image.open(io.BytesIO(thumbnail(noise(0, size), 192))).size == expected


def test_a_small_drawing_stays_what_it_is():
    """Noise is the worst case for WebP; a drawing of flat patches loses next to nothing."""
    drawing = np.kron(np.random.default_rng(0).integers(60, 220, (6, 6, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    found = np.asarray(Image.open(io.BytesIO(thumbnail(Image.fromarray(drawing), 192))), dtype=float)
    assert np.abs(found - drawing).mean() < 4


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_any_mode_of_image_can_be_kept(mode):
    assert Image.open(io.BytesIO(thumbnail(noise(0).convert(mode), 192))).mode == "RGB"


def test_without_a_file_there_are_none(tmp_path):
    assert list(read_thumbnails(tmp_path)) == []


def test_a_test_of_the_command_line_keeps_what_was_shown(lab, tmp_path):
    lab.run("test", "SFTModule", tmp_path)
    rows = pq.read_table(tmp_path / "predictions.parquet", columns=["dataset", "id"]).to_pylist()
    found = list(read_thumbnails(tmp_path))
    keys = {(dataset, name) for _, shown in found for dataset, name, _ in shown}
    assert keys == {(row["dataset"], row["id"]) for row in rows} and len(found) == len(rows) == 14
    assert all(Image.open(io.BytesIO(image)).size == (40, 30) for image, _ in found)
