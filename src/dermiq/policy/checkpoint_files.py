"""Checkpoint files, read with suspicion: whatever is damaged, foreign or incomplete ends in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from dermiq.programs.exits import reason
from dermiq.schema import TrainingError

_INSTEAD = "Pass another one, or start a new run from the adapter/ beside it with --model.backbone.adapter_path."
_FOLDER = 0x10  # of which torch reads nothing, and returns memory as it was
_FORM: dict[str, Any] = {  # what validate, test and predict need, too
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
    """A checkpoint of ours, its tensors in main memory.

    The archive's checksums come first: torch does not look at them, and would load other weights out of a file in which
    a single bit has flipped.

    Args:
        path: of the file; nothing is built of it but tensors and plain values.

    Raises:
        TrainingError: if the file is missing, damaged, of another program, or lacks what each of ours has.
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
    """The checkpoint that the last word of a `ModelCheckpoint` with a `monitor` calls the best one of a run.

    Args:
        root: the run's directory.

    Raises:
        TrainingError: if none keeps a best one, or it is gone.
    """
    words = []
    for file in sorted(root.rglob("*.ckpt")):
        checkpoint = read_checkpoint(file)
        for state in checkpoint.get("callbacks", {}).values():
            if best := isinstance(state, dict) and state.get("best_model_path"):
                # Of the files of one step, the best one itself is the last that was written.
                words.append((checkpoint.get("global_step", 0), Path(best).name == file.name, best))
    if not words:
        raise TrainingError(
            f"The run {root} keeps no best checkpoint: --ckpt_path=last is its last one. To keep the best one, add "
            "a lightning.pytorch.callbacks.ModelCheckpoint with monitor and mode to --trainer.callbacks."
        )
    *_, best = max(words)
    found = Path(best) if Path(best).is_file() else next(root.rglob(Path(best).name), None)
    if found is None:
        raise TrainingError(f"The best checkpoint of the run {root}, {best}, is gone. Use --ckpt_path=last.")
    return found


def refuse_misfit(form: Any, content: Any, where: str) -> None:
    """Make sure that nested mappings have the entries that they need, of the right types.

    Args:
        form: name -> its own form, as deep as need be: a type, or a value of the right one; None allows everything.
        content: may have other entries, too.
        where: what the content is, to begin the error with.

    Raises:
        TrainingError: naming the first entry that is not there, or is of another type.
    """
    wrong = _misfit(form, content, "")
    if wrong is not None:
        raise TrainingError(f"{where} is incomplete: {wrong}. {_INSTEAD}")


def _misfit(form: Any, content: Any, path: str) -> str | None:
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
