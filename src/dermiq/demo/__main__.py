"""Demo page of a trained policy: ``python -m dermiq.demo [--model DIR_OR_HUB_ID] [--adapter DIR]``."""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from dermiq.cli import LIBRARY_NOISE
from dermiq.demo.policy import Policy, load
from dermiq.demo.reading import Reader
from dermiq.programs.arguments import Program
from dermiq.programs.exits import exit_codes
from dermiq.run_directory import ADAPTER_CONFIG
from dermiq.schema import DataError, DermIQError, ModelError
from dermiq.tiny import write_tiny_vlm

QUICKSTART = Path("runs/quickstart/seed0/dpo/adapter")
_EPILOG = """\
Without --model and --adapter it shows what `make quickstart` has trained. The page is for research; it is no medical
device. It keeps no photograph and no answer, and only this machine can reach it unless --host says otherwise.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    options = _parser().parse_args(args)
    for noise in LIBRARY_NOISE:
        warnings.filterwarnings("ignore", message=noise)
    with TemporaryDirectory(prefix="dermiq-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # nothing is put there, but Gradio would make one for all users
        make_page, served = _page()
        model, adapter = chosen(options.model, options.adapter, Path(folder) / "tiny")
        print(f"Model: {'the tiny one of the quickstart' if model.startswith(folder) else model}")
        print(f"Adapter: {adapter or 'none, this is the model as it was released'}", flush=True)
        policy = Policy(load(model, adapter, options.load_in_4bit), options.max_new_tokens)
        with served(make_page(Reader(policy, options.samples)), options.host, options.port) as address:
            print(f"The page: {address} (Ctrl-C ends it)", flush=True)
            Event().wait()


def _page() -> tuple[Callable[..., Any], Callable[..., Any]]:
    try:
        from dermiq.demo.page import make_page, served
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise DermIQError('The page needs Gradio. Install it: pip install "dermiq[demo]"') from error
    return make_page, served


def chosen(model: str | None, adapter: Path | None, tiny: Path) -> tuple[str, str | None]:
    """The model and the adapter to show.

    Args:
        model: from the command line; None is that of the adapter, else the tiny model, which is written to `tiny`.
        adapter: from the command line; None is none, and without a model that of the quickstart.
        tiny: a directory that does not exist yet.

    Raises:
        DataError: if neither is given and the quickstart was not run.
        ModelError: if the adapter does not say which model it belongs to.
    """
    if model is not None:
        return model, None if adapter is None else str(adapter)
    if adapter is not None:
        return _base_of(adapter), str(adapter)
    if not QUICKSTART.is_dir():
        raise DataError(
            f"There is nothing to show: {QUICKSTART} is not there. Run `make quickstart`, which trains it in some "
            "15 minutes, or name a policy with --model and --adapter."
        )
    write_tiny_vlm(tiny)
    return str(tiny), str(QUICKSTART)


def _base_of(adapter: Path) -> str:
    try:
        return str(json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{adapter} does not say which model it adapts ({error}). --adapter takes the adapter/ of a run; name its "
            "model with --model."
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = Program(prog="python -m dermiq.demo", description=__doc__.split(":")[0], epilog=_EPILOG)
    parser.add_argument("--model", metavar="DIR_OR_HUB_ID", help="an image-text-to-text model (default: the adapter's)")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="the adapter/ of a run")
    parser.add_argument("--load-in-4bit", action="store_true", help="quantise the model (bitsandbytes, on a GPU)")
    parser.add_argument("--samples", type=_positive, default=8, help="answers in the differential (%(default)s)")
    parser.add_argument("--max-new-tokens", type=_positive, default=256, help="of one answer (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (%(default)s: this machine alone)")
    parser.add_argument("--port", type=_positive, default=7860, help="port to serve at (%(default)s)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


if __name__ == "__main__":
    with exit_codes():
        main()
