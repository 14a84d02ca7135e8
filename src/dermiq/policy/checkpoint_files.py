"""Checkpoint files: read after their checksums and content are verified, and refused in one sentence otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from dermiq.programs.exits import reason
from dermiq.schema import TrainingError

_INSTEAD = "Pass another one, or start a new run from the adapter/ beside it with --model.backbone.adapter_path."
_FOLDER = 0x10  # DOS attribute of an entry: torch reads nothing of such a one, and returns uninitialised memory
_FORM: dict[str, Any] = {  # the entries that every command needs
    "pytorch-lightning_version": str,
    "state_dict": dict,
    "loops": dict,
    "dermiq": {
        "stage": str,
        "random": {"torch": Tensor, "python": tuple, "numpy": tuple},
        "gradients": dict,
    },
}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint that DermIQ has written, its tensors in main memory.

    Checksums come first: torch ignores them, and would load other weights from a file with one flipped bit.

    Args:
        path: of the file; only tensors and plain values are unpickled.

    Raises:
        TrainingError: if the file is missing, damaged, incomplete, or of another program.
    """
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()
            marked = any(entry.external_attr & _FOLDER for entry in archive.infolist())
        if damaged is not None or marked:
            raise BadZipFile(f"the checksum of {damaged} is wrong" if damaged else "an entry is marked as a folder")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # junk makes an unpickler fail in any way
        raise TrainingError(f"The checkpoint {path} cannot be read ({reason(error)}). {_INSTEAD}") from error
    if not isinstance(checkpoint, dict) or "dermiq" not in checkpoint:
        raise TrainingError(f"This checkpoint was not written by DermIQ: {path}. Pass one of this run's checkpoints/.")
    refuse_misfit(_FORM, checkpoint, f"The checkpoint {path}")
    weights: dict[Any, Any] = checkpoint["state_dict"]
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()):
        raise TrainingError(f"The checkpoint {path} holds something else than weights in state_dict. {_INSTEAD}")
    return checkpoint


def best_checkpoint(root: Path) -> Path:
    """A run's best checkpoint, by the latest record of a `ModelCheckpoint` with a `monitor`.

    Args:
        root: the run's directory.

    Raises:
        TrainingError: if no callback records a best one, or its file is gone.
    """
    records = []
    for file in sorted(root.rglob("*.ckpt")):
        checkpoint = read_checkpoint(file)
        for state in checkpoint.get("callbacks", {}).values():
            if best := isinstance(state, dict) and state.get("best_model_path"):
                # Of the files of one step, the best one itself was written last.
                records.append((checkpoint.get("global_step", 0), Path(best).name == file.name, best))
    if not records:
        raise TrainingError(
            f"The run {root} keeps no best checkpoint: --ckpt_path=last is its last one. To keep the best one, add "
            "a lightning.pytorch.callbacks.ModelCheckpoint with monitor and mode to --trainer.callbacks."
        )
    *_, best = max(records)
    found = Path(best) if Path(best).is_file() else next(root.rglob(Path(best).name), None)
    if found is None:
        raise TrainingError(f"The best checkpoint of the run {root}, {best}, is gone. Use --ckpt_path=last.")
    return found


def refuse_misfit(form: Any, content: Any, where: str) -> None:
    """Refuse nested mappings that lack an entry, or have one of another type.

    Args:
        form: name -> form of the entry: a type, a value of the right type, a nested mapping, or None for anything.
        content: may have other entries, too.
        where: a name of the content, with which the error begins.

    Raises:
        TrainingError: naming the first entry that is missing or of another type.
    """
    wrong = _misfit(form, content, "")
    if wrong is not None:
        raise TrainingError(f"{where} is incomplete: {wrong}. {_INSTEAD}")


def _misfit(form: Any, content: Any, path: str) -> str | None:
    """The first entry that is missing or of another type, in words; None if there is none."""
    kind = form if isinstance(form, type) else type(form)
    if form is not None and not isinstance(content, kind):
        return f"{path.strip('/')} is a {type(content).__name__} and no {kind.__name__}"
    if isinstance(form, dict):
        for name, part in form.items():
            if name not in content:
                return f"it lacks {path}{name}"
            if (wrong := _misfit(part, content[name], f"{path}{name}/")) is not None:
                return wrong
    return None
