"""Keep sampled candidates, and form preference pairs of them for DPO."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image

from dermiq.files import ResumableLines, write_atomically
from dermiq.kg import PairMaker
from dermiq.kg.candidates import read_candidates, write_pairs
from dermiq.modules import CandidateModule
from dermiq.modules.candidates import CandidateOutput, other_policy
from dermiq.run_directory import RunDirectory
from dermiq.schema import TrainingError


class WritePreferences(Callback):
    """Keeps the candidates of `CandidateModule` and forms preference pairs of them, all in the run's directory.

    ``candidates.jsonl`` grows by whole lines as batches finish, and the same command resumes it. ``preferences.jsonl``
    is written at the end, of all candidates in the file. Images that are no files (the phantom renders them) are kept
    as PNG in ``images/``; paths in both files are relative to them.

    Args:
        pairs: how pairs are formed; None takes the defaults of `dermiq.kg.PairMaker`.
    """

    def __init__(self, pairs: PairMaker | None = None) -> None:
        self.pairs = PairMaker() if pairs is None else pairs
        self._questions: dict[str, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the file, or resume it.

        Raises:
            TrainingError: if there is more than one process, the module samples no candidates, or the file is of
                another policy or other settings, saying which.
            KnowledgeError: if the file is damaged, naming the line.
        """
        if not isinstance(pl_module, CandidateModule):
            raise TrainingError("WritePreferences needs candidates: set --model=dermiq.modules.CandidateModule.")
        if trainer.world_size > 1:
            raise TrainingError("Candidates are written by one process: pass --trainer.devices=1.")
        self.run = RunDirectory(trainer.default_root_dir)
        header = {"policy": pl_module.policy, **pl_module.settings}
        moved = ("policy.adapter",)  # a directory, which may have moved
        self.file = ResumableLines(self.run.candidates, header, read_candidates, other_policy, ignored=moved)
        if rows := self.file.rows:
            rank_zero_info(
                f"{self.file.path} holds the candidates of {len(rows)} questions already: going on from there."
            )
        self._questions = {row["id"]: _question(row["messages"], row["target"]) for row in rows}
        pl_module.done = self._questions

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Add the batch's candidates to the file, and its images beside it.

        Raises:
            TrainingError: if the file holds candidates for another question under the id of a sample.
        """
        images = dict(zip((sample.id for sample in batch["samples"]), batch["images"], strict=True))
        for sample, messages in zip(batch["samples"], batch["messages"], strict=True):
            question = _question(messages, sample.target)
            if self._questions.get(sample.id, question) != question:
                raise TrainingError(
                    f"{self.file.path} holds candidates of sample {sample.id!r} for another question or "
                    "target: the data or the system prompt have changed since. Use a new --trainer.default_root_dir."
                )
        output: CandidateOutput = outputs
        new = [record for record in output["records"] if record["id"] not in self._questions]
        for record in new:
            shown = zip(record["images"], images[record["id"]], strict=True)
            record["images"] = [self._keep(reference, image) for reference, image in shown]
        self.file.append(new)
        self._questions |= {record["id"]: _question(record["messages"], record["target"]) for record in new}

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Form the pairs.

        Raises:
            KnowledgeError: if none comes of the candidates, saying what to change.
        """
        pairs = write_pairs(self.run.candidates, self.run.preferences, self.pairs)
        rank_zero_info(f"{pairs}\nWrote {self.run.preferences}.")

    def _keep(self, reference: str, image: Image.Image) -> str:
        """The path of an image relative to the run's directory; written there if it is no file."""
        if Path(reference).is_file():
            return os.path.relpath(Path(reference).resolve(), self.run.path.resolve())
        plain = re.fullmatch(r"\w[\w.-]*\.png", reference)
        name = reference if plain else hashlib.sha256(reference.encode()).hexdigest()[:16] + ".png"
        content = io.BytesIO()
        image.save(content, "PNG")
        write_atomically(self.run.images / name, content.getvalue())
        return f"{self.run.images.name}/{name}"


def _question(messages: list[dict[str, Any]], target: str) -> str:
    """A hash of what a record answers."""
    return hashlib.sha256(json.dumps([messages, target]).encode()).hexdigest()
