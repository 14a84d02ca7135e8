"""`python -m dermiq.kg`: build, check, ask and draw the knowledge graph."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import track

from dermiq.kg.card import describe
from dermiq.kg.drawing import neighbourhood_svg
from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.importing import enrich
from dermiq.kg.loading import ONTOLOGY, load_graph
from dermiq.kg.ontology import read_bytes, read_graph
from dermiq.kg.questions import QUESTION_TYPES
from dermiq.kg.records import as_record, as_text
from dermiq.kg.retrieval import Retriever
from dermiq.kg.scorer import KGScorer
from dermiq.kg.tables import read_tables
from dermiq.kg.validation import validate
from dermiq.kg.writer import to_rdf_xml
from dermiq.schema import DermIQError, KnowledgeError

CONSOLE = Console(stderr=True)


def build(options: argparse.Namespace) -> int:
    """Turn the source tables into the OWL file."""
    graph = read_tables()
    errors = _report(graph, "the source tables")
    if not errors:
        options.out.write_text(to_rdf_xml(graph), encoding="utf-8")
        print(f"Wrote {options.out}: {_size(graph)}.")
    return errors


def check(options: argparse.Namespace) -> int:
    """Say what is wrong with an ontology."""
    return _report(read_graph(read_bytes(options.file), str(options.file)), str(options.file))


def _report(graph: KnowledgeGraph, name: str) -> int:
    findings = validate(graph)
    for finding in findings:
        print(finding)
    errors = sum(finding.error for finding in findings)
    print(f"{name}: {_size(graph)}; {errors} errors, {len(findings) - errors} warnings.")
    return 1 if errors else 0


def _size(graph: KnowledgeGraph) -> str:
    return f"{len(graph.conditions)} conditions, {len(graph.facts)} facts, {len(graph.concepts)} concepts"


def list_conditions(options: argparse.Namespace) -> int:
    """Name every condition."""
    for concept in sorted(_graph(options).conditions, key=lambda concept: concept.label):
        print(concept.label)
    return 0


def import_(options: argparse.Namespace) -> int:
    """Add synonyms, definitions and xrefs of other ontologies."""
    sources = [path for path in (options.doid, options.symp) if path]
    if not sources:
        raise KnowledgeError("Nothing to import: name a file with --doid or --symp.")
    with CONSOLE.status("Reading …"):
        graph, enrichment = enrich(_graph(options), sources)
    options.out.write_text(to_rdf_xml(graph), encoding="utf-8")
    print(enrichment)
    print(f"Wrote {options.out}: {_size(graph)}.")
    return 0


def score(options: argparse.Namespace) -> int:
    """Judge answers, of a file or of the command line."""
    scorer = KGScorer(options.ontology, options.merge)
    if options.input is None:
        if options.condition is None or options.answer is None:
            raise KnowledgeError("Nothing to score: give --condition and --answer, or --input answers.jsonl.")
        result = scorer.score(options.answer, options.condition, options.question_type)
        print(as_text(result, scorer.graph, options.answer))
        return 0
    rows = list(_rows(options.input))
    with _output(options.output) as output:
        for number, row in track(rows, "Scoring", console=CONSOLE, disable=not CONSOLE.is_terminal):
            try:
                result = scorer.score(row["answer"], row["condition"], row.get("question_type"))
            except DermIQError as error:
                raise KnowledgeError(f"{options.input}, line {number}: {error}") from error
            record = row | as_record(result, scorer.graph, row["answer"])
            output.write(json.dumps(record, ensure_ascii=False) + "\n")
    return 0


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows of a JSONL file, each with a condition and an answer."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KnowledgeError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise KnowledgeError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("condition", "answer")):
            raise KnowledgeError(f"{path}, line {number}: needs the texts 'condition' and 'answer'.")
        yield number, row


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """A file to write, or the terminal, which is left open."""
    if path is None:
        yield sys.stdout
    else:
        with path.open("w", encoding="utf-8") as file:
            yield file


def retrieve(options: argparse.Namespace) -> int:
    """Find the facts that answer a question."""
    retriever = Retriever(options.ontology, options.merge, options.budget)
    passages = retriever.retrieve(options.question, options.condition or ())
    for passage in passages:
        print(f"{passage.sentence}\n    {passage.citation}")
    if not passages:
        print("The question names no condition that the knowledge graph knows.", file=sys.stderr)
    return 0 if passages else 1


def card(options: argparse.Namespace) -> int:
    """Describe a condition."""
    print(describe(_graph(options), options.condition))
    return 0


def draw(options: argparse.Namespace) -> int:
    """Draw a condition's neighbourhood."""
    options.out.write_text(neighbourhood_svg(_graph(options), options.condition), encoding="utf-8")
    print(f"Wrote {options.out}.")
    return 0


def _graph(options: argparse.Namespace) -> KnowledgeGraph:
    return load_graph(options.ontology, options.merge)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m dermiq.kg", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("--ontology", type=Path, help="an OWL file in place of the one that comes with DermIQ")
    source.add_argument("--merge", type=Path, action="append", default=[], help="an OWL file to lay on top; repeatable")

    def command(name: str, run: Callable[[argparse.Namespace], int], *parents: argparse.ArgumentParser) -> Any:
        one = commands.add_parser(name, help=run.__doc__, description=run.__doc__, parents=list(parents))
        one.set_defaults(run=run)
        return one

    one = command("build", build)
    one.add_argument("--out", type=Path, default=ONTOLOGY, help="where to write it (default: into the package)")
    command("validate", check).add_argument("file", type=Path, help="an OWL file, RDF/XML, plain or gzipped")
    command("list", list_conditions, source)
    one = command("import", import_, source)
    one.add_argument("--doid", type=Path, help="the Disease Ontology, OWL, plain or gzipped")
    one.add_argument("--symp", type=Path, help="the Symptom Ontology")
    one.add_argument("--out", type=Path, required=True, help="the enriched OWL file")
    one = command("score", score, source)
    one.add_argument("--input", type=Path, help="JSONL with the fields condition and answer (question_type optional)")
    one.add_argument("--output", type=Path, help="JSONL with the scores and claims added (default: the terminal)")
    one.add_argument("--condition", help="the condition that the answer is about")
    one.add_argument("--answer", help="one answer, judged and explained")
    one.add_argument("--question-type", choices=sorted(QUESTION_TYPES), help="what the answer had to tell")
    one = command("retrieve", retrieve, source)
    one.add_argument("question", help='such as "How is scabies treated?"')
    one.add_argument("--condition", action="append", help="a condition in view; repeatable")
    one.add_argument("--budget", type=int, default=200, help="tokens at most (default: %(default)s)")
    command("describe", card, source).add_argument("condition", help="its name, a synonym or an identifier")
    one = command("graph", draw, source)
    one.add_argument("condition", help="its name, a synonym or an identifier")
    one.add_argument("--out", type=Path, required=True, help="the SVG file")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if all is well, 1 if something was found wanting, 2 if it could not be done."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except DermIQError as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:  # such as `… | head`
        sys.stdout = open(os.devnull, "w")
        return 0
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
