"""Run the study, or write its page from records: ``python -m study``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dermiq.programs.arguments import Program
from dermiq.programs.exits import exit_codes
from dermiq.schema import DataError, DermIQError
from dermiq.tiny import write_tiny_vlm
from dermiq.trainer.exclusive_run import Lock
from study.plan import FULL, ROOT, Study, read_study
from study.pool import Board, carry_out
from study.record import read_records, write_records

RECORDS, PAGE = "records.jsonl", "study.md"


def main(args: Sequence[str] | None = None) -> None:
    """Carry the study out and publish it."""
    options = _parser().parse_args(args)
    console, write_page = Console(), _page_writer()
    values = {"model": str(options.out / "tiny"), "data": str(options.data)}
    study = read_study(options.config, options.scale, values)
    if not options.page_only:
        study = _with_data(study, options.data, console)
    board = Board(study, options.out / options.scale)
    if options.page_only:
        board.take_up()
    else:
        with Lock(board.root):
            write_tiny_vlm(options.out / "tiny")
            carry_out(board, options.jobs, console)
    records, page = options.publish / RECORDS, options.publish.parent / PAGE
    if board.records:
        write_records(records, board.records.values())
    write_page(study.content, read_records(records), page, page.parent / "images")
    console.print(f"Records: {records}\nPage: {page}", highlight=False)


def _page_writer() -> Callable[..., Any]:
    try:
        from study.page import write_page
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise DermIQError('The page\'s pictures need matplotlib. Install it: pip install -e ".[study]"') from error
    return write_page


def _parser() -> argparse.ArgumentParser:
    parser = Program(
        prog="python -m study",
        description="Run the study and write its page. Started again, it goes on from the runs that are finished.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=ROOT / "study" / "study.yaml", help="the study's file")
    parser.add_argument("--scale", default=FULL, help="full, or one of the file's scales")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, one core each")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="where the runs have their directories")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder that holds ham10000/")
    publish = "the folder of the records; page and pictures go beside it"
    parser.add_argument("--publish", type=Path, default=Path("runs/study/full/study"), help=publish)
    parser.add_argument(
        "--page-only",
        action="store_true",
        help="run nothing: publish the runs that are finished, or write the page again",
    )
    return parser


def _with_data(study: Study, data: Path, console: Console) -> Study:
    """The study without the experiments and the tuning whose photographs are missing."""
    absent = {
        name
        for name, testbed in study.content["testbeds"].items()
        if "needs" in testbed and not (data / testbed["needs"]).is_dir()
    }
    for name in absent:
        needed = data / study.content["testbeds"][name]["needs"]
        console.print(f"[yellow]No {needed}: left out is what needs it. Name the folder with --data.[/]")
    content = dict(study.content)
    content["tuning"] = {name: part for name, part in content["tuning"].items() if name not in absent}
    content["experiments"] = {
        name: part for name, part in content["experiments"].items() if part["testbed"] not in absent
    }
    if not content["experiments"]:
        raise DataError("The study has no experiment left to run.")
    return Study(content, study.values)


if __name__ == "__main__":
    with exit_codes():
        main()
