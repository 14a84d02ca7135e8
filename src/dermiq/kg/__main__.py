"""Build, check, query and plot the knowledge graph, and score answers by it."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from dermiq.kg.commands import answers, facts, ontology
from dermiq.kg.commands.parsing import Commands
from dermiq.programs.arguments import Program
from dermiq.programs.exits import exit_codes

_EXAMPLES = """\
examples:
  python -m dermiq.kg describe scabies
  python -m dermiq.kg score --condition scabies --answer "Scabies is caused by a mite. It is not contagious."
  python -m dermiq.kg score --input answers.jsonl --output scores.jsonl
  python -m dermiq.kg retrieve "How is scabies treated?"

exit code: 0 if all is well, 1 if something was found wanting, 2 if it could not be done.
No clinician has reviewed the knowledge graph. It is for research and gives no medical advice.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Program(
        prog="python -m dermiq.kg",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = Commands(top)
    for group in (ontology, answers, facts):
        group.add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 if all is well, 1 if something was found wanting."""
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the terminal cannot show must not stop the work
    return int(options.run(options))


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main())
