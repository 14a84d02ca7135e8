"""From the candidates of predict to ``preferences.jsonl``: kept batch by batch, and paired at the end."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image

from dermiq.files import append_lines, whole_lines, write_atomically
from dermiq.kg import PairMaker
from dermiq.kg.candidates import read_candidates, write_pairs
from dermiq.modules import CandidateModule
from dermiq.modules.candidates import CandidateOutput, refuse_other
from dermiq.schema import TrainingError

CANDIDATES, PREFERENCES, IMAGES = "candidates.jsonl", "preferences.jsonl", "images"


class WritePreferences(Callback):
    """Keeps the candidates of `CandidateModule` and forms preference pairs of them, all in the run's directory.

    ``candidates.jsonl`` grows by whole lines as batches finish, and the same command goes on where it stopped.
    ``preferences.jsonl`` is written at the end, of all candidates in the file. Images that are no files (the phantom
    draws them) are kept as PNG in ``images/``; paths in both files are relative to them.

    Args:
        pairs: how pairs are formed; None takes the defaults of `dermiq.kg.PairMaker`.
    """

    def __init__(self, pairs: PairMaker | None = None) -> None:
        self.pairs = PairMaker() if pairs is None else pairs
        self._asked: dict[str, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the file where it was left.

        Raises:
            TrainingError: if there is more than one process, the module samples no candidates, or the file is of
                another policy or other settings, saying which.
            KnowledgeError: if the file is damaged, naming the line.
        """
        if not isinstance(pl_module, CandidateModule):
            raise TrainingError("WritePreferences needs candidates: set --model=dermiq.modules.CandidateModule.")
        if trainer.world_size > 1:
            raise TrainingError("Candidates are written by one process: pass --trainer.devices=1.")
        self.root = Path(trainer.default_root_dir)
        header = json.loads(json.dumps({"policy": pl_module.policy, **pl_module.settings}, default=str))
        path = self.root / CANDIDATES
        self._asked = {}
        if path.is_file() and whole_lines(path):
            before, records = read_candidates(path)
            _refuse_other(path, before, header)
            self._asked = {record["id"]: _asked(record["messages"], record["target"]) for record in records}
            rank_zero_info(f"{path} holds the candidates of {len(records)} questions already: going on from there.")
        else:
            append_lines(path, [_line(header)])
        pl_module.done = self._asked

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Add the batch's candidates to the file, and its images beside it.

        Raises:
            TrainingError: if the file holds candidates for another question under the id of a sample.
        """
        images = dict(zip((sample.id for sample in batch["samples"]), batch["images"], strict=True))
        for sample, messages in zip(batch["samples"], batch["messages"], strict=True):
            if self._asked.get(sample.id, _asked(messages, sample.target)) != _asked(messages, sample.target):
                raise TrainingError(
                    f"{self.root / CANDIDATES} holds candidates of sample {sample.id!r} for another question or "
                    "target: the data or the system prompt have changed since. Use a new --trainer.default_root_dir."
                )
        output: CandidateOutput = outputs
        new = [record for record in output["records"] if record["id"] not in self._asked]
        for record in new:
            shown = zip(record["images"], images[record["id"]], strict=True)
            record["images"] = [self._keep(reference, image) for reference, image in shown]
        append_lines(self.root / CANDIDATES, map(_line, new))
        self._asked |= {record["id"]: _asked(record["messages"], record["target"]) for record in new}

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Form the pairs.

        Raises:
            KnowledgeError: if none comes of the candidates, saying what to change.
        """
        pairs = write_pairs(self.root / CANDIDATES, self.root / PREFERENCES, self.pairs)
        rank_zero_info(f"{pairs}\nWrote {self.root / PREFERENCES}.")

    def _keep(self, reference: str, image: Image.Image) -> str:
        """The path of an image relative to the run's directory; written there if it is no file."""
        if Path(reference).is_file():
            return os.path.relpath(Path(reference).resolve(), self.root.resolve())
        plain = re.fullmatch(r"\w[\w.-]*\.png", reference)
        name = reference if plain else hashlib.sha256(reference.encode()).hexdigest()[:16] + ".png"
        content = io.BytesIO()
        image.save(content, "PNG")
        write_atomically(self.root / IMAGES / name, content.getvalue())
        return f"{IMAGES}/{name}"


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _asked(messages: list[dict[str, Any]], target: str) -> str:
    """What a record answers, as a hash."""
    return hashlib.sha256(json.dumps([messages, target]).encode()).hexdigest()


def _refuse_other(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare headers, the adapter's directory aside, which may have moved."""
    there, here = (
        {f"{part}.{name}" if name else part: value for part in header for name, value in _parts(header[part])}
        for header in (before, now)
    )
    there.pop("policy.adapter", None)
    here.pop("policy.adapter", None)
    refuse_other(path, there, here)


def _parts(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else [("", value)]
