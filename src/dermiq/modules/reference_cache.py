"""Log-probs of a frozen reference, kept on disk so that they are computed once for all epochs and runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dermiq.files import append_lines, whole_lines
from dermiq.policy.backbone import VLMBackbone
from dermiq.schema import TrainingError

_SAMPLED = 1024


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
        self.path = path
        self._known: dict[str, tuple[float, float]] = {}
        header = json.dumps({"reference": made_by})
        try:
            records = [json.loads(line) for line in whole_lines(path)] or [_begun(path, header)]
            found = dict(records[0]["reference"])
            for row in records[1:]:
                self._known[row["pair"]] = (float(row["chosen"]), float(row["rejected"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{path} is no cache of reference log-probs ({error!r}). Delete or rename the file, or give "
                "--model.reference_cache another path."
            ) from error
        differing = sorted(name for name in found.keys() | made_by.keys() if found.get(name) != made_by.get(name))
        if differing:
            changes = "; ".join(f"{name} {found.get(name)} -> {made_by.get(name)}" for name in differing)
            raise TrainingError(
                f"The log-probs in {path} are of another reference than this run's: {changes}. Delete or rename "
                "the file, or give --model.reference_cache another path."
            )

    def holds(self, keys: Sequence[str]) -> bool:
        """True if all of the pairs are there."""
        return all(key in self._known for key in keys)

    def add(self, keys: Sequence[str], logprobs: Tensor) -> None:
        """Keep the log-probs [2, B] of those pairs that are not there yet."""
        rows = dict(zip(keys, logprobs.T.tolist(), strict=True))
        new = {key: (row[0], row[1]) for key, row in rows.items() if key not in self._known}
        append_lines(
            self.path, [json.dumps({"pair": key, "chosen": row[0], "rejected": row[1]}) for key, row in new.items()]
        )
        self._known |= new

    def logprobs(self, keys: Sequence[str]) -> Tensor:
        """Log-probs [2, B] float32 of whole completions: chosen, then rejected."""
        return torch.tensor([self._known[key] for key in keys], dtype=torch.float32).T


def pair_keys(batch: dict[str, Any]) -> list[str]:
    """What identifies each pair of a preference batch: its messages, pixels and completions."""
    keys = []
    for sample, messages, images in zip(batch["samples"], batch["messages"], batch["images"], strict=True):
        parts = [json.dumps([messages, sample.chosen, sample.rejected]).encode()]
        parts += [part for image in images for part in (repr((image.mode, image.size)).encode(), image.tobytes())]
        keys.append(_digest(parts))
    return keys


def fingerprint(backbone: VLMBackbone, precision: str) -> dict[str, str]:
    """What identifies the reference of a loaded backbone: aspect -> its value, or a hash of it.

    Of each tensor of the base about a thousand evenly spaced elements are hashed, of the reference's adapter all.

    Args:
        backbone: a loaded backbone.
        precision: of the trainer, in which the reference runs.
    """
    base, adapter = _frozen(backbone)
    tokenizer, images = backbone.processor.tokenizer, backbone.processor.image_processor
    texts = [json.dumps(sorted(tokenizer.get_vocab().items())), str(backbone.processor.chat_template)]
    return {
        "model": backbone.model_id,
        "config": _digest([backbone.vlm.config.to_json_string().encode()]),
        "precision": f"{backbone.vlm.dtype}{' in 4-bit' if backbone.load_in_4bit else ''} under {precision}",
        "base weights": _digest(_contents(base, _SAMPLED)),
        "adapter": _digest(_contents(adapter)) if adapter else "none",
        "processor": _digest(text.encode() for text in [*texts, images.to_json_string()]),
    }


def base_digest(backbone: VLMBackbone) -> str:
    """A hash of the base's weights as in `fingerprint`, without those in 4 bits, which devices round differently."""
    base, _ = _frozen(backbone)
    return _digest(_contents({name: value for name, value in base.items() if value.is_floating_point()}, _SAMPLED))


def adapter_digest(backbone: VLMBackbone) -> str:
    """A hash of the reference's adapter."""
    return _digest(_contents(_frozen(backbone)[1]))


def _frozen(backbone: VLMBackbone) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the base, and of the reference's adapter on it."""
    adapters = backbone.adapter_keys()
    frozen = {name: value for name, value in backbone.named_parameters() if not value.requires_grad}
    base = {_plain(name): value.data for name, value in frozen.items() if name not in adapters}
    return base, {name: value.data for name, value in frozen.items() if name in adapters}


def _begun(path: Path, header: str) -> Any:
    """Begin the file with its header, unless it holds something else than a torn one."""
    if path.exists() and not header.encode().startswith(path.read_bytes()):
        raise ValueError("it has no header")
    append_lines(path, [header])
    return json.loads(header)


def _plain(name: str) -> str:
    """A weight's name as it is where no adapter wraps its layer."""
    return name.replace(".base_layer", "").replace(".original_module", "")


def _contents(tensors: dict[str, Tensor], sampled: int | None = None) -> Iterable[bytes]:
    for name, tensor in sorted(tensors.items()):
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
        step = 1 if sampled is None else max(1, tensor.numel() // sampled)
        yield tensor.flatten()[::step].contiguous().view(torch.uint8).cpu().numpy().tobytes()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:32]
