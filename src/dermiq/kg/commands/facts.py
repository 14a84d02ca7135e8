"""Commands that show facts: retrieve them for a question, describe or plot a condition."""

from __future__ import annotations

import argparse
import sys

from dermiq.kg.commands.output import written
from dermiq.kg.commands.parsing import WANTING, WELL, Commands, add_file, graph_of
from dermiq.kg.condition_page import describe
from dermiq.kg.diagram import neighbourhood_svg
from dermiq.kg.retrieval import Retriever, as_context
from dermiq.schema import KnowledgeError


def add_to(commands: Commands) -> None:
    """Add these commands to the command line."""
    one = commands.add("retrieve", retrieve, commands.graph)
    one.add_argument("question", help='such as "How is scabies treated?"')
    one.add_argument("--condition", action="append", default=[], help="a condition in view; repeatable")
    one.add_argument("--budget", type=_positive, default=200, help="tokens at most (default: %(default)s)")
    commands.add("describe", show, commands.graph, commands.condition)
    add_file(commands.add("graph", plot, commands.graph, commands.condition), "--out", "the SVG file", required=True)


def retrieve(options: argparse.Namespace) -> int:
    """Find the facts that answer a question."""
    retriever = Retriever(options.ontology, options.merge, options.budget)
    if passages := retriever.retrieve(options.question, options.condition):
        print(as_context(passages))
        return WELL
    if retriever.retrieve(options.question, options.condition, budget=sys.maxsize):
        raise KnowledgeError(f"--budget {options.budget} is too small for a single fact and its source.")
    print("Nothing found: name a condition in the question, or with --condition.", file=sys.stderr)
    return WANTING


def show(options: argparse.Namespace) -> int:
    """Show all that is known of a condition."""
    print(describe(graph_of(options), options.condition))
    return WELL


def plot(options: argparse.Namespace) -> int:
    """Plot a condition and its facts as an SVG diagram."""
    diagram = neighbourhood_svg(graph_of(options), options.condition)
    with written(options.out) as file:
        file.write(diagram)
    print(f"Wrote {options.out}.")
    return WELL


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
