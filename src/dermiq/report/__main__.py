"""Put tested runs side by side: ``python -m dermiq.report compare RUN… [--out FILE]``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dermiq.cli import exit_codes
from dermiq.files import write_atomically
from dermiq.report.compare import compare
from dermiq.report.runs import read_run
from dermiq.report.tables import show, to_csv, to_json, to_markdown

FORMATS = {".md": to_markdown, ".csv": to_csv, ".json": to_json}
_EPILOG = """\
RUN is a directory in which `python cli.py test` left metrics.json and predictions.parquet. The other runs are compared
with the first one on the samples that all were tested on. What each number means: docs/evaluation.md.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m dermiq.report", description="Reports on tested runs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser(
        "compare", help="runs side by side, with paired tests", description=compare.__doc__, epilog=_EPILOG
    )
    one.add_argument("first", type=Path, metavar="RUN", help="what the others are compared with")
    one.add_argument("others", type=Path, nargs="+", metavar="RUN", help="further runs")
    one.add_argument("--out", type=_format, metavar="FILE", help=f"also write it: {', '.join(FORMATS)}")
    options = parser.parse_args(args)
    directories = [options.first, *options.others]
    comparison = compare([read_run(*each) for each in zip(directories, names(directories), strict=True)])
    console = Console()
    show(comparison, console)
    if options.out is not None:
        write_atomically(options.out, FORMATS[options.out.suffix](comparison))
        console.print(f"Wrote {options.out}.", soft_wrap=True, highlight=False)


def names(directories: Sequence[Path]) -> list[str]:
    """What tells runs apart: their paths, without the directories that all lie in.

    >>> names([Path("runs/grpo"), Path("runs/old/sft")])
    ['grpo', 'old/sft']
    """
    whole = [directory.resolve() for directory in directories]
    above = os.path.commonpath([directory.parent for directory in whole])
    return [str(directory.relative_to(above)) for directory in whole]


def _format(text: str) -> Path:
    if Path(text).suffix not in FORMATS:
        raise argparse.ArgumentTypeError(f"{text}: the file's ending says what to write, one of {', '.join(FORMATS)}")
    return Path(text)


if __name__ == "__main__":
    with exit_codes():
        main()
