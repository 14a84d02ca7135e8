"""Subcommands with the options that several of them share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.ontology.loading import load_graph
from dermiq.kg.readers.language_model import LanguageModelReader
from dermiq.kg.scorer import KGScorer
from dermiq.programs.arguments import Program
from dermiq.schema import KnowledgeError

WELL, WANTING = 0, 1  # exit codes

Run = Callable[[argparse.Namespace], int]


class Commands:
    """The subcommands of a parser.

    Attributes:
        merge: the option --merge, as a parent of subcommands.
        graph: the options --merge and --ontology, likewise.
        condition: the argument that names a condition, likewise.
        scorer: the options of `graph` and those of a reader, likewise.
    """

    def __init__(self, top: argparse.ArgumentParser) -> None:
        self._subparsers = top.add_subparsers(required=True, metavar="COMMAND", title="commands")
        self.merge = Program(add_help=False)
        self.merge.add_argument(
            "--merge",
            type=Path,
            metavar="FILE",
            action="append",
            default=[],
            help="an OWL file to merge on top; repeatable",
        )
        self.graph = Program(add_help=False, parents=[self.merge])
        add_file(self.graph, "--ontology", "an OWL file in place of the one that comes with DermIQ")
        self.scorer = Program(add_help=False, parents=[self.graph])
        self.scorer.add_argument("--reader", metavar="URL", help="read the claims with the model of a chat server")
        self.scorer.add_argument("--reader-model", metavar="NAME", help="of the model, at the server")
        add_file(self.scorer, "--reader-cache", "JSONL: keeps the model's replies, by text")
        self.condition = Program(add_help=False)
        self.condition.add_argument("condition", help="a name, a synonym or an identifier, such as DOID:8295")

    def add(self, name: str, run: Run, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """A subcommand that calls `run` and returns its exit code; the first line of its docstring is the help."""
        one = self._subparsers.add_parser(name, help=run.__doc__, description=run.__doc__, parents=list(parents))
        one.set_defaults(run=run)
        return one


def add_file(parser: argparse.ArgumentParser, name: str, text: str, required: bool = False) -> None:
    """Add an option that takes the path of a file."""
    parser.add_argument(name, type=Path, metavar="FILE", required=required, help=text)


def scorer_of(options: argparse.Namespace) -> KGScorer:
    """The scorer that the options of `Commands.scorer` describe.

    Raises:
        KnowledgeError: if a model is named without a server, or a server without a model.
    """
    if options.reader is None:
        if options.reader_model or options.reader_cache:
            raise KnowledgeError("--reader-model and --reader-cache go with --reader URL.")
        return KGScorer(options.ontology, options.merge)
    if options.reader_model is None:
        raise KnowledgeError("--reader needs --reader-model: the name of the model at the server.")
    reader = LanguageModelReader(options.reader, options.reader_model, options.reader_cache)
    return KGScorer(options.ontology, options.merge, reader)


def graph_of(options: argparse.Namespace) -> KnowledgeGraph:
    """The knowledge graph that --ontology and --merge name."""
    return load_graph(options.ontology, options.merge)
