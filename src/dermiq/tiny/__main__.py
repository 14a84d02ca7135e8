"""``python -m dermiq.tiny --out DIR [--retrain] [--seed N]``: write the tiny VLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dermiq.programs.arguments import Program
from dermiq.programs.exits import exit_codes
from dermiq.tiny import write_tiny_vlm


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and write the model directory."""
    parser = Program(prog="python -m dermiq.tiny", description="Write the tiny VLM as a model directory.")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    parser.add_argument("--retrain", action="store_true", help="repeat the pre-training (minutes on two cores)")
    parser.add_argument("--seed", type=int, default=0, help="of the pre-training; used with --retrain")
    options = parser.parse_args(arguments)
    write_tiny_vlm(options.out, retrain=options.retrain, seed=options.seed)


if __name__ == "__main__":
    with exit_codes():
        main()
