"""Correct answers sampled from a policy, for rejection-sampling fine-tuning (RAFT)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from PIL import Image

from dermiq.datamodules.sources.base import Source
from dermiq.files import whole_lines
from dermiq.prompts import parse
from dermiq.schema import AcceptedAnswers, DataError, Sample

_MEND = "Delete the line and sample again with `predict`, which fills in what is missing."


class Accepted(Source):
    """The samples of a source with the reasoning of a policy's own right answers, one sample per answer.

    `SFTModule` on them is rejection-sampled fine-tuning (Yuan et al., "Scaling relationship on learning mathematical
    reasoning with large language models", 2023, arXiv 2308.01825): learn the answers that were found right, as if
    they were the reference. The first answer to sample ``a`` has the id ``a/0``. What is learned is the answer's
    reasoning and the sample's target in its own words; everything else, group and findings too, is the sample's.
    Samples without a right answer do not occur.

    Args:
        source: the one whose samples the policy answered.
        path: ``accepted.jsonl``, as `dermiq.trainer.accepted_answers.WriteAccepted` writes it; a torn last line
            is left out.
    """

    def __init__(self, source: Source, path: str) -> None:
        self.source, self.path = source, Path(path)
        self._kept: list[tuple[int, str, str]] = []

    def load(self) -> None:
        """Read the source's metadata and the answers.

        Raises:
            DataError: if the file is missing, damaged or without any answer, or its questions are not the source's.
        """
        if self._kept:
            return
        self.source.load()
        places = {sample.id: (place, sample.target) for place, sample in enumerate(self.source)}
        for number, line in enumerate(self._lines(), start=2):  # the header is line 1
            where = f"{self.path}, line {number}"
            name, target, completions = _row(line, where)
            if name not in places:
                raise DataError(
                    f"{where}: the source has no sample {name!r}. Give `Accepted` the source that was answered, as "
                    "`predict` had it."
                )
            place, expected = places[name]
            if expected != target:
                raise DataError(
                    f"{where}: sample {name!r} was answered for the target {target!r}, and the source says "
                    f"{expected!r}. The data have changed since: sample again with `predict`."
                )
            self._kept += [(place, f"{name}/{turn}", _think(text, where)) for turn, text in enumerate(completions)]
        if not self._kept:
            raise DataError(f"{self.path} holds no right answer. Sample more of them, or from a better policy.")

    def __len__(self) -> int:
        """Number of answers."""
        return len(self._kept)

    def __getitem__(self, index: int) -> Sample:
        """One sample with the reasoning of one answer, 0 <= index < len."""
        place, name, think = self._kept[index]
        return replace(self.source[place], id=name, reasoning=think)

    def missing(self) -> list[int]:
        """Indices of the samples whose images are known to be absent."""
        absent = set(self.source.missing())
        return [index for index, (place, _, _) in enumerate(self._kept) if place in absent]

    def image(self, reference: str) -> Image.Image:
        """Open an image by the source.

        Raises:
            DataError: see `open_image`.
        """
        return self.source.image(reference)

    def _lines(self) -> list[str]:
        """The lines after the header."""
        if not self.path.is_file():
            raise DataError(
                f"There is no file {self.path}. `python cli.py predict` with `dermiq.modules.CandidateModule` and "
                "`dermiq.trainer.accepted_answers.WriteAccepted` writes it."
            )
        try:
            return whole_lines(self.path)[1:]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path} cannot be read: {error}.") from error


def _row(line: str, where: str) -> tuple[str, str, list[str]]:
    """Sample, target and answers of a line."""
    try:
        row: AcceptedAnswers = json.loads(line)
        name, target, completions = row["id"], row["target"], row["accepted"]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise DataError(f"{where}: no object with `id`, `target` and `accepted` ({error!r}). {_MEND}") from error
    if not isinstance(completions, list) or not all(isinstance(one, str) for one in (name, target, *completions)):
        raise DataError(f"{where}: `id` and `target` are texts, and `accepted` is a list of texts. {_MEND}")
    return name, target, completions


def _think(completion: str, where: str) -> str:
    answer = parse(completion)
    if not answer.well_formed:
        raise DataError(f"{where}: {completion!r} has not the structure of an answer. {_MEND}")
    return answer.think
