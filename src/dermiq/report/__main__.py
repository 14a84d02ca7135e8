"""Reports on tested runs: ``python -m dermiq.report RUN… --out DIR``, and ``python -m dermiq.report compare RUN…``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dermiq.files import write_atomically
from dermiq.programs.arguments import Program
from dermiq.programs.exits import exit_codes
from dermiq.report.compare import compare
from dermiq.report.runs import read_run
from dermiq.report.tables import show, to_csv, to_json, to_markdown
from dermiq.report.writing import PAGE, write_report
from dermiq.schema import DataError

FORMATS = {".md": to_markdown, ".csv": to_csv, ".json": to_json}
COMPARE = "compare"
_RUN = "RUN is a directory in which `python cli.py test` left metrics.json and predictions.parquet."
_PAGE_EPILOG = f"""\
{_RUN} How to read the page: docs/report.md. `python -m dermiq.report compare RUN… [--out FILE]` puts runs side by side
in the terminal, with paired tests; its own --help says more.
"""
_COMPARE_EPILOG = f"""\
{_RUN} The other runs are compared with the first one on the samples that all were tested on. What each number means:
docs/evaluation.md.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = sys.argv[1:] if args is None else list(args)
    if arguments[:1] == [COMPARE]:
        _compare(arguments[1:])
    else:
        _page(arguments)


def _page(args: Sequence[str]) -> None:
    parser = Program(
        prog="python -m dermiq.report",
        usage="%(prog)s RUN [RUN ...] --out DIR\n       %(prog)s compare RUN RUN [RUN ...] [--out FILE]",
        description=f"Write one self-contained HTML page about tested runs, DIR/{PAGE}; or compare runs.",
        epilog=_PAGE_EPILOG,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="tested runs, in the order of the stages")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"where to write {PAGE}")
    options = parser.parse_args(args)
    console = Console()
    with console.status("Reading the runs and judging what their answers claim …"):
        page = write_report(options.runs, names(options.runs), options.out)
    console.print(f"Wrote {page}.", soft_wrap=True, highlight=False, markup=False)


def _compare(args: Sequence[str]) -> None:
    parser = Program(prog=f"python -m dermiq.report {COMPARE}", description=compare.__doc__, epilog=_COMPARE_EPILOG)
    parser.add_argument("first", type=Path, metavar="RUN", help="what the others are compared with")
    parser.add_argument("others", type=Path, nargs="+", metavar="RUN", help="further runs")
    parser.add_argument("--out", type=_format, metavar="FILE", help=f"also write it: {', '.join(FORMATS)}")
    options = parser.parse_args(args)
    directories = [options.first, *options.others]
    comparison = compare([read_run(*each) for each in zip(directories, names(directories), strict=True)])
    console = Console()
    show(comparison, console)
    if options.out is not None:
        write_atomically(options.out, FORMATS[options.out.suffix](comparison))
        console.print(f"Wrote {options.out}.", soft_wrap=True, highlight=False)


def names(directories: Sequence[Path]) -> list[str]:
    """Short names of runs: their paths, without the directories that all lie in.

    >>> names([Path("runs/grpo"), Path("runs/old/sft")])
    ['grpo', 'old/sft']

    Raises:
        DataError: if a link leads in a circle.
    """
    try:
        whole = [directory.resolve() for directory in directories]
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to each other
        raise DataError(f"{' or '.join(map(str, directories))} leads nowhere ({error}). Name runs.") from error
    above = os.path.commonpath([directory.parent for directory in whole])
    return [str(directory.relative_to(above)) for directory in whole]


def _format(text: str) -> Path:
    if Path(text).suffix not in FORMATS:
        raise argparse.ArgumentTypeError(f"{text}: the file's ending says what to write, one of {', '.join(FORMATS)}")
    return Path(text)


if __name__ == "__main__":
    with exit_codes():
        main()
