"""Cache of a frozen reference's log-probs on disk: computed once for all epochs and runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dermiq.files import Changes, ResumableLines, Row, whole_lines
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import PreferenceBatch, pairs_of
from dermiq.policy.digests import base_digest, digest, reference_digest
from dermiq.schema import TrainingError

_REMEDY = "Delete or rename the file, or give --model.reference_cache another path."


class ReferenceCache:
    """A JSONL file: the reference's fingerprint, then one line per pair with the log-probs of both completions.

    Lines are appended whole, so that a killed run leaves a file that the next one reads; numbers come back as
    the float32 that they were. One process at a time may use a file.

    Args:
        path: of the file; created where it is missing.
        made_by: the `fingerprint` of the reference.

    Raises:
        TrainingError: if the file is no such cache, or another reference filled it.
    """

    def __init__(self, path: Path, made_by: dict[str, str]) -> None:
        header = {"reference": made_by}
        try:
            self._file = ResumableLines(path, header, _read, _other_reference)
            rows = self._file.rows
            self._known = {row["pair"]: (float(row["chosen"]), float(row["rejected"])) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} is no cache of reference log-probs ({error!r}). {_REMEDY}") from error

    def holds(self, keys: Sequence[str]) -> bool:
        """True if all of the pairs are there."""
        return all(key in self._known for key in keys)

    def add(self, keys: Sequence[str], logprobs: Tensor) -> None:
        """Keep the log-probs [2, B] of those pairs that are not there yet."""
        rows = dict(zip(keys, logprobs.T.tolist(), strict=True))
        new = {key: (row[0], row[1]) for key, row in rows.items() if key not in self._known}
        self._file.append({"pair": key, "chosen": row[0], "rejected": row[1]} for key, row in new.items())
        self._known |= new

    def logprobs(self, keys: Sequence[str]) -> Tensor:
        """Log-probs [2, B] float32 of whole completions: chosen, then rejected."""
        return torch.tensor([self._known[key] for key in keys], dtype=torch.float32).T


def pair_keys(batch: PreferenceBatch) -> list[str]:
    """Keys of the pairs of a preference batch: hashes of messages, pixels and completions."""
    keys = []
    for sample, messages, images in zip(pairs_of(batch), batch["messages"], batch["images"], strict=True):
        parts = [json.dumps([messages, sample.chosen, sample.rejected]).encode()]
        parts += [part for image in images for part in (repr((image.mode, image.size)).encode(), image.tobytes())]
        keys.append(digest(parts))
    return keys


def fingerprint(backbone: VLMBackbone, precision: str) -> dict[str, str]:
    """Fingerprint of a loaded backbone's reference: aspect -> its value, or a hash of it.

    Args:
        backbone: a loaded backbone.
        precision: of the trainer, in which the reference runs.
    """
    tokenizer, images = backbone.processor.tokenizer, backbone.processor.image_processor
    texts = [json.dumps(sorted(tokenizer.get_vocab().items())), str(backbone.processor.chat_template)]
    return {
        "model": backbone.model_id,
        "config": digest([backbone.vlm.config.to_json_string().encode()]),
        "precision": f"{backbone.vlm.dtype}{' in 4-bit' if backbone.load_in_4bit else ''} under {precision}",
        "base weights": base_digest(backbone),
        "adapter": reference_digest(backbone),
        "processor": digest(text.encode() for text in [*texts, images.to_json_string()]),
    }


def _read(path: Path) -> tuple[Row, list[Row]]:
    header, *rows = [json.loads(line) for line in whole_lines(path)] or [{}]
    dict(header["reference"])
    return header, rows


def _other_reference(path: Path, changes: Changes) -> TrainingError:
    changed = sorted(f"{name.removeprefix('reference.')} {before} -> {now}" for name, (before, now) in changes.items())
    return TrainingError(
        f"The log-probs in {path} are of another reference than this run's: {'; '.join(changed)}. {_REMEDY}"
    )
