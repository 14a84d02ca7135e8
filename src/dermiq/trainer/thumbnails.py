"""Thumbnails of the images of a test, for its report."""

from __future__ import annotations

import hashlib
import io
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image

from dermiq.files import append_lines, regular_bytes, whole_lines, write_atomically
from dermiq.programs.exits import reason
from dermiq.ranges import COUNT, check_numbers
from dermiq.run_directory import RunDirectory
from dermiq.schema import DataError

QUALITY = 90  # of WebP: at this size fine texture is kept at a fifth of a PNG's bytes
_SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "shown": pa.list_(pa.struct({"dataset": pa.string(), "id": pa.string(), "place": pa.int64()})),
    }
)


class WriteThumbnails(Callback):
    """Writes the images of test, made small, as ``thumbnails.parquet`` in the run's directory.

    One row per distinct image, however many questions show it: ``image`` (WebP) and ``shown``, a list of ``dataset``
    and ``id`` (the keys of ``predictions.parquet``) and ``place`` (0 for a question's first image). What was shown is
    appended to ``test_thumbnails.jsonl`` as batches finish, one file per process; the table takes its place at the end.

    The file holds recognisable copies of the data set. Where those must not lie beside a run, leave this callback out
    of ``trainer.callbacks``.

    Args:
        longest_side: of a thumbnail, in pixels; smaller images keep their size.
    """

    def __init__(self, longest_side: int = 192) -> None:
        self.longest_side = longest_side
        check_numbers(self, longest_side=COUNT)
        self._written: set[str] = set()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new file."""
        self._written = set()
        self.path = RunDirectory(trainer.default_root_dir).thumbnail_lines(trainer.global_rank, trainer.world_size)
        write_atomically(self.path, "")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Append the batch's images."""
        shown = zip(batch["samples"], batch["images"], strict=True)
        lines = (
            self._line(image, {"dataset": sample.dataset, "id": sample.id, "place": place})
            for sample, images in shown
            for place, image in enumerate(images)
        )
        append_lines(self.path, lines)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table of all processes' images."""
        trainer.strategy.barrier("thumbnails")
        if not trainer.is_global_zero:
            return
        run = RunDirectory(trainer.default_root_dir)
        paths = [run.thumbnail_lines(rank, trainer.world_size) for rank in range(trainer.world_size)]
        table = thumbnails_table(json.loads(line) for path in paths for line in whole_lines(path))
        write_atomically(run.thumbnails, table)
        for path in paths:
            path.unlink()

    def _line(self, image: Image.Image, key: dict[str, Any]) -> str:
        """The line of an image: which question shows it and, at its first occurrence, its bytes."""
        content = thumbnail(image, self.longest_side)
        digest = hashlib.sha256(content).hexdigest()
        known = digest in self._written
        self._written.add(digest)
        record = {"digest": digest, "shown": key} | ({} if known else {"image": b64encode(content).decode()})
        return json.dumps(record, ensure_ascii=False)


def thumbnail(image: Image.Image, longest_side: int) -> bytes:
    """An image as WebP, no side longer than `longest_side` pixels."""
    small = image.convert("RGB")
    small.thumbnail((longest_side, longest_side))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()


def thumbnails_table(lines: Iterable[dict[str, Any]]) -> bytes:
    """Parquet of what `WriteThumbnails` appends: ``digest``, ``shown`` and, where it first occurs, ``image``."""
    images: dict[str, str] = {}
    shown: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if "image" in line:
            images.setdefault(line["digest"], line["image"])
        shown.setdefault(line["digest"], []).append(line["shown"])
    rows = [{"image": b64decode(image), "shown": shown[digest]} for digest, image in images.items()]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), file)
    return file.getvalue()


def read_thumbnails(directory: Path) -> Iterator[tuple[bytes, list[tuple[str, str, int]]]]:
    """The WebP images of a run, each with the questions that show it: data set, id, place; none without the file.

    Raises:
        DataError: if the file is no such table.
    """
    path = RunDirectory(directory).thumbnails
    if not os.path.lexists(path):
        return
    try:
        rows = pq.read_table(io.BytesIO(regular_bytes(path)), schema=_SCHEMA).to_pylist()
        found = [
            (row["image"], [(each["dataset"], each["id"], each["place"]) for each in row["shown"]]) for row in rows
        ]
        if any(image is None or None in (value for use in uses for value in use) for image, uses in found):
            raise TypeError
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        why = "a value is missing" if isinstance(error, TypeError) else reason(error)
        raise DataError(
            f"{path} holds no thumbnails that can be read ({why}). Test the run again, or "
            "delete this file for a report without its pictures."
        ) from error
    yield from found
