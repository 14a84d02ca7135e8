"""Keep correct sampled answers for rejection-sampling fine-tuning (RAFT)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from dermiq.files import ResumableLines, Row, whole_lines
from dermiq.modules import CandidateModule
from dermiq.modules.candidates import CandidateOutput, other_policy
from dermiq.prompts import parse
from dermiq.ranges import check_numbers
from dermiq.run_directory import RunDirectory
from dermiq.schema import AcceptedAnswers, Sample, TrainingError

_FIELDS: Mapping[str, type] = {"id": str, "target": str, "sampled": int, "right": int, "accepted": list}


class WriteAccepted(Callback):
    """Keeps the correct answers of `CandidateModule` in the run's directory, for `dermiq.datamodules.sources.Accepted`.

    An answer is kept if it has the structure asked for, the module's rewards call it correct (the outcome term is 1
    and every gate is open), and no answer to the same question before it has the same reasoning. ``accepted.jsonl``
    has a header, then one line per question as batches finish, also for those without a correct answer, and the same
    command resumes it.

    Args:
        limit: answers kept of one question, the first ones sampled; None keeps all.

    Raises:
        ValueError: if the limit is below 1.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        check_numbers(self, limit="[1, inf)")
        self._done: dict[str, AcceptedAnswers] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the file, or resume it.

        Raises:
            TrainingError: if there is more than one process, the module samples no candidates or shows facts, or the
                file is damaged or of another policy or other settings.
        """
        if not isinstance(pl_module, CandidateModule):
            raise TrainingError("WriteAccepted needs candidates: set --model=dermiq.modules.CandidateModule.")
        if pl_module.retriever is not None:
            raise TrainingError("WriteAccepted keeps what the policy finds without help: leave out --model.retriever.")
        if trainer.world_size > 1:
            raise TrainingError("Accepted answers are written by one process: pass --trainer.devices=1.")
        header = pl_module.policy | pl_module.settings | {"limit": self.limit}
        del header["adapter"]  # a directory, which may move; the weights are known by their hash
        self.file = ResumableLines(RunDirectory(trainer.default_root_dir).accepted, header, _read, other_policy)
        if rows := self.file.rows:
            rank_zero_info(f"{self.file.path} holds the answers to {len(rows)} questions already: going on from there.")
        self._done = {row["id"]: row for row in self.file.rows}
        pl_module.done = self._done

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Add a line for each question of the batch.

        Raises:
            TrainingError: if the file holds answers for another target under the id of a sample.
        """
        assert isinstance(pl_module, CandidateModule)
        samples = {sample.id: sample for sample in batch["samples"]}
        for name, sample in samples.items():
            if name in self._done and self._done[name]["target"] != sample.target:
                raise TrainingError(
                    f"{self.file.path} holds answers to sample {name!r} for the target {self._done[name]['target']!r}, "
                    f"not {sample.target!r}: the data have changed since. Use a new --trainer.default_root_dir."
                )
        output: CandidateOutput = outputs
        new = [
            self._judged(pl_module, samples[record["id"]], [one["completion"] for one in record["candidates"]])
            for record in output["records"]
            if record["id"] not in self._done
        ]
        self.file.append(new)
        self._done.update({row["id"]: row for row in new})

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what was kept.

        Raises:
            TrainingError: if no answer was correct.
        """
        rows = self._done.values()
        sampled, right = sum(row["sampled"] for row in rows), sum(row["right"] for row in rows)
        kept = [len(row["accepted"]) for row in rows if row["accepted"]]
        if not kept:
            raise TrainingError(
                f"None of {sampled} answers to {len(rows)} questions was right, so there is nothing to learn from. "
                "Start from a policy that answers in structure (a warm start), or raise --model.candidates, in a new "
                "--trainer.default_root_dir."
            )
        rank_zero_info(
            f"{right} of {sampled} answers to {len(rows)} questions were right. Kept {sum(kept)} that differ, to "
            f"{len(kept)} questions, in {self.file.path}."
        )

    def _judged(self, module: CandidateModule, sample: Sample, completions: list[str]) -> AcceptedAnswers:
        """The line of a question."""
        answers = [parse(completion) for completion in completions]
        correct = module.rewards([answers], [sample]).correct[0].tolist()
        right = [answer for answer, yes in zip(answers, correct, strict=True) if yes and answer.well_formed]
        distinct: dict[str, str] = {}
        for answer in right:
            distinct.setdefault(" ".join(answer.think.split()), answer.text)
        kept = list(distinct.values())[: self.limit]
        return {
            "id": sample.id,
            "target": sample.target,
            "sampled": len(answers),
            "right": len(right),
            "accepted": kept,
        }


def _read(path: Path) -> tuple[Row, list[AcceptedAnswers]]:
    """Header and rows of the file.

    Raises:
        TrainingError: if a line is damaged.
    """
    first, *lines = whole_lines(path) or [""]
    header = _row(first, f"{path}, line 1")
    return header, [_row(line, f"{path}, line {number}", _FIELDS) for number, line in enumerate(lines, start=2)]


def _row(line: str, where: str, fields: Mapping[str, type] = MappingProxyType({})) -> Any:
    """The object in a line of the file.

    Raises:
        TrainingError: if it is none, or lacks a field.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not all(isinstance(row.get(name), kind) for name, kind in fields.items()):
        raise TrainingError(f"{where} is damaged. Delete the line (with the first one, the file), and run again.")
    return row
